"""Nodes of equal values that compute no more than a view of them reads.

Lemma C3 (docs/soundness/core.md).
"""

from mechverify.kernel.core.graph import Graph
from mechverify.kernel.core.operations import views


def narrowed(graph: Graph, node: int) -> int:
    """A node of equal value that computes less, if `node` is a view of one slice of its operand."""
    n = graph.nodes[node]
    if n.op != "view" or n.kind != "real":
        return node
    _, (operand,), attr = views.narrowed(graph, n.args[0], n.attr)
    if type(operand) is tuple:
        operand = graph.select(*operand)
    return graph.add("view", operand, attr=attr)


def slim(graph: Graph, roots: list[int]) -> dict[int, int]:
    """For `roots` and all that they depend on, nodes of equal values, in which views of one slice of a value compute
    that slice alone."""
    new: dict[int, int] = {}
    for n in graph.ancestors(roots):
        node = graph.nodes[n]
        new[n] = graph.add(node.op, *(new[a] for a in node.args), attr=node.attr)
        while (less := narrowed(graph, new[n])) != new[n]:  # one axis after another
            new[n] = less
    return new
