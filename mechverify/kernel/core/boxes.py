"""Boxes of real inputs in a file: their corners.

Lemma L14 (docs/soundness/relaxation.md).
"""

from collections.abc import Iterable
from math import prod

import numpy as np

from mechverify.kernel.core.errors import Rejected
from mechverify.kernel.core.fields import Reader
from mechverify.kernel.core.operations import sizes


def corners(
    inputs: Iterable[Reader],
) -> tuple[list[tuple[int, ...]], np.ndarray, np.ndarray]:
    """The shapes of the inputs, and the least and the greatest of all their entries [coordinates]."""
    shapes, ends = [], ([], [])
    for row in inputs:
        shape, *lists = row.items(3, 3)
        shapes.append(sizes(shape))
        for corner, end in zip(ends, lists, strict=True):
            numbers = [v.float64() for v in end.items(2**20)]
            if len(numbers) != prod(shapes[-1]):
                raise Rejected(f"{end.where}: the entries don't fill the shape")
            corner += numbers
    low, high = np.array(ends, np.float64)
    if not (low <= high).all():
        raise Rejected("a box of the domain is empty")
    return shapes, low, high
