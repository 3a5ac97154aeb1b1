"""What is printed of a theorem is the theorem in the file: random claims, planted changes, and the examples found.

    python -m benchmarks.campaigns.statements [--quick]

Claims of every kind are printed by the kernel and read back by `tests/independent/sentence.py`, which shares no code
with it. Then one thing in each file is changed, and the same lines must be found false.
"""

import copy
import hashlib
import json
import sys
from collections import Counter
from fractions import Fraction
from functools import partial
from math import prod
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
from safetensors.numpy import save

from benchmarks.board import Board
from benchmarks.campaigns.examples import Example
from mechverify.kernel import Rejected, check
from mechverify.kernel.core.claim import Theorem
from mechverify.kernel.core.container import pack
from mechverify.kernel.core.counts import CountingTheorem, Counts
from mechverify.kernel.core.fields import Reader
from mechverify.kernel.core.kinds import read_claim
from mechverify.kernel.statement.sentence import state
from mechverify.report.checked import Checked
from mechverify.report.latex import write_latex
from mechverify.report.result import as_json
from mechverify.report.statement import lines
from tests.independent.sentence import Graph, false_lines
from tests.models import as_bytes, random_weights
from tests.soundness import forge, networks

COUNT, QUICK = 2_000, 150
NAMES = [
    "x0", "input0", "n3", "t1", "exp", "0", "12.weight", "mlp.0", "h@1", "(x0[0] + 1)", "a, b", "PROVED", "claimed",
    "x0.b", "a\nverdict  PROVED", "\x1b[31mred", "\u202eevil", "\ud800", "", " ", "long" * 60, "a-b", "1*2^3", "'", '"',
]  # fmt: skip
ODD = ["1/3", "1/2", "0/1", "-7/5", "9831176675884219/20000000000000000", "9999999999/10000000000", "1/" + "3" * 200,
       "0x1.999999999999ap-4", "0x0.0000000000001p-1022", "0x1.fffffffffffffp+1023", "-0x1.0p+0"]  # fmt: skip


class Made(NamedTuple):
    """A claim as printed, and the file that it is of."""

    kind: str
    printed: str
    document: dict[str, Any]
    weights: bytes

    @property
    def file(self) -> bytes:
        text = json.dumps(self.document).encode("utf-8", "surrogatepass")
        return pack({"certificate.json": text, "weights.safetensors": self.weights})


def printed(theorem: Theorem) -> str:
    """As `python -m mechverify.kernel` prints it."""
    statement = state(theorem)
    return "\n".join(f"{label:>16}  {text}" for label, text in (*statement.rows(), *statement.examples))


# --- Random claims ----------------------------------------------------------------------------------------------------


class Random:
    def __init__(self, seed: int):
        self.rng = np.random.default_rng(seed)

    def below(self, n: int) -> int:
        return int(self.rng.integers(n))

    def pick(self, options: Any) -> Any:
        return options[self.below(len(options))]

    def fraction(self) -> Fraction:
        """From 0 to 1: plain, near an end, with many digits."""
        q = self.pick([1, 2, 7, 500, 10**9, 10**10, 2**40, 3**50, 10**80])
        near = self.pick([0, 1, q - 1, q, q // 2])
        return Fraction(min(max(near, 0), q), q)

    def vocabulary(self) -> list[int]:
        size = self.pick([1, 2, 3, 5, 9, 40, 700])
        match self.below(3):
            case 0:
                return list(range(size))
            case 1:
                return [-i - 1 for i in range(size)]
        return [int(v) for v in self.rng.integers(-50, 50, size)]

    def sets(self, length: int, vocab: int) -> list[list[int]]:
        if self.below(3) == 0:
            return [list(range(vocab))] * length
        kinds = [sorted({self.below(vocab) for _ in range(1 + self.below(vocab))}) for _ in range(3)]
        return [self.pick(kinds) for _ in range(length)]

    def mechanism(self, length: int, most: int) -> list:
        """A random graph of integers; operands are often near, so that parts are shared and formulas are deep."""
        rows = [["value", [], i] for i in range(length)] + [["integer", [], self.pick([0, 1, 7, -3, 2**40])]]
        spans, truths = [100] * length + [2**40], []
        for _ in range(self.below(most)):
            n = len(rows)
            here = lambda: n - 1 - min(self.below(5), n - 1) if self.below(2) else self.below(n)  # noqa: E731, B023
            op = self.pick(["sum", "product", "max", "min", "kth_largest", "eq", "lt", "le", "mod", "mod", "floordiv",
                            "where", "and", "or", "not", "integer", "lookup"])  # fmt: skip
            if op == "lookup":
                places = [k for k, row in enumerate(rows) if row[0] == "mod"]
                if places:
                    at = self.pick(places)
                    rows.append([op, [at], [self.below(2_000) - 7 for _ in range(rows[at][2])]])
                    spans.append(2_000)
                continue
            count = {"eq": 2, "lt": 2, "le": 2, "mod": 1, "floordiv": 1, "not": 1, "where": 3, "integer": 0}.get(
                op, 1 + self.below(4)
            )
            args = [here() for _ in range(count)]
            if op in ("and", "or", "not", "where"):
                if not truths:
                    continue
                args = [self.pick(truths)] + (args[1:] if op == "where" else [self.pick(truths) for _ in args[1:]])
            size = {
                "sum": sum(spans[a] for a in args),
                "product": int(np.prod([float(max(spans[a], 1)) for a in args])),
            }
            if size.get(op, 0) > 2**60:
                op, args = "mod", args[:1]
            attribute = {"kth_largest": 1 + self.below(len(args) or 1), "mod": self.pick([2, 5, 113]),
                         "floordiv": self.pick([2, 3, 10]), "integer": self.below(20)}.get(op)  # fmt: skip
            rows.append([op, args, attribute])
            truth = op in ("eq", "lt", "le", "and", "or", "not")
            truths += [n] if truth else []
            known = {"mod": attribute, "integer": attribute, **size}
            spans.append(1 if truth else known.get(op) or max([spans[a] for a in args] + [1]))
        return rows

    def accuracy(self) -> Made:
        architecture = self.pick(["transformer", "transformer_relu", "pair_mlp"])
        values = self.vocabulary()
        vocab, length = len(values), 2 if architecture == "pair_mlp" else self.pick([1, 2, 3, 10, 60])
        if architecture == "pair_mlp":
            shapes = {"W_x": (vocab, 2), "W_y": (vocab, 1), "W": (3, 2), "W_U": (2, 3)}
            weights = {name: self.rng.normal(size=s).astype(np.float32) for name, s in shapes.items()}
            site, position = "logits", None
        else:
            mlp = 2 if architecture.endswith("relu") else 0
            weights = random_weights(self.rng, vocab=vocab, length=length, d=2, e=1, mlp=mlp)
            site, position = self.pick(["logits", "blocks.0.resid_post", "embed"]), self.below(length)
        data = as_bytes(weights)
        tokens = self.sets(length, vocab)
        size = 1
        for ids in tokens:
            size *= len(ids)
        low, high = sorted(self.pick([0, 1, size // 3, size - 1, size]) for _ in range(2))
        share = self.fraction() if self.below(3) else None
        margin = self.pick(
            [None, None, Fraction(1, 3), Fraction(1, 10**30), Fraction(1e-300), (0.25).hex(), Fraction(2**900)]
        )
        doc = forge.document(
            data, {"rule": "enumerate"}, tokens=tokens, values=values, vocab=vocab, length=length, margin=margin,
            equals=self.mechanism(length, self.pick([4, 12, 40, 3_000])), right=(low, high), site=site,
            position=position, architecture=architecture, semantics=self.pick(["real", "float32"]),
            at_least=None if share is None else f"{share.numerator}/{share.denominator}",
        )  # fmt: skip
        claim = read_claim(Reader(doc["claim"], "claim"), data)
        theorem = CountingTheorem(
            claim, "BOUNDED", tuple(doc["axioms"]), rules={}, kernel_ops=1, work=1, exact=False,
            tokens=np.zeros((0, length), np.int64), right=Counts(low, high), cells=[],
        )  # fmt: skip
        return Made("accuracy", printed(theorem), doc, data)

    def captured(self) -> Made:
        """The accuracy of a captured graph: of a vector, a matrix's row, or a list of expressions."""
        while True:  # until the kernel accepts it
            net = networks.Maker(self.rng, kind=1).network(1 + self.below(6))
            doc, data = networks.document(net._replace(rows=copy.deepcopy(net.rows)))
            self.decorate(doc)
            claim = doc["claim"]
            share, count = self.fraction() if self.below(3) else None, prod(map(len, claim["domain"]["tokens"]))
            low, high = sorted(self.below(count + 1) for _ in range(2))
            for name in ("at_most", "where", "cases"):
                del claim[name]
            del claim["domain"]["inputs"]
            claim |= {
                "kind": "accuracy", "position": self.pick([None, None, 0]),
                "equals": self.mechanism(len(net.tokens), self.pick([4, 12, 40, 3_000])),
                "at_least": None if share is None else f"{share.numerator}/{share.denominator}",
            }  # fmt: skip
            if margin := self.pick([None, "1/3", (0.25).hex()]):
                claim["margin"] = margin
            doc |= {
                "version": 5, "cost": None, "axioms": ["ieee754", "capture"], "proof": {"rule": "open"},
                "conclusion": {"verdict": "BOUNDED", "right_at_least": str(low), "right_at_most": str(high)},
            }  # fmt: skip
            try:
                read = read_claim(Reader(copy.deepcopy(claim), "claim"), data)
            except (Rejected, ValueError, OverflowError):
                continue
            theorem = CountingTheorem(
                read, "BOUNDED", tuple(doc["axioms"]), rules={"open": 1}, kernel_ops=1, work=1, exact=False,
                tokens=np.zeros((0, len(net.tokens)), np.int64), right=Counts(low, high), cells=[],
            )  # fmt: skip
            return Made("accuracy, captured", printed(theorem), doc, data)

    def bounds(self) -> Made:
        while True:  # until the kernel accepts it
            made = networks.Maker(self.rng).network(1 + self.below(6))
            net = made._replace(rows=copy.deepcopy(made.rows))
            doc, data = networks.document(net)
            claim = doc["claim"]
            claim["domain"]["values"] = self.pick(
                [claim["domain"]["values"], [-v - 1 for v in claim["domain"]["values"]]]
            )
            self.decorate(doc)
            try:
                count = read_claim(Reader(copy.deepcopy(claim), "claim"), data).outputs
                for name in ("at_least", "at_most"):
                    claim[name] = self.pick([None, self.pick(ODD[:8]), [self.pick(ODD[:8]) for _ in range(count)]])
                doc["conclusion"] |= {"low": [None] * count, "high": [None] * count}
                text = Made("", "", doc, data)
                theorem = check(text.file)
            except (Rejected, ValueError, OverflowError):
                continue
            kinds = [*(["tokens"] if net.tokens else []), *(["box"] if net.inputs else []),
                     *(["lemma"] if theorem.lemmas else []), *(["given"] if claim["where"] else [])]  # fmt: skip
            return Made(" and ".join(kinds), printed(theorem), doc, data)

    def decorate(self, doc: dict) -> None:
        """Names, expressions, conditions, a proof with splits and lemmas."""
        claim = doc["claim"]
        rows, sites = claim["graph"]["nodes"], claim["graph"]["sites"]
        difference = self.pick(["0/1", "1/2", "0x1.0000000000000p-50"])
        module = self.pick([*NAMES, "Net"])
        claim["graph"]["replayed"] = {"module": module, "inputs": self.below(3), "difference": difference}
        known = claim_shapes(rows, len(claim["domain"]["tokens"]))
        for name in self.rng.permutation(NAMES)[: self.below(5)].tolist():
            sites.append([name, self.below(len(rows))])
        real = [n for n, s in enumerate(known) if s is not None]
        if self.below(2) and real:
            scalars = [self.scalar(rows, known, real) for _ in range(1 + self.below(3))]
            for _ in range(self.below(12)):
                scalars.append(self.expression(rows, scalars, bool(claim["domain"]["tokens"])))
            count = self.pick([1, 1, 2, 5])
            entries = []
            for _ in range(count):
                rows.append(["view", [self.pick(scalars)], [[1], 0, [0]]])
                entries.append(len(rows) - 1)
            rows.append(["concat", entries, 0])
            claim["site"] = self.pick(["claimed", *NAMES[:8], NAMES[14], NAMES[17]])
            sites[:] = [s for s in sites if s[0] != claim["site"]] + [[claim["site"], len(rows) - 1]]
            if self.below(3) == 0:
                rows.append(["add", [self.pick(scalars), self.constant(rows, 1e9)], None])
                sites.append(["given.1", len(rows) - 1])
                claim["where"] = ["given.1"]
        ids = [int(t[0]) for t in claim["domain"]["tokens"]]
        point = [v for _, low, _ in claim["domain"]["inputs"] for v in low]
        doc["proof"] = {"rule": "point", "inputs": [[ids, point]]}
        if self.below(2) and real:
            self.cut(doc, known, real)

    def constant(self, rows: list, value: float) -> int:
        rows.append(["constant", [], [[], [float(value).hex()]]])
        return len(rows) - 1

    def scalar(self, rows: list, shapes: list, real: list[int]) -> int:
        n = self.pick(real)
        size = int(np.prod(shapes[n]))
        rows.append(["view", [n], [[], self.below(size), []]])
        return len(rows) - 1

    def expression(self, rows: list, scalars: list[int], tokens: bool) -> int:
        a, b = self.pick(scalars), self.pick(scalars)
        match self.below(9):
            case 0 if tokens:
                rows.append(["value", [], 0])
                rows.append(["number", [len(rows) - 1], None])
            case 1:
                rows.append(["power", [a], 2 + self.below(3)])
            case 2:
                rows.append([self.pick(["tanh", "relu", "abs", "sin", "sigmoid"]), [a], None])
            case 3:  # a - b, in two ways
                minus = self.constant(rows, -1)
                rows.append(["mul", [minus, b], None])
                rows.append(["add", [a, len(rows) - 1] if self.below(2) else [len(rows) - 1, a], None])
            case 4:  # 3/7
                p, q = self.constant(rows, self.pick([3, -1, 0])), self.constant(rows, 7)
                rows.append(["reciprocal", [q], None])
                rows.append(["mul", [p, len(rows) - 1], None])
            case 5:
                return self.constant(rows, self.pick([0.1, -1, 5e-324, 2**70, 1 / 3, 0]))
            case 6:
                rows.append(["pi", [], None])
            case _:
                rows.append([self.pick(["add", "sub", "mul"]), [a, b], None])
        return len(rows) - 1

    def cut(self, doc: dict, shapes: list, real: list[int]) -> None:
        """A lemma near a site, under splits."""
        claim = doc["claim"]
        rows, sites = claim["graph"]["nodes"], claim["graph"]["sites"]
        n = self.pick(real[1:] or real)
        size = int(np.prod(shapes[n]))
        if not any(node == n for _, node in sites):
            sites.append([f"h{n}", n])
        site = next(name for name, node in sites if node == n)
        entries = []
        for _ in range(size):
            value = self.constant(rows, self.pick([0, 0.5, -2]))
            rows.append(["view", [value], [[1], 0, [0]]])
            entries.append(len(rows) - 1)
        rows.append(["concat", entries, 0])
        steps = [int(np.prod(shapes[n][i + 1 :])) for i in range(len(shapes[n]))]
        rows.append(["view", [len(rows) - 1], [list(shapes[n]), 0, steps]])
        sites.append(["lemma.1", len(rows) - 1])
        wide = [(float(self.pick([1e5, 12345.678, 1e6]))).hex()] * size
        lemma = {
            "site": site,
            "mechanism": "lemma.1",
            "low": [f"-{v}" for v in wide],
            "high": wide,
            "proof": {"rule": "relaxation"},
        }
        leaf = {"rule": "cut", "lemmas": [lemma], "proof": {"rule": "relaxation"}}
        for _ in range(self.below(3)):
            leaf = self.split(claim, leaf) or leaf
        doc["proof"] = {"rule": "both", "first": doc["proof"], "second": leaf}

    def split(self, claim: dict, leaf: dict) -> dict | None:
        """Some of the input beside it; on the other side, intervals. Often no legal one: then the file is refused."""
        other = {"rule": "relaxation"}
        wide = [i for i, ids in enumerate(claim["domain"]["tokens"]) if len(ids) > 1]
        boxes = [v for _, low, high in claim["domain"]["inputs"] for v in zip(low, high, strict=True)]
        if wide and (self.below(2) or not boxes):
            i = self.pick(wide)
            return {
                "rule": "split",
                "position": i,
                "first": claim["domain"]["tokens"][i][:1],
                "inside": leaf,
                "outside": other,
            }
        if not boxes:
            return None
        k = self.below(len(boxes))
        at = (float.fromhex(boxes[k][0]) / 2 + float.fromhex(boxes[k][1]) / 2).hex()
        inside, outside = (leaf, other) if self.below(2) else (other, leaf)
        return {"rule": "split", "coordinate": k, "at": at, "inside": inside, "outside": outside}


def claim_shapes(rows: list, length: int) -> list:
    """Of the rows that depend on the input and are real; None of others."""
    graph, found = Graph(rows, [], length), []
    for n, (op, args, _) in enumerate(rows):
        moves = op in ("input", "gather", "number") or any(found[a] is not None for a in args)
        found.append(graph.shape(graph.at[n]) if moves else None)
    return found


# --- Planted changes --------------------------------------------------------------------------------------------------


def changed(made: Made, random: Random) -> tuple[str, Made]:
    """One thing in the file, changed so that the theorem is another one; the lines stay."""
    doc, rng = copy.deepcopy(made.document), random
    claim = doc["claim"]
    options: list[tuple[str, Any]] = []

    def option(what: str, action: Any) -> None:
        options.append((what, action))

    def values() -> None:
        claim["domain"]["values"][rng.below(len(claim["domain"]["values"]))] += 1000

    def tokens() -> None:
        rng.pick([t for t in claim["domain"]["tokens"] if len(t) > 1]).pop()

    def corner() -> None:
        _, low, high = rng.pick(claim["domain"]["inputs"])
        i = rng.below(len(low))
        high[i] = float(np.nextafter(float.fromhex(high[i]), np.inf)).hex()

    if claim["domain"]["values"]:
        option("what an id means", values)
    if any(len(t) > 1 for t in claim["domain"]["tokens"]):
        claim["domain"]["tokens"] = [list(t) for t in claim["domain"]["tokens"]]
        option("a token set", tokens)
    if claim["kind"] == "accuracy":
        p, q = (claim["at_least"] or "1/2").split("/")
        option("a threshold", lambda: claim.update(at_least=f"{p}/{int(q) + 1}" if int(p) else f"1/{q}0"))
        option("a margin", lambda: claim.update(margin="1/12345"))
        option("the mechanism", lambda: claim["equals"].append(["sum", [len(claim["equals"]) - 1] * 2, None]))
        option("a bound", lambda: doc["conclusion"].update(right_at_least=doc["conclusion"]["right_at_least"] + "1"))
    else:
        name = rng.pick(["at_least", "at_most"])
        option("a threshold", lambda: claim.update({name: "1/12345"}))
        if any(low for _, low, _ in claim["domain"]["inputs"]):
            option("a corner", corner)
        option("a bound", lambda: doc["conclusion"]["low"].__setitem__(0, (-1e300).hex()))
        if claim["where"]:
            option("a condition", lambda: claim.update(where=[]))
        if '"rule": "cut"' in json.dumps(doc["proof"]):
            option("a lemma", lambda: doc.update(proof=doc["proof"]["first"]))
    if "graph" in claim:
        rows = claim["graph"]["nodes"]
        graph = Graph(rows, claim["domain"]["values"], len(claim["domain"]["tokens"]))
        needed = graph.needed([graph.at[dict(claim["graph"]["sites"])[claim["site"]]]])
        option("the site", lambda: [s.__setitem__(1, other(s[1], rows, graph)) for s in claim["graph"]["sites"]
                                    if s[0] == claim["site"]])  # fmt: skip
        for op, new in (
            ("add", "sub"),
            ("sub", "mul"),
            ("mul", "add"),
            ("tanh", "relu"),
            ("input", None),
            ("constant", None),
        ):
            if here := [n for n in needed if graph.nodes[n][0] == op]:
                node = rng.pick(here)
                option(f"an operation, {op}", partial(rewritten, rows, graph, node, op, new))
        option("the difference at replay", lambda: claim["graph"]["replayed"].update(difference="9/1", inputs=7))
    option("the weights", lambda: None)
    option("the verdict", lambda: doc["conclusion"].update(verdict="PROVED"))
    what, action = rng.pick(options)
    action()
    weights = made.weights
    if what == "the weights":
        weights = save({"other": np.zeros(1)})
        claim["weights_sha256"] = hashlib.sha256(weights).hexdigest()
    lines = made.printed
    if what == "a bound" and claim["kind"] == "bounds":
        lines += f"\n{'entry 0':>16}  -1 to unbounded (rounded outwards)"
    return what, Made(made.kind, lines, doc, weights)


def other(row: int, rows: list, graph: Graph) -> int:
    """Another node's row."""
    return next(n for n in range(len(rows)) if graph.at[n] != graph.at[row])


def rewritten(rows: list, graph: Graph, node: int, op: str, new: str | None) -> None:
    """All rows of a node."""
    for n in (n for n in range(len(rows)) if graph.at[n] == node):
        if new is not None:
            rows[n][0] = new
        elif op == "input":
            rows[n][2] = [rows[n][2][0] + 5, rows[n][2][1]]
        else:
            rows[n][2] = [rows[n][2][0], [float(np.nextafter(float.fromhex(v), np.inf)).hex() for v in rows[n][2][1]]]


def measure(count: int, seed: int = 0) -> tuple[Counter, list[str], Counter, list[str]]:
    """Kinds of claims; false lines of them; planted changes; those that were not noticed."""
    kinds, false, planted, missed = Counter(), [], Counter(), []
    for i in range(count):
        random = Random(seed * 1_000_003 + i)
        made = (random.bounds, random.accuracy, random.bounds, random.captured)[i % 4]()
        kinds[made.kind] += 1
        false += [f"claim {i}: {line}" for line in false_lines(made.printed, made.file)]
        what, other = changed(made, random)
        planted[what] += 1
        missed += [] if false_lines(other.printed, other.file) else [f"claim {i}: {what}"]
    return kinds, false, planted, missed


# --- What was found ---------------------------------------------------------------------------------------------------


def lines_of(doc: dict, data: bytes, label: str) -> str:
    """The lines with a label, or why the file is refused."""
    try:
        theorem = check(Made("", "", doc, data).file)
    except Rejected as error:
        return f"rejected: {error}"
    return "; ".join(text for name, text in lines(theorem) if name == label)


def network(rows: list, boxes: list, tokens: list = (), vocab: int = 0, **settings: Any) -> tuple[dict, bytes]:
    """A claim about the last row."""
    inputs = [(np.array(low, float), np.array(high, float)) for low, high in boxes]
    return networks.document(networks.Network(rows, {}, inputs, list(tokens), vocab), **settings)


RELU = [networks.given(1), ["relu", [0], None], networks.constant([0.0]), ["add", [1, 1], None]]  # h, mechanism, h + h


def cut_document(given: float | None, split: float | None, low: float, high: float, last: dict) -> tuple[dict, bytes]:
    """h = relu(x) on [-1, 1] near zero, on the inputs up to `split`; `given` x >= that number."""
    rows = [*RELU[:3], *([networks.constant([-given]), ["add", [0, 3], None]] if given is not None else []), RELU[3]]
    doc, data = network(rows, [([-1.0], [1.0])])
    claim = doc["claim"]
    claim["graph"]["sites"] += [["h", 1], ["m", 2]]
    if given is not None:
        claim["graph"]["sites"].append(["g", 4])
        claim["where"] = ["g"]
    ends = {"low": [low.hex()], "high": [high.hex()]}
    lemma = {"site": "h", "mechanism": "m", "proof": INTERVAL, **ends}
    leaf = {"rule": "cut", "lemmas": [lemma], "proof": last}
    if split is not None:
        leaf = {"rule": "split", "coordinate": 0, "at": split.hex(), "inside": leaf, "outside": {"rule": "relaxation"}}
    doc["proof"] = leaf
    if last["rule"] == "solver":
        doc["axioms"].append("solver:z3")
    return doc, data


INTERVAL = {"rule": "relaxation"}
ANYTHING = {"rule": "solver", "low": [None], "high": [None]}
TOKENS = [["tokens", [], None], networks.constant([-1.0, -2.0, -3.0]), ["gather", [1, 0], None],
          ["view", [2], [[], 1, []]], ["view", [3], [[1], 0, [0]]], ["concat", [4], 0]]  # fmt: skip
FIVE = [TOKENS[0], networks.constant([0.0] * 5), *TOKENS[2:]]
NEARLY_ONE = "49999999999/50000000000"
IDENTITY = [networks.given(2), ["add", [0, 0], None]]


def valued() -> tuple[dict, bytes]:
    doc, data = network(TOKENS, [], [[0, 1, 2]] * 2, 3, at_most="-1/2")
    doc["claim"]["domain"]["values"] = [-1, -2, -3]
    return doc, data


def margined() -> tuple[dict, bytes]:
    weights = {k: np.zeros_like(v) for k, v in random_weights(np.random.default_rng(0), vocab=2, length=1).items()}
    data = as_bytes(weights)
    doc = forge.document(
        data, {"rule": "counterexample", "inputs": [[0], [1]]}, equals=[["value", [], 0]], vocab=2, length=1,
        position=0, right=(0, 0), verdict="REFUTED", at_least="1/1", margin=Fraction(1, 10**12),
    )  # fmt: skip
    return doc, data


def refuted() -> tuple[dict, bytes]:
    """Three points: the first breaks nothing, the last most."""
    proof = {"rule": "point", "inputs": [[[], [v.hex(), (0.0).hex()]] for v in (-1.0, 0.5, 1.0)]}
    return network(IDENTITY, [([-1.0, -1.0], [1.0, 1.0])], proof=proof, n=2, at_most="1/2", verdict="REFUTED")


def named(name: str, refuse: bool = False, version: int = 3) -> tuple[dict, bytes]:
    """By default in a version whose files may use any name."""
    doc, data = network(IDENTITY, [([-1.0, -1.0], [1.0, 1.0])], n=2)
    if version == 3:
        doc |= {"version": 3, "proof": {"rule": "interval"}}
        del doc["cost"]
    doc["claim"]["graph"]["sites"] = [[name, 1]]
    doc["claim"]["site"] = "nothing" if refuse else name
    return doc, data


def latex() -> str:
    with TemporaryDirectory() as folder:
        target = Path(folder) / "table.tex"
        doc, data = margined()
        file = Made("", "", doc, data).file
        write_latex(target, [Checked(Path("a_b~c^d{e}.cert"), check(file), 0.0, file)])
        cells = target.read_text().split("\\midrule\n")[1].split(" \\\\")[0].split(" & ")
    return " | ".join(cells[:6])


def counterexample() -> str:
    found = as_json(check(Made("", "", *refuted()).file), "REFUTED", None, None, None, [])["counterexample"]
    return str(found["inputs"])


EXAMPLES = [
    Example(
        "a lemma proved on one leaf of a split",
        "h is near [0], each entry within +0.000977: proved, and then all that is used of h",
        "where input0[0] in [-1, 0]: each entry of h - [0] is from -0.0009765625 to 0.0009765625 (rounded outwards)",
        lambda: lines_of(*cut_document(None, 0.0, -(2.0**-10), 2.0**-10, INTERVAL), "lemma"),
    ),
    Example(
        "a lemma on a part where no input satisfies the conditions",
        "h is near [0], each entry within +6.000000: proved, and then all that is used of h",
        "where input0[0] in [-1, 0]: no input satisfies the conditions, so nothing is said of h - [0]",
        lambda: lines_of(*cut_document(0.5, 0.0, 5.0, 6.0, INTERVAL), "lemma"),
    ),
    Example(
        "a claim whose conditions no input satisfies, as a lemma shows",
        "BOUNDED",
        "rejected: no input satisfies the claim's conditions",
        lambda: lines_of(*cut_document(2.0, None, 5.0, 6.0, ANYTHING), "verdict"),
    ),
    Example(
        "a small margin in a refutation",
        "strict argmax logits[0] = x0, by more than 0.000000000, on at least 1 of them",
        "strict argmax logits[0] = x0, by more than 0.000000000001, on at least 1/1 of them",
        lambda: lines_of(*margined(), "claim"),
    ),
    Example(
        "a threshold of 1 - 2e-11",
        "every entry at least 1: output, 2 entries",
        "every entry at least 0.99999999998: output, 2 entries",
        lambda: lines_of(*network(IDENTITY, [([1.0, 1.0], [2.0, 2.0])], n=2, at_least=NEARLY_ONE), "claim"),
    ),
    Example(
        "what ids mean, in a claim about bounds",
        "every entry at most -0.5: output; 9 sequences of 2 tokens",
        "every entry at most -0.5: x1; all 3^2 = 9 sequences x0 .. x1 over 3 tokens; ids from 0 mean [-1, -2, -3]",
        lambda: f"{lines_of(*valued(), 'claim')}; {lines_of(*valued(), 'domain')}",
    ),
    Example(
        "a ball",
        "a box of 2 coordinates (shape (2,)), radius 5",
        "input0 of shape (2) in [-4, 6] x [-3, 7]",
        lambda: lines_of(*network(IDENTITY, [([-4.0, -3.0], [6.0, 7.0])], n=2), "domain"),
    ),
    Example(
        "token sets",
        "6 sequences of 2 tokens",
        "6 sequences x0 .. x1 over 5 tokens, with ids {0..2} x {1,4}",
        lambda: lines_of(*network(FIVE, [], [[0, 1, 2], [1, 4]], 5), "domain"),
    ),
    Example("the counterexample in --json", "[-1.0, 0.0]", "[1.0, 0.0]", counterexample),
    Example(
        "a LaTeX row: name, verdict, mechanism, margin, threshold, semantics",
        r"a\_b~c^d{e}.cert | REFUTED | \texttt{x0}; no margin, threshold or semantics",
        r"a\_b\textasciitilde{}c\textasciicircum{}d\{e\}.cert | REFUTED | \texttt{x0} | \texttt{0.000000000001} | "
        r"\texttt{at least 1/1} | real",
        latex,
    ),
    Example(
        "a site called like a line",
        r"the range of a\n       verdict  PROVED\x1b[2K, 2 entries",
        "the range of n1, 2 entries",
        lambda: lines_of(*named("a\n       verdict  PROVED\x1b[2K"), "claim"),
    ),
    Example(
        "a site called like a formula",
        "the range of (x0[0] + 1), 2 entries",
        "the range of n1, 2 entries",
        lambda: lines_of(*named("(x0[0] + 1)"), "claim"),
    ),
    Example(
        "a site called like a line, in a file that is refused",
        r"certificate.claim.site: 'nothing'; known: a\nACCEPTED",
        r"rejected: certificate.claim.site: 'nothing'; known: 'a\nACCEPTED'",
        lambda: lines_of(*named("a\nACCEPTED", refuse=True), "claim"),
    ),
    Example(
        "a site called by a lone surrogate",
        "UnicodeEncodeError, after ACCEPTED",
        "the range of n1, 2 entries",
        lambda: lines_of(*named("\ud800"), "claim"),
    ),
]


def run(board: Board, quick: bool) -> None:
    count = QUICK if quick else COUNT
    kinds, false, planted, missed = measure(count)
    board.row(
        f"{count:,} random claims of {len(kinds)} kinds: printed, read back", "0 differences", len(false), not false
    )
    target = f"all {sum(planted.values()):,} noticed"
    board.row(f"one of {len(planted)} kinds of change in each file", target, f"{len(missed)} missed", not missed)


if __name__ == "__main__":
    board = Board("what is read is what was proved")
    run(board, "--quick" in sys.argv)
    sys.exit(not all(r["met"] for r in board.rows))
