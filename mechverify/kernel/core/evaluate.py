"""The value of graph nodes on given tokens: reals as balls, integers exactly.

Lemma C4 (docs/soundness/core.md).
"""

import math
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any

import numpy as np

from mechverify.kernel.core import integers
from mechverify.kernel.core.arithmetic import Ball
from mechverify.kernel.core.elementary import pi
from mechverify.kernel.core.functions import FUNCTIONS, Function, power_of
from mechverify.kernel.core.graph import Graph, Node, entries
from mechverify.kernel.core.meter import ROOM, reserve
from mechverify.kernel.core.semantics import Real


class Evaluation:
    """Values of nodes, computed once each, as the operations of `model` give them.

    `tokens` are ids [..., length] and `selected(j)` the ids [...] at position j; the leading axes are
    batch axes, equal in number everywhere and of size one where a value doesn't vary. `inputs` are the real inputs
    [*batch, *shape].
    """

    def __init__(self, graph: Graph, weights: dict[str, np.ndarray], model: Real, tokens: np.ndarray,
                 selected: Callable[[int], np.ndarray] | None = None, inputs: Sequence[np.ndarray] = ()):  # fmt: skip
        self.inputs = inputs
        self.graph, self.weights, self.model, self.tokens = graph, weights, model, tokens
        self.selected = selected or (lambda j: tokens[..., j])
        self.batch, self.held = tokens.ndim - 1, 0
        self._values: dict[int, Ball | np.ndarray] = {}

    def __getitem__(self, node: int) -> Any:
        """A Ball [*batch, *shape] for a real node; an int64 array [*batch] for ids and integers."""
        for n in self.graph.ancestors([node]):
            if n not in self._values:
                args = [self._values[a] for a in self.graph.nodes[n].args]
                self._values[n] = self._compute(self.graph.nodes[n], args)
        return self._values[node]

    def align(self, x: Ball, rank: int) -> Ball:
        """Axes of size one between batch and shape, so that operands of that rank broadcast on the right."""
        missing = rank + self.batch - x.mid.ndim
        return x.map(lambda a: np.expand_dims(a, tuple(range(self.batch, self.batch + missing))))

    def _compute(self, node: Node, args: list):
        model, rank = self.model, len(node.shape)
        if node.kind == "real":
            batch = [a.mid.shape if type(a) is Ball else a.shape for a in args]
            sizes = *np.broadcast_shapes(*(shape[: self.batch] for shape in batch)), *node.shape
            self.held += math.prod(sizes)
            reserve(*sizes)
            reserve(self.held // 4)  # all values together
            model.ar.spend(math.prod(sizes), 4, 1)
        match node.op:
            case "tokens":
                return self.tokens
            case "input":
                return model.ar.exact(self.inputs[node.attr[0]])
            case "view" if node.kind == "ids":
                return args[0].reshape(*args[0].shape[: self.batch], -1)[..., entries(node.attr)]
            case "view":
                at = entries(node.attr)
                return args[0].map(lambda a: a.reshape(*a.shape[: self.batch], -1)[..., at])
            case "constant":
                return model.ar.exact(np.array(node.attr[1], float).reshape((1,) * self.batch + node.attr[0]))
            case "concat":
                return self._concatenated(node, args)
            case "pi":
                return pi(model.ar).map(lambda a: a.reshape((1,) * self.batch))
            case "number":
                return model.ar.whole(self._of_batch(args[0]))
            case "pick":
                return self._picked(*args)
            case "sub" | "mul":
                return getattr(model, node.op)(*(self.align(a, rank) for a in args))
            case "select" if node.kind == "ids" and self.graph.nodes[node.args[0]].op == "tokens":
                return self.selected(node.attr[1])
            case "select" if node.kind == "ids":
                return np.take(args[0], node.attr[1], node.attr[0] + self.batch)
            case "select":
                return args[0].map(lambda a: np.take(a, node.attr[1], node.attr[0] + self.batch))
            case "weight":
                value = weight(self.weights, *node.attr)
                return model.ar.exact(value.reshape((1,) * self.batch + value.shape))
            case "gather":
                return model.ar.exact(table(self.weights, self.graph.nodes[node.args[0]])[args[1]])
            case "add":
                return model.add(self.align(args[0], rank), self.align(args[1], rank), products(self.graph, node))
            case "over_root":
                return model.div(args[0], model.sqrt(model.ar.rational(Fraction(node.attr))))
            case "einsum":
                return model.contract(node.attr, args[0], args[1])
            case "softmax":
                return model.softmax(args[0], kept(node))
            case op if node.kind == "real":
                return model.function(op, function_of(node), args[0])
        model.ar.spend(len(args) * math.prod(np.broadcast_shapes(*(a.shape for a in args))), 1 + len(args))
        return integers.apply(node.op, node.attr, args, lambda i: self.graph.meanings[self.selected(i)])

    def _of_batch(self, value: np.ndarray) -> np.ndarray:
        """An integer with all batch axes."""
        return np.asarray(value).reshape((1,) * (self.batch - np.ndim(value)) + np.shape(value))

    def _picked(self, x: Ball, index: np.ndarray) -> Ball:
        index = self._of_batch(index)
        batch = np.broadcast_shapes(x.mid.shape[: self.batch], index.shape)
        at = index.reshape(*index.shape, *(1,) * (x.mid.ndim - self.batch))
        wide = x.map(lambda a: np.broadcast_to(a, (*batch, *a.shape[self.batch :])))
        return wide.map(lambda a: np.take_along_axis(a, at, self.batch).squeeze(self.batch))

    def _concatenated(self, node: Node, args: list) -> Ball:
        """Each operand in its place of an array of zeros, added up: exact, and their exponents may differ."""
        here, start, total = np.arange(math.prod(node.shape)).reshape(node.shape), 0, None
        for a in args:
            width = a.mid.shape[self.batch + node.attr]
            places = np.take(here, np.arange(start, start + width), node.attr).ravel()
            flat = a.map(lambda v: v.reshape(*v.shape[: self.batch], -1))
            part = self.model.ar.scatter(flat, places, here.size)
            total, start = part if total is None else self.model.ar.add(total, part), start + width
        return total.map(lambda v: v.reshape(*v.shape[: self.batch], *node.shape))


def products(graph: Graph, node: Node) -> tuple[int, ...]:
    """Of each operand: how many products it adds up, if it is a contraction; else 0."""

    def terms(n: Node) -> int:
        if n.op != "einsum":
            return 0
        first, second, result = n.attr.replace("->", ",").split(",")
        sizes = zip(first + second, sum((graph.nodes[a].shape for a in n.args), ()), strict=True)
        return math.prod({letter: size for letter, size in sizes if letter not in result}.values())

    return tuple(terms(graph.nodes[a]) for a in node.args)


def function_of(node: Node) -> Function | None:
    return power_of(node.attr) if node.op == "power" else FUNCTIONS.get(node.op)


def kept(node: Node) -> np.ndarray:
    """Which entries of scores [..., j, i] a softmax node keeps, as booleans that broadcast to its shape."""
    n = node.shape[-1]
    if type(node.attr) is tuple:
        return np.array([[c == "1" for c in row] for row in node.attr])[slice(None) if len(node.attr) > 1 else 0]
    return np.tri(node.shape[-2], n, dtype=bool) if node.attr == "causal" else np.arange(n) < node.attr


def batch_size(graph: Graph, roots: list[int]) -> int:
    """How many inputs can be evaluated at a time in bounded memory."""
    nodes = [graph.nodes[n] for n in graph.ancestors(roots)]
    numbers = sum(math.prod(n.shape) for n in nodes if n.op not in ("weight", "constant"))  # these are there once
    return max(1, min(2**12, ROOM // max(1, numbers)))


def table(weights: dict[str, np.ndarray], node: Node) -> np.ndarray:
    """A weight or a constant."""
    if node.op == "constant":
        return np.array(node.attr[1], float).reshape(node.attr[0])
    return weight(weights, *node.attr)


def weight(weights: dict[str, np.ndarray], name: str, shape: tuple[int, ...]) -> np.ndarray:
    """The leading part of a weight tensor (a shorter sequence uses the first positions)."""
    return np.asarray(weights[name][tuple(slice(s) for s in shape)])
