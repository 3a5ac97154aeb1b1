"""What a ratio form is made of: the exponentials that a head weighs its tokens with, and neurons that read it."""

from typing import NamedTuple

import numpy as np

from mechverify.kernel.core.arithmetic import Ball

MOVED = 4  # units of work for a number of a ball that is only moved


class Factors(NamedTuple):
    """Raw numbers `low` and `high` [queries, vocab, attended], times 2^exponent: bounds of 2^-c e^s, c depending on the
    query token; zero where not `alive` (no input has that token there)."""

    low: np.ndarray
    high: np.ndarray
    exponent: int
    alive: np.ndarray


class Neurons(NamedTuple):
    """Added to the output: sum_j coefficient[q, j] relu(z_j), z_j = base[q, j] + sum_i e^(s_i) u_ij / sum_i e^(s_i),
    with the same scores. Shapes: base [q or 1, 1, neurons], value [q or 1, vocab, attended, neurons], coefficient
    [q or 1, 1, neurons, *shape]."""

    base: Ball
    value: Ball
    coefficient: Ball
