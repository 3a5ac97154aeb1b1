"""The float64 numbers beside a number: what decides a comparison as the number itself does."""

import math
from fractions import Fraction

from mechverify.kernel.core.float64 import LARGEST


def float_below(value: Fraction | float) -> float:
    """The largest float64 that is at most that (infinity is itself); -inf below all finite ones. A float64 exceeds
    `value` exactly if it exceeds this."""
    if abs(value) >= 2**1024 - 2**970:
        return (
            float(value)
            if abs(value) == math.inf
            else -math.inf
            if value < -LARGEST
            else LARGEST
        )
    near = float(value)
    return near if Fraction(near) <= value else math.nextafter(near, -math.inf)


def float_above(value: Fraction) -> float:
    """The least float64 that is at least that; inf above all of them. A float is smaller than `value` if and only if it
    is smaller than this."""
    return 0.0 - float_below(-value)  # no -0.0
