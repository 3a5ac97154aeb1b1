"""Mechanisms: from sympy to the kernel's integer operations.

A mechanism is compiled to rows [operation, operands, attribute] that refer back to earlier rows (see
mechverify.kernel.core.graph for the operations). What can't be compiled is named, all of it at once.

What the user typed is the definition (docs/language.md). Sympy rewrites an expression while it is built, by what it
knows of the symbols; tokens are symbols that it knows to be real and nothing else, so that what it does is an identity
(tests/claims/test_definition.py holds it to that). One thing that it does isn't: remainders of products of integers.
language.py's `Mod` is left as it is written; sympy's is refused where sympy knows integers inside.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from math import lcm, prod
from typing import Any

import sympy
from sympy.core.relational import Relational
from sympy.logic import boolalg

from mechverify.claims.domain import Token, Tokens
from mechverify.claims.errors import ClaimError
from mechverify.claims.language import Mod, count, kth_largest, lookup
from mechverify.claims.numbers import number as exact
from mechverify.graph.messages import short
from mechverify.kernel.core.errors import Rejected
from mechverify.kernel.core.graph import Graph
from mechverify.kernel.core.integers import LIMIT

Row = list  # [operation, [operand indices], attribute or None]
MOST_TERMS = 2**12  # of a Sum
UNKNOWN = "is not in the vocabulary"
SHORT = 2**16  # the largest denominator of a decimal among integers
DEEPEST = 10_000  # calls of one another
POWER = 16  # the largest exponent


@contextmanager
def deep() -> Iterator[None]:
    """For expressions of many levels: a fold over a hundred tokens nests as deep."""
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(max(before, DEEPEST))
    try:
        yield
    finally:
        sys.setrecursionlimit(before)


@deep()
def compile_mechanism(expression: sympy.Basic, domain: Tokens) -> list[Row]:
    """Rows whose last one is the mechanism; raises ClaimError that names every sub-expression at fault."""
    compiler = _Compiler(domain)
    return compiler.finish(expression, compiler.node(sympy.sympify(expression)))


@deep()
def compile_ratio(expression: sympy.Basic, domain: Tokens) -> tuple[list[Row], int]:
    """Rows of an integer, and a positive integer: the expression is the first divided by the second."""
    compiler = _Compiler(domain)
    numerator, denominator = compiler.ratio(expression)
    return compiler.finish(expression, numerator), denominator


@deep()
def compile_index(expression: sympy.Basic, domain: Tokens, size: int) -> list[Row]:
    """Rows of an integer from 0 to size - 1."""
    compiler = _Compiler(domain)
    return compiler.finish(expression, compiler.index(expression, size))


def integral(e: sympy.Basic, tokens: Tokens | None) -> bool:
    """Whether an expression is an integer, whatever the tokens."""
    match e:
        case sympy.Integer() | sympy.floor() | sympy.ceiling() | sympy.sign() | count():
            return True
        case sympy.Symbol():
            return tokens is not None and e in tokens.symbols
        case sympy.Pow():
            return e.exp.is_Integer and e.exp > 0 and integral(e.base, tokens)
        case sympy.Piecewise():
            return all(integral(value, tokens) for value, _ in operands(e))
        case lookup():
            return all(v.denominator == 1 for v in operands(e)[0].values)
        case (
            sympy.Add()
            | sympy.Mul()
            | sympy.Max()
            | sympy.Min()
            | sympy.Abs()
            | Mod()
            | sympy.Mod()
            | kth_largest()
        ):
            return all(integral(a, tokens) for a in e.args)
    return False


def unsafe(e: sympy.Basic) -> bool:
    """Whether sympy may have made this of another expression, of another value: a product with sympy's Mod of what it
    knows to be an integer, or such a Mod with another inside (what its rule for products of remainders returns). Mod of
    tokens is left as it is written (domain.py)."""
    if isinstance(e, sympy.Mod):
        return _rewritten(e) and len(e.atoms(sympy.Mod)) > 1
    negation = e.is_Mul and len(e.args) == 2 and e.args[0] == -1
    factors = operands(e) if e.is_Mul and not negation else [e] if e.is_Pow else []
    return any(_rewritten(operands(a)[0] if a.is_Pow else a) for a in factors)


def operands(e: sympy.Basic) -> tuple[Any, ...]:
    """Its arguments, which sympy declares as Basic: that has no arithmetic."""
    return e.args


def _rewritten(e: sympy.Basic) -> bool:
    return isinstance(e, sympy.Mod) and bool(e.is_integer) and not e.atoms(Token)


USE_OURS = "sympy rewrites Mod of integers, at times wrongly: use the one from mechverify (from mechverify import Mod)"


def written_out(e: sympy.Sum) -> list[sympy.Expr]:
    """The terms of a Sum; raises ClaimError."""
    if any(m.is_integer for m in e.function.atoms(sympy.Mod)):
        raise ClaimError(USE_OURS)
    *inner, (symbol, low, high) = e.limits
    if not (low.is_Integer and high.is_Integer and low <= high + 1):
        raise ClaimError("a Sum needs integer limits, the first not above the second")
    if high - low >= MOST_TERMS:
        raise ClaimError(f"a Sum of {high - low + 1} terms; it takes {MOST_TERMS}")
    terms = []
    for value in map(sympy.Integer, range(int(low), int(high) + 1)):
        if any(
            getattr(value, f"is_{fact}") != holds
            for fact, holds in symbol.assumptions0.items()
        ):
            raise ClaimError(
                f"a Sum over {symbol} to {value}, which isn't what the symbol was declared to be"
            )
        term = (sympy.Sum(e.function, *inner) if inner else e.function).subs(
            symbol, value
        )
        terms += written_out(term) if inner and isinstance(term, sympy.Sum) else [term]
        if len(terms) > MOST_TERMS:
            raise ClaimError(f"a Sum of more than {MOST_TERMS} terms")
    return terms


class _Compiler:
    """Builds the rows as nodes of a graph, which knows every operation's range.

    A rational sub-expression is a pair: an integer node, and a positive integer that divides it."""

    def __init__(self, domain: Tokens):
        self.domain = domain
        self.positions = {symbol: i for i, symbol in enumerate(domain)}
        self.graph = Graph(len(domain), domain.values)
        self.problems: list[str] = []
        self.clamped = False  # tokens are written as what they are between the ends of what is allowed there
        self._known: dict[tuple[sympy.Basic, bool], tuple[int, int]] = {}

    def finish(self, expression: sympy.Basic, root: int) -> list[Row]:
        if self.problems:
            found = "\n".join(f"  {p}" for p in dict.fromkeys(self.problems))
            found += f"\n  the vocabulary: {VOCABULARY}" if UNKNOWN in found else ""
            raise ClaimError(
                f"the mechanism {short(expression)} can't be compiled:\n{found}"
            )
        kept = self.graph.ancestors([root])
        place = {old: new for new, old in enumerate(kept)}
        nodes = [self.graph.nodes[n] for n in kept]
        return [
            [
                n.op,
                [place[a] for a in n.args],
                list(n.attr) if isinstance(n.attr, tuple) else n.attr,
            ]
            for n in nodes
        ]

    def emit(
        self, e: sympy.Basic, op: str, operands: list[int], attribute: Any = None
    ) -> int:
        try:
            return self.graph.add(op, *operands, attr=attribute)
        except Rejected as error:
            return self.fail(e, str(error))

    def constant(self, value: int) -> int:
        if abs(value) >= LIMIT:
            return self.fail(sympy.Integer(value), "an integer of more than 62 bits")
        return self.graph.add("integer", attr=value)

    def fail(self, expression: sympy.Basic, reason: str) -> int:
        self.problems.append(f"{short(expression)}: {reason}")
        return self.graph.add("integer", attr=0)

    def node(self, e: sympy.Basic) -> int:
        """Of an integer."""
        numerator, denominator = self.ratio(e)
        if denominator == 1:
            return numerator
        return self.fail(
            e,
            f"is no integer, but divided by {denominator}; floor(a/n) divides by a positive integer n",
        )

    def nodes(self, expressions: Any) -> list[int]:
        return [self.node(e) for e in expressions]

    def ratio(self, e: sympy.Basic) -> tuple[int, int]:
        key = e, self.clamped
        if key not in self._known:
            self._known[key] = self._ratio(e)
        return self._known[key]

    def common(self, expressions: Any) -> tuple[list[int], int]:
        """Numerators over one denominator."""
        pairs = [self.ratio(e) for e in expressions]
        whole = lcm(*(d for _, d in pairs))
        return [self.scaled(n, whole // d) for n, d in pairs], whole

    def scaled(self, n: int, factor: int) -> int:
        return (
            n
            if factor == 1
            else self.emit(sympy.Integer(factor), "product", [self.constant(factor), n])
        )

    def _ratio(self, e: sympy.Basic) -> tuple[int, int]:
        if unsafe(e):
            return self.fail(e, USE_OURS), 1
        match e:
            case sympy.Symbol():
                return self.token(e), 1
            case sympy.Rational() | sympy.Float():
                value = exact(e)
                if (
                    e.is_Float and value.denominator > SHORT
                ):  # 3/5 is Python's, and a little less than three fifths
                    near = value.limit_denominator(1_000)
                    meant = f"Rational({near.numerator}, {near.denominator})"
                    return self.fail(
                        e,
                        f"is a float64, not a short fraction: write {meant} if that is meant",
                    ), 1
                return self.constant(value.numerator), value.denominator
            case sympy.Add() | sympy.Max() | sympy.Min():
                nodes, whole = self.common(e.args)
                return self.emit(e, _NARY[type(e)], nodes), whole
            case sympy.Mul():
                return self.product(e)
            case sympy.Pow():
                return self.power(e)
            case sympy.Abs():
                x, whole = self.ratio(e.args[0])
                return self.emit(e, "max", [x, self.scaled(x, -1)]), whole
            case sympy.sign():
                x, zero = self.ratio(e.args[0])[0], self.constant(0)
                minus = self.scaled(self.emit(e, "lt", [x, zero]), -1)
                return self.emit(e, "sum", [self.emit(e, "lt", [zero, x]), minus]), 1
            case Mod() | sympy.Mod():
                return self.modulus(e)
            case sympy.floor():
                return self.emit(
                    e, "floordiv", [self.ratio(e.args[0])[0]], self.ratio(e.args[0])[1]
                ), 1
            case sympy.ceiling():
                x, whole = self.ratio(e.args[0])
                return self.scaled(
                    self.emit(e, "floordiv", [self.scaled(x, -1)], whole), -1
                ), 1
            case sympy.Piecewise():
                return self.piecewise(e)
            case kth_largest():
                k, *x = operands(e)
                if k > 8:
                    return self.fail(e, "k is at most 8"), 1
                nodes, whole = self.common(x)
                return self.emit(e, "kth_largest", nodes, int(k)), whole
            case count():
                (v, *x), _ = self.common(e.args)
                return (
                    self.emit(e, "sum", [self.emit(e, "eq", [a, v]) for a in x])
                    if x
                    else self.constant(0)
                ), 1
            case lookup():
                return self.lookup(e)
            case sympy.Sum():
                return self.sum(e)
            case boolalg.Boolean():
                return self.truth(e), 1
        return self.fail(e, UNKNOWN), 1

    def token(self, e: sympy.Symbol) -> int:
        if e not in self.positions:
            return self.fail(
                e,
                f"is not a token of this claim (tokens: {short(', '.join(map(str, self.positions)))})",
            )
        position = self.positions[e]
        n = self.emit(e, "value", [], position)
        if not self.clamped:
            return n
        here = [self.domain.values[i] for i in self.domain.allowed[position]]
        low, high = self.graph.nodes[n].span
        n = self.emit(e, "max", [n, self.constant(min(here))]) if low < min(here) else n
        return (
            self.emit(e, "min", [n, self.constant(max(here))])
            if max(here) < high
            else n
        )

    def product(self, e: sympy.Mul) -> tuple[int, int]:
        pairs = [self.ratio(a) for a in e.args]
        below = prod(d for _, d in pairs)
        one = self.constant(1)
        nodes = [n for n, _ in pairs if n != one] or [one]
        return (self.emit(e, "product", nodes) if len(nodes) > 1 else nodes[0]), below

    def power(self, e: sympy.Pow) -> tuple[int, int]:
        base, exponent = e.args
        if exponent.is_Integer and 1 <= exponent <= POWER:
            x, whole = self.ratio(base)
            return self.emit(e, "product", [x] * int(exponent)), whole ** int(exponent)
        if base == -1:
            odd = self.emit(e, "mod", [self.node(exponent)], 2)
            return self.emit(e, "sum", [self.constant(1), self.scaled(odd, -2)]), 1
        if exponent.is_negative:
            return self.fail(
                e, "is a division; floor(a/n) divides by a positive integer n"
            ), 1
        return self.fail(
            e,
            f"powers have an exponent from 1 to {POWER}; lookup([1, 2, 4, ...], i) is 2**i",
        ), 1

    def modulus(self, e: sympy.Basic) -> tuple[int, int]:
        x, m = operands(e)
        if not (m.is_Rational and m > 0):
            return self.fail(e, "the modulus must be a positive integer"), 1
        n, whole = self.ratio(x)
        number = exact(m)
        return self.emit(
            e, "mod", [self.scaled(n, number.denominator)], number.numerator * whole
        ), (whole * number.denominator)

    def piecewise(self, e: sympy.Piecewise) -> tuple[int, int]:
        pieces = operands(e)
        if pieces[-1].cond != sympy.true:
            return self.fail(
                e,
                "end a Piecewise with (value, True), so that it is defined everywhere",
            ), 1
        (*values, result), whole = self.common(value for value, _ in pieces)
        conditions = [self.truth(condition) for _, condition in pieces[:-1]]
        for value, condition in reversed(list(zip(values, conditions, strict=True))):
            result = self.emit(e, "where", [condition, value, result])
        return result, whole

    def lookup(self, e: lookup) -> tuple[int, int]:
        table, index = operands(e)
        whole = lcm(*(v.denominator for v in table.values))
        numerators = tuple(int(v * whole) for v in table.values)
        if max(map(abs, numerators)) >= LIMIT:
            return self.fail(e, "a table of more than 62 bits"), 1
        return self.emit(
            e, "lookup", [self.index(index, len(numerators))], numerators
        ), whole

    def index(self, e: sympy.Basic, size: int) -> int:
        """An integer from 0 to size - 1, for all tokens; or, by an identity on the allowed ones, for these."""
        n = self.node(e)
        if not self._inside(n, size) and not self.clamped:
            self.clamped = True
            n = self.node(e)
            self.clamped = False
        if self._inside(n, size):
            return n
        low, high = self.graph.nodes[n].span
        return self.fail(
            e,
            f"the index reaches from {low} to {high}, the axis has {size} entries (0 to {size - 1})",
        )

    def _inside(self, n: int, size: int) -> bool:
        low, high = self.graph.nodes[n].span
        return low >= 0 and high < size

    def sum(self, e: sympy.Sum) -> tuple[int, int]:
        try:
            nodes, whole = self.common([sympy.Integer(0), *written_out(e)])
        except ClaimError as error:
            return self.fail(e, str(error)), 1
        return self.emit(e, "sum", nodes), whole

    def truth(self, e: sympy.Basic) -> int:
        """Of a condition: 0 or 1."""
        match e:
            case boolalg.BooleanTrue() | boolalg.BooleanFalse():
                return self.constant(int(bool(e)))
            case boolalg.And() | boolalg.Or():
                return self.emit(e, _NARY[type(e)], [self.truth(a) for a in e.args])
            case boolalg.Not():
                return self.negated(e, self.truth(e.args[0]))
            case boolalg.Xor():
                return self.emit(
                    e, "mod", [self.emit(e, "sum", [self.truth(a) for a in e.args])], 2
                )
            case boolalg.Implies():
                first, second = (self.truth(a) for a in e.args)
                return self.emit(e, "or", [self.negated(e, first), second])
            case boolalg.Equivalent():
                parts = [self.truth(a) for a in e.args]
                return self.emit(
                    e, "eq", [self.emit(e, "min", parts), self.emit(e, "max", parts)]
                )
            case boolalg.ITE():
                return self.emit(e, "where", [self.truth(a) for a in e.args])
            case Relational():
                return self.relation(e)
        return self.fail(e, "is no condition")

    def negated(self, e: sympy.Basic, n: int) -> int:
        return self.emit(e, "not", [n])

    def relation(self, e: Relational) -> int:
        """Over the common denominator, which is positive."""
        (left, right), _ = self.common(e.args)
        match e:
            case sympy.Eq():
                return self.emit(e, "eq", [left, right])
            case sympy.Ne():
                return self.negated(e, self.emit(e, "eq", [left, right]))
            case sympy.Lt() | sympy.Le():
                return self.emit(
                    e, "lt" if isinstance(e, sympy.Lt) else "le", [left, right]
                )
            case sympy.Gt() | sympy.Ge():
                return self.emit(
                    e, "lt" if isinstance(e, sympy.Gt) else "le", [right, left]
                )
        return self.fail(e, "is no condition")


_NARY = {
    sympy.Add: "sum",
    sympy.Max: "max",
    sympy.Min: "min",
    boolalg.And: "and",
    boolalg.Or: "or",
}
VOCABULARY = (
    "+, -, *, powers, Max, Min, kth_largest, count, lookup, Mod, floor(a/n), ceiling, Abs, sign, Eq, Ne, <, <=, >, >=, "
    "And, Or, Not, Implies, Piecewise, Sum, numbers, tokens"
)
