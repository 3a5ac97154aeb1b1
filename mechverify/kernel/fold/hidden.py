"""A layer of ReLU neurons that read the result of attention, as part of a ratio form.

Lemma F1 (docs/soundness/fold.md).
"""

import math
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np

from mechverify.kernel.core.errors import Unsupported
from mechverify.kernel.core.graph import Node
from mechverify.kernel.core.meter import reserve
from mechverify.kernel.fold.factors import Neurons

if TYPE_CHECKING:
    from mechverify.kernel.fold.ratio import Analysis


def neurons(analysis: "Analysis", node: Node, z: Any) -> Any:
    """relu of mixtures. The neurons are scaled by a power of two so that their sum is at most one, as that of
    attention's weights is: what a semantics says of the size of a value holds for their coefficients as well."""
    if z.neurons is not None or analysis.neurons is not None:
        raise Unsupported("rule fold needs one layer of neurons, read at one position")
    ar, m = analysis.semantics.ar, math.prod(node.shape)
    reserve(m, m)
    z = analysis.each(z, lambda a, lead: a.reshape(*a.shape[:lead], m))
    size = ar.add(z.base.map(lambda a: a[:, :, None]), z.value).size
    exponents = ar.mantissa(ar.add(size, ar.rational(Fraction(1))))[1]
    shift = int(exponents.max()) + 1 + m.bit_length()
    down = np.array(-shift)
    eye = ar.exact(np.ldexp(np.eye(m), shift).reshape(1, 1, m, m))
    base, value = ar.scale(z.base, down), ar.scale(z.value, down)
    analysis.neurons = Neurons(base, value, eye)
    base, value = z.base.map(np.zeros_like), z.value.map(np.zeros_like)
    flat = z._replace(base=base, value=value, neurons=eye)
    return analysis.each(flat, lambda a, lead: a.reshape(*a.shape[:lead], *node.shape))
