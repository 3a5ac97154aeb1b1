"""Values one after another."""

from collections.abc import Iterable
from fractions import Fraction
from math import prod
from typing import TYPE_CHECKING

import numpy as np

from mechverify.kernel.relaxation.operations import Linear, balls, operand_ends

if TYPE_CHECKING:
    from mechverify.kernel.relaxation.intervals import Intervals


class Concat(Linear):
    def ball(self, known, n):
        ar, shape = known.ar, known.graph.nodes[n].shape
        size, whole = prod(shape), ar.rational(Fraction(0))
        for (_, at), x in zip(self._places(known, n), balls(known, n), strict=True):
            part = ar.scatter(x.map(lambda a: a.reshape(a.shape[0], -1)), at, size)
            whole = ar.add(whole, part.map(lambda a: a.reshape(-1, *shape)))
        return whole

    def ends(self, known, n, found):
        xp, operands, axis = (
            known.ar.xp,
            operand_ends(known, n),
            known.graph.nodes[n].attr + 1,
        )
        cells = max(end.shape[0] for ends in operands for end in ends)
        low, high = (
            xp.concatenate(
                [
                    xp.broadcast_to(ends[side], (cells, *ends[side].shape[1:]))
                    for ends in operands
                ],
                axis,
            )
            for side in (0, 1)
        )
        return low, high

    def transposed(self, known, n, k):
        flat = k.map(lambda a: a.reshape(*k.mid.shape[:2], -1))
        forms = []
        for operand, at in self._places(known, n):
            shape = *k.mid.shape[:2], *known.graph.nodes[operand].shape
            forms.append(
                (
                    operand,
                    flat.map(lambda v, at=at, shape=shape: v[..., at].reshape(shape)),
                )
            )
        return forms

    def _places(self, known: "Intervals", n: int) -> Iterable[tuple[int, np.ndarray]]:
        """For every operand, where its entries go in the flattened result."""
        node, start = known.graph.nodes[n], 0
        here = np.arange(prod(node.shape)).reshape(node.shape)
        for operand in node.args:
            width = known.graph.nodes[operand].shape[node.attr]
            yield (
                operand,
                np.take(here, np.arange(start, start + width), node.attr).ravel(),
            )
            start += width

    def reads(self, graph, node, args):
        return np.concatenate(args, node.attr)


ROWS = {"concat": Concat()}
