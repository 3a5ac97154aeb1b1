"""By how much many slopes' products s d differ from r d together: by less than each of them by itself.

All d are written as linear forms of common symbols, each of which lies in [-1, 1]: one for each input, and for what a
line leaves over. What the weighted squares of such forms add up to is bounded by a largest eigenvalue.

Lemma D5 (docs/soundness/differences.md).
"""

from fractions import Fraction
from math import prod
from typing import Any, NamedTuple

import numpy as np

from mechverify.kernel.core.arithmetic import Ball
from mechverify.kernel.core.errors import OverLimit, Rejected, Unsupported
from mechverify.kernel.core.meter import reserve
from mechverify.kernel.relaxation import lines
from mechverify.kernel.relaxation.backward import Lines, Relaxed
from mechverify.kernel.relaxation.operations import row_of

MOST = (
    2**17
)  # numbers of the squares of a cell's forms; where there are more, entries are taken one by one
TOGETHER = 2**21  # of all cells' forms at a time
SLOPED = {"secant", "exchanged"}
DOUBLINGS = 5  # of a matrix's power
LEAST = 1e-12  # of symbols' sizes, as a share of the largest one
SMALL, LARGE = 1e-200, 1e200  # numbers whose squares neither vanish nor overflow


class Symbols(NamedTuple):
    """Coefficients of a node's symbols, [cells, entries, symbols]. If the symbols are what slopes leave over, they are
    at most `most` [cells, symbols] times |d|, entry by entry; `of` is d's node."""

    coefficients: Ball
    of: int | None = None
    most: Any = None


class Noise(NamedTuple):
    """What a node's entries are made of: `symbols`, all of whose coefficients are in one ball, and a number of each
    entry's own, up to `rest` [cells, entries]."""

    symbols: list[Symbols]
    coefficients: Ball
    rest: Any

    def of(self, cells: slice) -> "Noise":
        """Of some cells."""
        symbols = [
            s._replace(most=None if s.most is None else _of(s.most, cells))
            for s in self.symbols
        ]
        coefficients = self.coefficients.map(lambda a: _of(a, cells))
        return Noise(symbols, coefficients, _of(self.rest, cells))


def _of(a: Any, cells: slice) -> Any:
    return a if len(a) == 1 else a[cells]


class Parallel(Lines):
    """The same slopes below and above."""

    def choose(self, relaxed, start, n):
        op = relaxed.graph.nodes[n].op
        if op == "blend":
            return None
        if op in SLOPED:
            return middle(relaxed, n)
        slope = (
            0.5 + 0 * relaxed.finite(relaxed.ends[n][0])[:, None]
            if op == "mul"
            else relaxed.default_slopes(n)[1].mid
        )
        return slope, slope


class Spread(Relaxed):
    """Carries forms of a node's entries to symbols. Raises Unsupported where lines aren't parallel, or something isn't
    finite."""

    def __init__(self, known: Relaxed):
        self.__dict__ |= known.__dict__
        self.lines, self.found = Parallel(), list[Symbols]()

    def noise(self, n: int) -> Noise:
        """Precondition: what node n needs is bounded. Complexity: that of its forms."""
        ar, xp, nodes = self.ar, self.ar.xp, self.graph.nodes
        shape = nodes[n].shape
        size, order = prod(shape), self.order[: self.place[n] + 1]
        made = [m for m in order if m in self.curved or nodes[m].op == "input"]
        symbols = 1 + sum(prod(nodes[m].shape) for m in made)
        if max(size, symbols) ** 2 > MOST:
            raise Unsupported("more symbols than are worth their time")
        reserve(len(self.cells) * max(size, symbols) ** 2)
        pending = {n: ar.exact(ar.raw(np.eye(size).reshape(1, size, *shape)))}
        centre = lost = ar.exact(ar.raw(np.zeros((len(self.cells), size))))
        for m in reversed(order):
            if m in pending:
                k, loss = self._centred(m, pending.pop(m))
                forms, constant = self._back(n, m, k)
                lost = lost if loss is None else ar.add(lost, loss)
                centre = centre if constant is None else ar.add(centre, constant)
                for operand, form in forms:
                    old = pending.get(operand)
                    pending[operand] = form if old is None else ar.add(old, form)
        low, high = ar.ends(centre)
        middle = low / 2 + high / 2
        self.found.append(Symbols(ar.point(middle[..., None])))
        above = ar.up(high - middle)
        below = ar.up(middle - low)
        rest = xp.maximum(above, below)
        lost, _ = ar.ends(lost)
        rest = ar.up(rest - lost)
        every = self._joined()
        if pending or not bool(xp.isfinite(rest).all() & self.known_balls(every).all()):
            raise Unsupported("forms of tokens, or what isn't finite")
        return Noise(self.found, every, rest)

    def _joined(self) -> Ball:
        ar, start = self.ar, 0
        size = sum(s.coefficients.mid.shape[-1] for s in self.found)
        whole = ar.rational(Fraction(0))
        for s in self.found:
            end = start + s.coefficients.mid.shape[-1]
            whole = ar.add(
                whole, ar.scatter(s.coefficients, np.arange(start, end), size)
            )
            start = end
        return whole

    def _back(self, start, n, k):
        op = self.graph.nodes[n].op
        if not row_of(op).two_sided:
            raise Unsupported("forms that bound from one side")
        if op != "input":
            return super()._back(start, n, k)
        ball = self.balls[n]
        self._add(k, ball._replace(mid=ball.rad).point)
        return [], self.dot(k, ball.point)

    def bent(self, n, k, planes):
        """As a number between the planes' constants, beside the same slopes."""
        ar, xp, node = self.ar, self.ar.xp, self.graph.nodes[n]
        ((*slopes, low), no_lower), ((*same, high), no_upper) = planes
        alike = (
            bool((a.mid == b.mid).all()) for a, b in zip(slopes, same, strict=True)
        )
        if bool((no_lower | no_upper).any()) or not all(alike):
            raise Unsupported("lines that are not parallel")
        bottom, _ = ar.ends(low)
        _, top = ar.ends(high)
        of, most = None, None
        centre = bottom / 2 + top / 2
        if node.op in SLOPED:
            centre = 0 * centre  # so that a symbol is zero where d is
        above = ar.up(top - centre)
        below = ar.up(centre - bottom)
        size = ar.up(xp.maximum(above, below))  # once more: to divide by
        if node.op in SLOPED:
            of = node.args[-1]
            most = ar.point(reach(self, n, slopes[0].mid))
            _, most = ar.ends(ar.div(most, ar.point(size)))
            most = most.reshape(len(most), -1)
        self._add(k, ar.point(size), of, most)
        constant = self.dot(k, ar.point(centre), rows=True)
        return [ar.mul(k, slope) for slope in slopes], constant

    def _add(
        self, k: Ball, size: Ball, of: int | None = None, most: Any = None
    ) -> None:
        size = size if size.mid.ndim == k.mid.ndim else size.at[:, None]
        x = self.ar.mul(k, size).map(lambda a: a.reshape(*a.shape[:2], -1))
        self.found.append(Symbols(x, of, most))


def middle(known: Relaxed, n: int) -> tuple[Any, Any]:
    """The slope from which those of node n differ least, raw [cells, 1, *shape], twice: for lower and upper lines."""
    low, high = (known.finite(end[:, None]) for end in known.slopes[n])
    return (low / 2 + high / 2,) * 2


def reach(known: Relaxed, n: int, slope: Any) -> Any:
    """By how much slopes of node n differ from `slope`, at most, raw [cells, rows, *shape]."""
    low, high = (end[:, None] for end in known.slopes[n])
    low, high = lines.total(known.ar, (low, high), (-slope, -slope))
    return known.ar.xp.maximum(-low, high)


def noise_of(known: Relaxed, n: int) -> Noise | None:
    """Of node n, found once; None: there is none."""
    every = vars(known).setdefault("noises", {})
    if n not in every:
        try:
            every[n] = Spread(known).noise(n)
        except OverLimit:
            raise
        except Rejected:  # what D1 says stands
            every[n] = None
    return every[n]


def loss(known: Relaxed, n: int, k: Ball, most: Any) -> Any | None:
    """Upper bounds [cells, rows] of the sum over a node's entries z of |k| c |z|, where 0 <= c <= `most`, raw [cells,
    rows, *shape]; None: of nothing. Complexity: for each row, a few products of matrices of its entries and symbols."""
    ar, xp = known.ar, known.ar.xp
    several = (k.mid != 0).reshape(*k.mid.shape[:2], -1).sum(-1) > 1
    if (
        isinstance(known, Spread)
        or not bool(several.any())
        or (ar.rounds and np.any(k.rad))
    ):
        return None
    low, high = known.ends[n]
    size = xp.maximum(-low, high).reshape(len(low), 1, -1)
    c = ar.up(xp.abs(k.mid) * most)
    c = c.reshape(*c.shape[:2], -1)
    noise = noise_of(known, n)
    if noise is None or not bool(xp.isfinite(c * size).all()):
        return None
    numbers = c.shape[1] * max(noise.coefficients.mid.shape[1:]) ** 2
    if numbers > MOST:
        return None
    cells, step = max(len(c), len(size), len(noise.rest)), max(1, TOGETHER // numbers)
    reserve(min(cells, step), numbers)
    parts = [slice(i, i + step) for i in range(0, cells, step)]
    found = [_loss(known, n, at, _of(c, at), _of(size, at)) for at in parts]
    return found[0] if len(found) == 1 else xp.concatenate(found)


def _loss(known: Relaxed, n: int, cells: slice, c: Any, size: Any) -> Any:
    """At most the root of the sum of (c / w)^2, times `norm`: for weights w that make both small. An entry without a
    weight, as its number vanishes or is too large, is added by itself."""
    ar, xp, noise = known.ar, known.ar.xp, vars(known)["noises"][n].of(cells)
    w = _weights(known, c, c * size)
    shares = _shares(known, noise, w)
    products = ar.approximate(_products(known, noise, w, shares))
    root = xp.sqrt(c * size)
    sums = (xp.abs(products) * root[..., None, :]).sum(-1)
    w = _weights(known, c, root * sums)
    both = norm(known, n, cells, w, shares)
    weighed = w > 0
    rest = ar.point(xp.where(weighed, c, 0.0))
    rest = ar.div(rest, ar.point(xp.where(weighed, w, 1.0)))
    squares = ar.mul(rest, rest)
    _, rest = ar.ends(ar.sum(squares))
    rest = ar.up(xp.sqrt(rest))
    alone = ar.up(xp.where(weighed, 0.0, c * size))
    _, alone = ar.ends(ar.sum(ar.point(alone)))
    found = ar.up(rest * both)
    return ar.up(found + alone)


def norm(known: Relaxed, n: int, cells: slice, w: Any, shares: Any = None) -> Any:
    """Upper bounds [cells, rows] of the root of the sum over a node's entries z of (w z)^2, for raw weights w [cells,
    rows, entries] >= 0. Any positive `shares` of the symbols are sound."""
    ar, xp, found = known.ar, known.ar.xp, noise_of(known, n)
    within = shares is None  # another's symbols are bounded
    if found is None:
        return np.inf
    noise = found.of(cells)
    shares = _shares(known, noise, w) if within else shares
    power = _products(known, noise, w, shares)
    for _ in range(DOUBLINGS):
        power = ar.contract("ij,jk->ik", power, power)
    low, high = ar.ends(power)
    sizes = ar.point(xp.maximum(-low, high))
    _, largest = ar.ends(ar.sum(sizes))
    largest = xp.amax(largest, -1)
    for _ in range(DOUBLINGS):
        largest = ar.up(xp.sqrt(largest))
    each = ar.point(shares)
    squares = ar.mul(each, each)
    one = ar.rational(Fraction(1))
    _, each = ar.ends(ar.div(one, squares))
    total, start = 0 * largest, 0
    for symbol in noise.symbols:
        some = each[..., start : start + symbol.coefficients.mid.shape[-1]]
        start += some.shape[-1]
        _, most = ar.ends(ar.sum(ar.point(some)))
        if symbol.of is not None and not within:
            root = ar.up(xp.sqrt(some))
            weights = ar.up(root * symbol.most[:, None])
            inner = norm(known, symbol.of, cells, weights)
            inner = ar.up(inner * inner)
            most = xp.where(inner < most, inner, most)
        total = ar.up(total + most)
    apart = ar.mul(ar.point(w), ar.point(noise.rest[:, None]))
    squares = ar.mul(apart, apart)
    _, apart = ar.ends(ar.sum(squares))
    apart = ar.up(xp.sqrt(apart))
    common = ar.up(largest * total)
    common = ar.up(xp.sqrt(common))
    return ar.up(common + apart)


def _weights(known: Relaxed, c: Any, sizes: Any) -> Any:
    """c / sqrt(sizes): any are sound."""
    ar, xp = known.ar, known.ar.xp
    sizes = ar.approximate(ar.point(sizes))
    w = ar.approximate(ar.point(c)) / xp.sqrt(xp.where(sizes > 0, sizes, 1.0))
    return xp.where((sizes > 0) & (w < LARGE), w, 0 * w)


def _shares(known: Relaxed, noise: Noise, w: Any) -> Any:
    """Of each symbol, [cells, rows, symbols]: what it adds to the sum of squares, by Gershgorin."""
    ar, xp = known.ar, known.ar.xp
    form = ar.mul(ar.point(w[..., None]), noise.coefficients.at[:, None])
    products = ar.contract("je,jf->ef", form, form)
    products = ar.approximate(products)
    size = xp.abs(products).sum(-1)
    size = xp.maximum(size, LEAST * xp.amax(size, -1)[..., None])
    return 1 / xp.sqrt(xp.where((size > SMALL) & (size < LARGE), size, 1.0))


def _products(known: Relaxed, noise: Noise, w: Any, shares: Any) -> Ball:
    """Of the rows of weighted coefficients, [cells, rows, entries, entries]."""
    ar = known.ar
    form = ar.mul(ar.point(w[..., None]), noise.coefficients.at[:, None])
    form = ar.mul(form, ar.point(shares[..., None, :]))
    return ar.contract("je,ke->jk", form, form)
