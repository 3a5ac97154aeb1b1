"""How many inputs of a cell are lost to groups of rivals, by counting on a grid.

Lemmas F6, F8 (docs/soundness/fold.md).
"""

from typing import TYPE_CHECKING

import numpy as np

from mechverify.kernel.core.counts import Counts
from mechverify.kernel.core.errors import Rejected
from mechverify.kernel.counting.nonpositive import count_nonpositive

if TYPE_CHECKING:
    from mechverify.kernel.fold.rule import Cell, Group


def wrong(cell: "Cell", groups: "tuple[Group, ...]", certain: "Group | None") -> Counts:
    """Bounds for the wrong inputs, counting for `groups` and the rival `certain`."""
    low = 0 if certain is None else surely_wrong(cell, *certain)
    lost = sum(maybe_wrong(cell, *group) for group in groups)
    covered = set(cell.undecided) <= {t for _, rivals in groups for t in rivals}
    return Counts(low, min(lost, cell.size) if covered else cell.size)


def maybe_wrong(cell: "Cell", step: int, rivals: tuple[int, ...]) -> int:
    """At most this many inputs of the cell are lost to one of `rivals`."""
    low, _ = cell.terms.of_rivals(cell.row, _rivals(cell, rivals))
    return _count(cell, low.min(-1), step, upwards=True)


def surely_wrong(cell: "Cell", step: int, rivals: tuple[int, ...]) -> int:
    """At least this many inputs of the cell are lost to the one of `rivals` (a tie is lost: see Claim)."""
    _, high = cell.terms.of_rivals(cell.row, _rivals(cell, rivals))
    return _count(cell, high[..., 0], step, upwards=False)


def _rivals(cell: "Cell", group: tuple[int, ...]) -> list[int]:
    """A rival is an output other than the right one; counting the right one against itself is no proof."""
    right, outputs = cell.input_class.right, cell.input_class.outputs
    if not group or not all(0 <= t < outputs and t != right for t in group):
        raise Rejected(f"{list(group)} are not rivals of output {right}")
    return list(group)


def _count(cell: "Cell", terms: np.ndarray, step: int, upwards: bool) -> int:
    ar = cell.input_class.ar
    integers = ar.to_grid(terms, cell.terms.exponent, step, upwards=not upwards)
    return count_nonpositive(ar, cell.layers, integers, upwards)
