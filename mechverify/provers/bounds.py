"""Bounds of a captured model's values: sample, relax, look for an input that breaks a threshold, then branch."""

import time
from dataclasses import replace

import numpy as np

from mechverify.bounds.optimise import Slopes
from mechverify.certificate.write import Proof
from mechverify.kernel.core.errors import Rejected, Stopped, Unsupported
from mechverify.kernel.relaxation import rule as linear
from mechverify.kernel.relaxation.backward import Relaxed
from mechverify.kernel.relaxation.intervals import Intervals
from mechverify.provers.base import Budget
from mechverify.provers.branch import FEW, branch
from mechverify.provers.extremes import STEPS, Inputs, climb, sample
from mechverify.provers.narrow import narrow, with_optimised_lines, with_slopes
from mechverify.provers.ranges import BoundsProblem, Found, refuted, shown

SLOW = 5.0  # seconds of linear bounds, beyond which a range isn't narrowed any further
INTERVAL: Proof = {"rule": "interval"}


def search(
    problem: BoundsProblem, budget: Budget, method: str = "branching", slopes: Slopes | None = None, seed: int = 0,
    cases: bool = True,
) -> Found:  # fmt: skip
    """Cheap means first: each of METHODS up to `method`, until the thresholds are reached, or an input breaks one.
    `cases`: a range is sought case by case, where the claim has a case split.

    Postcondition: the range, and whether a threshold is broken, are the search's belief; the kernel decides."""
    with np.errstate(all="ignore"):
        seen = sample(problem, budget, seed)
        if (broken := refuted(problem, seen)) is not None:
            return broken
        begun = time.monotonic()
        found = _relaxed(problem, budget, Intervals if method == "interval" else Relaxed)
        taken = time.monotonic() - begun
        problem.kept = replace(found, reasons=[*found.reasons])
        if slopes:
            found = with_slopes(problem, found, slopes)
        if found.reasons:
            method = "interval"
        elif taken > SLOW and method in ("optimised", "branching") and not problem.asks:
            found.reasons.append(f"linear bounds alone take {taken:.0f} s: no cells and no optimised lines were tried")
            method = "linear"
        if problem.asks:
            return found if problem.proves(found.range) else _decide(problem, budget, found, seen, method)
        if _tabulated(problem):
            method = "linear"
        if method == "optimised":
            found = with_optimised_lines(problem, budget, found, [])
        elif method == "branching":
            by_cases = problem.claim.cases and cases
            found = _or(branch(problem, budget), found) if by_cases else narrow(problem, budget, found)
        points = shown(problem, climb(problem, budget, seen, steps=STEPS if method == "branching" else 0))
        if points is not None:
            both = {"rule": "both", "first": points, "second": found.proof}
            found.proof = both if found.proof else points
        return found


def _tabulated(problem: BoundsProblem) -> bool:
    """Every entry of the output depends on two tokens at most, so that its range is exact already."""
    roots, tables = problem.rewriting.roots, problem.rewriting.tables
    return tables is not None and any(roots.of[n] == roots.output for n in tables.of)


def _decide(problem: BoundsProblem, budget: Budget, found: Found, seen: Inputs, method: str) -> Found:
    """Whether the thresholds hold that `found` doesn't reach."""

    def look() -> Found | None:
        best = climb(problem, budget, seen, steps=STEPS)
        return None if best is None else refuted(problem, best)

    if len(problem.domain.low) > FEW or method != "branching":  # cells are dear: look first
        if (broken := look()) is not None:
            return broken
        if method in ("optimised", "branching"):
            found = with_optimised_lines(problem, budget, found, [])
        if method != "branching" or problem.proves(found.range):
            return found
    return _or(branch(problem, budget, look), found)


def _or(new: Found, before: Found) -> Found:
    """What was found before, where time was up too soon."""
    if new.proof is not None:
        return new
    before.reasons += new.reasons
    return before


def _relaxed(problem: BoundsProblem, budget: Budget, kind: type[Intervals]) -> Found:
    """Of the whole domain, through the better form of a softmax. Intervals where linear bounds can't be had, and
    nothing where intervals can't."""
    best, reasons, begun = None, [], time.monotonic()
    tries = [(Relaxed, False), (Relaxed, True), (Intervals, False)] if kind is Relaxed else [(Intervals, False)]
    for rule, shared in tries:
        if (shared and (not problem.rewriting.roots.shared or time.monotonic() - begun > SLOW)) or (
            rule is not kind and best is not None
        ):
            continue
        name = "linear bounds" if rule is Relaxed else "intervals"
        budget.progress(name, None)
        started = time.monotonic()
        try:
            with budget.rehearsing():
                (range_,) = linear.bounds(problem.job, [problem.domain], shared=shared, kind=rule)
        except Stopped:
            reasons.append(f"{name}: {budget.why}")
            break
        except (Rejected, Unsupported) as error:
            if not shared:
                reasons.append(f"{name}: {error}")
            continue
        if best is None or np.mean(range_.high - range_.low) < np.mean(best.range.high - best.range.low):
            problem.shared, problem.seconds = shared, time.monotonic() - started
            best = Found(problem.linear if rule is Relaxed else INTERVAL, range_, False, reasons)
    return best or Found(None, problem.claim.everything, False, reasons)
