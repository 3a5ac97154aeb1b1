"""Series whose tails one lemma bounds, and the exponential: what softmax needs. elementary.py has the other functions.

Every function is brought to one series 1 + q1 y (1 + q2 y (1 + ...)) by identities. Rounding is the business of
the arithmetic; here only the tails of the series are bounded. No libm result decides.

Lemma C2 (docs/soundness/core.md).
"""

from collections.abc import Callable
from fractions import Fraction
from functools import cache

import numpy as np

from mechverify.kernel.core.arithmetic import Arithmetic, Ball, points
from mechverify.kernel.core.errors import Rejected
from mechverify.kernel.core.float64 import UNIT, outward
from mechverify.kernel.core.loading import late

ZERO, ONE, HALF = Fraction(0), Fraction(1), Fraction(1, 2)
LOG2_E = Fraction(1442695040888963407, 10**18)  # about: any would do
Ratio = Callable[
    [int], Fraction
]  # a term of a series over the one before it, divided by y


def exponential(k: int) -> Fraction:
    return Fraction(1, k)


@cache
def _terms(
    ratio: Ratio, reach: Fraction, precision: int
) -> tuple[tuple[Fraction, ...], Fraction]:
    """(coefficients, tail): the terms beyond them add up to at most `tail` < 2^-precision for |y| <= reach.

    From the last on a term is at most half of the one before, so the tail is at most the last term."""
    found, term = [ONE], ONE
    while term >= Fraction(1, 2**precision) or reach * ratio(len(found)) > HALF:
        found.append(found[-1] * ratio(len(found)))
        term *= reach * ratio(len(found) - 1)
    return tuple(found), term


def series(
    ar: Arithmetic, ratio: Ratio, y: Ball, reach: Fraction, bits: int | None = None
) -> Ball:
    """1 + q1 y (1 + q2 y (1 + ...)) at y, of those ratios, to `bits` (the arithmetic's own precision if None).
    Precondition: |y| <= reach.
    Complexity: two operations a term."""
    coefficients, tail = _terms(ratio, reach, bits or ar.precision)
    if ar.dtype is np.float64:
        value = _in_place(ar, coefficients, y)
    else:
        value = late("core.elementary").in_balls(ar, coefficients, y)
    return ar.widen(value, 0.0, float(tail) * (1 + 2.0**-50))


def _in_place(ar: Arithmetic, coefficients: tuple[Fraction, ...], y: Ball) -> Ball:
    """Horner's rule in float64, its rounding told as it goes (Higham, Accuracy and Stability of Numerical Algorithms,
    5.1): `value` is within UNIT * `err` of what is summed so far, at every real of `y`. Precondition: no coefficient is
    below 2^-900 in size. Complexity: nine passes a term."""
    n, size = 2 * len(coefficients), np.abs(y.mid) + y.rad
    slope = size + y.rad / UNIT  # of a product: its rounding, and the operand's radius
    value = err = about = np.zeros_like(size)
    for c, off in _rounded(coefficients):
        err = err * size + about * slope
        value = value * y.mid
        value += c
        about = np.abs(value)
        err += about
        err += off
    ar.spend(n * value.size, 1, 4)
    return ar.trim(Ball(value, outward(UNIT * err, n)))


@cache
def _rounded(numbers: tuple[Fraction, ...]) -> list[tuple[float, float]]:
    """From the last on: each as a float64 number, and how far it lies from it, over UNIT."""
    near = [(c, float(c)) for c in reversed(numbers)]
    return [(f, 0.0 if c == f else abs(f)) for c, f in near]


@cache
def arc(x: Fraction, sign: int) -> Fraction:
    """atanh x (`sign` 1) or atan x (-1) up to 2^-398, for 0 < x <= 1/3: the terms above 2^-400."""
    value = Fraction(0)
    power = x
    k = 1
    while abs(power) > Fraction(1, 2**400):
        value = value + power / k
        power = sign * power * x * x
        k += 2
    return value


def ln2(ar: Arithmetic) -> Ball:
    """2 atanh(1/3)."""
    value = 2 * arc(Fraction(1, 3), 1)
    return ar.widen(ar.rational(value), 0.0, 2.0**-396)


def inside(ar: Arithmetic, x: Ball, limit: Fraction) -> np.ndarray:
    return ar.upper(x.size) <= ar.units(float(limit), x.exponent)


def exp_parts(
    ar: Arithmetic, x: Ball, bits: int | None = None
) -> tuple[Ball, np.ndarray]:
    """(m, k) with e^x = m 2^k for every real in the balls; m is near 1 and k an integer.

    x = k ln 2 + r, any k that makes |r| <= 0.36; then e^(x + d) = e^x e^d for |d| <= rad: within rad + rad^2 of
    e^x, relatively, where rad <= 1; wider balls get (0, e^x e^rad]. Complexity: about 60 operations an element; 30 to
    24 `bits`.
    """
    if not np.all(x.rad <= ar.units(1_000.0, x.exponent)):
        raise Rejected("exp of a ball that is too wide")
    m, k = _exp_point(ar, x.point, bits)
    shape = np.broadcast_shapes(m.mid.shape, x.rad.shape)
    return ar.trim(ar.mul(m, _exp_radius(ar, x))), np.broadcast_to(k, shape)


def relative_exponentials(
    ar: Arithmetic,
    parts: tuple[Ball, np.ndarray],
    alive: np.ndarray,
    axes: int | tuple[int, ...],
) -> Ball:
    """e^x from its `exp_parts`, over the power of two at the largest `alive` one along `axes`: there nothing underflows
    that matters. Where not alive any positive number will do."""
    mantissa, k = parts
    top = np.where(alive, k, -(2**53)).max(axes, keepdims=True)
    return ar.scale(mantissa, np.where(alive, k - top, 0))


def _exp_radius(ar: Arithmetic, x: Ball) -> Ball:
    """A ball that holds e^d for |d| <= rad."""
    zero = ar.rational(ZERO)
    rad = points(x.rad, x.exponent)
    wide = x.rad > ar.units(1.0, x.exponent)
    narrow = ar.where(wide, zero, rad)
    spread = ar.widen(
        ar.rational(ONE), 1.0, of=ar.trim(ar.add(narrow, ar.mul(narrow, narrow)))
    )
    if not np.any(wide):
        return spread
    m, k = _exp_point(ar, ar.where(wide, rad, zero))
    peak = ar.scale(m, k).size
    half = ar.mul(peak, ar.rational(HALF))
    return ar.where(wide, ar.widen(half, 1.0, of=half), spread)


def _exp_point(
    ar: Arithmetic, x: Ball, bits: int | None = None
) -> tuple[Ball, np.ndarray]:
    x = ar.trim(x)
    inverse = ar.rational(LOG2_E)
    k = ar.nearest(ar.mul(x.point, inverse))
    whole = ar.mul(ar.whole(k), ln2(ar))
    r = ar.trim(ar.sub(x, whole))
    reach = Fraction(36, 100)
    if not np.all(inside(ar, r, reach)):
        raise Rejected("exp of a number too large to be reduced")
    return series(ar, exponential, r, reach, bits), k
