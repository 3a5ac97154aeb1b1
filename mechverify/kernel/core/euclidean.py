"""Float64 balls whose radius is a Euclidean length: for each input, of what all entries of a value are off by together.

A matrix makes such a length larger by its spectral norm at most, where entries' radii grow by its rows' sums: in a deep
model that is the difference between a few digits and none. Products are those of leading slices (rough.py).

Lemma C20 (docs/soundness/core.md).
"""

import math
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from mechverify.kernel.core.arithmetic import Array, Ball
from mechverify.kernel.core.errors import Rejected
from mechverify.kernel.core.float64 import (
    ETA,
    UNIT,
    Float64,
    finite,
    large,
    outward,
)
from mechverify.kernel.core.products import NEAR, Layout, check_matmul
from mechverify.kernel.core.rough import Rough, Slices, digits, one_by_one, size
from mechverify.kernel.core.semantics import Real

if TYPE_CHECKING:
    from mechverify.kernel.core.functions import Function

SHORT = 2**3  # terms of a sum that rounds little
SQUARINGS = 4  # of a matrix's Gram matrix, on the way to its spectral norm
TINY = 2.0**-900  # of a radius that stands for a point's rounding at most
WIDEST = 2**9  # rows, or columns, of a matrix whose norm is sought

# |f'| is at most this everywhere.
SLOPES = {
    "relu": 1.0, "abs": 1.0, "tanh": 1.0, "sigmoid": 0.25, "erf": 1.13, "atan": 1.0, "gelu": 1.13, "gelu_tanh": 1.14,
    "silu": 1.1, "softplus": 1.0, "sin": 1.0, "cos": 1.0,
}  # fmt: skip


class Round(Ball):
    """Of each slice along the first axis, an input, the entries' deviations from the centre, as a vector, have at most
    the length in `rad` [slices or 1, 1, .., 1]: so no entry is off by more."""

    __slots__ = ()

    def map(self, move: Callable[[Array], Array]) -> "Round":
        """Precondition: `move` makes each slice of the result of one slice's entries, and does so to all alike."""
        mid = np.asarray(move(self.mid))
        lengths = self.rad.reshape(-1)
        if len(lengths) > 1:
            moved = np.asarray(move(np.broadcast_to(self.rad, self.mid.shape)))
            lengths = moved.reshape(len(moved), -1).max(1)
        often = repeats(move, self.mid.shape) if lengths.any() else 1
        return rounded(mid, lengths * math.sqrt(often))

    def __neg__(self) -> "Round":
        return Round(-self.mid, self.rad)


def rounded(mid: np.ndarray, lengths: np.ndarray) -> Round:
    """`lengths` [slices or 1] were computed by a few rounded operations."""
    shape = (len(lengths), *(1,) * (mid.ndim - 1)) if mid.ndim else ()
    return Round(mid, outward(lengths).reshape(shape))


def repeats(move: Callable[[Array], Array], shape: tuple[int, ...]) -> int:
    """How often an entry of a slice stands in a slice of the result, at most."""
    numbers = np.arange(math.prod(shape[1:])).reshape((1, *shape[1:])[: len(shape)])
    moved = np.asarray(move(numbers))
    moved = moved.reshape(len(moved) if moved.ndim else 1, -1)
    places = moved + numbers.size * np.arange(len(moved))[:, None]
    return int(np.bincount(places.reshape(-1)).max(initial=0))


class Euclidean(Rough):
    """Operations on Rounds give one; those on other balls are Rough's. Postconditions hold where the result is finite:
    where one entry of an input's value isn't, none is. `many`: slices of a factor."""

    many = 2

    def round(self, x: Ball) -> Round:
        """Deviations of entries make a length that is that of their radii at most."""
        if isinstance(x, Round):
            return x
        shape = np.broadcast_shapes(np.shape(x.mid), np.shape(x.rad))
        mid = np.broadcast_to(x.mid, shape)
        if np.size(x.rad) > 1:
            return rounded(mid, longest(np.broadcast_to(x.rad, shape)))
        return rounded(mid, np.max(x.rad).reshape(1) * math.sqrt(entries(mid)))

    def trim(self, x: Ball) -> Ball:
        return x if isinstance(x, Round) else super().trim(x)

    def align(self, x: Ball, y: Ball) -> tuple[Ball, Ball]:
        if isinstance(x, Round) or isinstance(y, Round):
            return self.round(x), self.round(y)
        return x, y

    def _reach(self, x: Ball) -> np.ndarray:
        """As in Rough, of each input."""
        return finite(outward(x.rad + 2 * UNIT * (size(x.mid) + x.rad)))

    def _made(self, mid: np.ndarray, lengths: Any, terms: int = 1) -> Round:
        """With what the last rounding of each entry adds."""
        mid = np.asarray(mid)
        self.spend(mid.size, 4)
        lost = UNIT * self._length(mid) + ETA * math.sqrt(entries(mid))
        return rounded(mid, outward(lengths + lost, terms))

    def _length(self, mid: np.ndarray) -> np.ndarray:
        """At least that of each slice [slices or 1]. Beside the digits that two slices leave out any bound will do."""
        if self.many > 2:
            return longest(mid)
        return size(mid).reshape(1) * math.sqrt(entries(mid))

    def add(self, x: Ball, y: Ball) -> Ball:
        x, y = self.align(x, y)
        if not isinstance(x, Round):
            return super().add(x, y)
        mid = x.mid + y.mid
        return self._made(mid, _off(x, mid) + _off(y, mid))

    def sub(self, x: Ball, y: Ball) -> Ball:
        """As of entries, each by itself: that is what comparing asks for."""
        mid = x.mid - y.mid
        self.spend(np.size(mid))
        return Ball(mid, outward(x.rad + y.rad + UNIT * size(mid)))

    def mul(self, x: Ball, y: Ball) -> Ball:
        """x' y' - x y = (x' - x) y' + x (y' - y), and no entry of y' exceeds |y| + rad."""
        x, y = self.align(x, y)
        if not isinstance(x, Round):
            return super().mul(x, y)
        mid = x.mid * y.mid
        reach = _largest(y.mid, mid) + _per_slice(y, mid)
        lengths = _times(_off(x, mid), reach)
        lengths = lengths + _times(_off(y, mid), _largest(x.mid, mid))
        return self._made(mid, lengths)

    def div(self, x: Ball, y: Ball) -> Ball:
        """x' / y' - q = (x' - q y') / y'."""
        x, y = self.align(x, y)
        if not isinstance(x, Round):
            return super().div(x, y)
        room = self.down(np.abs(y.mid).min(initial=np.inf) - np.max(y.rad))
        if not room > 0:
            raise Rejected("division by an interval that may hold zero")
        mid = x.mid / y.mid
        lengths = _off(x, mid) + _times(_off(y, mid), _largest(mid, mid) + ETA)
        lengths = lengths + 2 * ETA * math.sqrt(entries(mid))
        return self._made(mid, lengths / room)

    def sqrt(self, x: Ball) -> Ball:
        """|sqrt x' - sqrt x| <= |x' - x| / sqrt x."""
        if not isinstance(x, Round):
            return super().sqrt(x)
        least = x.mid.min(initial=np.inf)
        if not self.down(least - np.max(x.rad)) > 0:
            raise Rejected("square root of an interval that is not positive")
        return self._made(np.sqrt(x.mid), x.rad.reshape(-1) / np.sqrt(least))

    def widen(
        self, x: Ball, relative: float, absolute: float = 0.0, of: Ball | None = None
    ) -> Ball:
        if not isinstance(x, Round):
            return super().widen(x, relative, absolute, of)
        more = self.round(super().widen(x.point, relative, absolute, of or x))
        return rounded(x.mid, x.rad.reshape(-1) + more.rad.reshape(-1))

    def scale(self, x: Ball, k: np.ndarray) -> Ball:
        """Exact but for underflow, of each entry."""
        if not isinstance(x, Round):
            return super().scale(x, k)
        k = np.clip(k, -5_000, 5_000).astype(np.int32)
        mid = np.ldexp(x.mid, k)
        self.spend(mid.size)
        off = np.ldexp(_off(x, mid), k.max(initial=-5_000))
        return rounded(mid, off + ETA * math.sqrt(entries(mid)) + 0.0 * size(mid))

    def where(self, mask: np.ndarray, x: Ball, y: Ball) -> Ball:
        """What is off is so in entries of either, at most; of what is chosen nowhere nothing is."""
        x, y = self.align(x, y)
        if not isinstance(x, Round):
            return super().where(mask, x, y)
        mid, off = np.where(mask, x.mid, y.mid), np.zeros(1)
        for b, some in (x, mask), (y, np.logical_not(mask)):
            off = off + _off(b, mid) if np.any(some) else off
        return rounded(mid, off)

    def together(self, mid: np.ndarray, parts: list[Ball]) -> Ball:
        """Squares of lengths add up."""
        if not any(isinstance(part, Round) for part in parts):
            return super().together(mid, parts)
        squares = np.zeros(1)
        for part in map(self.round, parts):
            squares = squares + part.rad.reshape(-1) ** 2
        lengths = np.sqrt(squares) + len(parts) * 2.0**-500  # where one underflows
        return rounded(mid, outward(lengths, len(parts)))

    def contract(self, spec: str, x: Ball, y: Ball) -> Ball:
        """Sums of products of X + S and Y + T, of which those of X and Y are computed but for `lost`. In length, S Y is
        at most S times a norm of Y."""
        x, y = self.align(x, y)
        if not isinstance(x, Round):
            return super().contract(spec, x, y)
        layout = Layout(spec, x.mid.shape, y.mid.shape)
        a, b, n = layout.rows(x.mid, 0), layout.rows(y.mid, 1), layout.n
        made_of = slices(spec, x.mid, y.mid)
        off, blur = (
            (
                b.rad.reshape(-1)
                if one == 1
                else np.max(b.rad).reshape(1) * math.sqrt(one)
            )
            for b, one in zip((x, y), made_of, strict=True)
        )
        mid = np.empty((len(a), a.shape[1], b.shape[1]))
        self.spend((2 * n - 1) * mid.size, 20, 1)
        if n >= SHORT:
            first, second = Slices(a, self.many), Slices(b, self.many)
            off = off + first.rest * math.sqrt(made_of[0] * entries(x.mid))
            blur = blur + second.rest * math.sqrt(made_of[1] * entries(y.mid))
            wide = large(spec, x.mid.shape, y.mid.shape)
            lost = first.times(second, mid, layout, np.matmul if wide else _by_terms)
        else:
            one_by_one(a, b, mid, layout)
            lost = size(a) * size(b) * (2 * n * n * UNIT)
        whole = layout.place(mid)
        lengths = (lost + n * ETA) * math.sqrt(entries(whole))
        sides = (
            (off, blur, x.rad, y.mid, b, made_of[1]),
            (blur, off, y.rad, x.mid, a, made_of[0]),
        )
        for wide, other, own, of, rows, one in sides:
            if own.max() > TINY:
                norm = self._norm(layout, of, rows, one == 1)
            else:  # digits that slices leave out, and no more: any bound will do
                norm = size(of) * math.sqrt(one * entries(of))
            lengths = lengths + _times(wide, norm + 2 * other)
        return self._made(whole, lengths, n)

    def _norm(
        self, layout: Layout, mid: np.ndarray, rows: np.ndarray, apart: bool
    ) -> np.ndarray:
        """By how much products with the matrices `rows` [kept, m, n], entries of `mid`, make a length larger, at most,
        in each slice [slices or 1]: the largest of their spectral norms, which are at most the matrices' own lengths.
        `apart`: a slice of the result is made of one slice of `mid`."""
        self.step(rows.size, 10)
        if apart and len(mid) > 1:
            together = (
                len(rows) % len(mid) == 0 and layout.kept[:1] == layout.result[:1]
            )
            own = rows if together else mid
            return longest(own).reshape(len(mid), -1).max(1)
        norm = longest(rows).max().reshape(1)
        if min(rows.shape[1:]) > WIDEST:
            return norm
        self.step(rows.size, min(rows.shape[1:]), 20)
        return np.minimum(norm, spectral(rows))


_by_terms = partial(np.einsum, "...ij,...jk->...ik")


def _alike(x: np.ndarray, like: np.ndarray) -> bool:
    """Whether slices of one are slices of the other."""
    return x.ndim == like.ndim


def _per_slice(x: Ball, like: np.ndarray) -> np.ndarray:
    """The lengths of a Round [slices or 1], or the greatest."""
    return x.rad.reshape(-1) if _alike(x.mid, like) else np.max(x.rad).reshape(1)


def _off(x: Ball, like: np.ndarray) -> np.ndarray:
    """The same where it is spread over an array as large."""
    lengths = _per_slice(x, like)
    return (
        lengths * math.sqrt(entries(like) / entries(x.mid))
        if lengths.any()
        else lengths
    )


def _largest(a: np.ndarray, like: np.ndarray) -> np.ndarray:
    """Absolute value in each slice [slices or 1], or of all; NaN if there is one."""
    if not a.ndim or not _alike(a, like):
        return size(a).reshape(1)
    rows = a.reshape(len(a), -1)
    return np.maximum(rows.max(1, initial=0.0), -rows.min(1, initial=0.0))


def _times(lengths: np.ndarray, by: np.ndarray) -> np.ndarray:
    """Nothing where there is nothing, even of something infinite: the centre is it, then."""
    return lengths * by if lengths.any() else lengths


def slices(spec: str, *mids: np.ndarray) -> list[int]:
    """Of how many slices of each operand a slice of the result is made: one, if its first axis is the result's."""
    *terms, result = spec.replace("->", ",").split(",")
    batch = [mid.ndim - len(term) for mid, term in zip(mids, terms, strict=True)]

    def of(mid: np.ndarray, term: str, own: int) -> int:
        most = max(batch)
        alike = own == most if most else term[:1] == result[:1] != ""
        return 1 if alike or not mid.ndim else len(mid)

    return [*map(of, mids, terms, batch)]


def entries(a: Any) -> int:
    """Of a slice along the first axis."""
    return max(1, np.size(a) // max(1, len(a) if np.ndim(a) else 1))


def longest(a: np.ndarray) -> np.ndarray:
    """At least the length of each slice along the first axis, as a vector. The same on every machine: the squares are
    those of integers, whose sum is exact in any order."""
    rows = a.reshape(len(a) if a.ndim else 1, -1)
    top, n = size(rows), rows.shape[-1]
    bits, exponent = digits(n, 1), int(np.frexp(top)[1])
    if not abs(exponent) <= NEAR or not np.isfinite(top):
        return outward(np.full(len(rows), top * math.sqrt(n)))
    whole = np.abs(rows) * 2.0 ** (bits - exponent)
    np.ceil(whole, out=whole)
    if exponent > bits:  # products may have underflowed
        np.maximum(whole, rows != 0, out=whole)
    squares = np.square(whole, out=whole).sum(-1)
    return np.sqrt(squares) * ((1 + 2.0**-50) * 2.0 ** (exponent - bits))


def spectral(matrices: np.ndarray) -> float:
    """At least the spectral norm of each of [.., m, n]: the root of that of its Gram matrix, of numbers rounded to
    integers, which a matrix of entries within 1/2 makes up for."""
    check_matmul()
    if matrices.shape[-2] > matrices.shape[-1]:
        matrices = matrices.swapaxes(-1, -2)
    top = size(matrices)
    bits, exponent = digits(matrices.shape[-1], 1), int(np.frexp(top)[1])
    if not abs(exponent) <= NEAR or not np.isfinite(top):
        return math.inf
    whole = np.rint(matrices * 2.0 ** (bits - exponent))
    gram = whole @ whole.swapaxes(-1, -2)  # exact
    missing = math.sqrt(math.prod(matrices.shape[-2:])) / 2
    norm = math.sqrt(_symmetric(gram, SQUARINGS)) + missing
    return norm * (1 + 2.0**-45) * 2.0 ** (exponent - bits)


def _symmetric(matrices: np.ndarray, squarings: int) -> float:
    """The same of symmetric ones [.., d, d] of integers, up to a few roundings: the root of that of their squares, and
    in the end the largest sum of a row's absolute values."""
    d = matrices.shape[-1]
    bits, exponent = digits(d, 1), int(np.frexp(size(matrices))[1])
    whole = np.rint(matrices * 2.0 ** (bits - exponent))
    if squarings:
        norm = math.sqrt(_symmetric(whole @ whole, squarings - 1))
    else:
        norm = float(np.abs(whole).sum(-1).max(initial=0.0))
    return (norm + d / 2) * 2.0 ** (exponent - bits)


class Fine(Euclidean):
    """Of as many digits as float64 has."""

    many, precision = 3, 60


class Smooth(Real):
    """Real arithmetic, in Euclidean: linear operations and functions give Rounds. Where a function's slopes are known,
    its values at points are as far off, times the steepest. A softmax is that of its scores' centres: its derivative's
    spectral norm is 1/2 at most."""

    ar: Euclidean
    _off: Any = 0.0  # of the scores whose probabilities are asked for next

    def add(self, x: Ball, y: Ball, sums: tuple[int, ...] = (0, 0)) -> Ball:
        return self.ar.add(self.ar.round(x), y)

    def sub(self, x: Ball, y: Ball) -> Ball:
        return self.ar.add(self.ar.round(x), -y)

    def mul(self, x: Ball, y: Ball) -> Ball:
        return self.ar.mul(self.ar.round(x), y)

    def div(self, x: Ball, y: Ball) -> Ball:
        return self.ar.div(self.ar.round(x), y)

    def contract(self, spec: str, x: Ball, y: Ball) -> Ball:
        return self.ar.contract(spec, self.ar.round(x), y)

    def function(self, name: str, f: "Function", x: Ball) -> Ball:
        if name not in SLOPES:
            return f.value(self.ar, self.ar.round(x))
        each = Float64(self.ar.limit - self.ar.work)  # each entry's own rounding
        try:
            value = f.value(each, x.point)
        finally:
            self.ar.ops += each.ops
            self.ar.work += each.work
        return self._wider(value, SLOPES[name] * self._lengths(x))

    def scores(self, x: Ball, axes: tuple[int, ...]) -> Ball:
        self._off = self._lengths(x)
        return x.point

    def probabilities(self, x: Ball, n: int) -> Ball:
        return self._wider(x, self._off / 2)

    def _lengths(self, x: Ball) -> np.ndarray:
        return self.ar.round(x).rad.reshape(-1)

    def _wider(self, x: Ball, more: np.ndarray) -> Ball:
        near = self.ar.round(x)
        return rounded(near.mid, near.rad.reshape(-1) + more)
