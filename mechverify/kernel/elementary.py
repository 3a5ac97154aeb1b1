"""Enclosures of elementary functions by the kernel's own polynomials; no libm result decides.

exp: x = k ln 2 + r with |r| <= 0.36, a Taylor polynomial of degree 14 in r, and a scaling by 2^k.
The remainder and rounding argument is in docs/soundness.md, "exp".
"""

import math

import numpy as np

from mechverify.kernel.errors import Rejected
from mechverify.kernel.rounding import ETA, Ball, Float64, finite, outward, up

_LOG2_E = float.fromhex("0x1.71547652b82fep+0")
_LN2_HIGH = float.fromhex("0x1.62e42fee00000p-1")  # 32 significant bits: k * high is exact for |k| < 2^21
_LN2_LOW = float.fromhex("0x1.a39ef35793c76p-33")  # high + low = ln 2 up to 2^-85
_TAYLOR = [1.0 / math.factorial(j) for j in range(15)]
_RELATIVE = 2.0**-45  # proved bound of the relative error of the polynomial's value, all sources together
_LARGEST, _SMALLEST = 700.0, -745.0  # exp is representable, with room to spare, up to the first;
# below the second it is less than 2 * ETA


def _exp_point(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(value, error bound) of exp at exact float64 points in [_SMALLEST, _LARGEST]."""
    k = np.rint(x * _LOG2_E)  # any nearby integer will do: r is checked below
    r = (x - k * _LN2_HIGH) - k * _LN2_LOW
    if not (np.abs(r) <= 0.36).all():
        raise Rejected("exp: the reduced argument is out of range")
    value = np.full_like(r, _TAYLOR[-1])
    for coefficient in reversed(_TAYLOR[:-1]):
        value = value * r + coefficient
    k = k.astype(np.int64)
    half = k // 2  # 2^k itself can underflow where value * 2^k doesn't
    scaled = value * np.ldexp(1.0, half) * np.ldexp(1.0, k - half)
    return scaled, scaled * _RELATIVE + 4 * ETA


def exp(arithmetic: Float64, x: Ball) -> Ball:
    """exp of every real in the balls; rejects arguments above 700.

    Complexity: about 20 operations an element. The image of [m - r, m + r] lies within
    exp(m) * (exp(r) - 1) of exp(m), and exp(r) - 1 <= r + r^2 for r <= 1; wider balls get [0, exp(m + r)].
    """
    finite(x)
    mid, rad = np.broadcast_arrays(x.mid, x.rad)
    top = np.minimum(mid + rad, _LARGEST)
    if not (mid + rad < _LARGEST).all():
        raise Rejected("exp of a number above 700 overflows float64")
    arithmetic.ops += 20 * mid.size
    value, error = _exp_point(np.maximum(mid, _SMALLEST))
    error = np.where(mid < _SMALLEST, value + 4 * ETA, error)
    narrow = rad <= 1
    spread = np.where(narrow, rad, 0.0)
    result = Ball(value, outward(error + (value + error) * (spread + spread * spread)))
    if narrow.all():
        return result
    peak, peak_error = _exp_point(np.clip(up(top), _SMALLEST, _LARGEST))
    half = outward((peak + peak_error) * 0.5)
    return Ball(np.where(narrow, result.mid, half), np.where(narrow, result.rad, half))
