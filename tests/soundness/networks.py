"""Random small networks as certificates list them, and what they compute: in float64, and in python-flint's balls.

The evaluator here shares no code with the kernel: every operation is written out from its definition.
"""

import hashlib
import json
import math
from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any, NamedTuple

import numpy as np
from flint import arb, ctx
from safetensors.numpy import save

from mechverify.kernel.core.claim import Claim
from mechverify.kernel.core.container import pack
from mechverify.kernel.core.fields import Reader
from mechverify.kernel.core.kinds import read_claim
from mechverify.kernel.relaxation.operations import internal

FUNCTIONS: dict[str, tuple[Callable[[float], float], Callable[[arb], arb]]] = {
    "relu": (lambda x: max(x, 0.0), lambda x: x.max(arb(0))),
    "abs": (abs, abs),
    "exp": (lambda x: math.exp(x) if x < 709 else math.inf, arb.exp),
    "log": (math.log, arb.log),
    "sqrt": (math.sqrt, arb.sqrt),
    "rsqrt": (lambda x: 1 / math.sqrt(x), arb.rsqrt),
    "reciprocal": (lambda x: 1 / x, lambda x: 1 / x),
    "tanh": (math.tanh, arb.tanh),
    "sigmoid": (lambda x: 0.5 + 0.5 * math.tanh(x / 2), lambda x: 1 / (1 + (-x).exp())),
    "erf": (math.erf, arb.erf),
    "softplus": (lambda x: max(x, 0) + math.log1p(math.exp(-abs(x))),
                 lambda x: x + (1 + (-x).exp()).log() if x > 0 else (1 + x.exp()).log()),
    "gelu": (lambda x: x / 2 * (1 + math.erf(x / math.sqrt(2))), lambda x: x / 2 * (1 + (x / arb(2).sqrt()).erf())),
    "gelu_tanh": (lambda x: x / 2 * (1 + math.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
                  lambda x: x / 2 * (1 + ((2 / arb.pi()).sqrt() * (x + arb(44715) / 10**6 * x * x * x)).tanh())),
    "silu": (lambda x: x * (0.5 + 0.5 * math.tanh(x / 2)), lambda x: x / (1 + (-x).exp())),
    "sin": (math.sin, arb.sin),
    "cos": (math.cos, arb.cos),
    "atan": (math.atan, arb.atan),
}  # fmt: skip
POSITIVE = {"log", "sqrt", "rsqrt", "reciprocal"}


class Network(NamedTuple):
    """`rows` as in a certificate; `inputs` are (low, high) corners; the last row is the output."""

    rows: list
    weights: dict[str, np.ndarray]
    inputs: list[tuple[np.ndarray, np.ndarray]]
    tokens: list[list[int]]
    vocab: int

    @property
    def site(self) -> int:
        return len(self.rows) - 1


# --- files ------------------------------------------------------------------------------------------------------------


def hexadecimal(a: Any) -> list[str]:
    return [float(v).hex() for v in np.ravel(a)]


def constant(a: Any) -> list:
    return ["constant", [], [list(np.shape(a)), hexadecimal(a)]]


def given(*shape: int, number: int = 0) -> list:
    return ["input", [], [number, list(shape)]]


def document(net: Network, proof: Any = None, *, low=None, high=None, n=1, verdict="BOUNDED", at_least=None,
             at_most=None, position=None, semantics="real") -> tuple[dict, bytes]:  # fmt: skip
    """A claim about the network's last row, and a conclusion."""
    data = save({k: np.array(v, np.float64, order="C") for k, v in (net.weights or {"unused": np.zeros(1)}).items()})
    return {
        "format": "mechverify-certificate",
        "version": 5,
        "cost": None,
        "claim": {
            "kind": "bounds", "semantics": semantics, "architecture": "captured",
            "weights_sha256": hashlib.sha256(data).hexdigest(), "site": "output", "position": position,
            "domain": {
                "tokens": [list(t) for t in net.tokens], "values": list(range(net.vocab)),
                "inputs": [[list(np.shape(a)), hexadecimal(a), hexadecimal(b)] for a, b in net.inputs],
            },
            "where": [],
            "cases": [],
            "graph": {
                "nodes": net.rows, "sites": [["output", net.site]],
                "replayed": {"module": "test", "inputs": 0, "difference": "0/1"},
            },
            "at_least": at_least, "at_most": at_most,
        },
        "conclusion": {
            "verdict": verdict,
            "low": [None] * n if low is None else [v if v is None else float(v).hex() for v in low],
            "high": [None] * n if high is None else [v if v is None else float(v).hex() for v in high],
        },
        "axioms": ["ieee754", "capture", *(["libm:float32", "torch:float32"] if semantics == "float32" else [])],
        "proof": proof or {"rule": "relaxation", "lines": None},
    }, data  # fmt: skip


def file(doc: dict, data: bytes) -> bytes:
    return pack({"certificate.json": json.dumps(doc).encode(), "weights.safetensors": data})


def claim(net: Network, **settings: Any) -> Claim:
    doc, data = document(net, **settings)
    return read_claim(Reader(doc["claim"], "claim"), data)


# --- evaluation -------------------------------------------------------------------------------------------------------


def evaluate(graph, weights: dict, nodes: Sequence[int], tokens: np.ndarray, inputs: Sequence[np.ndarray], *,
             exact: bool = False, pivots: dict | None = None, bits: int = 300) -> dict[int, np.ndarray]:  # fmt: skip
    """Values [batch, *shape] of a kernel graph's nodes on ids [batch, length] and inputs [batch, *shape]."""
    if exact:
        ctx.prec = bits
    number = np.frompyfunc(lambda v: arb(float(v)), 1, 1) if exact else np.asarray
    batch, values = len(tokens), {}

    def lifted(a: np.ndarray, shape: tuple) -> np.ndarray:
        return np.broadcast_to(np.asarray(number(np.asarray(a, float)), object if exact else float), (batch, *shape))

    def mapped(index: int, a: np.ndarray, f: Callable) -> np.ndarray:
        return np.asarray(np.frompyfunc(f, 1, 1)(a), object if exact else float)

    def spread(a: np.ndarray, term: str, letters: str) -> np.ndarray:
        order = [c for c in letters if c in term]
        moved = a.transpose(0, *(1 + term.index(c) for c in order))
        sizes = dict(zip(order, moved.shape[1:], strict=True))
        return moved.reshape(batch, *(sizes.get(c, 1) for c in letters))

    for n in graph.ancestors(list(nodes)):
        node, args = graph.nodes[n], [values[a] for a in graph.nodes[n].args]
        op, attr = node.op, node.attr
        if op == "tokens":
            value = tokens
        elif node.kind == "int":
            value = np.broadcast_to(_integer(node, args, np.array(graph.values), tokens), batch)
        elif op == "pi":
            value = np.broadcast_to(np.array(arb.pi() if exact else math.pi, object if exact else float), (batch,))
        elif op == "number":
            value = lifted(args[0][:, None], (1,))[:, 0]
        elif op == "pick":
            value = args[0][np.arange(batch), args[1]]
        elif op == "input":
            value = lifted(inputs[attr[0]], node.shape)
        elif op == "weight":
            value = lifted(weights[attr[0]][tuple(slice(s) for s in attr[1])], node.shape)
        elif op == "constant":
            value = lifted(np.array(attr[1], float).reshape(attr[0]), node.shape)
        elif op == "pivot":
            value = lifted(pivots[n], node.shape)
        elif op == "slack":  # what capping the scores takes from a share: its exact value less the capped one
            room, capped = args
            kept = values[graph.nodes[graph.nodes[node.args[1]].args[0]].args[1]]
            powers = mapped(0, internal.CAP - room, FUNCTIONS["exp"][exact])
            value = 1 / (1 + (powers * kept).sum(-1)) - 1 / capped
        elif op == "gather":
            value = args[0][0][args[1]]
        elif op == "select":
            value = np.take(args[0], attr[1], attr[0] + 1)
        elif op == "view":
            shape, offset, steps = attr
            places = [offset + sum(i * s for i, s in zip(at, steps, strict=True)) for at in np.ndindex(*shape)]
            value = args[0].reshape(batch, -1)[:, places].reshape(batch, *shape)
        elif op == "concat":
            value = np.concatenate(args, attr + 1)
        elif op in ("add", "sub", "mul"):
            rank = len(node.shape) + 1
            first, second = (a.reshape(batch, *(1,) * (rank - a.ndim), *a.shape[1:]) for a in args)
            value = first + second if op == "add" else first - second if op == "sub" else first * second
        elif op == "over_root":
            value = args[0] / (arb(attr).sqrt() if exact else math.sqrt(attr))
        elif op == "extremum":
            value = np.moveaxis(_in_order(args[0]), -1, 0)[-1 if attr == "max" else 0]
        elif op == "ascending":
            value = _in_order(args[0])
        elif op == "choose":
            rank = len(node.shape) + 1
            spread_out = [a.reshape(batch, *(1,) * (rank - a.ndim), *a.shape[1:]) for a in args]
            value = np.asarray(np.frompyfunc(_chosen, 4, 1)(*spread_out), object if exact else float)
        elif op == "power":
            value = reduce(np.multiply, [args[0]] * attr)  # arb's ** is NaN for a ball around zero
        elif op == "einsum":
            first, second, result = attr.replace("->", ",").split(",")
            summed = "".join(c for c in first if c not in result)
            joint = spread(args[0], first, result + summed) * spread(args[1], second, result + summed)
            value = joint.reshape(*joint.shape[: 1 + len(result)], -1).sum(-1)
        elif op == "softmax":
            scores = args[0] if exact else args[0] - args[0].max(-1, keepdims=True)  # exp may overflow
            value = _softmax(mapped(0, scores, FUNCTIONS["exp"][exact]), node)
        elif op == "secant":  # of the first two operands, as it is defined
            first, second = (_applied(attr, a, mapped, exact) for a in args[:2])
            value = first - second
        elif op == "exchanged":
            p, q = args[:2]
            value = p[..., :, None] * q[..., None, :] - q[..., :, None] * p[..., None, :]
        elif op == "blend":
            value = args[1]
        else:
            value = mapped(0, args[0], FUNCTIONS[op][exact])
        values[n] = np.asarray(value)
    return {n: values[n] for n in nodes}


def _applied(function: tuple, a: np.ndarray, mapped: Callable, exact: bool) -> np.ndarray:
    """A function, by its name and attribute."""
    name, exponent = function
    return reduce(np.multiply, [a] * exponent) if name == "power" else mapped(0, a, FUNCTIONS[name][exact])


def _integer(node: Any, args: list, values: np.ndarray, tokens: np.ndarray) -> Any:
    match node.op:
        case "value":
            return values[tokens[:, node.attr]]
        case "integer":
            return node.attr
        case "sum" | "product" | "max" | "min":
            fold = {"sum": np.add, "product": np.multiply, "max": np.maximum, "min": np.minimum}[node.op]
            return reduce(fold, args)
        case "mod" | "floordiv":
            return args[0] % node.attr if node.op == "mod" else args[0] // node.attr
        case "lt" | "le" | "eq":
            compare = {"lt": np.less, "le": np.less_equal, "eq": np.equal}[node.op]
            return compare(*args).astype(int)
        case "and" | "or":
            return reduce(np.minimum if node.op == "and" else np.maximum, args)
        case "not":
            return 1 - args[0]
        case "kth_largest":
            return np.sort(np.stack(np.broadcast_arrays(*args)), 0)[-node.attr]
        case "where":
            return np.where(args[0] == 1, args[1], args[2])
        case "lookup":
            return np.array(node.attr)[args[0]]
    raise NotImplementedError(node.op)


def _in_order(a: np.ndarray) -> np.ndarray:
    """Of the last axis, neighbours exchanged as often as there are entries."""
    a = np.array(a)
    for step in range(a.shape[-1]):
        for i in range(step % 2, a.shape[-1] - 1, 2):
            pairs = zip(a[..., i].ravel(), a[..., i + 1].ravel(), strict=True)
            found = [(x.min(y), x.max(y)) if isinstance(x, arb) else (min(x, y), max(x, y)) for x, y in pairs]
            for at, values in zip((i, i + 1), zip(*found, strict=True), strict=True):
                a[..., at] = np.array(values, a.dtype).reshape(a.shape[:-1])
    return a


def _chosen(x: Any, y: Any, above: Any, other: Any) -> Any:
    """Of balls that overlap, both."""
    if x > y:
        return above
    return other if x <= y else above.union(other)


def _softmax(powers: np.ndarray, node: Any) -> np.ndarray:
    keep = np.zeros(node.shape, bool)
    for at in np.ndindex(*node.shape):
        if node.attr == "causal":
            keep[at] = at[-1] <= at[-2]
        elif type(node.attr) is tuple:
            keep[at] = node.attr[at[-2] if len(node.attr) > 1 else 0][at[-1]] == "1"
        else:
            keep[at] = at[-1] < node.attr
    powers = powers * keep
    return powers / powers.sum(-1)[..., None]


# --- random networks --------------------------------------------------------------------------------------------------

RADII = [0.0, 5e-324, 1e-14, 1e-6, 1e-2, 0.3, 1.0, 3.0]
MOST = 24  # entries of a node


class Maker:
    """Adds random operations to a list of rows."""

    def __init__(self, rng: np.random.Generator, radius: float | None = None, kind: int | None = None):
        self.rng, self.rows, self.shapes, self.weights = rng, [], [], {}
        self.inputs, self.tokens, self.vocab = [], [], 0
        self.radius = radius
        self.real: list[int] = []  # rows that depend on the input
        kind = rng.integers(4) if kind is None else kind  # 1: tokens alone; 2: both
        if kind != 1:
            for _ in range(rng.integers(1, 3)):
                self._input(self._shape(2))
        if kind in (1, 2):
            self._embedded()

    def network(self, steps: int) -> Network:
        done = 0
        while done < steps:
            done += bool(getattr(self, "_" + self._pick(STEPS))())
        return Network(self.rows, self.weights, self.inputs, self.tokens, self.vocab)

    def _pick(self, options: Sequence) -> Any:
        return options[int(self.rng.integers(len(options)))]

    def _shape(self, most: int) -> tuple[int, ...]:
        return tuple(int(v) for v in self.rng.integers(1, 4, self.rng.integers(0, most + 1)))

    def _add(self, op: str, args: list[int], attr: Any, shape: tuple[int, ...], moves: bool = True) -> int:
        self.rows.append([op, args, attr])
        self.shapes.append(tuple(int(s) for s in shape))
        if moves:
            self.real.append(len(self.rows) - 1)
        return len(self.rows) - 1

    def _input(self, shape: tuple[int, ...]) -> None:
        radius = self._pick(RADII) if self.radius is None else self.radius
        centre = self.rng.normal(size=shape)
        radius = radius * self.rng.integers(0, 2, shape) if self.rng.random() < 0.3 else radius
        low, high = np.asarray(centre - radius), np.asarray(centre + radius)
        if radius is RADII[1]:
            high = np.nextafter(high, np.inf)
        self._add("input", [], [len(self.inputs), list(shape)], shape)
        self.inputs.append((low, high))

    def _embedded(self) -> None:
        length, self.vocab, width = (int(v) for v in self.rng.integers([1, 2, 1], [4, 5, 4]))
        for _ in range(length):
            size = int(self.rng.integers(1, self.vocab + 1))
            self.tokens.append(sorted(int(v) for v in self.rng.choice(self.vocab, size, replace=False)))
        ids = self._add("tokens", [], None, (length,), False)
        for _ in range(int(self.rng.integers(1, 3))):  # gathered twice, also from views of the tokens
            here, shape = ids, (length,)
            if self.rng.random() < 0.5:
                attr = self._reading(length)
                shape = tuple(attr[0])
                here = self._add("view", [ids], attr, shape, False)
            table = self._weight((self.vocab, width))
            self._add("gather", [table, here], None, (*shape, width))

    def _weight(self, shape: tuple[int, ...]) -> int:
        numbers = self.rng.normal(size=shape) * self._pick([0.3, 1.0, 1.0])
        if self.rng.random() < 0.2:
            numbers = np.round(numbers)
        if self.rng.random() < 0.5:
            name = f"w{len(self.weights)}"
            extra = tuple(int(s + v) for s, v in zip(shape, self.rng.integers(0, 2, len(shape)), strict=True))
            whole = self.rng.normal(size=extra)  # a row may read the leading part of a tensor
            whole[tuple(slice(s) for s in shape)] = numbers
            self.weights[name] = whole
            return self._add("weight", [], [name, list(shape)], shape, False)
        if self.rows and self.rng.random() < 0.01 and shape == ():
            return self._add("constant", [], [[], hexadecimal(0.0)], (), False)
        name = f"w{len(self.weights)}"
        self.weights[name] = numbers
        return self._add("weight", [], [name, list(shape)], shape, False)

    def _reading(self, size: int) -> list:
        """A view of `size` entries: any strides, also zero, negative and overlapping."""
        while True:
            shape = self._shape(3)
            steps = [int(v) for v in self.rng.integers(-3, 4, len(shape))]
            reach = [(n - 1) * s for n, s in zip(shape, steps, strict=True)]
            low, high = sum(min(r, 0) for r in reach), sum(max(r, 0) for r in reach)
            if high - low < size and math.prod(shape) <= MOST:
                return [list(shape), int(self.rng.integers(-low, size - high)), steps]

    def _view(self) -> int:
        n = self._pick(self.real)
        attr = self._reading(math.prod(self.shapes[n]))
        return self._add("view", [n], attr, attr[0])

    def _concat(self) -> int:
        n = self._pick(self.real)
        shape = self.shapes[n]
        if not shape:
            return 0
        axis = int(self.rng.integers(len(shape)))
        fits = [
            m
            for m in self.real
            if len(self.shapes[m]) == len(shape)
            and all(a == b for i, (a, b) in enumerate(zip(self.shapes[m], shape, strict=True)) if i != axis)
        ]
        parts = [n, *(self._pick(fits) for _ in range(self.rng.integers(0, 3)))]
        if self.rng.random() < 0.4:
            parts.append(self._weight((*shape[:axis], 2, *shape[axis + 1 :])))
        total = sum(self.shapes[m][axis] for m in parts)
        if total * math.prod(shape) // shape[axis] > MOST:
            return 0
        return self._add("concat", parts, axis, (*shape[:axis], total, *shape[axis + 1 :]))

    def _elementwise(self, name: str | None = None) -> int:
        n = self._pick(self.real)
        shape = self.shapes[n]
        if self.rng.random() < 0.5:
            fits = [m for m in self.real if _broadcast(self.shapes[m], shape) is not None]
            other = self._pick(fits)
        else:
            kept = shape[int(self.rng.integers(0, len(shape) + 1)) :]
            other = self._weight(tuple(1 if self.rng.random() < 0.3 else s for s in kept))
        args = [n, other] if self.rng.random() < 0.5 else [other, n]
        result = _broadcast(*(self.shapes[a] for a in args))
        if result is None or math.prod(result) > MOST:
            return 0
        return self._add(name or self._pick(["add", "sub", "mul"]), args, None, result)

    def _einsum(self) -> int:
        n = self._pick(self.real)
        shape = self.shapes[n]
        term = "".join(self.rng.permutation(list("abcdefgh"))[: len(shape)])
        sizes = dict(zip(term, shape, strict=True))
        shared = [c for c in term if self.rng.random() < 0.6]
        new = [c for c in "xy" if self.rng.random() < 0.4]
        if self.rng.random() < 0.4:
            other = self._pick(self.real)
            if self.rng.random() < 0.3:
                other = n
            rest, letters = iter("pqrstuv"), []
            for size in self.shapes[other]:
                match = [c for c in term if sizes[c] == size and c not in letters and self.rng.random() < 0.7]
                letters.append(match[0] if match else next(rest))
                sizes[letters[-1]] = size
            second = "".join(letters)
        else:
            sizes |= {c: int(self.rng.integers(1, 4)) for c in new}
            second = "".join(self.rng.permutation(shared + new)) if shared + new else ""
            other = self._weight(tuple(sizes[c] for c in second))
        both = set(term) & set(second)
        result = [c for c in dict.fromkeys(term + second) if c not in both or self.rng.random() < 0.4]
        result = "".join(self.rng.permutation(result)) if result else ""
        shape = tuple(sizes[c] for c in result)
        if math.prod(sizes.values()) > 3 * MOST or math.prod(shape) > MOST:
            return 0
        pair = [(n, term), (other, second)]
        (n, term), (other, second) = pair if self.rng.random() < 0.5 else pair[::-1]
        return self._add("einsum", [n, other], f"{term},{second}->{result}", shape)

    def _softmax(self, n: int | None = None, kind: int | None = None) -> int:
        n = self._pick(self.real) if n is None else n
        shape = self.shapes[n]
        if not shape:
            return 0
        kind = self.rng.integers(4) if kind is None else kind
        attr: Any = int(self.rng.integers(1, shape[-1] + 1))
        if kind == 1 and len(shape) > 1:
            attr = "causal"
        elif kind >= 2:
            count = shape[-2] if kind == 3 and len(shape) > 1 else 1
            masks = self.rng.integers(0, 2, (count, shape[-1]))
            masks[:, self.rng.integers(shape[-1])] = 1
            attr = ["".join(map(str, r)) for r in masks.tolist()]
        return self._add("softmax", [n], attr, shape)

    def _attention(self) -> int:
        n = self._pick([m for m in self.real if len(self.shapes[m]) == 2] or [None])
        if n is None:
            return 0
        rows, _ = self.shapes[n]
        scores = self._add("einsum", [n, n], "id,jd->ij", (rows, rows))
        pattern = self._softmax(self._add("over_root", [scores], int(self.rng.integers(1, 9)), (rows, rows)))
        return self._add("einsum", [pattern, n], "ij,jd->id", self.shapes[n])

    def _extremum(self) -> int:
        return self._along_last("extremum", self._pick(["max", "min"]))

    def _ascending(self) -> int:
        return self._along_last("ascending", None)

    def _along_last(self, op: str, attr: str | None) -> int:
        n = self._pick(self.real)
        shape = self.shapes[n]
        return self._add(op, [n], attr, shape[:-1] if attr else shape) if shape else 0

    def _choose(self) -> int:
        n = self._pick(self.real)
        fits = [m for m in self.real if _broadcast(self.shapes[m], self.shapes[n]) is not None]
        args = [n, *(self._pick(fits) for _ in range(3))]
        if self.rng.random() < 0.3:
            args[1] = self._weight(())
        args = [args[i] for i in self.rng.permutation(4)]
        shape = reduce(lambda a, m: a if a is None else _broadcast(a, self.shapes[m]), args, ())
        return 0 if shape is None or math.prod(shape) > MOST else self._add("choose", args, None, shape)

    def _function(self, name: str | None = None) -> int:
        n = self._pick(self.real)
        name = name or self._pick([*FUNCTIONS, "power", "power", "over_root"])
        shape = self.shapes[n]
        if name == "power":
            return self._add("power", [n], int(self._pick([2, 2, 3, 4, 5, 6, 7])), shape)
        if name == "over_root":
            return self._add("over_root", [n], int(self.rng.integers(1, 100)), shape)
        if name in POSITIVE:
            n = self._add(self._pick(["exp", "softplus", "sigmoid"]), [n], None, shape)
        return self._add(name, [n], None, shape)

    def _mechanism(self) -> int:
        """An integer of the tokens, as a number or as an index."""
        if not self.tokens:
            return 0
        ids = [self._int("value", [], int(self.rng.integers(len(self.tokens)))) for _ in range(self.rng.integers(1, 3))]
        for _ in range(int(self.rng.integers(1, 3))):
            a, b = self._pick(ids), self._pick(ids)
            truths = [self._int(name, [a, b]) for name in ("lt", "le", "eq")]
            name = self._pick(["sum", "product", "max", "min", "kth_largest", "mod", "floordiv", "and", "or", "not",
                               "where", "integer"])  # fmt: skip
            operands = {"mod": [a], "floordiv": [a], "integer": [], "not": truths[:1], "and": truths, "or": truths[1:],
                        "where": [self._pick(truths), b, a]}  # fmt: skip
            attr = int(self.rng.integers(1, 3)) if name in ("mod", "floordiv", "integer", "kth_largest") else None
            ids.append(self._int(name, operands.get(name, [a, b]), attr))
            if self.rng.random() < 0.3:
                table = [int(v) for v in self.rng.integers(-3, 4, 4)]
                ids.append(self._int("lookup", [self._int("mod", [ids[-1]], 4)], table))
        axes = [m for m in self.real if self.shapes[m]]
        if axes and self.rng.random() < 0.5:
            n = self._pick(axes)
            at = self._int("mod", [ids[-1]], self.shapes[n][0])
            return self._add("pick", [n, at], None, self.shapes[n][1:])
        number = self._add(
            "number", [self._int("mod", [ids[-1]], 3)], None, ()
        )  # small: powers of it must not overflow
        if self.rng.random() < 0.3:
            return self._add("mul", [self._add("pi", [], None, (), False), number], None, ())
        return number

    def _int(self, op: str, args: list[int], attr: int | list | None = None) -> int:
        return self._add(op, args, attr, (), False)


STEPS = ["view", "concat", "elementwise", "elementwise", "einsum", "einsum", "softmax", "attention", "function",
         "function", "function", "mechanism", "mechanism", "extremum", "ascending", "choose"]  # fmt: skip


def _broadcast(a: tuple, b: tuple) -> tuple | None:
    try:
        return np.broadcast_shapes(a, b)
    except ValueError:
        return None


def samples(net: Network, count: int, rng: np.random.Generator) -> tuple[np.ndarray, list[np.ndarray]]:
    """Inputs of the domain: a third inside, a third corners, a third on faces."""
    tokens = np.stack([rng.choice(t, count) for t in net.tokens], 1) if net.tokens else np.zeros((count, 0), np.int64)
    inputs = []
    for low, high in net.inputs:
        share = rng.random((count, *np.shape(low)))
        rounded = np.round(share)
        third = count // 3
        share[:third] = rounded[:third]
        faces = rng.random(share[third : 2 * third].shape) < 0.5
        share[third : 2 * third] = np.where(faces, rounded[third : 2 * third], share[third : 2 * third])
        inside = np.clip(low * (1 - share) + high * share, low, high)  # high - low might overflow
        inputs.append(np.where(share == 1, high, inside))
    return tokens, inputs
