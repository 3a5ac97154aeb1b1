"""Which of torch's operations compute in float32 what a graph's disturbances cover, and what else a certificate must
say of a module for a theorem about its float32 programs.

The kernel's lemma O4 bounds what a float32 program of each *graph* operation may add. A torch operation is in COVERED
where every float32 program of it is among those of the nodes that it became: where it rounds no more often than they
do, or is one of the functions, softmaxes and normalisations that the axiom `torch:float32` is about. Others are named.
"""

import copy
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from mechverify.graph.build import Value
from mechverify.graph.lowering import CASTS, EXACT, MOVED, SHAPE_ALONE, name_of
from mechverify.kernel.core.graph import Graph

MOVING = ("view", "concat", "gather", "tokens", "input", "weight", "constant", "select")
FOLDED = {
    "arange",
    "zeros",
    "ones",
    "eye",
    "full",
    "scalar_tensor",
}  # constants that are as they are written


class Programs(NamedTuple):
    """Of a captured graph: how many of its nodes the module computes (the first ones), which of them are normalised
    vectors, and why a theorem can't be about its float32 programs (None: it can)."""

    rows: int
    norms: tuple[int, ...]
    missing: str | None


class Recording(Graph):
    """A graph that knows which call made each node, and which calls found one that another had made."""

    def __init__(self, length: int, values: tuple[int, ...]):
        super().__init__(length, values)
        self.call: Any = None
        self.by: dict[int, Any] = {}
        self.again: set[Any] = set()

    def add(self, op: str, *args: int, attr: Any = None) -> int:
        n = super().add(op, *args, attr=attr)
        if self.by.setdefault(n, self.call) != self.call and op not in MOVING:
            self.again.add(self.call)
        return n


def opened(graph: Graph) -> Graph:
    """A copy for a claim's own nodes. None of these is found among the module's, but for entries that are moved: of
    float32 values, what a claim computes is exact, and what the module computes is not."""
    copied = copy.deepcopy(graph)
    copied._ids = {
        key: n
        for key, n in copied._ids.items()
        if key[0] in MOVING or copied.nodes[n].kind != "real"
    }
    return copied


def missing(
    graph: Recording,
    node: torch.fx.Node,
    args: tuple,
    kwargs: dict[str, Any],
    value: Any,
) -> str | None:
    """What stands in the way at a call of the program: in words; None if nothing does."""
    op: Any = node.target
    name = name_of(op)
    leaves = pytree.tree_leaves((args, kwargs), is_leaf=_is_value)
    if not any(
        isinstance(a, Value)
        for a in (*leaves, *pytree.tree_leaves(value, is_leaf=_is_value))
    ):
        return (
            None
            if _as_float32(name, value)
            else f"{name} of constants, which a program rounds"
        )
    if node in graph.again:
        return f"{name} of what another operation has computed already, which may come out otherwise"
    if name in MOVED | CASTS | SHAPE_ALONE:
        return None
    if name not in COVERED:
        return f"{name}, whose float32 programs no lemma covers"
    full = [args[k] if k < len(args) else kwargs.get(a.name, a.default_value)
            for k, a in enumerate(op._schema.arguments)]  # fmt: skip
    named = dict(zip([a.name for a in op._schema.arguments], full, strict=True))
    return (
        None
        if COVERED[name](named)
        else f"{name} with these arguments, whose float32 programs no lemma covers"
    )


def _as_float32(name: str, value: Any) -> bool:
    """Computed from constants, the numbers are those that float32 arithmetic gives."""
    if name in MOVED | EXACT | CASTS | SHAPE_ALONE | FOLDED:
        return (
            True  # whether the numbers themselves are float32 numbers, the kernel sees
        )
    return not any(
        isinstance(a, Tensor) and a.is_floating_point()
        for a in pytree.tree_leaves(value)
    )


def _is_value(a: Any) -> bool:
    return isinstance(a, Value)


def _any(named: dict[str, Any]) -> bool:
    return True


def _plain(*names: str) -> Callable[[dict[str, Any]], bool]:
    """Factors of those names are one."""
    return lambda named: all(named.get(name, 1) == 1 for name in names)


def _power(named: dict[str, Any]) -> bool:
    x, exponent = named.get("self"), named.get("exponent")
    whole = (
        isinstance(exponent, int | float)
        and exponent == int(exponent)
        and 2 <= exponent <= 16
    )
    return isinstance(x, Value) and (whole or exponent in (-1, -0.5, 0.5, 1))


COVERED: dict[str, Callable[[dict[str, Any]], bool]] = {
    **dict.fromkeys(["linear", "matmul", "mm", "bmm", "mv", "dot", "sum", "mean", "mul", "neg", "square", "relu", "abs",
                     "exp", "sqrt", "rsqrt", "reciprocal", "tanh", "sigmoid", "erf", "gelu", "silu", "layer_norm",
                     "rms_norm", "_fused_rms_norm", "embedding", "maximum", "minimum", "clamp", "clamp_min",
                     "clamp_max", "hardtanh", "relu6", "leaky_relu", "softmax", "_softmax", "cat", "stack",
                     "amax", "amin", "tril", "triu", "dropout", "cumsum"], _any),
    **dict.fromkeys(["add", "sub", "rsub"], _plain("alpha")),
    **dict.fromkeys(["addmm", "baddbmm", "addmv"], _plain("alpha", "beta")),
    "div": lambda named: named.get("rounding_mode") is None,
    "softplus": _plain("beta"),
    "pow": _power,
    "einsum": lambda named: len(named["tensors"]) == 2,
    **dict.fromkeys(["where", "masked_fill"],
                    lambda named: isinstance(named.get("condition", named.get("mask")), Tensor)),
}  # fmt: skip
