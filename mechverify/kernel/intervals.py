"""Intervals of a rewritten graph's nodes, forwards, one operation after another, cells side by side."""

from collections.abc import Iterable, Mapping
from fractions import Fraction
from math import prod
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

from mechverify.kernel import integers, relaxation
from mechverify.kernel.arithmetic import Arithmetic, Ball
from mechverify.kernel.elementary import pi
from mechverify.kernel.errors import Rejected, Unsupported
from mechverify.kernel.evaluate import function_of, reserve, table, weight
from mechverify.kernel.graph import Graph, entries
from mechverify.kernel.integers import Span
from mechverify.kernel.relaxation import Rewritten

LEAVES = ("input", "slack", "number", "pick")  # where forms end, at intervals


class Cells(NamedTuple):
    """Parts of a domain, side by side: the real inputs' boxes, balls [cells, *shape]; which tokens may stand at each
    position, booleans [cells, length, vocabulary]; and, by node, what is known of its value beside: between `facts[n]`,
    and between `tabled[n]`, two raw arrays [cells, *shape], infinite where nothing is."""

    inputs: tuple[Ball, ...]
    allowed: np.ndarray
    facts: Mapping[int, tuple] = MappingProxyType({})
    tabled: Mapping[int, tuple] = MappingProxyType({})

    def __len__(self) -> int:
        return len(self.allowed)


class Intervals:
    """Precondition: `roots` comes from relaxation.rewritten. Postcondition: `bounds[n]` [cells, *shape] holds the value
    of node n for every input of each cell; a cell that is `empty` has no input. With `shared`, both forms of a softmax
    are there. Complexity: one evaluation a cell."""

    def __init__(self, ar: Arithmetic, graph: Graph, weights: dict, roots: Rewritten, cells: Cells,
                 shared: bool = False):  # fmt: skip
        self.ar, self.graph, self.weights, self.root, self.cells = ar, graph, weights, roots.output, cells
        self.other = dict(roots.shared) if shared else {}  # a softmax's second form, by the first
        ancestors = graph.ancestors([roots.output, *self.other.values()])
        self.order = list(dict.fromkeys([*graph.ancestors([*roots.conditions]), *ancestors]))
        self.place = {n: i for i, n in enumerate(self.order)}
        if not all(self.place[m] < self.place[n] for n, m in self.other.items() if n in self.place):
            raise Rejected("a softmax's second form comes after the first")
        self.bounds: dict[int, Ball] = {}
        self.positions: dict[int, np.ndarray] = {}  # of ids: which token stands there
        self.spans: dict[int, list[Span]] = {}  # of integers, cell by cell
        self.empty = ar.raw(np.zeros(len(cells), bool))
        self.fixed = self._fixed()
        self._curved = {n for n in self.order if n not in self.fixed and self._bends(n)}
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
            self.bounds[n] = self._interval(n)
            self.refine(n)
            for known in (cells.tabled, cells.facts):
                if n in known:
                    self.narrow(n, *known[n])

    def prepare(self) -> None:
        """Before the first node."""

    def refine(self, n: int) -> None:
        """Narrow bounds[n] by other means."""

    def output(self) -> Ball:
        return self.bounds[self.root]

    def narrow(self, n: int, low, high) -> None:
        """Keep of bounds[n] what lies between two raw arrays. Where nothing does, the cell is empty."""
        ar, x = self.ar, self.bounds[n]
        ends = ar.lower(x), ar.upper(x)
        low, high = ar.xp.maximum(ends[0], low), ar.xp.minimum(ends[1], high)
        nothing = low > high
        self.empty = self.empty | nothing.reshape(len(nothing), -1).any(1)
        low, high = (ar.xp.where(nothing, old, new) for old, new in zip(ends, (low, high), strict=True))
        self.bounds[n] = relaxation.hull(ar, ar.exact(low), ar.exact(high))

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
        node, values = self.graph.nodes[n], np.array(self.graph.values)
        self.ar.spend(len(self.cells) * (1 + len(node.args)), 1, 1_000)
        if node.op == "value":
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
        """Of one operation, from the intervals of its operands."""
        ar, node = self.ar, self.graph.nodes[n]
        args = [self.bounds[a] for a in node.args if a in self.bounds]
        match node.op:
            case "input":
                return self.cells.inputs[node.attr[0]]
            case "weight":
                return ar.exact(ar.raw(weight(self.weights, *node.attr)[None]))
            case "constant":
                return ar.exact(ar.raw(np.array(node.attr[1], float).reshape(1, *node.attr[0])))
            case "gather":
                table = self._table(n)
                low = [self._over_tokens(n, sign * table) for sign in (1, -1)]
                return relaxation.hull(ar, ar.exact(low[0]), -ar.exact(low[1]))
            case "pi":
                return pi(ar).map(lambda a: a.reshape(1))
            case "number":
                low, high = np.array(self.spans[node.args[0]], float).T
                return relaxation.hull(ar, ar.exact(ar.raw(low)), ar.exact(ar.raw(high)))
            case "pick":
                low, high = np.array(self.spans[node.args[1]]).T[:, :, None]
                at = np.arange(args[0].mid.shape[1])
                inside = ar.raw(((low <= at) & (at <= high)).reshape(len(low), -1, *(1,) * len(node.shape)))
                ends = ar.lower(args[0]), -ar.upper(args[0])
                ends = [ar.xp.amin(ar.xp.where(inside, end, np.inf), 1) for end in ends]
                return relaxation.hull(ar, ar.exact(ends[0]), -ar.exact(ends[1]))
            case "slack":
                zero = 0 * args[0].mid.sum(-1)
                inactive = bool((ar.lower(args[0]) >= 0).all())
                return relaxation.hull(ar, ar.exact(zero if inactive else zero - relaxation.SLACK), ar.exact(zero))
            case "pivot":  # near the value
                return ar.exact(ar.contract(node.attr, *(x.point for x in args)).mid)
            case "view":
                at = entries(node.attr)
                return args[0].map(lambda a: a.reshape(a.shape[0], -1)[:, at])
            case "concat":
                size, total = prod(node.shape), ar.rational(Fraction(0))
                for (_, at), x in zip(self._concat_entries(n), args, strict=True):
                    part = ar.scatter(x.map(lambda a: a.reshape(a.shape[0], -1)), at, size)
                    total = ar.add(total, part.map(lambda a: a.reshape(-1, *node.shape)))
                return total
            case "add" | "sub":
                sum_, limit = getattr(ar, node.op)(*args), self._smooth_maximum(n)
                return sum_ if limit is None else relaxation.meet(ar, sum_, limit)
            case "mul":
                if self.fixed & set(node.args):
                    return ar.mul(*args)
                product, limit = relaxation.product(ar, *args), self._normalised(n)
                return product if limit is None else relaxation.meet(ar, product, limit)
            case "over_root":
                return ar.div(args[0], ar.sqrt(ar.rational(Fraction(node.attr))))
            case "einsum":
                return ar.contract(node.attr, *args)
        return relaxation.image(ar, function_of(node), args[0])

    def _smooth_maximum(self, n: int) -> Ball | None:
        """Of x + f(y - x), or x - f(x - y), where f increases by at most what its operand does (relu: the maximum, and
        the minimum; softplus: log(e^x + e^y)): such a value increases in x and in y, so that the ends lie at theirs."""
        ar, nodes = self.ar, self.graph.nodes
        op, operands = nodes[n].op, nodes[n].args
        for x, rest in (operands, operands[::-1]) if op == "add" else (operands,):
            if nodes[rest].op not in ("relu", "softplus") or nodes[nodes[rest].args[0]].op != "sub":
                continue
            pair = nodes[nodes[rest].args[0]].args
            other, again = pair if op == "add" else pair[::-1]
            if again != x:
                continue
            f, ends = function_of(nodes[rest]), []
            for end in (ar.lower, ar.upper):
                own, far = (ar.exact(end(self.bounds[a])) for a in (x, other))
                if op == "add":
                    ends.append(ar.add(own, ar.value(f, ar.sub(far, own))))
                else:
                    ends.append(ar.sub(own, ar.value(f, ar.sub(own, far))))
            return relaxation.hull(ar, *ends)
        return None

    def _normalised(self, n: int) -> Ball | None:
        """A bound of c_i / sqrt(s), where s = sum_j k_ij c_j^2 + (something not negative) and k_ii > 0: at most
        1 / sqrt(k_ii), however wide c is. Layer norm's entries, whose scale is lost otherwise."""
        ar, nodes = self.ar, self.graph.nodes
        for x, y in (nodes[n].args, nodes[n].args[::-1]):
            (c, at), (root, row) = self.source(x), self.source(y)
            squares = [m for m in self.order if nodes[m].op == "power" and nodes[m].attr == 2 and nodes[m].args == (c,)]
            if nodes[root].op != "rsqrt" or len(squares) != 1:
                continue
            sums = nodes[root].args[0]
            size = prod(nodes[sums].shape)
            eye = ar.exact(ar.raw(np.eye(size).reshape(1, size, *nodes[sums].shape)))
            form, rest = self._down_to(squares[0], sums, eye)
            if form is None:
                continue
            low, zero = ar.lower(form), 0 * form.mid
            negative = ar.exact(ar.xp.minimum(low, zero))  # rounding leaves such traces of zero coefficients
            if not (ar.lower(ar.add(rest, self._dot(negative, self.bounds[squares[0]]))) >= 0).all():
                continue
            share = low.reshape(low.shape[0], size, -1)[:, row, at]
            if (share > 0).all():
                most = ar.div(ar.rational(Fraction(1)), ar.sqrt(ar.exact(share))).map(
                    lambda a: a.reshape(-1, *nodes[n].shape)
                )
                return relaxation.hull(ar, -most, most)
        return None

    def source(self, n: int) -> tuple[int, np.ndarray]:
        """The node that `n` is a view of, and which of its entries each of n's is."""
        at = np.arange(prod(self.graph.nodes[n].shape))
        while self.graph.nodes[n].op == "view":
            at, (n,) = entries(self.graph.nodes[n].attr).ravel()[at], self.graph.nodes[n].args
        return n, at

    def _down_to(self, stop: int, start: int, k: Ball) -> tuple[Ball | None, Ball]:
        """Forms of node `start` as forms of node `stop` and a constant; None if it is not linear in between."""
        found, rest, pending = None, self.ar.rational(Fraction(0)), {start: k}
        for n in reversed(self.order[: self.place[start] + 1]):
            if n not in pending:
                continue
            k = pending.pop(n)
            if n == stop:
                found = k
            elif n in self.fixed:
                rest = self.ar.add(rest, self._dot(k, self.bounds[n]))
            elif n in self._curved or self.graph.nodes[n].op in (*LEAVES, "gather"):
                return None, rest
            else:
                for operand, form in self._transposed(n, k):
                    pending[operand] = self.ar.add(pending[operand], form) if operand in pending else form
        return found, rest

    def _concat_entries(self, n: int) -> Iterable[tuple[int, np.ndarray]]:
        """For every operand, where its entries go in the flattened result."""
        node, start = self.graph.nodes[n], 0
        here = np.arange(prod(node.shape)).reshape(node.shape)
        for operand in node.args:
            width = self.graph.nodes[operand].shape[node.attr]
            yield operand, np.take(here, np.arange(start, start + width), node.attr).ravel()
            start += width

    def _transposed(self, n: int, k: Ball) -> list[tuple[int, Ball]]:
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

    def _dot(self, k: Ball, x: Ball, rows: bool = False) -> Ball:
        """Sums [cells, rows] of products of entries; x has a row axis or none."""
        x = x if rows else x.map(lambda a: a[:, None])
        rank = k.mid.ndim - 2
        return self.ar.sum(self.ar.mul(k, x).map(lambda a: a.reshape(*a.shape[:2], -1) if rank else a[..., None]))
