"""A tally of cells, one for each query token and class: what a witness says of them, and what their bounds add up to.

Lemmas R7 (docs/soundness/ratios.md), X8 (docs/soundness/mixtures.md).
"""

from mechverify.kernel.core.counts import Counts
from mechverify.kernel.core.errors import Rejected
from mechverify.kernel.core.fields import Reader
from mechverify.kernel.counting.classes import Classes

Key = tuple[int, ...]  # of a class


class Tally:
    """Each cell that has an input is to be added once; `said` is what a witness says of those still to be taken."""

    def __init__(self, entry: Reader):
        self.added: list[tuple[int, Key, int, Counts]] = []
        self.said: dict[tuple[int, Key], Reader] = {}
        for row in entry.items(2**20):
            query, key, node = row.items(3, 3)
            where = query.an_integer(), tuple(key.integers(9))
            if where in self.said:
                raise Rejected(f"cell {where} is listed twice")
            self.said[where] = node

    def take(self, query: int, key: Key) -> Reader | None:
        """How to bound a cell's wrong inputs, if the witness says so."""
        return self.said.pop((query, key), None)

    def add(self, query: int, key: Key, size: int, wrong: Counts) -> None:
        """Bounds for the wrong inputs of a cell."""
        self.added.append((query, key, size, wrong))

    def right(self, partition: Classes) -> Counts:
        """Bounds for the right inputs of the domain; those that the guard excludes count as right."""
        low = high = covered = partition.unguarded
        for _, _, size, wrong in self.added:
            covered += size
            low, high = low + size - wrong.high, high + size - wrong.low
        if self.said:
            raise Rejected(
                f"the witness speaks of {len(self.said)} cells that don't exist"
            )
        if covered != partition.domain.size:
            raise Rejected(
                f"the cells hold {covered} inputs, the domain {partition.domain.size}"
            )
        partition.job.found.cells.extend(self.added)
        return Counts(low, high)
