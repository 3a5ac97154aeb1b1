"""How many inputs a guarded domain has.

Lemma S2 (docs/soundness/shares.md).
"""

import numpy as np

from mechverify.kernel.core import guard as guards
from mechverify.kernel.core.domain import Domain
from mechverify.kernel.core.errors import Unsupported
from mechverify.kernel.core.graph import Graph
from mechverify.kernel.core.meter import Meter
from mechverify.kernel.counting.automaton import derive, towards
from mechverify.kernel.counting.recursion import completions


def size(meter: Meter, graph: Graph, guard: int, domain: Domain) -> int:
    """The number of inputs of a domain that satisfy the guard: by its automaton where that is small, else one by one.

    Complexity: that of `derive`, or of `listed`.
    """
    try:
        automaton = derive(
            meter, graph, [guard], [np.array(ids) for ids in domain.tokens]
        )
    except Unsupported:
        return sum(map(len, guards.listed(meter, graph, guard, domain)))
    true = np.flatnonzero(automaton.classes[:, 0] == 1)
    return completions(meter, towards(meter, automaton, true))[0][0] if len(true) else 0
