"""What a float32 program computes where the graph has an operation: see core/programs.py, which alone adds these.

Lemma O4 (docs/soundness/options.md).
"""

from mechverify.kernel.core.arithmetic import Arithmetic, Ball
from mechverify.kernel.core.errors import Rejected
from mechverify.kernel.core.float32 import LARGEST
from mechverify.kernel.core.operations import UNWRITTEN, Operation, need, row_of
from mechverify.kernel.core.programs import Aligned, terms


class Rounding(Operation):
    """Operands are the operation's node, and its operands; attr is the operation, its attribute, and what `terms`
    needs to know beside."""

    operands, attribute = None, UNWRITTEN
    meaning = "a value, and a disturbance of it"

    def shape(self, graph, args, attr):
        need(all(a.kind == "real" for a in args), "a disturbance of a real value")
        return "real", args[0].shape

    def value(self, known, node, args):
        raw, *rest = args
        rank = len(node.shape)
        return disturbed(
            known.semantics.ar,
            node.attr,
            raw,
            rest,
            lambda x: known.align(x, rank),
            raw,
        )

    def slice(self, graph, node, axis, index):
        """Two entries of equal operands, as an expanded value has, are rounded apart: the place stays in `attr`."""
        n = graph.nodes[node]
        raw, *rest = n.args
        op, inner, extra, place = n.attr
        place = place, axis, index
        if op == "norm":
            if axis == len(n.shape) - 1:
                return "select", [node], (axis, index)
            _, (_, scale), _ = row_of("mul").slice(graph, raw, axis, index)
            return (
                "rounding",
                [(raw, axis, index), (rest[0], axis, index), scale],
                (op, inner, extra, place),
            )
        if not rest:
            return "rounding", [(raw, axis, index)], (op, inner, extra, place)
        same, operands, attr = row_of(op).slice(graph, raw, axis, index)
        if same != op:
            return "select", [node], (axis, index)
        return (
            "rounding",
            [(raw, axis, index), *operands],
            (op, inner and attr, extra, place),
        )


def disturbed(
    ar: Arithmetic, attr: tuple, raw: Ball, rest: list[Ball], align: Aligned, x: Ball
) -> Ball:
    """The ball x, widened by what a program may add; rejects what may come near float32's largest number."""
    for relative, absolute, of in terms(ar, attr, raw, rest, align):
        size = of.size
        if not bool((size.mid < ar.units(LARGEST, size.exponent)).all()):
            raise Rejected("a float32 value may overflow")
        x = ar.widen(x, relative, absolute, of=size)
    return x


ROWS = {"rounding": Rounding()}
