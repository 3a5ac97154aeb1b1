"""A graph of linear operations, products and functions, of equal values, which the relaxation can bound.

`rewritten` brings a graph to few operations, without changing its value over the reals: a softmax becomes
p_i = 1 / sum_j e^(s_j - s_i), whose terms are functions of linear forms, and beside it p_i = e_i (1 / sum_j e_j) with
e_i = e^(s_i - c), where all share one quotient; contractions of two computed values become products and a sum; operands
that broadcast are expanded.

Lemmas L7, L8 (docs/soundness/relaxation.md).
"""

from collections.abc import Mapping
from functools import cached_property
from math import prod
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

from mechverify.kernel.core.claim import Job
from mechverify.kernel.core.errors import Rejected
from mechverify.kernel.core.graph import Graph, Node
from mechverify.kernel.core.meter import reserve
from mechverify.kernel.core.operations import kept
from mechverify.kernel.relaxation import operations
from mechverify.kernel.relaxation.tables import Tables


class Rewritten(NamedTuple):
    """Nodes with the values that a claim's nodes have: its output, its conditions, and, `values`, all real ones that
    these need and that depend on the input. (Other rewritten nodes may depend on a pivot, and so on more than that.)
    `shared`: for each softmax, the node of its first form and that of the second, of equal value. `narrowed`: the
    conditions in the claim's graph, with no more in it than they need; `of`: the node that each real node there, and of
    the output likewise, became."""

    output: int
    conditions: tuple[int, ...]
    values: frozenset[int]
    shared: tuple[tuple[int, int], ...]
    narrowed: tuple[int, ...]
    of: dict[int, int]
    shares: frozenset[int] = frozenset()  # nodes whose entries are a softmax's
    means: Mapping[int, tuple] = MappingProxyType({})  # nodes that are averages, with a softmax's weights: of the
    # entries, along its last axis, of a view (a node and the view's attribute)
    slices: Mapping[int, tuple] = MappingProxyType({})  # nodes whose value is a view of another's: that node, and the
    # view's attribute


def rewritten(graph: Graph, root: int, conditions: tuple[int, ...] = ()) -> Rewritten:
    """Nodes with the same values over the reals, made of: input, tokens, weight, constant, pi, gather, number, pick,
    view, concat, add, sub, mul, over_root, einsum with a fixed operand, power, functions, pivot (any constants), and
    integers. Operands of add, sub and mul have the same shape."""
    root, *narrowed = _narrowed(graph, [root, *conditions])
    order, new, shared = graph.ancestors([root, *narrowed]), {}, []
    shares: set[int] = set()
    means: dict[int, tuple] = {}
    fixed: set[int] = set()  # nodes (new ones) that don't depend on the input

    def add(op: str, *args: int, attr=None) -> int:
        node = graph.add(op, *args, attr=attr)
        if op in operations.FIXED or (args and all(a in fixed for a in args)):
            fixed.add(node)
        return node

    def ones(*shape: int) -> int:
        return add("view", add("constant", attr=((1,), (1.0,))), attr=(shape, 0, (0,) * len(shape)))

    def constant(entries: np.ndarray) -> int:
        return add("constant", attr=(entries.shape, tuple(entries.ravel().tolist())))

    def expanded(n: int, shape: tuple[int, ...]) -> int:
        old = graph.nodes[n].shape
        if old == shape:
            return n
        steps = [prod(old[i + 1 :]) if size > 1 else 0 for i, size in enumerate(old)]
        return add("view", n, attr=(shape, 0, (0,) * (len(shape) - len(old)) + tuple(steps)))

    def product(x: int, y: int) -> int:
        return add("power", x, attr=2) if x == y and x not in fixed else add("mul", x, y)

    def softmax(node: Node, scores: int) -> int:
        *rest, n = node.shape
        steps = [prod(node.shape[i + 1 :]) for i in range(len(rest))]
        mask = np.broadcast_to(kept(node), node.shape).astype(float)
        weights = constant(mask)
        if n == 1:
            return weights
        letters = "abcdefgh"[: len(rest)]
        term = letters + "i"
        mean = add("pivot", scores, add("constant", attr=((n,), (1 / n,) * n)), attr=f"{term},i->{letters}")
        e = add("exp", add("sub", scores, add("view", mean, attr=(node.shape, 0, (*(s // n for s in steps), 0)))))
        e = e if mask.all() else add("mul", e, weights)
        quotient = add("reciprocal", add("einsum", e, ones(n), attr=f"{term},i->{letters}"))
        quotient = add("view", quotient, attr=(node.shape, 0, (*(s // n for s in steps), 0)))
        second = add("mul", e, quotient)  # before the first, which a form meets earlier on its way back
        pairs = (*rest, n, n - 1)  # [.., i, d]: i and the d-th after it, in a circle
        twice = add("concat", scores, scores, attr=len(rest))
        other = add("view", twice, attr=(pairs, 1, (*(2 * s for s in steps), 1, 1)))
        own = add("view", scores, attr=(pairs, 0, (*steps, 1, 0)))
        limit = expanded(add("constant", attr=((), (float(operations.CAP),))), pairs)
        room = add("sub", limit, add("sub", other, own))
        capped = add("sub", limit, add("relu", room))  # so that nothing overflows
        after = (np.arange(n)[:, None] + 1 + np.arange(n - 1)) % n
        counted = constant(mask[..., after])
        total = add("einsum", add("exp", capped), counted, attr=f"{letters}ij,{letters}ij->{letters}i")
        total = add("add", total, ones(*node.shape))  # i's own term, kept or not
        share = add("add", add("reciprocal", total), add("slack", room, total))  # each mask errs on its own
        first = share if mask.all() else add("mul", share, weights)
        shared.append((first, second))
        shares.update((first, second))
        return first

    for n in order:
        node = graph.nodes[n]
        args = [new[a] for a in node.args]
        reserve(*node.shape, node.shape[-1] if node.op == "softmax" else 1)
        if node.kind == "int":
            new[n] = n
        elif node.op == "softmax":
            new[n] = softmax(node, args[0])
        elif node.op in ("add", "sub"):
            new[n] = add(node.op, *(expanded(a, node.shape) for a in args))
        elif node.op == "mul":
            new[n] = product(*(expanded(a, node.shape) for a in args))
        elif node.op == "einsum" and not fixed & set(args):
            first, second, result = node.attr.replace("->", ",").split(",")
            pivot = None
            if graph.nodes[node.args[0]].op == "softmax" and first[-1] not in result and set(first[:-1]) <= set(result):
                pivot = add("pivot", *args, attr=node.attr)
            summed = [c for c in dict.fromkeys(first + second) if c not in result]
            sizes = dict(zip(first + second, sum((graph.nodes[a].shape for a in args), ()), strict=True))
            letters = "".join([*result, *summed])
            shape = tuple(sizes[c] for c in letters)
            parts = [add("view", a, attr=_repeated(shape, letters, term))
                     for a, term in zip(args, (first, second), strict=True)]  # fmt: skip
            if pivot is not None:  # sum_i p_i v_i = c + sum_i p_i (v_i - c) for any c: it keeps the products small
                parts[1] = add("sub", parts[1], add("view", pivot, attr=_repeated(shape, letters, result)))
            value = product(*parts)
            new[n] = value
            if summed:
                width = tuple(sizes[c] for c in summed)
                new[n] = add("einsum", value, ones(*width), attr=f"{letters},{''.join(summed)}->{result}")
            if pivot is not None:
                new[n] = add("add", new[n], pivot)
        elif node.op == "select" and node.kind == "real":
            new[n] = add("view", args[0], attr=_slice(graph.nodes[args[0]].shape, *node.attr))
        else:
            new[n] = add(node.op, *args, attr=node.attr)
        if node.op == "einsum" and (averaged := _average(graph, node)) is not None:
            at, view = averaged
            means[new[n]] = args[at], view
    values = frozenset(new[n] for n in order if graph.nodes[n].kind == "real" and new[n] not in fixed)
    slices = {}
    for n in order:
        whole, axis, index = graph.slices.get(n, (-1, 0, 0))
        if whole in new and graph.nodes[n].kind == "real":
            slices[new[n]] = new[whole], _slice(graph.nodes[whole].shape, axis, index)
    return Rewritten(new[root], tuple(new[n] for n in narrowed), values, tuple(shared), tuple(narrowed),
                     {n: new[n] for n in order if graph.nodes[n].kind == "real"}, frozenset(shares), means,
                     slices)  # fmt: skip


class Rewriting:
    """The claim's graph with the nodes that the relaxation bounds, the roots among them, and the tables of those that
    depend on one or two tokens (None without tokens)."""

    def __init__(self, job: Job):
        claim = job.claim
        self.graph = claim.graph.copy()
        self.roots = rewritten(self.graph, claim.output, (*claim.where, *claim.cases))
        if not self.roots.values.issuperset(self.roots.conditions):
            raise Rejected("a condition doesn't depend on the input")
        self.job = job

    @cached_property
    def tables(self) -> Tables | None:
        graph, roots, claim = self.graph, self.roots, self.job.claim
        if not graph.length:
            return None
        wanted = [n for n, m in roots.of.items() if m in roots.values]
        return Tables(graph, claim.weights, self.job.model, wanted, roots.narrowed[: len(claim.where)])


def _average(graph: Graph, node: Node) -> tuple[int, tuple] | None:
    """If a contraction sums over a softmax's last axis: which operand it averages, and the view of that operand whose
    last axis holds what each entry is an average of."""
    *terms, result = node.attr.replace("->", ",").split(",")
    for at, (weights, values) in enumerate(zip(terms, terms[::-1], strict=True)):
        shapes = [graph.nodes[a].shape for a in node.args]
        summed = [c for c in weights if c not in result]
        if graph.nodes[node.args[at]].op == "softmax" and summed == [weights[-1]] and weights[-1] in values:
            sizes = {c: n for t, s in zip(terms, shapes, strict=True) for c, n in zip(t, s, strict=True)}
            letters = result + weights[-1]
            return 1 - at, _repeated(tuple(sizes[c] for c in letters), letters, values)
    return None


def _slice(shape: tuple[int, ...], axis: int, index: int) -> tuple:
    """The view of a tensor of that shape at an index along an axis."""
    steps = [prod(shape[i + 1 :]) for i in range(len(shape))]
    offset = index * steps.pop(axis)
    return shape[:axis] + shape[axis + 1 :], offset, tuple(steps)


def _narrowed(graph: Graph, roots: list[int]) -> list[int]:
    """Nodes of equal values, in which views of one slice of a value compute that slice alone."""
    new: dict[int, int] = {}
    for n in graph.ancestors(roots):
        node = graph.nodes[n]
        new[n] = graph.add(node.op, *(new[a] for a in node.args), attr=node.attr)
        while (slimmer := graph.narrowed(new[n])) != new[n]:  # one axis after another
            new[n] = slimmer
    return [new[n] for n in roots]


def _repeated(shape: tuple[int, ...], letters: str, of: str) -> tuple:
    """The view [shape], its axes named by `letters`, of a tensor with axes `of`, constant along the others."""
    sizes = dict(zip(letters, shape, strict=True))
    steps = {c: prod(sizes[d] for d in of[i + 1 :]) for i, c in enumerate(of)}
    return shape, 0, tuple(steps.get(c, 0) for c in letters)
