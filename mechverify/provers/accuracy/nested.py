"""Find the witness of rule `nested`: families of cells that one position explains, and cuts of cells that stay open.

Obligations are the families of a query token, some cells of a family, and the cuts of a cell.
"""

import json
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from math import inf, prod
from typing import Any, NamedTuple

import numpy as np

from mechverify.claims.mechanisms import Row as Expression
from mechverify.kernel.core.claim import Job
from mechverify.kernel.core.counts import Counts
from mechverify.kernel.core.errors import Rejected, Stopped
from mechverify.kernel.core.fields import Reader
from mechverify.kernel.counting.automaton import Layer
from mechverify.kernel.counting.known import conditions_of
from mechverify.kernel.nested.ranges import Row
from mechverify.kernel.nested.rule import Cell, Cells, Family, Model
from mechverify.provers.accuracy.enumerate import WHOLE, affords_all
from mechverify.provers.accuracy.problem import AccuracyProblem, Attempt, Evidence
from mechverify.provers.base import Budget, unsupported
from mechverify.provers.worst_first import WorstFirst

RARE = 0.1  # share of right samples below which it isn't tried
HOPE = 2**6  # cells of which one should be decided at least, before more are tried
PATIENCE = 0.3  # share of the time that is left, likewise: others may run inputs then
CUTS = 2**12  # of all cells
TOGETHER, AT_ONCE = 2**5, 2**2  # cells of an obligation; cuts of one
CHEAP = 2**20  # numbers for each position
SAMPLES = 6  # inputs of a cell that are run to see where they attend


@dataclass
class _Part:
    """A cell, or a part of one: bounds of its right inputs, as they are known, and where nothing is; and its `entry` in
    the witness, or how it is cut."""

    open: Counts
    right: Counts
    entry: Any = None
    cut: tuple[int, list[int]] | None = None
    parts: "list[_Part]" = field(default_factory=list)

    @property
    def bounds(self) -> Counts:
        each = [part.bounds for part in self.parts] or [self.right]
        return Counts(sum(b.low for b in each), sum(b.high for b in each))

    @property
    def size(self) -> int:
        return self.open.high

    @property
    def known(self) -> bool:
        """Of some of its inputs."""
        return self.bounds != self.open

    def written(self) -> Any:
        if self.cut is None:
            return self.entry
        inside, outside = (part.written() for part in self.parts)
        if inside is None and outside is None:
            return None
        position, tokens = self.cut
        names = ("position", "tokens", "inside", "outside")
        return dict(zip(names, (position, tokens, inside, outside), strict=True))

    def row(self) -> list:
        """As JSON says it."""
        parts = [part.row() for part in self.parts]
        return [self.open, self.right, self.entry, self.cut, parts]

    @staticmethod
    def of(row: list) -> "_Part":
        open_, right, entry, cut, parts = row
        cut = None if cut is None else (cut[0], cut[1])
        return _Part(
            Counts(*open_), Counts(*right), entry, cut, [*map(_Part.of, parts)]
        )


@dataclass
class _Plan:
    """What the cells of all queries are made of."""

    keys: list[list[Expression]]
    conditions: list[int]

    def cells(self, problem: AccuracyProblem, query: int) -> Cells:
        model = problem.job.once(Model)
        domain = problem.domain.split(model.pin, {query})[0]
        keys = [Reader(key, "keys") for key in self.keys]
        return Cells(model, domain, query, keys, self.conditions)

    def short(self, problem: AccuracyProblem, query: int) -> bool:
        """Whether the mechanism and the conditions are a short fold."""
        return unsupported(lambda: self.cells(problem, query)) is None

    def row(self) -> list:
        return [self.keys, self.conditions]


class _Told(NamedTuple):
    """A family, as JSON says it; `keys` are its cells'."""

    query: int
    references: list[int]
    by_token: bool
    keys: list[list[int]]


class _Made:
    """Cells and families, made once of what JSON says."""

    def __init__(self, _: Job):
        self.cells: dict[str, Cells] = {}
        self.families: dict[str, Family] = {}

    def of(self, problem: AccuracyProblem, plan: list, query: int) -> Cells:
        about = json.dumps([plan, query])
        if about not in self.cells:
            self.cells[about] = _Plan(*plan).cells(problem, query)
        return self.cells[about]

    def family(self, problem: AccuracyProblem, plan: list, told: _Told) -> Family:
        about = json.dumps([plan, told])
        if about not in self.families:
            cells = self.of(problem, plan, told.query)
            members = [cells.cell(tuple(key)) for key in told.keys]
            self.families[about] = Family(cells.model, *told[:-1], members)
        return self.families[about]


class Nested:
    name = "nested"

    def accepts(self, problem: AccuracyProblem, evidence: Evidence) -> str | None:
        if problem.claim.total <= WHOLE:
            return ""  # running them all is quicker, and says more
        if evidence.accuracy < RARE:
            return "so few of the sampled inputs are right that no cell would be right everywhere"
        return unsupported(lambda: problem.job.once(Model))

    def prove(
        self, problem: AccuracyProblem, evidence: Evidence, budget: Budget
    ) -> Attempt:
        if affords_all(problem, budget):
            raise Rejected("every input can be run, which says more")
        with np.errstate(all="ignore"):
            return bounded(problem, budget)


def bounded(problem: AccuracyProblem, budget: Budget) -> Attempt:
    """Bounds of the right inputs: every cell as a whole, then the largest open ones in parts, while there is
    time. Raises Unsupported where the output isn't that of two layers, or the mechanism no short fold."""
    plan, made, queries = _plan(problem), problem.job.once(_Made), _queries(problem)
    with budget.rehearsing():
        cells = {q: made.of(problem, plan.row(), q) for q in queries}
    found: list[tuple[_Told, list[_Part]]] = []
    try:
        _as_wholes(problem, plan, found, budget)
        if any(part.known for _, parts in found for part in parts):
            _refine(problem, plan, found, budget)
    except Stopped:
        pass
    if not any(part.known for _, parts in found for part in parts):
        raise Rejected("no cell could be decided as a whole; restrict the domain")
    low, high = sum(c.classes.unguarded for c in cells.values()), problem.domain.size
    for told, parts in found:
        for part in parts:
            wrong = cells[told.query].wrong(part.bounds, part.size)
            low, high = low + part.size - wrong.high, high - wrong.low
    proof = {"rule": "nested", "keys": plan.keys, "conditions": plan.conditions}
    proof |= {"families": [_entry(*family) for family in found]}
    return Attempt(proof, Counts(low, high))


def _queries(problem: AccuracyProblem) -> tuple[int, ...]:
    return problem.domain.tokens[problem.job.once(Model).pin]


def _as_wholes(
    problem: AccuracyProblem,
    plan: _Plan,
    found: list[tuple[_Told, list[_Part]]],
    budget: Budget,
) -> None:
    """Adds the families of each query, with their cells as far as there is time to decide them."""
    queries, tried, decided = _queries(problem), 0, 0
    until = time.monotonic() + PATIENCE * (budget.deadline - time.monotonic())
    asked: deque[tuple[int, list[_Part]]] = deque()

    def promises() -> Iterator[Callable[[], Any]]:
        each = (budget.ask(families, problem, [plan.row(), query]) for query in queries)
        for n, rows in enumerate(budget.in_order(each)):
            for row, open_ in rows:
                told, parts = (
                    _Told(*row),
                    [_Part(Counts(*o), Counts(*o)) for o in open_],
                )
                found.append((told, parts))
                for start in range(0, len(parts), TOGETHER):
                    some = slice(start, start + TOGETHER)
                    asked.append((n, parts[some]))
                    about = [plan.row(), told, told.keys[some]]
                    yield budget.ask(wholes, problem, about)

    answers = budget.in_order(promises())
    while not budget.spent() and (decided or tried < HOPE):
        with budget.within(inf if decided else until - time.monotonic()):
            answer = next(answers, None)
        if answer is None:
            return
        n, parts = asked.popleft()
        for part, row in zip(parts, answer[0], strict=True):
            vars(part).update(vars(_Part.of(row)))
            tried, decided = tried + 1, decided + part.known
        budget.reserved += answer[1]
        said = f"two layers: query {n + 1} of {len(queries)}"
        budget.progress(said, n / len(queries))


def _entry(told: _Told, parts: list[_Part]) -> dict[str, Any]:
    """Open cells are listed as well: a family's bounds depend on all of its cells."""
    query, references, by_token, keys = told
    rows = [[key, part.written()] for key, part in zip(keys, parts, strict=True)]
    cells = rows if any(part.known for part in parts) else []
    about = {"references": references, "by_token": by_token}
    return {"query": query, **about, "cells": cells}


def families(problem: AccuracyProblem, asked: list, budget: Budget) -> list[Any]:
    """An obligation: the families of a query, and for each cell bounds of its right inputs where nothing is known."""
    (plan, query), found = asked, []
    with np.errstate(all="ignore"):
        cells = problem.job.once(_Made).of(problem, plan, query)
        for family, members in _families(cells.model, query, cells):
            keys = [[*cell.key] for cell in members]
            told = _Told(query, family.references, family.by_token, keys)
            found.append([told, [_nothing(cell).right for cell in members]])
    return found


def wholes(problem: AccuracyProblem, asked: list, budget: Budget) -> list[Any]:
    """An obligation: some cells of a family, decided or not; and the seconds that it took, as the check will."""
    (plan, told, keys), began, found = asked, time.monotonic(), []
    with np.errstate(all="ignore"):
        cells, family = _of(problem, plan, told)
        for key in keys:
            if budget.spent():
                raise Stopped
            found.append(_decided(cells.cell(tuple(key)), family).row())
    return [found, time.monotonic() - began]


def _of(problem: AccuracyProblem, plan: list, told: list) -> tuple[Cells, Family]:
    made, family = problem.job.once(_Made), _Told(*told)
    cells = made.of(problem, plan, family.query)
    return cells, made.family(problem, plan, family)


def _nothing(cell: Cell) -> _Part:
    """Nothing is known of it, unless the right one is no output."""
    possible = 0 <= cell.wanted < cell.outputs
    return _Part(cell.open, cell.open if possible else cell.wrong)


def _plan(problem: AccuracyProblem) -> _Plan:
    """The first that works out for one query: all of the guard's conditions, or those that read the query's token; and
    no further key, or where the query's token stands elsewhere. Raises Unsupported where nothing does."""
    model, claim = problem.job.once(Model), problem.claim
    guard, graph = claim.guard, problem.job.further()
    asked = [] if guard is None else conditions_of(graph, guard)
    query, keys = (
        problem.domain.tokens[model.pin][0],
        [_matches(model.pin, problem.domain.length)],
    )
    plan = _Plan(keys, [*range(len(asked))])
    if not plan.short(problem, query):
        token = graph.add("value", attr=model.pin)
        plan.conditions = [
            i for i, n in enumerate(asked) if token in graph.ancestors([n])
        ]
    alone = _Plan([], plan.conditions)
    return alone if _explained(model, alone.cells(problem, query)) else plan


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


def _explained(model: Model, cells: Cells) -> bool:
    """Whether in each class one position is attended to most, as far as samples show."""
    rng = np.random.default_rng(0)
    return all(
        len(_attended(model, cells.cell(key).layers, rng)) == 1
        for key in cells.classes.places
    )


def _families(
    model: Model, query: int, cells: Cells
) -> list[tuple[Family, list[Cell]]]:
    """The cells by the positions that the heads attend to most in them."""
    rng = np.random.default_rng(0)
    by_position: dict[tuple[int, ...], list[Cell]] = {}
    for key in cells.classes.places:
        cell = cells.cell(key)
        votes = _attended(model, cell.layers, rng)
        positions = max(votes, key=lambda i: votes[i])
        by_position.setdefault(positions, []).append(cell)
    return [
        (_family(model, query, [*positions], members), members)
        for positions, members in by_position.items()
    ]


def _family(
    model: Model, query: int, references: list[int], members: list[Cell]
) -> Family:
    """Tokens at the references are told apart where that is cheap, or else the first cell isn't decided."""
    plain, closer = (
        Family(model, query, references, by_token, members)
        for by_token in (False, True)
    )
    sizes = sorted(map(len, plain.box))
    if sum(sizes) * prod(sizes[-3:]) <= CHEAP:
        return closer
    sure = next((cell for cell in members if len(_ahead(cell)) == 1), None)
    return plain if sure is None or _holds(sure, plain, False) else closer


def _attended(
    model: Model, layers: list[Layer], rng: np.random.Generator
) -> dict[tuple[int, ...], int]:
    """In how many of some random inputs the heads attend most to which positions."""
    votes: dict[tuple[int, ...], int] = {}
    for _ in range(SAMPLES):
        tokens, best = _walk(layers, rng), []
        for head in model.heads:
            asked = _at(model, head.asking, tokens)
            scores = {
                i: float(asked @ _at(model, row, tokens))
                for i, row in head.keys.items()
            }
            best.append(max(scores, key=lambda i: scores[i]))
        votes[tuple(best)] = votes.get(tuple(best), 0) + 1
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


def _decided(cell: Cell, family: Family) -> _Part:
    """If samples agree: with the family's bounds of scores, or with its own, unless these are hardly better."""
    found = None
    for alone in (False, True):
        if found is None and (not alone or _smaller(cell, family)):
            found = _holds(cell, family, alone)
    return _nothing(cell) if found is None else found


def _smaller(cell: Cell, family: Family) -> bool:
    """Whether its box is much smaller than its family's, but for tokens that the family's bounds tell apart."""
    box, apart = cell.box, family.references if family.by_token else []
    each = [i for i in range(len(box)) if i not in apart]
    return any(len(box[i]) + 1 < len(family.box[i]) for i in each) or not apart


def _holds(cell: Cell, family: Family, alone: bool) -> _Part | None:
    """What that decides."""
    rivals = _ahead(cell)
    if len(rivals) != 1:
        return None
    (rival,) = rivals
    try:
        if rival is None and cell.decided(family, alone):
            return _Part(cell.open, Counts(cell.size, cell.size), alone)
        if rival is not None and cell.beaten(family, alone, rival):
            return _Part(cell.open, cell.wrong, {"rival": rival, "alone": alone})
    except Stopped:
        raise
    except Rejected:  # say, weights so large that enclosures overflow
        pass
    return None


def _ahead(cell: Cell) -> set[int | None]:
    """Of some random inputs: outputs that are ahead of the right one (None: that it is right). None where the right one
    is no output."""
    if not cell.size or not 0 <= cell.wanted < cell.outputs:
        return set()
    rng, found = np.random.default_rng(0), set()
    for _ in range(SAMPLES):
        values = _outputs(cell.model, _walk(cell.layers, rng))
        values[cell.wanted] -= float(cell.model.margin)
        best = int(np.argmax(values))
        found.add(None if best == cell.wanted else best)
    return found


def _outputs(model: Model, tokens: np.ndarray) -> np.ndarray:
    """About the outputs at an input."""
    total = _at(model, model.direct, tokens)
    for head in model.heads:
        asked = _at(model, head.asking, tokens)
        scores = np.array(
            [asked @ _at(model, row, tokens) for row in head.keys.values()]
        )
        share = np.exp(scores - scores.max())
        values = np.array([_at(model, row, tokens) for row in head.values.values()])
        total = total + share @ values / share.sum()
    return total


def _refine(
    problem: AccuracyProblem,
    plan: _Plan,
    found: list[tuple[_Told, list[_Part]]],
    budget: Budget,
) -> None:
    """The largest open part is cut in two, at the token before the query's, then at others."""
    waiting = WorstFirst[tuple[_Told, list[int], list, _Part]]()
    for told, parts in found:
        for key, part in zip(told.keys, parts, strict=True):
            if not part.known:
                waiting.add((told, key, [], part), part.size)

    def ask(some: list[tuple[_Told, list[int], list, _Part]]) -> Callable[[], Any]:
        return budget.ask(cuts, problem, [plan.row(), *some[0][:3]])

    for n, ([(told, key, way, part)], answer) in enumerate(waiting.answered(ask)):
        row, seconds = answer
        vars(part).update(vars(_Part.of(row)))
        budget.reserved += seconds
        for below, rest in _open(part, way):
            if len(below) > len(way):  # else it can't be cut
                waiting.add((told, key, below, rest), rest.size)
        said = f"cutting open cells: {len(waiting):,} parts are left"
        budget.progress(said, None)
        if AT_ONCE * (n + 1) >= CUTS or budget.spent():
            return


def _open(part: _Part, way: list) -> Iterator[tuple[list, _Part]]:
    """The open parts of one that was cut, and the ways to them."""
    for side, half in enumerate(part.parts):
        assert part.cut is not None
        yield from _open(half, [*way, [*part.cut, side]])
    if part.cut is None and not part.known:
        yield way, part


def cuts(problem: AccuracyProblem, asked: list, budget: Budget) -> list[Any]:
    """An obligation: a part of a cell, cut a few times, the largest open part first; and the seconds that it took to
    decide these parts. `way`: the cuts that lead to it from the cell."""
    (plan, told, key, way), seconds = asked, 0.0
    with np.errstate(all="ignore"):
        cells, family = _of(problem, plan, told)
        cell = cells.cell(tuple(key))
        for position, tokens, side in way:
            cell = cell.cut(position, tokens)[side]
        whole, waiting = _nothing(cell), WorstFirst[tuple[Cell, _Part]]()
        waiting.add((cell, whole), cell.size)
        for _ in range(AT_ONCE):
            if not waiting:
                break
            if budget.spent():
                raise Stopped
            cell, part = waiting.take()
            part.cut = _where(cell, family)
            if part.cut is None:
                continue
            began = time.monotonic()
            for half in cell.cut(*part.cut):
                part.parts.append(_decided(half, family))
                if not part.parts[-1].known:
                    waiting.add((half, part.parts[-1]), half.size)
            seconds += time.monotonic() - began
    return [whole.row(), seconds]


def _where(cell: Cell, family: Family) -> tuple[int, list[int]] | None:
    """The position whose tokens differ most in what they add to the worst sum, and the half of them that add most. None
    where each position has one token."""
    several = [i for i in range(cell.model.pin) if len(cell.box[i]) > 1]
    if not several:
        return None
    rivals = [t for t in range(cell.outputs) if t != cell.wanted]
    try:
        terms = cell.terms(family, True, cell.wanted, rivals, cell.model.margin)
    except Stopped:
        raise
    except Rejected:
        terms = None
    if terms is None:
        return several[-1], cell.box[several[-1]][::2].tolist()
    most = [cell.ar.approximate(x).max((1, 2)) for x in terms]
    worst = int(np.argmax(sum(most)))
    adds = {i: cell.ar.approximate(terms[i])[worst].max(0) for i in several}
    position = max(several, key=lambda i: float(np.ptp(adds[i])))
    tokens, by_token = cell.box[position], adds[position]
    by_token = np.broadcast_to(by_token, len(tokens))
    most_first = np.argsort(-by_token, kind="stable")
    return position, sorted(tokens[most_first[: len(tokens) // 2]].tolist())
