"""Elementary functions, enclosed by series that the kernel sums itself; no libm result decides.

Every function is brought to one series 1 + q1 y (1 + q2 y (1 + ...)) by identities. Rounding is the business of
the arithmetic; here only the tails of the series are bounded, by one lemma.

Lemma C2 (docs/soundness/core.md).
"""

from collections.abc import Callable
from fractions import Fraction
from functools import cache, partial

import numpy as np

from mechverify.kernel.core.arithmetic import Arithmetic, Ball, points
from mechverify.kernel.core.errors import Rejected

ZERO, ONE, HALF = Fraction(0), Fraction(1), Fraction(1, 2)
LOG2_E = Fraction(1442695040888963407, 10**18)  # about: any would do
RATIOS: dict[str, Callable[[int], Fraction]] = {  # a term of the series over the one before it, divided by y
    "exp": lambda k: Fraction(1, k),
    "sinh": lambda k: Fraction(1, 2 * k * (2 * k + 1)),  # of sinh(sqrt y) / sqrt y; at -y: sin
    "cosh": lambda k: Fraction(1, 2 * k * (2 * k - 1)),
    "atanh": lambda k: Fraction(2 * k - 1, 2 * k + 1),  # of atanh(sqrt y) / sqrt y
    "erf": lambda k: Fraction(2, 2 * k + 1),  # of erf(sqrt y) exp(y) sqrt(pi / y) / 2
}


@cache
def _terms(name: str, reach: Fraction, precision: int) -> tuple[int, Fraction]:
    """(n, tail): the terms after the n-th add up to at most `tail` < 2^-precision for |y| <= reach.

    From n on a term is at most half of the one before, so the tail is at most the n-th term."""
    n, term = 0, ONE
    while term >= Fraction(1, 2**precision) or reach * RATIOS[name](n + 1) > HALF:
        n += 1
        term *= reach * RATIOS[name](n)
    return n, term


def series(ar: Arithmetic, name: str, y: Ball, reach: Fraction, bits: int | None = None) -> Ball:
    """The named series at y, to `bits` (the arithmetic's own precision if None). Precondition: |y| <= reach.
    Complexity: three operations a term."""
    n, tail = _terms(name, reach, bits or ar.precision)
    value = one = ar.rational(ONE)
    for k in range(n, 0, -1):
        ratio = ar.rational(RATIOS[name](k))
        term = ar.mul(ar.mul(value, y), ratio)
        value = ar.trim(ar.add(one, term))
    return ar.widen(value, 0.0, float(tail) * (1 + 2.0**-50))


@cache
def _arc(x: Fraction, sign: int) -> Fraction:
    """atanh x (`sign` 1) or atan x (-1) up to 2^-398, for 0 < x <= 1/3: the terms above 2^-400."""
    value, power, k = Fraction(0), x, 1
    while abs(power) > Fraction(1, 2**400):
        value, power, k = value + power / k, sign * power * x * x, k + 2
    return value


def ln2(ar: Arithmetic) -> Ball:
    """2 atanh(1/3)."""
    value = 2 * _arc(Fraction(1, 3), 1)
    return ar.widen(ar.rational(value), 0.0, 2.0**-396)


def pi(ar: Arithmetic) -> Ball:
    """Machin's formula."""
    first = 16 * _arc(Fraction(1, 5), -1)
    second = 4 * _arc(Fraction(1, 239), -1)
    return ar.widen(ar.rational(first - second), 0.0, 2.0**-390)


def _inside(ar: Arithmetic, x: Ball, limit: Fraction) -> np.ndarray:
    return ar.upper(x.size) <= ar.units(float(limit), x.exponent)


def exp_parts(ar: Arithmetic, x: Ball, bits: int | None = None) -> tuple[Ball, np.ndarray]:
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
    ar: Arithmetic, parts: tuple[Ball, np.ndarray], alive: np.ndarray, axes: int | tuple[int, ...]
) -> Ball:
    """e^x from its `exp_parts`, over the power of two at the largest `alive` one along `axes`: there nothing underflows
    that matters. Where not alive any positive number will do."""
    mantissa, k = parts
    top = np.where(alive, k, -(2**53)).max(axes, keepdims=True)
    return ar.scale(mantissa, np.where(alive, k - top, 0))


def _exp_radius(ar: Arithmetic, x: Ball) -> Ball:
    """A ball that holds e^d for |d| <= rad."""
    zero, rad = ar.rational(ZERO), points(x.rad, x.exponent)
    wide = x.rad > ar.units(1.0, x.exponent)
    narrow = ar.where(wide, zero, rad)
    spread = ar.widen(ar.rational(ONE), 1.0, of=ar.trim(ar.add(narrow, ar.mul(narrow, narrow))))
    if not np.any(wide):
        return spread
    m, k = _exp_point(ar, ar.where(wide, rad, zero))
    peak = ar.scale(m, k).size
    half = ar.mul(peak, ar.rational(HALF))
    return ar.where(wide, ar.widen(half, 1.0, of=half), spread)


def _exp_point(ar: Arithmetic, x: Ball, bits: int | None = None) -> tuple[Ball, np.ndarray]:
    x = ar.trim(x)
    inverse = ar.rational(LOG2_E)
    k = ar.nearest(ar.mul(x.point, inverse))
    whole = ar.mul(ar.whole(k), ln2(ar))
    r = ar.trim(ar.sub(x, whole))
    reach = Fraction(36, 100)
    if not np.all(_inside(ar, r, reach)):
        raise Rejected("exp of a number too large to be reduced")
    return series(ar, "exp", r, reach, bits), k


def exp(ar: Arithmetic, x: Ball) -> Ball:
    """Of a ball below -2^20, where numbers underflow: within 2^-1074 of zero."""
    zero, far = ar.rational(ZERO), ar.upper(x) < -ar.units(2.0**20, x.exponent)
    if ar.is_exact or not far.any():
        m, k = exp_parts(ar, x)
        return ar.scale(m, k)
    m, k = exp_parts(ar, ar.where(far, zero, x))
    tiny = ar.widen(zero, 0.0, 2.0**-1074)
    return ar.where(far, tiny, ar.scale(m, k))


def _lipschitz(ar: Arithmetic, value: Ball, x: Ball, constant: float, bound: float) -> Ball:
    """f of a ball from f at its centre, |f'| <= constant and |f| <= bound."""
    about_zero = Ball(np.zeros_like(x.rad), x.rad, x.exponent)
    value = ar.widen(value, constant, of=about_zero)
    hull = ar.widen(ar.rational(ZERO), 0.0, bound)
    return ar.where(_inside(ar, value, Fraction(bound) + 1), value, hull)


def _signed(value: Ball, negative: np.ndarray) -> Ball:
    sign = np.where(negative, -1, 1).astype(value.mid.dtype)
    mid = np.asarray(value.mid * sign, sign.dtype)
    return Ball(mid, value.rad, value.exponent)


def _clamped(ar: Arithmetic, x: Ball, low: Fraction, high: Fraction) -> Ball:
    """The centre's absolute value, moved to between low and high."""
    mid = np.asarray(np.abs(x.mid), x.mid.dtype)
    size = x._replace(mid=mid).point
    for bound, beyond in ((low, np.less), (high, np.greater)):
        a, b = ar.align(size, ar.rational(bound))
        mid = np.where(beyond(a.mid, b.mid), b.mid, a.mid)
        size = a._replace(mid=mid).point
    return size


def tanh(ar: Arithmetic, x: Ball) -> Ball:
    """sinh / cosh up to 1; 1 - 2 / (e^(2t) + 1) beyond, and within 2^-114 of 1 from 40 on."""
    inner = np.abs(x.mid) <= ar.units(1.0, x.exponent)
    value = ar.where(inner, _tanh_near(ar, x), _tanh_far(ar, x))
    return _lipschitz(ar, _signed(value, x.mid < 0), x, 1.0, 1.0)


def _tanh_near(ar: Arithmetic, x: Ball) -> Ball:
    t = _clamped(ar, x, ZERO, ONE)
    y = ar.mul(t, t)
    sinh = ar.mul(t, series(ar, "sinh", y, ONE))
    cosh = series(ar, "cosh", y, ONE)
    return ar.div(sinh, cosh)


def _tanh_far(ar: Arithmetic, x: Ball) -> Ball:
    t, one = _clamped(ar, x, ONE, Fraction(40)), ar.rational(ONE)
    power = exp(ar, ar.add(t, t))
    rest = ar.div(ar.rational(Fraction(2)), ar.add(power, one))
    return ar.widen(ar.sub(one, rest), 0.0, 2.0**-114)


def erf(ar: Arithmetic, x: Ball) -> Ball:
    """2/sqrt(pi) t e^(-t^2) (1 + 2t^2/3 (1 + 2t^2/5 (...))) up to 6.5; 1 - erf t < 2^-64 beyond."""
    t = _clamped(ar, x, ZERO, Fraction(13, 2))
    y = ar.mul(t, t)
    factor = ar.mul(t, exp(ar, -y))
    value = ar.mul(factor, series(ar, "erf", y, Fraction(43)))
    scale = ar.div(ar.rational(Fraction(2)), ar.sqrt(pi(ar)))
    value = ar.mul(value, scale)
    beyond = np.abs(x.mid) > ar.units(6.5, x.exponent)
    nearly_one = ar.widen(ar.rational(ONE), 0.0, 2.0**-60)
    value = ar.where(beyond, nearly_one, value)
    return _lipschitz(ar, _signed(value, x.mid < 0), x, 1.13, 1.0)


def _circular(ar: Arithmetic, x: Ball, quarter: int) -> Ball:
    """x = k pi/2 + r with |r| <= 0.8, and the series of +-sin r or +-cos r; [-1, 1] where r can't be told."""
    zero, half_pi, reach = ar.rational(ZERO), ar.mul(pi(ar), ar.rational(HALF)), Fraction(4, 5)
    point = ar.trim(x.point)
    k = ar.nearest(ar.div(point.point, half_pi))
    turned = ar.mul(ar.whole(k), half_pi)
    r = ar.trim(ar.sub(point, turned))
    known = _inside(ar, r, reach)
    r = ar.where(known, r, zero)
    y = -ar.mul(r, r)
    cos_r = series(ar, "cosh", y, reach)
    sin_r = ar.mul(r, series(ar, "sinh", y, reach))
    turn = np.where(known, k, 0) + quarter
    value = ar.where(turn % 2 != 0, cos_r, sin_r)
    value = _signed(value, turn % 4 >= 2)
    anything = ar.widen(zero, 0.0, 1.0)
    return _lipschitz(ar, ar.where(known, value, anything), x, 1.0, 1.0)


sin, cos = partial(_circular, quarter=0), partial(_circular, quarter=1)


def log(ar: Arithmetic, x: Ball) -> Ball:
    """x = 2^k f with f in [0.7, 1.5): log x = k ln 2 + 2 atanh((f-1)/(f+1)). For a ball, |log a' - log a| <=
    rad / (mid - rad). Rejects a ball that isn't positive."""
    if not np.all(ar.lower(x) > 0):
        raise Rejected("logarithm of an interval that is not positive")
    one, rad = ar.rational(ONE), points(x.rad, x.exponent)
    f, k = ar.mantissa(x.point)
    s = ar.div(ar.sub(f, one), ar.add(f, one))
    atanh = ar.mul(s, series(ar, "atanh", ar.mul(s, s), Fraction(1, 25)))
    power = ar.mul(ar.whole(k), ln2(ar))
    value = ar.add(power, ar.add(atanh, atanh))
    slope = ar.div(rad, ar.sub(x.point, rad))
    return ar.widen(value, 1.0, of=slope)


def reciprocal(ar: Arithmetic, x: Ball) -> Ball:
    return ar.div(ar.rational(ONE), x)


def sqrt(ar: Arithmetic, x: Ball) -> Ball:
    return ar.sqrt(x)
