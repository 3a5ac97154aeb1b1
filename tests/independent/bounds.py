"""The second checker's part for claims about bounds of a captured model: format versions 3, 4 and 5.

Follows docs/certificate.md; shares no code with mechverify, though its author had read the kernel. Numbers are exact
rationals; what isn't rational is enclosed by intervals. Ranges on parts of the domain come from affine arithmetic: each
value is a sum of the inputs' own symbols and of one new symbol for every function or product, which stands for what a
line leaves over. Lines are taken by the mean value theorem on pieces, so nothing here resembles rule linear; a
certificate's lines are not read.

Three answers: `check` returns (confirmed), raises Rejected (no certificate, or surely more than its proof can show), or
raises NotConfirmed: these ranges are too wide, or the network is too large for this checker.
"""

import hashlib
import itertools
import math
import re
from collections.abc import Callable, Iterable
from fractions import Fraction
from functools import lru_cache, reduce
from typing import Any, NamedTuple

from tests.independent.checker import (
    ABSENT,
    LN2,
    OPERATIONS,
    Interval,
    Rejected,
    _up,
    announced,
    fields,
    integer,
    items,
    legal_span,
    members,
    need,
    optional,
    read_tensors,
    root,
    scaled_exp,
    strict_json,
)

SIZE = 2**14  # of a value, and of the products of a contraction
SEQUENCES = 2**10  # of a part whose tokens are run through
PIECES = 8  # of an interval, for a function
TINY = Fraction(1, 2**80)  # a line is not worth while on so short an interval
CELLS = 8  # into which a part is cut at most, to reach what is stated
INFINITY = float("inf")
UNCOMPARED = {"dtype": "torch.float32", "inputs": 0, "difference": "0/1", "tolerance": "0/1"}


class NotConfirmed(Exception):
    """Neither shown nor surely wrong."""


def confirm(condition: Any, why: str) -> None:
    if not condition:
        raise NotConfirmed(why)


# --- Functions, on intervals -----------------------------------------------------------------------------------------

ONE, HALF = Interval(Fraction(1)), Interval(Fraction(1, 2))
BITS = 256  # of the series, in fixed point: whole numbers times 2^-BITS


def constant(x: Fraction | int) -> Interval:
    return Interval(Fraction(x))


def near(total: int, bits: int = BITS) -> Interval:
    """A series of a few hundred terms, each of which lost some units and no more than 2^8."""
    return Interval(Fraction(total - 2**20, 2**bits), Fraction(total + 2**20, 2**bits))


def _arctan(n: int) -> Fraction:
    """arctan(1/n) up to 2^-1000, n >= 5: the terms left out are smaller than the first of them."""
    return sum((Fraction((-1) ** k, (2 * k + 1) * n ** (2 * k + 1)) for k in range(220)), Fraction(0))


PI = Fraction(int(2**950 * (16 * _arctan(5) - 4 * _arctan(239))), 2**950)  # up to 2^-940


def ends(f: Callable[[Fraction], Interval]) -> Callable[[Interval], Interval]:
    """A function that grows, from its values at points."""
    f = lru_cache(2**14)(f)
    return lambda x: Interval(f(x.lo).lo, f(x.hi).hi)


@ends
def exp(x: Fraction) -> Interval:
    return scaled_exp(Interval(x), 0).short()


@ends
def tanh(x: Fraction) -> Interval:
    if x < 0:
        y = tanh(Interval(-x))
        return Interval(-y.hi, -y.lo)
    if x > 100:
        return Interval(1 - Fraction(1, 2**250), Fraction(1))
    return ONE - constant(2) / (exp(Interval(2 * x)) + ONE)


@ends
def atan(x: Fraction) -> Interval:
    """Euler's series: terms 2n / (2n + 1) x^2 / (1 + x^2) times the one before, the first x / (1 + x^2)."""
    if x < 0:
        y = atan(Interval(-x))
        return Interval(-y.hi, -y.lo)
    if x > 1:
        half_pi = constant(8) * atan(Interval(Fraction(1, 5))) - constant(2) * atan(Interval(Fraction(1, 239)))
        return half_pi - atan(Interval(1 / x))
    quotient, term, total = math.floor(x * x / (1 + x * x) * 2**400), math.floor(x / (1 + x * x) * 2**400), 0
    for n in range(1, 420):
        total += term
        term = (term * quotient >> 400) * 2 * n // (2 * n + 1)
    return Interval(Fraction(total, 2**400)).widened(Fraction(1, 2**380)).short()


@ends
def log(x: Fraction) -> Interval:
    confirm(x > 0, "logarithm of a number that may not be positive")
    k = x.numerator.bit_length() - x.denominator.bit_length()
    f = x / Fraction(2) ** k  # in (1/2, 2)
    s = math.floor((f - 1) / (f + 1) * 2**BITS)  # log f = 2 atanh(s), |s| <= 1/3
    total, term = 0, s
    for n in range(1, 200, 2):
        total += term // n
        term = term * (s * s >> BITS) >> BITS
    return (near(2 * total) + constant(k * LN2)).widened(Fraction(1, 2**900)).short()


@ends
def sqrt(x: Fraction) -> Interval:
    confirm(x >= 0, "root of a number that may be negative")
    shift = max(0, BITS - x.numerator.bit_length() + x.denominator.bit_length()) // 2 + 1
    low = math.isqrt(math.floor(x * 4**shift))
    return Interval(Fraction(low, 2**shift), Fraction(low + 1, 2**shift))


@ends
def erf(x: Fraction) -> Interval:
    """(2/sqrt pi) e^(-x^2) times the sum of 2^n x^(2n+1) / (1 3 ... (2n+1)), below 2^118."""
    if x < 0:
        y = erf(Interval(-x))
        return Interval(-y.hi, -y.lo)
    if x > 9:
        return Interval(1 - Fraction(1, 2**115), Fraction(1))
    square, total, n = math.floor(2 * x * x * 2**400), 0, 1
    term = math.floor(x * 2**400)
    while term or 4 * x * x > n:
        total += term
        n += 2
        term = (term * square >> 400) // n
    # Each of under 2^10 terms loses units, which later factors enlarge by less than 2^118: in all, below 2^-270.
    series = Interval(Fraction(total, 2**400), Fraction(total, 2**400) + Fraction(1, 2**260))
    return series * exp(Interval(-x * x)) * constant(2) / sqrt(Interval(PI, PI + Fraction(1, 2**900)))


@lru_cache(2**14)
def _wave(x: Fraction, turn: int) -> Interval:
    """sin(x + turn pi/2)."""
    confirm(abs(x) < 2**500, "an angle too large for this checker")
    k = round(x / PI * 2)
    r, turn = math.floor((x - k * PI / 2) * 2**BITS), (k + turn) % 4
    total, term = 0, r if turn % 2 == 0 else 2**BITS
    for n in range(2 - turn % 2, 90, 2):
        total += term
        term = -(term * (r * r >> BITS) >> BITS) // (n * (n + 1))
    return near(-total if turn >= 2 else total)


def wave(turn: int) -> Callable[[Interval], Interval]:
    def f(x: Interval) -> Interval:
        middle = (x.lo + x.hi) / 2
        y = _wave(middle, turn % 4).widened((x.hi - x.lo) / 2)
        return Interval(max(y.lo, Fraction(-1)), min(y.hi, Fraction(1)))

    return f


def minus(x: Interval) -> Interval:
    return Interval(-x.hi, -x.lo)


def reciprocal(x: Interval) -> Interval:
    if x.hi < 0:
        return minus(reciprocal(minus(x)))
    confirm(x.lo > 0, "quotient by a number that may be zero")
    return ONE / x


def power(x: Interval, n: int) -> Interval:
    low, high = sorted((x.lo**n, x.hi**n))
    return Interval(Fraction(0) if n % 2 == 0 and x.lo < 0 < x.hi else low, high)


def sigmoid(x: Interval) -> Interval:
    return HALF + HALF * tanh(HALF * x)


def relu(x: Interval) -> Interval:
    return Interval(max(x.lo, Fraction(0)), max(x.hi, Fraction(0)))


def absolute(x: Interval) -> Interval:
    return relu(x) + relu(minus(x)) if x.lo >= 0 or x.hi <= 0 else Interval(Fraction(0), x.size())


def step(x: Interval) -> Interval:
    return Interval(Fraction(int(x.lo >= 0)), Fraction(int(x.hi > 0)))


@ends
def softplus(x: Fraction) -> Interval:
    return Interval(max(x, Fraction(0))) + log(ONE + exp(Interval(-abs(x))))


ROOT_HALF = sqrt(HALF)  # both known to 2^-128 or better
DENSITY = reciprocal(sqrt(Interval(2 * PI, 2 * PI + Fraction(1, 2**900))))
SLOPE = constant(2) * DENSITY  # sqrt(2/pi)
CUBIC = constant(Fraction(44715, 10**6))


def normal(x: Interval) -> Interval:
    """The distribution function."""
    return HALF * (ONE + erf(x * ROOT_HALF))


def inner(x: Interval) -> Interval:
    return tanh(SLOPE * (x + CUBIC * power(x, 3)))


def gelu_tanh_slope(x: Interval) -> Interval:
    t = inner(x)
    steep = SLOPE * (ONE + constant(3) * CUBIC * power(x, 2))
    return HALF * (ONE + t) + HALF * x * (ONE - power(t, 2)) * steep


Function = Callable[[Interval], Interval]
FUNCTIONS: dict[str, tuple[Function, Function]] = {  # value and derivative
    "relu": (relu, step),
    "abs": (absolute, lambda x: constant(2) * step(x) - ONE),
    "exp": (exp, exp),
    "log": (log, reciprocal),
    "sqrt": (sqrt, lambda x: HALF * reciprocal(sqrt(x))),
    "rsqrt": (lambda x: reciprocal(sqrt(x)), lambda x: minus(HALF * power(reciprocal(sqrt(x)), 3))),
    "reciprocal": (reciprocal, lambda x: minus(power(reciprocal(x), 2))),
    "tanh": (tanh, lambda x: ONE - power(tanh(x), 2)),
    "sigmoid": (sigmoid, lambda x: sigmoid(x) * sigmoid(minus(x))),
    "erf": (erf, lambda x: constant(2) * SLOPE * ROOT_HALF * exp(minus(power(x, 2)))),
    "softplus": (softplus, sigmoid),
    "gelu": (lambda x: x * normal(x), lambda x: normal(x) + x * DENSITY * exp(minus(HALF * power(x, 2)))),
    "gelu_tanh": (lambda x: HALF * x * (ONE + inner(x)), gelu_tanh_slope),
    "silu": (lambda x: x * sigmoid(x), lambda x: sigmoid(x) + x * sigmoid(x) * sigmoid(minus(x))),
    "sin": (wave(0), wave(1)),
    "cos": (wave(1), wave(2)),
    "atan": (atan, lambda x: reciprocal(ONE + power(x, 2))),
}


def function_of(op: str, attr: Any) -> tuple[Function, Function]:
    if op != "power":
        return FUNCTIONS[op]
    return lambda x: power(x, attr), lambda x: constant(attr) * (power(x, attr - 1) if attr > 2 else x)


# --- Affine values ---------------------------------------------------------------------------------------------------

fresh = itertools.count(2**20)
Symbol = int | tuple[int, int]


class Value:
    """A number between lo and hi that is c + sum k[s] s. Symbols: whole numbers, each from -1 to 1 (those of the real
    inputs' coordinates are below 2^20); and pairs (position, token), of which one of each position is 1, the others 0."""

    __slots__ = ("c", "hi", "k", "lo")

    def __init__(self, c: Fraction, k: dict[Symbol, Fraction], lo: Any = -INFINITY, hi: Any = INFINITY):
        self.c, self.k = c, k
        spread, tokens = Fraction(0), {}
        for symbol, v in k.items():
            if type(symbol) is int:
                spread += abs(v)
            else:
                tokens.setdefault(symbol[0], []).append(v)
        self.lo = max(lo, c - spread + sum(map(min, tokens.values())))
        self.hi = min(hi, c + spread + sum(map(max, tokens.values())))

    @property
    def range(self) -> Interval:
        return Interval(self.lo, self.hi)

    def clipped(self, lo: int, hi: int) -> "Value":
        return Value(self.c, self.k, max(self.lo, Fraction(lo)), min(self.hi, Fraction(hi)))

    def within(self, lo: Any, hi: Any) -> "Value":
        """Where it is known to lie there."""
        if lo > self.hi or hi < self.lo:
            raise Empty
        return Value(self.c, self.k, max(self.lo, lo), min(self.hi, hi))


def fixed(x: Interval) -> Value:
    """A constant, known up to an interval."""
    return curved(Fraction(0), {}, x, x)


def linear(terms: Iterable[tuple[Fraction | int, Value]]) -> Value:
    """The sum of factors times values, exactly."""
    c, k, low, high = Fraction(0), {}, Fraction(0), Fraction(0)
    for factor, x in terms:
        if factor:
            c += factor * x.c
            for symbol, v in x.k.items():
                k[symbol] = k.get(symbol, 0) + factor * v
            a, b = factor * x.lo, factor * x.hi
            low, high = low + min(a, b), high + max(a, b)
    return Value(c, k, low, high)


def curved(c: Fraction, k: dict[Symbol, Fraction], rest: Interval, within: Interval) -> Value:
    """c + sum k s + (something in `rest`), which lies in `within`: with a new symbol, and shorter numbers."""
    c += (rest.lo + rest.hi) / 2
    short = {symbol: _up(v) for symbol, v in k.items()}
    left = (rest.hi - rest.lo) / 2 + abs(_up(c) - c) + sum(abs(short[symbol] - v) for symbol, v in k.items())
    if left:
        short[next(fresh)] = _up(left)
    within = within.short()
    return Value(_up(c), short, within.lo, within.hi)


def product(x: Value, y: Value) -> Value:
    """x y = m y + n x - m n + (x - m)(y - n), m and n the middles of the ranges."""
    for a, b in ((x, y), (y, x)):
        if not a.k:
            return linear([(a.c, b)])
    m, n = (_up((v.lo + v.hi) / 2) for v in (x, y))
    within = power(x.range, 2) if x is y else x.range * y.range
    about = linear([(m, y), (n, x)])
    dx, dy = Interval(x.lo - m, x.hi - m), Interval(y.lo - n, y.hi - n)
    return curved(about.c - m * n, about.k, power(dx, 2) if x is y else dx * dy, within)


def image(f: Function, slope: Function, x: Value) -> Value:
    """f(x) = a x + rest: on each piece f(t) - a t = f(m) - a m + (f'(u) - a)(t - m), for some u in it."""
    if not x.k:
        return fixed(f(Interval(x.lo)))
    whole = x.range.short()
    low, high = whole.lo, whole.hi
    if high - low < TINY:
        return fixed(f(whole))
    a = _up(((f(Interval(high)) - f(Interval(low))) * constant(1 / (high - low))).lo)
    cuts = sorted(
        {low + (high - low) * i / PIECES for i in range(PIECES + 1)} | ({Fraction(0)} if low < 0 < high else set())
    )
    rests, values = [], []
    for p, q in itertools.pairwise(cuts):
        t, m = Interval(p, q), (p + q) / 2
        at, steep, moved = f(Interval(m)), slope(t), Interval(p - m, q - m)
        values.append(meet(f(t), at + steep * moved))
        rests.append(meet(values[-1] - constant(a) * t, at - constant(a * m) + (steep - constant(a)) * moved))
    return curved(a * x.c, {s: a * v for s, v in x.k.items()}, hull(rests), hull(values))


def meet(a: Interval, b: Interval) -> Interval:
    return Interval(max(a.lo, b.lo), min(a.hi, b.hi))


def hull(parts: list[Interval]) -> Interval:
    return Interval(min(p.lo for p in parts), max(p.hi for p in parts))


# --- Reading ---------------------------------------------------------------------------------------------------------


def a_number(text: Any) -> Fraction:
    need(type(text) is str, "a number is text")
    try:
        if re.fullmatch("-?[0-9]+/[1-9][0-9]*", text):
            return Fraction(text)
        value = float.fromhex(text)
    except (ValueError, OverflowError) as e:  # also: Python reads no more than 4,300 digits
        raise Rejected("not a number") from e
    need(math.isfinite(value) and value.hex() == text, "not as float.hex writes it")
    return Fraction(value)


def a_float(text: Any) -> Fraction:
    value = a_number(text)
    try:
        need(Fraction(float(value)) == value, "no float64")
    except OverflowError as e:
        raise Rejected("no float64") from e
    return value


def a_shape(value: Any) -> tuple[int, ...]:
    return tuple(integer(n, 1) for n in items(value))


class Node(NamedTuple):
    """`kind` is "real", "ids" or "int", which has a span; `shape` has no batch axis."""

    op: str
    args: tuple[int, ...]
    attr: Any
    kind: str
    shape: tuple[int, ...]
    span: tuple[int, int] = (0, 0)


class Graph:
    """The rows of claim.graph.nodes, each legal."""

    def __init__(self, rows: Any, tensors: dict, shapes: list[tuple[int, ...]], length: int, meant: list[int]):
        self.tensors, self.shapes, self.length, self.vocabulary, self.values = (
            tensors,
            shapes,
            length,
            len(meant),
            meant,
        )
        self.nodes: list[Node] = []
        for row in items(rows):
            op, operands, attr = items(row, 3)
            args = tuple(integer(a, 0, len(self.nodes) - 1) for a in items(operands))
            self.nodes.append(Node(op, args, *self._legal(op, [self.nodes[a] for a in args], attr)))
        need(self.nodes, "an empty graph")

    def ancestors(self, roots: list[int]) -> list[int]:
        wanted = set(roots)
        for n in range(max(roots), -1, -1):
            if n in wanted:
                wanted.update(self.nodes[n].args)
        return sorted(wanted)

    def _legal(self, op: Any, args: list[Node], attr: Any) -> tuple:
        """The attribute as it is used, kind and shape; of an integer its span."""
        reals = all(a.kind == "real" for a in args)
        if type(op) is str and (op in OPERATIONS or op in ("value", "integer")):
            need(all(a.kind == "int" for a in args), f"operands of {op}")
            return attr, "int", (), legal_span(op, [a.span for a in args], attr, self.values, self.length)
        match op, len(args):
            case "pi", 0:
                need(attr is None, "attribute of pi")
                return None, "real", ()
            case "number", 1:
                need(attr is None and args[0].kind == "int" and max(map(abs, args[0].span)) < 2**53, "number")
                return None, "real", ()
            case "pick", 2:
                need(attr is None and [a.kind for a in args] == ["real", "int"] and args[0].shape, "operands of pick")
                need(args[1].span[0] >= 0 and args[1].span[1] < args[0].shape[0], "pick: outside its operand")
                return None, "real", args[0].shape[1:]
            case "tokens", 0:
                need(attr is None, "attribute of tokens")
                return None, "ids", (self.length,)
            case "input", 0:
                which, shape = items(attr, 2)
                which = integer(which, 0, len(self.shapes) - 1)
                need(a_shape(shape) == self.shapes[which], "shape of an input")
                return (which, a_shape(shape)), "real", a_shape(shape)
            case "weight", 0:
                name, shape = items(attr, 2)
                need(type(name) is str and name in self.tensors, "a tensor that isn't there")
                shape, whole = a_shape(shape), self.tensors[name][0]
                need(
                    len(shape) == len(whole) and all(a <= b for a, b in zip(shape, whole, strict=True)),
                    "shape of a weight",
                )
                return (name, shape), "real", shape
            case "constant", 0:
                shape, entries = items(attr, 2)
                numbers = tuple(a_float(v) for v in items(entries, math.prod(a_shape(shape))))
                return (a_shape(shape), numbers), "real", a_shape(shape)
            case "gather", 2:
                table, ids = args
                need(
                    attr is None and table.op in ("weight", "constant") and ids.kind == "ids" and table.shape,
                    "gather: rows of a weight",
                )
                need(table.shape[0] >= self.vocabulary, "fewer rows than the vocabulary")
                return None, "real", ids.shape + table.shape[1:]
            case "view", 1:
                shape, offset, strides = items(attr, 3)
                shape, offset = a_shape(shape), integer(offset, 0)
                strides = tuple(integer(s) for s in items(strides, len(shape)))
                reach = [(n - 1) * s for n, s in zip(shape, strides, strict=True)]
                low, high = (offset + sum(f(r, 0) for r in reach) for f in (min, max))
                need(low >= 0 and high < math.prod(args[0].shape), "a view reads outside its operand")
                return (shape, offset, strides), args[0].kind, shape
            case "concat", n if n > 0:
                axis = integer(attr, 0)
                need(reals and all(len(a.shape) == len(args[0].shape) > axis for a in args), "concat: axis")
                rest = {(a.shape[:axis], a.shape[axis + 1 :]) for a in args}
                need(len(rest) == 1, "concat: other sizes differ")
                before, after = rest.pop()
                return axis, "real", (*before, sum(a.shape[axis] for a in args), *after)
            case "add" | "sub" | "mul", 2:
                need(attr is None and reals, f"operands of {op}")
                return None, "real", broadcast(args[0].shape, args[1].shape)
            case "einsum", 2:
                need(type(attr) is str and re.fullmatch("[a-z]*,[a-z]*->[a-z]*", attr) and reals, "einsum")
                *terms, result = attr.replace("->", ",").split(",")
                sizes: dict[str, int] = {}
                for term, a in zip(terms, args, strict=True):
                    need(len(set(term)) == len(term) == len(a.shape), "letters of an operand")
                    need(
                        all(sizes.setdefault(c, n) == n for c, n in zip(term, a.shape, strict=True)),
                        "sizes of a letter",
                    )
                need(len(set(result)) == len(result) and set(result) <= set(sizes), "letters of the result")
                need(set(sizes) - set(result) <= set(terms[0]) & set(terms[1]), "a summed letter is in both")
                return attr, "real", tuple(sizes[c] for c in result)
            case "softmax", 1:
                shape = args[0].shape
                need(reals and shape, "softmax: an axis")
                if type(attr) is list:
                    need(len(attr) == 1 or (len(shape) > 1 and len(attr) == shape[-2]), "softmax: rows")
                    need(
                        all(type(r) is str and re.fullmatch(f"(?=.*1)[01]{{{shape[-1]}}}", r) for r in attr),
                        "softmax: a row",
                    )
                    return tuple(attr), "real", shape
                need((attr == "causal" and len(shape) > 1) or integer(attr, 1, shape[-1]), "softmax")
                return attr, "real", shape
            case "extremum", 1:
                need(reals and args[0].shape and attr in ("max", "min"), "extremum: max or min of an axis")
                return attr, "real", args[0].shape[:-1]
            case "ascending", 1:
                need(reals and args[0].shape and attr is None, "ascending: an axis")
                return None, "real", args[0].shape
            case "choose", 4:
                need(reals and attr is None, "operands of choose")
                return None, "real", reduce(broadcast, (a.shape for a in args))
            case "power", 1:
                need(reals, "operand")
                return integer(attr, 2, 16), "real", args[0].shape
            case "over_root", 1:
                need(reals, "operand")
                return integer(attr, 1), "real", args[0].shape
        need(type(op) is str and op in FUNCTIONS and len(args) == 1 and reals and attr is None, f"operation {op!r}")
        return None, "real", args[0].shape


def broadcast(a: tuple[int, ...], b: tuple[int, ...]) -> tuple[int, ...]:
    pairs = list(itertools.zip_longest(a[::-1], b[::-1], fillvalue=1))
    need(all(x == y or 1 in (x, y) for x, y in pairs), "shapes don't broadcast")
    return tuple(max(pair) for pair in pairs)[::-1]


class Part(NamedTuple):
    """A product of token sets and of intervals of the coordinates; of these, the inputs for which the `facts` hold:
    (node, entry, at, above), the entry is at least `at`, or at most."""

    tokens: list[list[int]]
    low: list[Fraction]
    high: list[Fraction]
    facts: tuple[tuple[int, int, Fraction, bool], ...] = ()


class Empty(Exception):
    """A part has no input."""


def at(ids: list[int], numbers: list[Fraction]) -> Part:
    return Part([[t] for t in ids], numbers, numbers)


# --- Evaluation ------------------------------------------------------------------------------------------------------


class Claim:
    """What is claimed, and the rules, applied to parts of its domain."""

    def __init__(self, claim: Any, weights: bytes, version: int = 5):
        self.version = version
        claim, union = optional(claim, "union", ABSENT)
        need(version >= 5 or union is ABSENT, "a union before version 5")
        self.added = False  # whether values that only the kernel numbers may be named
        kind, architecture, semantics, digest, domain, graph, self.site, self.position, where, cases, least, most = (
            fields(claim, "kind", "architecture", "semantics", "weights_sha256", "domain", "graph", "site", "position",
                   "where", "cases", "at_least", "at_most"))  # fmt: skip
        need((kind, architecture, semantics) == ("bounds", "captured", "real"), "kind, architecture or semantics")
        need(digest == hashlib.sha256(weights).hexdigest(), "other weights")
        tokens, values, inputs = fields(domain, "tokens", "values", "inputs")
        values = [integer(v) for v in items(values)]
        self.domain = Part([[integer(t, 0, len(values) - 1) for t in items(ids)] for ids in items(tokens)], [], [])
        need(len(self.domain.tokens) <= 1024, "length")
        need(all(ids and ids == sorted(set(ids)) for ids in self.domain.tokens), "token ids ascend, at least one")
        need(self.domain.tokens or inputs, "a domain of nothing")
        shapes = []
        for row in items(inputs):
            shape, *corners = items(row, 3)
            shapes.append(a_shape(shape))
            for end, corner in zip((self.domain.low, self.domain.high), corners, strict=True):
                end += [a_float(v) for v in items(corner, math.prod(shapes[-1]))]
        need(all(a <= b for a, b in zip(self.domain.low, self.domain.high, strict=True)), "low <= high")
        self.shapes, self.tensors = shapes, read_tensors(weights)
        self.boxes = None if union is ABSENT else self._boxes(union)
        graph, compared = optional(graph, "compared", UNCOMPARED)
        rows, sites, replayed = fields(graph, "nodes", "sites", "replayed")
        self.graph = Graph(rows, self.tensors, shapes, len(self.domain.tokens), values)
        named = [(name, integer(n, 0, len(self.graph.nodes) - 1)) for name, n in (items(s, 2) for s in items(sites))]
        need(all(type(name) is str for name, _ in named) and len(dict(named)) == len(named), "names of sites")
        module, count, difference = fields(replayed, "module", "inputs", "difference")
        need(type(module) is str and integer(count, 0) >= 0 and a_number(difference) is not None, "replayed")
        dtype, count, *numbers = fields(compared, "dtype", "inputs", "difference", "tolerance")
        need(dtype in [f"torch.{t}" for t in ("float16", "bfloat16", "float32", "float64")], "compared")
        need(integer(count, 0) >= 0 and all(a_number(n) is not None for n in numbers), "compared")
        need(type(self.site) is str and self.site in dict(named), "site")
        for name in [*items(where), *items(cases)]:
            need(type(name) is str and name in dict(named), "a condition is a site")
            need(self.graph.nodes[dict(named)[name]].kind == "real", "a condition of numbers")
        self.where = [dict(named)[name] for name in where]
        self.output = dict(named)[self.site]
        node = self.graph.nodes[self.output]
        need(node.kind == "real", "a site of numbers")
        self.outputs = math.prod(node.shape)
        if self.position is not None:
            need(node.shape, "a site without an axis")
            integer(self.position, 0, node.shape[0] - 1)
            self.outputs //= node.shape[0]
        self.least, self.most = (self._thresholds(t) for t in (least, most))
        self.attained: list[list[Interval]] = []  # at points

    def _boxes(self, union: Any) -> list[tuple[list[Fraction], list[Fraction]]]:
        """Of a union: its corners, each box inside the domain's intervals."""
        least, most = self.domain.low, self.domain.high
        need(least and 1 <= len(items(union)) <= 2**16, "a union of real inputs")
        found = []
        for box in union:
            low, high = ([a_float(v) for v in items(end, len(least))] for end in items(box, 2))
            inside = all(a <= b <= c <= d for a, b, c, d in zip(least, low, high, most, strict=True))
            need(inside, "a box that is empty, or not within the domain")
            found.append((low, high))
        return found

    def in_boxes(self, part: Part) -> list[Part]:
        """What a part has in common with each box that it meets."""
        need(self.boxes is not None, "no union is claimed about")
        found = []
        for low, high in self.boxes:
            low, high = [*map(max, low, part.low)], [*map(min, high, part.high)]
            if all(a <= b for a, b in zip(low, high, strict=True)):
                found.append(part._replace(low=low, high=high))
        need(found, "a part that no box meets")
        return found

    def _thresholds(self, value: Any) -> list[Fraction] | None:
        if value is None:
            return None
        if type(value) is str:
            confirm(self.outputs <= SIZE, "too many outputs for this checker")
            return [a_number(value)] * self.outputs
        return [a_number(v) for v in items(value, self.outputs)]

    def values(self, part: Part) -> list[Value]:
        """The claim's output on a part."""
        start = 0 if self.position is None else self.position * self.outputs
        return self._all(part, self.output)[start : start + self.outputs]

    def _all(self, part: Part, root: int) -> list[Value]:
        done: dict[int, list] = {}
        for n in self.graph.ancestors([root]):
            node = self.graph.nodes[n]
            confirm(math.prod(node.shape) <= SIZE, "a value too large for this checker")
            try:
                done[n] = self._computed(node, [done[a] for a in node.args], part)
            except Rejected as e:  # here: a limit of this checker
                raise NotConfirmed(str(e)) from e
            for m, entry, cut, above in part.facts:
                if m == n:
                    low, high = (cut, INFINITY) if above else (-INFINITY, cut)
                    done[n] = [v.within(low, high) if i == entry else v for i, v in enumerate(done[n])]
        return done[root]

    def _computed(self, node: Node, args: list[list], part: Part) -> list:
        attr, shapes = node.attr, [self.graph.nodes[a].shape for a in node.args]
        match node.op:
            case "tokens":
                return list(range(self.graph.length))
            case "value":
                return [frozenset(self.graph.values[t] for t in part.tokens[attr])]
            case "integer":
                return [frozenset([attr])]
            case op if op in OPERATIONS:
                combinations = math.prod(len(a[0]) for a in args)
                confirm(combinations <= SIZE, "an integer of too many values")
                return [frozenset(OPERATIONS[op][-1](list(x), attr) for x in itertools.product(*(a[0] for a in args)))]
            case "pi":
                return [fixed(Interval(PI - TINY, PI + TINY))]
            case "number":
                return [fixed(Interval(Fraction(min(args[0][0])), Fraction(max(args[0][0]))))]
            case "pick":
                size = math.prod(node.shape)
                slices = [args[0][i * size : (i + 1) * size] for i in args[1][0]]
                alone = len(slices) == 1
                return (
                    slices[0] if alone else [fixed(hull([v.range for v in some])) for some in zip(*slices, strict=True)]
                )
            case "input":
                start = sum(math.prod(s) for s in self.shapes[: attr[0]])
                return [coordinate(i, part) for i in range(start, start + math.prod(node.shape))]
            case "weight":
                whole, numbers = self.tensors[attr[0]]
                return [fixed(Interval(numbers[flat(i, whole)])) for i in itertools.product(*map(range, node.shape))]
            case "constant":
                return [fixed(Interval(v)) for v in attr[1]]
            case "gather":
                return [row for position in args[1] for row in self._rows(node.args[0], position, part)]
            case "view":
                shape, offset, strides = attr
                places = itertools.product(*map(range, shape))
                return [args[0][offset + sum(i * s for i, s in zip(p, strides, strict=True))] for p in places]
            case "concat":
                width = [math.prod(s[attr:]) for s in shapes]
                rows = range(math.prod(node.shape[:attr]))
                return [v for r in rows for a, w in zip(args, width, strict=True) for v in a[r * w : (r + 1) * w]]
            case "extremum" | "ascending":
                n = shapes[0][-1]
                rows = [in_order(args[0][i : i + n]) for i in range(0, len(args[0]), n)]
                if node.op == "ascending":
                    return [v for row in rows for v in row]
                return [row[-1 if attr == "max" else 0] for row in rows]
            case "add" | "sub" | "mul" | "choose":
                pairs = []
                for p in itertools.product(*map(range, node.shape)):
                    pairs.append([a[flat([0 if n == 1 else i for i, n in zip(p[len(p) - len(s) :], s, strict=True)], s)]
                                  for a, s in zip(args, shapes, strict=True)])  # fmt: skip
                if node.op == "choose":
                    return [chosen(*operands) for operands in pairs]
                if node.op == "mul":
                    return [product(x, y) for x, y in pairs]
                return [linear([(1, x), (1 if node.op == "add" else -1, y)]) for x, y in pairs]
            case "over_root":
                factor = fixed(ONE / root(attr))
                return [product(x, factor) for x in args[0]]
            case "einsum":
                return contraction(attr, args, shapes)
            case "softmax":
                return [p for r in range(math.prod(node.shape[:-1])) for p in softmax(node, r, args[0])]
        return [image(*function_of(node.op, attr), x) for x in args[0]]

    def _rows(self, table: int, position: int, part: Part) -> list[Value]:
        """A row of the table, by the token at the position."""
        name, shape = self.graph.nodes[table].attr
        if self.graph.nodes[table].op == "constant":
            whole = shape = self.graph.nodes[table].shape
            numbers = self.graph.nodes[table].attr[1]
        else:
            whole, numbers = self.tensors[name]
        result = []
        for i in itertools.product(*map(range, shape[1:])):
            row = {t: numbers[flat((t, *i), whole)] for t in part.tokens[position]}
            one = len(row) == 1
            result.append(fixed(Interval(next(iter(row.values())))) if one
                          else Value(Fraction(0), {(position, t): v for t, v in row.items()}))  # fmt: skip
        return result

    # --- Rules -------------------------------------------------------------------------------------------------------

    def prove(self, proof: Any, part: Part, target: "Range") -> tuple["Range", "Range"]:
        """What is proved of the part, and what no rule can beat: a hull of values that are reached there."""
        rule = proof.get("rule") if type(proof) is dict else None
        match rule:
            case "linear" | "farkas" | "interval" if self.version < 5:
                self._witness(proof, {"linear": ["lines"], "farkas": ["lines", "multipliers"], "interval": []}[rule])
                return self.linear(part, target)
            case "relaxation" if self.version >= 5:
                self._witness(proof, [name for name in ("lines", "multipliers") if name in proof])
                return self.linear(part, target)
            case "point":
                self.point(part, fields(proof, "rule", "inputs")[1])
                return self.nothing(), self.nothing()
            case "both":
                _, first, second = fields(proof, "rule", "first", "second")
                found = [self.prove(p, part, target) for p in (first, second)]
                return tuple([meet(a, b) for a, b in zip(*pair, strict=True)] for pair in zip(*found, strict=True))
            case "union" if self.version >= 5:
                parts, (_, proofs) = self.in_boxes(part), fields(proof, "rule", "parts")
                found = [self.prove(p, own, target) for p, own in zip(items(proofs, len(parts)), parts, strict=True)]
                return tuple([hull([*row]) for row in zip(*rows, strict=True)] for rows in zip(*found, strict=True))
            case "differences" if self.version >= 5:  # another graph of the same values, which only the kernel needs
                need(not part.facts, "differences below a split at a value")
                (_, inner), before = fields(proof, "rule", "proof"), (self.added, self.attained)
                self.added, self.attained = True, []  # what it shows at points refutes nothing
                try:
                    return self.prove(inner, part, target)
                finally:
                    self.added, self.attained = before
            case "ratios" if self.version >= 5:
                self._trials(proof, part)
                found = self.every(part)
                return found, found
            case "nested" if self.version >= 5:
                _, other = fields(proof, "rule", "other")
                need(not part.low and not part.facts, "rule nested of real inputs")
                need(self.outputs == 1, "rule nested of several entries")
                integer(0 if other is None else other, 0, len(part.tokens) - 1)
                found = self.every(part)
                return found, found
            case "split" if "node" in proof and self.added and integer(proof["node"]) >= len(self.graph.nodes):
                _, _, entry, at, inside, outside = fields(proof, "rule", "node", "entry", "at", "inside", "outside")
                integer(entry, 0), a_float(at)
                found = [self.prove(p, part, target) for p in (inside, outside)]
                return tuple([hull([a, b]) for a, b in zip(*pair, strict=True)] for pair in zip(*found, strict=True))
            case "split" if "node" in proof and self.version >= 5:
                _, node, entry, cut, inside, outside = fields(proof, "rule", "node", "entry", "at", "inside", "outside")
                node = integer(node, 0, len(self.graph.nodes) - 1)
                need(self.graph.nodes[node].kind == "real", "a split at a real value")
                entry = integer(entry, 0, math.prod(self.graph.nodes[node].shape) - 1)
                found = []
                for half, above in ((inside, False), (outside, True)):
                    facts = (*part.facts, (node, entry, a_float(cut), above))
                    found.append(self.prove(half, part._replace(facts=facts), target))
                return tuple([hull([a, b]) for a, b in zip(*pair, strict=True)] for pair in zip(*found, strict=True))
            case "split" if "node" in proof:  # of numbers that only the kernel knows
                _, node, entry, cut, inside, outside = fields(proof, "rule", "node", "entry", "at", "inside", "outside")
                integer(node), integer(entry, 0), a_float(cut)
                found = [self.prove(p, part, target) for p in (inside, outside)]
                proved = [hull([a, b]) for a, b in zip(*(pair[0] for pair in found), strict=True)]
                return proved, self.nothing()
            case "split":
                names = ("position", "first") if "position" in proof else ("coordinate", "at")
                _, which, how, inside, outside = fields(proof, "rule", *names, "inside", "outside")
                cut = self.by_token if "position" in proof else self.by_number
                halves = cut(part, which, how)
                found = [self.prove(p, half, target) for p, half in zip((inside, outside), halves, strict=True)]
                return tuple([hull([a, b]) for a, b in zip(*pair, strict=True)] for pair in zip(*found, strict=True))
        raise Rejected("unknown rule")

    def _trials(self, leaf: dict, part: Part) -> None:
        """Of what rule ratios is told no more is read than that it has its form."""
        _, trials, points = fields(leaf, "rule", "trials", "points")
        need(not part.low and not part.facts, "rule ratios of real inputs")
        sought = 0
        for end in fields(trials, "low", "high"):
            sought += sum(v is not None and a_float(v) is not None for v in items(end, self.outputs))
        for rows in [] if points is None else items(points):
            for row in items(rows, sought):
                [integer(t, 0) for t in items(row, len(part.tokens))]

    def every(self, part: Part) -> "Range":
        """What no rule can beat, by every sequence of a part."""
        confirm(math.prod(map(len, part.tokens)) <= SEQUENCES, "too many sequences for this checker")
        each = [[v.range for v in self.values(at([*ids], []))] for ids in itertools.product(*part.tokens)]
        return [hull([*column]) for column in zip(*each, strict=True)]

    def nothing(self) -> "Range":
        return [Interval(-INFINITY, INFINITY)] * self.outputs

    def _witness(self, leaf: dict, names: list[str]) -> None:
        """Of its lines and multipliers no more is read than that they are some."""
        known = ("shared",) if leaf["rule"] in ("linear", "farkas") else ("shared", "whole")
        flags = [name for name in known if name in leaf and "lines" in names]
        _, *witness = fields(leaf, "rule", *names, *flags)
        need("lines" in names or not names, "multipliers without lines")
        need(all(type(leaf[name]) is bool for name in flags), "flags")
        for name, given, lists in zip(names, witness, (2, 1), strict=False):
            for row in [] if given is None and name == "lines" else items(given):
                start, node, exponent, *numbers = items(row, 3 + lists)
                self._called(start), self._called(node), integer(exponent)
                need(len({len([integer(v) for v in items(n)]) for n in numbers}) == 1, name)

    def _called(self, value: Any) -> None:
        """A name of one of the kernel's values."""
        if self.version < 5:
            integer(value)
            return
        form = r"(?:output|(0|[1-9]\d*)(?:\[((?::|0|[1-9]\d*)(?:,(?::|0|[1-9]\d*))*)\])?(?:\.[a-z]+)?)"
        match = re.fullmatch(form, value, re.ASCII) if type(value) is str else None
        need(match, "a name of a value")
        if value != "output":
            if self.added and int(match[1]) >= len(self.graph.nodes):
                return
            number = integer(int(match[1]), 0, len(self.graph.nodes) - 1)
            need(not match[2] or match[2].count(",") + 1 == len(self.graph.nodes[number].shape), "a slice")

    def point(self, part: Part, inputs: Any) -> None:
        for row in items(inputs):
            ids, numbers = items(row, 2)
            ids = [integer(t) for t in items(ids, len(part.tokens))]
            numbers = [a_float(v) for v in items(numbers, len(part.low))]
            need(all(t in here for t, here in zip(ids, part.tokens, strict=True)), "a point outside the part")
            need(
                all(a <= x <= b for a, x, b in zip(part.low, numbers, part.high, strict=True)),
                "a point outside the part",
            )
            inside = [
                all(a <= x <= b for a, x, b in zip(low, numbers, high, strict=True)) for low, high in self.boxes or []
            ]
            need(self.boxes is None or any(inside), "a point in no box of the union")
            try:
                need(self.allowed(at(ids, numbers)), "a point that may not satisfy the conditions")
                self.attained.append([v.range for v in self.values(at(ids, numbers))])
            except NotConfirmed:
                self.attained.append(self.nothing())
        need(inputs, "at least one point")

    def allowed(self, place: Part, facts: tuple = ()) -> bool:
        """An input surely satisfies the claim's conditions, and surely lies where the facts hold."""
        for n, entry, cut, above in facts:
            known = self._all(place, n)[entry]
            if not (known.lo >= cut if above else known.hi <= cut):
                return False
        return all(v.range.lo >= 0 for n in self.where for v in self._all(place, n))

    def by_token(self, part: Part, position: Any, first: Any) -> list[Part]:
        position, ids = integer(position, 0, len(part.tokens) - 1), {integer(t) for t in items(first)}
        halves = [[t for t in part.tokens[position] if (t in ids) is chosen] for chosen in (True, False)]
        need(all(halves), "an empty part")
        return [part._replace(tokens=[*part.tokens[:position], h, *part.tokens[position + 1 :]]) for h in halves]

    def by_number(self, part: Part, coordinate: Any, where: Any) -> list[Part]:
        i, cut = integer(coordinate, 0, len(part.low) - 1), a_float(where)
        need(part.low[i] <= cut <= part.high[i], "a cut outside the interval")
        return [part._replace(high=[*part.high[:i], cut, *part.high[i + 1 :]]),
                part._replace(low=[*part.low[:i], cut, *part.low[i + 1 :]])]  # fmt: skip

    def linear(self, part: Part, target: "Range") -> tuple["Range", "Range"]:
        """The range by affine arithmetic, on cells as many as are worth while; and what is reached at some inputs."""
        todo, proved, cells = [part], None, 0
        places = [at([t[0] for t in part.tokens], part.low), at([t[-1] for t in part.tokens], part.high)]
        while todo:
            cell, cells = todo.pop(), cells + 1
            try:
                found = self.values(cell)
                ranges, open_ = (
                    [v.range for v in found],
                    [v for v, t in zip(found, target, strict=True) if not within(v, t)],
                )
            except NotConfirmed:
                found, ranges, open_ = [], self.nothing(), []
            except Empty:
                found, ranges, open_ = [], [Interval(INFINITY, -INFINITY)] * self.outputs, []
            halves = self._halves(cell, open_) if cells + len(todo) < CELLS else []
            todo += halves
            if not halves:
                proved = ranges if proved is None else [hull([a, b]) for a, b in zip(proved, ranges, strict=True)]
            places += [corner(cell, v, up) for v in open_[:2] for up in (False, True)]
        return proved, self._reached(places, part.facts)

    def _halves(self, cell: Part, open_: list[Value]) -> list[Part]:
        """Cut where the values depend most on the input; nowhere if all is proved, or nothing left to cut."""
        moves: dict[Symbol, Fraction] = {}
        for i in range(len(cell.low)):
            if cell.low[i] < cell.high[i]:
                moves[i] = sum((2 * abs(v.k.get(i, 0)) for v in open_), Fraction(0))
        for i, ids in enumerate(cell.tokens):
            if len(ids) > 1:
                shares = [[v.k.get((i, t), Fraction(0)) for t in ids] for v in open_]
                moves[i, 0] = sum((max(k) - min(k) for k in shares), Fraction(0))
        if not open_ or not moves:
            return []
        most = max(moves, key=lambda i: moves[i])
        if type(most) is tuple:
            return self.by_token(cell, most[0], cell.tokens[most[0]][: len(cell.tokens[most[0]]) // 2])
        middle = float((cell.low[most] + cell.high[most]) / 2)
        return self.by_number(cell, most, min(max(middle, float(cell.low[most])), float(cell.high[most])).hex())

    def _reached(self, places: list[Part], facts: tuple) -> "Range":
        """No sound range is narrower than the hull of enclosed values, each by what is sure of it."""
        low, high = [INFINITY] * self.outputs, [-INFINITY] * self.outputs
        for place in places:
            try:
                if not self.allowed(place, facts):
                    continue
                found = self.values(place)
            except NotConfirmed:
                continue
            low, high = ([f(a, b) for a, b in zip(ends_, side, strict=True)] for f, ends_, side in (
                (min, low, [v.hi for v in found]), (max, high, [v.lo for v in found])))  # fmt: skip
        return [Interval(a, b) for a, b in zip(low, high, strict=True)]


Range = list[Interval]


def coordinate(i: int, part: Part) -> Value:
    low, high = part.low[i], part.high[i]
    return Value((low + high) / 2, {i: (high - low) / 2} if low < high else {}, low, high)


def flat(index: Iterable[int], shape: Iterable[int]) -> int:
    result = 0
    for i, n in zip(index, shape, strict=True):
        result = result * n + i
    return result


def within(v: Value, target: Interval) -> bool:
    return target.lo <= v.lo and v.hi <= target.hi


def corner(cell: Part, v: Value, up: bool) -> Part:
    """Where the value's affine part is largest, or smallest."""

    def best(i: int) -> Fraction:
        return cell.high[i] if (v.k.get(i, 0) > 0) == up else cell.low[i]

    def token(position: int) -> int:
        chosen = max if up else min
        return chosen(cell.tokens[position], key=lambda t: v.k.get((position, t), 0))

    return at([token(p) for p in range(len(cell.tokens))], [best(i) for i in range(len(cell.low))])


def contraction(attr: str, args: list[list[Value]], shapes: list[tuple[int, ...]]) -> list[Value]:
    *terms, result = attr.replace("->", ",").split(",")
    sizes = {c: n for term, s in zip(terms, shapes, strict=True) for c, n in zip(term, s, strict=True)}
    summed = [c for c in sizes if c not in result]
    confirm(math.prod(sizes.values()) <= SIZE, "a contraction too large for this checker")
    entries = []
    for outer in itertools.product(*(range(sizes[c]) for c in result)):
        total = []
        for inner_ in itertools.product(*(range(sizes[c]) for c in summed)):
            place = dict(zip([*result, *summed], [*outer, *inner_], strict=True))
            x, y = (a[flat([place[c] for c in term], s)] for a, term, s in zip(args, terms, shapes, strict=True))
            total.append((x.c, y) if not x.k else (y.c, x) if not y.k else (1, product(x, y)))
        entries.append(linear(total))
    return entries


def in_order(row: list[Value]) -> list[Value]:
    """Neighbours exchanged until nothing moves: the i-th lies between the i-th ends, too."""
    row, ends = [*row], [sorted(getattr(v, end) for v in row) for end in ("lo", "hi")]
    for last in range(len(row) - 1, 0, -1):
        for i in range(last):
            more = image(*function_of("relu", None), linear([(1, row[i]), (-1, row[i + 1])]))
            row[i : i + 2] = linear([(1, row[i]), (-1, more)]), linear([(1, row[i + 1]), (1, more)])
    return [v.within(low, high) for v, low, high in zip(row, *ends, strict=True)]


def chosen(x: Value, y: Value, above: Value, other: Value) -> Value:
    difference = linear([(1, x), (-1, y)])
    if difference.lo > 0:
        return above
    return other if difference.hi <= 0 else fixed(hull([above.range, other.range]))


def softmax(node: Node, row: int, scores: list[Value]) -> list[Value]:
    """p_i = 1 / sum_j e^(s_j - s_i) over kept entries."""
    n = node.shape[-1]
    if node.attr == "causal":
        keep = [i <= row % node.shape[-2] for i in range(n)]
    elif type(node.attr) is tuple:
        mask = node.attr[row % node.shape[-2] if len(node.attr) > 1 else 0]
        keep = [c == "1" for c in mask]
    else:
        keep = [i < node.attr for i in range(n)]
    s, result = scores[row * n : (row + 1) * n], []
    for i in range(n):
        terms = [image(exp, exp, linear([(1, s[j]), (-1, s[i])])) for j in range(n) if keep[j] and j != i]
        share = image(*FUNCTIONS["reciprocal"], linear([(1, x) for x in [fixed(ONE), *terms]]))
        result.append(share.clipped(0, 1) if keep[i] else fixed(constant(0)))
    return result


# --- The verdict -----------------------------------------------------------------------------------------------------


def check(data: bytes) -> dict[str, Any]:
    """The conclusion of a certificate, if it is confirmed; raises Rejected or NotConfirmed."""
    document, weights = members(data)
    form, version, claim, conclusion, axioms, proof = fields(
        announced(strict_json(document)), "format", "version", "claim", "conclusion", "axioms", "proof"
    )
    need(form == "mechverify-certificate" and integer(version) in (3, 4, 5), "format or version")
    need(axioms == ["ieee754", "capture"], "axioms")
    task = Claim(claim, weights, version)
    verdict, *ends_ = fields(conclusion, "verdict", "low", "high")
    low, high = ([nothing if v is None else a_float(v) for v in items(end, task.outputs)]
                 for end, nothing in zip(ends_, (-INFINITY, INFINITY), strict=True))  # fmt: skip
    stated = [Interval(a, b) for a, b in zip(low, high, strict=True)]
    try:
        proved, reached = task.prove(proof, task.domain, stated)
    except RecursionError as e:
        raise NotConfirmed("a proof too deep for this checker") from e
    need(all(a.lo <= b.lo and b.hi <= a.hi for a, b in zip(stated, reached, strict=True)), "not true of some input")
    _verdict(task, verdict, low, high)
    confirm(all(p.lo <= p.hi for p in proved), "no input is left")
    confirm(all(a.lo <= b.lo and b.hi <= a.hi for a, b in zip(stated, proved, strict=True)), "ranges too wide")
    return conclusion


def _verdict(task: Claim, verdict: Any, low: list, high: list) -> None:
    least, most = task.least or [-INFINITY] * task.outputs, task.most or [INFINITY] * task.outputs
    thresholds = task.least is not None or task.most is not None
    match verdict:
        case "PROVED":
            reached = all(a >= t for a, t in zip(low, least, strict=True)) and all(
                b <= t for b, t in zip(high, most, strict=True)
            )
            need(thresholds and reached, "verdict")
        case "REFUTED":
            pairs = [(v, a, b) for found in task.attained for v, a, b in zip(found, least, most, strict=True)]
            need(thresholds and any(v.lo < a or v.hi > b for v, a, b in pairs), "verdict")
            confirm(any(v.hi < a or v.lo > b for v, a, b in pairs), "a threshold that may be reached")
        case _:
            need(verdict == "BOUNDED", "verdict")
