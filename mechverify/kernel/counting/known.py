"""Mechanisms and guards where the token at one position is known.

One that looks back, from the last token at its earlier occurrence say, is a short fold for each single token there, and
often is none for all of them.

Lemma N5 (docs/soundness/nested.md).
"""

from collections.abc import Sequence

import numpy as np

from mechverify.kernel.core.domain import Domain
from mechverify.kernel.core.errors import Rejected
from mechverify.kernel.core.graph import Graph
from mechverify.kernel.core.meter import Meter
from mechverify.kernel.counting.apart import apart, is_apart, sequences
from mechverify.kernel.counting.automaton import derive, towards


def with_token(graph: Graph, roots: list[int], position: int, token: int) -> list[int]:
    """Nodes of equal values where the token at a position is that one."""
    new: dict[int, int] = {}
    for n in graph.ancestors(roots):
        node = graph.nodes[n]
        if node.op == "value" and node.attr == position:
            new[n] = graph.add("integer", attr=int(graph.values[token]))
        else:
            new[n] = graph.add(node.op, *(new[a] for a in node.args), attr=node.attr)
    return [new[r] for r in roots]


def conditions_of(graph: Graph, guard: int) -> list[int]:
    """What a guard asks for at once, each once: it is 1 where all of these are."""
    asked: dict[int, None] = {}
    todo, seen = [guard], set()
    while todo:
        node = todo.pop()
        if graph.nodes[node].op != "and":
            asked[node] = None
        elif node not in seen:
            seen.add(node)
            graph.meter.step(len(graph.nodes[node].args), 1)
            todo += reversed(graph.nodes[node].args)
    return [*asked]


def weaker(graph: Graph, guard: int, conditions: Sequence[int]) -> int:
    """A guard that asks for no more than those conditions, by their numbers."""
    asked = conditions_of(graph, guard)
    if not all(0 <= i < len(asked) for i in conditions):
        raise Rejected(
            f"the guard has {len(asked)} conditions, not {[*conditions]!s:.100}"
        )
    zero = graph.add("integer", attr=0)
    always = graph.add("eq", zero, zero)
    return graph.add("and", always, *(asked[i] for i in conditions))


def counted(meter: Meter, graph: Graph, guard: int, domain: Domain) -> int:
    """The number of inputs that satisfy the guard, by an automaton for each token at the position that is compared
    most, of what the guard asks but that tokens are different. Raises Unsupported where one is too large."""
    total, longer = 0, graph.copy(meter)
    asked = conditions_of(longer, guard)
    positions = apart(longer, asked)
    others = [i for i, n in enumerate(asked) if not is_apart(longer, n, positions)]
    root = weaker(longer, guard, others)
    position = _compared(longer, root)
    for token in domain.tokens[position]:
        (known,) = with_token(longer, [root], position, token)
        ids = [np.array(t) for t in domain.split(position, {token})[0].tokens]
        automaton = derive(meter, longer, [known], ids)
        true = np.flatnonzero(automaton.classes[:, 0] == 1)
        if len(true):
            total += sequences(meter, towards(meter, automaton, true), positions)
    return total


def _compared(graph: Graph, guard: int) -> int:
    """The position whose token most nodes read."""
    reads = [0] * graph.length
    for n in graph.ancestors([guard]):
        for a in graph.nodes[n].args:
            if graph.nodes[a].op == "value":
                reads[graph.nodes[a].attr] += 1
    return reads.index(max(reads))
