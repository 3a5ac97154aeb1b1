"""Moving entries."""

from math import prod
from typing import Any

import numpy as np

from mechverify.kernel.core.graph import entries
from mechverify.kernel.relaxation.operations import Linear, balls, operand_ends


class View(Linear):
    def positions(self, known, n):
        node = known.graph.nodes[n]
        return known.positions[node.args[0]].ravel()[entries(node.attr)]

    def ball(self, known, n):
        (x,), at = balls(known, n), entries(known.graph.nodes[n].attr)
        return x.map(lambda a: a.reshape(a.shape[0], -1)[:, at])

    def ends(self, known, n, found):
        ((low, high),), view = operand_ends(known, n), known.graph.nodes[n].attr
        return viewed(low, view), viewed(high, view)

    def transposed(self, known, n, k):
        ar, node, lead = known.ar, known.graph.nodes[n], k.mid.shape[:2]
        shape = known.graph.nodes[node.args[0]].shape
        at = entries(node.attr).ravel()
        form = k.map(lambda a: a.reshape(*lead, -1))
        if not np.array_equal(at, np.arange(prod(shape))):  # more than a reshape
            form = ar.scatter(form, at, prod(shape))
        return [(node.args[0], form.map(lambda a: a.reshape(*lead, *shape)))]

    def reads(self, graph, node, args):
        return args[0].reshape(-1, graph.length)[entries(node.attr)]


def viewed(a: Any, view: tuple) -> Any:
    """The entries that a view reads, of a raw array [cells, *shape]."""
    return a.reshape(a.shape[0], -1)[:, entries(view)]


ROWS = {"view": View()}
