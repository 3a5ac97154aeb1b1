"""What rule `compact` reads of a model: the parts of ratio form, multiplied out or enclosed as a witness asks.

Everything is kept up to positive factors of a query token's row, which change no sign: exponentials are divided by a
power of two near the largest of their row.

Lemma K2 (docs/soundness/compact.md).
"""

from fractions import Fraction

import numpy as np

from mechverify.kernel.compact.chains import (
    Chain,
    Peeled,
    along_rows,
    lengths,
    longest,
    magnitude,
    mean_row,
    product,
)
from mechverify.kernel.compact.parts import PartsForm, output_parts
from mechverify.kernel.core.arithmetic import Ball, points
from mechverify.kernel.core.claim import Job
from mechverify.kernel.core.domain import Domain
from mechverify.kernel.core.errors import Rejected, Unsupported
from mechverify.kernel.core.series import exp, exp_parts, relative_exponentials

BITS = 24  # to which exponentials are summed: far less than a cell's sum depends on
WIDEST = 500  # of a row of scores, whose exponentials float64 can hold


class Enclosed:
    """Tables of one model: `factor` [query, token] and `place` [query, position] with e^score = factor place, up to a
    number for each query; `value` [token, out], `position` [position, out], `base` [query, out] up to `spread` [query]
    and `fixed` [1, out] as in PartsForm."""

    def __init__(self, job: Job, domain: Domain, peeled: Peeled | None, mean: bool):
        claim, self.ar = job.claim, job.ar
        self.form: PartsForm = job.once(output_parts)
        self.values, self.outputs, self.margin = (
            claim.graph.values,
            claim.outputs,
            claim.margin,
        )
        self.vocab = len(self.values)
        self._running: dict[bool, Ball] = {}
        if self.outputs < 2:
            raise Unsupported("rule compact needs an output that has rivals")
        self.allowed = np.zeros(self.vocab, bool)
        self.allowed[sorted(set().union(*domain.tokens))] = True
        self.wide = np.zeros(self.vocab, bool)
        self.factor, self.place = self._factor(peeled), self._place()
        self.value = self._table(self.form.value, "token", self.vocab)
        self.position = self._table(self.form.value, "position", None).at[
            : self.form.attended
        ]
        self.fixed = self._table(self.form.base, "fixed", 1)
        self.base, self.spread = self._base(mean)

    def _table(self, parts: dict[str, Chain], what: str, rows: int | None) -> Ball:
        if what in parts:
            return product(self.ar, parts[what])
        return self.ar.whole(
            np.zeros((rows or self.form.attended, self.outputs), np.int64)
        )

    def _factor(self, peeled: Peeled | None) -> Ball:
        ar, score = self.ar, self.form.score
        if ("query", "token") not in score:
            raise Unsupported(
                "scores don't depend on the query's token and the token attended to"
            )
        chain = score["query", "token"]
        if peeled is not None and (
            len(chain) < 2 or not len(peeled.left) == len(peeled.right) == self.vocab
        ):
            raise Rejected("vectors that don't fit the scores")
        table, width = along_rows(ar, chain, peeled)
        if ("fixed", "token") in score:
            table = ar.add(table, product(ar, score["fixed", "token"]))
        factor = relative_exponentials(ar, exp_parts(ar, table, BITS), self.allowed, 1)
        if width is None:
            return factor
        half = ar.mul(magnitude(ar, width), ar.rational(Fraction(1, 2)))
        self.wide = ~(ar.upper(half) < ar.units(WIDEST, half.exponent))[:, 0]
        half = ar.where(self.wide[:, None], ar.rational(Fraction(0)), half)
        low, high = exp(ar, -half), exp(ar, half)
        return ar.mul(factor, self._hull(ar.bottom(low), ar.top(high)))

    def _hull(self, low: Ball, high: Ball) -> Ball:
        ar, half = self.ar, self.ar.rational(Fraction(1, 2))
        return ar.widen(
            ar.mul(ar.add(low, high), half), 1.0, of=ar.mul(ar.sub(high, low), half)
        )

    def _place(self) -> Ball:
        ar, score, n = self.ar, self.form.score, self.form.attended
        chains = [chain for (_, column), chain in score.items() if column == "position"]
        found = [product(ar, (*c[:-1], c[-1].at[:, :n])) for c in chains]
        if not found:
            return ar.whole(np.ones((1, n), np.int64))
        table = found[0] if len(found) == 1 else ar.add(*found)
        return relative_exponentials(
            ar, exp_parts(ar, table, BITS), np.ones(n, bool), 1
        )

    def _base(self, mean: bool) -> tuple[Ball, Ball | None]:
        """All rows; or one near their mean, and by how much differences of two entries of another row may differ from
        that row's: with x the difference of the rows and c any column, |x (w_a - w_b)| <= 2 |x| max_n |w_n - c|."""
        ar, parts = self.ar, self.form.base
        if not mean or "query" not in parts:
            return self._table(parts, "query", 1), None
        rows, *rest = parts["query"]
        if not rest:
            raise Rejected("base is one table already: no row stands for all")
        row, right = mean_row(ar, rows), product(ar, tuple(rest)).map(np.transpose)
        reach = longest(ar, ar.sub(right, mean_row(ar, right)))
        spread = ar.mul(ar.add(reach, reach), lengths(ar, ar.sub(rows, row)))
        return product(ar, (row, right.map(np.transpose))), spread

    def running(self, descending: bool) -> Ball:
        """The largest factor of a query over the first 1, 2, .. tokens in an order, upper bounds [query, vocab]."""
        if descending not in self._running:
            self.ar.spend(self.factor.mid.size)
            high = np.where(self.allowed, self.ar.upper(self.factor), 0)
            high = np.maximum.accumulate(high[:, ::-1] if descending else high, 1)
            self._running[descending] = points(high, self.factor.exponent)
        return self._running[descending]
