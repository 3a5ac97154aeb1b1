"""Strategy `brute`: the kernel runs the model on every input. What every other proof is shorter than."""

from mechverify.kernel.core.counts import Counts
from mechverify.kernel.core.errors import Unsupported
from mechverify.provers.accuracy.falsify import CLOSE
from mechverify.provers.accuracy.problem import AccuracyProblem, Attempt
from mechverify.provers.base import Budget

LIMIT = (
    2**25
)  # inputs: half an hour or more for a transformer of one layer and width 32


def brute(problem: AccuracyProblem, budget: Budget) -> Attempt:
    """The search runs torch, to know what to state; inputs whose margin is within CLOSE of zero count for neither
    bound."""
    size, run = problem.claim.total, 0
    if size > LIMIT:
        raise Unsupported(
            f"{size:,} inputs are too many to run (limit {LIMIT:,}); restrict the domain"
        )
    margins, right, wrong = problem.margins, 0, 0
    for inputs in problem.inputs(problem.domain):
        budget.progress(f"running all {size:,} inputs", run / size)
        if budget.spent():
            return Attempt(None, problem.claim.everything)
        margin, run = margins(inputs), run + len(inputs)
        right, wrong = (
            right + int((margin > CLOSE).sum()),
            wrong + int((margin < -CLOSE).sum()),
        )
    whole = problem.domain.size
    return Attempt({"rule": "enumerate"}, Counts(whole - run + right, whole - wrong))
