"""Rule `relaxation` of claims that count: how much of each part is right, and how much is wrong.

A condition is taken apart into atoms, numbers that are at least zero or not. Linear bounds of these, carried back to
the box, hold on half-spaces; the part is halved until little is open, the same bounds serving all of its cubes.

Lemmas M3, M4, M5 (docs/soundness/measure.md).
"""

from dataclasses import replace
from fractions import Fraction
from itertools import product
from math import factorial, prod
from typing import Any, NamedTuple

import numpy as np

from mechverify.kernel.core.arithmetic import Arithmetic, Ball, points
from mechverify.kernel.core.claim import Job
from mechverify.kernel.core.counts import Counts
from mechverify.kernel.core.domain import Domain
from mechverify.kernel.core.errors import Rejected
from mechverify.kernel.core.fields import Reader
from mechverify.kernel.core.functions.piecewise import relu
from mechverify.kernel.core.graph import Graph
from mechverify.kernel.core.measure import Measure
from mechverify.kernel.core.meter import reserve
from mechverify.kernel.core.powers import power
from mechverify.kernel.relaxation.backward import Relaxed
from mechverify.kernel.relaxation.lines import Ends
from mechverify.kernel.relaxation.operations import Forms
from mechverify.kernel.relaxation.rewriting import Rewriting
from mechverify.kernel.relaxation.rule import cells, side_by_side

ATOMS = 2**7  # of a condition; what has more is one
FINEST = 40  # halvings of the whole mass, below which nothing is halved any more
STEPS = 2**7  # of a coordinate of a part, at most
BLOCK = 2**18  # numbers of a block of cubes
MAIN = 3  # coordinates of which a half-space is told exactly
STEEP = 2.0**-26  # slopes that are smaller than the largest times this are left out
TRUE, FALSE, SEVERAL = (
    -1,
    -2,
    -3,
)  # states of a condition on a cube; otherwise, it is as the atom of that number


class Condition:
    """A claim's condition as maxima and minima of `atoms`: rows of `steps` are an atom's number, or (whether it is the
    maximum, two earlier rows); the last is the condition. `job` is about the atoms, in one vector."""

    def __init__(self, job: Job):
        graph = job.further()
        self.steps: list[int | tuple[bool, int, int]] = []
        atoms = self._taken_apart(graph, _bare(graph, job.claim.output))
        rows = [graph.add("view", n, attr=((1,), 0, (0,))) for n in atoms]
        self.job = job.about(
            replace(job.claim, graph=graph, output=graph.add("concat", *rows, attr=0))
        )

    def _taken_apart(self, graph: Graph, root: int) -> list[int]:
        atoms, place, todo = [], {}, [root]
        while todo:
            n = todo[-1]
            found = _extremum(graph, n)
            if missing := [m for m in found[1:] if m not in place] if found else []:
                todo += missing
                continue
            todo.pop()
            if n in place:
                continue
            place[n] = len(self.steps)
            if found is not None:
                self.steps.append((found[0], place[found[1]], place[found[2]]))
                continue
            self.steps.append(len(atoms))
            atoms.append(n)
        if len(atoms) > ATOMS:
            self.steps[:], atoms = [0], [root]
        return atoms

    def state(self, states: np.ndarray) -> np.ndarray:
        """Of the condition [cubes], from those of its atoms [cubes, atoms]."""
        rows: list[np.ndarray] = []
        for step in self.steps:
            if isinstance(step, int):
                rows.append(states[:, step])
                continue
            decides, passes = (TRUE, FALSE) if step[0] else (FALSE, TRUE)
            a, b = rows[step[1]], rows[step[2]]
            either = np.where(
                a == passes, b, np.where((b == passes) | (a == b), a, SEVERAL)
            )
            rows.append(np.where((a == decides) | (b == decides), decides, either))
        return rows[-1]


def _bare(graph: Graph, n: int) -> int:
    """The node whose one number a node shows in another shape."""
    while (
        graph.nodes[n].op in ("view", "concat")
        and prod(graph.nodes[graph.nodes[n].args[0]].shape) == 1
    ):
        if len(graph.nodes[n].args) > 1 or prod(graph.nodes[n].shape) != 1:
            break
        (n,) = graph.nodes[n].args
    return n


def _extremum(graph: Graph, n: int) -> tuple[bool, int, int] | None:
    """Of y + relu(x - y), the maximum, and of x - relu(x - y), the minimum: whether it is the maximum, and both."""
    nodes = graph.nodes
    op, operands = nodes[n].op, nodes[n].args
    for own, rest in (
        (operands, operands[::-1])
        if op == "add"
        else (operands,)
        if op == "sub"
        else ()
    ):
        if nodes[rest].op == "relu" and nodes[nodes[rest].args[0]].op == "sub":
            x, y = nodes[nodes[rest].args[0]].args
            if own == (y if op == "add" else x) and all(
                prod(nodes[m].shape) == 1 for m in (n, x, y)
            ):
                return op == "add", _bare(graph, x), _bare(graph, y)
    return None


class Sloped(Relaxed):
    """Beside intervals, linear forms of the box that are below the root's entries and below their negations:
    `constants` raw [cells, 2 entries], and `slopes` [cells or 1, 2 entries, numbers] by the number of the input."""

    slopes: dict[int, Ball] | None = None  # only while these forms are carried back

    def output(self) -> Ends:
        shape = self.graph.nodes[self.root].shape
        eye = np.eye(prod(shape))
        reserve(
            len(self.cells),
            2 * len(eye),
            max(prod(self.graph.nodes[n].shape) for n in self.order),
        )
        self.slopes, both = {}, np.concatenate([eye, -eye]).reshape(1, -1, *shape)
        self.constants = self.form(self.root, self.ar.exact(both))
        return self.ends[self.root]

    def _back(self, start: int, n: int, k: Ball) -> tuple[Forms, Ball | None]:
        node = self.graph.nodes[n]
        if self.slopes is None or node.op != "input":
            return super()._back(start, n, k)
        which, k = node.attr[0], k.map(lambda a: a.reshape(*a.shape[:2], -1))
        self.slopes[which] = (
            self.ar.add(self.slopes[which], k) if which in self.slopes else k
        )
        return [], self.ar.whole(np.zeros(k.mid.shape[:2]))


def check(job: Job, parts: list[Domain], witnesses: list[Reader]) -> list[Counts]:
    """Precondition: semantics real. Postcondition: of each part, how many units are right, at least and at most. A
    witness says down to which share of the whole, 2^-`to`, what is open is halved. Complexity: that of the same rule
    for ranges, and of the cubes."""
    if job.claim.semantics != "real" or job.ar.is_exact:
        raise Rejected(
            "parts are judged by relaxation for semantics real, and in float64"
        )
    job.claim.need_whole("relaxation")
    results: list = [None] * len(parts)
    to, alike = np.zeros(len(parts), np.int64), {}
    for i, witness in enumerate(witnesses):
        witness["rule"].text()
        to[i], shared = (
            witness["to"].an_integer(0, FINEST),
            "shared" in witness.value and witness["shared"].flag(),
        )
        witness.close()
        alike.setdefault(shared, []).append(i)
    for shared, places in alike.items():
        for i, found in zip(
            places,
            counts(job, [parts[i] for i in places], to[places], shared),
            strict=True,
        ):
            results[i] = found
    return results


def counts(
    job: Job, parts: list[Domain], to: np.ndarray, shared: bool = False
) -> list[Counts]:
    """As `check` says; `to` [parts]."""
    found, step = [], side_by_side(job.once(Condition).job)
    for start in range(0, len(parts), step):
        found += _counts(
            job, parts[start : start + step], to[start : start + step], shared
        )
    return found


def _counts(
    job: Job, parts: list[Domain], to: np.ndarray, shared: bool
) -> list[Counts]:
    """Of parts that can be relaxed side by side."""
    ar, measure = job.ar, job.claim.measure
    bounds, found = (
        linear_bounds(job, parts, shared),
        np.zeros((2, len(parts)), np.int64),
    )
    whole = _grid(ar, measure, np.arange(len(parts)), parts, 1)
    judged = _judge(job, bounds, whole, whole.cubes)
    enough = np.ldexp(1.0, -to)  # any choice is sound
    open_ = (judged.open > enough) & (len(measure.low) > 0)
    _add(job, found, judged, ~open_)
    rest = np.flatnonzero(open_)
    step = max(1, BLOCK // (max(1, len(measure.low)) * (STEPS + 1)))
    for start in range(0, len(rest), step):
        some = rest[start : start + step]
        grid = _grid(ar, measure, some, [parts[i] for i in some], STEPS)
        todo, most = [grid.cubes], max(1, BLOCK // prod(bounds.slopes.mid.shape[1:]))
        while todo:
            cubes = todo.pop()
            todo += [
                cubes.some(slice(i, i + most))
                for i in range(most, len(cubes.cell), most)
            ]
            cubes = cubes.some(slice(most))
            judged = _judge(job, bounds, grid, cubes)
            halves, cut = _halves(grid, cubes, judged)
            cut &= judged.open > enough[judged.part]
            _add(job, found, judged, ~cut)
            todo += [halves.some(np.tile(cut, 2))] if cut.any() else []
    most = measure.units(ar, measure.mass(ar, *whole.ends(whole.cubes)))[1]
    rows = zip(*found.tolist(), most.tolist(), parts, strict=True)
    return [
        Counts(right * p.size, (all_ - wrong) * p.size)
        for right, wrong, all_, p in rows
    ]


class LinearBounds(NamedTuple):
    """Of parts and atoms: lower bounds of these and of their negations, `constants` [parts, 2 atoms] (raw) + `slopes`
    [parts, 2 atoms, coordinates] x; and which of them are known to be `sure` on the whole part."""

    constants: np.ndarray
    slopes: Ball
    sure: np.ndarray


class _Cubes(NamedTuple):
    """Boxes of a grid: the place of each part in it [cubes], and the numbers of their corners' points [cubes,
    coordinates]."""

    cell: np.ndarray
    first: np.ndarray
    last: np.ndarray

    def some(self, which: Any) -> "_Cubes":
        return _Cubes(*(a[which] for a in self))


class _Grid(NamedTuple):
    """Which parts [cells]; points that cut each of their coordinates, ascending, [cells, coordinates, points]; and the
    share of the coordinate's mass below each."""

    part: np.ndarray
    at: np.ndarray
    below: Ball

    @property
    def cubes(self) -> _Cubes:
        """The whole parts."""
        first = np.zeros(self.at.shape[:2], np.int64)
        return _Cubes(np.arange(len(self.part)), first, first + self.at.shape[2] - 1)

    def take(self, a: np.ndarray, cubes: _Cubes, last: bool) -> np.ndarray:
        return a[
            cubes.cell[:, None],
            np.arange(a.shape[1]),
            cubes.last if last else cubes.first,
        ]

    def corners(self, cubes: _Cubes) -> tuple[np.ndarray, np.ndarray]:
        return self.take(self.at, cubes, False), self.take(self.at, cubes, True)

    def ends(self, cubes: _Cubes) -> tuple[Ball, Ball]:
        first, last = (
            self.below.map(lambda a, e=e: self.take(a, cubes, e)) for e in (False, True)
        )
        return first, last


def _grid(
    ar: Arithmetic, measure: Measure, which: np.ndarray, parts: list[Domain], steps: int
) -> _Grid:
    low, high = (
        np.stack([getattr(p, end) for p in parts])[..., None] for end in ("low", "high")
    )
    reserve(*low.shape, steps + 1)
    along = np.arange(steps + 1) / steps
    at = np.clip(low * (1 - along) + high * along, low, high)
    at[..., :1], at[..., -1:] = low, high
    at = np.maximum.accumulate(at, -1)
    return _Grid(which, at, measure.below(ar, at))


class _Judged(NamedTuple):
    """Of cubes: lower bounds [2, cubes] of the share that is right, and that is wrong; an upper one of the mass of the
    rest; the mass; the part; and how fast open atoms change [cubes, atoms, coordinates]."""

    share: np.ndarray
    open: np.ndarray
    mass: Ball
    part: np.ndarray
    slopes: np.ndarray


def linear_bounds(job: Job, parts: list[Domain], shared: bool) -> LinearBounds:
    about = job.once(Condition).job
    ar, claim, rewriting = job.ar, about.claim, about.once(Rewriting)
    value = Sloped(
        ar,
        rewriting.graph,
        claim.weights,
        rewriting.roots,
        cells(about, parts),
        shared=shared,
    )
    low, high = (
        np.broadcast_to(end.reshape(len(end), -1), (len(parts), claim.outputs))
        for end in value.output()
    )
    if np.broadcast_to(value.empty, len(parts)).any():
        raise Rejected("bounds of a part that has inputs contradict each other")
    shape = len(parts), 2 * claim.outputs
    reserve(*shape, max(1, len(claim.domain.low)))
    assert value.slopes is not None
    sides: list[list[np.ndarray]] = [[np.zeros((*shape, 0))], [np.zeros((*shape, 0))]]
    for which, size in enumerate(map(prod, claim.shapes)):
        k = value.slopes.get(which, ar.whole(np.zeros((1, 1, size))))
        for side, a in zip(sides, np.broadcast_arrays(k.mid, k.rad), strict=True):
            side.append(np.broadcast_to(a, (*shape, size)))
    slopes = Ball(np.concatenate(sides[0], 2), np.concatenate(sides[1], 2))
    return LinearBounds(
        value.constants, slopes, _holds(claim.strict, np.concatenate([low, -high], 1))
    )


def _holds(strict: bool, least: np.ndarray) -> np.ndarray:
    """Whether lower bounds show that atoms are right, or, in the second half of the last axis, wrong."""
    right, wrong = np.split(least, 2, -1)
    return np.concatenate(
        [right > 0, wrong >= 0] if strict else [right >= 0, wrong > 0], -1
    )


def _judge(job: Job, bounds: LinearBounds, grid: _Grid, cubes: _Cubes) -> _Judged:
    ar, measure, part = job.ar, job.claim.measure, grid.part[cubes.cell]
    low, high = grid.corners(cubes)
    constants, slopes = _on_unit_cubes(ar, measure, bounds, part, low, high)
    ar.spend(slopes.size, 20, 10)
    sure = bounds.sure[part] | _holds(job.claim.strict, _least(ar, constants, slopes))
    right, wrong = np.split(sure, 2, 1)
    m = right.shape[1]
    states = np.where(right, TRUE, np.where(wrong, FALSE, np.arange(m)))
    state = job.once(Condition).state(states)
    share = np.stack([state == TRUE, state == FALSE]).astype(float)
    one = np.flatnonzero(state >= 0)
    for side, row in enumerate((state[one], state[one] + m)):
        share[side, one] = of_cube(ar, constants[one, row], slopes[one, row])
    mass = measure.mass(ar, *grid.ends(cubes))
    open_ = ar.ends(mass)[1] * (1 - share.sum(0))
    return _Judged(
        share, open_, mass, part, np.abs(slopes[:, :m]) * (states >= 0)[..., None]
    )


def _add(job: Job, found: np.ndarray, judged: _Judged, which: np.ndarray) -> None:
    """Those cubes to what is `found` of their parts: units [2, parts], right and wrong, of one token sequence."""
    ar, mass = job.ar, judged.mass.map(lambda v: v[which])
    for total, share in zip(found, judged.share[:, which], strict=True):
        counted = ar.where(share == 1, mass, ar.mul(mass, points(share)))
        np.add.at(total, judged.part[which], job.claim.measure.units(ar, counted)[0])


def _halves(grid: _Grid, cubes: _Cubes, judged: _Judged) -> tuple[_Cubes, np.ndarray]:
    """The halves of the cubes, first all lower ones, along the coordinate by which open atoms change most, and where
    that cuts one in two."""
    n, _, coordinates = judged.slopes.shape
    if not coordinates:
        return cubes.some(np.tile(np.arange(n), 2)), np.zeros(n, bool)
    slopes = np.where(np.isfinite(judged.slopes), judged.slopes, 0.0)
    together = slopes.sum(-1, keepdims=True)
    rows, c = (
        np.arange(n),
        (slopes / np.where(together > 0, together, 1)).sum(1).argmax(-1),
    )
    first, last = cubes.first.copy(), cubes.last.copy()
    middle = (first[rows, c] + last[rows, c]) // 2
    low, at, high = (
        grid.at[cubes.cell, c, i] for i in (first[rows, c], middle, last[rows, c])
    )
    first[rows, c] = last[rows, c] = middle
    halves = zip(cubes._replace(last=last), cubes._replace(first=first), strict=True)
    return _Cubes(*map(np.concatenate, halves)), (low < at) & (at < high)


def _on_unit_cubes(ar: Arithmetic, measure: Measure, bounds: LinearBounds, part: np.ndarray, low: np.ndarray,
                   high: np.ndarray) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """The bounds as forms of how much of each interval's mass lies up to a coordinate, from 0 to 1: raw constants
    [cubes, 2 atoms], rounded down, and slopes [cubes, 2 atoms, coordinates]."""
    k = bounds.slopes.map(lambda a: a[part])
    corner, width = ar.exact(low), ar.sub(ar.exact(high), ar.exact(low))
    at_corner, slope = (ar.mul(k, x.map(lambda a: a[:, None])) for x in (corner, width))
    least, most = (end[:, None] for end in measure.bow(ar, low, high))
    bent = ar.mul(slope.point, points(np.where(slope.mid > 0, least, most)))
    rest = ar.sub(
        ar.add(at_corner, bent), points(slope.rad)
    )  # none is further along its interval than 1
    constants = points(bounds.constants[part])
    if rest.mid.shape[-1]:
        constants = ar.add(constants, ar.sum(rest))
    return ar.ends(constants)[0], slope.mid


def _least(ar: Arithmetic, constants: np.ndarray, slopes: np.ndarray) -> np.ndarray:
    """Lower bounds [..] of constants [..] + slopes [.., coordinates] u, u from 0 to 1."""
    if not slopes.shape[-1]:
        return constants
    return ar.ends(ar.add(points(constants), ar.sum(points(np.minimum(slopes, 0.0)))))[
        0
    ]


def of_cube(ar: Arithmetic, constants: np.ndarray, slopes: np.ndarray) -> np.ndarray:
    """Lower bounds [forms] of the share of the unit cube on which constants [forms] + slopes [forms, coordinates] u is
    at least zero, and, if it isn't constant, above zero. What is not finite bounds nothing."""
    low = _least(ar, constants, slopes)  # turned so that all slopes rise, at the origin
    steep = -np.sort(-np.abs(slopes), -1)
    known = np.isfinite(low) & np.isfinite(steep).all(-1)
    steep = np.where(known[:, None], steep, 0.0)
    best = np.where(known & (low > 0), 1.0, 0.0)
    for k in range(
        1, min(MAIN, steep.shape[-1]) + 1
    ):  # the others don't fall below zero
        told = (
            known
            & (low <= 0)
            & (steep[:, k - 1] > STEEP * steep[:, 0])
            & (low > -steep[:, :k].sum(-1))
        )
        best[told] = np.maximum(best[told], _corner_sum(ar, low[told], steep[told, :k]))
    return best


def _corner_sum(ar: Arithmetic, low: np.ndarray, steep: np.ndarray) -> np.ndarray:
    """Lower bounds of the share of the cube where low + sum_i steep_i u_i >= 0, all steep_i > 0: the sum over corners v
    of (-1)^(zeros of v) max(0, low + sum_i steep_i v_i)^k, divided by k! and by all steep_i."""
    k, first = steep.shape[1], ar.exact(steep[:, 0])
    scaled = [
        ar.rational(Fraction(1)),
        *(ar.div(ar.exact(steep[:, i]), first) for i in range(1, k)),
    ]
    start, total, below = (
        ar.div(ar.exact(low), first),
        ar.rational(Fraction(0)),
        ar.rational(Fraction(factorial(k))),
    )
    for corner in product((False, True), repeat=k):
        at = start
        for slope, here in zip(scaled, corner, strict=True):
            at = ar.add(at, slope) if here else at
        term = power(ar, relu(ar, at), k)
        total = ar.add(total, -term if (k - sum(corner)) % 2 else term)
    for slope in scaled[1:]:
        below = ar.mul(below, slope)
    least, _ = ar.ends(ar.div(total, below))
    return np.clip(least, 0.0, 1.0)
