"""The smallest sum of one-token terms over a cell, by the recursion over its automaton.

Lemma F3 (docs/soundness/fold.md).
"""

from collections.abc import Callable, Sequence

import numpy as np

from mechverify.kernel.core.arithmetic import Arithmetic
from mechverify.kernel.core.meter import reserve
from mechverify.kernel.counting.automaton import Automaton, Layer
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
            _keep_least(ar, after, following[going], ar.down(best[going] + least))
        best = after
    return best[0]


def smallest_by_class(
    ar: Arithmetic,
    automaton: Automaton,
    domain: Sequence[Sequence[int]],
    terms: np.ndarray,
    pin: int,
    queries: np.ndarray,
) -> np.ndarray:
    """Lower bounds [classes, queries, columns] of the sum of `terms` [positions, vocab, queries, columns] (no terms at
    later positions), over the sequences of each class that have each of `queries` at position `pin`; infinity where
    there is none. All classes at once, so that no term may depend on the class.

    Complexity: positions times states times tokens, on arrays of queries times columns.
    """
    best = np.zeros((1, *terms.shape[2:]), ar.dtype)
    for position, (table, tokens) in enumerate(
        zip(automaton.step, domain, strict=True)
    ):
        states = len(
            automaton.step[position + 1]
            if position + 1 < len(automaton.step)
            else automaton.final
        )
        reserve(states, *best.shape[1:])
        after = np.full((states, *best.shape[1:]), ar.infinity, ar.dtype)
        for token in tokens:
            total = best + terms[position, token] if position < len(terms) else best
            if position == pin:
                total = np.where((queries == token)[:, None], total, ar.infinity)
            _keep_least(ar, after, table[:, token], total)
        best = after
    result = np.full((len(automaton.classes), *best.shape[1:]), ar.infinity, ar.dtype)
    _keep_least(ar, result, automaton.final, best)
    bound = ar.down(
        result - ar.slack(np.abs(terms).max(1).sum(0), len(automaton.step) + 1)
    )
    return np.where(result >= ar.infinity, ar.infinity, bound)  # a NaN stays one


def _keep_least(
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
