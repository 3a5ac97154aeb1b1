"""How much of a box a part of it is: by volume, or by the mass of a product of distributions, one a coordinate.

Lemmas M1, M2 (docs/soundness/measure.md).
"""

from dataclasses import dataclass
from fractions import Fraction
from typing import NamedTuple

import numpy as np

from mechverify.kernel.core import elementary
from mechverify.kernel.core.arithmetic import Arithmetic, Ball
from mechverify.kernel.core.counts import Counts
from mechverify.kernel.core.errors import Rejected
from mechverify.kernel.core.fields import Reader

HALVINGS = (
    60  # of the whole to one unit: counts of units are integers, and add up exactly
)


class Normal(NamedTuple):
    """A Gaussian; only what it says within the box counts."""

    mean: Fraction
    deviation: Fraction


@dataclass(frozen=True, eq=False)
class Measure:
    """The box's corners [coordinates], and each coordinate's distribution there (None: uniform). A coordinate whose
    corners are equal is a point, and counts for nothing."""

    low: np.ndarray
    high: np.ndarray
    normal: tuple[Normal | None, ...]

    @staticmethod
    def read(entry: Reader | None, low: np.ndarray, high: np.ndarray) -> "Measure":
        """A list with null, or [mean, deviation], for each coordinate; None where there are no inputs."""
        rows = [] if entry is None else entry.items(len(low), len(low))
        return Measure(
            low,
            high,
            tuple(None if row.value is None else _normal(row) for row in rows),
        )

    @property
    def total(self) -> int:
        """Units of the whole: one, where there is no box."""
        return 2**HALVINGS if len(self.low) else 1

    def units(self, ar: Arithmetic, share: Ball) -> np.ndarray:
        """Integers [2, parts] between which that share of the whole lies, a number from 0 to 1."""
        ends = (
            np.ldexp(np.clip(end, 0.0, 1.0), HALVINGS if len(self.low) else 0)
            for end in ar.ends(share)
        )
        low, high = ends
        return np.stack([np.floor(low), np.ceil(high)]).astype(np.int64)

    def told(self, found: Counts, total: int) -> Counts:
        """Right units of the whole, of which there are so many, from what was counted."""
        return found

    def marks(self, ar: Arithmetic, at: np.ndarray) -> Ball:
        """What `mass` is told of points `at` [parts, coordinates, numbers] in the box: the share of each coordinate's
        mass up to there, exactly 0 and 1 at its corners. Rejects a box that is too wide, or of which a distribution
        gives too little, to tell."""
        low, high = (
            np.broadcast_to(end, at.shape[:2]) for end in (self.low, self.high)
        )
        return self.along(ar, at, low, high)

    def along(
        self, ar: Arithmetic, at: np.ndarray, low: np.ndarray, high: np.ndarray
    ) -> Ball:
        """The same, of each part's share of the box with these corners [parts, coordinates]."""
        sides = np.zeros(at.shape), np.zeros(at.shape)
        for c in range(len(self.low)):
            first, last, inside = self.interval(ar, c, low[:, c], high[:, c], at[:, c])
            size, wide = ar.sub(last, first), (low[:, c] < high[:, c])[:, None]
            if (wide & ~(ar.ends(size)[0] > 0)).any():
                a, b = (
                    end[np.argmax(wide & ~(ar.ends(size)[0] > 0)), c]
                    for end in (low, high)
                )
                raise Rejected(
                    f"coordinate {c}: from {a} to {b} is more, or has less mass, than float64 can tell"
                )
            share = ar.div(
                ar.sub(inside, first), ar.where(wide, size, ar.rational(Fraction(1)))
            )
            a, b = (end[:, c, None] for end in (low, high))
            known = wide & (at[:, c] != a) & (at[:, c] != b)
            for side, value, edge in zip(
                sides, share[:2], (wide & (at[:, c] == b), 0.0), strict=True
            ):
                side[:, c] = np.where(known, value, edge)
        return Ball(*sides)

    def interval(
        self, ar: Arithmetic, c: int, low: np.ndarray, high: np.ndarray, at: np.ndarray
    ) -> tuple[Ball, Ball, Ball]:
        """How much of coordinate c's mass lies below ends [parts], as [parts, 1], and below `at` [parts, numbers], all
        in one unit and but for one constant."""
        numbers = np.concatenate([low[:, None], high[:, None], at], 1)
        here, place = np.unique(
            numbers, return_inverse=True
        )  # parts have many points in common
        whole = ar.exact(here) if self.normal[c] is None else self.erf(ar, c, here)
        whole = whole.map(lambda v: v[place.reshape(numbers.shape)])
        first, last, inside = (
            whole.map(lambda v, k=k: v[:, k])
            for k in (slice(1), slice(1, 2), slice(2, None))
        )
        return first, last, inside

    def mass(
        self, ar: Arithmetic, low: np.ndarray, high: np.ndarray, first: Ball, last: Ball
    ) -> Ball:
        """Of boxes: the share of the whole [boxes], from their corners and these' marks [boxes, coordinates]."""
        total = ar.whole(np.ones(len(low)))
        for c in range(len(self.low)):
            a, b = (end.map(lambda v, c=c: v[:, c]) for end in (first, last))
            uncut = (a.mid == 0) & (a.rad == 0) & (b.mid == 1) & (b.rad == 0)
            if self.low[c] < self.high[c]:
                share = self._between(ar, c, low[:, c], high[:, c], ar.sub(b, a))
                total = ar.where(uncut, total, ar.mul(total, share))
        return total

    def _between(
        self, ar: Arithmetic, c: int, low: np.ndarray, high: np.ndarray, share: Ball
    ) -> Ball:
        """How much an interval of coordinate c counts that has this share of its mass."""
        return share

    def of(self, ar: Arithmetic, low: np.ndarray, high: np.ndarray) -> Ball:
        """The share of the whole of boxes with these corners [boxes, coordinates]."""
        if ar.is_exact:
            raise Rejected("how much of a box a part is, is told in float64 only")
        both = self.marks(ar, np.stack([low, high], -1))
        first, last = (both.map(lambda a, i=i: a[..., i]) for i in (0, 1))
        return self.mass(ar, low, high, first, last)

    def erf(self, ar: Arithmetic, c: int, at: np.ndarray) -> Ball:
        """Twice the mass up to there, but for a constant."""
        return elementary.erf(
            ar, ar.div(self._deviations(ar, c, at), ar.sqrt(ar.rational(Fraction(2))))
        )

    def _deviations(self, ar: Arithmetic, c: int, at: np.ndarray) -> Ball:
        """How many standard deviations above the mean."""
        normal = self.normal[c]
        assert normal is not None
        return ar.div(
            ar.sub(ar.exact(at), ar.rational(normal.mean)),
            ar.rational(normal.deviation),
        )

    def _slope(self, ar: Arithmetic, c: int, low: np.ndarray, high: np.ndarray) -> Ball:
        """Upper bounds [boxes], as points, of how fast the logarithm of the density changes with coordinate c, in
        deviations: it falls on both sides of the mean."""
        return ar.exact(far(*self._reach(ar, c, low, high)))

    def _reach(
        self, ar: Arithmetic, c: int, low: np.ndarray, high: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Numbers [boxes] between which the deviations of coordinate c lie."""
        ends = (ar.ends(self._deviations(ar, c, end[:, c])) for end in (low, high))
        (below, _), (_, above) = ends
        return below, above

    def bow(
        self, ar: Arithmetic, low: np.ndarray, high: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Two arrays [boxes, coordinates] between which t - u lies: t is how far along its interval a coordinate is,
        from 0 to 1, and u the share of the interval's mass up to there."""
        least, most = np.zeros(low.shape), np.zeros(low.shape)
        for c, normal in enumerate(self.normal):
            if normal is None:
                continue
            a, b = (self._deviations(ar, c, end[:, c]) for end in (low, high))
            steep = ar.mul(ar.sub(b, a), self._slope(ar, c, low, high))
            small = ar.ends(steep)[1] < 0.5
            steep = ar.where(small, steep, ar.rational(Fraction(1, 2)))
            bend = ar.div(
                steep,
                ar.mul(
                    ar.rational(Fraction(8)), ar.sub(ar.rational(Fraction(1)), steep)
                ),
            )
            bend = np.where(small, ar.ends(bend)[1], 1.0)
            least[:, c] = np.where(
                ar.ends(b)[1] <= 0, 0.0, -bend
            )  # the density rises: less than t lies below
            most[:, c] = np.where(ar.ends(a)[0] >= 0, 0.0, bend)
        return least, most


def far(below: np.ndarray, above: np.ndarray) -> np.ndarray:
    """The largest distance from zero between two numbers."""
    return np.maximum(np.abs(below), np.abs(above))


def _normal(row: Reader) -> Normal:
    mean, deviation = (v.number() for v in row.items(2, 2))
    if not (Fraction(1, 2**500) < deviation < 2**500 and abs(mean) < 2**500):
        raise Rejected(
            f"{row.where}: expected a mean and a deviation, of sizes between 2^-500 and 2^500"
        )
    return Normal(mean, deviation)
