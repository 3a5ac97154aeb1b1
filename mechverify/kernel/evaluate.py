"""The value of graph nodes on given tokens: reals as balls, integers exactly."""

import math
from collections.abc import Callable

import numpy as np

from mechverify.kernel.elementary import exp
from mechverify.kernel.errors import Rejected, Unsupported
from mechverify.kernel.graph import INT_LIMIT, Graph, Node
from mechverify.kernel.rounding import Ball, Float64


def integers(graph: Graph, node: Node, args: list[np.ndarray], tokens: Callable[[int], np.ndarray]) -> np.ndarray:
    """One integer operation, elementwise over int64 arrays that broadcast; exact, since every node's
    span is below 2^62. `tokens(i)` gives the token ids at position i."""
    match node.op:
        case "value":
            return np.asarray(graph.values, np.int64)[tokens(node.attr)]
        case "integer":
            return np.asarray(node.attr, np.int64)
        case "eq":
            return (args[0] == args[1]).astype(np.int64)
        case "lt":
            return (args[0] < args[1]).astype(np.int64)
        case "le":
            return (args[0] <= args[1]).astype(np.int64)
        case "not":
            return 1 - args[0]
        case "mod":
            return args[0] % node.attr
        case "floordiv":
            return args[0] // node.attr
        case "where":
            return np.where(args[0] == 1, args[1], args[2])
        case op if op in FOLDS:
            state = absorb(node, None, args)
            return state[..., -1]
    raise Rejected(f"{node.op!r} is not an integer operation")


BATCH_NUMBERS = 2**24  # held at a time by an evaluation, in one of its about four arrays

# Associative, commutative operations: what is known of the operands read so far is a small state.
FOLDS = {
    "sum": np.add,
    "product": np.multiply,
    "max": np.maximum,
    "min": np.minimum,
    "and": np.minimum,
    "or": np.maximum,
    "kth_largest": None,
}


def absorb(node: Node, state: np.ndarray | None, args: list[np.ndarray]) -> np.ndarray:
    """The state of a fold after further operands: int64 [..., width], the result last.

    `kth_largest` keeps the k largest so far, in descending order, padded with -2^62 (below every value).
    """
    if node.op != "kth_largest":
        for arg in args:
            state = arg[..., None] if state is None else FOLDS[node.op](state, arg[..., None])
        return state
    for arg in args:
        if state is None:
            state = np.full((*np.shape(arg), node.attr), -INT_LIMIT, np.int64)
        shape = np.broadcast_shapes(state.shape[:-1], np.shape(arg))
        column = np.broadcast_to(arg, shape)[..., None]
        both = np.concatenate([np.broadcast_to(state, (*shape, node.attr)), column], -1)
        state = -np.sort(-both, -1)[..., : node.attr]
    return state


def _softmax_factors(arithmetic: Float64, scores: Ball, kept: np.ndarray) -> Ball:
    """exp(score - c) over the last axis, c the largest kept centre; exactly zero where not kept."""
    mid, rad = np.broadcast_arrays(scores.mid, scores.rad)
    top = np.where(kept, mid, -np.inf).max(-1, keepdims=True)
    shifted = arithmetic.sub(Ball(np.where(kept, mid, top), np.where(kept, rad, 0.0)), arithmetic.exact(top))
    factors = exp(arithmetic, shifted)
    return Ball(np.where(kept, factors.mid, 0.0), np.where(kept, factors.rad, 0.0))


def kept(shape: tuple[int, ...], mask: str | int | None) -> np.ndarray:
    """Which entries of scores [..., j, i] a softmax keeps, as booleans that broadcast to `shape`."""
    n = shape[-1]
    if mask == "causal":
        return np.tril(np.ones((n, n), bool))
    return np.arange(n) < (n if mask is None else mask)


def batch_size(graph: Graph, roots: list[int]) -> int:
    """How many inputs can be evaluated at a time in bounded memory; rejects a graph too large for one."""
    numbers = sum(math.prod(graph.nodes[n].shape) for n in graph.ancestors(roots))
    if numbers > BATCH_NUMBERS:
        raise Unsupported(f"one evaluation needs {numbers} numbers (limit {BATCH_NUMBERS})")
    return max(1, min(2**13, BATCH_NUMBERS // (8 * numbers)))


class Evaluation:
    """Values of nodes, computed once each.

    `tokens` are ids [..., length] and `selected(j)` the ids [...] at position j; the leading axes are
    batch axes, equal in number everywhere and of size one where a value doesn't vary. `ordered` gives
    the same bits on every machine; without it products may go through BLAS.
    """

    def __init__(
        self, graph: Graph, weights: dict[str, np.ndarray], arithmetic: Float64,
        tokens: np.ndarray, selected: Callable[[int], np.ndarray] | None = None, ordered: bool = True,
    ):  # fmt: skip
        self.graph, self.weights, self.arithmetic, self.ordered = graph, weights, arithmetic, ordered
        self.tokens = tokens
        self.selected = selected or (lambda j: tokens[..., j])
        self.batch_axes = tokens.ndim - 1
        self._values: dict[int, Ball | np.ndarray] = {}

    def __getitem__(self, node: int):
        """A Ball [*batch, *shape] for a real node; an int64 array [*batch] for ids and integers."""
        for n in self.graph.ancestors([node]):
            if n not in self._values:
                self._values[n] = self._compute(self.graph.nodes[n])
        return self._values[node]

    def _constant(self, values: np.ndarray) -> Ball:
        return self.arithmetic.exact(values.reshape((1,) * self.batch_axes + values.shape))

    def _align(self, x: Ball, rank: int) -> Ball:
        """Put axes of size one between batch and shape, so that operands broadcast on the right."""
        missing = rank + self.batch_axes - x.mid.ndim
        place = tuple(range(self.batch_axes, self.batch_axes + missing))
        return x.map(lambda a: np.expand_dims(a, place))

    def _compute(self, node: Node):
        args = [self._values[a] for a in node.args]
        ar = self.arithmetic
        match node.op:
            case "tokens":
                return self.tokens
            case "select" if node.kind == "ids":
                return self.selected(node.attr[1])
            case "select":
                axis, index = node.attr
                return args[0].map(lambda a: np.take(a, index, axis + self.batch_axes))
            case "weight":
                return self._constant(weight(self.weights, *node.attr))
            case "natural":
                return self._constant(np.asarray(float(node.attr)))
            case "gather":
                table = self.graph.nodes[node.args[0]].attr
                return ar.exact(weight(self.weights, *table)[args[1]])
            case "sqrt":
                return ar.sqrt(args[0])
            case "add" | "mul" | "div":
                first, second = (self._align(a, len(node.shape)) for a in args)
                return getattr(ar, node.op)(first, second)
            case "einsum":
                return ar.contract(node.attr, args[0], args[1], self.ordered)
            case "softmax":
                factors = _softmax_factors(ar, args[0], kept(node.shape, node.attr))
                return ar.div(factors, ar.sum(factors, -1))
            case _:
                return integers(self.graph, node, args, self.selected)


def weight(weights: dict[str, np.ndarray], name: str, shape: tuple[int, ...]) -> np.ndarray:
    """The leading part of a weight tensor (a shorter sequence uses the first positions)."""
    value = weights.get(name)
    if value is None or value.ndim != len(shape) or any(s > v for s, v in zip(shape, value.shape, strict=True)):
        raise Rejected(f"the graph needs weight {name!r} of shape {list(shape)}")
    return value[tuple(slice(s) for s in shape)]
