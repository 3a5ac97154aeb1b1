"""What attention mixes, in a few directions, and bounds of sums of such ratios over many cells side by side.

A mixture is z = sum_h (sum_i e^(s_hi) u_hi) / (sum_i e^(s_hi)), a vector; of a row b of `directions`, b.z is a sum of
ratios of one-token sums, whose range over a cell rule ratios knows. Here the cells of all classes of the mechanism
are columns of one recursion.

Lemmas X1, X2 (docs/soundness/mixtures.md).
"""

from collections.abc import Sequence
from math import prod
from typing import Any, NamedTuple

import numpy as np

from mechverify.kernel.core.arithmetic import Arithmetic, Ball, aligned, points
from mechverify.kernel.core.claim import Job
from mechverify.kernel.core.domain import Domain
from mechverify.kernel.core.errors import Unsupported
from mechverify.kernel.core.graph import Graph
from mechverify.kernel.core.meter import reserve
from mechverify.kernel.core.series import exp_parts, relative_exponentials
from mechverify.kernel.counting.automaton import Automaton
from mechverify.kernel.counting.by_class import smallest_by_class
from mechverify.kernel.counting.form import SumOfRatios, sum_of_ratios
from mechverify.kernel.ratios.linear import LIGHTEST, Box, Expansion, Lead, shared

WIDE = 2**20  # numbers of an array over columns


class Mixture(NamedTuple):
    """The nodes of a graph that attention's patterns make, side by side one vector of d entries, as sums of ratios of
    one-token sums: score [heads, q or 1, vocab, length], value [heads, q or 1, vocab, length, d], attends [heads,
    length], with q the token at position `pin`."""

    graph: Graph
    output: int
    nodes: tuple[int, ...]
    pin: int
    score: Ball
    value: Ball
    attends: np.ndarray


def mixture(job: Job) -> Mixture:
    """Of the claim's output. Raises Unsupported where a pattern is not read at one position, or not over tokens."""
    graph, output = job.slim()
    nodes = tuple(n for n in graph.ancestors([output]) if _attends(graph, n))
    if not nodes:
        raise Unsupported("the output doesn't go through attention")
    forms = [sum_of_ratios(graph, job.claim.weights, job.semantics, n) for n in nodes]
    if len({f.pin for f in forms}) != 1:
        raise Unsupported("attention is read at several positions")
    if any(np.any(f.base.mid) or np.any(f.base.rad) for f in forms):
        raise Unsupported("a mixture has a part that no token is mixed into")
    widths = [prod(graph.nodes[n].shape) for n in nodes]
    starts = np.cumsum([0, *widths])
    value = [_spread(f, at, starts[-1]) for f, at in zip(forms, starts, strict=False)]
    return Mixture(
        graph,
        output,
        nodes,
        forms[0].pin,
        _heads(job.ar, [f.score for f in forms]),
        _heads(job.ar, value),
        np.concatenate([f.attends for f in forms]),
    )


def _attends(
    graph: Graph,
    n: int,
) -> bool:
    node = graph.nodes[n]
    return node.op == "einsum" and any(
        graph.nodes[a].op == "softmax" for a in node.args
    )


def _spread(
    form: SumOfRatios,
    start: int,
    width: int,
) -> Ball:
    """A form's values among those of all nodes: zero in the places of the others."""
    size = prod(form.value.mid.shape[4:])
    reserve(*form.value.mid.shape[:4], width)

    def spread(a: np.ndarray) -> np.ndarray:
        whole = np.zeros((*a.shape[:4], width), a.dtype)
        whole[..., start : start + size] = a.reshape(*a.shape[:4], size)
        return whole

    return form.value.map(spread)


def _heads(
    ar: Arithmetic,
    balls: list[Ball],
) -> Ball:
    """Along the axis of heads, rows of query tokens alike."""
    rows = max(b.mid.shape[1] for b in balls)
    reserve(sum(len(b.mid) for b in balls), rows, *balls[0].mid.shape[2:])
    parts = [
        b.map(lambda a: np.broadcast_to(a, (len(a), rows, *a.shape[2:])))
        for b in aligned(ar, *balls)
    ]
    mid, rad = (np.concatenate([p[i] for p in parts]) for i in (0, 1))
    return Ball(mid, rad, parts[0].exponent)


class Row:
    """One query token's tables: `factor` [heads, tokens, length] are the balls of 2^-c e^s, zero where a token doesn't
    occur or a head doesn't attend, `turned` [heads, tokens, length, J] those of b_j.u; `least` and `most` [d] bound z.
    Of each class, `light` and `heavy` [classes, heads] bound the sum of its factors, the former where it is `usable`
    [classes]: it has inputs, and a sum that is known to be positive."""

    def __init__(
        self,
        job: Job,
        domain: Domain,
        automaton: Automaton,
        mixed: Mixture,
        directions: Ball,
        query: int,
    ):
        ar, self.automaton, self.query = job.ar, automaton, query
        self.ar, self.pin = ar, mixed.pin
        self.tokens = np.unique(np.concatenate([np.array(t) for t in domain.tokens]))
        self.domain = domain.tokens
        heads, rows, self.vocab, length, width = mixed.value.mid.shape
        reserve(heads, len(self.tokens), length, max(width, len(directions.mid)))
        row, deep = (query if n > 1 else 0 for n in (mixed.score.mid.shape[1], rows))
        occurs = np.stack([np.isin(self.tokens, t) for t in domain.tokens], -1)
        occurs[:, mixed.pin] = self.tokens == query
        alive = occurs & mixed.attends[:, None]
        parts = job.once(_exponentials)
        parts = (
            parts[0].map(lambda a: a[:, row, self.tokens]),
            parts[1][:, row, self.tokens],
        )
        zero = ar.whole(np.zeros((1, 1, 1), np.int64))
        factor = relative_exponentials(ar, parts, alive, (1, 2))
        self.factor = ar.where(alive, factor, zero)
        value = mixed.value.map(lambda a: a[:, deep, self.tokens])
        self.turned = ar.contract("htld,jd->htlj", value, directions)
        low, high = (
            np.where(alive[..., None], end, side * ar.infinity)
            for end, side in ((ar.lower(value), 1), (ar.upper(value), -1))
        )
        self.least = _over_heads(ar, points(low.min((1, 2)), value.exponent), False)
        self.most = _over_heads(ar, points(high.max((1, 2)), value.exponent), True)
        ends = ar.lower(self.factor), ar.upper(self.factor)
        masses = self._by_class(np.stack([np.maximum(ends[0], 0), -ends[1]], -1))
        self.light, self.heavy = masses[..., 0], -masses[..., 1]  # [classes, heads]
        least = max(ar.units(LIGHTEST, self.factor.exponent), 0)
        self.usable = ((self.light > least) & (self.light < ar.infinity)).all(1)

    @property
    def step(self) -> int:
        """Columns that fit into an array."""
        heads, tokens, length = self.factor.mid.shape
        states = max(len(t) for t in self.automaton.step)
        return max(
            1, WIDE // (heads * max(self.vocab * length, tokens * length, states))
        )

    def _by_class(
        self,
        terms: np.ndarray,
    ) -> np.ndarray:
        """Lower bounds [classes, heads, columns] of the sums of terms [heads, tokens, length, columns]."""
        heads, _, length, columns = terms.shape
        reserve(length, self.vocab, heads * columns)
        wide = np.zeros((length, self.vocab, 1, heads * columns), self.ar.dtype)
        moved = terms.transpose(2, 1, 0, 3)
        wide[:, self.tokens, 0] = moved.reshape(*moved.shape[:2], heads * columns)
        query = np.array([self.query])
        found = smallest_by_class(
            self.ar, self.automaton, self.domain, wide, self.pin, query
        )
        return found.reshape(-1, heads, columns)

    def ranges(
        self,
        classes: np.ndarray,
        theta: np.ndarray,
    ) -> tuple[Any, Any]:
        """Raw arrays [cells, J], between which b_j.z - sum_h theta_hj lies on the cells of these classes, for trial
        values theta [heads, cells, J], whose sum over heads is taken as float64 rounds it. Complexity: four recursions
        on cells x J columns."""
        ar, (cells, wide) = self.ar, theta.shape[1:]
        reserve(cells, wide)
        at = centre(theta)
        step, low, high = max(1, self.step // wide), [], []
        for start in range(0, cells, step):
            some = slice(start, start + step)
            which = np.repeat(classes[some], wide)
            columns = Columns(self, which)
            trial = theta[:, some].reshape(len(theta), -1)
            reserve(*self.turned.mid.shape[:3], len(which))
            times = len(which) // wide
            turned = self.turned.map(lambda a, n=times: np.tile(a, n))
            lead = Lead(-ar.exact(at[some].reshape(-1)), turned)
            ends = (
                ar.lower(Expansion(columns, x, y).total).reshape(-1, wide)
                for x, y in ((lead, trial), (-lead, -trial))
            )
            low.append(next(ends))
            high.append(-next(ends))
        return np.concatenate(low), np.concatenate(high)


def _exponentials(job: Job) -> tuple[Ball, np.ndarray]:
    return exp_parts(job.ar, job.once(mixture).score)


def _over_heads(
    ar: Arithmetic,
    ends: Ball,
    upper: bool,
) -> np.ndarray:
    total = ends.at[0]
    for h in range(1, len(ends.mid)):
        total = ar.add(total, ends.at[h])
    return ar.upper(total) if upper else ar.lower(total)


def centre(parts: np.ndarray) -> np.ndarray:
    """The sum of heads' parts, added in this order on every machine."""
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    return total


class Columns(Box):
    """Cells of one query token, one for each column of a lead, of the usable class that `classes` [columns] names.
    `light` and `heavy` are [heads, columns]."""

    def __init__(self, row: Row, classes: np.ndarray):
        self.ar, self.row, self.classes = row.ar, row, classes
        self.tokens, self.factor, self.pin = row.tokens, row.factor, row.pin
        self.usable = bool(row.usable[classes].all())
        self.light, self.heavy = (
            points(m[classes].T, row.factor.exponent) for m in (row.light, row.heavy)
        )

    def least(
        self,
        terms: np.ndarray,
    ) -> np.ndarray:
        """Lower bounds [rows, columns] of sums of terms [rows, tokens, length, columns], each over its column's cell;
        the columns may come several times over, one row of them after another."""
        found = self.row._by_class(terms)
        classes = np.tile(self.classes, found.shape[-1] // len(self.classes))
        return found[classes, :, np.arange(len(classes))].T

    def around(
        self,
        lead: Lead,
        point: np.ndarray | Sequence[int],
    ) -> np.ndarray:
        """`point`: the ratios themselves, [heads, columns]."""
        return shared(self.ar, lead, np.asarray(point, float))
