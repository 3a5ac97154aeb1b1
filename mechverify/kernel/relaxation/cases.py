"""Linear bounds of a condition's atoms on parts of a box, told apart by the signs of values at which functions have
kinks: what bends there is linear in each case.

Lemma M6 (docs/soundness/measure.md).
"""

from math import prod
from typing import NamedTuple

import numpy as np

from mechverify.kernel.core.arithmetic import Arithmetic, Ball
from mechverify.kernel.core.claim import Job
from mechverify.kernel.core.domain import Domain
from mechverify.kernel.core.errors import Rejected
from mechverify.kernel.core.float64 import ETA
from mechverify.kernel.core.meter import reserve
from mechverify.kernel.relaxation.backward import KINKED, Relaxed
from mechverify.kernel.relaxation.operations import Forms
from mechverify.kernel.relaxation.rewriting import Rewriting
from mechverify.kernel.relaxation.rule import cells, side_by_side

SIGNS = 12  # that are told apart one after another, at most
LEAST = (
    2.0**-30
)  # what is no further beyond zero is on one side of it, but for rounding

Sign = tuple[int, int]  # of an entry of a node of the rewritten graph


class Cases(NamedTuple):
    """Binary trees, one for each part, whose roots come first. A node either tells a value's sign, and has the cases of
    values that are not negative `inside` and of those that are not positive `outside`, numbers of nodes [nodes], or
    bounds the atoms, and has -1 there. Lower bounds of these and of their negations: `constants` [nodes, 2 atoms] (raw)
    + `slopes` [nodes, 2 atoms, coordinates] x, and which of them are known to be `sure`. Those of a value and of its
    negation stand in the place of the first atom's. `part` [nodes]."""

    constants: np.ndarray
    slopes: Ball
    sure: np.ndarray
    inside: np.ndarray
    outside: np.ndarray
    part: np.ndarray

    def some(self, which: slice) -> "Cases":
        """The bounds of some nodes."""
        return Cases(
            self.constants[which],
            self.slopes.map(lambda a: a[which]),
            self.sure[which],
            self.inside[which],
            self.outside[which],
            self.part[which],
        )


class Sloped(Relaxed):
    """Beside intervals, linear forms of the box that are below forms of a node's entries."""

    _slopes: dict[int, Ball] | None = (
        None  # by input, only while such forms are carried back
    )

    def output(self) -> tuple:
        return self.ends[self.root]

    def below(self, n: int, coefficients: np.ndarray) -> tuple[np.ndarray, Ball]:
        """Of forms [cells or 1, rows, *shape] of node n: raw constants [cells, rows], slopes [cells, rows,
        coordinates]."""
        ar, shape = self.ar, (len(self.cells), coefficients.shape[1])
        self._slopes = {}
        constants = self.form(n, ar.exact(coefficients))
        sides: list[list[np.ndarray]] = [
            [np.zeros((*shape, 0))],
            [np.zeros((*shape, 0))],
        ]
        for which, x in enumerate(self.cells.inputs):
            size = prod(x.mid.shape[1:])
            k = self._slopes.get(which, ar.whole(np.zeros((1, 1, size))))
            for side, a in zip(sides, k[:2], strict=True):
                side.append(np.broadcast_to(a, (*shape, size)))
        self._slopes = None
        mid, rad = (np.concatenate(side, 2) for side in sides)
        return constants, Ball(mid, rad)

    def _back(self, start: int, n: int, k: Ball) -> tuple[Forms, Ball | None]:
        node = self.graph.nodes[n]
        if self._slopes is None or node.op != "input":
            return super()._back(start, n, k)
        which, k = node.attr[0], k.map(lambda a: a.reshape(*a.shape[:2], -1))
        known = self._slopes.get(which)
        self._slopes[which] = k if known is None else self.ar.add(known, k)
        return [], self.ar.whole(np.zeros(k.mid.shape[:2]))

    def kinks(self) -> list[list[Sign]]:
        """Of each cell, the entries that a function has a kink for and whose sign is open, the earliest first."""
        found: list[list[Sign]] = [[] for _ in range(len(self.cells))]
        for n in self._bent():
            low, high = (end.reshape(len(end), -1) for end in self.ends[n])
            open_ = np.broadcast_to(
                (low < -LEAST * high) & (high > -LEAST * low),
                (len(found), low.shape[1]),
            )
            for cell, entry in np.argwhere(open_).tolist():
                found[cell].append((n, entry))
        return found

    def _bent(self) -> list[int]:
        """What relu and abs read; where differences of two runs are made, of the first run's values alone: the other's
        signs are nearly the same, and those of differences matter little."""
        nodes, own, read = self.graph.nodes, dict[int, bool](), {self.root}
        for n in self.order:
            args = nodes[n].args
            own[n] = (
                nodes[n].op != "blend"
                and (not args or any(own[a] for a in args))
                and n not in self.fixed
            )
        for n in reversed(self.order):
            if n in read and nodes[n].op != "blend":
                read.update(nodes[n].args)
        return [
            n
            for n in self.order
            if n in read and own[n] and self.wanted.get(n, set()) & KINKED
        ]


def relaxed(about: Job, parts: list[Domain], shared: bool) -> Sloped:
    """`about` the atoms."""
    rewriting, weights = about.once(Rewriting), about.claim.weights
    boxes = cells(about, parts)
    return Sloped(
        about.ar, rewriting.graph, weights, rewriting.roots, boxes, shared=shared
    )


def cases(
    about: Job,
    parts: list[Domain],
    signs: np.ndarray,
    shared: bool,
) -> Cases:
    """Of parts that can be relaxed side by side; of each, `signs` [parts] are told apart one after another, at most.
    Complexity: a relaxation for every node."""
    rows: list[tuple] = []
    links: list[list[int]] = []  # inside, outside, part
    todo = [
        (part, int(left), i)
        for i, (part, left) in enumerate(zip(parts, signs, strict=True))
    ]
    step = side_by_side(about)
    while todo:
        start, after = len(links), []
        reserve(
            start + len(todo),
            2 * about.claim.outputs,
            max(1, len(about.claim.domain.low)),
        )
        for i in range(0, len(todo), step):
            some = todo[i : i + step]
            *bounds, kinks = _bounds(
                about,
                [part for part, *_ in some],
                [left for _, left, _ in some],
                shared,
            )
            rows.append(tuple(bounds))
            for (part, left, root), sign in zip(some, kinks, strict=True):
                place = start + len(todo) + len(after)
                links.append(
                    [-1, -1, root] if sign is None else [place, place + 1, root]
                )
                if sign is not None:
                    below, beyond = part.sides([sign], 0.0)
                    after += [(beyond, left - 1, root), (below, left - 1, root)]
        todo = after
    constants, mid, rad, sure = (np.concatenate(a) for a in zip(*rows, strict=True))
    inside, outside, part = np.array(links, np.int64).T
    return Cases(constants, Ball(mid, rad), sure, inside, outside, part)


def exclusive(ar: Arithmetic, told: Cases, parts: list[Domain]) -> np.ndarray:
    """Booleans [2, nodes, atoms, atoms]: on all of a node's part the sum of the forms below two atoms, or below their
    negations, is less than zero, so that nowhere both are at least zero. Not of atoms that are `sure` by their
    intervals: these hold where no form says so. Complexity: atoms squared, for each coordinate of each node."""
    nodes, m, coordinates = (
        len(told.part),
        told.sure.shape[1] // 2,
        told.slopes.mid.shape[2],
    )
    reserve(2, nodes, m, m)
    ar.spend(2 * nodes * m * m * (1 + coordinates), 20, 10)
    low, high = (
        np.stack([getattr(p, end) for p in parts])[told.part, :, None, None]
        for end in ("low", "high")
    )

    def pairs(a: np.ndarray) -> np.ndarray:
        a = a.reshape(nodes, 2, m).swapaxes(0, 1)
        return a[..., :, None] + a[..., None, :]

    most, size = pairs(told.constants), pairs(np.abs(told.constants))
    for c in range(coordinates):
        k, rad = (pairs(a[..., c]) for a in told.slopes[:2])
        far = np.maximum(np.abs(low[:, c]), np.abs(high[:, c]))
        most += np.maximum(k * low[:, c], k * high[:, c]) + rad * far
        size += (pairs(np.abs(told.slopes.mid[..., c])) + rad) * far
    n = 8 * (coordinates + 1)
    most += n * 2.0**-51 * size + n * ETA
    sure = told.sure.reshape(nodes, 2, m).swapaxes(0, 1)
    return (most < 0) & ~sure[..., :, None] & ~sure[..., None, :]


def _bounds(
    about: Job,
    parts: list[Domain],
    left: list[int],
    shared: bool,
) -> tuple:
    """Constants, slopes and their radii, and what is sure: of the sign that is told apart in a part, if it may be, and
    otherwise of the atoms; and these signs."""
    m = about.claim.outputs
    value = relaxed(about, parts, shared)
    low, high = (
        np.broadcast_to(end.reshape(len(end), -1), (len(parts), m))
        for end in value.output()
    )
    empty = np.broadcast_to(value.empty, len(parts))
    if any(e and not part.facts for e, part in zip(empty, parts, strict=True)):
        raise Rejected("bounds of a part that has inputs contradict each other")
    kinks = [
        kinks[0] if more > 0 and kinks else None
        for more, kinks in zip(left, value.kinks(), strict=True)
    ]
    nodes, eye = value.graph.nodes, np.eye(m)
    widest = max(prod(nodes[n].shape) for n in value.order)
    reserve(len(parts), 2 * m, widest)
    both = np.concatenate([eye, -eye]).reshape(1, -1, *nodes[value.root].shape)
    constants, slopes = value.below(value.root, both)
    constants, mid, rad = (np.array(a) for a in (constants, slopes.mid, slopes.rad))
    sure = holds(about.claim.strict, np.concatenate([low, -high], 1))
    signs = [(i, *sign) for i, sign in enumerate(kinks) if sign is not None]
    for n in {n for _, n, _ in signs}:
        of, entries = np.array([(i, entry) for i, at, entry in signs if at == n]).T
        rows = np.zeros((len(parts), 2, prod(nodes[n].shape)))
        rows[of, :, entries] = 1.0, -1.0
        least, k = value.below(n, rows.reshape(len(parts), 2, *nodes[n].shape))
        sure[of] = False
        for all_, own in ((constants, least), (mid, k.mid), (rad, k.rad)):
            all_[np.ix_(of, [0, m])] = own[of]
    return constants, mid, rad, sure, kinks


def holds(strict: bool, least: np.ndarray) -> np.ndarray:
    """Whether lower bounds show that atoms are right, or, in the second half of the last axis, wrong."""
    right, wrong = np.split(least, 2, -1)
    return np.concatenate(
        [right > 0, wrong >= 0] if strict else [right >= 0, wrong > 0], -1
    )
