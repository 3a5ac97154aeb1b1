"""Real values that an integer of the tokens decides."""

import numpy as np

from mechverify.kernel.core.operations import NOTHING, Elementwise, Sliced, need


class Number(Elementwise):
    operands, attribute, meaning = (
        1,
        NOTHING,
        "an integer as a real; its span is below 2^53",
    )

    def shape(self, graph, args, attr):
        need(len(args) == 1 and args[0].kind == "int", "number takes an integer")
        need(
            max(map(abs, args[0].span)) < 2**53,
            "an integer of more than 53 bits as a real",
        )
        return "real", ()

    def value(self, known, node, args):
        return known.semantics.ar.whole(known.of_batch(args[0]))


class Pick(Sliced):
    operands, attribute = 2, NOTHING
    meaning = "the slice along the first axis of a real value that an integer says; its span lies within the axis"

    def shape(self, graph, args, attr):
        axes = len(args[0].shape)
        legal = [a.kind for a in args] == ["real", "int"] and axes > 0
        need(legal, "pick takes a real axis and an integer")
        low, high = args[1].span
        size = args[0].shape[0]
        need(
            0 <= low <= high < size,
            f"pick: the index reaches from {low} to {high}, the axis has {size} entries",
        )
        return "real", args[0].shape[1:]

    def value(self, known, node, args):
        x, axis = args[0], known.batch
        index = known.of_batch(args[1])
        batch = np.broadcast_shapes(x.mid.shape[:axis], index.shape)
        ones = (1,) * (x.mid.ndim - axis)
        at = index.reshape(*index.shape, *ones)

        def picked(a: np.ndarray) -> np.ndarray:
            every = np.broadcast_to(a, (*batch, *a.shape[axis:]))
            return np.take_along_axis(every, at, axis).squeeze(axis)

        return x.map(picked)


ROWS = {"number": Number(), "pick": Pick()}
