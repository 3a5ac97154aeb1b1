"""Upper bounds of one position's row of the first layer, in given directions, for every window of two tokens.

In a box of tokens, a row's value is base + sum_g N_g / Z_g, sums of one-token terms over the positions that head g
attends to. A window is the row's own token and the one before it: their terms are known. For any number theta,

    N / Z = theta + (N - theta Z) / Z,    N - theta Z = sum_j e_j (u_j - theta),

and of the last sum the known terms are taken as they are, the others as large as a token of the box makes them. Masses
Z lie between sums of least and of greatest factors.

Lemma N2 (docs/soundness/nested.md).
"""

from typing import NamedTuple

import numpy as np

from mechverify.kernel.core.arithmetic import Arithmetic, Ball, aligned, points
from mechverify.kernel.core.meter import reserve
from mechverify.kernel.core.series import exp_parts, relative_exponentials
from mechverify.kernel.counting.form import SumOfRatios
from mechverify.kernel.nested.sums import Columns, Given, Term, Tokens, Window, window

PART = 2**18  # numbers that are treated at a time


class Row:
    """A row's sum of ratios, over all its tokens: `factor` [heads, own token, token, position], e^s up to a power of
    two for each head and own token, zero where it doesn't attend; `base` [own token, *shape] and `value` [heads, token,
    position, *shape]."""

    def __init__(self, ar: Arithmetic, form: SumOfRatios):
        self.pin, self.attends = form.pin, form.attends
        heads, _, vocab, length = form.score.mid.shape
        reserve(heads, vocab, vocab, length)
        alive = form.attends[:, None, None]
        parts = exp_parts(ar, form.score)
        factor = relative_exponentials(ar, parts, alive, (2, 3))
        factor = ar.where(alive, factor, ar.whole(np.zeros((1,) * 4, np.int64)))
        whole = (heads, vocab, vocab, length)
        self.factor = factor.map(lambda a: np.broadcast_to(a, whole))
        shape = (vocab, *form.base.mid.shape[1:])
        self.base = form.base.map(lambda a: np.broadcast_to(a, shape))
        self.value = form.value.at[:, 0]


class Along(NamedTuple):
    """A row in some directions: base [directions, own token], value [directions, heads, token, position]."""

    base: Ball
    value: Ball

    def __neg__(self) -> "Along":
        return Along(-self.base, -self.value)


def highest(
    ar: Arithmetic,
    row: Row,
    along: Along,
    box: Tokens,
    apart: frozenset[int],
    given: Given | None = None,
) -> Ball:
    """Points [directions, tokens before, own tokens]: for each window of the box at most so much is the row, whatever
    tokens of the box stand elsewhere, of which those at positions that are `apart` are pairwise different; but for what
    is given, if the position isn't the window's. Position 0 has no token before it: one column stands for none.

    Complexity: directions x windows, and directions x own tokens x tokens of the box, for each head.
    """
    directions = len(along.base.mid)
    step = max(1, PART // (len(box[row.pin]) * sum(map(len, box))))
    parts = [slice(d, d + step) for d in range(0, directions, step)]
    if len(parts) == 1:
        return _highest(ar, row, along, box, apart, given)
    own, before = window(row.pin, box)
    reserve(directions, len(own), len(before))
    found = []
    for part in parts:
        some = Along(along.base.at[part], along.value.at[part])
        known = given and Given(given.position[part], given.place[part])
        found.append(_highest(ar, row, some, box, apart, known))
    same = aligned(ar, *found)
    return points(np.concatenate([x.mid for x in same]), same[0].exponent)


def _highest(
    ar: Arithmetic,
    row: Row,
    along: Along,
    box: Tokens,
    apart: frozenset[int],
    given: Given | None,
) -> Ball:
    pin, (own, before) = row.pin, window(row.pin, box)
    axis = {pin: 2} | ({pin - 1: 1} if pin else {})
    reserve(len(along.base.mid), len(own), max(len(before), sum(map(len, box))))
    zero = ar.whole(np.zeros((1, len(before), len(own)), np.int64))
    total = ar.add(zero, along.base.at[:, None, own])
    columns = Columns(box)
    token, position = columns.token, columns.position
    elsewhere = Window(ar, axis, box, apart - {pin - 1}, given)
    for g in range(len(row.attends)):
        factor = row.factor.at[g, own[:, None], token, position].at[None, None]
        value = along.value.at[:, g, token, position].at[:, None, None]
        total = ar.add(total, elsewhere.highest(Term(factor, value)))
    return ar.top(total)
