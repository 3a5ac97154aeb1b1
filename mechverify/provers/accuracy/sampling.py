"""Uniform random inputs of a domain, or of what a guard leaves of it."""

from functools import cached_property
from typing import Any

import numpy as np

from mechverify.kernel.core.domain import Domain
from mechverify.kernel.core.errors import Unsupported
from mechverify.kernel.counting.automaton import Layer, derive, towards
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
    is hopeless, drawn token by token, by how many ways each leaves; where the guard has no small automaton, the first
    ones that it lists."""

    def __init__(self, problem: Any):
        self.claim, self.ar = problem.claim, problem.job.ar

    def draw(self, count: int, rng: np.random.Generator) -> np.ndarray:
        """Ids [count, length]; fewer, at least one, where none of the ways gives as many."""
        domain = self.claim.domain
        if not self.claim.guarded:
            return uniform(domain, count, rng)
        if self.claim.total * HOPELESS < domain.size and self._layers is not None:
            return self._walked(self._layers, count, rng)
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

    @cached_property
    def _layers(self) -> list[Layer] | None:
        """The guard as an automaton, if it has a small one."""
        claim = self.claim
        try:
            automaton = derive(
                self.ar,
                claim.graph,
                [claim.guard],
                [np.array(ids) for ids in claim.domain.tokens],
            )
        except Unsupported:
            return None
        return towards(self.ar, automaton, np.flatnonzero(automaton.classes[:, 0] == 1))

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
