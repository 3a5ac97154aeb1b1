"""Linear bounds, backwards: a lower bound of a linear form is carried from a node to the inputs, cells side by side.

A form sum_i k_i z_i of a node's entries becomes one of its operands' entries: through linear operations by
transposing them, through functions and products by lines that bound them on the intervals already proved, the
lower line where k_i > 0 and the upper one where k_i < 0 (CROWN: Zhang et al. 2018, arXiv 1811.00866, section 3.2).
At the inputs the form's least value over the cell is exact, over boxes and over products of token sets.
"""

from collections.abc import Iterable
from fractions import Fraction
from math import prod
from typing import NamedTuple

import numpy as np

from mechverify.kernel import relaxation
from mechverify.kernel.arithmetic import Arithmetic, Ball
from mechverify.kernel.errors import Unsupported
from mechverify.kernel.evaluate import function_of, reserve, weight
from mechverify.kernel.graph import Graph, entries

FORMS = 2**21  # coefficients of the forms that are carried at a time


class Cells(NamedTuple):
    """Parts of a domain, side by side: the real inputs' boxes, balls [cells, *shape]; and which tokens may stand at
    each position, booleans [cells, length, vocabulary]."""

    inputs: tuple[Ball, ...]
    allowed: np.ndarray

    def __len__(self) -> int:
        return len(self.allowed)


class Lines:
    """A witness's choices; here: none. `choose` gives, where a form of node `start` passes node `n`, raw arrays [cells
    or 1, rows or 1, *shape]: the slopes of a function's lower and upper line, or the mixtures of a product's planes."""

    def choose(self, relaxed: "Relaxed", start: int, n: int) -> tuple | None:
        return None


class Relaxed:
    """Intervals of every node of a rewritten graph over some cells, in topological order.

    Precondition: `root` comes from relaxation.rewritten. Postcondition: `bounds[n]` [cells, *shape] holds the value of
    node n for every input of each cell. Complexity: for every operand of a function or product, the cost of its
    graph times its entries.
    """

    def __init__(self, ar: Arithmetic, graph: Graph, weights: dict, root: int, cells: Cells, lines: Lines | None = None,
                 refine: bool = True):  # fmt: skip
        self.ar, self.graph, self.weights, self.root, self.cells = ar, graph, weights, root, cells
        self.lines, self.order = lines or Lines(), graph.ancestors([root])
        self.bounds: dict[int, Ball] = {}
        self.positions: dict[int, np.ndarray] = {}  # of ids: which token stands there
        self._curves: dict[int, relaxation.Curve] = {}
        self._defaults: dict[int, tuple] = {}
        self.rows: dict[int, int] = {}  # how many forms of a node are bounded
        self.fixed = self._fixed()
        self._curved = {n for n in self.order if n not in self.fixed and self._bends(n)}
        self._depth = self._depths()  # how many functions and products lie on the way from the input
        wanted = self._curved_operands() if refine else {}
        held = 0
        for n in self.order:
            if graph.nodes[n].kind == "ids":
                self.positions[n] = self._positions(n)
                continue
            size = len(cells) * prod(graph.nodes[n].shape)
            held += size
            reserve(size)
            reserve(held // 4)  # all values together
            ar.spend(size, 4, 1)
            self.bounds[n] = self._interval(n)
            if n in wanted and not self._stable(n, wanted[n]):
                self.bounds[n] = relaxation.meet(ar, self.bounds[n], self.range(n))

    def range(self, node: int) -> Ball:
        """Linear bounds of every entry of a node: a ball [cells, *shape]."""
        ar, shape = self.ar, self.graph.nodes[node].shape
        size = prod(shape)
        widest = max(prod(self.graph.nodes[n].shape) for n in self.order)
        step = size if type(self.lines) is not Lines else max(1, FORMS // (2 * len(self.cells) * widest))
        ends: list[list] = [[], []]
        for start in range(0, size, step):
            eye = np.eye(min(step, size - start), size, start)
            reserve(len(self.cells), 2 * len(eye), widest)
            both = np.concatenate([eye, -eye]).reshape(1, 2 * len(eye), *shape)
            low = self.form(node, ar.exact(ar.raw(both)))
            ends[0].append(low[:, : len(eye)])
            ends[1].append(-low[:, len(eye) :])
        low, high = (ar.exact(ar.xp.concatenate(end, 1).reshape(-1, *shape)) for end in ends)
        return relaxation.hull(ar, low, high)

    def form(self, start: int, coefficients: Ball):
        """Raw lower bounds [cells, rows] of linear forms [cells or 1, rows, *shape] of the entries of node `start`."""
        ar = self.ar
        self.rows[start] = coefficients.mid.shape[1]
        ar.spend(len(self.order), 1, 100)
        total, tokens, pending = ar.rational(Fraction(0)), None, {start: coefficients}
        for n in reversed(self.order[: self.order.index(start) + 1]):
            if n not in pending:
                continue
            k, node = pending.pop(n), self.graph.nodes[n]
            ar.spend(prod(k.mid.shape), 10, 1)
            if n in self.fixed or node.op in ("input", "slack"):
                total = ar.add(total, self._dot(k, self.bounds[n]))
            elif node.op == "gather":
                tokens = self._by_token(k, n) if tokens is None else ar.add(tokens, self._by_token(k, n))
            else:
                f = function_of(node)
                if f is not None:
                    parts, rest = self._through_function(start, n, k)
                elif node.op == "mul" and not self.fixed & set(node.args):
                    parts, rest = self._through_product(start, n, k)
                else:
                    parts, rest = self._transposed(n, k), None
                if rest is not None:
                    total = ar.add(total, rest)
                for operand, form in parts:
                    pending[operand] = ar.add(pending[operand], form) if operand in pending else form
        low = ar.lower(total if tokens is None else ar.add(total, self._least_of_tokens(tokens)))
        return ar.xp.broadcast_to(low, (len(self.cells), low.shape[-1]))

    def _fixed(self) -> set[int]:
        fixed: set[int] = set()
        for n in self.order:
            node = self.graph.nodes[n]
            if node.op in ("weight", "constant", "pivot") or (node.args and all(a in fixed for a in node.args)):
                fixed.add(n)
        return fixed

    def _bends(self, n: int) -> bool:
        node = self.graph.nodes[n]
        return function_of(node) is not None or (node.op == "mul" and not self.fixed & set(node.args))

    def _depths(self) -> dict[int, int]:
        depth: dict[int, int] = {}
        for n in self.order:
            node = self.graph.nodes[n]
            depth[n] = 0 if n in self.fixed else max((depth[a] for a in node.args), default=0) + (n in self._curved)
        return depth

    def _curved_operands(self) -> dict[int, set[str]]:
        """The nodes whose intervals decide how tight a line is; through views, and not the values of functions,
        whose intervals follow from their operands'."""
        wanted: dict[int, set[str]] = {}
        for n in self.order:
            node = self.graph.nodes[n]
            if n in self._curved:
                for operand in node.args:
                    while self.graph.nodes[operand].op == "view":
                        (operand,) = self.graph.nodes[operand].args
                    if function_of(self.graph.nodes[operand]) is None and self.graph.nodes[operand].op != "input":
                        wanted.setdefault(operand, set()).add(node.op)
        return {n: ops for n, ops in wanted.items() if n not in self.fixed}

    def _stable(self, n: int, ops: set[str]) -> bool:
        """The interval already decides the sign of every argument, and only functions that are linear then read it."""
        x = self.bounds[n]
        return ops <= {"relu", "abs"} and bool(((self.ar.lower(x) > 0) | (self.ar.upper(x) < 0)).all())

    def _positions(self, n: int) -> np.ndarray:
        node = self.graph.nodes[n]
        if node.op == "tokens":
            return np.arange(self.graph.length)
        operand = self.positions[node.args[0]]
        if node.op == "select":
            return np.take(operand, node.attr[1], node.attr[0])
        return operand.ravel()[entries(node.attr)]

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
                return getattr(ar, node.op)(*args)
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

    def _normalised(self, n: int) -> Ball | None:
        """A bound of c_i / sqrt(s), where s = sum_j k_ij c_j^2 + (something not negative) and k_ii > 0: at most
        1 / sqrt(k_ii), however wide c is. Layer norm's entries, whose scale is lost otherwise."""
        ar, nodes = self.ar, self.graph.nodes
        for x, y in (nodes[n].args, nodes[n].args[::-1]):
            (c, at), (root, row) = self._source(x), self._source(y)
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

    def _source(self, n: int) -> tuple[int, np.ndarray]:
        """The node that `n` is a view of, and which of its entries each of n's is."""
        at = np.arange(prod(self.graph.nodes[n].shape))
        while self.graph.nodes[n].op == "view":
            at, (n,) = entries(self.graph.nodes[n].attr).ravel()[at], self.graph.nodes[n].args
        return n, at

    def _down_to(self, stop: int, start: int, k: Ball) -> tuple[Ball | None, Ball]:
        """Forms of node `start` as forms of node `stop` and a constant; None if it is not linear in between."""
        found, rest, pending = None, self.ar.rational(Fraction(0)), {start: k}
        for n in reversed(self.order[: self.order.index(start) + 1]):
            if n not in pending:
                continue
            k = pending.pop(n)
            if n == stop:
                found = k
            elif n in self.fixed:
                rest = self.ar.add(rest, self._dot(k, self.bounds[n]))
            elif n in self._curved or self.graph.nodes[n].op in ("input", "gather", "slack"):
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
                form = ar.scatter(k.map(lambda a: a.reshape(*lead, -1)), at, prod(shape))
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

    def _through_function(self, start: int, n: int, k: Ball) -> tuple[list, Ball]:
        ar, x = self.ar, self.graph.nodes[n].args[0]
        k, total = self._pointed(n, k)
        given = self.lines.choose(self, start, n)
        if given is None:
            if n not in self._defaults:
                self._defaults[n] = self._lines(n, *self.default_slopes(n))
            lines = self._defaults[n]
        else:
            lines = self._lines(n, *(ar.exact(a) for a in given))
        form = None
        for part, (slope, offset) in zip(self._by_sign(k), lines, strict=True):
            bent = ar.mul(part, slope)
            form = bent if form is None else ar.add(form, bent)
            total = ar.add(total, self._dot(part, offset, rows=True))
        return [(x, form)], total

    def _through_product(self, start: int, n: int, k: Ball) -> tuple[list, Ball]:
        ar, operands = self.ar, self.graph.nodes[n].args
        k, total = self._pointed(n, k)
        x, y = (self.bounds[a].map(lambda v: v[:, None]) for a in operands)
        given = self.lines.choose(self, start, n)
        mixes = [ar.rational(m) for m in self.default_mixes(n)] if given is None else [ar.exact(a) for a in given]
        forms: list = [None, None]
        for part, mix, upper in zip(self._by_sign(k), mixes, (False, True), strict=True):
            *slopes, constant = relaxation.plane(ar, x, y, mix, upper)
            level = self.bounds[n].map(lambda v: v[:, None])  # where it is narrow, it beats a plane over a wide box
            level = ar.exact(ar.upper(level) if upper else ar.lower(level))
            narrow = self.bounds[n].rad[:, None] < x.rad * y.rad
            slopes = [ar.where(narrow, ar.rational(Fraction(0)), s) for s in slopes]
            constant = ar.where(narrow, level, constant)
            for i in (0, 1):
                bent = ar.mul(part, slopes[i])
                forms[i] = bent if forms[i] is None else ar.add(forms[i], bent)
            total = ar.add(total, self._dot(part, constant, rows=True))
        return list(zip(operands, forms, strict=True)), total

    def curve(self, n: int) -> relaxation.Curve:
        if n not in self._curves:
            node = self.graph.nodes[n]
            x = self.bounds[node.args[0]].map(lambda a: a[:, None])
            self._curves[n] = relaxation.curve(self.ar, function_of(node), x)
        return self._curves[n]

    def _lines(self, n: int, lower: Ball, upper: Ball) -> list[tuple[Ball, Ball]]:
        c = self.curve(n)
        return [(slope, relaxation.offset(self.ar, c, slope, side))
                for slope, side in ((lower, False), (upper, True))]  # fmt: skip

    def default_slopes(self, n: int) -> tuple[Ball, Ball]:
        """Any slope is sound. The chord's; below a ReLU, that of the nearer side."""
        ar, c, xp = self.ar, self.curve(n), self.ar.xp
        x, y = c.points.mid, c.values.mid
        width = x[-1] - x[0]
        chord = (y[-1] - y[0]) / xp.where(width > 0, width, 1 + 0 * width)
        lower = xp.where(x[-1] > -x[0], 1 + 0 * width, 0 * width) if self.graph.nodes[n].op == "relu" else chord
        return ar.exact(lower), ar.exact(chord)

    def default_mixes(self, n: int) -> tuple[Fraction, Fraction]:
        """Any mixture is sound. The planes below and above are parallel in the operand that is nearer to being
        linear, so that what it has in common with other terms isn't lost."""
        x, y = (self._depth[a] for a in self.graph.nodes[n].args)
        half = Fraction(1, 2)
        return (half, half) if x == y else (Fraction(0), Fraction(int(x < y)))

    def _by_sign(self, k: Ball) -> tuple[Ball, Ball]:
        zero = 0 * k.mid
        return tuple(k._replace(mid=self.ar.xp.where(s, k.mid, zero)) for s in (k.mid > 0, k.mid < 0))

    def _pointed(self, n: int, k: Ball) -> tuple[Ball, Ball]:
        """The form with coefficients rounded to points, and what that may change."""
        rounding = k._replace(mid=0 * k.mid)
        return k.point, self._dot(rounding, self.bounds[n]) if self.ar.rounds else self.ar.rational(Fraction(0))

    def _dot(self, k: Ball, x: Ball, rows: bool = False) -> Ball:
        """Sums [cells, rows] of products of entries; x has a row axis or none."""
        x = x if rows else x.map(lambda a: a[:, None])
        rank = k.mid.ndim - 2
        return self.ar.sum(self.ar.mul(k, x).map(lambda a: a.reshape(*a.shape[:2], -1) if rank else a[..., None]))

    def _table(self, n: int):
        node = self.graph.nodes[n]
        return self.ar.raw(weight(self.weights, *self.graph.nodes[node.args[0]].attr)[: len(self.graph.values)])

    def _over_tokens(self, n: int, table):
        """The least entry of a table [vocabulary, ...] over the tokens allowed at each position: [cells, *ids, ...]."""
        places = self.positions[self.graph.nodes[n].args[1]]
        allowed = self.cells.allowed[:, places]
        reserve(*allowed.shape, *table.shape[1:])
        allowed = self.ar.raw(allowed.reshape(*allowed.shape, *(1,) * (len(table.shape) - 1)))
        return self.ar.xp.amin(self.ar.xp.where(allowed, table, np.inf), 1 + places.ndim)

    def _by_token(self, k: Ball, n: int) -> Ball:
        """A form of embeddings as one of one-hot tokens: [cells, rows, length x vocabulary]."""
        ar, places, table = self.ar, self.positions[self.graph.nodes[n].args[1]].ravel(), self._table(n)
        reserve(*k.mid.shape[:2], self.graph.length, len(table))
        flat = k.map(lambda a: a.reshape(*a.shape[:2], len(places), -1))
        scores = ar.contract("pd,vd->pv", flat, ar.exact(table.reshape(1, 1, len(table), -1)))
        at = places[:, None] * len(table) + np.arange(len(table))
        scores = scores.map(lambda a: a.reshape(*a.shape[:2], -1))
        return ar.scatter(scores, at.ravel(), self.graph.length * len(table))

    def _least_of_tokens(self, form: Ball) -> Ball:
        """For each position the least coefficient of a token allowed there, added up: exact."""
        low = self.ar.lower(form)
        low = low.reshape(*low.shape[:2], self.graph.length, -1)
        allowed = self.ar.raw(self.cells.allowed[:, None])
        return self.ar.sum(self.ar.exact(self.ar.xp.amin(self.ar.xp.where(allowed, low, np.inf), 3)))
