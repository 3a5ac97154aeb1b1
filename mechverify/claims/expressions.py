"""From sympy to real nodes of a model's graph: mechanisms beside the model's own values, and conditions on them."""

from collections.abc import Iterable
from fractions import Fraction
from itertools import pairwise
from math import prod
from typing import Any

import sympy
from sympy.logic import boolalg

from mechverify.claims.box import Box
from mechverify.claims.domain import Tokens
from mechverify.claims.errors import ClaimError
from mechverify.claims.language import compile_mechanism
from mechverify.claims.model import Entry
from mechverify.claims.numbers import difference, number
from mechverify.kernel.errors import Rejected
from mechverify.kernel.graph import Graph

FUNCTIONS = {sympy.exp: "exp", sympy.log: "log", sympy.sin: "sin", sympy.cos: "cos", sympy.tanh: "tanh",
             sympy.erf: "erf", sympy.Abs: "abs"}  # fmt: skip
INTEGERS = (sympy.Mod, sympy.floor, sympy.sign, sympy.Piecewise, boolalg.Boolean)  # go through the kernel's integers
VOCABULARY = (
    ">=, <=, Eq, And, +, -, *, /, powers, sqrt, pi, Max, Min, "
    + ", ".join(f.__name__ for f in FUNCTIONS)
    + ", Sum, lookup, numbers, the domain's inputs, entries of sites; and of tokens Mod, floor, sign, Piecewise"
)


class lookup(sympy.Function):
    """lookup(values, i): entry i of a list of numbers, i an integer expression of tokens."""

    is_extended_real = True

    def __new__(cls, values: Any, index: Any) -> sympy.Basic:
        entries = [sympy.Rational(v) if isinstance(v, str) else v for v in values]
        return super().__new__(cls, sympy.Tuple(*entries), sympy.sympify(index), evaluate=False)


class Expressions:
    """Compiles a claim's expressions into one graph. What can't be compiled is remembered, and raised at the end."""

    def __init__(self, graph: Graph, sites: dict[str, int], box: Box, tokens: Tokens | None):
        self._compiler = _Compiler(graph, sites, box, tokens)

    def values(self, expressions: Iterable) -> list[int]:
        """Nodes of one entry each."""
        return [self._compiler.node(e) for e in map(sympy.sympify, expressions)]

    def conditions(self, conditions: Iterable) -> dict[str, int]:
        """Nodes of one entry, by the text of what they say: `a >= b` holds where node a - b (plus 1/2, if it is an
        integer) isn't negative."""
        found = {}
        for condition in conditions:
            for low, high in inequalities(sympy.sympify(condition), self._compiler.problems):
                half = sympy.Rational(1, 2) if (high - low).is_integer else 0  # an integer's sign is never in doubt
                found[f"{high} >= {low}"] = self._compiler.node(difference(high, low) + half)
        return found

    def finish(self, where: str = "") -> None:
        """Raises ClaimError that names every sub-expression at fault, `where` the claim is made."""
        if problems := dict.fromkeys(self._compiler.problems):
            listed = "\n".join(f"  {p}" for p in problems)
            raise ClaimError(f"{where}a claim's expressions can't be compiled:\n{listed}")


def inequalities(condition: sympy.Basic, problems: list[str]) -> list[tuple[sympy.Expr, sympy.Expr]]:
    """Pairs (a, b) with a <= b, which together say the same."""
    match condition:
        case boolalg.And():
            return [pair for part in condition.args for pair in inequalities(part, problems)]
        case sympy.Le():
            return [condition.args]
        case sympy.Ge():
            return [condition.args[::-1]]
        case sympy.Eq():
            return [condition.args, condition.args[::-1]]
        case sympy.Lt() | sympy.Gt():
            low, high = condition.args if isinstance(condition, sympy.Lt) else condition.args[::-1]
            if (high - low).is_integer:
                return [(low + 1, high)]
            problems.append(f"{condition}: is strict; use <= or >=, as a bound holds on the boundary as well")
        case _:
            problems.append(f"{condition}: is no condition; write one with {VOCABULARY}")
    return []


class _Compiler:
    def __init__(self, graph: Graph, sites: dict[str, int], box: Box, tokens: Tokens | None):
        self.graph, self.sites, self.box, self.tokens = graph, sites, box, tokens
        self.problems: list[str] = []
        self.inputs = {s: (k, i) for k, block in enumerate(box.symbols()) for i, s in enumerate(block)}

    def fail(self, e: sympy.Basic, reason: str) -> int:
        said = str(e)
        self.problems.append(f"{said if len(said) <= 400 else said[:400] + '...'}: {reason}")
        return self.number(Fraction(0))

    def number(self, value: Fraction) -> int:
        """Exactly: a float64, a sum of some, or a quotient of such numbers, times a power of two."""
        near = float(value) if abs(value) < 2**1023 else 0.0
        if Fraction(near) == value:
            return self.graph.add("constant", attr=((), (near,)))
        if near and not value.denominator & (value.denominator - 1):  # in binary
            return self.graph.add("add", self.number(Fraction(near)), self.number(value - Fraction(near)))
        top, bottom = (Fraction(v, 2 ** v.bit_length()) for v in (value.numerator, value.denominator))
        power = value.numerator.bit_length() - value.denominator.bit_length()
        if abs(power) > 1022 or max(top.denominator, bottom.denominator) > 2**1022:
            return self.fail(sympy.Rational(value.numerator, value.denominator), "has too many digits")
        if max(abs(value.numerator), value.denominator) < 2**1023:
            top, bottom, power = Fraction(value.numerator), Fraction(value.denominator), 0
        quotient = self.graph.add("mul", self.number(top), self.graph.add("reciprocal", self.number(bottom)))
        return self.graph.add("mul", self.number(Fraction(2) ** power), quotient) if power else quotient

    def folded(self, op: str, nodes: list[int]) -> int:
        result, *rest = nodes
        for n in rest:
            result = self.graph.add(op, result, n)
        return result

    def larger(self, x: int, y: int) -> int:
        return self.graph.add("add", y, self.graph.add("relu", self.graph.add("sub", x, y)))

    def integer(self, e: sympy.Basic) -> int:
        """An integer expression of tokens, as an integer node."""
        if self.tokens is None:
            return self.fail(e, "needs tokens, and the domain has none")
        try:
            rows = compile_mechanism(e, self.tokens)
        except ClaimError as error:
            return self.fail(e, str(error).partition("\n")[2].strip().replace("\n", "; ") or str(error))
        ids: list[int] = []
        for op, operands, attribute in rows:
            ids.append(self.graph.add(op, *(ids[a] for a in operands), attr=attribute))
        return ids[-1]

    def picked(self, e: sympy.Basic, array: int, index: sympy.Basic) -> int:
        """A slice along the first axis."""
        before = len(self.problems)
        at = self.integer(index)
        if len(self.problems) > before:
            return at
        try:
            return self.graph.add("pick", array, at)
        except Rejected as error:
            return self.fail(e, str(error).removeprefix("pick: "))

    def entry(self, e: Entry) -> int:
        """An entry of a site; indices that are integer expressions of tokens are looked up."""
        node = self.sites[e.site]
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
            node = self.graph.add("view", node, attr=(tuple(kept), offset, tuple(steps)))
        for index in (i for i in e.index if not i.is_Integer):
            node = self.picked(e, node, index)
        return node

    def node(self, e: sympy.Basic) -> int:
        match e:
            case Entry():
                return self.entry(e)
            case sympy.Symbol():
                return self.symbol(e)
            case lookup():
                values, index = e.args
                if not all(v.is_Rational or v.is_Float for v in values):
                    return self.fail(e, "lookup takes numbers")
                if all(Fraction(float(_exact(v))) == _exact(v) for v in values):
                    table = self.graph.add("constant", attr=((len(values),), tuple(float(v) for v in values)))
                else:
                    rows = [self.graph.add("view", self.number(_exact(v)), attr=((1,), 0, (0,))) for v in values]
                    table = self.graph.add("concat", *rows, attr=0)
                return self.picked(e, table, index)
            case sympy.Sum():
                if not all(bound.is_Integer for limits in e.limits for bound in limits[1:]):
                    return self.fail(e, "a Sum needs integer limits")
                return self.node(e.doit())
            case sympy.core.numbers.Pi():
                return self.graph.add("pi")
            case sympy.Rational() | sympy.Float():
                try:
                    return self.number(_exact(e))
                except ValueError as error:
                    return self.fail(e, str(error))
            case sympy.Add() | sympy.Mul():
                return self.folded("add" if e.is_Add else "mul", [self.node(a) for a in e.args])
            case sympy.Pow() if e.exp.is_Integer and 2 <= abs(e.exp) <= 16:
                power = self.graph.add("power", self.node(e.base), attr=int(abs(e.exp)))
                return power if e.exp > 0 else self.graph.add("reciprocal", power)
            case sympy.Pow() if e.exp in (-1, sympy.Rational(1, 2), sympy.Rational(-1, 2)):
                name = {-1: "reciprocal", sympy.Rational(1, 2): "sqrt"}.get(e.exp, "rsqrt")
                return self.graph.add(name, self.node(e.base))
            case sympy.Max() | sympy.Min():
                sign = self.number(Fraction(1 if isinstance(e, sympy.Max) else -1))
                signed = [self.graph.add("mul", sign, self.node(a)) for a in e.args]
                for x, y in pairwise(range(len(signed))):
                    signed[y] = self.larger(signed[x], signed[y])
                return self.graph.add("mul", sign, signed[-1])
            case _ if type(e) in FUNCTIONS:
                return self.graph.add(FUNCTIONS[type(e)], self.node(e.args[0]))
        if isinstance(e, INTEGERS):
            before = len(self.problems)
            integer = self.integer(e)
            return integer if len(self.problems) > before else self.graph.add("number", integer)
        return self.fail(e, f"is not in the vocabulary: {VOCABULARY}")

    def symbol(self, e: sympy.Symbol) -> int:
        if e in self.inputs:
            which, entry = self.inputs[e]
            whole = self.graph.add("input", attr=(which, self.box.low[which].shape))
            return self.graph.add("view", whole, attr=((), entry, ()))
        if self.tokens is not None and e in self.tokens.symbols:
            values = self.tokens.values
            table = self.graph.add("constant", attr=((len(values),), tuple(map(float, values))))
            means = self.graph.add("gather", table, self.graph.add("tokens"))
            return self.graph.add("view", means, attr=((), self.tokens.symbols.index(e), ()))
        known = [f"{self.box.name}[...]"] if prod(a.size for a in self.box.low) and self.box.low else []
        known += [] if self.tokens is None else [str(self.tokens.symbols[0]), "..."]
        return self.fail(e, f"is none of the domain's inputs ({', '.join(known)})")


def _exact(e: sympy.Expr) -> Fraction:
    """A rational number; a Float is the number that it holds."""
    return Fraction(int(e.p), int(e.q)) if e.is_Rational else number(e)
