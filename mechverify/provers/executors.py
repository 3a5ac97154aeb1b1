"""Who answers an obligation: this process, others on this machine, or those of a Ray cluster.

An obligation is a function of a module, the problem that it is about, and what is asked; its answer is what JSON can
say, and depends on nothing else, so that it doesn't matter who gives it, when, or how often it was begun. Nothing here
is trusted: what the answers are put together to is a certificate, which the kernel checks.
"""

import importlib
import json
import logging
import os
import pickle
import subprocess
import sys
import time
from collections import deque
from contextlib import suppress
from functools import cache
from multiprocessing.connection import Connection, Pipe, wait
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from mechverify.claims.errors import ClaimError
from mechverify.provers.store import plain

PACKAGES = Path(__file__).parent.parent.parent
TRIES = 3  # workers that may end before they answer one obligation
PATIENCE = 3.0  # seconds of obligations before processes are worth their start, which takes about as long of each
ENDED = (
    "worker processes ended {} times before they had answered one obligation; if memory "
    "is short, run fewer at a time: --jobs"
)


class Task(NamedTuple):
    """`by`: module:function; the problem, pickled, by its `about`; `seconds` that are left."""

    by: str
    about: str
    asked: Any
    seconds: float


class Answered(NamedTuple):
    """JSON, or what was raised; and the seconds that it took."""

    text: str | None
    error: Exception | None
    seconds: float


class Executor(Protocol):
    """`workers`: how many obligations it answers at a time. Each has one thread."""

    workers: int

    def start(self, number: int, task: Task, problem: bytes) -> None:
        """Numbers are each other's order."""
        ...

    def finished(self, seconds: float) -> list[tuple[int, Answered]]:
        """Those that were answered since it was last asked; waits so long for the first one."""
        ...

    def hands_back(self, number: int) -> bool:
        """Whether the one who waits for it is to answer it instead, as no worker is there yet."""
        ...

    def memory(self) -> int:
        """Bytes that its processes have on this machine."""
        ...

    def drop(self) -> None:
        """Nobody waits for what isn't answered."""
        ...

    def close(self) -> None: ...


def answered(task: Task, problem: bytes) -> Answered:
    """In a worker: the answer, in its time."""
    from mechverify.provers.base import Budget

    begun = time.monotonic()
    try:
        budget = Budget(deadline=begun + task.seconds)
        about = _problem(task.about, problem)
        about.watched(budget.watch)
        module, name = task.by.split(":")
        answer = getattr(importlib.import_module(module), name)
        text = json.dumps(answer(about, task.asked, budget), default=plain)
        return Answered(text, None, time.monotonic() - begun)
    except Exception as error:
        return Answered(None, _carried(error), time.monotonic() - begun)


_problems: dict[str, Any] = {}


def _problem(about: str, problem: bytes) -> Any:
    """One of the last two: what is made once of a problem is found again."""
    if about not in _problems:
        while len(_problems) > 1:
            del _problems[next(iter(_problems))]
        _problems[about] = pickle.loads(problem)
    return _problems[about]


def _carried(error: Exception) -> Exception:
    """What was raised, if it can be told to another process."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error


# --- Processes on this machine ----------------------------------------------------------------------------------------


class Worker(NamedTuple):
    process: subprocess.Popen
    pipe: Connection
    known: set[str]  # problems that it was sent


class Processes:
    """Each answers one obligation at a time; that of one which ends is another's. With `patience`, they are begun so
    many seconds after the first obligation, and hand back what is waited for until one of them is there; else at once.
    """

    def __init__(self, workers: int, patience: float | None = None):
        self.workers, self.patience = workers, patience
        self.first: float | None = None  # when there was something to do
        self.there: set[Connection] = set()  # those that have loaded what they need
        self.lost = 0  # that ended before
        self.waiting: deque[tuple[int, Task, bytes]] = deque()
        self.busy: dict[Connection, tuple[int, Task, bytes]] = {}
        self.all: dict[Connection, Worker] = {}
        self.ended: dict[int, int] = {}  # how often with an obligation in hand
        if patience is None:
            self._begin_all()

    def start(self, number: int, task: Task, problem: bytes) -> None:
        self.first = self.first or time.monotonic()
        self.waiting.append((number, task, problem))
        self._deal()

    def finished(self, seconds: float) -> list[tuple[int, Answered]]:
        self._deal()
        found = []
        for pipe in wait([*self.all], seconds):
            assert isinstance(pipe, Connection)
            try:
                said = pipe.recv_bytes()
            except (EOFError, OSError):
                said = None
            if said == b"":
                self.there.add(pipe)
            elif said is not None:
                number, *_ = self.busy.pop(pipe)
                found.append((number, Answered(*pickle.loads(said))))
            elif pipe not in self.busy:
                self.lost += pipe not in self.there
                self._end(pipe)
            else:
                number, task, problem = self.busy.pop(pipe)
                self._end(pipe)
                self.ended[number] = self.ended.get(number, 0) + 1
                if self.ended[number] >= TRIES:
                    error = MemoryError(ENDED.format(TRIES))
                    found.append((number, Answered(None, error, 0.0)))
                else:
                    self.waiting.appendleft((number, task, problem))
        self._deal()
        return found

    def hands_back(self, number: int) -> bool:
        mine = [one for one in self.waiting if one[0] == number]
        if self.patience is None or self.there or not mine:
            return False
        self.waiting.remove(mine[0])
        return True

    def _deal(self) -> None:
        waited = 0.0 if self.first is None else time.monotonic() - self.first
        if self.waiting and (
            self.patience is None or (waited >= self.patience and self.lost < TRIES)
        ):
            self._begin_all()
        able = self.all if self.patience is None else self.there
        idle = [
            worker
            for pipe, worker in self.all.items()
            if pipe not in self.busy and pipe in able
        ]
        for worker in idle[: len(self.waiting)]:
            number, task, problem = self.waiting.popleft()
            self.busy[worker.pipe] = number, task, problem
            known = task.about in worker.known
            worker.known.add(task.about)
            sent = pickle.dumps((task, None if known else problem))
            with suppress(OSError):  # it has ended, as will be seen
                worker.pipe.send_bytes(sent)

    def _begin_all(self) -> None:
        """Those that are missing, side by side: each takes seconds to load what it needs."""
        while len(self.all) < self.workers:
            self._begin()

    def _begin(self) -> None:
        ours, theirs = Pipe()
        path = [str(PACKAGES), os.environ.get("PYTHONPATH", "")]
        alone = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")
        environment = {**os.environ, **alone}
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, path))
        with theirs:
            process = subprocess.Popen(
                [sys.executable, "-m", "mechverify.provers.worker", str(theirs.fileno())],
                stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, env=environment,
                pass_fds=[theirs.fileno()], start_new_session=True,  # Ctrl-C is ours
            )  # fmt: skip
        self.all[ours] = Worker(process, ours, set())

    def _end(self, pipe: Connection) -> None:
        worker = self.all.pop(pipe)
        self.there.discard(pipe)
        worker.process.kill()
        worker.process.wait()
        if worker.process.stdin is not None:
            worker.process.stdin.close()
        pipe.close()

    def memory(self) -> int:
        from mechverify.provers.guard import resident

        return sum(resident(worker.process.pid) for worker in self.all.values())

    def drop(self) -> None:
        self.waiting.clear()
        for pipe in [*self.busy]:
            del self.busy[pipe]
            self._end(pipe)

    def close(self) -> None:
        self.drop()
        for pipe in [*self.all]:
            self._end(pipe)


# --- Ray --------------------------------------------------------------------------------------------------------------


class Ray:
    """A cluster that runs, where RAY_ADDRESS says so; or one of `workers` on this machine, which ends with us. Ray
    starts what a worker had in hand that ended."""

    def __init__(self, workers: int | None):
        try:
            # by name: a type checker cannot resolve what is not installed
            ray = importlib.import_module("ray")
        except ImportError:
            told = (
                "ray is not installed; pip install 'mechverify[ray]', or leave it out"
            )
            raise ClaimError(f"--executor ray: {told}") from None
        self.ray, self.error = ray, ray.exceptions.RayError
        self.ours = not ray.is_initialized()
        if self.ours:
            there = bool(os.environ.get("RAY_ADDRESS"))
            local = {} if there else {"num_cpus": workers, "include_dashboard": False}
            path = {"PYTHONPATH": str(PACKAGES), "OMP_NUM_THREADS": "1"}
            ray.init(
                log_to_driver=False, logging_level=logging.ERROR,
                runtime_env={"env_vars": path}, **local,
            )  # fmt: skip
        self.workers = workers or int(ray.cluster_resources().get("CPU", 1))
        self.remote = ray.remote(num_cpus=1, max_retries=TRIES)(_on_ray)
        self.problems: dict[str, Any] = {}
        self.running: dict[Any, int] = {}

    def start(self, number: int, task: Task, problem: bytes) -> None:
        if task.about not in self.problems:
            self.problems[task.about] = self.ray.put(problem)
        reference = self.remote.remote(task, self.problems[task.about])
        self.running[reference] = number

    def finished(self, seconds: float) -> list[tuple[int, Answered]]:
        out = [*self.running]
        done, _ = self.ray.wait(out, num_returns=len(out), timeout=0)
        if not done:
            done, _ = self.ray.wait(out, num_returns=1, timeout=seconds)
        found = []
        for reference in done:
            try:
                one = Answered(*pickle.loads(self.ray.get(reference)))
            except self.error as error:
                said = MemoryError(
                    f"{ENDED.format(TRIES + 1)} ({type(error).__name__})"
                )
                one = Answered(None, said, 0.0)
            found.append((self.running.pop(reference), one))
        return found

    def hands_back(self, number: int) -> bool:
        return False  # the cluster's workers are there

    def memory(self) -> int:
        return 0  # Ray's own monitor watches its workers

    def drop(self) -> None:
        for reference in self.running:
            self.ray.cancel(reference, force=True)
        self.running.clear()

    def close(self) -> None:
        self.drop()
        if self.ours:
            self.ray.shutdown()


def _on_ray(task: Task, problem: bytes) -> bytes:
    _one_thread()
    return pickle.dumps(tuple(answered(task, problem)))


@cache
def _one_thread() -> None:
    import torch

    torch.set_num_threads(1)


EXECUTORS = "processes", "ray"


def begun(name: str, jobs: int | None) -> Executor | None:
    """None where this process does it alone. Without `jobs`, Ray's workers are as many as the cluster has cores."""
    if name == "ray":
        return Ray(jobs)
    return None if jobs is None or jobs == 1 else Processes(jobs, PATIENCE)
