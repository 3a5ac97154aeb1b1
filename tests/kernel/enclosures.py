"""Does a ball of the kernel hold the true value? Decided exactly, against python-flint's balls of 200 bits or more.

`points` and `violations` serve the suite (some 10^4 points a function) and benchmarks/kernel.py (10^6).
"""

import math
from collections.abc import Iterator

import numpy as np
from flint import arb, ctx

from mechverify.kernel.core import functions as kernel
from mechverify.kernel.core.arithmetic import Arithmetic, Ball
from mechverify.kernel.core.errors import Rejected
from mechverify.kernel.core.float64 import Float64

FUNCTIONS = {
    "exp": arb.exp, "tanh": arb.tanh, "erf": arb.erf, "sqrt": arb.sqrt, "reciprocal": lambda x: 1 / x,
    "sin": arb.sin, "cos": arb.cos, "log": arb.log, "atan": arb.atan,
}  # fmt: skip
PRECISION = 200
SPAN = 2_300  # bits in which sums and products of a few float64 numbers are exact
OFFSETS = (-1.0, -0.618, 0.0, 0.382, 1.0)  # of the tested points of a ball from its centre, in radii
EXP_REACH = 1e13  # beyond, float64 may not tell the reduced argument
BOUNDED = {"tanh", "erf", "sin", "cos"}  # by 1
POSITIVE, SINGULAR = {"sqrt", "log"}, {"sqrt", "log", "reciprocal"}


# --- points -----------------------------------------------------------------------------------------------------------


def points(name: str, count: int, rng: np.random.Generator) -> np.ndarray:
    """`count` float64 numbers of the function's domain, shuffled: breakpoints and their neighbours (at most half),
    the whole range of float64 in equal shares of each binary order, subnormals, and where the function lives."""
    special = _breakpoints(name)
    special = special[_defined(name, special)]
    special = rng.permutation(special)[: count // 2]
    parts = [special]
    missing = count - len(special)
    while missing > 0:
        drawn = np.concatenate([_anywhere(missing, rng), _subnormal(missing // 8, rng), _local(name, missing, rng)])
        drawn = rng.permutation(drawn[_defined(name, drawn)])[:missing]
        parts.append(drawn)
        missing -= len(drawn)
    return rng.permutation(np.concatenate(parts))


def _defined(name: str, x: np.ndarray) -> np.ndarray:
    inside = np.isfinite(x)
    if name == "exp":
        inside &= np.abs(x) <= EXP_REACH
    if name in SINGULAR:  # nearer to zero float64 has no room for a lower bound, and refuses
        inside &= np.abs(x) > 1e-322
    return inside & (x > 0) if name in POSITIVE else inside


def _breakpoints(name: str) -> np.ndarray:
    """Where a case distinction of the kernel (or of float64) lies, both float64 neighbours, and both signs."""
    powers = 2.0 ** np.arange(-1074, 1024)
    values = [
        np.array([0.0, 0.36, 0.7, 0.8, 1.0, 1.5, 6.5, 40.0, 1e16, 1e300, np.finfo(float).max, 2.2250738585072009e-308]),
        {
            "exp": np.arange(1, 2_200) * (math.log(2) / 2),
            "tanh": np.arange(1, 240) * (math.log(2) / 4),
            "erf": np.sqrt(np.arange(1, 130) * (math.log(2) / 2)),
            "sin": _quarters(),
            "cos": _quarters(),
            "log": np.concatenate([0.7 * powers[1:], 1.5 * powers[1:]]),
        }.get(name, np.empty(0)),
        powers,
    ]
    at = np.concatenate(values)
    with np.errstate(over="ignore"):
        near = np.concatenate([at, np.nextafter(at, -np.inf), np.nextafter(at, np.inf)])
    return np.unique(np.concatenate([near, -near]))


def _quarters() -> np.ndarray:
    """Multiples of pi/4, small and huge; 6381956970095103 * 2^797 is the float64 nearest to one of pi/2."""
    k = np.concatenate([np.arange(1, 2_000), 2 ** np.arange(11, 54) + 1, 3 * 2 ** np.arange(10, 52)])
    return np.append(k * (math.pi / 4), math.ldexp(6381956970095103, 797))


def _signs(n: int, rng: np.random.Generator) -> np.ndarray:
    return rng.choice([-1.0, 1.0], n)


def _anywhere(n: int, rng: np.random.Generator) -> np.ndarray:
    """Random bits of a positive float64 are log-uniform numbers; a quarter keeps few bits of the significand."""
    bits = rng.integers(1, 0x7FF0000000000000, n)
    bits[: n // 4] &= ~0xFFFFFFFFFFFF
    return np.maximum(bits, 1).view(np.float64) * _signs(n, rng)


def _subnormal(n: int, rng: np.random.Generator) -> np.ndarray:
    return (rng.integers(1, 2**52, n) >> rng.integers(0, 52, n)).view(np.float64) * _signs(n, rng)


def _local(name: str, n: int, rng: np.random.Generator) -> np.ndarray:
    """Where the function neither vanishes nor saturates; for sin and cos up to where the kernel gives up."""
    low, high, reach = {
        "exp": (-60, 14, 745), "tanh": (-40, 6, 45), "erf": (-40, 3, 8), "sin": (-40, 55, 300), "cos": (-40, 55, 300),
    }.get(name, (-60, 60, 2))  # fmt: skip
    scaled = rng.normal(size=n) * 2.0 ** rng.integers(low, high, n)
    return np.concatenate([scaled, rng.uniform(-reach, reach, n)])


# --- containment ------------------------------------------------------------------------------------------------------


def violations(name: str, arithmetic: Arithmetic, points: np.ndarray, radius: float = 0.0) -> int:
    """How many points have a ball that misses the true value (for a positive radius: at one of several points of the
    ball around it, its ends among them). A ball that isn't finite claims nothing, but must reject."""
    batch = 2**14 if isinstance(arithmetic, Float64) else 2**8
    with np.errstate(all="ignore"):
        return sum(_violations(name, arithmetic, points[i : i + batch], radius) for i in range(0, len(points), batch))


def balls(arithmetic: Arithmetic, points: np.ndarray, radius: float = 0.0) -> Ball:
    together = arithmetic.exact(np.append(points, radius))
    return Ball(together.mid[:-1], np.broadcast_to(together.mid[-1:], points.shape).copy(), together.exponent)


def _violations(name: str, arithmetic: Arithmetic, points: np.ndarray, radius: float) -> int:
    result = kernel.FUNCTIONS[name].value(arithmetic, balls(arithmetic, points, radius))
    mid, rad = np.broadcast_to(result.mid, points.shape), np.broadcast_to(result.rad, points.shape)
    result = Ball(mid, rad, result.exponent)
    missed = np.zeros(points.shape, bool)
    if isinstance(arithmetic, Float64):
        finite = np.isfinite(mid) & np.isfinite(rad)
        if not finite.all():
            overflowed = result.map(lambda a: a[~finite])
            if not (_rejects(arithmetic.lower, overflowed) and _rejects(arithmetic.upper, overflowed)):
                return len(points)
            points, result = points[finite], result.map(lambda a: a[finite])
            missed = missed[finite]
        # One step inwards, these are bounds that surely lie in the ball: what they hold needs no second look.
        low = np.nextafter(result.mid - result.rad, np.inf).tolist()
        high = np.nextafter(result.mid + result.rad, -np.inf).tolist()
    else:
        low = [arb((end, result.exponent)) for end in result.mid - result.rad]
        high = [arb((end, result.exponent)) for end in result.mid + result.rad]
    function = FUNCTIONS[name]
    for at in _arguments(points, radius):
        ctx.prec = PRECISION
        for i, (x, a, b) in enumerate(zip(at, low, high, strict=True)):
            value = function(x)
            if not (a <= value <= b):
                missed[i] |= not _holds(name, x, result.mid[i], result.rad[i], result.exponent)
    return int(missed.sum())


def _arguments(points: np.ndarray, radius: float) -> Iterator[list[arb]]:
    """The points, or points of balls around them, exactly; among them, for sin and cos, an extremum."""
    ctx.prec = SPAN
    if radius == 0:
        yield [arb(x) for x in points.tolist()]
        return
    quarter = math.pi / 2
    peaks = np.clip((np.rint(points / quarter) * quarter - points) / radius, -1, 1).tolist()
    for offset in (*OFFSETS, None):
        ctx.prec = SPAN
        shifts = peaks if offset is None else [offset] * len(points)
        yield [arb(x) + arb(radius) * arb(shift) for x, shift in zip(points.tolist(), shifts, strict=True)]


def _holds(name: str, x: arb, mid: float | int, rad: float | int, exponent: int) -> bool:
    """Decided with as many bits as it takes. What no precision decides counts as missed. (None decides whether tanh of
    1e300 is below 1, but it is.)"""
    ctx.prec = 20_000  # no end of a ball is that long
    unit = arb((1, exponent))
    low, high = (arb(mid) - arb(rad)) * unit, (arb(mid) + arb(rad)) * unit
    for precision in (400, 1_300, 5_000):
        ctx.prec = precision
        value = FUNCTIONS[name](x)
        below, above = (low <= -1, high >= 1) if name in BOUNDED else (False, False)
        if (below or low <= value) and (above or value <= high):
            return True
        if value < low or value > high:
            return False
    return False


def _rejects(way_out, ball: Ball) -> bool:
    """Whether every one of these balls is refused, each by itself."""
    for i in range(ball.mid.size):
        try:
            way_out(ball.map(lambda a: a[i : i + 1]))
        except Rejected:
            continue
        return False
    return True
