"""How many inputs the cells of every class have, by one recursion.

Lemma F3 (docs/soundness/fold.md).
"""

from collections.abc import Sequence

import numpy as np

from mechverify.kernel.core.errors import Rejected
from mechverify.kernel.core.meter import Meter
from mechverify.kernel.counting.automaton import Automaton


def sizes_by_class(
    ar: Meter,
    automaton: Automaton,
    domain: Sequence[Sequence[int]],
    pin: int,
    query: int,
) -> list[int]:
    """For each class, the exact number of its sequences with the token `query` at position `pin`.

    Complexity: positions times states times tokens."""
    ar.spend(
        10 * sum(len(t) * len(d) for t, d in zip(automaton.step, domain, strict=True))
    )
    counts = np.ones(1, object)  # integers of Python: exact
    for position, (table, tokens) in enumerate(
        zip(automaton.step, domain, strict=True)
    ):
        last = position + 1 == len(automaton.step)
        if (table[:, list(tokens)] < 0).any():  # -1 would count for the last state
            raise Rejected(f"the automaton doesn't read all tokens at {position}")
        states = len(automaton.final if last else automaton.step[position + 1])
        after = np.zeros(states, object)
        for token in tokens:
            if position != pin or token == query:
                np.add.at(after, table[:, token], counts)
        counts = after
    result = np.zeros(len(automaton.classes), object)
    np.add.at(result, automaton.final, counts)
    return result.tolist()
