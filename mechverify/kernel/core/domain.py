"""What a claim speaks of: token sequences, a box of real inputs, and what is known of a part of them.

Lemma L14 (docs/soundness/relaxation.md).
"""

from collections.abc import Iterable, Iterator
from itertools import pairwise
from math import prod
from typing import NamedTuple

import numpy as np

from mechverify.kernel.core.arithmetic import Arithmetic
from mechverify.kernel.core.errors import Rejected
from mechverify.kernel.core.fields import Reader

BLOCK = 2**13  # inputs that are listed at a time


class Domain(NamedTuple):
    """A product of token sets, `tokens[i]` the distinct ids, ascending, allowed at position i; and of a box, all real
    inputs flattened one after another: its corners `low` and `high` [coordinates]. Of these, the inputs for which the
    `facts` hold: (node, entry, at, above) says that an entry of a rewritten node is at least `at`, or at most."""

    tokens: tuple[tuple[int, ...], ...]
    low: np.ndarray = np.zeros(0)
    high: np.ndarray = np.zeros(0)
    facts: tuple[tuple[int, int, float, bool], ...] = ()

    @property
    def length(self) -> int:
        return len(self.tokens)

    @property
    def size(self) -> int:
        """The number of token sequences."""
        return prod(map(len, self.tokens))

    def split(self, position: int, first: set[int]) -> tuple["Domain", "Domain"]:
        """The inputs whose token at `position` is in `first`, and the others: together, exactly this domain."""
        within, outside = (
            tuple(t for t in self.tokens[position] if (t in first) == inside)
            for inside in (True, False)
        )
        return self._with(position, within), self._with(position, outside)

    def _with(self, position: int, tokens: tuple[int, ...]) -> "Domain":
        return self._replace(
            tokens=(*self.tokens[:position], tokens, *self.tokens[position + 1 :])
        )

    def cut(self, coordinate: int, at: float) -> tuple["Domain", "Domain"]:
        """The inputs with that coordinate up to `at`, and from there on."""
        low = self.low.copy()
        high = self.high.copy()
        low[coordinate] = high[coordinate] = at
        return self._replace(high=high), self._replace(low=low)

    def sides(
        self, places: Iterable[tuple[int, int]], at: float
    ) -> tuple["Domain", "Domain"]:
        """The inputs for which a value is at most `at`, and at least: one that stands at these entries of nodes."""
        below, beyond = (
            self._replace(
                facts=(*self.facts, *((*place, at, above) for place in places))
            )
            for above in (False, True)
        )
        return below, beyond

    def inputs(self, start: int, stop: int) -> np.ndarray:
        """Sequences number `start` to `stop` - 1 in lexicographic order, ids [stop - start, length]."""
        index = np.arange(start, stop)
        columns = []
        for here in reversed(self.tokens):
            index, digit = np.divmod(index, len(here))
            columns.append(np.array(here)[digit])
        return np.stack(columns[::-1], -1)

    def contains(self, inputs: np.ndarray) -> bool:
        return all(
            np.isin(inputs[:, i], here).all() for i, here in enumerate(self.tokens)
        )


def read(
    entry: Reader, real: bool
) -> tuple[Domain, tuple[int, ...], list[tuple[int, ...]]]:
    """Token sets by position (ids, ascending), the integer that each id of the vocabulary means, and the shapes of
    the inputs, if they may be real."""
    inputs = entry["inputs"].items(2**8) if real else []
    values = tuple(entry["values"].integers(2**20))
    tokens = tuple(
        tuple(row.integers())
        for row in entry["tokens"].items(2**10, 0 if inputs else 1)
    )
    entry.close()
    for here in tokens:
        if (
            not here
            or here[0] < 0
            or here[-1] >= len(values)
            or not all(a < b for a, b in pairwise(here))
        ):
            raise Rejected(
                "a token set of the domain is empty, not ascending, or not within the vocabulary"
            )
    shapes, low, high = [], np.zeros(0), np.zeros(0)
    if inputs:
        from mechverify.kernel.core.boxes import corners

        shapes, low, high = corners(inputs)
    domain = Domain(tokens, low, high)
    if domain.size >= 2**13_000:
        raise Rejected("the domain has more than 2^13000 inputs")
    return domain, values, shapes


def listed(ar: Arithmetic, part: Domain) -> Iterator[np.ndarray]:
    """All inputs of a part, each once, in lexicographic order: ids [number, length], in blocks of at most BLOCK."""
    for start in range(0, part.size, BLOCK):
        ar.spend(BLOCK * part.length + sum(map(len, part.tokens)), 10 * part.length)
        yield part.inputs(start, min(start + BLOCK, part.size))
