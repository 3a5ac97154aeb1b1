"""The exponentials that a head weighs its tokens with."""

from typing import NamedTuple

import numpy as np


class Factors(NamedTuple):
    """Raw numbers `low` and `high` [queries, vocab, attended], times 2^exponent: bounds of 2^-c e^s, c depending on the
    query token; zero where not `alive` (no input has that token there)."""

    low: np.ndarray
    high: np.ndarray
    exponent: int
    alive: np.ndarray
