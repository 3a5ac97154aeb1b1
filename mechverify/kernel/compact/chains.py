"""Products of small matrices.

A chain (M_1, .., M_k) of balls [rows, columns] stands for the matrix A = M_1 ... M_k, which nobody has multiplied out.

Lemma K3 (docs/soundness/compact.md).
"""

import numpy as np

from mechverify.kernel.core.arithmetic import Arithmetic, Ball, points
from mechverify.kernel.core.meter import reserve

Chain = tuple[Ball, ...]


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
        return times(ar, part(i, k), part(k, j))

    return part(0, len(chain))


def times(ar: Arithmetic, x: Ball, y: Ball) -> Ball:
    reserve(x.mid.shape[0], y.mid.shape[1])
    return ar.contract("ij,jk->ik", x, y)


def transposed(chain: Chain) -> Chain:
    return tuple(m.map(np.transpose) for m in reversed(chain))


def least(ar: Arithmetic, x: Ball, axis: int) -> Ball:
    """Lower bounds of the least along an axis, as points."""
    ar.spend(x.mid.size)
    return points(ar.lower(x).min(axis), x.exponent)
