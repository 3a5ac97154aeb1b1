"""Dependency analysis: write an output as a ratio of sums of one-token terms.

Most values of a one-layer model depend on few tokens, so they are tables: those that the graph reads by
themselves (the query's, "pinned"), and, row by row, the token of that row. One application of attention to such
rows is

    sum_i e^(s_i) u_i / sum_i e^(s_i),

s_i and u_i depending on the pinned token and on the token at position i, and linear operations keep that form. A layer
of ReLU neurons that read such values is kept as it is: the output is such a form plus multiples of the neurons.
This is what papers derive by hand for a one-layer model (EQKE, EVOU, EU).

Lemma F1 (docs/soundness/fold.md).
"""

from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np

from mechverify.kernel.core.arithmetic import Ball
from mechverify.kernel.core.errors import Unsupported
from mechverify.kernel.core.evaluate import Evaluation
from mechverify.kernel.core.graph import Graph, Node
from mechverify.kernel.core.meter import reserve
from mechverify.kernel.core.operations.contraction import products
from mechverify.kernel.core.operations.softmax import kept
from mechverify.kernel.core.semantics import Real


class RatioForm(NamedTuple):
    """With q the token at position `pin`: output = base[q] + sum_i e^(s_i) u_i / sum_i e^(s_i), s = score[q, x_i, i]
    and u = value[q, x_i, i], over the positions i < `attended`. Shapes: base [q or 1, 1, *shape], score [q or 1,
    vocab, attended], value [q or 1, vocab, attended, *shape]."""

    pin: int
    attended: int
    base: Ball
    score: Ball
    value: Ball
    neurons: "Neurons | None"


class Neurons(NamedTuple):
    """Added to the output: sum_j coefficient[q, j] relu(z_j), z_j = base[q, j] + sum_i e^(s_i) u_ij / sum_i e^(s_i),
    with the same scores. Shapes: base [q or 1, 1, neurons], value [q or 1, vocab, attended, neurons], coefficient
    [q or 1, 1, neurons, *shape]."""

    base: Ball
    value: Ball
    coefficient: Ball


class _Table(NamedTuple):
    """A value that is read off a table; `axis` is the one whose i-th slice depends on token i (None: no axis)."""

    value: Ball
    axis: int | None


class _Mixture(NamedTuple):
    """A value as in RatioForm; `neurons` are the coefficients there."""

    base: Ball
    score: Ball
    value: Ball
    neurons: Ball | None


def ratio_form(graph: Graph, weights: dict[str, np.ndarray], model: Real, output: int) -> RatioForm:
    """The ratio form of node `output`, with every table enclosed as `model` computes it.

    Precondition: none (Unsupported says what stands in the way). Postcondition: for every input and every
    evaluation that `model` speaks of, the output has the form above for reals within the balls.
    Complexity: one evaluation of the graph on vocab^2 inputs, row by row.
    """
    order, nodes = graph.ancestors([output]), graph.nodes
    if any(nodes[n].kind == "ids" and nodes[n].op == "view" for n in order):
        raise Unsupported("rule fold reads tokens in their own order")
    pinned = {nodes[n].attr[1] for n in order if nodes[n].op == "select" and nodes[n].kind == "ids"}
    if len(pinned) != 1:
        raise Unsupported(f"the output reads {len(pinned)} tokens by themselves; rule fold needs one (a query)")
    vocab = np.arange(len(graph.values))
    free = np.broadcast_to(vocab[None, :, None], (1, len(vocab), graph.length))
    tables = Evaluation(graph, weights, model, free, lambda _: vocab[:, None])
    found: dict[int, Any] = {}
    neurons: Neurons | None = None
    for n in order:
        node = nodes[n]
        args = [found[a] for a in node.args]
        patterns = [nodes[a] for a in node.args if nodes[a].op == "softmax"]
        if patterns and (node.op != "einsum" or patterns != [nodes[node.args[0]]] or type(args[1]) is not _Table):
            raise Unsupported("an attention pattern is used for something else than attending")
        if patterns:
            found[n] = _attend(tables, node, patterns[0], found[patterns[0].args[0]], args[1])
        elif node.op == "relu" and type(args[0]) is _Mixture:
            if neurons is not None:
                raise Unsupported("rule fold needs one layer of neurons")
            neurons, found[n] = _neurons(tables.model, node, args[0])
        elif any(type(a) is _Mixture for a in args):
            found[n] = _linear(tables, node, args)
        elif node.kind == "ids":
            found[n] = _Table(tables[n], 0 if node.op == "tokens" else None)  # a pinned token has an axis of its own
        else:
            found[n] = None if node.op == "softmax" else _Table(tables[n], _axis(graph, node, [a.axis for a in args]))
    result = found[output]
    if type(result) is not _Mixture:
        raise Unsupported("the output doesn't go through attention")
    base, score, value, coefficient = result
    read = None
    if coefficient is not None:
        assert neurons is not None  # whose coefficient it is
        read = neurons._replace(coefficient=coefficient)
    return RatioForm(pinned.pop(), score.mid.shape[-1], base, score, value, read)


def _axis(graph: Graph, node: Node, axes: list) -> int | None:
    """The axis along which the result depends on each position's token, given those of the operands."""
    if all(axis is None for axis in axes):
        return None
    shapes = [graph.nodes[a].shape for a in node.args]
    match node.op:
        case "gather":
            return axes[1]
        case "over_root":
            return axes[0]
        case "select" if axes[0] != node.attr[0]:
            return axes[0] - (axes[0] > node.attr[0])
        case "add":
            places = {axis + len(node.shape) - len(s) for axis, s in zip(axes, shapes, strict=True) if axis is not None}
            if len(places) == 1 and all(a is None or s[a] == graph.length for a, s in zip(axes, shapes, strict=True)):
                return places.pop()
        case "einsum":
            *terms, result = node.attr.replace("->", ",").split(",")
            letters = {term[axis] for term, axis in zip(terms, axes, strict=True) if axis is not None}
            if len(letters) == 1 and letters <= set(result):
                return result.index(letters.pop())
    raise Unsupported(f"the result of {node.op!r} mixes the tokens of several positions before attention does")


def _attend(tables: Evaluation, node: Node, pattern: Node, scores: _Table, values: _Table) -> _Mixture:
    """pattern [.., i] times values over i, for one head: its ratio."""
    first, second, result = node.attr.replace("->", ",").split(",")
    if pattern.shape[:-1] != (1,) * (len(first) - 1):
        raise Unsupported(f"rule fold needs one attention head read at one position; this pattern is {pattern.shape}")
    term = first[-1]
    if scores.axis not in (None, len(first) - 1) or term not in second or not set(result) <= set(second) - {term}:
        raise Unsupported(f"attention applied as {node.attr!r} is not a sum over positions")
    if values.axis not in (None, second.index(term)):
        raise Unsupported("the attention's terms don't each depend on one token of their own")
    model, vocab, positions = tables.model, len(tables.graph.values), np.flatnonzero(kept(pattern))
    order = [0, 1, *(2 + second.index(c) for c in (term, *result))]
    reserve(len(values.value.mid), vocab, len(positions), *node.shape)

    def widened(a: np.ndarray) -> np.ndarray:  # to the token axis, which a constant lacks
        return np.broadcast_to(a, (a.shape[0], vocab, *a.shape[2:]))

    score = scores.value.map(lambda a: widened(a.reshape(*a.shape[:2], -1)[..., positions]))
    value = values.value.map(lambda a: widened(a.transpose(order)[:, :, positions]))
    zero = model.ar.whole(np.zeros((1, 1, *node.shape), np.int64))
    return _Mixture(zero, model.scores(score, (1, 2)), model.attended(value, pattern.shape[-1]), None)


def _linear(tables: Evaluation, node: Node, args: list) -> _Mixture:
    """A linear operation: the sum of two mixtures; or with a factor, or an addend, that depends on the pinned token
    alone. A rounding error is a factor of the whole, so that each part may bear it."""
    model, mixtures = tables.model, [a for a in args if type(a) is _Mixture]
    mixture = mixtures[0]
    others = [a.value for a in args if type(a) is _Table and a.axis is None]
    sums = products(tables.graph, node)
    sums = sums if args[0] is mixture else sums[::-1]
    scaled = node.op == "einsum" and args[0] is mixture and len(mixtures) == 1
    if len(mixtures) + len(others) != 2 or not (node.op == "add" or scaled):
        raise Unsupported(f"{node.op!r} on the result of attention is not linear, or its factor reads other tokens")
    if not scaled and any(m.value.mid.ndim - 3 != len(node.shape) for m in mixtures):
        raise Unsupported("'add' spreads the result of attention over further axes")
    if len(mixtures) == 2:
        other = mixtures[1]
        if other.score is not mixture.score:
            raise Unsupported("two applications of attention are added")
        base, value = (model.add(x, y, sums) for x, y in ((mixture.base, other.base), (mixture.value, other.value)))
        return _Mixture(base, mixture.score, value, _added(model, mixture.neurons, other.neurons, sums))
    neurons = mixture.neurons
    if node.op == "add":
        base = model.add(mixture.base, tables.align(others[0], len(node.shape)), sums)
        value = _alone(model, mixture.value, sums[1])
        return _Mixture(base, mixture.score, value, _added(model, neurons, None, sums))
    reserve(*mixture.value.mid.shape[:3], *node.shape)
    factor = others[0].map(lambda a: a[:, :, None])
    base = model.contract(node.attr, mixture.base, others[0])
    value = model.contract(node.attr, mixture.value, factor)
    neurons = None if neurons is None else model.contract(node.attr, neurons, factor)
    return _Mixture(base, mixture.score, value, neurons)


def _added(model: Real, x: Ball | None, y: Ball | None, sums: tuple[int, ...]) -> Ball | None:
    """A part of a sum (see Real.add); None is zero."""
    if x is not None and y is not None:
        return model.add(x, y, sums)
    if x is not None:
        return _alone(model, x, sums[1])
    return None if y is None else _alone(model, y, sums[0])


def _alone(model: Real, x: Ball, n: int) -> Ball:
    """A part of a sum that the other operand, a sum of n products (0: none), lacks."""
    return model.rounded(x, n + 2 if n else 1)


def _neurons(model: Real, node: Node, z: _Mixture) -> tuple[Neurons, _Mixture]:
    """relu of a vector of mixtures. The neurons are scaled by a power of two so that their sum is at most one, as that
    of attention's weights is: what a semantics says of the size of a value holds for their coefficients as well."""
    if z.neurons is not None or len(node.shape) != 1:
        raise Unsupported("rule fold needs one layer of neurons, read at one position")
    ar, m = model.ar, node.shape[0]
    reserve(m, m)
    size = ar.add(z.base.map(lambda a: a[:, :, None]), z.value).size
    shift = int(ar.mantissa(ar.add(size, ar.rational(Fraction(1))))[1].max()) + 1 + m.bit_length()
    down = np.array(-shift)
    eye = ar.exact(np.ldexp(np.eye(m), shift).reshape(1, 1, m, m))
    flat = _Mixture(z.base.map(np.zeros_like), z.score, z.value.map(np.zeros_like), eye)
    return Neurons(ar.scale(z.base, down), ar.scale(z.value, down), eye), flat
