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

ZERO, ONE, HALF = Fraction(0), Fraction(1), Fraction(1, 2)
LOG2_E = Fraction(1442695040888963407, 10**18)  # about: any would do
Ratio = Callable[
    [int], Fraction
]  # a term of a series over the one before it, divided by y


def exponential(k: int) -> Fraction:
    return Fraction(1, k)


@cache
def _terms(ratio: Ratio, reach: Fraction, precision: int) -> tuple[int, Fraction]:
    """(n, tail): the terms after the n-th add up to at most `tail` < 2^-precision for |y| <= reach.

    From n on a term is at most half of the one before, so the tail is at most the n-th term."""
    n, term = 0, ONE
    while term >= Fraction(1, 2**precision) or reach * ratio(n + 1) > HALF:
        n += 1
        term *= reach * ratio(n)
    return n, term


def series(
    ar: Arithmetic, ratio: Ratio, y: Ball, reach: Fraction, bits: int | None = None
) -> Ball:
    """1 + q1 y (1 + q2 y (1 + ...)) at y, of those ratios, to `bits` (the arithmetic's own precision if None).
    Precondition: |y| <= reach.
    Complexity: three operations a term."""
    n, tail = _terms(ratio, reach, bits or ar.precision)
    value = one = ar.rational(ONE)
    for k in range(n, 0, -1):
        term = ar.mul(ar.mul(value, y), ar.rational(ratio(k)))
        value = ar.trim(ar.add(one, term))
    return ar.widen(value, 0.0, float(tail) * (1 + 2.0**-50))


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


def exp(ar: Arithmetic, x: Ball) -> Ball:
    """Of a ball below -2^20, where numbers underflow: within 2^-1074 of zero."""
    zero = ar.rational(ZERO)
    far = ar.upper(x) < -ar.units(2.0**20, x.exponent)
    if ar.is_exact or not far.any():
        m, k = exp_parts(ar, x)
        return ar.scale(m, k)
    m, k = exp_parts(ar, ar.where(far, zero, x))
    tiny = ar.widen(zero, 0.0, 2.0**-1074)
    return ar.where(far, tiny, ar.scale(m, k))
