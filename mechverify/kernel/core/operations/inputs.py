"""The real inputs."""

from mechverify.kernel.core.operations import Attribute, Sliced, of, pair, row, sizes


class Input(Sliced):
    operands, meaning = 0, "a real input"
    attribute = Attribute(
        "`[which, shape]`",
        row(of("natural"), of("shape")),
        lambda entry: pair(entry, lambda e: e.an_integer(0, 2**10), sizes),
    )

    def shape(self, graph, args, attr):
        return "real", attr[1]

    def value(self, known, node, args):
        return known.semantics.ar.exact(known.inputs[node.attr[0]])


ROWS = {"input": Input()}
