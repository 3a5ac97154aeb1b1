"""Float64 ball arithmetic with outward rounding, in which every table is computed.

Beyond it, float64 is rounded only in elementary.py (exp), recursion.py (minima, sums, large counts) and
rules/fold.py (terms), each with `down` or `up` or a stated slack.

A ball (mid, rad) stands for every real within rad of mid, elementwise. Each method takes balls and
returns a ball that holds the exact result for every choice of reals in its operands. The arguments
are in docs/soundness.md, "Arithmetic"; they need only that numpy's + - * / sqrt on float64 round to
nearest with gradual underflow (axiom `ieee754`), and that a contraction is a sum of the elementwise
products in some order, fused or not.

Postconditions hold where the result is finite; `lower` and `upper`, the ways out, reject what is not.
"""

from typing import NamedTuple

import numpy as np

from mechverify.kernel.errors import Rejected

UNIT = 2.0**-53  # |fl(x) - x| <= UNIT * |fl(x)| for one rounded operation that doesn't underflow
ETA = 2.0**-1074  # ... + ETA where a product or a quotient underflows


class Ball(NamedTuple):
    """Reals within `rad` of `mid`; arrays that broadcast against each other."""

    mid: np.ndarray
    rad: np.ndarray

    def map(self, move) -> "Ball":
        """The same rearrangement (indexing, reshaping, transposing) of centre and radius."""
        mid, rad = np.broadcast_arrays(self.mid, self.rad)
        return Ball(move(mid), move(rad))


def check_environment() -> None:
    """Refuse to run where float64 doesn't round to nearest or flushes subnormal numbers to zero."""
    one, tiny = np.ones(3), np.full(3, ETA)
    sound = (
        (one + UNIT == one).all() and (one + 3 * UNIT > one + 2 * UNIT).all()
        and (-one - UNIT == -one).all() and (tiny * 1.0 > 0).all() and (2.0**-1022 * (one / 4) > 0).all()
    )  # fmt: skip
    if not sound:
        raise Rejected("this machine's float64 arithmetic is not IEEE 754 round-to-nearest with gradual underflow")


def finite(x: Ball) -> Ball:
    """`x` itself; rejects NaN and infinity, which no comparison may see."""
    if not (np.isfinite(x.mid).all() and np.isfinite(x.rad).all()):
        raise Rejected("a number in the computation is not finite (overflow, or a division by zero)")
    return x


def down(x: np.ndarray) -> np.ndarray:
    """The next float64 below: a lower bound of what one rounded operation approximated."""
    return np.nextafter(x, -np.inf)


def up(x: np.ndarray) -> np.ndarray:
    return np.nextafter(x, np.inf)


def lower(x: Ball) -> np.ndarray:
    """A float64 that is at most every real in the ball; rejects what is not finite."""
    finite(x)
    return down(x.mid - x.rad)


def upper(x: Ball) -> np.ndarray:
    finite(x)
    return up(x.mid + x.rad)


def outward(rad: np.ndarray, terms: int = 1) -> np.ndarray:
    """Covers the rounding of a radius that was itself computed from `terms` sums of rounded products."""
    return rad * (1 + (terms + 16) * 2.0**-51) + (terms + 4) * ETA


class Float64:
    """Ball arithmetic that counts what it does: `ops` grows by one for every scalar result of an
    elementwise operation and by one for every product in a contraction (a proof's length)."""

    def __init__(self):
        self.ops = 0

    def exact(self, values: np.ndarray) -> Ball:
        """float64 numbers, as balls of radius zero."""
        values = np.asarray(values, np.float64)
        return Ball(values, np.zeros((1,) * values.ndim))

    def add(self, x: Ball, y: Ball) -> Ball:
        mid = x.mid + y.mid
        self.ops += mid.size
        return Ball(mid, outward(x.rad + y.rad + UNIT * np.abs(mid)))

    def sub(self, x: Ball, y: Ball) -> Ball:
        return self.add(x, Ball(-y.mid, y.rad))

    def mul(self, x: Ball, y: Ball) -> Ball:
        mid = x.mid * y.mid
        self.ops += mid.size
        rad = np.abs(x.mid) * y.rad + x.rad * (np.abs(y.mid) + y.rad)
        return Ball(mid, outward(rad + UNIT * np.abs(mid)))

    def div(self, x: Ball, y: Ball) -> Ball:
        """Requires that no ball of `y` touches zero. |mid| + ETA bounds the exact quotient of the
        centres, and 2 ETA what the product below loses by underflow (the division would enlarge it)."""
        room = down(np.abs(y.mid) - y.rad)
        if not (room > 0).all():
            raise Rejected("division by an interval that may hold zero")
        mid = x.mid / y.mid
        self.ops += mid.size
        return Ball(mid, outward((x.rad + (np.abs(mid) + ETA) * y.rad + 2 * ETA) / room + UNIT * np.abs(mid)))

    def sqrt(self, x: Ball) -> Ball:
        """Requires positive balls; |sqrt(a') - sqrt(a)| <= |a' - a| / sqrt(a)."""
        if not (down(x.mid - x.rad) > 0).all():
            raise Rejected("square root of an interval that is not positive")
        mid = np.sqrt(x.mid)
        self.ops += mid.size
        return Ball(mid, outward(x.rad / mid + UNIT * mid))

    def sum(self, x: Ball, axis: int) -> Ball:
        """The sum along one axis; float64 sums err by at most gamma_n * sum|x| in any order."""
        x = x.map(lambda a: a)
        n = x.mid.shape[axis]
        self.ops += x.mid.size
        size = np.abs(x.mid).sum(axis, keepdims=True)
        return Ball(x.mid.sum(axis, keepdims=True), outward(x.rad.sum(axis, keepdims=True) + 2 * n * UNIT * size, n))

    def contract(self, spec: str, x: Ball, y: Ball, ordered: bool) -> Ball:
        """Einstein summation `spec` (two operands, explicit output, leading `...` on each term).

        The centre errs by at most gamma_n * |x| . |y| in any summation order, n the number of terms
        (Higham, Accuracy and Stability of Numerical Algorithms, 2nd ed., section 3.1). `ordered` sums
        term by term, so that every machine gets the same bits; otherwise BLAS may be used.
        """
        product = _ordered if ordered else _blas
        n = _terms(spec, x.mid.shape, y.mid.shape)
        x_size, y_size = np.abs(x.mid), np.abs(y.mid)
        mid, size = product(spec, x.mid, y.mid), product(spec, x_size, y_size)
        self.ops += mid.size * n
        rad = 2 * n * UNIT * size
        if y.rad.any():
            rad = rad + product(spec, x_size, np.broadcast_to(y.rad, y.mid.shape))
        if x.rad.any():
            rad = rad + product(spec, np.broadcast_to(x.rad, x.mid.shape), y_size + y.rad)
        return Ball(mid, outward(rad, 3 * n))


def _letters(spec: str) -> tuple[str, str, str]:
    operands, result = spec.split("->")
    first, second = operands.split(",")
    return first, second, result


def _terms(spec: str, x_shape: tuple[int, ...], y_shape: tuple[int, ...]) -> int:
    """How many products one output element sums."""
    first, second, result = _letters(spec)
    sizes = dict(zip(reversed(first), reversed(x_shape), strict=False))
    sizes |= dict(zip(reversed(second), reversed(y_shape), strict=False))
    n = 1
    for letter in sizes.keys() - set(result):
        n *= sizes[letter]
    return n


def _dots(spec: str) -> str:
    first, second, result = _letters(spec)
    return f"...{first},...{second}->...{result}"


def _blas(spec: str, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.einsum(_dots(spec), x, y, optimize=True)


def _ordered(spec: str, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    first, second, result = _letters(spec)
    contracted = [c for c in first if c in second and c not in result]
    if set(first + second) - set(result) - set(contracted):
        raise Rejected(f"contraction {spec!r} sums a letter of one operand only")
    x_axes = [first.index(c) - len(first) for c in contracted]
    y_axes = [second.index(c) - len(second) for c in contracted]
    for c in contracted:
        first, second = first.replace(c, ""), second.replace(c, "")
    outer = _dots(f"{first},{second}->{result}")
    x, y = np.moveaxis(x, x_axes, range(len(x_axes))), np.moveaxis(y, y_axes, range(len(y_axes)))
    total = None
    for index in np.ndindex(x.shape[: len(x_axes)]):
        term = np.einsum(outer, x[index], y[index])
        total = term if total is None else total + term
    return total
