"""Find witnesses of rule `compact`: which tokens to keep in which cells. The kernel's own steps are run on several
candidates at a time; it derives every bound again."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from mechverify.certificate.write import Proof
from mechverify.kernel.compact.enclosed import Enclosed
from mechverify.kernel.compact.leads import Leads
from mechverify.kernel.compact.order import kept_in_order
from mechverify.kernel.compact.peeled import Peeled
from mechverify.kernel.compact.rule import InputClass, Kept
from mechverify.kernel.core.counts import Counts
from mechverify.kernel.core.fields import Reader
from mechverify.kernel.counting.automaton import towards
from mechverify.kernel.counting.recursion import sizes_by_token
from mechverify.kernel.proof import prove
from mechverify.provers.accuracy.problem import AccuracyProblem, Attempt
from mechverify.provers.base import Budget

CANDIDATES = 24  # for how many tokens are kept tightly
BITS = 16  # of a threshold
NEGLIGIBLE = 1e-5  # share of the domain that a class of cells must hold to be looked at


class Pass(NamedTuple):
    """How the rule reads rivals and tokens, and how many tokens may be loose."""

    rivals: str
    tokens: str
    loose: int


class Chosen(NamedTuple):
    """Thresholds [queries, levels] of one class under one pass, and about how many inputs they show right."""

    key: int
    queries: np.ndarray
    thresholds: np.ndarray
    shown: np.ndarray


def compact(problem: AccuracyProblem, budget: Budget, passes: list[Pass], peeled: Peeled | None = None,
            mean: bool = False, gain: float = 0.0) -> Attempt:  # fmt: skip
    """A witness with these passes, from cheap to dear: a cell goes to the first whose successors would show less than
    `gain` of the domain more. Passes that differ in the tokens' order alone are compared on one class."""
    problem.claim.need_whole("compact")
    with np.errstate(all="ignore"):
        tables = Enclosed(problem.job, problem.domain, peeled, mean)
        leads, partition = Leads(tables), problem.partition
        if {p.tokens for p in passes} == {"ascending", "descending"}:
            passes = [_better_order(problem, tables, leads, passes)]
        cells: list[list[list]] = [[] for _ in passes]
        for index, key in enumerate(partition.places):
            budget.progress(
                f"cells of mechanism value {key[0]}", index / len(partition.places)
            )
            layers = towards(problem.job.ar, partition.automaton, index)
            sizes = sizes_by_token(problem.job.ar, layers, tables.form.pin)
            if budget.spent() or sum(sizes.values()) < NEGLIGIBLE * problem.domain.size:
                continue
            queries = np.array([q for q in sorted(sizes) if not tables.wide[q]], int)
            if not 0 <= key[0] < tables.outputs or not len(queries):
                continue
            found = [
                _search(InputClass(tables, layers, key[0], queries), leads, p)
                for p in passes
            ]
            share = np.array([f.shown for f in found]) / float(problem.domain.size)
            for row, query in enumerate(queries.tolist()):
                better = [
                    i
                    for i in range(len(passes))
                    if share[i + 1 :, row].max(initial=0) <= share[i, row] + gain
                ]
                if share[better[0], row] > 0:
                    entry = found[better[0]].thresholds[row].tolist()
                    entry = [
                        float(t).hex() if isinstance(t, float) else t for t in entry
                    ]
                    cells[better[0]].append([query, key[0], entry])
    rows = [{"rivals": p.rivals, "tokens": p.tokens, "loose": p.loose, "cells": c}
            for p, c in zip(passes, cells, strict=True) if c]  # fmt: skip
    proof = {
        "rule": "compact",
        "scores": _witness(peeled),
        "base": "mean" if mean else "exact",
        "passes": rows,
    }
    return Attempt(proof, confirmed(problem, proof))


def _better_order(
    problem: AccuracyProblem, tables: Enclosed, leads: Leads, passes: list[Pass]
) -> Pass:
    """The one that shows most of the class in the middle of those that are outputs."""
    partition = problem.partition
    classes = [
        i for i, key in enumerate(partition.places) if 0 <= key[0] < tables.outputs
    ]
    if not classes:
        return passes[0]
    layers = towards(
        problem.job.ar, partition.automaton, index := classes[len(classes) // 2]
    )
    queries = np.array([q for q in sorted(sizes_by_token(problem.job.ar, layers, tables.form.pin))
                        if not tables.wide[q]], int)  # fmt: skip
    if not len(queries):
        return passes[0]
    input_class = InputClass(tables, layers, [*partition.places][index][0], queries)
    return max(passes, key=lambda p: _search(input_class, leads, p).shown.sum())


def confirmed(problem: AccuracyProblem, proof: Proof) -> Counts:
    """What the kernel makes of it."""
    with np.errstate(all="ignore"):
        return prove(problem.job, Reader(proof, "proof"))[0]


def _witness(peeled: Peeled | None) -> dict | None:
    if peeled is None:
        return None
    vectors = {
        name: [float(x).hex() for x in v]
        for name, v in (("left", peeled.left), ("right", peeled.right))
    }
    return {"remainder": peeled.remainder, **vectors}


def _search(input_class: InputClass, leads: Leads, how: Pass) -> Chosen:
    """For some numbers of tight tokens: the widest thresholds for each number of loose ones; then the best of these."""
    lead, n = input_class.lead(leads, how.rivals), len(input_class.queries)
    tokens = len(input_class.alive)
    tight = np.unique(
        np.linspace(0, tokens, min(CANDIDATES, tokens + 1)).round().astype(int)
    )
    wide = InputClass(
        input_class.tables,
        input_class.layers,
        input_class.right,
        np.repeat(input_class.queries, len(tight)),
    )
    kept, limits = (_by_value if how.tokens == "each" else _by_order)(
        input_class, wide, lead, how, len(tight)
    )
    start = np.tile(tight, n)

    def shown(ends: np.ndarray, loose: int) -> np.ndarray:
        """About how many inputs are shown right with `loose` tokens beyond the first `start`, among the first
        `ends`."""
        found = kept(limits(np.stack([start, ends], 1)))
        least, number = wide.sums(
            *wide.terms(found), found.number.astype(float), 1 if loose else 0, loose
        )
        return np.where(least > 0, number, 0)

    total, chosen = shown(start, 0), [start]
    for loose in range(1, how.loose + 1):
        low, high = (
            start.copy(),
            np.full_like(start, tokens),
        )  # the largest end that is shown lies in [low, high]
        while (low < high).any():
            middle = (low + high + 1) // 2
            good = shown(middle, loose) > 0
            low, high = np.where(good, middle, low), np.where(good, high, middle - 1)
        total = total + np.where(low > start, shown(low, loose), 0)
        chosen.append(low)
    best = total.reshape(n, -1).argmax(1) + np.arange(n) * len(tight)
    thresholds = limits(np.stack(chosen, 1))[best]
    return Chosen(input_class.right, input_class.queries, thresholds, total[best])


Keep = Callable[[np.ndarray], Kept]
Limits = Callable[[np.ndarray], np.ndarray]  # thresholds, of how many tokens to keep


def _by_value(
    input_class: InputClass, wide: InputClass, lead, how: Pass, times: int
) -> tuple[Keep, Limits]:
    h = input_class.each(lead)
    ranked = _short(-np.sort(-h.mid, 1))
    ranked = np.concatenate(
        [np.nextafter(np.maximum(ranked[:, :1], 0), np.inf) + 1, ranked], 1
    )  # keeps none
    ranked, h = np.repeat(ranked, times, 0), h.map(lambda a: np.repeat(a, times, 0))
    return lambda thresholds: wide.kept_above(
        h, thresholds
    ), lambda ends: np.take_along_axis(ranked, ends, 1)


def _by_order(
    input_class: InputClass, wide: InputClass, lead, how: Pass, times: int
) -> tuple[Keep, Limits]:
    descending, vocab = how.tokens == "descending", input_class.tables.vocab
    rank = np.sort(vocab - 1 - input_class.alive if descending else input_class.alive)
    ends_of = np.concatenate([[0], rank + 1])  # the first so many of the vocabulary
    lead = lead._replace(query=lead.query.map(lambda a: np.repeat(a, times)))
    return lambda ends: kept_in_order(
        wide, lead, ends, descending
    ), lambda ends: ends_of[ends]


def _short(x: np.ndarray) -> np.ndarray:
    """Rounded down to a few bits."""
    fraction, power = np.frexp(x)
    return np.ldexp(np.floor(fraction * 2**BITS), power - BITS)
