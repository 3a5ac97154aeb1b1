"""Conditions on a domain's inputs, in sympy, as real nodes of the model's graph: what must not be negative."""

from collections.abc import Iterable
from fractions import Fraction
from itertools import pairwise
from math import prod

import sympy
from sympy.logic import boolalg

from mechverify.claims.box import Box
from mechverify.claims.domain import Tokens
from mechverify.claims.errors import ClaimError
from mechverify.kernel.graph import Graph

FUNCTIONS = {sympy.exp: "exp", sympy.log: "log", sympy.sin: "sin", sympy.cos: "cos", sympy.tanh: "tanh",
             sympy.erf: "erf", sympy.Abs: "abs"}  # fmt: skip
VOCABULARY = (
    ">=, <=, Eq, And, +, -, *, /, powers, sqrt, Max, Min, "
    + ", ".join(f.__name__ for f in FUNCTIONS)
    + ", numbers, the domain's inputs"
)


def add_conditions(graph: Graph, conditions: Iterable, box: Box, tokens: Tokens | None) -> dict[str, int]:
    """Nodes of one entry, by the text of what they say: text `a >= b` holds where node a - b isn't negative.

    Raises ClaimError that names every sub-expression at fault."""
    compiler, found = _Compiler(graph, box, tokens), {}
    for condition in conditions:
        for low, high in _inequalities(sympy.sympify(condition), compiler.problems):
            found[f"{high} >= {low}"] = compiler.node(high - low)
    if compiler.problems:
        listed = "\n".join(f"  {p}" for p in dict.fromkeys(compiler.problems))
        raise ClaimError(f"a condition can't be compiled:\n{listed}")
    return found


def _inequalities(condition: sympy.Basic, problems: list[str]) -> list[tuple[sympy.Expr, sympy.Expr]]:
    """Pairs (a, b) with a <= b, which together say the same."""
    match condition:
        case boolalg.And():
            return [pair for part in condition.args for pair in _inequalities(part, problems)]
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
    def __init__(self, graph: Graph, box: Box, tokens: Tokens | None):
        self.graph, self.box, self.tokens = graph, box, tokens
        self.problems: list[str] = []
        self.inputs = {s: (k, i) for k, block in enumerate(box.symbols()) for i, s in enumerate(block)}

    def fail(self, e: sympy.Basic, reason: str) -> int:
        self.problems.append(f"{e}: {reason}")
        return self.number(Fraction(0))

    def number(self, value: Fraction) -> int:
        near = float(value)
        if Fraction(near) == value:
            return self.graph.add("constant", attr=((), (near,)))
        bottom = self.graph.add("reciprocal", self.number(Fraction(value.denominator)))
        return self.graph.add("mul", self.number(Fraction(value.numerator)), bottom)

    def folded(self, op: str, nodes: list[int]) -> int:
        result, *rest = nodes
        for n in rest:
            result = self.graph.add(op, result, n)
        return result

    def larger(self, x: int, y: int) -> int:
        return self.graph.add("add", y, self.graph.add("relu", self.graph.add("sub", x, y)))

    def node(self, e: sympy.Basic) -> int:
        match e:
            case sympy.Symbol():
                return self.symbol(e)
            case sympy.Rational():
                return self.number(Fraction(int(e.p), int(e.q)))
            case sympy.Float():
                return self.number(Fraction(float(e)))
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
