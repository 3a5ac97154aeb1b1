"""Linear operations on the result of attention that captured modules have, and the known architectures don't.

Lemma F1 (docs/soundness/fold.md).
"""

import math
from collections.abc import Callable
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np

from mechverify.kernel.core.errors import Unsupported
from mechverify.kernel.core.graph import Node, entries
from mechverify.kernel.core.semantics import Real
from mechverify.kernel.fold.factors import MOVED

if TYPE_CHECKING:
    from mechverify.kernel.fold.ratio import Analysis


def linear(analysis: "Analysis", node: Node, args: list[Any]) -> Any:
    """Of one mixture; of two, and of one and a table of the query's token alone. The others are mixtures, or tables."""
    ar, mixed = analysis.semantics.ar, [hasattr(a, "attention") for a in args]
    match node.op:
        case "view" | "select":  # moving is no operation of the arithmetic
            for part in (args[0].value, args[0].neurons):
                if part is not None:
                    after = math.prod((*part.mid.shape[:3], *node.shape))
                    ar.step(part.mid.size + after, 1, MOVED)
            return analysis.each(args[0], moved(node))
        case "sub":
            x, y = args
            _need_real(analysis, node)
            if mixed[1]:
                return analysis.sum(node, x, analysis.parts(y, lambda a, lead: -a))
            return analysis.sum(node, x, y._replace(value=-y.value))
        case "mul" if sum(mixed) == 1:
            x, y = args if mixed[0] else args[::-1]
            factor = analysis.tables.align(y.value, len(node.shape))
            wider = factor.map(lambda a: a[:, :, None])
            _need_real(analysis, node)
            return analysis.parts(
                analysis.spread(node, x),
                lambda a, lead: ar.mul(a, factor if lead == 2 else wider),
            )
        case "over_root":
            root = ar.sqrt(ar.rational(Fraction(node.attr)))
            _need_real(analysis, node)
            return analysis.parts(args[0], lambda a, lead: ar.div(a, root))
    raise Unsupported(f"{node.op!r} on the result of attention is not linear")


def moved(node: Node) -> Callable[[np.ndarray, int], np.ndarray]:
    """Which entries a view or a slice reads, of arrays with so many axes before those of the operand."""
    if node.op == "view":
        at = entries(node.attr)
        return lambda a, lead: a.reshape(*a.shape[:lead], -1)[..., at]
    axis, index = node.attr
    return lambda a, lead: np.take(a, index, lead + axis)


def _need_real(analysis: "Analysis", node: Node) -> None:
    """What is exact over the reals."""
    if type(analysis.semantics) is not Real:
        raise Unsupported(
            f"{node.op!r} on the result of attention is for semantics real"
        )
