"""Sums, differences, products and a quotient of entries at the same place."""

from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np

from mechverify.kernel.core.arithmetic import Ball
from mechverify.kernel.relaxation import lines
from mechverify.kernel.relaxation.operations import (
    Elementwise,
    Linear,
    balls,
    operand_ends,
)

if TYPE_CHECKING:
    from mechverify.kernel.relaxation.intervals import Intervals


class Add(Elementwise, Linear):
    def ball(self, known, n):
        return known.ar.add(*balls(known, n))

    def ends(self, known, n, found):
        return lines.total(known.ar, *operand_ends(known, n))

    def transposed(self, known, n, k):
        return [(a, k) for a in known.graph.nodes[n].args]


class Sub(Elementwise, Linear):
    def ball(self, known, n):
        return known.ar.sub(*balls(known, n))

    def ends(self, known, n, found):
        first, (low, high) = operand_ends(known, n)
        return lines.total(known.ar, first, (-high, -low))

    def transposed(self, known, n, k):
        first, second = known.graph.nodes[n].args
        return [(first, k), (second, -k)]


class Mul(Elementwise):
    """Linear where an operand is fixed; otherwise it bends, and planes bound it."""

    two_sided = True

    def linear(self, known, n):
        return bool(known.fixed & set(known.graph.nodes[n].args))

    def bends(self, known, n):
        return not self.linear(known, n)

    def ball(self, known, n):
        return known.ar.mul(*balls(known, n))

    def ends(self, known, n, found):
        x, y = operand_ends(known, n)
        if not self.linear(known, n) and self._same(known, *known.graph.nodes[n].args):
            from mechverify.kernel.core.powers import power_of

            return lines.image(known.ar, power_of(2), *x)
        return lines.product(known.ar, x, y)

    def _same(self, known: "Intervals", x: int, y: int) -> bool:
        """Both are the same view of one node."""
        (first, here), (second, there) = (known.source(n, slices=True) for n in (x, y))
        return first == second and np.array_equal(here, there)

    def transposed(self, known, n, k):
        args = known.graph.nodes[n].args
        one, other = args if args[1] in known.fixed else args[::-1]
        return [(one, known.ar.mul(k, known.balls[other].at[:, None]))]

    def back(self, known, start, n, k):
        if self.linear(known, n):
            return self.transposed(known, n, k), None
        from mechverify.kernel.relaxation import (
            planes,
        )  # only where neither operand is fixed

        return planes.through(known, start, n, k)


class OverRoot(Elementwise, Linear):
    def ball(self, known, n):
        (x,) = balls(known, n)
        return self._divided(known, n, x)

    def ends(self, known, n, found):
        (x,), ar = operand_ends(known, n), known.ar
        return lines.product(
            ar, x, ar.ends(self._divided(known, n, ar.rational(Fraction(1))))
        )

    def transposed(self, known, n, k):
        return [(known.graph.nodes[n].args[0], self._divided(known, n, k))]

    def _divided(self, known: "Intervals", n: int, x: Ball) -> Ball:
        return known.ar.div(
            x, known.ar.sqrt(known.ar.rational(Fraction(known.graph.nodes[n].attr)))
        )


ROWS = {"add": Add(), "sub": Sub(), "mul": Mul(), "over_root": OverRoot()}
