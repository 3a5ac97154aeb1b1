"""Moving entries: reshaping, transposing, slicing, expanding, unfolding."""

import math

import numpy as np

from mechverify.kernel.core.fields import Reader
from mechverify.kernel.core.graph import Graph, entries
from mechverify.kernel.core.operations import (
    Attribute,
    Operation,
    Slice,
    need,
    of,
    row,
    sizes,
)


def _read_view(entry: Reader) -> tuple:
    shape, offset, strides = entry.items(3, 3)
    return sizes(shape), offset.an_integer(0), tuple(strides.integers(16))


class View(Operation):
    """Reshaping, transposing, slicing, expanding, unfolding."""

    operands = 1
    attribute = Attribute(
        "`[shape, offset, strides]`",
        row(of("shape"), of("natural"), {"type": "array", "items": of("integer")}),
        _read_view,
    )
    meaning = "entry i is entry offset + sum_k strides[k] i_k of the flattened operand"

    def shape(self, graph, args, attr):
        (operand,), (shape, offset, strides) = args, attr
        need(len(shape) == len(strides), "a view needs a stride for each axis")
        reach = [(size - 1) * step for size, step in zip(shape, strides, strict=True)]
        low = offset + sum(min(r, 0) for r in reach)
        high = offset + sum(max(r, 0) for r in reach)
        need(
            operand.kind != "int" and all(size > 0 for size in shape),
            "view needs a tensor and an entry",
        )
        need(
            0 <= low <= high < math.prod(operand.shape),
            f"a view reads outside its operand of shape {operand.shape}",
        )
        return operand.kind, shape

    def value(self, known, node, args):
        at = entries(node.attr)

        def viewed(a: np.ndarray) -> np.ndarray:
            flat = a.reshape(*a.shape[: known.batch], -1)
            return flat[..., at]

        return viewed(args[0]) if node.kind == "ids" else args[0].map(viewed)

    def slice(self, graph, node, axis, index):
        n = graph.nodes[node]
        if n.kind == "ids":
            return "select", [node], (axis, index)
        shape, offset, strides = n.attr
        rest = (
            shape[:axis] + shape[axis + 1 :],
            offset + index * strides[axis],
            strides[:axis] + strides[axis + 1 :],
        )
        return narrowed(graph, n.args[0], rest)


def narrowed(graph: Graph, operand: int, view: tuple) -> Slice:
    """A view, read from a slice of its operand if all that it reads lies in one."""
    shape = graph.nodes[operand].shape
    graph.meter.step(math.prod(view[0]) * (1 + len(view[0]) + len(shape)), 10)
    at = entries(view)
    for axis in range(len(shape)):
        block = math.prod(shape[axis + 1 :])
        index = at // block % shape[axis]
        if shape[axis] > 1 and (index == index.flat[0]).all():
            moved = at // (block * shape[axis]) * block + at % block
            steps = tuple(
                int(moved[tuple(int(i == a) for i in range(at.ndim))] - moved.flat[0])
                if size > 1
                else 0
                for a, size in enumerate(at.shape)
            )
            smaller = at.shape, int(moved.flat[0]), steps
            if np.array_equal(entries(smaller), moved):
                return "view", [(operand, axis, int(index.flat[0]))], smaller
    return "view", [operand], view


ROWS = {"view": View()}
