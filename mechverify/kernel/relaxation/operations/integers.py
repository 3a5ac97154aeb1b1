"""Integers of the tokens: spans."""

import numpy as np

from mechverify.kernel.core import integers
from mechverify.kernel.relaxation.operations import Elementwise, Row


class Value(Row):
    def spans(self, known, n):
        values, position = known.graph.meanings, known.graph.nodes[n].attr
        known.ar.step(len(known.cells) * len(values), 1)
        at = [values[allowed[position]] for allowed in known.cells.allowed]
        return [(int(v.min()), int(v.max())) for v in at]

    def reads(self, graph, node, args):
        return np.arange(graph.length) == node.attr


class Integer(Elementwise):
    def spans(self, known, n):
        return [(known.graph.nodes[n].attr, known.graph.nodes[n].attr)] * len(
            known.cells
        )


class OfIntegers(Elementwise):
    """By interval arithmetic; of integers that are known, the value."""

    def spans(self, known, n):
        node, found = known.graph.nodes[n], []
        for s in zip(*(known.spans[a] for a in node.args), strict=True):
            low, high = integers.span(node.op, list(s), node.attr)
            if all(a == b for a, b in s):
                value = integers.apply(
                    node.op,
                    node.attr,
                    [np.array(a) for a, _ in s],
                    lambda _: known.graph.meanings,
                )
                low = high = int(value.item())
            found.append((low, high))
        return found


ROWS = {
    "value": Value(),
    "integer": Integer(),
    **{name: OfIntegers() for name in integers.OPERATIONS},
}
