"""A few inputs of a claim's domain, at which a captured graph is compared with its module."""

import numpy as np

from mechverify.claims.box import Box
from mechverify.claims.domain import Tokens

CORNERS, INSIDE = 8, 8


def samples(
    box: Box, tokens: Tokens | None
) -> tuple[np.ndarray | None, list[np.ndarray]]:
    """Token ids [number, length], if there are any, and arrays [number, *shape] of the real inputs: the box's two ends,
    further corners and random points; of the tokens, sequences that are allowed."""
    rng = np.random.default_rng(0)
    ids = None if tokens is None else tokens.sample(CORNERS + INSIDE, rng)
    return ids, [
        _points(low, high, rng) for low, high in zip(box.low, box.high, strict=True)
    ]


def _points(low: np.ndarray, high: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    share = np.concatenate([
        np.zeros((1, *low.shape)), np.ones((1, *low.shape)),
        rng.integers(2, size=(CORNERS - 2, *low.shape)), rng.random((INSIDE, *low.shape)),
    ])  # fmt: skip
    return low * (1 - share) + high * share
