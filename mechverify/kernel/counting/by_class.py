"""The smallest sum of one-token terms over every cell of every class, by one recursion.

Lemma F3 (docs/soundness/fold.md).
"""

from collections.abc import Sequence

import numpy as np

from mechverify.kernel.core.arithmetic import Arithmetic
from mechverify.kernel.core.meter import reserve
from mechverify.kernel.counting.automaton import Automaton
from mechverify.kernel.counting.smallest import keep_least


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
            keep_least(ar, after, table[:, token], total)
        best = after
    result = np.full((len(automaton.classes), *best.shape[1:]), ar.infinity, ar.dtype)
    keep_least(ar, result, automaton.final, best)
    bound = ar.down(
        result - ar.slack(np.abs(terms).max(1).sum(0), len(automaton.step) + 1)
    )
    return np.where(result >= ar.infinity, ar.infinity, bound)  # a NaN stays one
