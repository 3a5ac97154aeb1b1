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
from typing import TYPE_CHECKING, Any, NamedTuple

from mechverify.kernel.core.claim import Job
from mechverify.kernel.core.errors import Rejected
from mechverify.kernel.core.graph import Graph, Node
from mechverify.kernel.core.loading import late
from mechverify.kernel.core.meter import reserve
from mechverify.kernel.core.narrowing import slim
from mechverify.kernel.relaxation.operations import row_of

if TYPE_CHECKING:
    from mechverify.kernel.relaxation.tables import Plan, Tables


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
    means: Mapping[int, tuple] = MappingProxyType(
        {}
    )  # nodes that are averages, with a softmax's weights: of the
    # entries, along its last axis, of a view (a node and the view's attribute)
    slices: Mapping[int, tuple] = MappingProxyType(
        {}
    )  # nodes whose value is a view of another's: that node, and the
    # view's attribute


def rewritten(graph: Graph, root: int, conditions: tuple[int, ...] = ()) -> Rewritten:
    """Nodes with the same values over the reals, made of: input, tokens, weight, constant, pi, gather, number, pick,
    view, concat, add, sub, mul, over_root, einsum with a fixed operand, power, functions, pivot (any constants), and
    integers. Operands of add, sub and mul have the same shape."""
    standing = slim(graph, [root, *conditions])
    root, *narrowed = (standing[n] for n in (root, *conditions))
    order, steps = graph.ancestors([root, *narrowed]), Steps(graph)
    new = steps.new
    means: dict[int, tuple] = {}
    for n in order:
        node = graph.nodes[n]
        reserve(*node.shape, node.shape[-1] if node.op == "softmax" else 1)
        new[n] = n if node.kind == "int" else steps.node(n)
        if node.op == "einsum" and any(
            graph.nodes[a].op == "softmax" for a in node.args
        ):
            means |= _means(graph, node, n, new)
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


class Steps:
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
            return self._shares(node, args[0])
        if node.op == "rounding":
            self.roles[node.args[0], "exact"] = args[0]
        if node.op in ("extremum", "ascending", "choose"):
            return late("relaxation.order").ROWS[node.op](self, node, args)
        if node.op in ("add", "sub"):
            return self.add(node.op, *(self.expanded(a, node.shape) for a in args))
        if node.op == "mul":
            first, second = (self.expanded(a, node.shape) for a in args)
            return self.product(first, second)
        if node.op == "einsum" and not self.fixed & set(args):
            return self._products(node, args)
        if node.op == "select" and node.kind == "real":
            return self.add(
                "view",
                args[0],
                attr=_slice(self.graph.nodes[args[0]].shape, *node.attr),
            )
        return self.add(
            node.op, *args, attr=node.attr
        )  # the same operation on equal values

    def _products(self, node: Node, args: list[int]) -> int:
        from mechverify.kernel.relaxation import (
            contraction,
        )  # only where two values that aren't fixed are contracted

        return contraction.products(self, node, args)

    def _shares(self, node: Node, scores: int) -> int:
        from mechverify.kernel.relaxation import softmax  # only where a graph has one

        return softmax.shares(self, node, scores)

    def add(self, op: str, *args: int, attr: Any = None, role: str = "") -> int:
        node = self.graph.add(op, *args, attr=attr)
        if role:
            self.roles[self.old, role] = node
        if row_of(op).fixed or (args and all(a in self.fixed for a in args)):
            self.fixed.add(node)
        return node

    def ones(self, *shape: int) -> int:
        one = self.add("constant", attr=((1,), (1.0,)))
        return self.add("view", one, attr=(shape, 0, (0,) * len(shape)))

    def expanded(self, n: int, shape: tuple[int, ...]) -> int:
        """Broadcast on the right."""
        old = self.graph.nodes[n].shape
        if old == shape:
            return n
        steps = [prod(old[i + 1 :]) if size > 1 else 0 for i, size in enumerate(old)]
        return self.add(
            "view", n, attr=(shape, 0, (0,) * (len(shape) - len(old)) + tuple(steps))
        )

    def product(self, x: int, y: int, role: str = "") -> int:
        square = x == y and x not in self.fixed
        return (
            self.add("power", x, attr=2, role=role)
            if square
            else self.add("mul", x, y, role=role)
        )


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
    def plan(self) -> "Plan | None":
        roots = self.roots
        if not self.graph.length:
            return None
        from mechverify.kernel.relaxation.tables import planned

        wanted = [n for n, m in roots.of.items() if m in roots.values]
        about = (roots.standing[self.job.claim.output], *roots.narrowed)
        return planned(self.job, self.graph, wanted, about)

    @cached_property
    def tables(self) -> "Tables | None":
        if self.plan is None:
            return None
        from mechverify.kernel.relaxation.tables import Tables

        where = self.roots.narrowed[: len(self.job.claim.where)]
        return Tables(self.job, self.graph, self.plan, where)


def _means(graph: Graph, node: Node, n: int, new: dict[int, int]) -> dict[int, tuple]:
    """What the rewritten node n is, if it is averages with a softmax's weights: see Rewritten."""
    from mechverify.kernel.relaxation import contraction

    if (averaged := contraction.average(graph, node)) is None:
        return {}
    at, view = averaged
    return {new[n]: (new[node.args[at]], view)}


def _slice(shape: tuple[int, ...], axis: int, index: int) -> tuple:
    """The view of a tensor of that shape at an index along an axis."""
    steps = [prod(shape[i + 1 :]) for i in range(len(shape))]
    offset = index * steps.pop(axis)
    return shape[:axis] + shape[axis + 1 :], offset, tuple(steps)
