"""Unions of boxes: a claim about the inputs of its domain that lie in at least one of several boxes.

Lemma C19 (docs/soundness/core.md).
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from mechverify.kernel.core.claim import Job
from mechverify.kernel.core.domain import Domain
from mechverify.kernel.core.errors import Rejected
from mechverify.kernel.core.fields import Reader

if TYPE_CHECKING:
    from mechverify.kernel.core.ranges import RangeClaim
    from mechverify.kernel.core.share import ShareClaim

MOST = 2**16  # boxes


class Union(NamedTuple):
    """Corners [boxes, coordinates], of boxes that may overlap."""

    low: np.ndarray
    high: np.ndarray

    def holds(self, points: np.ndarray) -> np.ndarray:
        """Booleans [points]: which of them [points, coordinates] lie in a box."""
        inside = [((self.low <= x) & (x <= self.high)).all(1).any() for x in points]
        return np.array(inside, bool)

    def parts(self, part: Domain) -> list[Domain]:
        """What a part has in common with each box, in order; boxes that it doesn't meet are left out."""
        low, high = np.maximum(self.low, part.low), np.minimum(self.high, part.high)
        meet = (low <= high).all(1)
        return [
            part._replace(low=a, high=b)
            for a, b in zip(low[meet], high[meet], strict=True)
        ]


def read(entry: Reader, inputs: Domain) -> Union:
    """A claim's field `union`: of each box the least and the greatest numbers, of all coordinates."""
    n, ends = len(inputs.low), ([], [])
    if not n:
        raise Rejected(
            f"{entry.where}: a union is of boxes, and the domain has no real inputs"
        )
    for row in entry.items(MOST, 1):
        for corners, end in zip(ends, row.items(2, 2), strict=True):
            corners.append([v.float64() for v in end.items(n, n)])
    low, high = np.array(ends, np.float64)
    if not ((inputs.low <= low) & (low <= high) & (high <= inputs.high)).all():
        raise Rejected(
            f"{entry.where}: a box of the union is empty, or reaches beyond the domain's inputs"
        )
    return Union(low, high)


def need_inside(job: Job, points: np.ndarray) -> None:
    """Rejects points [points, coordinates] of which one is in no box of the claim's union."""
    union = job.claim.union
    job.ar.step(len(points) * union.low.size, len(points), 2)
    if not union.holds(points).all():
        raise Rejected("a point lies in no box of the union")


def check(
    job: Job, part: Domain, witness: Reader, prove: Callable
) -> tuple[Any, dict[str, int]]:
    """Precondition: the claim is about a union; of one that counts, the boxes have no common interior (core/masses.py).
    Postcondition: bounds of the inputs of the part that lie in a box, from those of what it has in common with each.
    Complexity: that of the proofs, which are checked side by side."""
    claim: RangeClaim | ShareClaim = job.claim
    if claim.union is None:
        raise Rejected(f"{witness.where}: the claim is about no union of boxes")
    job.ar.spend(4 * claim.union.low.size)
    parts = claim.union.parts(part)
    if not parts:
        raise Rejected(f"{witness.where}: no box of the union meets this part")
    proofs = witness["parts"].items(len(parts), len(parts))
    witness.close()
    return prove(job, list(zip(parts, proofs, strict=True)))
