"""How much more the second layer attends to one position than to another: upper bounds of differences of scores.

The query is a mean, with the first layer's weights, of one vector f_j(x_j) for each token that it attends to. About any
centre c, a score's difference is

    query . (K_i - K_r) = c . K_i - c . K_r + sum_j a_j (f_j(x_j) - c) . (K_i - K_r).

The first two are ratios in a fixed direction. The third is a mean, of which each value has an upper bound for each
window (ranges.py). All read the same tokens, and are bounded together (sums.py).

Lemma N3 (docs/soundness/nested.md).
"""

from fractions import Fraction

import numpy as np

from mechverify.kernel.core.arithmetic import Arithmetic, Ball, points
from mechverify.kernel.core.meter import reserve
from mechverify.kernel.nested.ranges import Along, Row, highest
from mechverify.kernel.nested.sums import (
    Columns,
    Given,
    Term,
    Tokens,
    Window,
    windows,
)


class Scores:
    """Of the inputs of a box with one token `query` at the position that is read: what bounds the scores of every
    position, less that of position `reference`. `apart`: positions whose tokens are pairwise different."""

    def __init__(
        self,
        ar: Arithmetic,
        asking: Row,
        keys: dict[int, Row],
        query: int,
        box: Tokens,
        reference: int,
        apart: frozenset[int] = frozenset(),
    ):
        """`asking`: the query's row. Complexity: that of `highest` with a direction for each head of the first layer
        and each token of the box."""
        self.ar, self.box, self.reference, self.apart = ar, box, reference, apart
        self.keys, self.heads = keys, len(asking.attends)
        self.factor = asking.factor.at[:, query]
        columns = Columns(box)
        reserve(self.heads, len(columns.token), asking.value.mid.shape[-1])
        position = np.tile(columns.position, self.heads)
        given = Given(position, np.tile(columns.place, self.heads))
        centre = ar.exact(self._centre(asking, query))
        off_centre = ar.sub(asking.base.at[query], centre)
        part = ar.rational(Fraction(1, self.heads))
        share = ar.mul(off_centre, part)
        value = asking.value.at[:, columns.token, columns.position]
        each = ar.add(value, share)
        directions = each.map(lambda a: a.reshape(-1, a.shape[-1]))
        self.high = {
            i: highest(ar, row, self._along(directions, row), box, apart, given)
            for i, row in keys.items()
            if i != reference
        }
        row = keys[reference]
        self.low = -highest(ar, row, -self._along(directions, row), box, apart, given)
        self.about = {i: self._along(centre.at[None], row) for i, row in keys.items()}

    def _centre(self, asking: Row, query: int) -> np.ndarray:
        """About the query where each position has a mean token. Any would be sound."""
        base, value = (self.ar.approximate(x) for x in (asking.base, asking.value))
        centre = base[query]
        for g, attends in enumerate(asking.attends):
            mass: np.ndarray | float = 0.0
            total: np.ndarray | float = 0.0
            for j in np.flatnonzero(attends).tolist():
                factor = self.ar.approximate(self.factor)[g, self.box[j], j]
                added = factor @ value[g, self.box[j], j]
                mass = mass + factor.mean()
                total = total + added / len(factor)
            centre = centre + total / mass
        return centre

    def _along(self, directions: Ball, row: Row) -> Along:
        reserve(len(directions.mid), *row.value.mid.shape[:-1])
        base = self.ar.contract("de,ve->dv", directions, row.base)
        value = self.ar.contract("de,gvne->dgvn", directions, row.value)
        return Along(base, value)

    def differences(self, box: Tokens, by_token: bool) -> dict[int, Ball]:
        """For each position but the reference, points [tokens at the reference, tokens before, own tokens]: at most by
        so much its score exceeds that of the reference, in each window of `box`, a part of the box that the bounds are
        of. The first axis has size one, for all tokens, unless `by_token`, or where the token before is that at the
        reference."""
        ar, r, columns = self.ar, self.reference, Columns(box)
        known = r if by_token or len(box[r]) == 1 else None
        part = [np.isin(a, b) for a, b in zip(self.box, box, strict=True)]
        kept = np.tile(np.concatenate(part), self.heads)
        entries = np.flatnonzero(kept)
        at = windows(r, self.box, box)
        low = self.low.at[entries].at[(slice(None), *at)]
        axes = (1, 2) if known is None else 1
        lowest = ar.lower(low).min(axes).reshape(len(entries), -1, 1, 1)
        low = points(lowest, low.exponent)
        at_reference = {} if known is None else {r: 0}
        constant, there = self._reference(box, columns, known is not None)
        result = {}
        for i, high in self.high.items():
            at = windows(i, self.box, box)
            high = high.at[entries].at[(slice(None), *at)]
            behind = known is not None and i == r + 1
            high = high.at[:, :, None] if behind else high.at[:, None]
            reserve(*np.broadcast_shapes(high.mid.shape, low.mid.shape))
            excess, along = ar.top(ar.sub(high, low)), self.about[i]
            here = self._row(self.keys[i], along, box[i].reshape(1, 1, -1), columns)
            own = along.base.at[0, box[i]]
            base = ar.add(constant, own.at[None, None])
            axis = {i: 2} | ({i - 1: 1} if i else {}) | at_reference
            window = Window(ar, axis, box, self.apart)
            ratios = [*here, *self._mean(excess, columns)]
            found = window.together(base, ratios, there)
            result[i] = found.map(lambda a: np.swapaxes(a, 0, 1)) if behind else found
        return result

    def _reference(
        self, box: Tokens, columns: Columns, known: bool
    ) -> tuple[Ball, list[Ball]]:
        """A number for each token at the reference, and terms [.., column]: their sum is at least the negative of its
        row in the direction of the centre. If that token isn't known, nor are the weights: a bound for all windows."""
        ar, r = self.ar, self.reference
        row, along = self.keys[r], -self.about[r]
        if not known:
            most = highest(ar, row, along, box, self.apart)
            anywhere = most.mid.max((1, 2), keepdims=True)
            return points(anywhere, most.exponent), []
        own, window = box[r].reshape(-1, 1, 1), Window(ar, {r: 0}, box, self.apart)
        constant, lines = along.base.at[0, own], []
        for ratio in self._row(row, along, own, columns):
            more, terms = window.line(ratio)
            constant = ar.add(constant, more)
            lines.append(window.all_columns(terms))
        return constant, lines

    def _row(
        self, row: Row, along: Along, own: np.ndarray, columns: Columns
    ) -> list[Term]:
        """Of each head, what a row adds to its base in one direction; `own` [.., .., ..] its tokens."""
        token, position = columns.token, columns.position
        return [
            Term(
                row.factor.at[g, own[..., None], token, position],
                along.value.at[0, g, token, position].at[None, None, None],
            )
            for g in range(len(row.attends))
        ]

    def _mean(self, excess: Ball, columns: Columns) -> list[Term]:
        """By each head of the first layer the mean of `excess` [column of each head, ..] over the tokens that the query
        attends to."""
        token, position, n = columns.token, columns.position, len(columns.token)
        value = excess.map(lambda a: np.moveaxis(a, 0, -1))
        return [
            Term(
                self.factor.at[g, token, position].at[None, None, None],
                value.at[..., g * n : (g + 1) * n],
            )
            for g in range(self.heads)
        ]
