"""What is evaluated once more, in exact arithmetic.

Lemma C9 (docs/soundness/core.md).
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from mechverify.kernel.core.exact import Exact
from mechverify.kernel.core.semantics import SEMANTICS, Real

if TYPE_CHECKING:
    from mechverify.kernel.core.claim import Job

SLOWER = 16  # units of work of an exact evaluation, for each of a float64 one
T = TypeVar("T")


def exactly(job: "Job", evaluate: Callable[[Real], T]) -> T:
    """`Job.exactly`."""
    outer = job.ar.watch
    inner = (
        None
        if outer is None
        else lambda work, allowed: outer(job.ar.work + SLOWER * work, job.ar.limit)
    )
    ar = Exact((job.ar.limit - job.ar.work) / SLOWER, inner)
    try:
        return evaluate(SEMANTICS[job.claim.semantics](ar))
    finally:
        job.ar.ops, job.ar.work = (
            job.ar.ops + ar.ops,
            job.ar.work + SLOWER * ar.work,
        )
