"""Inputs of a claim's domain, drawn at random, and about which values the model takes there: for pictures alone.

Nothing here is proved, and no sentence rests on it. Values are the centres of the kernel's own enclosures.
"""

from collections.abc import Sequence
from math import prod
from typing import NamedTuple

import numpy as np

from mechverify.kernel.core.accuracy import AccuracyClaim
from mechverify.kernel.core.claim import Claim
from mechverify.kernel.core.counts import CountingClaim
from mechverify.kernel.core.evaluate import Evaluation, batch_size
from mechverify.kernel.core.float64 import Float64
from mechverify.kernel.core.ranges import RangeClaim
from mechverify.kernel.core.semantics import Real
from mechverify.kernel.core.share import ShareClaim
from mechverify.kernel.core.unions import Union

MOST = 1_000  # inputs of a picture
NUMBERS = 2e7  # that a picture's values may take on the way, about seconds
LARGEST = 1e100  # that a picture shows
TRIES = 20  # times that inputs are drawn where some don't satisfy the conditions


class Inputs(NamedTuple):
    """Ids [inputs, length], and all coordinates of real inputs [inputs, coordinates]."""

    tokens: np.ndarray
    points: np.ndarray

    def some(self, index: np.ndarray | slice) -> "Inputs":
        return Inputs(self.tokens[index], self.points[index])


def affordable(claim: Claim, nodes: Sequence[int]) -> int:
    """How many inputs a picture of these nodes may have."""
    graph = claim.graph
    each = sum(prod(graph.nodes[n].shape) for n in graph.varying([*nodes]))
    return int(min(MOST, NUMBERS // max(1, each)))


def drawn(claim: Claim, count: int) -> Inputs:
    """At most so many, uniformly from the domain's sets and box, or from the boxes of a union together, of those that
    satisfy the conditions."""
    rng, domain, found = np.random.default_rng(0), claim.domain, []
    for _ in range(TRIES):
        columns = [rng.choice(np.array(ids), count) for ids in domain.tokens]
        tokens = np.stack(columns, -1) if columns else np.zeros((count, 0), np.int64)
        points, once = _points(claim, count, rng)
        some = Inputs(tokens, points)
        found.append(some.some(_satisfying(claim, some) & once))
        if sum(len(inputs.tokens) for inputs in found) >= count:
            break
    tokens, points = (np.concatenate(parts) for parts in zip(*found, strict=True))
    return Inputs(tokens, points).some(slice(count))


def _points(
    claim: Claim, count: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Of the real inputs; and booleans [count], by which those that lie in several boxes of a union are left out."""
    (low, high), once = claim.domain[1:3], np.ones(count, bool)
    union = union_of(claim)
    share = rng.random((count, len(low)))
    if union is not None:
        wide = low < high
        size = (union.high[:, wide] / 2 - union.low[:, wide] / 2) / (
            high[wide] / 2 - low[wide] / 2
        )
        with np.errstate(all="ignore"):
            volume = np.log(size).sum(1)
            weight = np.exp(volume - volume.max())
        if not np.isfinite(weight).all():  # none has any
            weight = np.ones(len(weight))
        which = rng.choice(len(weight), count, p=weight / weight.sum())
        low, high = union.low[which], union.high[which]
    points = np.clip(low + share * (high - low), low, high)
    if union is not None:
        times = [((union.low <= x) & (x <= union.high)).all(1).sum() for x in points]
        once = rng.random(count) * np.array(times) < 1
    return points, once


def union_of(claim: Claim) -> Union | None:
    """The boxes of which the claim speaks alone, if there are some."""
    return claim.union if isinstance(claim, RangeClaim | ShareClaim) else None


def _satisfying(claim: Claim, inputs: Inputs) -> np.ndarray:
    """Booleans [inputs]."""
    if isinstance(claim, CountingClaim) and claim.guarded:
        return claim.satisfied(Float64(), inputs.tokens)
    kept = np.ones(len(inputs.tokens), bool)
    if isinstance(claim, RangeClaim):
        for value in values(claim, claim.where, inputs):
            kept &= (value >= 0).reshape(len(value), -1).all(1)
    return kept


def values(claim: Claim, nodes: Sequence[int], inputs: Inputs) -> list[np.ndarray]:
    """About the value of each node, [inputs, *shape]; Rejected, or OverflowError, where one is too large."""
    found: list[list[np.ndarray]] = [[] for _ in nodes]
    step = batch_size(claim.graph, [*nodes])
    for start in range(0, len(inputs.tokens), step):
        here = inputs.some(slice(start, start + step))
        with np.errstate(all="ignore"):
            at = Evaluation(
                claim.graph,
                claim.weights,
                Real(Float64()),
                here.tokens,
                inputs=split(claim, here.points),
            )
            for n, parts in zip(nodes, found, strict=True):
                value, node = at[n], claim.graph.nodes[n]
                if node.kind == "real":
                    value = np.ldexp(value.mid, value.exponent)
                parts.append(np.broadcast_to(value, (len(here.tokens), *node.shape)))
    together = [np.concatenate(parts) for parts in found]
    if not all((np.abs(value) < LARGEST).all() for value in together):
        raise OverflowError
    return together


def split(claim: Claim, points: np.ndarray) -> list[np.ndarray]:
    """All coordinates [inputs, coordinates] as the inputs that they are, [inputs, *shape] each."""
    ends = np.cumsum([prod(shape) for shape in claim.shapes])[:-1].astype(int)
    parts = np.split(points, ends, axis=1) if len(claim.shapes) else []
    return [
        part.reshape(len(points), *shape)
        for part, shape in zip(parts, claim.shapes, strict=True)
    ]


def entries(claim: Claim, inputs: Inputs) -> np.ndarray:
    """What the claim is decided by, [inputs, entries]: of an accuracy the lead of the mechanism's output over the best
    other one, where it is an output; of a share the left side of its condition; of bounds every entry."""
    if not isinstance(claim, AccuracyClaim):
        (value,) = values(claim, [claim.output], inputs)
        return value.reshape(len(value), -1)
    logits, target = values(claim, [claim.output, claim.target], inputs)
    known = (target >= 0) & (target < claim.outputs)
    logits, target = logits[known], target[known].astype(int)
    if claim.outputs == 1:
        return np.zeros((0, 1))
    own = np.take_along_axis(logits, target[:, None], 1)
    others = np.where(np.arange(claim.outputs) == target[:, None], -np.inf, logits)
    return own - others.max(1, keepdims=True)
