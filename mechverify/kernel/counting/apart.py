"""Positions whose tokens are pairwise different, and how many sequences of an automaton keep them so.

No automaton of a few states says which tokens are used up, but of those that are in the same places only the number
matters.

Lemma N5 (docs/soundness/nested.md).
"""

import numpy as np

from mechverify.kernel.core.errors import Unsupported
from mechverify.kernel.core.graph import Graph
from mechverify.kernel.core.meter import Meter, reserve
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
    """How many of the accepted sequences have different tokens at those positions. Complexity: states times numbers of
    tokens of each kind that are used up. Raises Unsupported where these are too many."""
    kind, size = _kinds(layers, positions)
    state = np.zeros((1, 1 + len(size)), np.int64)  # and how many of each kind
    number = np.ones(1, object)  # integers of Python: exact
    for i, layer in enumerate(layers):
        kinds = [
            np.unique(kind[t]).tolist() if i in positions else []
            for t, _ in layer.groups
        ]
        ways = sum(max(1, len(some)) for some in kinds)
        if ways * state.size > MOST:
            raise Unsupported("too many numbers of tokens that differ")
        meter.step(ways * state.size, 8 * ways, 30)
        parts: list[tuple[np.ndarray, np.ndarray]] = []
        for (tokens, following), some in zip(layer.groups, kinds, strict=True):
            going = following[state[:, 0]] >= 0
            reached, many = state[going], number[going]
            reached[:, 0] = following[reached[:, 0]]
            if i in positions:
                parts += [_with_one(reached, many, k, int(size[k])) for k in some]
            else:
                parts.append((reached, many * len(tokens)))
        if not parts:
            return 0
        states, numbers = map(np.concatenate, zip(*parts, strict=True))
        state, where = unique_rows(states)
        number = np.zeros(len(state), object)
        np.add.at(number, where, numbers)
    return int(number.sum())


def _kinds(
    layers: list[Layer], positions: frozenset[int]
) -> tuple[np.ndarray, np.ndarray]:
    """Of each token its kind, and how many tokens are of each: those of one kind are in the same group wherever tokens
    differ, so that any of them may take another's place."""
    ids = [int(t.max()) for i in positions for t, _ in layers[i].groups if len(t)]
    shape = 1 + max(ids, default=0), len(positions)
    reserve(*shape)
    group = np.full(shape, -1)
    for column, i in enumerate(positions):
        for g, (tokens, _) in enumerate(layers[i].groups):
            group[tokens, column] = g
    kinds, kind = unique_rows(group)
    return kind, np.bincount(kind, minlength=len(kinds))


def _with_one(
    state: np.ndarray, number: np.ndarray, kind: int, size: int
) -> tuple[np.ndarray, np.ndarray]:
    """With one more token of a kind, of which there are `size`: that many ways less one for each that is used up."""
    left = size - state[:, 1 + kind]
    one, ways = state[left > 0], left[left > 0].astype(object)
    one[:, 1 + kind] += 1
    return one, number[left > 0] * ways
