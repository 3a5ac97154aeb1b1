"""Ball arithmetic, written once over two kinds of numbers: float64 rounded outwards, and exact integers.

A ball stands for every real within `rad` of `mid`, both times 2^exponent, elementwise. Each operation takes
balls and returns a ball that holds the exact result for every choice of reals in its operands. The formulas
below are those of exact arithmetic; what a kind of number loses by rounding, it adds in `_ball` and `slop`.
Arguments: docs/soundness.md, "Arithmetic". Only elementwise + - * / and sqrt of float64 are trusted to round
to nearest (axiom `ieee754`): sums are added up here, term by term, so every machine gets the same bits.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np

from mechverify.kernel.errors import Rejected


class Ball(NamedTuple):
    """Arrays that broadcast against each other; `exponent` is 0 in float64."""

    mid: np.ndarray
    rad: np.ndarray
    exponent: int = 0

    def map(self, move: Callable[[np.ndarray], np.ndarray]) -> "Ball":
        """The same rearrangement (indexing, reshaping, transposing) of centre and radius."""
        mid, rad = np.broadcast_arrays(self.mid, self.rad)
        return Ball(move(mid), move(rad), self.exponent)

    def __neg__(self) -> "Ball":
        return Ball(np.asarray(-self.mid, self.mid.dtype), self.rad, self.exponent)

    @property
    def point(self) -> "Ball":
        """The centre alone."""
        return Ball(self.mid, np.zeros((1,) * self.mid.ndim, self.mid.dtype), self.exponent)

    @property
    def size(self) -> "Ball":
        """|mid| + rad as a ball of radius zero (in float64: up to a rounding that `widen` covers)."""
        return Ball(np.asarray(np.abs(self.mid) + self.rad, self.mid.dtype), self.rad, self.exponent).point


class Arithmetic(ABC):
    """`ops` counts scalar operations: the length of a proof. `work` adds what a call costs by itself and is
    what `limit` bounds, so that a small file can't keep the kernel busy for long."""

    dtype: Any
    precision: int  # bits to which series are summed
    chunk: int  # numbers of a temporary array
    infinity: Any  # above every number that is compared with it; larger is only a weaker bound

    def __init__(self, limit: float = float("inf")):
        self.ops, self.work, self.limit = 0, 0, limit

    def spend(self, ops: int, calls: int = 1) -> None:
        self.ops += ops
        self.work += ops + 2_000 * calls
        if self.work > self.limit:
            raise Rejected(
                f"the proof takes more than {self.limit:.3g} units of work; allow more if you trust its author"
            )

    def add(self, x: Ball, y: Ball) -> Ball:
        x, y = self.align(x, y)
        return self._ball(x.mid + y.mid, x.rad + y.rad, x.exponent)

    def sub(self, x: Ball, y: Ball) -> Ball:
        return self.add(x, -y)

    def mul(self, x: Ball, y: Ball) -> Ball:
        """|a'b' - ab| <= |a| rb + ra (|b| + rb)."""
        rad = np.abs(x.mid) * y.rad + x.rad * (np.abs(y.mid) + y.rad)
        return self._ball(x.mid * y.mid, rad, x.exponent + y.exponent)

    def contract(self, spec: str, x: Ball, y: Ball) -> Ball:
        """Einstein summation `spec` (two operands, explicit output, leading batch axes on each term), added
        term by term. A letter of one operand alone must be in the output. Complexity: the products."""
        terms, result = spec.split("->")
        first, second = terms.split(",")
        summed = [c for c in first if c in second and c not in result]
        left, right = (b.map(lambda a, t=t: _spread(a, t, summed, result)) for b, t in ((x, first), (y, second)))
        axes = left.mid.shape[: len(summed)]
        n = int(np.prod(axes))
        outer = np.abs(right.mid)
        inner = self.slop(right.rad, outer, n)
        mid = rad = 0
        wide_left, wide_right = bool(left.rad.any()), bool(inner.any())
        for at in np.ndindex(axes):
            mid = mid + left.mid[at] * right.mid[at]
            if wide_right:
                rad = rad + np.abs(left.mid[at]) * inner[at]
            if wide_left:
                rad = rad + left.rad[at] * (outer[at] + right.rad[at])
            self.spend(np.size(mid))
        mid, rad = np.asarray(mid, self.dtype), np.asarray(rad, self.dtype)
        return self._ball(mid, rad if rad.ndim == mid.ndim else np.zeros((1,) * mid.ndim, self.dtype) + rad,
                          x.exponent + y.exponent, 3 * n)  # fmt: skip

    def where(self, mask: np.ndarray, x: Ball, y: Ball) -> Ball:
        x, y = self.align(x, y)
        return Ball(np.where(mask, x.mid, y.mid), np.where(mask, x.rad, y.rad), x.exponent)

    def whole(self, values: np.ndarray) -> Ball:
        """Integers, exactly (below 2^53 in size)."""
        return Ball(np.asarray(values, self.dtype), np.zeros((1,) * np.ndim(values), self.dtype))

    @abstractmethod
    def _ball(self, mid: np.ndarray, rad: np.ndarray, exponent: int, terms: int = 1) -> Ball: ...

    @abstractmethod
    def slop(self, rad: np.ndarray, size: np.ndarray, n: int) -> np.ndarray:
        """`rad` plus the share of `size` by which the rounding of a sum of n products may err."""

    @abstractmethod
    def align(self, x: Ball, y: Ball) -> tuple[Ball, Ball]:
        """The same balls with one exponent."""

    @abstractmethod
    def exact(self, values: np.ndarray) -> Ball:
        """float64 numbers, as balls of radius zero."""

    @abstractmethod
    def rational(self, value: Fraction) -> Ball:
        """A scalar ball that holds `value`."""

    @abstractmethod
    def div(self, x: Ball, y: Ball) -> Ball:
        """Rejects a ball of `y` that touches zero."""

    @abstractmethod
    def sqrt(self, x: Ball) -> Ball:
        """Rejects a ball that isn't positive."""

    @abstractmethod
    def widen(self, x: Ball, relative: float, absolute: float = 0.0, of: Ball | None = None) -> Ball:
        """The radius grows by relative * (|mid| + rad) of `of` (of `x` itself if None), plus absolute."""

    @abstractmethod
    def scale(self, x: Ball, k: np.ndarray) -> Ball:
        """x * 2^k for integers k."""

    @abstractmethod
    def nearest(self, x: Ball) -> np.ndarray:
        """Integers near the centres."""

    @abstractmethod
    def mantissa(self, x: Ball) -> tuple[Ball, np.ndarray]:
        """(f, k) with mid = f 2^k and f in [0.7, 1.5), for positive centres."""

    @abstractmethod
    def units(self, value: float, exponent: int) -> Any:
        """`value` as a number to compare with raw arrays of a ball of that exponent, rounded down."""

    @abstractmethod
    def trim(self, x: Ball) -> Ball:
        """A ball that holds `x`, of numbers not longer than the precision needs."""

    @abstractmethod
    def lower(self, x: Ball) -> np.ndarray:
        """Numbers (times 2^exponent) at most every real in the ball; rejects NaN and infinity."""

    @abstractmethod
    def upper(self, x: Ball) -> np.ndarray: ...

    @abstractmethod
    def down(self, x: np.ndarray) -> np.ndarray:
        """A lower bound of what one rounded operation on raw numbers approximated."""

    @abstractmethod
    def up(self, x: np.ndarray) -> np.ndarray: ...

    @abstractmethod
    def slack(self, size: Any, n: int) -> Any:
        """Exceeds the rounding of n additions of raw numbers whose absolute values add up to at most `size`."""

    @abstractmethod
    def to_grid(self, terms: np.ndarray, exponent: int, step: int, upwards: bool) -> np.ndarray:
        """terms * 2^exponent as integer multiples of 2^step, rounded down or up."""


def _spread(a: np.ndarray, term: str, summed: list[str], result: str) -> np.ndarray:
    """[batch.., term] to [summed.., batch.., result], with size one where `term` lacks a letter."""
    batch = a.ndim - len(term)
    axes = [batch + term.index(c) for c in [*summed, *result] if c in term]
    moved = a.transpose([*axes[: len(summed)], *range(batch), *axes[len(summed) :]])
    shape = iter(moved.shape[len(summed) + batch :])
    return moved.reshape(*moved.shape[: len(summed) + batch], *(next(shape) if c in term else 1 for c in result))
