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
from typing import Any, NamedTuple

import numpy as np

from mechverify.kernel.core.claim import Job
from mechverify.kernel.core.errors import Rejected
from mechverify.kernel.core.graph import Graph, Node
from mechverify.kernel.core.meter import reserve
from mechverify.kernel.core.operations import kept
from mechverify.kernel.relaxation import operations
from mechverify.kernel.relaxation.tables import Tables

LETTERS = "abcdefgh"  # axes before the last one


class Rewritten(NamedTuple):
    """Nodes with the values that a claim's nodes have: its output, its conditions, and, `values`, all real ones that
    these need and that depend on the input. (Other rewritten nodes may depend on a pivot, and so on more than that.)
    `shared`: for each softmax, the node of its first form and that of the second, of equal value. `narrowed`: the
    conditions in the claim's graph, with no more in it than they need; `of`: the node that each real node there, and of
    the output likewise, became. `standing`: the node of equal value there, by the claim's; `steps`: the nodes within
    the rewriting of one there, by that and their role."""

    output: int
    conditions: tuple[int, ...]
    values: frozenset[int]
    shared: tuple[tuple[int, int], ...]
    narrowed: tuple[int, ...]
    of: dict[int, int]
    standing: Mapping[int, int] = MappingProxyType({})
    steps: Mapping[tuple[int, str], int] = MappingProxyType({})
    shares: frozenset[int] = frozenset()  # nodes whose entries are a softmax's
    means: Mapping[int, tuple] = MappingProxyType({})  # nodes that are averages, with a softmax's weights: of the
    # entries, along its last axis, of a view (a node and the view's attribute)
    slices: Mapping[int, tuple] = MappingProxyType({})  # nodes whose value is a view of another's: that node, and the
    # view's attribute


def rewritten(graph: Graph, root: int, conditions: tuple[int, ...] = ()) -> Rewritten:
    """Nodes with the same values over the reals, made of: input, tokens, weight, constant, pi, gather, number, pick,
    view, concat, add, sub, mul, over_root, einsum with a fixed operand, power, functions, pivot (any constants), and
    integers. Operands of add, sub and mul have the same shape."""
    standing = graph.slim([root, *conditions])
    root, *narrowed = (standing[n] for n in (root, *conditions))
    order, steps = graph.ancestors([root, *narrowed]), _Steps(graph)
    new, means = steps.new, {}
    for n in order:
        node = graph.nodes[n]
        reserve(*node.shape, node.shape[-1] if node.op == "softmax" else 1)
        new[n] = n if node.kind == "int" else steps.node(n)
        if node.op == "einsum" and (averaged := _average(graph, node)) is not None:
            at, view = averaged
            means[new[n]] = new[node.args[at]], view
    real = [n for n in order if graph.nodes[n].kind == "real"]
    slices = {}
    for n in real:
        whole, axis, index = graph.slices.get(n, (-1, 0, 0))
        if whole in new:
            slices[new[n]] = new[whole], _slice(graph.nodes[whole].shape, axis, index)
    return Rewritten(
        output=new[root],
        conditions=tuple(new[n] for n in narrowed),
        values=frozenset(new[n] for n in real if new[n] not in steps.fixed),
        shared=tuple(steps.shared),
        narrowed=tuple(narrowed),
        of={n: new[n] for n in real},
        standing=standing,
        steps=steps.roles,
        shares=frozenset(part for pair in steps.shared for part in pair),
        means=means,
        slices=slices,
    )


class _Steps:
    """Adds to a graph, for one node after another, a node of equal value: `new`, by the old one. `fixed`: new nodes
    that don't depend on the input. `shared`: of each softmax the two forms. `roles`: new nodes within the rewriting of
    an old one, by that and what they are to it; a witness names them so, and files keep the names for ever."""

    def __init__(self, graph: Graph):
        self.graph = graph
        self.new: dict[int, int] = {}
        self.fixed: set[int] = set()
        self.shared: list[tuple[int, int]] = []
        self.roles: dict[tuple[int, str], int] = {}
        self.old = -1

    def node(self, n: int) -> int:
        self.old, node = n, self.graph.nodes[n]
        args = [self.new[a] for a in node.args]
        if node.op == "softmax":
            return self._softmax(node, args[0])
        if node.op in ("add", "sub"):
            return self._add(node.op, *(self._expanded(a, node.shape) for a in args))
        if node.op == "mul":
            first, second = (self._expanded(a, node.shape) for a in args)
            return self._product(first, second)
        if node.op == "einsum" and not self.fixed & set(args):
            return self._contraction(node, args)
        if node.op == "select" and node.kind == "real":
            return self._add("view", args[0], attr=_slice(self.graph.nodes[args[0]].shape, *node.attr))
        return self._add(node.op, *args, attr=node.attr)  # the same operation on equal values

    def _add(self, op: str, *args: int, attr: Any = None, role: str = "") -> int:
        node = self.graph.add(op, *args, attr=attr)
        if role:
            self.roles[self.old, role] = node
        if op in operations.FIXED or (args and all(a in self.fixed for a in args)):
            self.fixed.add(node)
        return node

    def _ones(self, *shape: int) -> int:
        one = self._add("constant", attr=((1,), (1.0,)))
        return self._add("view", one, attr=(shape, 0, (0,) * len(shape)))

    def _constant(self, entries: np.ndarray) -> int:
        return self._add("constant", attr=(entries.shape, tuple(entries.ravel().tolist())))

    def _expanded(self, n: int, shape: tuple[int, ...]) -> int:
        """Broadcast on the right."""
        old = self.graph.nodes[n].shape
        if old == shape:
            return n
        steps = [prod(old[i + 1 :]) if size > 1 else 0 for i, size in enumerate(old)]
        return self._add("view", n, attr=(shape, 0, (0,) * (len(shape) - len(old)) + tuple(steps)))

    def _product(self, x: int, y: int, role: str = "") -> int:
        square = x == y and x not in self.fixed
        return self._add("power", x, attr=2, role=role) if square else self._add("mul", x, y, role=role)

    def _contraction(self, node: Node, args: list[int]) -> int:
        """Of two values that depend on the input: products of repeated entries, and a sum. Of shares p of a softmax and
        values v: sum_i p_i v_i = c + sum_i p_i (v_i - c) for any c, which keeps the products small."""
        first, second, result = node.attr.replace("->", ",").split(",")
        graph, pivot = self.graph, None
        if graph.nodes[node.args[0]].op == "softmax" and first[-1] not in result and set(first[:-1]) <= set(result):
            pivot = self._add("pivot", *args, attr=node.attr)
        summed = [c for c in dict.fromkeys(first + second) if c not in result]
        sizes = dict(zip(first + second, sum((graph.nodes[a].shape for a in args), ()), strict=True))
        letters = "".join([*result, *summed])
        shape = tuple(sizes[c] for c in letters)
        parts = [self._add("view", a, attr=_repeated(shape, letters, term))
                 for a, term in zip(args, (first, second), strict=True)]  # fmt: skip
        if pivot is not None:
            about = self._add("view", pivot, attr=_repeated(shape, letters, result))
            parts[1] = self._add("sub", parts[1], about, role="centred")
        value = self._product(parts[0], parts[1], role="products")
        if summed:
            ones = self._ones(*(sizes[c] for c in summed))
            value = self._add("einsum", value, ones, attr=f"{letters},{''.join(summed)}->{result}")
        return value if pivot is None else self._add("add", value, pivot)

    def _softmax(self, node: Node, scores: int) -> int:
        """The first form; the second is added before it, as a form meets the first one earlier on its way back."""
        mask = np.broadcast_to(kept(node), node.shape).astype(float)
        weights = self._constant(mask)
        if node.shape[-1] == 1:
            return weights
        second = self._quotients(node, scores, mask, weights)
        first = self._differences(node, scores, mask, weights)
        self.shared.append((first, second))
        return first

    def _quotients(self, node: Node, scores: int, mask: np.ndarray, weights: int) -> int:
        """p_i = e_i (1 / sum_j e_j) with e_i = e^(s_i - c), for c near the mean score."""
        *rest, n = node.shape
        letters = LETTERS[: len(rest)]
        along = (node.shape, 0, (*(prod(rest[i + 1 :]) for i in range(len(rest))), 0))  # one number for each row
        share = self._add("constant", attr=((n,), (1 / n,) * n))
        mean = self._add("pivot", scores, share, attr=f"{letters}i,i->{letters}")
        centred = self._add("sub", scores, self._add("view", mean, attr=along), role="centred")
        e = self._add("exp", centred, role="exponentials")
        e = e if mask.all() else self._add("mul", e, weights, role="kept")
        total = self._add("einsum", e, self._ones(n), attr=f"{letters}i,i->{letters}", role="sum")
        quotient = self._add("view", self._add("reciprocal", total, role="quotient"), attr=along)
        return self._add("mul", e, quotient, role="second")

    def _differences(self, node: Node, scores: int, mask: np.ndarray, weights: int) -> int:
        """p_i = 1 / (1 + sum of e^(s_j - s_i) over the others), capped so that nothing overflows."""
        *rest, n = node.shape
        letters = LETTERS[: len(rest)]
        steps = [prod(node.shape[i + 1 :]) for i in range(len(rest))]
        pairs = (*rest, n, n - 1)  # [.., i, d]: i and the d-th after it, in a circle
        twice = self._add("concat", scores, scores, attr=len(rest))
        other = self._add("view", twice, attr=(pairs, 1, (*(2 * s for s in steps), 1, 1)))
        own = self._add("view", scores, attr=(pairs, 0, (*steps, 1, 0)))
        limit = self._expanded(self._add("constant", attr=((), (float(operations.CAP),))), pairs)
        room = self._add("sub", limit, self._add("sub", other, own), role="room")
        capped = self._add("sub", limit, self._add("relu", room, role="positive"), role="capped")
        after = (np.arange(n)[:, None] + 1 + np.arange(n - 1)) % n
        counted = self._constant(mask[..., after])
        powers = self._add("exp", capped, role="powers")
        total = self._add("einsum", powers, counted, attr=f"{letters}ij,{letters}ij->{letters}i")
        total = self._add("add", total, self._ones(*node.shape), role="total")  # i's own term, kept or not
        share = self._add("reciprocal", total, role="share")
        share = self._add("add", share, self._add("slack", room, total))  # each mask errs on its own
        return share if mask.all() else self._add("mul", share, weights)


class Rewriting:
    """The claim's graph with the nodes that the relaxation bounds, the roots among them, and the tables of those that
    depend on few tokens (None without tokens)."""

    def __init__(self, job: Job):
        claim = job.claim
        self.graph = job.further()
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
        where, output = roots.narrowed[: len(claim.where)], roots.standing[claim.output]
        about = (output, *roots.narrowed)
        return Tables(graph, claim.weights, self.job.model, wanted, claim.domain, about, where)


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


def _repeated(shape: tuple[int, ...], letters: str, of: str) -> tuple:
    """The view [shape], its axes named by `letters`, of a tensor with axes `of`, constant along the others."""
    sizes = dict(zip(letters, shape, strict=True))
    steps = {c: prod(sizes[d] for d in of[i + 1 :]) for i, c in enumerate(of)}
    return shape, 0, tuple(steps.get(c, 0) for c in letters)
