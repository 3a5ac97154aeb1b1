"""What a float32 program computes where the graph has an operation: the value, and at most so much more or less."""

from typing import TYPE_CHECKING

from mechverify.kernel.core.arithmetic import Ball
from mechverify.kernel.core.operations.rounding import disturbed
from mechverify.kernel.relaxation import lines
from mechverify.kernel.relaxation.operations import Row, balls

if TYPE_CHECKING:
    from mechverify.kernel.relaxation.intervals import Intervals

# Rounded once, or by a function that is never negative: what isn't negative stays so.
SIGNED = (
    "mul",
    "over_root",
    "power",
    "abs",
    "relu",
    "exp",
    "sqrt",
    "rsqrt",
    "reciprocal",
    "sigmoid",
    "softmax",
)


class Rounding(Row):
    def linear(self, known, n):
        return True

    def bends(self, known, n):
        return False

    def ball(self, known, n):
        raw = known.balls[known.graph.nodes[n].args[0]]
        return known.ar.add(raw, self._range(known, n))

    def ends(self, known, n, found):
        node, ar = known.graph.nodes[n], known.ar
        raw = known.ends[node.args[0]]
        low, high = lines.total(ar, raw, ar.ends(self._range(known, n)))
        if node.attr[0] not in SIGNED and not self._sum(known, n):
            return low, high
        return lines.signed(ar, low, high, raw[0] >= 0, raw[1] <= 0)

    def _sum(self, known: "Intervals", n: int) -> bool:
        """A sum of products none of which is negative."""
        node = known.graph.nodes[n]
        return node.attr[0] == "einsum" and all(
            bool((known.ends[a][0] >= 0).all()) for a in node.args[1:]
        )

    def back(self, known, start, n, k):
        size = self._range(known, n).size
        return [(known.graph.nodes[n].args[0], k)], -known.dot(k.size, size)

    def reads(self, graph, node, args):
        return args[0]

    def _range(self, known: "Intervals", n: int) -> Ball:
        """A ball about zero that holds the disturbance, found once."""
        if n not in known.disturbances:
            node, ar, rank = (
                known.graph.nodes[n],
                known.ar,
                len(known.graph.nodes[n].shape),
            )
            raw, *rest = balls(known, n)
            known.disturbances[n] = disturbed(ar, node.attr, raw, rest, lambda x: _aligned(x, rank),
                                              raw._replace(mid=0 * known.finite(raw.mid)).point)  # fmt: skip
        return known.disturbances[n]


def _aligned(x: Ball, rank: int) -> Ball:
    """Axes of size one between cells and shape."""
    return x.map(
        lambda a: a.reshape(a.shape[0], *(1,) * (rank + 1 - a.ndim), *a.shape[1:])
    )


ROWS = {"rounding": Rounding()}
