"""Tokens, and the rows of a table at them."""

from typing import TYPE_CHECKING, Any

import numpy as np

from mechverify.kernel.core.meter import reserve
from mechverify.kernel.core.operations.weights import table
from mechverify.kernel.relaxation.operations import ONE_HOT, Curved, Row, no_tokens

if TYPE_CHECKING:
    from mechverify.kernel.relaxation.intervals import Intervals


class Tokens(Row):
    def positions(self, known, n):
        return np.arange(known.graph.length)

    def reads(self, graph, node, args):
        return np.eye(graph.length, dtype=bool)


class Gather(Curved):
    """A form of embeddings is one of one-hot tokens."""

    def bends(self, known, n):
        return False

    def ends(self, known, n, found):
        rows = self._table(known, n)
        low, high = (self._least(known, n, sign * rows) for sign in (1, -1))
        return low, -high

    def back(self, known, start, n, k):
        ar, rows = known.ar, self._table(known, n)
        ids = known.graph.nodes[n].args[1]
        places, vocabulary, length = (
            known.positions[ids].ravel(),
            len(rows),
            known.graph.length,
        )
        reserve(*k.mid.shape[:2], length, vocabulary)
        by_place = k.map(lambda a: a.reshape(*a.shape[:2], len(places), -1))
        by_token = ar.exact(rows.reshape(1, 1, len(rows), -1))
        scores = ar.contract("pd,vd->pv", by_place, by_token)
        at = places[:, None] * len(rows) + np.arange(len(rows))
        flat = scores.map(lambda a: a.reshape(*a.shape[:2], -1))
        one_hot = ar.scatter(flat, at.ravel(), length * vocabulary)
        return [(ONE_HOT, one_hot)], None

    def _table(self, known: "Intervals", n: int) -> Any:
        rows = known.graph.nodes[known.graph.nodes[n].args[0]]
        return known.ar.raw(table(known.weights, rows)[: len(known.graph.values)])

    def _least(self, known: "Intervals", n: int, rows: Any) -> Any:
        """The least entry of a table [vocabulary, ...] over the tokens allowed at each position: [cells, *ids, ...]."""
        places = known.positions[known.graph.nodes[n].args[1]]
        allowed = known.cells.allowed[:, places]
        reserve(*allowed.shape, *rows.shape[1:])
        allowed = known.ar.raw(
            allowed.reshape(*allowed.shape, *(1,) * (len(rows.shape) - 1))
        )
        return known.ar.xp.amin(
            known.ar.xp.where(allowed, rows, np.inf), 1 + places.ndim
        )

    def reads(self, graph, node, args):
        ids = args[1]
        rank = len(node.shape) - ids.ndim + 1
        return no_tokens(graph, node) | ids.reshape(
            *ids.shape[:-1], *(1,) * rank, graph.length
        )


ROWS = {"tokens": Tokens(), "gather": Gather()}
