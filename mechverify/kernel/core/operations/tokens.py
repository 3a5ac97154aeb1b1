"""The tokens, and rows of a table at them."""

from mechverify.kernel.core.operations import NOTHING, Operation, Sliced, need
from mechverify.kernel.core.operations.weights import table


class Tokens(Sliced):
    operands, attribute, meaning = 0, NOTHING, "the token ids, [length]"

    def shape(self, graph, args, attr):
        return "ids", (graph.length,)

    def value(self, known, node, args):
        return known.tokens


class Gather(Operation):
    operands, attribute, meaning = (
        2,
        NOTHING,
        "rows of a table (a `weight` or a `constant`) at token ids",
    )

    def shape(self, graph, args, attr):
        rows, ids = args
        need(
            rows.op in ("weight", "constant") and ids.kind == "ids",
            "gather needs a table and token ids",
        )
        enough = len(rows.shape) > 0 and rows.shape[0] >= len(graph.values)
        need(enough, "the embedding has fewer rows than the vocabulary")
        return "real", ids.shape + rows.shape[1:]

    def value(self, known, node, args):
        return known.semantics.ar.exact(
            table(known.weights, known.graph.nodes[node.args[0]])[args[1]]
        )

    def slice(self, graph, node, axis, index):
        rows, ids = graph.nodes[node].args
        if axis < len(graph.nodes[ids].shape):
            return "gather", [rows, (ids, axis, index)], None
        return "select", [node], (axis, index)


ROWS = {"tokens": Tokens(), "gather": Gather()}
