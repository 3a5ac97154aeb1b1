"""Domains: products of token sets. They know their size, can be sampled, and name the inputs' symbols."""

import operator
from collections.abc import Callable, Iterable, Iterator, Sequence
from math import prod
from typing import Any

import numpy as np
import sympy

from mechverify.claims.errors import ClaimError
from mechverify.claims.showing import Shown


class Token(sympy.Symbol):
    """The integer that a token means. Not `integer=True`: what sympy knows, it rewrites, and of integers at times
    wrongly (see mechanisms.py)."""

    def __new__(cls, name: str) -> "Token":
        return super().__new__(cls, name, extended_real=True)

    def __getnewargs_ex__(self) -> tuple:
        return (self.name,), {}


def _left_as_written(evaluate: Callable) -> classmethod:
    """Of a Piecewise p of 2 and 4, sympy takes p % 6 for 0, and p / 6 for an integer; of 8*(sign(x) % 6) % 6 it makes
    2*(sign(x) % 6). The results don't tell that they are wrong, so nothing that speaks of a token, or of a Sum, is
    evaluated."""

    def unless_of_tokens(cls: type, *args: sympy.Expr) -> sympy.Expr | None:
        return (
            None
            if any(sympy.sympify(a).atoms(Token, sympy.Sum) for a in args)
            else evaluate(cls, *args)
        )

    return classmethod(unless_of_tokens)


for jumps in (sympy.Mod, sympy.floor, sympy.ceiling):
    evaluate: Any = jumps.eval
    setattr(jumps, "eval", _left_as_written(evaluate.__func__))  # noqa: B010 (its type is declared otherwise)


class Tokens(Shown):
    """`length` token symbols; position i takes ids from `allowed[i]`, and id v means the integer `values[v]`.

    Indexing and iteration give sympy symbols, so that `Max(*x)`, `sum(x)` and `x[-1]` read naturally.
    """

    def __init__(
        self, name: str, values: Sequence[int], allowed: Sequence[Iterable[int]]
    ):
        self.name = name
        self.values = tuple(values)
        self.allowed = tuple(tuple(sorted(set(a))) for a in allowed)
        for i, ids in enumerate(self.allowed):
            if not ids or ids[0] < 0 or ids[-1] >= len(self.values):
                want = f"give ids from 0 to {len(self.values) - 1}"
                raise ClaimError(
                    f"tokens {name!r}: position {i} allows {list(ids)[:4]}...; {want}"
                )
        self.symbols = tuple(Token(f"{name}{i}") for i in range(len(self.allowed)))

    def described(self) -> list[tuple[str, str]]:
        last = len(self) - 1
        names = f"{self.name}0 .. {self.name}{last}" if last else f"{self.name}0"
        return [
            ("tokens", f"{self.size:,} sequences {names}, {len(self.values)} tokens")
        ]

    def __len__(self) -> int:
        return len(self.symbols)

    def __iter__(self) -> Iterator[sympy.Symbol]:
        return iter(self.symbols)

    def __getitem__(self, index: int) -> sympy.Symbol:
        try:
            return self.symbols[index]
        except IndexError:
            raise ClaimError(
                f"{self.name}[{index}]: there are {len(self)} tokens, {self.name}[0] to [-1]"
            ) from None

    def _sympy_(self) -> sympy.Basic:
        raise ClaimError(
            f"{self.name} is a sequence of tokens, not a number: write Max(*{self.name}), sum({self.name})"
        )

    @property
    def members(self) -> tuple[tuple[tuple[int, ...], ...], ...]:
        """The products that it is made of (unions.py): itself."""
        return (self.allowed,)

    @property
    def given(self) -> list[Any]:
        """Conditions on the sequences of `allowed` that say which of them it has; none: all."""
        return []

    @property
    def size(self) -> int:
        """The exact number of sequences."""
        return prod(map(len, self.allowed))

    def sample(self, count: int, rng: np.random.Generator) -> np.ndarray:
        """Uniform random sequences of ids, int64 [count, length]."""
        return np.stack([rng.choice(np.array(ids), count) for ids in self.allowed], -1)


def tokens(
    name: str, *, length: int, vocab: int,
    values: Sequence[int] | None = None, allowed: Iterable[int] | Sequence[Iterable[int]] | None = None,
) -> Tokens:  # fmt: skip
    """All sequences of `length` token ids below `vocab`, as symbols `name`0, `name`1, ...

    `values[id]` is the integer that an id means in the mechanism (by default the id itself); `allowed`
    restricts the ids, at every position or position by position. Raises ClaimError on empty sets.
    """
    if length < 1 or vocab < 1:
        raise ClaimError(
            f"tokens {name!r}: length {length} and vocabulary {vocab} must be positive"
        )
    if values is not None and len(values) != vocab:
        raise ClaimError(
            f"tokens {name!r}: {len(values)} values for a vocabulary of {vocab}; give one an id"
        )
    listed = list(range(vocab)) if allowed is None else list(allowed)
    by_position = (
        listed if any(isinstance(a, Iterable) for a in listed) else [listed] * length
    )
    if len(by_position) != length:
        raise ClaimError(
            f"tokens {name!r}: `allowed` lists {len(by_position)} positions, the length is {length}"
        )
    ids = [_integers(name, "allowed", here) for here in by_position]
    return Tokens(
        name, range(vocab) if values is None else _integers(name, "values", values), ids
    )


def _integers(name: str, what: str, items) -> list[int]:
    try:
        return [operator.index(v) for v in items]
    except TypeError:
        raise ClaimError(
            f"tokens {name!r}: {what} holds {items!r:.60}, which are not integers"
        ) from None
