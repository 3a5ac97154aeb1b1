"""The expression graph of a claim: what the model computes and what the mechanism says.

One list of nodes in topological order, hash-consed. Three kinds of value: `real` tensors (the model), `ids`
(tokens), and `int` scalars (the mechanism). What an operation is, operations/ says. Shapes have no batch axis.

Lemma C3 (docs/soundness/core.md).
"""

from functools import cached_property
from typing import Any

import numpy as np

from mechverify.kernel.core.meter import Meter, reserve
from mechverify.kernel.core.operations import Node, Slice, Span, need, row_of

__all__ = ["MOST", "Graph", "Node", "entries"]

MOST = 2**19  # nodes, and slices of nodes


class Graph:
    """Nodes 0 .. len-1, each after its operands. `values[i]` is the integer that token id i means. What building and
    walking it costs is the `meter`'s."""

    def __init__(
        self, length: int, values: tuple[int, ...], meter: Meter | None = None
    ):
        self.length, self.values, self.meter = length, values, meter or Meter()
        self.nodes: list[Node] = []
        self._ids: dict[tuple, int] = {}
        self.slices: dict[
            int, tuple[int, int, int]
        ] = {}  # of a node that was built as a slice: of what, axis, index
        self.parts: dict[
            tuple[int, int, int], int
        ] = {}  # the slice of a node, along an axis, at an index
        self.listed: list[
            int
        ] = []  # the nodes that a certificate's rows stand for, in its order

    def add(self, op: str, *args: int, attr: Any = None) -> int:
        """The id of the node `op(*args)`, added if it is new; rejects an illegal one."""
        key = (op, args, attr)
        self.meter.step(1 + len(args) + (len(attr[1]) if op == "constant" else 0), 1)
        if key not in self._ids:
            need(len(self.nodes) < MOST, f"a graph of more than {MOST} nodes")
            node = self._node(op, args, attr)
            self._ids[key] = len(self.nodes)
            self.nodes.append(node)
        return self._ids[key]

    @cached_property
    def meanings(self) -> np.ndarray:
        """`values` as an array."""
        return np.asarray(self.values, np.int64)

    @cached_property
    def span(self) -> Span:
        """Least and greatest of `values`."""
        return min(self.values), max(self.values)

    def _node(self, op: str, args: tuple[int, ...], attr: Any) -> Node:
        row = row_of(op)
        fits = len(args) == row.operands if row.operands is not None else len(args) > 0
        need(fits, f"{op!r} on {len(args)} operands")
        kind, shape, *span = row.shape(self, [self.nodes[a] for a in args], attr)
        return Node(op, args, attr, kind, shape, *span)

    def copy(self, meter: Meter | None = None) -> "Graph":
        """A graph with the same nodes, to which others may be added."""
        graph = Graph(self.length, self.values, meter or self.meter)
        graph.nodes, graph.listed = [*self.nodes], [*self.listed]
        graph._ids = {**self._ids}
        graph.slices, graph.parts = {**self.slices}, {**self.parts}
        return graph

    def ancestors(self, roots: list[int]) -> list[int]:
        """`roots` and all that they depend on, in topological order."""
        wanted, stack = set(), list(roots)
        while stack:
            node = stack.pop()
            if node not in wanted:
                wanted.add(node)
                stack.extend(self.nodes[node].args)
        self.meter.step(len(wanted), 1, 100)
        return sorted(wanted)

    def varying(self, roots: list[int]) -> list[int]:
        """Those of `ancestors` that may differ from input to input."""
        found: dict[int, None] = {}
        for n in self.ancestors(roots):
            node = self.nodes[n]
            reading = not node.args and node.op not in ("weight", "constant")
            if reading or any(a in found for a in node.args):
                found[n] = None
        return [*found]

    def select(self, node: int, axis: int, index: int) -> int:
        """The slice of `node` at `index` along `axis`, pushed down to the tokens: only what the slice needs is
        computed. Equal to slicing the value, since every operation's `slice` is."""
        root = (node, axis, index)
        slices, todo = {}, [root]
        while todo:
            part = todo.pop()
            if part not in slices:
                need(len(slices) < MOST, f"a slice that needs more than {MOST} others")
                self.meter.step(1, 1)
                slices[part] = self._slice(*part)
                todo.extend(o for o in slices[part][1] if type(o) is tuple)
        built: dict[Any, int] = {}
        for part in sorted(
            slices
        ):  # a slice of a node needs slices of earlier nodes alone
            op, operands, attr = slices[part]
            built[part] = self.add(
                op, *(built[o] if type(o) is tuple else o for o in operands), attr=attr
            )
            self.slices.setdefault(built[part], part)
            self.parts[part] = built[part]
        return built[root]

    def _slice(self, node: int, axis: int, index: int) -> Slice:
        n = self.nodes[node]
        need(
            0 <= axis < len(n.shape) and 0 <= index < n.shape[axis],
            f"no index {index} on axis {axis} of {n.shape}",
        )
        return row_of(n.op).slice(self, node, axis, index)


def entries(view: tuple) -> np.ndarray:
    """The flat indices that a view (shape, offset, strides) reads."""
    shape, offset, strides = view
    reserve(*shape)
    index = np.full(shape, offset)
    for axis, (size, step) in enumerate(zip(shape, strides, strict=True)):
        index = index + (np.arange(size) * step).reshape(
            size, *(1,) * (len(shape) - axis - 1)
        )
    return index
