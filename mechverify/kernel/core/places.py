"""Entries that are moved to other places, and added up where several meet.

Lemma C1 (docs/soundness/core.md).
"""

import math
from typing import TYPE_CHECKING

import numpy as np

from mechverify.kernel.core.errors import Unsupported
from mechverify.kernel.core.meter import ROOM

if TYPE_CHECKING:
    from mechverify.kernel.core.arithmetic import Arithmetic, Array, Ball


def scatter(ar: "Arithmetic", x: "Ball", entries: np.ndarray, size: int) -> "Ball":
    """`Arithmetic.scatter`, of numpy's arrays."""
    order = np.argsort(entries, kind="stable")
    turn = np.empty_like(order)  # the how-manieth with that target
    turn[order] = np.arange(len(order)) - np.searchsorted(
        entries[order], entries[order]
    )
    turns = int(turn.max()) + 1
    ar.spend(len(order), 10, 10)

    def spread(a: "Array") -> "Array":
        if (numbers := math.prod(a.shape[:-1]) * size * turns) > 4 * ROOM:
            raise Unsupported(f"a sum needs {numbers} numbers (limit {4 * ROOM})")
        place = np.zeros((*a.shape[:-1], size * turns), a.dtype)
        place[..., entries * turns + turn] = a
        return place.reshape(*a.shape[:-1], size, turns)

    return ar.sum(x.map(spread))
