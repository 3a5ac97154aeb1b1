"""The values of many inputs, each computed once for all inputs that agree in the tokens it is a function of.

At a position of a causal model these are the tokens up to it: the inputs form a tree over prefixes, and most values are
needed once a prefix. Nothing here knows of positions or order: what a value reads follows from the operations alone.

Lemma C13 (docs/soundness/core.md).
"""

from collections.abc import Callable, Sequence
from functools import reduce
from itertools import chain
from math import prod
from typing import Any, NamedTuple, TypeVar

import numpy as np

from mechverify.kernel.core.arithmetic import Arithmetic, Ball
from mechverify.kernel.core.claim import Job
from mechverify.kernel.core.cores import mapped
from mechverify.kernel.core.evaluate import Evaluation
from mechverify.kernel.core.graph import MOST, Graph, entries
from mechverify.kernel.core.meter import ROOM
from mechverify.kernel.core.operations import Elementwise, Node, row_of
from mechverify.kernel.core.operations.softmax import kept
from mechverify.kernel.core.semantics import Real
from mechverify.kernel.core.summands import apart

LAST = 61  # the bit of this position, and of all that follow it
EVERYTHING = 2 ** (LAST + 1) - 1
ZERO = 2 ** (LAST + 1)  # of an entry that is zero whatever the tokens
PARTIAL = ("log", "sqrt", "rsqrt", "reciprocal")  # not defined everywhere
SPREAD = 2**12  # nodes of a graph whose slices stand alone, at most
ALIKE = 4  # slices along an axis, for each kind of what they read, at most

SPLIT, FEW = 4, 2**12  # parts of as many inputs at least
PIECE = ROOM  # numbers of values that are held at a time, about, by each core

T = TypeVar("T")
Part = tuple[int, int, int]  # a node's slice along an axis, at an index


class Kept(NamedTuple):
    """Values of nodes that read only positions at which all inputs had the token that `tokens` [length] has there."""

    semantics: Real
    tokens: np.ndarray
    values: dict[int, Any]


class Prefixes:
    """A graph of equal values in which slices that read different tokens are nodes of their own, and what each node
    reads. `roots[n]` is the node that equals node n of the given graph; `kept` is what the last inputs had in common.
    `partial[root]`: what a root needs and isn't defined everywhere; where it isn't, no more is the root, though it
    multiply that by zero.
    """

    def __init__(self, graph: Graph, roots: list[int]):
        self.kept: Kept | None = None
        self.graph, self.roots, reads = taken_apart(graph, roots)
        slices = sum(max(reads[n].shape, default=1) for n in reads)
        if slices < min(SPREAD, MOST - len(self.graph.nodes)):
            self.graph, new = spread(self.graph, reads)
            self.roots = {n: new[same] for n, same in self.roots.items()}
            reads = reading(self.graph, [*self.roots.values()])
        self.reads = {n: _all(bits) for n, bits in reads.items()}
        self.order = [*self.reads]
        self.args = {n: self.graph.nodes[n].args for n in self.order}
        partial = {n for n in self.order if self.graph.nodes[n].op in PARTIAL}
        self.partial = {
            n: partial.intersection(self.graph.ancestors([n]))
            for n in self.roots.values()
        }

    def among(
        self, values: dict[int, Any], tokens: np.ndarray, inputs: np.ndarray
    ) -> dict[int, Any]:
        """Those of nodes that read only positions at which all `inputs` [number, length] have these tokens."""
        changing = _changing(tokens, inputs)
        return {n: v for n, v in values.items() if not self.reads[n] & changing}

    def common(
        self, weights: dict[str, np.ndarray], semantics: Real, inputs: np.ndarray
    ) -> dict[int, Any]:
        """The values of all nodes that read only positions at which these inputs have one token. They are kept for the
        inputs that follow."""
        one, kept, known = inputs[:1], self.kept, {}
        if kept is not None and kept.semantics is semantics:
            known = self.among(kept.values, kept.tokens, one)
        changing = _changing(one[0], inputs)
        alike = [n for n in self.order if not self.reads[n] & changing]
        values = Shared(self, weights, semantics, one, known).of(alike)
        self.kept = Kept(semantics, one[0], values)
        return values


def _changing(tokens: np.ndarray, inputs: np.ndarray) -> int:
    """The positions at which an input has another token than these, as bits."""
    differ = np.flatnonzero((inputs != tokens).any(0)).tolist()
    return reduce(int.__or__, map(_bit, differ), 0)


def reading(graph: Graph, roots: list[int]) -> dict[int, np.ndarray]:
    """Of `roots` and what they depend on, the positions that each entry is a function of, as bits: int64 of the node's
    shape, but of size one along axes that make no difference. ZERO: it is zero."""
    found: dict[int, np.ndarray] = {}
    for n in graph.ancestors(roots):
        node = graph.nodes[n]
        args = [found[a] for a in node.args]
        bits = np.asarray(_read(graph, node, args))
        graph.meter.step(bits.size, 5)
        found[n] = _narrow(bits)
    return found


def taken_apart(
    graph: Graph, roots: list[int]
) -> tuple[Graph, dict[int, int], dict[int, np.ndarray]]:
    """A graph of equal values in which sums are (summands.py), the node in it that equals each root, and its reading;
    the same graph where it is large."""
    reads = reading(graph, roots)
    if len(reads) >= SPREAD:
        return graph, {n: n for n in roots}, reads
    tokens = {n: bits & ~ZERO for n, bits in reads.items()}
    made, same = apart(graph, tokens, roots)
    return made, same, reading(made, [*same.values()])


def positions(graph: Graph, roots: Sequence[int]) -> list[bool]:
    """Of each, whether the roots are a function of its token."""
    reads = reading(graph, [*roots])
    every = reduce(int.__or__, (_all(reads[n]) for n in roots), 0)
    return [bool(every & _bit(i)) for i in range(graph.length)]


def _read(graph: Graph, node: Node, args: list[np.ndarray]) -> np.ndarray:
    """A superset of what the entries are a function of, for every operation: the union over all operands, unless the
    operation is known to do with less."""
    if node.op == "tokens":
        return np.array([_bit(i) for i in range(graph.length)], np.int64)
    if node.op == "value":
        return np.array(_bit(node.attr), np.int64)
    if node.op in ("weight", "constant", "pi", "integer"):
        return np.zeros((1,) * len(node.shape), np.int64)
    if node.op == "view":
        whole = np.broadcast_to(args[0], graph.nodes[node.args[0]].shape)
        return whole.reshape(-1)[entries(node.attr)]
    if node.op == "select":
        axis, index = node.attr
        return np.take(args[0], index if args[0].shape[axis] > 1 else 0, axis)
    if node.op == "concat":
        shapes = [graph.nodes[a].shape for a in node.args]
        whole = [np.broadcast_to(a, s) for a, s in zip(args, shapes, strict=True)]
        return np.concatenate(whole, node.attr)
    if node.op == "einsum":
        return _contracted(graph, node, *args)
    known = [np.asarray(a & ~ZERO) for a in args]
    if node.op == "softmax":
        keep = kept(node)
        row = np.bitwise_or.reduce(np.where(keep, known[0], 0), -1, keepdims=True)
        return np.where(keep, row, ZERO)
    if node.op in ("extremum", "ascending"):
        whole = np.bitwise_or.reduce(known[0], -1, keepdims=True)
        return whole[..., 0] if node.op == "extremum" else whole
    if node.op == "gather":
        ids = known[1]
        return ids.reshape((*ids.shape, *(1,) * (len(node.shape) - ids.ndim)))
    if isinstance(row_of(node.op), Elementwise) and args:
        return reduce(np.bitwise_or, known)
    together = reduce(np.bitwise_or, map(_all, args)) if args else EVERYTHING
    return np.full((1,) * len(node.shape), together, np.int64)


def _contracted(
    graph: Graph, node: Node, first: np.ndarray, second: np.ndarray
) -> np.ndarray:
    """A product with a factor that is always zero reads nothing."""
    *terms, result = node.attr.replace("->", ",").split(",")
    letters = [*result, *(c for c in terms[0] if c not in result)]
    a, b = (
        bits.transpose([term.index(c) for c in letters if c in term]).reshape(
            [bits.shape[term.index(c)] if c in term else 1 for c in letters]
        )
        for bits, term in zip((first, second), terms, strict=True)
    )
    size = prod(np.broadcast_shapes(a.shape, b.shape))
    if size > ROOM:
        return np.full((1,) * len(node.shape), _all(first) | _all(second), np.int64)
    graph.meter.step(size, 5)
    products = np.where((a == ZERO) | (b == ZERO), 0, (a | b) & ~ZERO)
    return np.bitwise_or.reduce(products, tuple(range(len(result), len(letters))))


def spread(graph: Graph, reads: dict[int, np.ndarray]) -> tuple[Graph, dict[int, int]]:
    """A copy of the graph to which, for each node, one of equal value is added, and which that is. What reads different
    tokens along an axis is put together from its slices, each of which computes only what it needs."""
    new, whole, parts = graph.copy(), {}, {}

    def plain(n: int) -> int:
        node = graph.nodes[n]
        return new.add(node.op, *(whole[a] for a in node.args), attr=node.attr)

    def slice_of(part: Part) -> tuple[str, list, Any]:
        """Where it makes no difference, or the operation has no better, a slice of the whole value."""
        n, axis, index = part
        if reads[n].shape[axis] > 1:
            return row_of(graph.nodes[n].op).slice(graph, n, axis, index)
        return "select", [n], (axis, index)

    def part_of(root: Part) -> int:
        needed, todo = {}, [root]
        while todo:
            part = todo.pop()
            if part not in parts and part not in needed:
                needed[part] = slice_of(part)
                todo += [o for o in needed[part][1] if type(o) is tuple]
        for part in sorted(needed):  # a slice needs slices of earlier nodes alone
            op, operands, attr = needed[part]
            built = [
                parts[o] if type(o) is tuple else whole[o] if o in whole else plain(o)
                for o in operands
            ]
            parts[part] = new.add(op, *built, attr=attr)
        return parts[root]

    for n in reads:
        if graph.slices.get(n) in parts:
            whole[n] = parts[graph.slices[n]]
            continue
        node, axis = graph.nodes[n], _axis(reads[n])
        if node.kind != "real" or axis is None or slice_of((n, axis, 0))[1] == [n]:
            whole[n] = plain(n)
            continue
        shape = (*node.shape[:axis], 1, *node.shape[axis + 1 :])
        strides = tuple(prod(shape[i + 1 :]) for i in range(len(shape)))
        stack = [part_of((n, axis, i)) for i in range(node.shape[axis])]
        stack = [new.add("view", part, attr=(shape, 0, strides)) for part in stack]
        whole[n] = new.add("concat", *stack, attr=axis)
    return new, whole


def sharing(job: Job) -> Prefixes:
    """Of what the job's claim judges by."""
    return Prefixes(job.claim.graph, job.claim.judged)


def shared(
    prefixes: Prefixes,
    weights: dict[str, np.ndarray],
    semantics: Real,
    inputs: np.ndarray,
    work: Callable[["Shared"], T],
) -> list[T]:
    """What `work` makes of the values of as many inputs at a time as bounded memory allows, in their order. On all
    cores: which inputs are taken together doesn't depend on how many there are."""
    common = prefixes.common(weights, semantics, inputs)

    def of(ar: Arithmetic, some: np.ndarray) -> list[T]:
        done, todo = [], [some]
        while todo:
            model = type(semantics)(ar)
            values = Shared(prefixes, weights, model, todo.pop(), common)
            pieces = values.pieces()
            todo += pieces[::-1] if len(pieces) > 1 else []
            done += [work(values)] if len(pieces) == 1 else []
        return done

    whole = Shared(prefixes, weights, semantics, inputs, common)
    least = min(SPLIT, len(inputs) // FEW)  # so that there is work for several cores
    return [*chain(*mapped(semantics.ar, of, whole.pieces(least)))]


class Shared(Evaluation):
    """Values of `roots` on inputs [number, length]. A node is evaluated on the first of the inputs that agree in what
    it reads, on those alone that another node, or a root, asks for, and, of partial nodes, on all: `rows[node]`,
    ascending. `common`: values that are known already, of nodes that read only tokens which all inputs have in common.
    `numbers`: of the others, the most that are held at a time."""

    def __init__(
        self,
        prefixes: Prefixes,
        weights: dict[str, np.ndarray],
        semantics: Real,
        inputs: np.ndarray,
        common: dict[int, Any] | None = None,
    ):
        super().__init__(
            prefixes.graph, weights, semantics, inputs, lambda j: self.tokens[:, j]
        )
        self.prefixes, self.rows, number = prefixes, {}, len(inputs)
        self.known = common or {}
        self.values, self.seen = dict(self.known), {*self.known}
        self._first: dict[int, np.ndarray] = {}
        nodes = prefixes.order
        self.semantics.ar.step(len(nodes) * number, 2 * len(nodes), 1)
        everywhere = set(prefixes.partial).union(*prefixes.partial.values())
        asked = {n: [np.arange(number)] for n in everywhere}
        for n in reversed(nodes):
            first = self._agreeing(prefixes.reads[n], inputs)
            wanted = np.zeros(number, bool)
            for rows in asked.pop(n):
                wanted[first[rows]] = True
            self.rows[n] = np.flatnonzero(wanted)
            for a in self.graph.nodes[n].args:
                asked.setdefault(a, []).append(self.rows[n])
        self.numbers = self._peak()

    def pieces(self, least: int = 1) -> list[np.ndarray]:
        """The inputs, as many together as memory allows, in so many parts at least."""
        pieces = min(len(self.tokens), -(-self.numbers // PIECE))
        return np.array_split(self.tokens, max(1, least, pieces))

    def __getitem__(self, node: int) -> Any:
        """As of an Evaluation, of a root."""
        root = self.prefixes.roots[node]
        if root not in self.values or not self.prefixes.partial[root] <= self.seen:
            self.values = self.of([*self.prefixes.roots.values()])
        return self._at(root, np.arange(len(self.tokens)))

    def of(self, wanted: list[int]) -> dict[int, Any]:
        """The values of these nodes on their `rows`. No other is held for longer than it is needed."""
        inputs, values, args = self.tokens, self.values, self.prefixes.args
        for n, last in self._schedule(wanted):
            rows = self.rows[n]
            args_of = [self._at(a, rows) for a in args[n]]
            self.tokens = inputs[rows]
            try:
                value = self._compute(self.graph.nodes[n], args_of)
            finally:
                self.tokens = inputs  # who catches an error may ask for another root
            known = isinstance(value, Ball)
            values[n] = self.semantics.ar.trim(value) if known else value
            self.seen.add(n)
            for a in last:
                self.held -= self._size(a)
                del values[a]
        return {n: values[n] for n in wanted}

    def _schedule(self, wanted: list[int]) -> list[tuple[int, set[int]]]:
        """What has to be computed for these nodes, and to see that they are defined, in order, each with what isn't
        needed after it."""
        args, needed, ends = self.prefixes.args, set(wanted), []
        asked = set().union(*(self.prefixes.partial.get(n, ()) for n in wanted))
        asked -= self.seen
        for n in reversed(self.prefixes.order):
            if (n in needed or n in asked) and n not in self.values:
                ends.append((n, {n, *args[n]} - needed))
                needed.update(args[n])
        return ends[::-1]

    def _peak(self) -> int:
        """How many numbers are held at a time, at most, on the way to the roots."""
        held = peak = 0
        for n, last in self._schedule([*self.prefixes.roots.values()]):
            held += self._size(n)
            peak = max(peak, held)
            held -= sum(map(self._size, last))
        return peak

    def _size(self, n: int) -> int:
        """Of a node's value; none of one that was known."""
        known = n in self.known
        return 0 if known else len(self.rows[n]) * prod(self.graph.nodes[n].shape)

    def _agreeing(self, bits: int, inputs: np.ndarray) -> np.ndarray:
        """Of each input, the first that has the same tokens at those positions."""
        if bits not in self._first:
            number = len(inputs)
            self.semantics.ar.step(inputs.size, inputs.shape[1])
            group = np.zeros(number, np.int64)
            for position in range(inputs.shape[1]):
                if bits & _bit(position):
                    ids = inputs[:, position]
                    pairs = group * (int(ids.max()) + 1) + ids
                    group = np.unique(pairs, return_inverse=True)[1].reshape(-1)
            _, first = np.unique(group, return_index=True)
            self._first[bits] = first[group]
        return self._first[bits]

    def _at(self, node: int, rows: np.ndarray) -> Any:
        """The value of a node on these inputs: that of the inputs that agree with them."""
        self.semantics.ar.step(len(rows) * prod(self.graph.nodes[node].shape), 2, 1)
        first = self._first[self.prefixes.reads[node]][rows]
        at = np.searchsorted(self.rows[node], first)
        if np.array_equal(at, np.arange(len(self.rows[node]))):
            return self.values[node]

        def taken(a: np.ndarray) -> np.ndarray:
            return a if a.ndim == 0 or len(a) == 1 else a[at]

        value = self.values[node]
        return value.map(taken) if isinstance(value, Ball) else taken(value)


def _axis(bits: np.ndarray) -> int | None:
    """Along which entries differ most in what they read, where that is not the same of many in a row."""

    def differing(axis: int) -> int:
        others = tuple(i for i in range(bits.ndim) if i != axis)
        return len(np.unique(np.bitwise_or.reduce(bits & ~ZERO, others)))

    axes = [
        axis
        for axis, size in enumerate(bits.shape)
        if 1 < size <= ALIKE * differing(axis)
    ]
    return max(axes, key=differing, default=None)


def _narrow(bits: np.ndarray) -> np.ndarray:
    """Of size one along the axes that make no difference."""
    for axis in range(bits.ndim):
        one = bits.take([0], axis)
        if bits.shape[axis] > 1 and (bits == one).all():
            bits = one
    return bits


def _all(bits: np.ndarray) -> int:
    return int(np.bitwise_or.reduce(bits & ~ZERO, None))


def _bit(position: int) -> int:
    return 1 << min(position, LAST)
