"""What is to be decided: a graph, a domain, and the two nodes that have to agree."""

from dataclasses import dataclass, field
from math import prod
from typing import NamedTuple

import numpy as np

from mechverify.kernel.errors import Rejected
from mechverify.kernel.evaluate import Evaluation, batch_size
from mechverify.kernel.fields import Reader
from mechverify.kernel.graph import MECHANISM, Graph
from mechverify.kernel.rounding import Float64, lower, upper


class Bounds(NamedTuple):
    """The number of right inputs in a part of the domain lies between these exact integers."""

    low: int
    high: int


@dataclass(frozen=True)
class Domain:
    """A product of token sets: `tokens[i]` are the distinct ids, ascending, allowed at position i."""

    tokens: tuple[tuple[int, ...], ...]

    @property
    def length(self) -> int:
        return len(self.tokens)

    @property
    def size(self) -> int:
        return prod(map(len, self.tokens))

    def split(self, position: int, first: set[int]) -> tuple["Domain", "Domain"]:
        """The inputs whose token at `position` is in `first`, and the others: together, exactly this domain."""
        here = self.tokens[position]
        halves = tuple(t for t in here if t in first), tuple(t for t in here if t not in first)
        before, after = self.tokens[:position], self.tokens[position + 1 :]
        return tuple(Domain((*before, half, *after)) for half in halves)

    def inputs(self, start: int, stop: int) -> np.ndarray:
        """Sequences number `start` to `stop` - 1 in lexicographic order, ids [stop - start, length]."""
        index, columns = np.arange(start, stop), []
        for here in reversed(self.tokens):
            index, digit = np.divmod(index, len(here))
            columns.append(np.array(here)[digit])
        return np.stack(columns[::-1], -1)

    def contains(self, inputs: np.ndarray) -> bool:
        """Whether every row of ids [inputs, length] is in the domain."""
        return inputs.shape[1] == self.length and all(
            np.isin(inputs[:, i], here).all() for i, here in enumerate(self.tokens)
        )


@dataclass
class Job:
    """Accuracy: an input is right if output `target` (an integer node) of the vector node `output` is
    strictly larger than every other. A tie, and a target that is no output, is wrong."""

    graph: Graph
    weights: dict[str, np.ndarray]
    output: int
    target: int
    arithmetic: Float64
    cells: list[tuple] = field(default_factory=list)  # (pinned tokens, key, size, wrong) of every fold cell

    def expression(self, entry: Reader) -> int:
        return add_expression(self.graph, entry)

    def decide(self, inputs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Two boolean arrays [inputs]: surely right, surely wrong. Neither where rounding leaves it open."""
        step = batch_size(self.graph, [self.output, self.target])
        parts = [self._decide(inputs[i : i + step]) for i in range(0, len(inputs), step)]
        right, wrong = zip(*parts, strict=True)
        return np.concatenate(right), np.concatenate(wrong)

    def _decide(self, inputs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        values = Evaluation(self.graph, self.weights, self.arithmetic, inputs, ordered=False)
        logits, target = values[self.output], np.broadcast_to(values[self.target], len(inputs))
        outputs = logits.mid.shape[-1]
        possible = (target >= 0) & (target < outputs)
        at = np.where(possible, target, 0)[:, None]
        margin = self.arithmetic.sub(logits.map(lambda a: np.take_along_axis(a, at, 1)), logits)
        rival = np.arange(outputs) != at
        wins = ((lower(margin) > 0) | ~rival).all(1)
        loses = ((upper(margin) <= 0) & rival).any(1)
        return possible & wins, ~possible | loses


def add_expression(graph: Graph, entry: Reader) -> int:
    """Add a mechanism, written as a list of nodes that refer back to earlier ones, and return its root.

    Each node is [op, [operands], attribute]; operands are indices into the same list.
    """
    ids: list[int] = []
    for row in entry.items(limit=2**16):
        op, operands, attribute = row.fixed_list(3)
        name = op.text()
        if name not in MECHANISM:
            raise Rejected(f"{name!r} is not an operation of a mechanism")
        args = operands.integers()
        if not all(0 <= a < len(ids) for a in args):
            raise Rejected(f"an operand of {name!r} doesn't refer to an earlier node")
        ids.append(graph.add(name, *(ids[a] for a in args), attr=attribute.optional_integer()))
    if not ids:
        raise Rejected("a mechanism has at least one node")
    return ids[-1]
