"""A few inputs of a claim's domain, at which a captured graph is compared with its module."""

import numpy as np

from mechverify.claims.box import Box
from mechverify.claims.domain import Tokens

CORNERS, INSIDE = 8, 8


def samples(
    box: Box, tokens: Tokens | None
) -> tuple[np.ndarray | None, list[np.ndarray]]:
    """Token ids [number, length], if there are any, and arrays [number, *shape] of the real inputs: the box's two ends,
    further corners and random points, of a union's boxes in turn; of the tokens, sequences that are allowed."""
    rng, number = np.random.default_rng(0), CORNERS + INSIDE
    ids = None if tokens is None else tokens.sample(number, rng)
    boxes = [box.each[i % len(box.each)] for i in range(number)]
    points = []
    for k in range(len(box.low)):
        low, high = (
            np.stack([getattr(b, end)[k] for b in boxes]) for end in ("low", "high")
        )
        points.append(_points(low, high, rng))
    return ids, points


def _points(low: np.ndarray, high: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    shape = low.shape[1:]
    share = np.concatenate([
        np.zeros((1, *shape)), np.ones((1, *shape)),
        rng.integers(2, size=(CORNERS - 2, *shape)), rng.random((INSIDE, *shape)),
    ])  # fmt: skip
    return low * (1 - share) + high * share
