"""A search that is cut into obligations: pure questions, each answered once, here or elsewhere, and kept.

What is asked, and in which order answers are used, doesn't depend on who answers, or when: the certificate is the same
to the byte for any number of workers, and after any kill.
"""

import hashlib
import json
import pickle
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

from mechverify.kernel.core.errors import Stopped
from mechverify.provers.base import Budget
from mechverify.provers.executors import Answered, Executor, Task
from mechverify.provers.store import Store, plain

OFTEN = 0.1  # seconds between two looks at the clock


class Desk:
    """Gives obligations to an `executor` (None: they are answered here, when the answer is used), and keeps answers in
    a `store`, if there is one. `taken`: the seconds of each that was answered."""

    def __init__(self, executor: Executor | None = None, store: Store | None = None):
        self.executor, self.store = executor, store
        self.workers = 0 if executor is None else executor.workers
        self.taken: list[float] = []
        self._keys: dict[int, str] = {}  # of those that are out
        self._back: dict[int, Answered] = {}
        self._number = 0
        self._pickled: dict[str, tuple[str, bytes]] = {}

    def ask(
        self, by: Callable[..., Any], problem: Any, asked: Any, budget: Budget
    ) -> Callable[[], Any]:
        """Precondition: `by` is a function of a module, of the problem, what is asked and a budget; its answer is what
        JSON can say, and depends on nothing else. Postcondition: the promise's answer is as JSON gives it back."""
        name = f"{by.__module__}:{by.__qualname__}"
        key = Store.key([name, problem.content, asked]) if self.store else ""
        if self.store is not None and (known := self.store.find(key)) is not None:
            return lambda: json.loads(known)
        if self.executor is None or not problem.travels:
            return lambda: self._here(by, problem, asked, budget, key)
        about, data = self._carried(problem)
        self._number += 1
        seconds = budget.deadline - time.monotonic()
        self._keys[number := self._number] = key
        self.executor.start(number, Task(name, about, asked, seconds), data)
        here = partial(self._here, by, problem, asked, budget, key)
        return lambda: self._elsewhere(number, budget, here)

    def _here(
        self, by: Callable[..., Any], problem: Any, asked: Any, budget: Budget, key: str
    ) -> Any:
        if budget.spent():
            raise Stopped
        begun = time.monotonic()
        text = json.dumps(by(problem, asked, budget), default=plain)
        self.taken.append(time.monotonic() - begun)
        if self.store is not None:
            self.store.keep(key, text)
        return json.loads(text)

    def _elsewhere(self, number: int, budget: Budget, here: Callable[[], Any]) -> Any:
        """Where it is answered; `here`, as long as nobody else is there."""
        self.collect(0)
        while number not in self._back:
            if budget.spent():
                raise Stopped
            if self.executor is not None and self.executor.hands_back(number):
                del self._keys[number]
                return here()
            self.collect(OFTEN)
        answer = self._back.pop(number)
        if answer.error is not None:
            raise answer.error
        assert answer.text is not None
        return json.loads(answer.text)

    def collect(self, seconds: float) -> None:
        """What was answered meanwhile is kept at once, whatever is waited for."""
        if self.executor is None or not self._keys:
            return
        for number, answer in self.executor.finished(seconds):
            key = self._keys.pop(number)
            self._back[number] = answer
            self.taken.append(answer.seconds)
            if self.store is not None and answer.text is not None:
                self.store.keep(key, answer.text)

    def _carried(self, problem: Any) -> tuple[str, bytes]:
        """A problem on its way to others, and a name for it."""
        if problem.content not in self._pickled:
            data = pickle.dumps(problem)
            self._pickled = {problem.content: (hashlib.sha256(data).hexdigest(), data)}
        return self._pickled[problem.content]

    def drop(self) -> None:
        """The search is over: what is out is worth nothing any more."""
        if self.executor is not None and self._keys:
            with suppress(OSError):
                self.collect(0)
            self.executor.drop()
        self._keys, self._back = {}, {}

    def memory(self) -> int:
        """Bytes that the workers have on this machine."""
        return 0 if self.executor is None else self.executor.memory()

    def close(self) -> None:
        if self.executor is not None:
            self.executor.close()
