"""The number pi."""

from mechverify.kernel.core.elementary import pi
from mechverify.kernel.core.operations import NOTHING, Fixed


class Pi(Fixed):
    attribute, meaning = NOTHING, "the number pi"

    def shape(self, graph, args, attr):
        return "real", ()

    def value(self, known, node, args):
        return pi(known.semantics.ar).map(lambda a: a.reshape((1,) * known.batch))


ROWS = {"pi": Pi()}
