"""Find the witness of rule `fold`: which cells are worth counting, and how to group their rivals."""

from collections import Counter
from dataclasses import dataclass

import numpy as np

from mechverify.certificate.write import Proof
from mechverify.graph.run import TorchRunner
from mechverify.kernel.errors import Unsupported
from mechverify.kernel.fields import Reader
from mechverify.kernel.job import Bounds
from mechverify.kernel.rules.fold import Cell, Family, Partition
from mechverify.provers.base import Attempt, Budget, Evidence, Problem

GRID = 2**13
NEGLIGIBLE = 2e-6  # share of the domain in undecided cells that are too small to be worth counting
TINY = 2**14  # inputs times rivals: a cell to list in any case
CHEAP = 2**17  # inputs times rivals: listing such a cell costs no more than counting in it
DEAR = 2**20  # ... than refining the count there
GAP = 1e-6  # share of the domain left between the bounds at which refining stops
PATIENCE = 500  # counts spent on refining, beyond those of the first pass


@dataclass
class _Counted:
    """What is known of one undecided cell: the witness so far and the bounds that it gives."""

    family: Family
    tokens: tuple[int, ...]
    rivals: list[int]
    size: int
    groups: list[tuple[int, ...]] | None
    certain: int | None
    wrong: Bounds

    def entry(self) -> list:
        groups = None if self.groups is None else [sorted(g) for g in self.groups]
        return [list(self.tokens), list(self.family.key), groups, self.certain]


class Fold:
    name = "fold"

    def accepts(self, problem: Problem, evidence: Evidence) -> str | None:
        try:
            problem.partition  # noqa: B018 (building it is the test)
        except Unsupported as error:
            return f"{error}; a mechanism over a small state (Max, Sum, Mod, kth_largest, ...) and one head are needed"
        return None

    def prove(self, problem: Problem, evidence: Evidence, budget: Budget) -> Attempt:
        with np.errstate(all="ignore"):
            if _aims_to_refute(problem, evidence):
                for keys in ([], [_largest_token(problem.domain.length)]):
                    attempt = _refute(problem, evidence, budget, keys)
                    if problem.settled(attempt.right):
                        return attempt
            counted, right = _bound(problem, budget)
        return Attempt(_witness([], None, counted), right)


def _witness(keys: list, only: list | None, counted: list[_Counted]) -> Proof:
    return {"rule": "fold", "grid": GRID, "keys": keys, "only": only, "cells": [c.entry() for c in counted]}


def _largest_token(length: int) -> list:
    """A key that makes cells finer: where a model attends to large tokens, one rival wins a whole cell."""
    return [*(["value", [], i] for i in range(length)), ["max", list(range(length)), None]]


def _aims_to_refute(problem: Problem, evidence: Evidence) -> bool:
    if problem.at_least is None or not len(evidence.wrong):
        return False
    deviation = (evidence.accuracy * (1 - evidence.accuracy) / max(evidence.samples, 1)) ** 0.5
    return evidence.accuracy + 5 * deviation < problem.at_least


def _refute(problem: Problem, evidence: Evidence, budget: Budget, keys: list) -> Attempt:
    """Count surely wrong inputs, in the cells and for the rivals seen most often, until there are enough."""
    job = problem.job
    roots = [job.expression(Reader(rows, "keys")) for rows in keys]
    partition = Partition(job, problem.domain, roots) if keys else problem.partition
    run = TorchRunner(job.graph, job.weights)
    values = np.stack([run(root, evidence.wrong) for root in (job.target, *roots)], -1).tolist()
    seen: dict[tuple, Counter[int]] = {}
    for tokens, key, rival in zip(evidence.wrong, values, evidence.rivals.tolist(), strict=True):
        seen.setdefault((tuple(key), tuple(tokens[list(partition.pinned)].tolist())), Counter())[rival] += 1
    families: dict[tuple[int, ...], Family] = {}
    counted, wrong = [], 0
    enough = problem.domain.size - int(problem.at_least * problem.domain.size)
    for (key, tokens), rivals in sorted(seen.items(), key=lambda kv: -kv[1].total()):
        budget.progress("counting wrong inputs", min(1.0, wrong / enough))
        if wrong > enough or budget.spent():
            break
        if key not in families:
            families[key] = partition.family(key)
            wrong += sum(families[key].sizes.values()) if families[key].impossible else 0
        if not families[key].impossible:
            cell = families[key].cell(tokens)
            certain = rivals.most_common(1)[0][0]
            low = cell.count_surely_wrong(certain, GRID)
            wrong += low
            counted.append(_Counted(families[key], tokens, [], cell.size, [], certain, Bounds(low, cell.size)))
    only = [list(key) for key in sorted(families)]
    return Attempt(_witness(keys, only, counted), Bounds(0, problem.domain.size - wrong))


def _bound(problem: Problem, budget: Budget) -> tuple[list[_Counted], Bounds]:
    """Both bounds as tight as patience allows: one pass over all cells, then the widest gaps again."""
    families = [problem.partition.family(key) for key in problem.partition.keys]
    sizes = sorted(size for family in families for size in family.sizes.values())
    small = np.searchsorted(np.cumsum(np.array(sizes, float)), NEGLIGIBLE * problem.domain.size)
    worth = sizes[small] if small < len(sizes) else 0
    counted: list[_Counted] = []
    right = never = 0
    for i, family in enumerate(families):
        budget.progress(f"cells of mechanism value {family.key[0]}", i / len(families))
        if budget.spent():
            break
        for cell in family.cells():
            rivals = cell.undecided()
            if family.impossible:
                never += cell.size
            elif not rivals:
                right += cell.size
            elif (cell.size >= worth or cell.size * len(rivals) <= TINY) and not budget.spent():
                counted.append(_first_count(family, cell, rivals, NEGLIGIBLE * problem.domain.size / len(sizes)))
    calls = len(counted) + PATIENCE
    gap = sum(c.wrong.high - c.wrong.low for c in counted)
    counted.sort(key=lambda c: c.wrong.low - c.wrong.high)
    for c in counted:
        budget.progress("refining the widest gaps", None)
        if c.groups is None:
            continue
        if calls < len(c.rivals) or gap <= GAP * problem.domain.size or budget.spent():
            break
        before = c.wrong.high - c.wrong.low
        calls -= _refine(c)
        gap -= before - (c.wrong.high - c.wrong.low)
    counted.sort(key=lambda c: (c.family.key, c.tokens))
    right += sum(c.size - c.wrong.high for c in counted)
    return counted, Bounds(right, problem.domain.size - never - sum(c.wrong.low for c in counted))


def _first_count(family: Family, cell: Cell, rivals: list[int], small: float) -> _Counted:
    """A small cell input by input; else all rivals as one group, and (if more than `small` inputs can be wrong)
    the rival with the smallest minimum."""
    if cell.size * len(rivals) <= CHEAP:
        return _Counted(family, cell.tokens, rivals, cell.size, None, None, cell.list_wrong(rivals))
    worst = int(np.argmin(cell.terms.minima[cell.row]))
    high = min(cell.size, cell.count_wrong(tuple(rivals), GRID))
    if high <= small:
        return _Counted(family, cell.tokens, rivals, cell.size, [tuple(rivals)], None, Bounds(0, high))
    low = cell.count_surely_wrong(worst, GRID)
    return _Counted(family, cell.tokens, rivals, cell.size, [tuple(rivals)], worst, Bounds(low, high))


def _refine(c: _Counted) -> int:
    """Try other groupings: single rivals, the worst few apart from the rest, and merging again what is
    smaller together. Returns the number of counts spent."""
    cell = c.family.cell(c.tokens)
    if c.size * len(c.rivals) <= DEAR:
        c.groups, c.certain, c.wrong = None, None, cell.list_wrong(c.rivals)
        return 10
    count: dict[tuple[int, ...], int] = {tuple(sorted(c.groups[0])): c.wrong.high}

    def of(group: tuple[int, ...]) -> int:
        group = tuple(sorted(group))
        if group not in count:
            count[group] = min(c.size, cell.count_wrong(group, GRID))
        return count[group]

    def total(groups: list[tuple[int, ...]]) -> int:
        return sum(map(of, groups))

    ranked = sorted(c.rivals, key=lambda t: -of((t,)))
    choices = [c.groups, [(t,) for t in ranked]]
    choices += [[(t,) for t in ranked[:k]] + [tuple(ranked[k:])] for k in range(1, min(4, len(ranked) - 1))]
    best = min(choices, key=total)
    for rival in ranked[1:6]:
        first = next(g for g in best if ranked[0] in g)
        other = next(g for g in best if rival in g)
        if first != other and of(first + other) < of(first) + of(other):
            best = [g for g in best if g not in (first, other)] + [first + other]
    if total(best) < c.wrong.high:
        c.groups, c.wrong = best, Bounds(c.wrong.low, min(c.size, total(best)))
    lows = [(cell.count_surely_wrong(t, GRID), t) for t in ranked[:2]]
    low, rival = max(lows)
    if low > c.wrong.low:
        c.certain, c.wrong = rival, Bounds(low, c.wrong.high)
    return len(count) + len(lows)
