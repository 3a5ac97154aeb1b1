"""A second checker of rule `mixtures`, in exact rationals, on domains of some hundred inputs of small models.

Follows docs/certificate.md; shares no code with mechverify, though its author had read the kernel. Every input of a cell
is run by itself (shares.py), so that where its mixture lies is known to a hundred digits, without ratios of sums, trial
values or automata. What stands behind attention is bounded in a leaf by affine arithmetic forwards (bounds.py), not by
lines carried backwards; a leaf's sums are taken input by input.

Two readings of a proof: `Most`, what no sound lines could beat, by the leads themselves; and `Own`, what these ranges and
lines show. `check` returns where the second suffices, raises Rejected where the first doesn't, and else NotConfirmed.
"""

import itertools
import json
import math
from collections.abc import Callable, Iterator
from fractions import Fraction
from functools import lru_cache, wraps
from typing import Any, NamedTuple

from tests.independent import bounds, checker, shares
from tests.independent.bounds import NotConfirmed, Value, a_float, confirm
from tests.independent.checker import ABSENT, Interval, Mechanism, fields, integer, items, need, optional

DEEPEST = 64
NEAR = Fraction(1, 10**9)  # of a cut: an input so near to it may lie on either side
Numbers = list[Fraction]
Pair = tuple[int, int, Fraction]


class Run(NamedTuple):
    """An input's mixture and outputs."""

    z: list[Interval]
    y: list[Interval]


class Leaf(NamedTuple):
    """The t with low[j] <= t_j <= high[j], as far as they are given; numbers for each rival and direction; a step; and
    the rival whose lead over the right output is meant, if it isn't the right one's over all rivals."""

    low: dict[int, Fraction]
    high: dict[int, Fraction]
    multipliers: list[Numbers] | None
    step: int | None
    winner: int | None = None

    def holds(self, t: list[Interval], surely: bool) -> bool:
        by = -NEAR if surely else NEAR
        above = all(t[j].lo >= cut - by for j, cut in self.low.items())
        return above and all(t[j].hi <= cut + by for j, cut in self.high.items())


class Cell(NamedTuple):
    """The runs of a cell's inputs; t of each; the query's token, the right output, and the centre."""

    runs: list[Run]
    t: list[list[Interval]]
    query: int
    right: int
    centre: Numbers


def written(value: Any, count: int) -> Numbers:
    """[exponent, integers]."""
    exponent, integers = items(value, 2)
    exponent, scale = integer(exponent, -1_000, 900), Fraction(2)
    return [integer(v, 1 - 2**53, 2**53 - 1) * scale**exponent for v in items(integers, count)]


def leaves(
    tree: Any,
    rivals: list[int],
    wide: int,
    wins: bool,
    low: dict[int, Fraction],
    high: dict[int, Fraction],
    depth: int = 0,
) -> Iterator[Leaf]:
    """`wins`: of a tree whose leaves name winners."""
    if type(tree) is dict and "direction" in tree:
        need(depth < DEEPEST, "halved too often")
        direction, cut, below, above = fields(tree, "direction", "at", "below", "above")
        direction, cut = integer(direction, 0, wide - 1), a_float(cut)
        least, most = low.get(direction, cut), high.get(direction, cut)
        cut = min(max(cut, least), most)
        yield from leaves(below, rivals, wide, wins, low, high | {direction: cut}, depth + 1)
        yield from leaves(above, rivals, wide, wins, low | {direction: cut}, high, depth + 1)
        return
    if tree is None and not wins:
        yield Leaf(low, high, None, None)
        return
    given, step, *named = fields(tree, "multipliers", "step", *(["winner"] if wins else []))
    need(not wins or integer(named[0]) in rivals, "a winner that is no rival")
    count = 1 if wins else len(rivals)
    numbers = None if given is None else written(given, count * wide)
    rows = None if numbers is None else [numbers[i : i + wide] for i in range(0, count * wide, wide)]
    yield Leaf(low, high, rows, None if step is None else integer(step, -1_000, 1_000), *named)


@lru_cache(8)
def known_of(subject: str, weights: bytes) -> dict[Any, Any]:
    """Of claims about one model and one domain, kept from one to the next: what was computed of inputs and boxes."""
    return {}


def kept(method: Callable) -> Callable:
    """Computed once for each list of arguments."""

    @wraps(method)
    def lookup(self: "Claim", *key: Any) -> Any:
        place = method.__name__, *key
        if place not in self.known:
            self.known[place] = method(self, *key)
        return self.known[place]

    return lookup


class Claim(shares.Claim):
    """An accuracy of a module whose attention is read at one position; proofs by rule mixtures, and those above them."""

    def __init__(self, claim: Any, weights: bytes):
        super().__init__(claim, weights)
        need(self.semantics == "real", "rule mixtures is for real semantics")
        about = {name: claim[name] for name in ("domain", "graph", "site", "position")}
        self.known = known_of(json.dumps(about, sort_keys=True), weights)
        graph = self.values_of.graph
        softmax = {n for n, node in enumerate(graph.nodes) if node.op == "softmax"}
        self.mixed = [
            n
            for n in graph.ancestors([self.values_of.output])
            if graph.nodes[n].op == "einsum" and softmax & set(graph.nodes[n].args)
        ]
        self.width = sum(math.prod(graph.nodes[n].shape) for n in self.mixed)

    @kept
    def run(self, tokens: tuple[int, ...]) -> Run:
        done = self.evaluated(bounds.at(list(tokens), []), {})
        return Run([v.range for n in self.mixed for v in done[n]], [v.range for v in self.row(done)])

    def entries(self, tokens: tuple[int, ...]) -> list[Interval] | None:
        try:
            return self.run(tokens).y
        except NotConfirmed:
            return None

    def evaluated(self, part: bounds.Part, done: dict[int, list]) -> dict[int, list]:
        """All values that the output needs, those in `done` being given."""
        known, graph = self.values_of, self.values_of.graph
        wanted = {known.output}
        for n in range(known.output, -1, -1):
            if n in wanted and n not in done:
                wanted.update(graph.nodes[n].args)
        for n in sorted(wanted - set(done)):
            node = graph.nodes[n]
            confirm(math.prod(node.shape) <= bounds.SIZE, "a value too large for this checker")
            done[n] = known._computed(node, [done[a] for a in node.args], part)
        return done

    def row(self, done: dict[int, list]) -> list[Value]:
        start = 0 if self.values_of.position is None else self.values_of.position * self.out
        return done[self.values_of.output][start : start + self.out]

    @kept
    def pin(self) -> int:
        """The one position whose token the output reads beside the mixtures."""
        sizes = {n: math.prod(self.values_of.graph.nodes[n].shape) for n in self.mixed}
        given = {n: [bounds.fixed(bounds.constant(1))] * size for n, size in sizes.items()}
        entries = self.row(self.evaluated(bounds.Part(self.every_token(), [], []), given))
        seen = {symbol[0] for v in entries for symbol in v.k if type(symbol) is tuple}
        need(len(seen) <= 1, "the output reads other tokens than the query's")
        confirm(seen, "the output doesn't read the query's token by itself")
        return seen.pop()

    def every_token(self) -> checker.Part:
        return [[*range(len(self.values))]] * len(self.domain)

    # --- The rule ----------------------------------------------------------------------------------------------------

    def prove(self, proof: Any, part: checker.Part) -> checker.Bounds:
        if type(proof) is dict and proof.get("rule") == "mixtures":
            return self.mixtures(part, *fields(proof, "rule", "keys", "directions", "cells")[1:])
        return super().prove(proof, part)

    def mixtures(self, part: checker.Part, keys: Any, directions: Any, cells: Any) -> checker.Bounds:
        need(self.mixed, "no attention")
        need(len(items(keys)) <= 8, "too many keys")
        roots = [self.mechanism, *(Mechanism(k, self.values, len(part)) for k in keys)]
        need(1 <= len(items(directions)) <= 256, "directions")
        if type(directions[0]) is list and len(directions[0]) == 2 and type(directions[0][1]) is list:
            confirm(len(directions[0][1]) == self.width, "a document that computes more rows than are read")
        rows = [written(row, self.width) for row in directions]
        pin, others = self.pin(), 0
        inputs: dict[tuple, list[tuple[int, ...]]] = {}
        for x in itertools.product(*part):
            if self.inside(x):
                inputs.setdefault((x[pin], tuple(root(x) for root in roots)), []).append(x)
            else:
                others += 1
        said: dict[tuple, Any] = {}
        for row in items(cells):
            query, name, entry = items(row, 3)
            cell = integer(query), self.class_of(name, len(roots))
            need(cell in inputs and cell not in said, "a row for no cell, or a second one for a cell")
            said[cell] = entry
        low = high = others
        for (query, name), xs in inputs.items():
            if not 0 <= name[0] < self.out:
                continue  # all are wrong
            least, most = 0, len(xs)
            if (query, name) in said:
                least, most = self.wrong(query, name[0], xs, rows, said[query, name])
            low, high = low + len(xs) - most, high + len(xs) - least
        return low, high

    def wrong(
        self, query: int, right: int, xs: list[tuple[int, ...]], directions: list[Numbers], entry: Any
    ) -> checker.Bounds:
        """At least and at most so many inputs of a cell."""
        entry, certain = optional(entry, "certain", ABSENT)
        centres, tree = fields(entry, "centre", "halves")
        heads = [written(row, self.width) for row in items(centres)]
        need(len(heads) == self.heads(), "a centre for each head")
        centre = [sum(column, Fraction(0)) for column in zip(*heads, strict=True)]
        runs = [self.run(x) for x in xs]
        cell = Cell(runs, [[along(row, run.z, centre) for row in directions] for run in runs], query, right, centre)
        rivals = [t for t in range(self.out) if t != right]
        most = self.open(cell, directions, [*leaves(tree, rivals, len(directions), False, {}, {})])
        if certain is ABSENT:
            return 0, most
        return len(xs) - self.open(cell, directions, [*leaves(certain, rivals, len(directions), True, {}, {})]), most

    def open(self, cell: Cell, directions: list[Numbers], parts: list[Leaf]) -> int:
        """At most so many inputs are not what the leaves are to show."""
        total = 0
        for leaf in parts:
            for r, pair in enumerate(self.pairs(cell.right, leaf)):
                lost = self.lost(cell, directions, leaf, r, pair)
                if lost and leaf.step is None:
                    return len(cell.runs)
                total += lost
        return min(total, len(cell.runs))

    def pairs(self, right: int, leaf: Leaf) -> list[Pair]:
        """Two outputs, and what the first one's lead over the second must exceed."""
        if leaf.winner is not None:
            return [(leaf.winner, right, -self.margin)]
        return [(right, t, self.margin) for t in range(self.out) if t != right]

    def lost(self, cell: Cell, directions: list[Numbers], leaf: Leaf, row: int, pair: Pair) -> int:
        """At most so many inputs of the cell fail a pair in a leaf, whose multipliers are in that row."""
        raise NotImplementedError

    def heads(self) -> int:
        """Of all contractions: the entries of the pattern's axes but the last."""
        graph, total = self.values_of.graph, 0
        for n in self.mixed:
            pattern = next(a for a in graph.nodes[n].args if graph.nodes[a].op == "softmax")
            total += math.prod(graph.nodes[pattern].shape[:-1])
        return total


def along(row: Numbers, z: list[Interval], centre: Numbers) -> Interval:
    """b . (z - c)"""
    terms = ((Interval(v.lo - c, v.hi - c), b) for b, v, c in zip(row, z, centre, strict=True) if b)
    return sum((x * Interval(b) for x, b in terms), checker.ZERO)


class Most(Claim):
    """What any lines could show at most: an input that is lost to a rival is so in each leaf that has it."""

    def lost(self, cell: Cell, directions: list[Numbers], leaf: Leaf, row: int, pair: Pair) -> int:
        first, second, margin = pair
        leads = (run.y[first] - run.y[second] - Interval(margin) for run in cell.runs)
        return sum(lead.hi <= 0 and leaf.holds(t, surely=True) for t, lead in zip(cell.t, leads, strict=True))

    def open(self, cell: Cell, directions: list[Numbers], parts: list[Leaf]) -> int:
        """Also of inputs too near to a cut to say in which leaf they are."""
        surely = [self.surely(cell.right, run) for run in cell.runs]
        failing = surely.count(parts[0].winner is not None)
        return max(super().open(cell, directions, parts), failing)

    def surely(self, right: int, run: Run) -> bool | None:
        leads = [run.y[right] - run.y[t] - Interval(self.margin) for t in range(self.out) if t != right]
        return False if any(v.hi <= 0 for v in leads) else True if all(v.lo > 0 for v in leads) else None


class Own(Claim):
    """By ranges of the inputs that are there, and affine arithmetic in a leaf's box."""

    def lost(self, cell: Cell, directions: list[Numbers], leaf: Leaf, row: int, pair: Pair) -> int:
        low, high = [], []
        for j in range(len(directions)):
            ends = [(t[j].lo, t[j].hi) for t in cell.t]
            least, most = min(lo for lo, _ in ends), max(hi for _, hi in ends)
            low.append(min(max(leaf.low.get(j, least), least), most))
            high.append(max(min(leaf.high.get(j, most), most), least))
        some = [i for i, t in enumerate(cell.t) if leaf.holds(t, surely=False)]
        if not some:
            return 0
        rests = self.rests(cell, directions)
        y = self.behind(cell.query, tuple(cell.centre), tuple(map(tuple, directions)), tuple(low), tuple(high), rests)
        first, second, margin = pair
        lead = bounds.linear([(1, y[first]), (-1, y[second]), (-1, Value(margin, {}, margin, margin))])
        slopes = [lead.k.get(j, Fraction(0)) * 2 / (b - a) if a < b else Fraction(0)
                  for j, (a, b) in enumerate(zip(low, high, strict=True))]  # fmt: skip
        constant = lead.c - sum(s * (a + b) / 2 for s, a, b in zip(slopes, low, high, strict=True))
        constant -= sum(abs(v) for symbol, v in lead.k.items() if symbol >= len(directions))
        nothing, counts = [Fraction(0)] * len(slopes), []
        for nu in [nothing] if leaf.multipliers is None else [nothing, leaf.multipliers[row]]:  # any are sound
            base = constant - sum(max(k * a, k * b) for k, a, b in zip(nu, low, high, strict=True))
            form = [s + k for s, k in zip(slopes, nu, strict=True)]
            leads = (base + sum(min(s * v.lo, s * v.hi) for s, v in zip(form, t, strict=True)) for t in cell.t)
            counts.append(sum(lead <= 0 for lead in leads))
        return min(counts)

    def rests(self, cell: Cell, directions: list[Numbers]) -> tuple[tuple[Fraction, Fraction], ...]:
        """Of z - c - B^T t, entry by entry, on the cell's inputs."""
        found = []
        for e, c in enumerate(cell.centre):
            left = [run.z[e] - Interval(c) - sum((Interval(row[e]) * x for row, x in zip(directions, t, strict=True)),
                    checker.ZERO) for run, t in zip(cell.runs, cell.t, strict=True)]  # fmt: skip
            found.append((min(v.lo for v in left), max(v.hi for v in left)))
        return tuple(found)

    @kept
    def behind(
        self, query: int, centre: tuple, directions: tuple, low: tuple, high: tuple, rests: tuple
    ) -> list[Value]:
        """The outputs wherever t is in a box: symbol j stands for t_j, from its least value to its greatest."""
        t = [Value((a + b) / 2, {j: (b - a) / 2} if a < b else {}, a, b)
             for j, (a, b) in enumerate(zip(low, high, strict=True))]  # fmt: skip
        z = []
        for c, column, rest in zip(centre, zip(*directions, strict=True), rests, strict=True):
            z.append(bounds.linear([(1, Value(c, {}, c, c)), *zip(column, t, strict=True),
                                    (1, bounds.fixed(Interval(*rest)))]))  # fmt: skip
        given, at = {}, 0
        for n in self.mixed:
            size = math.prod(self.values_of.graph.nodes[n].shape)
            given[n], at = z[at : at + size], at + size
        tokens = self.every_token()
        tokens[self.pin()] = [query]
        return self.row(self.evaluated(bounds.Part(tokens, [], []), given))


def check(data: bytes) -> dict[str, Any]:
    checker.check(data, make=Most)
    try:
        return checker.check(data, make=Own)
    except checker.Rejected as e:
        raise NotConfirmed(str(e)) from e
