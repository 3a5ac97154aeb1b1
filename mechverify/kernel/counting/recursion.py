"""The recursion over a layered automaton that says how many sequences a cell has.

Lemma F3 (docs/soundness/fold.md).
"""

import numpy as np

from mechverify.kernel.core.arithmetic import Arithmetic
from mechverify.kernel.core.meter import Meter
from mechverify.kernel.counting.automaton import Layer


def pin(layers: list[Layer], position: int, token: int) -> list[Layer]:
    """The automaton of the accepted sequences with `token` at `position`."""
    old = layers[position]
    kept = [
        (np.array([token]), following)
        for tokens, following in old.groups
        if token in tokens
    ]
    return [*layers[:position], Layer(old.states, kept), *layers[position + 1 :]]


def completions(ar: Meter, layers: list[Layer]) -> list[list[int]]:
    """For every layer and state, the exact number of token sequences from there to the end."""
    counts = [np.ones(1, object)]  # integers of Python: exact
    for layer in reversed(layers):
        ar.spend(10 * layer.states * len(layer.groups))
        row = np.zeros(layer.states, object)
        for tokens, following in layer.groups:
            going = following >= 0
            row[going] += len(tokens) * counts[-1][following[going]]
        counts.append(row)
    return [row.tolist() for row in counts[::-1]]


def sizes_by_token(
    ar: Arithmetic, layers: list[Layer], position: int
) -> dict[int, int]:
    """How many accepted sequences have each token at `position`; tokens that none has are left out."""
    rest = np.array(completions(ar, layers)[position + 1], object)
    before = np.ones(1, object)
    ar.spend(10 * sum(layer.states * len(layer.groups) for layer in layers))
    for i, layer in enumerate(layers[:position]):
        after = np.zeros(targets(layers, i), object)
        for tokens, following in layer.groups:
            going = following >= 0
            np.add.at(after, following[going], len(tokens) * before[going])
        before = after
    result: dict[int, int] = {}
    for tokens, following in layers[position].groups:
        going = following >= 0
        if count := int((before[going] * rest[following[going]]).sum()):
            result |= dict.fromkeys(tokens.tolist(), count)
    return result


def targets(layers: list[Layer], position: int) -> int:
    return layers[position + 1].states if position + 1 < len(layers) else 1
