"""A cell cut into the sequences that have no token of a set, one, two, ...: each part an automaton again.

Lemma R6 (docs/soundness/ratios.md).
"""

from collections.abc import Collection

import numpy as np

from mechverify.kernel.core.arithmetic import Arithmetic
from mechverify.kernel.core.meter import reserve
from mechverify.kernel.counting.automaton import Layer


def by_count(
    ar: Arithmetic,
    layers: list[Layer],
    positions: Collection[int],
    tokens: Collection[int],
) -> list[list[Layer]]:
    """For c = 0 .. len(positions): the automaton of the accepted sequences with exactly c of `tokens` at `positions`.

    Every accepted sequence is one of exactly one of them. Complexity: len(positions)^2 times that of the layers.
    """
    return [
        _with(ar, layers, set(positions), np.array([*tokens]), c)
        for c in range(len(set(positions)) + 1)
    ]


def _with(
    ar: Arithmetic,
    layers: list[Layer],
    positions: set[int],
    tokens: np.ndarray,
    wanted: int,
) -> list[Layer]:
    """A state is one of the layer's and how many have been seen, from 0 to `wanted`: state * (wanted + 1) + seen. More
    lead nowhere, and so does the end with fewer."""
    width = wanted + 1
    result = []
    for i, layer in enumerate(layers):
        last, first = i + 1 == len(layers), i == 0
        reserve(layer.states, width, len(layer.groups))
        ar.step(layer.states * width * len(layer.groups), 2 * len(layer.groups))
        groups = []
        for here, following in layer.groups:
            counts = (
                np.isin(here, tokens) if i in positions else np.zeros(len(here), bool)
            )
            for some, more in ((here[~counts], 0), (here[counts], 1)):
                after = _following(following, width, more, last, first)
                if len(some) and (after >= 0).any():
                    groups.append((some, after))
        result.append(Layer(layer.states * (1 if first else width), groups))
    return result


def _following(
    following: np.ndarray, width: int, more: int, last: bool, first: bool
) -> np.ndarray:
    """The state after a token that counts `more`, for each state before it; at first nothing has been seen."""
    seen = np.arange(1 if first else width) + more
    before = following[:, None]
    if last:
        return np.where((before >= 0) & (seen == width - 1), before, -1).reshape(-1)
    return np.where((before >= 0) & (seen < width), before * width + seen, -1).reshape(
        -1
    )
