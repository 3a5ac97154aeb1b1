"""Which position's token, beside the query's, each entry of a value depends on: one at most, or the value is refused.

Total over the operations: what no case names is refused.

Lemmas F1 (docs/soundness/fold.md), R1 (docs/soundness/ratios.md).
"""

from collections.abc import Sequence

import numpy as np

from mechverify.kernel.core.errors import Unsupported
from mechverify.kernel.core.graph import Graph, entries
from mechverify.kernel.core.operations import Node, is_function

NONE = -1  # no token, or the query's alone
Owners = np.ndarray  # integers of a node's shape: a position, or NONE


def owners(graph: Graph, node: Node, args: list[Owners]) -> Owners:
    """Of a node, by those of its operands. Raises Unsupported where an entry depends on the tokens of several positions
    that the graph doesn't read by themselves, and where a token is used as a number."""
    match node.op:
        case "tokens":
            return np.arange(graph.length)
        case "weight" | "constant" | "pi":
            return np.broadcast_to(np.array(NONE), node.shape)
        case "select" if is_query(graph, node):
            return np.array(NONE)
        case "select":
            axis, index = node.attr
            return np.take(args[0], index, axis)
        case "view":
            return args[0].ravel()[entries(node.attr)]
        case "gather":
            ids = args[1]
            return np.broadcast_to(
                ids.reshape(*ids.shape, *(1,) * (len(node.shape) - ids.ndim)),
                node.shape,
            )
        case "concat":
            return np.concatenate(args, node.attr)
        case "add" | "sub" | "mul":
            return _either(node, *(np.broadcast_to(a, node.shape) for a in args))
        case "einsum":
            return _contracted(node, args)
        case "softmax":  # of several rows, which is no attention that the form has
            return np.broadcast_to(_any(node, args[0], (-1,))[..., None], node.shape)
    if node.op == "over_root" or is_function(node):
        return args[0]
    raise Unsupported(f"the result of {node.op!r} is no table of tokens")


def query(graph: Graph, order: Sequence[int]) -> int:
    """The one position whose token these nodes read by itself; Unsupported if there are others, or none."""
    pinned = {graph.nodes[n].attr[1] for n in order if is_query(graph, graph.nodes[n])}
    if len(pinned) != 1:
        raise Unsupported(
            f"the output reads {len(pinned)} tokens by themselves; one (a query) is needed"
        )
    return pinned.pop()


def is_query(graph: Graph, node: Node) -> bool:
    """A token that the graph reads by itself."""
    return node.op == "select" and graph.nodes[node.args[0]].op == "tokens"


def _contracted(node: Node, args: list[Owners]) -> Owners:
    *terms, result = node.attr.replace("->", ",").split(",")
    parts = []
    for term, a in zip(terms, args, strict=True):
        left = [c for c in term if c in result]
        a = _any(node, a, tuple(i for i, c in enumerate(term) if c not in result))
        a = a.transpose([left.index(c) for c in result if c in left])
        a = np.expand_dims(a, tuple(i for i, c in enumerate(result) if c not in left))
        parts.append(np.broadcast_to(a, node.shape))
    return _either(node, *parts)


def _either(node: Node, x: Owners, y: Owners) -> Owners:
    """Of what depends on an entry of each."""
    if ((x != y) & (x != NONE) & (y != NONE)).any():
        raise _mixed(node)
    return np.maximum(x, y)


def _any(node: Node, x: Owners, axes: tuple[int, ...]) -> Owners:
    """Of what depends on all entries along the axes."""
    greatest = x.max(axes)
    if ((x != np.expand_dims(greatest, axes)) & (x != NONE)).any():
        raise _mixed(node)
    return greatest


def _mixed(node: Node) -> Unsupported:
    if node.op == "softmax":
        return Unsupported(
            f"one attention head read at one position is needed; this pattern is {node.shape}"
        )
    return Unsupported(
        f"the result of {node.op!r} mixes the tokens of several positions before attention does"
    )
