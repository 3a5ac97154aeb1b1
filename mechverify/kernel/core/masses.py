"""How much of a union of boxes a part of one of them is: by volume, or by the mass of a product of distributions.

Lemma M10 (docs/soundness/measure.md).
"""

from dataclasses import dataclass

import numpy as np

from mechverify.kernel.core.arithmetic import Arithmetic, Ball
from mechverify.kernel.core.errors import Rejected
from mechverify.kernel.core.float64 import Float64
from mechverify.kernel.core.measure import Measure
from mechverify.kernel.core.meter import ROOM, Meter
from mechverify.kernel.core.unions import Union

COST = (
    40  # units of work for a box and a coordinate, of boxes that are compared with one
)


@dataclass(frozen=True, eq=False)
class Disjoint(Measure):
    """Of boxes without common interior, `union`; each is a `share` of the whole [boxes]. A part lies in one of them."""

    union: Union
    share: Ball

    def marks(self, ar: Arithmetic, at: np.ndarray) -> Ball:
        """Of the box that each part is in; of the first coordinate that is no point, times that box's share."""
        ar.step(len(at) * self.union.low.size, len(self.low), COST)
        box = self._box_of(at)
        found = self.along(ar, at, self.union.low[box], self.union.high[box])
        first = int(np.argmax(self.low < self.high))
        of_box = ar.mul(
            found.map(lambda a: a[:, first]), self.share.map(lambda a: a[box, None])
        )
        for side, weighed in zip(found[:2], of_box[:2], strict=True):
            side[:, first] = weighed
        return found

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
    return Disjoint(
        measure.low,
        measure.high,
        measure.normal,
        union,
        _shares(Float64(), measure, union),
    )


def _shares(ar: Arithmetic, measure: Measure, union: Union) -> Ball:
    """Of each box, of all of them [boxes]: products over the coordinates, in which the largest interval is one."""
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
    return ar.div(weight, total)
