"""Balls around numbers of twice float64's digits, for inputs that float64 leaves open: models of many layers.

A centre is hi + lo, two float64 numbers of which `hi` is their sum, rounded. They are the two parts of one complex
number, so that numpy rearranges and compares both together; no complex arithmetic is done. Radii are float64.

A sum is exact but for its last digits (Knuth's two-sum), and a product likewise (Dekker's); what is rounded is seen
and added to the radius. Quotients and roots are judged by what is left of x - q y and x - s^2. Sums of products are
exact, by slices of rows, as in products.py.

Lemma C14 (docs/soundness/core.md).
"""

from fractions import Fraction
from math import prod

import numpy as np

from mechverify.kernel.core.arithmetic import Array, Ball
from mechverify.kernel.core.errors import Rejected
from mechverify.kernel.core.float64 import UNIT, Float64, finite, outward
from mechverify.kernel.core.products import Layout, product, raised

SPLIT = 2.0**27 + 1  # Veltkamp's: halves of 26 digits
SLICES = 5  # of a row, at most
DEAR = 8  # times what an operation in float64 costs


class Double(Float64):
    """Postconditions hold where the result is finite, as in float64."""

    dtype, precision = np.complex128, 106

    def whole(self, values: np.ndarray) -> Ball:
        mid = np.asarray(np.asarray(values), self.dtype)
        return Ball(mid, np.zeros((1,) * mid.ndim))

    def rational(self, value: Fraction) -> Ball:
        high = super().rational(value).mid
        rest = value - Fraction(float(high))
        low = np.asarray(rest.numerator / rest.denominator)
        exact = Fraction(float(low)) == rest
        rad = np.zeros(()) if exact else np.asarray(outward(UNIT * np.abs(low)))
        return Ball(_joined(high, low), rad)

    def add(self, x: Ball, y: Ball) -> Ball:
        (a, b), (c, d) = _parts(x), _parts(y)
        total, early = _sum(a, c)
        low = b + d
        rest = low + early
        rounding = UNIT * (np.abs(low) + np.abs(rest))
        return self._near(total, rest, x.rad + y.rad + rounding)

    def mul(self, x: Ball, y: Ball) -> Ball:
        (a, b), (c, d) = _parts(x), _parts(y)
        total, early = _product(a, c)
        first, second, third = a * d, b * c, b * d
        rest = ((first + second) + third) + early
        size = np.abs(first) + np.abs(second) + np.abs(third) + np.abs(early)
        rad = _size(x) * y.rad + x.rad * (_size(y) + y.rad)
        return self._near(total, rest, rad + 8 * UNIT * size)

    def div(self, x: Ball, y: Ball) -> Ball:
        """x' / y' - q = (x' - q y') / y' for all x' and y' in the balls."""
        divisor = _parts(y)[0]
        room = np.abs(divisor) - self.up(np.abs(_parts(y)[1]) + y.rad)
        room = self.down(room)
        if not (room > 0).all():
            raise Rejected("division by an interval that may hold zero")
        first = self.whole(_parts(x)[0] / divisor)
        rest = self.sub(x.point, self.mul(first, y.point))
        quotient = self.add(first, self.whole(_parts(rest)[0] / divisor)).point
        left = self.sub(x, self.mul(quotient, y))
        return Ball(quotient.mid, outward((_size(left) + left.rad) / room))

    def sqrt(self, x: Ball) -> Ball:
        """|sqrt x' - s| <= |x' - s^2| / s for all x' in the ball."""
        if not (self.lower(x) > 0).all():
            raise Rejected("square root of an interval that is not positive")
        first = self.whole(np.sqrt(_parts(x)[0]))
        rest = self.sub(x.point, self.mul(first, first))
        more = _parts(rest)[0] / (2 * _parts(first)[0])
        root = self.add(first, self.whole(more)).point
        left = self.sub(x, self.mul(root, root))
        least = self.down(_parts(root)[0] - np.abs(_parts(root)[1]))
        if not (least > 0).all():
            raise Rejected("square root of a number that is too small")
        return Ball(root.mid, outward((_size(left) + left.rad) / least))

    def contract(self, spec: str, x: Ball, y: Ball) -> Ball:
        """Whatever the sizes, by matrix products of slices."""
        layout = Layout(spec, x.mid.shape, y.mid.shape)
        a, wide = x.map(lambda v: layout.rows(v, 0))[:2]
        b, blur = y.map(lambda v: layout.rows(v, 1))[:2]
        shape = len(a), a.shape[1], b.shape[1]
        self.spend((2 * layout.n - 1) * prod(shape), 20, DEAR)
        self.step(a.size + b.size, 0, 30 * DEAR)
        mid, rad = np.empty(shape, self.dtype), np.empty(shape)
        for part, blocks in layout.blocks():
            right = Factor(b[part], blur[part])
            for block in blocks:
                left = Factor(a[part, block], wide[part, block])
                mid[part, block], rad[part, block], _ = self._product(left, right)
        return Ball(layout.place(mid), layout.place(rad))

    def _product(self, x: "Factor", y: "Factor") -> Ball:
        """Sums [.., m, k] of products of rows: those of slices i and j are exact, in units of 2^-(i + j) steps."""
        total = self.whole(np.zeros((1, 1, 1)))
        for order in reversed(range(len(x.slices) + len(y.slices) - 1)):
            first = range(max(0, order - len(y.slices) + 1), len(x.slices))
            pairs = [(x.slices[i], y.slices[order - i]) for i in first if i <= order]
            exact = np.asarray(sum(a @ b.swapaxes(-1, -2) for a, b in pairs))
            total = self.add(total, self.whole(exact * 2.0 ** (-order * x.step)))
        total = self.scale(total, x.exponent + y.exponent.swapaxes(-1, -2))
        unknown = x.unknown + y.unknown.swapaxes(-1, -2)
        rad, room = total.rad + unknown, [np.empty(total.mid.shape) for _ in range(2)]
        if y.rad.any():
            rad = rad + product(raised(x.size, 1), raised(y.rad, -1), *room)
        if x.rad.any():
            rad = rad + product(raised(x.rad, 1), raised(y.size + y.rad, -1), *room)
        return Ball(total.mid, outward(rad, 2 * SLICES))

    def widen(
        self, x: Ball, relative: float, absolute: float = 0.0, of: Ball | None = None
    ) -> Ball:
        of = of or x
        self.spend(np.size(x.mid), cost=10 * DEAR)
        more = relative * (_size(of) + of.rad) + absolute
        return Ball(x.mid, outward(x.rad + more))

    def scale(self, x: Ball, k: np.ndarray) -> Ball:
        """Exact but for underflow, which `outward` covers."""
        k = np.clip(k, -5_000, 5_000).astype(np.int32)
        high, low = (np.ldexp(part, k) for part in _parts(x))
        return self._near(high, low, np.ldexp(x.rad, k))

    def nearest(self, x: Ball) -> np.ndarray:
        return np.rint(_parts(x)[0])

    def mantissa(self, x: Ball) -> tuple[Ball, np.ndarray]:
        _, k = super().mantissa(Ball(_parts(x)[0], x.rad))
        return self.scale(x.point, -k), k

    def approximate(self, x: Ball) -> np.ndarray:
        return _parts(x)[0]

    def lower(self, x: Ball) -> np.ndarray:
        return -self.upper(-x)

    def upper(self, x: Ball) -> np.ndarray:
        high, low = _parts(x)
        return self.up(finite(high + self.up(low + x.rad)))

    def ends(self, x: Ball) -> tuple[np.ndarray, np.ndarray]:
        high, low = _parts(x)
        above = self.up(high + self.up(low + x.rad))
        below = self.down(high + self.down(low - x.rad))
        known = np.isfinite(above) & np.isfinite(below)
        return np.where(known, below, -np.inf), np.where(known, above, np.inf)

    def _near(self, high: np.ndarray, low: np.ndarray, rad: np.ndarray) -> Ball:
        """The ball around high + low, with what rounding twelve products and the radius lost added."""
        self.spend(np.size(high), cost=10 * DEAR)
        return Ball(_joined(*_sum(high, low)), outward(rad, 12))


class Factor:
    """Rows [.., m, n] of balls as sums of slices: slice i consists of integers of at most 2^(step - 1) in size, times
    2^(exponent - i step). What slices leave out counts as radius. A row that isn't finite is NaN in `unknown`."""

    def __init__(self, mid: np.ndarray, rad: np.ndarray):
        ball = Ball(mid, rad)
        width = bits(mid.shape[-1])
        largest = np.abs(_parts(ball)[0]).max(-1, keepdims=True, initial=0.0)
        self.unknown, self.step = 0.0 * largest, width + 1
        known = np.isfinite(largest)
        self.exponent = np.frexp(np.where(known, largest, 0.0))[1] - width
        parts = [np.where(known, part, 0.0) for part in _parts(ball)]
        scaled = [np.ldexp(part, -self.exponent) for part in parts]
        lost = [
            np.abs(part - np.ldexp(near, self.exponent))  # where it underflows
            for part, near in zip(parts, scaled, strict=True)
        ]
        high, low = scaled
        self.slices: list[np.ndarray] = []
        while len(self.slices) < SLICES and (high.any() or not self.slices):
            self.slices.append(np.rint(high))
            high, low = _sum(high - self.slices[-1], low)
            high, low = high * 2.0**self.step, low * 2.0**self.step
        left = np.abs(high) + np.abs(low)
        left = np.ldexp(left, self.exponent - len(self.slices) * self.step)
        left = left + lost[0] + lost[1]
        self.rad = rad if not left.any() else outward(rad + left)
        self.size = outward(np.abs(parts[0]) + np.abs(parts[1]))


def bits(n: int) -> int:
    """Of a slice: the most with SLICES n 2^(2 bits) <= 2^53."""
    return (53 - (SLICES * max(n, 1) - 1).bit_length()) // 2


def _parts(x: Ball) -> tuple[np.ndarray, np.ndarray]:
    """`hi` and `lo` of the centre; raw float64 numbers have no `lo`."""
    mid: Array = x.mid
    return (mid.real, mid.imag) if np.iscomplexobj(mid) else (mid, np.zeros(()))


def _joined(high: np.ndarray, low: np.ndarray) -> np.ndarray:
    mid = np.empty(np.broadcast_shapes(np.shape(high), np.shape(low)), np.complex128)
    mid.real, mid.imag = high, low
    return mid


def _size(x: Ball) -> np.ndarray:
    """At least |centre|, up to a rounding that `outward` covers."""
    high, low = _parts(x)
    return np.abs(high) + np.abs(low)


def _sum(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The rounded sum, and exactly what it lacks (Knuth)."""
    total = a + b
    part = total - a
    return total, (a - (total - part)) + (b - part)


def _halves(a: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Exactly a sum of two numbers of 26 digits each (Veltkamp)."""
    large = SPLIT * a
    high = large - (large - a)
    return high, a - high


def _product(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The rounded product, and what it lacks up to 5 * 2^-1074 (Dekker); NaN where a number exceeds 2^996."""
    total, (high, low), (over, under) = a * b, _halves(a), _halves(b)
    rest = ((high * over - total) + high * under) + low * over
    return total, rest + low * under
