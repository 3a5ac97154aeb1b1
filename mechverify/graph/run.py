"""A graph's values in plain torch: fast, rounded, and never the judge."""

import numpy as np
import torch
from torch import Tensor

from mechverify.kernel import integers
from mechverify.kernel.evaluate import kept, weight
from mechverify.kernel.graph import Graph


class TorchRunner:
    """Evaluates nodes on batches of token ids [batch, length], in float32 or float64."""

    def __init__(self, graph: Graph, weights: dict[str, np.ndarray], dtype: torch.dtype = torch.float32):
        self.graph, self.dtype = graph, dtype
        self.weights = weights

    def __call__(self, node: int, tokens: np.ndarray) -> Tensor | np.ndarray:
        """A tensor [batch, *shape] for a real node, an int64 array [batch] for an integer one."""
        values: dict[int, Tensor | np.ndarray] = {}
        with torch.inference_mode():
            for n in self.graph.ancestors([node]):
                values[n] = self._compute(n, [values[a] for a in self.graph.nodes[n].args], tokens)
        value = values[node]
        if isinstance(value, np.ndarray):
            return np.broadcast_to(value, len(tokens))
        return value.expand(len(tokens), *value.shape[1:])

    def _compute(self, n: int, args: list, tokens: np.ndarray):
        node = self.graph.nodes[n]
        match node.op:
            case "tokens":
                return torch.from_numpy(tokens)
            case "select":
                axis, index = node.attr
                return args[0].select(axis + 1, index)
            case "weight":
                return torch.from_numpy(weight(self.weights, *node.attr)).to(self.dtype)[None]
            case "gather":
                return args[0][0][args[1]]
            case "over_root":
                return args[0] / node.attr**0.5
            case "add":
                rank = 1 + len(node.shape)
                first, second = (a.reshape(a.shape[:1] + (1,) * (rank - a.ndim) + a.shape[1:]) for a in args)
                return first + second
            case "einsum":
                operands, result = node.attr.split("->")
                first, second = operands.split(",")
                # a constant has batch size one; drop it, so that torch contracts with one matrix product
                constants = [a.shape[0] == 1 and len(tokens) > 1 for a in args]
                terms = [t if c else f"Z{t}" for t, c in zip((first, second), constants, strict=True)]
                batch = "" if all(constants) else "Z"
                inputs = [a[0] if c else a for a, c in zip(args, constants, strict=True)]
                out = torch.einsum(f"{terms[0]},{terms[1]}->{batch}{result}", *inputs)
                return out if batch else out[None]
            case "softmax":
                mask = torch.from_numpy(np.array(np.broadcast_to(kept(node), node.shape)))
                return args[0].masked_fill(~mask, -torch.inf).softmax(-1)
        values = np.asarray(self.graph.values, np.int64)
        return integers.apply(node.op, node.attr, args, lambda i: values[tokens[:, i]])
