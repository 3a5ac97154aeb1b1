"""Linear bounds, backwards: a lower bound of a linear form is carried from a node to the inputs, cells side by side.

A form sum_i k_i z_i of a node's entries becomes one of its operands' entries: through linear operations by
transposing them, through functions and products by lines that bound them on the intervals already proved, the
lower line where k_i > 0 and the upper one where k_i < 0 (CROWN: Zhang et al. 2018, arXiv 1811.00866, section 3.2).
At the inputs the form's least value over the cell is exact, over boxes and over products of token sets.

Lemmas L13, L15 (docs/soundness/relaxation.md).
"""

from fractions import Fraction
from math import prod
from typing import Any

import numpy as np

from mechverify.kernel.core.arithmetic import Arithmetic, Array, Ball
from mechverify.kernel.core.errors import Rejected
from mechverify.kernel.core.graph import Graph
from mechverify.kernel.core.meter import reserve
from mechverify.kernel.core.operations import is_function
from mechverify.kernel.core.operations.functions import function_of
from mechverify.kernel.core.sums import by_sign
from mechverify.kernel.relaxation import lines
from mechverify.kernel.relaxation.intervals import Cells, Intervals
from mechverify.kernel.relaxation.lines import Curve, Ends
from mechverify.kernel.relaxation.operations import ONE_HOT, Forms, row_of
from mechverify.kernel.relaxation.rewriting import Rewritten

KINKED = {"relu", "abs"}  # linear on either side of zero
FORMS = 2**21  # coefficients of the forms that are carried at a time


class Lines:
    """A witness's choices; here: none. Raw arrays [cells or 1, rows or 1, *shape], rows being forms of node `start`."""

    def choose(self, relaxed: "Relaxed", start: int, n: int) -> tuple | None:
        """Where a form passes node `n`: the slopes of a function's lower and upper line, or the mixtures of a product's
        planes."""
        return None

    def multipliers(self, relaxed: "Relaxed", start: int, n: int) -> Array | None:
        """Of what is known of the entries of node `n`: at least 0 where it is a lower bound, at most 0 where an upper
        one."""
        return None


class Relaxed(Intervals):
    """Intervals narrowed by linear bounds of every operand of a function or product.

    Complexity: for each of them, the cost of its graph times its entries."""

    def __init__(self, ar: Arithmetic, graph: Graph, weights: dict, roots: Rewritten, cells: Cells,
                 lines: Lines | None = None, shared: bool = False):  # fmt: skip
        self.lines = lines or Lines()
        self._curves: dict[int, Curve] = {}
        self._defaults: dict[int, list] = {}
        self.rows: dict[int, int] = {}  # how many forms of a node are bounded
        super().__init__(ar, graph, weights, roots, cells, shared)

    def prepare(self) -> None:
        self.depth = (
            self._depths()
        )  # how many functions and products lie on the way from the input
        self.wanted = self._curved_operands()

    def refine(self, n: int) -> None:
        if n not in self.wanted or self._stable(n, self.wanted[n]):
            return
        if n in self.cells.whole:
            self.narrow(n, *self.cells.whole[n])
        else:
            self._refine(n, self._open(n))

    def output(self) -> Ends:
        """The root's interval, narrowed by its own linear bounds."""
        self._refine(self.root)
        return self.ends[self.root]

    def _refine(self, n: int, wanted: Array | None = None) -> None:
        self.narrow(n, *self.range(n, wanted))

    def _open(self, n: int) -> Array | None:
        """Which entries' intervals a line needs, where no others do: those whose sign is open, if only functions that
        are linear on either side read them. None: all, as where a witness has lines for each."""
        if type(self.lines) is not Lines or not self.wanted[n] <= KINKED:
            return None
        low, high = self.ends[n]
        return (low <= 0) & (high >= 0)

    def range(self, node: int, wanted: Array | None = None) -> Ends:
        """Linear bounds of the entries of a node that are `wanted`, booleans [cells or 1, *shape] (None: of all): two
        raw arrays [cells, *shape], infinite where nothing is bounded."""
        ar, xp, shape = self.ar, self.ar.xp, self.graph.nodes[node].shape
        some = ar.raw(np.ones((1, *shape), bool)) if wanted is None else wanted
        some = some.reshape(len(some), -1)
        rank = xp.cumsum(some, 1)  # of a wanted entry, among those of its cell
        rows = int(rank.max())
        values = [node, *(n for n in self.order if n not in self.fixed)]
        room = (
            len(self.cells) * 2 * max(prod(self.graph.nodes[n].shape) for n in values)
        )
        step = rows if type(self.lines) is not Lines else max(1, FORMS // room)
        reserve(room, min(step, rows))
        one, zero = (ar.rational(Fraction(v)).mid for v in (1, 0))
        nothing = ar.raw(np.full((len(self.cells), 1), -np.inf))
        ends: list[list] = [[nothing], [-nothing]]
        for start in range(0, rows, step):
            ranks = ar.raw(np.arange(start, min(start + step, rows))[:, None] + 1)
            eye = xp.where(some[:, None] & (rank[:, None] == ranks), one, zero)
            eye = eye.reshape(len(some), -1, *shape)
            low = self.form(node, ar.exact(xp.concatenate([eye, -eye], 1)))
            ends[0].append(low[:, : len(ranks)])
            ends[1].append(-low[:, len(ranks) :])
        cells = ar.raw(np.arange(len(self.cells)))[:, None]
        place = xp.where(some, rank, 0)
        low, high = (
            xp.concatenate(end, 1)[cells, place].reshape(-1, *shape) for end in ends
        )
        return low, high

    def form(self, start: int, coefficients: Ball):
        """Raw lower bounds [cells, rows] of linear forms [cells or 1, rows, *shape] of the entries of node `start`;
        -inf where a coefficient overflows, or meets what has no bound."""
        ar = self.ar
        self.rows[start] = coefficients.mid.shape[1]
        ar.spend(len(self.order), 1, 100)
        total, pending = ar.rational(Fraction(0)), {start: coefficients}
        for n in reversed(self.order[: self.place[start] + 1]):
            if n in self.cells.facts and (known := self._multiplied(start, n)):
                total, pending[n] = (
                    ar.add(total, known[0]),
                    ar.add(pending[n], known[1]) if n in pending else known[1],
                )
            if n not in pending:
                continue
            k, loss = self._centred(n, pending.pop(n))
            ar.spend(prod(k.mid.shape), 10, 1)
            forms, rest = self._back(start, n, k)
            for constant in (loss, rest):
                total = total if constant is None else ar.add(total, constant)
            for operand, form in forms:
                pending[operand] = (
                    ar.add(pending[operand], form) if operand in pending else form
                )
        if ONE_HOT in pending:
            total = ar.add(total, self._least_of_tokens(pending.pop(ONE_HOT)))
        if pending:
            raise Rejected(f"forms of nodes {sorted(pending)} were left behind")
        low, _ = ar.ends(total)
        return ar.xp.broadcast_to(low, (len(self.cells), low.shape[-1]))

    def _centred(self, n: int, k: Ball) -> tuple[Ball, Ball | None]:
        """The form's centres, and a number that is not above what the radii add to it: minus the sum of these, each
        times the largest size of its entry. A coefficient of an entry that has no bound stays as it is."""
        ar, xp = self.ar, self.ar.xp
        if not (ar.rounds and np.any(k.rad)):
            return k, None
        size = xp.maximum(-self.ends[n][0], self.ends[n][1])
        known, size = xp.isfinite(size)[:, None], ar.point(self.finite(size))
        if known.all():
            return k.point, -self.dot(ar.point(k.rad), size)
        radii = ar.point(xp.where(known, k.rad, 0.0))
        return ar.where(known, k.point, k), -self.dot(radii, size)

    def _back(self, start: int, n: int, k: Ball) -> tuple[Forms, Ball | None]:
        """Forms of earlier nodes and a number that are together not above a form of node n."""
        if n in self.other and n != start:
            return [(self.other[n], k)], None
        if n in self.fixed:
            return [], self.dot(k, self.balls[n])
        return row_of(self.graph.nodes[n].op).back(self, start, n, k)

    def _multiplied(self, start: int, n: int) -> tuple[Ball, Ball] | None:
        """-m (z - b) as a constant and a form, for the entries z of node n, their multipliers m and known bounds b: it
        is not positive, so that adding it to a form leaves a lower bound (beta-CROWN: Wang et al. 2021, arXiv
        2103.06624)."""
        ar, m = self.ar, self.lines.multipliers(self, start, n)
        if m is None:
            return None
        floor, ceiling = (end[:, None] for end in self.cells.facts[n])
        bound = ar.xp.where(m == 0, 0 * m, ar.xp.where(m > 0, floor, ceiling))
        if not ar.xp.isfinite(bound).all():
            raise Rejected("a multiplier of what is not known")
        form = -ar.exact(m)
        return -self.dot(form, ar.exact(bound), rows=True), form

    def _depths(self) -> dict[int, int]:
        depth: dict[int, int] = {}
        for n in self.order:
            node = self.graph.nodes[n]
            depth[n] = (
                0
                if n in self.fixed
                else max((depth[a] for a in node.args), default=0) + (n in self.curved)
            )
        return depth

    def _curved_operands(self) -> dict[int, set[str]]:
        """The nodes whose intervals decide how tight a line is; through views, and not the values of functions,
        whose intervals follow from their operands'."""
        wanted: dict[int, set[str]] = {}
        for n in self.order:
            node = self.graph.nodes[n]
            if n in self.curved:
                for operand in node.args:
                    while self.graph.nodes[operand].op == "view":
                        self.ar.step(1, 0, 100)
                        (operand,) = self.graph.nodes[operand].args
                    if (
                        not is_function(self.graph.nodes[operand])
                        and self.graph.nodes[operand].op != "input"
                    ):
                        wanted.setdefault(operand, set()).add(node.op)
        return {n: ops for n, ops in wanted.items() if n not in self.fixed}

    def _stable(self, n: int, ops: set[str]) -> bool:
        """The interval already decides the sign of every argument, and only functions that are linear then read it."""
        low, high = self.ends[n]
        return ops <= KINKED and bool(((low > 0) | (high < 0)).all())

    def through_function(self, start: int, n: int, k: Ball) -> tuple[Forms, Ball]:
        """By the lines of a witness, or the default ones."""
        ar, x = self.ar, self.graph.nodes[n].args[0]
        if (signs := self._signs(n)) is not None:
            return [(x, ar.mul(k, signs))], ar.rational(Fraction(0))
        given = self.lines.choose(self, start, n)
        if given is None:
            if n not in self._defaults:
                self._defaults[n] = self._lines(n, *self.default_slopes(n))
            lines = self._defaults[n]
        else:
            lines = self._lines(n, *(ar.exact(a) for a in given))
        (form,), total = self.bent(n, k, lines)
        return [(x, form)], total

    def levelled(
        self, n: int, plane: list[Ball], upper: bool, use: Any
    ) -> tuple[list[Ball], Any]:
        """A plane below or above node n (slopes, constant), or where it is not to be used, or not finite, the end of
        the node's interval, which is a plane as well; and where there is none at all."""
        ar, xp = self.ar, self.ar.xp
        use = use & self.known_balls(*plane)
        level = self.ends[n][upper][:, None]
        missing = ~use & ~xp.isfinite(level)
        *slopes, constant = plane
        zero = ar.rational(Fraction(0))
        return [
            *(ar.where(use, s, zero) for s in slopes),
            ar.where(use, constant, ar.exact(self.finite(level))),
        ], missing

    def known_balls(self, *balls: Ball) -> Array:
        """Where all of them are finite."""
        known: Array = True
        for b in balls:
            low, high = self.ar.ends(b)
            known = known & self.ar.xp.isfinite(low) & self.ar.xp.isfinite(high)
        return known

    def bent(self, n: int, k: Ball, planes: list) -> tuple[list[Ball], Ball]:
        """A form of node n as forms of its operands and a constant, by planes [lower, upper] of slopes and constant,
        and where these are missing: k+ lower + k- upper, where k is the sum of k+ >= 0 and k- <= 0. A form whose
        coefficient needs a plane that is missing, or is no point, has no bound."""
        ar, xp = self.ar, self.ar.xp
        (lower, no_lower), (upper, no_upper) = planes
        nowhere = ((k.mid > 0) & no_lower) | ((k.mid < 0) & no_upper)
        if ar.rounds and np.any(k.rad):
            nowhere = nowhere | (k.rad != 0)  # a NaN is no point
        *forms, constants = (
            by_sign(ar, k.mid, *pair) for pair in zip(lower, upper, strict=True)
        )
        total = ar.sum(constants.map(lambda a: a.reshape(*a.shape[:2], -1)))
        if bool(nowhere.any()):
            rows = xp.where(
                nowhere.reshape(*nowhere.shape[:2], -1).any(-1), np.inf, 0.0
            )
            total = ar.add(total, ar.point(rows))
        return forms, total

    def _signs(self, n: int) -> Ball | None:
        """1 and 0 where a ReLU is the identity and where it is zero; None unless all of its entries are one or the
        other, in all cells."""
        x = self.graph.nodes[n].args[0]
        if self.graph.nodes[n].op != "relu" or not self._stable(x, {"relu"}):
            return None
        low = self.ends[x][0][:, None]
        return self.ar.exact(self.ar.xp.where(low > 0, 1.0, 0.0 * self.finite(low)))

    def curve(self, n: int) -> Curve:
        if n not in self._curves:
            node = self.graph.nodes[n]
            low, high = (end[:, None] for end in self.ends[node.args[0]])
            self._curves[n] = lines.curve(self.ar, function_of(node), low, high)
        return self._curves[n]

    def _lines(self, n: int, lower: Ball, upper: Ball) -> list:
        c = self.curve(n)
        return [self.levelled(n, [slope, lines.offset(self.ar, c, slope, side)], side, c.known)
                for slope, side in ((lower, False), (upper, True))]  # fmt: skip

    def default_slopes(self, n: int) -> tuple[Ball, Ball]:
        """Any slope is sound. The chord's; below a ReLU, that of the nearer side."""
        ar, c, xp = self.ar, self.curve(n), self.ar.xp
        x, y = c.points.mid, c.values.mid
        width, rise = x[-1] - x[0], y[-1] - y[0]
        zero, one = 0 * width, 1 + 0 * width
        lower = chord = self.finite(rise / xp.where(width > 0, width, one))
        if self.graph.nodes[n].op == "relu":
            lower = xp.where(x[-1] > -x[0], one, zero)
        return ar.exact(lower), ar.exact(chord)

    def _least_of_tokens(self, form: Ball) -> Ball:
        """For each position the least coefficient of a token allowed there, added up: exact."""
        ar, xp = self.ar, self.ar.xp
        low, _ = ar.ends(form)
        by_position = low.reshape(*low.shape[:2], self.graph.length, -1)
        allowed = ar.raw(self.cells.allowed[:, None])
        least = xp.amin(xp.where(allowed, by_position, np.inf), 3)
        return ar.sum(ar.point(least))
