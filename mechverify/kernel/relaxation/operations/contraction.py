"""Sums of products along common axes."""

from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np

from mechverify.kernel.relaxation import lines
from mechverify.kernel.relaxation.lines import Ends
from mechverify.kernel.relaxation.operations import Linear, balls, no_tokens

if TYPE_CHECKING:
    from mechverify.kernel.relaxation.intervals import Intervals


def _all(a: Any) -> Any:
    """Of each cell."""
    return a.reshape(len(a), -1).all(1)


class Einsum(Linear):
    """One operand is fixed; other contractions are rewritten to products and a sum."""

    def ball(self, known, n):
        return known.ar.contract(known.graph.nodes[n].attr, *balls(known, n))

    def ends(self, known, n, found):
        """Of sums of products k x with fixed k, from what balls say, which is all where every end is finite; but a sum
        of what isn't negative isn't negative, and one of zeros is zero."""
        xp, args = known.ar.xp, known.graph.nodes[n].args
        at = 0 if args[0] in known.fixed else 1
        k, x = known.ends[args[at]], known.ends[args[1 - at]]
        if not all(bool(xp.isfinite(end).all()) for end in x):
            minus = -x[1], -x[0]
            low, low_of_minus = (
                self._least(known, n, at, k, ends) for ends in (x, minus)
            )
            found = lines.meet(known.ar, found, (low, -low_of_minus))
        (up, down), (rising, falling) = (
            (_all(low >= 0), _all(high <= 0)) for low, high in (k, x)
        )
        zero = (up & down) | (rising & falling)
        low, high = found
        shape = (-1, *(1,) * (low.ndim - 1))
        positive = ((up & rising) | (down & falling) | zero).reshape(shape)
        negative = ((up & falling) | (down & rising) | zero).reshape(shape)
        return lines.signed(known.ar, low, high, positive, negative)

    def _least(self, known: "Intervals", n: int, at: int, k: Ends, x: Ends) -> Any:
        """Lower bounds of sums of products k x, whose operand number `at` is k: of k x, max(k, 0) low + min(k, 0) high.
        An infinite end counts where its factor may be other than zero."""
        ar, xp, spec = known.ar, known.ar.xp, known.graph.nodes[n].attr
        one, zero = (ar.rational(Fraction(v)).mid for v in (1, 0))
        parts = []
        for limits, factor, end in (
            ((0.0, None), k[1] > 0, x[0]),
            ((None, 0.0), k[0] < 0, x[1]),
        ):
            part = lines.ball(ar, *(xp.clip(e, *limits) for e in k))
            finite = xp.isfinite(end)
            pairs = (
                (part, ar.point(xp.where(finite, end, zero))),
                tuple(
                    ar.point(xp.where(some, one, zero)) for some in (factor, ~finite)
                ),
            )
            parts.append(
                [
                    ar.contract(spec, *(pair if at == 0 else pair[::-1]))
                    for pair in pairs
                ]
            )
        (first, missing), (second, more) = parts
        return xp.where(
            (missing.mid > 0) | (more.mid > 0),
            -np.inf,
            ar.ends(ar.add(first, second))[0],
        )

    def transposed(self, known, n, k):
        node = known.graph.nodes[n]
        *terms, result = node.attr.replace("->", ",").split(",")
        at = 1 if node.args[0] in known.fixed else 0
        constant = known.balls[node.args[1 - at]].at[:, None]
        return [
            (
                node.args[at],
                known.ar.contract(
                    f"{result},{terms[1 - at]}->{terms[at]}", k, constant
                ),
            )
        ]

    def reads(self, graph, node, args):
        """What is summed, whatever the weights."""
        *terms, result = node.attr.replace("->", ",").split(",")
        found = no_tokens(graph, node)
        for term, x in zip(terms, args, strict=True):
            summed = tuple(i for i, c in enumerate(term) if c not in result)
            left = [c for c in term if c in result]
            rest = np.any(x, summed).transpose(
                [left.index(c) for c in result if c in left] + [len(left)]
            )
            shape = [found.shape[i] if c in left else 1 for i, c in enumerate(result)]
            found = found | rest.reshape(*shape, x.shape[-1])
        return found


ROWS = {"einsum": Einsum()}
