"""The real inputs: boxes."""

from mechverify.kernel.relaxation.operations import Linear


class Input(Linear):
    """A form ends here, at the box."""

    def ball(self, known, n):
        return known.cells.inputs[known.graph.nodes[n].attr[0]]

    def ends(self, known, n, found):
        corners = known.cells.corners
        return corners[known.graph.nodes[n].attr[0]] if corners else found

    def transposed(self, known, n, k):
        raise self._refused(known, n)

    def back(self, known, start, n, k):
        return [], known.dot(k, known.balls[n])

    def reads(self, graph, node, args):
        """What depends on a real input depends on more than tokens."""


ROWS = {"input": Input()}
