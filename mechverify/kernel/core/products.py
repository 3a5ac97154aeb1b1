"""Sums of products of float64 rows by matrix multiplication, to the same bits on every machine (error-free splitting:
Ozaki, Ogita, Oishi, Rump 2012).

A row is cut into slices: integers times a power of two of the row's own, so short that every sum of their products is
an integer of at most 2^53. So `matmul` rounds nothing, in whatever order it adds, with or without fused multiply-add.

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
CACHED = 2**18  # numbers of a block
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
    rad = np.empty_like(mid)
    ar.spend((2 * layout.n - 1) * mid.size, 20, 1)
    ar.step(a.size + b.size, 0, 30)
    for part, blocks in layout.blocks():
        right = Factor(b[part], blur[part], -1)
        for block in blocks:
            near, off = Factor(a[part, block], wide[part, block], 1).times(right)
            mid[part, block], rad[part, block], _ = ar._ball(near, off, 0)
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
    """Rows [.., m, n] as sums of `many` slices, side by side in `slices` [.., m, many n]: slice i, integers of at
    most 2^(step - 1), times 2^(exponent - i step). A row that isn't finite is NaN in `unknown`; one that isn't zero is
    1 in `filled`, others 0."""

    slices: np.ndarray
    many: int
    exponent: np.ndarray  # [.., m, 1], as the two that follow
    unknown: np.ndarray
    filled: np.ndarray
    step: int


def sliced(
    a: np.ndarray, turn: int, rad: np.ndarray | None = None
) -> tuple[Rows, np.ndarray]:
    """Rows near `a`, and the same as float64 numbers. Digits that are far below the radii `rad` of a row are left out.
    `turn`: slices are in order (1), or the last one first (-1)."""
    rest, exponent, unknown, filled, step = _scaled(a)
    blurred = None if rad is None or not rad.any() else rad.max(-1, keepdims=True) / FAR
    near, n, many = np.zeros(()), a.shape[-1], 0
    slices = np.empty((*a.shape[:-1], SLICES * n))
    while many < SLICES and (rest.any() or not many):  # one of zeros changes nothing
        start = (many if turn == 1 else SLICES - 1 - many) * n
        found = np.rint(rest, out=slices[..., start : start + n])
        near = near + found * 2.0 ** (-step * many)  # exact, as are these two
        rest -= found
        rest *= 2.0**step
        many += 1
        if blurred is not None and many > 1:
            left = _times(np.abs(rest).max(-1, keepdims=True), exponent - step * many)
            rest = np.where(left <= blurred, 0.0, rest)
    used = slices[..., : many * n] if turn == 1 else slices[..., (SLICES - many) * n :]
    return Rows(used, many, exponent, unknown, filled, step), _times(near, exponent)


def raised(a: np.ndarray, turn: int) -> Rows:
    """Rows that are at least `a`, which has no negative numbers: a slice, and one more where numbers are far apart."""
    rest, *rest_of = _scaled(a)
    found = [np.maximum(np.ceil(rest), a > 0)]  # the rest may have underflowed
    wide = (found[0] == 1).any(-1, keepdims=True)
    if wide.any():
        first = np.where(wide, np.rint(rest), found[0])
        second = np.maximum(
            np.ceil((rest - first) * 2.0 ** rest_of[-1]), (a > 0) & (first == 0)
        )
        found = [first, np.where(wide, second, 0.0)]
    return _rows(found, turn, *rest_of)


class Factor:
    """Rows of balls, ready to be multiplied: the first factor (1) or the second (-1). Digits of the centres that the
    slices leave out count as radius."""

    def __init__(self, mid: np.ndarray, rad: np.ndarray, turn: int):
        self.turn = turn
        self.centre, near = sliced(mid, turn, rad)
        self.near, self.rad = np.abs(near), rad + np.abs(mid - near)

    @cached_property
    def radius(self) -> Rows:
        return raised(self.rad, self.turn)

    @cached_property
    def size(self) -> Rows:
        """|mid|, of the second factor |mid| + rad: see `Arithmetic.mul`."""
        return raised(self.near if self.turn == 1 else self.near + self.rad, self.turn)

    def times(self, other: "Factor") -> tuple[np.ndarray, np.ndarray]:
        """Sums [.., m, k] of products of the balls: centres before the last rounding, and radii, but for `outward`."""
        x, y = self.centre, other.centre
        mid = product(x, y)
        rad = _early(x, y)
        if other.rad.any():
            rad += product(self.size, other.radius)
        if self.rad.any():
            rad += product(self.radius, other.size)
        return mid, rad


def product(x: Rows, y: Rows) -> np.ndarray:
    """Sums [.., m, k] of products of rows, but for the rounding of their last additions; NaN where a row isn't finite.
    The slices of `x` are in order, those of `y` are turned."""
    n, scale = x.slices.shape[-1] // x.many, 2.0**-x.step
    total = np.zeros(())
    for order in reversed(
        range(x.many + y.many - 1)
    ):  # products of slices i and order - i, the smallest first
        low, high, turned = (
            max(0, order - y.many + 1),
            min(order + 1, x.many),
            y.many - 1 - order,
        )
        a, b = (
            x.slices[..., low * n : high * n],
            y.slices[..., (low + turned) * n : (high + turned) * n],
        )
        rest = total * scale
        total = a @ b.swapaxes(-1, -2)  # exact
        total += rest
    if np.isnan(x.unknown).any() or np.isnan(y.unknown).any():
        total += x.unknown + y.unknown.swapaxes(-1, -2)
    return _times(total, x.exponent, y.exponent.swapaxes(-1, -2))


def _early(x: Rows, y: Rows) -> np.ndarray:
    """What is rounded in sums [.., m, k] of products before the last addition, at most: 2^(1 - step) of what both first
    slices count in; nothing in a row of zeros."""
    least, others = 2.0 ** (1 - x.step) * x.filled, y.filled.swapaxes(-1, -2)
    up, over = x.exponent, y.exponent.swapaxes(-1, -2)
    if _near(up) and _near(over):
        return _times(least, up) * _times(others, over)
    return np.ldexp(least * others, up + over)


def bits(n: int) -> int:
    """Of a slice: the most with SLICES n 2^(2 bits) <= 2^53."""
    return (53 - (SLICES * n - 1).bit_length()) // 2


def _scaled(
    a: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, int]:
    """What the slices are to add up to, at most 2^(step - 1) in size; and `Rows` from `exponent` on."""
    size, width = np.abs(a).max(-1, keepdims=True, initial=0.0), bits(a.shape[-1])
    exponent = np.frexp(size)[1] - width
    if not np.isfinite(size).all():
        a = np.where(np.isfinite(size), a, 0.0)
    return (
        _times(a, -exponent),
        exponent,
        0.0 * size,
        (size > 0).astype(np.float64),
        width + 1,
    )


def _near(exponent: np.ndarray) -> bool:
    """Of a power of two by which numbers that aren't tiny may be multiplied: twice, and nothing underflows."""
    return bool((np.abs(exponent) <= NEAR).all())


def _times(a: np.ndarray, *exponents: np.ndarray) -> np.ndarray:
    """a 2^exponents, rounded once where it underflows: as `ldexp`, and faster where products of powers of two will do.
    Precondition of two exponents: numbers of `a` that aren't zero exceed 2^-200 in size."""
    if all(map(_near, exponents)):
        a = a * np.ldexp(1.0, exponents[0])
        for exponent in exponents[1:]:
            a *= np.ldexp(1.0, exponent)
        return a
    return np.ldexp(a, sum(exponents[1:], exponents[0]))


def _rows(slices: list[np.ndarray], turn: int, *rest: Any) -> Rows:
    return Rows(
        slices[0] if len(slices) == 1 else np.concatenate(slices[::turn], -1),
        len(slices),
        *rest,
    )


def _steps(n: int, numbers: int) -> Iterator[slice]:
    step = max(1, CACHED // max(1, numbers))
    return (slice(i, i + step) for i in range(0, n, step))
