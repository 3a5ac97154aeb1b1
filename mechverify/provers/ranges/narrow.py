"""Narrower ranges: halve coordinates, optimise lines."""

import time

import numpy as np
import torch

from mechverify.certificate.write import Proof
from mechverify.kernel.core.domain import Domain
from mechverify.kernel.core.errors import Rejected, Stopped, Unsupported
from mechverify.provers.base import Budget
from mechverify.provers.ranges.cells import estimated_ends, kernel_ranges, middle_of
from mechverify.provers.ranges.known import Found, Known, meet, unite
from mechverify.provers.ranges.leaves import optimised_leaves
from mechverify.provers.ranges.problem import FEW, RangeProblem

CELLS, CANDIDATES, WORTH = 256, 12, 0.995  # at most so many cells; a cut's least gain
CHOOSING, CHECKING, OPTIMISING = (
    10.0,
    40.0,
    40.0,
)  # seconds: for choosing cuts, relaxing cells, optimising lines
PRICED = 4  # halvings whose cells are relaxed to know what one takes
OPTIMISED = 2  # halvings before slopes are optimised
OPTIMISED_BOXES = 2**5  # of a union, at most, whose slopes are


class Lines:
    """Optimised lines on the whole domain."""

    name = "optimised lines"

    def accepts(self, problem: RangeProblem, known: Known) -> str | None:
        dear = problem.asks and len(problem.domain.low) > FEW  # cells are: these first
        return (
            None
            if known.method == "optimised" or (known.method == "branching" and dear)
            else ""
        )

    def prove(self, problem: RangeProblem, known: Known, budget: Budget) -> Found:
        return _with_optimised_lines(problem, budget, known.found, [])


class Narrow:
    """The better of two proofs, entry by entry: many cells with the kernel's lines, few with optimised ones."""

    name = "cells"

    def accepts(self, problem: RangeProblem, known: Known) -> str | None:
        by_cases = problem.claim.cases and known.cases
        return (
            None
            if known.method == "branching" and not problem.asks and not by_cases
            else ""
        )

    def prove(self, problem: RangeProblem, known: Known, budget: Budget) -> Found:
        found, cuts = known.found, list[int]()
        try:
            with budget.within(CHOOSING):
                cuts = _cuts(problem, budget)
            if 2 ** len(cuts) * problem.seconds > CHECKING:
                with budget.within(CHECKING):
                    price = _price(problem, cuts) * len(problem.parts)
                while cuts and 2 ** len(cuts) * price > CHECKING:
                    cuts.pop()
            if cuts:
                cells = len(problem.parts) * 2 ** len(cuts)
                budget.progress(f"{cells:,} cells", None)
                parts = _parts(problem.parts, cuts)
                with budget.within(CHECKING), budget.rehearsing():
                    range_ = meet(found.range, unite(kernel_ranges(problem, parts)))
                found = Found(
                    _tree(cuts, [problem.linear] * len(parts), problem),
                    range_,
                    False,
                    found.reasons,
                )
        except (Rejected, Unsupported) as error:  # what is proved already stands
            found.reasons.append(f"{self.name}: {error}")
        except Stopped:
            why = budget.why if budget.spent() else f"not within {CHECKING:.0f} s"
            found.reasons.append(f"{self.name}: {why}")
        return _with_optimised_lines(problem, budget, found, cuts[:OPTIMISED])


def _price(problem: RangeProblem, cuts: list[int]) -> float:
    """Seconds that the kernel takes for a cell, of some that are relaxed side by side."""
    some = _parts(problem.parts[:1], cuts[:PRICED])
    begun = time.monotonic()
    kernel_ranges(problem, some)
    return (time.monotonic() - begun) / len(some)


def _cuts(problem: RangeProblem, budget: Budget) -> list[int]:
    """Coordinates to halve one after another, in every cell: each time the one, of those that move the output most,
    that makes the output's range narrowest; until it is no longer worth a doubling. Of a union: the first box
    is cut, and the others like it."""
    domain, cuts, most = problem.parts[0], [], CELLS // len(problem.parts)
    while len(domain.low) and 2 ** (len(cuts) + 1) <= most and not budget.spent():
        budget.progress(f"choosing the next of {len(cuts)} cuts", None)
        part = _parts([domain], cuts)[0]
        middle = torch.from_numpy((part.low + part.high) / 2)[None].requires_grad_()
        tokens = np.array([[t[0] for t in domain.tokens]], np.int64).reshape(1, -1)
        (slope,) = torch.autograd.grad(
            problem.values(tokens, middle)[0].abs().sum(), middle
        )
        influence = slope[0].abs().numpy() * (part.high - part.low)
        likely = [
            int(c)
            for c in np.argsort(-influence)[:CANDIDATES]
            if part.high[c] > part.low[c]
        ]
        if not likely:
            break
        halves = [half for c in likely for half in part.cut(c, middle_of(part, c))]
        try:
            low, high = estimated_ends(problem, [part, *halves])
        except Stopped:
            break
        alone = (high[0] - low[0]).mean()
        low, high = (a[1:].reshape(len(likely), 2, -1) for a in (low, high))
        widths = (high.max(1) - low.min(1)).mean(1)
        if not widths.min() < WORTH * alone:
            break
        cuts.append(likely[int(widths.argmin())])
    return cuts


def _with_optimised_lines(
    problem: RangeProblem, budget: Budget, found: Found, cuts: list[int]
) -> Found:
    """With optimised lines on the parts that `cuts` make. What was found before stands beside it, unless it is worse
    in every entry."""
    if budget.spent():
        return found
    budget.progress("optimising slopes", None)
    while cuts and 2 ** len(cuts) * problem.seconds > CHECKING:
        cuts = cuts[:-1]
    parts = _parts(problem.parts, cuts)
    if len(problem.parts) > OPTIMISED_BOXES:
        return found
    try:
        leaves = optimised_leaves(problem, parts, budget, seconds=OPTIMISING)
        range_ = unite([found for _, found in leaves])
    except Stopped:
        found.reasons.append(
            f"optimised lines: {budget.why if budget.spent() else f'not within {OPTIMISING:.0f} s'}"
        )
        return found
    except (Rejected, Unsupported) as error:  # what the kernel's own lines prove stands
        found.reasons.append(f"optimised lines: {error}")
        return found
    return found.beside(_tree(cuts, [leaf for leaf, _ in leaves], problem), range_)


def _parts(parts: list[Domain], cuts: list[int]) -> list[Domain]:
    for c in cuts:
        parts = [half for part in parts for half in part.cut(c, middle_of(part, c))]
    return parts


def _tree(cuts: list[int], leaves: list[Proof], problem: RangeProblem) -> Proof:
    """The proof that cuts the domain's parts like _parts, and has these leaves."""
    many = len(leaves) // len(problem.parts)
    return problem.joined(
        [
            _halves(cuts, leaves[i * many : (i + 1) * many], part)
            for i, part in enumerate(problem.parts)
        ]
    )


def _halves(cuts: list[int], leaves: list[Proof], part: Domain) -> Proof:
    if not cuts:
        return leaves[0]
    first, half = cuts[0], len(leaves) // 2
    inside, outside = part.cut(first, at := middle_of(part, first))
    return {"rule": "split", "coordinate": first, "at": at.hex(), "inside": _halves(cuts[1:], leaves[:half], inside),
            "outside": _halves(cuts[1:], leaves[half:], outside)}  # fmt: skip
