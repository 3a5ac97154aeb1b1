"""Ranges of sums of ratios over token sequences: what attention gives, and its patterns, in one layer."""

import time
from functools import cached_property, partial
from typing import Any, NamedTuple

import numpy as np
import torch

from mechverify.certificate.write import Proof
from mechverify.kernel.core.domain import Domain
from mechverify.kernel.core.errors import Rejected, Stopped, Unsupported
from mechverify.kernel.core.fields import Reader
from mechverify.kernel.core.ranges import Range
from mechverify.kernel.proof import united
from mechverify.kernel.ratios.linear import Tables
from mechverify.kernel.ratios.ranges import tables_of
from mechverify.provers.base import Budget
from mechverify.provers.ranges.inputs import Inputs
from mechverify.provers.ranges.known import Found, Known, unite
from mechverify.provers.ranges.problem import RangeProblem
from mechverify.provers.ranges.refute import refuted
from mechverify.provers.worst_first import WorstFirst

MOST, LONGEST = 2**9, 20.0  # parts; seconds, where no threshold is asked for
SWEEPS = 50  # over the positions, of a descent that changes one token at a time
STARTS = 4  # of it, with several heads
HOPELESS = 100.0  # times wider than what is reached: cutting takes too many parts
BELOW = 1e-12  # relative: trial values are that far beyond what is reached
NEAR = 1e-7  # relative: bounds that are that near to what is reached are exact


class Extreme(NamedTuple):
    """For each token of the query the least values [queries, ends] that a descent reached, of entries and then of
    negated ones, and where [queries, ends, length]."""

    least: np.ndarray
    tokens: np.ndarray


class Part(NamedTuple):
    """`node`: its proof, in its place in the tree; `range`: what that proves of the part."""

    node: Proof
    domain: Domain
    range: Range


class Ratios:
    name = "sums of ratios"

    def accepts(self, problem: RangeProblem, known: Known) -> str | None:
        if len(problem.domain.low):
            return "it is for token sequences alone"
        graph = problem.claim.graph
        attends = any(graph.nodes[n].op == "softmax" for n in problem.needed)
        if known.exact:
            return ""
        return None if attends else "nothing attends"

    def prove(self, problem: RangeProblem, known: Known, budget: Budget) -> Found:
        """Where the output is no sum of ratios, what was found before."""
        try:
            tables = problem.job.once(tables_of)
        except (Rejected, Unsupported):
            return known.found
        budget.progress(self.name, None)
        extreme = descended(tables, problem.domain, budget)
        known.seen = _seen(problem, known.seen, extreme)
        if (broken := refuted(problem, known.seen)) is not None:
            return broken
        found = Cutting(problem, tables, extreme, budget).run()
        if found.proof is not None and _exact(found.range, known.seen.values):
            known.exact = True
        return found


def descended(tables: Tables, domain: Domain, budget: Budget) -> Extreme:
    """One token at a time: with one head no start is better than another."""
    form = tables.form
    tokens = [np.array(sorted(t)) for t in domain.tokens]
    rng, queries = np.random.default_rng(0), tokens[form.pin]
    ends = 2 * int(np.prod(form.base.mid.shape[1:]))
    starts = STARTS if len(form.attends) > 1 else 1
    least = np.full((len(queries), ends), np.inf)
    best = np.stack([np.full((len(queries), ends), t[0]) for t in tokens], -1)
    best[:, :, form.pin] = queries[:, None]
    for q, query in enumerate(queries.tolist()):
        terms = Terms(tables, query)
        here = [np.array([query]) if i == form.pin else t for i, t in enumerate(tokens)]
        for _ in range(starts):
            start = np.stack([rng.choice(t, ends) for t in here], -1)
            values, found = terms.descend(start, here)
            better = values < least[q]
            least[q, better], best[q, better] = values[better], found[better]
        if budget.spent():
            break
    return Extreme(least, best)


class Terms:
    """In float64, of one query token: `factor` [heads, vocab, length] and `weighed` [ends, heads, vocab, length], the
    terms of each ratio; `base` [ends]."""

    def __init__(self, tables: Tables, query: int):
        ar, form = tables.ar, tables.form
        lead = tables.outputs(query, np.arange(form.score.mid.shape[2]))
        row = query if form.score.mid.shape[1] > 1 else 0
        score = ar.approximate(form.score.map(lambda a: a[:, row]))
        score = np.where(form.attends[:, None], score, -np.inf)
        self.factor = np.exp(score - score.max((1, 2), keepdims=True))
        base, value = (ar.approximate(x) for x in lead)
        value = value.reshape(*value.shape[:3], -1)
        value = np.moveaxis(np.concatenate([value, -value], -1), -1, 0)
        self.weighed = self.factor * value
        self.base = np.concatenate([base.ravel(), -base.ravel()])

    def descend(
        self, x: np.ndarray, allowed: list[np.ndarray]
    ) -> tuple[np.ndarray, np.ndarray]:
        """The values [ends] where no other token at one position gives a smaller one, and where [ends, length], from
        sequences x [ends, length]."""
        ends, x = np.arange(len(x)), x.copy()
        above, below = self._sums(x)
        for _ in range(SWEEPS):
            before = x.copy()
            for i, here in enumerate(allowed):
                if len(here) == 1:
                    continue
                more = self.weighed[:, :, here, i]  # [ends, heads, tokens]
                mass = self.factor[None, :, here, i]
                above = above - self.weighed[ends, :, x[:, i], i]
                below = below - self.factor[:, x[:, i], i].T
                ratios = (above[:, :, None] + more) / (below[:, :, None] + mass)
                values = ratios.sum(1)
                values[~np.isfinite(values)] = np.inf  # all weights underflow
                pick = values.argmin(1)
                x[:, i] = here[pick]
                above = above + more[ends, :, pick]
                below = below + mass[0][:, pick].T
            if (x == before).all():
                break
            above, below = self._sums(x)  # without what rounding piled up
        values = self.base + (above / below).sum(1)
        return np.where(np.isfinite(values), values, np.inf), x

    def _sums(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        positions = np.arange(x.shape[1])
        ends = np.arange(len(x))[:, None]
        above = self.weighed[ends, :, x, positions].sum(1)
        below = self.factor[:, x, positions].sum(-1).T
        return above, below


def _seen(problem: RangeProblem, seen: Inputs, extreme: Extreme) -> Inputs:
    """With the least and the largest that were reached."""
    q = extreme.least.argmin(0)
    tokens = np.unique(extreme.tokens[q, np.arange(len(q))], axis=0)
    points = np.zeros((len(tokens), 0))
    new = Inputs.allowed(
        tokens, points, *problem.values(tokens, torch.from_numpy(points))
    )
    if not len(seen.values):
        return new
    return Inputs(*map(np.concatenate, zip(seen, new, strict=True)))


class Cutting:
    """Parts of the domain, the worst one cut first, each bounded around the same trial values."""

    def __init__(
        self, problem: RangeProblem, tables: Tables, extreme: Extreme, budget: Budget
    ):
        """Trial values are a little beyond what is reached."""
        self.problem, self.tables, self.budget = problem, tables, budget
        self.least = extreme.least.min(0)
        self.trial = self.least - BELOW * np.maximum(1.0, np.abs(self.least))
        self.extreme, self.begun = extreme, time.monotonic()
        self.open, self.reasons = WorstFirst[Part](), list[str]()

    def run(self) -> Found:
        problem, nothing = self.problem, self.problem.claim.everything
        root: Proof = {}
        try:
            self._add(root, problem.domain, self.extreme)
            while not self._done():
                self._cut(self.open.take())
        except (Rejected, Stopped) as error:
            self.reasons.append(str(error) or self.budget.why)
        if not root or any(not part.node for part in self.open):
            return Found(None, nothing, False, self.reasons)
        ranges = [part.range for part in self.open]
        return Found(root, unite(ranges), False, self.reasons, True)

    def _done(self) -> bool:
        worst, many = self.open.worst, len(self.open)
        late = time.monotonic() - self.begun > LONGEST and not self.problem.asks
        self.budget.progress(f"{many:,} parts, {worst:.1e} wider than reached", None)
        over = late or self.budget.spent() or worst > HOPELESS
        return worst <= NEAR or many >= MOST or over

    def _add(self, node: Proof, domain: Domain, extreme: Extreme) -> None:
        n = self.problem.claim.outputs
        several = len(self.tables.form.attends) > 1
        node |= {
            "rule": "ratios",
            "trials": {
                "low": _hexadecimal(self.trial[:n]),
                "high": _hexadecimal(-self.trial[n:]),
            },
            "points": extreme.tokens.tolist() if several else None,
        }
        with self.budget.rehearsing():
            found, _ = united(self.problem.job, [(domain, Reader(node, "proof"))])
        self.open.add(Part(node, domain, found), self._gap(found))

    def _gap(self, found: Range) -> float:
        """By how much its worst end is beyond what is asked for, or reached, of the reached range."""
        n = self.problem.claim.outputs
        width = np.maximum(-self.least[n:] - self.least[:n], 1.0)
        if self.problem.asks:
            return float(self.problem.missing(found.low, found.high)) / width.max()
        beyond = np.maximum(self.least[:n] - found.low, found.high + self.least[n:])
        return float((beyond / width).max())

    def _cut(self, part: Part) -> None:
        """At the query's token first: that is free; then where tokens weigh most differently. A part with one sequence
        stays as it is, and is looked at no more."""
        position = self._position(part.domain)
        if position is None:
            self.open.add(part, -np.inf)
            return
        tokens = sorted(part.domain.tokens[position], key=partial(self._mass, position))
        first = sorted(tokens[: len(tokens) // 2])
        halves = part.domain.split(position, set(first))
        inside, outside = dict[str, Any](), dict[str, Any]()
        node = {"position": position, "first": first}
        node |= {"inside": inside, "outside": outside}
        for one, domain in zip((inside, outside), halves, strict=True):
            self._add(one, domain, descended(self.tables, domain, self.budget))
        part.node.clear()
        part.node.update({"rule": "split", **node})

    def _position(self, domain: Domain) -> int | None:
        pin = self.tables.form.pin
        if len(domain.tokens[pin]) > 1:
            return pin
        spread = [
            self._mass(i, max(tokens, key=partial(self._mass, i)))
            - self._mass(i, min(tokens, key=partial(self._mass, i)))
            if len(tokens) > 1
            else -1.0
            for i, tokens in enumerate(domain.tokens)
        ]
        return None if max(spread) < 0 else int(np.argmax(spread))

    def _mass(self, position: int, token: int) -> float:
        """The shares of attention that a token may get there, of all heads, about."""
        return float(self.weight[token, position])

    @cached_property
    def weight(self) -> np.ndarray:
        """[vocab, length], a mean over the query's tokens."""
        score = self.tables.ar.approximate(self.tables.form.score)
        score = np.where(self.tables.form.attends[:, None, None], score, -np.inf)
        factor = np.exp(score - score.max((2, 3), keepdims=True))
        share = factor / factor.mean(2, keepdims=True).sum(3, keepdims=True)
        return share.mean(1).sum(0)


def _hexadecimal(values: np.ndarray) -> list[str | None]:
    return [v.hex() if np.isfinite(v) else None for v in values.tolist()]


def _exact(proved: Range, values: np.ndarray) -> bool:
    if not len(values):
        return False
    low, high = values.min(0), values.max(0)
    width = NEAR * np.maximum(1.0, np.maximum(np.abs(low), np.abs(high)))
    return bool(
        (low - proved.low <= width).all() and (proved.high - high <= width).all()
    )
