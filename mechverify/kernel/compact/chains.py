"""Products of small matrices, multiplied out or enclosed without doing so.

A chain (M_1, .., M_k) of balls [rows, columns] stands for the matrix A = M_1 ... M_k. Softmax doesn't change where a
number is added to a row of scores, so of a chain of scores only differences along its rows matter: it is enough to know
each row up to a number, and up to a width. A witness may take a matrix of rank one off, for any vectors u, v with
s = u A v != 0:

    A = (A v)(u A) / s + N_1 ... N_k,    N_i = M_i - (M_i ... M_k v)(u M_1 ... M_i) / s,

an identity (lemma K2), so that the kernel need not know why u and v were chosen. The N_i are small where A
nearly has rank one, and each costs no more than its matrix has entries.

Lemmas K2, K3 (docs/soundness/compact.md).
"""

from fractions import Fraction
from typing import NamedTuple

import numpy as np

from mechverify.kernel.core.arithmetic import Arithmetic, Ball, points
from mechverify.kernel.core.meter import reserve

Chain = tuple[Ball, ...]
TINY = Fraction(1, 2**200)  # keeps a root away from zero
REMAINDERS = ("maxdiff", "meandiff", "svd", "subproduct", "norms", "recursive")


class Peeled(NamedTuple):
    """Vectors u [rows] and v [columns] of a chain, and how to bound the rest."""

    left: np.ndarray
    right: np.ndarray
    remainder: str


def product(ar: Arithmetic, chain: Chain) -> Ball:
    """The chain's matrix, multiplied in the cheapest order. Complexity: 2 x the multiply-adds of that order."""
    ar.step((len(chain) ** 3 - len(chain)) // 6, 1, 300)  # orders that are compared
    sizes = [chain[0].mid.shape[0], *(m.mid.shape[1] for m in chain)]
    best: dict[tuple[int, int], tuple[int, int]] = {
        (i, i + 1): (0, 0) for i in range(len(chain))
    }
    for width in range(2, len(chain) + 1):
        for i in range(len(chain) - width + 1):
            j = i + width
            best[i, j] = min(
                (best[i, k][0] + best[k, j][0] + sizes[i] * sizes[k] * sizes[j], k)
                for k in range(i + 1, j)
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


def magnitude(ar: Arithmetic, x: Ball) -> Ball:
    """At least the absolute value of every real in the balls, as points."""
    ar.spend(x.mid.size)
    return points(np.maximum(ar.upper(x), -ar.lower(x)), x.exponent)


def transposed(chain: Chain) -> Chain:
    return tuple(m.map(np.transpose) for m in reversed(chain))


def along_rows(
    ar: Arithmetic, chain: Chain, peeled: Peeled | None
) -> tuple[Ball, Ball | None]:
    """A table S [rows, columns] and widths r [rows, 1] such that for some numbers c every entry of the chain's matrix
    is within r_i / 2 of S_ij + c_i. Without a witness: the matrix itself, and None for zero widths.

    Precondition: u and v fit the matrix. Complexity: rows x columns, and the sizes of the matrices; more than that, the
    Gram matrices of all but the first and the last (remainder `norms`), or the product of each half of the chain (the
    others but `recursive`; `svd` the Gram matrices of both).
    """
    if peeled is None:
        return product(ar, chain), None
    rows, columns = [ar.exact(peeled.left[None])], [ar.exact(peeled.right[:, None])]
    for m in chain:
        rows.append(_times(ar, rows[-1], m))  # u M_1 ... M_i
    for m in reversed(chain):
        columns.insert(0, _times(ar, m, columns[0]))  # M_i ... M_k v
    scale = _times(ar, rows[0], columns[0])
    columns = [ar.div(c, scale) for c in columns[:-1]]
    rest = tuple(
        ar.trim(ar.sub(m, _times(ar, *outer)))
        for m, *outer in zip(chain, columns, rows[1:], strict=True)
    )
    table = ar.trim(_times(ar, columns[0], rows[-1]))
    if peeled.remainder == "recursive":
        return table, _recursive(ar, rest)
    if peeled.remainder == "norms":
        return table, _by_norms(ar, *rest)
    half = max(1, len(rest) // 2)
    x, y = product(ar, rest[:half]), product(ar, rest[half:])
    match peeled.remainder:
        case "svd":
            norm = _norm(ar, _times(ar, _gram(ar, x), _gram(ar, y.map(np.transpose))))
            width = ar.mul(
                root(ar, ar.rational(Fraction(2))), norm
            )  # |e_a - e_b| is the root of 2
            return table, width.map(lambda a: np.broadcast_to(a, (x.mid.shape[0], 1)))
        case "subproduct":
            return table, _by_norms(ar, x, y)
        case "meandiff":
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
    high, low = (
        points(ar.upper(x).max(1), x.exponent),
        points(ar.lower(x).min(1), x.exponent),
    )
    return magnitude(ar, ar.sub(high, low)).at[:, None]


def _recursive(ar: Arithmetic, chain: Chain) -> Ball:
    """Widths of the rows: |sum_j M_ij (a_j - b_j)| <= sum_j |M_ij| |a_j - b_j|, from the last matrix to the first."""
    width = ranges(ar, chain[-1])
    for m in reversed(chain[:-1]):
        width = magnitude(ar, _times(ar, magnitude(ar, m), width))
    return width


def _by_norms(ar: Arithmetic, first: Ball, *others: Ball) -> Ball:
    """Widths of the rows: |x M (a - b)| <= |x| |M| |a - b|, and with any column c, |a - b| <= 2 max_j |a_j - c|."""
    *inner, last = others
    widths = lengths(ar, first)
    for m in inner:
        widths = ar.mul(widths, _norm(ar, _gram(ar, m)))
    columns = last.map(np.transpose)
    reach = longest(ar, ar.sub(columns, mean_row(ar, columns)))
    return ar.mul(widths, ar.add(reach, reach)).at[:, None]


def lengths(ar: Arithmetic, x: Ball) -> Ball:
    """At least the Euclidean norm of each row: [rows]."""
    return root(ar, ar.contract("ij,ij->i", x, x))


def longest(ar: Arithmetic, x: Ball) -> Ball:
    """At least the largest norm of a row: [1]."""
    ar.spend(x.mid.shape[0])
    return ar.top(lengths(ar, x)).map(lambda a: a.max(keepdims=True))


def _gram(ar: Arithmetic, x: Ball) -> Ball:
    return _times(ar, x.map(np.transpose), x)


def _norm(ar: Arithmetic, gram: Ball) -> Ball:
    """At least the square root of the largest eigenvalue l of a matrix whose eigenvalues aren't negative (a Gram
    matrix, or the product of two): l^4 <= tr(M^4) = sum_ij (M^2)_ij (M^2)_ji."""
    gram = ar.trim(gram)
    square = ar.trim(_times(ar, gram, gram))
    trace = ar.contract("ij,ji->", square, square)
    for _ in range(3):
        trace = root(ar, ar.trim(trace))
    return trace


def root(ar: Arithmetic, x: Ball) -> Ball:
    """At least the square roots of numbers that are not negative, whatever the balls hold beside them."""
    return ar.sqrt(
        ar.add(points(np.maximum(ar.upper(x), 0), x.exponent), ar.rational(TINY))
    )
