"""What is evaluated in another arithmetic than a job's own.

Lemmas C9, C20 (docs/soundness/core.md).
"""

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from mechverify.kernel.core.arithmetic import Arithmetic
from mechverify.kernel.core.judging import BLOCK, Sure, judged, refine
from mechverify.kernel.core.semantics import SEMANTICS, Real

if TYPE_CHECKING:
    from mechverify.kernel.core.claim import Job

LEADING = ("Euclidean", "Fine")  # two slices of each factor, or three
FEW = 1 / 4  # of the inputs that are judged roughly: more are left open in vain
TRIAL = 2**8  # of them, which show first how many those are
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


class Tally:
    """How many inputs were judged roughly, and how many of these that left open."""

    def __init__(self):
        self.judged = self.left = 0

    @property
    def pays(self) -> bool:
        """Whether it saves more than it takes: inputs that are left open are judged twice, and share less."""
        return self.left <= FEW * self.judged


def _tallies(job: "Job") -> dict[str, Tally]:
    return {kind: Tally() for kind in LEADING}


def judge_roughly(job: "Job", sure: Sure, inputs: np.ndarray) -> None:
    """Into `sure`, what leading digits show, as long as they leave few inputs open; a few inputs show first whether
    they do."""
    for kind, so_far in job.once(_tallies).items():
        start = 0
        while start < len(inputs) and so_far.pays:
            some = slice(start, start + (BLOCK if so_far.judged else TRIAL))
            own = right, wrong = sure[0][some], sure[1][some]
            so_far.judged += int((~(right | wrong)).sum())
            refine(own, inputs[some], BLOCK, partial(_in, job, kind))
            so_far.left += int((~(right | wrong)).sum())
            start = some.stop


def _in(job: "Job", kind: str, inputs: np.ndarray) -> Sure:
    return roughly(job, lambda semantics: judged(job, inputs, semantics), kind)


def roughly(job: "Job", evaluate: Callable[[Real], T], kind: str = "Euclidean") -> T:
    """The same in balls whose radius is a length, of each input: with fewer digits than float64's, or about as many."""
    from mechverify.kernel.core import euclidean

    return _elsewhere(
        job,
        getattr(euclidean, kind),
        1,
        lambda semantics: evaluate(euclidean.Smooth(semantics.ar)),
    )


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
