"""A second checker of mechverify certificates, sharing nothing with the first.

Written from docs/certificate.md (the file, the model, the rules) and docs/soundness.md (what a float32 evaluation may do)
alone: plain Python, exact rationals, every input run one by one. It is slow, and meant for domains of some thousand
inputs; where two checkers that have only these pages in common agree, the pages say what the files mean.

Numbers are rational intervals. Sums and products are exact; only `exp`, quotients and roots round, outwards, to `BITS`
bits. `Real` and `Float32` are the two semantics: the second widens each operation by what a float32 program may add.
"""

import hashlib
import itertools
import json
import math
import re
import struct
import zlib
from fractions import Fraction
from functools import lru_cache
from typing import Any

BITS = 160
BIG = 2**62  # integers of the format
MEMBERS = (b"certificate.json", b"weights.safetensors")


class Rejected(Exception):
    """The file is no certificate, or doesn't prove what it says."""


def need(condition: Any, why: str) -> None:
    if not condition:
        raise Rejected(why)


# --- The container and its two members -------------------------------------------------------------------------------


def members(data: bytes) -> list[bytes]:
    """The two members' contents. The only zip that holds them is written anew and compared."""
    need(len(data) <= 2**30, "file too large")
    contents, offsets, directory, at = [], [], b"", 0
    for name in MEMBERS:
        need(len(data) >= at + 30, "no zip of two members")
        size = int.from_bytes(data[at + 18 : at + 22], "little")
        start = at + 30 + len(name)
        contents.append(data[start : start + size])
        offsets.append(at)
        at = start + size
    again = b""
    for name, content, offset in zip(MEMBERS, contents, offsets, strict=True):
        # version needed, flags, method, time, date, checksum, sizes, length of the name, of the extra field
        facts = struct.pack("<5H3I2H", 20, 0, 0, 0, 0x21, zlib.crc32(content), len(content), len(content), len(name), 0)
        again += b"PK\3\4" + facts + name + content
        directory += b"PK\1\2" + struct.pack("<H", 20) + facts + struct.pack("<3H2I", 0, 0, 0, 0, offset) + name
    end = b"PK\5\6" + struct.pack("<4H2IH", 0, 0, 2, 2, len(directory), len(again), 0)
    need(data == again + directory + end, "not the one way to write these contents")
    need(len(contents[0]) <= 2**26, "certificate.json too large")
    return contents


def strict_json(data: bytes) -> Any:
    def refuse(text: str) -> None:
        raise Rejected(f"{text} in JSON")

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        need(len(dict(pairs)) == len(pairs), "duplicate key")
        return dict(pairs)

    try:
        text = data.decode("utf-8")
        return json.loads(text, object_pairs_hook=unique, parse_float=refuse, parse_constant=refuse)
    except (ValueError, RecursionError) as e:
        raise Rejected(f"not JSON: {e}") from e


def fields(value: Any, *names: str) -> list[Any]:
    need(type(value) is dict and value.keys() == set(names), f"an object with the fields {names} is wanted")
    return [value[n] for n in names]


def items(value: Any, length: int | None = None) -> list[Any]:
    need(type(value) is list and length in (None, len(value)), "a list is wanted")
    return value


def integer(value: Any, low: int = -BIG, high: int = BIG) -> int:
    need(type(value) is int and low <= value <= high, f"an integer from {low} to {high} is wanted")
    return value


def count(value: Any) -> int:
    need(type(value) is str and re.fullmatch("0|[1-9][0-9]*", value), "a count is decimal text")
    try:
        return int(value)
    except ValueError as e:  # Python's limit of 4,300 digits
        raise Rejected("count too long") from e


def read_tensors(data: bytes) -> dict[str, tuple[list[int], list[Fraction]]]:
    """Name -> (shape, numbers in row-major order) of a safetensors file."""
    length = int.from_bytes(data[:8], "little")
    need(len(data) >= 8 + length and length <= 2**22, "safetensors header")
    header, body = strict_json(data[8 : 8 + length]), data[8 + length :]
    need(type(header) is dict, "safetensors header is no object")
    tensors, spans = {}, []
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        dtype, shape, offsets = fields(entry, "dtype", "shape", "data_offsets")
        start, end = (integer(o, 0, len(body)) for o in items(offsets, 2))
        need(start <= end, "tensor of negative size")
        spans.append((start, end))
        if re.fullmatch(r"blocks\.(0|[1-9][0-9]*)\.attn\.(mask|IGNORE)", name):
            continue
        need(dtype in ("F64", "F32", "F16", "BF16"), f"type of {name}")
        size = math.prod(integer(n, 0) for n in items(shape))
        code, width = {"F64": ("d", 8), "F32": ("f", 4), "F16": ("e", 2), "BF16": ("f", 2)}[dtype]
        raw = body[start:end]
        need(len(raw) == size * width, f"size of {name}")
        if dtype == "BF16":  # the upper half of a float32
            raw = b"".join(b"\0\0" + raw[i : i + 2] for i in range(0, len(raw), 2))
        numbers = struct.unpack(f"<{size}{code}", raw)
        need(all(map(math.isfinite, numbers)), f"{name} is not finite")
        tensors[name] = (shape, [Fraction(x) for x in numbers])
    at = 0
    for start, end in sorted(spans):
        need(start == at, "tensors don't fill the file")
        at = end
    need(at == len(body), "tensors don't fill the file")
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
        if self.lo == self.hi and other.lo == other.hi:
            return Interval(self.lo * other.lo)
        if other.lo == other.hi:  # a weight, mostly
            self, other = other, self
        if self.lo == self.hi:
            ends = [self.lo * other.lo, self.lo * other.hi]
        else:
            ends = [a * b for a in (self.lo, self.hi) for b in (other.lo, other.hi)]
        return Interval(min(ends), max(ends))

    def size(self) -> Fraction:
        return max(abs(self.lo), abs(self.hi))

    def widened(self, by: Fraction) -> "Interval":
        return Interval(self.lo - by, self.hi + by)

    def short(self) -> "Interval":
        return Interval(-_up(-self.lo), _up(self.hi))


Vector = list[Interval]
ZERO = Interval(Fraction(0))


def _up(x: Fraction) -> Fraction:
    """The next number of BITS bits from x on; short numbers stay as they are."""
    p, q = x.numerator, x.denominator
    if p.bit_length() <= BITS and q.bit_length() <= BITS:
        return x
    shift = BITS - p.bit_length() + q.bit_length()
    return Fraction(-(-(p << shift) // q), 1 << shift) if shift >= 0 else Fraction(-(-p // (q << -shift)) << -shift)


def over(a: Interval, b: Interval) -> Interval:
    """a / b for positive b."""
    return Interval(min(a.lo / b.lo, a.lo / b.hi), max(a.hi / b.lo, a.hi / b.hi)).short()


@lru_cache
def root(n: int) -> Interval:
    exact = math.isqrt(n)
    if exact * exact == n:
        return Interval(Fraction(exact))
    cut = math.isqrt(n << 2 * BITS)
    return Interval(Fraction(cut, 2**BITS), Fraction(cut + 1, 2**BITS))


@lru_cache
def ln2() -> Fraction:
    """2 atanh(1/3), short by less than 2^-1000: its terms shrink by more than 9, so the rest is below the last one."""
    return 2 * sum(Fraction(1, (2 * i + 1) * 3 ** (2 * i + 1)) for i in range(330))


@lru_cache(2**16)
def exponential(x: Fraction) -> tuple[int, int, int]:
    """(k, a, b) with a 2^(k - 200) <= e^x <= b 2^(k - 200)."""
    if x == 0:
        return 0, 2**200, 2**200
    need(abs(x) < 2**600, "exponent too large for this checker")
    k = round(x / ln2())
    r = math.floor((x - k * ln2()) * 2**200)
    # |r| < 2^199. The true remainder lies within 2 units of r, as k ln 2 is known to 2^-400. Each floor loses a unit, and
    # the errors before it at most halve: less than 4 a term. The terms after the 60th are below 2^-300 together.
    total, term = 0, 2**200
    for n in range(1, 61):
        total += term
        term = (term * r >> 200) // n
    return k, total - 2**10, total + 2**10


def scaled_exp(s: Interval, c: int) -> Interval:
    """2^-c e^s, where what is smaller than 2^-6000 is only known to be that small."""

    def end(x: Fraction, upper: bool) -> Fraction:
        k, a, b = exponential(x)
        need(k - c < 10**5, "factor too large for this checker")
        if k - c < -6000:
            return Fraction(int(upper), 2**5999)
        return (b if upper else a) * Fraction(2) ** (k - c - 200)

    return Interval(end(s.lo, False), end(s.hi, True))


def nearest_binary_exponent(s: Interval) -> int:
    return math.floor(Fraction("1.4427") * (s.lo + s.hi) / 2 + Fraction(1, 2))


# --- The two semantics -----------------------------------------------------------------------------------------------


class Real:
    """The formula over the real numbers."""

    def number(self, x: Fraction) -> Interval:
        return Interval(x)

    def add(self, a: Vector, b: Vector) -> Vector:
        return [x + y for x, y in zip(a, b, strict=True)]

    def dot(self, a: Vector, b: Vector) -> Interval:
        return sum((x * y for x, y in zip(a, b, strict=True)), ZERO)

    def over_root(self, x: Interval, n: int) -> Interval:
        return over(x, root(n))

    def scores(self, scores: dict[Any, Interval]) -> dict[Any, Interval]:
        """What softmax makes of these scores is the exact softmax of those."""
        return scores

    def softmax(self, scores: Vector) -> Vector:
        scores = list(self.scores(dict(enumerate(scores))).values())
        c = max(map(nearest_binary_exponent, scores))
        e = [scaled_exp(s, c) for s in scores]
        pattern = []
        for i, x in enumerate(e):  # e^s_i / (e^s_i + rest) grows with the first and falls with the rest
            rest = sum((y for k, y in enumerate(e) if k != i), ZERO)
            pattern.append(Interval(x.lo / (x.lo + rest.hi) if x.lo else x.lo, x.hi / (x.hi + rest.lo)).short())
        return pattern

    def attended(self, values: dict[Any, Vector], n: int) -> dict[Any, Vector]:
        """What the n computed probabilities make of these values is what the exact ones make of those."""
        return values

    def passed(self, a: Vector) -> Vector:
        """The share of one attended value in a sum with something else."""
        return a


class Float32(Real):
    """Every float32 evaluation; the recipe is soundness.md, "float32"."""

    V = Fraction(129, 128 * 2**24)
    F = Fraction(1, 2**126)

    def number(self, x: Fraction) -> Interval:
        try:
            need(Fraction(struct.unpack("<f", struct.pack("<f", float(x)))[0]) == x, "a weight is no float32 number")
        except OverflowError as e:
            raise Rejected("a weight is no float32 number") from e
        return self.held(Interval(x))

    def held(self, x: Interval) -> Interval:
        need(x.size() < 2**125, "may come near overflow")
        return x.short()

    def add(self, a: Vector, b: Vector) -> Vector:
        return self.passed(super().add(a, b))

    def dot(self, a: Vector, b: Vector) -> Interval:
        n, sizes = len(a), sum(x.size() * y.size() for x, y in zip(a, b, strict=True))
        need(n <= 2**15 and sizes < 2**125, "may come near overflow")
        return self.held(super().dot(a, b).widened(n * self.V * sizes + 3 * n * self.F))

    def over_root(self, x: Interval, n: int) -> Interval:
        z = super().over_root(x, n)
        return self.held(z.widened(3 * self.V * z.size() + 3 * self.F))

    def scores(self, scores: dict[Any, Interval]) -> dict[Any, Interval]:
        most = max(s.size() for s in scores.values())
        by = 2 * self.V * most + Fraction(1, 2**20) + self.F
        return {key: s.widened(by) for key, s in scores.items()}

    def softmax(self, scores: Vector) -> Vector:
        by = (len(scores) + 4) * self.V
        return [p.widened(by * p.size() + 4 * self.F) for p in super().softmax(scores)]

    def attended(self, values: dict[Any, Vector], n: int) -> dict[Any, Vector]:
        flat = 8 * n * self.F * (max(x.size() for v in values.values() for x in v) + 1)
        return {k: [x.widened((2 * n + 5) * self.V * x.size() + flat) for x in v] for k, v in values.items()}

    def passed(self, a: Vector) -> Vector:
        return [self.held(x.widened(self.V * x.size() + self.F)) for x in a]


# --- The model -------------------------------------------------------------------------------------------------------


class Model:
    """The transformer, run on prefixes: a row depends on the tokens up to its own, so `kept` holds each row once."""

    def __init__(self, tensors: dict[str, tuple[list[int], list[Fraction]]], semantics: Real):
        self.of, self.left, self.kept = semantics, dict(tensors), {}
        self.W_E, (self.vocab, d) = self.take("embed.W_E", None, None)
        self.W_pos, (self.context, _) = self.take("pos_embed.W_pos", None, d)
        self.blocks: list[dict[str, Any]] = []
        while any(name.startswith(f"blocks.{len(self.blocks)}.") for name in self.left):
            at = f"blocks.{len(self.blocks)}.attn."
            block: dict[str, Any] = {}
            block["Q"], (heads, _, e) = self.take(at + "W_Q", None, d, None)
            for name in "KV":
                block[name], _ = self.take(at + f"W_{name}", heads, d, e)
            for name in "QKV":
                block["b" + name], _ = self.take(at + f"b_{name}", heads, e, optional=True)
            block["O"], _ = self.take(at + "W_O", heads, e, d)
            block["bO"], _ = self.take(at + "b_O", d, optional=True)
            self.blocks.append(block | {"heads": heads, "e": e})
        self.W_U, (_, self.out) = self.take("unembed.W_U", d, None)
        self.b_U, _ = self.take("unembed.b_U", self.out, optional=True)
        self.d = d
        need(not self.left, f"unknown tensors {list(self.left)}")

    def take(self, name: str, *sizes: int | None, optional: bool = False) -> tuple[Any, list[int]]:
        """A tensor as nested lists, and its shape; None in `sizes` stands for any positive size."""
        if optional and name not in self.left:
            return None, []
        need(name in self.left, f"{name} is missing")
        shape, numbers = self.left.pop(name)
        need(len(shape) == len(sizes), f"shape of {name}")
        need(all(n > 0 and want in (None, n) for n, want in zip(shape, sizes, strict=True)), f"shape of {name}")
        nested: list[Any] = [self.of.number(x) for x in numbers]
        for n in shape[:0:-1]:
            nested = [nested[i : i + n] for i in range(0, len(nested), n)]
        return nested, shape

    def matrix(self, x: Vector, matrix: list[Vector], bias: Vector | None = None) -> Vector:
        y = [self.of.dot(x, list(column)) for column in zip(*matrix, strict=True)]
        return y if bias is None else self.of.add(y, bias)

    def once(self, key: tuple, compute: Any) -> Any:
        if key not in self.kept:
            self.kept[key] = compute()
        return self.kept[key]

    def resid(self, n: int, prefix: tuple[int, ...]) -> Vector:
        """The row of the last token before block n."""

        def compute() -> Vector:
            if n == 0:
                return self.of.add(self.W_E[prefix[-1]], self.W_pos[len(prefix) - 1])
            return self.of.add(self.resid(n - 1, prefix), self.attn_out(n - 1, prefix))

        return self.once(("resid", n, prefix), compute)

    def project(self, which: str, n: int, h: int, prefix: tuple[int, ...]) -> Vector:
        block = self.blocks[n]
        bias = block["b" + which] and block["b" + which][h]
        return self.once((which, n, h, prefix), lambda: self.matrix(self.resid(n, prefix), block[which][h], bias))

    def score(self, n: int, h: int, q: Vector, key: Vector) -> Interval:
        return self.of.over_root(self.of.dot(q, key), self.blocks[n]["e"])

    def attn_out(self, n: int, prefix: tuple[int, ...]) -> Vector:
        def compute() -> Vector:
            block, mixed, rows = self.blocks[n], [], [prefix[: i + 1] for i in range(len(prefix))]
            for h in range(block["heads"]):
                q = self.project("Q", n, h, prefix)
                pattern = self.of.softmax([self.score(n, h, q, self.project("K", n, h, row)) for row in rows])
                values = [self.project("V", n, h, row) for row in rows]
                mixed += [self.of.dot(pattern, list(column)) for column in zip(*values, strict=True)]
            return [x.short() for x in self.matrix(mixed, [r for head in block["O"] for r in head], block["bO"])]

        return self.once(("attn", n, prefix), compute)

    def sites(self) -> dict[str, tuple[int, int]]:
        """Site -> (length of its rows, blocks that they go through)."""
        sites = {"logits": (self.out, len(self.blocks)), "embed": (self.d, 0), "pos_embed": (self.d, 0)}
        for n in range(len(self.blocks)):
            sites[f"blocks.{n}.resid_pre"] = (self.d, n)
            sites[f"blocks.{n}.attn_out"] = sites[f"blocks.{n}.resid_post"] = (self.d, n + 1)
        return sites

    def output(self, site: str, prefix: tuple[int, ...]) -> Vector:
        def compute() -> Vector:
            match site.split("."):
                case ["logits"]:
                    return self.matrix(self.resid(len(self.blocks), prefix), self.W_U, self.b_U)
                case ["embed"]:
                    return self.W_E[prefix[-1]]
                case ["pos_embed"]:
                    return self.W_pos[len(prefix) - 1]
                case [_, n, "attn_out"]:
                    return self.attn_out(int(n), prefix)
                case [_, n, which]:
                    return self.resid(int(n) + (which == "resid_post"), prefix)
            raise AssertionError(site)

        return self.once(("output", site, prefix), compute)

    def ratio(self, site: str, q: int, j: int, tokens: range) -> tuple[Vector, dict, dict]:
        """(B(q), U(v, i), s(q, v, i)) of the rule `fold`, for the one head that the site's row goes through."""
        block, own = self.blocks[0], (q,) * (j + 1)
        alone = [(v, i) for i in range(j + 1) for v in tokens]  # (v,) * (i + 1) stands for "v at position i"
        query = self.project("Q", 0, 0, own)
        scores = {(v, i): self.score(0, 0, query, self.project("K", 0, 0, (v,) * (i + 1))) for v, i in alone}
        values = {(v, i): self.project("V", 0, 0, (v,) * (i + 1)) for v, i in alone}
        base, u = [ZERO] * block["e"], self.of.attended(values, j + 1)

        def through(matrix: list[Vector]) -> None:
            nonlocal base, u
            base, u = self.matrix(base, matrix), {k: self.matrix(x, matrix) for k, x in u.items()}

        def plus(vector: Vector | None) -> None:
            nonlocal base, u
            if vector is not None:
                base, u = self.of.add(base, vector), {k: self.of.passed(x) for k, x in u.items()}

        through(block["O"][0])
        plus(block["bO"])
        if not site.endswith("attn_out"):
            plus(self.resid(0, own))
        if site == "logits":
            through(self.W_U)
            plus(self.b_U)
        return base, u, self.of.scores(scores)


# --- Mechanisms ------------------------------------------------------------------------------------------------------

FOLDS = {"sum": sum, "product": math.prod, "max": max, "min": min, "and": min, "or": max}
COMPARISONS = {"eq": int.__eq__, "lt": int.__lt__, "le": int.__le__}


class Mechanism:
    """An integer expression of the tokens."""

    def __init__(self, nodes: Any, values: list[int], length: int):
        self.nodes, self.values = [], values
        spans: list[tuple[int, int]] = []
        for node in items(nodes):
            op, operands, attribute = items(node, 3)
            operands = [integer(i, 0, len(spans) - 1) for i in items(operands)]
            spans.append(self.span(op, [spans[i] for i in operands], attribute, length))
            self.nodes.append((op, operands, attribute))
        need(spans, "an empty mechanism")

    def span(self, op: Any, spans: list[tuple[int, int]], k: Any, length: int) -> tuple[int, int]:
        need(type(op) is str, "operation")
        sizes = [max(abs(lo), abs(hi)) for lo, hi in spans]
        hull = (min((lo for lo, _ in spans), default=0), max((hi for _, hi in spans), default=0))
        truth, arity, bounds = (
            [],
            1,
            None,
        )  # operands that must be truth values, number of operands, the attribute's ends
        match op:
            case "value":
                arity, bounds, span = 0, (0, length - 1), (min(self.values), max(self.values))
            case "integer":
                arity, bounds, span = 0, (-BIG, BIG), (k, k)
            case "sum":
                span = (sum(lo for lo, _ in spans), sum(hi for _, hi in spans))
                need(sum(sizes) < BIG, "span of a sum")
            case "product":
                size = math.prod(max(s, 1) for s in sizes)
                span = (-size, size)
            case "max" | "min":
                span = hull
            case "and" | "or":
                truth, span = spans, (0, 1)
            case "kth_largest":
                bounds, span = (1, min(8, len(spans))), hull
            case "not":
                truth, span = spans, (0, 1)
            case "eq" | "lt" | "le":
                arity, span = 2, (0, 1)
            case "mod" | "floordiv":
                bounds = (1, BIG - 1)
                span = (0, integer(k, *bounds) - 1) if op == "mod" else (hull[0] // integer(k, *bounds), hull[1] // k)
            case "where":
                arity, truth = 3, spans[:1]
                span = (min((lo for lo, _ in spans[1:]), default=0), max((hi for _, hi in spans[1:]), default=0))
            case _:
                raise Rejected(f"operation {op}")
        many = op in FOLDS or op == "kth_largest"
        need(len(spans) >= 1 if many else len(spans) == arity, f"operands of {op}")
        need(k is None if bounds is None else integer(k, *bounds) is not None, f"attribute of {op}")
        need(all(lo >= 0 and hi <= 1 for lo, hi in truth), f"{op} needs truth values")
        need(span[0] > -BIG and span[1] < BIG, f"span of {op}")
        return span

    def __call__(self, tokens: tuple[int, ...]) -> int:
        done: list[int] = []
        for op, operands, k in self.nodes:
            x = [done[i] for i in operands]
            match op:
                case "value":
                    done.append(self.values[tokens[k]])
                case "integer":
                    done.append(k)
                case "kth_largest":
                    done.append(sorted(x, reverse=True)[k - 1])
                case "not":
                    done.append(1 - x[0])
                case "mod":
                    done.append(x[0] % k)
                case "floordiv":
                    done.append(x[0] // k)
                case "where":
                    done.append(x[1] if x[0] else x[2])
                case "eq" | "lt" | "le":
                    done.append(int(COMPARISONS[op](*x)))
                case _:
                    done.append(FOLDS[op](x))
        return done[-1]


# --- Rules -----------------------------------------------------------------------------------------------------------

Part = list[list[int]]
Bounds = tuple[int, int]


class Check:
    """One certificate: the claim, and the rules applied to parts of its domain."""

    def __init__(self, claim: Any, weights: bytes):
        names = ["kind", "semantics", "architecture", "weights_sha256", "domain", "site", "position", "equals", "at_least"]
        kind, self.semantics, architecture, digest, domain, site, position, equals, at_least = fields(claim, *names)
        need(kind == "accuracy" and architecture == "transformer", "kind or architecture")
        need(self.semantics in ("real", "float32"), "semantics")
        need(digest == hashlib.sha256(weights).hexdigest(), "other weights")
        tokens, values = fields(domain, "tokens", "values")
        self.values = [integer(v) for v in items(values)]
        self.part = [[integer(t, 0, len(self.values) - 1) for t in items(ids)] for ids in items(tokens)]
        need(1 <= len(self.part) <= 1024, "length")
        need(all(ids and ids == sorted(set(ids)) for ids in self.part), "token ids ascend, at least one")
        self.model = Model(read_tensors(weights), Real() if self.semantics == "real" else Float32())
        need(len(self.part) <= self.model.context and len(self.values) <= self.model.vocab, "domain beyond the model")
        sites = self.model.sites()
        need(type(site) is str and site in sites, "site")
        self.site, (self.out, self.depth) = site, sites[site]
        self.position = integer(position, 0, len(self.part) - 1)
        self.mechanism = Mechanism(equals, self.values, len(self.part))
        self.at_least = None if at_least is None else self.share(at_least)
        self.replayed = 0  # counterexamples

    @staticmethod
    def share(text: Any) -> Fraction:
        need(type(text) is str and re.fullmatch("[0-9]+/[1-9][0-9]*", text), "at_least is p/q")
        try:
            share = Fraction(text)
        except ValueError as e:
            raise Rejected("at_least too long") from e
        need(share <= 1, "at_least above 1")
        return share

    def surely(self, tokens: tuple[int, ...]) -> bool | None:
        """Is the input right? None where the enclosures leave it open."""
        m = self.mechanism(tokens)
        if not 0 <= m < self.out:
            return False
        y = self.model.output(self.site, tokens[: self.position + 1])
        margins = [y[m] - y[t] for t in range(self.out) if t != m]
        if any(x.hi <= 0 for x in margins):
            return False
        return True if all(x.lo > 0 for x in margins) else None

    def prove(self, proof: Any, part: Part) -> Bounds:
        need(type(proof) is dict, "a rule is an object")
        names = {"enumerate": "", "counterexample": "inputs", "split": "position first inside outside",
                 "both": "first second", "fold": "keys only cells"}  # fmt: skip
        rule = proof.get("rule")
        need(type(rule) is str and rule in names, "unknown rule")
        arguments = fields(proof, "rule", *names[rule].split())[1:]
        return getattr(self, f"rule_{rule}")(part, *arguments)

    def rule_enumerate(self, part: Part) -> Bounds:
        need(size_of(part) <= 2**25, "too many inputs")
        found = [self.surely(x) for x in itertools.product(*part)]
        return found.count(True), len(found) - found.count(False)

    def rule_counterexample(self, part: Part, inputs: Any) -> Bounds:
        rows = [tuple(integer(t) for t in items(row, len(part))) for row in items(inputs)]
        need(rows and len(set(rows)) == len(rows), "inputs are distinct, at least one")
        need(all(t in ids for row in rows for t, ids in zip(row, part, strict=True)), "an input outside the part")
        need(all(self.surely(row) is False for row in rows), "an input that is not surely wrong")
        self.replayed += 1
        return 0, size_of(part) - len(rows)

    def rule_split(self, part: Part, position: Any, first: Any, inside: Any, outside: Any) -> Bounds:
        position, ids = integer(position, 0, len(part) - 1), {integer(t) for t in items(first)}
        low = high = 0
        for proof, chosen in (inside, True), (outside, False):
            tokens = [t for t in part[position] if (t in ids) is chosen]
            need(tokens, "an empty part")
            a, b = self.prove(proof, [*part[:position], tokens, *part[position + 1 :]])
            low, high = low + a, high + b
        return low, high

    def rule_both(self, part: Part, first: Any, second: Any) -> Bounds:
        (a, b), (c, d) = self.prove(first, part), self.prove(second, part)
        need(max(a, c) <= min(b, d), "the two contradict each other")
        return max(a, c), min(b, d)

    def rule_fold(self, part: Part, keys: Any, only: Any, cells: Any) -> Bounds:
        need(self.depth == 1 and self.model.blocks[0]["heads"] == 1, "no ratio of one head")
        need(len(items(keys)) <= 8, "too many keys")
        roots = [self.mechanism, *(Mechanism(k, self.values, len(part)) for k in keys)]
        wanted = None if only is None else {self.class_of(c, len(roots)) for c in items(only)}
        inputs: dict[tuple, list[tuple[int, ...]]] = {}
        for x in itertools.product(*part):
            inputs.setdefault((x[self.position], tuple(root(x) for root in roots)), []).append(x)
        rows: dict[tuple, tuple] = {}
        for row in items(cells):
            q, name, above, below = items(row, 4)
            cell = (integer(q), self.class_of(name, len(roots)))
            need(cell in inputs and cell not in rows, "a row for no cell, or a second one")
            need(wanted is None or cell[1] in wanted, "a row for a cell that is passed over")
            rows[cell] = (None if above is None else [self.group(g) for g in items(above)],
                          None if below is None else self.group(below))  # fmt: skip
        low = high = 0
        for cell, members in inputs.items():
            if wanted is not None and cell[1] not in wanted:
                least, most = 0, len(members)
            elif not 0 <= cell[1][0] < self.out:
                least = most = len(members)
            else:
                least, most = self.wrong(*cell, members, *rows.get(cell, ([], None)))
            low, high = low + len(members) - most, high + len(members) - least
        return low, high

    def class_of(self, value: Any, length: int) -> tuple[int, ...]:
        return tuple(integer(v) for v in items(value, length))

    def group(self, value: Any) -> tuple[int, list[int]]:
        step, rivals = items(value, 2)
        return integer(step, -1000, 1000), [integer(t) for t in items(rivals)]

    def wrong(self, q: int, name: tuple, inputs: list[tuple[int, ...]], above: Any, below: Any) -> Bounds:
        """At least and at most so many of the cell's inputs are wrong."""
        m, j = name[0], self.position
        base, u, score = self.model.once(
            ("ratio", q), lambda: self.model.ratio(self.site, q, j, range(len(self.values)))
        )
        live = {(x[i], i) for x in inputs for i in range(j + 1)}
        c = max(nearest_binary_exponent(score[at]) for at in live)
        factor = {at: scaled_exp(score[at], c) for at in live}
        g = {}
        for t in set(range(self.out)) - {m}:
            g[t] = {at: factor[at] * (base[m] - base[t] + (u[at][m] - u[at][t])) for at in live}

        def sums(terms: dict[tuple[int, int], Any]) -> list[Any]:
            return [sum(terms[x[i], i] for i in range(j + 1)) for x in inputs]

        lows = {t: sums({at: x.lo for at, x in g[t].items()}) for t in g}
        undecided = [t for t in g if min(lows[t]) <= 0]
        if not undecided:
            return 0, 0
        if above is None:
            need(below is None, "a listed cell has no lower count")
            need(len(inputs) * len(undecided) <= 2**22, "too many inputs to list")
            highs = [sums({at: x.hi for at, x in g[t].items()}) for t in undecided]
            most = sum(any(lows[t][n] <= 0 for t in undecided) for n in range(len(inputs)))
            return sum(any(h[n] <= 0 for h in highs) for n in range(len(inputs))), most

        def lost(end: str, group: tuple[int, list[int]], down: bool) -> int:
            """The inputs with a sum <= 0, of the group's least terms in steps rounded down, or up."""
            step, rivals = group
            need(rivals and set(rivals) <= set(g), "a group names rivals")
            toward = math.floor if down else math.ceil
            terms = {at: toward(min(getattr(g[t][at], end) for t in rivals) / Fraction(2) ** step) for at in live}
            need(min(terms.values()) >= -(2**30), "a rounded term below -2^30")
            return sum(total <= 0 for total in sums(terms))

        least, most = 0, len(inputs)
        if set(undecided) <= {t for _, rivals in above for t in rivals}:
            most = min(most, sum(lost("lo", group, True) for group in above))
        if below is not None:
            need(len(below[1]) == 1, "one rival from below")
            least = lost("hi", below, False)
        return least, most


def size_of(part: Part) -> int:
    return math.prod(map(len, part))


def check(data: bytes) -> dict[str, Any]:
    """The conclusion of a certificate that proves it; raises Rejected for any other file."""
    document, weights = members(data)
    parsed = strict_json(document)
    form, version, claim, conclusion, axioms, proof = fields(
        parsed, "format", "version", "claim", "conclusion", "axioms", "proof"
    )
    need(form == "mechverify-certificate" and integer(version) == 2, "format or version")
    task = Check(claim, weights)
    need(axioms == ["ieee754"] + ["libm:float32"] * (task.semantics == "float32"), "axioms")
    verdict, least, most = fields(conclusion, "verdict", "right_at_least", "right_at_most")
    least, most, size = count(least), count(most), size_of(task.part)
    try:
        low, high = task.prove(proof, task.part)
    except RecursionError as e:
        raise Rejected("proof too deep") from e
    need(least <= low and high <= most, f"proved {low} to {high} only")
    match verdict:
        case "PROVED":
            need(task.at_least is not None and least >= task.at_least * size, "verdict")
        case "REFUTED":
            need(task.at_least is not None and most < task.at_least * size and task.replayed, "verdict")
        case _:
            need(verdict == "BOUNDED", "verdict")
    return conclusion
