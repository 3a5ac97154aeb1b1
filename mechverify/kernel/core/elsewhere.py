"""What is evaluated in another arithmetic than a job's own.

Lemma C9 (docs/soundness/core.md).
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from mechverify.kernel.core.arithmetic import Arithmetic
from mechverify.kernel.core.semantics import SEMANTICS, Real

if TYPE_CHECKING:
    from mechverify.kernel.core.claim import Job

SLOWER = 16  # units of work of an exact evaluation, for each of a float64 one
T = TypeVar("T")


def exactly(job: "Job", evaluate: Callable[[Real], T]) -> T:
    """What is evaluated with the model in exact arithmetic; its work counts as the job's."""
    from mechverify.kernel.core.exact import Exact

    return _elsewhere(job, Exact, SLOWER, evaluate)


def doubled(job: "Job", evaluate: Callable[[Real], T]) -> T:
    """The same with twice float64's digits."""
    from mechverify.kernel.core.double import Double

    return _elsewhere(job, Double, 1, evaluate)


def roughly(job: "Job", evaluate: Callable[[Real], T]) -> T:
    """The same with fewer digits than float64's."""
    from mechverify.kernel.core.rough import Rough

    return _elsewhere(job, Rough, 1, evaluate)


def _elsewhere(
    job: "Job",
    arithmetic: type[Arithmetic],
    slower: int,
    evaluate: Callable[[Real], T],
) -> T:
    """What is evaluated with the model there. `slower`: units of the job's work for each of the other arithmetic's."""
    own, outer = job.ar, job.ar.watch

    def watched(work: int, _: float) -> None:
        if outer is not None:
            outer(own.work + slower * work, own.limit)

    ar = arithmetic((own.limit - own.work) / slower, watched if outer else None)
    try:
        return evaluate(SEMANTICS[job.claim.semantics](ar))
    finally:
        own.ops += ar.ops
        own.work += slower * ar.work
