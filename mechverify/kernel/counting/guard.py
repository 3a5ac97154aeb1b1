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
from mechverify.kernel.counting.classes import with_token
from mechverify.kernel.counting.recursion import completions


def size(meter: Meter, graph: Graph, guard: int, domain: Domain) -> int:
    """The number of inputs of a domain that satisfy the guard: by its automaton where that is small, else by one for
    each token at the position that is compared most, else one by one.

    Complexity: that of `derive`, or of `listed`.
    """
    try:
        return _accepted(meter, graph, guard, domain)
    except Unsupported:
        pass
    position = _compared(graph, guard)
    try:
        total, longer = 0, graph.copy(meter)
        for token in domain.tokens[position]:
            (known,) = with_token(longer, [guard], position, token)
            part = domain.split(position, {token})[0]
            total += _accepted(meter, longer, known, part)
        return total
    except Unsupported:
        return sum(map(len, guards.listed(meter, graph, guard, domain)))


def _compared(graph: Graph, guard: int) -> int:
    """The position whose token most nodes read."""
    reads = [0] * graph.length
    for n in graph.ancestors([guard]):
        for a in graph.nodes[n].args:
            if graph.nodes[a].op == "value":
                reads[graph.nodes[a].attr] += 1
    return reads.index(max(reads))


def _accepted(meter: Meter, graph: Graph, guard: int, domain: Domain) -> int:
    """Raises Unsupported where the automaton is too large."""
    automaton = derive(meter, graph, [guard], [np.array(ids) for ids in domain.tokens])
    true = np.flatnonzero(automaton.classes[:, 0] == 1)
    return completions(meter, towards(meter, automaton, true))[0][0] if len(true) else 0
