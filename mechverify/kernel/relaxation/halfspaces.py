"""Half-spaces: on how much of a box a linear form is at least zero.

Lemmas M3, M7 (docs/soundness/measure.md).
"""

from fractions import Fraction
from itertools import product
from math import factorial
from typing import NamedTuple

import numpy as np

from mechverify.kernel.core.arithmetic import Arithmetic, Ball, points
from mechverify.kernel.core.float64 import ETA
from mechverify.kernel.core.functions.piecewise import relu
from mechverify.kernel.core.powers import power

MAIN = 3  # coordinates of which a half-space is told exactly
STEEP = 2.0**-26  # slopes that are smaller than the largest times this are left out
CLEAR = (
    2.0**-8
)  # with slopes that are all larger, rounding is no reason to leave one out


def least_in(
    constants: np.ndarray,
    slopes: Ball,
    low: np.ndarray,
    high: np.ndarray,
) -> np.ndarray:
    """Lower bounds [boxes, forms] of constants [boxes, forms] + slopes [boxes, forms, coordinates] x on boxes [boxes,
    coordinates]; what is not finite bounds nothing."""
    least, size = constants.copy(), np.abs(constants)
    for c in range(low.shape[1]):
        k, a, b = slopes.mid[..., c], low[:, None, c], high[:, None, c]
        far = np.maximum(np.abs(a), np.abs(b))
        least += np.minimum(k * a, k * b) - slopes.rad[..., c] * far
        size += (np.abs(k) + slopes.rad[..., c]) * far
    n = 4 * (low.shape[1] + 1)
    least -= n * 2.0**-51 * size + n * ETA
    return np.where(np.isnan(least), -np.inf, least)


def on_unit_cubes(
    ar: Arithmetic,
    constants: np.ndarray,
    slopes: Ball,
    low: np.ndarray,
    high: np.ndarray,
    least: np.ndarray,
    most: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Forms constants [forms] (raw) + slopes [forms, coordinates] x, each on a box whose `bow` lies between `least` and
    `most`, as forms of how much of each interval's mass lies up to a coordinate, from 0 to 1: raw constants [forms],
    rounded down, and slopes [forms, coordinates]."""
    ar.spend(slopes.mid.size, 20, 10)
    corner, width = ar.exact(low), ar.sub(ar.exact(high), ar.exact(low))
    at_corner, slope = ar.mul(slopes, corner), ar.mul(slopes, width)
    bent = ar.mul(slope.point, points(np.where(slope.mid > 0, least, most)))
    rest = ar.sub(
        ar.add(at_corner, bent), points(slope.rad)
    )  # none is further along its interval than 1
    total = points(constants)
    if rest.mid.shape[-1]:
        total = ar.add(total, ar.sum(rest))
    return ar.ends(total)[0], slope.mid


def _least(ar: Arithmetic, constants: np.ndarray, slopes: np.ndarray) -> np.ndarray:
    """Lower bounds [..] of constants [..] + slopes [.., coordinates] u, u from 0 to 1."""
    if not slopes.shape[-1]:
        return constants
    return ar.ends(ar.add(points(constants), ar.sum(points(np.minimum(slopes, 0.0)))))[
        0
    ]


def of_cube(ar: Arithmetic, constants: np.ndarray, slopes: np.ndarray) -> np.ndarray:
    """Lower bounds [forms] of the share of the unit cube on which constants [forms] + slopes [forms, coordinates] u is
    at least zero, and, if it isn't constant, above zero. What is not finite bounds nothing."""
    low = _least(ar, constants, slopes)  # turned so that all slopes rise, at the origin
    steep = -np.sort(-np.abs(slopes), -1)
    known = np.isfinite(low) & np.isfinite(steep).all(-1)
    steep = np.where(known[:, None], steep, 0.0)
    best = np.where(known & (low > 0), 1.0, 0.0)
    for k in range(
        min(MAIN, steep.shape[-1]), 0, -1
    ):  # the others don't fall below zero
        told = (
            known
            & (low <= 0)
            & (steep[:, k - 1] > STEEP * steep[:, 0])
            & (low > -steep[:, :k].sum(-1))
        )
        best[told] = np.maximum(best[told], _corner_sum(ar, low[told], steep[told, :k]))
        known &= ~(told & (steep[:, k - 1] > CLEAR * steep[:, 0]))
    return best


class UnitForms(NamedTuple):
    """Constants [forms] (raw) + slopes [forms, coordinates] u on the unit cube."""

    constants: np.ndarray
    slopes: np.ndarray

    def some(self, which: np.ndarray) -> "UnitForms":
        return UnitForms(self.constants[which], self.slopes[which])

    def lowered(self, ar: Arithmetic, by: np.ndarray) -> "UnitForms":
        return UnitForms(ar.down(self.constants - by), self.slopes)


def drop(ar: Arithmetic, forms: UnitForms, others: UnitForms) -> np.ndarray:
    """By how much [forms] each form must be lowered, at most, to be nowhere on the unit cube above some positive
    multiple of its one of the others; infinite where these slope apart. Complexity: the number of slopes."""
    ar.spend(forms.slopes.size, 20, 10)
    slopes, along = forms.slopes, others.slopes
    with np.errstate(all="ignore"):
        times = (slopes * along).sum(-1) / (along * along).sum(-1)
    some = np.isfinite(times) & (times > 0)
    some &= np.isfinite(forms.constants) & np.isfinite(others.constants)
    multiple, own, other = (
        points(np.where(some, a, 1.0))
        for a in (times, forms.constants, others.constants)
    )
    rise = ar.sub(
        points(slopes),
        ar.mul(multiple.map(lambda a: a[:, None]), points(along)),
    )
    most = ar.sub(own, ar.mul(multiple, other))
    if slopes.shape[-1]:
        most = ar.add(most, ar.sum(points(np.maximum(ar.ends(rise)[1], 0.0))))
    above = np.maximum(ar.ends(most)[1], 0.0)
    return np.where(some & np.isfinite(above), above, np.inf)


def _corner_sum(ar: Arithmetic, low: np.ndarray, steep: np.ndarray) -> np.ndarray:
    """Lower bounds of the share of the cube where low + sum_i steep_i u_i >= 0, all steep_i > 0: the sum over corners v
    of (-1)^(zeros of v) max(0, low + sum_i steep_i v_i)^k, divided by k! and by all steep_i."""
    k, first = steep.shape[1], ar.exact(steep[:, 0])
    scaled = [
        ar.rational(Fraction(1)),
        *(ar.div(ar.exact(steep[:, i]), first) for i in range(1, k)),
    ]
    start, total, below = (
        ar.div(ar.exact(low), first),
        ar.rational(Fraction(0)),
        ar.rational(Fraction(factorial(k))),
    )
    for corner in product((False, True), repeat=k):
        at = start
        for slope, here in zip(scaled, corner, strict=True):
            at = ar.add(at, slope) if here else at
        term = power(ar, relu(ar, at), k)
        total = ar.add(total, -term if (k - sum(corner)) % 2 else term)
    for slope in scaled[1:]:
        below = ar.mul(below, slope)
    least, _ = ar.ends(ar.div(total, below))
    return np.clip(least, 0.0, 1.0)
