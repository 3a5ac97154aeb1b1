"""Products of matrices, enclosed without multiplying them out: where a witness asks for it.

Softmax doesn't change where a number is added to a row of scores, so of a chain of scores only differences along its
rows matter: it is enough to know each row up to a number, and up to a width. A witness may take a matrix of rank one
off, for any vectors u, v with s = u A v != 0:

    A = (A v)(u A) / s + N_1 ... N_k,    N_i = M_i - (M_i ... M_k v)(u M_1 ... M_i) / s,

an identity (lemma K2), so that the kernel need not know why u and v were chosen. The N_i are small where A
nearly has rank one, and each costs no more than its matrix has entries.

Lemmas K2, K3 (docs/soundness/compact.md).
"""

from fractions import Fraction
from typing import NamedTuple

import numpy as np

from mechverify.kernel.compact.chains import Chain, product, times
from mechverify.kernel.core.arithmetic import Arithmetic, Ball, points
from mechverify.kernel.core.fields import Reader
from mechverify.kernel.core.series import exp_parts

TINY = Fraction(1, 2**200)  # keeps a root away from zero
WIDEST = 500  # of a row of scores, whose exponentials float64 can hold
REMAINDERS = ("maxdiff", "meandiff", "svd", "subproduct", "norms", "recursive")


class Peeled(NamedTuple):
    """Vectors u [rows] and v [columns] of a chain, and how to bound the rest."""

    left: np.ndarray
    right: np.ndarray
    remainder: str


def read(entry: Reader) -> Peeled:
    left, right = (
        np.array([v.float64() for v in entry[name].items(2**12, 1)])
        for name in ("left", "right")
    )
    peeled = Peeled(left, right, entry["remainder"].one_of(REMAINDERS))
    entry.close()
    return peeled


def factors(ar: Arithmetic, width: Ball) -> tuple[Ball, np.ndarray]:
    """A ball [rows, 1] that holds e^d for |d| <= width / 2; and which rows [rows] are too wide: it is 1 there."""
    half = ar.mul(magnitude(ar, width), ar.rational(Fraction(1, 2)))
    wide = ~(ar.upper(half) < ar.units(WIDEST, half.exponent))
    half = ar.where(wide, ar.rational(Fraction(0)), half)
    low, high = (ar.scale(*exp_parts(ar, end)) for end in (-half, half))
    low, high = ar.bottom(low), ar.top(high)
    halved = ar.rational(Fraction(1, 2))
    mean, reach = ar.mul(ar.add(low, high), halved), ar.mul(ar.sub(high, low), halved)
    return ar.widen(mean, 1.0, of=reach), wide[:, 0]


def spread(ar: Arithmetic, rows: Ball, row: Ball, right: Ball) -> Ball:
    """By how much [rows] differences of two entries of a row of `rows` times a matrix (`right` are its columns) may
    differ from those of `row` times it: with x the difference of the rows and c any column, |x (w_a - w_b)| <= 2 |x|
    max_n |w_n - c|."""
    reach = longest(ar, ar.sub(right, mean_row(ar, right)))
    return ar.mul(ar.add(reach, reach), lengths(ar, ar.sub(rows, row)))


def magnitude(ar: Arithmetic, x: Ball) -> Ball:
    """At least the absolute value of every real in the balls, as points."""
    ar.spend(x.mid.size)
    return points(np.maximum(ar.upper(x), -ar.lower(x)), x.exponent)


def along_rows(ar: Arithmetic, chain: Chain, peeled: Peeled) -> tuple[Ball, Ball]:
    """A table S [rows, columns] and widths r [rows, 1] such that for some numbers c every entry of the chain's matrix
    is within r_i / 2 of S_ij + c_i.

    Precondition: u and v fit the matrix. Complexity: rows x columns, and the sizes of the matrices; more than that, the
    Gram matrices of all but the first and the last (remainder `norms`), or the product of each half of the chain (the
    others but `recursive`; `svd` the Gram matrices of both).
    """
    rows, columns = [ar.exact(peeled.left[None])], [ar.exact(peeled.right[:, None])]
    for m in chain:
        rows.append(times(ar, rows[-1], m))  # u M_1 ... M_i
    for m in reversed(chain):
        columns.insert(0, times(ar, m, columns[0]))  # M_i ... M_k v
    scale = times(ar, rows[0], columns[0])
    columns = [ar.div(c, scale) for c in columns[:-1]]
    rest = tuple(
        ar.trim(ar.sub(m, times(ar, *outer)))
        for m, *outer in zip(chain, columns, rows[1:], strict=True)
    )
    table = ar.trim(times(ar, columns[0], rows[-1]))
    if peeled.remainder == "recursive":
        return table, _recursive(ar, rest)
    if peeled.remainder == "norms":
        return table, _by_norms(ar, *rest)
    half = max(1, len(rest) // 2)
    x, y = product(ar, rest[:half]), product(ar, rest[half:])
    match peeled.remainder:
        case "svd":
            norm = _norm(ar, times(ar, _gram(ar, x), _gram(ar, y.map(np.transpose))))
            width = ar.mul(
                root(ar, ar.rational(Fraction(2))), norm
            )  # |e_a - e_b| is the root of 2
            return table, width.map(lambda a: np.broadcast_to(a, (x.mid.shape[0], 1)))
        case "subproduct":
            return table, _by_norms(ar, x, y)
        case "meandiff":
            mean = mean_row(ar, x)
            table, x = ar.add(table, times(ar, mean, y)), ar.sub(x, mean)
    return table, times(ar, magnitude(ar, x), ranges(ar, y))


def mean_row(ar: Arithmetic, x: Ball) -> Ball:
    """A row [1, columns] near the mean of the rows: any row would do."""
    n = x.mid.shape[0]
    ones = ar.whole(np.ones((1, n), np.int64))
    return ar.mul(times(ar, ones, x), ar.rational(Fraction(1, n))).point


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
        width = magnitude(ar, times(ar, magnitude(ar, m), width))
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
    return times(ar, x.map(np.transpose), x)


def _norm(ar: Arithmetic, gram: Ball) -> Ball:
    """At least the square root of the largest eigenvalue l of a matrix whose eigenvalues aren't negative (a Gram
    matrix, or the product of two): l^4 <= tr(M^4) = sum_ij (M^2)_ij (M^2)_ji."""
    gram = ar.trim(gram)
    square = ar.trim(times(ar, gram, gram))
    trace = ar.contract("ij,ji->", square, square)
    for _ in range(3):
        trace = root(ar, ar.trim(trace))
    return trace


def root(ar: Arithmetic, x: Ball) -> Ball:
    """At least the square roots of numbers that are not negative, whatever the balls hold beside them."""
    return ar.sqrt(
        ar.add(points(np.maximum(ar.upper(x), 0), x.exponent), ar.rational(TINY))
    )
