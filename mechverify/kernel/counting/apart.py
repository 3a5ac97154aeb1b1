"""Positions whose tokens are pairwise different, and how many sequences of an automaton keep them so.

No automaton of a few states says which tokens are used up, but of those that are only the set matters.

Lemma N5 (docs/soundness/nested.md).
"""

import numpy as np

from mechverify.kernel.core.errors import Unsupported
from mechverify.kernel.core.graph import Graph
from mechverify.kernel.core.meter import Meter
from mechverify.kernel.counting.automaton import Layer, unique_rows

MOST = 2**24  # numbers of all the rows, states with their sets, that one position makes


def is_apart(graph: Graph, condition: int, positions: frozenset[int]) -> bool:
    """Whether a condition asks for nothing but that tokens at two of the positions are different."""
    found = _pair(graph, condition)
    return found is not None and found <= positions


def _pair(graph: Graph, condition: int) -> frozenset[int] | None:
    """The two positions whose tokens a condition asks to be different; None if it asks for something else."""
    node = graph.nodes[condition]
    if node.op != "not" or (inner := graph.nodes[node.args[0]]).op != "eq":
        return None
    values = [graph.nodes[a] for a in inner.args]
    if any(value.op != "value" for value in values):
        return None
    found = frozenset(value.attr for value in values)
    return found if len(found) == 2 else None


def apart(graph: Graph, conditions: list[int]) -> frozenset[int]:
    """Positions that the conditions ask, two by two, to hold different tokens: as many as are found by adding each that
    is so beside those before, from any start. None where different tokens may mean the same."""
    if len({*graph.values}) < len(graph.values):
        return frozenset()
    pairs = {_pair(graph, condition) for condition in conditions}
    best: list[int] = []
    for start in range(graph.length):
        found = [start]
        for i in range(start + 1, graph.length):
            if all(frozenset((i, j)) in pairs for j in found):
                found.append(i)
        best = max(best, found, key=len)
    return frozenset(best if len(best) > 1 else [])


def sequences(meter: Meter, layers: list[Layer], positions: frozenset[int]) -> int:
    """How many of the accepted sequences have different tokens at those positions. Complexity: states times sets of
    tokens. Raises Unsupported where these are too many."""
    state = np.zeros((1, 1), np.int64)  # and the set, sorted
    number = np.ones(1, object)
    for i, layer in enumerate(layers):
        rows, numbers, differs = [], [], i in positions
        each = [
            int((following[state[:, 0]] >= 0).sum()) for _, following in layer.groups
        ]
        made = sum(
            count * (len(tokens) if differs else 1)
            for count, (tokens, _) in zip(each, layer.groups, strict=True)
        )
        if made * (state.shape[1] + differs) > MOST:
            raise Unsupported("too many sets of tokens that differ")
        meter.step(made * (state.shape[1] + differs), 8 * len(each), 30)
        for tokens, following in layer.groups:
            after = following[state[:, 0]]
            before, many = state[after >= 0, 1:], number[after >= 0]
            after = after[after >= 0, None]
            if not differs:
                rows.append(np.concatenate([after, before], 1))
                numbers.append(many * len(tokens))
                continue
            for token in tokens.tolist():
                fresh = ~(before == token).any(1)
                used = np.insert(before[fresh], 0, token, axis=1)
                rows.append(np.concatenate([after[fresh], np.sort(used, 1)], 1))
                numbers.append(many[fresh])
        if not rows:
            return 0
        every = np.concatenate(rows)
        state, where = unique_rows(every)
        number = np.zeros(len(state), object)  # integers of Python: exact
        np.add.at(number, where, np.concatenate(numbers))
    return int(number.sum())
