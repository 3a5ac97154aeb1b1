"""All inputs in torch, where the kernel will tabulate the output on them all."""

import time
from math import inf

import numpy as np
import torch

from mechverify.kernel.core.domain import Domain
from mechverify.kernel.core.elsewhere import doubled
from mechverify.kernel.core.errors import Rejected, Stopped, Unsupported
from mechverify.kernel.core.ranges import Range
from mechverify.kernel.core.semantics import Real
from mechverify.kernel.relaxation.tables import FINE
from mechverify.kernel.replay.points import enclosed
from mechverify.provers.base import Budget
from mechverify.provers.ranges.inputs import CLEARLY, Inputs
from mechverify.provers.ranges.known import Found, Known
from mechverify.provers.ranges.problem import RangeProblem
from mechverify.provers.ranges.refute import refuted, shown
from mechverify.provers.ranges.whole import INTERVAL

DEAR = 2**26  # numbers that all inputs take, below which the kernel is as quick
SLACK = 2 * FINE  # of the largest value: what tables leave open, and torch rounds
TRIED = 16  # inputs that show what twice the digits leave open
WIDER = 2  # times that, at others
SLOWER = 8  # times torch's seconds, about, that the check takes


class Enumerate:
    name = "all inputs"

    def accepts(self, problem: RangeProblem, known: Known) -> str | None:
        return None if _rows(problem) is not None else ""

    def prove(self, problem: RangeProblem, known: Known, budget: Budget) -> Found:
        """What was found before, where that may be wrong by more than the slack or doesn't decide a threshold: that is
        for the kernel's own arithmetic."""
        begun, rows = time.monotonic(), _rows(problem)
        if rows is None or (ends := _ends(problem, rows, budget)) is None:
            return known.found
        if (broken := refuted(problem, ends)) is not None:
            return broken
        slack = SLACK * np.abs(ends.values).max() + WIDER * _left(problem, ends)
        range_ = Range(ends.values.min(0) - slack, ends.values.max(0) + slack)
        points = shown(problem, ends)
        if (
            not np.isfinite(slack)
            or points is None
            or (problem.asks and not problem.proves(range_))
        ):
            return known.found
        known.seen, known.exact, known.reached = ends, True, False
        budget.reserved += SLOWER * (time.monotonic() - begun)
        leaf = {**INTERVAL}
        both = {"rule": "both", "first": points, "second": leaf}
        return Found(leaf if problem.asks else both, range_, False, [])


def _rows(problem: RangeProblem) -> Domain | None:
    """The inputs that the kernel will tabulate the output on, if these are all that make a difference, and too many to
    ask it twice."""
    if len(problem.domain.low) or problem.claim.semantics != "real":
        return None
    if problem.claim.union is not None:
        return None
    try:
        plan, roots = problem.rewriting.plan, problem.rewriting.roots
    except (Rejected, Stopped):
        return None
    if plan is None or not plan.alone or plan.many * problem.numbers < DEAR:
        return None
    tabulated = any(roots.of[n] == roots.output for n in plan.reads)
    return plan.domain if tabulated else None


def _ends(problem: RangeProblem, rows: Domain, budget: Budget) -> Inputs | None:
    """The inputs at which an entry is least, or greatest; None where there is none, or time is up, or where rounding
    may decide whether an input satisfies a condition, or its values are no numbers."""
    found, step = None, problem.batch
    for start in range(0, rows.size, step):
        budget.progress(f"running {rows.size:,} inputs", start / rows.size)
        if budget.spent():
            return None
        tokens = rows.inputs(start, min(rows.size, start + step))
        points = np.zeros((len(tokens), 0))
        values, least = problem.values(tokens, torch.from_numpy(points))
        near = (least != 0) & (least.abs() < CLEARLY)
        if near.any() or not values.isfinite().all():
            return None
        some = Inputs.allowed(tokens, points, values, least)
        if found is not None:
            some = Inputs(*map(np.concatenate, zip(found, some, strict=True)))
        if len(some.values):
            ends = some.values.argmin(0), some.values.argmax(0)
            some = some.at(np.unique(np.concatenate(ends)))
        found = some
    return found if found is not None and len(found.values) else None


def _left(problem: RangeProblem, inputs: Inputs) -> float:
    """The widest enclosure of an entry with twice the digits; infinite where there is none."""
    some = inputs.at(slice(TRIED))

    def width(semantics: Real) -> float:
        range_, *_ = enclosed(problem.job, some.tokens, some.points, semantics)
        return float((range_.high - range_.low).max())

    try:
        return doubled(problem.job, width)
    except (Rejected, Unsupported):
        return inf
