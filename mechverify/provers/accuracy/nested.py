"""Find the witness of rule `nested`: families of cells that one position explains, and cuts of cells that stay open."""

import heapq
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mechverify.claims.language import Row as Expression
from mechverify.kernel.core.counts import Counts
from mechverify.kernel.core.errors import Rejected, Stopped, Unsupported
from mechverify.kernel.core.fields import Reader
from mechverify.kernel.counting.automaton import Layer
from mechverify.kernel.counting.classes import conditions_of
from mechverify.kernel.nested.ranges import Row
from mechverify.kernel.nested.rule import Cell, Cells, Family, Model
from mechverify.provers.accuracy.problem import AccuracyProblem, Attempt, Evidence
from mechverify.provers.base import Budget

SAMPLES = 6  # inputs of a cell that are run to see where they attend
FAILURES = (
    3  # conditions that may make the fold too long, before no further one is tried
)


@dataclass
class _Part:
    """A cell, or a part of one: how it is decided (None: not yet), or cut."""

    cell: Cell
    family: Family
    alone: bool | None = None
    cut: tuple[int, list[int]] | None = None
    parts: "list[_Part]" = field(default_factory=list)

    @property
    def right(self) -> int:
        if self.cut is not None:
            return sum(part.right for part in self.parts)
        return 0 if self.alone is None else self.cell.size

    def entry(self) -> Any:
        if self.cut is None:
            return self.alone
        inside, outside = (part.entry() for part in self.parts)
        if inside is None and outside is None:
            return None
        position, tokens = self.cut
        names = ("position", "tokens", "inside", "outside")
        return dict(zip(names, (position, tokens, inside, outside), strict=True))


@dataclass
class _Plan:
    """What the cells of all queries are made of."""

    model: Model
    keys: list[list[Expression]]
    conditions: list[int]

    def cells(self, problem: AccuracyProblem, query: int) -> Cells:
        domain = problem.domain.split(self.model.pin, {query})[0]
        keys = [Reader(key, "keys") for key in self.keys]
        return Cells(self.model, domain, query, keys, self.conditions)

    def short(self, problem: AccuracyProblem, query: int) -> bool:
        """Whether the mechanism and the conditions are a short fold."""
        try:
            self.cells(problem, query)
        except Unsupported:
            return False
        return True


class Nested:
    name = "nested"

    def accepts(self, problem: AccuracyProblem, evidence: Evidence) -> str | None:
        try:
            with np.errstate(all="ignore"):
                problem.job.once(Model)
        except Unsupported as error:
            return str(error)
        return None

    def prove(
        self, problem: AccuracyProblem, evidence: Evidence, budget: Budget
    ) -> Attempt:
        with np.errstate(all="ignore"):
            return bounded(problem, budget)


def bounded(problem: AccuracyProblem, budget: Budget) -> Attempt:
    """A lower bound of the right inputs: every cell as a whole, then the largest open ones in parts, while there is
    time. Raises Unsupported where the output isn't that of two layers, or the mechanism no short fold."""
    plan = _plan(problem)
    queries = problem.domain.tokens[plan.model.pin]
    found: list[tuple[int, Family, list[tuple[tuple, _Part]]]] = []
    low = 0
    waiting: list[tuple[int, int, _Part]] = []
    for n, query in enumerate(queries):
        budget.progress(
            f"two layers: query {n + 1} of {len(queries)}", n / len(queries)
        )
        if budget.spent():
            break
        cells = plan.cells(problem, query)
        low += cells.classes.unguarded
        families = _families(plan.model, query, cells, np.random.default_rng(0))
        try:
            for family, members in families:
                parts = [(key, _Part(cell, family)) for key, cell in members]
                found.append((query, family, parts))
                for _, part in parts:
                    _decide(part, budget)
                    if part.alone is None:
                        waiting.append((-part.cell.size, len(waiting), part))
        except Stopped:
            break
    _refine(waiting, budget)
    rows = [
        {
            "query": query,
            "reference": family.reference,
            "cells": [
                [[*key], entry]
                for key, part in parts
                if (entry := part.entry()) is not None
            ],
        }
        for query, family, parts in found
    ]
    low += sum(part.right for _, _, parts in found for _, part in parts)
    proof = {
        "rule": "nested",
        "keys": plan.keys,
        "conditions": plan.conditions,
        "families": rows,
    }
    return Attempt(proof, Counts(low, problem.domain.size))


def _plan(problem: AccuracyProblem) -> _Plan:
    """The first that works out for one query: all of the guard's conditions, or as many as make a short fold together;
    and no further key, or where the query's token stands elsewhere. Raises Unsupported where nothing does."""
    model, claim = problem.job.once(Model), problem.claim
    guard = claim.guard
    number = 0 if guard is None else len(conditions_of(claim.graph, guard))
    query = problem.domain.tokens[model.pin][0]
    plan = _Plan(model, [], [*range(number)])
    if not plan.short(problem, query):
        plan.conditions, failed = [], 0
        for i in range(number):
            longer = _Plan(model, [], [*plan.conditions, i])
            if longer.short(problem, query):
                plan = longer
            else:
                failed += 1
            if failed == FAILURES:
                break
    if not _explained(model, query, plan.cells(problem, query)):
        plan.keys = [_matches(model.pin, problem.domain.length)]
    return plan


def _matches(pin: int, length: int) -> list[Expression]:
    """Where the token at position `pin` stands before it, as a number's bits."""
    rows: list[Expression] = [["value", [], pin], ["integer", [], 0]]
    terms = []
    for j in range(min(pin, length)):
        at = len(rows)
        rows += [
            ["value", [], j],
            ["eq", [at, 0], None],
            ["integer", [], 2**j],
            ["where", [at + 1, at + 2, 1], None],
        ]
        terms.append(at + 3)
    return [*rows, ["sum", terms or [1], None]]


def _explained(model: Model, query: int, cells: Cells) -> bool:
    """Whether in each class one position is attended to most, as far as samples show."""
    rng = np.random.default_rng(0)
    return all(
        len(_attended(model, query, cells.cell(key).layers, rng)) == 1
        for key in cells.classes.places
    )


def _families(
    model: Model, query: int, cells: Cells, rng: np.random.Generator
) -> "list[tuple[Family, list[tuple[tuple[int, ...], Cell]]]]":
    """The cells by the position that most is attended to in them."""
    by_position: dict[int, list[tuple[tuple[int, ...], Cell]]] = {}
    for key in cells.classes.places:
        cell = cells.cell(key)
        votes = _attended(model, query, cell.layers, rng)
        position = max(votes, key=lambda i: votes[i])
        by_position.setdefault(position, []).append((key, cell))
    return [
        (Family(model, query, position, [cell for _, cell in members]), members)
        for position, members in by_position.items()
    ]


def _attended(
    model: Model, query: int, layers: list[Layer], rng: np.random.Generator
) -> dict[int, int]:
    """How many of some random inputs attend most to each position."""
    votes: dict[int, int] = {}
    for _ in range(SAMPLES):
        tokens = _walk(layers, rng)
        asked = _at(model, model.asking, tokens)
        scores = {
            i: float(asked @ _at(model, row, tokens)) for i, row in model.keys.items()
        }
        best = max(scores, key=lambda i: scores[i])
        votes[best] = votes.get(best, 0) + 1
    return votes


def _walk(layers: list[Layer], rng: np.random.Generator) -> np.ndarray:
    """An input that is accepted."""
    state, tokens = 0, []
    for layer in layers:
        ways = [
            (t, f[state]) for here, f in layer.groups if f[state] >= 0 for t in here
        ]
        token, state = ways[int(rng.integers(len(ways)))]
        tokens.append(token)
    return np.array(tokens)


def _at(model: Model, row: Row, tokens: np.ndarray) -> np.ndarray:
    """About the row's vector at an input."""
    own, places = tokens[row.pin], np.arange(len(tokens))
    factor = model.ar.approximate(row.factor)[:, own, tokens, places]
    value = model.ar.approximate(row.value)[:, tokens, places]
    share = factor / factor.sum(1, keepdims=True)
    return model.ar.approximate(row.base)[own] + np.einsum("gj,gje->e", share, value)


def _decide(part: _Part, budget: Budget) -> None:
    """As a whole, with the family's bounds of scores or with its own."""
    with budget.rehearsing():
        for alone in (False, True):
            try:
                if part.cell.decided(part.family, alone):
                    part.alone = alone
                    return
            except Stopped:
                raise
            except Rejected:  # say, weights so large that enclosures overflow
                continue


def _refine(waiting: list[tuple[int, int, _Part]], budget: Budget) -> None:
    """The largest open part is cut in two, at the token before the query's, then at others."""
    heapq.heapify(waiting)
    number = len(waiting)
    while waiting and not budget.spent():
        _, _, part = heapq.heappop(waiting)
        position = _where(part.cell)
        if position is None:
            continue
        here = part.cell.box[position].tolist()
        part.cut = position, here[: len(here) // 2]
        try:
            part.parts = [_Part(c, part.family) for c in part.cell.cut(*part.cut)]
            for half in part.parts:
                if half.cell.size:
                    _decide(half, budget)
                    if half.alone is None:
                        heapq.heappush(waiting, (-half.cell.size, number, half))
                        number += 1
        except Stopped:
            return


def _where(cell: Cell) -> int | None:
    """The position to cut at: one where several tokens occur, first that before the query's."""
    pin = cell.model.pin
    several = [i for i in range(pin) if len(cell.box[i]) > 1]
    return max(several, default=None)
