"""ReLU neurons behind attention: what each can read in a cell of a fold, and the lines that replace it there.

A neuron reads z = base + sum_i e^(s_i) u_i / sum_i e^(s_i). For any trial value t, (z - t) sum_i e^(s_i) is a sum of
one-token terms, whose least value over the inputs of every cell is found by one recursion; with bounds of
sum_i e^(s_i) it says how far z is from t.

Lemma F7 (docs/soundness/fold.md).
"""

from typing import NamedTuple

import numpy as np

from mechverify.kernel.core.arithmetic import Arithmetic, Ball, aligned
from mechverify.kernel.core.meter import reserve
from mechverify.kernel.counting.automaton import Automaton
from mechverify.kernel.counting.recursion import smallest_by_class
from mechverify.kernel.fold.ratio import Neurons


class Reach(NamedTuple):
    """Each neuron's z lies between the points `low` and `high` [classes, vocab, neurons] on all inputs of a class with
    that query token; zero where there are none."""

    low: Ball
    high: Ball


class Factors(NamedTuple):
    """Raw numbers `low` and `high` [queries, vocab, attended], times 2^exponent: bounds of 2^-c e^s, c depending on the
    query token; zero where not `alive` (no input has that token there)."""

    low: np.ndarray
    high: np.ndarray
    exponent: int
    alive: np.ndarray


def reach(
    ar: Arithmetic, neurons: Neurons, factors: Factors, automaton: Automaton, domain: tuple[tuple[int, ...], ...],
    pin: int, trials: int,
) -> Reach:  # fmt: skip
    """Precondition: `factors` are those of the query tokens domain[pin]. Postcondition: see Reach, for any number of
    trials. Complexity: `smallest_by_class` for each neuron, with 2 trials columns for each query token."""
    queries, vocab = np.array(domain[pin]), neurons.value.mid.shape[1]
    low, high, exponent, alive = factors
    reserve(len(queries), vocab, low.shape[2], max(2 * trials, neurons.value.mid.shape[-1]))

    def least(terms: np.ndarray) -> np.ndarray:
        """Of terms [queries, vocab, attended, columns]: [classes, queries, columns]."""
        return smallest_by_class(ar, automaton, domain, terms.transpose(2, 1, 0, 3), pin, queries)

    z = ar.add(neurons.base.map(lambda a: a[:, :, None]), neurons.value)
    z = z.map(lambda a: a[queries] if len(a) > 1 else np.repeat(a, len(queries), 0))
    masses = least(np.stack([low, -high], -1))
    occupied = ~(masses[..., :1] >= ar.infinity)  # where in doubt, there is an input
    usable = occupied & (masses[..., :1] > 0)
    light, heavy = (np.where(usable, m, 1) for m in (masses[..., :1], -masses[..., 1:]))
    ends: list[list[Ball]] = [[], []]
    for j in range(z.mid.shape[-1]):
        ar.spend(0, 500)
        read = z.map(lambda a, j=j: a[..., j])
        plain = [_point(ar, np.where(alive, side, ar.infinity).min((1, 2)), z.exponent)  # z is a mean of these
                 for side in (ar.lower(read), -ar.upper(read))]  # fmt: skip
        first, last = (ar.approximate(p)[:, None] * sign for p, sign in zip(plain, (1, -1), strict=True))
        at = ar.exact(first + (last - first) * ((np.arange(trials) + 0.5) / trials))
        away = ar.sub(read.map(lambda a: a[..., None]), at.map(lambda a: a[:, None, None]))
        for side, sign in enumerate((1, -1)):  # lower bounds of z, and of -z
            w = ar.lower(away) if side == 0 else -ar.upper(away)
            sums = least(ar.down(w * np.where(w >= 0, low[..., None], high[..., None])))
            sums = np.where(usable, sums, 0)
            mass = _point(ar, np.where(sums >= 0, heavy, light), exponent)
            far = ar.div(_point(ar, sums, away.exponent + exponent), mass)
            bound = ar.trim(ar.add(at if sign > 0 else -at, far))
            best, floor = ar.align(_point(ar, ar.lower(bound).max(-1), bound.exponent), plain[side])
            best = np.where(usable[..., 0], np.maximum(best.mid, floor.mid), floor.mid)
            ends[side].append(_point(ar, np.where(occupied[..., 0], best, 0), floor.exponent))
    found = []
    for side in ends:
        balls = aligned(ar, *side)
        whole = np.zeros((len(automaton.classes), vocab, len(side)), ar.dtype)
        whole[:, queries] = np.stack([b.mid for b in balls], -1)
        found.append(_point(ar, whole, balls[0].exponent))
    return Reach(found[0], -found[1])


def replaced(ar: Arithmetic, neurons: Neurons, low: Ball, high: Ball, right: int, upper: bool) -> tuple[Ball, Ball]:
    """Base [q, out] and values [q, vocab, attended, out] of a form that, for every output t, is at most (upper: at
    least) sum_j (coefficient[j, right] - coefficient[j, t]) relu(z_j), where z lies between the points `low` and `high`
    [q, neurons].

    Where c >= 0, c relu(z) >= c a z with a = 0 or 1; where c <= 0, relu lies below any line that lies above it at both
    ends. Complexity: neurons x outputs times the values.
    """
    _, vocab, attended, m = neurons.value.mid.shape
    outputs = neurons.coefficient.mid.shape[-1]
    reserve(len(low.mid), max(vocab * attended, m), outputs)
    zero = ar.whole(np.zeros((1, 1), np.int64))
    c = neurons.coefficient.map(lambda a: a[:, 0])
    c = ar.sub(c.map(lambda a: a[..., right, None]), c)
    start, stop = (ar.approximate(b) for b in (low, high))
    width = np.where(stop > start, stop - start, 1.0)
    chord = ar.exact(np.clip(np.where(stop > start, stop / width, stop > 0), 0.0, 1.0))  # any slope will do
    over = [ar.sub(ar.where(z.mid > 0, z, zero), ar.mul(z, chord)) for z in (low, high)]
    over = ar.align(*over)
    above = _point(ar, np.maximum(*(ar.upper(b) for b in over)), over[0].exponent)
    beneath = (c.mid >= 0) != upper
    steep = ar.exact((start + stop > 0).astype(np.float64))
    slope = ar.where(beneath, steep.map(lambda a: a[..., None]), chord.map(lambda a: a[..., None]))
    constant = ar.where(beneath, zero.map(lambda a: a[..., None]), above.map(lambda a: a[..., None]))
    factor = ar.mul(c.point, slope)
    spread = ar.contract("mo,m->o", _point(ar, np.broadcast_to(c.rad, c.mid.shape), c.exponent),
                         ar.where(high.mid > 0, high, zero))  # fmt: skip
    base = ar.add(ar.contract("mo,mo->o", c.point, constant), spread if upper else -spread)
    base = ar.add(base, ar.contract("m,mo->o", neurons.base.map(lambda a: a[:, 0]), factor))
    return base, ar.contract("vpm,mo->vpo", neurons.value, factor)


def _point(ar: Arithmetic, raw: np.ndarray, exponent: int) -> Ball:
    return Ball(raw, np.zeros((1,) * raw.ndim, ar.dtype), exponent)
