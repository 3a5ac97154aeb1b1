"""Elementary functions, brought to the series of series.py by identities; no libm result decides.

Lemma C2 (docs/soundness/core.md).
"""

from collections.abc import Callable, Sequence
from fractions import Fraction
from functools import partial

import numpy as np

from mechverify.kernel.core.arithmetic import (
    CACHED,
    Arithmetic,
    Ball,
    aligned,
    magnitude,
    points,
)
from mechverify.kernel.core.errors import Rejected
from mechverify.kernel.core.series import (
    HALF,
    ONE,
    ZERO,
    arc,
    exp_parts,
    inside,
    ln2,
    series,
)

BANDS = [
    Fraction(end, 2) for end in (1, 2, 3, 4, 6, 9, 13)
]  # of erf: up to where a number of terms is enough


def _sinh(k: int) -> Fraction:
    """The series of sinh(sqrt y) / sqrt y; at -y: of sin."""
    return Fraction(1, 2 * k * (2 * k + 1))


def _cosh(k: int) -> Fraction:
    """Of cosh(sqrt y); at -y: of cos."""
    return Fraction(1, 2 * k * (2 * k - 1))


def _atanh(k: int) -> Fraction:
    """Of atanh(sqrt y) / sqrt y."""
    return Fraction(2 * k - 1, 2 * k + 1)


def _erf(k: int) -> Fraction:
    """Of erf(sqrt y) exp(y) sqrt(pi / y) / 2."""
    return Fraction(2, 2 * k + 1)


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


def in_balls(ar: Arithmetic, coefficients: tuple[Fraction, ...], y: Ball) -> Ball:
    """Horner's rule."""
    value = ar.rational(coefficients[-1])
    for c in coefficients[-2::-1]:
        value = ar.trim(ar.add(ar.mul(value, y), ar.rational(c)))
    return value


def pi(ar: Arithmetic) -> Ball:
    """Machin's formula."""
    first = 16 * arc(Fraction(1, 5), -1)
    second = 4 * arc(Fraction(1, 239), -1)
    return ar.widen(ar.rational(first - second), 0.0, 2.0**-390)


def _lipschitz(
    ar: Arithmetic, value: Ball, x: Ball, constant: float, bound: float
) -> Ball:
    """f of a ball from f at its centre, |f'| <= constant and |f| <= bound. Rejects a ball that isn't finite: its centre
    may have been moved to a number."""
    ar.upper(x)
    about_zero = Ball(np.zeros_like(x.rad), x.rad, x.exponent)
    value = ar.widen(value, constant, of=about_zero)
    hull = ar.widen(ar.rational(ZERO), 0.0, bound)
    return ar.where(inside(ar, value, Fraction(bound) + 1), value, hull)


def _signed(value: Ball, negative: np.ndarray) -> Ball:
    sign = np.where(negative, -1, 1).astype(value.mid.dtype)
    mid = np.asarray(value.mid * sign, sign.dtype)
    return Ball(mid, value.rad, value.exponent)


def _clamped(ar: Arithmetic, x: Ball, low: Fraction, high: Fraction) -> Ball:
    """The centre's absolute value, moved to between low and high. Precondition: a point, as its radius is dropped."""
    mid = np.asarray(magnitude(x.mid), x.mid.dtype)
    size = x._replace(mid=mid).point
    for bound, beyond in ((low, np.less), (high, np.greater)):
        a, b = ar.align(size, ar.rational(bound))
        mid = np.where(beyond(a.mid, b.mid), b.mid, a.mid)
        size = a._replace(mid=mid).point
    return size


def tanh(ar: Arithmetic, x: Ball) -> Ball:
    """sinh / cosh up to 1; 1 - 2 / (e^(2t) + 1) beyond, and within 2^-114 of 1 from 40 on."""
    outer = magnitude(x.mid) > ar.units(1.0, x.exponent)
    value = _chosen(ar, x.point, outer, [_tanh_near, _tanh_far])
    return _lipschitz(ar, _signed(value, x.mid < 0), x, 1.0, 1.0)


def _tanh_near(ar: Arithmetic, x: Ball) -> Ball:
    t = _clamped(ar, x, ZERO, ONE)
    y = ar.mul(t, t)
    sinh = ar.mul(t, series(ar, _sinh, y, ONE))
    cosh = series(ar, _cosh, y, ONE)
    return ar.div(sinh, cosh)


def _tanh_far(ar: Arithmetic, x: Ball) -> Ball:
    t = _clamped(ar, x, ONE, Fraction(40))
    one = ar.rational(ONE)
    power = exp(ar, ar.add(t, t))
    rest = ar.div(ar.rational(Fraction(2)), ar.add(power, one))
    return ar.widen(ar.sub(one, rest), 0.0, 2.0**-114)


def atan(ar: Arithmetic, x: Ball) -> Ball:
    """pi/2 - atan(1/t) beyond 1; up to 1, atan t = 2 atan(t / (1 + sqrt(1 + t^2))), twice, and the series, up to 1/5.
    Beyond 2^400 as there: 1/t is nothing by then."""
    outer = magnitude(x.mid) > ar.units(1.0, x.exponent)
    value = _chosen(ar, x.point, outer, [_atan_near, _atan_far])
    return _lipschitz(ar, _signed(value, x.mid < 0), x, 1.0, 1.5708)


def _atan_far(ar: Arithmetic, x: Ball) -> Ball:
    far = _clamped(ar, x, ONE, Fraction(2**400))
    rest = _atan_of(ar, ar.div(ar.rational(ONE), far))
    half_pi = ar.mul(pi(ar), ar.rational(HALF))
    return ar.widen(ar.sub(half_pi, rest), 0.0, 2.0**-399)


def _atan_near(ar: Arithmetic, x: Ball) -> Ball:
    """Of numbers up to 1 in size."""
    return _atan_of(ar, _clamped(ar, x, ZERO, ONE))


def _atan_of(ar: Arithmetic, t: Ball) -> Ball:
    """Of numbers from 0 to 1, which balls may exceed."""
    one = ar.rational(ONE)
    for _ in range(2):
        root = ar.sqrt(ar.add(one, ar.mul(t, t)))
        t = ar.trim(ar.div(t, ar.add(one, root)))
    value = ar.mul(t, series(ar, _atanh, -ar.mul(t, t), Fraction(1, 25)))
    return ar.mul(value, ar.rational(Fraction(4)))


def _blocks(entries: np.ndarray) -> list[np.ndarray]:
    """Of a size that a cache holds."""
    return [entries[start : start + CACHED] for start in range(0, len(entries), CACHED)]


def _chosen(
    ar: Arithmetic, x: Ball, which: np.ndarray, ways: Sequence[Callable[..., Ball]]
) -> Ball:
    """At each entry, what the way with that number gives: whichever it is, it holds the function's value. An entry's
    ball doesn't depend on those beside it (but in core/rough.py)."""
    flat, which = x.map(np.ravel), np.ravel(which)
    places, parts = [], []
    for i, way in enumerate(ways):
        for some in _blocks(np.flatnonzero(which == i)):
            places.append(some)
            parts.append(way(ar, flat.at[some]))
    value = _in_order(aligned(ar, *parts), places) if parts else flat
    return value.map(lambda a: a.reshape(np.shape(x.mid)))


def _in_order(parts: list[Ball], places: list[np.ndarray]) -> Ball:
    """The entries that stand at those places of the whole, of balls with one exponent."""
    order = np.argsort(np.concatenate(places))
    mids, rads = zip(
        *(np.broadcast_arrays(part.mid, part.rad) for part in parts), strict=True
    )
    return Ball(
        np.concatenate(mids)[order], np.concatenate(rads)[order], parts[0].exponent
    )


def _erf_up_to(ar: Arithmetic, x: Ball, end: Fraction) -> Ball:
    """Of numbers up to `end` in size; the others are moved there."""
    t = _clamped(ar, x, ZERO, end)
    y = ar.mul(t, t)
    factor = ar.mul(t, exp(ar, -y))
    value = ar.mul(
        factor, series(ar, _erf, y, end**2 * Fraction(43, 42))
    )  # y may be rounded beyond end^2
    scale = ar.div(ar.rational(Fraction(2)), ar.sqrt(pi(ar)))
    return ar.mul(value, scale)


def erf(ar: Arithmetic, x: Ball) -> Ball:
    """2/sqrt(pi) t e^(-t^2) (1 + 2t^2/3 (1 + 2t^2/5 (...))) up to 6.5, with more terms in each further band; 1 - erf t
    < 2^-60 beyond."""
    ends = [ar.units(float(end), x.exponent) for end in BANDS]
    band = np.sum([magnitude(x.mid) > end for end in ends], 0)
    bands = [partial(_erf_up_to, end=end) for end in BANDS]
    value = _chosen(ar, x.point, band, [*bands, _erf_far])
    return _lipschitz(ar, _signed(value, x.mid < 0), x, 1.13, 1.0)


def _erf_far(ar: Arithmetic, x: Ball) -> Ball:
    one = ar.widen(ar.rational(ONE), 0.0, 2.0**-60)
    return one.map(lambda a: np.broadcast_to(a, np.shape(x.mid)))


def _circular(ar: Arithmetic, x: Ball, quarter: int) -> Ball:
    """x = k pi/2 + r with |r| <= 0.8, and the series of +-sin r or +-cos r; [-1, 1] where r can't be told."""
    zero = ar.rational(ZERO)
    half_pi = ar.mul(pi(ar), ar.rational(HALF))
    reach = Fraction(4, 5)
    point = ar.trim(x.point)
    k = ar.nearest(ar.div(point.point, half_pi))
    turned = ar.mul(ar.whole(k), half_pi)
    r = ar.trim(ar.sub(point, turned))
    known = inside(ar, r, reach)
    r = ar.where(known, r, zero)
    y = -ar.mul(r, r)
    cos_r = series(ar, _cosh, y, reach)
    sin_r = ar.mul(r, series(ar, _sinh, y, reach))
    turn = np.where(known, k % 4, 0) + quarter  # k + 1 may be no float64
    value = ar.where(turn % 2 != 0, cos_r, sin_r)
    value = _signed(value, turn % 4 >= 2)
    anything = ar.widen(zero, 0.0, 1.0)
    return _lipschitz(ar, ar.where(known, value, anything), x, 1.0, 1.0)


sin, cos = partial(_circular, quarter=0), partial(_circular, quarter=1)


def log(ar: Arithmetic, x: Ball) -> Ball:
    """x = 2^k f with f in [0.7, 1.4]: log x = k ln 2 + 2 atanh((f-1)/(f+1)). For a ball, |log a' - log a| <=
    rad / (mid - rad). Rejects a ball that isn't positive."""
    if not np.all(ar.lower(x) > 0):
        raise Rejected("logarithm of an interval that is not positive")
    one = ar.rational(ONE)
    rad = points(x.rad, x.exponent)
    f, k = ar.mantissa(x.point)
    s = ar.div(ar.sub(f, one), ar.add(f, one))
    atanh = ar.mul(s, series(ar, _atanh, ar.mul(s, s), Fraction(1, 25)))
    power = ar.mul(ar.whole(k), ln2(ar))
    value = ar.add(power, ar.add(atanh, atanh))
    slope = ar.div(rad, ar.sub(x.point, rad))
    return ar.widen(value, 1.0, of=slope)
