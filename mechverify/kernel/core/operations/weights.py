"""Tensors of the weights."""

import numpy as np

from mechverify.kernel.core.fields import Reader
from mechverify.kernel.core.operations import (
    Attribute,
    Fixed,
    Node,
    of,
    pair,
    row,
    sizes,
)


class Weight(Fixed):
    attribute = Attribute(
        "`[tensor, shape]`",
        row({"type": "string"}, of("shape")),
        lambda entry: pair(entry, Reader.text, sizes),
    )
    meaning = "the leading part, of that shape, of a tensor of the weights"

    def shape(self, graph, args, attr):
        return "real", attr[1]

    def value(self, known, node, args):
        value = weight(known.weights, *node.attr)
        return known.semantics.ar.exact(value.reshape((1,) * known.batch + value.shape))


def weight(
    weights: dict[str, np.ndarray], name: str, shape: tuple[int, ...]
) -> np.ndarray:
    """The leading part of a weight tensor (a shorter sequence uses the first positions)."""
    return np.asarray(weights[name][tuple(slice(s) for s in shape)])


def table(weights: dict[str, np.ndarray], node: Node) -> np.ndarray:
    """A weight or a constant."""
    if node.op == "constant":
        return np.array(node.attr[1], float).reshape(node.attr[0])
    return weight(weights, *node.attr)


ROWS = {"weight": Weight()}
