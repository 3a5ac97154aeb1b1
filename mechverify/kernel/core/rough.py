"""float64 balls whose matrix products read the leading digits of their factors alone, about as many as float32 has: one
multiplication of integers, where float64 takes a dozen. For what is far from a boundary.

Lemma C17 (docs/soundness/core.md).
"""

import numpy as np

from mechverify.kernel.core.arithmetic import Ball
from mechverify.kernel.core.float64 import Float64, large, outward
from mechverify.kernel.core.products import contract, product, sliced


class Rough(Float64):
    def contract(self, spec: str, x: Ball, y: Ball) -> Ball:
        """As `Arithmetic.contract`; precondition and postcondition are the same, balls are wider."""
        if not large(spec, x.mid.shape, y.mid.shape):
            return super().contract(spec, x, y)
        return contract(self, spec, x, y, Leading)


class Leading:
    """Rows of balls [kept, m, n] as one slice each: `centre`, `off` [kept, m, 1], by which a ball of the row leaves its
    centre at most, and `size` [kept, m, 1], at least the sum of the centres' sizes."""

    def __init__(self, mid: np.ndarray, rad: np.ndarray, turn: int):
        self.centre, near = sliced(mid, turn, most=1)
        self.n = mid.shape[-1]
        off = outward(rad + np.abs(mid - near))
        self.off = off.max(-1, keepdims=True, initial=0.0)
        sizes = np.abs(self.centre.slices)
        counted = sizes.sum(-1, keepdims=True)  # exact, in any order
        self.size = outward(np.ldexp(counted, self.centre.exponent))

    def times(self, other: "Leading") -> tuple[np.ndarray, np.ndarray]:
        """Sums [kept, m, k] of products of the balls, their centres exact and their radii, but for `outward`."""
        turned = other.off.swapaxes(-1, -2), other.size.swapaxes(-1, -2)
        rad = self.off * outward(turned[1] + self.n * turned[0])
        rad += self.size * turned[0]
        return product(self.centre, other.centre), rad
