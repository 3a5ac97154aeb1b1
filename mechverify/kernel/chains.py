"""Products of small matrices, multiplied out or enclosed without doing so.

A chain (M_1, .., M_k) of balls [rows, columns] stands for the matrix M_1 ... M_k. Softmax doesn't change where a number
is added to a row of scores, so of a chain of scores only differences along its rows matter: it is enough to know that
row up to a number, and up to a width. A witness may take a matrix of rank one off at a link of the chain; for any
vectors g, h with h.g != 0

    L R = (L g) (h R) / h.g  +  L P R,    P = 1 - g h / h.g  (and P P = P),

which is an identity, so that the kernel need not know why g and h were chosen.
"""

from fractions import Fraction
from typing import NamedTuple

import numpy as np

from mechverify.kernel.arithmetic import Arithmetic, Ball
from mechverify.kernel.evaluate import reserve

Chain = tuple[Ball, ...]
REMAINDERS = ("maxdiff", "meandiff", "svd", "subproduct", "recursive")


class Peeled(NamedTuple):
    """Vectors `left` (g) and `right` (h) at a link: between matrices `link` - 1 and `link`; how to bound the rest."""

    link: int
    left: np.ndarray
    right: np.ndarray
    remainder: str


def product(ar: Arithmetic, chain: Chain) -> Ball:
    """The chain's matrix, multiplied in the cheapest order. Complexity: 2 x the multiply-adds of that order."""
    sizes = [chain[0].mid.shape[0], *(m.mid.shape[1] for m in chain)]
    best: dict[tuple[int, int], tuple[int, int]] = {(i, i + 1): (0, 0) for i in range(len(chain))}
    for width in range(2, len(chain) + 1):
        for i in range(len(chain) - width + 1):
            j = i + width
            best[i, j] = min(
                (best[i, k][0] + best[k, j][0] + sizes[i] * sizes[k] * sizes[j], k) for k in range(i + 1, j)
            )

    def part(i: int, j: int) -> Ball:
        if j == i + 1:
            return chain[i]
        k = best[i, j][1]
        return _times(ar, part(i, k), part(k, j))

    return part(0, len(chain))


def _times(ar: Arithmetic, x: Ball, y: Ball) -> Ball:
    reserve(x.mid.shape[0], y.mid.shape[1])
    return ar.contract("ij,jk->ik", x, y)


def point(a: np.ndarray, exponent: int) -> Ball:
    """Numbers, as balls of radius zero."""
    return Ball(a, np.zeros_like(a), exponent)


def magnitude(ar: Arithmetic, x: Ball) -> Ball:
    """At least the absolute value of every real in the balls, as points."""
    ar.spend(x.mid.size)
    return point(np.maximum(ar.upper(x), -ar.lower(x)), x.exponent)


def transposed(chain: Chain) -> Chain:
    return tuple(m.map(np.transpose) for m in reversed(chain))


def along_rows(ar: Arithmetic, chain: Chain, peeled: Peeled | None) -> tuple[Ball, Ball | None]:
    """A table S [rows, columns] and widths r [rows, 1] such that for some numbers c every entry of the chain's matrix
    is within r_i / 2 of S_ij + c_i. Without a witness: the matrix itself, and None for zero widths.

    Precondition: vectors as long as the link. Complexity: of remainder `recursive`, rows x columns and the sizes of the
    matrices; of the others, that of multiplying each side of the link (`svd`, `subproduct`: and its Gram matrix).
    """
    if peeled is None:
        return product(ar, chain), None
    left, right = chain[: peeled.link], chain[peeled.link :]
    g, h = (ar.exact(v) for v in (peeled.left[:, None], peeled.right[None, :]))
    over = ar.div(g, _times(ar, h, g))  # g / h.g
    if peeled.remainder == "recursive":
        column, row = _through(ar, left, over), _through(ar, transposed(right), h.map(np.transpose)).map(np.transpose)
        eye = ar.whole(np.eye(len(peeled.left), dtype=np.int64))
        rest = (*left, ar.sub(eye, _times(ar, over, h)), *right)
        return _times(ar, column, row), _recursive(ar, rest)
    x, y = product(ar, left), product(ar, right)
    column, row = _times(ar, x, over), _times(ar, h, y)
    table = _times(ar, column, row)
    x, y = ar.sub(x, _times(ar, column, h)), ar.sub(y, _times(ar, over, row))  # x P and P y
    if peeled.remainder == "svd":
        return table, _spread(ar, _norm(ar, _times(ar, _gram(ar, x), _gram(ar, y.map(np.transpose)))), x)
    if peeled.remainder == "subproduct":
        norms = [_norm(ar, _gram(ar, m)) for m in (x, y.map(np.transpose))]
        return table, _spread(ar, ar.mul(*norms), x)
    if peeled.remainder == "meandiff":
        mean = mean_row(ar, x)
        table, x = ar.add(table, _times(ar, mean, y)), ar.sub(x, mean)
    return table, _times(ar, magnitude(ar, x), ranges(ar, y))


def mean_row(ar: Arithmetic, x: Ball) -> Ball:
    """A row [1, columns] near the mean of the rows: any row would do."""
    n = x.mid.shape[0]
    ones = ar.whole(np.ones((1, n), np.int64))
    return ar.mul(_times(ar, ones, x), ar.rational(Fraction(1, n))).point


def ranges(ar: Arithmetic, x: Ball) -> Ball:
    """At least the greatest minus the least entry of each row: [rows, 1]."""
    ar.spend(2 * x.mid.size)
    high, low = (point(a, x.exponent) for a in (ar.upper(x).max(1), ar.lower(x).min(1)))
    return magnitude(ar, ar.sub(high, low)).map(lambda a: a[:, None])


def _recursive(ar: Arithmetic, chain: Chain) -> Ball:
    """Widths of the rows: |sum_j M_ij (a_j - b_j)| <= sum_j |M_ij| |a_j - b_j|, from the last matrix to the first."""
    width = ranges(ar, chain[-1])
    for m in reversed(chain[:-1]):
        width = magnitude(ar, _times(ar, magnitude(ar, m), width))
    return width


def _through(ar: Arithmetic, chain: Chain, vector: Ball) -> Ball:
    for m in reversed(chain):
        vector = _times(ar, m, vector)
    return vector


def _gram(ar: Arithmetic, x: Ball) -> Ball:
    return _times(ar, x.map(np.transpose), x)


def _norm(ar: Arithmetic, gram: Ball) -> Ball:
    """At least the square root of the largest eigenvalue l of a matrix whose eigenvalues aren't negative (a Gram
    matrix, or the product of two): l^4 <= tr(M^4) = sum_ij (M^2)_ij (M^2)_ji."""
    square = _times(ar, gram, gram)
    trace = ar.contract("ij,ji->", square, square)
    return ar.sqrt(ar.sqrt(ar.sqrt(trace)))


def _spread(ar: Arithmetic, norm: Ball, x: Ball) -> Ball:
    """Entries a, b of one row of a matrix R differ by at most |R| |e_a - e_b| = sqrt(2) |R|."""
    width = ar.mul(ar.sqrt(ar.rational(Fraction(2))), norm)
    return width.map(lambda a: np.broadcast_to(a, (x.mid.shape[0], 1)))
