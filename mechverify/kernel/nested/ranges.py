"""Upper bounds of one position's row of the first layer, in given directions, for every window of two tokens.

In a box of tokens, a row's value is base + sum_g N_g / Z_g, sums of one-token terms over the positions that head g
attends to. A window is the row's own token and the one before it: their terms are known. For any number theta,

    N / Z = theta + (N - theta Z) / Z,    N - theta Z = sum_j e_j (u_j - theta),

and of the last sum the known terms are taken as they are, the others as large as a token of the box makes them. Masses
Z lie between sums of least and of greatest factors.

Lemma N2 (docs/soundness/nested.md).
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from mechverify.kernel.core.arithmetic import Arithmetic, Ball, points
from mechverify.kernel.core.errors import Rejected
from mechverify.kernel.core.meter import reserve
from mechverify.kernel.core.series import exp_parts, relative_exponentials
from mechverify.kernel.counting.form import SumOfRatios

LIGHTEST = 2.0**-500  # so that 1 / Z doesn't overflow

Tokens = list[np.ndarray]  # a box: ids by position, ascending


class Term(NamedTuple):
    """Of a ratio, what one position adds: `factor` to the denominator, `factor` times `value` to the numerator."""

    factor: Ball
    value: Ball


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


class Given(NamedTuple):
    """For each direction a position and the place in the box of the token that stands there."""

    position: np.ndarray
    place: np.ndarray


def highest(
    ar: Arithmetic, row: Row, along: Along, box: Tokens, given: Given | None = None
) -> Ball:
    """Points [directions, tokens before, own tokens]: for each window of the box at most so much is the row, whatever
    tokens of the box stand elsewhere, but for what is given, if the position isn't the window's. Position 0 has no
    token before it: one column stands for none.

    Complexity: directions x windows, and directions x own tokens x tokens of the box, for each head.
    """
    own, before = window(row.pin, box)
    directions = len(along.base.mid)
    most = max(len(before), *(len(tokens) for tokens in box))
    reserve(directions, len(own), most)
    zero = ar.whole(np.zeros((1, len(before), len(own)), np.int64))
    total = ar.add(zero, along.base.at[:, None, own])
    for g in range(len(row.attends)):
        value = along.value.at[:, g]
        total = ar.add(total, _head(ar, row, g, value, box, given))
    return ar.top(total)


def window(pin: int, box: Tokens) -> tuple[np.ndarray, np.ndarray]:
    """The tokens at a position, and before it; some one token where there is no position before."""
    return box[pin], box[pin - 1] if pin else box[pin][:1]


def windows(pin: int, box: Tokens, part: Tokens) -> tuple[np.ndarray, ...]:
    """Where the windows of a part of a box stand among those of the box."""
    own = np.searchsorted(box[pin], part[pin])
    before = np.searchsorted(box[pin - 1], part[pin - 1]) if pin else np.zeros(1, int)
    return np.ix_(before, own)


def _head(
    ar: Arithmetic, row: Row, g: int, value: Ball, box: Tokens, given: Given | None
) -> Ball:
    """The same of one head's ratio; `value` [directions, token, position]."""
    own, before = window(row.pin, box)
    factor = row.factor.at[g, own]
    known, free = [], []
    for j in np.flatnonzero(row.attends[g]).tolist():
        if j == row.pin:
            here = factor.at[np.arange(len(own)), own, j]
            each = value.at[:, None, own, j]
            known.append(Term(here.at[None, None], each))
        elif j == row.pin - 1:
            here = factor.at[:, before, j].map(np.transpose)
            each = value.at[:, before, j].at[:, :, None]
            known.append(Term(here.at[None], each))
        else:
            here = factor.at[:, box[j], j].at[None, None]
            each = value.at[:, None, None, box[j], j]
            term = Term(here, each)
            free.append(term if given is None else _pinned(ar, term, given, j))
    return largest(ar, known, free, about(ar, known, free, windows=1))


def _pinned(ar: Arithmetic, term: Term, given: Given, position: int) -> Term:
    """A term [directions, .., tokens] with what is given at the position in place of each token."""
    here = given.position == position
    if not here.any():
        return term
    place = np.where(here, given.place, 0)
    each = np.arange(len(here))

    def pinned(x: Ball) -> Ball:
        wide = x.map(lambda a: np.broadcast_to(a, (len(here), *a.shape[1:])))
        one = wide.map(lambda a: a[each, ..., place][..., None])
        return ar.where(here[:, None, None, None], one, wide)

    return Term(*map(pinned, term))


def about(
    ar: Arithmetic, known: list[Term], free: list[Term], windows: int | None = None
) -> np.ndarray:
    """Trial values: the ratio of what lies midway between the extremes over tokens, and over the known terms' axis
    `windows`, which stays with size one. Any would be sound."""
    above: np.ndarray | float = 0.0
    below: np.ndarray | float = 0.0
    for terms, axis in ((known, windows), (free, -1)):
        for factor, value in terms:
            e, u = ar.approximate(factor), ar.approximate(value)
            kept = terms is known
            below = below + _midway(e, axis, kept)
            above = above + _midway(e * u, axis, kept)
    return np.asarray(above / below)


def _midway(x: np.ndarray, axis: int | None, kept: bool) -> np.ndarray:
    if axis is None:
        return x
    low, high = x.min(axis, keepdims=kept), x.max(axis, keepdims=kept)
    return 0.5 * low + 0.5 * high


def largest(
    ar: Arithmetic, known: Sequence[Term], free: Sequence[Term], trial: np.ndarray
) -> Ball:
    """Points that sum e u / sum e doesn't exceed, of which the known terms are given, and each free one [.., tokens] is
    that of any token; `trial` [..] are values that it is about: any are sound."""
    theta = ar.exact(np.where(np.isfinite(trial), trial, 0.0))
    zero = ar.whole(np.zeros((1,) * trial.ndim, np.int64))
    rest = light = heavy = zero
    for factor, value in known:
        rest = ar.add(rest, ar.mul(factor, ar.sub(value, theta)))
        light, heavy = ar.add(light, factor), ar.add(heavy, factor)
    for factor, value in free:
        each = ar.mul(factor, ar.sub(value, theta.at[..., None]))
        rest = ar.add(rest, _most(ar, each))
        light = ar.sub(light, _most(ar, -factor))
        heavy = ar.add(heavy, _most(ar, factor))
    light = heavy_enough(ar, light)
    one = ar.whole(np.ones((1,) * trial.ndim, np.int64))
    rest, heavy = ar.top(rest), ar.top(heavy)
    most, least = ar.div(one, light), ar.div(one, heavy)
    share = ar.where(rest.mid > 0, most, least)
    return ar.top(ar.add(theta, ar.mul(rest, share)))


def heavy_enough(ar: Arithmetic, mass: Ball) -> Ball:
    """Its lower end, as points."""
    light = ar.bottom(mass)
    if not (light.mid > max(ar.units(LIGHTEST, light.exponent), 0)).all():
        raise Rejected("the sum of a row's exponentials is not known to be positive")
    return light


def _most(ar: Arithmetic, x: Ball) -> Ball:
    """Of the last axis, the greatest of upper bounds."""
    ar.spend(x.mid.size, 1, 2)
    return points(ar.upper(x).max(-1), x.exponent)
