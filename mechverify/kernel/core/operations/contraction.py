"""Sums of products along common axes."""

import math
import re
from typing import TYPE_CHECKING

from mechverify.kernel.core.errors import Rejected
from mechverify.kernel.core.fields import Reader
from mechverify.kernel.core.operations import Attribute, Node, Operation, need

if TYPE_CHECKING:
    from mechverify.kernel.core.graph import Graph


def _read_einsum(entry: Reader) -> str:
    if not re.fullmatch(r"[a-z]{0,16},[a-z]{0,16}->[a-z]{0,16}", entry.text()):
        raise Rejected(f"{entry.where}: expected a contraction of two operands")
    return entry.text()


class Einsum(Operation):
    """Of two operands; letters are distinct in each term, and a letter of one operand alone is in the result."""

    operands = 2
    attribute = Attribute(
        'as `"ij,jk->ik"`',
        {"type": "string", "pattern": "^[a-z]{0,16},[a-z]{0,16}->[a-z]{0,16}$"},
        _read_einsum,
    )
    meaning = "the contraction; letters are distinct in each term, and a summed letter is in both"

    def shape(self, graph, args, attr):
        *terms, result = attr.replace("->", ",").split(",")
        sizes: dict[str, int] = {}
        need(
            len(terms) == len(args) == 2 and len(set(result)) == len(result),
            f"einsum {attr!r}",
        )
        for term, node in zip(terms, args, strict=True):
            fits = node.kind == "real" and len(set(term)) == len(term) == len(
                node.shape
            )
            need(fits, f"{attr!r} on shape {node.shape}")
            for letter, size in zip(term, node.shape, strict=True):
                need(
                    sizes.setdefault(letter, size) == size,
                    f"einsum {attr!r}: sizes of {letter!r} differ",
                )
        need(set(result) <= set(sizes), f"einsum {attr!r} has a result of unknown size")
        need(
            set(sizes) - set(result) <= set(terms[0]) & set(terms[1]),
            f"einsum {attr!r} sums one operand alone",
        )
        return "real", tuple(sizes[c] for c in result)

    def value(self, known, node, args):
        return known.semantics.contract(node.attr, args[0], args[1])

    def slice(self, graph, node, axis, index):
        n = graph.nodes[node]
        *terms, result = n.attr.replace("->", ",").split(",")
        letter = result[axis]
        operands = [
            (a, t.index(letter), index) if letter in t else a
            for a, t in zip(n.args, terms, strict=True)
        ]
        first, second, result = (t.replace(letter, "") for t in (*terms, result))
        return "einsum", operands, f"{first},{second}->{result}"


def products(graph: "Graph", node: Node) -> tuple[int, ...]:
    """Of each operand: how many products it adds up, if it is a contraction; else 0."""

    def terms(n: Node) -> int:
        if n.op != "einsum":
            return 0
        first, second, result = n.attr.replace("->", ",").split(",")
        sizes = zip(
            first + second, sum((graph.nodes[a].shape for a in n.args), ()), strict=True
        )
        return math.prod(
            {letter: size for letter, size in sizes if letter not in result}.values()
        )

    return tuple(terms(graph.nodes[a]) for a in node.args)


ROWS = {"einsum": Einsum()}
