"""By how much the right output leads over its rivals, in each part of a ratio form: what rule `compact` adds up.

Lemma K4 (docs/soundness/compact.md).
"""

from functools import cached_property
from typing import NamedTuple

import numpy as np

from mechverify.kernel.compact.enclosed import Enclosed
from mechverify.kernel.core.arithmetic import Arithmetic, Ball, points

RIVALS = ("together", "scaled", "apart")
BLOCK = 2**18  # leads over rivals that are held at a time


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


class Joint(NamedTuple):
    """The same, as one table [queries, tokens]."""

    joint: Ball

    def of(self, ar: Arithmetic, at: np.ndarray) -> Ball:
        return self.joint.at[np.arange(len(at)), at]

    def table(self, ar: Arithmetic) -> Ball:
        return self.joint


Lead = Parts | Joint


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
        joint = self._apart(base, token)
        joint = joint.map(lambda a: np.broadcast_to(a, (len(queries), len(tokens))))
        return Joint(self._less(joint, queries, largest))

    def _apart(self, base: Ball, token: Ball) -> Ball:
        """The least over the rivals [query or 1, token] of the sum of both [.., rivals], some queries at a time."""
        rows, found = max(1, BLOCK // token.mid.size), []
        for start in range(0, len(base.mid), rows):
            part = base.at[start : start + rows, None]
            both = self.ar.add(part, token.at[None])
            found.append(least(self.ar, both, 2))
        return points(np.concatenate([b.mid for b in found]), found[0].exponent)

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
        ar, tables = self.ar, self.tables
        place = least(ar, self._over_all(tables.position), 0).at[None]
        base = ar.add(place, self._over_all(tables.fixed))
        base = ar.add(
            self._over_all(tables.base), ar.sub(base, ar.rational(tables.margin))
        )
        return base, self._over_all(tables.value)

    def _over_all(self, x: Ball) -> Ball:
        """[rows, out]: each entry minus the greatest of the others in its row."""
        high = np.broadcast_to(self.ar.upper(x), x.mid.shape)
        self.ar.spend(2 * high.size)
        at, first = high.argmax(1)[:, None], high.max(1, keepdims=True)
        is_first = np.arange(high.shape[1]) == at
        second = np.where(is_first, high.min(), high).max(1, keepdims=True)
        return self.ar.sub(x, points(np.where(is_first, second, first), x.exponent))

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


def least(ar: Arithmetic, x: Ball, axis: int) -> Ball:
    """Lower bounds of the least along an axis, as points."""
    ar.spend(x.mid.size)
    return points(ar.lower(x).min(axis), x.exponent)
