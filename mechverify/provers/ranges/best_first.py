"""The prover that branches: in one search, or, where several processes answer, in obligations."""

from collections.abc import Callable

from mechverify.certificate.write import Proof
from mechverify.kernel.core.errors import Stopped
from mechverify.kernel.core.ranges import Range
from mechverify.provers.base import Budget
from mechverify.provers.ranges.branch import DEPTH, Branching
from mechverify.provers.ranges.known import Found, Known
from mechverify.provers.ranges.problem import RangeProblem
from mechverify.provers.ranges.refute import look
from mechverify.provers.ranges.subproblems import divided


class Branch:
    name = "cells"

    def accepts(self, problem: RangeProblem, known: Known) -> str | None:
        by_cases = bool(problem.claim.cases) and known.cases
        return (
            None if known.method == "branching" and (problem.asks or by_cases) else ""
        )

    def prove(self, problem: RangeProblem, known: Known, budget: Budget) -> Found:
        """What was found before, where time was up too soon."""
        new = _branched(problem, budget, lambda: look(problem, known, budget))
        if new.proof is not None:
            return new
        known.found.reasons += new.reasons
        return known.found


def _branched(
    problem: RangeProblem, budget: Budget, seen: Callable[[], Found | None]
) -> Found:
    """Until all cells are proved, a threshold is broken in one, or nothing is left of the budget. `seen` is asked once
    easy claims are decided, for an input that breaks a threshold."""
    work = Branching(problem, budget)
    roots: list[Proof] = [problem.linear for _ in problem.parts]
    tree, share = problem.joined(roots), 1 / len(roots)
    first = [
        (root, part, share) for root, part in zip(roots, problem.parts, strict=True)
    ]
    try:
        work.relax(first if problem.asks else work.told_apart(first))
    except Stopped:
        return Found(None, problem.claim.everything, False, [budget.why])
    divides = budget.desk is not None and problem.asks and problem.travels
    broken = divided(work, seen) if divides else work.search(seen)
    if broken is not None:
        return broken
    for cell in [*(cell for *_, cell in work.open), *work.stuck]:
        work.reach(cell.low, cell.high)
    reasons = []
    if work.open and problem.asks:
        hint = (
            budget.why
            if budget.spent()
            else f"cut {DEPTH} times, the most that there is"
        )
        reasons.append(
            f"{len(work.open):,} of {work.total:,} cells are still open: {hint}"
        )
    if work.stuck:
        what = f"{len(work.stuck):,} of {work.total:,} cells come within {2 * work.slack:.1g} of a threshold"
        reasons.append(f"{what}, where rounding decides; claim that much less")
    low, high = work.reached
    return Found(tree, Range(low - work.slack, high + work.slack), False, reasons)
