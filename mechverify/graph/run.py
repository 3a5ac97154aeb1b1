"""A graph's values in plain torch: fast, rounded, and never the judge."""

import math
from collections.abc import Sequence
from contextlib import nullcontext

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from mechverify.kernel.core import integers
from mechverify.kernel.core.graph import Graph
from mechverify.kernel.core.operations.softmax import kept
from mechverify.kernel.core.operations.weights import weight

FUNCTIONS = {
    **{f.__name__: f for f in (torch.relu, torch.abs, torch.exp, torch.log, torch.sqrt, torch.rsqrt, torch.reciprocal,
                               torch.tanh, torch.sigmoid, torch.erf, torch.sin, torch.cos, torch.atan, F.gelu, F.silu)},
    "softplus": lambda x: torch.logaddexp(x, torch.zeros_like(x)),  # F.softplus is linear beyond a threshold
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
}  # fmt: skip
ELEMENTWISE = {"add": torch.add, "sub": torch.sub, "mul": torch.mul}


class TorchRunner:
    """Evaluates nodes on batches of token ids and real inputs, in float32 or float64."""

    def __init__(
        self,
        graph: Graph,
        weights: dict[str, np.ndarray],
        dtype: torch.dtype = torch.float32,
    ):
        self.graph, self.dtype = graph, dtype
        self.weights = weights

    def __call__(
        self,
        node: int,
        tokens: np.ndarray | None = None,
        inputs: Sequence[np.ndarray | Tensor] = (),
    ) -> Tensor | np.ndarray:
        """Of token ids [batch, length] and real inputs [batch, *shape]: a tensor [batch, *shape] for a real node,
        an int64 array [batch] for an integer one."""
        return self.many([node], tokens, inputs)[node]

    def real(
        self,
        node: int,
        tokens: np.ndarray | None = None,
        inputs: Sequence[np.ndarray | Tensor] = (),
    ) -> Tensor:
        """Of a real node."""
        return self.reals([node], tokens, inputs)[node]

    def reals(
        self,
        nodes: Sequence[int],
        tokens: np.ndarray | None = None,
        inputs: Sequence[np.ndarray | Tensor] = (),
    ) -> dict[int, Tensor]:
        """Of several real nodes."""
        return {
            n: torch.as_tensor(value)
            for n, value in self.many(nodes, tokens, inputs).items()
        }

    def many(
        self,
        nodes: Sequence[int],
        tokens: np.ndarray | None = None,
        inputs: Sequence[np.ndarray | Tensor] = (),
    ) -> dict[int, Tensor | np.ndarray]:
        """The values of several nodes, what they share computed once."""
        size = (
            len(inputs[0])
            if tokens is None and len(inputs)
            else 1
            if tokens is None
            else len(tokens)
        )
        ids = np.zeros((size, 0), np.int64) if tokens is None else tokens
        values: dict[int, Tensor | np.ndarray] = {}
        moving = any(
            isinstance(x, Tensor) and x.requires_grad for x in inputs
        )  # gradients are wanted
        with nullcontext() if moving else torch.inference_mode():
            reals = [torch.as_tensor(x).to(self.dtype) for x in inputs]
            for n in self.graph.ancestors(list(nodes)):
                values[n] = self._compute(
                    n, [values[a] for a in self.graph.nodes[n].args], ids, reals
                )
        return {n: _batch(values[n], size) for n in nodes}

    def _compute(self, n: int, args: list, tokens: np.ndarray, inputs: list[Tensor]):
        node = self.graph.nodes[n]
        match node.op:
            case "tokens":
                return torch.from_numpy(tokens)
            case "input":
                return inputs[node.attr[0]]
            case "constant":
                shape, entries = node.attr
                return torch.tensor(entries, dtype=self.dtype).reshape(1, *shape)
            case "pi":
                return torch.full((1,), math.pi, dtype=self.dtype)
            case "number":
                return torch.from_numpy(np.array(args[0]).reshape(-1)).to(self.dtype)
            case "pick":
                index = torch.from_numpy(np.array(args[1]).reshape(-1))
                size = max(len(args[0]), len(index))
                return args[0].expand(size, *args[0].shape[1:])[
                    torch.arange(size), index.expand(size)
                ]
            case "select":
                axis, index = node.attr
                return args[0].select(axis + 1, index)
            case "view":
                return _view(args[0], *node.attr)
            case "concat":
                size = max(len(a) for a in args)
                return torch.cat(
                    [a.expand(size, *a.shape[1:]) for a in args], node.attr + 1
                )
            case "weight":
                return torch.from_numpy(weight(self.weights, *node.attr)).to(
                    self.dtype
                )[None]
            case "gather":
                return args[0][0][args[1]]
            case "extremum":
                return args[0].amax(-1) if node.attr == "max" else args[0].amin(-1)
            case "ascending":
                return args[0].sort(-1).values
            case "choose":
                x, y, above, other = (_aligned(a, len(node.shape)) for a in args)
                return torch.where(x > y, above, other)
            case "rounding":  # nothing is added
                return args[0]
            case "over_root":
                return args[0] / node.attr**0.5
            case "power":
                return args[0] ** node.attr
            case "add" | "sub" | "mul" if node.kind == "real":
                first, second = (_aligned(a, len(node.shape)) for a in args)
                return ELEMENTWISE[node.op](first, second)
            case "einsum":
                operands, result = node.attr.split("->")
                first, second = operands.split(",")
                # a constant has batch size one; drop it, so that torch contracts with one matrix product
                size = max(len(a) for a in args)
                constants = [a.shape[0] == 1 and size > 1 for a in args]
                terms = [
                    t if c else f"Z{t}"
                    for t, c in zip((first, second), constants, strict=True)
                ]
                inputs = [
                    a[0] if c else a for a, c in zip(args, constants, strict=True)
                ]
                return torch.einsum(f"{terms[0]},{terms[1]}->Z{result}", *inputs)
            case "softmax":
                mask = torch.from_numpy(
                    np.array(np.broadcast_to(kept(node), node.shape))
                )
                return args[0].masked_fill(~mask, -torch.inf).softmax(-1)
        if node.op in FUNCTIONS and node.kind == "real":
            return FUNCTIONS[node.op](args[0])
        values = np.asarray(self.graph.values, np.int64)
        return integers.apply(node.op, node.attr, args, lambda i: values[tokens[:, i]])


def _batch(value: Tensor | np.ndarray, size: int) -> Tensor | np.ndarray:
    """Of `size` rows, where a value that doesn't vary has one."""
    if isinstance(value, np.ndarray):
        return np.broadcast_to(value, size)
    return value.expand(size, *value.shape[1:])


def _aligned(x: Tensor, rank: int) -> Tensor:
    """[batch, *shape] with axes of one between, so that shapes of that rank broadcast."""
    return x.reshape(x.shape[:1] + (1,) * (1 + rank - x.ndim) + x.shape[1:])


def _view(
    x: Tensor, shape: tuple[int, ...], offset: int, strides: tuple[int, ...]
) -> Tensor:
    """torch has no negative strides: view forwards, then flip."""
    backwards = [k for k, step in enumerate(strides) if step < 0]
    offset += sum((shape[k] - 1) * strides[k] for k in backwards)
    flat = x.reshape(len(x), -1).contiguous()
    batch = math.prod(x.shape[1:])
    view = flat.as_strided(
        (len(x), *shape), (batch, *map(abs, strides)), flat.storage_offset() + offset
    )
    return view.flip([k + 1 for k in backwards]) if backwards else view
