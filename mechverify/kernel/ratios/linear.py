"""Bounds of a sum of ratios on a cell: each ratio's range, and all of them together as one sum of one-token terms.

The lead of the right output over a rival is b + sum_h N_h / Z_h. For any numbers theta_h, with R_h = N_h - theta_h Z_h,
it is b + sum_h theta_h + sum_h R_h / Z_h; R_h and Z_h are sums of one-token terms, whose extremes one recursion finds.
So each R_h / Z_h has a range. And for any a_h, R_h / Z_h >= a_h R_h - g_h, g_h from the corners of the box of R_h and
1 / Z_h; these add up to one sum of one-token terms, which can be minimised, and counted, as a whole.

Lemmas R2, R3, R4 (docs/soundness/ratios.md).
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from mechverify.kernel.core.arithmetic import Arithmetic, Array, Ball, aligned, points
from mechverify.kernel.core.errors import Rejected
from mechverify.kernel.core.meter import reserve
from mechverify.kernel.core.series import exp_parts, relative_exponentials
from mechverify.kernel.counting.automaton import Layer
from mechverify.kernel.counting.form import SumOfRatios
from mechverify.kernel.counting.smallest import smallest

LIGHTEST = 2.0**-500  # so that 1 / Z doesn't overflow


class Lead(NamedTuple):
    """Of one output over each of some rivals, less the margin: b + sum_h N_h / Z_h. Shapes: base [rivals],
    value [heads, tokens, length, rivals], the tokens being those of a `Box`."""

    base: Ball
    value: Ball

    def __neg__(self) -> "Lead":
        return Lead(-self.base, -self.value)

    def of(self, rivals: slice | np.ndarray) -> "Lead":
        """Over those of the rivals alone."""
        return Lead(*(x.map(lambda a: a[..., rivals]) for x in self))


class Linear(NamedTuple):
    """Of each rival, on the inputs of a box where the lead is not positive: the lead is at least the sum of one-token
    `terms` [tokens, length, rivals], whose least value over the box is at least `least` [rivals]."""

    terms: Ball
    least: np.ndarray


class Box:
    """The inputs that an automaton accepts, all with one token at position `pin`; `tokens` are the ids that occur in
    them, and `factor` [heads, tokens, length] the balls of 2^-c e^s, zero where a head doesn't attend. `light` and
    `heavy` [heads, 1] bound sum_i 2^-c e^(s_i), the former where `usable`: they exceed LIGHTEST."""

    def __init__(
        self,
        ar: Arithmetic,
        layers: list[Layer],
        tokens: np.ndarray,
        factor: Ball,
        pin: int,
    ):
        self.ar, self.layers, self.tokens, self.factor, self.pin = (
            ar,
            layers,
            tokens,
            factor,
            pin,
        )
        self.index = np.full(int(tokens.max()) + 1, -1)
        self.index[tokens] = np.arange(len(tokens))
        low, high = ar.lower(factor), ar.upper(factor)
        masses = self.least(np.stack([np.maximum(low, 0), -high], -1))
        self.usable = bool(
            (masses[:, 0] > max(ar.units(LIGHTEST, factor.exponent), 0)).all()
        )
        self.light = points(masses[:, :1], factor.exponent)
        self.heavy = points(-masses[:, 1:], factor.exponent)

    def least(self, terms: np.ndarray) -> np.ndarray:
        """Lower bounds [rows, columns] of sums of terms [rows, tokens, length, columns] over the inputs."""

        def term(position: int, tokens: np.ndarray) -> np.ndarray:
            return terms[:, self.index[tokens], position]

        reserve(max(layer.states for layer in self.layers), len(terms), terms.shape[-1])
        self.ar.spend(terms.size, 2 * len(self.layers), 4)
        return smallest(self.ar, self.layers, term, (len(terms), terms.shape[-1]))

    def around(self, lead: Lead, point: Sequence[int] | np.ndarray) -> np.ndarray:
        """The trial values theta [heads, rivals]: the ratios at `point`, moved so that they make a lead of zero."""
        ar, positions = self.ar, np.arange(len(point))
        inside = all(0 <= t < len(self.index) and self.index[t] >= 0 for t in point)
        if len(point) != len(self.layers) or not inside:
            raise Rejected(
                f"a point is no sequence of tokens of its cell: {[*point]!s:.100}"
            )
        at = self.index[[*point]]
        weight = ar.approximate(self.factor.map(lambda a: a[:, at, positions]))
        value = ar.approximate(lead.value.map(lambda a: a[:, at, positions]))
        mass = np.zeros(len(weight))
        total = np.zeros((len(weight), value.shape[-1]))
        for i in positions:  # in this order on every machine
            mass = mass + weight[:, i]
            total = total + weight[:, i, None] * value[:, i]
        return shared(ar, lead, total / mass[:, None])


class Tables:
    """A sum of ratios, and mantissas and exponents of its e^s: nothing underflows yet."""

    def __init__(self, ar: Arithmetic, form: SumOfRatios):
        self.ar, self.form = ar, form
        self.mantissa, self.power = exp_parts(ar, form.score)

    def box(self, layers: list[Layer], query: int) -> Box:
        """Of the inputs that an automaton accepts, all with that token at the query: with factors over the largest that
        can occur."""
        ar, form = self.ar, self.form
        occurring = [
            np.concatenate([tokens for tokens, _ in layer.groups]) for layer in layers
        ]
        tokens = np.unique(np.concatenate(occurring))
        alive = (
            np.stack([np.isin(tokens, here) for here in occurring], -1)
            & form.attends[:, None]
        )
        reserve(*alive.shape)
        row = query if self.power.shape[1] > 1 else 0
        parts = (
            self.mantissa.map(lambda a: a[:, row, tokens]),
            self.power[:, row, tokens],
        )
        factor = relative_exponentials(ar, parts, alive, (1, 2))
        zero = ar.whole(np.zeros((1, 1, 1), np.int64))
        return Box(ar, layers, tokens, ar.where(alive, factor, zero), form.pin)

    def outputs(self, query: int, tokens: np.ndarray) -> Lead:
        """All outputs, where a lead has rivals."""
        base, value = self.form.base, self.form.value
        row, deep = (query if n > 1 else 0 for n in (len(base.mid), value.mid.shape[1]))
        return Lead(base.map(lambda a: a[row]), value.map(lambda a: a[:, deep, tokens]))


class Expansion:
    """The ratios of a lead as theta + R / Z, in a box: R between the points `low` and `high` [heads, rivals], a sum of
    one-token terms `rest` [heads, tokens, length, rivals]; `few` and `many` [heads, 1] bound 1 / Z, and `ratio` [heads,
    rivals] are lower bounds of R / Z. `base` [rivals]: the lead's, plus all theta. `decided` [rivals]: the lead is
    positive on the whole box, since the sum of all lower bounds is."""

    def __init__(self, box: Box, lead: Lead, point: Sequence[int] | np.ndarray):
        """`point` is a token for each position: theta are the ratios there, moved so that they add up to a lead of
        zero. Any point is sound. Precondition: the box is usable. Complexity: a recursion on heads x 2 rivals columns.
        """
        self.box, self.ar = box, box.ar
        ar, (heads, tokens, length, rivals) = self.ar, lead.value.mid.shape
        reserve(heads, tokens, length, 2 * rivals)
        theta = ar.exact(box.around(lead, point))
        away = ar.sub(lead.value, theta.map(lambda a: a[:, None, None]))
        self.rest = ar.mul(box.factor.map(lambda a: a[..., None]), away)
        self.base = _plus_all(ar, lead.base, theta)
        ends = box.least(
            np.concatenate([ar.lower(self.rest), -ar.upper(self.rest)], -1)
        )
        self.low = points(ends[:, :rivals], self.rest.exponent)
        self.high = points(-ends[:, rivals:], self.rest.exponent)
        one = ar.whole(np.ones((1, 1), np.int64))
        self.few, self.many = ar.div(one, box.heavy), ar.div(one, box.light)
        self.ratio = ar.bottom(
            ar.mul(self.low, ar.where(self.low.mid >= 0, self.few, self.many))
        )
        self.total = _plus_all(ar, self.base, self.ratio)
        self.decided = ar.lower(self.total) > 0

    def linear(self, rivals: np.ndarray) -> Linear:
        """Of the rivals with these indices. Complexity: heads x tokens x length x rivals, and a recursion."""
        ar, box = self.ar, self.box
        rest, base, low = (
            x.map(lambda a: a[..., rivals]) for x in (self.rest, self.base, self.low)
        )
        high = self._where_not_positive(rivals)
        slope = ar.exact(
            _slopes(*(ar.approximate(x) for x in (low, high, self.few, self.many)))
        )
        constant = _plus_all(
            ar, base, _remainder(ar, low, high, self.few, self.many, slope)
        )
        terms = ar.contract("htlr,hr->tlr", rest, slope)
        here = (np.arange(terms.mid.shape[1]) == box.pin)[None, :, None]
        zero = ar.whole(np.zeros((1, 1, 1), np.int64))
        terms = ar.add(
            terms, ar.where(here, constant.map(lambda a: a[None, None]), zero)
        )
        return Linear(terms, box.least(ar.lower(terms)[None])[0])

    def _where_not_positive(self, rivals: np.ndarray) -> Ball:
        """Upper bounds of each R on inputs where the lead is not positive: there R / Z is at most -base less the lower
        bounds of the others."""
        ar, box = self.ar, self.box
        total, ratio, high = (
            x.map(lambda a: a[..., rivals]) for x in (self.total, self.ratio, self.high)
        )
        most = ar.top(ar.sub(ratio, total))
        bound = ar.top(ar.mul(most, ar.where(most.mid > 0, box.heavy, box.light)))
        high, bound = ar.align(high, bound)
        return points(np.minimum(high.mid, bound.mid), high.exponent)


def shared(ar: Arithmetic, lead: Lead, ratio: np.ndarray) -> np.ndarray:
    """Trial values [heads, rivals]: about these ratios, each less its share of the lead that they make."""
    there = ar.approximate(lead.base)
    for one in ratio:
        there = there + one
    theta = ratio - there / len(ratio)
    return np.where(np.isfinite(theta), theta, 0.0)


def _plus_all(ar: Arithmetic, x: Ball, rows: Ball) -> Ball:
    """x [rivals] plus all rows of [heads, rivals]."""
    for i in range(len(rows.mid)):
        x = ar.add(x, rows.map(lambda a, i=i: a[i]))
    return x


def _slopes(
    low: np.ndarray, high: np.ndarray, few: np.ndarray, many: np.ndarray
) -> np.ndarray:
    """a_h [heads, rivals] for which the remainder at the corners is least; any would do."""
    between = (low * many - high * few) / np.where(high > low, low - high, -1.0)
    slope = np.where(low >= 0, few, np.where(high <= 0, many, between))
    return np.clip(np.where(np.isfinite(slope), slope, few), few, many)


def _remainder(
    ar: Arithmetic, low: Ball, high: Ball, few: Ball, many: Ball, slope: Ball
) -> Ball:
    """-g_h: R w - a R is bilinear in R and w = 1 / Z, so least at a corner of their box."""
    corners = [ar.mul(r, ar.sub(w, slope)) for r in (low, high) for w in (few, many)]
    corners = aligned(ar, *(ar.bottom(x) for x in corners))
    least: Array = corners[0].mid
    for corner in corners[1:]:
        least = np.minimum(least, corner.mid)
    return points(least, corners[0].exponent)
