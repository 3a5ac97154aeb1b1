"""Softmax under a mask."""

from typing import Any

import numpy as np

from mechverify.kernel.core.fields import Reader
from mechverify.kernel.core.operations import Attribute, Node, Operation, need


def _read_mask(entry: Reader) -> Any:
    if type(entry.value) is int:
        return entry.an_integer(1)
    return (
        entry.one_of(["causal"])
        if type(entry.value) is str
        else tuple(r.text() for r in entry.items(2**12, 1))
    )


class Softmax(Operation):
    """Over the last axis. attr: "causal" (entry [j, i] kept if i <= j), or the number of entries kept, or rows of "0"
    and "1" for the last two axes, one row for all if there is but one."""

    operands = 1
    attribute = Attribute(
        'the number of leading entries kept, `"causal"` (entry [j, i] is kept if i <= j), or rows of `0` and `1`',
        {
            "oneOf": [
                {"type": "integer", "minimum": 1},
                {"const": "causal"},
                {
                    "type": "array",
                    "minItems": 1,
                    "items": {"type": "string", "pattern": "^[01]*1[01]*$"},
                },
            ]
        },
        _read_mask,
    )
    meaning = "over the kept entries of the last axis, the others zero; rows are for the last two axes, one row for all"

    def shape(self, graph, args, attr):
        shape = args[0].shape
        axes = len(args[0].shape)
        need(
            args[0].kind == "real" and axes > 0,
            "softmax takes a real operand with an axis",
        )
        if type(attr) is tuple:
            need(
                len(attr) == 1 or (axes > 1 and len(attr) == shape[-2]),
                f"a mask of {len(attr)} rows",
            )
            kept = all(
                len(r) == shape[-1] and set(r) <= {"0", "1"} and "1" in r for r in attr
            )
            need(kept, "softmax keeps no entry")
        else:
            known = (attr == "causal" and axes > 1) or (
                attr != "causal" and 1 <= attr <= shape[-1]
            )
            need(known, "softmax: mask")
        return "real", shape

    def value(self, known, node, args):
        from mechverify.kernel.core.attention import softmax  # not where rows are forms

        return softmax(known.semantics, args[0], kept(node))

    def slice(self, graph, node, axis, index):
        n = graph.nodes[node]
        if axis == len(n.shape) - 1:
            return "select", [node], (axis, index)
        mask = n.attr
        if axis == len(n.shape) - 2 and n.attr == "causal":
            mask = min(index + 1, n.shape[-1])
        elif axis == len(n.shape) - 2 and type(n.attr) is tuple:
            mask = (n.attr[index if len(n.attr) > 1 else 0],)
        return "softmax", [(n.args[0], axis, index)], mask


def kept(node: Node) -> np.ndarray:
    """Which entries of scores [..., j, i] a softmax node keeps, as booleans that broadcast to its shape."""
    n, mask = node.shape[-1], node.attr
    if type(mask) is tuple:
        rows = np.array([[c == "1" for c in row] for row in mask])
        return rows if len(mask) > 1 else rows[0]
    if mask == "causal":
        return np.tri(node.shape[-2], n, dtype=bool)
    return np.arange(n) < mask


ROWS = {"softmax": Softmax()}
