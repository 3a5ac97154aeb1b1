"""Dependency analysis: write an output as a sum of ratios of one-token sums.

A value without a computed softmax depends, element by element, on few tokens: it is a table. One
application of attention to such values is

    sum_i exp(s_i) u_i / sum_i exp(s_i),

where s_i and u_i depend on the token at one position (and on the pinned tokens, those that the graph
reads by themselves, such as the query's). Linear operations keep that form. What papers derive by
hand for a one-layer model (EQKE, EVOU, EU) is what `ratio_form` finds in any graph of this shape.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mechverify.kernel.errors import Unsupported
from mechverify.kernel.evaluate import Evaluation, kept
from mechverify.kernel.graph import Graph, Node
from mechverify.kernel.rounding import Ball, Float64

NONE, MIXED = -1, -2  # an element depends on no token, or on several, besides the pinned ones
TABLE_LIMIT = 2**25  # numbers in all tables together


@dataclass(frozen=True)
class Head:
    """One ratio. Terms are for positions `positions` [terms]: `scores` [*pins, vocab, terms] and `values`
    [*pins, vocab, terms, *shape] give s and u for each choice of pinned tokens and of the term's token."""

    positions: np.ndarray
    scores: Ball
    values: Ball


@dataclass(frozen=True)
class RatioForm:
    """`base` [*pins, 1, *shape] plus one ratio a head; `pinned` are the positions that index the pins."""

    pinned: tuple[int, ...]
    base: Ball
    heads: tuple[Head, ...]


@dataclass(frozen=True)
class _Table:
    """A value that is read off a table: `place` [*shape] is the position each element depends on."""

    value: Ball
    place: np.ndarray


@dataclass(frozen=True)
class _Pattern:
    """A softmax of table scores over the last axis; `kept` says which entries the mask leaves."""

    scores: _Table
    kept: np.ndarray


@dataclass(frozen=True)
class _Mixture:
    base: Ball
    heads: tuple[Head, ...]


def ratio_form(graph: Graph, weights: dict[str, np.ndarray], output: int, arithmetic: Float64) -> RatioForm:
    """The ratio form of node `output`, with every table enclosed.

    Precondition: none (Unsupported says what stands in the way). Postcondition: for every input, with
    `q` its pinned tokens, output = base[q] + sum over heads of the ratio above, for reals within the balls.
    Complexity: one evaluation of the graph on vocab^(1 + number of pins) inputs, row by row.
    """
    order = graph.ancestors([output])
    nodes = graph.nodes
    pinned = tuple(sorted({nodes[n].attr[1] for n in order if nodes[n].op == "select" and nodes[n].kind == "ids"}))
    vocab, pins = len(graph.values), len(pinned)
    free = np.broadcast_to(np.arange(vocab)[:, None], (1,) * pins + (vocab, graph.length))

    def selected(position: int) -> np.ndarray:
        shape = [1] * (pins + 1)
        shape[pinned.index(position)] = vocab
        return np.arange(vocab).reshape(shape)

    run = _Analysis(graph, Evaluation(graph, weights, arithmetic, free, selected))
    for n in order:
        run.step(n)
    result = run.found[output]
    if isinstance(result, _Table):
        result = _Mixture(_fixed(result, nodes[output]), ())
    if not isinstance(result, _Mixture):
        raise Unsupported("the output is an attention pattern, not a value")
    return RatioForm(pinned, result.base, result.heads)


class _Analysis:
    def __init__(self, graph: Graph, tables: Evaluation):
        self.graph, self.tables = graph, tables
        self.found: dict[int, _Table | _Pattern | _Mixture | np.ndarray] = {}
        self.batch = tables.batch_axes
        self.room = TABLE_LIMIT
        self.axes: dict[int, tuple[int, ...]] = {}  # batch shape of each table, or of a mixture's values

    def step(self, n: int) -> None:
        node = self.graph.nodes[n]
        args = [self.found[a] for a in node.args]
        if node.op == "tokens":
            self.found[n] = np.arange(self.graph.length)
        elif node.kind == "ids":
            self.found[n] = np.asarray(NONE)  # a pinned token has an axis of its own
        elif node.op == "softmax" and isinstance(args[0], _Table):
            self.found[n] = _Pattern(args[0], np.broadcast_to(kept(node.shape, node.attr), node.shape))
        elif all(isinstance(a, _Table | np.ndarray) for a in args):
            self._reserve(n, node, node.args, 1)
            self.found[n] = _Table(self.tables[n], self._place(node, args))
        else:
            mixtures = [a for a, x in zip(node.args, args, strict=True) if isinstance(x, _Mixture)]
            if isinstance(args[0], _Pattern):
                heads = math.prod(args[0].kept.shape[:-1])
                self._reserve(n, node, node.args[1:], heads * self.graph.length)
            else:
                heads = sum(len(self.found[a].heads) for a in mixtures)
                factors = node.args if node.op != "add" else mixtures
                self._reserve(n, node, factors, (heads + 1) * self.graph.length)
            self.found[n] = self._mix(node, args)

    def _reserve(self, n: int, node: Node, args: Sequence[int], times: int) -> None:
        """Refuse a table before it is made."""
        shapes = []
        for a in args:
            if self.graph.nodes[a].kind == "ids":
                shapes.append(self.tables[a].shape[: self.batch])
            else:
                shapes.append(self.axes.get(a, (1,) * self.batch))
        self.axes[n] = np.broadcast_shapes((1,) * self.batch, *shapes)
        self.room -= math.prod(self.axes[n]) * math.prod(node.shape) * times
        if self.room < 0:
            raise Unsupported(f"tables of more than {TABLE_LIMIT} numbers are needed; the vocabulary is too large")

    def _place(self, node: Node, args: list) -> np.ndarray:
        places = [a.place if isinstance(a, _Table) else a for a in args]
        match node.op:
            case "gather":
                return np.broadcast_to(places[1].reshape(places[1].shape + (1,) * (len(node.shape) - 1)), node.shape) \
                    if places[1].ndim else np.full(node.shape, int(places[1]))  # fmt: skip
            case "select":
                return np.take(places[0], node.attr[1], node.attr[0])
            case "einsum":
                return _join_sum(node.attr, *places)
            case "add" | "mul" | "div" | "sqrt":
                return np.broadcast_to(_join(*places) if len(places) == 2 else places[0], node.shape)
            case "weight" | "natural":
                return np.full(node.shape, NONE)
        raise Unsupported(f"no dependency rule for operation {node.op!r}")

    def _mix(self, node: Node, args: list) -> _Mixture:
        if node.op == "einsum" and isinstance(args[0], _Pattern) and isinstance(args[1], _Table):
            return self._attend(node, *args)
        if node.op == "add" and all(isinstance(a, _Table | _Mixture) for a in args):
            first, second = (self._mixture(a, n) for a, n in zip(args, node.args, strict=True))
            rank = len(node.shape)
            base = self.tables.arithmetic.add(self._align(first.base, rank), self._align(second.base, rank))
            heads = [self._broadcast_head(h, node.shape) for h in first.heads + second.heads]
            return _Mixture(base, tuple(heads))
        if node.op in ("einsum", "mul", "div") and isinstance(args[0], _Mixture) and isinstance(args[1], _Table):
            return self._linear(node, args[0], _fixed(args[1], node))
        raise Unsupported(
            f"operation {node.op!r} on the result of attention is not linear: the output is no sum of one-token terms"
        )

    def _mixture(self, x: _Table | _Mixture, n: int) -> _Mixture:
        return x if isinstance(x, _Mixture) else _Mixture(_fixed(x, self.graph.nodes[n]), ())

    def _align(self, x: Ball, rank: int) -> Ball:
        missing = rank + self.batch - x.mid.ndim
        return x.map(lambda a: np.expand_dims(a, tuple(range(self.batch, self.batch + missing))))

    def _broadcast_head(self, head: Head, shape: tuple[int, ...]) -> Head:
        batch = head.values.mid.shape[: self.batch + 1]
        missing = len(shape) - (head.values.mid.ndim - len(batch))
        place = tuple(range(len(batch), len(batch) + missing))
        values = head.values.map(lambda a: np.broadcast_to(np.expand_dims(a, place), batch + shape))
        return Head(head.positions, head.scores, values)

    def _linear(self, node: Node, x: _Mixture, y: Ball) -> _Mixture:
        ar = self.tables.arithmetic
        if node.op == "einsum":
            first, rest = node.attr.split(",")
            second, result = rest.split("->")
            terms = "Z"  # the axis of terms; graph letters are lower case
            spec = f"{terms}{first},{second}->{terms}{result}"
            base = ar.contract(node.attr, x.base, y, ordered=True)
            heads = [Head(h.positions, h.scores, ar.contract(spec, h.values, y, ordered=True)) for h in x.heads]
            return _Mixture(base, tuple(heads))
        rank = len(node.shape)
        y = self._align(y, rank)
        extra = y.map(lambda a: np.expand_dims(a, self.batch))
        apply = getattr(ar, node.op)
        heads = [self._broadcast_head(h, node.shape) for h in x.heads]
        heads = [Head(h.positions, h.scores, apply(h.values, extra)) for h in heads]
        return _Mixture(apply(self._align(x.base, rank), y), tuple(heads))

    def _attend(self, node: Node, pattern: _Pattern, values: _Table) -> _Mixture:
        """pattern [heads.., i] times values over i: one ratio for each head."""
        first, rest = node.attr.split(",")
        second, result = rest.split("->")
        term, head_letters = first[-1], first[:-1]
        if term in result or not set(result) <= set(second) or not set(head_letters) <= set(result):
            raise Unsupported(f"attention applied as {node.attr!r} is not a sum over the pattern's last axis")
        order = [second.index(term)] + [second.index(c) for c in result]

        def arrange(a: np.ndarray, batch: int) -> np.ndarray:
            return a.transpose([*range(batch), *(batch + axis for axis in order)])

        value, place = values.value.map(lambda a: arrange(a, self.batch)), arrange(values.place, 0)
        heads = []
        shape = pattern.scores.place.shape[:-1]
        for h in np.ndindex(shape):
            keep = np.flatnonzero(pattern.kept[h])
            own = (slice(None), *(dict(zip(head_letters, h, strict=True)).get(c, slice(None)) for c in result))
            place_h = self._own(place, 0, own, keep, NONE)
            positions = self._positions(pattern.scores.place[h][keep], place_h)
            scores = pattern.scores.value.map(lambda a, h=h, keep=keep: a[(..., *h, slice(None))][..., keep])
            mine = value.map(lambda a, own=own, keep=keep: self._own(a, self.batch, own, keep, 0.0))
            heads.append(Head(positions, scores, mine))
        return _Mixture(self.tables.arithmetic.exact(np.zeros((1,) * self.batch + node.shape)), tuple(heads))

    @staticmethod
    def _own(a: np.ndarray, batch: int, own: tuple, keep: np.ndarray, rest) -> np.ndarray:
        """The terms that are kept, with `rest` wherever the output belongs to another head."""
        result = np.full_like(a, rest)
        index = (slice(None),) * batch + own
        result[index] = a[index]
        return np.take(result, keep, batch)

    @staticmethod
    def _positions(scores: np.ndarray, values: np.ndarray) -> np.ndarray:
        """The one position that each term depends on; terms must not share one."""
        positions = scores
        for column in values.reshape(len(values), -1).T:
            positions = _join(positions, column)
        if (positions < 0).any() or len(set(positions.tolist())) < len(positions):
            raise Unsupported("the attention's terms don't each depend on one token of their own")
        return positions


def _fixed(table: _Table, node: Node) -> Ball:
    """A table that depends on pinned tokens alone."""
    if (table.place != NONE).any():
        raise Unsupported(f"the result of {node.op!r} mixes attention with values at unpinned tokens")
    return table.value


def _join(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """The position that a function of two elements depends on."""
    first, second = np.broadcast_arrays(first, second)
    return np.where(first == NONE, second, np.where((second == NONE) | (second == first), first, MIXED))


def _join_sum(spec: str, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Places of a contraction: joined over everything that one output element sums."""
    operands, result = spec.split("->")
    terms = operands.split(",")
    letters = "".join(dict.fromkeys("".join(terms)))
    summed = [c for c in letters if c not in result]
    order = summed + list(result)

    def spread(place: np.ndarray, term: str) -> np.ndarray:
        present = [c for c in order if c in term]
        moved = place.transpose([term.index(c) for c in present])
        return moved.reshape([moved.shape[present.index(c)] if c in present else 1 for c in order])

    low = _join(spread(first, terms[0]), spread(second, terms[1]))
    for _ in summed:
        smallest = np.where(low == NONE, np.iinfo(np.int64).max, low).min(0)
        largest = low.max(0)
        agreed = np.where(largest == NONE, NONE, np.where(smallest == largest, largest, MIXED))
        low = np.where(smallest == MIXED, MIXED, agreed)
    return low
