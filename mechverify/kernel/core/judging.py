"""Inputs are judged: claims that count say of each whether it is right.

Lemmas C5, C13, C20 (docs/soundness/core.md).
"""

from collections.abc import Callable

import numpy as np

from mechverify.kernel.core.claim import Job
from mechverify.kernel.core.errors import OverLimit, Rejected, Unsupported
from mechverify.kernel.core.evaluate import Evaluation, batch_size
from mechverify.kernel.core.loading import late
from mechverify.kernel.core.semantics import Real

MANY = 2**6  # inputs that are looked through for what they share
BLOCK = 2**13  # inputs that are judged together
TOGETHER = 2**3  # inputs of an exact evaluation, whose numbers are long

Sure = tuple[np.ndarray, np.ndarray]  # booleans [inputs]: surely right, surely wrong


def decide(job: Job, inputs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Two boolean arrays [inputs]: surely right, surely wrong. Many inputs are judged by leading digits first, others
    in float64; where that leaves it open, or overflows, with twice its digits. Neither where rounding leaves it
    open still."""
    sure = np.zeros(len(inputs), bool), np.zeros(len(inputs), bool)
    refined = type(job.semantics) is Real and not job.ar.is_exact
    if refined and len(inputs) >= MANY:
        late("core.elsewhere").judge_roughly(job, sure, inputs)
    refine(sure, inputs, BLOCK, lambda some: judged(job, some, job.semantics))
    if refined:
        refine(sure, inputs, BLOCK, _in(job, "doubled"))
    return sure


def settle(job: Job, inputs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """As `decide` says; in exact arithmetic where that leaves it open."""
    sure = decide(job, inputs)
    if not job.ar.is_exact:
        refine(sure, inputs, TOGETHER, _in(job, "exactly"))
    return sure


def judged(job: Job, inputs: np.ndarray, semantics: Real) -> Sure:
    right, wrong = zip(*evaluated(job, inputs, semantics), strict=True)
    return np.concatenate(right), np.concatenate(wrong)


def _in(job: Job, arithmetic: str) -> Callable[[np.ndarray], Sure]:
    """Another arithmetic than the job's."""
    return lambda some: getattr(late("core.elsewhere"), arithmetic)(
        job, lambda semantics: judged(job, some, semantics)
    )


def refine(
    sure: Sure, inputs: np.ndarray, step: int, judge: Callable[[np.ndarray], Sure]
) -> None:
    """Judge those that are open, `step` at a time; they stay so where that is rejected: an overflow of any of them."""
    right, wrong = sure
    still_open = np.flatnonzero(~(right | wrong))
    for start in range(0, len(still_open), step):
        some = still_open[start : start + step]
        try:
            right[some], wrong[some] = judge(inputs[some])
        except (OverLimit, Unsupported):
            raise
        except Rejected:
            continue


def need_inputs(job: Job) -> None:
    if not job.claim.by_example:
        raise Rejected("of a box, no inputs can be run one by one")


def evaluated(job: Job, inputs: np.ndarray, semantics: Real) -> list[Sure]:
    """What the claim judges of as many inputs at a time as bounded memory allows, in their order. A theorem about
    float32 speaks of sums in any order, zeros among them: there, nothing is shared."""
    claim = job.claim
    if len(inputs) >= MANY and not semantics.axioms and not semantics.ar.is_exact:
        from mechverify.kernel.core.prefixes import shared, sharing

        made = job.once(sharing)
        return shared(made, claim.weights, semantics, inputs, claim.judge)
    step, model = batch_size(claim.graph, claim.judged), (claim.graph, claim.weights)
    some = [inputs[i : i + step] for i in range(0, len(inputs), step)]
    return [claim.judge(Evaluation(*model, semantics, part)) for part in some]
