"""Real values that an integer of the tokens decides."""

import numpy as np

from mechverify.kernel.relaxation.operations import Elementwise, Ending


class Number(Elementwise, Ending):
    def ends(self, known, n, found):
        low, high = np.array(known.spans[known.graph.nodes[n].args[0]], float).T
        return known.ar.raw(low), known.ar.raw(high)


class Pick(Ending):
    def ends(self, known, n, found):
        ar, xp, node = known.ar, known.ar.xp, known.graph.nodes[n]
        least, most = known.ends[node.args[0]]
        low, high = np.array(known.spans[node.args[1]]).T[:, :, None]
        at = np.arange(least.shape[1])
        possible = (low <= at) & (at <= high)
        ones = (1,) * len(node.shape)
        inside = ar.raw(possible.reshape(len(low), -1, *ones))
        least, most_of_minus = (
            xp.amin(xp.where(inside, end, np.inf), 1) for end in (least, -most)
        )
        return least, -most_of_minus

    def reads(self, graph, node, args):
        return args[0].any(0) | args[1]


ROWS = {"number": Number(), "pick": Pick()}
