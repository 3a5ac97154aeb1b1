"""What is to be decided: a model, a domain, a mechanism, and when an input counts as right."""

import hashlib
import re
from fractions import Fraction
from itertools import pairwise
from math import prod
from typing import NamedTuple

import numpy as np

from mechverify.kernel import container
from mechverify.kernel.architectures import ARCHITECTURES
from mechverify.kernel.arithmetic import Arithmetic
from mechverify.kernel.errors import Rejected
from mechverify.kernel.evaluate import Evaluation, batch_size
from mechverify.kernel.fields import Reader
from mechverify.kernel.graph import Graph
from mechverify.kernel.integers import OPERATIONS
from mechverify.kernel.semantics import SEMANTICS


class Bounds(NamedTuple):
    """The number of right inputs in a part of the domain lies between these exact integers."""

    low: int
    high: int


class Domain(NamedTuple):
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
        halves = [tuple(t for t in self.tokens[position] if (t in first) == inside) for inside in (True, False)]
        return tuple(Domain((*self.tokens[:position], half, *self.tokens[position + 1 :])) for half in halves)

    def inputs(self, start: int, stop: int) -> np.ndarray:
        """Sequences number `start` to `stop` - 1 in lexicographic order, ids [stop - start, length]."""
        index, columns = np.arange(start, stop), []
        for here in reversed(self.tokens):
            index, digit = np.divmod(index, len(here))
            columns.append(np.array(here)[digit])
        return np.stack(columns[::-1], -1)

    def contains(self, inputs: np.ndarray) -> bool:
        return all(np.isin(inputs[:, i], here).all() for i, here in enumerate(self.tokens))


class Claim:
    """Accuracy of row `position` of `site` against a mechanism, over `domain`, as a certificate states it.

    An input is right if output `target` (an integer node) of the vector node `output` is strictly larger than
    every other. A tie, and a target that is no output, is wrong. Rejects what isn't such a claim about the
    weights in `weights_data` (a safetensors file).
    """

    def __init__(self, entry: Reader, weights_data: bytes):
        self.stated = entry.value
        entry["kind"].one_of(["accuracy"])
        self.semantics = entry["semantics"].one_of(SEMANTICS)
        self.architecture = entry["architecture"].one_of(ARCHITECTURES)
        self.weights_sha256 = entry["weights_sha256"].text()
        if self.weights_sha256 != hashlib.sha256(weights_data).hexdigest():
            raise Rejected("the weights in the file are not those that the claim names (SHA-256 differs)")
        try:
            self.weights = container.read_weights(weights_data)
        except ValueError as error:
            raise Rejected(f"weights: {error}") from None
        self.domain, values = _domain(entry["domain"])
        self.graph = Graph(self.domain.length, values)
        self.target = add_expression(self.graph, entry["equals"])
        self.at_least = _fraction(entry["at_least"])
        sites = ARCHITECTURES[self.architecture](self.graph, self.weights)
        self.site = entry["site"].one_of(sites)
        self.position = entry["position"].an_integer(0, self.domain.length - 1)
        self.output = self.graph.select(sites[self.site], 0, self.position)
        node = self.graph.nodes[self.output]
        if node.kind != "real" or len(node.shape) != 1:
            raise Rejected(f"row {self.position} of site {self.site!r} is not a vector of outputs")
        self.outputs = node.shape[0]
        entry.close()


class Job:
    """A claim, the arithmetic to decide it in, and what the rules leave behind for the report."""

    def __init__(self, claim: Claim, arithmetic: Arithmetic):
        self.claim, self.ar = claim, arithmetic
        self.model = SEMANTICS[claim.semantics](arithmetic)
        self.model.accept(claim.weights)
        self.cells: list[tuple] = []  # (query token, class, size, wrong) of every fold cell
        self.wrong: list[np.ndarray] = []  # inputs that were replayed

    def decide(self, inputs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Two boolean arrays [inputs]: surely right, surely wrong (in every evaluation that the semantics speaks
        of). Neither where rounding leaves it open."""
        step = batch_size(self.claim.graph, [self.claim.output, self.claim.target])
        parts = [self._decide(inputs[i : i + step]) for i in range(0, len(inputs), step)]
        return tuple(np.concatenate(part) for part in zip(*parts, strict=True))

    def _decide(self, inputs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        claim, ar = self.claim, self.ar
        values = Evaluation(claim.graph, claim.weights, self.model, inputs)
        logits, target = values[claim.output], np.broadcast_to(values[claim.target], len(inputs))
        logits = logits.map(lambda a: np.broadcast_to(a, (len(inputs), claim.outputs)))
        possible = (target >= 0) & (target < claim.outputs)
        at = np.where(possible, target, 0)[:, None]
        margin = ar.sub(logits.map(lambda a: np.take_along_axis(a, at, 1)), logits)
        rival = np.arange(claim.outputs) != at
        wins = ((ar.lower(margin) > 0) | ~rival).all(1)
        loses = ((ar.upper(margin) <= 0) & rival).any(1)
        return possible & wins, ~possible | loses


def add_expression(graph: Graph, entry: Reader) -> int:
    """Add a mechanism, written as a list of nodes that refer back to earlier ones, and return its root.

    Each node is [op, [operands], attribute]; operands are indices into the same list.
    """
    ids: list[int] = []
    for row in entry.items(2**16, 1):
        op, operands, attribute = row.items(3, 3)
        name = op.one_of(["value", "integer", *OPERATIONS])
        args = operands.integers(2**12)
        if not all(0 <= a < len(ids) for a in args):
            raise Rejected(f"an operand of {name!r} doesn't refer to an earlier node")
        ids.append(
            graph.add(name, *(ids[a] for a in args), attr=None if attribute.value is None else attribute.an_integer())
        )
    return ids[-1]


def _domain(entry: Reader) -> tuple[Domain, tuple[int, ...]]:
    """Token sets by position (ids, ascending) and the integer that each id of the vocabulary means."""
    values = tuple(entry["values"].integers(2**20))
    tokens = tuple(tuple(row.integers()) for row in entry["tokens"].items(2**10, 1))
    entry.close()
    for here in tokens:
        if not here or here[0] < 0 or here[-1] >= len(values) or not all(a < b for a, b in pairwise(here)):
            raise Rejected("a token set of the domain is empty, not ascending, or not within the vocabulary")
    if Domain(tokens).size >= 2**13_000:
        raise Rejected("the domain has more than 2^13000 inputs")
    return Domain(tokens), values


def _fraction(entry: Reader) -> Fraction | None:
    if entry.value is None:
        return None
    parts = re.fullmatch(r"([0-9]{1,400})/([1-9][0-9]{0,399})", entry.text())
    if parts is None or int(parts[1]) > int(parts[2]):
        raise Rejected(f"{entry.where}: expected null or a fraction 'p/q' of at most one")
    return Fraction(int(parts[1]), int(parts[2]))
