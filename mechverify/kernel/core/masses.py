"""How much of a union of boxes a part of one of them is: by volume, or by the mass of a product of distributions.

Lemma M10 (docs/soundness/measure.md).
"""

from dataclasses import dataclass
from fractions import Fraction
from math import ceil

import numpy as np

from mechverify.kernel.core.arithmetic import Arithmetic, Ball
from mechverify.kernel.core.counts import Counts
from mechverify.kernel.core.errors import Rejected
from mechverify.kernel.core.float64 import Float64
from mechverify.kernel.core.measure import Measure
from mechverify.kernel.core.meter import ROOM, Meter
from mechverify.kernel.core.unions import Union

DIGITS = 53  # of a box's share
COST = (
    40  # units of work for a box and a coordinate, of boxes that are compared with one
)


@dataclass(frozen=True, eq=False)
class Disjoint(Measure):
    """Of boxes without common interior, `union`; a part lies in one of them. Each is taken for a `share` of the whole
    [boxes], a float64 number, as these add up to 1 exactly; their true shares differ by no more than `error` units, all
    of them together."""

    union: Union
    share: np.ndarray
    error: int

    @property
    def first(self) -> int:
        """The first coordinate that is no point."""
        return int(np.argmax(self.low < self.high))

    def marks(self, ar: Arithmetic, at: np.ndarray) -> Ball:
        """Of the box that each part is in; of the first coordinate, times that box's share."""
        ar.step(len(at) * self.union.low.size, len(self.low), COST)
        box, c = self._box_of(at), self.first
        found = self.along(ar, at, self.union.low[box], self.union.high[box])
        own, share = found.map(lambda a: a[:, c]), ar.exact(self.share[box, None])
        end = (own.rad == 0) & ((own.mid == 0) | (own.mid == 1))
        weighed = ar.where(end, ar.exact(own.mid * share.mid), ar.mul(own, share))
        for side, value in zip(found[:2], weighed[:2], strict=True):
            side[:, c] = value
        return found

    def mass(
        self, ar: Arithmetic, low: np.ndarray, high: np.ndarray, first: Ball, last: Ball
    ) -> Ball:
        """Exactly the box's share, where it is all of it."""
        c = self.first
        a, b = (end.map(lambda v: v[:, c]) for end in (first, last))
        along = ar.where((a.mid == 0) & (a.rad == 0), b, ar.sub(b, a))
        ends = []
        for end, value in ((first, 0.0), (last, 1.0)):
            mid, rad = (np.array(side) for side in end[:2])
            mid[:, c], rad[:, c] = value, 0.0
            ends.append(Ball(mid, rad))
        others = super().mass(ar, low, high, *ends)
        all_ = (others.mid == 1) & (others.rad == 0)
        return ar.where(all_, along, ar.mul(others, along))

    def told(self, found: Counts, total: int) -> Counts:
        """Where all of the boxes are right, or wrong, it doesn't matter what they weigh."""
        error = self.error * (total // self.total)
        low = found.low if found.low == total else max(0, found.low - error)
        high = found.high if found.high == 0 else min(total, found.high + error)
        return Counts(low, high)

    def _box_of(self, at: np.ndarray) -> np.ndarray:
        """The number of the box [parts] that all of a part's points lie in."""
        least, most, union = at.min(2), at.max(2), self.union
        boxes, step = np.zeros(len(at), np.int64), max(1, ROOM // union.low.size)
        for i in range(0, len(at), step):
            some = slice(i, i + step)
            inside = (union.low <= least[some, None]) & (most[some, None] <= union.high)
            holds = inside.all(2)
            if not holds.any(1).all():
                raise Rejected("a part of the proof is not inside one box of the union")
            boxes[some] = holds.argmax(1)
        return boxes


def disjoint(meter: Meter, measure: Measure, union: Union) -> Disjoint:
    """The measure on a union of boxes. Rejects boxes that have interior points in common, and a coordinate that is a
    point in one box and not in another. Complexity: boxes squared times coordinates."""
    wide = measure.low < measure.high
    if not wide.any() or not (union.low[:, wide] < union.high[:, wide]).all():
        raise Rejected(
            "a box of the union has no volume beside the others: a coordinate of it is a point"
        )
    low, high = union.low[:, wide], union.high[:, wide]
    meter.step(len(low) * low.size, len(low), COST)
    for i in range(len(low)):
        apart = ((low[i + 1 :] >= high[i]) | (high[i + 1 :] <= low[i])).any(1)
        if not apart.all():
            raise Rejected(
                f"boxes {i} and {i + 1 + int(np.argmin(apart))} of the union overlap: they would count twice"
            )
    share, error = _shares(Float64(), measure, union)
    return Disjoint(measure.low, measure.high, measure.normal, union, share, error)


def _shares(ar: Arithmetic, measure: Measure, union: Union) -> tuple[np.ndarray, int]:
    """Of each box, of all of them: products over the coordinates, in which the largest interval is one. Multiples of
    2^-DIGITS that are at least one and add up to 1, and units by which they err, together."""
    weight = ar.whole(np.ones(len(union.low)))
    for c in np.flatnonzero(measure.low < measure.high).tolist():
        ends = union.low[:, c], union.high[:, c]
        first, last, _ = measure.interval(ar, c, *ends, np.zeros((len(ends[0]), 0)))
        size = ar.sub(last, first).map(lambda a: a[:, 0])
        largest = ar.exact(np.full(1, ar.ends(size)[1].max()))
        if not ar.ends(size)[0].min() > 0 or not np.isfinite(largest.mid).all():
            raise Rejected(
                f"coordinate {c}: a box of the union has less mass, or more, than float64 can tell"
            )
        weight = ar.mul(weight, ar.div(size, largest))
    total = ar.sum(weight.map(lambda a: a[None]))
    if not ar.ends(total)[0].min() > 0:
        raise Rejected("the union has less mass than float64 can tell")
    exact = ar.div(weight, total)
    near = np.maximum(np.rint(np.ldexp(exact.mid, DIGITS)), 1).astype(np.int64)
    near[np.argmax(near)] += 2**DIGITS - int(near.sum())  # any choice is sound
    if near.min() < 1:
        raise Rejected("the union has more boxes than float64 can weigh")
    share = np.ldexp(near.astype(np.float64), -DIGITS)
    apart = ar.ends(ar.sub(exact, ar.exact(share)))
    errors = np.maximum(np.abs(apart[0]), np.abs(apart[1])).tolist()
    return share, ceil(sum(map(Fraction, errors)) * measure.total)
