"""Joint bounds of differences of two runs, which a graph of their differences gives."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from mechverify.kernel.core.errors import Rejected
from mechverify.kernel.differences.rule import jointly
from mechverify.provers.base import Budget, Prover
from mechverify.provers.ranges.known import Found, Known, meet
from mechverify.provers.ranges.problem import RangeProblem
from mechverify.provers.ranges.whole import Whole


class Jointly:
    """The same provers once more, on that graph."""

    name = "joint bounds of differences"

    def __init__(self, provers: Sequence[Prover[RangeProblem, Known, Found]]):
        self.provers = provers

    def accepts(self, problem: RangeProblem, known: Known) -> str | None:
        if known.method == "interval" or known.found.proof is None:
            return ""
        return (
            None
            if any(problem.claim.graph.nodes[n].op == "sub" for n in problem.needed)
            else ""
        )

    def prove(self, problem: RangeProblem, known: Known, budget: Budget) -> Found:
        before, inner = known.found, joint(problem)
        if inner is None:  # nothing that is made alike
            return before
        nothing = Found(None, problem.claim.everything, False, [])
        seen = replace(known, found=nothing, slopes={}, reached=False)
        budget.progress(self.name, None)
        seen.found = Whole().prove(inner, seen, budget)
        if seen.found.proof is None or not _narrower(seen.found, before):
            return before
        for prover in self.provers:
            if (not problem.asks or inner.open(seen.found)) and prover.accepts(
                inner, seen
            ) is None:
                seen.found = prover.prove(inner, seen, budget)
        if not problem.asks:  # nothing is left that bounds apart could do better
            known.method = "linear"
        known.best = seen.best
        return _beside(before, seen.found)


def joint(problem: RangeProblem) -> RangeProblem | None:
    """The same claim, about the graph of differences; None where there is none."""
    try:
        about = jointly(problem.job, problem.domain)
    except Rejected:
        return None
    made = (joint, (problem,)) if problem.travels else None
    return RangeProblem(about, problem.device, problem.own, plain=problem, made=made)


def _narrower(new: Found, old: Found) -> bool:
    """In some entry."""
    return bool(
        ((new.range.low > old.range.low) | (new.range.high < old.range.high)).any()
    )


def _beside(before: Found, new: Found) -> Found:
    """What is proved apart stands beside joint bounds, unless these are as good in every entry."""
    if new.broken or new.proof is None:
        return new if new.broken else before
    reasons = list(dict.fromkeys([*before.reasons, *new.reasons]))
    proof = {"rule": "differences", "proof": new.proof}
    worse = (before.range.low > new.range.low) | (before.range.high < new.range.high)
    if not np.any(worse):
        return Found(proof, new.range, False, reasons, new.derived)
    both = {"rule": "both", "first": before.proof, "second": proof}
    return Found(
        both,
        meet(before.range, new.range),
        False,
        reasons,
        before.derived and new.derived,
    )
