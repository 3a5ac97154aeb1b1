"""Parts that wait to be improved, the worst first."""

import heapq
import itertools
from collections.abc import Iterator
from typing import Generic, TypeVar

Part = TypeVar("Part")


class WorstFirst(Generic[Part]):
    """Of equally bad parts, the one that was added first."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Part]] = []
        self._number = itertools.count()

    def add(self, part: Part, how_bad: float) -> None:
        heapq.heappush(self._heap, (-how_bad, next(self._number), part))

    def take(self) -> Part:
        return heapq.heappop(self._heap)[-1]

    @property
    def worst(self) -> float:
        """How bad the worst one is."""
        return -self._heap[0][0]

    def __len__(self) -> int:
        return len(self._heap)

    def __iter__(self) -> Iterator[Part]:
        """In no order."""
        return (part for *_, part in self._heap)
