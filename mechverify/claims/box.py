"""Domains of real inputs: boxes and L-infinity balls, and what of a captured model's tokens is free."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np
import sympy

from mechverify.claims.domain import Tokens
from mechverify.claims.errors import ClaimError
from mechverify.claims.numbers import array, number
from mechverify.claims.showing import Shown
from mechverify.graph.messages import short
from mechverify.kernel.core.neighbours import float_above, float_below


class Normal(NamedTuple):
    """A Gaussian, taken exactly; between a box's corners, what it says there."""

    mean: Fraction
    deviation: Fraction


def normal(mean: Any = 0, deviation: Any = 1) -> Normal:
    """Raises ClaimError if a number isn't finite, or the deviation isn't positive."""
    try:
        found = Normal(number(mean), number(deviation))
    except ValueError as error:
        raise ClaimError(f"normal: {error}") from None
    if found.deviation <= 0:
        raise ClaimError(f"normal: a deviation of {deviation} is not positive")
    return found


uniform = None  # the distribution of a coordinate of which nothing else is said


@dataclass(frozen=True, repr=False)
class Box(Shown):
    """One array of corners a real input, float64 and without batch axis; `tokens` if the model reads some too. `inner`
    are the corners of the largest float64 box inside the user's, where corners had to be rounded outwards: a
    counterexample must lie there, and there is none where these corners have passed each other.

    `distribution` has one for each entry of all inputs, as shares weigh them (none at all: uniform). `boxes`: of a
    union (unions.py), which this is the box around; without tokens.

    `x[i, j]` is the symbol of an entry, for conditions; of several inputs, `x[k, i, j]` that of input k."""

    low: tuple[np.ndarray, ...]
    high: tuple[np.ndarray, ...]
    tokens: Tokens | None = None
    name: str = "x"
    inner: tuple[tuple[np.ndarray, ...], tuple[np.ndarray, ...]] | None = None
    distribution: tuple["Normal | None", ...] = ()
    boxes: tuple["Box", ...] = ()

    def described(self) -> list[tuple[str, str]]:
        of = f"union of {len(self.boxes)} boxes, the first one" if self.boxes else "box"
        pairs = zip(self.each[0].low, self.each[0].high, strict=True)
        said = [
            f"{of} {low.shape} from {low.tolist()} to {high.tolist()}"
            for low, high in pairs
        ]
        reals = [(f"box {self.name}", short(text)) for text in said]
        return [*reals, *(() if self.tokens is None else self.tokens.described())]

    @property
    def each(self) -> "tuple[Box, ...]":
        """The boxes of a union, or this one."""
        return self.boxes or (self,)

    @property
    def corners(self) -> tuple[np.ndarray, np.ndarray]:
        """Of each box, of all inputs one after another [boxes, coordinates]."""
        return _flat([(b.low, b.high) for b in self.each])

    @property
    def own(self) -> tuple[np.ndarray, np.ndarray]:
        """The same, between which a float64 point is one of the user's."""
        return _flat([b.inner or (b.low, b.high) for b in self.each])

    def with_tokens(self, tokens: Tokens) -> "Box":
        """The product of this box and a product of token sets."""
        return replace(self, tokens=tokens)

    def symbols(self) -> list[list[sympy.Symbol]]:
        """Of each input's entries, in row-major order."""
        several = len(self.low) > 1
        return [
            [
                _symbol(self.name, (k, *index) if several else index)
                for index in np.ndindex(a.shape)
            ]
            for k, a in enumerate(self.low)
        ]

    def __getitem__(self, index: int | tuple[int, ...]) -> sympy.Symbol:
        whole = index if isinstance(index, tuple) else (index,)
        which, entry = (whole[0], whole[1:]) if len(self.low) > 1 else (0, whole)
        try:
            inside = np.arange(self.low[which].size).reshape(self.low[which].shape)[
                entry
            ]
        except IndexError:
            inside = None
        if inside is None or np.ndim(inside) > 0:
            shapes = [a.shape for a in self.low]
            raise ClaimError(
                f"{self.name}{list(whole)}: the inputs have shapes {shapes}; index one entry"
            )
        return self.symbols()[which][int(inside)]


def _flat(boxes: list[tuple]) -> tuple[np.ndarray, np.ndarray]:
    low, high = (
        np.stack(
            [np.concatenate([np.zeros(0), *map(np.ravel, ends[k])]) for ends in boxes]
        )
        for k in (0, 1)
    )
    return low, high


def _symbol(name: str, index: tuple[int, ...]) -> sympy.Symbol:
    return sympy.Symbol(f"{name}[{', '.join(map(str, index))}]", real=True)


def box(low: Any, high: Any, *, name: str = "x", distribution: Any = uniform) -> Box:
    """Inputs between `low` and `high`, arrays of the input's shape (no batch axis); lists of arrays for several
    inputs. Taken exactly; corners that are no float64 are rounded outwards, so that what is proved of the box is true
    of yours. `distribution`, for shares: `uniform` or `normal(mean, deviation)` of every coordinate, independently, or
    a list with one for each, in order. Raises ClaimError if a corner isn't finite, or `low` exceeds `high`."""
    lows, highs = _arrays("box", low), _arrays("box", high)
    if len(lows) != len(highs):
        raise ClaimError(f"box: {len(lows)} lower and {len(highs)} upper corners")
    for a, b in zip(lows, highs, strict=True):
        if a.shape != b.shape or not (a <= b).all():
            raise ClaimError(
                f"box: corners of shapes {a.shape} and {b.shape} must be alike, and low <= high"
            )
    outer = [_rounded(lows, float_below), _rounded(highs, float_above)]
    inner = [_rounded(lows, float_above), _rounded(highs, float_below)]
    if not all(np.isfinite(a).all() for corners in outer for a in corners):
        raise ClaimError("box: a corner lies beyond the largest float64")
    ends = zip((*outer[0], *outer[1]), (*inner[0], *inner[1]), strict=True)
    exact = all(np.array_equal(a, b) for a, b in ends)
    each = _distributions(distribution, sum(a.size for a in lows))
    return Box(
        outer[0],
        outer[1],
        name=name,
        inner=None if exact else (inner[0], inner[1]),
        distribution=each,
    )


def _distributions(given: Any, size: int) -> tuple[Normal | None, ...]:
    each = [given] * size if given is uniform or isinstance(given, Normal) else given
    known = isinstance(each, list | tuple) and all(
        d is uniform or isinstance(d, Normal) for d in each
    )
    if not known or len(each) != size:
        what = f"uniform, normal(mean, deviation), or a list with one of them for each of {size} coordinates"
        raise ClaimError(f"box: distribution= takes {what}")
    return tuple(each)


def ball(centre: Any, radius: Any, *, name: str = "x") -> Box:
    """The L-infinity ball of that radius around `centre` (an array, or a list of them, without batch axis), a box whose
    corners are taken exactly, and rounded as box() does it."""
    centres = _arrays("ball", centre)
    try:
        radius = number(radius)
    except ValueError as error:
        raise ClaimError(f"ball: radius {error}") from None
    if radius < 0:
        raise ClaimError(f"ball: radius {radius}: it must be finite and not negative")
    exact = [_each(Fraction, c, object) for c in centres]
    return box([c - radius for c in exact], [c + radius for c in exact], name=name)


def _rounded(
    corners: tuple[np.ndarray, ...], how: Callable[[Fraction], float]
) -> tuple[np.ndarray, ...]:
    return tuple(
        a if a.dtype == np.float64 else _each(how, a, np.float64) for a in corners
    )


def _each(f: Callable, a: np.ndarray, dtype: Any) -> np.ndarray:
    result = np.empty(a.shape, dtype)
    result.ravel()[:] = [f(v) for v in a.ravel().tolist()]
    return result


def _arrays(what: str, value: Any) -> tuple[np.ndarray, ...]:
    """One input's array, or those of several: a list of arrays, or of nested lists of different shapes."""
    try:
        parts = [array(v) for v in value] if isinstance(value, list | tuple) else []
        several = (
            parts
            and parts[0].ndim
            and (hasattr(value[0], "shape") or len({p.shape for p in parts}) > 1)
        )
        return tuple(parts) if several else (array(value),)
    except ValueError as error:
        raise ClaimError(f"{what}: {error}") from None


def corners(over: Box | Tokens | Sequence) -> tuple[Box, Tokens | None]:
    """The box (without inputs for a domain of tokens alone), and the tokens."""
    if isinstance(over, Tokens):
        return Box((), ()), over
    if isinstance(over, Box):
        return over, over.tokens
    raise ClaimError("over= needs box(...), ball(...) or tokens(...)")
