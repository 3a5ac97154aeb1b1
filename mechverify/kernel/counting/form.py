"""Dependency analysis: write an output as a sum of ratios of one-token sums, one ratio for each attention head.

Values that depend on the query's token alone, and rows that depend on it and on the token of that row, are tables.
Attention over such rows is, for each head h,

    sum_i e^(s_hi) u_hi / sum_i e^(s_hi),

and a linear operation on a sum of such ratios is one again. What is not on the lists below is refused, so that nothing
is assumed of the graph: it may be a known architecture's or a captured module's.

Lemma R1 (docs/soundness/ratios.md).
"""

from collections.abc import Callable
from fractions import Fraction
from functools import partial
from itertools import product
from math import prod
from typing import Any, NamedTuple

import numpy as np

from mechverify.kernel.core.arithmetic import Arithmetic, Ball, aligned
from mechverify.kernel.core.errors import Unsupported
from mechverify.kernel.core.evaluate import Evaluation
from mechverify.kernel.core.graph import Graph, Node, entries
from mechverify.kernel.core.meter import reserve
from mechverify.kernel.core.narrowing import narrowed
from mechverify.kernel.core.operations.contraction import products
from mechverify.kernel.core.operations.softmax import kept
from mechverify.kernel.core.semantics import Real
from mechverify.kernel.counting.owners import NONE, Owners, owners, query

HEADS = 64  # ratios of one sum
MOVED = 4  # units of work for a number of a ball that is only moved


class SumOfRatios(NamedTuple):
    """With q the token at position `pin`: output = base[q] + sum_h sum_i e^(s_hi) u_hi / sum_i e^(s_hi), over the
    positions i that head h `attends` to, s_hi = score[h, q, x_i, i] and u_hi = value[h, q, x_i, i]. Shapes: base [q or
    1, *shape], score [heads, q or 1, vocab, length], value [heads, q or 1, vocab, length, *shape], attends [heads,
    length]."""

    pin: int
    base: Ball
    score: Ball
    value: Ball
    attends: np.ndarray


class _Table(NamedTuple):
    """A value that is read off a table; `owners` as in owners.py."""

    value: Ball
    owners: Owners


class _Ratio(NamedTuple):
    """One head: score [q or 1, vocab, length], value [q or 1, vocab, length, *shape], attends [length]."""

    score: Ball
    value: Ball
    attends: np.ndarray


class _Sum(NamedTuple):
    """base [q or 1, 1, *shape] and the ratios that are added to it."""

    base: Ball
    ratios: list[_Ratio]


def sum_of_ratios(
    graph: Graph, weights: dict[str, np.ndarray], semantics: Real, output: int
) -> SumOfRatios:
    """The form of node `output`, with every table enclosed under `semantics`.

    Precondition: none (Unsupported says what stands in the way). Postcondition: for every input and every evaluation
    that it speaks of, the output has the form above for reals within the balls. Complexity: one evaluation of the
    graph on vocab^2 inputs, row by row; heads times outputs for what comes after attention.
    """
    graph = graph.copy()
    output = row_by_row(graph, output)
    order, nodes = graph.ancestors([output]), graph.nodes
    pin = query(graph, order)
    vocab = np.arange(len(graph.values))
    free = np.broadcast_to(vocab[None, :, None], (1, len(vocab), graph.length))
    tables = Evaluation(graph, weights, semantics, free, lambda _: vocab[:, None])
    found: dict[int, Any] = {}
    for n in order:
        node = nodes[n]
        args = [found[a] for a in node.args]
        if any(nodes[a].op == "softmax" for a in node.args):
            found[n] = _attend(tables, node, found)  # also a softmax: these are scores
        elif node.op == "softmax":
            if type(args[0]) is not _Table:
                raise Unsupported(
                    "attention reads the result of attention: one layer of it is known"
                )
            found[n] = args[0]  # its scores
        elif any(type(a) is _Sum for a in args):
            found[n] = _linear(tables, node, args)
        else:
            semantics.ar.step(prod(node.shape), 1, 1)
            owned = owners(graph, node, [a.owners for a in args])
            found[n] = _Table(tables[n], owned)  # not before: it may be refused
    if type(found[output]) is not _Sum:
        raise Unsupported("the output doesn't go through attention")
    return _stacked(semantics.ar, pin, found[output])


def row_by_row(graph: Graph, output: int) -> int:
    """A node of equal value, in which a view of one row of a value depends on that row alone."""
    made: dict[int, int] = {}
    for n in graph.ancestors([output]):
        node = graph.nodes[n]
        made[n] = narrowed(
            graph, graph.add(node.op, *(made[a] for a in node.args), attr=node.attr)
        )
    return made[output]


def _attend(tables: Evaluation, node: Node, found: dict[int, Any]) -> _Sum:
    """A contraction of a pattern with values over its last axis: a ratio for each place in the pattern's other axes."""
    graph, semantics = tables.graph, tables.semantics
    at = [graph.nodes[a].op == "softmax" for a in node.args]
    if node.op != "einsum" or sum(at) != 1:
        raise Unsupported(
            "an attention pattern is used for something else than attending"
        )
    first, second, result = node.attr.replace("->", ",").split(",")
    first, second = (first, second) if at[0] else (second, first)
    pattern, other = (node.args[i] for i in ((0, 1) if at[0] else (1, 0)))
    scores, values, term = found[pattern], found[other], first[-1]
    if (
        type(values) is not _Table
        or term in result
        or not _own(scores.owners, len(first) - 1)
    ):
        raise Unsupported(
            f"attention applied as {node.attr!r} is not a sum over positions"
        )
    shape = graph.nodes[pattern].shape
    if shape[-1] != graph.length or not _own(values.owners, second.index(term)):
        raise Unsupported(
            "the attention's terms don't each depend on one token of their own"
        )
    sizes = dict(zip(first + second, (*shape, *graph.nodes[other].shape), strict=True))
    summed = prod(size for letter, size in sizes.items() if letter not in result)
    heads = [*product(*map(range, shape[:-1]))]
    vocab, rows = len(graph.values), len(values.value.mid)
    if len(heads) > HEADS:
        raise Unsupported(f"{len(heads)} heads, or rows of a pattern (limit {HEADS})")
    held = len(heads), rows, vocab, graph.length, *node.shape
    reserve(*held)
    semantics.ar.step(prod(held), len(heads), MOVED)
    whole = semantics.attended(values.value, summed)
    masks = np.broadcast_to(kept(graph.nodes[pattern]), shape)
    ratios = []
    for head in heads:
        where = dict(zip(first[:-1], head, strict=True))
        score = _in_positions(
            semantics,
            scores.value.map(lambda a, head=head: a[:, :, *head]),
            vocab,
            masks[head],
        )
        place = partial(
            _placed,
            second=second,
            result=result,
            term=term,
            where=where,
            shape=node.shape,
            vocab=vocab,
        )
        ratios.append(_Ratio(score, whole.map(place), masks[head]))
    return _Sum(semantics.ar.whole(np.zeros((1, 1, *node.shape), np.int64)), ratios)


def _own(owners: Owners, axis: int) -> bool:
    """The i-th slice along the axis depends on no token but that of position i."""
    place = np.arange(owners.shape[axis]).reshape(-1, *(1,) * (owners.ndim - axis - 1))
    return bool(((owners == NONE) | (owners == place)).all())


def _in_positions(
    semantics: Real, score: Ball, vocab: int, attends: np.ndarray
) -> Ball:
    """Scores [q or 1, vocab or 1, length] of the positions that are attended to, as softmax reads them; others zero."""
    at = np.flatnonzero(attends)
    read = semantics.scores(score.map(lambda a: a[..., at]), (1, 2))

    def spread(a: np.ndarray) -> np.ndarray:
        wide = np.zeros((len(a), vocab, len(attends)), a.dtype)
        wide[..., at] = a
        return wide

    return read.map(spread)


def _placed(
    a: np.ndarray,
    second: str,
    result: str,
    term: str,
    where: dict[str, int],
    shape: tuple[int, ...],
    vocab: int,
) -> np.ndarray:
    """One head's values [q or 1, vocab, length, *shape] from those of all, [q or 1, vocab or 1, *second]: zero in the
    places of the others. `where`: the head's index along each letter."""
    mine = a[
        :,
        :,
        *(slice(where[c], where[c] + 1) if c in where else slice(None) for c in second),
    ]
    lost = [
        c for c in second if c in where and c not in result
    ]  # of these the sum runs over heads
    mine = mine.squeeze(tuple(2 + second.index(c) for c in lost))
    left = [c for c in second if c not in lost]
    present = [c for c in result if c in left]
    mine = mine.transpose(0, 1, *(2 + left.index(c) for c in (term, *present)))
    mine = mine.reshape(
        *mine.shape[:3],
        *(mine.shape[3 + present.index(c)] if c in present else 1 for c in result),
    )
    whole = np.zeros((len(a), vocab, mine.shape[2], *shape), a.dtype)
    whole[
        :,
        :,
        :,
        *(slice(where[c], where[c] + 1) if c in where else slice(None) for c in result),
    ] = mine
    return whole


def _linear(tables: Evaluation, node: Node, args: list[Any]) -> _Sum:
    """An operation that is linear in sums of ratios, the other operand depending on the pinned token alone. A rounding
    error is a factor of the whole, so that each part may bear it."""
    graph, semantics = tables.graph, tables.semantics
    sums = [a for a in args if type(a) is _Sum]
    others = [a.value for a in args if type(a) is _Table and (a.owners == NONE).all()]
    if len(sums) + len(others) != len(args):
        raise Unsupported(
            f"{node.op!r} joins the result of attention with something else that reads tokens"
        )
    (total, *more), first = sums, type(args[0]) is _Sum
    same = all(
        graph.nodes[n].shape == node.shape
        for n, a in zip(node.args, args, strict=True)
        if type(a) is _Sum
    )
    match node.op:
        case "add" | "sub" if same:
            minus = node.op == "sub"
            left, right = (
                a
                if type(a) is _Sum
                else _Sum(tables.align(a.value, len(node.shape)), [])
                for a in args
            )
            right = _each(right, lambda x: -x, lambda x: -x) if minus else right
            terms = products(graph, node)
            base = semantics.add(left.base, right.base, terms)
            parts = [(left.ratios, terms[1]), (right.ratios, terms[0])]
            return _Sum(
                base,
                [
                    r._replace(value=semantics.alone(r.value, n))
                    for part, n in parts
                    for r in part
                ],
            )
        case "einsum" if not more:
            factor, deep = others[0], others[0].map(lambda a: a[:, :, None])
            _reserve(graph, node, total, len(factor.mid))
            order = (lambda x, y: (x, y)) if first else (lambda x, y: (y, x))
            contract = partial(semantics.contract, node.attr)
            return _each(
                total,
                lambda x: contract(*order(x, factor)),
                lambda x: contract(*order(x, deep)),
            )
        case "mul" if not more and same:
            factor = tables.align(others[0], len(node.shape))
            _reserve(graph, node, total, len(factor.mid))
            deep = factor.map(lambda a: a[:, :, None])
            return _each(
                total,
                lambda x: semantics.mul(x, factor),
                lambda x: semantics.mul(x, deep),
            )
        case "over_root":
            root = semantics.sqrt(semantics.ar.rational(Fraction(node.attr)))
            return _each(
                total,
                lambda x: semantics.div(x, root),
                lambda x: semantics.div(x, root),
            )
        case "concat":
            return _concatenated(tables, node, args)
        case "view" | "select":
            shape = graph.nodes[node.args[0]].shape
            held = sum(r.value.mid.size for r in total.ratios)
            semantics.ar.step(
                held + _reserve(graph, node, total, 1), len(total.ratios), MOVED
            )
            return _each(
                total,
                lambda x: _moved(x, 2, shape, node),
                lambda x: _moved(x, 3, shape, node),
            )
    raise Unsupported(
        f"{node.op!r} on the result of attention is not linear, or its factor reads other tokens"
    )


def _concatenated(tables: Evaluation, node: Node, args: list[Any]) -> _Sum:
    """Each part in its place, among zeros."""
    graph, axis, axes = tables.graph, node.attr, len(node.shape)
    base = tables.semantics.ar.whole(np.zeros((1, 1, *node.shape), np.int64))
    ratios, start = [], 0
    for a, n in zip(args, node.args, strict=True):
        end = start + graph.nodes[n].shape[axis]
        place = partial(_among, axis=axis, start=start, shape=node.shape)
        part = a if type(a) is _Sum else _Sum(tables.align(a.value, axes), [])
        _reserve(graph, node, part, len(part.base.mid))
        base = tables.semantics.ar.add(base, part.base.map(place))
        ratios += [r._replace(value=r.value.map(place)) for r in part.ratios]
        start = end
    return _Sum(base, ratios)


def _among(a: np.ndarray, axis: int, start: int, shape: tuple[int, ...]) -> np.ndarray:
    """The last axes filled up with zeros to a shape, this part's entries being from `start` on along one of them."""
    leading = a.ndim - len(shape)
    part = list(shape)
    part[axis] = a.shape[leading + axis]
    whole = np.zeros((*a.shape[:leading], *shape), a.dtype)
    at = [slice(None)] * whole.ndim
    at[leading + axis] = slice(start, start + part[axis])
    whole[tuple(at)] = a
    return whole


def _reserve(graph: Graph, node: Node, total: _Sum, rows: int) -> int:
    """Room for values of the node's shape, one for each ratio, and how many numbers that are; `rows` of query tokens
    are those of another operand."""
    rows = max([rows, *(len(r.value.mid) for r in total.ratios)])
    sizes = len(total.ratios), rows, len(graph.values), graph.length, *node.shape
    reserve(*sizes)
    return prod(sizes)


def _each(
    total: _Sum, of_base: Callable[[Ball], Ball], of_value: Callable[[Ball], Ball]
) -> _Sum:
    return _Sum(
        of_base(total.base), [r._replace(value=of_value(r.value)) for r in total.ratios]
    )


def _moved(x: Ball, leading: int, shape: tuple[int, ...], node: Node) -> Ball:
    """The entries that a view or a slice of a value of that shape reads; `leading` axes come before the shape's."""
    if node.op == "select":
        axis, index = node.attr
        return x.map(lambda a: np.take(a, index, leading + axis))
    at = entries(node.attr)

    def read(a: np.ndarray) -> np.ndarray:
        return np.broadcast_to(a, (*a.shape[:leading], *shape)).reshape(
            *a.shape[:leading], -1
        )[..., at]

    return x.map(read)


def _stacked(ar: Arithmetic, pin: int, total: _Sum) -> SumOfRatios:
    """All heads side by side."""
    score, value = [r.score for r in total.ratios], [r.value for r in total.ratios]
    attends = np.array([r.attends for r in total.ratios])
    return SumOfRatios(
        pin,
        total.base.map(lambda a: a[:, 0]),
        _stack(ar, score),
        _stack(ar, value),
        attends,
    )


def _stack(ar: Arithmetic, balls: list[Ball]) -> Ball:
    """Along a new first axis, rows of query tokens alike."""
    rows = max(len(b.mid) for b in balls)
    reserve(len(balls), rows, *balls[0].mid.shape[1:])
    parts = [
        b.map(lambda a: np.broadcast_to(a, (rows, *a.shape[1:])))
        for b in aligned(ar, *balls)
    ]
    return Ball(
        np.stack([p.mid for p in parts]),
        np.stack([p.rad for p in parts]),
        parts[0].exponent,
    )
