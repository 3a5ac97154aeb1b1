"""A second checker of mechverify certificates, sharing nothing with the first.

Written from docs/certificate.md (the file, the model, the rules) and docs/soundness.md (what a float32 evaluation may
do) alone: plain Python, exact rationals, every input run by itself. It is slow, and meant for domains of some hundred
inputs; where two checkers that have only these pages in common agree, the pages say what the files mean.

Numbers are rational intervals. Sums and products are exact; only `exp`, roots and quotients round, outwards, to `BITS`
bits. `Real` and `Float32` are the two semantics: the second widens each operation by what a float32 program may add.
"""

import hashlib
import itertools
import json
import math
import re
import struct
import zlib
from collections.abc import Callable
from fractions import Fraction
from functools import cache, lru_cache, wraps
from typing import Any

BITS = 160
BIG = 2**62  # integers of the format are smaller
MEMBERS = (b"certificate.json", b"weights.safetensors")
ABSENT = object()


class Rejected(Exception):
    """The file is no certificate, or doesn't prove what it says."""


def need(condition: Any, why: str) -> None:
    if not condition:
        raise Rejected(why)


# --- The container and its members -----------------------------------------------------------------------------------


def members(data: bytes) -> list[bytes]:
    """The two members' contents. The one zip that holds them is written anew and compared."""
    need(len(data) <= 2**30, "file too large")
    contents, local, central, at = [], b"", b"", 0
    for name in MEMBERS:
        start = at + 30 + len(name)
        end = start + int.from_bytes(data[at + 18 : at + 22], "little")
        contents.append(content := data[start:end])
        # version needed, flags, method, time, date, checksum, both sizes, length of the name, of the extra field
        sizes = (len(content), len(content), len(name), 0)
        facts = struct.pack("<5H3I2H", 20, 0, 0, 0, 0x21, zlib.crc32(content), *sizes)
        local += b"PK\3\4" + facts + name + content
        central += b"PK\1\2" + struct.pack("<H", 20) + facts + struct.pack("<3H2I", 0, 0, 0, 0, at) + name
        at = end
    last = b"PK\5\6" + struct.pack("<4H2IH", 0, 0, 2, 2, len(central), len(local), 0)
    need(data == local + central + last, "not the one way to write these contents")
    need(len(contents[0]) <= 2**26, "certificate.json too large")
    return contents


def strict_json(data: bytes) -> Any:
    def refuse(text: str) -> None:
        raise Rejected(f"{text} in JSON")

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        need(len(dict(pairs)) == len(pairs), "duplicate key")
        return dict(pairs)

    try:
        return json.loads(data.decode("utf-8"), object_pairs_hook=unique, parse_float=refuse, parse_constant=refuse)
    except (ValueError, RecursionError) as e:
        raise Rejected(f"not JSON: {e}") from e


def fields(value: Any, *names: str) -> list[Any]:
    need(type(value) is dict and value.keys() == set(names), f"an object with the fields {names} is wanted")
    return [value[n] for n in names]


def items(value: Any, length: int | None = None) -> list[Any]:
    need(type(value) is list and length in (None, len(value)), "a list is wanted")
    return value


def optional(value: Any, name: str, default: Any) -> tuple[Any, Any]:
    """An object without a field, and the field's value."""
    value = dict(value) if type(value) is dict else {}
    return value, value.pop(name, default)


def integer(value: Any, low: int = 1 - BIG, high: int = BIG - 1) -> int:
    need(type(value) is int and low <= value <= high, f"an integer from {low} to {high} is wanted")
    return value


def number(text: Any, form: str) -> Fraction:
    need(type(text) is str and re.fullmatch(form, text), f"{text!r} is no number of the form {form}")
    try:
        return Fraction(text)
    except ValueError as e:  # Python reads no more than 4,300 digits
        raise Rejected("a number too long") from e


def margin_of(text: Any) -> Fraction:
    """A fraction, or a float64 as `float.hex` writes it; not negative."""
    if type(text) is not str or "x" not in text:
        value = number(text, "-?[0-9]+/[1-9][0-9]*")
    else:
        try:
            x = float.fromhex(text)
        except (ValueError, OverflowError) as e:
            raise Rejected("a margin is no number") from e
        need(math.isfinite(x) and x.hex() == text, "a margin isn't written as float.hex does")
        value = Fraction(x)
    need(value >= 0, "a negative margin")
    return value


FLOATS = {"F64": ("d", 8), "F32": ("f", 4), "F16": ("e", 2), "BF16": ("f", 2)}


def read_tensors(data: bytes) -> dict[str, tuple[list[int], list[Fraction]]]:
    """Name -> (shape, numbers in row-major order) of a safetensors file."""
    length = int.from_bytes(data[:8], "little")
    need(length <= 2**22 and len(data) >= 8 + length, "safetensors header")
    header, body = strict_json(data[8 : 8 + length]), data[8 + length :]
    need(type(header) is dict, "safetensors header is no object")
    header.pop("__metadata__", None)
    tensors, spans = {}, []
    for name, entry in header.items():
        dtype, shape, offsets = fields(entry, "dtype", "shape", "data_offsets")
        start, end = (integer(o, 0, len(body)) for o in items(offsets, 2))
        spans.append((start, end))
        buffer = re.fullmatch(r"blocks\.[0-9]+\.attn\.(mask|IGNORE)", name)
        need(dtype in (*FLOATS, *(("BOOL", "U8") if buffer else ())), f"type of {name}")
        code, width = {**FLOATS, "BOOL": ("B", 1), "U8": ("B", 1)}[dtype]
        size, raw = math.prod(integer(n, 0) for n in items(shape)), body[start:end]
        need(len(raw) == size * width, f"size of {name}")
        if dtype == "BF16":  # the upper half of a float32
            raw = b"".join(b"\0\0" + raw[i : i + 2] for i in range(0, len(raw), 2))
        values = struct.unpack(f"<{size}{code}", raw)
        if buffer and buffer[1] == "IGNORE":
            need(all(v <= -10_000 for v in values), f"{name} leaves masked scores a weight")
            continue
        if buffer:
            n = shape[-1] if shape else 0
            need(n > 0 and values == tuple(float(j <= i) for i in range(n) for j in range(n)), f"{name} isn't causal")
            continue
        need(all(map(math.isfinite, values)), f"{name} is not finite")
        tensors[name] = (shape, [Fraction(x) for x in values])
    ends = [0] + [x for span in sorted(spans) for x in span] + [len(body)]
    need(ends[::2] == ends[1::2] and ends == sorted(ends), "tensors don't fill the file")
    return tensors


# --- Intervals -------------------------------------------------------------------------------------------------------


class Interval:
    """All reals from lo to hi."""

    __slots__ = ("hi", "lo")

    def __init__(self, lo: Fraction, hi: Fraction | None = None):
        self.lo, self.hi = lo, lo if hi is None else hi

    def __add__(self, other: "Interval") -> "Interval":
        return Interval(self.lo + other.lo, self.hi + other.hi)

    def __sub__(self, other: "Interval") -> "Interval":
        return Interval(self.lo - other.hi, self.hi - other.lo)

    def __mul__(self, other: "Interval") -> "Interval":
        if self.lo == self.hi:  # exact, as weights are
            self, other = other, self
        ends = [self.lo * other.lo, self.hi * other.lo]
        if other.lo != other.hi:
            ends += [self.lo * other.hi, self.hi * other.hi]
        return Interval(min(ends), max(ends))

    def __truediv__(self, other: "Interval") -> "Interval":
        """By a positive interval."""
        ends = [a / b for a in (self.lo, self.hi) for b in (other.lo, other.hi)]
        return Interval(min(ends), max(ends)).short()

    def size(self) -> Fraction:
        return max(abs(self.lo), abs(self.hi))

    def widened(self, by: Fraction) -> "Interval":
        return Interval(self.lo - by, self.hi + by)

    def short(self) -> "Interval":
        return Interval(-_up(-self.lo), _up(self.hi))


Vector = list[Interval]
Place = tuple[int, int]  # a token and its position
ZERO = Interval(Fraction(0))


def relu(x: Interval) -> Interval:
    return Interval(max(x.lo, Fraction(0)), max(x.hi, Fraction(0)))


def _times(v: Vector, by: Fraction) -> Vector:
    return [Interval(x.lo * by, x.hi * by) for x in v]  # by is positive


def _log2(x: Fraction) -> int:
    """A little more than the logarithm of a number, 0 for 0."""
    return x.numerator.bit_length() - x.denominator.bit_length() + 1 if x else 0


def _up(x: Fraction) -> Fraction:
    """The next number of BITS bits from x on; short numbers stay as they are."""
    p, q = x.numerator, x.denominator
    if p.bit_length() <= BITS and q.bit_length() <= BITS:
        return x
    shift = BITS - p.bit_length() + q.bit_length()
    return Fraction(-(-(p << shift) // q), 1 << shift) if shift >= 0 else Fraction(-(-p // (q << -shift)) << -shift)


@lru_cache
def root(n: int) -> Interval:
    low = math.isqrt(n << 2 * BITS)
    return Interval(Fraction(low, 2**BITS), Fraction(low + (low * low != n << 2 * BITS), 2**BITS))


# 2 atanh(1/3), short by less than 2^-999: the sum's terms shrink by more than 9, so the rest is below the last one.
LN2 = Fraction(int(2**1001 * sum(Fraction(1, n * 3**n) for n in range(1, 661, 2))), 2**1000)


@lru_cache(2**16)
def exponential(x: Fraction) -> tuple[int, int, int]:
    """(k, a, b) with a 2^(k - 200) <= e^x <= b 2^(k - 200)."""
    if x == 0:
        return 0, 2**200, 2**200
    need(abs(x) < 2**600, "exponent too large for this checker")
    k = round(x / LN2)
    r = math.floor((x - k * LN2) * 2**200)
    # |r| < 2^199, and the true remainder lies within 2 units of it, as k ln 2 is known to 2^-390. The two floors lose a
    # unit each, and the errors before them at least halve: less than 4 a term. The terms left out are below 2^-300.
    total, term = 0, 2**200
    for n in range(1, 61):
        total += term
        term = (term * r >> 200) // n
    return k, total - 2**10, total + 2**10


def scaled_exp(s: Interval, c: int) -> Interval:
    """2^-c e^s, where of what is smaller than 2^-6000 only that is kept."""

    def end(x: Fraction, upper: bool) -> Fraction:
        k, a, b = exponential(x)
        need(k - c < 10**5, "factor too large for this checker")
        if k - c < -6000:
            return Fraction(int(upper), 2**5999)
        return (b if upper else a) * Fraction(2) ** (k - c - 200)

    return Interval(end(s.lo, False), end(s.hi, True))


def binary_exponent(s: Interval) -> int:
    """The integer nearest to s / ln 2, at the middle of s."""
    return math.floor((s.lo + s.hi) / 2 / LN2 + Fraction(1, 2))


# --- The two semantics -----------------------------------------------------------------------------------------------


class Real:
    """The formula over the real numbers."""

    def weight(self, x: Fraction) -> Interval:
        return Interval(x)

    def add(self, a: Vector, b: Vector, sums: tuple[int, int] = (0, 0)) -> Vector:
        """`sums`: how many products a and b are sums of, if they are; the other one may start that sum."""
        return [x + y for x, y in zip(a, b, strict=True)]

    def dot(self, a: Vector, b: Vector) -> Interval:
        return sum((x * y for x, y in zip(a, b, strict=True)), ZERO)

    def over_root(self, x: Interval, n: int) -> Interval:
        return x / root(n)

    def scores(self, scores: dict[Any, Interval]) -> dict[Any, Interval]:
        """Softmax of the computed scores, as the program computes it, is the exact softmax of these."""
        return scores

    def softmax(self, scores: Vector) -> Vector:
        scores = list(self.scores(dict(enumerate(scores))).values())
        c = max(map(binary_exponent, scores))
        e, pattern = [scaled_exp(s, c) for s in scores], []
        for i, x in enumerate(e):  # x / (x + rest) grows with x and falls with the rest
            rest = sum(e[:i] + e[i + 1 :], ZERO)
            low = x.lo / (x.lo + rest.hi) if x.lo else x.lo
            pattern.append(Interval(low, x.hi / (x.hi + rest.lo)).short())
        return pattern

    def attended(self, values: dict[Place, Vector], n: int) -> dict[Place, Vector]:
        """What the n computed probabilities make of the values is what the exact ones make of these."""
        return values

    def passed(self, a: Vector, n: int = 0) -> Vector:
        """An attended value's share in a sum with something that doesn't depend on it, maybe a sum of n products."""
        return a


class Float32(Real):
    """Every float32 evaluation of the formula; the recipe is docs/soundness, lemmas O1 and F1."""

    V = Fraction(129, 128 * 2**24)
    F = Fraction(1, 2**126)

    def weight(self, x: Fraction) -> Interval:
        try:
            rounded = struct.unpack("<f", struct.pack("<f", float(x)))[0]
        except OverflowError as e:
            raise Rejected("a weight is no float32 number") from e
        need(rounded == x, "a weight is no float32 number")
        return Interval(x)

    def held(self, x: Interval) -> Interval:
        need(x.size() < 2**125, "may come near overflow")
        return x.short()

    def add(self, a: Vector, b: Vector, sums: tuple[int, int] = (0, 0)) -> Vector:
        total = self.passed(super().add(a, b))
        for n, other in zip(sums, (b, a), strict=True):
            if n:
                total = [x.widened((n + 1) * self.V * y.size() + self.F) for x, y in zip(total, other, strict=True)]
        return total

    def dot(self, a: Vector, b: Vector) -> Interval:
        n, sizes = len(a), sum(x.size() * y.size() for x, y in zip(a, b, strict=True))
        need(n <= 2**15 and sizes < 2**125, "may come near overflow")
        return self.held(super().dot(a, b).widened((n + 1) * self.V * sizes + 3 * n * self.F))

    def over_root(self, x: Interval, n: int) -> Interval:
        z = super().over_root(x, n)
        return self.held(z.widened(3 * self.V * z.size() + 3 * self.F))

    def scores(self, scores: dict[Any, Interval]) -> dict[Any, Interval]:
        by = 2 * self.V * max(s.size() for s in scores.values()) + Fraction(1, 2**20) + self.F
        return {key: s.widened(by) for key, s in scores.items()}

    def softmax(self, scores: Vector) -> Vector:
        by = (len(scores) + 4) * self.V
        return [p.widened(by * p.size() + 4 * self.F) for p in super().softmax(scores)]

    def attended(self, values: dict[Place, Vector], n: int) -> dict[Place, Vector]:
        flat = 8 * n * self.F * (max(x.size() for v in values.values() for x in v) + 1)
        return {at: [x.widened((2 * n + 5) * self.V * x.size() + flat) for x in v] for at, v in values.items()}

    def passed(self, a: Vector, n: int = 0) -> Vector:
        times = n + 2 if n else 1
        return [self.held(x.widened(times * (self.V * x.size() + self.F))) for x in a]


# --- The model -------------------------------------------------------------------------------------------------------


def kept(method: Callable) -> Callable:
    """Compute a method once for each list of arguments."""

    @wraps(method)
    def lookup(self: Any, *key: Any) -> Any:
        if (method, key) not in self.known:
            self.known[method, key] = method(self, *key)
        return self.known[method, key]

    return lookup


class Form:
    """base + sum_i p_i shares[x_i, i] + sum_k relu(z_k) shares[k]: p the attention's probabilities, z_k the neurons."""

    def __init__(self, base: Vector, shares: dict[Place | int, Vector]):
        self.base, self.shares = base, shares


class Model:
    """The transformer, run on prefixes: a row depends on the tokens up to its own."""

    mlp = False

    def __init__(self, tensors: dict[str, tuple[list[int], list[Fraction]]], semantics: Real):
        self.of, self.left, self.known = semantics, tensors, {}
        self.W_E, (self.vocab, self.d) = self.take("embed.W_E", None, None)
        self.W_pos, (self.context, _) = self.take("pos_embed.W_pos", None, self.d)
        self.blocks, self.heads, self.e, self.m = [], None, None, None
        while not self.blocks or any(name.startswith(f"blocks.{len(self.blocks)}.") for name in self.left):
            at, block = f"blocks.{len(self.blocks)}.attn.", {}
            block["W_Q"], (self.heads, _, self.e) = self.take(at + "W_Q", self.heads, self.d, self.e)
            for name in "W_K", "W_V":
                block[name], _ = self.take(at + name, self.heads, self.d, self.e)
            for name in "b_Q", "b_K", "b_V":
                block[name], _ = self.take(at + name, self.heads, self.e, optional=True)
            block["W_O"], _ = self.take(at + "W_O", self.heads, self.e, self.d)
            block["b_O"], _ = self.take(at + "b_O", self.d, optional=True)
            if self.mlp:
                at = f"blocks.{len(self.blocks)}.mlp."
                block["W_in"], (_, self.m) = self.take(at + "W_in", self.d, self.m)
                block["b_in"], _ = self.take(at + "b_in", self.m, optional=True)
                block["W_out"], _ = self.take(at + "W_out", self.m, self.d)
                block["b_out"], _ = self.take(at + "b_out", self.d, optional=True)
            self.blocks.append(block)
        self.W_U, (_, self.out) = self.take("unembed.W_U", self.d, None)
        self.b_U, _ = self.take("unembed.b_U", self.out, optional=True)
        need(not self.left, f"unknown tensors {list(self.left)}")

    def take(self, name: str, *sizes: int | None, optional: bool = False) -> tuple[Any, list[int]]:
        """A tensor as nested lists, and its shape; None in `sizes` stands for any positive size."""
        if optional and name not in self.left:
            return None, []
        need(name in self.left, f"{name} is missing")
        shape, numbers = self.left.pop(name)
        fits = len(shape) == len(sizes) and all(n > 0 and m in (None, n) for n, m in zip(shape, sizes, strict=True))
        need(fits, f"shape of {name}")
        nested: list[Any] = [self.of.weight(x) for x in numbers]
        for n in shape[:0:-1]:
            nested = [nested[i : i + n] for i in range(0, len(nested), n)]
        return nested, shape

    def linear(self, x: Vector, matrix: list[Vector], bias: Vector | None = None) -> Vector:
        y = [self.of.dot(x, list(column)) for column in zip(*matrix, strict=True)]
        return y if bias is None else self.of.add(y, bias, (len(x), 0))

    @kept
    def resid(self, n: int, prefix: tuple[int, ...]) -> Vector:
        """The row of the prefix's last token before block n."""
        if n == 0:
            return self.of.add(self.W_E[prefix[-1]], self.W_pos[len(prefix) - 1])
        middle = self.resid_mid(n - 1, prefix)
        alone = 0 if not self.mlp or self.blocks[n - 1]["b_out"] else self.m  # products, where no bias follows them
        return self.of.add(middle, self.mlp_out(n - 1, prefix), (0, alone)) if self.mlp else middle

    @kept
    def project(self, which: str, n: int, h: int, prefix: tuple[int, ...]) -> Vector:
        block = self.blocks[n]
        bias = block["b_" + which] and block["b_" + which][h]
        return self.linear(self.resid(n, prefix), block["W_" + which][h], bias)

    @kept
    def score(self, n: int, h: int, prefix: tuple[int, ...], earlier: tuple[int, ...]) -> Interval:
        q, k = self.project("Q", n, h, prefix), self.project("K", n, h, earlier)
        return self.of.over_root(self.of.dot(q, k), self.e)

    @kept
    def attn_out(self, n: int, prefix: tuple[int, ...]) -> Vector:
        block, mixed, rows = self.blocks[n], [], [prefix[: i + 1] for i in range(len(prefix))]
        for h in range(self.heads):
            pattern = self.of.softmax([self.score(n, h, prefix, row) for row in rows])
            values = [self.project("V", n, h, row) for row in rows]
            mixed += [self.of.dot(pattern, list(column)) for column in zip(*values, strict=True)]
        return self.linear(mixed, list(itertools.chain(*block["W_O"])), block["b_O"])

    @kept
    def resid_mid(self, n: int, prefix: tuple[int, ...]) -> Vector:
        alone = 0 if self.blocks[n]["b_O"] else self.heads * self.e
        return self.of.add(self.resid(n, prefix), self.attn_out(n, prefix), (0, alone))

    @kept
    def pre(self, n: int, prefix: tuple[int, ...]) -> Vector:
        return self.linear(self.resid_mid(n, prefix), self.blocks[n]["W_in"], self.blocks[n]["b_in"])

    @kept
    def mlp_out(self, n: int, prefix: tuple[int, ...]) -> Vector:
        return self.linear([relu(z) for z in self.pre(n, prefix)], self.blocks[n]["W_out"], self.blocks[n]["b_out"])

    def masked(self, depth: int, tokens: tuple[int, ...], j: int) -> None:
        """Later positions' values meet row j with probability 0: harmless, unless a float32 value overflows."""
        for n, h, i in itertools.product(range(depth), range(self.heads), range(j + 1, len(tokens))):
            self.project("V", n, h, tokens[: i + 1])

    def sites(self) -> dict[str, tuple[int, int]]:
        """Site -> (length of its rows, number of blocks that they go through)."""
        sites = {"logits": (self.out, len(self.blocks)), "embed": (self.d, 0), "pos_embed": (self.d, 0)}
        for n in range(len(self.blocks)):
            after = {f"blocks.{n}.attn_out": (self.d, n + 1), f"blocks.{n}.resid_post": (self.d, n + 1)}
            sites |= {f"blocks.{n}.resid_pre": (self.d, n)} | after
            if self.mlp:
                rows = {"resid_mid": self.d, "mlp.pre": self.m, "mlp.post": self.m, "mlp_out": self.d}
                sites |= {f"blocks.{n}.{name}": (width, n + 1) for name, width in rows.items()}
        return sites

    def behind_mlp(self, site: str) -> bool:
        """Whether a row that goes through block 0 alone goes through its MLP as well."""
        return self.mlp and site not in ("blocks.0.attn_out", "blocks.0.resid_mid", "blocks.0.mlp.pre")

    @kept
    def output(self, site: str, prefix: tuple[int, ...]) -> Vector:
        match site.split("."):
            case ["logits"]:
                return self.linear(self.resid(len(self.blocks), prefix), self.W_U, self.b_U)
            case ["embed"]:
                return self.W_E[prefix[-1]]
            case ["pos_embed"]:
                return self.W_pos[len(prefix) - 1]
            case [_, n, "attn_out" | "resid_mid" | "mlp_out" as which]:
                return getattr(self, which)(int(n), prefix)
            case [_, n, "mlp", which]:
                z = self.pre(int(n), prefix)
                return z if which == "pre" else [relu(x) for x in z]
            case [_, n, which]:
                return self.resid(int(n) + (which == "resid_post"), prefix)

    def through(self, form: Form, matrix: list[Vector], bias: Vector | None) -> Form:
        """A rounded product or addend is off by a factor, which each share bears for itself."""
        shares = {at: self.linear(x, matrix) for at, x in form.shares.items()}
        form = Form(self.linear(form.base, matrix), shares)
        return form if bias is None else self.plus(form, Form(bias, {}), (len(matrix), 0))

    def plus(self, one: Form, other: Form, sums: tuple[int, int]) -> Form:
        def share(at: Place | int) -> Vector:
            if at in one.shares and at in other.shares:
                return self.of.add(one.shares[at], other.shares[at], sums)
            return (
                self.of.passed(one.shares[at], sums[1])
                if at in one.shares
                else self.of.passed(other.shares[at], sums[0])
            )

        return Form(self.of.add(one.base, other.base, sums), {at: share(at) for at in one.shares | other.shares})

    @kept
    def ratio(self, site: str, q: int, j: int, vocabulary: int, length: int) -> tuple[Form, dict, Form | None]:
        """The output, the scores s(q, v, i) and the neurons of rule `fold`, where the site's row goes through block 0,
        of one head. Neurons come divided by a power of two that keeps the sum of their sizes below 1."""
        block, own = self.blocks[0], (q,) * (j + 1)
        # In block 0 only the last token of a prefix matters, and its position.
        alone = {(v, i): (v,) * (i + 1) for i in range(length) for v in range(vocabulary)}
        values = {at: self.project("V", 0, 0, prefix) for at, prefix in alone.items()}
        scores = self.of.scores({at: self.score(0, 0, own, alone[at]) for at in alone if at[1] <= j})
        attended = Form([ZERO] * self.e, self.of.attended({at: values[at] for at in scores}, length))
        form, z = self.through(attended, block["W_O"][0], block["b_O"]), None
        if site.endswith("attn_out"):
            return form, scores, z
        form = self.plus(form, Form(self.resid(0, own), {}), (0 if block["b_O"] else self.e, 0))
        if self.mlp and not site.endswith("resid_mid"):
            z = self.through(form, block["W_in"], block["b_in"])
            if site.endswith("mlp.pre"):
                return z, scores, None
            largest = max(x.size() for v in (z.base, *z.shares.values()) for x in v)
            unit = Fraction(2) ** (_log2(2 * self.m * largest))
            z = Form(_times(z.base, 1 / unit), {at: _times(x, 1 / unit) for at, x in z.shares.items()})
            ones = {k: [Interval(unit) if k == i else ZERO for i in range(self.m)] for k in range(self.m)}
            hidden = Form([ZERO] * self.m, {at: [ZERO] * self.m for at in scores} | ones)
            if site.endswith("mlp.post"):
                return hidden, scores, z
            hidden = self.through(hidden, block["W_out"], block["b_out"])
            form = hidden if site.endswith("mlp_out") else self.plus(form, hidden, (0, 0 if block["b_out"] else self.m))
        return self.through(form, self.W_U, self.b_U) if site == "logits" else form, scores, z


class Relu(Model):
    """The same with an MLP in each block."""

    mlp = True


class Pair(Model):
    """relu([W_x[a], W_y[b]] W) W_U, of exactly two tokens; no site has rows."""

    def __init__(self, tensors: dict[str, tuple[list[int], list[Fraction]]], semantics: Real):
        self.of, self.left, self.known = semantics, tensors, {}
        self.W_x, (self.vocab, d) = self.take("W_x", None, None)
        self.W_y, (_, e) = self.take("W_y", self.vocab, None)
        self.W, (_, hidden) = self.take("W", d + e, None)
        self.W_U, (_, out) = self.take("W_U", hidden, None)
        need(not self.left, f"unknown tensors {list(self.left)}")
        self.context, self.heads = 2, 0
        self.widths = {"embed_x": d, "embed_y": e, "pre": hidden, "hidden": hidden, "logits": out}

    def sites(self) -> dict[str, tuple[int, int]]:
        return {site: (width, 0) for site, width in self.widths.items()}

    @kept
    def output(self, site: str, prefix: tuple[int, ...]) -> Vector:
        a, b = prefix
        x, y = self.W_x[a], self.W_y[b]
        if site.startswith("embed"):
            return x if site == "embed_x" else y
        pre = self.linear([*x, *y], self.W)
        if site == "pre":
            return pre
        hidden = [relu(v) for v in pre]
        return hidden if site == "hidden" else self.linear(hidden, self.W_U)


ARCHITECTURES = {"transformer": Model, "transformer_relu": Relu, "pair_mlp": Pair}


@lru_cache(4)
def model_of(weights: bytes, semantics: str, architecture: str = "transformer") -> Model:
    """Kept with the rows that it has computed, as checks of several certificates about one model come together."""
    kind = ARCHITECTURES[architecture]
    return kind(read_tensors(weights), Real() if semantics == "real" else Float32())


# --- Mechanisms ------------------------------------------------------------------------------------------------------

Span = tuple[int, int]


def hull(s: list[Span], k: Any = None) -> Span:
    return min(lo for lo, _ in s), max(hi for _, hi in s)


def truth(s: list[Span], k: Any) -> Span:
    return 0, 1


def size(span: Span) -> int:
    return max(abs(span[0]), abs(span[1]))


def product_span(s: list[Span], k: Any) -> Span:
    need(math.prod(max(size(x), 1) for x in s) < BIG, "span of a product")
    low, high = 1, 1
    for a, b in s:
        products = low * a, low * b, high * a, high * b
        low, high = min(products), max(products)
    return low, high


# Operation: how many operands (0: one or more), how many of them are truth values, the largest attribute (0: it has
# none), span, value.
OPERATIONS: dict[str, tuple[int, int, int, Callable, Callable]] = {
    "sum": (0, 0, 0, lambda s, k: (sum(lo for lo, _ in s), sum(hi for _, hi in s)), lambda x, k: sum(x)),
    "product": (0, 0, 0, product_span, lambda x, k: math.prod(x)),
    "max": (0, 0, 0, lambda s, k: (max(a for a, _ in s), max(b for _, b in s)), lambda x, k: max(x)),
    "min": (0, 0, 0, lambda s, k: (min(a for a, _ in s), min(b for _, b in s)), lambda x, k: min(x)),
    "and": (0, BIG, 0, truth, lambda x, k: min(x)),
    "or": (0, BIG, 0, truth, lambda x, k: max(x)),
    "kth_largest": (0, 0, 8, hull, lambda x, k: sorted(x)[-k]),
    "not": (1, 1, 0, truth, lambda x, k: 1 - x[0]),
    "eq": (2, 0, 0, truth, lambda x, k: int(x[0] == x[1])),
    "lt": (2, 0, 0, truth, lambda x, k: int(x[0] < x[1])),
    "le": (2, 0, 0, truth, lambda x, k: int(x[0] <= x[1])),
    "mod": (1, 0, BIG - 1, lambda s, k: (0, k - 1), lambda x, k: x[0] % k),
    "floordiv": (1, 0, BIG - 1, lambda s, k: (s[0][0] // k, s[0][1] // k), lambda x, k: x[0] // k),
    "where": (3, 1, 0, lambda s, k: hull(s[1:]), lambda x, k: x[1] if x[0] else x[2]),
    "lookup": (1, 0, 0, lambda s, k: hull([(v, v) for v in k[s[0][0] : s[0][1] + 1]]), lambda x, k: k[x[0]]),
}


def legal_span(op: Any, s: list[Span], k: Any, values: list[int], length: int) -> Span:
    """Of an operation on operands with spans s, if it is legal."""
    if op == "value":
        need(not s and values, "operands of value")
        integer(k, 0, length - 1)
        span = min(values), max(values)
    elif op == "integer":
        need(not s, "operands of integer")
        span = integer(k), k
    else:
        need(type(op) is str and op in OPERATIONS, "operation")
        count, truths, most, of, _ = OPERATIONS[op]
        need(len(s) == count if count else s, f"operands of {op}")
        if op == "lookup":
            need(1 <= len(items(k)) <= 2**16 and all(size((integer(v), v)) < BIG for v in k), "table of lookup")
            need(s[0][0] >= 0 and s[0][1] < len(k), "lookup: outside its table")
        else:
            need(integer(k, 1, most) if most else k is None, f"attribute of {op}")
        need(op != "kth_largest" or k <= len(s), "fewer operands than k")
        need(all(lo >= 0 and hi <= 1 for lo, hi in s[:truths]), f"{op} needs truth values")
        need(op != "sum" or sum(map(size, s)) < BIG, "span of a sum")
        span = of(s, k)
    need(size(span) < BIG, f"span of {op}")
    return span


class Mechanism:
    """An integer expression of the tokens."""

    def __init__(self, nodes: Any, values: list[int], length: int):
        self.nodes, self.values, spans = [], values, []
        for node in items(nodes):
            op, operands, k = items(node, 3)
            operands = [integer(i, 0, len(spans) - 1) for i in items(operands)]
            need(len(operands) <= 4096, "too many operands")
            s = [spans[i] for i in operands]
            spans.append(legal_span(op, s, k, values, length))
            self.nodes.append((op, operands, k))
        need(spans, "an empty mechanism")
        self.span = spans[-1]

    def __call__(self, tokens: tuple[int, ...]) -> int:
        done: list[int] = []
        for op, operands, k in self.nodes:
            if op in OPERATIONS:
                done.append(OPERATIONS[op][-1]([done[i] for i in operands], k))
            else:
                done.append(self.values[tokens[k]] if op == "value" else k)
        return done[-1]


# --- Rules -----------------------------------------------------------------------------------------------------------

Part = list[list[int]]
Bounds = tuple[int, int]
Class = tuple[int, ...]
FIELDS = {"enumerate": (), "counterexample": ("inputs",), "split": ("position", "first", "inside", "outside"),
          "open": (), "both": ("first", "second"), "fold": ("keys", "only", "cells"), "compact": ("scores", "base", "passes")}  # fmt: skip


def size_of(part: Part) -> int:
    return math.prod(map(len, part))


class Claim:
    """What is claimed, and the rules, applied to parts of its domain."""

    def __init__(self, claim: Any, weights: bytes):
        claim, margin = optional(claim, "margin", "0/1")
        claim, given = optional(claim, "given", ABSENT)
        kind, architecture, self.semantics, digest, domain, self.site, position, equals, share = fields(
            claim, "kind", "architecture", "semantics", "weights_sha256", "domain", "site", "position", "equals",
            "at_least")  # fmt: skip
        need(kind == "accuracy", "kind")
        need(type(architecture) is str and architecture in ARCHITECTURES, "architecture")
        need(self.semantics in ("real", "float32"), "semantics")
        need(digest == hashlib.sha256(weights).hexdigest(), "other weights")
        tokens, values = fields(domain, "tokens", "values")
        self.values = [integer(v) for v in items(values)]
        self.domain = [[integer(t, 0, len(self.values) - 1) for t in items(ids)] for ids in items(tokens)]
        need(1 <= len(self.domain) <= 1024, "length")
        need(all(ids and ids == sorted(set(ids)) for ids in self.domain), "token ids ascend, at least one")
        self.model = model_of(weights, self.semantics, architecture)
        fits = len(self.domain) <= self.model.context and len(self.values) <= self.model.vocab
        need(fits, "a domain beyond the model")
        need(type(self.site) is str and self.site in self.model.sites(), "site")
        self.out, self.depth = self.model.sites()[self.site]
        if architecture == "pair_mlp":
            need(position is None and len(self.domain) == 2, "position or length")
        self.position = 1 if position is None else integer(position, 0, len(self.domain) - 1)
        need(architecture == "pair_mlp" or position is not None, "position")
        self.mechanism = Mechanism(equals, self.values, len(self.domain))
        self.at_least = None if share is None else number(share, "[0-9]+/[1-9][0-9]*")
        need(self.at_least is None or self.at_least <= 1, "at_least above 1")
        self.margin = margin_of(margin)
        self.guard(given)
        self.neurons = self.depth == 1 and self.model.behind_mlp(self.site)
        self.replayed = False

    def guard(self, given: Any) -> None:
        """The condition that inputs must satisfy, and how many do."""
        self.given = None if given is ABSENT else Mechanism(given, self.values, len(self.domain))
        need(self.given is None or (self.given.span[0] >= 0 and self.given.span[1] <= 1), "given is no truth value")
        self.total = size_of(self.domain)
        if self.given is not None:
            self.total = sum(self.inside(x) for x in itertools.product(*self.domain))
        need(self.total, "no input satisfies the condition")

    def inside(self, tokens: tuple[int, ...]) -> bool:
        return self.given is None or self.given(tokens) == 1

    def right(self, tokens: tuple[int, ...]) -> bool | None:
        """None where the enclosures leave it open."""
        m = self.mechanism(tokens)
        if not 0 <= m < self.out:
            return False
        if self.semantics == "float32":
            self.model.masked(self.depth, tokens, self.position)
        y = self.model.output(self.site, tokens[: self.position + 1])
        margins = [y[m] - y[t] - Interval(self.margin) for t in range(self.out) if t != m]
        if any(x.hi <= 0 for x in margins):
            return False
        return True if all(x.lo > 0 for x in margins) else None

    def prove(self, proof: Any, part: Part) -> Bounds:
        rule = proof.get("rule") if type(proof) is dict else None
        need(type(rule) is str and rule in FIELDS, "unknown rule")
        if rule == "enumerate":  # every input is run exactly here
            proof, exactly = optional(proof, "exactly", False)
            need(type(exactly) is bool, "exactly")
        trials = ("trials",) if rule == "fold" and self.neurons else ()
        _, *arguments = fields(proof, "rule", *FIELDS[rule], *trials)
        return getattr(self, rule)(part, *arguments)

    def enumerate(self, part: Part) -> Bounds:
        found = [not self.inside(x) or self.right(x) for x in itertools.product(*part)]
        return found.count(True), len(found) - found.count(False)

    def open(self, part: Part) -> Bounds:
        return 0, size_of(part)

    def counterexample(self, part: Part, inputs: Any) -> Bounds:
        rows = [tuple(integer(t) for t in items(row, len(part))) for row in items(inputs)]
        need(rows and len(set(rows)) == len(rows), "inputs are distinct, at least one")
        need(all(t in ids for row in rows for t, ids in zip(row, part, strict=True)), "an input outside the part")
        need(all(map(self.inside, rows)), "an input that doesn't satisfy the condition")
        need(all(self.right(row) is False for row in rows), "an input that is not surely wrong")
        self.replayed = True
        return 0, size_of(part) - len(rows)

    def split(self, part: Part, position: Any, first: Any, inside: Any, outside: Any) -> Bounds:
        position, ids, bounds = integer(position, 0, len(part) - 1), {integer(t) for t in items(first)}, []
        for proof, chosen in (inside, True), (outside, False):
            tokens = [t for t in part[position] if (t in ids) is chosen]
            need(tokens, "an empty part")
            bounds.append(self.prove(proof, [*part[:position], tokens, *part[position + 1 :]]))
        (a, b), (c, d) = bounds
        return a + c, b + d

    def both(self, part: Part, first: Any, second: Any) -> Bounds:
        (a, b), (c, d) = self.prove(first, part), self.prove(second, part)
        need(max(a, c) <= min(b, d), "the two contradict each other")
        return max(a, c), min(b, d)

    def compact(self, part: Part, scores: Any, base: Any, passes: Any) -> Bounds:
        """Whatever is kept, a proof can show no more than the right inputs of the cells that it lists."""
        need(self.semantics == "real" and self.depth == 1 and self.model.heads == 1, "no parts")
        need(not self.neurons and base in ("exact", "mean"), "no parts")
        need(self.given is None, "a guarded domain")
        if scores is not None:
            left, right, _ = fields(scores, "left", "right", "remainder")
            need(len(items(left)) == len(items(right)) == len(self.values), "vectors of another length")
        cells = set()
        for entry in items(passes):
            rivals, tokens, loose, rows = fields(entry, "rivals", "tokens", "loose", "cells")
            need(rivals in ("together", "scaled", "apart") and tokens in ("each", "ascending", "descending"), "a pass")
            need(rivals != "apart" or tokens == "each", "leads that are not in parts")
            for row in items(rows):
                q, m, thresholds = items(row, 3)
                need(len(items(thresholds)) == integer(loose, 0, 8) + 1, "thresholds")
                cell = (integer(q), integer(m))
                need(cell not in cells and 0 <= cell[1] < self.out, "a cell twice, or of no output")
                cells.add(cell)
        inputs = [(x, self.mechanism(x)) for x in itertools.product(*part)]
        need({m for _, m in cells} <= {m for _, m in inputs}, "a class without inputs")
        return sum((x[self.position], m) in cells and self.right(x) is True for x, m in inputs), size_of(part)

    def fold(self, part: Part, keys: Any, only: Any, cells: Any, trials: Any = 1) -> Bounds:
        integer(trials, 1, 256)
        need(self.depth == 1 and self.model.heads == 1, "the output goes through no single head")
        need(len(items(keys)) <= 8, "too many keys")
        roots = [self.mechanism, *(Mechanism(k, self.values, len(part)) for k in keys)]
        wanted = None if only is None else [self.class_of(c, len(roots)) for c in items(only)]
        inputs: dict[tuple[int, Class], list[tuple[int, ...]]] = {}
        others = sum(not self.inside(x) for x in itertools.product(*part))
        for x in filter(self.inside, itertools.product(*part)):
            inputs.setdefault((x[self.position], tuple(root(x) for root in roots)), []).append(x)
        rows = {}
        for row in items(cells):
            q, name, above, below = items(row, 4)
            cell = (integer(q), self.class_of(name, len(roots)))
            need(cell in inputs and cell not in rows, "a row for no cell, or a second one for a cell")
            need(wanted is None or cell[1] in wanted, "a row for a cell that is passed over")
            above = None if above is None else [self.group(g) for g in items(above)]
            rows[cell] = above, None if below is None else self.group(below)
            need(below is None or len(rows[cell][1][1]) <= 1, "one rival from below")
        # The places that can be read in a cell: those of its class, whatever the token at the position, and q there.
        read: dict[Class, set[Place]] = {}
        for (_, name), cell in inputs.items():
            read.setdefault(name, set()).update((x[i], i) for x in cell for i in range(self.position))
        low = high = 0
        for (q, name), cell in inputs.items():
            if wanted is not None and name not in wanted:
                least, most = 0, len(cell)
            elif not 0 <= name[0] < self.out:
                least = most = len(cell)
            else:
                places = read[name] | {(q, self.position)}
                row = rows.get((q, name), ([], None))
                least, most = self.wrong(part, trials, q, name[0], cell, places, *row)
            low, high = low + len(cell) - most, high + len(cell) - least
        return low + others, high + others

    def class_of(self, value: Any, length: int) -> Class:
        return tuple(integer(v) for v in items(value, length))

    def group(self, value: Any) -> tuple[int, list[int]]:
        step, rivals = items(value, 2)
        return integer(step, -1000, 1000), [integer(t) for t in items(rivals)]

    def wrong(
        self, part: Part, trials: int, q: int, m: int, inputs: list[tuple[int, ...]], places: set[Place],
        above: Any, below: Any,
    ) -> Bounds:  # fmt: skip
        """At least and at most so many of a cell's inputs are wrong."""
        j = self.position
        form, score, z = self.model.ratio(self.site, q, j, len(self.values), len(self.domain))
        c = max(binary_exponent(score[at]) for at in places)
        factor = {at: scaled_exp(score[at], c) for at in places}
        # A neuron's value if only this place were attended to, for every place of the part.
        here = [(v, i) for i in range(j) for v in part[i]] + [(q, j)]
        means = [{at: z.base[k] + z.shares[at][k] for at in here} for k in range(self.model.m if z else 0)]
        reach = [self.reach(mean, factor, inputs, trials) for mean in means]

        @cache
        def g(t: int, side: int) -> dict[Place, Fraction]:
            """Rival t's terms, or with neurons what replaces them, from below (side -1) or from above (1)."""
            base, slopes = form.base[m] - form.base[t] - Interval(self.margin), []
            for k, (lo, hi) in enumerate(reach):
                effect = form.shares[k][m] - form.shares[k][t]
                middle, error = (effect.lo + effect.hi) / 2, (effect.hi - effect.lo) / 2 * max(hi, Fraction(0))
                a, b = line(lo, hi, above=(middle >= 0) == (side > 0))
                slopes.append(Interval(middle * a))
                base += Interval(middle * b + side * error)
            terms = {}
            for at in places:
                weight = base + (form.shares[at][m] - form.shares[at][t])
                term = factor[at] * sum((a * z[at] for a, z in zip(slopes, means, strict=True)), weight)
                terms[at] = term.lo if side < 0 else term.hi
            return terms

        def sums(terms: dict[Place, Any]) -> list[Any]:
            return [sum(terms[x[i], i] for i in range(j + 1)) for x in inputs]

        def nonpositive(t: int, side: int) -> list[bool]:
            return [total <= 0 for total in sums(g(t, side))]

        rivals = [t for t in range(self.out) if t != m]
        lost = {t: nonpositive(t, -1) for t in rivals}  # possibly
        undecided = [t for t in rivals if any(lost[t])]
        if not undecided:
            return 0, 0
        if above is None:
            need(below is None, "a listed cell has no lower count")
            need(len(inputs) * len(undecided) <= 2**22, "too many inputs to list")
            surely = zip(*(nonpositive(t, 1) for t in undecided), strict=True)
            return sum(map(any, surely)), sum(map(any, zip(*(lost[t] for t in undecided), strict=True)))

        for _, group in above if below is None else [*above, below]:
            need(group and set(group) <= set(rivals), "a group names rivals")

        def count(side: int, toward: Callable, step: int, group: list[int]) -> int:
            terms = {at: toward(min(g(t, side)[at] for t in group) / Fraction(2) ** step) for at in places}
            need(min(terms.values()) >= -(2**30), "a rounded term below -2^30")
            return sum(total <= 0 for total in sums(terms))

        most = sum(count(-1, math.floor, *group) for group in above)
        if not set(undecided) <= {t for _, group in above for t in group}:
            most = len(inputs)
        return 0 if below is None else count(1, math.ceil, *below), min(most, len(inputs))

    def reach(
        self, mean: dict[Place, Interval], factor: dict[Place, Interval], inputs: list[tuple[int, ...]], trials: int
    ) -> tuple[Fraction, Fraction]:
        """What a neuron's value lies between on a cell's inputs."""
        rows = [[(x[i], i) for i in range(self.position + 1)] for x in inputs]
        totals = [sum((factor[at] for at in row), ZERO) for row in rows]
        least, most = min(x.lo for x in totals), max(x.hi for x in totals)
        a, b = min(x.lo for x in mean.values()), max(x.hi for x in mean.values())
        lo, hi = a, b
        for r in range(trials if least > 0 else 0):
            t = a + (b - a) * Fraction(2 * r + 1, 2 * trials)
            terms = {at: factor[at] * (mean[at] - Interval(t)) for at in factor}
            low = min(sum(terms[at].lo for at in row) for row in rows)
            high = max(sum(terms[at].hi for at in row) for row in rows)
            lo = max(lo, t + low / (most if low >= 0 else least))
            hi = min(hi, t + high / (most if high <= 0 else least))
        return -_up(-lo), _up(hi)


def line(lo: Fraction, hi: Fraction, above: bool) -> tuple[Fraction, Fraction]:
    """Slope and constant of a line above, or below, relu on the numbers from lo to hi."""
    zero, one = Fraction(0), Fraction(1)
    if not above:
        return (one if lo + hi > 0 else zero), zero
    a = min(max(_up(hi / (hi - lo)), zero), one) if hi > lo else one if hi > 0 else zero
    return a, max(max(lo, zero) - a * lo, max(hi, zero) - a * hi)


def announced(document: Any) -> dict[str, Any]:
    """The document without its cost, which versions from 4 on have: another checker's work is its own affair."""
    if type(document) is not dict or document.get("version") not in (4, 5):
        return document
    rest = dict(document)
    need("cost" in rest, "no cost")
    cost = rest.pop("cost")
    need(cost is None or (type(cost) is str and number(cost, "0|[1-9][0-9]*") <= 10**18), "cost")
    return rest


def _holds(proof: Any, field: str, values: tuple) -> bool:
    """A field has one of the values somewhere in the proof."""
    todo = [proof]
    while todo:
        node = todo.pop()
        if type(node) is dict:
            if node.get(field) in values:
                return True
            todo += node.values()
    return False


def check(data: bytes, make: Callable[[Any, bytes], Claim] = Claim) -> dict[str, Any]:
    """The conclusion of a certificate that proves it; raises Rejected for any other file. `make` reads its claim: of a
    known architecture, or (shares.py) of a captured module."""
    document, weights = members(data)
    form, version, claim, conclusion, axioms, proof = fields(
        announced(strict_json(document)), "format", "version", "claim", "conclusion", "axioms", "proof"
    )
    need(form == "mechverify-certificate" and integer(version) in (2, 4, 5), "format or version")
    task = make(claim, weights)
    captured = make is not Claim
    new = captured or _holds(proof, "rule", ("open",)) or _holds(proof, "exactly", (True, False))
    need(version == 5 or not new, "written in version 5 alone")
    need(axioms == ["ieee754"] + ["capture"] * captured + ["libm:float32"] * (task.semantics == "float32"), "axioms")
    verdict, *counts = fields(conclusion, "verdict", "right_at_least", "right_at_most")
    need(version == 5 or task.given is None, "written in version 5 alone")
    least, most = (number(count, "0|[1-9][0-9]*") for count in counts)
    try:
        low, high = task.prove(proof, task.domain)
    except RecursionError as e:
        raise Rejected("proof too deep") from e
    others = size_of(task.domain) - task.total
    low, high = max(low - others, 0), high - others
    need(least <= low and high <= most, f"proved {low} to {high} only")
    target = None if task.at_least is None else task.at_least * task.total
    match verdict:
        case "PROVED":
            need(target is not None and least >= target, "verdict")
        case "REFUTED":
            need(target is not None and most < target and task.replayed, "verdict")
        case _:
            need(verdict == "BOUNDED", "verdict")
    return conclusion
