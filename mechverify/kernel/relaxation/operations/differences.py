"""Differences of a function's values at two arguments, and values that are known in two ways.

Lemmas D1, D2, D3, D5 (docs/soundness/differences.md).
"""

from abc import abstractmethod
from typing import TYPE_CHECKING, Any

from mechverify.kernel.core.arithmetic import Ball
from mechverify.kernel.core.operations.differences import applied
from mechverify.kernel.core.operations.functions import function_of
from mechverify.kernel.relaxation import lines, noise
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


class Sloped(Curved):
    """s d, where d is the last operand, and s lies between the ends of `slopes`."""

    together = False  # whether it pays to ask what all entries leave over together

    def bends(self, known, n):
        return True

    def ends(self, known, n, found):
        d = known.graph.nodes[n].args[-1]
        return lines.product(known.ar, self.slopes(known, n), known.ends[d])

    def back(self, known, start, n, k):
        """By a witness's slopes; or, row by row, by those that are better in the middle of d's interval."""
        ar, d = known.ar, known.graph.nodes[n].args[-1]
        given = known.lines.choose(known, start, n)
        form, total = self._through(
            known,
            n,
            k,
            given or self.default(known, n),
            self.together and given is not None,
        )
        if given is None and self.together:
            other, more = self._through(known, n, k, noise.middle(known, n), True)
            ends = (known.finite(end) for end in known.ends[d])
            centre = ar.point(sum(ends) / 2)
            here, there = (
                known.dot(a.point, centre).mid + b.mid
                for a, b in ((form, total), (other, more))
            )
            better = there > here
            form = ar.where(
                better.reshape(*better.shape, *(1,) * (k.mid.ndim - 2)), other, form
            )
            total = ar.where(better, more, total)
        return [(d, form)], total

    def _through(
        self, known: "Relaxed", n: int, k: Ball, slopes: tuple[Any, Any], together: bool
    ) -> tuple[Ball, Ball]:
        """A form of d and a number: what slopes leave over of each entry, or of all `together` where that is less."""
        ar, xp, d = known.ar, known.ar.xp, known.graph.nodes[n].args[-1]
        between, apart = (
            tuple(end[:, None] for end in ends)
            for ends in (self.slopes(known, n), known.ends[d])
        )
        planes, used = [], together
        for upper, slope in enumerate(slopes):
            rest = lines.total(ar, between, (-slope, -slope))
            end = lines.product(ar, rest, apart)[upper]
            used = used and bool(xp.isfinite(end).all())
            plane = [ar.exact(slope), ar.exact(known.finite(end))]
            planes.append(known.levelled(n, plane, bool(upper), xp.isfinite(end)))
        (form,), total = known.bent(n, k, planes)
        if used:
            reach = noise.reach(known, n, xp.where(k.mid > 0, *slopes))
            if (loss := noise.loss(known, d, k, reach)) is not None:
                low = ar.ends(total)[0]
                total = ar.point(xp.where(-loss > low, -loss, low))
        return form, total

    def slopes(self, known: "Intervals", n: int) -> Ends:
        if n not in known.slopes:
            known.slopes[n] = self.found(known, n)
        return known.slopes[n]

    @abstractmethod
    def found(self, known: "Intervals", n: int) -> Ends: ...

    def default(self, known: "Relaxed", n: int) -> tuple[Any, Any]:
        """Any slopes are sound. Those of the chords of min s d and max s d, which are concave and convex in d."""
        xp, d = known.ar.xp, known.graph.nodes[n].args[-1]
        slopes, (low, high) = (
            [known.finite(end[:, None]) for end in ends]
            for ends in (self.slopes(known, n), known.ends[d])
        )
        wide = high > low
        width = xp.where(wide, high - low, 1.0)
        first, last = (xp.stack([s * end for s in slopes]) for end in (low, high))
        rises = (
            xp.amin(last, 0) - xp.amin(first, 0),
            xp.amax(last, 0) - xp.amax(first, 0),
        )
        lower, upper = (
            xp.where(wide, known.finite(rise / width), slopes[0]) for rise in rises
        )
        return lower, upper


class Secant(Elementwise, Sloped):
    """f(a) - f(b) = s d, d = a - b, where s is a slope of f between a and b."""

    together = True

    def ends(self, known, n, found):
        a, b, _ = operand_ends(known, n)
        f = function_of(applied(known.graph.nodes[n]))
        first, (low, high) = (lines.image(known.ar, f, *x) for x in (a, b))
        apart = lines.total(known.ar, first, (-high, -low))
        return lines.meet(known.ar, apart, super().ends(known, n, found))

    def found(self, known, n):
        """On the hull of both arguments."""
        (low, high), (least, most), _ = operand_ends(known, n)
        xp, node = known.ar.xp, applied(known.graph.nodes[n])
        return slopes(known.ar, node, xp.minimum(low, least), xp.maximum(high, most))


class Exchanged(Sloped):
    """c d, where c[i, k] lies between p_i q_k and q_i p_k."""

    def found(self, known, n):
        p, q, _ = operand_ends(known, n)
        products = [
            lines.product(
                known.ar,
                tuple(end[..., :, None] for end in own),
                tuple(end[..., None, :] for end in other),
            )
            for own, other in ((p, q), (q, p))
        ]
        (low, high), (least, most) = products
        return known.ar.xp.minimum(low, least), known.ar.xp.maximum(high, most)

    def reads(self, graph, node, args): ...


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


ROWS = {"secant": Secant(), "exchanged": Exchanged(), "blend": Blend()}
