"""The kernel's ball arithmetic on torch tensors: float64, differentiable, on any device, and not rounded outwards.

What a search finds with it is a witness; the kernel derives the bounds again in its own arithmetic.
"""

from collections.abc import Callable
from fractions import Fraction
from functools import partial

import numpy as np
import torch
from torch import Tensor

from mechverify.kernel.core.arithmetic import Arithmetic, Array, Ball
from mechverify.kernel.core.functions import FUNCTIONS, Function

_VALUES: dict[Callable, Callable[[Tensor], Tensor]] = {
    FUNCTIONS[name].value: function
    for name, function in {
        "relu": torch.relu,
        "abs": torch.abs,
        "exp": torch.exp,
        "log": torch.log,
        "sqrt": torch.sqrt,
        "rsqrt": torch.rsqrt,
        "reciprocal": torch.reciprocal,
        "tanh": torch.tanh,
        "sigmoid": torch.sigmoid,
        "erf": torch.erf,
        "softplus": torch.nn.functional.softplus,
        "gelu": torch.nn.functional.gelu,
        "gelu_tanh": lambda x: torch.nn.functional.gelu(x, approximate="tanh"),
        "silu": torch.nn.functional.silu,
        "sin": torch.sin,
        "cos": torch.cos,
        "atan": torch.atan,
    }.items()
}


class TensorBall(Ball):
    """`rad` is None for a point."""

    def map(self, move: Callable) -> "TensorBall":
        if self.rad is None:
            return TensorBall(move(self.mid), None)
        mid, rad = torch.broadcast_tensors(self.mid, self.rad)
        return TensorBall(move(mid), move(rad))

    def __neg__(self) -> "TensorBall":
        return TensorBall(-self.mid, self.rad)

    @property
    def point(self) -> "TensorBall":
        return TensorBall(self.mid, None)

    @property
    def size(self) -> "TensorBall":
        return TensorBall(_plus(self.mid.abs(), self.rad), None)


class Tensors(Arithmetic):
    xp, rounds, dtype = torch, False, torch.float64

    def __init__(self, device: str = "cpu"):
        super().__init__()
        self.device = device

    def exact(self, values: Tensor) -> TensorBall:
        return TensorBall(values, None)

    def point(self, values: Tensor) -> TensorBall:
        return TensorBall(values, None)

    def raw(self, a: np.ndarray) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(a)).to(self.device)

    def rational(self, value: Fraction) -> TensorBall:
        return TensorBall(
            torch.tensor(float(value), dtype=torch.float64, device=self.device), None
        )

    def value(self, f: Function, x: Ball) -> TensorBall:
        """At points."""
        if f.value in _VALUES:
            return TensorBall(_VALUES[f.value](x.mid), None)
        assert isinstance(f.value, partial)  # of a power
        return TensorBall(x.mid ** f.value.keywords["n"], None)

    def add(self, x: Ball, y: Ball) -> TensorBall:
        return TensorBall(x.mid + y.mid, _plus(x.rad, y.rad))

    def mul(self, x: Ball, y: Ball) -> TensorBall:
        mid, rad = x.mid * y.mid, None
        if y.rad is not None:
            rad = _plus(x.mid.abs(), x.rad) * y.rad
        if x.rad is not None:
            rad = _plus(x.rad * y.mid.abs(), rad)
        return TensorBall(mid, rad)

    def div(self, x: Ball, y: Ball) -> TensorBall:
        """By points."""
        return TensorBall(x.mid / y.mid, None if x.rad is None else x.rad / y.mid.abs())

    def approximate(self, x: Ball) -> Array:
        return x.mid.detach()

    def sqrt(self, x: Ball) -> TensorBall:
        return TensorBall(torch.sqrt(x.mid), None)

    def contract(self, spec: str, x: Ball, y: Ball) -> TensorBall:
        terms, result = spec.split("->")
        full = ",".join(f"...{t}" for t in terms.split(",")) + f"->...{result}"
        mid, rad = torch.einsum(full, x.mid, y.mid), None
        if y.rad is not None:
            rad = torch.einsum(full, _plus(x.mid.abs(), x.rad), y.rad)
        if x.rad is not None:
            rad = _plus(torch.einsum(full, x.rad, y.mid.abs()), rad)
        return TensorBall(mid, rad)

    def sum(self, x: Ball) -> Ball:
        return x.map(lambda a: a.sum(-1))

    def scatter(self, x: Ball, entries: np.ndarray, size: int) -> Ball:
        index = torch.from_numpy(entries).to(self.device)
        if len(entries) == size and len(np.unique(entries)) == size:
            inverse = torch.argsort(index)
            return x.map(lambda a: a.index_select(-1, inverse))
        return x.map(lambda a: a.new_zeros(*a.shape[:-1], size).index_add(-1, index, a))

    def widen(
        self, x: Ball, relative: float, absolute: float = 0.0, of: Ball | None = None
    ) -> TensorBall:
        of = of or x
        size = of.mid.abs() if of.rad is None else of.mid.abs() + of.rad
        return TensorBall(x.mid, _plus(relative * size + absolute, x.rad))

    def where(self, mask: Tensor, x: Ball, y: Ball) -> TensorBall:
        rad = None
        if x.rad is not None or y.rad is not None:
            zero = torch.zeros((), dtype=torch.float64, device=self.device)
            rad = torch.where(
                mask, zero if x.rad is None else x.rad, zero if y.rad is None else y.rad
            )
        return TensorBall(torch.where(mask, x.mid, y.mid), rad)

    def ends(self, x: Ball) -> tuple[Tensor, Tensor]:
        low, high = self.lower(x), self.upper(x)
        known = low.isfinite() & high.isfinite()
        return torch.where(known, low, -torch.inf), torch.where(known, high, torch.inf)

    def units(self, value: float, exponent: int) -> float:
        return value

    def down(self, x: Tensor) -> Tensor:
        return x

    def up(self, x: Tensor) -> Tensor:
        return x

    def lower(self, x: Ball) -> Tensor:
        return x.mid if x.rad is None else x.mid - x.rad

    def upper(self, x: Ball) -> Tensor:
        return _plus(x.mid, x.rad)


def _plus(a: Array, b: Array) -> Array:
    """Of tensors; None is zero."""
    if a is None or b is None:
        return b if a is None else a
    return a + b
