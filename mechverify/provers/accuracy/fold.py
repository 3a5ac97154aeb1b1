"""Find the witness of rule `fold`: which cells are worth counting, and how to group their rivals."""

import math
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from mechverify.certificate.write import Proof
from mechverify.graph.run import TorchRunner
from mechverify.kernel.core.accuracy import AccuracyClaim
from mechverify.kernel.core.counts import Counts
from mechverify.kernel.core.errors import Stopped
from mechverify.kernel.core.fields import Reader
from mechverify.kernel.core.mechanism import add_expression
from mechverify.kernel.fold.counted import maybe_wrong, surely_wrong
from mechverify.kernel.fold.rule import LISTED, Cell, Group, InputClass, Terms
from mechverify.provers.accuracy.problem import AccuracyProblem, Attempt, Evidence
from mechverify.provers.base import Budget, unsupported

COARSE, FINE = 2**10, 2**13  # steps of a counting grid, at first and where it matters
NEGLIGIBLE = 1e-5  # share of the domain in undecided cells that are too small to be worth counting
TINY = 2**14  # inputs times rivals: a cell to list in any case
CHEAP = (
    2**17
)  # inputs times rivals: listing such a cell costs no more than counting in it
DEAR = 2**20  # ... than refining the count there
GAP = 1e-6  # share of the domain left between the bounds at which refining stops
SHARPENED = 500  # cells counted again on the fine grid
PATIENCE = 1_200  # counts spent on regrouping rivals


@dataclass
class _Counted:
    """What is known of one undecided cell: the witness so far and the bounds that it gives."""

    input_class: InputClass
    query: int
    rivals: list[int]
    size: int
    groups: list[Group] | None
    certain: Group | None
    wrong: Counts
    worst: int | None = None  # the rival to count the surely wrong for

    @property
    def gap(self) -> int:
        return self.wrong.high - self.wrong.low

    def row(self) -> list:
        """As JSON says it."""
        rest = self.groups, self.certain, self.wrong, self.worst
        return [list(self.input_class.key), self.query, self.rivals, self.size, *rest]

    @staticmethod
    def of(input_class: InputClass, row: list) -> "_Counted":
        _, query, rivals, size, groups, certain, wrong, worst = row
        groups = None if groups is None else [_read(group) for group in groups]
        certain = None if certain is None else _read(certain)
        known = groups, certain, Counts(*wrong), worst
        return _Counted(input_class, query, rivals, size, *known)

    def entry(self) -> list:
        groups = (
            None
            if self.groups is None
            else [[step, sorted(rivals)] for step, rivals in self.groups]
        )
        certain = (
            None if self.certain is None else [self.certain[0], list(self.certain[1])]
        )
        return [self.query, list(self.input_class.key), groups, certain]


def _read(group: list) -> Group:
    step, rivals = group
    return step, tuple(rivals)


class Fold:
    name = "fold"

    def accepts(self, problem: AccuracyProblem, evidence: Evidence) -> str | None:
        if not isinstance(problem.claim, AccuracyClaim):
            return ""
        why = unsupported(lambda: problem.partition)
        if why is None or problem.claim.captured:
            return why
        return f"{why}; a mechanism over a small state (Max, Sum, Mod, kth_largest, ...) and one head are needed"

    def prove(
        self, problem: AccuracyProblem, evidence: Evidence, budget: Budget
    ) -> Attempt:
        with np.errstate(all="ignore"):
            if _aims_to_refute(problem, evidence):
                for keys in (
                    problem.keys,
                    [*problem.keys, _largest_token(problem.domain.length)],
                ):
                    attempt = _refute(problem, evidence, budget, keys)
                    if problem.settled(attempt.right):
                        return attempt
        return folded(problem, budget)


def folded(problem: AccuracyProblem, budget: Budget) -> Attempt:
    """Both bounds of the right inputs, as tight as patience allows. Raises Unsupported where there is no fold."""
    with np.errstate(all="ignore"):
        counted, right, only = _bound(problem, budget)
    return Attempt(_witness(problem, problem.keys, only, counted), right)


def listed(problem: AccuracyProblem, budget: Budget) -> Attempt:
    """Every cell that its minima leave open, input by input; those that are too large for that stay open. Raises
    Unsupported where there is no fold."""

    def bound(
        input_class: InputClass, cell: Cell, rivals: list[int]
    ) -> _Counted | None:
        if cell.size * len(rivals) > LISTED:
            return None
        return _Counted(
            input_class, cell.query, rivals, cell.size, None, None, cell.list_wrong()
        )

    with np.errstate(all="ignore"):
        counted, right, never, only = _pass(problem, budget, bound)
    right += problem.partition.unguarded + sum(c.size - c.wrong.high for c in counted)
    never += sum(c.wrong.low for c in counted)
    return Attempt(
        _witness(problem, problem.keys, only, counted),
        Counts(right, problem.domain.size - never),
    )


def _pass(
    problem: AccuracyProblem,
    budget: Budget,
    bound: Callable[[InputClass, Cell, list[int]], _Counted | None],
) -> tuple[list[_Counted], int, int, list | None]:
    """Once over all cells: those that `bound` counts, how many inputs of the others are right, and wrong, for sure; and
    which families were seen, if time was up before all were."""

    def classes() -> Iterator[list]:
        for key in problem.partition.places:
            input_class = InputClass(problem.partition, key)
            with budget.rehearsing():
                yield [*_counted(input_class, bound, budget), 0.0]

    return _united(problem, budget, classes())


def _united(
    problem: AccuracyProblem, budget: Budget, classes: Iterable[list]
) -> tuple[list[_Counted], int, int, list | None]:
    """Of all classes, what was counted in each; see _pass."""
    counted: list[_Counted] = []
    right = never = 0
    seen: list[list[int]] = []
    keys = problem.partition.places
    try:
        for key, (some, good, bad, seconds) in zip(keys, classes, strict=True):
            counted, right, never = counted + some, right + good, never + bad
            budget.reserved += seconds
            seen.append(list(key))
            said = f"{len(seen):,} of {len(keys):,} classes of cells"
            budget.progress(said, len(seen) / len(keys))
    except Stopped:
        return counted, right, never, seen
    return counted, right, never, None


def _counted(
    input_class: InputClass,
    bound: Callable[[InputClass, Cell, list[int]], _Counted | None],
    budget: Budget,
) -> tuple[list[_Counted], int, int]:
    """Of one class: what is counted, and how many inputs of other cells are right, and wrong."""
    some, good, bad = [], 0, 0
    for cell in input_class.cells():
        rivals = cell.undecided
        if budget.spent():
            raise Stopped
        if input_class.impossible:
            bad += cell.size
        elif not rivals:
            good += cell.size
        elif (found := bound(input_class, cell, rivals)) is not None:
            some.append(found)
    return some, good, bad


def _witness(
    problem: AccuracyProblem, keys: list, only: list | None, counted: list[_Counted]
) -> Proof:
    trials = {} if problem.trials is None else {"trials": problem.trials}
    return {
        "rule": "fold",
        "keys": keys,
        "only": only,
        "cells": [c.entry() for c in counted],
    } | trials


def _largest_token(length: int) -> list:
    """A key that makes cells finer: where a model attends to large tokens, one rival wins a whole cell."""
    return [
        *(["value", [], i] for i in range(length)),
        ["max", list(range(length)), None],
    ]


def _aims_to_refute(problem: AccuracyProblem, evidence: Evidence) -> bool:
    if problem.at_least is None or not len(evidence.wrong):
        return False
    deviation = (
        evidence.accuracy * (1 - evidence.accuracy) / max(evidence.samples, 1)
    ) ** 0.5
    return evidence.accuracy + 5 * deviation < problem.at_least


def _refute(
    problem: AccuracyProblem, evidence: Evidence, budget: Budget, keys: list
) -> Attempt:
    """Count surely wrong inputs, in the cells and for the rivals seen most often, until there are enough."""
    claim, at_least = problem.claim, problem.at_least
    assert at_least is not None and isinstance(claim, AccuracyClaim)
    graph = claim.graph.copy()
    roots = [add_expression(graph, Reader(rows, "keys")) for rows in keys]
    partition = problem.partition if keys == problem.keys else problem.partitioned(keys)
    run = TorchRunner(graph, claim.weights)
    values = np.stack(
        [run(root, evidence.wrong) for root in (claim.target, *roots)], -1
    ).tolist()
    seen: dict[tuple, Counter[int]] = {}
    for tokens, key, rival in zip(
        evidence.wrong, values, evidence.rivals.tolist(), strict=True
    ):
        seen.setdefault((tuple(key), int(tokens[partition.form.pin])), Counter())[
            rival
        ] += 1
    classes: dict[tuple[int, ...], InputClass] = {}
    counted, wrong = [], 0
    enough = problem.claim.total - int(at_least * problem.claim.total)
    for (key, query), rivals in sorted(seen.items(), key=lambda kv: -kv[1].total()):
        budget.progress("counting wrong inputs", min(1.0, wrong / enough))
        if wrong > enough or budget.spent():
            break
        if key not in classes:
            classes[key] = InputClass(partition, key)
            wrong += sum(classes[key].sizes.values()) if classes[key].impossible else 0
        if not classes[key].impossible:
            cell = _cell(classes[key], query)
            certain = _group(cell, (rivals.most_common(1)[0][0],), FINE, upper=True)
            low = surely_wrong(cell, *certain)
            wrong += low
            counted.append(
                _Counted(
                    classes[key],
                    query,
                    [],
                    cell.size,
                    [],
                    certain,
                    Counts(low, cell.size),
                )
            )
    only = [list(key) for key in sorted(classes)]
    return Attempt(
        _witness(problem, keys, only, counted), Counts(0, problem.domain.size - wrong)
    )


def _bound(
    problem: AccuracyProblem, budget: Budget
) -> tuple[list[_Counted], Counts, list | None]:
    """Both bounds as tight as patience allows: one pass over all cells, then the widest gaps again; and which families
    were seen, if not all."""
    sizes = sorted(
        size for made in problem.classes.values() for size in made.sizes.values()
    )
    small = np.searchsorted(
        np.cumsum(np.array(sizes, float)), NEGLIGIBLE * problem.claim.total
    )
    worth = sizes[small] if small < len(sizes) else 0
    few = NEGLIGIBLE * problem.claim.total / len(sizes)
    asked = ([list(key), worth, few] for key in problem.classes)
    answers = (budget.ask(first_counts, problem, one) for one in asked)
    counted, right, never, only = _united(
        problem, budget, _of_classes(problem, budget.in_order(answers))
    )
    negligible = GAP * problem.claim.total
    for turn, patience in ((sharpened, 2 * SHARPENED), (regrouped, PATIENCE)):
        gap = sum(c.gap for c in counted)
        widest = [c for c in sorted(counted, key=lambda c: -c.gap) if c.groups]
        promises = (budget.ask(turn, problem, c.row()) for c in widest)
        answers = budget.in_order(promises)
        for c in widest:
            budget.progress(f"the widest gaps are {turn.__name__}", None)
            if patience <= 0 or gap <= negligible or budget.spent():
                break
            before = c.gap
            try:
                spent, row = next(answers)
            except Stopped:  # what is known of it stands
                break
            better = _Counted.of(c.input_class, row)
            c.groups, c.certain, c.wrong = better.groups, better.certain, better.wrong
            patience -= spent
            gap -= before - c.gap
    counted.sort(key=lambda c: (c.input_class.key, c.query))
    right += problem.partition.unguarded + sum(c.size - c.wrong.high for c in counted)
    return (
        counted,
        Counts(right, problem.domain.size - never - sum(c.wrong.low for c in counted)),
        only,
    )


def _of_classes(problem: AccuracyProblem, answers: Iterable[list]) -> Iterator[list]:
    """What they say, about this process's classes."""
    for made, (rows, good, bad, seconds) in zip(
        problem.classes.values(), answers, strict=True
    ):
        yield [[_Counted.of(made, row) for row in rows], good, bad, seconds]


def first_counts(problem: AccuracyProblem, asked: list, budget: Budget) -> list:
    """An obligation: what is counted in the cells of a class that are worth it, all rivals at once; how many inputs of
    the others are right, and wrong; and the seconds that it took, as the check will."""
    (key, worth, few), begun = asked, time.monotonic()

    def bound(
        input_class: InputClass, cell: Cell, rivals: list[int]
    ) -> _Counted | None:
        if cell.size < worth and cell.size * len(rivals) > TINY:
            return None
        return _first_count(input_class, cell, rivals, few)

    with np.errstate(all="ignore"):
        counted, *rest = _counted(problem.classes[tuple(key)], bound, budget)
    return [[c.row() for c in counted], *rest, time.monotonic() - begun]


def sharpened(problem: AccuracyProblem, row: list, budget: Budget) -> list:
    """An obligation: how many counts were spent on what is counted in a cell, and what it is then."""
    return _improved(_sharpen, problem, row)


def regrouped(problem: AccuracyProblem, row: list, budget: Budget) -> list:
    """The same, with other groups of rivals."""
    return _improved(_regroup, problem, row)


def _improved(
    improve: Callable[[_Counted], int], problem: AccuracyProblem, row: list
) -> list:
    c = _Counted.of(problem.classes[tuple(row[0])], row)
    with np.errstate(all="ignore"):
        return [improve(c), c.row()]


def _cell(input_class: InputClass, query: int) -> Cell:
    return Cell(
        input_class,
        query,
        None if input_class.impossible else Terms(input_class, np.array([query])),
        0,
    )


def terms_of(cell: Cell) -> Terms:
    """Precondition: the cell's mechanism value is one of the outputs."""
    assert cell.terms is not None
    return cell.terms


def _group(
    cell: Cell, rivals: tuple[int, ...], grid: int, upper: bool = False
) -> Group:
    """`rivals` with a step such that the sums that can still be undecided span about `grid` steps. Any step is
    sound; this choice is only about tightness."""
    low, high = terms_of(cell).of_rivals(cell.row, list(rivals))
    terms = high[..., 0] if upper else low.min(-1)
    alive = [
        np.concatenate([tokens for tokens, _ in layer.groups]) for layer in cell.layers
    ]
    low = np.array([terms[i, tokens].min() for i, tokens in enumerate(alive)])
    high = np.array([terms[i, tokens].max() for i, tokens in enumerate(alive)])
    reach = np.minimum(
        high, np.maximum(low, low - math.fsum(low))
    )  # fsum: the same on every machine
    finest = max(float(-low.min()) * 2.0**-29, 2.0**-990)
    step = max(math.fsum(reach - low) / grid, finest)
    return math.frexp(step)[1] if math.isfinite(step) else 0, rivals


def _first_count(
    input_class: InputClass, cell: Cell, rivals: list[int], small: float
) -> _Counted:
    """A small cell input by input; else all rivals as one group; later (if more than `small` inputs can be wrong)
    the rival with the smallest minimum as well."""
    if cell.size * len(rivals) <= CHEAP:
        return _Counted(
            input_class, cell.query, rivals, cell.size, None, None, cell.list_wrong()
        )
    group = _group(cell, tuple(rivals), COARSE)
    high = min(cell.size, maybe_wrong(cell, *group))
    if high <= small:
        return _Counted(
            input_class, cell.query, rivals, cell.size, [group], None, Counts(0, high)
        )
    worst = int(np.argmin(terms_of(cell).minima[cell.row]))
    return _Counted(
        input_class,
        cell.query,
        rivals,
        cell.size,
        [group],
        None,
        Counts(0, high),
        worst,
    )


def _sharpen(c: _Counted) -> int:
    """Count the same again on a finer grid, or list a cell that is not too dear. Returns the counts spent."""
    cell = _cell(c.input_class, c.query)
    if c.size * len(c.rivals) <= DEAR:
        c.groups, c.certain, c.wrong = None, None, cell.list_wrong()
        return 10
    assert c.groups is not None
    group = _group(cell, c.groups[0][1], FINE)
    high = min(c.size, maybe_wrong(cell, *group))
    if high < c.wrong.high:
        c.groups, c.wrong = [group], Counts(c.wrong.low, high)
    if c.worst is not None:
        certain = _group(cell, (c.worst,), FINE, upper=True)
        low = surely_wrong(cell, *certain)
        if low > c.wrong.low:
            c.certain, c.wrong = certain, Counts(low, c.wrong.high)
    return 2


def _regroup(c: _Counted) -> int:
    """Try other groupings: single rivals, the worst few apart from the rest, and merging again what is
    smaller together. Returns the number of counts spent."""
    assert c.groups is not None
    cell = _cell(c.input_class, c.query)
    grids: dict[tuple[int, ...], Group] = {tuple(sorted(c.groups[0][1])): c.groups[0]}
    count: dict[tuple[int, ...], int] = dict.fromkeys(grids, c.wrong.high)

    def of(rivals: tuple[int, ...]) -> int:
        rivals = tuple(sorted(rivals))
        if rivals not in count:
            grids[rivals] = _group(cell, rivals, FINE)
            count[rivals] = min(c.size, maybe_wrong(cell, *grids[rivals]))
        return count[rivals]

    def total(groups: list[tuple[int, ...]]) -> int:
        return sum(map(of, groups))

    ranked = sorted(c.rivals, key=lambda t: -of((t,)))
    choices = [list(grids)[:1], [(t,) for t in ranked]]
    choices += [
        [(t,) for t in ranked[:k]] + [tuple(ranked[k:])]
        for k in range(1, min(4, len(ranked) - 1))
    ]
    best = min(choices, key=total)
    for rival in ranked[1:6]:
        first = next(g for g in best if ranked[0] in g)
        other = next(g for g in best if rival in g)
        if first != other and of(first + other) < of(first) + of(other):
            best = [g for g in best if g not in (first, other)] + [first + other]
    if total(best) < c.wrong.high:
        c.groups = [grids[tuple(sorted(rivals))] for rivals in best]
        c.wrong = Counts(c.wrong.low, min(c.size, total(best)))
    lows = []
    for t in ranked[:2]:
        certain = _group(cell, (t,), FINE, upper=True)
        lows.append((surely_wrong(cell, *certain), certain))
    low, certain = max(lows)
    if low > c.wrong.low:
        c.certain, c.wrong = certain, Counts(low, c.wrong.high)
    return len(count) + len(lows)
