"""Sums, differences, products and a quotient of entries at the same place."""

from fractions import Fraction

import numpy as np

from mechverify.kernel.core.errors import Rejected
from mechverify.kernel.core.operations import NOTHING, Elementwise, need, whole
from mechverify.kernel.core.operations.contraction import products


class OfTwo(Elementwise):
    """Shapes broadcast on the right."""

    operands, attribute = 2, NOTHING

    def shape(self, graph, args, attr):
        first, second = args
        need(
            first.kind == second.kind == "real",
            "an elementwise operation needs two real operands",
        )
        try:
            return "real", np.broadcast_shapes(first.shape, second.shape)
        except ValueError:
            raise Rejected(
                f"shapes {first.shape} and {second.shape} don't fit"
            ) from None


class Add(OfTwo):
    meaning = "the sum; shapes broadcast on the right"

    def value(self, known, node, args):
        first, second = (known.align(a, len(node.shape)) for a in args)
        return known.semantics.add(first, second, products(known.graph, node))


class Sub(OfTwo):
    meaning = "the difference; likewise"

    def value(self, known, node, args):
        return known.semantics.sub(*(known.align(a, len(node.shape)) for a in args))


class Mul(OfTwo):
    meaning = "the product; likewise"

    def value(self, known, node, args):
        return known.semantics.mul(*(known.align(a, len(node.shape)) for a in args))


class OverRoot(Elementwise):
    operands, attribute = 1, whole(1, 2**30, "d, 1 to 2^30")
    meaning = "each entry divided by the square root of d"

    def shape(self, graph, args, attr):
        need(args[0].kind == "real", "over_root takes a real operand")
        return "real", args[0].shape

    def value(self, known, node, args):
        semantics = known.semantics
        return semantics.div(
            args[0], semantics.sqrt(semantics.ar.rational(Fraction(node.attr)))
        )


ROWS = {"add": Add(), "sub": Sub(), "mul": Mul(), "over_root": OverRoot()}
