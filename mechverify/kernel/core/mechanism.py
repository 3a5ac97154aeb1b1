"""A mechanism as a certificate lists it: rows of integers that refer back to earlier ones."""

from mechverify.kernel.core.errors import Rejected
from mechverify.kernel.core.fields import Reader
from mechverify.kernel.core.graph import Graph
from mechverify.kernel.core.operations import INTEGERS, row_of


def add_expression(graph: Graph, entry: Reader) -> int:
    """Add a mechanism, written as a list of nodes that refer back to earlier ones, and return its root.

    Each node is [op, [operands], attribute]; operands are indices into the same list.
    """
    ids: list[int] = []
    for row in entry.items(2**16, 1):
        op, operands, attribute = row.items(3, 3)
        name = op.one_of(INTEGERS)
        args = operands.integers(2**12)
        if not all(0 <= a < len(ids) for a in args):
            raise Rejected(f"an operand of {name!r} doesn't refer to an earlier node")
        ids.append(
            graph.add(
                name,
                *(ids[a] for a in args),
                attr=row_of(name).attribute.read(attribute),
            )
        )
    return ids[-1]
