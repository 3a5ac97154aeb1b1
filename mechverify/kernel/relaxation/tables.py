"""Dependency tables: exact ranges of values that depend on one or two tokens, such as attention scores.

Rows of tokens (a + p b) mod m at position p, for all a and b below a prime m: at any two positions every pair of tokens
stands in some row, so one evaluation of m^2 inputs tabulates every entry that depends on two tokens at most.

Lemma L10 (docs/soundness/relaxation.md).
"""

import math
from typing import NamedTuple

import numpy as np

from mechverify.kernel.core.arithmetic import Arithmetic
from mechverify.kernel.core.evaluate import Evaluation, batch_size
from mechverify.kernel.core.graph import Graph
from mechverify.kernel.core.meter import ROOM
from mechverify.kernel.core.semantics import Real
from mechverify.kernel.relaxation.operations import row_of

MOST = 2**25  # numbers computed for a table


class Table(NamedTuple):
    """Of a node: bounds [rows, entries] of its value on each row of tokens, and which positions each entry depends on,
    booleans [entries, length]."""

    low: np.ndarray
    high: np.ndarray
    reads: np.ndarray


class Tables:
    """`where`: nodes that are not negative on any input in question. Postcondition: `of[n]` for every node of `wanted`
    whose entries depend on two tokens at most and on nothing else (and cost MOST numbers at most).
    Complexity: m^2 evaluations, m the least prime that vocabulary and length allow."""

    def __init__(self, graph: Graph, weights: dict, model: Real, wanted: list[int], where: tuple[int, ...] = ()):
        self.length, size = graph.length, len(graph.values)
        m = _prime(max(size, self.length))
        self.of: dict[int, Table] = {}
        self.barred: list[tuple[np.ndarray, np.ndarray]] = []  # rows that break a condition on the tokens it reads
        if m * m * self.length > ROOM:
            return
        a, b = np.divmod(np.arange(0, m * m, 1 if self.length > 1 else m), m)  # one position: m rows
        self.rows = (a[:, None] + b[:, None] * np.arange(self.length)) % m
        self.rows = self.rows[(self.rows < size).any(1)]
        self.known = self.rows < size  # others stand for no token
        reads = _reads(graph, wanted, model.ar)
        reads = {n: r for n, r in reads.items() if r is not None and r.any() and r.sum(-1).max() <= 2}
        small = [n for n in wanted if n in reads and len(self.rows) * _cost(graph, n, model.ar) <= MOST]
        inputs, parts = np.where(self.known, self.rows, 0), {n: [] for n in small}
        step = batch_size(graph, small) if small else 1
        for start in range(0, len(inputs) if small else 0, step):
            values = Evaluation(graph, weights, model, inputs[start : start + step])
            for n in small:
                count = len(inputs[start : start + step])
                ends = (
                    end(values[n]).reshape(-1, math.prod(graph.nodes[n].shape))
                    for end in (model.ar.lower, model.ar.upper)
                )
                parts[n].append([np.broadcast_to(e, (count, e.shape[1])) for e in ends])
        for n, part in parts.items():
            low, high = map(np.concatenate, zip(*part, strict=True))
            self.of[n] = Table(low, high, reads[n].reshape(-1, self.length))
        for n in where:
            if n in self.of:
                ends = self.of[n].high.T, self.of[n].reads
                self.barred += [(high < 0, reads) for high, reads in zip(*ends, strict=True)]

    def ranges(self, ar: Arithmetic, n: int, allowed: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Least and greatest values [cells, entries] of a node, over the tokens allowed [cells, length, vocabulary]
        that satisfy the conditions; the other way round where there are none."""
        table, ends = self.of[n], [[], []]
        at = np.where(self.known, self.rows, 0)
        for cell in allowed:
            ar.spend(table.low.size, 10, 3)
            ar.step(table.low.size * (self.length + 3 * len(self.barred)), 1, 1)
            here = cell[np.arange(self.length), at] & self.known
            counts = ~(~here @ table.reads.T)  # the tokens that an entry reads are allowed: [rows, entries]
            for rows, reads in self.barred:
                counts &= ~(rows[:, None] & table.reads[:, reads].all(1))
            ends[0].append(np.where(counts, table.low, np.inf).min(0))
            ends[1].append(np.where(counts, table.high, -np.inf).max(0))
        return np.stack(ends[0]), np.stack(ends[1])


def _cost(graph: Graph, n: int, ar: Arithmetic) -> int:
    """Numbers that an evaluation takes."""
    nodes = [graph.nodes[m] for m in graph.ancestors([n])]
    ar.spend(len(nodes), 1, 1_000)
    return sum(math.prod(m.shape) for m in nodes if m.op not in ("weight", "constant"))


def _prime(least: int) -> int:
    m = max(2, least)
    while any(m % k == 0 for k in range(2, math.isqrt(m) + 1)):
        m += 1
    return m


def _reads(graph: Graph, wanted: list[int], ar: Arithmetic) -> dict[int, np.ndarray | None]:
    """Which positions' tokens each entry of a node may depend on, booleans [*shape, length]; None where the node
    depends on real inputs, or is too large (or all nodes together are)."""
    reads: dict[int, np.ndarray | None] = {}
    held = 0
    for n in graph.ancestors(wanted):
        node = graph.nodes[n]
        args = [reads[a] for a in node.args]
        size = math.prod(node.shape) * graph.length
        if node.op == "input" or any(a is None for a in args) or size > ROOM or held + size > MOST:
            reads[n] = None
            continue
        held += size
        ar.spend(size, 10, 1)
        reads[n] = row_of(node.op).reads(graph, node, [a for a in args if a is not None])
    return reads
