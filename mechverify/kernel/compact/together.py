"""Leads over all rivals at once, in each part of a ratio form by itself.

Lemma K4 (docs/soundness/compact.md).
"""

import numpy as np

from mechverify.kernel.compact.chains import least
from mechverify.kernel.compact.enclosed import Enclosed
from mechverify.kernel.core.arithmetic import Arithmetic, Ball, points


def leads(tables: Enclosed) -> tuple[Ball, Ball]:
    """For each right output the smallest lead, in each part by itself: [query or 1, out], [token, out]."""
    ar = tables.ar
    place = least(ar, _over_all(ar, tables.position), 0).at[None]
    base = ar.add(place, _over_all(ar, tables.fixed))
    base = ar.sub(base, ar.rational(tables.margin))
    base = ar.add(_over_all(ar, tables.base), base)
    return base, _over_all(ar, tables.value)


def _over_all(ar: Arithmetic, x: Ball) -> Ball:
    """[rows, out]: each entry minus the greatest of the others in its row."""
    high = np.broadcast_to(ar.upper(x), x.mid.shape)
    ar.spend(2 * high.size)
    at, first = high.argmax(1)[:, None], high.max(1, keepdims=True)
    is_first = np.arange(high.shape[1]) == at
    second = np.where(is_first, high.min(), high).max(1, keepdims=True)
    return ar.sub(x, points(np.where(is_first, second, first), x.exponent))
