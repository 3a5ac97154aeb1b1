"""Rule `relaxation` of claims that count: how much of each part is right, and how much is wrong.

A condition is taken apart into atoms, numbers that are at least zero or not. Linear bounds of these, carried back to
the box, hold on half-spaces; the part is halved until little is open, the same bounds serving all of its cubes.

Lemmas M5, M7 (docs/soundness/measure.md).
"""

from collections.abc import Callable
from math import prod
from typing import Any, NamedTuple

import numpy as np

from mechverify.kernel.core.arithmetic import Arithmetic, Ball, points
from mechverify.kernel.core.claim import Job
from mechverify.kernel.core.counts import Counts
from mechverify.kernel.core.domain import Domain
from mechverify.kernel.core.errors import Rejected
from mechverify.kernel.core.fields import Reader
from mechverify.kernel.core.measure import Measure
from mechverify.kernel.core.meter import ROOM, reserve
from mechverify.kernel.core.share import AllRight
from mechverify.kernel.relaxation.cases import SIGNS, Cases, cases, holds
from mechverify.kernel.relaxation.conditions import Condition, both, excluded
from mechverify.kernel.relaxation.halfspaces import (
    MAIN,
    UnitForms,
    drop,
    least_in,
    of_cube,
    on_unit_cubes,
)
from mechverify.kernel.relaxation.lines import Ends
from mechverify.kernel.relaxation.rule import side_by_side

FINEST = 40  # halvings of the whole mass, below which nothing is halved any more
STEPS = (
    13,
    3,
)  # halvings of a coordinate of a part, at most; and beside its part of those of the mass
BLOCK = (
    2**20
)  # numbers of a block of cubes, or of the forms at the nodes that these meet
NEAR = (
    2**4
)  # a cube's half-spaces are measured once it is not larger than so often what may be left open
FEW = 8  # and has no more of them, or only one


def check(job: Job, parts: list[Domain], witnesses: list[Reader]) -> list[Counts]:
    """Precondition: semantics real. Postcondition: of each part, how many units are right, at least and at most. A
    witness says down to which share of the whole, 2^-`to`, what is open is halved, and how many `signs` are told apart.
    Complexity: that of the same rule for ranges, for each case of signs, and of the cubes."""
    if job.claim.semantics != "real" or job.ar.is_exact:
        raise Rejected(
            "parts are judged by relaxation for semantics real, and in float64"
        )
    if not job.claim.shapes:
        job.claim.need_whole("relaxation")
    results: list = [None] * len(parts)
    to, signs, alike = (
        np.zeros(len(parts), np.int64),
        np.zeros(len(parts), np.int64),
        {},
    )
    for i, witness in enumerate(witnesses):
        witness["rule"].text()
        to[i] = witness["to"].an_integer(0, FINEST)
        signs[i] = (
            witness["signs"].an_integer(0, SIGNS) if "signs" in witness.value else 0
        )
        shared = "shared" in witness.value and witness["shared"].flag()
        witness.close()
        alike.setdefault(shared, []).append(i)
    for shared, places in alike.items():
        found = counts(
            job, [parts[i] for i in places], to[places], signs[places], shared
        )
        for i, counted in zip(places, found, strict=True):
            results[i] = counted
    return results


def counts(
    job: Job,
    parts: list[Domain],
    to: np.ndarray,
    signs: np.ndarray,
    shared: bool = False,
) -> list[Counts]:
    """As `check` says; `to` and `signs` [parts]."""
    found, step = [], side_by_side(job.once(Condition).job)
    for start in range(0, len(parts), step):
        some = slice(start, start + step)
        found += _counts(job, parts[some], to[some], signs[some], shared)
    return found


def _counts(
    job: Job,
    parts: list[Domain],
    to: np.ndarray,
    signs: np.ndarray,
    shared: bool,
) -> list[Counts]:
    """Of parts that can be relaxed side by side."""
    ar, measure = job.ar, job.claim.measure
    told = cases(job.once(Condition).job, parts, signs, shared)
    found, everywhere = np.zeros((2, len(parts)), np.int64), np.ones(len(parts), bool)
    whole = _grid(ar, measure, np.arange(len(parts)), parts, 1)
    enough = np.ldexp(1.0, -to)  # any choice is sound
    known = excluded(job, told, parts)
    judged = all_of_it = _judge(job, told, known, whole, whole.cubes, enough)
    open_ = (judged.open > enough) & (len(measure.low) > 0)
    _add(job, found, everywhere, judged, ~open_)
    rest, groups = np.flatnonzero(open_), []
    steps, coordinates = _steps(len(measure.low), to), max(1, len(measure.low))
    met, room_of_pairs = (
        np.bincount(told.part),
        BLOCK // max(1, prod(told.slopes.mid.shape[1:])),
    )
    for many in np.unique(steps[rest]):
        alike = rest[steps[rest] == many]
        room = max(1, BLOCK // (coordinates * 2**many))
        groups += np.split(alike, range(room, len(alike), room))
    for some in groups:
        grid = _grid(
            ar, measure, some, [parts[i] for i in some], 2 ** int(steps[some[0]])
        )
        todo = [grid.cubes._replace(met=met[some])]
        while todo:
            cubes = todo.pop()
            most = max(
                1, int(np.searchsorted(np.cumsum(cubes.met), room_of_pairs, "right"))
            )
            todo += [cubes.some(slice(most, None))] if most < len(cubes.cell) else []
            cubes = cubes.some(slice(most))
            judged = _judge(job, told, known, grid, cubes, enough)
            halves, cut = _halves(grid, cubes, judged)
            cut &= judged.open > enough[judged.part]
            _add(job, found, everywhere, judged, ~cut)
            todo += [halves.some(np.tile(cut, 2))] if cut.any() else []
    most = measure.units(ar, all_of_it.mass)[1]
    sequences = [job.claim.sequences(ar, part) for part in parts]
    rows = zip(
        everywhere.tolist(), *found.tolist(), most.tolist(), sequences, strict=True
    )
    return [
        (AllRight if all_right else Counts)(right * n, (units - wrong) * n)
        for all_right, right, wrong, units, n in rows
    ]


def _steps(coordinates: int, to: np.ndarray) -> np.ndarray:
    """Halvings of a coordinate that grids have, for parts judged down to `to`."""
    own, beside = STEPS
    room = int(np.log2(BLOCK // max(1, coordinates)))
    return np.minimum(beside + to // max(1, min(MAIN, coordinates)), min(own, room))


class _Cubes(NamedTuple):
    """Boxes of a grid: the place of each part in it [cubes], the numbers of their corners' points [cubes, coordinates],
    the node of the part's cases that they all lie in, and how many nodes they meet, at most [cubes]."""

    cell: np.ndarray
    first: np.ndarray
    last: np.ndarray
    node: np.ndarray
    met: np.ndarray

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
        cell = np.arange(len(self.part))
        last = first + self.at.shape[2] - 1
        return _Cubes(cell, first, last, self.part, np.zeros(len(cell), np.int64))

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
    ar: Arithmetic,
    measure: Measure,
    which: np.ndarray,
    parts: list[Domain],
    steps: int,
) -> _Grid:
    low, high = (
        np.stack([getattr(p, end) for p in parts])[..., None] for end in ("low", "high")
    )
    reserve(*low.shape, steps + 1)
    along = np.arange(steps + 1) / steps
    at = np.clip(low * (1 - along) + high * along, low, high)
    at[..., :1], at[..., -1:] = low, high
    at = np.maximum.accumulate(at, -1)
    return _Grid(which, at, measure.marks(ar, at))


class _Judged(NamedTuple):
    """Of cubes: lower bounds [2, cubes] of the share that is right, and that is wrong; an upper one of the mass of the
    rest; the mass; the part; how fast what is open changes [cubes, coordinates]; and the node of the cases where the
    cube's halves start, and how many of them they meet at most."""

    share: np.ndarray
    open: np.ndarray
    mass: Ball
    part: np.ndarray
    change: np.ndarray
    node: np.ndarray
    met: np.ndarray


class _Level(NamedTuple):
    """Pairs of a cube and a node of its cases: what a bound shows on all of the cube, of the node's atoms or its sign
    [pairs, 2 atoms]; whether the node tells a sign; and where its cases, inside and outside, are in the next level [2,
    pairs] (-1: they don't meet the cube)."""

    cube: np.ndarray
    node: np.ndarray
    sure: np.ndarray
    sign: np.ndarray
    after: np.ndarray

    def open(self) -> tuple[np.ndarray, np.ndarray]:
        """Pairs, and atoms of theirs, or their signs, of which nothing is sure."""
        right, wrong = np.split(self.sure, 2, 1)
        there = ~self.sign[:, None] | (np.arange(right.shape[1]) == 0)
        pairs, atoms = np.nonzero(there & ~right & ~wrong)
        return pairs, atoms


def _levels(
    job: Job,
    told: Cases,
    cubes: _Cubes,
    ends: Ends,
) -> tuple[list[_Level], np.ndarray]:
    """The nodes of the cases that cubes meet, from the ones where these start; and the ones where their halves may."""
    levels, start, alone = [], cubes.node.copy(), np.ones(len(cubes.node), bool)
    cube, node, m = np.arange(len(start)), cubes.node, told.sure.shape[1] // 2
    while len(cube):
        sign, sure = told.inside[node] >= 0, told.sure[node]
        for rows, columns in (
            (np.flatnonzero(sign), [0, m]),
            (np.flatnonzero(~sign), np.arange(2 * m)),
        ):
            at = np.ix_(node[rows], columns)
            job.ar.spend(
                at[0].size * len(columns) * (1 + told.slopes.mid.shape[2]), 20, 10
            )
            low, high = (end[cube[rows]] for end in ends)
            least = least_in(
                told.constants[at], told.slopes.map(lambda a, at=at: a[at]), low, high
            )
            sure[np.ix_(rows, columns)] |= (
                least >= 0 if len(columns) < 2 * m else holds(job.claim.strict, least)
            )
        up, down = sure[:, 0], sure[:, m] & ~sure[:, 0]
        both = np.flatnonzero(sign & ~down), np.flatnonzero(sign & ~up)
        after, places = np.full((2, len(cube)), -1), np.arange(sum(map(len, both)))
        after[0, both[0]], after[1, both[1]] = np.split(places, [len(both[0])])
        levels.append(
            _Level(
                cube,
                node,
                sure,
                sign,
                after,
            )
        )
        alone[cube[~(up | down)]] = False
        to = [
            np.concatenate([told.inside[node[both[0]]], told.outside[node[both[1]]]]),
            np.concatenate([cube[i] for i in both]),
        ]
        node, cube = to
        start[cube] = np.where(alone[cube], node, start[cube])
    return levels, start


def _judge(
    job: Job,
    told: Cases,
    known: np.ndarray,
    grid: _Grid,
    cubes: _Cubes,
    enough: np.ndarray,
) -> _Judged:
    ar, measure, part, m = (
        job.ar,
        job.claim.measure,
        grid.part[cubes.cell],
        told.sure.shape[1] // 2,
    )
    low, high = ends = grid.corners(cubes)
    mass = measure.mass(ar, low, high, *grid.ends(cubes))
    levels, start = _levels(job, told, cubes, ends)
    places = [level.open() for level in levels]
    open_ = [
        (level.cube[i], level.node[i], atoms)
        for level, (i, atoms) in zip(levels, places, strict=True)
    ]
    cube, node, atom = map(np.concatenate, zip(*open_, strict=True))
    steep = np.abs(told.slopes.mid[node, atom]) * (high - low)[cube]
    steep = np.where(np.isfinite(steep), steep, 0.0)
    most = steep.max(-1, initial=0.0, keepdims=True)
    change = np.zeros(low.shape)
    np.add.at(change, cube, steep / np.where(most > 0, most, 1.0))
    finest = (cubes.last - cubes.first).max(-1, initial=0) <= 1
    opens = np.bincount(cube, minlength=len(low))
    few = (opens <= FEW) & (ar.ends(mass)[1] <= NEAR * enough[part])
    worth = finest | few | (opens == 1)
    measured, some = np.zeros((2, len(cube))), np.flatnonzero(worth[cube])
    of, bends = cube[some], measure.bow(ar, low, high)
    box = low[of], high[of], *(bend[of] for bend in bends)
    for side, row in enumerate(measured):
        at = node[some], atom[some] + side * m
        slopes = told.slopes.map(lambda a, at=at: a[at])
        row[some] = of_cube(ar, *on_unit_cubes(ar, told.constants[at], slopes, *box))
    whole = low, high, *bends
    together = _together(job, told, known, levels, places, whole, worth)
    share = common = np.zeros((2, 0))
    for level, (pairs, atoms), here in zip(
        reversed(levels), reversed(places), reversed(together), strict=True
    ):
        measured, own = np.split(measured, [measured.shape[1] - len(pairs)], 1)
        each = np.stack(np.split(level.sure, 2, 1)).astype(float)
        each[:, pairs, atoms] = own
        rows, leaves = np.flatnonzero(level.sign), np.flatnonzero(~level.sign)
        after = level.after[:, rows]
        shares = _of_halves(share, after)
        commons = _of_halves(common, after)
        inside, outside = zip(shares, commons, strict=True)
        box = (end[level.cube[rows]] for end in ends)
        apart = _apart(ar, told, level.node[rows], *box)
        share = np.zeros((2, len(level.cube)))
        common = here
        share[:, rows], common[:, rows] = _of_cases(
            ar, each[:, rows, 0], inside, outside, apart
        )
        share[:, leaves] = _told(job, each[:, leaves], known, level.node[leaves])
    open_ = ar.ends(mass)[1] * np.maximum(1 - share.sum(0), 0.0)
    met = np.bincount(
        np.concatenate([level.cube for level in levels]), minlength=len(low)
    )
    return _Judged(
        share,
        open_,
        mass,
        part,
        change,
        start,
        met,
    )


def _told(
    job: Job, share: np.ndarray, known: np.ndarray, node: np.ndarray
) -> np.ndarray:
    """`Condition.told` at nodes, of so many at a time that its steps have room."""
    condition = job.once(Condition)
    room = max(1, ROOM // (2 * len(condition.steps)))
    found = np.zeros(share.shape[:2])
    for start in range(0, len(node), room):
        some = slice(start, start + room)
        excluding = known[:, :, node[some]]
        found[:, some] = condition.told(job.ar, share[:, some], excluding)
    return found


def _of_halves(shares: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Of each sign's two cases [2 cases, 2, signs]; nothing of one that a cube doesn't meet."""
    return np.append(shares, [[0.0], [0.0]], 1)[:, after].swapaxes(0, 1)


def _of_cases(
    ar: Arithmetic,
    ways: np.ndarray,
    inside: tuple[np.ndarray, np.ndarray],
    outside: tuple[np.ndarray, np.ndarray],
    apart: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Lower bounds of shares [2, pairs] from those of both cases, and of where forms show a value positive, and
    negative; `apart`: no point has both. Of each case also how much is known to lie in it by all the signs on the way,
    this one among them; of both together likewise."""
    first, one = inside
    second, other = outside
    above = np.maximum(both(ar, ways[0], first), one)
    below = np.maximum(both(ar, ways[1], second), other)
    split = _union(ar, above, below, apart)
    split = np.maximum(split, both(ar, first, second))
    up = ways[0] == 1
    down = ways[1] == 1
    return (
        np.where(up, first, np.where(down, second, split)),
        np.where(up, one, np.where(down, other, _union(ar, one, other, apart))),
    )


def _union(
    ar: Arithmetic, first: np.ndarray, second: np.ndarray, apart: np.ndarray
) -> np.ndarray:
    """Lower bounds of the share of a union; `apart`: of sets that have no point in common."""
    together = np.where(apart, ar.down(first + second), 0.0)
    return np.minimum(np.maximum(together, np.maximum(first, second)), 1.0)


def _together(
    job: Job,
    told: Cases,
    known: np.ndarray,
    levels: list[_Level],
    places: list[tuple[np.ndarray, np.ndarray]],
    cubes: tuple[np.ndarray, ...],
    worth: np.ndarray,
) -> list[np.ndarray]:
    """Of each level lower bounds [2, pairs] of the shares on which a single form shows all open signs on the way to a
    leaf, and all its open atoms right, or all wrong, and with them the condition; zero for what isn't a leaf. Where a
    sign and an atom vanish together, shares of each (`both`) would leave open twice what either leaves.
    Complexity: that of measuring the forms."""
    ar, m = job.ar, told.sure.shape[1] // 2

    def forms(node: np.ndarray, row: np.ndarray, cube: np.ndarray) -> UnitForms:
        slopes = told.slopes.map(lambda a: a[node, row])
        box = [a[cube] for a in cubes]
        return UnitForms(*on_unit_cubes(ar, told.constants[node, row], slopes, *box))

    found = []
    start = len(levels[0].cube)
    signed = np.zeros(start, bool)  # whether there is such a sign; below all of them:
    below = UnitForms(np.zeros(start), np.zeros((start, told.slopes.mid.shape[2])))
    for level, (pairs, atoms) in zip(levels, places, strict=True):
        found.append(np.zeros((2, len(level.cube))))
        asked = ~level.sign[pairs] & signed[pairs] & worth[level.cube[pairs]]
        leaves, place = np.unique(pairs[asked], return_inverse=True)
        row = leaves[place]
        atoms = atoms[asked]
        for side in (0, 1) if len(leaves) else ():
            each = np.stack(np.split(level.sure[leaves], 2, 1)).astype(float)
            each[side, place, atoms] = 1.0
            shows = _told(job, each, known, level.node[leaves])[side] == 1
            atom = forms(level.node[row], atoms + side * m, level.cube[row])
            lower = np.zeros(len(leaves))
            np.maximum.at(lower, place, drop(ar, below.some(row), atom))
            least = below.some(leaves).lowered(ar, lower)
            some = np.flatnonzero(shows & np.isfinite(least.constants))
            found[-1][side, leaves[some]] = of_cube(ar, *least.some(some))
        signed, below = _after(ar, level, (signed, below), worth, forms)
    return found


def _after(
    ar: Arithmetic,
    level: _Level,
    before: tuple[np.ndarray, UnitForms],
    worth: np.ndarray,
    forms: Callable[..., UnitForms],
) -> tuple[np.ndarray, UnitForms]:
    """Of the next level's pairs, whether a sign on the way to them is open, and a form below what shows all that are;
    of a level's, `before`."""
    size = int(level.after.max(initial=-1)) + 1
    m = level.sure.shape[1] // 2
    signed, below = before
    now = np.zeros(size, bool)
    constants = np.zeros(size)
    slopes = np.zeros((size, below.slopes.shape[1]))
    for side, to in enumerate(level.after):
        row = np.flatnonzero(to >= 0)
        now[to[row]] = signed[row]
        constants[to[row]], slopes[to[row]] = below.some(row)
        open_ = ~level.sure[row][:, [0, m]].any(1) & worth[level.cube[row]]
        row = row[open_]
        sign = np.full(len(row), side * m)
        own = forms(level.node[row], sign, level.cube[row])
        lower = np.where(signed[row], drop(ar, own, below.some(row)), 0.0)
        now[to[row]] = True
        constants[to[row]], slopes[to[row]] = own.lowered(ar, lower)
    return now, UnitForms(constants, slopes)


def _apart(
    ar: Arithmetic, told: Cases, node: np.ndarray, low: np.ndarray, high: np.ndarray
) -> np.ndarray:
    """Booleans [pairs]: whether the forms below a sign's value and below its negation are nowhere above zero together
    on the cube, as their sum isn't. Outside the node's own case, where neither is known to hold, both may be. What is
    not finite tells nothing of the kind."""
    m = told.sure.shape[1] // 2
    least = -ar.up(told.constants[node, 0] + told.constants[node, m])
    value, negation = (told.slopes.map(lambda a, i=i: a[node, i]) for i in (0, m))
    total = -ar.add(value, negation)
    sums = least_in(least[:, None], total.map(lambda a: a[:, None]), low, high)
    return sums[:, 0] >= 0


def _add(
    job: Job,
    found: np.ndarray,
    everywhere: np.ndarray,
    judged: _Judged,
    which: np.ndarray,
) -> None:
    """Those cubes to what is `found` of their parts: units [2, parts], right and wrong, of one token sequence, and
    whether they are right `everywhere` [parts]."""
    np.logical_and.at(everywhere, judged.part[which], judged.share[0, which] == 1)
    ar, mass = job.ar, judged.mass.map(lambda v: v[which])
    for total, share in zip(found, judged.share[:, which], strict=True):
        counted = ar.where(share == 1, mass, ar.mul(mass, points(share)))
        np.add.at(total, judged.part[which], job.claim.measure.units(ar, counted)[0])


def _halves(grid: _Grid, cubes: _Cubes, judged: _Judged) -> tuple[_Cubes, np.ndarray]:
    """The halves of the cubes, first all lower ones, along the coordinate by which what is open changes most, and where
    that cuts one in two."""
    n, coordinates = judged.change.shape
    cubes = cubes._replace(node=judged.node, met=judged.met)
    if not coordinates:
        return cubes.some(np.tile(np.arange(n), 2)), np.zeros(n, bool)
    rows, (low, high) = np.arange(n), grid.corners(cubes)
    wide = (cubes.last - cubes.first > 1) & (low < high)
    c = np.where(wide, judged.change, -1.0).argmax(-1)
    first, last = cubes.first.copy(), cubes.last.copy()
    middle = (first[rows, c] + last[rows, c]) // 2
    low, at, high = (
        grid.at[cubes.cell, c, i] for i in (first[rows, c], middle, last[rows, c])
    )
    first[rows, c] = last[rows, c] = middle
    halves = zip(cubes._replace(last=last), cubes._replace(first=first), strict=True)
    return _Cubes(*map(np.concatenate, halves)), (low < at) & (at < high)
