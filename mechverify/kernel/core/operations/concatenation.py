"""Values one after another."""

from typing import Any

import numpy as np

from mechverify.kernel.core.arithmetic import Ball, aligned
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
        ar: Any = known.semantics.ar
        parts = aligned(ar, *args)
        axis = known.batch + node.attr
        batch = np.broadcast_shapes(*(a.mid.shape[: known.batch] for a in parts))

        def joined(arrays: list[np.ndarray]) -> np.ndarray:
            own = [a.mid.shape[known.batch :] for a in parts]
            whole = [
                np.broadcast_to(a, (*batch, *shape))
                for a, shape in zip(arrays, own, strict=True)
            ]
            return np.concatenate(whole, axis)

        mid, rads = joined([a.mid for a in parts]), [a.rad for a in parts]
        if ar.uniform:
            return ar.together(mid, parts)
        return Ball(mid, joined(rads), parts[0].exponent)


ROWS = {"concat": Concat()}
