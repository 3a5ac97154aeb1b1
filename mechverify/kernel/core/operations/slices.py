"""Slices that nothing but the whole value says."""

import numpy as np

from mechverify.kernel.core.operations import UNWRITTEN, Sliced


class Select(Sliced):
    """The slice at an index along an axis: attr = axis, index. `Graph.select` makes it where nothing else will do."""

    operands, attribute, meaning = 1, UNWRITTEN, "a slice"

    def shape(self, graph, args, attr):
        axis, _ = attr
        return args[0].kind, args[0].shape[:axis] + args[0].shape[axis + 1 :]

    def value(self, known, node, args):
        axis, index = node.attr
        if node.kind == "ids" and known.graph.nodes[node.args[0]].op == "tokens":
            return known.selected(index)
        if node.kind == "ids":
            return np.take(args[0], index, axis + known.batch)
        return args[0].map(lambda a: np.take(a, index, axis + known.batch))


ROWS = {"select": Select()}
