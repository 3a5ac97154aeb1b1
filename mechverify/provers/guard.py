"""Signals and the clock, for a process that proves one claim: what they end, and how soon."""

import math
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console

from mechverify.kernel.core.errors import Stopped
from mechverify.provers.base import Budget

GRACE = 8.0  # seconds after SIGTERM: schedulers kill some ten seconds later
SOON = 1.0, 0.02
"""Seconds, and share of the time limit, after which a step that doesn't look at the clock is ended."""
BUSY = 3  # how much longer that may take where other processes have the cores
MORE = 1.25  # of the memory limit, at which the process is ended
AGAIN = 3.0  # seconds until it is tried again
LAST = 2.0, 0.03  # after the budget's end: the process


class Guard:
    """The first Ctrl-C asks the search for what it has; the second one stops it. SIGTERM leaves GRACE seconds as well.

    So does a process that takes more memory than the budget allows.

    Where a step of the search (a claim file, sympy, torch) doesn't look at the budget, a thread has Stopped raised in
    its middle; and where nothing helps, it calls `give_up` with the reason, which ends the process. `step` is what is
    being done; "" while nothing may be broken off.
    """

    def __init__(self, budget: Budget, console: Console, give_up: Callable[[str], Any]):
        self.budget, self.console, self.give_up = budget, console, give_up
        self.began, self.step = time.monotonic(), ""
        self.asked = math.inf  # when somebody interrupted
        self.worked = math.inf  # the process's own seconds then, or when time was up
        self.over = threading.Event()
        self._ending = False

    def __enter__(self) -> "Guard":
        self.before = {
            s: signal.signal(s, self._ask) for s in (signal.SIGINT, signal.SIGTERM)
        }
        threading.Thread(target=self._look, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        for number, handler in self.before.items():
            signal.signal(number, handler)

    @property
    def reason(self) -> str:
        return f"{self.step or 'the call'} didn't end: {self.budget.why}"

    def _ask(self, number: int, frame: Any) -> None:
        if self._ending:
            self._ending = False
            if self.step:
                raise Stopped
            return
        if self.budget.interrupted:
            raise KeyboardInterrupt
        self.asked, self.budget.interrupted = time.monotonic(), True
        if number == signal.SIGTERM:
            self.budget.hurry(GRACE)
        self.console.print(
            "interrupted: finishing with what is proved so far (again to stop at once)"
        )

    def _look(self) -> None:
        """The thread."""
        tried = 0.0
        while not self.over.wait(0.1):
            now, budget = time.monotonic(), self.budget
            if budget.memory < math.inf and self._too_large():
                return
            length = max(0.0, budget.deadline - self.began)
            soon = SOON[0] + (SOON[1] * length if self.asked == math.inf else 0)
            if now > budget.end + LAST[0] + (
                0 if budget.interrupted else LAST[1] * length
            ):
                self.give_up(self.reason)
                return
            main = threading.main_thread().ident
            if (
                main is not None
                and self._since(min(self.asked, budget.deadline)) > soon
                and now - tried > AGAIN
                and self.step
                and not budget.checking
            ):
                tried, self._ending = now, True
                signal.pthread_kill(main, signal.SIGINT)  # wakes what sleeps, too

    def _since(self, over: float) -> float:
        """Seconds of work since then: finishing what is proved takes longer on a busy machine, and isn't to be ended
        for that."""
        passed, worked = time.monotonic() - over, time.process_time()
        if passed < 0:
            self.worked = math.inf
            return 0.0
        self.worked = min(self.worked, worked)
        return max(passed / BUSY, min(passed, worked - self.worked))

    def _too_large(self) -> bool:
        """Whether the process was ended for it."""
        desk = self.budget.desk
        taken = resident() + (0 if desk is None else desk.memory())
        if taken > self.budget.memory and not self.budget.short:
            self.asked, self.budget.short = time.monotonic(), True
            self.console.print(
                f"the memory limit is reached at {taken / 1e9:.1f} GB: finishing with what is proved so far"
            )
        if taken > MORE * self.budget.memory:
            self.give_up(self.reason)
        return taken > MORE * self.budget.memory


def resident(process: int | None = None) -> int:
    """Bytes of memory that a process (this one) has; where the system doesn't say, the most that this one had, and
    nothing of others."""
    try:
        pages = int(Path(f"/proc/{process or 'self'}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        if process is not None:
            return 0
        import resource

        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return most * (1 if sys.platform == "darwin" else 1024)
