"""Find the witness of rule `nested`: families of cells that one position explains, and cuts of cells that stay open."""

import time
from dataclasses import dataclass, field
from math import inf, prod
from typing import Any

import numpy as np

from mechverify.claims.language import Row as Expression
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
CHEAP = 2**20  # numbers for each position
SAMPLES = 6  # inputs of a cell that are run to see where they attend
FAILURES = (
    3  # conditions that may make the fold too long, before no further one is tried
)


@dataclass
class _Part:
    """A cell, or a part of one: how it is decided (`alone`; None: not yet), for which rival, or how it is cut."""

    cell: Cell
    family: Family
    alone: bool | None = None
    rival: int | None = None
    cut: tuple[int, list[int]] | None = None
    parts: "list[_Part]" = field(default_factory=list)

    def __post_init__(self) -> None:
        """What is open is counted while there is time."""
        _ = self.cell.asked

    @property
    def right(self) -> Counts:
        if self.cut is not None:
            low, high = zip(*(part.right for part in self.parts), strict=True)
            return Counts(sum(low), sum(high))
        if self.rival is not None or not 0 <= self.cell.wanted < self.cell.outputs:
            return self.cell.wrong
        if self.alone is None:
            return self.cell.open
        return Counts(self.cell.size, self.cell.size)

    @property
    def known(self) -> bool:
        """Of some of its inputs."""
        return self.right != self.cell.open

    def entry(self) -> Any:
        if self.cut is None and self.rival is not None:
            return {"rival": self.rival, "alone": self.alone}
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
        return unsupported(lambda: self.cells(problem, query)) is None


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
    plan = _plan(problem)
    with budget.rehearsing():
        made = {
            q: plan.cells(problem, q) for q in problem.domain.tokens[plan.model.pin]
        }
    found: list[tuple[int, Family, list[_Part]]] = []
    try:
        _as_wholes(plan.model, made, found, budget)
        every = [part for _, _, parts in found for part in parts]
        if any(part.known for part in every):
            _refine([part for part in every if not part.known], budget)
    except Stopped:
        pass
    if not any(part.known for _, _, parts in found for part in parts):
        raise Rejected("no cell could be decided as a whole; restrict the domain")
    low, high = sum(c.classes.unguarded for c in made.values()), problem.domain.size
    for query, _, parts in found:
        for part in parts:
            wrong = made[query].wrong(part.right, part.cell.size)
            low, high = low + part.cell.size - wrong.high, high - wrong.low
    proof = {"rule": "nested", "keys": plan.keys, "conditions": plan.conditions}
    proof |= {"families": [_entry(*family) for family in found]}
    return Attempt(proof, Counts(low, high))


def _as_wholes(
    model: Model,
    made: dict[int, Cells],
    found: list[tuple[int, Family, list[_Part]]],
    budget: Budget,
) -> None:
    """Adds the families of each query, with their cells as far as there is time to decide them."""
    tried = decided = 0
    until = time.monotonic() + PATIENCE * (budget.deadline - time.monotonic())
    for n, (query, cells) in enumerate(made.items()):
        share = n / len(made)
        budget.progress(f"two layers: query {n + 1} of {len(made)}", share)
        for family, members in _families(model, query, cells):
            parts = [_Part(cell, family) for cell in members]
            found.append((query, family, parts))
            for part in parts:
                with budget.within(inf if decided else until - time.monotonic()):
                    if budget.spent() or (tried >= HOPE and not decided):
                        return
                    _decide(part, budget)
                tried, decided = tried + 1, decided + part.known


def _entry(query: int, family: Family, parts: list[_Part]) -> dict[str, Any]:
    """Open cells are listed as well: a family's bounds depend on all of its cells."""
    rows = [[[*part.cell.key], part.entry()] for part in parts]
    cells = rows if any(part.known for part in parts) else []
    about = {"references": family.references, "by_token": family.by_token}
    return {"query": query, **about, "cells": cells}


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
    plan = _Plan(model, keys, [*range(len(asked))])
    if not plan.short(problem, query):
        token = graph.add("value", attr=model.pin)
        plan.conditions = [
            i for i, n in enumerate(asked) if token in graph.ancestors([n])
        ]
    alone = _Plan(model, [], plan.conditions)
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
    sure = (cell for cell in members if len(_ahead(cell)) == 1)
    part = next((_Part(cell, plain) for cell in sure), None)
    return plain if part is None or _holds(part, False) else closer


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


def _decide(part: _Part, budget: Budget) -> None:
    """If samples agree: with the family's bounds of scores, or with its own, unless these are hardly better."""
    with budget.rehearsing():
        any(
            _holds(part, alone)
            for alone in (False, True)
            if not alone or _smaller(part)
        )


def _smaller(part: _Part) -> bool:
    """Whether its box is much smaller than its family's, but for tokens that the family's bounds tell apart."""
    family, box = part.family, part.cell.box
    apart = family.references if family.by_token else []
    each = [i for i in range(len(box)) if i not in apart]
    return any(len(box[i]) + 1 < len(family.box[i]) for i in each) or not apart


def _holds(part: _Part, alone: bool) -> bool:
    """Whether that decides it."""
    cell, rivals = part.cell, _ahead(part.cell)
    if len(rivals) != 1:
        return False
    (rival,) = rivals
    try:
        family = part.family
        holds = (
            cell.decided(family, alone)
            if rival is None
            else cell.beaten(family, alone, rival)
        )
    except Stopped:
        raise
    except Rejected:  # say, weights so large that enclosures overflow
        return False
    if holds:
        part.alone, part.rival = alone, rival
    return holds


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


def _refine(parts: list[_Part], budget: Budget) -> None:
    """The largest open part is cut in two, at the token before the query's, then at others."""
    waiting = WorstFirst[_Part]()
    for part in parts:
        waiting.add(part, part.cell.size)
    for _ in range(CUTS):
        if not waiting or budget.spent():
            return
        part = waiting.take()
        cut = _where(part)
        if cut is None:
            continue
        part.parts = [_Part(c, part.family) for c in part.cell.cut(*cut)]
        part.cut = cut
        for half in part.parts:
            _decide(half, budget)
            if not half.known:
                waiting.add(half, half.cell.size)


def _where(part: _Part) -> tuple[int, list[int]] | None:
    """The position whose tokens differ most in what they add to the worst sum, and the half of them that add most. None
    where each position has one token."""
    cell = part.cell
    several = [i for i in range(cell.model.pin) if len(cell.box[i]) > 1]
    if not several:
        return None
    rivals = [t for t in range(cell.outputs) if t != cell.wanted]
    try:
        terms = cell.terms(part.family, True, cell.wanted, rivals, cell.model.margin)
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
