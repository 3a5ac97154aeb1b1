"""A graph that is printed as `leads(v)`: by how much each entry of a vector exceeds the largest other one.

Lemma C18 (docs/soundness/core.md).
"""

from mechverify.kernel.core.graph import Graph


def vector(graph: Graph, n: int) -> int | None:
    """The vector, if node n is the least entry of each row of the differences of all pairs, without the diagonal."""
    nodes, node = graph.nodes, graph.nodes[n]
    if (node.op, node.attr) != ("extremum", "min"):
        return None
    rows = nodes[node.args[0]]
    others = nodes[rows.args[0]] if rows.op == "view" else rows
    pairs = nodes[others.args[0]] if others.op == "view" else others
    if (rows.op, others.op, pairs.op) != ("view", "view", "sub"):
        return None
    column, row = (nodes[a] for a in pairs.args)
    if len(row.shape) != 1:
        return None
    (size,) = row.shape
    source, start, step = pairs.args[1], 0, 1
    if column.args != (source,) and row.op == "view":  # a row of a matrix
        (source,), (_, start, (step,)) = row.args, row.attr
    if column.args != (source,):
        return None
    read = column.op, column.attr, others.attr, rows.attr
    columns = (size, 1), start, (step, 0)
    without = (1, size - 1, size), 1, (0, size + 1, 1)
    expected = "view", columns, without, ((size, size - 1), 0, (size - 1, 1))
    return pairs.args[1] if read == expected else None
