"""What every prover gets, whatever the claim is about, and what it has to offer."""

import math
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import numpy as np

from mechverify.kernel.core.errors import Rejected, Stopped, Unsupported

METHODS = (
    "interval",
    "linear",
    "optimised",
    "branching",
)  # for ranges, from cheap to dear
LATE = (
    2.0,
    0.05,
)  # seconds, and share of a time limit, by which the check may go beyond it
AHEAD = 2  # obligations for each worker: one in hand, one that waits
Progress = Callable[
    [str, float | None], None
]  # what is being done; how much of it is done, from 0 to 1

A_Problem = TypeVar("A_Problem", contravariant=True)
Seen = TypeVar("Seen", contravariant=True)
Gives = TypeVar("Gives", covariant=True)


class Prover(Protocol[A_Problem, Seen, Gives]):
    """One way to a proof. accuracy/find.py and ranges/search.py have those of each kind of claim, in order: of a
    problem of that kind, and what was seen of it so far, each gives a proof and what it should prove."""

    @property
    def name(self) -> str: ...

    def accepts(self, problem: A_Problem, seen: Seen, /) -> str | None:
        """None if this prover can try; otherwise the reason why it can't, with what to do ("" if it isn't its turn)."""
        ...

    def prove(self, problem: A_Problem, seen: Seen, budget: "Budget", /) -> Gives: ...


class Asks(Protocol):
    """See obligations.py."""

    workers: int
    taken: list[float]

    def ask(
        self, by: Callable[..., Any], problem: Any, asked: Any, budget: "Budget"
    ) -> Callable[[], Any]: ...

    def drop(self) -> None: ...

    def memory(self) -> int: ...

    def close(self) -> None: ...


class Keeps(Protocol):
    """See store.py."""

    def once(
        self, asked: Any, answer: Callable[[], Any], whole: Callable[[], bool]
    ) -> Any: ...


@dataclass
class Budget:
    """Time and interruption. A prover asks `spent` between steps, and then returns what it has; the kernel's arithmetic
    asks within long steps, and raises Stopped. `reserved` is what checking the proof found so far will take, in
    seconds, so that the search ends while there is time for it. `end`: when the check is given up as well. `memory`:
    bytes that the process may take; `short`: it has taken them. `store`: of finished obligations (store.py). `desk`: a
    long search is cut into obligations, and given out there (obligations.py)."""

    deadline: float = math.inf
    progress: Progress = lambda what, share: None
    interrupted: bool = False
    checking: bool = False  # the search is over
    end: float = math.inf
    reserved: float = 0.0
    store: Keeps | None = None
    desk: Asks | None = None
    memory: float = math.inf
    short: bool = False
    _rehearsal: float | None = None  # since when

    def __enter__(self) -> "Budget":
        return self

    def __exit__(self, *_: object) -> None:
        if self.desk is not None:
            self.desk.close()

    @contextmanager
    def searching(self) -> Iterator[None]:
        """After it nobody works on what was given out."""
        try:
            yield
        finally:
            if self.desk is not None:
                self.desk.drop()

    def limit(self, seconds: float, since: float | None = None) -> None:
        """From `since` (now) on."""
        self.deadline = (time.monotonic() if since is None else since) + seconds
        self.end = self.deadline + LATE[0] + LATE[1] * seconds

    @contextmanager
    def within(self, seconds: float) -> Iterator[None]:
        """One step of the search has that long at most."""
        before = self.deadline
        self.deadline = min(before, time.monotonic() + self._for_check() + seconds)
        try:
            yield
        finally:
            self.deadline = before

    def hurry(self, seconds: float) -> None:
        """Somebody is about to end the process: only that long is left."""
        self.interrupted, self.end = True, min(self.end, time.monotonic() + seconds)

    def spent(self) -> bool:
        over = self.interrupted or self.short
        return over or time.monotonic() + self._for_check() > self.deadline

    def _for_check(self) -> float:
        """Seconds to be left for it; none where it has all the time it needs."""
        rehearsed = (
            0.0 if self._rehearsal is None else time.monotonic() - self._rehearsal
        )
        return self.reserved + rehearsed if self.end < math.inf else 0.0

    def once(
        self, asked: Any, answer: Callable[[], Any], whole: Callable[[], bool]
    ) -> Any:
        """The answer, from the store where it is known there."""
        if self.store is None:
            return answer()
        return self.store.once(asked, answer, whole)

    def ask(
        self, by: Callable[..., Any], problem: Any, asked: Any
    ) -> Callable[[], Any]:
        """A promise of by(problem, asked, budget); it may be kept elsewhere meanwhile. Raises Stopped when it is called
        and time is up, or what `by` raises."""
        if self.desk is None:
            return lambda: by(problem, asked, self)
        return self.desk.ask(by, problem, asked, self)

    def in_order(self, promises: Iterable[Callable[[], Any]]) -> Iterator[Any]:
        """Their answers; as many more are asked for meanwhile as keep all workers busy."""
        waiting: deque[Callable[[], Any]] = deque()
        for promise in promises:
            waiting.append(promise)
            if len(waiting) > AHEAD * (self.desk.workers if self.desk else 0):
                yield waiting.popleft()()
        for promise in waiting:
            yield promise()

    @contextmanager
    def rehearsing(self) -> Iterator[None]:
        """What is done in here, the check will do again."""
        if self._rehearsal is not None:
            yield
            return
        self._rehearsal = time.monotonic()
        try:
            yield
        finally:
            self.reserved += time.monotonic() - self._rehearsal
            self._rehearsal = None

    def watch(self, work: int, allowed: float) -> None:
        """For the search's arithmetic."""
        if self.spent():
            raise Stopped

    def watch_check(self, work: int, allowed: float) -> None:
        """For the kernel's check of what was found."""
        if time.monotonic() > self.end:
            raise Stopped

    @property
    def why(self) -> str:
        if self.interrupted:
            return "interrupted"
        what = "memory" if self.short else "time"
        return f"the {what} limit was reached; raise --{what}-limit"


def unsupported(build: Callable[[], object]) -> str | None:
    """Why what a rule takes a claim apart into can't be built; None where it can."""
    try:
        with np.errstate(all="ignore"):
            build()
    except Unsupported as error:
        return str(error)
    return None


def failure(error: Exception) -> str:
    """Why a step of the search failed; the kernel's own reasons need no more words."""
    said = str(error)[:500]
    if isinstance(error, MemoryError) or "allocate memory" in said:  # numpy; torch
        return "there was not enough memory; a smaller domain, or model, needs less"
    known = isinstance(error, Rejected)
    return (
        said
        if known
        else f"the search failed, please report it: {type(error).__name__}: {said}"
    )
