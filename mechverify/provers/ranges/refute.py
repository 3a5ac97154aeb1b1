"""What inputs prove: that a threshold is broken, or what is reached. The kernel replays them."""

import numpy as np

from mechverify.certificate.write import Proof
from mechverify.kernel.core.errors import Rejected
from mechverify.kernel.replay.points import enclose
from mechverify.provers.base import Budget
from mechverify.provers.ranges.extremes import STEPS, climb
from mechverify.provers.ranges.inputs import Inputs
from mechverify.provers.ranges.known import Found, Known
from mechverify.provers.ranges.problem import FEW, RangeProblem

TRIED, REPLAYS, REPLAY, LATE = (
    2,
    16,
    2e9,
    2e7,
)  # inputs of one search that the kernel looks at; of all; units of work of each; when nothing is left of the budget
NEAR = 1e-12  # relative: how near a threshold torch's value may be for the kernel to look whether it is broken


def refuted(problem: RangeProblem, inputs: Inputs) -> Found | None:
    """What an input that breaks a threshold proves, once the kernel has replayed it: the worst one, or another of the
    worst where it doesn't confirm that (a condition on its boundary, say). Inputs that come very near a threshold are
    worth its look as well."""
    if not problem.asks or not len(inputs.values):
        return None
    margin = problem.missing(inputs.values, inputs.values)
    order = np.argsort(-margin, kind="stable")
    tried = dict.fromkeys([*order[:TRIED], *order[inputs.clear[order]][:TRIED]])
    for i in tried:
        near = NEAR * max(1.0, np.abs(inputs.values[i]).max())
        if not margin[i] > (
            -near if problem.failed < REPLAYS else max(0.0, problem.unshown)
        ):
            continue
        if replayed(problem, one := inputs.at([int(i)])):
            return Found(one.proof(), problem.claim.everything, True, [])
        problem.failed, problem.unshown = (
            problem.failed + 1,
            max(problem.unshown, float(margin[i])),
        )
    return None


def shown(problem: RangeProblem, inputs: Inputs | None) -> Proof | None:
    """What is reached at those inputs that the kernel can enclose, as a proof to stand beside others."""
    if inputs is None or not len(inputs.values):
        return None
    if replayed(problem, inputs, REPLAY * len(inputs.values)) is None:
        inputs = inputs.at(
            [
                i
                for i in np.flatnonzero(inputs.clear).tolist()
                if replayed(problem, inputs.at([i])) is not None
            ]
        )
    return inputs.proof() if len(inputs.values) else None


def replayed(
    problem: RangeProblem, inputs: Inputs, most: float = REPLAY
) -> bool | None:
    """Whether the kernel shows that a threshold is broken at one of the inputs; None if it can't enclose one, or that
    takes more than `most` units of work."""
    ar = problem.job.ar
    limit, ar.limit = ar.limit, ar.work + most
    try:
        with np.errstate(all="ignore"):
            return bool(enclose(problem.job, inputs.tokens, inputs.points)[1].any())
    except Rejected:
        return None
    finally:
        ar.limit = limit


class Look:
    """For an input that breaks a threshold, by gradient steps."""

    name = "gradient steps"

    def accepts(self, problem: RangeProblem, known: Known) -> str | None:
        dear = (
            len(problem.domain.low) > FEW or known.method != "branching"
        )  # cells are: look first
        return None if problem.asks and dear else ""

    def prove(self, problem: RangeProblem, known: Known, budget: Budget) -> Found:
        return look(problem, known, budget) or known.found


class Reached:
    """Where the range's ends are attained, nearly, beside what is proved."""

    name = "points"

    def accepts(self, problem: RangeProblem, known: Known) -> str | None:
        return "" if problem.asks or not known.reached else None

    def prove(self, problem: RangeProblem, known: Known, budget: Budget) -> Found:
        found, steps = known.found, STEPS if known.method == "branching" else 0
        return _beside(found, shown(problem, climb(problem, budget, known.seen, steps)))


def look(problem: RangeProblem, known: Known, budget: Budget) -> Found | None:
    """Once: a second look would take the same steps."""
    if known.best is not None:
        return None
    known.best = climb(problem, budget, known.seen, STEPS) or Inputs.none()
    return refuted(problem, known.best)


def nearest(problem: RangeProblem, known: Known, budget: Budget) -> Found:
    """How far replayed inputs come, beside bounds that leave a threshold open: between the two lies what isn't known.
    Where time is up, inputs seen before, on what is left for the check."""
    if known.best is None:
        known.best = climb(problem, budget, known.seen, STEPS) or Inputs.none()
    problem.watched(budget.watch_check)
    most = LATE if budget.spent() else REPLAY
    for some in (known.best, known.best.at(known.best.clear)):
        broken = replayed(problem, some, most) if len(some.values) else None
        if broken is not None:
            if broken:
                return Found(some.proof(), problem.claim.everything, True, [])
            return _beside(known.found, some.proof())
    return known.found


def _beside(found: Found, points: Proof | None) -> Found:
    if points is not None:
        both = {"rule": "both", "first": points, "second": found.proof}
        found.proof = both if found.proof else points
    return found
