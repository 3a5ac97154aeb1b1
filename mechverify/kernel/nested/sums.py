"""Ratios of one-token terms that read the same tokens, bounded by themselves and together.

For any theta, with R = N - theta Z, which is at most R+, and Z from Zmin to Zmax,

    N / Z = theta + R / Z <= theta + R / Zmax + max(R+, 0) (1 / Zmin - 1 / Zmax),

a constant and a sum of one-token terms. Those of several ratios are added before the largest is taken. Where tokens
differ from each other, a token's price p >= 0 is taken off its terms wherever it stands, and paid once.

Lemmas N2, N7, N8 (docs/soundness/nested.md).
"""

from collections.abc import Sequence
from math import prod
from typing import NamedTuple

import numpy as np

from mechverify.kernel.core.arithmetic import Arithmetic, Ball, aligned, points
from mechverify.kernel.core.errors import Rejected
from mechverify.kernel.core.meter import reserve

LIGHTEST = 2.0**-500  # so that 1 / Z doesn't overflow

Tokens = list[np.ndarray]  # a box: ids by position, ascending


class Term(NamedTuple):
    """Of a ratio, what one token adds: `factor` to the denominator, `factor` times `value` to the numerator."""

    factor: Ball
    value: Ball


class Around(NamedTuple):
    """A ratio around `theta`: of its numerator less theta times its denominator the known terms' sum `rest`, the terms
    `each` [.., column] of other tokens, and what all of them don't exceed, `largest`; one over the denominator is at
    most `most`, and at least `least`."""

    theta: Ball
    rest: Ball
    each: Ball
    largest: Ball
    most: Ball
    least: Ball


class Given(NamedTuple):
    """For each place along the first axis a position, and the place in the box of the token that stands there."""

    position: np.ndarray
    place: np.ndarray


class Columns:
    """The tokens of a box in a row: `token`, `position` and `place` among those of its position of each column."""

    def __init__(self, box: Tokens):
        self.token = np.concatenate(box)
        self.position = np.repeat(np.arange(len(box)), [len(t) for t in box])
        self.place = np.concatenate([np.arange(len(t)) for t in box])


class Window:
    """Of a box, inputs whose tokens at some positions are known. `axis`: of arrays with three axes, and one more for
    columns, which stands for the tokens at which of these positions; one that stands for none has size one, or is that
    of what is `given`; and so may have size one along which all is alike. `apart`: positions whose tokens are pairwise
    different."""

    def __init__(
        self,
        ar: Arithmetic,
        axis: dict[int, int],
        box: Tokens,
        apart: frozenset[int],
        given: Given | None = None,
    ):
        self.ar, self.axis = ar, axis
        columns = Columns(box)
        self.columns = len(columns.token)
        self.here = {j: columns.position == j for j in self.axis}
        known = np.isin(columns.position, [*self.axis])
        self.free = np.flatnonzero(~known)
        token = columns.token[self.free]
        position = columns.position[self.free]
        self.start = np.flatnonzero(np.diff(position, prepend=-1))
        each = np.bincount(columns.position)
        self.weight = 1 / each[position]
        differs = np.isin(position, [*apart])
        possible = np.ones((1, 1, 1, len(token)), bool)
        for j in apart & {*self.axis}:
            there = token != self._along(j, box[j])
            possible = possible & (there | ~differs)
        if given is not None:
            other = position != given.position[:, None]
            same = columns.place[self.free] == given.place[:, None]
            possible = possible & (other | same)[:, None, None]
        self.possible = self._somewhere(possible)
        self._trade(token[differs], position[differs])
        self.differs = np.flatnonzero(differs)

    def _along(self, j: int, tokens: np.ndarray) -> np.ndarray:
        """Those at a known position, along its axis."""
        shape = [1, 1, 1, 1]
        shape[self.axis[j]] = -1
        return tokens.reshape(shape)

    def _somewhere(self, possible: np.ndarray) -> np.ndarray:
        """The same; but all tokens of a position of which none is possible: there is no such input."""
        if possible.all():
            return possible
        none = ~np.logical_or.reduceat(possible, self.start, -1)
        number = np.diff(self.start, append=possible.shape[-1])
        return possible | np.repeat(none, number, -1)

    def _trade(self, token: np.ndarray, position: np.ndarray) -> None:
        """What prices are for: which token each column that differs sells, and which position is its seller."""
        several, self.sold = np.unique(token, return_inverse=True)
        sellers, self.seller = np.unique(position, return_inverse=True)
        self.several = len(several)
        self.sellers = len(sellers)

    def split(self, ratio: Term) -> tuple[list[Term], Term]:
        """The terms of the tokens that are known, and those [.., column] of the others."""
        known = [Term(*(self._entry(j, x) for x in ratio)) for j in self.here]
        return known, Term(*(x.at[..., self.free] for x in ratio))

    def _entry(self, j: int, x: Ball) -> Ball:
        """Of each window that of its token at j."""
        n, axis = int(self.here[j].sum()), self.axis[j]

        def entries(a: np.ndarray) -> np.ndarray:
            shape = [*a.shape]
            shape[axis] = n
            wide = np.broadcast_to(a, shape)
            moved = np.moveaxis(wide, axis, -2)
            own = moved.diagonal(0, -2, -1)
            return np.moveaxis(own, -1, axis)

        return x.at[..., self.here[j]].map(entries)

    def most(self, x: Ball, price: np.ndarray | None = None) -> Ball:
        """Points: at most so large is, over tokens elsewhere, the sum of their terms x [.., column], for any price that
        isn't negative. Complexity: that of x."""
        ar = self.ar
        if not len(self.free):
            return ar.whole(np.zeros((1, 1, 1), np.int64))
        if price is None:
            return ar.top(ar.sum(self._each(x)))
        wide = np.zeros((*price.shape[:-1], len(self.free)))
        wide[..., self.differs] = price[..., self.sold]
        left = ar.sub(x, ar.exact(wide))
        most = ar.sum(self._each(left))
        paid = ar.sum(ar.exact(price))
        return ar.top(ar.add(most, paid))

    def _each(self, x: Ball) -> Ball:
        """Points [.., position]: the largest term at each."""
        return points(self._greatest(self.ar.upper(x)), x.exponent)

    def _greatest(self, a: np.ndarray) -> np.ndarray:
        """The largest of the tokens at each position that may stand there."""
        if not self.possible.all():
            a = np.where(self.possible, a, a.min(-1, keepdims=True))
        return np.maximum.reduceat(a, self.start, -1)

    def price(self, x: np.ndarray) -> np.ndarray | None:
        """[.., token]: by how much a token's mean term exceeds the k-th largest, k the number of positions whose tokens
        differ; None if there aren't two."""
        if self.sellers < 2 or self.several < self.sellers:
            return None
        near = x[..., self.differs]
        there = self.possible[..., self.differs]
        windows = np.broadcast_shapes(near.shape, there.shape)[:-1]
        shape = *windows, self.sellers, self.several
        reserve(*shape)
        self.ar.step(prod(shape), 12, 30)
        offer = np.full(shape, np.nan)
        offer[..., self.seller, self.sold] = np.where(there, near, np.nan)
        made = ~np.isnan(offer)
        number = np.maximum(made.sum(-2), 1)
        mean = np.where(made, offer, 0.0).sum(-2) / number
        mean = np.where(made.any(-2), mean, -np.inf)
        ranked = np.sort(mean, -1)
        least = ranked[..., -self.sellers, None]
        known = np.isfinite(least)
        price = mean - np.where(known, least, 0)
        return np.where(known, np.maximum(price, 0), 0.0)

    def highest(self, ratio: Term) -> Ball:
        """Points that the ratio doesn't exceed; one trial value stands for all tokens along the second axis."""
        ar, around = self.ar, self.around(ratio, 1)
        share = ar.where(around.largest.mid > 0, around.most, around.least)
        return ar.top(ar.add(around.theta, ar.mul(around.largest, share)))

    def line(self, ratio: Term) -> tuple[Ball, Ball]:
        """A constant, and terms [.., column]: the ratio is at most the constant with the terms of tokens elsewhere."""
        ar, around = self.ar, self.around(ratio)
        least = around.least
        over = np.maximum(around.largest.mid, 0)
        bent = ar.mul(points(over, around.largest.exponent), ar.sub(around.most, least))
        constant = ar.add(around.theta, ar.mul(least, around.rest))
        constant = ar.add(constant, bent)
        return constant, ar.mul(least.at[..., None], around.each)

    def around(self, ratio: Term, alike: int | None = None) -> Around:
        """About its largest value. `alike`: an axis along which the trial value is the same."""
        ar, (known, free) = self.ar, self.split(ratio)
        light = heavy = ar.whole(np.zeros((1, 1, 1), np.int64))
        for factor, _ in known:
            light = ar.add(light, factor)
            heavy = ar.add(heavy, factor)
        lightest = self.most(-free.factor)
        heaviest = self.most(free.factor)
        light = heavy_enough(ar, ar.sub(light, lightest))
        heavy = ar.top(ar.add(heavy, heaviest))
        one = ar.whole(np.ones((1, 1, 1), np.int64))
        most = ar.div(one, light)
        least = ar.bottom(ar.div(one, heavy))
        trial, price = self._trial(known, free, alike)
        theta = ar.exact(trial)
        rest, each = self._rest(known, free, theta)
        largest = ar.top(ar.add(rest, self.most(each, price)))
        return Around(theta, rest, each, largest, most, least)

    def _rest(self, known: list[Term], free: Term, theta: Ball) -> tuple[Ball, Ball]:
        """Factors times values less theta: their sum over the window's own tokens, and those [.., column] of others."""
        ar, rest = self.ar, self.ar.whole(np.zeros((1, 1, 1), np.int64))
        for factor, value in known:
            rest = ar.add(rest, ar.mul(factor, ar.sub(value, theta)))
        apart = ar.sub(free.value, theta.at[..., None])
        return rest, ar.mul(free.factor, apart)

    def _trial(
        self, known: list[Term], free: Term, alike: int | None
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """A number that the ratio hardly exceeds, and prices: steps from the ratio of mean terms, each to what the last
        one shows. Any would be sound."""
        near = self.ar.approximate
        factor, value = map(near, free)
        terms = [(near(e), near(e) * near(u)) for e, u in known]
        terms = [tuple(_halfway(x, alike) for x in term) for term in terms]
        mass = sum((e for e, _ in terms), (factor * self.weight).sum(-1))
        mean = (factor * value * self.weight).sum(-1)
        trial = _number(sum((n for _, n in terms), mean) / mass)
        price = None
        for last in (False, False, True):
            each = factor * (value - trial[..., None])
            rest: np.ndarray | float = sum(n - trial * e for e, n in terms)
            if last and (price := self.price(each)) is not None:
                paid = price[..., self.sold]
                rest = rest + price.sum(-1)
                each = each + 0 * price[..., :1]
                each[..., self.differs] -= paid
            if len(self.free):
                rest = rest + self._greatest(each).sum(-1)
            trial = _number(trial + rest / mass)
        return trial, price

    def all_columns(self, terms: Ball) -> Ball:
        """Terms [.., column] of tokens elsewhere, as those of all columns: zero at the others."""

        def wide(a: np.ndarray) -> np.ndarray:
            result = np.zeros((*a.shape[:-1], self.columns), a.dtype)
            result[..., self.free] = a
            return result

        return terms.map(wide)

    def together(
        self, constant: Ball, ratios: Sequence[Term], lines: Sequence[Ball]
    ) -> Ball:
        """Points that the sum of the constant, all ratios, and sums of terms [.., column of all] doesn't exceed."""
        ar = self.ar
        terms = ar.whole(np.zeros((1, 1, 1, len(self.free)), np.int64))
        for more, each in map(self.line, ratios):
            constant = ar.add(constant, more)
            terms = ar.add(terms, each)
        for line in lines:
            for j in self.here:
                constant = ar.add(constant, self._entry(j, line))
            terms = ar.add(terms, line.at[..., self.free])
        reserve(*terms.mid.shape)
        total = self.most(terms)
        price = self.price(ar.approximate(terms))
        if price is not None:
            priced = self.most(terms, price)
            total = lesser(ar, total, priced)
        return ar.top(ar.add(constant, total))


def _halfway(x: np.ndarray, axis: int | None) -> np.ndarray:
    """Between the extremes along an axis."""
    if axis is None:
        return x
    return 0.5 * x.min(axis, keepdims=True) + 0.5 * x.max(axis, keepdims=True)


def heavy_enough(ar: Arithmetic, mass: Ball) -> Ball:
    """Its lower end, as points."""
    light = ar.bottom(mass)
    if not (light.mid > max(ar.units(LIGHTEST, light.exponent), 0)).all():
        raise Rejected("the sum of a row's exponentials is not known to be positive")
    return light


def _number(trial: np.ndarray) -> np.ndarray:
    """Zero for what is none."""
    return np.where(np.isfinite(trial), trial, 0.0)


def window(pin: int, box: Tokens) -> tuple[np.ndarray, np.ndarray]:
    """The tokens at a position, and before it; some one token where there is no position before."""
    return box[pin], box[pin - 1] if pin else box[pin][:1]


def windows(pin: int, box: Tokens, part: Tokens) -> tuple[np.ndarray, ...]:
    """Where the windows of a part of a box stand among those of the box."""
    own = np.searchsorted(box[pin], part[pin])
    before = np.searchsorted(box[pin - 1], part[pin - 1]) if pin else np.zeros(1, int)
    return np.ix_(before, own)


def possible(i: int, box: Tokens, apart: frozenset[int]) -> np.ndarray:
    """Booleans [tokens before, own tokens]: which windows of position i may be."""
    own, before = window(i, box)
    both = {i - 1, i} <= apart
    return (before[:, None] != own) | np.array(not both)


def possible_most(a: np.ndarray, possible: np.ndarray) -> np.ndarray:
    """Of the last axis the greatest of the entries that are possible; any number where none is."""
    return np.where(possible, a, a.min(-1, keepdims=True)).max(-1)


def lesser(ar: Arithmetic, x: Ball, y: Ball) -> Ball:
    """Of two bounds."""
    x, y = aligned(ar, x, y)
    return points(np.minimum(x.mid, y.mid), x.exponent)
