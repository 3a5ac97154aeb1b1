"""A conjunction that is printed with `distinct(a, b, c)`: no two of these are equal.

Lemma C18 (docs/soundness/core.md).
"""

from collections import Counter
from itertools import combinations

from mechverify.kernel.core.graph import Graph

FEWEST = 3  # values: of two, an inequality says as much
MOST = 2_000  # conditions that are looked at


def unequal(graph: Graph, n: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Of node n, a conjunction: the conditions left beside `distinct`, and the nodes of which that says that no two are
    equal; none where no three are so."""
    conditions = graph.nodes[n].args
    pairs = {a: _pair(graph, a) for a in conditions[:MOST]}
    stated = {pair for pair in pairs.values() if pair}
    often = Counter(m for pair in stated for m in pair)
    found: list[int] = []
    for m in sorted(often, key=lambda m: -often[m]):
        if all(frozenset((m, other)) in stated for other in found):
            found.append(m)
    if len(found) < FEWEST:
        return conditions, ()
    said = set(map(frozenset, combinations(found, 2)))
    rest = tuple(a for a in conditions if pairs.get(a) not in said)
    return rest, tuple(sorted(found, key=lambda m: _place(graph, m)))


def _place(graph: Graph, m: int) -> tuple[bool, int]:
    """Tokens by their position, other values as they are numbered."""
    node = graph.nodes[m]
    return node.op != "value", node.attr if node.op == "value" else m


def _pair(graph: Graph, n: int) -> frozenset[int] | None:
    """Two nodes, if node n says that they are not equal."""
    node = graph.nodes[n]
    if node.op != "not" or graph.nodes[node.args[0]].op != "eq":
        return None
    pair = frozenset(graph.nodes[node.args[0]].args)
    return pair if len(pair) == 2 else None
