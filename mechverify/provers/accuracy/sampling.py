"""Uniform random inputs of a domain, or of what a guard leaves of it."""

from contextlib import suppress
from functools import cached_property
from typing import Any

import numpy as np

from mechverify.kernel.core.domain import Domain
from mechverify.kernel.core.errors import Unsupported
from mechverify.kernel.counting.automaton import Layer, derive, towards
from mechverify.kernel.counting.guard import listed
from mechverify.kernel.counting.independent import Part, parts
from mechverify.kernel.counting.recursion import completions

BATCH = 2**14  # inputs that are drawn at a time
HOPELESS = (
    2**6
)  # of so many one may satisfy the guard: beyond it, inputs are drawn token by token


def uniform(domain: Domain, count: int, rng: np.random.Generator) -> np.ndarray:
    """Whatever the guard: ids [count, length]."""
    return np.stack([rng.choice(np.array(ids), count) for ids in domain.tokens], -1)


class Sampler:
    """Of the inputs that a claim is about, those that are drawn from the whole domain and satisfy its guard; where that
    is hopeless, drawn token by token, by how many ways each leaves, in each part of the guard by itself; where these
    have no small automata, the first ones that it lists."""

    def __init__(self, problem: Any):
        self.claim, self.ar = problem.claim, problem.job.ar

    def draw(self, count: int, rng: np.random.Generator) -> np.ndarray:
        """Ids [count, length]; fewer, at least one, where none of the ways gives as many."""
        domain = self.claim.domain
        if not self.claim.guarded:
            return uniform(domain, count, rng)
        if self.claim.total * HOPELESS < domain.size and self._walks is not None:
            result = uniform(domain, count, rng)
            for positions, layers in self._walks:
                result[:, positions] = self._walked(layers, count, rng)
            return result
        found, drawn = [np.zeros((0, domain.length), np.int64)], 0
        while sum(map(len, found)) < count and drawn < HOPELESS * max(count, BATCH):
            some = uniform(domain, BATCH, rng)
            found.append(some[self.claim.satisfied(self.ar, some)])
            drawn += len(some)
        result = np.concatenate(found)[:count]
        return (
            result
            if len(result)
            else next(iter(self.claim.inputs(self.ar, domain)))[:count]
        )

    def changes(self, most: int) -> list[tuple[list[int], np.ndarray]]:
        """What an input may become in one step: positions, and the rows of ids [number, positions] that they may hold
        together, which a part of the guard allows, if these are no more than `most`; of other positions any token."""
        domain, found, taken = self.claim.domain, [], set[int]()
        for part in self._parts:
            rows = []
            with suppress(Unsupported):  # too many prefixes: tokens change one by one
                inside = listed(self.ar, part.graph, part.guard, part.domain(domain))
                for some in inside if part.positions else ():
                    rows.append(some)
                    if sum(map(len, rows)) > most:
                        break
                else:
                    found += [(part.positions, np.concatenate(rows))] if rows else []
                    taken.update(part.positions)
        singles = [
            ([i], np.array(ids)[:, None])
            for i, ids in enumerate(domain.tokens)
            if i not in taken
        ]
        return [*found, *singles]

    @cached_property
    def _parts(self) -> list[Part]:
        claim = self.claim
        return parts(self.ar, claim.graph, claim.guard) if claim.guarded else []

    @cached_property
    def _walks(self) -> list[tuple[list[int], list[Layer]]] | None:
        """The guard's parts as automata, if they have small ones: of positions, layers that read those alone."""
        claim = self.claim
        whole = Part([*range(claim.domain.length)], claim.graph, claim.guard)
        walks = []
        for part in self._parts or [whole]:
            tokens = [np.array(ids) for ids in part.domain(claim.domain).tokens]
            try:
                automaton = derive(self.ar, part.graph, [part.guard], tokens)
            except Unsupported:
                return None
            true = np.flatnonzero(automaton.classes[:, 0] == 1)
            walks.append((part.positions, towards(self.ar, automaton, true)))
        return [(positions, layers) for positions, layers in walks if positions]

    def _walked(
        self, layers: list[Layer], count: int, rng: np.random.Generator
    ) -> np.ndarray:
        """Each token with the share of ways to the end that begin with it."""
        ways = completions(self.ar, layers)
        state, columns = np.zeros(count, np.int64), []
        for i, layer in enumerate(layers):
            ids = np.concatenate([tokens for tokens, _ in layer.groups])
            following = np.concatenate(
                [np.tile(f, (len(tokens), 1)) for tokens, f in layer.groups]
            )  # [ids, states]
            column = np.zeros(count, np.int64)
            for s in np.unique(state).tolist():
                here, after = np.flatnonzero(state == s), following[:, s]
                shares = np.array(
                    [
                        ways[i + 1][a] / ways[i][s] if a >= 0 else 0.0
                        for a in after.tolist()
                    ]
                )
                column[here] = rng.choice(len(ids), len(here), p=shares / shares.sum())
            state = following[column, state]
            columns.append(ids[column])
        return np.stack(columns, -1)
