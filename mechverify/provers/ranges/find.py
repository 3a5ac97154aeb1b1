"""All that is tried for a claim about ranges: its lemmas, or the provers of search.py; then a solver."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

from mechverify.claims.captured import Lemma
from mechverify.claims.errors import ClaimError
from mechverify.kernel.core.errors import Stopped
from mechverify.provers.base import Budget, failure
from mechverify.provers.ranges.cut import cut
from mechverify.provers.ranges.known import Found, Known
from mechverify.provers.ranges.problem import RangeProblem
from mechverify.provers.ranges.refute import nearest
from mechverify.provers.ranges.search import search
from mechverify.provers.ranges.smt import Solver
from mechverify.relax.optimise import Slopes

FEW = 2**12  # integer inputs that are split one from another before a solver is asked


def find_range(
    problem: RangeProblem,
    lemmas: tuple[Lemma, ...],
    budget: Budget,
    method: str,
    slopes: Slopes,
    solver: Solver,
) -> Known:
    """Postcondition: nothing of it was checked."""
    integers = (
        not problem.claim.weights and not len(problem.domain.low) and solver.enabled
    )
    integers &= problem.domain.size > FEW
    first = "linear" if integers and not lemmas else method
    known = Known(Found(None, problem.claim.everything, False, []), first, slopes)
    if lemmas:
        _guarded(known, budget, lambda: cut(problem, lemmas, budget, method))
    else:
        _guarded(known, budget, lambda: search(problem, known, budget))
        if solver.accepts(problem, known) is None:
            _guarded(known, budget, lambda: solver.prove(problem, known, budget))
        if (
            problem.open(known.found) and integers and not budget.spent()
        ):  # cells are dear where nothing is relaxed
            again = replace(known, method=method)
            _guarded(known, budget, lambda: search(problem, again, budget))
    if (
        not lemmas
        and known.found.proof is not None
        and not known.exact
        and (problem.open(known.found) or not problem.asks)
    ):
        known.found.reasons.extend(problem.dropped())
    if (
        budget.spent()
        and problem.open(known.found)
        and budget.why not in "; ".join(known.found.reasons)
    ):
        known.found.reasons.append(budget.why)
    if not lemmas and problem.open(known.found):
        with suppress(Stopped):
            known.found = nearest(problem, known, budget)
    return known


def _guarded(known: Known, budget: Budget, step: Callable[[], Found]) -> None:
    """What a step finds; where it fails, or time is up, what was found before that, with the reason."""
    try:
        known.found = step()
    except ClaimError:
        raise
    except Stopped:
        known.found = replace(known.found, reasons=[*known.found.reasons, budget.why])
    except Exception as error:
        known.found = replace(
            known.found, reasons=[*known.found.reasons, failure(error)]
        )
