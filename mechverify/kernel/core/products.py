"""Sums of products of float64 rows by matrix multiplication, to the same bits on every machine (error-free splitting:
Ozaki, Ogita, Oishi, Rump 2012).

A row is cut into slices: integers times powers of two of the row's own, so short that every sum of products of two
slices is an integer of at most 2^53, times such a power. So `matmul` rounds nothing, in whatever order it adds, with
or without fused multiply-add.

Lemma C12 (docs/soundness/core.md).
"""

import math
from collections.abc import Callable, Iterator
from functools import cache, cached_property
from typing import Any, NamedTuple

import numpy as np

from mechverify.kernel.core.arithmetic import Arithmetic, Ball
from mechverify.kernel.core.errors import Rejected

SLICES = 3  # of a row, at most
CACHED = 2**16  # numbers of a block
FAR = (
    2.0**10
)  # times as far below a row's radii as digits are that get no further slice
NEAR = 400  # of exponents


@cache
def check_matmul(multiply: Callable[..., np.ndarray] = np.matmul) -> None:
    """Refuse to run where `matmul` doesn't add integers of at most 2^53 exactly: products of full slices, of either
    sign."""
    size = 2 ** bits(96)
    whole = np.arange(32 * 96, dtype=np.int64).reshape(32, 96) * 2_654_435_761
    whole = whole % (2 * size) - size
    rows = whole.astype(np.float64)
    if not (multiply(rows, rows.T) == whole @ whole.T).all():
        raise Rejected(
            "this machine's matrix products of float64 integers below 2^53 are not exact"
        )


def contract(ar: Arithmetic, spec: str, x: Ball, y: Ball) -> Ball:
    """`Arithmetic.contract`, of float64 balls."""
    check_matmul()
    layout = Layout(spec, x.mid.shape, y.mid.shape)
    a, wide = x.map(lambda v: layout.rows(v, 0))[:2]
    b, blur = y.map(lambda v: layout.rows(v, 1))[:2]
    mid = np.empty((len(a), a.shape[1], b.shape[1]))
    rad, room = np.empty_like(mid), np.empty((2, 0))
    ar.spend((2 * layout.n - 1) * mid.size, 20, 1)
    ar.step(a.size + b.size, 0, 30)
    for part, blocks in layout.blocks():
        right = Factor(b[part], blur[part], -1)
        for block in blocks:
            near, off = mid[part, block], rad[part, block]
            if room.shape[1] < near.size:  # new memory costs as much as a product
                room = np.empty((2, near.size))
            spare = room[:, : near.size].reshape(2, *near.shape)
            left = Factor(a[part, block], wide[part, block], 1)
            left.times(right, near, off, spare)
            off[...] = ar._ball(near, off, 0).rad
    return Ball(layout.place(mid), layout.place(rad))


class Layout:
    """An Einstein summation `spec` of arrays of those shapes, as products of rows [kept, m, n] and [kept, k, n]. Batch
    axes are numbers beside its letters; one of size one is missing there, so that it belongs to the other's rows."""

    def __init__(self, spec: str, *shapes: tuple[int, ...]):
        *terms, result = spec.replace("->", ",").split(",")
        batch = range(
            -max(
                len(shape) - len(term)
                for shape, term in zip(shapes, terms, strict=True)
            ),
            0,
        )
        sizes: list[dict] = []
        for shape, term in zip(shapes, terms, strict=True):
            axes = [*batch[len(batch) + len(term) - len(shape) :], *term]
            sizes.append(
                {
                    a: n
                    for a, n in zip(axes, shape, strict=True)
                    if n != 1 or a not in batch
                }
            )
        first, second = self.operands = sizes
        self.result = [*batch, *result]
        self.sizes = dict.fromkeys(batch, 1) | first | second
        self.summed = [a for a in first if a in second and a not in self.result]
        self.kept = [a for a in first if a in second and a in self.result]
        self.free = (
            [a for a in self.sizes if a not in second],
            [a for a in second if a not in first],
        )
        self.n = self._size(self.summed)

    def rows(self, a: np.ndarray, which: int) -> np.ndarray:
        """Of the first operand (0) or the second (1)."""
        axes = list(self.operands[which])
        order = [
            axes.index(axis)
            for axis in (*self.kept, *self.free[which], *self.summed)
            if axis in axes
        ]
        moved = a.reshape(list(self.operands[which].values())).transpose(order)
        return moved.reshape(
            self._size(self.kept), self._size(self.free[which]), self.n
        )

    def blocks(self) -> Iterator[tuple[slice, Iterator[slice]]]:
        """Parts of the kept axis, each with parts of the first operand's rows, to bound the memory."""
        m, k = map(self._size, self.free)
        for part in _steps(self._size(self.kept), m * k + (m + k) * self.n):
            yield part, _steps(m, k + self.n)

    def place(self, a: np.ndarray) -> np.ndarray:
        """[kept, m, k] to [batch.., result]."""
        order = [*self.kept, *self.free[0], *self.free[1]]
        return a.reshape([self.sizes[axis] for axis in order]).transpose(
            [order.index(axis) for axis in self.result]
        )

    def _size(self, axes: list) -> int:
        return math.prod(self.sizes[axis] for axis in axes)


class Rows(NamedTuple):
    """Rows [.., m, n] as 2^`apart` times the sum of `many` slices, side by side in `slices` [.., m, many n]: slice i
    holds integers of at most 2^(step - 1), times 2^(-i step) `unit`. `apart` is zero where no product underflows or
    overflows. A row of zeros has the unit zero, others a power of two; one that isn't finite is NaN in `unknown`."""

    slices: np.ndarray
    many: int
    unit: np.ndarray  # [.., m, 1], as those that follow
    apart: np.ndarray
    unknown: np.ndarray
    step: int


def sliced(
    a: np.ndarray, turn: int, rad: np.ndarray | None = None
) -> tuple[Rows, np.ndarray]:
    """Rows near `a`, and the same as float64 numbers. Digits that are far below the radii `rad` of a row are left out.
    `turn`: slices are in order (1), or the last one first (-1)."""
    rest, exponent, unit, *others = _scaled(a)
    apart, _, step = others
    blurred = None if rad is None or not rad.any() else rad.max(-1, keepdims=True) / FAR
    near, n, many = np.zeros(()), a.shape[-1], 0
    slices = np.empty((*a.shape[:-1], SLICES * n))
    while many < SLICES and (rest.any() or not many):  # one of zeros changes nothing
        start = (many if turn == 1 else SLICES - 1 - many) * n
        found = np.rint(rest, out=slices[..., start : start + n])
        rest -= found  # exact, as all of these are
        rest *= 2.0**step
        found *= unit * 2.0 ** (-step * many)
        near = near + found
        many += 1
        if blurred is not None and many > 1:
            left = _times(np.abs(rest).max(-1, keepdims=True), exponent - step * many)
            rest = np.where(left <= blurred, 0.0, rest)
    used = slices[..., : many * n] if turn == 1 else slices[..., (SLICES - many) * n :]
    near = np.ldexp(near, apart) if apart.any() else near
    return Rows(used, many, unit, *others), near


def raised(a: np.ndarray, turn: int) -> Rows:
    """Rows that are at least `a`, which has no negative numbers: a slice, and one more where numbers are far apart."""
    rest, _, unit, *others = _scaled(a)
    step = others[-1]
    first = np.maximum(np.ceil(rest), a > 0)  # the rest may have underflowed
    wide = (first == 1).any(-1, keepdims=True)
    found = [first]
    if wide.any():
        first = np.where(wide, np.rint(rest), first)
        second = np.maximum(np.ceil((rest - first) * 2.0**step), (a > 0) & (first == 0))
        found = [first, np.where(wide, second, 0.0) * 2.0**-step]
    slices = found[0] if len(found) == 1 else np.concatenate(found[::turn], -1)
    slices *= unit
    return Rows(slices, len(found), unit, *others)


class Factor:
    """Rows of balls, ready to be multiplied: the first factor (1) or the second (-1). Digits of the centres that the
    slices leave out count as radius."""

    def __init__(self, mid: np.ndarray, rad: np.ndarray, turn: int):
        self.turn = turn
        self.centre, self.near = sliced(mid, turn, rad)
        self.rad = rad + np.abs(mid - self.near)

    @cached_property
    def radius(self) -> Rows:
        return raised(self.rad, self.turn)

    @cached_property
    def size(self) -> Rows:
        """|mid|, of the second factor |mid| + rad: see `Arithmetic.mul`."""
        most = np.abs(self.near)
        return raised(most if self.turn == 1 else most + self.rad, self.turn)

    def times(
        self, other: "Factor", mid: np.ndarray, rad: np.ndarray, room: np.ndarray
    ) -> None:
        """Into `mid` and `rad`, sums [.., m, k] of products of the balls: centres before the last rounding, and radii,
        but for `outward`. `room` [2, .., m, k] is for parts of them."""
        x, y = self.centre, other.centre
        product(x, y, mid, room[0])
        _early(x, y, rad)
        if other.rad.any():
            rad += product(self.size, other.radius, room[0], room[1])
        if self.rad.any():
            rad += product(self.radius, other.size, room[0], room[1])


def product(x: Rows, y: Rows, total: np.ndarray, room: np.ndarray) -> np.ndarray:
    """Sums [.., m, k] of products of rows, but for the rounding of their last additions; NaN where a row isn't finite.
    The slices of `x` are in order, those of `y` are turned. Into `total`, with parts in `room`."""
    *lower, highest = range(x.many + y.many - 1)
    np.matmul(*_of_order(highest, x, y), out=total)  # exact, as the next ones
    for order in reversed(lower):
        total += np.matmul(*_of_order(order, x, y), out=room)
    if np.isnan(x.unknown).any() or np.isnan(y.unknown).any():
        total += x.unknown + y.unknown.swapaxes(-1, -2)
    return _put_together(total, x, y)


def _of_order(order: int, x: Rows, y: Rows) -> tuple[np.ndarray, np.ndarray]:
    """The slices i of `x` [.., m, slices n] and order - i of `y` [.., slices n, k], one beside the other."""
    n, low = x.slices.shape[-1] // x.many, max(0, order - y.many + 1)
    high, turned = min(order + 1, x.many), y.many - 1 - order
    right = y.slices[..., (low + turned) * n : (high + turned) * n]
    return x.slices[..., low * n : high * n], right.swapaxes(-1, -2)


def _early(x: Rows, y: Rows, rad: np.ndarray) -> None:
    """Into `rad`, what is rounded in sums [.., m, k] of products before the last addition, at most: 2^(1 - step) of
    what both first slices count in; nothing in a row of zeros."""
    least, others = 2.0 ** (1 - x.step) * x.unit, y.unit.swapaxes(-1, -2)
    _put_together(np.multiply(least, others, out=rad), x, y)


def _put_together(a: np.ndarray, x: Rows, y: Rows) -> np.ndarray:
    """With what is apart in both rows: rounded once, where it underflows."""
    if x.apart.any() or y.apart.any():
        np.ldexp(a, x.apart + y.apart.swapaxes(-1, -2), out=a)
    return a


def bits(n: int) -> int:
    """Of a slice: the most with SLICES n 2^(2 bits) <= 2^53."""
    return (53 - (SLICES * n - 1).bit_length()) // 2


def _scaled(a: np.ndarray) -> tuple[Any, ...]:
    """What the slices are to add up to, at most 2^(step - 1) in size; its exponent; and `Rows` from `unit` on."""
    size, width = np.abs(a).max(-1, keepdims=True, initial=0.0), bits(a.shape[-1])
    exponent = np.frexp(size)[1] - width
    if not np.isfinite(size).all():
        a = np.where(np.isfinite(size), a, 0.0)
    apart = exponent * (not _near(exponent))
    unit = np.ldexp(1.0 * (size > 0), exponent - apart)
    return _times(a, -exponent), exponent, unit, apart, 0.0 * size, width + 1


def _near(exponent: np.ndarray) -> bool:
    """Of a power of two by which digits may be multiplied, in both factors, and no product underflows or overflows."""
    return bool((np.abs(exponent) <= NEAR).all())


def _times(a: np.ndarray, exponent: np.ndarray) -> np.ndarray:
    """a 2^exponent, rounded once where it underflows: as `ldexp`, and faster where a product by a power of two will
    do."""
    return a * np.ldexp(1.0, exponent) if _near(exponent) else np.ldexp(a, exponent)


def _steps(n: int, numbers: int) -> Iterator[slice]:
    step = max(1, CACHED // max(1, numbers))
    return (slice(i, i + step) for i in range(0, n, step))
