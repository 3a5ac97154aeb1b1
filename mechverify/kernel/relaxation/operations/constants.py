"""Tensors of the weights, and numbers that a file lists."""

import numpy as np

from mechverify.kernel.core.operations.constants import weight
from mechverify.kernel.relaxation.operations import Fixed


class Exact(Fixed):
    """Numbers, whose ends they are."""

    def ends(self, known, n, found):
        number = self.ball(known, n).mid
        return number, number


class Weight(Exact):
    def ball(self, known, n):
        return known.ar.exact(
            known.ar.raw(weight(known.weights, *known.graph.nodes[n].attr)[None])
        )


class Constant(Exact):
    def ball(self, known, n):
        shape, numbers = known.graph.nodes[n].attr
        return known.ar.exact(known.ar.raw(np.array(numbers, float).reshape(1, *shape)))


ROWS = {"weight": Weight(), "constant": Constant()}
