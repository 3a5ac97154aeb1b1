"""What a claim may say beside sympy's own words: remainders, order statistics, counts, Dyck words, tables.

mechanisms.py and expressions.py compile them.
"""

from fractions import Fraction
from itertools import accumulate, combinations
from typing import Any

import sympy
from sympy.logic import boolalg

from mechverify.claims.errors import ClaimError
from mechverify.claims.numbers import number as exact
from mechverify.graph.messages import short
from mechverify.kernel.core.integers import LONGEST


class Mod(sympy.Function):
    """Mod(a, n): a - n*floor(a/n), as Python's a % n, for a number n > 0. Of numbers it is a number; nothing else is
    rewritten (sympy's Mod makes 3*Mod(x, 5) of Mod(3*Mod(x, 5), 5), for integers x)."""

    is_commutative = is_extended_real = True

    @classmethod
    def eval(cls, a, n):  # pyright: ignore[reportIncompatibleMethodOverride] (sympy counts these)
        if n.is_number and n.is_positive is False:
            raise ClaimError(f"Mod({short(a)}, {n}): the modulus must be positive")
        if a.is_Rational and n.is_Rational:
            return a - n * sympy.floor(a / n)
        return None


class kth_largest(sympy.Function):
    """kth_largest(k, *x): the k-th largest of the x, counted with repetition; k = 1 is Max(*x)."""

    is_commutative = is_extended_real = True

    @classmethod
    def eval(cls, k, *x):  # pyright: ignore[reportIncompatibleMethodOverride] (sympy counts these)
        if not (k.is_Integer and 1 <= k <= len(x)):
            raise ClaimError(f"kth_largest needs k from 1 to {len(x)}, not {short(k)}")
        if all(a.is_Rational for a in x):
            return sorted(x, reverse=True)[int(k) - 1]
        return None


class count(sympy.Function):
    """count(v, *x): how many of the x equal v."""

    is_commutative = is_extended_real = True

    @classmethod
    def eval(cls, v, *x):  # pyright: ignore[reportIncompatibleMethodOverride] (sympy counts these)
        if all(a.is_Rational for a in (v, *x)):
            return sympy.Integer(sum(a == v for a in x))
        return None


def distinct(*x: Any) -> Any:
    """No two of the x are equal."""
    unequal: list[Any] = [sympy.Ne(a, b) for a, b in combinations(x, 2)]
    return boolalg.And(*unequal)


def dyck(*x: Any) -> Any:
    """The x, 1 for an opening bracket and -1 for a closing one, are a Dyck word: each bracket has its partner."""
    levels: list[Any] = [*accumulate(x)]
    conditions: list[Any] = [
        sympy.Eq(levels[-1], 0),
        *(level >= 0 for level in levels[:-1]),
    ]
    return boolalg.And(*conditions)


class Table(sympy.Atom):
    """The numbers of a lookup, exact: a leaf of the expression, so that nothing walks through them."""

    values: tuple[Fraction, ...]

    def __new__(cls, values: Any) -> "Table":
        self = super().__new__(cls)
        try:
            self.values = tuple(
                exact(v)
                for v in (values.tolist() if hasattr(values, "tolist") else values)
            )
        except (TypeError, ValueError, OverflowError):
            raise ClaimError(
                f"lookup takes a list of numbers, not {short(values)}"
            ) from None
        if not 1 <= len(self.values) <= LONGEST:
            raise ClaimError(
                f"lookup: a table of {len(self.values)} entries; it takes 1 to {LONGEST}"
            )
        return self

    def _hashable_content(self) -> tuple:
        return (self.values,)

    def _sympystr(self, printer: Any) -> str:
        shown = ", ".join(map(str, self.values[:6]))
        return (
            f"[{shown}]"
            if len(self.values) <= 6
            else f"[{shown}, ... {len(self.values)} entries]"
        )


class lookup(sympy.Function):
    """lookup(values, i): entry i of a list of numbers, i an integer expression of tokens, counted from 0."""

    is_commutative = is_extended_real = True

    def __new__(cls, values: Any, index: Any) -> Any:
        table = values if isinstance(values, Table) else Table(values)
        return super().__new__(cls, table, sympy.sympify(index), evaluate=False)
