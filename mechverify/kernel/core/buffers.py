"""Buffers that a file of weights has beside its parameters."""

from collections.abc import Callable
from math import prod

import numpy as np

MASKED = -10_000  # masked scores are minus infinity to the kernel; a file that has them above this means something else

Type = tuple[
    str, Callable[[np.ndarray], np.ndarray]
]  # numpy's, and how an array of it becomes numbers


def need_causal(
    name: str, types: dict[str, Type], dtype: str, shape: list[int], data: bytes
) -> None:
    """Raises ValueError unless the buffer says what the architectures do: causal attention. `types`: of numbers."""
    code, convert = {"BOOL": ("u1", np.asarray), "U8": ("u1", np.asarray), **types}.get(
        dtype, ("u1", np.asarray)
    )
    if prod(shape) * np.dtype(code).itemsize != len(data):
        raise ValueError(
            f"tensor {name!r}: type {dtype!r} and shape {shape} don't fill its {len(data)} bytes"
        )
    values = convert(np.frombuffer(data, code))
    if name.endswith("IGNORE"):
        if not (values <= MASKED).all():
            raise ValueError(
                f"{name!r} leaves masked scores a weight: the architecture gives them none"
            )
        return
    n = shape[-1] if shape else 0
    if prod(shape) != n * n or not n:
        raise ValueError(f"{name!r} has shape {shape}: the causal mask is square")
    mask = values.reshape(n, n)
    wrong = mask != np.tri(n, dtype=bool)
    if wrong.any():
        query, key = np.argwhere(wrong)[0]
        sees = "sees" if mask[query, key] else "doesn't see"
        raise ValueError(
            f"{name!r} is no causal mask (position {query} {sees} position {key}: a local window?), and the "
            "architecture's attention is causal: load it by mechverify.graph.adapters, and capture that"
        )
