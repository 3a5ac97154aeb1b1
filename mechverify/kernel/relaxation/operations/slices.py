"""Slices of ids; those of real values are rewritten to views."""

import numpy as np

from mechverify.kernel.relaxation.operations import Row


class Select(Row):
    def positions(self, known, n):
        node = known.graph.nodes[n]
        axis, index = node.attr
        return np.take(known.positions[node.args[0]], index, axis)

    def reads(self, graph, node, args):
        axis, index = node.attr
        return np.take(args[0], index, axis)


ROWS = {"select": Select()}
