"""Differences of a function's values at two arguments, and values that are known in two ways.

Lemmas D1, D2 (docs/soundness/differences.md).
"""

from typing import TYPE_CHECKING, Any

from mechverify.kernel.core.operations.differences import applied
from mechverify.kernel.core.operations.functions import function_of
from mechverify.kernel.relaxation import lines
from mechverify.kernel.relaxation.lines import Ends
from mechverify.kernel.relaxation.operations import (
    Curved,
    Elementwise,
    operand_ends,
)
from mechverify.kernel.relaxation.slopes import slopes

if TYPE_CHECKING:
    from mechverify.kernel.relaxation.backward import Relaxed
    from mechverify.kernel.relaxation.intervals import Intervals


class Secant(Elementwise, Curved):
    """f(a) - f(b) = s d, d = a - b, where s is a slope of f between a and b."""

    def bends(self, known, n):
        return True

    def ends(self, known, n, found):
        a, b, d = operand_ends(known, n)
        f = function_of(applied(known.graph.nodes[n]))
        (low, high), (least, most) = (lines.image(known.ar, f, *x) for x in (a, b))
        apart = lines.total(known.ar, (low, high), (-most, -least))
        return lines.meet(
            known.ar, apart, lines.product(known.ar, self.slopes(known, n), d)
        )

    def back(self, known, start, n, k):
        ar, d = known.ar, known.graph.nodes[n].args[2]
        slopes, apart = (
            tuple(end[:, None] for end in ends)
            for ends in (self.slopes(known, n), known.ends[d])
        )
        given = known.lines.choose(known, start, n)
        if given is None:
            given = self.default(known, n)
        planes = []
        for upper, slope in enumerate(given):
            rest = lines.total(ar, slopes, (-slope, -slope))
            end = lines.product(ar, rest, apart)[upper]
            finite = ar.xp.isfinite(end)
            constant = ar.exact(known.finite(end))
            planes.append(
                known.levelled(n, [ar.exact(slope), constant], bool(upper), finite)
            )
        (form,), total = known.bent(n, k, planes)
        return [(d, form)], total

    def slopes(self, known: "Intervals", n: int) -> Ends:
        """Between which the slopes of f lie, on the hull of both arguments."""
        if n not in known.slopes:
            (low, high), (least, most), _ = operand_ends(known, n)
            xp, node = known.ar.xp, applied(known.graph.nodes[n])
            hull = xp.minimum(low, least), xp.maximum(high, most)
            known.slopes[n] = slopes(known.ar, node, *hull)
        return known.slopes[n]

    def default(self, known: "Relaxed", n: int) -> tuple[Any, Any]:
        """Any slopes are sound. Those of the chords of min s d and max s d, which are concave and convex in d."""
        xp, d = known.ar.xp, known.graph.nodes[n].args[2]
        least, most = (known.finite(s[:, None]) for s in self.slopes(known, n))
        low, high = (known.finite(end[:, None]) for end in known.ends[d])
        width = xp.where(high > low, high - low, 1.0)
        lower = xp.minimum(least * high, most * high) - xp.minimum(
            least * low, most * low
        )
        upper = xp.maximum(least * high, most * high) - xp.maximum(
            least * low, most * low
        )
        flat = ~(high > low)
        return tuple(
            xp.where(flat, least, known.finite(rise / width)) for rise in (lower, upper)
        )


class Blend(Elementwise, Curved):
    """One value, known in two ways: what holds of either holds."""

    def bends(self, known, n):
        return False

    def ends(self, known, n, found):
        return lines.meet(known.ar, *operand_ends(known, n))

    def back(self, known, start, n, k):
        """Any share of the form goes on to the first operand, and the rest to the second."""
        ar, (first, second) = known.ar, known.graph.nodes[n].args
        given = known.lines.choose(known, start, n)
        lower, upper = (self.default(known, n),) * 2 if given is None else given
        share = k.mid * ar.xp.where(k.mid > 0, lower, upper)
        if bool((share == k.mid).all()):
            return [(first, k)], None
        if not bool((share != 0).any()):  # nor NaN
            return [(second, k)], None
        part = ar.point(share)
        return [(first, part), (second, ar.sub(k, part))], None

    def default(self, known: "Relaxed", n: int) -> Any:
        """One where the first operand is known better, else zero."""
        (low, high), (least, most) = operand_ends(known, n)
        better = (high - low <= most - least)[:, None]
        return known.ar.xp.where(better, 1.0, 0.0 * known.finite(low[:, None]))


ROWS = {"secant": Secant(), "blend": Blend()}
