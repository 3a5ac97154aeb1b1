"""By how much the right output leads over its rivals, in each part of a ratio form: what rule `compact` adds up.

Lemma K4 (docs/soundness/compact.md).
"""

from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import numpy as np

from mechverify.kernel.compact.chains import least
from mechverify.kernel.compact.enclosed import Enclosed
from mechverify.kernel.core.arithmetic import Arithmetic, Ball

if TYPE_CHECKING:
    from mechverify.kernel.compact.apart import Joint

RIVALS = ("together", "scaled", "apart")


class Parts(NamedTuple):
    """Lower bounds, up to a positive number for each rival, of the smallest lead over any rival: the sum of `query`
    [queries] and `token` [tokens]."""

    query: Ball
    token: Ball

    def of(self, ar: Arithmetic, at: np.ndarray) -> Ball:
        """At token number `at[i]` of the i-th query."""
        return ar.add(self.query, self.token.at[at])

    def table(self, ar: Arithmetic) -> Ball:
        """[queries, tokens]."""
        return ar.add(self.query.at[:, None], self.token.at[None])


Lead: TypeAlias = "Parts | Joint"


class Leads:
    """With D the lead in the query's part, V the least over positions, U in a token's part, for the rival n: a sum of
    positive factors times D_n + V_n + U_n is positive if it is for some l_n > 0 times that, so every l is sound, and so
    is the least over n of any part by itself."""

    def __init__(self, tables: Enclosed):
        self.tables, self.ar = tables, tables.ar

    def lead(
        self,
        rivals: str,
        right: int,
        queries: np.ndarray,
        tokens: np.ndarray,
        unit: int | None,
    ) -> Lead:
        """Complexity, with q queries, t tokens, n rivals: q + t (`together`, after one pass over the tables), 3 q n + 4
        t n (`scaled`), and 2 q t n more (`apart`)."""
        if rivals == "together":
            base, token = self._together
            query = base.map(
                lambda a: np.broadcast_to(a, (self.tables.vocab, a.shape[1]))[
                    queries, right
                ]
            )
            token = token.at[tokens, right]
            return Parts(self._less(query, queries), token)
        base, token, largest = self._scaled(right, queries, tokens, unit)
        if rivals == "scaled":
            query = least(self.ar, base, 1)
            query = query.map(lambda a: np.broadcast_to(a, len(queries)))
            return Parts(self._less(query, queries, largest), least(self.ar, token, 1))
        from mechverify.kernel.compact.apart import Joint, leads

        joint = leads(self.ar, base, token)
        joint = joint.map(lambda a: np.broadcast_to(a, (len(queries), len(tokens))))
        return Joint(self._less(joint, queries, largest))

    def _less(self, x: Ball, queries: np.ndarray, largest: Ball | None = None) -> Ball:
        """Minus what the query's row may differ from the row that stands for all (see Enclosed), times the largest
        l."""
        spread = self.tables.spread
        if spread is None:
            return x
        spread = spread.map(lambda a: a[queries].reshape(-1, *(1,) * (x.mid.ndim - 1)))
        return self.ar.sub(
            x, spread if largest is None else self.ar.mul(spread, largest)
        )

    @cached_property
    def _together(self) -> tuple[Ball, Ball]:
        """For each right output the smallest lead, in each part by itself: [query or 1, out], [token, out]."""
        from mechverify.kernel.compact.together import leads

        return leads(self.tables)

    def _scaled(
        self, right: int, queries: np.ndarray, tokens: np.ndarray, unit: int | None
    ) -> tuple[Ball, Ball, Ball]:
        """l D [query or 1, rivals], l (U + V) [token, rivals], and the largest l; where one row of D stands for all, it
        is added to the tokens'. l_n is near 1 / (U_n + V_n) at token number `unit`, where the right output should lead:
        so the leads over all rivals are alike, and little is lost by taking the least in each part."""
        ar, tables = self.ar, self.tables
        others = np.delete(np.arange(tables.outputs), right)

        def over_each(x: Ball) -> Ball:
            return ar.sub(x.at[:, [right]], x.at[:, others])

        rest = ar.add(
            least(ar, over_each(tables.position), 0).at[None], over_each(tables.fixed)
        )
        rest = ar.sub(rest, ar.rational(tables.margin))
        one = len(tables.base.mid) == 1
        base = over_each(tables.base if one else tables.base.at[queries])
        token = ar.add(
            over_each(tables.value.at[tokens]), ar.add(rest, base) if one else rest
        )
        inverse = np.ones(len(others))
        if unit is not None:
            inverse = _inverse(ar.approximate(token.at[unit]))
        scale = ar.exact(inverse[None])
        base = (
            ar.whole(np.zeros((1, len(others)), np.int64))
            if one
            else ar.mul(base, scale)
        )
        return base, ar.mul(token, scale), ar.exact(inverse.max(keepdims=True))


def _inverse(size: np.ndarray) -> np.ndarray:
    """Positive numbers of few bits near 1 / size; ones, where that can't be had."""
    top = size.max()
    if not (top > 0 and np.isfinite(top)):
        return np.ones(len(size))
    fraction, power = np.frexp(1 / np.maximum(size, top / 64))
    return np.ldexp(np.rint(fraction * 2**12), power - 12)
