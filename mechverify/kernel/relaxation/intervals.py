"""Intervals of a rewritten graph's nodes, forwards, one operation after another, cells side by side.

Lemmas L1, L2, L9, L11, L12 (docs/soundness/relaxation.md).
"""

from collections.abc import Mapping
from math import prod
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from mechverify.kernel.core.arithmetic import Arithmetic, Ball
from mechverify.kernel.core.errors import Rejected
from mechverify.kernel.core.graph import Graph, entries
from mechverify.kernel.core.meter import reserve
from mechverify.kernel.core.operations import Span
from mechverify.kernel.core.sums import dot
from mechverify.kernel.relaxation import lines
from mechverify.kernel.relaxation.lines import Ends
from mechverify.kernel.relaxation.operations import row_of
from mechverify.kernel.relaxation.operations.views import viewed
from mechverify.kernel.relaxation.rewriting import Rewritten

MORE = 2.0**-40  # by which share an interval must be narrower to count as such


class Cells(NamedTuple):
    """Parts of a domain, side by side: the real inputs' boxes, balls [cells, *shape]; which tokens may stand at each
    position, booleans [cells, length, vocabulary]; and, by node, what is known of its value beside: between `facts[n]`,
    and between `tabled[n]`, two raw arrays [cells, *shape], infinite where nothing is. `corners`: the boxes' own, two
    raw arrays for each input, which a ball may exceed. `whole`: by node, what holds on the whole domain, and stands for
    linear bounds in each part: two raw arrays [1, *shape]."""

    inputs: tuple[Ball, ...]
    allowed: np.ndarray
    facts: Mapping[int, tuple] = MappingProxyType({})
    tabled: Mapping[int, tuple] = MappingProxyType({})
    corners: tuple[tuple, ...] = ()
    whole: Mapping[int, tuple] = MappingProxyType({})

    def __len__(self) -> int:
        return len(self.allowed)


class Intervals:
    """Precondition: `roots` comes from rewriting.rewritten. Postcondition: the value of node n lies between the raw
    arrays `ends[n]` [cells or 1, *shape], and in the balls `bounds[n]`, for every input of each cell; ends may be
    infinite, and a ball that is not finite bounds nothing. A cell that is `empty` has no input. With `shared`, both
    forms of a softmax are there. Complexity: one evaluation a cell."""

    def __init__(self, ar: Arithmetic, graph: Graph, weights: dict, roots: Rewritten, cells: Cells,
                 shared: bool = False):  # fmt: skip
        self.ar, self.graph, self.weights, self.root, self.cells = (
            ar,
            graph,
            weights,
            roots.output,
            cells,
        )
        self.roots = roots
        self.other = (
            dict(roots.shared) if shared else {}
        )  # a softmax's second form, by the first
        ancestors = graph.ancestors([roots.output, *self.other.values()])
        self.order = list(
            dict.fromkeys([*graph.ancestors([*roots.conditions]), *ancestors])
        )
        self.place = {n: i for i, n in enumerate(self.order)}
        if not all(
            self.place[m] < self.place[n]
            for n, m in self.other.items()
            if n in self.place
        ):
            raise Rejected("a softmax's second form comes after the first")
        self.balls: dict[int, Ball] = {}
        self.ends: dict[int, Ends] = {}
        self.positions: dict[int, np.ndarray] = {}  # of ids: which token stands there
        self.spans: dict[int, list[Span]] = {}  # of integers, cell by cell
        self.empty = ar.raw(np.zeros(len(cells), bool))
        self.dominated: dict[tuple[int, int], Any] = {}  # of norms.py
        self.slopes: dict[int, Ends] = {}  # of secants
        self.disturbances: dict[int, Ball] = {}  # of operations/rounding.py
        self.differences = any(graph.nodes[n].op == "sub" for n in self.order)
        self.quotients = any(
            graph.nodes[n].op in ("rsqrt", "reciprocal") for n in self.order
        )
        self.fixed = self._fixed()
        self.curved = {
            n for n in self.order if n not in self.fixed and self._bends(n)
        }  # where a form needs lines
        self.prepare()
        held = 0
        for n in self.order:
            if graph.nodes[n].kind == "ids":
                self.positions[n] = row_of(graph.nodes[n].op).positions(self, n)
                continue
            if graph.nodes[n].kind == "int":
                ar.spend(len(cells) * (1 + len(graph.nodes[n].args)), 1, 1_000)
                self.spans[n] = row_of(graph.nodes[n].op).spans(self, n)
                continue
            size = len(cells) * prod(graph.nodes[n].shape)
            held += size
            reserve(size)
            reserve(held // 4)  # all values together
            ar.spend(size, 4, 1)
            self._bound(n)
            self.refine(n)
            for known in (cells.tabled, cells.facts):
                if n in known:
                    self.narrow(n, *known[n])
            self._refuse_nan(n)

    def _refuse_nan(self, n: int) -> None:
        """An end that is no number bounds nothing."""
        xp, (low, high) = self.ar.xp, self.ends[n]
        no_low, no_high = xp.isnan(low), xp.isnan(high)
        if bool(no_low.any()) or bool(no_high.any()):
            low, high = xp.where(no_low, -np.inf, low), xp.where(no_high, np.inf, high)
            self.ends[n] = low, high

    def prepare(self) -> None:
        """Before the first node."""

    def refine(self, n: int) -> None:
        """Narrow bounds[n] by other means."""

    def output(self) -> Ends:
        return self.ends[self.root]

    def narrow(self, n: int, low, high) -> None:
        """Keep of ends[n] what lies between two raw arrays. Where nothing does, the cell is empty."""
        ar, ends = self.ar, self.ends[n]
        low, high = lines.meet(ar, ends, (low, high))
        nothing = low > high
        self.empty = self.empty | nothing.reshape(len(nothing), -1).any(1)
        low, high = (
            ar.xp.where(nothing, old, new)
            for old, new in zip(ends, (low, high), strict=True)
        )
        self.ends[n] = low, high
        self.balls[n] = lines.ball(ar, low, high)

    def _bound(self, n: int) -> None:
        """The node's ball and its ends, from those of its operands. Linear operations are done on balls; what is known
        beside makes a new ball only where it says more, up to rounding."""
        ar, row = self.ar, row_of(self.graph.nodes[n].op)
        if not row.linear(self, n):
            self.ends[n] = self._known(n, row.ends(self, n, (-np.inf, np.inf)))
            self.balls[n] = lines.ball(ar, *self.ends[n])
            return
        x = row.ball(self, n)
        old = ar.ends(x)
        low, high = self._known(n, lines.meet(ar, old, row.ends(self, n, old)))
        less = (high - low < (1 - MORE) * (old[1] - old[0])) & (n not in self.fixed)
        self.ends[n] = low, high
        self.balls[n] = (
            ar.where(less, lines.ball(ar, low, high), x) if bool(less.any()) else x
        )

    def _known(self, n: int, ends: Ends) -> Ends:
        """Without what no value of the node can be (lemmas L2 and L3)."""
        ar, nodes = self.ar, self.graph.nodes
        if n in self.roots.shares:
            ends = ar.xp.clip(ends[0], 0.0, None), ar.xp.clip(ends[1], None, 1.0)
        if n in self.roots.means:
            of, view = self.roots.means[n]
            low, high = (viewed(end, view) for end in self.ends[of])
            ends = lines.meet(ar, ends, (ar.xp.amin(low, -1), ar.xp.amax(high, -1)))
        if (
            nodes[n].op in ("add", "sub")
            and self.differences
            and (limit := self._smooth_maximum(n)) is not None
        ):
            ends = lines.meet(ar, ends, limit)
        if (
            nodes[n].op in ("mul", "einsum")
            and self.quotients
            and (size := self._normalised(n)) is not None
        ):
            ends = lines.meet(ar, ends, (-size, size))
        return ends

    def _normalised(self, n: int) -> Any | None:
        """What no entry of node n exceeds in size, as it is, or adds up, quotients by a norm."""
        from mechverify.kernel.relaxation import (
            norms,
        )  # only where a graph has quotients

        return norms.limit(self, n)

    def _smooth_maximum(self, n: int) -> Ends | None:
        from mechverify.kernel.relaxation import (
            maxima,
        )  # only where a graph has differences

        return maxima.ends(self, n)

    def _fixed(self) -> set[int]:
        fixed: set[int] = set()
        for n in self.order:
            node = self.graph.nodes[n]
            if row_of(node.op).fixed or (
                node.args and all(a in fixed for a in node.args)
            ):
                fixed.add(n)
        return fixed

    def _bends(self, n: int) -> bool:
        node = self.graph.nodes[n]
        return node.kind == "real" and row_of(node.op).bends(self, n)

    def finite(self, a):
        """For constants that may be any numbers."""
        return self.ar.xp.where(self.ar.xp.isfinite(a), a, 0.0)

    def source(self, n: int, slices: bool = False) -> tuple[int, np.ndarray]:
        """The node that `n` is a view of, and which of its entries each of n's is; with `slices`, also where a slice of
        a node was computed by itself."""
        at = np.arange(prod(self.graph.nodes[n].shape))
        while (read := self._read(n, slices)) is not None:
            n, view = read
            self.ar.step(prod(view[0]), 1)
            at = entries(view).ravel()[at]
        return n, at

    def _read(self, n: int, slices: bool) -> tuple[int, tuple] | None:
        """An earlier node that has the entries of node n, and the view of it that n is."""
        node = self.graph.nodes[n]
        if node.op == "view":
            return node.args[0], node.attr
        if not slices or n not in self.roots.slices:
            return None
        whole, view = self.roots.slices[n]
        return (
            (whole, view)
            if self.place.get(whole, self.place[n]) < self.place[n]
            else None
        )

    def dot(self, k: Ball, x: Ball, rows: bool = False) -> Ball:
        """Sums [cells, rows] of products of entries; x has a row axis or none."""
        x = x if rows else x.at[:, None]
        if k.mid.ndim != 3:
            k, x = (b.map(lambda a: a.reshape(*a.shape[:2], -1)) for b in (k, x))
        return dot(self.ar, k, x)
