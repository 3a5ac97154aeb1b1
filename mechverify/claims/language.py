"""Mechanisms: from sympy to the kernel's integer operations.

A mechanism is compiled to rows [operation, operands, attribute] that refer back to earlier rows (see
mechverify.kernel.graph for the operations). What can't be compiled is named, all of it at once.
"""

import sympy
from sympy.logic import boolalg

from mechverify.claims.domain import Tokens
from mechverify.claims.errors import ClaimError

Row = list  # [operation, [operand indices], attribute or None]


class kth_largest(sympy.Function):
    """kth_largest(k, *x): the k-th largest of the x, counted with repetition; k = 1 is Max(*x)."""

    is_integer = True

    @classmethod
    def eval(cls, k, *x):
        if not (k.is_Integer and 1 <= k <= len(x)):
            raise ClaimError(f"kth_largest needs k from 1 to {len(x)}, not {k}")
        if all(a.is_Integer for a in x):
            return sorted(x, reverse=True)[int(k) - 1]
        return None


class count(sympy.Function):
    """count(v, *x): how many of the x equal v."""

    is_integer = is_nonnegative = True

    @classmethod
    def eval(cls, v, *x):
        if v.is_Integer and all(a.is_Integer for a in x):
            return sum(int(a == v) for a in x)
        return None


def compile_mechanism(expression: sympy.Basic, domain: Tokens) -> list[Row]:
    """Rows whose last one is the mechanism; raises ClaimError that names every sub-expression at fault."""
    compiler = _Compiler(domain)
    root = compiler.node(sympy.sympify(expression))
    if compiler.problems:
        found = "\n".join(f"  {p}" for p in dict.fromkeys(compiler.problems))
        raise ClaimError(f"the mechanism {_short(expression)} can't be compiled:\n{found}")
    if root != len(compiler.rows) - 1:  # the root is a shared sub-expression: repeat it at the end
        compiler.rows.append(["sum", [root], None])
    return compiler.rows


class _Compiler:
    def __init__(self, domain: Tokens):
        self.positions = {symbol: i for i, symbol in enumerate(domain)}
        self.rows: list[Row] = []
        self.problems: list[str] = []
        self._ids: dict[str, int] = {}

    def emit(self, op: str, operands: list[int], attribute: int | None = None) -> int:
        row = [op, operands, attribute]
        key = repr(row)
        if key not in self._ids:
            self._ids[key] = len(self.rows)
            self.rows.append(row)
        return self._ids[key]

    def fail(self, expression: sympy.Basic, reason: str) -> int:
        self.problems.append(f"{_short(expression)}: {reason}")
        return 0

    def nodes(self, expressions) -> list[int]:
        return [self.node(e) for e in expressions]

    def node(self, e: sympy.Basic) -> int:
        match e:
            case sympy.Symbol():
                if e in self.positions:
                    return self.emit("value", [], self.positions[e])
                return self.fail(e, f"is not a token of this claim (tokens: {', '.join(map(str, self.positions))})")
            case sympy.Integer():
                return self.emit("integer", [], int(e))
            case boolalg.BooleanTrue() | boolalg.BooleanFalse():
                return self.emit("integer", [], int(bool(e)))
            case sympy.Mul() if e.is_integer and (bottom := e.as_numer_denom()[1]).is_Integer and bottom > 1:
                return self.floor(sympy.floor(e, evaluate=False))  # sympy drops a floor where it sees an integer
            case sympy.Add() | sympy.Mul() | sympy.Max() | sympy.Min() | boolalg.And() | boolalg.Or():
                return self.emit(_NARY[type(e)], self.nodes(e.args))
            case boolalg.Not():
                return self.emit("not", self.nodes(e.args))
            case sympy.Eq() | sympy.Lt() | sympy.Le():
                return self.relation(_RELATIONS[type(e)], *e.args)
            case sympy.Ne():
                return self.emit("not", [self.relation("eq", *e.args)])
            case sympy.Gt() | sympy.Ge():
                return self.relation("lt" if isinstance(e, sympy.Gt) else "le", *e.args[::-1])
            case sympy.Mod():
                return self.modulus(e)
            case sympy.floor():
                return self.floor(e)
            case sympy.Abs():
                x = self.node(e.args[0])
                return self.emit("max", [x, self.emit("product", [self.emit("integer", [], -1), x])])
            case sympy.sign():
                x, zero = self.node(e.args[0]), self.emit("integer", [], 0)
                minus = self.emit("product", [self.emit("integer", [], -1), self.emit("lt", [x, zero])])
                return self.emit("sum", [self.emit("lt", [zero, x]), minus])
            case sympy.Pow() if e.exp.is_Integer and 1 <= e.exp <= 16:
                return self.emit("product", [self.node(e.base)] * int(e.exp))
            case sympy.Piecewise():
                return self.piecewise(e)
            case boolalg.ITE():
                return self.emit("where", self.nodes(e.args))
            case kth_largest():
                k, *x = e.args
                if k > 8:
                    return self.fail(e, "k is at most 8")
                return self.emit("kth_largest", self.nodes(x), int(k))
            case count():
                v, *x = self.nodes(e.args)
                return self.emit("sum", [self.emit("eq", [a, v]) for a in x]) if x else self.emit("integer", [], 0)
            case sympy.Rational() | sympy.Float() | sympy.NumberSymbol():
                return self.fail(e, "is not an integer; outputs and tokens are integers (floor(.../n) divides)")
            case sympy.Pow() if e.exp.is_negative:
                return self.fail(e, "is a division; floor(a/n) divides by a positive integer n")
            case _:
                return self.fail(e, f"{type(e).__name__} is not in the vocabulary: {VOCABULARY}")

    def relation(self, op: str, left: sympy.Basic, right: sympy.Basic) -> int:
        """Sympy may divide both sides of a relation; multiply by positive integer denominators again."""
        (a, b), (c, d) = left.as_numer_denom(), right.as_numer_denom()
        if all(n.is_Integer and n > 0 for n in (b, d)) and (b, d) != (1, 1):
            left, right = sympy.expand(a * d), sympy.expand(c * b)
        return self.emit(op, self.nodes((left, right)))

    def modulus(self, e: sympy.Basic) -> int:
        x, m = e.args
        if not (m.is_Integer and m > 0):
            return self.fail(e, "the modulus must be a positive integer")
        return self.emit("mod", [self.node(x)], int(m))

    def floor(self, e: sympy.Basic) -> int:
        top, bottom = e.args[0].as_numer_denom()
        if not (bottom.is_Integer and bottom > 0):
            return self.fail(e, "the divisor must be a positive integer")
        return self.emit("floordiv", [self.node(sympy.expand(top))], int(bottom))

    def piecewise(self, e: sympy.Basic) -> int:
        if e.args[-1].cond != sympy.true:
            return self.fail(e, "end a Piecewise with (value, True), so that it is defined everywhere")
        result = self.node(e.args[-1].expr)
        for value, condition in reversed(e.args[:-1]):
            result = self.emit("where", [self.node(condition), self.node(value), result])
        return result


_NARY = {
    sympy.Add: "sum", sympy.Mul: "product", sympy.Max: "max", sympy.Min: "min",
    boolalg.And: "and", boolalg.Or: "or",
}  # fmt: skip
_RELATIONS = {sympy.Eq: "eq", sympy.Lt: "lt", sympy.Le: "le"}
VOCABULARY = (
    "+, -, *, powers, Max, Min, kth_largest, count, Mod, floor(a/n), Abs, sign, Eq, Ne, <, <=, >, >=, And, Or, Not, "
    "Piecewise, integers, tokens"
)


def _short(expression: object) -> str:
    text = str(expression)
    return text if len(text) <= 80 else text[:77] + "..."
