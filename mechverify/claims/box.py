"""Domains of real inputs: boxes and L-infinity balls, and what of a captured model's tokens is free."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import numpy as np
import sympy

from mechverify.claims.domain import Tokens
from mechverify.claims.errors import ClaimError


@dataclass(frozen=True)
class Box:
    """One array of corners a real input, float64 and without batch axis; `tokens` if the model reads some too.

    `x[i, j]` is the symbol of an entry, for conditions; of several inputs, `x[k, i, j]` that of input k."""

    low: tuple[np.ndarray, ...]
    high: tuple[np.ndarray, ...]
    tokens: Tokens | None = None
    name: str = "x"

    def with_tokens(self, tokens: Tokens) -> "Box":
        """The product of this box and a product of token sets."""
        return replace(self, tokens=tokens)

    def symbols(self) -> list[list[sympy.Symbol]]:
        """Of each input's entries, in row-major order."""
        several = len(self.low) > 1
        return [
            [_symbol(self.name, (k, *index) if several else index) for index in np.ndindex(a.shape)]
            for k, a in enumerate(self.low)
        ]

    def __getitem__(self, index: int | tuple[int, ...]) -> sympy.Symbol:
        whole = index if isinstance(index, tuple) else (index,)
        which, entry = (whole[0], whole[1:]) if len(self.low) > 1 else (0, whole)
        try:
            inside = np.arange(self.low[which].size).reshape(self.low[which].shape)[entry]
        except IndexError:
            inside = None
        if np.ndim(inside) > 0 or inside is None:
            shapes = [a.shape for a in self.low]
            raise ClaimError(f"{self.name}{list(whole)}: the inputs have shapes {shapes}; index one entry")
        return self.symbols()[which][int(inside)]


def _symbol(name: str, index: tuple[int, ...]) -> sympy.Symbol:
    return sympy.Symbol(f"{name}[{', '.join(map(str, index))}]", real=True)


def box(low: Any, high: Any, *, name: str = "x") -> Box:
    """Inputs between `low` and `high`, arrays of the input's shape (no batch axis); lists of arrays for several
    inputs. Taken exactly. Raises ClaimError if a corner isn't finite, or `low` exceeds `high`."""
    lows, highs = _arrays(low), _arrays(high)
    if len(lows) != len(highs):
        raise ClaimError(f"box: {len(lows)} lower and {len(highs)} upper corners")
    for a, b in zip(lows, highs, strict=True):
        if a.shape != b.shape or not np.isfinite(a).all() or not np.isfinite(b).all() or not (a <= b).all():
            raise ClaimError(f"box: corners of shapes {a.shape} and {b.shape} must be finite, alike, and low <= high")
    return Box(lows, highs, name=name)


def ball(centre: Any, radius: float, *, name: str = "x") -> Box:
    """The L-infinity ball of that radius around `centre` (an array, or a list of them, without batch axis); corners
    that are no float64 are rounded outwards."""
    centres = _arrays(centre)
    if not np.isfinite(radius) or radius < 0 or not all(np.isfinite(c).all() for c in centres):
        raise ClaimError(f"ball: radius {radius!r} and centre must be finite, the radius not negative")
    return box([_corner(c, -radius) for c in centres], [_corner(c, radius) for c in centres], name=name)


def _corner(centre: np.ndarray, step: float) -> np.ndarray:
    near = centre + step
    beyond = np.array([_short(n, c, step) for n, c in zip(near.ravel(), centre.ravel(), strict=True)], bool)
    return np.where(beyond.reshape(near.shape), np.nextafter(near, np.inf if step > 0 else -np.inf), near)


def _short(near: float, centre: float, step: float) -> bool:
    exact = Fraction(float(centre)) + Fraction(float(step))
    return Fraction(float(near)) < exact if step > 0 else Fraction(float(near)) > exact


def _arrays(value: Any) -> tuple[np.ndarray, ...]:
    items = value if isinstance(value, list | tuple) and len(value) and np.ndim(_numbers(value[0])) > 0 else [value]
    if isinstance(value, list | tuple) and items is value and len({np.shape(_numbers(v)) for v in value}) == 1:
        items = [value] if not hasattr(value[0], "shape") else value  # nested lists are one array
    return tuple(_numbers(v).astype(np.float64) for v in items)


def _numbers(value: Any) -> np.ndarray:
    if hasattr(value, "detach"):
        value = value.detach().cpu().double().numpy()
    try:
        return np.asarray(value, np.float64)
    except (TypeError, ValueError):
        raise ClaimError(f"box: {value!r:.60} is not an array of numbers") from None


def corners(over: Box | Tokens | Sequence) -> tuple[Box, Tokens | None]:
    """The box (without inputs for a domain of tokens alone), and the tokens."""
    if isinstance(over, Tokens):
        return Box((), ()), over
    if isinstance(over, Box):
        return over, over.tokens
    raise ClaimError("over= needs box(...), ball(...) or tokens(...)")
