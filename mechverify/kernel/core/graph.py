"""The expression graph of a claim: what the model computes and what the mechanism says.

One list of nodes in topological order, hash-consed. Three kinds of value: `real` tensors (the model), `ids`
(tokens), and `int` scalars (the mechanism, integers.py). A row of `MODEL` checks operands and gives kind and shape;
elementwise functions are rows of functions.py. Shapes have no batch axis.

Lemma C3 (docs/soundness/core.md).
"""

import math
from collections.abc import Callable
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from mechverify.kernel.core import integers
from mechverify.kernel.core.errors import Rejected
from mechverify.kernel.core.functions import FUNCTIONS
from mechverify.kernel.core.meter import Meter, reserve

MOST = 2**19  # nodes, and slices of nodes


class Node(NamedTuple):
    """`shape` without batch axes; `span` encloses an int node's value."""

    op: str
    args: tuple[int, ...]
    attr: Any
    kind: str
    shape: tuple[int, ...]
    span: integers.Span = (0, 0)


class Graph:
    """Nodes 0 .. len-1, each after its operands. `values[i]` is the integer that token id i means. What building and
    walking it costs is the `meter`'s."""

    def __init__(self, length: int, values: tuple[int, ...], meter: Meter | None = None):
        self.length, self.values, self.meter = length, values, meter or Meter()
        self.nodes: list[Node] = []
        self._ids: dict[tuple, int] = {}
        self.slices: dict[int, tuple[int, int, int]] = {}  # of a node that was built as a slice: of what, axis, index

    def add(self, op: str, *args: int, attr: Any = None) -> int:
        """The id of the node `op(*args)`, added if it is new; rejects an illegal one."""
        key = (op, args, attr)
        self.meter.step(1 + len(args) + (len(attr[1]) if op == "constant" else 0), 1)
        if key not in self._ids:
            _need(len(self.nodes) < MOST, f"a graph of more than {MOST} nodes")
            node = self._node(op, args, attr)
            self._ids[key] = len(self.nodes)
            self.nodes.append(node)
        return self._ids[key]

    @cached_property
    def meanings(self) -> np.ndarray:
        """`values` as an array."""
        return np.asarray(self.values, np.int64)

    @cached_property
    def span(self) -> integers.Span:
        """Least and greatest of `values`."""
        return min(self.values), max(self.values)

    def _node(self, op: str, args: tuple[int, ...], attr: Any) -> Node:
        operands = [self.nodes[a] for a in args]
        if op in MODEL:
            return Node(op, args, attr, *MODEL[op](self, operands, attr))
        if any(n.kind != "int" for n in operands):
            raise Rejected(f"an operand of {op!r} is not an integer")
        if op == "value":  # the integer that the token at position `attr` means
            _need(not args and attr is not None and 0 <= attr < self.length, f"no token at position {attr!r}")
            span = self.span
        elif op == "integer":
            _need(not args and attr is not None, "integer takes its value alone")
            span = attr, attr
        else:
            span = integers.span(op, [n.span for n in operands], attr)
        return Node(op, args, attr, "int", (), span)

    def copy(self, meter: Meter | None = None) -> "Graph":
        """A graph with the same nodes, to which others may be added."""
        graph = Graph(self.length, self.values, meter or self.meter)
        graph.nodes, graph._ids, graph.slices = [*self.nodes], {**self._ids}, {**self.slices}
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

    def select(self, node: int, axis: int, index: int) -> int:
        """The slice of `node` at `index` along `axis`, pushed down to the tokens: only what the slice needs is
        computed. Equal to slicing the value, since every case of `_slice` commutes with slicing."""
        root = (node, axis, index)
        slices, todo = {}, [root]
        while todo:
            part = todo.pop()
            if part not in slices:
                _need(len(slices) < MOST, f"a slice that needs more than {MOST} others")
                self.meter.step(1, 1)
                slices[part] = self._slice(*part)
                todo.extend(o for o in slices[part][1] if type(o) is tuple)
        built: dict[Any, int] = {}
        for part in sorted(slices):  # a slice of a node needs slices of earlier nodes alone
            op, operands, attr = slices[part]
            built[part] = self.add(op, *(built[o] if type(o) is tuple else o for o in operands), attr=attr)
            self.slices.setdefault(built[part], part)
        return built[root]

    def _slice(self, node: int, axis: int, index: int) -> tuple[str, list, Any]:
        """(operation, operands, attribute) of a slice; an operand is a node, or a slice (node, axis, index)."""
        n = self.nodes[node]
        _need(0 <= axis < len(n.shape) and 0 <= index < n.shape[axis], f"no index {index} on axis {axis} of {n.shape}")
        if n.op in ("add", "sub", "mul", "over_root", "power", *FUNCTIONS):
            return n.op, [self._slice_operand(a, axis - len(n.shape), index) for a in n.args], n.attr
        if n.op == "einsum":
            first, second, result = n.attr.replace("->", ",").split(",")
            letter = result[axis]
            operands = [(a, t.index(letter), index) if letter in t else a
                        for a, t in zip(n.args, (first, second), strict=True)]  # fmt: skip
            first, second, result = (t.replace(letter, "") for t in (first, second, result))
            return "einsum", operands, f"{first},{second}->{result}"
        if n.op == "softmax" and axis < len(n.shape) - 1:
            kept = n.attr
            if axis == len(n.shape) - 2 and n.attr == "causal":
                kept = min(index + 1, n.shape[-1])
            elif axis == len(n.shape) - 2 and type(n.attr) is tuple:
                kept = (n.attr[index if len(n.attr) > 1 else 0],)
            return "softmax", [(n.args[0], axis, index)], kept
        if n.op == "gather" and axis < len(self.nodes[n.args[1]].shape):
            return "gather", [n.args[0], (n.args[1], axis, index)], None
        if n.op == "view" and n.kind == "real":
            shape, offset, strides = n.attr
            rest = (
                shape[:axis] + shape[axis + 1 :],
                offset + index * strides[axis],
                strides[:axis] + strides[axis + 1 :],
            )
            return self._narrowed(n.args[0], rest)
        return "select", [node], (axis, index)

    def narrowed(self, node: int) -> int:
        """A node of equal value that computes less, if `node` is a view of one slice of its operand."""
        n = self.nodes[node]
        if n.op != "view" or n.kind != "real":
            return node
        _, (operand,), attr = self._narrowed(n.args[0], n.attr)
        return self.add("view", self.select(*operand) if type(operand) is tuple else operand, attr=attr)

    def _narrowed(self, operand: int, view: tuple) -> tuple[str, list, tuple]:
        """A view, read from a slice of its operand if all that it reads lies in one."""
        shape = self.nodes[operand].shape
        self.meter.step(math.prod(view[0]) * (1 + len(view[0]) + len(shape)), 10)
        at = entries(view)
        for axis in range(len(shape)):
            block = math.prod(shape[axis + 1 :])
            index = at // block % shape[axis]
            if shape[axis] > 1 and (index == index.flat[0]).all():
                moved = at // (block * shape[axis]) * block + at % block
                steps = tuple(int(moved[tuple(int(i == a) for i in range(at.ndim))] - moved.flat[0]) if size > 1 else 0
                              for a, size in enumerate(at.shape))  # fmt: skip
                smaller = at.shape, int(moved.flat[0]), steps
                if np.array_equal(entries(smaller), moved):
                    return "view", [(operand, axis, int(index.flat[0]))], smaller
        return "view", [operand], view

    def _slice_operand(self, node: int, from_right: int, index: int) -> Any:
        """Of an operand that broadcasts (axes aligned on the right, sizes 1 or equal)."""
        shape = self.nodes[node].shape
        axis = len(shape) + from_right
        return node if axis < 0 else (node, axis, 0 if shape[axis] == 1 else index)


def entries(view: tuple) -> np.ndarray:
    """The flat indices that a view (shape, offset, strides) reads."""
    shape, offset, strides = view
    reserve(*shape)
    index = np.full(shape, offset)
    for axis, (size, step) in enumerate(zip(shape, strides, strict=True)):
        index = index + (np.arange(size) * step).reshape(size, *(1,) * (len(shape) - axis - 1))
    return index


def _need(condition: bool, message: str) -> None:
    if not condition:
        raise Rejected(message)


def _elementwise(graph: Graph, args: list[Node], attr: None) -> tuple:
    """Of two operands; shapes broadcast on the right."""
    first, second = args
    _need(first.kind == second.kind == "real", "an elementwise operation needs two real operands")
    try:
        return "real", np.broadcast_shapes(first.shape, second.shape)
    except ValueError:
        raise Rejected(f"shapes {first.shape} and {second.shape} don't fit") from None


def _view(graph: Graph, args: list[Node], attr: tuple) -> tuple:
    """Entry i of the result is entry offset + sum_k strides[k] i_k of the flattened operand: reshaping,
    transposing, slicing, expanding, unfolding. `attr`: shape, offset, strides."""
    (operand,), (shape, offset, strides) = args, attr
    _need(len(shape) == len(strides), "a view needs a stride for each axis")
    reach = [(size - 1) * step for size, step in zip(shape, strides, strict=True)]
    low, high = offset + sum(min(r, 0) for r in reach), offset + sum(max(r, 0) for r in reach)
    _need(operand.kind != "int" and all(size > 0 for size in shape), "view needs a tensor and an entry")
    _need(0 <= low <= high < math.prod(operand.shape), f"a view reads outside its operand of shape {operand.shape}")
    return operand.kind, shape


def _concat(graph: Graph, args: list[Node], attr: int) -> tuple:
    """Along axis `attr`; all other sizes equal."""
    shapes = [a.shape for a in args]
    _need(len(args) > 0 and all(a.kind == "real" for a in args) and 0 <= attr < len(shapes[0]), "concat needs an axis")
    rest = {(s[:attr], s[attr + 1 :]) for s in shapes if len(s) > attr}
    _need(len(rest) == 1 and len({len(s) for s in shapes}) == 1, f"concat along axis {attr} of shapes {shapes}")
    return "real", (*shapes[0][:attr], sum(s[attr] for s in shapes), *shapes[0][attr + 1 :])


def _function(graph: Graph, args: list[Node], attr: int | None) -> tuple:
    _need(len(args) == 1 and args[0].kind == "real", "a function takes one real operand")
    return "real", args[0].shape


def _power(graph: Graph, args: list[Node], attr: int) -> tuple:
    _need(attr is not None and 2 <= attr <= 16, "power takes an exponent from 2 to 16")
    return _function(graph, args, attr)


def _gather(graph: Graph, args: list[Node], attr: None) -> tuple:
    """Rows of a table [vocab, ...] at token ids [...]."""
    table, ids = args
    _need(table.op in ("weight", "constant") and ids.kind == "ids", "gather needs a table and token ids")
    _need(
        len(table.shape) > 0 and table.shape[0] >= len(graph.values), "the embedding has fewer rows than the vocabulary"
    )
    return "real", ids.shape + table.shape[1:]


def _einsum(graph: Graph, args: list[Node], attr: str) -> tuple:
    """Over two operands, letters distinct in each term; a letter of one operand alone is in the result."""
    *terms, result = attr.replace("->", ",").split(",")
    sizes: dict[str, int] = {}
    _need(len(terms) == len(args) == 2 and len(set(result)) == len(result), f"einsum {attr!r}")
    for term, node in zip(terms, args, strict=True):
        _need(node.kind == "real" and len(set(term)) == len(term) == len(node.shape), f"{attr!r} on shape {node.shape}")
        for letter, size in zip(term, node.shape, strict=True):
            _need(sizes.setdefault(letter, size) == size, f"einsum {attr!r}: sizes of {letter!r} differ")
    _need(set(result) <= set(sizes), f"einsum {attr!r} has a result of unknown size")
    _need(set(sizes) - set(result) <= set(terms[0]) & set(terms[1]), f"einsum {attr!r} sums one operand alone")
    return "real", tuple(sizes[c] for c in result)


def _number(graph: Graph, args: list[Node], attr: None) -> tuple:
    """An integer as a real."""
    _need(len(args) == 1 and args[0].kind == "int", "number takes an integer")
    _need(max(map(abs, args[0].span)) < 2**53, "an integer of more than 53 bits as a real")
    return "real", ()


def _pick(graph: Graph, args: list[Node], attr: None) -> tuple:
    """The slice along the first axis of a real value that an integer says."""
    _need([a.kind for a in args] == ["real", "int"] and len(args[0].shape) > 0, "pick takes a real axis and an integer")
    low, high = args[1].span
    size = args[0].shape[0]
    _need(0 <= low <= high < size, f"pick: the index reaches from {low} to {high}, the axis has {size} entries")
    return "real", args[0].shape[1:]


def _softmax(graph: Graph, args: list[Node], attr: Any) -> tuple:
    """Over the last axis. `attr`: "causal" (entry [j, i] kept if i <= j), or the number of entries kept, or rows of
    "0" and "1" for the last two axes, one row for all if there is but one."""
    shape = args[0].shape
    _need(args[0].kind == "real" and len(shape) > 0, "softmax takes a real operand with an axis")
    if type(attr) is tuple:
        _need(len(attr) == 1 or (len(shape) > 1 and len(attr) == shape[-2]), f"a mask of {len(attr)} rows")
        _need(all(len(r) == shape[-1] and set(r) <= {"0", "1"} and "1" in r for r in attr), "softmax keeps no entry")
    else:
        _need((attr == "causal" and len(shape) > 1) or (attr != "causal" and 1 <= attr <= shape[-1]), "softmax: mask")
    return "real", shape


MODEL: dict[str, Callable[[Graph, list[Node], Any], tuple]] = {
    "tokens": lambda graph, args, attr: ("ids", (graph.length,)),
    "weight": lambda graph, args, attr: ("real", attr[1]),  # attr: name, and shape of its leading part
    "select": lambda graph, args, attr: (args[0].kind, args[0].shape[: attr[0]] + args[0].shape[attr[0] + 1 :]),
    "gather": _gather,
    "input": lambda graph, args, attr: ("real", attr[1]),  # attr: which of the real inputs, and its shape
    "constant": lambda graph, args, attr: ("real", attr[0]),  # attr: shape, and the entries
    "pi": lambda graph, args, attr: ("real", ()),
    "number": _number,
    "pick": _pick,
    "view": _view,
    "concat": _concat,
    "add": _elementwise,
    "sub": _elementwise,
    "mul": _elementwise,
    "power": _power,
    "over_root": lambda graph, args, attr: ("real", args[0].shape),  # divided by the square root of attr
    "einsum": _einsum,
    "softmax": _softmax,
    "slack": lambda graph, args, attr: ("real", args[0].shape[:-1]),  # a small error: see relaxation.py
    "pivot": _einsum,  # any constants of that shape: see relaxation.py
    **dict.fromkeys(FUNCTIONS, _function),
}
