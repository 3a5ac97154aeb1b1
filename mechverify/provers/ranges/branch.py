"""Best-first branching: cut the cells that are farthest from the thresholds, many at a time, until all are proved.

Cells are cut at a coordinate, in a token set, or, where there are many coordinates, by the sign of what a ReLU reads
(or the middle of what another function reads): there the multipliers of what is known pay (Wang et al. 2021).
"""

import heapq
import itertools
import math
import time
from collections.abc import Callable, Sequence
from math import prod
from typing import NamedTuple

import numpy as np
import torch

from mechverify.certificate.write import Proof
from mechverify.kernel.core.domain import Domain
from mechverify.kernel.core.errors import Rejected, Stopped, Unsupported
from mechverify.kernel.core.ranges import Range
from mechverify.kernel.relaxation.backward import Relaxed
from mechverify.kernel.relaxation.rule import ranges, side_by_side
from mechverify.provers.base import Budget
from mechverify.provers.ranges.cases import Case, cases, following
from mechverify.provers.ranges.cells import (
    estimated_ends,
    middle_of,
    relaxed,
    tensor_cells,
)
from mechverify.provers.ranges.inputs import Inputs
from mechverify.provers.ranges.known import Found
from mechverify.provers.ranges.leaves import optimised_leaves
from mechverify.provers.ranges.problem import FEW, RangeProblem
from mechverify.provers.ranges.refute import refuted

DEPTH = (
    200  # cuts of a cell, one in another; the kernel knows at most 256 facts of a part
)
BRANCHES, DEEP = 256, 16  # cells cut at a time; with optimised lines
EASY = 6  # rounds
STEPS = 32  # of optimising lines, in a cell
PRICED = 32  # cells that are relaxed by the kernel, to know what checking one takes
SLACK = 1e-9  # relative; the kernel's bounds are a little wider than the search's


class Cell(NamedTuple):
    node: Proof  # where its proof goes
    part: Domain
    share: float  # of the domain, by number of cuts
    low: np.ndarray
    high: np.ndarray


class Branching:
    def __init__(self, problem: RangeProblem, budget: Budget):
        self.problem, self.budget = problem, budget
        self.deep = len(problem.domain.low) > FEW
        problem.whole = self.deep and problem.asks and side_by_side(problem.job) == 1
        known = np.concatenate([problem.least, problem.most])
        self.slack = SLACK * max(
            1.0, np.abs(known[np.isfinite(known)]).max(initial=0.0)
        )
        self.open: list[tuple] = []
        self.stuck: list[Cell] = []
        self.count = itertools.count()
        self.reached = Range(
            np.full(problem.claim.outputs, np.inf),
            np.full(problem.claim.outputs, -np.inf),
        )
        self.proved, self.total, self.leaves = (
            0.0,
            0,
            0,
        )  # of the domain; cells; those that are proved
        self.cases = cases(problem)
        self.before, self.price = (
            budget.reserved,
            problem.seconds,
        )  # what is reserved; what checking a leaf takes
        self.priced = budget.end == math.inf  # then nobody asks

    def search(
        self,
        seen: Callable[[], Found | None] = lambda: None,
        enough: Callable[[], bool] = lambda: False,
    ) -> Found | None:
        """Until no cell is open, it is `enough`, or nothing is left of the budget; a threshold that is broken."""
        budget, begun, rounds = self.budget, time.monotonic(), 0
        while self.open and not budget.spent() and not enough():
            if time.monotonic() - begun > 1:
                budget.progress(
                    f"{self.total:,} cells, {len(self.open):,} open", self.proved
                )
            rounds += 1
            if rounds == EASY and (broken := seen()) is not None:
                return broken
            some = [
                heapq.heappop(self.open)
                for _ in range(min(DEEP if self.deep else BRANCHES, len(self.open)))
            ]
            cells = [cell for *_, cell in some]
            if (broken := self.broken(cells)) is not None:
                return broken
            if cells[0].share < 2.0**-DEPTH or not self.problem.asks:
                self.open += some
                break
            try:
                self.relax(self.cut(cells))
            except Stopped:  # what bounds a cell bounds its halves
                self.open += some
                break
        return None

    def add(self, cell: Cell) -> None:
        """One that was relaxed, and is open."""
        short = self.problem.missing(cell.low - self.slack, cell.high + self.slack)
        heapq.heappush(self.open, (-float(short), next(self.count), cell))

    def reserve(self) -> None:
        """The time that checking the tree will take: a leaf for each cell that isn't cut."""
        self.budget.reserved = self.before + self.price * (
            self.leaves + len(self.open) + len(self.stuck)
        )

    def relax(self, cells: list[tuple[Proof, Domain, float]]) -> None:
        """Bound new cells; those that don't reach the thresholds stay open."""
        problem = self.problem
        if not self.priced and len(cells) >= PRICED:
            self._set_price([part for _, part, _ in cells])
        low, high = estimated_ends(problem, [part for _, part, _ in cells])
        missing = problem.missing(low - self.slack, high + self.slack)
        if not problem.asks:  # of the user's cases: as narrow as can be
            for start in range(0, len(cells), DEEP):
                self._optimise(
                    cells, range(len(cells))[start : start + DEEP], low, high
                )
            missing = problem.missing(low, high)
        elif self.deep and (
            tough := [
                i
                for i in np.flatnonzero(missing > 0).tolist()
                if not self._case(cells[i][1])
            ]
        ):
            for start in range(0, len(tough), DEEP):
                self._optimise(cells, tough[start : start + DEEP], low, high)
            missing = problem.missing(low - self.slack, high + self.slack)
        for (node, part, share), short, a, b in zip(
            cells, missing, low, high, strict=True
        ):
            if short <= 0 or a[0] > b[0]:
                self.proved += share
                self.leaves += 1
                self.reach(a, b)
            elif self.problem.asks and (
                short <= 2 * self.slack or _single(part)
            ):  # no cut will help
                self.stuck.append(Cell(node, part, share, a, b))
            else:
                heapq.heappush(
                    self.open, (-short, next(self.count), Cell(node, part, share, a, b))
                )
        self.total += len(cells)
        self.reserve()

    def _set_price(self, parts: list[Domain]) -> None:
        """From what the kernel takes for some of them, side by side."""
        problem, begun = self.problem, time.monotonic()
        some = parts[: side_by_side(problem.job, problem.whole)]
        try:
            ranges(problem.job, some, problem.flags)
        except (Rejected, Unsupported):
            return
        self.price, self.priced = (time.monotonic() - begun) / len(some), True

    def _optimise(
        self, cells: list, some: Sequence[int], low: np.ndarray, high: np.ndarray
    ) -> None:
        """Optimised lines where they are better."""
        try:
            parts, before = [cells[i][1] for i in some], self.budget.reserved
            leaves = optimised_leaves(
                self.problem, parts, self.budget, steps=STEPS, enough=self._enough
            )
        except (Rejected, Unsupported):
            return
        self.price = max(self.price, (self.budget.reserved - before) / len(parts))
        for i, (leaf, found) in zip(some, leaves, strict=True):
            better = self.problem.missing(found.low, found.high) < self.problem.missing(
                low[i], high[i]
            )
            if better or (
                not self.problem.asks
                and np.sum(found.high - found.low) < np.sum(high[i] - low[i])
            ):
                low[i], high[i] = (
                    found.low + self.slack,
                    found.high - self.slack,
                )  # these are the kernel's own
                cells[i][0].clear()
                cells[i][0].update(leaf)

    def _enough(self, lows: torch.Tensor) -> bool:
        """All cells' thresholds are clearly reached."""
        low, high = lows.cpu().numpy().reshape(len(lows), 2, -1).transpose(1, 0, 2)
        room = 1e-4 * np.abs(low - high)  # lines are rounded
        return self.problem.asks and bool(
            (self.problem.missing(low - room, -high + room) <= 0).all()
        )

    def reach(self, low: np.ndarray, high: np.ndarray) -> None:
        self.reached = Range(
            np.minimum(self.reached.low, low), np.maximum(self.reached.high, high)
        )

    def cut(self, cells: list[Cell]) -> list[tuple[Proof, Domain, float]]:
        """Each cell in two."""
        children, others = [], []
        for cell in cells:
            case = self._case(cell.part)
            if case is None:
                others.append(cell)
            else:
                children += self._split(cell[:3], *case.halves(cell.part))
        influences = (
            self._influences([c.part for c in others])
            if self.deep and others
            else [None] * len(others)
        )
        for cell, influence in zip(others, influences, strict=True):
            children += self._split(
                cell[:3], *_halves(self.problem, cell.part, influence)
            )
        return children

    def told_apart(
        self, cells: list[tuple[Proof, Domain, float]]
    ) -> list[tuple[Proof, Domain, float]]:
        """The cells, cut by all of the user's cases."""
        done = []
        while cells:
            cell = cells.pop()
            case = self._case(cell[1])
            if case is None:
                done.append(cell)
            else:
                cells += self._split(cell, *case.halves(cell[1]))
        return done

    def _case(self, part: Domain) -> Case | None:
        return following(self.cases, part)

    def _split(
        self, cell: tuple, halves: tuple[Domain, Domain], how: dict
    ) -> list[tuple[Proof, Domain, float]]:
        node, _, share = cell
        node.clear()
        node.update(
            rule="split", **how, inside=self.problem.linear, outside=self.problem.linear
        )
        return [
            (node[name], half, share / 2)
            for name, half in zip(("inside", "outside"), halves, strict=True)
        ]

    def _influences(
        self, parts: list[Domain]
    ) -> list[tuple[float, int, int, float] | None]:
        """For each part the entry of a function's operand (node, entry, where to cut it) that widens the output most:
        the output's width is differentiated by that of the operand's interval."""
        problem, ar, roots = self.problem, self.problem.ar, self.problem.rewriting.roots
        watched = relaxed(problem, tensor_cells(problem, parts), _Watched)
        low, high = watched.output()
        (high - low).sum().backward()
        largest = np.zeros(len(parts))
        best: list[tuple[float, int, int, float] | None] = [None] * len(parts)
        for n, (x, more, bent) in watched.operands.items():
            named = (
                n in problem.called.held
                or problem.rewriting.graph.nodes[n].op == "input"
            )
            if more.grad is None or n not in roots.values or not named:
                continue
            low, high, slope = (t.detach().expand(len(parts), *t.shape[1:]).reshape(len(parts), -1).cpu().numpy()
                                for t in (ar.lower(x), ar.upper(x), more.grad))  # fmt: skip
            at = np.zeros_like(low) if bent else low / 2 + high / 2
            gain = np.where(
                (low < at) & (at < high),
                np.abs(slope) * np.minimum(high - at, at - low),
                0.0,
            )
            for i, entry in enumerate(gain.argmax(1)):
                if gain[i, entry] > largest[i]:
                    largest[i] = gain[i, entry]
                    best[i] = float(gain[i, entry]), n, int(entry), float(at[i, entry])
        return best

    def broken(self, cells: list[Cell]) -> Found | None:
        """A threshold that is broken in the middle of a cell."""
        parts = [c.part for c in cells]
        tokens = np.array(
            [[t[len(t) // 2] for t in p.tokens] for p in parts], np.int64
        ).reshape(len(parts), -1)
        points = np.stack([p.low + (p.high - p.low) / 2 for p in parts])
        seen = self.problem.values(tokens, torch.from_numpy(points))
        return refuted(self.problem, Inputs.allowed(tokens, points, *seen))


class _Watched(Relaxed):
    """Adds a zero to the radius of what functions and products read, to differentiate by."""

    def prepare(self) -> None:
        super().prepare()
        self.operands: dict[int, tuple] = {}  # ball, what is added, read by a ReLU
        self.reads: dict[int, bool] = {}
        for n in self.curved:
            for operand in self.graph.nodes[n].args:
                self.reads[self.source(operand)[0]] = self.graph.nodes[n].op in (
                    "relu",
                    "abs",
                )
        self.reads |= {
            n: False for n in self.order if self.graph.nodes[n].op == "input"
        }

    def refine(self, n: int) -> None:
        super().refine(n)
        if n in self.reads and n not in self.fixed:
            ball = self.balls[n]
            more = (
                (0 * ball.mid if ball.rad is None else 0 * ball.rad)
                .detach()
                .requires_grad_()
            )
            self.balls[n] = type(ball)(
                ball.mid, more if ball.rad is None else ball.rad + more
            )
            self.ends[n] = self.ends[n][0] - more, self.ends[n][1] + more
            self.operands[n] = self.balls[n], more, self.reads[n]


def _single(part: Domain) -> bool:
    """One input, which can't be cut."""
    return part.size == 1 and bool((part.low == part.high).all())


def _halves(
    problem: RangeProblem, part: Domain, influence: tuple | None
) -> tuple[tuple[Domain, Domain], dict]:
    """Cut the value of most influence; else the widest coordinate (relative to the domain's) in the middle, or the
    largest token set."""
    nodes = problem.rewriting.graph.nodes
    if influence is not None and nodes[influence[1]].op != "input":
        _, n, entry, at = influence
        if (called := problem.called.entry(n, entry)) is not None:
            return called.halves(part, at)
        influence = None
    if len(part.low):
        if influence is not None:
            before = problem.claim.shapes[: nodes[influence[1]].attr[0]]
            coordinate = sum(map(prod, before)) + influence[2]
        else:
            whole = problem.domain.high - problem.domain.low
            coordinate = int(
                np.argmax((part.high - part.low) / np.where(whole > 0, whole, 1))
            )
        at = middle_of(part, coordinate)
        return part.cut(coordinate, at), {"coordinate": coordinate, "at": at.hex()}
    position = int(np.argmax([len(t) for t in part.tokens]))
    first = part.tokens[position][: len(part.tokens[position]) // 2]
    return part.split(position, set(first)), {
        "position": position,
        "first": list(first),
    }
