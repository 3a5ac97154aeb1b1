"""What a float32 program of a captured module may add to each operation, and the graph in which it stands.

A captured graph says which real function a module denotes. A float32 program of it computes the same operations in
float32: here each of the module's nodes gets a node `rounding` behind it (operations/rounding.py), whose value is
the operation's, of what the program computed before, and a disturbance that nobody knows, of at most what `terms` says.
What follows is real arithmetic on that graph: a rule may rewrite it as any other, and no rounding is lost.

Lemma O4 (docs/soundness/options.md).
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from fractions import Fraction
from math import prod
from typing import Any, NamedTuple

import numpy as np

from mechverify.kernel.core.arithmetic import Arithmetic, Ball
from mechverify.kernel.core.claim import Claim
from mechverify.kernel.core.errors import Rejected, Unsupported
from mechverify.kernel.core.fields import Reader
from mechverify.kernel.core.float32 import EXP, FLUSH, U32
from mechverify.kernel.core.graph import Graph, entries
from mechverify.kernel.core.loading import late
from mechverify.kernel.core.meter import reserve
from mechverify.kernel.core.operations import Node
from mechverify.kernel.core.operations.weights import table
from mechverify.kernel.core.semantics import Real

LONGEST = 2**15  # terms of a sum: so far n * U32 exceeds gamma_n
LEAST_EPS = 2.0**-40  # of a normalisation
FAR = 2.0**-5  # of a norm, that it may err by
RELATIVE = {  # of the value: the axiom `torch:float32`, and for a product, a quotient and a power what they round
    "mul": 1, "over_root": 4, "sqrt": 4, "rsqrt": 4, "reciprocal": 4, "tanh": 8, "erf": 8, "sigmoid": 8, "silu": 12,
    "softplus": 16, "exp": EXP / U32,
}  # fmt: skip
OF_OPERAND = {"gelu": 8, "gelu_tanh": 12}  # units of the operand's size
EXACT = ("relu", "abs", "extremum", "ascending", "choose")  # but for what is flushed
MOVING = ("view", "concat", "gather", "tokens")
TINY = {"sqrt": 2.0**-62, "silu": 2.0**-118}  # what flushing loses, where it is more
FUSED = 2.0**-18  # axiom: of exp in a fused attention, relative; and 4 FLUSH
BLOCK = 32  # keys that a block of a fused attention has at least, but for the last

Term = tuple[float, float, Ball]  # relative, absolute, of
Aligned = Callable[[Ball], Ball]


class Programs(Real):
    """Of graphs with nodes `rounding`: inputs are judged one by one, in float64 alone."""

    axioms = ("torch:float32",)


class Module(NamedTuple):
    """Of a captured graph's rows the first `rows` are what the module computes, and the others are the claim's own;
    `norms` are the rows that are normalised vectors, before weight and bias; `scores`, `patterns` and `averages` are
    those of fused attentions."""

    rows: int
    norms: tuple[int, ...]
    scores: tuple[int, ...] = ()
    patterns: tuple[int, ...] = ()
    averages: tuple[int, ...] = ()

    @staticmethod
    def read(entry: Reader, listed: int) -> "Module":
        rows = entry["rows"].an_integer(0, listed)
        norms = entry["norms"].integers(2**12)
        fused = [()] * 3
        if "fused" in entry.value:
            fused = [part.integers(2**12) for part in entry["fused"].items(3, 3)]
        entry.close()
        if not all(0 <= n < rows for part in (norms, *fused) for n in part):
            raise Rejected(
                f"{entry.where}: a normalised vector, or what attention computes, is none of the module's rows"
            )
        return Module(rows, tuple(norms), *map(tuple, fused))


def terms(
    ar: Arithmetic, attr: tuple, raw: Ball, rest: list[Ball], align: Aligned
) -> Iterator[Term]:
    """By how much a program's value may differ from the operation's of its operands: the sum of relative * size of a
    ball + absolute. `raw` holds the operation's value, `rest` are the operands; `align` makes these broadcast."""
    op, inner, extra, _ = attr
    if op in EXACT:
        yield 0.0, 2 * FLUSH, raw
    elif op in ("input", "constant", "weight"):
        yield U32, FLUSH, raw
    elif op in ("add", "sub"):
        sizes = [align(x).size for x in rest]
        yield U32, 3 * FLUSH, ar.add(*sizes)
        for n, other in zip(extra, sizes[::-1], strict=True):
            if n:  # which may start that sum
                yield (n + 1) * U32, 3 * FLUSH, other
    elif op == "power":
        yield (2 if inner == 2 else 2 * inner + 8) * U32, 4 * inner * FLUSH, raw
        yield 4 * FLUSH, 0.0, rest[0]
    elif op in OF_OPERAND:
        yield OF_OPERAND[op] * U32, 4 * FLUSH, rest[0]
    elif op == "einsum":
        yield from _contracted(ar, inner, extra, rest)
    elif op == "softmax":
        yield _share(raw, *extra)
    elif op == "norm":
        yield from _normalised(ar, extra, raw, rest[0], align(rest[1]))
    else:
        yield RELATIVE[op] * U32, TINY.get(op, 4 * FLUSH), raw
        if op == "mul":
            yield 2 * FLUSH, 0.0, ar.add(*(align(x).size for x in rest))
        elif op in ("rsqrt", "reciprocal"):  # of an operand that is flushed
            yield 4 * FLUSH, 0.0, ar.mul(raw.size, ar.mul(raw.size, raw.size))
            yield 4 * FLUSH, 0.0, ar.mul(raw.size, raw.size)


def _share(p: Ball, n: int, blocks: int) -> Term:
    """Of a softmax of n entries, taken at once or, in a fused attention, in so many blocks."""
    exp = blocks * FUSED if blocks else EXP
    return 2.5 * exp + 2 * (n + 8) * U32, U32 / 2 + 8 * (n + 2) * FLUSH, p


def _contracted(
    ar: Arithmetic, spec: str, extra: tuple, rest: list[Ball]
) -> Iterator[Term]:
    """n products and their sum, in any order. An operand that is a softmax is read before it errs."""
    (n, lost, *of), sizes = extra, [x.size for x in rest]
    errors = [
        ar.widen(_nothing(x), *_share(x, *m)[:2], of=x).size if m else None
        for x, m in zip(sizes, of, strict=True)
    ]
    sizes = [
        x if e is None else ar.add(x, e).size
        for x, e in zip(sizes, errors, strict=True)
    ]
    more = [ar.widen(_nothing(x), 1.0, 1.0, of=x).size for x in sizes]
    yield (n + 1) * U32, 0.0, ar.contract(spec, *sizes)
    yield lost, 0.0, ar.contract(spec, *more)
    for k, error in enumerate(errors):
        if error is not None:
            yield (
                1.0,
                0.0,
                ar.contract(
                    spec, *(error if i == k else x for i, x in enumerate(sizes))
                ),
            )


def _normalised(
    ar: Arithmetic, n: int, y: Ball, x: Ball, scale: Ball
) -> Iterator[Term]:
    """y = c scale, c being x or x less its mean, and scale 1 / sqrt(mean of c^2 + eps)."""
    size = x.size
    squares = ar.sum(ar.mul(size, size)).at[..., None]
    share = ar.rational(Fraction(1, n))
    norm = ar.sqrt(
        ar.add(ar.mul(squares, share), ar.rational(Fraction(FLUSH)))
    ).size  # root of the mean square
    largest = size.map(lambda a: ar.xp.amax(a, -1)[..., None])
    off = ar.mul(
        ar.widen(_nothing(norm), 2 * (n + 8) * U32, 16 * FLUSH, of=norm).size,
        scale.size,
    ).size
    own = ar.mul(
        ar.widen(
            ar.widen(_nothing(norm), n * U32, of=norm), 8 * U32, 16 * FLUSH, of=largest
        ).size,
        scale.size,
    )
    if not bool((ar.upper(off) < ar.units(FAR, off.exponent)).all()):
        raise Unsupported(
            "a float32 normalisation of a vector that may be nearly constant: nothing bounds its error"
        )
    yield 0.0, 0.0, squares  # which may overflow
    yield 1 + 2 * FAR, 0.0, own
    yield 1 + 2 * FAR, 0.0, ar.mul(off, y.size)
    yield (n + 16) * U32, 4 * FLUSH, y


def _nothing(x: Ball) -> Ball:
    return x._replace(mid=0 * x.mid).point


def program(claim: Any) -> Any:
    """The claim about every float32 program of its module, as one about real values: of a graph with disturbances. The
    module's rows are computed as the program computes them; the claim's own rows read these, and are exact."""
    if "module" not in claim.stated["graph"]:
        raise Rejected(
            "semantics float32 needs to know which rows of the graph are the module's: `module`"
        )
    graph = claim.graph.copy()
    build = _Build(graph, claim)
    sites = build.sites()
    output = sites[claim.site]
    if claim.position is not None:
        output = graph.select(output, 0, claim.position)
    changed: dict[str, Any] = {
        name: tuple(sites[site] for site in claim.stated[name])
        for name in ("where", "cases")
        if name in claim.stated
    }
    changed |= {"semantics": "real", "graph": graph, "sites": sites, "output": output}
    if claim.kind == "share":
        return late("core.forms").ShareOfPrograms(**vars(claim) | changed)
    return replace(claim, **changed)


class _Build:
    """Nodes of a graph for a document's rows, those of the module disturbed."""

    def __init__(self, graph: Graph, claim: Claim):
        stated = claim.stated["graph"]
        self.graph, self.claim, self.old, self.stated = (
            graph,
            claim,
            graph.listed,
            stated,
        )
        self.module = Module.read(Reader(stated["module"], "module"), len(self.old))
        given = stated.get("compared", {}).get("dtype")
        if given != "torch.float32":
            raise Rejected(
                f"semantics float32 speaks of modules that compute in torch.float32; this one is {given}"
            )
        self.raw: list[int] = []  # of each row the operation alone, and
        self.new: list[int] = []  # what the program computes
        for k, row in enumerate(stated["nodes"]):
            node, args = graph.nodes[self.old[k]], row[1]
            if k < self.module.rows:
                self._module_row(k, node, args)
            else:
                self.raw.append(self._own_row(node, args))
                self.new.append(self.raw[k])
        graph.listed = self.new

    def sites(self) -> dict[str, int]:
        return {name: self._exact(k) for name, k in self.stated["sites"]}

    def _exact(self, k: int) -> int:
        """What a claim reads of a row: an input is the user's, and a number is the one that the file holds."""
        leaf = self.graph.nodes[self.raw[k]].op in ("input", "constant", "weight")
        return self.raw[k] if leaf else self.new[k]

    def _own_row(self, node: Node, args: list[int]) -> int:
        """A node of the row's value. Of a maximum and a minimum, which claims write by relu, the one whose ball isn't
        wider than its operands' (of a box, shares are told by the others)."""
        operands, nodes = [*map(self._exact, args)], self.graph.nodes
        if node.shape == () and not self.claim.shapes and node.op in ("add", "sub"):
            for own, rest in (operands, operands[::-1])[: 2 if node.op == "add" else 1]:
                if nodes[rest].op == "relu" and nodes[nodes[rest].args[0]].op == "sub":
                    pair = nodes[nodes[rest].args[0]].args
                    if own == pair[node.op == "add"]:
                        rows = [
                            self.graph.add("view", n, attr=((1,), 0, (0,)))
                            for n in pair
                        ]
                        which = "max" if node.op == "add" else "min"
                        return self.graph.add(
                            "extremum",
                            self.graph.add("concat", *rows, attr=0),
                            attr=which,
                        )
        return self.graph.add(node.op, *operands, attr=node.attr)

    def _module_row(self, k: int, node: Node, args: list[int]) -> None:
        operands = [self.new[a] for a in args]
        for rows, op in zip(
            self.module[2:], ("einsum", "softmax", "einsum"), strict=True
        ):
            if k in rows and node.op != op:
                raise Rejected(
                    "a row that the file calls one of a fused attention is none"
                )
        if k in self.module.norms:
            self._norm(k)
        elif node.op == "choose":  # which one is chosen may depend on what is flushed
            operands[0] = self._behind(operands[0], (node.op, None, None, k))
            self._add(k, node, operands, None)
        elif node.op in MOVING or node.kind != "real":
            self.raw.append(self.graph.add(node.op, *operands, attr=node.attr))
            self.new.append(self.raw[k])
        elif node.op in ("weight", "constant") and _is_float32(
            table(self.claim.weights, node)
        ):
            self.raw.append(self.old[k])
            self.new.append(self.old[k])
        elif node.op == "weight" and not _folded(node):
            raise Rejected(
                f"semantics float32 speaks of float32 weights; {node.attr[0]} holds other numbers"
            )
        elif node.op == "einsum":
            shares = [self._bare(a) for a in args]
            first = [
                self.raw[a] if m else self.new[a]
                for a, m in zip(args, shares, strict=True)
            ]
            sums = self._summed(k, _terms(self.graph, node.attr, first))
            self._add(k, node, first, (*sums, *shares))
        else:
            self._add(k, node, operands, self._extra(k, node, operands))

    def _add(self, k: int, node: Node, operands: list[int], extra: Any) -> None:
        self.raw.append(self.graph.add(node.op, *operands, attr=node.attr))
        inner = node.attr if node.op in ("einsum", "power") else None
        self.new.append(self._behind(self.raw[k], (node.op, inner, extra, k), operands))

    def _behind(self, raw: int, attr: tuple, operands: list[int] | None = None) -> int:
        """What a program makes of `raw`. The row's number is in `attr`: rows that compute the same may round it
        otherwise."""
        if attr[0] not in ROWS:
            raise Unsupported(
                f"semantics float32 has no row for {attr[0]!r}: what a program of it adds is not known"
            )
        return self.graph.add("rounding", raw, *(operands or []), attr=attr)

    def _extra(self, k: int, node: Node, operands: list[int]) -> Any:
        if node.op in ("add", "sub"):
            return tuple(self._sums(a) for a in operands)
        if node.op == "softmax":
            n = _limited(node.shape[-1])
            return n, n // BLOCK + 1 if k in self.module.patterns else 0
        return None

    def _summed(self, k: int, n: int) -> tuple[int, float]:
        """Roundings of a contraction of n products, and what flushing loses of each. In a fused attention factors may
        be scaled before, each twice; and averages are rescaled from block to block, and divided by a sum."""
        if k in self.module.averages:
            return _limited(3 * n + 8), 4 * FLUSH
        return (
            (_limited(n + 5), 2.0**22 * FLUSH)
            if k in self.module.scores
            else (n, 4 * FLUSH)
        )

    def _bare(self, k: int) -> tuple[int, int] | None:
        """What is known of the softmax that a row is."""
        node = self.graph.nodes[self.raw[k]]
        return (
            self._extra(k, node, [])
            if node.op == "softmax" and k < self.module.rows
            else None
        )

    def _sums(self, n: int) -> int:
        """How many products a value adds up that the program may still be adding up when it adds another one."""
        node = self.graph.nodes[n]
        while node.op in ("view", "rounding"):
            node = self.graph.nodes[node.args[0]]
        return (
            _terms(self.graph, node.attr, list(node.args)) if node.op == "einsum" else 0
        )

    def _row_under(self, k: int, node: int) -> int:
        """The row that is `node` of those that row k is made of; two may round it otherwise."""
        seen, todo, found = set(), [k], set()
        while todo:
            row = todo.pop()
            if self.old[row] == node:
                found.add(row)
            elif row not in seen:
                seen.add(row)
                todo += self.stated["nodes"][row][1]
        self.graph.meter.step(len(seen), 1)
        if len(found) != 1:
            raise Rejected(
                "two rows of the module compute what a normalised vector is made of, and may round it otherwise"
            )
        return found.pop()

    def _norm(self, k: int) -> None:
        """The whole of a normalisation is one operation, of what the program computed before it."""
        source, n, scale = normalised(self.graph, self.claim.weights, self.old[k])
        known = {source: self.new[self._row_under(k, source)]}

        def exact(m: int) -> int:
            if m not in known:
                node = self.graph.nodes[m]
                known[m] = self.graph.add(
                    node.op, *map(exact, node.args), attr=node.attr
                )
            return known[m]

        self.raw.append(exact(self.old[k]))
        self.new.append(
            self._behind(
                self.raw[k],
                ("norm", None, _limited(n), k),
                [known[source], known[scale]],
            )
        )


def normalised(
    graph: Graph, weights: dict[str, np.ndarray], root: int
) -> tuple[int, int, int]:
    """If a node is x / sqrt(mean of x^2 + eps), or that of x less its mean, over the last axis: the node x, its entries
    along that axis, and the node that multiplies. Rejects what isn't."""
    nodes = graph.nodes

    def need(condition: bool) -> None:
        if not condition:
            raise Rejected("a row that the file calls a normalised vector is none")

    def under(n: int) -> int:
        while nodes[n].op == "view":
            (n,) = nodes[n].args
        return n

    def number(n: int) -> float:
        node = nodes[under(n)]
        need(node.op == "constant" and prod(node.attr[0]) == 1)
        return node.attr[1][0]

    def mean(n: int, size: int) -> int:
        """Of what node n is the mean, if the sum is divided by `size`."""
        if nodes[n].op == "over_root":
            need(nodes[n].attr == size * size)
        else:
            need(nodes[n].op == "mul" and number(nodes[n].args[1]) * size == 1)
        return nodes[n].args[0]

    def spec(n: int) -> tuple[str, str, str]:
        need(nodes[n].op == "einsum")
        match = re.fullmatch("([a-z]*),([a-z]*)->([a-z]*)", nodes[n].attr)
        assert match is not None
        return match[1], match[2], match[3]

    def broadcast(smaller: tuple[int, ...]) -> tuple[int, ...]:
        return (1,) * (len(shape) - len(smaller)) + smaller

    need(nodes[root].op == "mul")
    c, scale = nodes[root].args
    shape = nodes[c].shape
    need(len(shape) > 0)
    n = shape[-1]
    reserve(n, n)
    need(
        nodes[root].shape == shape and broadcast(nodes[scale].shape) == (*shape[:-1], 1)
    )
    root_of = under(scale)
    need(nodes[root_of].op == "rsqrt" and _in_order(graph, scale))
    total, eps = (
        nodes[nodes[root_of].args[0]].args
        if nodes[nodes[root_of].args[0]].op == "add"
        else (root, root)
    )
    need(number(eps) >= LEAST_EPS)
    summed = mean(total, n)
    first, second, result = spec(summed)
    square, ones = nodes[summed].args
    need(nodes[square][:3] == ("power", (c,), 2) and nodes[square].shape == shape)
    need(second == first[-1:] and result == first[:-1] and number(ones) == 1)
    if (
        nodes[c].op not in ("over_root", "mul")
        or nodes[nodes[c].args[0]].op != "einsum"
    ):
        return c, n, scale
    x, matrix = nodes[nodes[c].args[0]].args
    if not _folded(nodes[matrix]) or not np.array_equal(
        table(weights, nodes[matrix]), n * np.eye(n) - 1
    ):
        return c, n, scale
    first, second, result = spec(mean(c, n))
    need(
        first[-1:] in second
        and result[:-1] == first[:-1]
        and {first[-1], result[-1]} == {*second}
    )
    return x, n, scale


def _folded(node: Node) -> bool:
    """A constant of the module's program: small ones stand in the graph, others beside the weights."""
    return node.op == "constant" or (
        node.op == "weight" and node.attr[0].startswith("constant.")
    )


def _in_order(graph: Graph, n: int) -> bool:
    """A view keeps all entries, in their order."""
    node = graph.nodes[n]
    if node.op != "view":
        return True
    size = prod(graph.nodes[node.args[0]].shape)
    reserve(size)
    return np.array_equal(entries(node.attr).ravel(), np.arange(size)) and _in_order(
        graph, node.args[0]
    )


def _terms(graph: Graph, spec: str, operands: list[int]) -> int:
    """How many products each entry of a contraction adds up."""
    einsum = Node("einsum", tuple(operands), spec, "real", ())
    first, second, result = spec.replace("->", ",").split(",")
    sizes = zip(
        first + second,
        sum((graph.nodes[a].shape for a in einsum.args), ()),
        strict=True,
    )
    return _limited(
        prod({letter: size for letter, size in sizes if letter not in result}.values())
    )


def _limited(n: int) -> int:
    if n > LONGEST - 2:
        raise Rejected(f"a float32 sum of {n} terms is too long to bound (limit 2^15)")
    return n


def _is_float32(a: np.ndarray) -> bool:
    with np.errstate(over="ignore"):
        return np.array_equal(a.astype(np.float32).astype(np.float64), a)


ROWS = {
    *EXACT,
    *RELATIVE,
    *OF_OPERAND,
    "input",
    "constant",
    "weight",
    "add",
    "sub",
    "power",
    "einsum",
    "softmax",
    "norm",
}
