"""The smallest sum of one-token terms over a cell, by the recursion over its automaton.

Lemma F3 (docs/soundness/fold.md).
"""

from collections.abc import Callable

import numpy as np

from mechverify.kernel.core.arithmetic import Arithmetic
from mechverify.kernel.counting.automaton import Layer
from mechverify.kernel.counting.recursion import targets


def smallest(
    ar: Arithmetic,
    layers: list[Layer],
    term: Callable[[int, np.ndarray], np.ndarray],
    shape: tuple[int, int],
) -> np.ndarray:
    """A lower bound, over all accepted sequences, of the sum of one-token terms (min-plus recursion).

    `term(i, tokens)` gives lower bounds [rows, tokens, columns] of the terms of `tokens` at position i, as large as
    you like where one isn't allowed; `shape` is (rows, columns). Exact up to rounding, which is downwards. Complexity:
    positions times states times groups, on arrays of `shape`.
    """
    best = np.zeros((1, *shape), ar.dtype)
    for position, layer in enumerate(layers):
        after = np.full((targets(layers, position), *shape), ar.infinity, ar.dtype)
        terms, start = (
            term(position, np.concatenate([tokens for tokens, _ in layer.groups])),
            0,
        )
        for tokens, following in layer.groups:
            least, start = (
                ar.down(terms[:, start : start + len(tokens)].min(1)),
                start + len(tokens),
            )
            going = np.flatnonzero(following >= 0)
            keep_least(ar, after, following[going], ar.down(best[going] + least))
        best = after
    return best[0]


def keep_least(
    ar: Arithmetic, after: np.ndarray, targets: np.ndarray, values: np.ndarray
) -> None:
    """after[targets[i]] becomes at most values[i], for all i; a NaN stays."""
    ar.spend(values.size, 12, 10)
    order = np.argsort(targets, kind="stable")
    at = targets[order]
    first = np.concatenate([[True], at[1:] != at[:-1]])
    if not first.all():
        values, order = (
            np.minimum.reduceat(values[order], np.flatnonzero(first), 0),
            slice(None),
        )
    at = at[first]
    after[at] = np.minimum(after[at], values[order])
