"""Integers of the tokens, as a mechanism is made of: rows of core/integers.py, what a token means, and numbers."""

import math

import numpy as np

from mechverify.kernel.core import integers
from mechverify.kernel.core.fields import Reader
from mechverify.kernel.core.operations import Attribute, Elementwise, need, of


class Whole(Elementwise):
    """An integer. It has no axis, and so no slice."""

    def value(self, known, node, args):
        shape = np.broadcast_shapes(*(a.shape for a in args))
        known.semantics.ar.spend(len(args) * math.prod(shape), 1 + len(args))
        each, once = integers.work(node.op, node.attr, len(args))
        known.semantics.ar.step(each * math.prod(shape) + once, 0, 1)

        def token(position: int) -> np.ndarray:
            return known.graph.meanings[known.selected(position)]

        return integers.apply(node.op, node.attr, args, token)


def _read_integer(entry: Reader) -> int | None:
    return None if entry.value is None else entry.an_integer()


class Value(Whole):
    operands, meaning = (
        0,
        "the integer that the token at position i means: an entry of `domain.values`",
    )
    attribute = Attribute("i", of("position"), _read_integer)

    def shape(self, graph, args, attr):
        need(
            attr is not None and 0 <= attr < graph.length,
            f"no token at position {attr!r}",
        )
        return "int", (), graph.span


class Integer(Whole):
    operands, meaning = 0, "that integer"
    attribute = Attribute("an integer", of("integer"), _read_integer)

    def shape(self, graph, args, attr):
        need(attr is not None, "integer takes its value alone")
        return "int", (), (attr, attr)


class OfIntegers(Whole):
    """A row of integers.py."""

    meaning = "of integers: see [Mechanism](#mechanism)"

    def __init__(self, name: str):
        self.name, self.row = name, integers.OPERATIONS[name]
        self.operands, self.attribute = self.row.arity, self._attribute()

    def _attribute(self) -> Attribute:
        if self.row.table:
            schema = {
                "type": "array",
                "minItems": 1,
                "maxItems": integers.LONGEST,
                "items": of("integer"),
            }
            return Attribute(
                "integers",
                schema,
                lambda entry: tuple(entry.integers(integers.LONGEST)),
            )
        if self.row.most is None:
            return Attribute("null", {"type": "null"}, _read_integer)
        schema = {"type": "integer", "minimum": 1, "maximum": self.row.most}
        return Attribute(f"k, from 1 to {self.row.most}", schema, _read_integer)

    def shape(self, graph, args, attr):
        need(
            all(n.kind == "int" for n in args),
            f"an operand of {self.name!r} is not an integer",
        )
        return "int", (), integers.span(self.name, [n.span for n in args], attr)


ROWS = {
    "value": Value(),
    "integer": Integer(),
    **{name: OfIntegers(name) for name in integers.OPERATIONS},
}
