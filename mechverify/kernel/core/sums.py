"""Sums over the last axis, and products that are added up by sign: what linear bounds are made of.

In float64 radii are rounded outwards once, at the end.

Lemma C1 (docs/soundness/core.md).
"""

from typing import TYPE_CHECKING

import numpy as np

from mechverify.kernel.core.arithmetic import Arithmetic, Array, Ball
from mechverify.kernel.core.float64 import ETA, UNIT, Float64, outward

if TYPE_CHECKING:
    from collections.abc import Callable


def total(ar: Arithmetic, x: Ball) -> Ball:
    if not _is_float64(ar):
        return _in_pairs(x, ar.add)
    mid, rad, _ = _in_pairs(x, lambda a, b: _joined(ar, a, b))
    return Ball(mid, outward(rad, 3 * x.mid.shape[-1]))


def dot(ar: Arithmetic, x: Ball, y: Ball) -> Ball:
    if not _is_float64(ar):
        return ar.sum(ar.mul(x, y))
    rad = np.abs(x.mid) * _off(y)
    if np.any(x.rad):
        rad = rad + x.rad * (np.abs(y.mid) + y.rad)
    ar.spend(np.size(rad))
    return total(ar, Ball(x.mid * y.mid, rad))


def by_sign(ar: Arithmetic, k: Array, lower: Ball, upper: Ball) -> Ball:
    rising, falling = ar.xp.clip(k, 0.0, None), ar.xp.clip(k, None, 0.0)
    if not _is_float64(ar):
        return ar.add(ar.mul(ar.point(rising), lower), ar.mul(ar.point(falling), upper))
    ar.spend(2 * k.size)
    mid = rising * lower.mid + falling * upper.mid  # one of them is zero
    rad = rising * _off(lower) - falling * _off(upper)
    return Ball(mid, outward(rad))


def _is_float64(ar: Arithmetic) -> bool:
    return type(ar) is Float64  # not twice the digits, whose centres have two parts


def _in_pairs(x: Ball, add: "Callable[[Ball, Ball], Ball]") -> Ball:
    """Over the last axis: log2 n rounds."""
    rest = None
    while (n := x.mid.shape[-1]) > 1:
        if n % 2:
            last = x.at[..., -1:]
            rest = last if rest is None else add(rest, last)
        half = n // 2
        x = add(x.at[..., :half], x.at[..., half : 2 * half])
    return (x if rest is None else add(x, rest)).at[..., 0]


def _joined(ar: Arithmetic, x: Ball, y: Ball) -> Ball:
    """One of the additions of a sum."""
    mid = x.mid + y.mid
    ar.spend(mid.size)
    rad = np.abs(mid)
    rad *= UNIT
    rad += x.rad
    rad += y.rad
    return Ball(mid, rad)


def _off(x: Ball) -> np.ndarray:
    """How far k times a number in the ball may be from what k times its centre is rounded to, for |k| = 1. ETA: a share
    of it may underflow before it meets a large k."""
    return x.rad + 2 * UNIT * (np.abs(x.mid) + x.rad) + ETA
