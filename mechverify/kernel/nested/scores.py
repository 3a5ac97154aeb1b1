"""How much more the second layer attends to one position than to another: upper bounds of differences of scores.

The query is a mean, with the first layer's weights, of one vector for each token that it attends to: so a score is the
same mean of that vector's products with the key. The key's row in the direction of one vector has an upper bound for
each window (ranges.py). So a difference of scores is a ratio whose values are at most these bounds, each for one token.

Lemma N3 (docs/soundness/nested.md).
"""

from fractions import Fraction

import numpy as np

from mechverify.kernel.core.arithmetic import Arithmetic, Ball, points
from mechverify.kernel.core.meter import reserve
from mechverify.kernel.nested.ranges import (
    Along,
    Row,
    Term,
    Tokens,
    about,
    highest,
    largest,
    windows,
)


class Scores:
    """Of the inputs of a box with one token `query` at the position that is read: what bounds the scores of every
    position, less that of position `reference`."""

    def __init__(
        self,
        ar: Arithmetic,
        asking: Row,
        keys: dict[int, Row],
        query: int,
        box: Tokens,
        reference: int,
    ):
        """`asking`: the query's row. Complexity: that of `highest` with a direction for each head of the first layer
        and each token of the box."""
        self.ar, self.box, self.reference = ar, box, reference
        self.attends = asking.attends
        self.factor = asking.factor.at[:, query]
        heads, positions = asking.attends.nonzero()
        self.places: dict[tuple[int, int], slice] = {}
        index: list[list[int]] = [[], [], []]
        for g, j in zip(heads.tolist(), positions.tolist(), strict=True):
            start = len(index[0])
            for token in box[j].tolist():
                for column, entry in zip(index, (g, token, j), strict=True):
                    column.append(entry)
            self.places[g, j] = slice(start, len(index[0]))
        reserve(len(index[0]), asking.value.mid.shape[-1])
        part = ar.rational(Fraction(1, len(asking.attends)))
        share = ar.mul(asking.base.at[query], part)
        directions = ar.add(asking.value.at[tuple(map(np.array, index))], share)
        self.high = {
            i: highest(ar, row, self._along(directions, row), box)
            for i, row in keys.items()
            if i != reference
        }
        row = keys[reference]
        self.low = -highest(ar, row, -self._along(directions, row), box)

    def _along(self, directions: Ball, row: Row) -> Along:
        reserve(len(directions.mid), *row.value.mid.shape[:-1])
        base = self.ar.contract("de,ve->dv", directions, row.base)
        value = self.ar.contract("de,gvne->dgvn", directions, row.value)
        return Along(base, value)

    def differences(self, box: Tokens) -> dict[int, Ball]:
        """For each position but the reference, points [tokens before, own tokens]: at most by so much its score exceeds
        that of the reference, in each window of `box`, a part of the box that the bounds are of."""
        ar, at = self.ar, windows(self.reference, self.box, box)
        lowest = ar.lower(self.low.at[(slice(None), *at)]).min((1, 2))
        low = points(lowest, self.low.exponent).at[:, None, None]
        result = {}
        for i, high in self.high.items():
            reserve(*high.mid.shape)
            excess = ar.top(
                ar.sub(high.at[(slice(None), *windows(i, self.box, box))], low)
            )
            total = ar.whole(np.zeros(excess.mid.shape[1:], np.int64))
            for g in range(len(self.attends)):
                total = ar.add(total, self._head(g, i, excess, box))
            result[i] = ar.top(total)
        return result

    def _head(self, g: int, i: int, excess: Ball, box: Tokens) -> Ball:
        """An upper bound [tokens before, own tokens] of the mean, by one head of the first layer, of `excess`
        [direction, tokens before, own tokens] over the tokens that it attends to."""
        known, free = [], []
        for j in np.flatnonzero(self.attends[g]).tolist():
            at = np.searchsorted(self.box[j], box[j])
            value = excess.at[self.places[g, j]].at[at]
            factor = self.factor.at[g, box[j], j]
            each = np.arange(len(at))
            if j == i:
                mine = value.at[each, :, each].map(np.transpose)
                known.append(Term(factor.at[None], mine))
            elif j == i - 1:
                known.append(Term(factor.at[:, None], value.at[each, each]))
            else:
                each_last = value.map(lambda a: np.moveaxis(a, 0, -1))
                free.append(Term(factor.at[None, None], each_last))
        return largest(self.ar, known, free, about(self.ar, known, free))
