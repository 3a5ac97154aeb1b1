"""A model on many inputs in torch: what reads one token is computed once for each token that its position has."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from mechverify.graph.run import TorchRunner
from mechverify.kernel.core.graph import Graph
from mechverify.kernel.core.prefixes import LAST, ZERO, taken_apart

NONE, SEVERAL = -1, -2  # positions that a value reads, where it isn't one
Value = Tensor | np.ndarray


class TokenRunner(TorchRunner):
    """Of `roots` of a graph on tokens, in float64; sums are taken apart as the kernel does."""

    def __init__(self, graph: Graph, roots: list[int], weights: dict[str, np.ndarray]):
        made, self.same, reads = taken_apart(graph, roots)
        super().__init__(made, weights, torch.float64)
        self.position = {n: _position(bits) for n, bits in reads.items()}

    def many(
        self,
        nodes: Sequence[int],
        tokens: np.ndarray | None = None,
        inputs: Sequence[np.ndarray | Tensor] = (),
    ) -> dict[int, Value]:
        """Of roots; there are tokens, and no real inputs."""
        assert tokens is not None and not inputs
        wanted, values = [self.same[n] for n in nodes], {}
        batch = _Batch(tokens)
        with torch.inference_mode():
            for n in self.graph.ancestors(wanted):
                at, args = self.position[n], self.graph.nodes[n].args
                moved = [batch.moved(values[a], self.position[a], at) for a in args]
                values[n] = self._compute(n, moved, batch.rows(at), [])
            return {
                n: batch.every(batch.moved(values[m], self.position[m], SEVERAL))
                for n, m in zip(nodes, wanted, strict=True)
            }


def _position(bits: np.ndarray) -> int:
    together = int(np.bitwise_or.reduce(bits & ~ZERO, None))
    if not together:
        return NONE
    one = together.bit_length() - 1
    return one if together == 1 << one and one < LAST else SEVERAL


class _Batch:
    """Inputs [number, length]; values of one position are those of `rows`, one for each of its tokens."""

    def __init__(self, tokens: np.ndarray):
        self.tokens = tokens
        self.found: dict[int, tuple[np.ndarray, np.ndarray]] = {}

    def rows(self, position: int) -> np.ndarray:
        return (
            self.tokens if position == SEVERAL else self.tokens[self._first(position)]
        )

    def moved(self, value: Value, position: int, to: int) -> Value:
        """The rows of one position's value that another one's needs. (What reads nothing broadcasts.)"""
        if position in (to, NONE) or len(value) == 1:
            return value
        if position != SEVERAL:
            value = _taken(value, self._at(position)[1])
        return value if to == SEVERAL else _taken(value, self._first(to))

    def every(self, value: Value) -> Value:
        """One row for each input."""
        number = len(self.tokens)
        if isinstance(value, Tensor):
            return value.expand(number, *value.shape[1:])
        return np.broadcast_to(value, number)

    def _first(self, position: int) -> np.ndarray:
        return self._at(position)[0] if position != NONE else np.zeros(1, np.int64)

    def _at(self, position: int) -> tuple[np.ndarray, np.ndarray]:
        """The first input with each token there, and of each input which of them has its token."""
        if position not in self.found:
            ids = self.tokens[:, position]
            _, first, which = np.unique(ids, return_index=True, return_inverse=True)
            self.found[position] = first, which.reshape(-1)
        return self.found[position]


def _taken(value: Value, rows: np.ndarray) -> Value:
    if isinstance(value, Tensor):
        return value.index_select(0, torch.from_numpy(rows))
    return value[rows]
