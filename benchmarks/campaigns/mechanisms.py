"""The definition of the language: a program text means what Python makes of it.

Random texts are run twice: with the claim language's names, then compiled and evaluated by the kernel; and as plain
Python, with max for Max, % for Mod, fractions for numbers, and mpmath for what is no fraction.
"""

import copy
import math
import random
import re
from collections import Counter
from collections.abc import Callable
from fractions import Fraction
from functools import cache
from typing import Any

import mpmath
import numpy as np
import sympy
import torch
from rich.markup import escape
from sympy import Piecewise

import mechverify
from benchmarks.board import Board
from benchmarks.campaigns.examples import Example
from mechverify import Bounds, Holds, Mod, Within, box, capture, count, kth_largest, lookup, prove, tokens
from mechverify.claims import ClaimError
from mechverify.claims.expressions import Expressions, inequalities
from mechverify.claims.mechanisms import compile_mechanism
from mechverify.kernel.core.errors import Rejected
from mechverify.kernel.core.evaluate import Evaluation
from mechverify.kernel.core.exact import Exact
from mechverify.kernel.core.fields import Reader
from mechverify.kernel.core.float64 import Float64
from mechverify.kernel.core.graph import Graph
from mechverify.kernel.core.mechanism import add_expression
from mechverify.kernel.core.semantics import Real

VALUES = (-3, -1, 0, 1, 2, 5)
TOKENS = tokens("x", length=3, vocab=len(VALUES), values=VALUES)
TABLES = ([3, -2, 7], [0, 1, 4, 9, 16], [5, 5, 1, -6])
K = sympy.Symbol("k", integer=True)
INPUTS = 12
mpmath.mp.dps = 60
DECIMAL = mpmath.mpf(2) ** -44  # sympy multiplies and divides decimals in float64, as Python does

SYMPY = ("Max", "Min", "Abs", "sign", "floor", "ceiling", "Piecewise", "Eq", "Ne", "And", "Or", "Not", "Implies", "Xor",
         "exp", "log", "sin", "cos", "tanh", "sqrt", "pi")  # fmt: skip
OURS = ("Mod", "kth_largest", "count", "lookup")
CLAIM = {name: getattr(sympy, name) for name in SYMPY} | {name: getattr(mechverify, name) for name in OURS} | {
    "sympy_Mod": sympy.Mod, "n": int, "Sum": lambda f, a, b: sympy.Sum(f(K), (K, a, b)),
}  # fmt: skip
PLAIN: dict[str, Any] = {
    "Max": max,
    "Min": min,
    "Abs": abs,
    "sign": lambda a: (a > 0) - (a < 0),
    "floor": math.floor,
    "ceiling": math.ceil,
    "Piecewise": lambda *pairs: next(value for value, condition in pairs if condition),
    "Eq": lambda a, b: a == b,
    "Ne": lambda a, b: a != b,
    "And": lambda *c: all(c),
    "Or": lambda *c: any(c),
    "Not": lambda c: not c,
    "Implies": lambda a, b: not a or b,
    "Xor": lambda *c: sum(c) % 2 == 1,
    "Mod": lambda a, n: a % n,
    "sympy_Mod": lambda a, n: a % n,
    "kth_largest": lambda k, *x: sorted(x, reverse=True)[int(k) - 1],
    "count": lambda v, *x: sum(a == v for a in x),
    "lookup": lambda table, i: Fraction(table[int(i)]),
    "Sum": lambda f, a, b: sum(f(Fraction(k)) for k in range(a, b + 1)),
    "n": Fraction,
}
REAL = PLAIN | {
    "exp": mpmath.exp, "log": mpmath.log, "sin": mpmath.sin, "cos": mpmath.cos, "tanh": mpmath.tanh, "n": mpmath.mpf,
    "sqrt": mpmath.sqrt, "pi": mpmath.pi, "lookup": lambda table, i: mpmath.mpf(table[int(i)]),
    "Sum": lambda f, a, b: sum(f(mpmath.mpf(k)) for k in range(a, b + 1)),
}  # fmt: skip


class Writer:
    """Writes random program texts: integers, fractions, real numbers and conditions."""

    def __init__(self, seed: int, leaves: list[str]):
        self.random = random.Random(seed)
        self.leaves = leaves

    def number(self, low: int = -4, high: int = 9) -> str:
        return f"n({self.random.randint(low, high)})"

    def some(self, kind: Callable[[int], str], depth: int, low: int = 2, high: int = 3) -> str:
        return ", ".join(kind(depth) for _ in range(self.random.randint(low, high)))

    def one(self, forms: list[Callable[[], str]]) -> str:
        return self.random.choice(forms)()

    def integer(self, depth: int) -> str:
        if depth <= 0:
            return self.random.choice([*self.leaves, *self.leaves, self.number()])
        d, m = depth - 1, self.random.randint(2, 7)
        table = self.random.choice(TABLES)
        return self.one([
            lambda: f"({self.integer(d)} + {self.integer(d)})",
            lambda: f"({self.integer(d)} - {self.integer(d)})",
            lambda: f"{self.number()}*{self.integer(d)}",
            lambda: f"{self.integer(d)}*{self.integer(d)}",
            lambda: f"(-{self.integer(d)})",
            lambda: f"Max({self.some(self.integer, d)})",
            lambda: f"Min({self.some(self.integer, d)})",
            lambda: f"{self.random.choice(['Abs', 'abs', 'sign'])}({self.integer(d)})",
            lambda: f"Mod({self.integer(d)}, {m})",
            lambda: f"Mod({self.number()}*Mod({self.integer(d)}, {m}), {m})",
            lambda: f"({self.integer(d)} % {m})",
            lambda: f"({self.number()}*({self.integer(d)} % {m}) % {self.random.choice([m, m, 5, 7])})",
            lambda: f"sympy_Mod({self.integer(d)}, {m})",
            lambda: f"({self.integer(d)} // {m})",
            lambda: f"{self.random.choice(['floor', 'ceiling'])}({self.fraction(d)})",
            lambda: f"Piecewise(({self.integer(d)}, {self.condition(d)}), ({self.integer(d)}, True))",
            lambda: f"Piecewise((n(1), {self.condition(d)}), (n(0), True))",
            lambda: f"Piecewise(({self.integer(d)}, {self.condition(d)}), ({self.integer(d)}, {self.condition(d)}), "
                    f"({self.integer(d)}, True))",
            lambda: f"kth_largest({self.random.randint(1, 2)}, {self.some(self.integer, d)})",
            lambda: f"count({self.integer(d)}, {self.some(self.integer, d)})",
            lambda: f"lookup({table}, Mod({self.integer(d)}, {len(table)}))",
            lambda: f"{self.integer(d)}**{self.random.randint(2, 3)}",
            lambda: f"Sum(lambda k: {self.integer(d)}*k, {self.random.randint(0, 1)}, {self.random.randint(2, 3)})",
            lambda: f"Sum(lambda k: Mod({self.integer(d)} + k, {m}), 1, 3)",
        ])  # fmt: skip

    def fraction(self, depth: int) -> str:
        d, m = depth - 1, self.random.randint(2, 5)
        return self.one([
            lambda: f"{self.random.choice(self.leaves)}/{m}",
            lambda: f"{self.integer(d)}*{self.random.choice(self.leaves)}/{m}",
            lambda: f"({self.random.choice(self.leaves)}/{m} + {self.integer(d)})",
            lambda: f"({self.random.choice(self.leaves)} + 0.5)",
            lambda: f"Max({self.random.choice(self.leaves)}/{m}, {self.random.choice(self.leaves)}/3)",
            lambda: f"Mod({self.random.choice(self.leaves)}/{m}, 2)",
        ])  # fmt: skip

    def condition(self, depth: int, number: Callable[[int], str] | None = None) -> str:
        """Between integers (or what `number` writes)."""
        d, a = depth - 1, number or self.integer
        relations = [
            lambda: f"({a(d)} {self.random.choice(['<', '<=', '>', '>='])} {a(d)})",
            lambda: f"{self.random.choice(['Eq', 'Ne'])}({a(d)}, {a(d)})",
        ]
        if depth <= 0:
            return self.one(relations)
        c = lambda: self.condition(d, number)  # noqa: E731
        return self.one([
            *relations, *relations,
            lambda: f"{self.random.choice(['And', 'Or', 'Xor'])}({c()}, {c()})",
            lambda: f"({c()} {self.random.choice('&|')} {c()})",
            lambda: f"Not({c()})",
            lambda: f"Implies({c()}, {c()})",
        ])  # fmt: skip

    def on_tokens(self, depth: int = 1) -> str:
        """A condition on tokens, as a part of one on real values."""
        op, c, m = self.random.choice(["<", "<=", ">", ">="]), self.random.randint(-3, 3), self.random.randint(2, 5)
        forms = [
            lambda: f"(x[0] {op} x[1] + {c})",
            lambda: f"(x[0]/{m} {op} x[2] + {c})",
            lambda: f"(Mod(x[0] + {c}*x[1], {m}) {op} x[2])",
            lambda: f"(floor(x[0]/{m}) {op} x[1])",
            lambda: f"Eq(Mod(x[0], {m}), {abs(c)})",
            lambda: f"Ne(x[0], x[1] + {c})",
        ]
        inner = [
            lambda: f"{self.random.choice(['And', 'Or', 'Xor', 'Implies'])}({self.on_tokens(0)}, {self.on_tokens(0)})",
            lambda: f"Not({self.on_tokens(0)})",
        ]
        return self.one([*forms, *inner] if depth else forms)

    def mixed(self, depth: int) -> str:
        """A condition on real values and tokens."""
        real = self.condition(depth, lambda d: self.real(min(d, 1)))
        return self.one([
            lambda: real,
            lambda: f"{self.random.choice(['And', 'Or', 'Implies'])}({self.on_tokens()}, {real})",
            lambda: f"Not(Or({self.on_tokens()}, {real}))",
            lambda: f"Implies({real}, {self.on_tokens()})",
            self.on_tokens,
        ])  # fmt: skip

    def real(self, depth: int) -> str:
        if depth <= 0:
            scaled = f"0.25*{self.random.choice(self.leaves)}"
            return self.random.choice([*self.leaves, *self.leaves, self.number(), scaled, "pi"])
        d, m = depth - 1, self.random.randint(2, 5)
        return self.one([
            lambda: f"({self.real(d)} + {self.real(d)})",
            lambda: f"({self.real(d)} - {self.real(d)})",
            lambda: f"{self.real(d)}*{self.real(d)}",
            lambda: f"{self.number()}*{self.real(d)}",
            lambda: f"{self.real(d)}/{m}",
            lambda: f"{self.real(d)}/(1 + {self.real(d)}**2)",
            lambda: f"Max({self.some(self.real, d)})",
            lambda: f"Min({self.some(self.real, d)})",
            lambda: f"{self.random.choice(['Abs', 'abs'])}({self.real(d)})",
            lambda: f"{self.random.choice(['sin', 'cos', 'tanh'])}({self.real(d)})",
            lambda: f"exp(Min({self.real(d)}, n(3)))",
            lambda: f"log(1 + {self.real(d)}**2)",
            lambda: f"sqrt({self.real(d)}**2)",
            lambda: f"(1 + {self.real(d)}**2)**{self.random.choice(['0.5', '1.5', '(-1)', '(-0.5)'])}",
            lambda: f"{self.real(d)}**{self.random.choice(['2', '3', '2.0'])}",
            lambda: f"2**Min({self.real(d)}, n(3))",
            lambda: f"cos(pi*{self.real(d)})",
            lambda: f"kth_largest({self.random.randint(1, 2)}, {self.some(self.real, d)})",
            lambda: f"Sum(lambda k: {self.real(d)}*k, 1, 3)",
            lambda: f"lookup([0.5, 0.25, -3, 7.5], Mod(x[0] + {self.random.randint(0, 4)}, 4))",
            lambda: f"y[Mod(x[1]*{m}, 3)]",
            lambda: f"Piecewise(({self.real(d)}, x[0] > {m - 3}), ({self.real(d)}, True))",
            lambda: f"(x[1] % {m})*{self.real(d)}",
        ])  # fmt: skip


def reason(error: Exception) -> str:
    """Of a refusal, without the expression that it speaks of."""
    first = str(error).partition("\n")[2].strip().split("\n")[0] or str(error)
    return (
        re.sub(r"-?\d+", "#", first.rpartition(": ")[2]).replace("[", "(").replace("]", ")")[:70]
        if isinstance(error, ClaimError)
        else repr(error)[:70]
    )


def built(program: Any, names: dict[str, Any]) -> sympy.Basic:
    """What sympy makes of a text. At times it fails: a Piecewise in a condition of another, a constant Sum in a Max."""
    try:
        return sympy.sympify(eval(program, names))
    except ClaimError:
        raise
    except Exception as error:
        raise ClaimError(f"sympy fails: {type(error).__name__}") from None


def integers(seed: int, number: int) -> tuple[list[str], Counter, int]:
    """Texts of which kernel and Python differ, refusals by reason, and how many values were compared."""
    writer, differ, refused, compared = Writer(seed, ["x[0]", "x[1]", "x[2]"]), [], Counter(), 0
    rng = np.random.default_rng(seed)
    for _ in range(number):
        text = writer.integer(writer.random.randint(1, 4))
        ids = rng.integers(0, len(VALUES), (INPUTS, 3))
        program = compile(text, text, "eval")
        try:
            rows = compile_mechanism(built(program, CLAIM | {"x": TOKENS}), TOKENS)
            graph = Graph(3, VALUES)
            root = add_expression(graph, Reader(rows, "rows"))
        except (ClaimError, Rejected) as error:
            refused[reason(error)] += 1
            continue
        values = Evaluation(graph, {}, Real(Float64()), ids)
        found = np.broadcast_to(values[root], INPUTS).tolist()
        expected = [eval(program, PLAIN | {"x": [Fraction(VALUES[i]) for i in row]}) for row in ids]
        compared += INPUTS
        if found != expected:
            differ.append(text)
    return differ, refused, compared


class Affine(torch.nn.Module):
    """Of a vector of two numbers, and of tokens that only claims speak of; its weights are short fractions."""

    def __init__(self):
        super().__init__()
        self.embed = torch.nn.Embedding(len(VALUES), 3)
        self.linear = torch.nn.Linear(2, 3)
        with torch.no_grad():
            self.embed.weight.zero_()
            self.linear.weight.copy_(torch.tensor([[1.0, 0.5], [-2.0, 1.0], [0.25, -1.0]]))
            self.linear.bias.copy_(torch.tensor([0.0, 0.5, -1.0]))

    def forward(self, ids, u):
        return self.linear(u) + self.embed(ids).sum(1)


def real_model() -> tuple[Any, Any]:
    """A captured module, and its domain."""
    model = capture(Affine().eval().double(), torch.tensor([[0, 1, 2]]), torch.zeros(1, 2, dtype=torch.float64))
    return model, box([-4, -4], [4, 4], name="u").with_tokens(TOKENS)


def reals(seed: int, number: int, conditions: bool = False) -> tuple[list[str], Counter, int]:
    """The same of real expressions (or of conditions between them), over real inputs, tokens and entries of a site."""
    writer, differ, refused, compared = Writer(seed, ["u[0]", "u[1]", "y[0]", "y[2]", "x[0]"]), [], Counter(), 0
    rng, (model, domain) = np.random.default_rng(seed), real_model()
    names = CLAIM | {"x": TOKENS, "u": domain, "y": model["output"], "n": sympy.Integer}
    for _ in range(number):
        depth = writer.random.randint(1, 3)
        text = writer.mixed(min(depth, 2)) if conditions else writer.real(depth)
        program = compile(text, text, "eval")
        graph = copy.deepcopy(model.captured.graph)
        graph.values = VALUES
        compiler = Expressions(graph, model.captured.sites, domain, TOKENS)
        try:
            said = built(program, names)
            claimed = [b - a for a, b in inequalities(said, TOKENS)] if conditions else [said]
            nodes = compiler.values(claimed)
            compiler.finish()
        except (ClaimError, Rejected) as error:
            refused[reason(error)] += 1
            continue
        for _ in range(3):
            ids, u = rng.integers(0, len(VALUES), (1, 3)), rng.integers(-8, 9, (1, 2)) / 4
            plain = REAL | {"x": [mpmath.mpf(VALUES[i]) for i in ids[0]], "u": list(map(mpmath.mpf, u[0]))}
            plain["y"] = Row([mpmath.mpf(float(v)) for v in model_values(u[0])])
            try:
                ends = enclosed(graph, model.captured.weights, nodes, ids, u)
                expected = eval(program, plain)
                if isinstance(expected, mpmath.mpc):  # sympy makes x of sqrt(x)**2, and where x < 0 there is no root
                    raise ZeroDivisionError
            except (Rejected, ZeroDivisionError, OverflowError, TypeError):  # complex numbers have no order
                refused["has no value at an input"] += 1
                continue
            compared += 1
            if conditions:
                holds, fails = all(low >= 0 for low, _ in ends), any(high < 0 for _, high in ends)
                refused["within rounding of a tie"] += not (holds or fails)
                wrong = (fails and expected) or (holds and not expected and not near(ends))
            else:
                slack = (DECIMAL if re.search(r"\d\.\d", text) else mpmath.mpf(10) ** -40) * (1 + abs(expected))
                wrong = not all(low - slack <= expected <= high + slack for low, high in ends)
            if wrong:
                differ.append(f"{text} at x = {plain['x']}, u = {u[0]}")
    return differ, refused, compared


class Row(list):
    """A list that may be indexed by a whole number of any kind."""

    def __getitem__(self, index: Any) -> Any:
        return super().__getitem__(int(index))


def model_values(u: np.ndarray) -> np.ndarray:
    """Exact in float64, as all numbers are short."""
    return np.array([[1.0, 0.5], [-2.0, 1.0], [0.25, -1.0]]) @ u + np.array([0.0, 0.5, -1.0])


def enclosed(graph: Graph, weights: dict, nodes: list[int], ids: np.ndarray, u: np.ndarray) -> list[tuple]:
    """Of each node, the ends of what the kernel's exact arithmetic says."""
    ar, ends = Exact(), []
    values = Evaluation(graph, weights, Real(ar), ids, inputs=[u])
    for n in nodes:
        ball = values[n]
        unit = mpmath.mpf(2) ** ball.exponent
        ends.append(tuple(mpmath.mpf(int(end(ball).item())) * unit for end in (ar.lower, ar.upper)))
    return ends


def near(ends: list[tuple]) -> bool:
    return any(abs(end) < mpmath.mpf(10) ** -40 for pair in ends for end in pair)


class Pair(torch.nn.Module):
    """Two tokens of seven; five outputs."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.embed = torch.nn.Embedding(7, 4)
        self.head = torch.nn.Linear(8, 5)

    def forward(self, ids):
        return self.head(torch.relu(self.embed(ids)).flatten(1))


@cache
def pair() -> Any:
    return capture(Pair().eval().double(), torch.tensor([[1, 2]]))


P = tokens("x", length=2, vocab=7)
GROUP = tokens("x", length=2, vocab=120)
NARROW = tokens("x", length=2, vocab=7, allowed=[range(7), [3, 4]])


def value(expression: sympy.Basic, at: tuple[int, ...], domain: Any = P) -> str:
    """A mechanism at one input."""
    graph = Graph(len(domain), domain.values)
    root = add_expression(graph, Reader(compile_mechanism(expression, domain), "rows"))
    return str(int(Evaluation(graph, {}, Real(Float64()), np.array([at]))[root].item()))


def verdict(claim: Callable[[], Any]) -> str:
    """Of a claim, or the advice of its refusal."""
    try:
        return prove(claim()).verdict
    except ClaimError as error:
        return str(error).strip().rpartition(": ")[2]


def product_table() -> list[int]:
    return [(7 * a + 11 * b) % 120 for a in range(120) for b in range(120)]


def lines(claim: Callable[[], Any]) -> str:
    try:
        claim()
    except ClaimError as error:
        return f"refused in {'at most 40' if str(error).count(chr(10)) < 40 else 'more than 40'} lines"
    return "no refusal"


def y() -> Any:
    return pair()["output"]


x = P
STRICT = "write <= or >="
JUMPS = "jumps; bound the value itself, and tell its pieces apart with given="
COUNTS = "count compares integers; of real values say Abs(a - b) <= eps"
EQUAL = "is just False, whatever the input; write Eq(a, b) for a == b, and"
SIGNED = tokens("x", length=2, vocab=2, values=[-1, 1])
EXAMPLES = [
    Example("Mod(3*Mod(x0, 5), 5) at x0 = 4", "12", "2", lambda: value(Mod(3 * Mod(x[0], 5), 5), (4, 0))),
    Example("3 * (x[0] % 5) % 5 at x0 = 4", "12", "2", lambda: value(3 * (x[0] % 5) % 5, (4, 0))),
    Example("Mod(2*Mod(x0 + x1, 5), 7) at 3, 0", "4", "6", lambda: value(Mod(2 * Mod(x[0] + x[1], 5), 7), (3, 0))),
    Example("Piecewise((2, x0 > x1), (4, True)) % 6 at 0, 0", "0", "4",
            lambda: value(sympy.Piecewise((2, x[0] > x[1]), (4, True)) % 6, (0, 0))),
    Example("8*(sign(x0) % 6) % 6 // 2 at -1, 0, without a trace of Mod", "5", "2",
            lambda: value((8 * (sympy.sign(x[0]) % 6) % 6) // 2, (0, 0), SIGNED)),
    Example("output[x1] at x1 = 3", "output[x1]", "output[3]", lambda: str(y()[x[1]].subs(x[1], 3))),
    Example("Sum(output[x1], (x1, 0, 3))", "4*output[x1]", "output[0] + output[1] + output[2] + output[3]",
            lambda: str(sympy.Sum(y()[x[1]], (x[1], 0, 3)).doit())),
    Example("Max(*output)", "hangs", "Max(output[0], output[1], output[2], output[3], output[4])",
            lambda: str(sympy.Max(*y()))),
    Example("len(output)", "TypeError", "5", lambda: str(len(y()))),
    Example("embed[:, 1]", "SympifyError", "[embed[0, 1] embed[1, 1]]", lambda: str(pair()["embed"][:, 1])),
    Example("Within(site, site)", "hangs", "PROVED", lambda: verdict(lambda: Within(y(), y(), over=x, eps=0))),
    Example("Or of real values", "is no condition", "PROVED",
            lambda: verdict(lambda: Holds(sympy.Or(y()[0] >= y()[1], y()[1] >= y()[0]), over=x))),
    Example("Implies(x0 > x1, x0 >= 1)", "is no condition", "PROVED",
            lambda: verdict(lambda: Holds(sympy.Implies(x[0] > x[1], x[0] >= 1), over=x))),
    Example("Ne of tokens", "is no condition", "PROVED",
            lambda: verdict(lambda: Holds(sympy.Ne(x[0] + x[1], 13), over=x))),
    Example("Ne of real values", "is no condition", f"{STRICT}, as in Or(a <= b - eps, a >= b + eps)",
            lambda: verdict(lambda: Holds(sympy.Ne(y()[0], y()[1]), over=x))),
    Example("a strict comparison of real values", "is strict", STRICT,
            lambda: verdict(lambda: Holds(y()[0] > y()[1], over=x))),
    Example("a strict comparison of fractions of tokens", "is strict", "PROVED",
            lambda: verdict(lambda: Holds(x[0] / 2 < x[1] + 4, over=x))),
    Example("Piecewise of entries", "Entry is not in the vocabulary", "PROVED",
            lambda: verdict(lambda: Holds(Piecewise((y()[0], x[0] > 2), (y()[1], True)) <= sympy.Max(*y()), over=x))),
    Example("sign of an entry", "Entry is not in the vocabulary", f"of a real value it {JUMPS}",
            lambda: verdict(lambda: Within(sympy.sign(y()[0]), 0, over=x))),
    Example("kth_largest of entries", "is not in the vocabulary", "PROVED",
            lambda: verdict(lambda: Holds(kth_largest(2, *y()) <= kth_largest(1, *y()), over=x))),
    Example("count of entries", "is not in the vocabulary", COUNTS,
            lambda: verdict(lambda: Within(count(0, *y()), 0, over=x))),
    Example("lookup(table of 14,400, 120*x0 + x1) at 119, 7", "lookup is not in the vocabulary", "70",
            lambda: value(lookup(product_table(), 120 * GROUP[0] + GROUP[1]), (119, 7), GROUP)),
    Example("a wrong index of that table", "a message of 7 MB", "refused in at most 40 lines",
            lambda: lines(lambda: compile_mechanism(lookup(product_table(), 121 * GROUP[0] + GROUP[1]), GROUP))),
    Example("output[7 - x1], x1 in {3, 4}", "the index reaches from 1 to 13", "BOUNDED",
            lambda: verdict(lambda: Bounds(y()[7 - NARROW[1]], over=NARROW))),
    Example("cos(pi*x0) is (-1)**x0", "is not in the vocabulary", "PROVED",
            lambda: verdict(lambda: Within(sympy.cos(sympy.pi * x[0]), (-1) ** x[0], over=x, eps="1e-9"))),
    Example("(x0 + 1)**0.5 is a root", "is not in the vocabulary", "PROVED",
            lambda: verdict(lambda: Within((x[0] + 1) ** 0.5, sympy.sqrt(x[0] + 1), over=x, eps="1e-9"))),
    Example("output[0] == output[1]", f"predicate, number 1, {EQUAL} a <= b - 1 or a >= b + 1 for a != b",
            f"predicate, number 1, {EQUAL} Ne(a, b) for a != b",
            lambda: verdict(lambda: Holds(y()[0] == y()[1], over=x))),
]  # fmt: skip


def _row(board: Board, what: str, found: tuple[list[str], Counter, int], count: int) -> None:
    differ, refused, compared = found
    why = "; ".join(f"{n} {r}" for r, n in refused.most_common(4))
    figure = f"{len(differ)} of {count} texts, {compared} values; refused: {why or 'none'}"
    board.row(what, "0 differences", figure + "".join(f"\n  {escape(d)}" for d in differ[:5]), not differ)


def run(board: Board, quick: bool) -> None:
    sizes = (1_500, 200, 200) if quick else (100_000, 10_000, 10_000)
    _row(board, "mechanisms, as Python's integers", integers(0, sizes[0]), sizes[0])
    _row(board, "real expressions, as 60 digits", reals(1, sizes[1]), sizes[1])
    _row(board, "conditions on real values", reals(2, sizes[2], conditions=True), sizes[2])
