"""The value of graph nodes on given tokens: reals as balls, integers exactly, as each operation's row says.

Lemma C4 (docs/soundness/core.md).
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from mechverify.kernel.core.arithmetic import Ball
from mechverify.kernel.core.graph import Graph
from mechverify.kernel.core.meter import ROOM, reserve
from mechverify.kernel.core.operations import Node, row_of
from mechverify.kernel.core.semantics import Real


class Evaluation:
    """Values of nodes, computed once each, as the operations of `semantics` give them.

    `tokens` are ids [..., length] and `selected(j)` the ids [...] at position j; the leading axes are
    batch axes, equal in number everywhere and of size one where a value doesn't vary. `inputs` are the real inputs
    [*batch, *shape].
    """

    def __init__(
        self,
        graph: Graph,
        weights: dict[str, np.ndarray],
        semantics: Real,
        tokens: np.ndarray,
        selected: Callable[[int], np.ndarray] | None = None,
        inputs: Sequence[np.ndarray] = (),
    ):
        self.inputs = inputs
        self.graph, self.weights = graph, weights
        self.semantics, self.tokens = semantics, tokens
        self.selected = selected or (lambda j: tokens[..., j])
        self.batch = tokens.ndim - 1
        self.held = -sum(a.size for a in weights.values())  # numbers beyond the file's
        self.values: dict[int, Ball | np.ndarray] = {}

    def __getitem__(self, node: int) -> Any:
        """A Ball [*batch, *shape] for a real node; an int64 array [*batch] for ids and integers."""
        for n in self.graph.ancestors([node]):
            if n not in self.values:
                args = [self.values[a] for a in self.graph.nodes[n].args]
                self.values[n] = self._compute(self.graph.nodes[n], args)
        return self.values[node]

    def align(self, x: Ball, rank: int) -> Ball:
        """Axes of size one between batch and shape, so that operands of that rank broadcast on the right."""
        missing = rank + self.batch - x.mid.ndim
        return x.map(
            lambda a: np.expand_dims(a, tuple(range(self.batch, self.batch + missing)))
        )

    def _compute(self, node: Node, args: list):
        if node.kind == "real":
            batch = [a.mid.shape if isinstance(a, Ball) else a.shape for a in args]
            sizes = (
                *np.broadcast_shapes(*(shape[: self.batch] for shape in batch)),
                *node.shape,
            )
            self.held += math.prod(sizes)
            if node.op != "weight" or self.semantics.ar.is_exact:  # the file holds it
                reserve(*sizes)
            reserve(max(0, self.held) // 4)  # all values together
            self.semantics.ar.spend(math.prod(sizes), 4, 1)
        return row_of(node.op).value(self, node, args)

    def of_batch(self, value: np.ndarray) -> np.ndarray:
        """An integer with all batch axes."""
        return np.asarray(value).reshape(
            (1,) * (self.batch - np.ndim(value)) + np.shape(value)
        )


def batch_size(graph: Graph, roots: list[int]) -> int:
    """How many inputs can be evaluated at a time in bounded memory."""
    numbers = sum(
        math.prod(graph.nodes[n].shape) for n in graph.varying(roots)
    )  # others are there once
    return max(1, min(2**12, ROOM // max(1, numbers)))
