"""Values on single inputs as linear forms of disturbances, so that what disturbs several values at once cancels.

What a float32 program computes is `rest + sum_j terms_j s_j`, with a number s_j between -1 and 1 for each disturbance
that is told apart, and a ball `rest` for all that isn't. Balls alone add the error of a residual stream once for every
road that it takes; a form adds it once (affine arithmetic: Stolfi, de Figueiredo 1997).

Lemma O5 (docs/soundness/options.md).
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Any, NamedTuple

import numpy as np

from mechverify.kernel.core.arithmetic import Ball, points
from mechverify.kernel.core.errors import OverLimit, Rejected, Unsupported
from mechverify.kernel.core.evaluate import Evaluation
from mechverify.kernel.core.graph import Graph
from mechverify.kernel.core.judging import Sure, refine
from mechverify.kernel.core.meter import ROOM, reserve
from mechverify.kernel.core.operations import Node, is_function, row_of
from mechverify.kernel.core.operations.functions import function_of
from mechverify.kernel.core.operations.rounding import disturbed
from mechverify.kernel.core.operations.softmax import kept
from mechverify.kernel.core.rough import Leading, Rough, even
from mechverify.kernel.core.semantics import Real
from mechverify.kernel.core.share import ShareClaim

LINEAR = ("view", "select", "concat", "pick", "add", "sub", "over_root")
BILINEAR = ("mul", "einsum")
DIGITS = 40  # of a sum of coefficients' sizes
MOST = 2**12  # disturbances: so many numbers of DIGITS add up exactly
STEEP = 2.0**-500  # below it, no chord of what bends without end at zero


class Form(NamedTuple):
    """`rest` [*batch, *shape]; `terms` points [*batch, n, *shape]: coefficients of the disturbances start, start + 1,
    .., start + n - 1, or None where there are none."""

    rest: Ball
    terms: Ball | None = None
    start: int = 0

    @property
    def end(self) -> int:
        return (
            self.start if self.terms is None else self.start + self.terms.mid.shape[1]
        )


class Forms(Evaluation):
    """As `Evaluation` of a graph with disturbances, where a node's ball is that of its form.

    What a residual stream, a normalised vector or a score may be off by is told apart, entry by entry; with `folded`,
    only back to the last addition of two values, which takes less and tells less. A form is forgotten once all that
    read it is known. Complexity: that of an evaluation, times the disturbances told apart.
    """

    def __init__(
        self,
        graph: Graph,
        weights: dict[str, np.ndarray],
        semantics: Real,
        tokens: np.ndarray,
        folded: bool = False,
    ):
        super().__init__(graph, weights, semantics, tokens)
        self.ar, self.folded, self.told = semantics.ar, folded, 0
        self.rough = Rough(
            self.ar.limit - self.ar.work
        )  # of coefficients, which need few digits
        self.wide = Evaluation(
            graph, weights, Leading(self.rough), tokens[:, None]
        )  # of a batch axis of disturbances
        self.readers: dict[int, int] = {}
        self.balls: dict[int, Ball] = {}

    def __getitem__(self, node: int) -> Any:
        order = [n for n in self.graph.ancestors([node]) if n not in self.values]
        varying = {*self.graph.varying([node])}
        for n in order:
            for a in self.graph.nodes[n].args:
                self.readers[a] = self.readers.get(a, 0) + 1
        for n in order:
            self.values[n] = self._form(n, varying)
            for a in self.graph.nodes[n].args:
                self.readers[a] -= 1
                if not self.readers[a]:
                    del self.values[a]
                    self.balls.pop(a, None)
        self.ar.ops += self.rough.ops
        self.ar.work += self.rough.work
        self.rough.ops = self.rough.work = 0
        return self._ball(node)

    def _ball(self, n: int) -> Any:
        form = self.values[n]
        if not isinstance(form, Form):
            return form
        if n not in self.balls:
            self.balls[n] = self._whole(form)
        return self.balls[n]

    def _whole(self, form: Form) -> Ball:
        return (
            form.rest
            if form.terms is None
            else self._widened(form.rest, self._reach(form.terms))
        )

    def _form(self, n: int, varying: set[int]) -> Any:
        node = self.graph.nodes[n]
        forms: list[Any] = [self.values[a] for a in node.args]
        if node.kind != "real":
            return row_of(node.op).value(self, node, forms)
        if node.op == "rounding":
            return self._disturbed(
                node, forms, {a for a in node.args[1:] if a in varying}
            )
        if node.op == "softmax" and n in varying:
            return self._softmax(node, forms[0])
        if any(isinstance(f, Form) and f.terms is not None for f in forms):
            if node.op in LINEAR:
                return self._linear(node, forms)
            if node.op in BILINEAR:
                return self._product(node, *forms)
            if is_function(node):
                return self._function(node, forms[0])
        return Form(self._compute(node, [self._ball(a) for a in node.args]))

    # --- by kind of operation -----------------------------------------------------------------------------------------

    def _linear(self, node: Node, forms: list[Any]) -> Form:
        """Linear in its real operands together: the same of their coefficients."""
        rest = self._compute(
            node, [f.rest if isinstance(f, Form) else f for f in forms]
        )
        columns, start = self._columns(forms)
        return self._collected(
            rest, row_of(node.op).value(self.wide, node, columns), start
        )

    def _product(self, node: Node, x: Form, y: Form) -> Form:
        """(a + d) (b + e) = a b + d b + a e + d e, d and e being what disturbances make of each: d e is an error, and
        so is what d makes of b's radius."""
        rest, parts = self._compute(node, [x.rest, y.rest]), []
        for form, *operands in ((x, x.terms, _fixed(y)), (y, _fixed(x), y.terms)):
            if form.terms is not None:
                parts.append(
                    Form(
                        rest,
                        row_of(node.op).value(self.wide, node, operands),
                        form.start,
                    )
                )
        d, e = (
            self._about_zero(None if f.terms is None else self._reach(f.terms).mid)
            for f in (x, y)
        )
        r, s = (
            self._about_zero(f.rest.rad if np.any(f.rest.rad) else None, f.rest)
            for f in (x, y)
        )
        for first, second in ((d, s), (r, e), (d, e)):
            if first is not None and second is not None:
                rest = self._widened(rest, self._compute(node, [first, second]).size)
        if len(parts) == 1:
            return self._collected(rest, parts[0].terms, parts[0].start)
        columns, start = self._columns(parts)
        return self._collected(rest, self.rough.add(*columns), start)

    def _function(self, node: Node, x: Form) -> Form:
        """f(x) = s x + g(x) for any slope s; on an interval g lies between the least and the greatest of its values at
        the ends (and where it has a corner), up to |f''| h^2 / 8, as f'' = g''."""
        ar, f, whole = self.ar, function_of(node), self._whole(x)
        low, high = ar.ends(whole)
        least, most = f.reach
        told = (low >= max(least, STEEP if f.positive or f.root else least)) & (
            high <= most
        )
        low, high = np.where(told, low, 1.0), np.where(told, high, 1.0)
        ends = [ar.exact(low), ar.exact(high)]
        values = [ar.value(f, end) for end in ends]
        run = high - low
        slope = np.where(
            run > 0, (values[1].mid - values[0].mid) / np.where(run > 0, run, 1.0), 0.0
        )
        told, slope = (
            told & np.isfinite(slope),
            np.where(np.isfinite(slope), slope, 0.0),
        )
        bend = np.maximum(*(b.size.mid for b in f.bend(ar, *ends, *values)))
        if f.breakpoint:
            ends.append(ar.exact(np.clip(0.0, low, high)))
            values.append(ar.value(f, ends[-1]))
        s, width = ar.exact(slope), ar.sub(ends[1], ends[0])
        g = self._hull(
            [
                ar.sub(value, ar.mul(s, end))
                for value, end in zip(values, ends, strict=True)
            ]
        )
        g = ar.widen(g, 1 / 8, of=ar.mul(ar.mul(width, width), points(bend)).size)
        rest = ar.add(ar.mul(s, x.rest), g)
        if not told.all():
            rest = ar.where(told, rest, ar.value(f, whole))  # the slope is zero there
        if x.terms is None:
            return Form(rest)
        return self._collected(
            rest, self.rough.mul(points(slope[:, None]), x.terms), x.start
        )

    def _softmax(self, node: Node, scores: Form) -> Form:
        """e_i / sum_j e_j with e_i = e^(s_i - c), c the largest centre: each step a form."""
        ar, mask, zero = self.ar, kept(node), self.ar.whole(np.zeros(1, np.int64))
        rest, terms, start = self._own(scores)
        top = points(np.where(mask, rest.mid, -np.inf).max(-1, keepdims=True))
        rest = ar.where(mask, ar.sub(rest, top), zero)
        e: Any = self._masked(
            self._function(EXP, Form(rest, ar.where(mask, terms, zero), start)), mask
        )
        total = self._collected(
            ar.sum(e.rest).at[..., None], self.rough.sum(e.terms).at[..., None], start
        )
        whole = node._replace(op="mul", attr=None)
        return self._masked(
            self._product(whole, e, self._function(RECIPROCAL, total)), mask
        )

    def _disturbed(self, node: Node, forms: list[Any], varying: set[int]) -> Form:
        """The operation's form, widened as `terms` says of its operands' balls."""
        ball, *balls = map(self._ball, node.args)
        zero, rank = points(np.zeros(ball.mid.shape)), len(node.shape)
        off = disturbed(
            self.ar, node.attr, ball, balls, lambda x: self.align(x, rank), zero
        )
        raw = forms[0]._replace(rest=self._widened(forms[0].rest, off))
        if node.attr[0] == "add" and len(varying) == 2:
            return self._own(Form(self._whole(raw)) if self.folded else raw)
        return self._own(raw) if node.attr[0] == "norm" else raw

    # --- parts --------------------------------------------------------------------------------------------------------

    def _masked(self, x: Any, mask: np.ndarray) -> Form:
        zero = self.ar.whole(np.zeros(1, np.int64))
        return x._replace(
            rest=self.ar.where(mask, x.rest, zero),
            terms=self.ar.where(mask, x.terms, zero),
        )

    def _own(self, form: Form) -> Any:
        """What each entry may be off by becomes a disturbance of its own."""
        mid, rad = np.broadcast_arrays(form.rest.mid, form.rest.rad)
        batch, shape = len(mid), mid.shape[1:]
        count = prod(shape)
        start = self.told if form.terms is None else form.start
        before = self.told - start
        reserve(batch, before + count, count)
        columns, own = (
            np.zeros((batch, before + count, *shape)),
            np.zeros((batch, count, count)),
        )
        if form.terms is not None:
            columns[:, : form.end - start] = form.terms.mid
        own[:, np.arange(count), np.arange(count)] = rad.reshape(batch, count)
        columns[:, before:] = own.reshape(batch, count, *shape)
        self.told += count
        return Form(points(mid), points(columns), start)

    def _columns(self, forms: list[Any]) -> tuple[list[Any], int]:
        """Coefficients of the same disturbances, and what isn't real with an axis for these."""
        moved = [f for f in forms if isinstance(f, Form) and f.terms is not None]
        start, end = min(f.start for f in moved), max(f.end for f in moved)

        def columns(f: Any) -> Any:
            if not isinstance(f, Form):
                return np.reshape(f, (-1, 1))
            if f.terms is None:
                return points(np.zeros((1, 1, *f.rest.mid.shape[1:])))
            if (f.start, f.end) == (start, end):
                return f.terms
            batch, _, *shape = f.terms.mid.shape
            reserve(batch, end - start, *shape)
            padded = np.zeros((batch, end - start, *shape))
            padded[:, f.start - start : f.end - start] = f.terms.mid
            return even(padded, f.terms.rad)

        return [columns(f) for f in forms], start

    def _collected(self, rest: Ball, terms: Ball, start: int) -> Form:
        """What rounding made of the coefficients, each of them, is an error."""
        lost = float(np.max(terms.rad, initial=0.0))
        if lost:
            rest = self.ar.widen(rest, 0.0, lost * terms.mid.shape[1] * (1 + 2.0**-40))
        return Form(rest, points(terms.mid), start)

    def _reach(self, terms: Ball) -> Ball:
        """At least the sum of the coefficients' sizes: these as integers, whose sum is exact in any order; and one
        more, for what underflows."""
        sizes = np.abs(terms.mid)
        if sizes.shape[1] > MOST:
            raise Unsupported(
                f"more than {MOST} disturbances of a program's values are told apart"
            )
        scale = 2.0 ** (DIGITS - int(np.frexp(np.max(sizes, initial=2.0**-500))[1]))
        sizes *= scale
        return points((np.ceil(sizes, out=sizes).sum(1) + 1) / scale)

    def _about_zero(
        self, rad: np.ndarray | None, of: Ball | None = None
    ) -> Ball | None:
        if rad is None:
            return None
        rad = rad if of is None else np.broadcast_to(rad, of.mid.shape)
        return Ball(np.zeros(rad.shape), rad)

    def _widened(self, x: Ball, by: Ball) -> Ball:
        return self.ar.widen(x, 1.0, of=by)

    def _hull(self, balls: list[Ball]) -> Ball:
        ends = [self.ar.ends(b) for b in balls]
        low, high = (
            np.minimum.reduce([e[0] for e in ends]),
            np.maximum.reduce([e[1] for e in ends]),
        )
        mid = points((low + high) / 2)
        off = [self.ar.sub(self.ar.point(end), mid).size.mid for end in (low, high)]
        return self.ar.widen(mid, 1.0, of=points(np.maximum(*off)))


def _fixed(x: Form) -> Ball:
    return points(x.rest.mid[:, None])


EXP, RECIPROCAL = (Node(name, (0,), None, "real", ()) for name in ("exp", "reciprocal"))


@dataclass(frozen=True, eq=False)
class ShareOfPrograms(ShareClaim):
    """Inputs that balls leave open are judged once more by forms: by those with fewer disturbances first."""

    def judge(self, values: Evaluation) -> Sure:
        return finely(values, self, lambda known: ShareClaim.judge(self, known))


def finely(values: Evaluation, claim: Any, judge: Callable[[Evaluation], Sure]) -> Sure:
    """What `judge` says of these inputs, of those that are left open by forms."""
    inputs, semantics = values.tokens, values.semantics
    sure = np.zeros(len(inputs), bool), np.zeros(len(inputs), bool)
    refine(sure, inputs, len(inputs), lambda _: _judged(judge, values))
    values.values.clear()
    step = 0 if semantics.ar.is_exact else together(values.graph, claim.judged)
    model = values.graph, values.weights, semantics
    if step:
        refine(
            sure,
            inputs,
            step,
            lambda some: _judged(judge, Forms(*model, some, folded=True)),
        )
        refine(sure, inputs, step, lambda some: _judged(judge, Forms(*model, some)))
    return sure


def _judged(judge: Callable[[Evaluation], Sure], values: Evaluation) -> Sure:
    """What has no bound with so wide balls is open, too."""
    try:
        return judge(values)
    except OverLimit:
        raise
    except Unsupported as error:
        raise Rejected(str(error)) from None


def together(graph: Graph, roots: list[int]) -> int:
    """Of how many inputs forms are evaluated at a time; none where even one takes too much memory."""
    sizes = [prod(graph.nodes[n].shape) for n in graph.varying(roots)]
    told = sum(
        prod(graph.nodes[n].shape)
        for n in graph.varying(roots)
        if _is_own(graph.nodes[n])
    )
    return min(2**6, ROOM // (told * max(sizes) or 1)) if told <= MOST else 0


def _is_own(node: Node) -> bool:
    return node.op == "softmax" or (
        node.op == "rounding" and node.attr[0] in ("add", "norm")
    )
