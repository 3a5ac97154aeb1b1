"""Intervals of a rewritten graph's nodes, forwards, one operation after another, cells side by side.

Lemmas L1, L2, L9, L11, L12 (docs/soundness/relaxation.md).
"""

from collections.abc import Iterable, Mapping
from fractions import Fraction
from math import prod
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from mechverify.kernel.core import integers
from mechverify.kernel.core.arithmetic import Arithmetic, Ball
from mechverify.kernel.core.elementary import pi
from mechverify.kernel.core.errors import Rejected, Unsupported
from mechverify.kernel.core.evaluate import function_of, table, weight
from mechverify.kernel.core.functions import power_of
from mechverify.kernel.core.graph import Graph, entries
from mechverify.kernel.core.integers import Span
from mechverify.kernel.core.meter import reserve
from mechverify.kernel.relaxation import norms, relaxation
from mechverify.kernel.relaxation.relaxation import Ends, Rewritten

LEAVES = ("input", "slack", "number", "pick")  # where forms end, at intervals
BALLS = ("input", "weight", "constant", "pi", "pivot", "view", "concat", "add", "sub", "over_root", "einsum")
MORE = 2.0**-40  # by which share an interval must be narrower to count as such


class Cells(NamedTuple):
    """Parts of a domain, side by side: the real inputs' boxes, balls [cells, *shape]; which tokens may stand at each
    position, booleans [cells, length, vocabulary]; and, by node, what is known of its value beside: between `facts[n]`,
    and between `tabled[n]`, two raw arrays [cells, *shape], infinite where nothing is. `corners`: the boxes' own, two
    raw arrays for each input, which a ball may exceed."""

    inputs: tuple[Ball, ...]
    allowed: np.ndarray
    facts: Mapping[int, tuple] = MappingProxyType({})
    tabled: Mapping[int, tuple] = MappingProxyType({})
    corners: tuple[tuple, ...] = ()

    def __len__(self) -> int:
        return len(self.allowed)


class Intervals:
    """Precondition: `roots` comes from relaxation.rewritten. Postcondition: the value of node n lies between the raw
    arrays `ends[n]` [cells or 1, *shape], and in the balls `bounds[n]`, for every input of each cell; ends may be
    infinite, and a ball that is not finite bounds nothing. A cell that is `empty` has no input. With `shared`, both
    forms of a softmax are there. Complexity: one evaluation a cell."""

    def __init__(self, ar: Arithmetic, graph: Graph, weights: dict, roots: Rewritten, cells: Cells,
                 shared: bool = False):  # fmt: skip
        self.ar, self.graph, self.weights, self.root, self.cells = ar, graph, weights, roots.output, cells
        self.roots = roots
        self.other = dict(roots.shared) if shared else {}  # a softmax's second form, by the first
        ancestors = graph.ancestors([roots.output, *self.other.values()])
        self.order = list(dict.fromkeys([*graph.ancestors([*roots.conditions]), *ancestors]))
        self.place = {n: i for i, n in enumerate(self.order)}
        if not all(self.place[m] < self.place[n] for n, m in self.other.items() if n in self.place):
            raise Rejected("a softmax's second form comes after the first")
        self.bounds: dict[int, Ball] = {}
        self.ends: dict[int, Ends] = {}
        self.positions: dict[int, np.ndarray] = {}  # of ids: which token stands there
        self.spans: dict[int, list[Span]] = {}  # of integers, cell by cell
        self.empty = ar.raw(np.zeros(len(cells), bool))
        self.dominated: dict[tuple[int, int], Any] = {}  # of norms.py
        self.fixed = self._fixed()
        self.curved = {n for n in self.order if n not in self.fixed and self._bends(n)}
        self.prepare()
        held = 0
        for n in self.order:
            if graph.nodes[n].kind == "ids":
                self.positions[n] = self._positions(n)
                continue
            if graph.nodes[n].kind == "int":
                self.spans[n] = self._spans(n)
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
        if bool(xp.isnan(low).any()) or bool(xp.isnan(high).any()):
            self.ends[n] = xp.where(xp.isnan(low), -np.inf, low), xp.where(xp.isnan(high), np.inf, high)

    def prepare(self) -> None:
        """Before the first node."""

    def refine(self, n: int) -> None:
        """Narrow bounds[n] by other means."""

    def output(self) -> Ends:
        return self.ends[self.root]

    def narrow(self, n: int, low, high) -> None:
        """Keep of ends[n] what lies between two raw arrays. Where nothing does, the cell is empty."""
        ar, ends = self.ar, self.ends[n]
        low, high = relaxation.meet(ar, ends, (low, high))
        nothing = low > high
        self.empty = self.empty | nothing.reshape(len(nothing), -1).any(1)
        low, high = (ar.xp.where(nothing, old, new) for old, new in zip(ends, (low, high), strict=True))
        self.ends[n] = low, high
        self.bounds[n] = relaxation.ball(ar, low, high)

    def _bound(self, n: int) -> None:
        """The node's ball and its ends, from those of its operands. Linear operations are done on balls; what is known
        beside makes a new ball only where it says more, up to rounding."""
        ar, node = self.ar, self.graph.nodes[n]
        if node.op not in BALLS and not (node.op == "mul" and self.fixed & set(node.args)):
            self.ends[n] = self._known(n, self._curved_ends(n))
            self.bounds[n] = relaxation.ball(ar, *self.ends[n])
            return
        x = self._interval(n)
        old = ar.ends(x)
        low, high = self._known(n, relaxation.meet(ar, old, self._linear_ends(n, old)))
        less = (high - low < (1 - MORE) * (old[1] - old[0])) & (n not in self.fixed)
        self.ends[n] = low, high
        self.bounds[n] = ar.where(less, relaxation.ball(ar, low, high), x) if bool(less.any()) else x

    def _known(self, n: int, ends: Ends) -> Ends:
        """Without what no value of the node can be (lemmas L2 and L3)."""
        ar, nodes = self.ar, self.graph.nodes
        if n in self.roots.shares:
            ends = ar.xp.clip(ends[0], 0.0, None), ar.xp.clip(ends[1], None, 1.0)
        if n in self.roots.means:
            of, view = self.roots.means[n]
            low, high = (self._viewed(end, view) for end in self.ends[of])
            ends = relaxation.meet(ar, ends, (ar.xp.amin(low, -1), ar.xp.amax(high, -1)))
        if nodes[n].op in ("add", "sub") and (limit := self._smooth_maximum(n)) is not None:
            ends = relaxation.meet(ar, ends, limit)
        if nodes[n].op in ("mul", "einsum") and (size := norms.limit(self, n)) is not None:
            ends = relaxation.meet(ar, ends, (-size, size))
        return ends

    def _viewed(self, a, attr: tuple):
        return a.reshape(a.shape[0], -1)[:, entries(attr)]

    def _linear_ends(self, n: int, found: Ends) -> Ends:
        """Of a linear operation, from the ends of its operands, some of which may be infinite, and from what its ball
        says; exact numbers' are the numbers."""
        ar, xp, node, x = self.ar, self.ar.xp, self.graph.nodes[n], [self.ends[a] for a in self.graph.nodes[n].args]
        match node.op:
            case "input" if self.cells.corners:
                return self.cells.corners[node.attr[0]]
            case "weight" | "constant":
                number = self._interval(n).mid
                return number, number
            case "view":
                return tuple(self._viewed(end, node.attr) for end in x[0])
            case "concat":
                cells = max(end.shape[0] for ends in x for end in ends)
                return tuple(
                    xp.concatenate([xp.broadcast_to(ends[side], (cells, *ends[side].shape[1:])) for ends in x],
                                   node.attr + 1) for side in (0, 1))  # fmt: skip
            case "add":
                return relaxation.total(ar, *x)
            case "sub":
                return relaxation.total(ar, x[0], (-x[1][1], -x[1][0]))
            case "mul":
                return relaxation.product(ar, *x)
            case "over_root":
                scale = ar.div(ar.rational(Fraction(1)), ar.sqrt(ar.rational(Fraction(node.attr))))
                return relaxation.product(ar, x[0], ar.ends(scale))
            case "einsum":
                return self._contracted(n, found)
        return found

    def _contracted(self, n: int, found: Ends) -> Ends:
        """Of sums of products k x with fixed k, from what balls say, which is all where every end is finite; but a sum
        of what isn't negative isn't negative."""
        xp, args = self.ar.xp, self.graph.nodes[n].args
        at = 0 if args[0] in self.fixed else 1
        k, x = self.ends[args[at]], self.ends[args[1 - at]]
        if not all(bool(xp.isfinite(end).all()) for end in x):
            (low, low_of_minus) = (self._least(n, at, k, ends) for ends in (x, (-x[1], -x[0])))
            found = relaxation.meet(self.ar, found, (low, -low_of_minus))
        signs = [bool((low >= 0).all()) - bool((high <= 0).all()) for low, high in (k, x)]
        sign = signs[0] * signs[1]
        return xp.clip(found[0], 0.0 if sign > 0 else -np.inf, None), xp.clip(
            found[1], None, 0.0 if sign < 0 else np.inf
        )

    def _least(self, n: int, at: int, k: Ends, x: Ends):
        """Lower bounds of sums of products k x, whose operand number `at` is k: of k x, max(k, 0) low + min(k, 0) high.
        An infinite end counts where its factor may be other than zero."""
        ar, xp, spec = self.ar, self.ar.xp, self.graph.nodes[n].attr
        one, zero = (ar.rational(Fraction(v)).mid for v in (1, 0))
        parts = []
        for limits, factor, end in (((0.0, None), k[1] > 0, x[0]), ((None, 0.0), k[0] < 0, x[1])):
            part = relaxation.ball(ar, *(xp.clip(e, *limits) for e in k))
            finite = xp.isfinite(end)
            pairs = (
                (part, ar.point(xp.where(finite, end, zero))),
                tuple(ar.point(xp.where(some, one, zero)) for some in (factor, ~finite)),
            )
            parts.append([ar.contract(spec, *(pair if at == 0 else pair[::-1])) for pair in pairs])
        (first, missing), (second, more) = parts
        return xp.where((missing.mid > 0) | (more.mid > 0), -np.inf, ar.ends(ar.add(first, second))[0])

    def _fixed(self) -> set[int]:
        fixed: set[int] = set()
        for n in self.order:
            node = self.graph.nodes[n]
            if node.op in ("weight", "constant", "pi", "pivot") or (node.args and all(a in fixed for a in node.args)):
                fixed.add(n)
        return fixed

    def _bends(self, n: int) -> bool:
        node = self.graph.nodes[n]
        return function_of(node) is not None or (node.op == "mul" and not self.fixed & set(node.args))

    def _positions(self, n: int) -> np.ndarray:
        node = self.graph.nodes[n]
        if node.op == "tokens":
            return np.arange(self.graph.length)
        operand = self.positions[node.args[0]]
        if node.op == "select":
            return np.take(operand, node.attr[1], node.attr[0])
        return operand.ravel()[entries(node.attr)]

    def _spans(self, n: int) -> list[Span]:
        """Of an integer, by interval arithmetic."""
        node, values = self.graph.nodes[n], self.graph.meanings
        self.ar.spend(len(self.cells) * (1 + len(node.args)), 1, 1_000)
        if node.op == "value":
            self.ar.step(len(self.cells) * len(values), 1)
            at = [values[allowed[node.attr]] for allowed in self.cells.allowed]
            return [(int(v.min()), int(v.max())) for v in at]
        if node.op == "integer":
            return [(node.attr, node.attr)] * len(self.cells)
        spans = zip(*(self.spans[a] for a in node.args), strict=True)
        found = []
        for s in spans:
            low, high = integers.span(node.op, list(s), node.attr)
            if all(a == b for a, b in s):
                value = integers.apply(node.op, node.attr, [np.array(a) for a, _ in s], lambda _: values)
                low = high = int(value.item())
            found.append((low, high))
        return found

    def _interval(self, n: int) -> Ball:
        """Of one linear operation, or a constant, from the balls of its operands."""
        ar, node = self.ar, self.graph.nodes[n]
        args = [self.bounds[a] for a in node.args if a in self.bounds]
        match node.op:
            case "input":
                return self.cells.inputs[node.attr[0]]
            case "weight":
                return ar.exact(ar.raw(weight(self.weights, *node.attr)[None]))
            case "constant":
                return ar.exact(ar.raw(np.array(node.attr[1], float).reshape(1, *node.attr[0])))
            case "pi":
                return pi(ar).map(lambda a: a.reshape(1))
            case "pivot":  # near the value
                return ar.exact(self._finite(ar.contract(node.attr, *(x.point for x in args)).mid))
            case "view":
                at = entries(node.attr)
                return args[0].map(lambda a: a.reshape(a.shape[0], -1)[:, at])
            case "concat":
                size, total = prod(node.shape), ar.rational(Fraction(0))
                for (_, at), x in zip(self._concat_entries(n), args, strict=True):
                    part = ar.scatter(x.map(lambda a: a.reshape(a.shape[0], -1)), at, size)
                    total = ar.add(total, part.map(lambda a: a.reshape(-1, *node.shape)))
                return total
            case "add" | "sub" | "mul":
                return getattr(ar, node.op)(*args)
            case "over_root":
                return ar.div(args[0], ar.sqrt(ar.rational(Fraction(node.attr))))
        return ar.contract(node.attr, *args)

    def _curved_ends(self, n: int) -> Ends:
        """Of the other operations, from the ends of their operands."""
        ar, xp, node = self.ar, self.ar.xp, self.graph.nodes[n]
        args = [self.ends[a] for a in node.args if a in self.ends]
        match node.op:
            case "gather":
                table = self._table(n)
                low, high = (self._over_tokens(n, sign * table) for sign in (1, -1))
                return low, -high
            case "number":
                low, high = np.array(self.spans[node.args[0]], float).T
                return ar.raw(low), ar.raw(high)
            case "pick":
                low, high = np.array(self.spans[node.args[1]]).T[:, :, None]
                at = np.arange(args[0][0].shape[1])
                inside = ar.raw(((low <= at) & (at <= high)).reshape(len(low), -1, *(1,) * len(node.shape)))
                low, high = (xp.amin(xp.where(inside, end, np.inf), 1) for end in (args[0][0], -args[0][1]))
                return low, -high
            case "slack":
                zero = 0 * self._finite(self.bounds[node.args[0]].point.mid).sum(-1)
                inactive = bool((args[0][0] >= 0).all())
                return (zero if inactive else zero - relaxation.SLACK), zero
            case "mul":
                if self._same(*node.args):
                    return relaxation.image(ar, power_of(2), *args[0])
                return relaxation.product(ar, *args)
        return relaxation.image(ar, function_of(node), *args[0])

    def _finite(self, a):
        """For constants that may be any numbers."""
        return self.ar.xp.where(self.ar.xp.isfinite(a), a, 0.0)

    def _same(self, x: int, y: int) -> bool:
        """Both are the same view of one node."""
        (first, here), (second, there) = (self.source(n, slices=True) for n in (x, y))
        return first == second and np.array_equal(here, there)

    def _smooth_maximum(self, n: int) -> Ends | None:
        """Of x + f(y - x), or x - f(x - y), where f increases by at most what its operand does (relu: the maximum, and
        the minimum; softplus: log(e^x + e^y)): such a value increases in x and in y, so that the ends lie at theirs."""
        nodes = self.graph.nodes
        op, operands = nodes[n].op, nodes[n].args
        for x, rest in (operands, operands[::-1]) if op == "add" else (operands,):
            if nodes[rest].op not in ("relu", "softplus") or nodes[nodes[rest].args[0]].op != "sub":
                continue
            pair = nodes[nodes[rest].args[0]].args
            other, again = pair if op == "add" else pair[::-1]
            if again == x:
                return tuple(self._at_ends(op, rest, x, other, side) for side in (0, 1))
        return None

    def _at_ends(self, op: str, rest: int, x: int, other: int, side: int):
        """The value's lower end (side 0), or its upper one, at those of x and of the other operand."""
        ar, xp, f = self.ar, self.ar.xp, function_of(self.graph.nodes[rest])
        own, far = self.ends[x][side], self.ends[other][side]
        finite = xp.isfinite(own) & xp.isfinite(far)
        own, far = (xp.where(finite, end, 0.0) for end in (own, far))
        first, last = (far, own) if op == "add" else (own, far)
        low, high = relaxation.image(ar, f, *relaxation.total(ar, (first, first), (-last, -last)))
        value = relaxation.total(ar, (own, own), (low, high) if op == "add" else (-high, -low))
        return xp.where(finite, value[side], (-np.inf, np.inf)[side])

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
        return (whole, view) if self.place.get(whole, self.place[n]) < self.place[n] else None

    def _concat_entries(self, n: int) -> Iterable[tuple[int, np.ndarray]]:
        """For every operand, where its entries go in the flattened result."""
        node, start = self.graph.nodes[n], 0
        here = np.arange(prod(node.shape)).reshape(node.shape)
        for operand in node.args:
            width = self.graph.nodes[operand].shape[node.attr]
            yield operand, np.take(here, np.arange(start, start + width), node.attr).ravel()
            start += width

    def transposed(self, n: int, k: Ball) -> list[tuple[int, Ball]]:
        """The forms of the operands whose sum is the form `k` of a linear operation."""
        ar, node = self.ar, self.graph.nodes[n]
        lead = k.mid.shape[:2]
        match node.op:
            case "view":
                shape = self.graph.nodes[node.args[0]].shape
                at = entries(node.attr).ravel()
                form = k.map(lambda a: a.reshape(*lead, -1))
                if not np.array_equal(at, np.arange(prod(shape))):  # more than a reshape
                    form = ar.scatter(form, at, prod(shape))
                return [(node.args[0], form.map(lambda a: a.reshape(*lead, *shape)))]
            case "concat":
                flat = k.map(lambda a: a.reshape(*lead, -1))
                shapes = {a: self.graph.nodes[a].shape for a in node.args}
                return [(a, flat.map(lambda v, e=e, a=a: v[..., e].reshape(*lead, *shapes[a])))
                        for a, e in self._concat_entries(n)]  # fmt: skip
            case "add":
                return [(a, k) for a in node.args]
            case "sub":
                return [(node.args[0], k), (node.args[1], -k)]
            case "over_root":
                return [(node.args[0], ar.div(k, ar.sqrt(ar.rational(Fraction(node.attr)))))]
            case "mul":
                one, other = node.args if node.args[1] in self.fixed else node.args[::-1]
                return [(one, ar.mul(k, self.bounds[other].map(lambda a: a[:, None])))]
            case "einsum":
                *terms, result = node.attr.replace("->", ",").split(",")
                at = 1 if node.args[0] in self.fixed else 0
                constant = self.bounds[node.args[1 - at]].map(lambda a: a[:, None])
                return [(node.args[at], ar.contract(f"{result},{terms[1 - at]}->{terms[at]}", k, constant))]
        raise Unsupported(f"rule linear has no bound for {node.op!r}")

    def _table(self, n: int):
        node = self.graph.nodes[n]
        return self.ar.raw(table(self.weights, self.graph.nodes[node.args[0]])[: len(self.graph.values)])

    def _over_tokens(self, n: int, table):
        """The least entry of a table [vocabulary, ...] over the tokens allowed at each position: [cells, *ids, ...]."""
        places = self.positions[self.graph.nodes[n].args[1]]
        allowed = self.cells.allowed[:, places]
        reserve(*allowed.shape, *table.shape[1:])
        allowed = self.ar.raw(allowed.reshape(*allowed.shape, *(1,) * (len(table.shape) - 1)))
        return self.ar.xp.amin(self.ar.xp.where(allowed, table, np.inf), 1 + places.ndim)

    def dot(self, k: Ball, x: Ball, rows: bool = False) -> Ball:
        """Sums [cells, rows] of products of entries; x has a row axis or none."""
        x = x if rows else x.map(lambda a: a[:, None])
        rank = k.mid.ndim - 2
        return self.ar.sum(self.ar.mul(k, x).map(lambda a: a.reshape(*a.shape[:2], -1) if rank else a[..., None]))
