"""Numbers that a file lists."""

import math

import numpy as np

from mechverify.kernel.core.errors import Rejected
from mechverify.kernel.core.fields import Reader
from mechverify.kernel.core.operations import Attribute, Fixed, of, row, sizes


def _constant(entry: Reader) -> tuple:
    shape, values = entry.items(2, 2)
    numbers = tuple(v.float64() for v in values.items(2**16))
    if len(numbers) != math.prod(sizes(shape)):
        raise Rejected(f"{entry.where}: the entries don't fill the shape")
    return sizes(shape), numbers


class Constant(Fixed):
    attribute = Attribute(
        "`[shape, entries]`", row(of("shape"), of("numbers")), _constant
    )
    meaning = "these numbers, row-major"

    def shape(self, graph, args, attr):
        return "real", attr[0]

    def value(self, known, node, args):
        shape, numbers = node.attr
        return known.semantics.ar.exact(
            np.array(numbers, float).reshape((1,) * known.batch + shape)
        )


ROWS = {"constant": Constant()}
