"""From sympy to real nodes of a model's graph: mechanisms beside the model's own values, and conditions on them."""

from collections.abc import Iterable
from fractions import Fraction
from functools import reduce
from itertools import pairwise
from math import prod
from typing import Any

import sympy
from sympy.core.relational import Relational
from sympy.logic import boolalg

from mechverify.claims.box import Box
from mechverify.claims.domain import Tokens
from mechverify.claims.errors import ClaimError
from mechverify.claims.language import Mod, count, kth_largest, lookup
from mechverify.claims.mechanisms import (
    POWER,
    UNKNOWN,
    USE_OURS,
    compile_index,
    compile_ratio,
    deep,
    integral,
    operands,
    unsafe,
    written_out,
)
from mechverify.claims.model import Entry
from mechverify.claims.numbers import difference
from mechverify.claims.numbers import number as exact
from mechverify.graph.messages import short
from mechverify.kernel.core.errors import Rejected
from mechverify.kernel.core.graph import Graph
from mechverify.kernel.core.neighbours import float_below

FUNCTIONS = {sympy.exp: "exp", sympy.log: "log", sympy.sin: "sin", sympy.cos: "cos", sympy.tanh: "tanh",
             sympy.erf: "erf", sympy.atan: "atan", sympy.Abs: "abs"}  # fmt: skip
INTEGERS = (
    Mod,
    sympy.Mod,
    sympy.floor,
    sympy.ceiling,
    sympy.sign,
    count,
    boolalg.Boolean,
)  # of tokens alone
VOCABULARY = (
    ">=, <=, Eq, And, Or, +, -, *, /, powers, sqrt, pi, Max, Min, kth_largest, "
    + ", ".join(f.__name__ for f in FUNCTIONS)
    + ", Sum, lookup, numbers, the domain's inputs, entries of sites; and of tokens <, >, Ne, Not, Implies, Mod, "
    "floor, sign, count, Piecewise"
)
OPERANDS = 2**12  # of one operation
COMPARISONS = 2**9  # of a kth_largest of real values
JUMPS = "of a real value it jumps; bound the value itself, and tell its pieces apart with given="
BIG = "holds integers of more than 53 bits, which no real value does: compare tokens with tokens, or take Mod first"
MIXED = "some of its relations hold on their boundaries and some don't: write all of them with >, or all with >="
STRICT = "is strict, and a bound holds on the boundary as well: write <= or >="


class margin(sympy.Function):
    """A number that is at least zero where a condition holds, and there alone."""

    is_commutative = is_extended_real = True

    def __new__(cls, condition: sympy.Basic) -> Any:
        return super().__new__(cls, condition, evaluate=False)


class Expressions:
    """Compiles a claim's expressions into one graph. What can't be compiled is remembered, and raised at the end."""

    def __init__(
        self, graph: Graph, sites: dict[str, int], box: Box, tokens: Tokens | None
    ):
        self._compiler = _Compiler(graph, sites, box, tokens)

    @deep()
    def condition(self, condition: sympy.Basic) -> tuple[int, bool]:
        """A node of one entry, and whether the condition holds where it is more than zero (as `a > b` does) or where it
        is at least zero (as `a >= b`)."""
        compiler = self._compiler
        kinds = compiler.boundaries(condition)
        if len(kinds) > 1:
            compiler.fail(condition, MIXED)
        compiler.strict = kinds == {True}
        return compiler.margin(condition), compiler.strict

    @deep()
    def values(self, expressions: Iterable) -> list[int]:
        """Nodes of one entry each."""
        return [self._compiler.node(e) for e in map(sympy.sympify, expressions)]

    @deep()
    def conditions(self, conditions: Iterable) -> list[int]:
        """Nodes of one entry: `a >= b` holds where node a - b (plus 1/2, if it is an integer) isn't negative."""
        found = []
        for condition in conditions:
            for low, high in inequalities(
                sympy.sympify(condition), self._compiler.tokens
            ):
                lead = difference(high, low)
                half = (
                    sympy.Rational(1, 2) if integral(lead, self._compiler.tokens) else 0
                )  # its sign is certain
                found.append(self._compiler.node(lead + half))
        return found

    def finish(self, where: str = "") -> None:
        """Raises ClaimError that names every sub-expression at fault, `where` the claim is made."""
        if problems := dict.fromkeys(self._compiler.problems):
            listed = "\n".join(f"  {p}" for p in problems)
            listed += f"\n  the vocabulary: {VOCABULARY}" if UNKNOWN in listed else ""
            raise ClaimError(
                f"{where}a claim's expressions can't be compiled:\n{listed}"
            )


def inequalities(
    condition: sympy.Basic, tokens: Tokens | None
) -> list[tuple[sympy.Expr, sympy.Expr]]:
    """Pairs (a, b) with a <= b, which together say the same."""
    match condition:
        case boolalg.And():
            return [
                pair for part in condition.args for pair in inequalities(part, tokens)
            ]
        case sympy.Le():
            low, high = operands(condition)
            return [(low, high)]
        case sympy.Ge():
            high, low = operands(condition)
            return [(low, high)]
        case sympy.Eq():
            low, high = operands(condition)
            return [(low, high), (high, low)]
        case sympy.Lt() | sympy.Gt():
            low, high = operands(condition)[
                :: 1 if isinstance(condition, sympy.Lt) else -1
            ]
            if integral(difference(high, low), tokens):
                return [(low + 1, high)]
    return [(sympy.Integer(0), margin(condition))]


class _Compiler:
    def __init__(
        self, graph: Graph, sites: dict[str, int], box: Box, tokens: Tokens | None
    ):
        self.graph, self.sites, self.box, self.tokens = graph, sites, box, tokens
        self.problems: list[str] = []
        self.strict = False  # a margin is more than zero where its condition holds
        self.inputs = {
            s: (k, i)
            for k, block in enumerate(box.symbols())
            for i, s in enumerate(block)
        }

    def fail(self, e: sympy.Basic, reason: str) -> int:
        self.problems.append(f"{short(e)}: {reason}")
        return self.number(Fraction(0))

    def number(self, value: Fraction) -> int:
        """Exactly: a float64, a sum of some, or a quotient of such numbers, times a power of two."""
        near = float(value) if abs(value) < 2**1023 else 0.0
        if Fraction(near) == value:
            return self.graph.add("constant", attr=((), (near,)))
        if near and not value.denominator & (value.denominator - 1):  # in binary
            return self.graph.add(
                "add", self.number(Fraction(near)), self.number(value - Fraction(near))
            )
        top, bottom = (
            Fraction(v, 2 ** v.bit_length())
            for v in (value.numerator, value.denominator)
        )
        power = value.numerator.bit_length() - value.denominator.bit_length()
        if abs(power) > 1022 or max(top.denominator, bottom.denominator) > 2**1022:
            return self.fail(
                sympy.Rational(value.numerator, value.denominator),
                "has too many digits",
            )
        if max(abs(value.numerator), value.denominator) < 2**1023:
            top, bottom, power = (
                Fraction(value.numerator),
                Fraction(value.denominator),
                0,
            )
        quotient = self.graph.add(
            "mul", self.number(top), self.graph.add("reciprocal", self.number(bottom))
        )
        return (
            self.graph.add("mul", self.number(Fraction(2) ** power), quotient)
            if power
            else quotient
        )

    def folded(self, op: str, nodes: list[int]) -> int:
        result, *rest = nodes
        for n in rest:
            result = self.graph.add(op, result, n)
        return result

    def larger(self, x: int, y: int) -> int:
        return self.graph.add(
            "add", y, self.graph.add("relu", self.graph.add("sub", x, y))
        )

    def smaller(self, x: int, y: int) -> int:
        return self.graph.add(
            "sub", x, self.graph.add("relu", self.graph.add("sub", x, y))
        )

    def stacked(self, nodes: list[int]) -> int:
        """Numbers as one array."""
        return self.graph.add(
            "concat",
            *(self.graph.add("view", n, attr=((1,), 0, (0,))) for n in nodes),
            attr=0,
        )

    def rows(self, rows: list) -> int:
        ids: list[int] = []
        for op, args, attribute in rows:
            attr = tuple(attribute) if isinstance(attribute, list) else attribute
            ids.append(self.graph.add(op, *(ids[a] for a in args), attr=attr))
        return ids[-1]

    def of_tokens(self, e: sympy.Basic) -> bool:
        """Whether an expression speaks of tokens alone."""
        free = e.free_symbols
        return (
            self.tokens is not None
            and free <= set(self.tokens.symbols)
            and not e.atoms(Entry)
        )

    def integer(self, e: sympy.Basic) -> int:
        """An integer expression of tokens, divided by an integer, as a real node."""
        if self.tokens is None:
            return self.fail(e, "needs tokens, and the domain has none")
        if not self.of_tokens(e):
            return self.fail(e, "needs an integer expression of tokens")
        try:
            rows, below = compile_ratio(e, self.tokens)
        except ClaimError as error:
            return self.fail(e, _inner(error))
        try:
            number = self.graph.add("number", self.rows(rows))
        except Rejected:
            return self.fail(e, BIG)
        return (
            number
            if below == 1
            else self.graph.add("mul", number, self.number(Fraction(1, below)))
        )

    def picked(self, e: sympy.Basic, array: int, index: sympy.Basic) -> int:
        """A slice along the first axis, by an integer expression of tokens."""
        if self.tokens is None:
            return self.fail(index, "needs tokens, and the domain has none")
        try:
            rows = compile_index(index, self.tokens, self.graph.nodes[array].shape[0])
        except ClaimError as error:
            return self.fail(e, _inner(error).removeprefix(f"{short(index)}: "))
        return self.graph.add("pick", array, self.rows(rows))

    def entry(self, e: Entry) -> int:
        """An entry of a site; indices that are integer expressions of tokens are looked up."""
        node = self.sites[e.site]
        if self.graph.nodes[node].kind != "real":
            return self.fail(e, "holds token ids; the tokens are the domain's")
        shape = self.graph.nodes[node].shape
        if len(e.index) != len(shape):
            return self.fail(e, f"the site has shape {shape}")
        kept, offset, steps = [], 0, []
        for axis, (i, size) in enumerate(zip(e.index, shape, strict=True)):
            step = prod(shape[axis + 1 :])
            if not i.is_Integer:
                kept.append(size)
                steps.append(step)
            elif -size <= i < size:
                offset += int(i) % size * step
            else:
                return self.fail(e, f"the site has shape {shape}")
        if tuple(kept) != shape:
            node = self.graph.add(
                "view", node, attr=(tuple(kept), offset, tuple(steps))
            )
        for index in (i for i in e.index if not i.is_Integer):
            node = self.picked(e, node, index)
        return node

    def node(self, e: sympy.Basic) -> int:
        if unsafe(e):
            return self.fail(e, USE_OURS)
        match e:
            case Entry():
                return self.entry(e)
            case sympy.Symbol():
                return self.symbol(e)
            case lookup():
                return self.lookup(e)
            case margin():
                return self.margin(e.args[0])
            case sympy.Sum():
                try:
                    return self.folded(
                        "add",
                        [self.node(t) for t in (sympy.Integer(0), *written_out(e))],
                    )
                except ClaimError as error:
                    return self.fail(e, str(error))
            case sympy.core.numbers.Exp1():
                return self.graph.add("exp", self.number(Fraction(1)))
            case sympy.core.numbers.Pi():
                return self.graph.add("pi")
            case sympy.Rational() | sympy.Float():
                try:
                    return self.number(exact(e))
                except ValueError as error:
                    return self.fail(e, str(error))
            case sympy.Add() | sympy.Mul():
                return self.folded(
                    "add" if e.is_Add else "mul", [self.node(a) for a in e.args]
                )
            case sympy.Pow():
                return self.power(e)
            case sympy.Max() | sympy.Min():
                sign = self.number(Fraction(1 if isinstance(e, sympy.Max) else -1))
                signed = [self.graph.add("mul", sign, self.node(a)) for a in e.args]
                for x, y in pairwise(range(len(signed))):
                    signed[y] = self.larger(signed[x], signed[y])
                return self.graph.add("mul", sign, signed[-1])
            case _ if type(e) in FUNCTIONS:
                return self.graph.add(FUNCTIONS[type(e)], self.node(e.args[0]))
            case kth_largest() if not self.of_tokens(e):
                return self.kth_largest(e)
            case sympy.Piecewise():
                return self.piecewise(e)
            case count() if not self.of_tokens(e):
                return self.fail(
                    e, "count compares integers; of real values say Abs(a - b) <= eps"
                )
        if isinstance(e, (*INTEGERS, kth_largest)):
            jumps = not self.of_tokens(e) and not isinstance(e, boolalg.Boolean)
            return (
                self.fail(e, f"needs an integer expression of tokens: {JUMPS}")
                if jumps
                else self.integer(e)
            )
        return self.fail(e, UNKNOWN)

    def lookup(self, e: lookup) -> int:
        table, index = operands(e)
        if all(float_below(v) == v for v in table.values):
            array = self.graph.add(
                "constant", attr=((len(table.values),), tuple(map(float, table.values)))
            )
        elif len(table.values) <= OPERANDS:
            array = self.stacked([self.number(v) for v in table.values])
        else:
            return self.fail(
                e, f"more than {OPERANDS} numbers, of which some are no float64"
            )
        return self.picked(e, array, index)

    def power(self, e: sympy.Pow) -> int:
        base, exponent = e.args
        value = exact(exponent) if exponent.is_Rational or exponent.is_Float else None
        if value is None and base in (-1, sympy.E):
            return (
                self.integer(e)
                if base == -1
                else self.graph.add("exp", self.node(exponent))
            )
        if value is None and base.is_positive and (base.is_Rational or base.is_Float):
            scaled = self.graph.add(
                "mul", self.graph.add("log", self.node(base)), self.node(exponent)
            )
            return self.graph.add("exp", scaled)
        if value is None or value.denominator > 2 or abs(value.numerator) > POWER:
            return self.fail(
                e,
                f"powers have the exponents 1/2, 1, 3/2, ... up to {POWER}; for a > 0 write exp(b*log(a))",
            )
        x, times = self.node(base), abs(value.numerator)
        if value.denominator == 2 and times == 1:
            return self.graph.add("sqrt" if value > 0 else "rsqrt", x)
        x = self.graph.add("sqrt", x) if value.denominator == 2 else x
        x = self.graph.add("power", x, attr=times) if times > 1 else x
        return x if value > 0 else self.graph.add("reciprocal", x)

    def kth_largest(self, e: kth_largest) -> int:
        """Of real values: the k largest move to the end, one after another."""
        k, *values = operands(e)
        if int(k) * len(values) > COMPARISONS:
            return self.fail(
                e, f"takes more than {COMPARISONS} comparisons of real values"
            )
        x = [self.node(v) for v in values]
        for moved in range(int(k)):
            for i in range(len(x) - 1 - moved):
                x[i], x[i + 1] = (
                    self.smaller(x[i], x[i + 1]),
                    self.larger(x[i], x[i + 1]),
                )
        return x[-int(k)]

    def piecewise(self, e: sympy.Piecewise) -> int:
        """Of integers, an integer; of real values, the one that conditions on tokens pick."""
        values, conditions = zip(*e.args, strict=True)
        if conditions[-1] != sympy.true:
            return self.fail(
                e,
                "end a Piecewise with (value, True), so that it is defined everywhere",
            )
        if not all(self.of_tokens(c) for c in conditions):
            advice = "write it with Max, Min and Abs, or claim each piece by itself with given="
            return self.fail(e, f"a Piecewise takes conditions on tokens: {advice}")
        if self.of_tokens(e) and self.compiles(e):
            return self.integer(e)
        which = sympy.Piecewise(
            *((sympy.Integer(i), c) for i, c in enumerate(conditions))
        )
        return self.picked(e, self.stacked([self.node(v) for v in values]), which)

    def compiles(self, e: sympy.Basic) -> bool:
        """Whether an expression is one of the kernel's integers, divided by a number."""
        try:
            return self.tokens is not None and bool(compile_ratio(e, self.tokens))
        except ClaimError:
            return False

    def margin(self, c: sympy.Basic, denied: bool = False) -> int:
        """A node that is at least zero (if `strict`, more than that) where a condition holds (or doesn't, if denied),
        and there alone."""
        if not isinstance(
            c, Relational | boolalg.BooleanFunction | boolalg.BooleanAtom
        ):
            return self.fail(c, "is no condition")
        if self.of_tokens(c) and self.compiles(c):  # 0 or 1, and never near zero
            half, truth = self.number(Fraction(1, 2)), self.integer(c)
            return (
                self.graph.add("sub", half, truth)
                if denied
                else self.graph.add("sub", truth, half)
            )
        match c:
            case boolalg.BooleanTrue() | boolalg.BooleanFalse():
                return self.number(Fraction(1 if bool(c) != denied else -1))
            case boolalg.Not():
                return self.margin(c.args[0], not denied)
            case boolalg.And() | boolalg.Or():
                parts = [self.margin(a, denied) for a in c.args]
                return (
                    self.either(parts)
                    if isinstance(c, boolalg.Or) != denied
                    else self.all(parts)
                )
            case boolalg.Implies():
                parts = [
                    self.margin(c.args[0], not denied),
                    self.margin(c.args[1], denied),
                ]
                return self.all(parts) if denied else self.either(parts)
            case Relational():
                return self.relation(c, denied)
        return self.fail(
            c,
            f"{type(c).__name__} takes conditions on tokens; write it with And and Or",
        )

    def boundaries(self, c: sympy.Basic, denied: bool = False) -> set[bool]:
        """Whether relations between real values are strict (or are once they are denied), of all in a condition."""
        if self.of_tokens(c) and self.compiles(c):
            return set()
        match c:
            case boolalg.Not():
                return self.boundaries(c.args[0], not denied)
            case boolalg.And() | boolalg.Or():
                return {
                    kind for part in c.args for kind in self.boundaries(part, denied)
                }
            case boolalg.Implies():
                return self.boundaries(c.args[0], not denied) | self.boundaries(
                    c.args[1], denied
                )
            case Relational():
                return {isinstance(c, sympy.Lt | sympy.Gt | sympy.Ne) != denied}
        return set()

    def either(self, nodes: list[int]) -> int:
        return reduce(self.larger, nodes)

    def all(self, nodes: list[int]) -> int:
        return reduce(self.smaller, nodes)

    def relation(self, c: Relational, denied: bool) -> int:
        """Between real values: a >= b where a - b isn't negative. Where it is strict, no such number says so; but a > b
        where a - b is more than zero, which is where b - a is no number for b >= a."""
        a, b = operands(c)
        if self.strict:
            a, b, denied = b, a, not denied
        match c, denied:
            case (sympy.Ge(), False) | (sympy.Lt(), True):
                return self.node(difference(a, b))
            case (sympy.Le(), False) | (sympy.Gt(), True):
                return self.node(difference(b, a))
            case (sympy.Eq(), False) | (sympy.Ne(), True):
                both = [self.node(difference(a, b)), self.node(difference(b, a))]
                return self.either(both) if self.strict else self.all(both)
            case (_, True):
                return self.fail(
                    c,
                    f"is denied, which {STRICT} in what is denied, or put the condition into given=",
                )
            case (sympy.Ne(), False):
                return self.fail(c, f"{STRICT}, as in Or(a <= b - eps, a >= b + eps)")
        return self.fail(c, STRICT)

    def symbol(self, e: sympy.Symbol) -> int:
        if e in self.inputs:
            which, entry = self.inputs[e]
            whole = self.graph.add("input", attr=(which, self.box.low[which].shape))
            return self.graph.add("view", whole, attr=((), entry, ()))
        if self.tokens is not None and e in self.tokens.symbols:
            values = self.tokens.values
            if any(int(float(v)) != v for v in values):
                return self.fail(e, BIG)
            table = self.graph.add(
                "constant", attr=((len(values),), tuple(map(float, values)))
            )
            means = self.graph.add("gather", table, self.graph.add("tokens"))
            return self.graph.add(
                "view", means, attr=((), self.tokens.symbols.index(e), ())
            )
        known = (
            [f"{self.box.name}[...]"]
            if prod(a.size for a in self.box.low) and self.box.low
            else []
        )
        known += [] if self.tokens is None else [str(self.tokens.symbols[0]), "..."]
        return self.fail(e, f"is none of the domain's inputs ({', '.join(known)})")


def _inner(error: ClaimError) -> str:
    """What an integer compiler said of sub-expressions, on one line."""
    return str(error).partition("\n")[2].strip().replace("\n", "; ") or str(error)
