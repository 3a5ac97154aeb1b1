"""Strategy `brute`: the kernel runs the model on every input. What every other proof is shorter than."""

from mechverify.kernel.core.counts import Counts
from mechverify.kernel.core.errors import Unsupported
from mechverify.provers.accuracy.falsify import BATCH, CLOSE, margins_of
from mechverify.provers.accuracy.problem import AccuracyProblem, Attempt
from mechverify.provers.base import Budget

LIMIT = 2**25  # inputs: half an hour or more for a transformer of one layer and width 32


def brute(problem: AccuracyProblem, budget: Budget) -> Attempt:
    """The search runs torch, to know what to state; inputs whose margin is within CLOSE of zero count for neither
    bound."""
    size = problem.domain.size
    if size > LIMIT:
        raise Unsupported(f"{size:,} inputs are too many to run (limit {LIMIT:,}); restrict the domain")
    margins, right, wrong = margins_of(problem), 0, 0
    for start in range(0, size, BATCH):
        budget.progress(f"running all {size:,} inputs", start / size)
        if budget.spent():
            return Attempt(None, Counts(0, size))
        margin = margins(problem.domain.inputs(start, min(start + BATCH, size)))
        right, wrong = right + int((margin > CLOSE).sum()), wrong + int((margin < -CLOSE).sum())
    return Attempt({"rule": "enumerate"}, Counts(right, size - wrong))
