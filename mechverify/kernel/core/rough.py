"""float64 balls whose matrix products read the leading digits of their factors alone, about as many as float32 has: one
multiplication of integers, where float64 takes a dozen. For what is far from a boundary.

Lemma C17 (docs/soundness/core.md).
"""

import numpy as np

from mechverify.kernel.core.arithmetic import Ball
from mechverify.kernel.core.float64 import Float64, large, outward
from mechverify.kernel.core.products import Layout, check_matmul, product, sliced


class Rough(Float64):
    def contract(self, spec: str, x: Ball, y: Ball) -> Ball:
        """As `Arithmetic.contract`; precondition and postcondition are the same, balls are wider."""
        if not large(spec, x.mid.shape, y.mid.shape):
            return super().contract(spec, x, y)
        check_matmul()
        layout = Layout(spec, x.mid.shape, y.mid.shape)
        a, wide = x.map(lambda v: layout.rows(v, 0))[:2]
        b, blur = y.map(lambda v: layout.rows(v, 1))[:2]
        mid = np.empty((len(a), a.shape[1], b.shape[1]))
        rad = np.empty_like(mid)
        self.spend(mid.size, 20, 1)
        self.step(a.size + b.size, 0, 10)
        for part, blocks in layout.blocks():
            right = Leading(b[part], blur[part])
            for block in blocks:
                near, off = Leading(a[part, block], wide[part, block]).times(right)
                mid[part, block], rad[part, block], _ = self._ball(near, off, 0)
        return Ball(layout.place(mid), layout.place(rad))


class Leading:
    """Rows of balls [kept, m, n] as one slice each: `centre`, `off` [kept, m, 1], by which a ball of the row leaves its
    centre at most, and `size` [kept, m, 1], at least the sum of the centres' sizes."""

    def __init__(self, mid: np.ndarray, rad: np.ndarray):
        self.centre, near = sliced(mid, 1, most=1)
        self.n = mid.shape[-1]
        off = outward(rad + np.abs(mid - near))
        self.off = off.max(-1, keepdims=True, initial=0.0)
        counted = np.abs(self.centre.slices).sum(
            -1, keepdims=True
        )  # exact, in any order
        self.size = outward(np.ldexp(counted, self.centre.exponent))

    def times(self, other: "Leading") -> tuple[np.ndarray, np.ndarray]:
        """Sums [kept, m, k] of products of the balls, their centres exact and their radii, but for `outward`."""
        turned = other.off.swapaxes(-1, -2), other.size.swapaxes(-1, -2)
        rad = self.off * outward(turned[1] + self.n * turned[0])
        rad += self.size * turned[0]
        return product(self.centre, other.centre), rad
