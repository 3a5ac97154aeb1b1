"""Find the witness of rule `fold`: which cells are worth counting, and how to group their rivals."""

import math
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from mechverify.certificate.write import Proof
from mechverify.graph.run import TorchRunner
from mechverify.kernel.core.accuracy import AccuracyClaim
from mechverify.kernel.core.counts import Counts
from mechverify.kernel.core.errors import Stopped, Unsupported
from mechverify.kernel.core.fields import Reader
from mechverify.kernel.core.mechanism import add_expression
from mechverify.kernel.fold.counted import maybe_wrong, surely_wrong
from mechverify.kernel.fold.rule import LISTED, Cell, Group, InputClass, Terms
from mechverify.provers.accuracy.problem import AccuracyProblem, Attempt, Evidence
from mechverify.provers.base import Budget

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


class Fold:
    name = "fold"

    def accepts(self, problem: AccuracyProblem, evidence: Evidence) -> str | None:
        if not isinstance(problem.claim, AccuracyClaim):
            return ""
        try:
            problem.partition  # noqa: B018 (building it is the test)
        except Unsupported as error:
            needs = "; a mechanism over a small state (Max, Sum, Mod, kth_largest, ...) and one head are needed"
            return f"{error}{'' if problem.claim.captured else needs}"
        return None

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
        classes = (
            InputClass(problem.partition, key) for key in problem.partition.places
        )
        counted, right, never, only = _pass(problem, budget, classes, bound)
    right += problem.partition.unguarded + sum(c.size - c.wrong.high for c in counted)
    never += sum(c.wrong.low for c in counted)
    return Attempt(
        _witness(problem, problem.keys, only, counted),
        Counts(right, problem.domain.size - never),
    )


def _pass(
    problem: AccuracyProblem, budget: Budget, classes: Iterable[InputClass],
    bound: Callable[[InputClass, Cell, list[int]], _Counted | None],
) -> tuple[list[_Counted], int, int, list | None]:  # fmt: skip
    """Once over all cells: those that `bound` counts, how many inputs of the others are right, and wrong, for sure; and
    which families were seen, if time was up before all were."""
    counted: list[_Counted] = []
    right = never = 0
    seen: list[list[int]] = []
    keys = problem.partition.places
    try:
        with budget.rehearsing():
            for input_class in classes:
                budget.progress(
                    f"cells of mechanism value {input_class.key[0]}",
                    len(seen) / len(keys),
                )
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
                counted, right, never = counted + some, right + good, never + bad
                seen.append(list(input_class.key))
    except Stopped:
        return counted, right, never, seen
    return counted, right, never, None


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
    classes = [InputClass(problem.partition, key) for key in problem.partition.places]
    sizes = sorted(
        size for input_class in classes for size in input_class.sizes.values()
    )
    small = np.searchsorted(
        np.cumsum(np.array(sizes, float)), NEGLIGIBLE * problem.claim.total
    )
    worth = sizes[small] if small < len(sizes) else 0

    def bound(
        input_class: InputClass, cell: Cell, rivals: list[int]
    ) -> _Counted | None:
        if cell.size < worth and cell.size * len(rivals) > TINY:
            return None
        return _first_count(
            input_class, cell, rivals, NEGLIGIBLE * problem.claim.total / len(sizes)
        )

    counted, right, never, only = _pass(problem, budget, classes, bound)
    negligible = GAP * problem.claim.total
    for turn, improve, patience in (
        ("sharpening", _sharpen, 2 * SHARPENED),
        ("regrouping", _regroup, PATIENCE),
    ):
        gap = sum(c.gap for c in counted)
        for c in sorted(counted, key=lambda c: -c.gap):
            budget.progress(f"{turn} the widest gaps", None)
            if c.groups is None:
                continue
            if patience <= 0 or gap <= negligible or budget.spent():
                break
            before = c.gap
            try:
                patience -= improve(c)
            except Stopped:  # what is known of it stands
                break
            gap -= before - c.gap
    counted.sort(key=lambda c: (c.input_class.key, c.query))
    right += problem.partition.unguarded + sum(c.size - c.wrong.high for c in counted)
    return (
        counted,
        Counts(right, problem.domain.size - never - sum(c.wrong.low for c in counted)),
        only,
    )


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
