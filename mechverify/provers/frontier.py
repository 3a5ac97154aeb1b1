"""Strategies over claims and models: one row for each, kept on disk as soon as it is known.

A folder holds rows/KEY.json and certificates/*.cert. The key is a hash of the claim (weights included), the strategy
and the sources that prove and check, so that a row is found again exactly if nothing that decides it has changed. An
interrupt loses the rows in hand and no others.
"""

import hashlib
import json
import multiprocessing
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from fractions import Fraction
from functools import cache
from pathlib import Path

import numpy as np
import torch

from mechverify import kernel
from mechverify.certificate.write import claim_document
from mechverify.claims.accuracy import Accuracy
from mechverify.claims.errors import ClaimError
from mechverify.claims.file import load_claim
from mechverify.errors import in_words
from mechverify.kernel.core.claim import Job
from mechverify.kernel.core.counts import CountingTheorem
from mechverify.kernel.core.float64 import Float64
from mechverify.kernel.core.judging import decide
from mechverify.provers import chain
from mechverify.provers.accuracy.problem import AccuracyProblem
from mechverify.provers.accuracy.sampling import Sampler
from mechverify.provers.accuracy.strategies import chosen

REFERENCE = "fold"  # the strategy that says what the true accuracy is
SAMPLES = 2**17  # where it can't


@dataclass(frozen=True)
class Row:
    """One strategy on one claim about one model. Counts are exact; `reason` says why nothing was proved, and then there
    is no certificate. `unexplained` dimensions are None where the strategy doesn't say."""

    claim: str
    parameters: dict[str, str]
    weights: str
    weights_sha256: str
    strategy: str
    vocab: int
    length: int
    size: int
    low: int
    high: int
    kernel_ops: int
    brute_force_ops: int
    unexplained: int | None
    search_seconds: float
    check_seconds: float
    certificate: str | None
    certificate_bytes: int
    reason: str | None

    @property
    def bound(self) -> Fraction:
        return Fraction(self.low, self.size)


@dataclass(frozen=True)
class Task:
    """What makes a row, in a form that another process can be told."""

    claim: str
    parameters: dict[str, str]
    weights: str
    strategy: str
    semantics: str
    key: str


def plan(
    claims: list[Path],
    parameters: dict[str, str],
    weights: list[Path],
    strategies: list[str],
    semantics: str,
) -> list[Task]:
    """Every combination, the models in turn, so that an early stop leaves whole models. The reference strategy comes
    first. Raises ClaimError for a claim that can't be read, or isn't about accuracy."""
    tasks = []
    names = [REFERENCE, *(s for s in strategies if s != REFERENCE)]
    code = {name: _source(name) for name in names}
    for path in claims:
        for file in weights or [None]:
            given = parameters | ({} if file is None else {"weights": str(file)})
            claim = load_claim(path, given)
            if not isinstance(claim, Accuracy) or claim.margin is None:
                raise ClaimError(
                    f"{path}: strategies are for claims Accuracy(...), with a stated margin"
                )
            document = json.dumps(claim_document(claim, semantics), sort_keys=True)
            for name in names:
                key = hashlib.sha256(
                    f"{document}\n{name}\n{code[name]}".encode()
                ).hexdigest()
                tasks.append(
                    Task(
                        str(path),
                        given,
                        claim.output.model.source,
                        name,
                        semantics,
                        key,
                    )
                )
    return list({task.key: task for task in reversed(tasks)}.values())[
        ::-1
    ]  # each once


@cache
def _source(strategy: str) -> str:
    """A hash of what decides a row: kernel, provers, and the strategy's file if it is the user's own."""
    chosen(strategy)
    root = Path(kernel.__file__).parent.parent
    files = [
        p
        for folder in ("kernel", "provers")
        for p in sorted((root / folder).rglob("*.py"))
    ]
    files += [Path(strategy)] if strategy.endswith(".py") else []
    return hashlib.sha256(b"\0".join(p.read_bytes() for p in files)).hexdigest()


def stored(folder: Path, task: Task) -> Row | None:
    """The row that an earlier run left, if its certificate is still there."""
    try:
        row = Row(**json.loads((folder / "rows" / f"{task.key}.json").read_text()))
    except (OSError, ValueError, TypeError):
        return None
    return (
        row if row.certificate is None or (folder / row.certificate).is_file() else None
    )


def run(
    tasks: list[Task], folder: Path, jobs: int, told: Callable[[Row, int], None]
) -> dict[str, Row]:
    """The rows of all tasks by their keys, made by `jobs` processes of one thread each; `told` hears of each new row,
    and how many are missing. Whatever interrupts this stops the processes; stored rows stay."""
    for name in ("rows", "certificates"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    rows = {
        task.key: row for task in tasks if (row := stored(folder, task)) is not None
    }
    missing = [task for task in tasks if task.key not in rows]
    for task, row in _all(missing, folder, jobs):
        rows[task.key] = row
        told(row, sum(t.key not in rows for t in missing))
    return rows


def _all(tasks: list[Task], folder: Path, jobs: int) -> Iterator[tuple[Task, Row]]:
    """Where a process dies (memory, most likely), the tasks that it may have died of are tried again one by one."""
    waiting, suspects = list(tasks), []
    while waiting or suspects:
        alone = not waiting
        queue, busy = (suspects[:1], 1) if alone else (waiting, jobs)
        broken: list[Task] = []
        for task, row in _pooled(queue, folder, busy, broken):
            (suspects if alone else waiting).remove(task)
            yield task, row
        for task in broken:
            (suspects if alone else waiting).remove(task)
            if alone:
                reason = "the process that searched was killed; is there enough memory?"
                yield task, _failed(task, reason)
            else:
                suspects.append(task)


def _pooled(
    queue: list[Task], folder: Path, jobs: int, broken: list[Task]
) -> Iterator[tuple[Task, Row]]:
    """Rows as they come; leaves in `broken` the tasks in hand when a process died."""
    queue = list(queue)
    pool = ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn"), _one_thread)
    running: dict[Future, Task] = {}
    try:
        while (queue or running) and not broken:
            while queue and len(running) < jobs:
                task = queue.pop(0)
                running[pool.submit(make, task, str(folder))] = task
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                task = running.pop(future)
                try:
                    yield task, future.result()
                except BrokenProcessPool:
                    broken += [task, *running.values()]
                    break
    finally:
        mine = set(multiprocessing.active_children())
        pool.shutdown(wait=False, cancel_futures=True)
        for process in mine:
            process.terminate()


def _one_thread() -> None:
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides
    torch.set_num_threads(1)


def make(task: Task, folder: str) -> Row:
    """Prove, check, and keep the certificate and the row."""
    try:
        row, certificate = _proved(task)
    except (ClaimError, kernel.Rejected) as error:
        row, certificate = _failed(task, in_words(" ".join(str(error).split()))), None
    except Exception as error:  # of one strategy: a row, so that the others go on
        row, certificate = (
            _failed(task, f"a defect: {type(error).__name__}: {error}"),
            None,
        )
    if certificate is not None and row.certificate is not None:
        _write(Path(folder) / row.certificate, certificate)
    _write(
        Path(folder) / "rows" / f"{task.key}.json",
        json.dumps(asdict(row), indent=1).encode(),
    )
    return row


def _proved(task: Task) -> tuple[Row, bytes]:
    claim = _claim(task)
    outcome = chain.prove(claim, semantics=task.semantics, strategy=task.strategy)
    theorem, strategy = outcome.theorem, chosen(task.strategy)
    if not isinstance(theorem, CountingTheorem) or outcome.certificate is None:
        raise ClaimError("; ".join(outcome.reasons) or "nothing was proved")
    one = Job(theorem.claim, Float64())
    decide(one, np.array([[tokens[0] for tokens in theorem.claim.domain.tokens]]))
    unexplained = strategy.unexplained and strategy.unexplained(
        AccuracyProblem.of(claim, task.semantics)
    )
    name = f"{Path(task.weights).stem}-{Path(task.strategy).stem}-{task.key[:8]}.cert"
    return _row(
        task, claim, size=theorem.claim.total, low=theorem.right.low, high=theorem.right.high,
        kernel_ops=theorem.kernel_ops, brute_force_ops=one.ar.ops * theorem.claim.total, unexplained=unexplained,
        search_seconds=outcome.search_seconds, check_seconds=outcome.check_seconds,
        certificate=f"certificates/{name}", certificate_bytes=len(outcome.certificate),
    ), outcome.certificate  # fmt: skip


def _claim(task: Task) -> Accuracy:
    claim = load_claim(task.claim, task.parameters)
    if not isinstance(claim, Accuracy):
        raise ClaimError(f"{task.claim}: strategies are for claims Accuracy(...)")
    return claim


def _failed(task: Task, reason: str) -> Row:
    claim = _claim(task)
    nothing = dict.fromkeys(("kernel_ops", "brute_force_ops", "certificate_bytes"), 0)
    times = dict.fromkeys(("search_seconds", "check_seconds"), 0.0)
    bounds = {"size": claim.over.size, "low": 0, "high": claim.over.size}
    return _row(
        task,
        claim,
        unexplained=None,
        certificate=None,
        reason=reason,
        **bounds,
        **nothing,
        **times,
    )


def _row(task: Task, claim: Accuracy, *, reason: str | None = None, **found) -> Row:
    return Row(
        claim=Path(task.claim).name, parameters=task.parameters, weights=task.weights,
        weights_sha256=hashlib.sha256(claim.output.model.data).hexdigest(), strategy=task.strategy,
        vocab=len(claim.over.values), length=len(claim.over), reason=reason, **found,
    )  # fmt: skip


def sampled(task: Task) -> float:
    """The share right of SAMPLES uniform inputs, in float64: where the reference can't say."""
    problem = AccuracyProblem.of(_claim(task), task.semantics)
    rng = np.random.default_rng(0)
    inputs = Sampler(problem).draw(SAMPLES, rng)
    return float((problem.margins(inputs) > 0).mean())


def _write(path: Path, data: bytes) -> None:
    """All of it or nothing, whatever happens meanwhile."""
    part = path.with_name(f"{path.name}.{os.getpid()}.{time.monotonic_ns()}")
    part.write_bytes(data)
    part.replace(path)
