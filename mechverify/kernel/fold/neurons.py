"""ReLU neurons behind attention: what each can read in a cell of a fold, and the lines that replace it there.

A neuron reads z = base + sum_i e^(s_i) u_i / sum_i e^(s_i). For any trial value t, (z - t) sum_i e^(s_i) is a sum of
one-token terms, whose least value over the inputs of every cell is found by one recursion; with bounds of
sum_i e^(s_i) it says how far z is from t.

Lemma F7 (docs/soundness/fold.md).
"""

from typing import NamedTuple

import numpy as np

from mechverify.kernel.core.arithmetic import Arithmetic, Ball, aligned, points
from mechverify.kernel.core.meter import reserve
from mechverify.kernel.counting.automaton import Automaton
from mechverify.kernel.counting.by_class import smallest_by_class
from mechverify.kernel.fold.factors import Factors
from mechverify.kernel.fold.ratio import Neurons


class Reach(NamedTuple):
    """Each neuron's z lies between the points `low` and `high` [classes, vocab, neurons] on all inputs of a class with
    that query token; zero where there are none."""

    low: Ball
    high: Ball


class _Cells:
    """What the recursions for all neurons share, with bounds `light` and `heavy` [classes, queries, 1] of 2^-c sum_i
    e^(s_i), raw numbers times 2^factors.exponent. Where a cell is not `usable` they are one: there is no input, which
    is sure where it is not `occupied`, or the sum is not known to be positive."""

    def __init__(self, ar: Arithmetic, factors: Factors, automaton: Automaton, domain: tuple[tuple[int, ...], ...],
                 pin: int):  # fmt: skip
        self.ar, self.factors, self.automaton, self.domain, self.pin = (
            ar,
            factors,
            automaton,
            domain,
            pin,
        )
        self.queries = np.array(domain[pin])
        masses = self.least(np.stack([factors.low, -factors.high], -1))
        light, heavy = masses[..., :1], -masses[..., 1:]
        occupied = ~(light >= ar.infinity)  # where in doubt, there is an input
        usable = occupied & (light > 0)
        self.occupied, self.usable = occupied, usable
        self.light = np.where(usable, light, 1)
        self.heavy = np.where(usable, heavy, 1)

    def least(self, terms: np.ndarray) -> np.ndarray:
        """Of the sum of terms [queries, vocab, attended, columns], in each cell: [classes, queries, columns]."""
        terms = terms.transpose(2, 1, 0, 3)
        return smallest_by_class(
            self.ar, self.automaton, self.domain, terms, self.pin, self.queries
        )


def reach(
    ar: Arithmetic, neurons: Neurons, factors: Factors, automaton: Automaton, domain: tuple[tuple[int, ...], ...],
    pin: int, trials: int,
) -> Reach:  # fmt: skip
    """Precondition: `factors` are those of the query tokens domain[pin]. Postcondition: see Reach, for any number of
    trials. Complexity: `smallest_by_class` for each neuron, with 2 trials columns for each query token."""
    _, vocab, attended, count = neurons.value.mid.shape
    reserve(len(domain[pin]), vocab, attended, max(2 * trials, count))
    cells = _Cells(ar, factors, automaton, domain, pin)
    z = _read(ar, neurons, cells.queries)
    below, above = [], []
    for j in range(count):
        ar.spend(0, 500)
        low, high = _bounds(cells, z.at[..., j], trials)
        below.append(low)
        above.append(high)
    return Reach(_by_query(cells, below, vocab), -_by_query(cells, above, vocab))


def _read(ar: Arithmetic, neurons: Neurons, queries: np.ndarray) -> Ball:
    """base + u of each query and attended token: z is a mean of these. [queries, vocab, attended, neurons]"""
    z = ar.add(neurons.base.at[:, :, None], neurons.value)
    return z.map(lambda a: a[queries] if len(a) > 1 else np.repeat(a, len(queries), 0))


def _bounds(cells: _Cells, read: Ball, trials: int) -> tuple[Ball, Ball]:
    """Lower bounds of z, and of -z, in each cell [classes, queries], for a neuron that reads [queries, vocab,
    attended]. The trial values lie between the least and the greatest that it reads."""
    ar = cells.ar
    least, greatest = (
        _smallest_read(cells, ar.lower(read), read),
        _smallest_read(cells, -ar.upper(read), read),
    )
    first, last = ar.approximate(least)[:, None], -ar.approximate(greatest)[:, None]
    steps = (np.arange(trials) + 0.5) / trials
    at = ar.exact(first + (last - first) * steps)
    away = ar.sub(read.at[..., None], at.at[:, None, None])
    low = _by_trials(cells, least, at, ar.lower(away), away.exponent)
    high = _by_trials(cells, greatest, -at, -ar.upper(away), away.exponent)
    return low, high


def _smallest_read(cells: _Cells, side: np.ndarray, read: Ball) -> Ball:
    """Over the tokens that can occur, for each query token [queries]."""
    ar, alive = cells.ar, cells.factors.alive
    return points(np.where(alive, side, ar.infinity).min((1, 2)), read.exponent)


def _by_trials(
    cells: _Cells, plain: Ball, at: Ball, w: np.ndarray, exponent: int
) -> Ball:
    """The best lower bound of z [classes, queries]: a `plain` one, or for some trial value t of `at` [queries, trials]

        z >= t + (the least sum_i e^(s_i) w_i) / (sum_i e^(s_i)),

    `w` [queries, vocab, attended, trials] being lower bounds of what is read, less t, over 2^exponent. Zero where there
    is no input."""
    ar, (low, high, scale, _) = cells.ar, cells.factors
    sums = cells.least(ar.down(w * np.where(w >= 0, low[..., None], high[..., None])))
    sums = np.where(cells.usable, sums, 0)
    mass = points(np.where(sums >= 0, cells.heavy, cells.light), scale)
    far = ar.div(points(sums, exponent + scale), mass)
    bound = ar.trim(ar.add(at, far))
    best = points(ar.lower(bound).max(-1), bound.exponent)
    best, floor = ar.align(best, plain)
    value = np.where(cells.usable[..., 0], np.maximum(best.mid, floor.mid), floor.mid)
    return points(np.where(cells.occupied[..., 0], value, 0), floor.exponent)


def _by_query(cells: _Cells, ends: list[Ball], vocab: int) -> Ball:
    """One end for all neurons, [classes, queries] each, as [classes, vocab, neurons]."""
    balls = aligned(cells.ar, *ends)
    whole = np.zeros((len(cells.automaton.classes), vocab, len(balls)), cells.ar.dtype)
    whole[:, cells.queries] = np.stack([b.mid for b in balls], -1)
    return points(whole, balls[0].exponent)


class _Lines(NamedTuple):
    """That replace relu between points [q, neurons, 1], for each query and neuron: `steep`, 0 or 1, is the slope of one
    below it through zero; `chord` and `above` are slope and constant of one above it."""

    steep: Ball
    chord: Ball
    above: Ball


def _lines(ar: Arithmetic, low: Ball, high: Ball) -> _Lines:
    """Any slope of the upper line will do: its constant is read off at both ends."""
    start, stop = ar.approximate(low), ar.approximate(high)
    width = np.where(stop > start, stop - start, 1.0)
    chord = ar.exact(np.clip(np.where(stop > start, stop / width, stop > 0), 0.0, 1.0))
    first, last = (ar.sub(_relu(ar, z), ar.mul(z, chord)) for z in (low, high))
    first, last = ar.align(first, last)
    above = points(np.maximum(ar.upper(first), ar.upper(last)), first.exponent)
    steep = ar.exact((start + stop > 0).astype(np.float64))
    return _Lines(steep, chord, above)


def _relu(ar: Arithmetic, z: Ball) -> Ball:
    """Of points."""
    return ar.where(z.mid > 0, z, ar.whole(np.zeros((1, 1), np.int64)))


def replaced(
    ar: Arithmetic, neurons: Neurons, low: Ball, high: Ball, right: int, upper: bool
) -> tuple[Ball, Ball]:
    """Base [q, out] and values [q, vocab, attended, out] of a form that, for every output t, is at most (upper: at
    least) sum_j (coefficient[j, right] - coefficient[j, t]) relu(z_j), where z lies between the points `low` and `high`
    [q, neurons].

    Where c >= 0, c relu(z) >= c a z with a = 0 or 1; where c <= 0, relu lies below any line that lies above it at both
    ends. Complexity: neurons x outputs times the values.
    """
    _, vocab, attended, count = neurons.value.mid.shape
    outputs = neurons.coefficient.mid.shape[-1]
    reserve(len(low.mid), max(vocab * attended, count), outputs)
    c = neurons.coefficient.at[:, 0]
    c = ar.sub(c.at[..., right, None], c)
    lines = _lines(ar, low.at[..., None], high.at[..., None])
    zero = ar.whole(np.zeros((1, 1, 1), np.int64))
    beneath = (c.mid >= 0) != upper
    slope = ar.where(beneath, lines.steep, lines.chord)
    constant = ar.where(beneath, zero, lines.above)
    factor = ar.mul(c.point, slope)
    blur = points(np.broadcast_to(c.rad, c.mid.shape), c.exponent)
    spread = ar.contract("mo,m->o", blur, _relu(ar, high))  # of the coefficients' radii
    base = ar.contract("mo,mo->o", c.point, constant)
    base = ar.add(base, spread if upper else -spread)
    base = ar.add(base, ar.contract("m,mo->o", neurons.base.at[:, 0], factor))
    return base, ar.contract("vpm,mo->vpo", neurons.value, factor)
