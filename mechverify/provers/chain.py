"""A claim in, an outcome out: the search, and then the kernel's word on what was found."""

import math
import time
from pathlib import Path

from mechverify.claims.accuracy import Accuracy
from mechverify.claims.bounds import Bounds
from mechverify.claims.box import Box
from mechverify.claims.errors import ClaimError
from mechverify.claims.model import CapturedModel
from mechverify.claims.share import Share
from mechverify.kernel.core.errors import Rejected
from mechverify.provers.accuracy.confirm import accept, confirm_accuracy
from mechverify.provers.accuracy.find import find_accuracy, followed
from mechverify.provers.base import Budget, Progress
from mechverify.provers.confirm import Outcome
from mechverify.provers.ranges.confirm import confirm_range
from mechverify.provers.ranges.find import find_range
from mechverify.provers.ranges.problem import RangeProblem
from mechverify.provers.ranges.smt import Solver
from mechverify.provers.shares.parts import find_share
from mechverify.relax.optimise import Slopes

EFFORT = 600.0  # seconds of search, where no limit is given


def prove(
    claim: Accuracy | Bounds | Share, *, semantics: str = "real", time_limit: float | None = None,
    progress: Progress | None = None, budget: Budget | None = None, method: str = "branching", device: str = "cpu",
    slopes: Slopes | None = None, solver: bool = True, smtlib: Path | None = None, strategy: str | None = None,
) -> Outcome:  # fmt: skip
    """Falsify, search, write the certificate, and have the kernel check it. For claims about bounds: `method`, one of
    base.METHODS; torch's `device`; `slopes` to try, say those of relax.lirpa; whether to ask a `solver` what bounds
    leave open; and the folder `smtlib` for its queries. For claims Accuracy: a `strategy`, by its name in
    provers.accuracy.strategies, which is then all that is tried.

    `time_limit` seconds are for search and check together; without one, the search ends after EFFORT seconds, and the
    check takes what it takes.

    Postcondition: what the outcome says was accepted by the kernel. When time is up, or on an interrupt
    (`budget.interrupted`), where a prover fails, or the kernel doesn't confirm what it found, the outcome holds what is
    proved beside that, with the reason. Raises Rejected if the kernel can't read the claim itself, or with a
    `strategy`, and ClaimError if the kernel shows that no input satisfies the claim's conditions.
    """
    start = time.monotonic()
    if not isinstance(claim, Accuracy | Bounds | Share):
        raise ClaimError(
            f"prove takes a claim, as Accuracy(...), not {type(claim).__name__}; `mechverify prove FILE` runs a file"
        )
    budget = budget or Budget()
    if time_limit is not None:
        budget.limit(time_limit)
    elif budget.deadline == math.inf and strategy is None:
        budget.deadline = start + EFFORT
    if progress is not None:
        budget.progress = progress
    if strategy is not None:
        return _follow(claim, strategy, semantics, budget, start)
    if (
        semantics != "real"
        and isinstance(claim, Accuracy)
        and isinstance(claim.output.model, CapturedModel)
    ):
        claim = claim.by_leads()
    if isinstance(claim, Accuracy | Share):
        with budget.searching():
            if isinstance(claim, Share) and isinstance(claim.over, Box):
                findings = find_share(claim, semantics, budget)
            else:
                findings = find_accuracy(claim, semantics, budget)
        return confirm_accuracy(findings, budget, start)
    problem = RangeProblem.of(claim, semantics, device, budget.watch)
    with budget.searching():
        known = find_range(
            problem, claim.lemmas, budget, method, slopes or {}, Solver(solver, smtlib)
        )
    return confirm_range(problem, claim, known, budget, start)


def _follow(
    claim: Accuracy | Bounds | Share,
    strategy: str,
    semantics: str,
    budget: Budget,
    start: float,
) -> Outcome:
    if not isinstance(claim, Accuracy) or claim.margin is None:
        raise ClaimError(
            f"--strategy {strategy}: strategies are for claims Accuracy(...), with a stated margin; leave it out"
        )
    try:
        return accept(followed(claim, strategy, semantics, budget), budget, start)
    except Rejected as error:
        raise Rejected(
            f"the kernel refuses what strategy {strategy} found: {error}"
        ) from None
