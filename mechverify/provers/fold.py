"""Find the witness of rule `fold`: which cells are worth counting, and how to group their rivals."""

from collections import Counter
from dataclasses import dataclass

import numpy as np

from mechverify.kernel.automaton import derive
from mechverify.kernel.errors import Unsupported
from mechverify.kernel.job import Bounds
from mechverify.kernel.rules import fold as rule
from mechverify.kernel.rules.fold import Cell, Family
from mechverify.provers.base import Attempt, Budget, Evidence, Problem

GRID = 2**13
NEGLIGIBLE = 2e-6  # share of the domain in undecided cells that are too small to be worth counting
TINY = 2**14  # inputs times rivals: a cell to list in any case
CHEAP = 2**17  # inputs times rivals: listing such a cell costs no more than counting in it
DEAR = 2**20  # ... than refining the count there
GAP = 1e-6  # share of the domain left between the bounds at which refining stops
PATIENCE = 1000  # counts spent on refining, beyond twice those of the first pass


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
            next(iter(_families(problem)))
        except Unsupported as error:
            return f"{error}; a mechanism over a small state (Max, Sum, Mod, kth_largest, ...) and one head are needed"
        return None

    def prove(self, problem: Problem, evidence: Evidence, budget: Budget) -> Attempt:
        with np.errstate(all="ignore"):
            if _aims_to_refute(problem, evidence):
                counted, right = _refute(problem, evidence, budget)
            else:
                counted, right = _bound(problem, budget)
            witness = {"rule": "fold", "grid": GRID, "keys": [], "cells": [c.entry() for c in counted]}
        return Attempt(witness, right)


def _families(problem: Problem):
    return rule.families(problem.job, problem.domain, [])


def _aims_to_refute(problem: Problem, evidence: Evidence) -> bool:
    if problem.at_least is None or not len(evidence.wrong):
        return False
    deviation = (evidence.accuracy * (1 - evidence.accuracy) / max(evidence.samples, 1)) ** 0.5
    return evidence.accuracy + 5 * deviation < problem.at_least


def _refute(problem: Problem, evidence: Evidence, budget: Budget) -> tuple[list[_Counted], Bounds]:
    """Count surely wrong inputs, in the cells and for the rivals seen most often, until there are enough."""
    automaton = derive(problem.job.graph, [problem.job.target], [np.array(t) for t in problem.domain.tokens])
    families = {f.key: f for f in _families(problem)}
    pinned = next(iter(families.values())).pinned
    state = np.zeros(len(evidence.wrong), np.int64)
    for step, column in zip(automaton.step, evidence.wrong.T, strict=True):
        state = step[state, column]
    seen: dict[tuple, Counter[int]] = {}
    for tokens, end, rival in zip(evidence.wrong, automaton.final[state], evidence.rivals, strict=True):
        where = tuple(automaton.classes[end].tolist()), tuple(tokens[list(pinned)].tolist())
        seen.setdefault(where, Counter())[int(rival)] += 1
    enough = problem.domain.size - int(problem.at_least * problem.domain.size)
    counted, wrong = [], sum(sum(f.sizes.values()) for f in families.values() if f.impossible)
    for (key, tokens), rivals in sorted(seen.items(), key=lambda kv: -kv[1].total()):
        budget.progress("counting wrong inputs", min(1.0, wrong / enough))
        if wrong > enough or budget.spent():
            break
        family = families[key]
        if family.impossible:
            continue
        cell = family.cell(tokens)
        certain = rivals.most_common(1)[0][0]
        low = cell.count_surely_wrong(certain, GRID)
        wrong += low
        counted.append(_Counted(family, tokens, [], cell.size, [], certain, Bounds(low, cell.size)))
    return counted, Bounds(0, problem.domain.size - wrong)


def _bound(problem: Problem, budget: Budget) -> tuple[list[_Counted], Bounds]:
    """Both bounds as tight as patience allows: one pass over all cells, then the widest gaps again."""
    families = list(_families(problem))
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
    calls = 2 * len(counted) + PATIENCE
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
    """A small cell input by input; else all rivals as one group, and the rival with the smallest minimum, if more than `small` can be wrong."""
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
