"""Parts that wait to be improved, the worst first."""

import heapq
import itertools
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, Generic, TypeVar

Part = TypeVar("Part")
AT_ONCE = 2**5  # obligations that are out, whoever answers them


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

    def answered(
        self,
        ask: Callable[[list[Part]], Callable[[], Any]],
        together: Callable[[Part], int] = lambda part: 1,
    ) -> Iterator[tuple[list[Part], Any]]:
        """Some parts with what is answered of them, in the order in which they were asked for; what they leave open may
        be added then. Which are asked for doesn't depend on who answers. `together`: as many of a part's like are asked
        for at a time. Raises what promises raise."""
        out: deque[tuple[list[Part], Callable[[], Any]]] = deque()
        while self or out:
            while self and len(out) < AT_ONCE:
                some = [self.take()]
                most = together(some[0])
                while self and len(some) < most == together(self._heap[0][-1]):
                    some.append(self.take())
                out.append((some, ask(some)))
            some, promise = out.popleft()
            yield some, promise()
