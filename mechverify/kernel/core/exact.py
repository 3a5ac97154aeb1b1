"""Exact arithmetic for audits: Python integers times a power of two that an array shares.

Sums and products of exact numbers don't round below `longest` bits; quotients, roots and series are enclosed to
`precision` bits or better, and balls that have a radius are cut to twice as many when they grow beyond `long`. No
floating-point operation decides anything, so a check doesn't rest on the axiom `ieee754`.

Lemma C1 (docs/soundness/core.md).
"""

from fractions import Fraction
from math import floor, frexp, isqrt

import numpy as np

from mechverify.kernel.core.arithmetic import HIGHEST, LOWEST, Arithmetic, Array, Ball
from mechverify.kernel.core.errors import Rejected
from mechverify.kernel.core.float64 import finite

FARTHEST = 2**16  # bits that two numbers which are added may be apart
_bits, _root = (np.frompyfunc(f, 1, 1) for f in (int.bit_length, isqrt))


class Exact(Arithmetic):
    is_exact = True
    dtype, precision, chunk, infinity = object, 128, 2**18, 1 << 5_000
    long, longest = (
        2**10,
        2**13,
    )  # bits of a number: of balls that have a radius, and of those that have none

    def _ball(
        self, mid: np.ndarray, rad: np.ndarray, exponent: int, terms: int = 1
    ) -> Ball:
        bits = max(_longest(mid), _longest(rad))
        self.spend(np.size(mid), 1, 10 + bits // 64)
        ball = Ball(np.asarray(mid, object), np.asarray(rad, object), exponent)
        return (
            ball
            if bits <= (self.long if np.any(ball.rad) else self.longest)
            else self.trim(ball)
        )

    def slop(self, rad: np.ndarray, size: np.ndarray, n: int) -> np.ndarray:
        return rad

    def align(self, x: Ball, y: Ball) -> tuple[Ball, Ball]:
        low = min(x.exponent, y.exponent)
        return _at(x, low), _at(y, low)

    def exact(self, values: np.ndarray) -> Ball:
        fraction, power = np.frexp(finite(np.asarray(values, np.float64)))
        integers = np.ldexp(fraction, 53).astype(np.int64)
        mantissa = np.asarray(integers.astype(object), object)
        zero = mantissa == 0
        power = np.where(zero, 2_000, power - 53)
        low = min(int(power.min()), 0) if power.size else 0
        shift = np.asarray(np.where(zero, 0, power - low), object)
        return _exactly(mantissa << shift, low)

    def rational(self, value: Fraction) -> Ball:
        bits = 2 * self.precision + value.denominator.bit_length()
        mid, rest = divmod(value.numerator << bits, value.denominator)
        return Ball(np.asarray(mid, object), np.asarray(int(rest > 0), object), -bits)

    def mul(self, x: Ball, y: Ball) -> Ball:
        """|a'b' - ab| <= |a| rb + ra (|b| + rb)."""
        rad = np.abs(x.mid) * y.rad + x.rad * (np.abs(y.mid) + y.rad)
        return self._ball(x.mid * y.mid, rad, x.exponent + y.exponent)

    def div(self, x: Ball, y: Ball) -> Ball:
        """The formula of Float64.div; every rounded quotient errs by less than one unit."""
        room = np.abs(y.mid) - y.rad
        if not np.all(room > 0):
            raise Rejected("division by an interval that may hold zero")
        bits = self.precision + _longest(y.mid)
        mid = (x.mid << bits) // y.mid
        rad = ((x.rad << bits) + (np.abs(mid) + 1) * y.rad) // room + 2
        return self._ball(mid, rad, x.exponent - y.exponent - bits)

    def sqrt(self, x: Ball) -> Ball:
        if not np.all(x.mid - x.rad > 0):
            raise Rejected("square root of an interval that is not positive")
        bits = 2 * self.precision + x.exponent % 2
        mid = np.asarray(_root(x.mid << bits), object)
        return self._ball(mid, (x.rad << bits) // mid + 2, (x.exponent - bits) // 2)

    def widen(
        self, x: Ball, relative: float, absolute: float = 0.0, of: Ball | None = None
    ) -> Ball:
        x, of = self.align(x, of or x)
        if absolute:  # so that a unit isn't larger than what is added
            unit = min(x.exponent, frexp(absolute)[1] - 8)
            x, of = _at(x, unit), _at(of, unit)
        self.spend(np.size(x.mid))
        rate = Fraction(relative)
        fixed = Fraction(absolute) / Fraction(2) ** x.exponent
        more = -(-fixed.numerator // fixed.denominator)
        if rate:
            size = np.abs(of.mid) + of.rad
            more = size * rate.numerator // rate.denominator + 1 + more
        return Ball(x.mid, np.asarray(x.rad + more, object), x.exponent)

    def scale(self, x: Ball, k: np.ndarray) -> Ball:
        """The largest 2^k goes to the exponent; smaller ones shift digits out."""
        k = np.asarray(k, object)
        top = int(k.max()) if k.size else 0
        shift = np.minimum(top - k, 2**20)
        self.spend(np.size(x.mid))
        rad = np.where(shift > 0, (x.rad >> shift) + 2, x.rad)
        return Ball(
            np.asarray(x.mid >> shift, object),
            np.asarray(rad, object),
            x.exponent + top,
        )

    def nearest(self, x: Ball) -> np.ndarray:
        shift = -x.exponent
        if shift <= 0:
            return np.asarray(x.mid << -shift, object)
        half = 1 << (shift - 1)
        return np.asarray((x.mid + half) >> shift, object)

    def mantissa(self, x: Ball) -> tuple[Ball, np.ndarray]:
        bits = np.asarray(_bits(x.mid), object)
        longest = max(_longest(x.mid), 64)
        f = np.asarray(x.mid << (longest - bits), object)
        small = f < self.units(0.7, -longest)
        f = np.where(small, f << 1, f)
        power = np.where(small, bits - 1, bits) + x.exponent
        return _exactly(f, -longest), power

    def units(self, value: float, exponent: int) -> int:
        return floor(Fraction(value) / Fraction(2) ** exponent)

    def approximate(self, x: Ball) -> np.ndarray:
        x = self.trim(x)
        return np.ldexp(np.asarray(x.mid, np.float64), x.exponent)

    def trim(self, x: Ball) -> Ball:
        shift = (
            max(_longest(x.mid), _longest(x.rad) + self.precision) - 2 * self.precision
        )
        return x if shift <= 0 else _at(x, x.exponent + shift)

    def lower(self, x: Ball) -> np.ndarray:
        return np.asarray(x.mid - x.rad, object)

    def upper(self, x: Ball) -> np.ndarray:
        return np.asarray(x.mid + x.rad, object)

    def down(self, x: np.ndarray) -> np.ndarray:
        return x

    def up(self, x: np.ndarray) -> np.ndarray:
        return x

    def slack(self, size: Array, n: int) -> Array:
        return 0

    def to_grid(
        self, terms: np.ndarray, exponent: int, step: int, upwards: bool
    ) -> np.ndarray:
        shift = step - exponent
        sign = -1 if upwards else 1
        terms = sign * terms
        rounded = sign * (terms >> shift if shift >= 0 else terms << -shift)
        if not (rounded >= LOWEST).all():
            raise Rejected("the counting grid is too fine for the terms of this cell")
        return np.minimum(rounded, HIGHEST).astype(np.int64)


def _exactly(mid: np.ndarray, exponent: int) -> Ball:
    mid = np.asarray(mid, object)
    return Ball(mid, np.zeros((1,) * mid.ndim, object), exponent)


def _at(x: Ball, exponent: int) -> Ball:
    """The same ball; where `exponent` exceeds its own, one that holds it: the radius is rounded up, and grows by a unit
    where the centre loses digits."""
    down = exponent - x.exponent
    if -down > FARTHEST:  # memory is reserved by the number of entries
        raise Rejected(f"exact numbers of more than {FARTHEST} bits: check in float64")
    if down <= 0:
        return Ball(
            np.asarray(x.mid << -down, object),
            np.asarray(x.rad << -down, object),
            exponent,
        )
    mid = x.mid >> down
    lost = np.asarray(np.not_equal(mid << down, x.mid), bool).astype(object)
    return Ball(
        np.asarray(mid, object),
        np.asarray(lost * 1 - (-x.rad >> down), object),
        exponent,
    )


def _longest(a: np.ndarray) -> int:
    return max((int(b) for b in np.asarray(_bits(a), object).flat), default=0)
