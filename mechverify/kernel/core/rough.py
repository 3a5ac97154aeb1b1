"""float64 balls of which each value has one radius, for all its inputs and entries, and products of the two leading
slices of numbers: about 44 digits, at little more than what plain float64 takes. For what is far from a boundary.

Lemma C17 (docs/soundness/core.md).
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from mechverify.kernel.core.arithmetic import Array, Ball
from mechverify.kernel.core.errors import Rejected
from mechverify.kernel.core.float64 import ETA, UNIT, Float64, finite, large, outward
from mechverify.kernel.core.products import NEAR, Layout, check_matmul
from mechverify.kernel.core.semantics import Real


class Even(Ball):
    """A ball whose radius is one number [1, .., 1]: what moves entries leaves it alone."""

    __slots__ = ()

    def map(self, move: Callable[[Array], Array]) -> "Even":
        mid = np.asarray(move(self.mid))
        return Even(mid, self.rad.reshape((1,) * mid.ndim))

    def __neg__(self) -> "Even":
        return Even(-self.mid, self.rad)


def even(mid: np.ndarray, rad: np.ndarray) -> Even:
    """The ball of that centre, and the largest of the radii."""
    mid = np.asarray(mid)
    if np.ndim(rad) > mid.ndim or np.size(rad) > 1:
        mid = np.broadcast_to(mid, np.broadcast_shapes(mid.shape, np.shape(rad)))
    return Even(mid, np.reshape(np.max(rad), (1,) * mid.ndim))


class Rough(Float64):
    """Postconditions hold where the result is finite: where one entry isn't, none is."""

    precision, uniform = 48, True

    def trim(self, x: Ball) -> Ball:
        return x if type(x) is Even else even(x.mid, x.rad)

    def _ball(
        self, mid: np.ndarray, rad: np.ndarray, exponent: int, terms: int = 1
    ) -> Ball:
        self.spend(np.size(mid))
        return even(mid, outward(np.max(rad) + UNIT * size(mid), terms))

    def lower(self, x: Ball) -> np.ndarray:
        return x.mid - self._reach(x)

    def upper(self, x: Ball) -> np.ndarray:
        return x.mid + self._reach(x)

    def _reach(self, x: Ball) -> np.ndarray:
        """The radius, and what rounding makes of a centre that is moved by it."""
        rad = np.max(x.rad)
        return finite(outward(rad + 2 * UNIT * (size(x.mid) + rad)))

    def mul(self, x: Ball, y: Ball) -> Ball:
        wide, blur = np.max(x.rad), np.max(y.rad)
        rad = wide * (size(y.mid) + blur) if wide else np.zeros(())
        if blur:
            rad = rad + size(x.mid) * blur
        return self._ball(x.mid * y.mid, rad, 0)

    def div(self, x: Ball, y: Ball) -> Ball:
        room = self.down(np.abs(y.mid).min(initial=np.inf) - np.max(y.rad))
        if not room > 0:
            raise Rejected("division by an interval that may hold zero")
        mid = x.mid / y.mid
        more = (size(mid) + ETA) * np.max(y.rad) + 2 * ETA
        return self._ball(mid, (np.max(x.rad) + more) / room, 0)

    def sqrt(self, x: Ball) -> Ball:
        wide, least = np.max(x.rad), x.mid.min(initial=np.inf)
        if not self.down(least - wide) > 0:
            raise Rejected("square root of an interval that is not positive")
        return self._ball(np.sqrt(x.mid), wide / np.sqrt(least), 0)

    def widen(
        self, x: Ball, relative: float, absolute: float = 0.0, of: Ball | None = None
    ) -> Ball:
        mid, rad = (of or x)[:2]
        self.spend(np.size(x.mid))
        share = relative * (size(mid) + np.max(rad)) if relative else 0.0
        return even(x.mid, outward(np.max(x.rad) + (share + absolute)))

    def scale(self, x: Ball, k: np.ndarray) -> Ball:
        k = np.clip(k, -5_000, 5_000).astype(np.int32)
        self.spend(np.size(x.mid))
        mid = np.ldexp(x.mid, k)
        rad = np.ldexp(np.max(x.rad), k.max(initial=-5_000))
        return even(mid, outward(rad + 0.0 * size(mid)))

    def where(self, mask: np.ndarray, x: Ball, y: Ball) -> Ball:
        """The radius is that of what is chosen anywhere."""
        pairs = (x, mask), (y, np.logical_not(mask))
        chosen = [np.max(b.rad) for b, some in pairs if np.any(some)]
        rad = np.max(chosen, initial=0.0)
        return even(np.where(mask, x.mid, y.mid), rad)

    def together(self, mid: np.ndarray, parts: list[Ball]) -> Ball:
        """The ball of parts whose centres stand side by side."""
        return even(mid, np.array([np.max(part.rad) for part in parts]).max())

    def contract(self, spec: str, x: Ball, y: Ball) -> Ball:
        """By slices where sums are long, else term by term. Reals of the balls are near numbers x'_k and y'_k, by `far`
        and `off`, of which the sum of products is computed but for `lost`."""
        x, y = self.trim(x), self.trim(y)  # centres of the whole shape
        layout = Layout(spec, x.mid.shape, y.mid.shape)
        a, b, n = layout.rows(x.mid, 0), layout.rows(y.mid, 1), layout.n
        far, off = np.max(x.rad), np.max(y.rad)
        mid = np.empty((len(a), a.shape[1], b.shape[1]))
        self.spend((2 * n - 1) * mid.size, 20, 1)
        if large(spec, x.mid.shape, y.mid.shape):
            first, second = Slices(a), Slices(b)
            sums = first.sums(off), second.sums(far)
            far, off = far + first.rest, off + second.rest
            lost = first.times(second, mid, layout)
        else:
            sums = one_by_one(a, b, mid, layout)
            most = 4 * sums[0] * sums[1]  # infinite where a sum may overflow
            lost = n * UNIT * most
        lost += UNIT * size(mid)
        rad = far * (sums[1] + n * off) + sums[0] * off + (lost + n * ETA)
        return even(layout.place(mid), outward(rad, n))


def one_by_one(
    x: np.ndarray, y: np.ndarray, mid: np.ndarray, layout: Layout
) -> np.ndarray:
    """Into `mid`, the sums of products of rows, added up term by term. Of both factors, the largest sum of the sizes in
    a row, but for rounding."""
    sums = np.zeros(2)
    for part, blocks in layout.blocks():
        for block in blocks:
            rows, total = (x[part, block, None], y[part, None]), mid[part, block]
            sizes = [np.zeros(a.shape[:-1]) for a in rows]
            total[...] = 0.0
            for i in range(layout.n):
                first, second = (a[..., i] for a in rows)
                total += first * second
                sizes[0] += np.abs(first)
                sizes[1] += np.abs(second)
            sums = np.maximum(sums, [a.max(initial=0.0) for a in sizes])
    return sums


class Slices:
    """Rows [.., n] of numbers x near x' = sum_i q_i 2^(-i (bits + 1)) 2^(exponent - bits), by `rest`; the `many` q_i
    are integers of at most 2^bits in size. |x| and |x'| are at most `reach`."""

    def __init__(self, rows: np.ndarray, many: int = 2):
        top = finite(np.asarray(size(rows)))
        self.rows, self.many = rows, many
        self.bits = digits(rows.shape[-1], many)
        self.exponent = int(np.frexp(top)[1])
        if abs(self.exponent) > NEAR:
            raise Rejected("numbers too large, or too small, to be cut into digits")
        self.rest = 2.0 ** (self.exponent - many * (self.bits + 1))
        self.reach = 2.0**self.exponent if top > 0 else 0.0

    def sums(self, exactly: Any) -> float:
        """Of |x'| over a row, at most."""
        n = self.rows.shape[-1]
        if not exactly:
            return n * self.reach
        scale = 2.0 ** (self.bits - self.exponent)
        whole = np.ceil(np.abs(self.rows) * scale).sum(-1)  # exact, in any order
        return whole.max(initial=0.0) / scale

    def cut(self, part: Any, turn: int) -> np.ndarray:
        """Of some rows, all slices side by side: in order (1), or turned (-1)."""
        rows = self.rows[part]
        n = rows.shape[-1]
        slices = np.empty((*rows.shape[:-1], self.many * n))
        rest = rows * 2.0 ** (self.bits - self.exponent)
        for i in range(self.many)[::turn]:
            found = np.rint(rest, out=slices[..., i * n : (i + 1) * n])
            rest -= found
            rest *= 2.0 ** (self.bits + 1)
        return slices

    def times(
        self,
        other: "Slices",
        mid: np.ndarray,
        layout: Layout,
        multiply: Callable[..., np.ndarray] = np.matmul,
    ) -> float:
        """Into `mid`, the sums of products of rows: those of slices i and j with i + j < many. What they lack, at most,
        but for the last rounding. `multiply` adds integers below 2^53 exactly."""
        check_matmul()
        n, many, step = layout.n, self.many, self.bits + 1
        unit = 2.0 ** (self.exponent + other.exponent - 2 * self.bits)
        for part, blocks in layout.blocks():
            right = other.cut(part, -1).swapaxes(-1, -2)
            unused = 0  # slices of zeros: numbers of few digits
            while (
                unused < many - 1
                and not right[..., unused * n : (unused + 1) * n, :].any()
            ):
                unused += 1
            units = [unit * 2.0 ** (-step * order) for order in range(many)]
            by_order = [right * unit for unit in units]  # the same, as each is needed
            for block in blocks:
                left, total = self.cut((part, block), 1), mid[part, block]
                for order in reversed(range(many)):  # products of i and order - i
                    turned = max(many - 1 - order, unused)
                    first = turned - (many - 1 - order)
                    pairs = (
                        left[..., first * n : (order + 1) * n],
                        by_order[order][..., turned * n :, :],
                    )
                    if order == many - 1:
                        multiply(*pairs, out=total)  # exact, as the next ones
                    else:
                        total += multiply(*pairs)
        left_out = (many - 1) * (1 + 2.0**-10) * 2.0 ** (-many * step)
        early = 2 * (many - 2) * many * UNIT * 2.0**-step
        return n * self.reach * other.reach * (left_out + early)


def size(a: np.ndarray) -> np.ndarray:
    """The largest absolute value; NaN if there is one."""
    return np.maximum(np.max(a, initial=0.0), -np.min(a, initial=0.0))


def digits(n: int, many: int = 2) -> int:
    """Of a slice: the most with many n 2^(2 bits) <= 2^53."""
    return (53 - (many * max(n, 1) - 1).bit_length()) // 2


class Leading(Real):
    """Real arithmetic, in Rough. A softmax is that of its scores' centres: where each score moves by at most r, no
    probability p moves by more than r/2, as its slopes add up to 2 p (1 - p)."""

    _off = 0.0  # of the scores whose probabilities are asked for next

    def scores(self, x: Ball, axes: tuple[int, ...]) -> Ball:
        self._off = float(np.max(x.rad))
        return x.point

    def probabilities(self, x: Ball, n: int) -> Ball:
        return self.ar.widen(x, 0.0, self._off / 2)
