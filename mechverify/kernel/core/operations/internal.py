"""What the relaxation alone adds to its copy of a graph (relaxation/rewriting.py): no file names it, no graph of a
claim holds it, and nothing is known of it but what the relaxation knows."""

from mechverify.kernel.core.errors import Rejected
from mechverify.kernel.core.operations import UNWRITTEN, Sliced
from mechverify.kernel.core.operations.contraction import Einsum


class Internal(Sliced):
    attribute = UNWRITTEN

    def value(self, known, node, args):
        raise Rejected(f"{node.op!r} has bounds, and no value")


class Slack(Internal):
    operands, meaning = 2, "a small error"

    def shape(self, graph, args, attr):
        return "real", args[0].shape[:-1]


class Pivot(Internal):
    operands, meaning = 2, "any constants of that shape"

    def shape(self, graph, args, attr):
        return Einsum().shape(graph, args, attr)


ROWS = {"slack": Slack(), "pivot": Pivot()}
