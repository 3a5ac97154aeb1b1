"""What comparing entries decides: the largest and the smallest, all in order, one value or another.

Entries are compared where their balls let them be, and never by their centres alone.

Lemma C15 (docs/soundness/core.md).
"""

from fractions import Fraction

import numpy as np

from mechverify.kernel.core.arithmetic import Arithmetic, Ball
from mechverify.kernel.core.errors import Rejected
from mechverify.kernel.core.fields import Reader
from mechverify.kernel.core.operations import (
    NOTHING,
    Attribute,
    Elementwise,
    Operation,
    need,
)

SORTED = 20  # units of work for a number that is sorted


def _read_end(entry: Reader) -> str:
    return entry.one_of(["max", "min"])


class AlongLast(Operation):
    """Of the entries of the last axis."""

    operands = 1

    def shape(self, graph, args, attr):
        (x,) = args
        need(x.kind == "real" and len(x.shape) > 0, "a real operand with an axis")
        return "real", self._shape(x.shape)

    def slice(self, graph, node, axis, index):
        n = graph.nodes[node]
        if axis < len(graph.nodes[n.args[0]].shape) - 1:
            return n.op, [(n.args[0], axis, index)], n.attr
        return "select", [node], (axis, index)

    def _shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return shape


class Extremum(AlongLast):
    attribute = Attribute('`"max"` or `"min"`', {"enum": ["max", "min"]}, _read_end)
    meaning = "the largest, or the smallest, entry along the last axis"

    def value(self, known, node, args):
        (x,) = args
        ar = known.semantics.ar
        return largest(ar, x) if node.attr == "max" else -largest(ar, -x)

    def _shape(self, shape):
        return shape[:-1]


class Ascending(AlongLast):
    attribute = NOTHING
    meaning = "the entries of the last axis in order, the smallest one first"

    def value(self, known, node, args):
        return ascending(known.semantics.ar, *args)


class Choose(Elementwise):
    operands, attribute = 4, NOTHING
    meaning = "the third operand where the first one exceeds the second, else the fourth; shapes broadcast on the right"

    def shape(self, graph, args, attr):
        need(all(a.kind == "real" for a in args), "choose takes real operands")
        shapes = [a.shape for a in args]
        try:
            return "real", np.broadcast_shapes(*shapes)
        except ValueError:
            raise Rejected(f"shapes {shapes} don't fit") from None

    def value(self, known, node, args):
        ar, rank = known.semantics.ar, len(node.shape)
        x, y, above, other = (known.align(a, rank) for a in args)
        more, less = exceeds(ar, x, y)
        either = hull(ar, above, other)
        return ar.where(more, above, ar.where(less, other, either))


def largest(ar: Arithmetic, x: Ball) -> Ball:
    """Along the last axis. The radius is the largest of entries that may be the maximum."""
    low, high = _ends(ar, x)
    mid, rad = np.broadcast_arrays(x.mid, x.rad)
    possible = high >= low.max(-1, keepdims=True)
    return Ball(_of(mid.max(-1), mid), _widest(possible, rad), x.exponent)


def ascending(ar: Arithmetic, x: Ball) -> Ball:
    """Along the last axis. Each radius is the largest of entries that may stand there. Complexity: the square of the
    axis's size."""
    low, high = _ends(ar, x)
    mid, rad = np.broadcast_arrays(x.mid, x.rad)
    n = mid.shape[-1]
    ar.spend(mid.size, n, SORTED + n)
    least, most = np.sort(low, -1), np.sort(high, -1)
    radii = [
        _widest((low <= most[..., [i]]) & (high >= least[..., [i]]), rad)
        for i in range(n)
    ]
    return Ball(np.sort(mid, -1), np.stack(radii, -1), x.exponent)


def exceeds(ar: Arithmetic, x: Ball, y: Ball) -> tuple[np.ndarray, np.ndarray]:
    """Where surely x > y, and where surely x <= y; numbers of radius zero are compared as they are."""
    x, y = ar.align(x, y)
    points = (x.rad == 0) & (y.rad == 0)
    low, high = _ends(ar, ar.sub(x, y))
    more = np.where(points, x.mid > y.mid, low > 0)
    less = np.where(points, x.mid <= y.mid, high <= 0)
    return more.astype(bool), less.astype(bool)


def hull(ar: Arithmetic, x: Ball, y: Ball) -> Ball:
    """A ball that holds both."""
    half = ar.rational(Fraction(1, 2))
    one, other = ar.mul(x, half), ar.mul(y, half)
    return ar.widen(ar.add(one, other), 1.0, of=ar.sub(one, other))


def _ends(ar: Arithmetic, x: Ball) -> tuple[np.ndarray, np.ndarray]:
    """Rejects what is not finite: of it nothing can be told."""
    ar.spend(np.size(x.mid))
    return ar.lower(x), ar.upper(x)


def _widest(possible: np.ndarray, rad: np.ndarray) -> np.ndarray:
    return _of(np.where(possible, rad, 0).max(-1), rad)


def _of(a: np.ndarray, like: np.ndarray) -> np.ndarray:
    """As an array, also where it is a single number."""
    return np.asarray(a, like.dtype)


ROWS = {"extremum": Extremum(), "ascending": Ascending(), "choose": Choose()}
