"""The provers of claims about ranges, from cheap to dear: sample first, then each whose turn it is, until thresholds
are decided, or the range is as narrow as the method makes it."""

import numpy as np

from mechverify.provers.base import Budget, Prover
from mechverify.provers.ranges.best_first import Branch
from mechverify.provers.ranges.differences import Jointly
from mechverify.provers.ranges.enumerate import Enumerate
from mechverify.provers.ranges.extremes import sample
from mechverify.provers.ranges.known import Found, Known
from mechverify.provers.ranges.narrow import Lines, Narrow
from mechverify.provers.ranges.patterns import Patterns
from mechverify.provers.ranges.problem import RangeProblem
from mechverify.provers.ranges.ratios import Ratios
from mechverify.provers.ranges.refute import Look, Reached, refuted
from mechverify.provers.ranges.slopes import GivenSlopes
from mechverify.provers.ranges.whole import SLOW, Whole

SEED = 0  # of samples
RangeProver = Prover[RangeProblem, Known, Found]
EXACT: list[RangeProver] = [Enumerate(), Ratios(), Patterns()]
FIRST: list[RangeProver] = [Whole(), GivenSlopes()]
NARROWER: list[RangeProver] = [Lines(), Branch(), Narrow()]
PROVERS: list[RangeProver] = [Look(), Jointly(NARROWER), *NARROWER, Reached()]


def search(problem: RangeProblem, known: Known, budget: Budget) -> Found:
    """What is found with each of METHODS up to `known.method`.

    Postcondition: the range, and whether a threshold is broken, are the search's belief; the kernel decides. It is in
    `known` as well, also where this raises Stopped, or what a prover's defect raises."""
    with np.errstate(all="ignore"):
        known.seen = sample(problem, budget, SEED)
        if (broken := refuted(problem, known.seen)) is not None:
            known.found = broken
            return broken
        _try(EXACT, problem, known, budget)
        if known.found.broken or (problem.asks and not problem.open(known.found)):
            return known.found
        if known.exact:
            known.method = "interval"
        else:
            _relax(problem, known, budget)
        _try(PROVERS, problem, known, budget)
    return known.found


def _relax(problem: RangeProblem, known: Known, budget: Budget) -> None:
    """Beside what is found already."""
    before = known.found
    _try(FIRST, problem, known, budget)
    known.method = _affordable(problem, known)
    if before.proof is not None:
        known.found = known.found.beside(before.proof, before.range)


def _try(
    provers: list[RangeProver], problem: RangeProblem, known: Known, budget: Budget
) -> None:
    for prover in provers:
        if provers is PROVERS and problem.asks and not problem.open(known.found):
            return
        if prover.accepts(problem, known) is None:
            known.found = prover.prove(problem, known, budget)


def _affordable(problem: RangeProblem, known: Known) -> str:
    """How far to go, once the whole domain was relaxed."""
    if known.found.reasons:
        return "interval"
    if problem.tabulated and not problem.asks:
        return "linear"
    refining = known.method in ("optimised", "branching") and not problem.asks
    if refining and known.seconds > SLOW:
        said = f"linear bounds alone take {known.seconds:.0f} s: no cells and no optimised lines were tried"
        known.found.reasons.append(said)
        return "linear"
    return known.method
