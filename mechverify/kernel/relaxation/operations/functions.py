"""Functions of each entry."""

from mechverify.kernel.core.operations.functions import ROWS as CORE
from mechverify.kernel.core.operations.functions import function_of
from mechverify.kernel.relaxation import lines
from mechverify.kernel.relaxation.operations import Curved, Elementwise, operand_ends


class OfEach(Elementwise, Curved):
    """A function of each entry, bounded by lines."""

    def bends(self, known, n):
        return True

    def ends(self, known, n, found):
        (x,), f = operand_ends(known, n), function_of(known.graph.nodes[n])
        return lines.image(known.ar, f, *x)

    def back(self, known, start, n, k):
        return known.through_function(start, n, k)


ROWS = {name: OfEach() for name in CORE}
