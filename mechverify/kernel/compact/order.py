"""Tokens that are kept in an order of the vocabulary: those up to some token.

Lemma K5 (docs/soundness/compact.md).
"""

from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np

from mechverify.kernel.compact.leads import Lead, Parts
from mechverify.kernel.core.arithmetic import Ball, aligned, points
from mechverify.kernel.core.errors import Rejected

if TYPE_CHECKING:
    from mechverify.kernel.compact.enclosed import Enclosed
    from mechverify.kernel.compact.rule import InputClass, Kept


def kept_in_order(
    input_class: "InputClass", lead: Lead, ends: np.ndarray, descending: bool
) -> "Kept":
    """The first `ends` [queries, levels] tokens of the vocabulary in an order. Over those, h is at least the least
    lead times, where that is negative, the largest factor."""
    ar, tables, at = (
        input_class.ar,
        input_class.tables,
        np.arange(len(input_class.queries)),
    )
    if not isinstance(lead, Parts):
        raise Rejected("tokens are kept in an order by leads in parts")
    ends = np.minimum(ends, tables.vocab)
    rank = tables.vocab - 1 - input_class.alive if descending else input_class.alive
    order = np.argsort(rank)
    ar.spend(len(order))
    running = np.minimum.accumulate(ar.lower(lead.token)[order])
    known = np.searchsorted(rank[order], ends)  # how many of the alive ones
    token = points(running[np.maximum(known - 1, 0)], lead.token.exponent)
    worst = ar.bottom(ar.add(lead.query.at[:, None], token))
    largest = _running(tables, descending).at[
        input_class.queries[:, None], np.maximum(ends - 1, 0)
    ]
    product = ar.where(worst.mid < 0, ar.mul(worst, largest), ar.rational(Fraction(0)))
    least, count = [], []
    for tokens in input_class.groups:
        if len(tokens) == 1:
            one = input_class.own(lead, np.full(len(at), tokens[0]))
            least.append(one.map(lambda a: np.tile(a, (ends.shape[1], 1))))
            count.append([np.full(len(at), c == 0) for c in range(ends.shape[1])])
        else:
            places = np.sort(tables.vocab - 1 - tokens if descending else tokens)
            first, *more = np.searchsorted(places, ends).T
            least.append(ar.bottom(product).map(np.transpose))
            count.append([first, *(np.maximum(n - first, 0) for n in more)])
    own, *least = aligned(ar, input_class.own(lead, input_class.queries), *least)
    return input_class.stacked([b.mid for b in least], count, own, ends.shape)


def _running(tables: "Enclosed", descending: bool) -> Ball:
    """The largest factor of a query over the first 1, 2, .. tokens in an order, upper bounds [query, vocab]."""
    if descending not in tables.running:
        tables.ar.spend(tables.factor.mid.size)
        high = np.where(tables.allowed, tables.ar.upper(tables.factor), 0)
        high = np.maximum.accumulate(high[:, ::-1] if descending else high, 1)
        tables.running[descending] = points(high, tables.factor.exponent)
    return tables.running[descending]
