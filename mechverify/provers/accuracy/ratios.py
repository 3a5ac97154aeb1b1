"""Find the witness of rule `ratios`: around which inputs to expand a cell's ratios, what to count, and what to cut.

Obligations are efforts at some cells.
"""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mechverify.kernel.core.claim import Job
from mechverify.kernel.core.counts import Counts
from mechverify.kernel.core.errors import Rejected, Stopped
from mechverify.kernel.ratios.linear import Box, Lead
from mechverify.kernel.ratios.rule import LISTED, Cell, Partition
from mechverify.provers.accuracy.problem import AccuracyProblem, Attempt, Evidence
from mechverify.provers.base import Budget, unsupported
from mechverify.provers.worst_first import WorstFirst

ROUNDS = 4  # of the search for the least lead
EXPANSIONS = 4  # points of a cell
COARSE, FINE = 2**10, 2**13  # steps of a counting grid
NEAR = 0.2  # of the largest factor: tokens that are cut by
GAP = 1e-6  # share of the domain left between the bounds at which refining stops
DEEPEST = 2  # cuts within each other
TOGETHER = 2**5  # cells of an obligation, of which nothing is known yet; of others, one


@dataclass
class _Part:
    """A cell, or a part of one, and what is known of it: the witness so far and the bounds that it gives. `more`:
    another effort may tell more."""

    size: int
    wrong: Counts
    depth: int = 0
    more: bool = True
    efforts: int = 0
    undecided: list[int] = field(default_factory=list)  # rivals
    points: list[list[int]] = field(default_factory=list)
    around: list[tuple[int, int]] = field(
        default_factory=list
    )  # rivals, each with the point of its least lead
    groups: list | None = field(default_factory=list)
    certain: list | None = None
    cut: dict[str, list[int]] | None = None
    parts: list["_Part"] = field(default_factory=list)

    @property
    def bounds(self) -> Counts:
        each = [p.bounds for p in self.parts] if self.parts else [self.wrong]
        return Counts(sum(w.low for w in each), sum(w.high for w in each))

    @property
    def gap(self) -> int:
        return self.wrong.high - self.wrong.low

    def point(self, rival: int) -> int:
        return dict(self.around)[rival]

    def entry(self) -> Any:
        if self.parts:
            return {"cut": self.cut, "parts": [p.entry() for p in self.parts]}
        if self.wrong == Counts(0, self.size):
            return None
        return {"points": self.points, "groups": self.groups, "certain": self.certain}

    def row(self) -> dict[str, Any]:
        """As JSON says it."""
        return vars(self) | {"parts": [part.row() for part in self.parts]}

    @staticmethod
    def of(row: dict[str, Any]) -> "_Part":
        part = _Part(**row)
        part.wrong, part.parts = Counts(*part.wrong), [*map(_Part.of, row["parts"])]
        part.points, part.around = [*part.points], [*part.around]  # to be added to
        return part

    def left(self, way: list) -> Iterator[tuple[list, "_Part"]]:
        """The parts that can be improved further, and the ways to them."""
        if not self.parts and self.more:
            yield way, self
        for i, part in enumerate(self.parts):
            yield from part.left([*way, [self.cut, i]])


class _Made:
    """The cells' classes, by their keys."""

    def __init__(self, job: Job):
        partition = Partition(job, job.claim.domain, [])
        self.classes = {c.key: c for c in partition.classes()}

    def cell(self, key: list[int], query: int, way: list) -> Cell:
        """A part of a cell: `way` has each cut, and the number of the part."""
        cell = self.classes[tuple(key)].cell(query)
        for cut, number in way:
            cell = cell.parts(**cut)[number]
        return cell


@dataclass
class _Open:
    """A part that can be improved, and where it stands."""

    key: list[int]
    query: int
    way: list
    part: _Part

    def row(self) -> list:
        return [self.key, self.query, self.way, self.part.row()]


class Ratios:
    name = "ratios"

    def accepts(self, problem: AccuracyProblem, evidence: Evidence) -> str | None:
        if unsupported(lambda: problem.partition) is None:
            return ""  # rule fold has the same cells, and is exact in them
        return unsupported(lambda: problem.job.once(_Made))

    def prove(
        self, problem: AccuracyProblem, evidence: Evidence, budget: Budget
    ) -> Attempt:
        with np.errstate(all="ignore"):
            return bounded(problem, budget)


def bounded(problem: AccuracyProblem, budget: Budget) -> Attempt:
    """Both bounds of the right inputs: the widest gap first, while there is time. Raises Unsupported where the output
    is no sum of ratios."""
    size, wrong = problem.domain.size, 0  # of classes that are no output
    cells: list[_Open] = []
    for key, input_class in problem.job.once(_Made).classes.items():
        if input_class.impossible:
            wrong += sum(input_class.sizes.values())
            continue
        for query, inputs in input_class.sizes.items():
            cells.append(_Open([*key], query, [], _Part(inputs, Counts(0, inputs))))
    _narrow(problem, cells, budget, GAP * problem.claim.total)
    found = [c.part.bounds for c in cells]
    bounds = Counts(
        wrong + sum(b.low for b in found),
        wrong + sum(b.high for b in found),
    )
    rows = [[c.query, c.key, c.part.entry()] for c in cells]
    proof = {
        "rule": "ratios",
        "keys": [],
        "cells": [row for row in rows if row[2] is not None],
    }
    return Attempt(proof, Counts(size - bounds.high, size - bounds.low))


def _narrow(
    problem: AccuracyProblem, cells: list[_Open], budget: Budget, enough: float
) -> None:
    """One effort after the other at the part with the widest gap, until all gaps together are at most `enough`."""
    waiting = WorstFirst[_Open]()
    for cell in cells:
        waiting.add(cell, cell.part.gap)
    gap = sum(cell.part.gap for cell in cells)
    whole = max(sum(cell.part.size for cell in cells), 1)

    def ask(some: list[_Open]) -> Callable[[], Any]:
        return budget.ask(efforts, problem, [one.row() for one in some])

    answers = waiting.answered(ask, lambda one: 1 if one.part.efforts else TOGETHER)
    while gap > enough and not budget.spent():
        budget.progress(
            f"bounding {len(waiting):,} cells, {gap / whole:.2g} of the inputs open",
            1 - gap / whole,
        )
        try:
            some, (rows, seconds) = next(answers)
        except (Stopped, StopIteration):
            break
        budget.reserved += seconds
        for one, row in zip(some, rows, strict=True):
            gap -= one.part.gap
            vars(one.part).update(vars(_Part.of(row)))
            bounds = one.part.bounds
            gap += bounds.high - bounds.low
            for way, part in one.part.left(one.way):
                waiting.add(_Open(one.key, one.query, way, part), part.gap)


def efforts(problem: AccuracyProblem, asked: list, budget: Budget) -> list[Any]:
    """An obligation: what an effort more tells of each part; and the seconds that the check will take for it."""
    made, found, seconds = problem.job.once(_Made), [], 0.0
    with np.errstate(all="ignore"):
        for key, query, way, row in asked:
            if budget.spent():
                raise Stopped
            part = _Part.of(row)
            seconds += _effort(part, made.cell(key, query, way))
            found.append(part.row())
    return [found, seconds]


def _effort(part: _Part, cell: Cell) -> float:
    """Points, then a list or a cut, then counts. The seconds that the check takes for them."""
    part.efforts, part.more = part.efforts + 1, False
    began, seconds = time.monotonic(), 0.0
    try:
        if part.efforts == 1:
            found = least_leads(cell.box, cell.lead(cell.rivals))
            began = time.monotonic()
            part.more = _expand(part, cell, *found)
        elif part.depth < DEEPEST and (cut := _near(part, cell)) is not None:
            cells = cell.parts(**cut)
            parts = [_Part(c.size, Counts(0, c.size), part.depth + 1) for c in cells]
            seconds += time.monotonic() - began
            for p, c in zip(parts, cells, strict=True):
                seconds += _effort(p, c) if c.size else 0.0
                p.more = p.more and c.size > 0
            part.cut, part.parts = cut, parts
            return seconds
        else:
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
    return time.monotonic() - began


def _expand(part: _Part, cell: Cell, inputs: np.ndarray, leads: np.ndarray) -> bool:
    """Expansions around the inputs [length, rivals] of the least `leads` [rivals], until all rivals are decided or
    nothing more is; then a list, of a cell that is small. Whether more can be done."""
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
        return False
    if cell.size * len(cell.box.factor.mid) <= LISTED:
        part.groups, part.wrong = None, cell.listed(part.undecided)
        return False
    around = dict(part.around)
    for t, point in zip(rivals.tolist(), inputs.T, strict=True):
        if (
            t in part.undecided and t not in around
        ):  # each is counted around its own least lead
            _point(part, t, point)
    return True


def _point(part: _Part, rival: int, point: np.ndarray) -> None:
    part.around.append((rival, len(part.points)))
    part.points.append(point.tolist())


def _count(part: _Part, cell: Cell, grid: int) -> None:
    """Every undecided rival by itself, around its own point; and for sure, the one that most are lost to."""
    groups, counts = [], []

    def group(rival: int, upper: bool) -> list:
        at = part.point(rival)
        return [at, _step(cell, part.points[at], rival, grid, upper), [rival]]

    for t in part.undecided:
        groups.append(group(t, False))
        counts.append(_lost(part, cell.lost, groups[-1]))
        if sum(counts) >= part.size:
            break
    if sum(counts) < part.wrong.high:
        part.groups, part.wrong = groups, Counts(part.wrong.low, sum(counts))
    certain = group(part.undecided[counts.index(max(counts))], True)
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
