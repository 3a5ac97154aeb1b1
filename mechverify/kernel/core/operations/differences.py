"""What rule `differences` alone adds to its copy of a graph: no file names it.

Lemmas D1, D2 (docs/soundness/differences.md).
"""

from mechverify.kernel.core.operations import UNWRITTEN, Elementwise, Node, need
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


class Blend(Alike):
    """Precondition: both operands have the same value."""

    operands, meaning = 2, "the value of either"

    def value(self, known, node, args):
        return args[1]


def applied(node: Node) -> Node:
    """The function of a secant, applied to its first operand."""
    op, attr = node.attr
    return Node(op, node.args[:1], attr, "real", node.shape)


ROWS = {"secant": Secant(), "blend": Blend()}
