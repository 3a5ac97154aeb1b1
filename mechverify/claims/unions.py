"""Unions of domains: of products of token sets, and of boxes. What several have in common counts once.

A union of products is the product of all their tokens with a condition on it, which says of which sets a sequence's
tokens are; a union of boxes is the box around them, of which a claim speaks of those inputs alone that lie in one.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from fractions import Fraction
from itertools import groupby
from math import prod
from typing import Any

import numpy as np
import sympy

from mechverify.claims.box import Box
from mechverify.claims.domain import Tokens
from mechverify.claims.errors import ClaimError

MOST = 2**12  # boxes that overlapping ones are cut into

Sets = tuple[tuple[int, ...], ...]  # of ids, for each position


def union(*domains: Tokens | Box | Sequence[Tokens | Box]) -> Any:
    """All inputs of at least one of these domains (or of those that a list has): of tokens(...) of one name, length and
    vocabulary, or of boxes and balls of one name, shapes and distribution; what they have in common counts once.
    `union(*balls).with_tokens(x)` has the same tokens beside each. Raises ClaimError."""
    listed = (
        [*domains[0]]
        if len(domains) == 1 and isinstance(domains[0], list | tuple)
        else [*domains]
    )
    if listed and all(isinstance(d, Tokens) for d in listed):
        return _of_tokens(listed)
    if listed and all(isinstance(d, Box) for d in listed):
        return _of_boxes(listed)
    raise ClaimError("union: give domains of one kind: tokens(...), or boxes and balls")


# --- Products of token sets -------------------------------------------------------------------------------------------


class TokenUnion(Tokens):
    """The sequences of at least one of the products `members`; `allowed` are the tokens of all of them."""

    def __init__(self, name: str, values: Sequence[int], members: Iterable[Sets]):
        self._members = tuple(dict.fromkeys(members))
        super().__init__(
            name, values, [set().union(*at) for at in zip(*self.members, strict=True)]
        )
        for i, hull in enumerate(self.allowed):
            for sets in self.members:
                meant = {self.values[v] for v in sets[i]}
                if other := [
                    v for v in hull if self.values[v] in meant and v not in sets[i]
                ]:
                    what = f"position {i}: id {other[0]} means {self.values[other[0]]}, as an id of another set"
                    raise ClaimError(
                        f"union: {what}; a condition tells integers apart, not ids: give ids their own"
                    )

    @property
    def members(self) -> tuple[Sets, ...]:
        return self._members

    @property
    def given(self) -> list[Any]:
        products = [_inside(self, sets) for sets in self.members]
        return [] if sympy.true in products else [sympy.Or(*products)]

    @property
    def size(self) -> int:
        """By how many prefixes are in the same of the products, one position after another."""
        reached = Counter({frozenset(range(len(self.members))): 1})
        for i, hull in enumerate(self.allowed):
            has = [
                frozenset(k for k, sets in enumerate(self.members) if v in sets[i])
                for v in hull
            ]
            after: Counter = Counter()
            for state, number in reached.items():
                for v, times in Counter(state & at for at in has).items():
                    after[v] += number * times
            reached = after
        return sum(number for state, number in reached.items() if state)

    def sample(self, count: int, rng: np.random.Generator) -> np.ndarray:
        """A product by its size, a sequence of it, and kept by one over how many have it (Karp and Luby): uniform."""
        sizes = [prod(map(len, sets)) for sets in self.members]
        share, found, held = [float(Fraction(s, sum(sizes))) for s in sizes], [], 0
        while held < count:
            which = rng.choice(len(sizes), count, p=np.array(share) / sum(share))
            drawn = [
                rng.choice(np.array(here), (1, count))
                for sets in self.members
                for here in sets
            ]
            rows = np.concatenate(drawn).reshape(len(sizes), len(self), count)[
                which, :, np.arange(count)
            ]
            kept = rows[rng.random(count) * self.multiplicity(rows) < 1]
            found.append(kept)
            held += len(kept)
        return np.concatenate(found)[:count]

    def multiplicity(self, rows: np.ndarray) -> np.ndarray:
        """In how many of the products each of the sequences [number, length] is."""
        inside = [
            [np.isin(rows[:, i], here) for i, here in enumerate(sets)]
            for sets in self.members
        ]
        return np.array(inside).all(1).sum(0)

    def described(self) -> list[tuple[str, str]]:
        (label, text), *_ = super().described()
        return [(label, f"{text}, the union of {len(self.members)} products")]


def _of_tokens(domains: list[Any]) -> Tokens:
    first = domains[0]
    for d in domains[1:]:
        if (d.name, d.values, len(d)) != (first.name, first.values, len(first)):
            ours, other = (
                f"{x.name!r}: length {len(x)}, vocabulary {len(x.values)}"
                for x in (first, d)
            )
            raise ClaimError(
                f"union: tokens must have one name, length, vocabulary and values: {ours}; {other}"
            )
    members = [sets for d in domains for sets in d.members]
    made = TokenUnion(first.name, first.values, members)
    return made if made.given else Tokens(made.name, made.values, made.allowed)


def _inside(whole: Tokens, sets: Sets) -> Any:
    """That the tokens are of these sets, where they are of all."""
    each = []
    for x, hull, here in zip(whole, whole.allowed, sets, strict=True):
        integers, meant = (
            sorted({whole.values[v] for v in hull}),
            {whole.values[v] for v in here},
        )
        each.append(_among(x, integers, [v in meant for v in integers]))
    return sympy.And(*each)


def _among(x: sympy.Symbol, integers: list[int], inside: list[bool]) -> Any:
    """That x, one of these ascending integers, is one that is `inside`: by runs of neighbours, from first to last."""
    last, runs = len(integers) - 1, []
    places = [i for i, here in enumerate(inside) if here]
    for _, group in groupby(enumerate(places), lambda pair: pair[1] - pair[0]):
        (_, first), *_, (_, end) = [*group] * 2
        if first == end and last:
            runs.append(sympy.Eq(x, integers[first]))
            continue
        above = sympy.true if first == 0 else sympy.Ge(x, integers[first])
        runs.append(
            sympy.And(above, sympy.true if end == last else sympy.Le(x, integers[end]))
        )
    return sympy.Or(*runs)


# --- Boxes ------------------------------------------------------------------------------------------------------------


def _of_boxes(domains: list[Any]) -> Box:
    boxes = [b for d in domains for b in d.each]
    first = domains[0]
    for d in domains[1:]:
        said = [(x.name, [a.shape for a in x.low], x.distribution) for x in (first, d)]
        if said[0] != said[1]:
            what = "boxes must have one name, the same shapes of inputs, and the same distribution"
            raise ClaimError(f"union: {what}: {said[0]}; {said[1]}"[:500])
    if any(d.tokens is not None for d in domains):
        raise ClaimError(
            "union: boxes that hold tokens of their own; write union(...).with_tokens(x), x the same for all"
        )
    if len(boxes) == 1:
        return first
    low, high = (
        _hull([getattr(b, end) for b in boxes], how)
        for end, how in (("low", np.min), ("high", np.max))
    )
    rounded = None
    if any(b.inner is not None for b in boxes):
        inner = [b.inner or (b.low, b.high) for b in boxes]
        rounded = (
            _hull([i[0] for i in inner], np.min),
            _hull([i[1] for i in inner], np.max),
        )
    return Box(
        low,
        high,
        name=first.name,
        inner=rounded,
        distribution=first.distribution,
        boxes=tuple(boxes),
    )


def _hull(corners: list[tuple[np.ndarray, ...]], how: Any) -> tuple[np.ndarray, ...]:
    return tuple(how(np.stack(of_input), 0) for of_input in zip(*corners, strict=True))


def disjoint(whole: Box) -> Box:
    """The same union, of boxes that have no volume in common: where some overlap, later ones are cut, at the corners of
    earlier ones. Raises ClaimError where that makes too many."""
    if not whole.boxes:
        return whole
    found = list[Corners]()
    for k, (low, high) in enumerate(zip(*whole.corners, strict=True)):
        pieces, met = [(low, high)], []
        for i in _overlapping(found, low, high):
            pieces = [piece for p in pieces for piece in _without(p, found[i])]
            met.append(i)
        found += pieces
        if len(found) > MOST:
            what = f"boxes overlap so much (number {k + 1}, {low.tolist()} to {high.tolist()}, {len(met)} others)"
            raise ClaimError(
                f"union: {what:.300} that their union is more than {MOST} boxes: give fewer, or smaller ones"
            )
    return replace(whole, boxes=tuple(_shaped(whole, *corners) for corners in found))


Corners = tuple[np.ndarray, np.ndarray]  # of all inputs, one after another


def _overlapping(found: list[Corners], low: np.ndarray, high: np.ndarray) -> list[int]:
    """Which of these boxes have volume in common with another one, coordinates that are points in it aside."""
    if not found:
        return []
    lows, highs = map(np.array, zip(*found, strict=True))
    common = (lows < high) & (low < highs) | (
        (lows == highs) & (low == high) & (lows == low)
    )
    return np.flatnonzero(common.all(1)).tolist()


def _without(box: Corners, other: Corners) -> list[Corners]:
    """Boxes that make up the first one but for the second, faces aside: what lies on either side of it, one coordinate
    after another."""
    (low, high), pieces = box, []
    if not _overlapping([other], low, high):
        return [box]
    for c in range(len(low)):
        for side, at in ((0, other[0][c]), (1, other[1][c])):
            if low[c] < at < high[c]:
                beside = low.copy(), high.copy()
                beside[1 - side][c] = at
                pieces.append(beside)
                low, high = low.copy(), high.copy()
                (low, high)[side][c] = at
    return pieces


def _shaped(whole: Box, low: np.ndarray, high: np.ndarray) -> Box:
    """A box of a union's inputs, from the numbers of all of them."""
    ends, start = ([], []), 0
    for a in whole.low:
        for end, corner in zip(ends, (low, high), strict=True):
            end.append(corner[start : start + a.size].reshape(a.shape))
        start += a.size
    return Box(
        tuple(ends[0]), tuple(ends[1]), name=whole.name, distribution=whole.distribution
    )
