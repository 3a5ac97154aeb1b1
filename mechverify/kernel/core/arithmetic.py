"""Ball arithmetic, written once over two kinds of numbers: float64 rounded outwards, and exact integers.

A ball stands for every real within `rad` of `mid`, both times 2^exponent, elementwise. Each operation takes
balls and returns a ball that holds the exact result for every choice of reals in its operands. The formulas
below are those of exact arithmetic; what a kind of number loses by rounding, it adds in `_ball` and `slop`.
Elementwise + - * / and sqrt of float64 are trusted to round to nearest (axiom `ieee754`). Sums are added up here, term
by term, or are exact whatever their order (core/products.py): so every machine gets the same bits.

Lemma C1 (docs/soundness/core.md).
"""

import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np

from mechverify.kernel.core.loading import late
from mechverify.kernel.core.meter import Meter

# Of terms on a grid, as integers; HIGHEST outweighs LOWEST at every other position.
LOWEST, HIGHEST = -(2**30), 2**50
CACHED = 2**16  # numbers that stay near the processor
Array = Any  # float64 or Python integers (numpy), or a search's tensors (torch): no type declares what they share


class Ball(NamedTuple):
    """Arrays that broadcast against each other; `exponent` is 0 in float64."""

    mid: Array
    rad: Array
    exponent: int = 0

    def map(self, move: Callable[[Array], Array]) -> "Ball":
        """The same rearrangement (indexing, reshaping, transposing) of centre and radius."""
        mid, rad = np.broadcast_arrays(self.mid, self.rad)
        return Ball(move(mid), move(rad), self.exponent)

    @property
    def at(self) -> "Entries":
        """`x.at[index]`: those entries."""
        return Entries(self)

    def __neg__(self) -> "Ball":
        return Ball(np.asarray(-self.mid, self.mid.dtype), self.rad, self.exponent)

    @property
    def point(self) -> "Ball":
        return points(self.mid, self.exponent)

    @property
    def size(self) -> "Ball":
        """|mid| + rad as a ball of radius zero (in float64: up to a rounding that `widen` covers)."""
        return Ball(
            np.asarray(magnitude(self.mid) + self.rad, self.mid.dtype),
            self.rad,
            self.exponent,
        ).point


class Entries:
    """Of a ball, by numpy's indices."""

    def __init__(self, ball: Ball):
        self._ball = ball

    def __getitem__(self, index: Any) -> Ball:
        return self._ball.map(lambda a: a[index])


class Arithmetic(Meter):
    """What both kinds share, and what each of them says for itself. Its own work is counted."""

    xp: Any = np  # the library of the arrays: searches do the same steps with others
    rounds = True
    is_exact = False  # exact numbers don't round, or underflow (but within 2^-1074)
    dtype: Any
    precision: int  # bits to which series are summed
    chunk: int  # numbers of a temporary array
    uniform = False  # one radius for all entries: rough.py
    infinity: Any  # the minimum of nothing; any number is sound there

    # What a kind of number says for itself; one that is never asked need not answer.

    def _ball(self, mid: Array, rad: Array, exponent: int, terms: int = 1) -> Ball:
        """The ball with what rounding lost added: of one operation, or of a radius of `terms` rounded sums."""
        raise NotImplementedError

    def slop(self, rad: Array, size: Array, n: int) -> Array:
        """`rad` plus the share of `size` by which the rounding of a sum of n products may err."""
        raise NotImplementedError

    def align(self, x: Ball, y: Ball) -> tuple[Ball, Ball]:
        """The same balls with one exponent."""
        raise NotImplementedError

    def exact(self, values: Array) -> Ball:
        """float64 numbers, as balls of radius zero."""
        raise NotImplementedError

    def point(self, values: Array) -> Ball:
        """The same of raw numbers that need not be finite: the ball is not finite there."""
        raise NotImplementedError

    def rational(self, value: Fraction) -> Ball:
        """A scalar ball that holds `value`."""
        raise NotImplementedError

    def mul(self, x: Ball, y: Ball) -> Ball:
        raise NotImplementedError

    def div(self, x: Ball, y: Ball) -> Ball:
        """Rejects a ball of `y` that touches zero."""
        raise NotImplementedError

    def sqrt(self, x: Ball) -> Ball:
        """Rejects a ball that isn't positive."""
        raise NotImplementedError

    def widen(
        self, x: Ball, relative: float, absolute: float = 0.0, of: Ball | None = None
    ) -> Ball:
        """The radius grows by relative * (|mid| + rad) of `of` (of `x` itself if None), plus absolute."""
        raise NotImplementedError

    def scale(self, x: Ball, k: np.ndarray) -> Ball:
        """x * 2^k for integers k."""
        raise NotImplementedError

    def nearest(self, x: Ball) -> np.ndarray:
        """Integers near the centres."""
        raise NotImplementedError

    def mantissa(self, x: Ball) -> tuple[Ball, np.ndarray]:
        """(f, k) with mid = f 2^k and f in [0.7, 1.4], for positive centres."""
        raise NotImplementedError

    def units(self, value: float, exponent: int) -> Any:
        """`value` as a number to compare with raw arrays of a ball of that exponent, rounded down."""
        raise NotImplementedError

    def approximate(self, x: Ball) -> np.ndarray:
        """float64 numbers near the centres, for choices that are sound whatever they are."""
        raise NotImplementedError

    def trim(self, x: Ball) -> Ball:
        """A ball that holds `x`, of numbers not longer than the precision needs."""
        raise NotImplementedError

    def lower(self, x: Ball) -> Array:
        """Numbers (times 2^exponent) at most every real in the ball; rejects what is not finite."""
        raise NotImplementedError

    def upper(self, x: Ball) -> Array:
        """Numbers (times 2^exponent) at least every real in the ball; rejects what is not finite."""
        raise NotImplementedError

    def ends(self, x: Ball) -> tuple[Array, Array]:
        """`lower` and `upper`; infinite where the ball is not finite: it bounds nothing there."""
        raise NotImplementedError

    def down(self, x: Array) -> Array:
        """A lower bound of what one rounded operation on raw numbers approximated."""
        raise NotImplementedError

    def up(self, x: Array) -> Array:
        """An upper bound of the same."""
        raise NotImplementedError

    def slack(self, size: Array, n: int) -> Array:
        """Exceeds the rounding of n additions of raw numbers whose absolute values add up to at most `size`."""
        raise NotImplementedError

    def to_grid(
        self, terms: Array, exponent: int, step: int, upwards: bool
    ) -> np.ndarray:
        """Raw terms (times 2^exponent) as integer multiples of 2^step, rounded down or up; rejects a grid that is too
        fine for them."""
        raise NotImplementedError

    def add(self, x: Ball, y: Ball) -> Ball:
        x, y = self.align(x, y)
        return self._ball(x.mid + y.mid, x.rad + y.rad, x.exponent)

    def sub(self, x: Ball, y: Ball) -> Ball:
        return self.add(x, -y)

    def contract(self, spec: str, x: Ball, y: Ball) -> Ball:
        """Einstein summation `spec` (two operands, explicit output, leading batch axes on each term), added
        term by term. A letter of one operand alone must be in the output. Complexity: twice the products."""
        first, second, result = spec.replace("->", ",").split(",")
        summed = [c for c in first if c in second and c not in result]
        left = x.map(lambda a: _spread(a, first, summed, result))
        right = y.map(lambda a: _spread(a, second, summed, result))
        axes = left.mid.shape[: len(summed)]
        n = int(np.prod(axes))
        size, outer = np.abs(left.mid), np.abs(right.mid)
        inner = self.slop(right.rad, outer, n)
        shape = np.broadcast_shapes(
            left.mid.shape[len(summed) :], right.mid.shape[len(summed) :]
        )
        mid, rad = np.zeros(shape, self.dtype), np.zeros(shape, self.dtype)
        wide_left, wide_right = np.any(left.rad), np.any(inner)
        self.spend(
            (2 * n - 1) * mid.size, n, 5
        )  # and one more for the result: a multiply-add is two
        for part in _parts(shape):
            m, r = mid[(*part, ...)], rad[(*part, ...)]  # views, also of a scalar
            terms = [_part(a, part, len(shape), len(summed))
                     for a in (left.mid, left.rad, size, right.mid, right.rad, inner, outer)]  # fmt: skip
            for at in np.ndindex(axes):
                a, wide, large, b, spread, inside, reach = (t[at] for t in terms)
                m += a * b
                if wide_right:
                    r += large * inside
                if wide_left:
                    r += wide * (reach + spread)
        return self._ball(mid, rad, x.exponent + y.exponent, 3 * n)

    def sum(self, x: Ball) -> Ball:
        """Over the last axis."""
        return late("core.sums").total(self, x)

    def scatter(self, x: Ball, entries: np.ndarray, size: int) -> Ball:
        """[.., n] to [.., size]: entry i is added to entry entries[i]; the others are zero."""
        from mechverify.kernel.core.places import (
            scatter,  # only where entries are moved
        )

        return scatter(self, x, entries, size)

    def value(self, f: Any, x: Ball) -> Ball:
        return f.value(self, x)

    def raw(self, a: np.ndarray) -> Array:
        """Numbers or booleans of the kernel's as arrays of `xp`."""
        return a

    def bottom(self, x: Ball) -> Ball:
        """`lower`, as points."""
        return points(self.lower(x), x.exponent)

    def top(self, x: Ball) -> Ball:
        """`upper`, as points."""
        return points(self.upper(x), x.exponent)

    def where(self, mask: Array, x: Ball, y: Ball) -> Ball:
        x, y = self.align(x, y)
        return Ball(
            np.where(mask, x.mid, y.mid), np.where(mask, x.rad, y.rad), x.exponent
        )

    def whole(self, values: np.ndarray) -> Ball:
        """Integers, exactly (below 2^53 in size)."""
        return Ball(
            np.asarray(np.asarray(values), self.dtype),
            np.zeros((1,) * np.ndim(values), self.dtype),
        )


def points(raw: Array, exponent: int = 0) -> Ball:
    """Raw numbers, times 2^exponent, as balls of radius zero."""
    kind = (
        np.float64 if np.iscomplexobj(raw) else np.asarray(raw).dtype
    )  # radii of core/double.py
    return Ball(raw, np.zeros((1,) * np.ndim(raw), kind), exponent)


def magnitude(mid: Array) -> Array:
    """|mid|; numpy's own is the length of a complex number, which here stands for the sum of its parts."""
    return np.where(mid < 0, -mid, mid) if np.iscomplexobj(mid) else np.abs(mid)


def aligned(ar: Arithmetic, *balls: Ball) -> list[Ball]:
    """The same balls with one exponent."""
    lowest = min(balls, key=lambda b: b.exponent)
    return [ar.align(b, lowest)[0] for b in balls]


def _parts(shape: tuple[int, ...]) -> list[tuple[slice, ...]]:
    """Slices of an array of that shape, along its first axis that isn't one, which fit a cache."""
    axis = next((i for i, size in enumerate(shape) if size > 1), None)
    if axis is None:
        return [()]
    step = max(1, CACHED * shape[axis] // math.prod(shape))
    return [
        (*(slice(None),) * axis, slice(i, i + step))
        for i in range(0, shape[axis], step)
    ]


def _part(
    a: np.ndarray, part: tuple[slice, ...], rank: int, leading: int
) -> np.ndarray:
    """That part of an operand that broadcasts to `rank` axes, after its leading ones."""
    axis = a.ndim - rank + len(part) - 1
    if not part or axis < leading or a.shape[axis] == 1:
        return a
    return a[(*(slice(None),) * axis, part[-1])]


def _spread(a: np.ndarray, term: str, summed: list[str], result: str) -> np.ndarray:
    """[batch.., term] to [summed.., batch.., result], with size one where `term` lacks a letter."""
    batch = a.ndim - len(term)
    place = {letter: batch + i for i, letter in enumerate(term)}
    first = [place[c] for c in summed]
    last = [place[c] for c in result if c in place]
    moved = a.transpose([*first, *range(batch), *last])
    sizes = [a.shape[place[c]] if c in place else 1 for c in result]
    return moved.reshape(*moved.shape[: len(summed) + batch], *sizes)
