"""What rule `compact` reads of a model: the parts of ratio form, multiplied out or enclosed as a witness asks.

Everything is kept up to positive factors of a query token's row, which change no sign: exponentials are divided by a
power of two near the largest of their row.

Lemma K2 (docs/soundness/compact.md).
"""

from typing import TYPE_CHECKING

import numpy as np

from mechverify.kernel.compact.chains import Chain, product
from mechverify.kernel.compact.parts import PartsForm, output_parts
from mechverify.kernel.core.arithmetic import Ball
from mechverify.kernel.core.claim import Job
from mechverify.kernel.core.domain import Domain
from mechverify.kernel.core.errors import Rejected, Unsupported
from mechverify.kernel.core.series import exp_parts, relative_exponentials

if TYPE_CHECKING:
    from mechverify.kernel.compact.peeled import Peeled

BITS = 24  # to which exponentials are summed: far less than a cell's sum depends on


class Enclosed:
    """Tables of one model: `factor` [query, token] and `place` [query, position] with e^score = factor place, up to a
    number for each query; `value` [token, out], `position` [position, out], `base` [query, out] up to `spread` [query]
    and `fixed` [1, out] as in PartsForm."""

    def __init__(self, job: Job, domain: Domain, peeled: "Peeled | None", mean: bool):
        claim, self.ar = job.claim, job.ar
        self.form: PartsForm = job.once(output_parts)
        self.values, self.outputs, self.margin = (
            claim.graph.values,
            claim.outputs,
            claim.margin,
        )
        self.vocab = len(self.values)
        self.running: dict[bool, Ball] = {}  # what order.py makes of `factor`
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

    def _factor(self, peeled: "Peeled | None") -> Ball:
        ar, score = self.ar, self.form.score
        if ("query", "token") not in score:
            raise Unsupported(
                "scores don't depend on the query's token and the token attended to"
            )
        chain, blur = score["query", "token"], None
        if peeled is None:
            table = product(ar, chain)
        else:
            if len(chain) < 2 or {len(peeled.left), len(peeled.right)} != {self.vocab}:
                raise Rejected("vectors that don't fit the scores")
            from mechverify.kernel.compact.peeled import along_rows, factors

            table, width = along_rows(ar, chain, peeled)
            blur, self.wide = factors(ar, width)
        if ("fixed", "token") in score:
            table = ar.add(table, product(ar, score["fixed", "token"]))
        factor = relative_exponentials(ar, exp_parts(ar, table, BITS), self.allowed, 1)
        return factor if blur is None else ar.mul(factor, blur)

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
        """All rows; or one near their mean, and its spread."""
        ar, parts = self.ar, self.form.base
        if not mean or "query" not in parts:
            return self._table(parts, "query", 1), None
        rows, *rest = parts["query"]
        if not rest:
            raise Rejected("base is one table already: no row stands for all")
        from mechverify.kernel.compact.peeled import mean_row, spread

        row, right = mean_row(ar, rows), product(ar, tuple(rest))
        return product(ar, (row, right)), spread(ar, rows, row, right.map(np.transpose))
