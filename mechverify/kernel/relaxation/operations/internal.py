"""What rewriting makes of a softmax, beside linear operations and functions."""

from mechverify.kernel.relaxation.operations import Ending, Fixed, balls

CAP = 24  # of a difference of scores; beyond it, a probability changes by less than SLACK, as e^-24 < 2^-34
SLACK = 2.0**-34


class Slack(Ending):
    """What capping the scores takes from a share: nothing, where no room (the first operand) is negative."""

    def ends(self, known, n, found):
        room = known.graph.nodes[n].args[0]
        zero = 0 * known.finite(known.balls[room].point.mid).sum(-1)
        inactive = bool((known.ends[room][0] >= 0).all())
        return (zero if inactive else zero - SLACK), zero

    def reads(self, graph, node, args): ...


class Pivot(Fixed):
    """Any numbers; near the value."""

    def ball(self, known, n):
        points = (x.point for x in balls(known, n))
        return known.ar.exact(
            known.finite(known.ar.contract(known.graph.nodes[n].attr, *points).mid)
        )

    def reads(self, graph, node, args): ...


ROWS = {"slack": Slack(), "pivot": Pivot()}
