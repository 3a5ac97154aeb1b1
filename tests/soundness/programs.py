"""Float32 programs of captured modules, written from lemma O4 alone: numpy float32, in random orders of sums.

`Program.rows` runs the rows of a captured graph as some float32 program might: sums in random orders, from the bias or
not, by fused multiply-add or not, quotients by a reciprocal, subnormal operands and results flushed or not, functions
off by a few units in the last place, softmax by its shift, normalisations by two passes, by Welford's updates, or with
x and the mean scaled one by one.
"""

import itertools
import math
from typing import Any

import numpy as np
import torch

F32 = np.float32
TINY = np.finfo(F32).tiny

FUNCTIONS = {
    **{name: getattr(torch, name) for name in ("exp", "tanh", "sigmoid", "erf", "sqrt", "rsqrt", "reciprocal")},
    "gelu": lambda x: x * torch.special.ndtr(x), "silu": torch.nn.functional.silu,
    "softplus": lambda x: torch.logaddexp(x, 0 * x),
    "gelu_tanh": lambda x: torch.nn.functional.gelu(x, approximate="tanh"),
}  # fmt: skip
UNITS = {"exp": 8, "tanh": 8, "erf": 8, "sigmoid": 8, "silu": 12, "softplus": 16, "gelu": 8, "gelu_tanh": 12, "sqrt": 4,
         "rsqrt": 4, "reciprocal": 4}  # of the axiom `torch:float32`  # fmt: skip


FUSED = 2.0**-18  # of the same axiom, of exp in a fused attention
BLOCK = 32  # keys of one


def _batched(spec: str) -> str:
    return "..." + spec.replace(",", ",...").replace("->", "->...")


class Program:
    """One way to compute; `rng` chooses anew for each operation."""

    def __init__(self, rng: np.random.Generator, flush: bool | None = None, order: str | None = None):
        self.rng, self.order, self.parts = rng, order, {}
        self.flush = bool(rng.integers(2)) if flush is None else flush

    def out(self, x: Any) -> np.ndarray:
        x = np.asarray(x).astype(F32)
        return np.where(np.abs(x) < TINY, F32(0), x) if self.flush else x

    def some(self, *ways: str) -> str:
        return ways[self.rng.integers(len(ways))]

    def total(self, products: np.ndarray, start: np.ndarray | None = None) -> np.ndarray:
        """Of float32 terms [..., n] over the last axis; `start` is added somewhere."""
        order = self.order or self.some("one by one", "shuffled", "halves", "blocks", "sorted")
        if start is not None:
            products = np.concatenate([np.broadcast_to(start, products.shape[:-1])[..., None], products], -1)
        n = products.shape[-1]
        if order == "shuffled":
            products = products[..., self.rng.permutation(n)]
        if order == "sorted":
            products = np.take_along_axis(products, np.argsort(-np.abs(products), -1), -1)
        if order == "halves":
            while products.shape[-1] > 1:
                odd = products[..., -1:] if products.shape[-1] % 2 else products[..., :0]
                half = products.shape[-1] // 2
                products = np.concatenate([self.out(products[..., :half] + products[..., half : 2 * half]), odd], -1)
            return products[..., 0]
        if order == "blocks" and n > 4:
            size = int(self.rng.integers(2, n))
            parts = [self.total_of(products[..., i : i + size]) for i in range(0, n, size)]
            return self.total_of(np.stack(parts, -1))
        return self.total_of(products)

    def total_of(self, products: np.ndarray) -> np.ndarray:
        result = products[..., 0]
        for k in range(1, products.shape[-1]):
            result = self.out(result + products[..., k])
        return result

    def contract(self, spec: str, x: np.ndarray, y: np.ndarray, start: np.ndarray | None = None) -> np.ndarray:
        terms, result = spec.split("->")
        first, second = terms.split(",")
        summed = "".join(c for c in first if c in second and c not in result)
        sizes = dict(zip(first + second, (*x.shape[1:], *y.shape[1:]), strict=True))

        def spread(a: np.ndarray, term: str) -> np.ndarray:
            order = [term.index(c) + 1 for c in result + summed if c in term]
            shape = [sizes[c] if c in term else 1 for c in result + summed]
            return a.transpose([0, *order]).reshape(len(a), *shape)

        a, b = spread(x, first), spread(y, second)
        n = math.prod(sizes[c] for c in summed)
        size = max(len(a), len(b)), *(sizes[c] for c in result), n
        fused = self.rng.random() < 0.25
        if fused:  # each product is added before it is rounded
            wide = (a.astype(np.float64) * b).reshape(size)
            total = np.zeros(size[:-1], F32) if start is None else np.broadcast_to(start, size[:-1]).astype(F32)
            for k in self.rng.permutation(n):
                total = self.out(total.astype(np.float64) + wide[..., k])
            return total
        return self.total(self.out(a * b).reshape(size), start)

    def function(self, name: str, x: np.ndarray) -> np.ndarray:
        """As far off as the axiom allows, but for the last rounding: units of the value, or of the operand."""
        y = FUNCTIONS[name](torch.from_numpy(x.astype(np.float64))).numpy()
        size = np.abs(x if name in ("gelu", "gelu_tanh") else y)
        off = (UNITS[name] - 1.2) * 2.0**-24 * size * np.sign(self.rng.uniform(-1, 1, y.shape))
        return self.out(y + off * (self.rng.random() < 0.7))

    def softmax(self, x: np.ndarray, kept: np.ndarray) -> np.ndarray:
        x = np.where(kept, x, -np.inf)
        factors = np.where(kept, self.function("exp", self.out(x - x.max(-1, keepdims=True))), F32(0))
        total = self.total(factors)[..., None]
        return self.out(factors * self.out(F32(1) / total) if self.rng.integers(2) else factors / total)

    def contract_scaled(self, spec: str, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """The products of factors that a root has scaled, as they would be without it."""
        root = F32(self.rng.choice([0.7071, 0.3, 2.0**-10 * 1.3]))
        return self.contract(spec, self.out(x * root), self.out(y * root)) / float(root) ** 2

    def exponential(self, d: np.ndarray) -> np.ndarray:
        """In a fused attention, as far off as the axiom allows, but for the last rounding."""
        y = np.exp(d.astype(np.float64))
        off = (FUSED - 2.0**-24) * y * np.sign(self.rng.uniform(-1, 1, y.shape))
        return self.out(np.where(y < 2.0**-124, 0, y + off * (self.rng.random() < 0.7)))

    def blocks(self, x: np.ndarray, kept: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
        """For each block of a fused attention: the factors of its keys, zeros elsewhere, and by what is multiplied what
        was there before. Scores x [..., key]."""
        n, found = x.shape[-1], []
        cuts = (
            [0, n]
            if n <= BLOCK
            else sorted({0, n, *(BLOCK * self.rng.choice(np.arange(1, -(-n // BLOCK)), 9)).tolist()})
        )
        x, top = np.where(kept, x, -np.inf), np.full((*x.shape[:-1], 1), -np.inf)
        for first, last in itertools.pairwise(cuts):
            within = (np.arange(n) >= first) & (np.arange(n) < last)
            new = np.maximum(top, np.where(within, x, -np.inf).max(-1, keepdims=True))
            some = np.isfinite(new)
            old = np.where(
                np.isfinite(top), self.exponential(self.out(np.where(np.isfinite(top), top - new, 0))), F32(0)
            )
            d = self.out(np.where(kept & within & some, x - np.where(some, new, 0), 0))
            found.append((np.where(kept & within & some, self.exponential(d), F32(0)), old))
            top = new
        return found

    def averages(self, spec: str, parts: list[tuple[np.ndarray, np.ndarray]], y: np.ndarray) -> np.ndarray:
        """What a fused attention makes of values y: blocks added up, rescaled, and divided by the sum at last."""
        ones, result, total = np.ones_like(y), None, None
        for factors, old in parts:
            one = np.zeros_like(factors)
            one[..., 0] = 1
            rescale = np.einsum(_batched(spec), one * old, ones).astype(F32)
            mine, sums = self.contract(spec, factors, y), self.contract(spec, factors, ones)
            result = mine if result is None else self.out(self.out(result * rescale) + mine)
            total = sums if total is None else self.out(self.out(total * rescale) + sums)
        return self.out(result * self.out(F32(1) / total) if self.rng.integers(2) else result / total)

    def norm(self, x: np.ndarray, eps: float, centre: bool) -> np.ndarray:
        n, one = F32(x.shape[-1]), F32(1)
        way = self.some("two passes", "welford", "scaled")
        mean = self.out(self.total(x) / n)[..., None] if centre else np.zeros((*x.shape[:-1], 1), F32)
        if way == "welford" and centre:
            mean, m2 = np.zeros(x.shape[:-1], F32), np.zeros(x.shape[:-1], F32)
            for k in range(x.shape[-1]):
                d = self.out(x[..., k] - mean)
                mean = self.out(mean + self.out(d / F32(k + 1)))
                m2 = self.out(m2 + self.out(d * self.out(x[..., k] - mean)))
            mean, var = mean[..., None], self.out(m2 / n)[..., None]
        else:
            c = self.out(x - mean)
            var = self.out(self.total(self.out(c * c)) / n)[..., None]
        scale = self.out(one / self.out(np.sqrt(self.out(var + F32(eps)))))
        if way == "scaled" and centre:
            return self.out(self.out(x * scale) - self.out(mean * scale))
        return self.out(self.out(x - mean) * scale)


def view(x: np.ndarray, attr: list) -> np.ndarray:
    shape, offset, strides = attr
    index = np.full(shape, offset)
    for axis, (size, step) in enumerate(zip(shape, strides, strict=True)):
        index = index + (np.arange(size) * step).reshape(size, *(1,) * (len(shape) - axis - 1))
    return x.reshape(len(x), -1)[:, index]


def rows(program: Program, captured: Any, tokens: np.ndarray, inputs: list[np.ndarray]) -> list[Any]:
    """The value of each node of a captured graph, arrays [inputs or 1, *shape], as the program computes it; the pattern
    of a fused attention is what its averages weigh by."""
    program.parts = {}
    graph, values = captured.graph, []
    size = len(tokens)
    for k, node in enumerate(graph.nodes):
        values.append(_row(program, captured, k, node, values, tokens, inputs, size))
    return values


def _row(
    p: Program, captured: Any, k: int, node: Any, values: list, tokens: np.ndarray, inputs: list, size: int
) -> Any:
    args = [values[a] for a in node.args]
    nodes = captured.graph.nodes
    if k in captured.programs.norms:
        return _norm(p, nodes, k, values)
    scores, patterns, averages = captured.programs.fused or ((),) * 3
    if k in scores and p.rng.integers(2):
        return p.contract_scaled(node.attr, *args)
    if k in patterns:
        p.parts[k] = p.blocks(args[0], kept(node))
        weights = 0
        for factors, old in p.parts[k]:
            weights = weights * old.astype(float) + factors
        return weights / weights.sum(-1, keepdims=True)
    if node.args and node.args[0] in p.parts and node.op == "view":
        n, size = nodes[node.args[0]].shape[-1], (size, *nodes[node.args[0]].shape)
        assert node.shape[-1] == n
        p.parts[k] = [tuple(view(np.broadcast_to(a, size), node.attr) for a in part) for part in p.parts[node.args[0]]]
    if k in averages:
        return p.averages(node.attr, p.parts[node.args[0]], args[1])
    match node.op:
        case "tokens":
            return tokens
        case "input":
            return inputs[node.attr[0]].astype(F32)
        case "weight":
            return captured.weights[node.attr[0]].astype(F32)[None]
        case "constant":
            return np.array(node.attr[1], F32).reshape(1, *node.attr[0])
        case "gather":
            return args[0][0][args[1]]
        case "view":
            return view(args[0], node.attr)
        case "concat":
            return np.concatenate([np.broadcast_to(a, (size, *a.shape[1:])) for a in args], node.attr + 1)
        case "add" | "sub":
            x, y = (_aligned(a, len(node.shape)) for a in args)
            for _, other, at in ((x, y, 0), (y, x, 1)):
                inner = nodes[node.args[at]]
                if node.op == "add" and inner.op == "einsum" and p.rng.random() < 0.3:
                    return p.contract(inner.attr, *(values[a] for a in inner.args), start=other)
            return p.out(x + y if node.op == "add" else x - y)
        case "mul":
            x, y = (_aligned(a, len(node.shape)) for a in args)
            return p.out(x * y)
        case "over_root":
            root = F32(math.sqrt(node.attr))
            return p.out(args[0] * p.out(F32(1) / root) if p.rng.integers(2) else args[0] / root)
        case "power":
            y = args[0]
            for _ in range(node.attr - 1):
                y = p.out(y * args[0])
            return y
        case "relu":
            return p.out(np.maximum(args[0], F32(0)))
        case "abs":
            return p.out(np.abs(args[0]))
        case "extremum":
            return args[0].max(-1) if node.attr == "max" else args[0].min(-1)
        case "choose":
            x, y, a, b = (_aligned(a, len(node.shape)) for a in args)
            return p.out(np.where(x > y, a, b))
        case "einsum":
            return p.contract(node.attr, *args)
        case "softmax":
            return p.softmax(args[0], kept(node))
        case op if op in FUNCTIONS:
            return p.function(op, args[0])
    raise NotImplementedError(node.op)


def kept(node: Any) -> np.ndarray:
    n, mask = node.shape[-1], node.attr
    if mask == "causal":
        return np.tri(node.shape[-2], n, dtype=bool)
    if isinstance(mask, tuple):
        return np.array([[c == "1" for c in row] for row in mask])[0 if len(mask) == 1 else slice(None)]
    return np.arange(n) < mask


def _aligned(a: np.ndarray, rank: int) -> np.ndarray:
    return a.reshape(len(a), *(1,) * (rank + 1 - a.ndim), *a.shape[1:])


def _norm(p: Program, nodes: list, k: int, values: list) -> np.ndarray:
    """From the lowering: c s, c = (n I - 1) x / n, or x itself."""

    def unviewed(n: int) -> int:
        while nodes[n].op == "view":
            (n,) = nodes[n].args
        return n

    c, scale = nodes[k].args
    eps = nodes[unviewed(nodes[nodes[unviewed(scale)].args[0]].args[1])].attr[1][0]
    inner = nodes[nodes[c].args[0]] if nodes[c].args else nodes[c]
    matrix = inner.op == "einsum" and nodes[c].op in ("over_root", "mul")
    x = values[inner.args[0] if matrix else c]
    return p.norm(x, eps, matrix).reshape(len(x), *nodes[k].shape)
