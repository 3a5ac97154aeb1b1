"""Tensors of the weights."""

from mechverify.kernel.core.operations.weights import weight
from mechverify.kernel.relaxation.operations import Exact


class Weight(Exact):
    def ball(self, known, n):
        return known.ar.exact(
            known.ar.raw(weight(known.weights, *known.graph.nodes[n].attr)[None])
        )


ROWS = {"weight": Weight()}
