"""Softmax, which rewriting leaves none of."""

import numpy as np

from mechverify.kernel.core.operations.softmax import kept
from mechverify.kernel.relaxation.operations import Row, no_tokens


class Softmax(Row):
    """Rewritten to functions of linear forms (rewriting.py): bounds of it are never asked for."""

    def reads(self, graph, node, args):
        """All entries that are kept."""
        keeps = np.broadcast_to(kept(node), node.shape)[..., None]
        return no_tokens(graph, node) | (args[0] & keeps).any(-2, keepdims=True)


ROWS = {"softmax": Softmax()}
