"""float64 balls with outward rounding: the kernel's everyday arithmetic.

Lemma C1 (docs/soundness/core.md).
"""

import math
from fractions import Fraction

import numpy as np

from mechverify.kernel.core.arithmetic import HIGHEST, LOWEST, Arithmetic, Array, Ball
from mechverify.kernel.core.errors import Rejected

LARGEST = float(np.finfo(np.float64).max)
UNIT = (
    2.0**-53
)  # |fl(x) - x| <= UNIT * |fl(x)| for one rounded operation that doesn't underflow
ETA = 2.0**-1074  # ... + ETA where a product or a quotient underflows
LEAST, LARGE = (
    2**3,
    2**9,
)  # a sum's terms, and the sums that a row is in, times them: less is faster term by term


def check_environment() -> None:
    """Refuse to run where float64 doesn't round to nearest or flushes subnormal numbers to zero. (What is asked of
    `matmul`, products.py checks.)"""
    one, tiny = np.ones(3), np.full(3, ETA)
    nearest = (
        (one + UNIT == one) & (one + 3 * UNIT > one + 2 * UNIT) & (-one - UNIT == -one)
    )
    if not (nearest & (tiny * 1.0 > 0) & (2.0**-1022 * (one / 4) > 0)).all():
        raise Rejected(
            "this machine's float64 arithmetic is not IEEE 754 round-to-nearest with gradual underflow"
        )


def outward(rad: np.ndarray, terms: int = 1) -> np.ndarray:
    """Covers the rounding of a radius that was itself computed from `terms` sums of rounded products."""
    wider = rad * (1 + (terms + 16) * 2.0**-51)
    wider += (terms + 4) * ETA  # in place: a further array costs as much as the sum
    return wider


class Float64(Arithmetic):
    """Postconditions hold where the result is finite; `lower` and `upper`, the ways out, reject what is not."""

    dtype, precision, chunk, infinity = np.float64, 60, 2**22, np.inf

    def _ball(
        self, mid: np.ndarray, rad: np.ndarray, exponent: int, terms: int = 1
    ) -> Ball:
        self.spend(np.size(mid))
        rounding = np.abs(mid)
        # that of a contraction's centre is in `slop`; 0 inf is NaN
        rounding *= UNIT if terms == 1 else 0.0
        return Ball(mid, outward(rad + rounding, terms))

    def mul(self, x: Ball, y: Ball) -> Ball:
        """As of any numbers; a point of `y` adds nothing to the radius but what it multiplies."""
        rad = x.rad * (np.abs(y.mid) + y.rad)
        if np.size(y.rad) > 1 or np.any(y.rad):
            rad = np.abs(x.mid) * y.rad + rad
        return self._ball(x.mid * y.mid, rad, 0)

    def slop(self, rad: np.ndarray, size: np.ndarray, n: int) -> np.ndarray:
        """`rad` plus the share of `size` by which the rounding of a sum of n products may err."""
        return rad + (
            2 * n * UNIT * size + ETA
        )  # ETA: that product may underflow before it meets a large factor

    def contract(self, spec: str, x: Ball, y: Ball) -> Ball:
        """By matrix multiplication where that is faster. The sizes of the letters alone decide, not the batch: a cell's
        ball doesn't depend on the cells beside it."""
        if not large(spec, x.mid.shape, y.mid.shape):
            return super().contract(spec, x, y)
        from mechverify.kernel.core import products  # only where sums are that long

        return products.contract(self, spec, x, y)

    def align(self, x: Ball, y: Ball) -> tuple[Ball, Ball]:
        """The same balls with one exponent."""
        return x, y

    def exact(self, values: np.ndarray) -> Ball:
        """float64 numbers, as balls of radius zero."""
        return self.whole(finite(np.asarray(values)))

    def point(self, values: np.ndarray) -> Ball:
        """The same of raw numbers that need not be finite: the ball is not finite there."""
        return self.whole(values)

    def rational(self, value: Fraction) -> Ball:
        """A scalar ball that holds `value`; rejects what exceeds float64's largest number."""
        try:
            mid = np.asarray(
                value.numerator / value.denominator
            )  # Python rounds this quotient correctly
        except OverflowError:
            raise Rejected(
                f"a number of the claim exceeds the largest float64, {LARGEST}"
            ) from None
        return Ball(
            mid,
            np.asarray(
                0.0 if Fraction(float(mid)) == value else outward(UNIT * np.abs(mid))
            ),
        )

    def div(self, x: Ball, y: Ball) -> Ball:
        """Rejects a ball of `y` that touches zero, or isn't finite. |mid| + ETA bounds the exact quotient of the
        centres, and 2 ETA what the product below loses by underflow (the division would enlarge it)."""
        room = self.lower(Ball(np.abs(y.mid), y.rad))
        if not (room > 0).all():
            raise Rejected("division by an interval that may hold zero")
        mid = x.mid / y.mid
        return self._ball(
            mid, (x.rad + (np.abs(mid) + ETA) * y.rad + 2 * ETA) / room, 0
        )

    def sqrt(self, x: Ball) -> Ball:
        """Rejects a ball that isn't positive. |sqrt(a') - sqrt(a)| <= |a' - a| / sqrt(a)."""
        if not (self.down(x.mid - x.rad) > 0).all():
            raise Rejected("square root of an interval that is not positive")
        mid = np.sqrt(x.mid)
        return self._ball(mid, x.rad / mid, 0)

    def widen(
        self, x: Ball, relative: float, absolute: float = 0.0, of: Ball | None = None
    ) -> Ball:
        """The radius grows by relative * (|mid| + rad) of `of` (of `x` itself if None), plus absolute."""
        mid, rad = (of or x)[:2]
        self.spend(np.size(x.mid))
        return Ball(x.mid, outward(x.rad + (relative * (np.abs(mid) + rad) + absolute)))

    def scale(self, x: Ball, k: np.ndarray) -> Ball:
        """x * 2^k for integers k: exact but for underflow, which `outward` covers in centre and radius."""
        k = np.clip(k, -5_000, 5_000).astype(np.int32)
        self.spend(np.size(x.mid))
        mid = np.ldexp(x.mid, k)
        return Ball(
            mid, outward(np.ldexp(x.rad, k) + 0.0 * np.abs(mid))
        )  # NaN where it overflows

    def nearest(self, x: Ball) -> np.ndarray:
        """Integers near the centres."""
        return np.rint(x.mid)

    def mantissa(self, x: Ball) -> tuple[Ball, np.ndarray]:
        """(f, k) with mid = f 2^k and f in [0.7, 1.4], for positive centres."""
        f, k = np.frexp(x.mid)
        return self.whole(np.where(f < 0.7, 2 * f, f)), np.where(f < 0.7, k - 1.0, k)

    def units(self, value: float, exponent: int) -> float:
        """`value` as a number to compare with raw arrays of a ball of that exponent, rounded down."""
        return value

    def approximate(self, x: Ball) -> np.ndarray:
        """float64 numbers near the centres, for choices that are sound whatever they are."""
        return x.mid

    def trim(self, x: Ball) -> Ball:
        """A ball that holds `x`, of numbers not longer than the precision needs."""
        return x

    def lower(self, x: Ball) -> np.ndarray:
        """Numbers (times 2^exponent) at most every real in the ball; rejects NaN and infinity."""
        return self.down(finite(x.mid - x.rad))

    def upper(self, x: Ball) -> np.ndarray:
        return self.up(finite(x.mid + x.rad))

    def ends(self, x: Ball) -> tuple[np.ndarray, np.ndarray]:
        """`lower` and `upper`, or the number itself where the radius is zero; infinite where the ball is not finite: it
        bounds nothing there. Never NaN."""
        low, high = x.mid - x.rad, x.mid + x.rad
        known = np.isfinite(low) & np.isfinite(high)
        exact = x.rad == 0
        low = np.where(exact, low, self.down(low))
        high = np.where(exact, high, self.up(high))
        return np.where(known, low, -np.inf), np.where(known, high, np.inf)

    def down(self, x: np.ndarray) -> np.ndarray:
        """A lower bound of what one rounded operation on raw numbers approximated."""
        return np.nextafter(x, -np.inf)

    def up(self, x: np.ndarray) -> np.ndarray:
        return np.nextafter(x, np.inf)

    def slack(self, size: Array, n: int) -> Array:
        """Exceeds the rounding of n additions of raw numbers whose absolute values add up to at most `size`."""
        return finite(np.asarray(n * 2.0**-51 * size + ETA))

    def to_grid(
        self, terms: np.ndarray, exponent: int, step: int, upwards: bool
    ) -> np.ndarray:
        """Raw terms (times 2^exponent) as integer multiples of 2^step, rounded down or up. The quotient by a power
        of two is exact unless it underflows; there the term's sign decides."""
        scaled = np.ldexp(terms, -step)
        if upwards:
            rounded = np.where(
                terms > 0, np.maximum(np.ceil(scaled), 1.0), np.ceil(scaled)
            )
        else:
            rounded = np.where(
                terms < 0, np.minimum(np.floor(scaled), -1.0), np.floor(scaled)
            )
        if not (rounded >= LOWEST).all():
            raise Rejected("the counting grid is too fine for the terms of this cell")
        return np.minimum(rounded, HIGHEST).astype(np.int64)


def large(spec: str, *shapes: tuple[int, ...]) -> bool:
    """Whether matrix multiplication is faster, by the sizes of the letters. Of products side by side, along a
    letter of both operands and the result, each has to be worth its cutting into slices."""
    *terms, result = spec.replace("->", ",").split(",")
    first, second = (
        dict(zip(term[::-1], shape[::-1], strict=False))
        for term, shape in zip(terms, shapes, strict=True)
    )
    common = {*first} & {*second}
    n = math.prod(first[c] for c in common - {*result})
    rows = [
        math.prod(sizes[c] for c in sizes if c not in common)
        for sizes in (first, second)
    ]
    return (
        min(n, max(rows)) >= LEAST
        and n * (min if common & {*result} else max)(rows) >= LARGE
    )


def finite(x: np.ndarray) -> np.ndarray:
    if not np.isfinite(x).all():
        raise Rejected(
            "a number in the computation is not finite (overflow, or a division by zero)"
        )
    return x
