"""What rule `differences` alone adds to its copy of a graph: no file names it.

Lemmas D1, D2, D3 (docs/soundness/differences.md).
"""

from mechverify.kernel.core.operations import (
    UNWRITTEN,
    Elementwise,
    Node,
    Operation,
    need,
)
from mechverify.kernel.core.operations.functions import ROWS as FUNCTIONS


class Alike(Elementwise):
    """Operands of one shape."""

    attribute = UNWRITTEN

    def shape(self, graph, args, attr):
        need(
            all(a.kind == "real" and a.shape == args[0].shape for a in args),
            "a difference has real operands of one shape",
        )
        return "real", args[0].shape


class Secant(Alike):
    """Precondition: the third operand is the first less the second. Attribute: the function, and its own attribute."""

    operands, meaning = 3, "f(a) - f(b), of a, b and a - b"

    def value(self, known, node, args):
        function = applied(node)
        row = FUNCTIONS[function.op]
        first, second = (row.value(known, function, [a]) for a in args[:2])
        return known.semantics.sub(first, second)


class Exchanged(Operation):
    """p_i q_k - q_i p_k [.., i, k]. Precondition: the first two operands are softmaxes p and q with one mask, and the
    third one the differences [.., i, k] of s_i - s_k in both runs, s being the scores."""

    operands, attribute = 3, UNWRITTEN
    meaning = (
        "by how much more entry i of a softmax gains from entry k than that from it"
    )

    def shape(self, graph, args, attr):
        first, second, pairs = args
        need(
            first.shape == second.shape
            and pairs.shape == (*first.shape, first.shape[-1]),
            "differences of a softmax's scores are those of all pairs",
        )
        return "real", pairs.shape

    def value(self, known, node, args):
        semantics = known.semantics
        own, other = ([x.at[..., None], x.at[..., None, :]] for x in args[:2])
        first, second = (
            semantics.mul(a, b) for a, b in ((own[0], other[1]), (other[0], own[1]))
        )
        return semantics.sub(first, second)

    def slice(self, graph, node, axis, index):
        n = graph.nodes[node]
        if axis >= len(n.shape) - 2:
            return "select", [node], (axis, index)
        return n.op, [(a, axis, index) for a in n.args], n.attr


class Blend(Alike):
    """Precondition: both operands have the same value."""

    operands, meaning = 2, "the value of either"

    def value(self, known, node, args):
        return args[1]


def applied(node: Node) -> Node:
    """The function of a secant, applied to its first operand."""
    op, attr = node.attr
    return Node(op, node.args[:1], attr, "real", node.shape)


ROWS = {"secant": Secant(), "exchanged": Exchanged(), "blend": Blend()}
