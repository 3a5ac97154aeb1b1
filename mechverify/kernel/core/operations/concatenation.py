"""Values one after another."""

import math
from functools import reduce

import numpy as np

from mechverify.kernel.core.operations import Sliced, need, whole


class Concat(Sliced):
    operands, attribute = None, whole(0, 15, "axis")
    meaning = "the operands one after another along an axis; all other sizes are equal"

    def shape(self, graph, args, attr):
        shapes = [a.shape for a in args]
        axes = {len(s) for s in shapes}
        legal = (
            len(args) > 0
            and all(a.kind == "real" for a in args)
            and 0 <= attr < len(shapes[0])
        )
        need(legal, "concat needs an axis")
        others = {(s[:attr], s[attr + 1 :]) for s in shapes if len(s) > attr}
        need(
            len(others) == 1 and len(axes) == 1,
            f"concat along axis {attr} of shapes {shapes}",
        )
        before, after = others.pop()
        joined = sum(s[attr] for s in shapes)
        return "real", (*before, joined, *after)

    def value(self, known, node, args):
        """Each operand in its place of an array of zeros, added up: exact, and their exponents may differ."""
        here = np.arange(math.prod(node.shape)).reshape(node.shape)
        start = 0
        parts = []
        for a in args:
            width = a.mid.shape[known.batch + node.attr]
            places = np.take(here, np.arange(start, start + width), node.attr).ravel()
            flat = a.map(lambda v: v.reshape(*v.shape[: known.batch], -1))
            parts.append(known.model.ar.scatter(flat, places, here.size))
            start += width
        total = reduce(known.model.ar.add, parts)
        return total.map(lambda v: v.reshape(*v.shape[: known.batch], *node.shape))


ROWS = {"concat": Concat()}
