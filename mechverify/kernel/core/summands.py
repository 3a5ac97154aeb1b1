"""Sums, part by part: what a matrix makes of two tokens' rows is computed once for each token, not for each pair.

Lemma C13 (docs/soundness/core.md).
"""

from math import prod

import numpy as np

from mechverify.kernel.core.graph import Graph, entries
from mechverify.kernel.core.meter import ROOM
from mechverify.kernel.core.operations import Elementwise, Node, row_of

MANY = 2**4  # parts of a value, at most
DEEP = 2**6  # operations that some entries are followed through, at most


def apart(
    graph: Graph, reads: dict[int, np.ndarray], roots: list[int]
) -> tuple[Graph, dict[int, int]]:
    """A copy of the graph to which nodes are added, and which of them equals each root. `reads` are the tokens that
    each entry of what the roots depend on is a function of, as bits. A contraction with a weight adds up products;
    where some of them read fewer tokens than others, it becomes a sum of contractions that each read few. Linear
    operations are done to the parts of such sums; what else is done, is to all together.
    Complexity: at most MANY nodes for each, and as many for each operation that entries are followed through, with as
    many indices as what it gives has entries."""
    made = _Copy(graph, reads)
    for n in graph.ancestors(roots):
        made.take(n)
    return made.new, {n: made.whole(n) for n in roots}


class _Copy:
    """`parts` are those of nodes of the given graph: nodes of the `new` one, which read what `bits` says."""

    def __init__(self, graph: Graph, reads: dict[int, np.ndarray]):
        self.graph, self.new, self.reads = graph, graph.copy(), reads
        self.bits: dict[int, int] = {}
        self.parts: dict[int, list[int]] = {}

    def take(self, n: int) -> None:
        node = self.graph.nodes[n]
        parts = self._grouped(self._parts(node), node.shape)
        if not parts:
            args = (self.whole(a) for a in node.args)
            parts = [self.new.add(node.op, *args, attr=node.attr)]
            self.bits[parts[0]] = _any(self.reads[n])
        self.parts[n] = parts

    def whole(self, n: int) -> int:
        """All parts together; first those that read early tokens, which many inputs have in common."""
        first, *others = sorted(self.parts[n], key=lambda part: self.bits[part])
        for part in others:
            first = self._add("add", first, part)
        return first

    def _add(self, op: str, *args: int, attr: object = None) -> int:
        """A node that reads what its operands do."""
        made, bits = self.new.add(op, *args, attr=attr), 0
        for a in args:
            bits |= self.bits[a]
        self.bits[made] = bits
        return made

    def _parts(self, node: Node) -> list[int]:
        """Of what sum the node is, if it is linear."""
        if node.op == "add":
            return [part for a in node.args for part in self.parts[a]]
        if node.op in ("view", "select"):
            moved = self.parts[node.args[0]]
            return [self._add(node.op, part, attr=node.attr) for part in moved]
        return self._products(node) if node.op == "einsum" else []

    def _grouped(self, parts: list[int], shape: tuple[int, ...]) -> list[int]:
        """One for all that read the same; none where that is no gain, as one of them reads all that any does."""
        groups: dict[int, int] = {}
        rest = []  # what reads nothing, or is spread over the others' entries
        for part in parts:
            bits = self.bits[part]
            if not bits or self.new.nodes[part].shape != shape:
                rest.append(part)
            elif bits in groups:
                groups[bits] = self._add("add", groups[bits], part)
            else:
                groups[bits] = part
        found = [*groups.values()]
        if not 2 <= len(found) <= MANY:
            return []
        for part in rest:
            found[0] = self._add("add", found[0], part)
        together = 0
        for part in found:
            together |= self.bits[part]
        return [] if any(self.bits[part] == together for part in found) else found

    def _products(self, node: Node) -> list[int]:
        """Of a contraction with what reads no token."""
        for own, other in ((0, 1), (1, 0)):
            first, weight = node.args[own], node.args[other]
            if _any(self.reads[weight]):
                continue
            if len(self.parts[first]) > 1:
                pairs = [(part, self.whole(weight)) for part in self.parts[first]]
            else:
                pairs = self._runs(node, own)
            order = -1 if own else 1
            return [self._add("einsum", *p[::order], attr=node.attr) for p in pairs]
        return []

    def _runs(self, node: Node, own: int) -> list[tuple[int, int]]:
        """Runs of entries of the operand `own` along a summed axis, each of which reads the same; with the weight's
        entries that multiply them. None where nothing is gained."""
        *terms, result = node.attr.replace("->", ",").split(",")
        first, weight = node.args[own], node.args[1 - own]
        bits, shape = self.reads[first], self.graph.nodes[first].shape
        for axis, letter in enumerate(terms[own]):
            if letter in result or bits.shape[axis] == 1 or prod(shape) > ROOM:
                continue
            each = _along(bits, axis)
            ends = [*(np.flatnonzero(each[1:] != each[:-1]) + 1).tolist(), len(each)]
            if len(ends) > MANY or (each == _any(bits)).any():
                continue
            found = []
            for start, end in zip([0, *ends], ends, strict=False):
                some = self._some(first, axis, slice(start, end))
                if some is None:
                    return []
                self.bits[some] = int(each[start])
                place = terms[1 - own].index(letter)
                found.append((some, self._strip(weight, place, start, end - start)))
            return found
        return []

    def _strip(self, n: int, axis: int, start: int, size: int) -> int:
        """So many of a weight's entries along an axis."""
        weight, shape = self.whole(n), self.graph.nodes[n].shape
        strides = tuple(prod(shape[i + 1 :]) for i in range(len(shape)))
        some = (*shape[:axis], size, *shape[axis + 1 :])
        return self._add("view", weight, attr=(some, start * strides[axis], strides))

    def _some(self, n: int, axis: int, run: slice) -> int | None:
        """The entries of a node in a run of places along an axis."""
        shape = self.graph.nodes[n].shape
        self.graph.meter.step(prod(shape), 5)
        whole = np.arange(prod(shape)).reshape(shape)
        return self._entries(n, whole[(slice(None),) * axis + (run,)], DEEP)

    def _entries(self, n: int, index: np.ndarray, deep: int) -> int | None:
        """The entries with these flat indices, in an array of their shape, from what they are made of; None if they
        stand in no order that a view has."""
        node = self.graph.nodes[n]
        self.graph.meter.step(index.size + prod(node.shape), 5)
        if deep and len(self.parts[n]) == 1 and _any(self.reads[n]):
            source = self._source(node, index)
            if source is not None:
                return self._entries(*source, deep - 1)
            if node.op == "gather" and len(self.graph.nodes[node.args[1]].shape) == 1:
                width = prod(node.shape[1:])
                rows = np.unique(index // width)
                if len(rows) == 1:
                    table, ids = map(self.whole, node.args)
                    one = self.new.add("select", ids, attr=(0, int(rows[0])))
                    return self._view(self.new.add("gather", table, one), index % width)
            if isinstance(row_of(node.op), Elementwise) and prod(node.shape) <= ROOM:
                found = self._elementwise(node, index, deep)
                if found is not None:
                    return found
        return self._view(self.whole(n), index)

    def _source(self, node: Node, index: np.ndarray) -> tuple[int, np.ndarray] | None:
        """Of what moves entries, the operand that these are of, and where they stand there."""
        if node.op == "view":
            return node.args[0], entries(node.attr).reshape(-1)[index]
        if node.op != "concat":
            return None
        places = [*np.unravel_index(index, node.shape)]
        start, at = 0, places[node.attr]
        for a in node.args:
            shape = self.graph.nodes[a].shape
            end = start + shape[node.attr]
            if ((start <= at) & (at < end)).all():
                places[node.attr] = at - start
                return a, np.ravel_multi_index(places, shape)
            start = end
        return None

    def _elementwise(self, node: Node, index: np.ndarray, deep: int) -> int | None:
        """Where one operand alone reads tokens."""
        pieces, varying = list[int](), 0
        for a in node.args:
            shape, varies = self.graph.nodes[a].shape, bool(_any(self.reads[a]))
            own = np.broadcast_to(np.arange(prod(shape)).reshape(shape), node.shape)
            own, varying = own.reshape(-1)[index], varying + varies
            if self.graph.nodes[a].kind != "real" or varying > 1:
                return None
            piece = self._entries(a, own, deep - 1)
            if piece is None:
                return None
            pieces.append(piece)
        return self.new.add(node.op, *pieces, attr=node.attr)

    def _view(self, node: int, index: np.ndarray) -> int | None:
        shape = index.shape
        strides = tuple(
            int((index.take(1, axis) - index.take(0, axis)).flat[0]) if size > 1 else 0
            for axis, size in enumerate(shape)
        )
        view = shape, int(index.flat[0]), strides
        if min(strides, default=0) < 0 or (entries(view) != index).any():
            return None
        same = shape == self.new.nodes[node].shape and index.flat[0] == 0
        if same and (index.reshape(-1) == np.arange(index.size)).all():
            return node
        return self.new.add("view", node, attr=view)


def _any(bits: np.ndarray) -> int:
    return int(np.bitwise_or.reduce(bits, None))


def _along(bits: np.ndarray, axis: int) -> np.ndarray:
    """Of each place along an axis."""
    others = tuple(i for i in range(bits.ndim) if i != axis)
    return np.bitwise_or.reduce(bits, others)
