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

CELLS = 1_024  # at most
CANDIDATES = 3  # coordinates that are tried for a cut
TRIED = 64  # cells that are cut at a time, at most
WORTH = 0.995  # what twice as many cells must at least make of the range
PATIENT = 4  # times in a row that they may fail to, under conditions
CHOOSING, CHECKING, OPTIMISING = (
    15.0,
    40.0,
    40.0,
)  # seconds: for choosing cuts, relaxing cells, optimising lines
PRICED = 16  # cells that are relaxed to know what one takes
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
        work = Halving(problem, budget)
        try:
            with budget.within(CHOOSING):
                cuts = work.grow()
            if len(work.parts) > len(problem.parts):
                budget.progress(f"{len(work.parts):,} cells", None)
                with budget.within(CHECKING), budget.rehearsing():
                    range_ = meet(
                        found.range, unite(kernel_ranges(problem, work.parts))
                    )
                found = Found(problem.joined(work.roots), range_, False, found.reasons)
        except (Rejected, Unsupported) as error:  # what is proved already stands
            found.reasons.append(f"{self.name}: {error}")
        except Stopped:
            why = budget.why if budget.spent() else f"not within {CHECKING:.0f} s"
            found.reasons.append(f"{self.name}: {why}")
        return _with_optimised_lines(problem, budget, found, cuts[:OPTIMISED])


class Halving:
    """Cells that are halved where they reach farthest: those at whose ends the whole range ends."""

    def __init__(self, problem: RangeProblem, budget: Budget):
        self.problem, self.budget = problem, budget
        self.roots: list[Proof] = [problem.linear for _ in problem.parts]
        self.leaves, self.parts = list(self.roots), list(problem.parts)
        self.most = CELLS

    def grow(self) -> list[int]:
        """Until cells are as many as can be checked, or no longer worth it. The first coordinates that are cut."""
        cuts, before, next_ = list[int](), np.inf, 2 * len(self.parts)
        left = patience = PATIENT if self.problem.claim.where else 1
        if len(self.parts) >= self.most or not len(self.problem.domain.low):
            return cuts
        try:
            self.low, self.high = estimated_ends(self.problem, self.parts)
            while len(self.parts) < self.most and not self.budget.spent():
                self.budget.progress(
                    f"choosing the next of {len(self.parts):,} cells", None
                )
                if len(self.parts) >= next_:
                    width = np.mean(self.high.max(0) - self.low.min(0))
                    left = patience if width < WORTH * before else left - 1
                    if not left:
                        break
                    before, next_ = width, 2 * len(self.parts)
                if len(self.parts) >= PRICED and self.most == CELLS:
                    self._set_most()
                if not (coordinates := self._halve(self._outermost())):
                    break
                cuts += coordinates
        except Stopped:
            pass
        return cuts

    def _set_most(self) -> None:
        """By what the kernel takes for some cells, side by side; others may take longer."""
        if CELLS * self.problem.seconds > CHECKING:
            begun = time.monotonic()
            kernel_ranges(self.problem, self.parts[:PRICED])
            price = (time.monotonic() - begun) / PRICED
            self.most = min(CELLS - 1, int(CHECKING / 2 / price))

    def _outermost(self) -> list[int]:
        """Cells, entry by entry and end by end those that reach farthest."""
        each = max(1, TRIED // (2 * self.low.shape[1]))
        order = np.concatenate(
            [np.argsort(self.low, 0)[:each], np.argsort(-self.high, 0)[:each]], 1
        )
        some = list(dict.fromkeys(order.ravel().tolist()))
        return some[: min(TRIED, self.most - len(self.parts))]

    def _halve(self, some: list[int]) -> list[int]:
        """Each in the middle of the coordinate that makes its halves narrowest; these coordinates."""
        tried = [
            (i, int(c))
            for i, cs in zip(some, self._likely(some), strict=True)
            for c in cs
        ]
        if not tried:
            return []
        halves = [
            half
            for i, c in tried
            for half in self.parts[i].cut(c, middle_of(self.parts[i], c))
        ]
        low, high = (
            a.reshape(len(tried), 2, -1) for a in estimated_ends(self.problem, halves)
        )
        whole = self.high.max(0) - self.low.min(0)
        widths = ((high - low) / np.where(whole > 0, whole, 1.0)).sum((1, 2))
        best: dict[int, int] = {}
        for at, (i, _) in enumerate(tried):
            if i not in best or widths[at] < widths[best[i]]:
                best[i] = at
        for i, at in best.items():
            self._split(i, tried[at][1], halves[2 * at : 2 * at + 2], low[at], high[at])
        return [tried[at][1] for at in best.values()]

    def _split(
        self, i: int, c: int, halves: list[Domain], low: np.ndarray, high: np.ndarray
    ) -> None:
        node, inside, outside = self.leaves[i], self.problem.linear, self.problem.linear
        at = middle_of(self.parts[i], c)
        node.clear()
        node.update(
            rule="split", coordinate=c, at=at.hex(), inside=inside, outside=outside
        )
        self.leaves[i], self.parts[i] = inside, halves[0]
        self.leaves.append(outside)
        self.parts.append(halves[1])
        self.low[i], self.high[i] = low[0], high[0]
        self.low, self.high = (
            np.vstack([self.low, low[1:]]),
            np.vstack([self.high, high[1:]]),
        )

    def _likely(self, some: list[int]) -> list[np.ndarray]:
        """Of each, the coordinates that move the output most."""
        parts = [self.parts[i] for i in some]
        middles = np.stack([p.low / 2 + p.high / 2 for p in parts])
        points = torch.from_numpy(middles).requires_grad_()
        tokens = np.array([[t[0] for t in p.tokens] for p in parts], np.int64).reshape(
            len(parts), -1
        )
        (slope,) = torch.autograd.grad(
            self.problem.values(tokens, points)[0].abs().sum(), points
        )
        wide = np.stack([p.high - p.low for p in parts])
        order = np.argsort(-slope.abs().numpy() * wide, 1)[:, :CANDIDATES]
        return [cs[w[cs] > 0] for cs, w in zip(order, wide, strict=True)]


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
