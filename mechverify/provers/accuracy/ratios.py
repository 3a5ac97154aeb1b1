"""Find the witness of rule `ratios`: around which inputs to expand a cell's ratios, what to count, and what to cut."""

import heapq
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mechverify.kernel.core.accuracy import Counts
from mechverify.kernel.core.errors import Rejected, Stopped, Unsupported
from mechverify.kernel.ratios.linear import Box, Lead
from mechverify.kernel.ratios.rule import LISTED, Cell, Partition
from mechverify.provers.accuracy.problem import AccuracyProblem, Attempt, Evidence
from mechverify.provers.base import Budget

ROUNDS = 4  # of the search for the least lead
EXPANSIONS = 6  # points of a cell
COARSE, FINE = 2**10, 2**13  # steps of a counting grid
CHEAP = 2**16  # inputs times rivals times heads: a cell to list in any case
APART = 8  # rivals that are counted one by one
NEAR = 0.2  # of the largest factor: tokens that are cut by
GAP = 1e-6  # share of the domain left between the bounds at which refining stops
DEEP = 2  # cuts within each other


@dataclass
class _Part:
    """A cell, or a part of one, with the witness so far; `parts` once it is cut."""

    cell: Cell
    depth: int
    wrong: Counts
    undecided: np.ndarray = field(default_factory=lambda: np.zeros(0, int))
    points: list[list[int]] = field(default_factory=list)
    own: dict[int, int] = field(default_factory=dict)  # the point of a rival's least lead
    groups: list | None = field(default_factory=list)
    certain: list | None = None
    cut: tuple[list[int], list[int]] | None = None
    parts: list["_Part"] = field(default_factory=list)
    tried: int = 0

    def entry(self) -> Any:
        if self.cut is not None:
            return {"cut": dict(zip(("positions", "tokens"), self.cut, strict=True)),
                    "parts": [p.entry() for p in self.parts]}  # fmt: skip
        if self.wrong == Counts(0, self.cell.size):
            return None
        return {"points": self.points, "groups": self.groups, "certain": self.certain}

    @property
    def bounds(self) -> Counts:
        if self.cut is None:
            return self.wrong
        each = [p.bounds for p in self.parts]
        return Counts(sum(w.low for w in each), sum(w.high for w in each))


class Ratios:
    name = "ratios"

    def accepts(self, problem: AccuracyProblem, evidence: Evidence) -> str | None:
        try:
            problem.partition  # noqa: B018
        except Unsupported:
            pass
        else:
            return ""  # rule fold has the same cells, and is exact in them
        try:
            with np.errstate(all="ignore"):
                Partition(problem.job, problem.domain, [])
        except Unsupported as error:
            return str(error)
        return None

    def prove(self, problem: AccuracyProblem, evidence: Evidence, budget: Budget) -> Attempt:
        with np.errstate(all="ignore"):
            return bounded(problem, budget)


def bounded(problem: AccuracyProblem, budget: Budget) -> Attempt:
    """Both bounds of the right inputs: every cell once, then the widest gaps again while there is time. Raises
    Unsupported where the output is no sum of ratios."""
    partition = Partition(problem.job, problem.domain, [])
    families = [*partition.families()]
    total = sum(len(family.sizes) for family in families)
    cells: list[_Part] = []
    impossible = 0
    try:
        with budget.rehearsing():
            for family in families:
                budget.progress(f"cells of mechanism value {family.key[0]}", len(cells) / max(total, 1))
                if family.impossible:
                    impossible += sum(family.sizes.values())
                    continue
                for query in family.sizes:
                    if budget.spent():
                        raise Stopped
                    cells.append(first_look(family.cell(query)))
    except Stopped:
        pass
    refine(cells, budget, GAP * problem.domain.size)
    size, wrong = problem.domain.size, [c.bounds for c in cells]
    seen = sum(c.cell.size for c in cells) + impossible
    right = Counts(
        sum(c.cell.size - w.high for c, w in zip(cells, wrong, strict=True)),
        size - impossible - sum(w.low for w in wrong),
    )
    assert seen <= size
    rows = [[c.cell.query, list(c.cell.family.key), c.entry()] for c in cells]
    rows = [row for row in rows if row[2] is not None]
    return Attempt({"rule": "ratios", "keys": [], "cells": rows}, right)


def first_look(cell: Cell, depth: int = 0) -> _Part:
    """Expansions around the inputs of the least leads, until all rivals are decided or nothing more is."""
    part = _Part(cell, depth, Counts(0, cell.size))
    if not cell.size:
        return part
    rivals = cell.rivals
    try:
        inputs, leads = least_leads(cell.box, cell.lead(rivals))
        order = np.argsort(leads, kind="stable")
        left = np.ones(len(rivals), bool)
        for i in order:
            if len(part.points) >= EXPANSIONS:
                break
            if not left[i]:
                continue
            part.own[int(rivals[i])] = len(part.points)
            part.points.append(inputs[:, i].tolist())
            at = np.flatnonzero(left)
            left[at] = np.isin(rivals[at], cell.undecided(part.points[-1], rivals[at]))
            if not left.any():
                part.wrong, part.groups = Counts(0, 0), []
                return part
        part.undecided = rivals[left]
        for i in np.flatnonzero(left):  # each is counted around its own least lead
            if int(rivals[i]) not in part.own:
                part.own[int(rivals[i])] = len(part.points)
                part.points.append(inputs[:, i].tolist())
        _first_count(part)
    except Stopped:
        raise
    except Rejected:
        part.points = []
    return part


def _first_count(part: _Part) -> None:
    cell = part.cell
    if cell.size * len(part.undecided) * len(cell.box.factor.mid) <= CHEAP:
        part.groups, part.wrong = None, cell.listed(part.undecided)
        return
    _count(part, COARSE)


def _count(part: _Part, grid: int) -> None:
    """Every undecided rival by itself, around its own point."""
    groups, lost = [], 0
    for t in part.undecided.tolist():
        group = part.own[t], _step(part.cell, part.points[part.own[t]], t, grid), [t]
        lost += part.cell.lost(part.points[group[0]], *group[1:])
        groups.append([*group])
        if lost >= part.cell.size:
            return
    if lost < part.wrong.high:
        part.groups, part.wrong = groups, Counts(part.wrong.low, lost)


def _step(cell: Cell, point: Sequence[int], rival: int, grid: int, upper: bool = False) -> int:
    """The exponent of a step such that the sums that can still be undecided span about `grid` steps."""
    form = cell.linear(point, [rival], upper)
    raw = cell.ar.approximate(form.terms)[..., 0].T
    terms = -raw if upper else raw
    alive = [cell.box.index[np.concatenate([tokens for tokens, _ in layer.groups])] for layer in cell.layers]
    low = np.array([terms[i, tokens].min() for i, tokens in enumerate(alive)])
    high = np.array([terms[i, tokens].max() for i, tokens in enumerate(alive)])
    reach = np.minimum(high, np.maximum(low, low - math.fsum(low)))
    step = max(math.fsum(reach - low) / grid, float(-low.min()) * 2.0**-29, 2.0**-990)
    return math.frexp(step)[1] if math.isfinite(step) else 0


def refine(cells: list[_Part], budget: Budget, enough: float) -> None:
    """The widest gap first: list it, cut it, count it on a finer grid, and count the surely wrong."""
    heap = [(-(c.wrong.high - c.wrong.low), i, c) for i, c in enumerate(cells) if c.wrong.high > c.wrong.low]
    heapq.heapify(heap)
    number, gap = len(cells), -sum(h[0] for h in heap)
    first = max(gap, 1)
    while heap and gap > enough and not budget.spent():
        budget.progress("refining the widest gaps", None if gap >= first else 1 - gap / first)
        width, _, part = heapq.heappop(heap)
        try:
            with budget.rehearsing():
                left = _better(part)
        except Stopped:
            break
        after = part.bounds
        gap += width + after.high - after.low
        for p in left:
            heapq.heappush(heap, (-(p.wrong.high - p.wrong.low), number, p))
            number += 1


def _better(part: _Part) -> list[_Part]:
    """One more effort; the parts that can be improved further."""
    cell = part.cell
    part.tried += 1
    if not part.points or part.groups is None:
        return []
    if cell.size * len(cell.box.factor.mid) <= LISTED:
        part.groups, part.certain, part.wrong = None, None, cell.listed(part.undecided)
        return []
    if part.depth < DEEP and part.cut is None and (cut := _near(part)) is not None:
        parts = [first_look(c, part.depth + 1) for c in cell.parts(*cut)]
        if sum(p.wrong.high for p in parts) < part.wrong.high:
            part.cut, part.parts = cut, parts
            return [p for p in parts if p.wrong.high > p.wrong.low]
    if part.tried <= 2:
        _count(part, FINE)
        _count_surely(part)
    return []


def _near(part: _Part) -> tuple[list[int], list[int]] | None:
    """The tokens that some head attends to nearly as much as to any, at all positions but the query's."""
    box = part.cell.box
    weight = box.ar.approximate(box.factor)
    share = (weight / weight.max((1, 2), keepdims=True)).max((0, 2))
    near = box.tokens[share > NEAR ** (1 + part.depth)]
    positions = [i for i in range(len(box.layers)) if i != box.pin]
    return (positions, near.tolist()) if 0 < len(near) < len(box.tokens) and positions else None


def _count_surely(part: _Part) -> None:
    """Inputs lost to the rival with the least lead."""
    rival = part.undecided[0]
    point = part.own[int(rival)]
    step = _step(part.cell, part.points[point], int(rival), FINE, upper=True)
    low = part.cell.surely_lost(part.points[point], step, [int(rival)])
    if low > part.wrong.low:
        part.certain, part.wrong = [point, step, [int(rival)]], Counts(low, part.wrong.high)


def least_leads(box: Box, lead: Lead) -> tuple[np.ndarray, np.ndarray]:
    """For each rival an input with a small lead, [length, rivals], and that lead, [rivals]: the ratios linearised
    around an input, the least input of that, and so on."""
    ar = box.ar
    factor, base, value = ar.approximate(box.factor), ar.approximate(lead.base), ar.approximate(lead.value)
    heads, _, length, rivals = value.shape
    ratio = (factor[..., None] * value).sum((1, 2)) / factor.sum((1, 2))[:, None]
    slope = np.broadcast_to(1 / factor.sum(2).mean(1)[:, None], (heads, rivals))
    best, found = np.full(rivals, np.inf), np.zeros((length, rivals), np.int64)
    each, places = np.arange(rivals), np.arange(length)[:, None]
    for _ in range(ROUNDS):
        terms = np.einsum("hr,htl,htlr->tlr", slope, factor, value - ratio[:, None, None])
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
