"""Guarded domains: of a product of token sets, the inputs for which an integer node, a truth value, is 1.

A guard that is an `and` of conditions is asked piece by piece: a prefix of the tokens that breaks one of them is not
read further, so that listing what is left costs about as much as there is.

Lemma S2 (docs/soundness/shares.md).
"""

from collections.abc import Iterator

import numpy as np

from mechverify.kernel.core.domain import BLOCK, Domain
from mechverify.kernel.core.errors import Rejected, Unsupported
from mechverify.kernel.core.fields import Reader
from mechverify.kernel.core.graph import Graph
from mechverify.kernel.core.integers import apply, work
from mechverify.kernel.core.loading import late
from mechverify.kernel.core.mechanism import add_expression
from mechverify.kernel.core.meter import ROOM, Meter, reserve
from mechverify.kernel.counting.automaton import derive, towards
from mechverify.kernel.counting.recursion import completions

MOST = 2**28  # prefixes in all
STEP = 2  # units of work for each node and row, and for each token that is written down


def read(graph: Graph, entry: Reader) -> int:
    """The node of a claim's field `given`."""
    node = add_expression(graph, entry)
    low, high = graph.nodes[node].span
    if low < 0 or high > 1:
        raise Rejected(f"{entry.where}: a condition is a truth value")
    return node


def size(meter: Meter, graph: Graph, guard: int, domain: Domain) -> int:
    """The number of inputs of a domain that satisfy the guard: part by part, if these read different positions; by its
    automaton where that is small, else by one for each token at the position that is compared most, else one by one.

    Complexity: that of `derive`, or of `listed`.
    """
    for way in "independent", "guard", "known":
        try:
            return late(f"counting.{way}").counted(meter, graph, guard, domain)
        except Unsupported:
            continue
    return sum(map(len, listed(meter, graph, guard, domain)))


def counted(meter: Meter, graph: Graph, guard: int, domain: Domain) -> int:
    """By one automaton. Raises Unsupported where it is too large."""
    automaton = derive(meter, graph, [guard], [np.array(ids) for ids in domain.tokens])
    true = np.flatnonzero(automaton.classes[:, 0] == 1)
    return completions(meter, towards(meter, automaton, true))[0][0] if len(true) else 0


def holds(meter: Meter, graph: Graph, guard: int, inputs: np.ndarray) -> np.ndarray:
    """Booleans [inputs]: which satisfy the guard."""
    meter.step(len(inputs), 1, 1)
    width = max(1, ROOM // len(graph.ancestors([guard])))
    parts = [
        _true(meter, graph, [guard], inputs[i : i + width])
        for i in range(0, len(inputs), width)
    ]
    return np.concatenate([np.zeros(0, bool), *parts])


def listed(
    meter: Meter, graph: Graph, guard: int, part: Domain
) -> Iterator[np.ndarray]:
    """The inputs of a part that satisfy the guard, each once, in lexicographic order: ids [number, length], in blocks
    of at most BLOCK. Raises Unsupported where more than MOST prefixes satisfy what is asked of them."""
    asked = _by_position(graph, guard, part.length)
    numbers = max(part.length, len(graph.ancestors([guard])))  # that a prefix takes
    todo, rows = [np.zeros((1, 0), np.int64)], 0
    while todo:
        prefixes = todo.pop()
        position = prefixes.shape[1]
        if position == part.length:
            yield prefixes
            continue
        ids = np.array(part.tokens[position], np.int64)
        rows += len(prefixes) * len(ids)
        if rows > MOST:
            raise Unsupported(
                f"given: more than {MOST} sequences and parts of some would have to be looked at"
            )
        meter.step(len(prefixes) * len(ids) * (position + 1), position + 4, STEP)
        longer = np.concatenate(
            [np.repeat(prefixes, len(ids), 0), np.tile(ids, len(prefixes))[:, None]], 1
        )
        longer = longer[_true(meter, graph, asked[position], longer)]
        following = 1 if position + 1 == part.length else len(part.tokens[position + 1])
        width = min(BLOCK, max(1, ROOM // (numbers * following)))
        todo += [
            longer[start : start + width] for start in range(0, len(longer), width)
        ][::-1]


def _by_position(graph: Graph, guard: int, length: int) -> list[list[int]]:
    """The conditions that make up the guard, each at the last position that it reads (the first, if none)."""
    graph.meter.step(length, 1)
    found: list[list[int]] = [[] for _ in range(length)]
    todo, seen = [guard], {guard}
    while todo:
        node = todo.pop()
        if graph.nodes[node].op == "and":
            fresh = [a for a in dict.fromkeys(graph.nodes[node].args) if a not in seen]
            seen.update(fresh)
            todo += fresh
            continue
        read = [
            graph.nodes[n].attr
            for n in graph.ancestors([node])
            if graph.nodes[n].op == "value"
        ]
        found[max(read, default=0)].append(node)
    return found


def _true(meter: Meter, graph: Graph, nodes: list[int], rows: np.ndarray) -> np.ndarray:
    """Booleans [rows]: where all of the nodes are 1, of which each reads tokens that the rows hold."""
    known: dict[int, np.ndarray] = {}
    needed = graph.ancestors(nodes)
    reserve(len(rows), len(needed))
    meter.step(
        len(rows) * sum(1 + len(graph.nodes[n].args) for n in needed), len(needed), STEP
    )
    for n in needed:
        node = graph.nodes[n]
        each, once = work(node.op, node.attr, len(node.args))
        meter.step(len(rows) * each + once, 0, 1)
        args = [known[a] for a in node.args]
        known[n] = apply(node.op, node.attr, args, lambda i: graph.meanings[rows[:, i]])
    found = np.ones(len(rows), bool)
    for n in nodes:
        found &= known[n] == 1
    return found
