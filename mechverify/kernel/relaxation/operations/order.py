"""What comparing entries decides; rewriting leaves no extremum and no order of entries."""

from fractions import Fraction

import numpy as np

from mechverify.kernel.relaxation.lines import Ends
from mechverify.kernel.relaxation.operations import (
    Curved,
    Elementwise,
    Row,
    operand_ends,
)


class Extremum(Row):
    """Rewritten (order.py): bounds of it are never asked for."""

    def reads(self, graph, node, args):
        """All entries of the axis."""
        return np.bitwise_or.reduce(args[0], -2)


class Ascending(Row):
    """Rewritten as well."""

    def reads(self, graph, node, args):
        """All entries of the axis, each of them."""
        return np.broadcast_to(args[0].any(-2, keepdims=True), args[0].shape)


class Choose(Elementwise, Curved):
    """Rewritten so that the second operand is zero: the first one's sign decides."""

    def bends(self, known, n):
        return True

    def ends(self, known, n, found):
        x, _, above, other = operand_ends(known, n)
        xp, (more, less) = known.ar.xp, self._decided(x)
        either = xp.minimum(above[0], other[0]), xp.maximum(above[1], other[1])
        low, high = (
            xp.where(more, a, xp.where(less, b, c))
            for a, b, c in zip(above, other, either, strict=True)
        )
        return low, high

    def back(self, known, start, n, k):
        """As one operand or the other; where it isn't decided, a form ends at the interval."""
        ar, (x, _, above, other) = known.ar, known.graph.nodes[n].args
        more, less = (a[:, None] for a in self._decided(known.ends[x]))
        one, zero = (ar.rational(Fraction(v)) for v in (1, 0))
        plane = [ar.where(more, one, zero), ar.where(less, one, zero), zero]
        planes = [
            known.levelled(n, plane, upper, more | less) for upper in (False, True)
        ]
        (first, second), total = known.bent(n, k, planes)
        return [(above, first), (other, second)], total

    def _decided(self, x: Ends):
        """Where surely x > 0, and where surely x <= 0."""
        return x[0] > 0, x[1] <= 0


ROWS = {"extremum": Extremum(), "ascending": Ascending(), "choose": Choose()}
