"""An exported program, run by torch's own operations: in float64, or with the rounding errors of a shorter type."""

import math
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from mechverify.graph.lowering import (
    CONSTANTS,
    EXACT,
    MOVED,
    SAME,
    SHAPE_ALONE,
    UNSET,
    double,
    name_of,
)

UNROUNDED = MOVED | EXACT | SAME | SHAPE_ALONE | UNSET | CONSTANTS


class Rounding:
    """Relative errors of at most `eps` of `dtype`, at random, of what an operation reads and of what it gives; what
    the type can't hold is infinite. How far a program's values move is about how far rounding moves them."""

    def __init__(self, dtype: torch.dtype, seed: int):
        info = torch.finfo(dtype)
        self.dtype, self.eps, self.largest = dtype, info.eps, info.max
        self.generator = torch.Generator().manual_seed(seed)

    def __call__(self, a: Any) -> Any:
        if isinstance(a, Tensor) and a.is_floating_point():
            moved = a * (
                1 + self.eps * (2 * torch.rand(a.shape, generator=self.generator) - 1)
            )
            return torch.where(
                moved.abs() > self.largest, moved.sign() * math.inf, moved
            )
        return a

    def number(self, a: Any) -> Any:
        """A number that the type doesn't hold."""
        exact = (
            not isinstance(a, float) or float(torch.tensor(a, dtype=self.dtype)) == a
        )
        return (
            a
            if exact
            else a
            * (1 + self.eps * (2 * float(torch.rand((), generator=self.generator)) - 1))
        )


class Program:
    """`nodes`, in order, of an exported program; `held`: constants by placeholder, floats as float64; `users`: the
    placeholders of the inputs."""

    def __init__(self, nodes: list[Any], held: dict[Any, Tensor], users: list[Any]):
        self.nodes, self.held, self.users = nodes, held, users

    def __call__(
        self, inputs: list[Tensor], outputs: list[Any], rounding: Rounding | None = None
    ) -> list[Tensor]:
        """The values of `outputs`, nodes, at one input (with batch axes): float64 throughout."""
        env = {**self.held, **dict(zip(self.users, inputs, strict=True))}
        for node in self.nodes:
            if node.op == "placeholder":
                continue
            args, kwargs = torch.fx.map_arg((node.args, node.kwargs), env.__getitem__)
            env[node] = _call(node.target, args, kwargs, rounding)
        return [env[node] for node in outputs]


def _call(target: Any, args: tuple, kwargs: dict, rounding: Rounding | None) -> Any:
    if not hasattr(target, "_schema"):  # an item of several results
        return target(*args, **kwargs)
    name = name_of(target)
    args, kwargs = pytree.tree_map(double, (args, kwargs))
    if name in UNROUNDED:
        rounding = None
    if rounding is not None:
        args, kwargs = pytree.tree_map(rounding, (args, kwargs))
        if torch.Tag.pointwise in target.tags:
            args, kwargs = pytree.tree_map(rounding.number, (args, kwargs))
    result = target(*args, **kwargs)
    if name in UNSET:
        return torch.zeros_like(result)
    return result if rounding is None else pytree.tree_map(rounding, result)
