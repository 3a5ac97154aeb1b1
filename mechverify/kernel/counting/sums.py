"""The sums of one-token terms along every sequence of a cell."""

import numpy as np

from mechverify.kernel.core.arithmetic import Arithmetic
from mechverify.kernel.counting.automaton import Layer
from mechverify.kernel.counting.recursion import completions, targets


def sums(ar: Arithmetic, layers: list[Layer], terms: np.ndarray) -> np.ndarray:
    """The sum of `terms` [positions, vocab, columns] along every accepted sequence: [sequences, columns].

    Added from the first position to the last: at most (positions - 1) roundings a sum.
    """
    columns, alive = terms.shape[-1], completions(ar, layers)
    paths = [np.zeros((1, columns), ar.dtype)]
    for position, layer in enumerate(layers):
        longer: list[list[np.ndarray]] = [[] for _ in range(targets(layers, position))]
        for tokens, following in layer.groups:
            for state, target in enumerate(following.tolist()):
                if (
                    target >= 0 and alive[position + 1][target]
                ):  # so no more prefixes than sequences
                    ar.spend(len(paths[state]) * len(tokens) * columns, 1, 4)
                    longer[target].append(
                        paths[state][:, None] + terms[position, tokens][None]
                    )
        empty = np.zeros((0, columns), ar.dtype)
        paths = [
            np.concatenate([empty, *(p.reshape(-1, columns) for p in parts)])
            for parts in longer
        ]
    return paths[0]
