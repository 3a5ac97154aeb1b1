"""Find the witness of rule `ratios`: around which inputs to expand a cell's ratios, what to count, and what to cut."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mechverify.kernel.core.counts import Counts
from mechverify.kernel.core.errors import Rejected, Stopped
from mechverify.kernel.counting.automaton import Layer
from mechverify.kernel.ratios.linear import Box, Lead
from mechverify.kernel.ratios.rule import LISTED, Cell, InputClass, Partition
from mechverify.provers.accuracy.problem import AccuracyProblem, Attempt, Evidence
from mechverify.provers.base import Budget, unsupported
from mechverify.provers.worst_first import WorstFirst

ROUNDS = 4  # of the search for the least lead
EXPANSIONS = 4  # points of a cell
COARSE, FINE = 2**10, 2**13  # steps of a counting grid
NEAR = 0.2  # of the largest factor: tokens that are cut by
GAP = 1e-6  # share of the domain left between the bounds at which refining stops
DEEPEST = 2  # cuts within each other


@dataclass
class _Part:
    """A cell, or a part of one, and what is known of it: the witness so far and the bounds that it gives."""

    input_class: InputClass
    query: int
    layers: list[Layer]
    size: int
    depth: int
    wrong: Counts
    efforts: int = 0
    undecided: list[int] = field(default_factory=list)  # rivals
    points: list[list[int]] = field(default_factory=list)
    around: dict[int, int] = field(
        default_factory=dict
    )  # the point of a rival's least lead
    groups: list | None = field(default_factory=list)
    certain: list | None = None
    cut: dict[str, list[int]] | None = None
    parts: list["_Part"] = field(default_factory=list)

    @staticmethod
    def of(cell: Cell, depth: int = 0) -> "_Part":
        return _Part(
            cell.input_class,
            cell.query,
            cell.layers,
            cell.size,
            depth,
            Counts(0, cell.size),
        )

    @property
    def cell(self) -> Cell:
        """Made anew: its tables are large."""
        return Cell(self.input_class, self.query, self.layers)

    @property
    def bounds(self) -> Counts:
        each = [p.bounds for p in self.parts] if self.parts else [self.wrong]
        return Counts(sum(w.low for w in each), sum(w.high for w in each))

    @property
    def gap(self) -> int:
        return self.wrong.high - self.wrong.low

    def entry(self) -> Any:
        if self.parts:
            return {"cut": self.cut, "parts": [p.entry() for p in self.parts]}
        if self.wrong == Counts(0, self.size):
            return None
        return {"points": self.points, "groups": self.groups, "certain": self.certain}


class Ratios:
    name = "ratios"

    def accepts(self, problem: AccuracyProblem, evidence: Evidence) -> str | None:
        if unsupported(lambda: problem.partition) is None:
            return ""  # rule fold has the same cells, and is exact in them
        return unsupported(lambda: Partition(problem.job, problem.domain, []))

    def prove(
        self, problem: AccuracyProblem, evidence: Evidence, budget: Budget
    ) -> Attempt:
        with np.errstate(all="ignore"):
            return bounded(problem, budget)


def bounded(problem: AccuracyProblem, budget: Budget) -> Attempt:
    """Both bounds of the right inputs: the widest gap first, while there is time. Raises Unsupported where the output
    is no sum of ratios."""
    size, wrong = problem.domain.size, 0  # of classes that are no output
    cells: list[_Part] = []
    for input_class in Partition(problem.job, problem.domain, []).classes():
        if input_class.impossible:
            wrong += sum(input_class.sizes.values())
        else:
            cells += [_Part.of(input_class.cell(query)) for query in input_class.sizes]
    _narrow(cells, budget, GAP * problem.claim.total)
    bounds = Counts(
        wrong + sum(c.bounds.low for c in cells),
        wrong + sum(c.bounds.high for c in cells),
    )
    rows = [[c.query, list(c.input_class.key), c.entry()] for c in cells]
    proof = {
        "rule": "ratios",
        "keys": [],
        "cells": [row for row in rows if row[2] is not None],
    }
    return Attempt(proof, Counts(size - bounds.high, size - bounds.low))


def _narrow(cells: list[_Part], budget: Budget, enough: float) -> None:
    """One effort after the other at the part with the widest gap, until all gaps together are at most `enough`."""
    waiting = WorstFirst[_Part]()
    for part in cells:
        waiting.add(part, part.gap)
    gap, whole = sum(part.gap for part in cells), max(sum(c.size for c in cells), 1)
    while waiting and gap > enough and not budget.spent():
        budget.progress(
            f"bounding {len(waiting):,} cells, {gap / whole:.2g} of the inputs open",
            1 - gap / whole,
        )
        part = waiting.take()
        before = part.gap
        try:
            left = _effort(part, budget)
        except Stopped:
            break
        bounds = part.bounds
        gap -= before - (bounds.high - bounds.low)
        for p in left:
            waiting.add(p, p.gap)


def _effort(part: _Part, budget: Budget) -> list[_Part]:
    """Points, then a list or a cut, then counts. The parts that can be improved further."""
    cell = part.cell
    part.efforts += 1
    try:
        if part.efforts == 1:
            found = least_leads(cell.box, cell.lead(cell.rivals))
            with budget.rehearsing():
                return _expand(part, cell, *found)
        with budget.rehearsing():
            if (
                part.efforts == 2
                and part.depth < DEEPEST
                and (cut := _near(part, cell)) is not None
            ):
                parts = [_Part.of(c, part.depth + 1) for c in cell.parts(**cut)]
                left = [q for p in parts if p.size for q in _effort(p, budget)]
                part.cut, part.parts = cut, parts
                return left
            _count(part, cell, COARSE)
            _count(part, cell, FINE)
    except Stopped:
        raise
    except (
        Rejected
    ):  # say, weights so large that enclosures overflow: nothing is said of the cell
        part.points, part.groups, part.certain, part.wrong = (
            [],
            [],
            None,
            Counts(0, part.size),
        )
    return []


def _expand(
    part: _Part, cell: Cell, inputs: np.ndarray, leads: np.ndarray
) -> list[_Part]:
    """Expansions around the inputs [length, rivals] of the least `leads` [rivals], until all rivals are decided or
    nothing more is; then a list, of a cell that is small."""
    rivals = left = cell.rivals
    for i in np.argsort(leads, kind="stable"):
        if len(part.points) >= EXPANSIONS:
            break
        if rivals[i] in left:
            _point(part, int(rivals[i]), inputs[:, i])
            left = cell.undecided(part.points[-1], left)
    part.undecided = left.tolist()
    if not part.undecided:
        part.wrong = Counts(0, 0)
        return []
    if cell.size * len(cell.box.factor.mid) <= LISTED:
        part.groups, part.wrong = None, cell.listed(part.undecided)
        return []
    for t, point in zip(rivals.tolist(), inputs.T, strict=True):
        if (
            t in part.undecided and t not in part.around
        ):  # each is counted around its own least lead
            _point(part, t, point)
    return [part]


def _point(part: _Part, rival: int, point: np.ndarray) -> None:
    part.around[rival] = len(part.points)
    part.points.append(point.tolist())


def _count(part: _Part, cell: Cell, grid: int) -> None:
    """Every undecided rival by itself, around its own point; and for sure, the one that most are lost to."""
    groups, counts = [], []
    for t in part.undecided:
        group = [
            part.around[t],
            _step(cell, part.points[part.around[t]], t, grid, upper=False),
            [t],
        ]
        counts.append(_lost(part, cell.lost, group))
        groups.append(group)
        if sum(counts) >= part.size:
            break
    if sum(counts) < part.wrong.high:
        part.groups, part.wrong = groups, Counts(part.wrong.low, sum(counts))
    worst = part.undecided[counts.index(max(counts))]
    certain = [
        part.around[worst],
        _step(cell, part.points[part.around[worst]], worst, grid, upper=True),
        [worst],
    ]
    low = _lost(part, cell.surely_lost, certain)
    if low > part.wrong.low:
        part.certain, part.wrong = certain, Counts(low, part.wrong.high)


def _lost(
    part: _Part, count: Callable[[Sequence[int], int, Sequence[int]], int], group: list
) -> int:
    point, step, rivals = group
    return count(part.points[point], step, rivals)


def _step(cell: Cell, point: Sequence[int], rival: int, grid: int, upper: bool) -> int:
    """The exponent of a step such that the sums that can still be undecided span about `grid` steps."""
    terms = cell.ar.approximate(cell.linear(point, [rival], upper).terms)[..., 0].T
    terms = -terms if upper else terms
    alive = [
        cell.box.index[np.concatenate([tokens for tokens, _ in layer.groups])]
        for layer in cell.layers
    ]
    low = np.array([terms[i, tokens].min() for i, tokens in enumerate(alive)])
    high = np.array([terms[i, tokens].max() for i, tokens in enumerate(alive)])
    reach = np.minimum(high, np.maximum(low, low - math.fsum(low)))
    step = max(math.fsum(reach - low) / grid, float(-low.min()) * 2.0**-29, 2.0**-990)
    return math.frexp(step)[1] if math.isfinite(step) else 0


def _near(part: _Part, cell: Cell) -> dict[str, list[int]] | None:
    """The tokens that some head attends to nearly as much as to any, at all positions but the query's."""
    box = cell.box
    weight = box.ar.approximate(box.factor)
    share = (weight / weight.max((1, 2), keepdims=True)).max((0, 2))
    near = box.tokens[share > NEAR ** (1 + part.depth)]
    positions = [i for i in range(len(box.layers)) if i != box.pin]
    if not 0 < len(near) < len(box.tokens) or not positions:
        return None
    return {"positions": positions, "tokens": near.tolist()}


def least_leads(box: Box, lead: Lead) -> tuple[np.ndarray, np.ndarray]:
    """For each rival an input with a small lead, [length, rivals], and that lead, [rivals]: the ratios linearised
    around an input, the least input of that, and so on."""
    ar = box.ar
    factor, base, value = (
        ar.approximate(box.factor),
        ar.approximate(lead.base),
        ar.approximate(lead.value),
    )
    heads, _, length, rivals = value.shape
    ratio = (factor[..., None] * value).sum((1, 2)) / factor.sum((1, 2))[:, None]
    slope = np.broadcast_to(1 / factor.sum(2).mean(1)[:, None], (heads, rivals))
    best, found = np.full(rivals, np.inf), np.zeros((length, rivals), np.int64)
    each, places = np.arange(rivals), np.arange(length)[:, None]
    for _ in range(ROUNDS):
        terms = np.einsum(
            "hr,htl,htlr->tlr", slope, factor, value - ratio[:, None, None]
        )
        at = _least_input(box, terms)
        weight = factor[:, at, places]
        mass = weight.sum(1)
        ratio = (weight * value[:, at, places, each]).sum(1) / mass
        slope = 1 / mass
        now = base + ratio.sum(0)
        better = now < best
        best = np.where(better, now, best)
        found[:, better] = at[:, better]
    return box.tokens[found], best


def _least_input(box: Box, terms: np.ndarray) -> np.ndarray:
    """Indices into box.tokens [length, rivals] of an input with the least sum of `terms` [tokens, length, rivals]."""
    rivals = terms.shape[-1]
    each = np.arange(rivals)
    best, steps = np.zeros((1, rivals)), []
    for i, layer in enumerate(box.layers):
        targets = box.layers[i + 1].states if i + 1 < len(box.layers) else 1
        after = np.full((targets, rivals), np.inf)
        chosen = np.zeros((targets, rivals), np.int64)
        before = np.zeros((targets, rivals), np.int64)
        for tokens, following in layer.groups:
            here = box.index[tokens]
            which = terms[here, i].argmin(0)
            least = terms[here[which], i, each]
            for state in np.flatnonzero(following >= 0):
                target = following[state]
                total = best[state] + least
                better = total < after[target]
                after[target] = np.where(better, total, after[target])
                chosen[target] = np.where(better, here[which], chosen[target])
                before[target] = np.where(better, state, before[target])
        steps.append((chosen, before))
        best = after
    path, state = [], np.zeros(rivals, np.int64)
    for chosen, before in reversed(steps):
        path.append(chosen[state, each])
        state = before[state, each]
    return np.array(path[::-1])
