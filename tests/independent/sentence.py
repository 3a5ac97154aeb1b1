"""Reads the lines that mechverify prints of a theorem, and says which of them the file doesn't bear out.

Written from docs/statement.md (how the lines are to be read) and docs/certificate.md (what the file says), sharing
nothing with the printer: formulas are parsed and compared with the graph's rows node by node, numbers and sets are read
back, and what is printed as a hash is compared with the hash of what the file holds.
"""

import hashlib
import itertools
import json
import math
import re
from collections.abc import Iterable
from fractions import Fraction
from typing import Any

from tests.independent.checker import Mechanism, members, strict_json

SEMANTICS = {
    "real": "real (exact real arithmetic on these exact weights)",
    "float32": "float32 (every float32 evaluation of the model, in any summation order)",
}
_TRANSFORMER = ["no layer norm, and none folded into the weights", "attention scores are divided by sqrt(d_head)",
                "attention is causal and sees all earlier positions",
                "position embeddings are added to the token embeddings, once"]  # fmt: skip
ASSUMED = {
    "transformer": _TRANSFORMER,
    "transformer_relu": [
        *_TRANSFORMER, "the activation is ReLU", "an MLP reads the residual after its block's attention",
    ],
    "pair_mlp": ["the activation is ReLU", "no biases"],
    "captured": [],
}  # fmt: skip
FREE = {
    "arithmetic": r"exact rationals|float64 with outward rounding",
    "time": r"check [0-9]+\.[0-9]{2} s",
    "cost": r"[0-9.e]+ operations(; brute force takes [0-9.e]+(, [0-9.e]+ times as many)?)?",
}  # not of the theorem
NUMBER = r"-?[0-9]+\*2\^-?[0-9]+|-?[0-9]+/[0-9]+|-?[0-9]+\.[0-9]+|-?[0-9]+"
ROUNDED = rf"-?[0-9.]+e-?[0-9]+|{NUMBER}"
TOKEN = re.compile(
    rf"(?P<abridged>\.\.\. \([0-9]+ in all, sha256 [0-9a-f]{{64}}\))|(?P<number>{NUMBER})|(?P<text>\"(?:[^\"\\]|\\.)*\")|'(?P<quoted>[^']*)'"
    r"|(?P<name>[A-Za-z_][A-Za-z0-9_]*(?:[.@][A-Za-z0-9_]+)*)|(?P<sign>==|<=|//|[-+*<^()\[\],:])| "
)
INFIX = {"+", "-", "*", "==", "<", "<=", "and", "or", "mod", "//", "^", "if"}
OPERATORS = {"+": ("sum", "add"), "*": ("product", "mul"), "-": ("sub",), "==": ("eq",), "<": ("lt",), "<=": ("le",),
             "and": ("and",), "or": ("or",), "mod": ("mod",), "//": ("floordiv",), "^": ("power",)}  # fmt: skip


class False_(Exception):
    """A line that the file doesn't bear out."""


def need(condition: Any, why: str) -> None:
    if not condition:
        raise False_(why)


def value(text: str) -> Fraction:
    """The number that a text is, exactly."""
    need(re.fullmatch(ROUNDED, text), f"{text!r:.80} is no number")
    if "*2^" in text:
        m, e = text.split("*2^")
        return int(m) * Fraction(2) ** int(e)
    return Fraction(text)


def written(number: Fraction) -> str:
    """The one way to write a number exactly (docs/statement.md)."""
    p, q, places = number.numerator, number.denominator, 0
    while places <= 60 and 10**places % q:
        places += 1
    if 10**places % q == 0:
        digits = str(abs(p) * 10**places // q).rjust(places + 1, "0")
        text = "-" * (p < 0) + (digits[:-places] + "." + digits[-places:] if places else digits)
        if len(text) <= 60:
            return text
    if q & (q - 1) == 0:
        m, e = p, 1 - q.bit_length()
        while m % 2 == 0:
            m, e = m // 2, e + 1
        if e:
            return f"{m}*2^{e}"
    return f"{p}/{q}" if q > 1 else str(p)


def same_list(text: str, entries: list[str], separator: str = ", ") -> None:
    """The text lists these entries, or the first eight of them and a hash of all."""
    whole = separator.join(entries)
    if text == whole:
        return
    found = re.fullmatch(r"(.*)\.\.\. \(([0-9]+) in all, sha256 ([0-9a-f]{64})\)", text)
    need(found, f"{text!r:.80} lists something else than {whole!r:.80}")
    need(found[1] == "".join(e + separator for e in entries[:8]), f"other first entries: {text!r:.80}")
    need(int(found[2]) == len(entries), f"{found[2]} entries of {len(entries)}")
    need(found[3] == hashlib.sha256(whole.encode()).hexdigest(), "the hash of a list differs")


def grouped(entries: Iterable[str]) -> list[str]:
    """`a^3` for three neighbours a."""
    found: list[tuple[str, int]] = []
    for e in entries:
        times = found.pop()[1] if found and found[-1][0] == e else 0
        found.append((e, times + 1))
    return [e if n == 1 else f"{e}^{n}" for e, n in found]


def set_text(ids: list[int]) -> str:
    parts: list[str] = []
    for i in ids:
        first, _, last = parts[-1].partition("..") if parts else ("", "", "")
        if parts and int(last or first) == i - 1:
            parts[-1] = f"{first}..{i}"
        else:
            parts.append(str(i))
    flat: list[str] = []
    for p in parts:
        first, _, last = p.partition("..")
        flat += [first, last] if last and int(last) == int(first) + 1 else [p]
    return "{" + abridged(flat, ",") + "}"


def abridged(entries: list[str], separator: str) -> str:
    whole = separator.join(entries)
    if len(whole) <= 400:
        return whole
    first = "".join(e + separator for e in entries[:8])
    return f"{first}... ({len(entries)} in all, sha256 {hashlib.sha256(whole.encode()).hexdigest()})"


# --- Formulas ---------------------------------------------------------------------------------------------------------


class Parser:
    """A formula as nested tuples; `parts` are the definitions of t1, t2, ... before it."""

    def __init__(self, text: str, parts: list[tuple]):
        self.tokens: list[tuple[str, str]] = []
        at = 0
        while at < len(text):
            found = TOKEN.match(text, at)
            need(found and found.end() > at, f"can't read {text[at : at + 20]!r} in a formula")
            if found.lastgroup:
                self.tokens.append((found.lastgroup, found[found.lastgroup]))
            at = found.end()
        self.at, self.parts = 0, parts

    def whole(self) -> tuple:
        tree = self.expression()
        need(self.at == len(self.tokens), "a formula goes on where it should end")
        return tree

    def peek(self) -> tuple[str, str]:
        return self.tokens[self.at] if self.at < len(self.tokens) else ("end", "")

    def take(self, sign: str | None = None) -> tuple[str, str]:
        token = self.peek()
        need(token[0] != "end" and (sign is None or token == ("sign", sign)), f"{sign} is missing in a formula")
        self.at += 1
        return token

    def expression(self) -> tuple:
        tree = self.primary()
        while self.peek() == ("sign", "["):
            self.take()
            index = [self.index()]
            while self.peek() == ("sign", ","):
                self.take()
                index.append(self.index())
            self.take("]")
            tree = ("at", tree, tuple(index))
        return tree

    def index(self) -> Any:
        if self.peek() == ("sign", ":"):
            self.take()
            return ":"
        return self.expression()

    def primary(self) -> tuple:
        kind, text = self.take()
        if kind == "number":
            return ("number", value(text))
        if kind == "abridged":
            return ("abridged", text)
        if kind == "text":
            return ("text", json.loads(text))
        if kind == "quoted":
            return ("name", text)
        if kind == "sign":
            need(text in "([", f"{text!r} where a value should be")
            return ("list", *self.several("]")) if text == "[" else self.inside()
        for prefix, what in (("x", "token"), ("input", "input"), ("n", "node"), ("t", "part")):
            if re.fullmatch(prefix + "[0-9]+", text):
                number = int(text[len(prefix) :])
                if what != "part":
                    return (what, number)
                need(0 < number <= len(self.parts), f"{text} is not defined")
                return self.parts[number - 1]
        if self.peek() == ("sign", "("):
            self.take()
            return ("call", text, *self.several(")"))
        return ("call", text) if text in ("tokens", "pi") else ("name", text)

    def several(self, end: str) -> list[tuple]:
        found: list[tuple] = []
        while self.peek() != ("sign", end):
            if found:
                self.take(",")
            found.append(self.expression())
        self.take(end)
        return found

    def inside(self) -> tuple:
        """After `(`: an operation, or a tuple."""
        if self.peek() == ("sign", ")"):
            self.take()
            return ("tuple",)
        args = [self.expression()]
        operator = self.peek()[1]
        if operator not in INFIX:
            if operator == ",":
                self.take()
                return ("tuple", *args, *self.several(")"))
            self.take(")")
            return ("tuple", *args)
        if operator == "if":
            self.take()
            args.append(self.expression())
            need(self.take()[1] == "else", "else is missing")
            args.append(self.expression())
            self.take(")")
            return ("where", args[1], args[0], args[2])
        while self.peek()[1] == operator:
            self.take()
            args.append(self.expression())
        self.take(")")
        need(operator in ("+", "*", "and", "or") or len(args) == 2, f"{operator} between {len(args)} values")
        return ("operator", operator, *args)


def parsed(text: str) -> tuple[str, list[tuple]]:
    """The text before `, where t1 = ...`, and the parts defined there."""
    before, where, after = text.partition(", where t1 = ")
    parts: list[tuple] = []
    if where:
        for i, part in enumerate(re.split(r", t[0-9]+ = ", after)):
            parts.append(Parser(part, parts).whole())
            need(i == 0 or f", t{i + 1} = " in after, "parts are not numbered in order")
    return before, parts


class Graph:
    """The rows of a file, equal ones once, and what they say."""

    def __init__(self, rows: list, values: list[int], length: int):
        self.length = length
        self.nodes: list[tuple] = []
        known: dict[tuple, int] = {}
        self.at: list[int] = []  # node of each row
        for op, operands, attribute in rows:
            key = (op, tuple(self.at[a] for a in operands), self._attribute(op, attribute))
            if key not in known:
                known[key] = len(self.nodes)
                self.nodes.append(key)
            self.at.append(known[key])
        self.values, self.memo = values, {}
        self.shapes: dict[int, tuple] = {}

    @staticmethod
    def _attribute(op: str, a: Any) -> Any:
        if op == "constant":
            return tuple(a[0]), tuple(exact(v) for v in a[1])
        if type(a) is list:
            return tuple(tuple(v) if type(v) is list else v for v in a)
        return a

    def needed(self, roots: Iterable[int]) -> list[int]:
        found, stack = set(), list(roots)
        while stack:
            n = stack.pop()
            if n not in found:
                found.add(n)
                stack += self.nodes[n][1]
        return sorted(found)

    def digest(self, nodes: list[int]) -> str:
        number, whole = {n: f"n{i}" for i, n in enumerate(nodes)}, hashlib.sha256()
        for n in nodes:
            op, operands, attribute = self.nodes[n]
            inside = ", ".join([*(number[a] for a in operands), *self._said(op, attribute)])
            whole.update(f"{number[n]} = {op}{f'({inside})' if inside else ''}\n".encode())
        return whole.hexdigest()

    def _said(self, op: str, a: Any) -> list[str]:
        def one(v: Any) -> str:
            if isinstance(v, tuple):
                return "(" + ", ".join(map(one, v)) + ")"
            if isinstance(v, Fraction):
                return written(v)
            return json.dumps(v).replace("\x7f", "\\u007f") if isinstance(v, str) else str(v)

        if a is None:
            return []
        return list(map(one, a)) if isinstance(a, tuple) and op != "softmax" else [one(a)]

    # --- shapes, as far as indices need them --------------------------------------------------------------------------

    def shape(self, n: int) -> tuple[int, ...]:
        for m in self.needed([n]) if n not in self.shapes else ():
            if m not in self.shapes:
                self.shapes[m] = self._shape(*self.nodes[m])
        return self.shapes[n]

    def _shape(self, op: str, args: tuple, a: Any) -> tuple[int, ...]:
        shapes = [self.shapes[n] for n in args]
        match op:
            case "input" | "weight":
                return tuple(a[1])
            case "constant" | "view":
                return tuple(a[0])
            case "tokens":
                return (self.length,)
            case "gather":
                return (*shapes[1], *shapes[0][1:])
            case "concat":
                return (*shapes[0][:a], sum(s[a] for s in shapes), *shapes[0][a + 1 :])
            case "pick":
                return shapes[0][1:]
            case "einsum":
                first, second, result = a.replace("->", ",").split(",")
                sizes = dict(zip(first, shapes[0], strict=True)) | dict(zip(second, shapes[1], strict=True))
                return tuple(sizes[c] for c in result)
            case "extremum":
                return tuple(shapes[0][:-1])
            case "add" | "sub" | "mul" | "choose":
                rank = max(map(len, shapes))
                padded = [(1,) * (rank - len(s)) + tuple(s) for s in shapes]
                return tuple(max(pair) for pair in zip(*padded, strict=True))
        return shapes[0] if shapes else ()

    # --- does a formula say what a node is? ---------------------------------------------------------------------------

    def says(self, tree: tuple, n: int, names: dict[str, int], numbers: dict[int, int]) -> bool:
        """`names`: nodes by the names printed; `numbers`: nodes by their number in the listing."""
        key = id(tree), n
        if key not in self.memo:
            self.memo[key] = tree, self._says(tree, n, lambda t, m: self.says(t, m, names, numbers), names, numbers)
        return self.memo[key][1]

    def _says(self, tree: tuple, n: int, says: Any, names: dict[str, int], numbers: dict[int, int]) -> bool:
        op, args, a = self.nodes[n]
        if op == "number" and tree[0] not in ("name", "node"):  # an integer as a real
            return says(tree, args[0])
        match tree:
            case ("name", text):
                return names.get(text) == n
            case ("node", number):
                return numbers.get(number) == n
            case ("number", v) | ("tuple", ("number", v)):
                return self._constant(n) == v
            case ("token", i):
                return (op, a) == ("value", i) or self._means(n) == i
            case ("input", k):
                return op == "input" and a[0] == k
            case ("at", base, index):
                return self._reads(base, index, n, says)
            case ("where", *parts):
                return op == "where" and all(map(says, parts, args))
            case ("operator", "-", x, y):
                if op == "sub":
                    return says(x, args[0]) and says(y, args[1])
                if op != "add":
                    return False
                for plus, minus in (args, args[::-1]):  # x + -1 * y
                    other, operands, _ = self.nodes[minus]
                    if other == "mul" and self._constant(operands[0]) == -1 and says(x, plus) and says(y, operands[1]):
                        return True
                return False
            case ("operator", ("mod" | "//" | "^") as sign, x, ("number", k)):
                return op in OPERATORS[sign] and a == k and says(x, args[0])
            case ("call", "distinct", *_):
                return op == "and" and self._conjunction([tree], args, says)
            case ("operator", "and", *parts) if parts[-1][:2] == ("call", "distinct"):
                return op == "and" and self._conjunction(parts, args, says)
            case ("operator", sign, *parts):
                return op in OPERATORS[sign] and len(parts) == len(args) and all(map(says, parts, args))
            case ("list", *parts):
                return op == "constant" and len(a[0]) == 1 and self._lists(tuple(parts), a[1])
            case ("call", "leads", vector):
                return self._leads(vector, n, says)
            case ("call", ("min" | "max") as name, x, y) if op in ("add", "sub"):
                return self._extreme(name, x, y, n, says)
            case ("call", name, *parts):
                if op != name or len(parts) < len(args) or not all(map(says, parts, args)):
                    return False
                return [self._plain(p) for p in parts[len(args) :]] == self._attributes(op, a)
        return False

    def _conjunction(self, parts: list, args: tuple, says: Any) -> bool:
        """The last part says that no two of its values are equal: as many conditions say so of two, and the others are
        the parts before it, in order."""
        *others, (_, _, *values) = parts
        said = set()
        for n in args:
            pair = self._two_unequal(n, values, says)
            said |= {pair}
            if pair is None and not (others and says(others.pop(0), n)):
                return False
        return not others and said >= {(i, j) for j in range(len(values)) for i in range(j)}

    def _two_unequal(self, n: int, values: list, says: Any) -> tuple[int, int] | None:
        """Which two of the values a node says to differ."""
        op, args, _ = self.nodes[n]
        inner, operands, _ = self.nodes[args[0]] if op == "not" else (op, (), None)
        if (op, inner) != ("not", "eq"):
            return None
        places = [[i for i, v in enumerate(values) if says(v, m)] for m in operands]
        return next(((min(i, j), max(i, j)) for i in places[0] for j in places[1] if i != j), None)

    def _leads(self, vector: tuple, n: int, says: Any) -> bool:
        """Row i of what is minimised holds entry i less each other entry: read off the flat indices, one by one."""
        op, args, a = self.nodes[n]
        if (op, a) != ("extremum", "min") or len(self.shape(args[0])) != 2:
            return False
        indices, m = [], args[0]
        size = self.shape(m)[0]
        if self.shape(m) != (size, size - 1):
            return False
        while self.nodes[m][0] == "view":
            indices.append(self.nodes[m][2])
            (m,) = self.nodes[m][1]
        op, args, _ = self.nodes[m]
        if op != "sub" or self.shape(args[1]) != (size,) or not says(vector, args[1]):
            return False
        column, operands, attribute = self.nodes[args[0]]
        if column != "view" or attribute[0] != (size, 1):
            return False
        _, start, (step, _) = attribute
        if operands == (args[1],):
            read = 0, 1
        elif self.nodes[args[1]][:2] == ("view", operands):  # the vector is read from where the column is
            _, first, (stride,) = self.nodes[args[1]][2]
            read = first, stride
        else:
            return False
        if (start, step) != read:
            return False
        at = list(range(size * size))  # of a difference, at i, j: entry i less entry j
        for shape, offset, strides in reversed(indices):
            flat = [offset]
            for extent, step in zip(shape, strides, strict=True):
                flat = [f + step * k for f in flat for k in range(extent)]
            at = [at[f] for f in flat]
        return at == [size * i + j for i in range(size) for j in range(size) if i != j]

    def _extreme(self, name: str, x: tuple, y: tuple, n: int, says: Any) -> bool:
        """min(x, y) is x - relu(x - y), and max(x, y) is y + relu(x - y)."""
        op, args, _ = self.nodes[n]
        if op != {"min": "sub", "max": "add"}[name]:
            return False
        beyond, (difference, *_), _ = self.nodes[args[1]] if self.nodes[args[1]][1] else ("", (0,), None)
        op, operands, _ = self.nodes[difference]
        if (beyond, op) != ("relu", "sub") or operands[["min", "max"].index(name)] != args[0]:
            return False
        return says(x, operands[0]) and says(y, operands[1])

    def _attributes(self, op: str, a: Any) -> list:
        if a is None:
            return []
        if isinstance(a, tuple) and op != "softmax":
            return [tuple(v) if isinstance(v, tuple) else v for v in a]
        return [a]

    def _plain(self, tree: tuple) -> Any:
        match tree:
            case ("tuple", *parts):
                return tuple(map(self._plain, parts))
            case ("number" | "text", v):
                return v
        raise False_(f"{tree!r:.60} where an attribute should be")

    def _constant(self, n: int) -> Fraction | None:
        op, args, a = self.nodes[n]
        if op == "integer":
            return Fraction(a)
        if op == "constant" and a[0] == ():
            return a[1][0]
        if op == "mul" and self.nodes[args[1]][0] == "reciprocal":
            p, q = self._constant(args[0]), self._constant(self.nodes[args[1]][1][0])
            return p / q if p is not None and q else None
        return None

    def _means(self, n: int) -> int | None:
        """The position whose token's meaning a real node is."""
        op, args, a = self.nodes[n]
        if op != "view" or a[0] != () or self.nodes[args[0]][0] != "gather":
            return None
        table, ids = (self.nodes[m] for m in self.nodes[args[0]][1])
        meant = ("constant", (), ((len(self.values),), tuple(map(Fraction, self.values))))
        return a[1] if table == meant and ids[0] == "tokens" else None

    def _reads(self, base: tuple, index: tuple, n: int, says: Any) -> bool:
        op, args, a = self.nodes[n]
        if op == "lookup":
            return len(index) == 1 and says(index[0], args[0]) and base[0] == "list" and self._lists(base[1:], a)
        if op == "pick":
            return len(index) == 1 and says(index[0], args[1]) and says(base, args[0])
        if op != "view" or not says(base, args[0]):
            return False
        whole = self.shape(args[0])
        if len(index) != len(whole):
            return False
        shape, offset, strides, step = [], 0, [], 1
        for i, size in reversed(list(zip(index, whole, strict=True))):
            if i == ":":
                shape.insert(0, size)
                strides.insert(0, step)
            else:
                if i[0] != "number" or not 0 <= i[1] < size:
                    return False
                offset += int(i[1]) * step
            step *= size
        return a == (tuple(shape), offset, tuple(strides))

    def _lists(self, parts: tuple, table: tuple) -> bool:
        """A list of numbers, maybe abridged."""
        texts = [written(p[1]) if p[0] == "number" else p[1] if p[0] == "abridged" else "?" for p in parts]
        try:
            same_list(", ".join(texts), [written(Fraction(v)) for v in table])
        except False_:
            return False
        return True


def exact(text: str) -> Fraction:
    return Fraction(float.fromhex(text)) if "x" in text else Fraction(text)


# --- The lines of a theorem -------------------------------------------------------------------------------------------


class Sentence:
    """What a file says, to compare lines with."""

    def __init__(self, certificate: bytes):
        text, weights = members(certificate)
        self.document = strict_json(text)
        self.claim, self.conclusion = self.document["claim"], self.document["conclusion"]
        self.weights = hashlib.sha256(weights).hexdigest()
        self.tokens, self.values = self.claim["domain"]["tokens"], self.claim["domain"]["values"]
        self.accuracy = self.claim["kind"] == "accuracy"
        self.counts = self.claim["kind"] in ("accuracy", "share")
        boxes = self.claim["domain"].get("inputs", [])
        self.boxes = [(shape, list(map(exact, low)), list(map(exact, high))) for shape, low, high in boxes]
        self.union = [[[*map(exact, end)] for end in box] for box in self.claim.get("union", [])]
        self.weighed = "measure" in self.claim
        self.captured = "graph" in self.claim
        equals = self.claim["equals"] if self.accuracy else []  # the mechanism's nodes come first, then the guard's
        given = self.claim.get("given", []) if self.counts else []
        listed = self.claim["graph"]["nodes"] if self.captured else []
        self.mechanism, self.guard, rows = len(equals) - 1, len(equals) + len(given) - 1, []
        for some in (equals, given, listed):
            start = len(rows)
            rows += [[op, [a + start for a in args], attr] for op, args, attr in some]
        self.graph = Graph(rows, self.values, len(self.tokens))
        self.lemmas, self.inputs = self._walk()
        sites = self.claim["graph"]["sites"] if self.captured else []
        self.sites = {name: self.graph.at[row + self.guard + 1] for name, row in sites}
        if self.accuracy:
            roots = [self.graph.at[self.mechanism], *([self.sites[self.claim["site"]]] if self.captured else [])]
        else:
            named = [self.claim["site"], *self.claim.get("where", [])]
            named += [name for row, _ in self.lemmas for name in (row["site"], row["mechanism"])]
            roots = [self.sites[name] for name in named]
        roots += [self.graph.at[self.guard]] if given else []
        self.total = math.prod(map(len, self.tokens))
        if given:
            holds = Mechanism(given, self.values, len(self.tokens))
            self.total = sum(holds(x) for x in itertools.product(*self.tokens))
        self.listed = self.graph.needed(roots)
        self.numbers = dict(enumerate(self.listed))
        self.names: dict[str, int] = {}
        self.unmatched = list(self.lemmas)

    def _walk(self) -> tuple[list, list]:
        """Lemmas with the part on which each is proved, [token sets, corners], and all inputs that are listed."""
        lemmas, inputs = [], []
        box = [[v for _, low, _ in self.boxes for v in low], [v for _, _, high in self.boxes for v in high]]
        todo = [(self.document["proof"], self.tokens, box)]
        while todo:
            node, tokens, box = todo.pop()
            match node["rule"]:
                case "both":
                    todo += [(node["first"], tokens, box), (node["second"], tokens, box)]
                case "split" if "position" in node:
                    i, first = node["position"], set(node["first"])
                    for side, inside in (("inside", True), ("outside", False)):
                        half = [t for t in tokens[i] if (t in first) == inside]
                        todo.append((node[side], [*tokens[:i], half, *tokens[i + 1 :]], box))
                case "split" if "coordinate" in node:
                    k, at = node["coordinate"], exact(node["at"])
                    low, high = ([*end[:k], at, *end[k + 1 :]] for end in box)
                    todo += [(node["inside"], tokens, [box[0], high]), (node["outside"], tokens, [low, box[1]])]
                case "split":
                    todo += [(node[side], tokens, box) for side in ("inside", "outside")]
                case "union":
                    met = [[[*map(max, low, box[0])], [*map(min, high, box[1])]] for low, high in self.union]
                    met = [[low, high] for low, high in met if all(a <= b for a, b in zip(low, high, strict=True))]
                    todo += [(own, tokens, part) for own, part in zip(node["parts"], met, strict=True)]
                case "cut":
                    lemmas += [(row, (tokens, box)) for row in node["lemmas"]]
                case "faces":
                    todo += [(own, tokens, box) for own in node["faces"]]
                case "counterexample":
                    inputs += [(row, []) for row in node["inputs"]]
                case "point":
                    inputs += [(ids, [exact(v) for v in point]) for ids, point in node["inputs"]]
        return lemmas, inputs

    def formula(self, text: str, node: int, parts: list[tuple]) -> bool:
        return self.graph.says(Parser(text, parts).whole(), node, self.names, self.numbers)

    # --- one method a label -------------------------------------------------------------------------------------------

    def verdict(self, text: str) -> None:
        need(text == self.conclusion["verdict"], f"the file concludes {self.conclusion['verdict']}")

    def line_claim(self, text: str) -> None:
        kinds = {"accuracy": self._accuracy, "share": self._share, "bounds": self._bounds}
        kinds[self.claim["kind"]](*parsed(text))

    def _share(self, text: str, parts: list[tuple]) -> None:
        text, share = self._ending(text, rf", on at least (\S+) of {'the whole' if self.weighed else 'them'}")
        need(share == (None if self.claim["at_least"] is None else Fraction(self.claim["at_least"])), "another share")
        end = " > 0" if self.claim["strict"] else " >= 0"
        need(text.endswith(end), "another comparison")
        self._output(text.removesuffix(end), parts)

    def _accuracy(self, text: str, parts: list[tuple]) -> None:
        claim = self.claim
        position = "" if claim["position"] is None else f"[{claim['position']}]"
        start, output, _ = text.partition(" = ")
        need(output and start.startswith("strict argmax "), "can't be read")
        start, text = start.removeprefix("strict argmax "), text.removeprefix(f"{start} = ")
        if self.captured:
            self._output(start, parts)
        else:
            need(start == f"{claim['site']}{position}", "another output")
        text, share = self._ending(text, r", on at least (\S+) of them")
        need(share == (None if claim["at_least"] is None else Fraction(claim["at_least"])), "another threshold")
        text, margin = self._ending(text, r", by more than (\S+)")
        need((margin or 0) == exact(claim.get("margin", "0/1")), "another margin")
        cut = re.fullmatch(r"(n[0-9]+) of a graph of ([0-9]+) nodes, sha256 ([0-9a-f]{64})", text)
        if cut:
            need(int(cut[2]) == len(self.listed) and cut[3] == self.graph.digest(self.listed), "another mechanism")
            text = cut[1]
        need(self.formula(text, self.graph.at[self.mechanism], parts), "another mechanism")

    def _ending(self, text: str, pattern: str) -> tuple[str, Fraction | None]:
        found = re.search(f"{pattern}$", text)
        return (text[: found.start()], value(found[1])) if found else (text, None)

    def _bounds(self, text: str, parts: list[tuple]) -> None:
        claim, count = self.claim, len(self.conclusion["low"])
        found = re.fullmatch(r"(?:every entry (.+?): |the range of )(.*?)(?:, ([0-9]+) entries)?", text)
        need(found, "can't be read")
        need(int(found[3] or 1) == count, f"the output has {count} entries")
        said = dict.fromkeys(("at least", "at most"))
        if found[1]:
            for bound in re.split(r" and (?=at )", found[1]):
                words, numbers = bound[:8].strip(), bound[8:].strip()
                said[words] = numbers
        for words in said:
            self._threshold(said[words], claim[words.replace(" ", "_")], count)
        self._output(found[2], parts)

    def _output(self, text: str, parts: list[tuple]) -> None:
        claim, node = self.claim, self.sites[self.claim["site"]]
        tree = Parser(text, parts).whole()
        if claim["position"] is not None:
            need(tree[0] == "at" and tree[2] == (("number", claim["position"]),), "another position")
            need(self.graph.says(tree[1], node, self.names, self.numbers), "another site")
        elif not self.graph.says(tree, node, self.names, self.numbers):
            need(self._lists(tree, node), "another value")

    def _lists(self, tree: tuple, node: int) -> bool:
        """The entries of a concatenation, one by one."""
        op, args, _ = self.graph.nodes[node]
        said = tree[1:] if tree[0] == "list" else [tree]
        if op != "concat" or len(said) != len(args) or any(self.graph.shape(a) != (1,) for a in args):
            return False
        for t, a in zip(said, args, strict=True):
            inner = self.graph.nodes[a]
            if inner[0] == "view" and self.graph.shape(inner[1][0]) == ():
                a = inner[1][0]
            if not self.graph.says(t, a, self.names, self.numbers):
                return False
        return True

    def _threshold(self, said: str | None, stated: Any, count: int) -> None:
        if stated is None or said is None:
            need(stated is None and said is None, "a threshold is missing, or isn't in the file")
            return
        numbers = [exact(v) for v in (stated if type(stated) is list else [stated] * count)]
        if said.startswith("["):
            same_list(said[1:-1], list(map(written, numbers)))
        else:
            need(set(numbers) == {value(said)}, f"the threshold is not {said}")

    def domain(self, lines: list[str]) -> None:
        lines = list(lines)
        if self.tokens:
            need(lines, "the domain's tokens are not printed")
            self._sequences(lines.pop(0))
        if self.weighed:
            need(lines, "how a share is weighed is not printed")
            self._weights(lines.pop())
        if self.union:
            need(lines, "the union is not printed")
            self._union(lines.pop())
        need(len(lines) == len(self.boxes), f"{len(self.boxes)} real inputs")
        for k, (text, (shape, low, high)) in enumerate(zip(lines, self.boxes, strict=True)):
            start = f"input{k} of shape ({', '.join(map(str, shape))}) in "
            need(text.startswith(start), "another input")
            box = [f"[{written(a)}, {written(b)}]" for a, b in zip(low, high, strict=True)]
            same_list(text.removeprefix(start), grouped(box), " x ")

    def _union(self, text: str) -> None:
        which = "one box" if len(self.union) == 1 else f"at least one of {len(self.union):,} boxes"
        start = f"of these real inputs, those in {which}: "
        need(text.startswith(start), "another union")
        each = [grouped(f"[{written(a)}, {written(b)}]" for a, b in zip(*box, strict=True)) for box in self.union]
        same_list(text.removeprefix(start), [abridged(box, " x ") for box in each], " or ")

    def _weights(self, text: str) -> None:
        text, tail, like = text.partition(", all sequences")
        need(
            like == ("", " alike", " that are given alike")[bool(tail) + (bool(tail) and "given" in self.claim)],
            "alike",
        )
        need(bool(tail) == bool(self.tokens), "sequences")
        end = " within these boxes" if self.union else " within these bounds"
        need(text.startswith("weighed by ") and text.endswith(end), "can't be read")
        rows = [None if row is None else [written(exact(v)) for v in row] for row in self.claim["measure"]]
        said = ["uniform" if row is None else f"normal({row[0]}, {row[1]})" for row in rows]
        same_list(text.removeprefix("weighed by ").removesuffix(end), grouped(said), " x ")

    def _sequences(self, text: str) -> None:
        number, vocab = len(self.tokens), len(self.values)
        text, meaning, values = text.partition("; ids from 0 mean ")
        if meaning:
            need(values[0] == "[" and values[-1] == "]", "can't be read")
            same_list(values[1:-1], list(map(str, self.values)))
        else:
            need(self.values == list(range(vocab)), "what ids mean is not printed")
        text, sets, ids = text.partition(", with ids ")
        if sets:
            same_list(ids, grouped(map(set_text, self.tokens)), " x ")
        size = f"{math.prod(map(len, self.tokens)):,}"
        size = size if sets else f"all {vocab}^{number} = {size}"
        symbols = "x0" if number == 1 else f"x0 .. x{number - 1}"
        need(text == f"{size} sequences {symbols} over {vocab} tokens", f"{text!r:.80} is not the domain")
        need(sets or all(t == list(range(vocab)) for t in self.tokens), "token sets are not printed")

    def given(self, lines: list[str]) -> None:
        if self.counts and "given" in self.claim:
            need(len(lines) == 1, "one guard")
            text, parts = parsed(lines[0])
            text, _, number = text.removesuffix(" of these sequences").rpartition(": ")
            need(number == f"{self.total:,}", f"{self.total} inputs satisfy the condition")
            cut = re.fullmatch(r"(n[0-9]+) of a graph of ([0-9]+) nodes, sha256 ([0-9a-f]{64})", text)
            if cut:
                need(int(cut[2]) == len(self.listed) and cut[3] == self.graph.digest(self.listed), "another condition")
                text = cut[1]
            need(self.formula(text, self.graph.at[self.guard], parts), "another condition")
            return
        where = [] if self.counts else self.claim["where"]
        need(len(lines) == len(where), f"{len(where)} conditions")
        for line, name in zip(lines, where, strict=True):
            text, parts = parsed(line)
            node = self.sites[name]
            need(text.endswith(" >= 0"), "can't be read")
            text = text.removesuffix(" >= 0")
            many = text.startswith("every entry of ")
            need(many == (self.graph.shape(node) != ()), "a condition on every entry, or on one")
            need(self.formula(text.removeprefix("every entry of "), node, parts), "another condition")

    def lemma(self, text: str) -> None:
        text, parts = parsed(text)
        empty = re.fullmatch(r"(.*): no input satisfies the conditions, so nothing is said of (.*)", text)
        found = empty or re.fullmatch(
            rf"(.*): each entry of (.*) is from ({ROUNDED}) to ({ROUNDED}) \(rounded outwards\)", text
        )
        need(found, "can't be read")
        for i, (row, part) in enumerate(self.unmatched):
            low, high = (list(map(exact, row[end])) for end in ("low", "high"))
            ends = empty or (value(found[3]) <= min(low) and max(high) <= value(found[4]))
            if ends and self._where(found[1], part) and self._difference(found[2], row, parts):
                del self.unmatched[i]
                return
        raise False_("no lemma of the file says this")

    def _difference(self, text: str, row: dict, parts: list[tuple]) -> bool:
        for at in re.finditer(" - ", text):  # names and formulas hold no such sign outside of brackets
            site, mechanism = text[: at.start()], text[at.end() :]
            if site.count("(") == site.count(")"):
                node = self.sites[row["mechanism"]]
                if not self.formula(site, self.sites[row["site"]], parts):
                    return False
                tree = Parser(mechanism, parts).whole()
                if self.graph.says(tree, node, self.names, self.numbers):
                    return True
                op, args, attr = self.graph.nodes[node]
                if op == "view":
                    whole, steps = math.prod(attr[0]), [math.prod(attr[0][i + 1 :]) for i in range(len(attr[0]))]
                    same = attr[1] == 0 and whole == math.prod(self.graph.shape(args[0]))
                    if same and all(s == 1 or a == b for s, a, b in zip(attr[0], attr[2], steps, strict=True)):
                        node = args[0]
                return self._lists(tree, node)
        return False

    def _where(self, text: str, part: tuple[list, list]) -> bool:
        tokens, (low, high) = part
        said = [f"the id of x{i} in {set_text(ids)}" for i, ids in enumerate(tokens) if ids != self.tokens[i]]
        k = 0
        for number, (shape, least, most) in enumerate(self.boxes):
            for i, ends in enumerate(zip(least, most, strict=True)):
                if (low[k], high[k]) != ends:
                    at, rest = [], i
                    for size in reversed(shape):
                        at.insert(0, rest % size)
                        rest //= size
                    index = f"[{', '.join(map(str, at))}]" if shape else ""
                    said.append(f"input{number}{index} in [{written(low[k])}, {written(high[k])}]")
                k += 1
        if not said:
            return text == "everywhere in the domain"
        try:
            need(text.startswith("where "), "")
            same_list(text.removeprefix("where "), said, " and ")
        except False_:
            return False
        return True

    def model(self, text: str) -> None:
        start = self.claim["architecture"]
        if self.captured:
            start = f"graph of {len(self.listed)} nodes, sha256 {self.graph.digest(self.listed)}"
        need(text == f"{start}, weights sha256 {self.weights}", "another model")

    def asserted(self, text: str) -> None:
        need(self.captured, "nothing is asserted of a known architecture")
        graph = self.claim["graph"]
        if text.startswith("nodes are called "):
            for pair in filter(None, text.removeprefix("nodes are called ").split(", ")):
                if pair.startswith("..."):
                    break
                found = re.fullmatch(r"n([0-9]+): '?([^']*)'?", pair)
                need(
                    found and self.sites.get(found[2]) == self.numbers.get(int(found[1]), -1), "a name of another node"
                )
            return
        found = re.fullmatch(
            r"the graph is the module (\".*\"), (?:replayed on ([0-9]+) inputs: within (\S+)|not replayed)", text
        )
        if found:
            said = graph["replayed"]
            need(int(found[2] or 0) == said["inputs"], "replayed on another number of inputs")
            need(not found[2] or value(found[3]) >= exact(said["difference"]), "a difference is larger")
            need(json.loads(found[1])[:20].isascii(), "")
            return
        found = re.fullmatch(
            r"the module computes the first ([0-9]+) nodes of its list, in float32, of inputs that are rounded first"
            r"(?:; of these (.*), counted from 0, each with what it takes, are normalisations)?"
            r"(?:; by fused attention (.*))?"
            r"; other nodes, and the claim's expressions, are exact", text,
        )  # fmt: skip
        if found:
            need(self.claim["semantics"] == "float32", "nothing is computed in float32")
            need(int(found[1]) == graph["module"]["rows"], "other nodes are the module's")
            norms = [f"number {n}" for n in graph["module"]["norms"]]
            need(bool(norms) == bool(found[2]), "other nodes are normalisations")
            if norms:
                same_list(found[2], norms)
            fused = [f"number {n}" for part in graph["module"].get("fused", []) for n in part]
            need(bool(fused) == bool(found[3]), "other nodes are computed by fused attention")
            if fused:
                same_list(found[3], fused)
            return
        found = re.fullmatch(
            r"the module itself, in (\S+), differs on ([0-9]+) inputs by at most (\S+) of a site's size, where rounding "
            r"explains (\S+)", text,
        )  # fmt: skip
        need(found and "compared" in graph, "the file says no such thing")
        said = graph["compared"]
        need(found[1] == said["dtype"] and int(found[2]) == said["inputs"], "compared with another module")
        need(value(found[3]) >= exact(said["difference"]), "a difference is larger")
        need(value(found[4]) <= exact(said["tolerance"]), "rounding explains less")

    def read_names(self, lines: list[str]) -> None:
        """Before formulas are read: names, and the nodes that the file gives them to."""
        for line in lines:
            if line.startswith("nodes are called "):
                for number, name in re.findall(r"n([0-9]+): '?([A-Za-z0-9_.@-]+)'?", line):
                    if self.sites.get(name) == self.numbers.get(int(number), -1):
                        self.names[name] = self.sites[name]

    def right(self, text: str, at_least: bool) -> None:
        end = int(self.conclusion["right_at_least" if at_least else "right_at_most"])
        if self.weighed:
            found = re.fullmatch(r"()([0-9.]+) of the whole  \(rounded (down|up)\)", text)
        else:
            found = re.fullmatch(r"([0-9,]+)  \(([0-9.]+) of (?:all|those given), rounded (down|up)\)", text)
        need(found and found[3] == ("down" if at_least else "up"), "can't be read")
        need(self.weighed or int(found[1].replace(",", "")) == end, f"the file says {end}")
        need(self.weighed or (" of all, " in text) == ("given" not in self.claim), "of other inputs")
        share, said = Fraction(end, self.total * (2**60 if self.weighed else 1)), Fraction(found[2])
        need(said <= share if at_least else said >= share, "rounded to more than was proved")
        need(said not in (0, 1) or share in (0, 1) or len(found[2]) > 300, "rounded to nothing or all")

    def entry(self, i: int, text: str) -> None:
        low, high = (v and exact(v) for v in (self.conclusion[end][i] for end in ("low", "high")))
        found = re.fullmatch(
            rf"({ROUNDED}|unbounded) to ({ROUNDED}|unbounded) \(rounded outwards\)"
            rf"(; reached (?:about ({ROUNDED})|({ROUNDED}) to ({ROUNDED}) \(rounded inwards\)))?", text,
        )  # fmt: skip
        need(found, "can't be read")
        need(found[1] == "unbounded" or (low is not None and value(found[1]) <= low), "more than the file proves")
        need(found[2] == "unbounded" or (high is not None and value(found[2]) >= high), "more than the file proves")
        need(self.inputs or not found[3], "no input is listed that reaches anything")
        if found[5]:
            least, most = value(found[5]), value(found[6])
            need(least <= most, "what was reached is upside down")
            need(low is None or most >= low, "reached outside of what was proved")
            need(high is None or least <= high, "reached outside of what was proved")

    def proof(self, text: str) -> None:
        used: dict[str, int] = {}
        todo = [self.document["proof"]]
        while todo:
            node = todo.pop()
            used[node["rule"]] = used.get(node["rule"], 0) + 1
            inside = [v for name, v in node.items() if name in ("inside", "outside", "first", "second", "proof")]
            inside += [*node.get("parts", []), *node.get("faces", [])]
            todo += [v for v in [*inside, *(row["proof"] for row in node.get("lemmas", []))] if type(v) is dict]
        need(text == ", ".join(f"{n:,} {rule}" for rule, n in sorted(used.items())), "other rules")

    def conditions(self, text: str) -> None:
        count = len({(*ids, *point) for ids, point in self.inputs})
        some = f"satisfied by inputs that were replayed: {count}"
        need(
            text == (some if count else "no input that satisfies them was replayed: there may be none"),
            "another number",
        )

    def width(self, text: str) -> None:
        reached = r"(?:; inputs that were replayed reach a mean width of (\S+) \(rounded down\))?"
        found = re.fullmatch(rf"mean (\S+), largest (\S+) \(rounded up\){reached}", text)
        low, high = self.conclusion["low"], self.conclusion["high"]
        need(found and None not in low + high, "no width was proved")
        widths = [exact(b) - exact(a) for a, b in zip(low, high, strict=True)]
        need(value(found[1]) >= sum(widths) / len(widths) and value(found[2]) >= max(widths), "narrower than proved")
        if found[3]:
            need(len(self.inputs) > 1 and 0 <= value(found[3]) <= value(found[1]), "reached more than was proved")

    def wrong(self, text: str) -> None:
        found = re.fullmatch(r"\[(.*)\]: the mechanism says (-?[0-9]+), the model (.+)", text)
        need(found, "can't be read")
        if "..." in found[1]:
            return
        ids = json.loads(f"[{found[1]}]")
        need(any(ids == row for row, _ in self.inputs), "an input that the file doesn't list")
        said = Mechanism(self.claim["equals"], self.values, len(self.tokens))(tuple(ids))
        need(int(found[2]) == said, f"the mechanism says {said}")

    def fails(self, text: str) -> None:
        found = re.fullmatch(r"\[(.*)\](: the left side is about \S+)?", text)
        need(found and self.claim["kind"] == "share", "can't be read")
        listed = "..." in found[1] or any(json.loads(f"[{found[1]}]") == row for row, _ in self.inputs)
        need(listed, "an input that the file doesn't list")

    def broken(self, text: str) -> None:
        if re.fullmatch(r"there .* is about \S+", text) or re.fullmatch(r"and [0-9]+ more, by no more", text):
            return
        if text.endswith(": a threshold is broken, by less than float64 shows"):
            need(self.conclusion["verdict"] == "REFUTED", "nothing is refuted")
            return
        found = re.fullmatch(
            rf"(?:ids \[(.*?)\])?(?: and )?(?:inputs near \[(.*?)\])?: entry ([0-9]+) is from ({ROUNDED}|unbounded) to "
            rf"({ROUNDED}|unbounded) \(rounded outwards\), (below|above) by at least ({ROUNDED})", text,
        )  # fmt: skip
        need(found, "can't be read")
        need(self.conclusion["verdict"] == "REFUTED", "nothing is refuted")
        need(value(found[7]) > 0, "by nothing")
        if found[1] and "..." not in found[1]:
            need(any(json.loads(f"[{found[1]}]") == ids for ids, _ in self.inputs), "an input that isn't listed")


def false_lines(printed: str, certificate: bytes) -> list[str]:
    """The printed lines of an accepted file (`mechverify check`, or `python -m mechverify.kernel`) that the file doesn't
    bear out, each with a reason, and parts of the sentence that are missing; [] if all is well. Whether the proof is
    right is not asked: what is compared is the theorem that is read, and the one in the file."""
    sentence, problems = Sentence(certificate), []
    lines: dict[str, list[str]] = {}
    for line in printed.split("\n"):
        if line in ("", "ACCEPTED"):
            continue
        label, gap, text = line[:16].strip(), line[16:18], line[18:]
        if gap != "  " or not line.isascii() or not line.isprintable():
            problems.append(f"{line!r:.100}: no line of a theorem")
        lines.setdefault(label, []).append(text)
    sentence.read_names(lines.get("the file says", []))
    wanted = {
        "verdict": lambda t: sentence.verdict(*t),
        "claim": lambda t: sentence.line_claim(*t),
        "domain": sentence.domain,
        "given": sentence.given,
        "model": lambda t: sentence.model(*t),
        "semantics": lambda t: need(t == [SEMANTICS[sentence.claim["semantics"]]], "another semantics"),
        "assumed": lambda t: need(t == ASSUMED[sentence.claim["architecture"]], "other assumptions"),
        "axiom": lambda t: need(list(map(_axiom, t)) == sentence.document["axioms"], "other axioms"),
    }  # fmt: skip
    if sentence.counts:
        word = "right" if sentence.accuracy else "holds"
        wanted[f"{word}, at least"] = lambda t: sentence.right(*t, True)
        wanted[f"{word}, at most"] = lambda t: sentence.right(*t, False)
    for label, check in wanted.items():
        try:
            check(lines.pop(label, []))
        except (False_, TypeError) as error:
            problems.append(f"{label}: {error}")
    for label, texts in lines.items():
        for text in texts:
            try:
                _other(sentence, label, text)
            except False_ as error:
                problems.append(f"{label}  {text:.100}: {error}")
    told = any(line[18:].startswith("the module computes ") for line in printed.split("\n"))
    if sentence.captured and sentence.claim["semantics"] == "float32" and not told:
        problems.append("it is not printed which nodes are computed in float32")
    problems += [f"the lemma about {row['site']!r:.60} is not printed" for row, _ in sentence.unmatched]
    return problems


def _axiom(text: str) -> str:
    found = re.match(r"(ieee754|capture|solver:z3|libm:float32|torch:float32): ", text)
    need(found, f"{text:.40} is no axiom")
    return found[1]


def _other(sentence: Sentence, label: str, text: str) -> None:
    if found := re.fullmatch(r"entry ([0-9]+)", label):
        return sentence.entry(int(found[1]), text)
    known = {
        "lemma": sentence.lemma, "the file says": sentence.asserted, "proved width": sentence.width,
        "wrong on": sentence.wrong, "fails on": sentence.fails, "broken at": sentence.broken,
        "conditions": sentence.conditions, "proof": sentence.proof,
        "": lambda t: need(re.fullmatch(r"and [0-9]+ more \(--json has all\)", t), "no such line"),
    }  # fmt: skip
    need(label in known or label in FREE, "no such line")
    if label in FREE:
        need(re.fullmatch(FREE[label], text), "can't be read")
    if label in known:
        known[label](text)
    return None
