"""Functions of each entry: rows of core/functions, and powers."""

from abc import abstractmethod

from mechverify.kernel.core.functions import FUNCTIONS, Function
from mechverify.kernel.core.operations import NOTHING, Elementwise, Node, need, whole


class OfOne(Elementwise):
    """A function of each entry."""

    operands = 1

    def shape(self, graph, args, attr):
        need(
            len(args) == 1 and args[0].kind == "real",
            "a function takes one real operand",
        )
        return "real", args[0].shape

    def value(self, known, node, args):
        return known.semantics.function(node.op, self.function(node), args[0])

    @abstractmethod
    def function(self, node: Node) -> Function:
        """What it is of a node."""


class OfEach(OfOne):
    """A row of core/functions."""

    attribute, meaning = NOTHING, "the function of that name, of each entry"

    def function(self, node):
        return FUNCTIONS[node.op]


class Power(OfOne):
    attribute, meaning = (
        whole(2, 16, "the exponent, 2 to 16"),
        "the power, of each entry",
    )

    def shape(self, graph, args, attr):
        need(
            attr is not None and 2 <= attr <= 16, "power takes an exponent from 2 to 16"
        )
        return super().shape(graph, args, attr)

    def function(self, node):
        from mechverify.kernel.core.powers import power_of  # only where a graph has one

        return power_of(node.attr)


def function_of(node: Node) -> Function:
    """Precondition: `is_function`."""
    return ROWS[node.op].function(node)


ROWS: dict[str, OfOne] = {"power": Power(), **{name: OfEach() for name in FUNCTIONS}}
