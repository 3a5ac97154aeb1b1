"""Smooth maxima and minima, which increase in both of their operands.

Lemma L2 (docs/soundness/relaxation.md).
"""

from typing import TYPE_CHECKING, Any

import numpy as np

from mechverify.kernel.core.operations.functions import function_of
from mechverify.kernel.relaxation import lines
from mechverify.kernel.relaxation.lines import Ends

if TYPE_CHECKING:
    from mechverify.kernel.relaxation.intervals import Intervals

SMOOTH = ("relu", "softplus")


def ends(known: "Intervals", n: int) -> Ends | None:
    """Of x + f(y - x), or x - f(x - y), where f increases by at most what its operand does (relu: the maximum, and
    the minimum; softplus: log(e^x + e^y)): such a value increases in x and in y, so that the ends lie at theirs."""
    nodes = known.graph.nodes
    op, operands = nodes[n].op, nodes[n].args
    for x, rest in (operands, operands[::-1]) if op == "add" else (operands,):
        if nodes[rest].op not in SMOOTH or nodes[nodes[rest].args[0]].op != "sub":
            continue
        pair = nodes[nodes[rest].args[0]].args
        other, again = pair if op == "add" else pair[::-1]
        if again == x:
            return tuple(_at_ends(known, op, rest, x, other, side) for side in (0, 1))
    return None


def _at_ends(
    known: "Intervals", op: str, rest: int, x: int, other: int, side: int
) -> Any:
    """The value's lower end (side 0), or its upper one, at those of x and of the other operand."""
    ar, xp = known.ar, known.ar.xp
    own, far = known.ends[x][side], known.ends[other][side]
    finite = xp.isfinite(own) & xp.isfinite(far)
    own, far = (xp.where(finite, end, 0.0) for end in (own, far))
    first, last = (far, own) if op == "add" else (own, far)
    difference = lines.total(ar, (first, first), (-last, -last))
    low, high = lines.image(ar, function_of(known.graph.nodes[rest]), *difference)
    added = (low, high) if op == "add" else (-high, -low)
    value = lines.total(ar, (own, own), added)
    nothing = (-np.inf, np.inf)[side]
    return xp.where(finite, value[side], nothing)
