"""Rule `fold`: cells are (pinned tokens, class of the mechanism); the softmax denominator is cleared.

With one head, logit_m - logit_t > 0 is equivalent to

    sum_i exp(s_i) * (base[m] - base[t] + u_i[m] - u_i[t]) > 0,

a sum of one-token terms once the pinned tokens are fixed. Its minimum over a cell, up to rounding, is
found by the min-plus recursion: a cell where it is positive for every t is right everywhere. In another cell the
witness says how to count: `groups` of rival outputs t, whose terms are replaced by the smallest of the
group, bound the wrong inputs from above; one rival `t` bounds them from below. Where it gives no groups
(null), the cell is small enough to add up the terms of every input.
"""

import math
from dataclasses import dataclass
from functools import cached_property
from itertools import product

import numpy as np

from mechverify.kernel import recursion
from mechverify.kernel.automaton import Layer, derive, towards
from mechverify.kernel.elementary import exp
from mechverify.kernel.errors import Rejected, Unsupported
from mechverify.kernel.fields import Reader
from mechverify.kernel.job import Bounds, Domain, Job
from mechverify.kernel.ratio import ratio_form
from mechverify.kernel.rounding import Ball, Float64, down, lower, up, upper

GRID = (16, 2**16)  # how many steps a counting grid may have
CHUNK = 2**22  # numbers held at a time
WORK, STEP = 2**29, 32  # entries of automata handled in all; what one step of a Python loop weighs
LISTED = 2**22  # inputs times rivals of a cell that is listed


def check(job: Job, domain: Domain, witness: Reader) -> Bounds:
    """Precondition: the output has a ratio form with one head, and the mechanism is a short fold.

    Postcondition: the bounds hold for the number of right inputs in `domain`. Complexity: classes x pins
    x positions x vocabulary x outputs for the minima, and positions x vocabulary x grid a counted group.
    """
    grid = witness.integer("grid", *GRID)
    keys = [job.expression(k) for k in witness.list("keys", limit=8)]
    only = _only(witness["only"])
    counted = _counted(witness)
    witness.close()
    right_min = right_max = covered = 0
    partition = Partition(job, domain, keys)
    for key in partition.keys:
        family = partition.family(key) if only is None or key in only else None
        for cell in family.cells() if family else ():
            wrong = cell.wrong(*counted.pop((cell.tokens, key), ((), None)), grid)
            job.cells.append((cell.tokens, key, cell.size, wrong))
            covered += cell.size
            right_min, right_max = right_min + cell.size - wrong.high, right_max + cell.size - wrong.low
    if counted:
        raise Rejected(f"the witness counts in {len(counted)} cells that don't exist")
    if only is None and covered != domain.size:
        raise Rejected(f"the cells hold {covered} inputs, the domain {domain.size}")
    return Bounds(right_min, right_max + domain.size - covered)  # `only`: nothing is said of other classes


def _only(entry: Reader) -> set[tuple[int, ...]] | None:
    """The classes to look at; None: all of them."""
    return None if entry.value is None else {tuple(key.integers()) for key in entry.items()}


def _counted(witness: Reader) -> dict:
    """(pinned tokens, key values) -> (groups of rivals, the rival that counts the surely wrong or None)."""
    result = {}
    for row in witness.list("cells", limit=2**22):
        entry = row.fixed_list(4)
        where = tuple(entry[0].integers()), tuple(entry[1].integers())
        groups = None if entry[2].value is None else tuple(tuple(g.integers()) for g in entry[2].items())
        if where in result:
            raise Rejected(f"cell {where} is counted twice")
        result[where] = groups, entry[3].optional_integer()
    return result


class Partition:
    """The domain cut into families of cells, one for each class of (mechanism, keys)."""

    def __init__(self, job: Job, domain: Domain, keys: list[int]):
        form = ratio_form(job.graph, job.weights, job.output, job.arithmetic)
        if len(form.heads) != 1:
            raise Unsupported(f"rule fold needs one attention head, the output has {len(form.heads)}")
        self.arithmetic, self.pinned = job.arithmetic, form.pinned
        self.tables = Tables.of(form, job.arithmetic, domain.length)
        self.automaton = derive(job.graph, [job.target, *keys], [np.array(t) for t in domain.tokens])
        self.keys = [tuple(key) for key in self.automaton.classes.tolist()]
        self.pins = [domain.tokens[p] for p in form.pinned]
        self.work = WORK

    def family(self, key: tuple[int, ...]) -> "Family":
        """The cells of one class. Refuses work beyond all measure before it is done."""
        self.work -= sum(table.size for table in self.automaton.step)
        layers = towards(self.automaton, self.keys.index(key))
        steps = sum(layer.states * len(layer.groups) for layer in layers)
        self.work -= STEP * steps * math.prod(map(len, self.pins[:-1]))
        if self.work < 0:
            raise Unsupported(f"{len(self.keys)} classes are too many for an automaton of this size")
        return Family(self.arithmetic, self.tables, self.pinned, self.pins, key, layers)


@dataclass(frozen=True)
class Tables:
    """The ratio form, one head, with pins first: `base` [pins.., out]; by position, `score` [pins.., vocab,
    length] and `value` [pins or 1.., vocab, length, out]; zero weight where `present` [length] is false."""

    base: Ball
    score: Ball
    value: Ball
    present: np.ndarray

    @staticmethod
    def of(form, arithmetic: Float64, length: int) -> "Tables":
        (head,) = form.heads
        pins = len(form.pinned)
        outputs = max(form.base.mid.shape[-1], head.values.mid.shape[-1])

        def by_position(a: np.ndarray, axis: int) -> np.ndarray:
            wide = np.zeros((*a.shape[:axis], length, *a.shape[axis + 1 :]))
            wide[(slice(None),) * axis + (head.positions,)] = a
            return wide

        present = np.zeros(length, bool)
        present[head.positions] = True
        base = form.base.map(lambda a: np.broadcast_to(a, (*a.shape[:-1], outputs))[..., 0, :])
        score = head.scores.map(lambda a: by_position(a, pins + 1))
        value = head.values.map(lambda a: by_position(np.broadcast_to(a, (*a.shape[:-1], outputs)), pins + 1))
        return Tables(base, score, value, present)

    def at(self, pins: np.ndarray) -> "Tables":
        """The tables for given rows of pinned tokens [rows, pins], pins flattened to one axis of rows."""

        def take(ball: Ball, axes: int) -> Ball:
            shape = ball.mid.shape[:axes]
            index = tuple(pins[:, k] if shape[k] > 1 else np.zeros(len(pins), int) for k in range(axes))
            return ball.map(lambda a: a[index] if axes else a[None])

        axes = pins.shape[1]
        varies = any(s > 1 for s in self.value.mid.shape[:axes])
        value = take(self.value, axes) if varies else self.value.map(lambda a: a.reshape(1, *a.shape[axes:]))
        return Tables(take(self.base, axes), take(self.score, axes), value, self.present)


class Family:
    """The cells of one class: its automaton, one cell for each choice of pinned tokens.

    `key` are the values of the mechanism and of the witness's keys; `impossible` says that no output
    decodes to the mechanism's value, so that every input of the class is wrong.
    """

    def __init__(self, arithmetic, tables: Tables, pinned, pins, key: tuple[int, ...], layers: list[Layer]):
        self.arithmetic, self.tables, self.pinned, self.key, self.layers = arithmetic, tables, pinned, key, layers
        self.sizes: dict[tuple[int, ...], int] = {}  # of the cells that have an input
        for others in product(*pins[:-1]):
            here = self.pinned_layers(others)
            if pinned:
                self.sizes |= {(*others, t): n for t, n in recursion.sizes_by_token(here, pinned[-1]).items()}
            else:
                self.sizes[()] = recursion.size(here)
        self.outputs = tables.base.mid.shape[-1]
        self.impossible = not 0 <= key[0] < self.outputs

    def pinned_layers(self, tokens: tuple[int, ...]) -> list[Layer]:
        layers = self.layers
        for position, token in zip(self.pinned, tokens, strict=False):
            layers = recursion.pin(layers, position, token)
        return layers

    def cell(self, tokens: tuple[int, ...]) -> "Cell":
        """One cell by its pinned tokens."""
        terms = None if self.impossible else Terms(self, np.array([tokens], int).reshape(1, -1))
        return Cell(self, tokens, terms, 0)

    def cells(self):
        """Every cell of the family that has an input."""
        rows = max(1, CHUNK // (self.outputs * self.tables.score.mid.shape[-2]))
        inhabited = list(self.sizes)
        for start in range(0, len(inhabited), rows):
            pins = inhabited[start : start + rows]
            terms = None if self.impossible else Terms(self, np.array(pins, int).reshape(len(pins), -1))
            for row, tokens in enumerate(pins):
                yield Cell(self, tokens, terms, row)


class Terms:
    """The one-token terms exp(s - c) * w of some cells of a family, as float64 bounds.

    `factor_low`, `factor_high` [rows, vocab, length] enclose the exponentials, normalised in each cell
    by its own c; the weight w = (base + value)[m] - (base + value)[t] lies between `base_low` + `value_low`
    and `base_high` + `value_high` as float64 adds them (a slack covers that addition's rounding).
    """

    def __init__(self, family: Family, pins: np.ndarray):
        ar, self.family, self.pins = family.arithmetic, family, pins
        tables = family.tables.at(pins)
        right = family.key[0]
        length = len(family.layers)
        alive = np.zeros((len(pins), *tables.score.mid.shape[1:]), bool)
        for i, layer in enumerate(family.layers):
            if tables.present[i]:
                alive[:, np.concatenate([tokens for tokens, _ in layer.groups]), i] = True
        for k, position in enumerate(family.pinned):
            alive[:, :, position] &= np.arange(alive.shape[1]) == pins[:, k, None]
        centre = np.where(alive, tables.score.mid, -np.inf).max((1, 2), keepdims=True)
        score = Ball(np.where(alive, tables.score.mid, centre), np.where(alive, tables.score.rad, 0.0))
        factor = exp(ar, ar.sub(score, ar.exact(centre)))
        self.factor_low = np.where(alive, np.maximum(lower(factor), 0.0), 0.0)
        self.factor_high = np.where(alive, upper(factor), 0.0)
        base = ar.sub(tables.base.map(lambda a: a[:, right, None]), tables.base)
        value = ar.sub(tables.value.map(lambda a: a[..., right, None]), tables.value)
        bounds = [lower(base), upper(base), lower(value), upper(value)]
        slack = 2.0**-51 * sum(max(np.abs(a).max(), np.abs(b).max()) for a, b in (bounds[:2], bounds[2:]))
        if not np.isfinite(2.0 * slack * 2.0**51):  # so that no base + value does
            raise Rejected("weights too large: a difference of outputs overflows float64")
        self.base_low, self.base_high = down(bounds[0] - slack), up(bounds[1] + slack)
        self.value_low, self.value_high = bounds[2:]
        self.right, self.length = right, length

    def low(self, position: int, tokens: np.ndarray) -> np.ndarray:
        """Lower bounds [rows, tokens, out] of the terms, before the last rounding."""
        w = self.base_low[:, None, :] + self.value_low[:, tokens, position, :]
        small, large = (f[:, tokens, position, None] for f in (self.factor_low, self.factor_high))
        return w * np.where(w >= 0, small, large)

    @cached_property
    def minima(self) -> np.ndarray:
        """Lower bounds [rows, out] over each cell of the sum of terms; +inf for the right output."""
        pinned = {position: self.pins[:, k] for k, position in enumerate(self.family.pinned)}

        def term(position: int, tokens: np.ndarray) -> np.ndarray:
            terms = self.low(position, tokens)
            self.family.arithmetic.ops += 2 * terms.size
            if position in pinned:
                other = tokens[None, :] != pinned[position][:, None]
                terms = np.where(other[..., None], np.inf, terms)
            return down(terms.min(1))

        result = recursion.smallest(self.family.layers, term, self.base_low.shape)
        result[:, self.right] = np.inf
        return result

    def of_rivals(self, row: int, rivals: list[int]) -> tuple[np.ndarray, np.ndarray]:
        """Lower and upper bounds [length, vocab, rivals] of the terms of some rivals in one cell."""
        value_row = min(row, len(self.value_low) - 1)  # values may not depend on the pinned tokens
        small, large = self.factor_low[row, ..., None], self.factor_high[row, ..., None]
        w = self.base_low[row, rivals] + self.value_low[value_row][..., rivals]
        low = down(w * np.where(w >= 0, small, large))
        w = self.base_high[row, rivals] + self.value_high[value_row][..., rivals]
        high = up(w * np.where(w >= 0, large, small))
        return low.swapaxes(0, 1), high.swapaxes(0, 1)


class Cell:
    """The inputs of a class with given pinned tokens."""

    def __init__(self, family: Family, tokens: tuple[int, ...], terms: Terms | None, row: int):
        self.family, self.tokens, self.terms, self.row = family, tokens, terms, row
        self.size = family.sizes[tokens]

    @cached_property
    def layers(self) -> list[Layer]:
        return self.family.pinned_layers(self.tokens)

    def undecided(self) -> list[int]:
        """The rivals that may win somewhere in the cell."""
        if self.terms is None:
            return []
        return np.flatnonzero(~(self.terms.minima[self.row] > 0)).tolist()

    def wrong(self, groups: tuple[tuple[int, ...], ...] | None, certain: int | None, grid: int) -> Bounds:
        """Bounds for the wrong inputs of the cell, counting for `groups` of rivals and the rival `certain`,
        or input by input where `groups` is None."""
        if self.family.impossible:
            return Bounds(self.size, self.size)
        rivals = self.undecided()
        if not rivals:
            return Bounds(0, 0)
        if groups is None:
            if certain is not None:
                raise Rejected("a listed cell is not counted for a rival as well")
            return self.list_wrong(rivals)
        low = 0 if certain is None else self.count_surely_wrong(certain, grid)
        high = self.size
        if set(rivals) <= {t for group in groups for t in group}:
            high = min(high, sum(self.count_wrong(group, grid) for group in groups))
        return Bounds(low, high)

    def count_wrong(self, group: tuple[int, ...], grid: int) -> int:
        """At most this many inputs of the cell are lost to a rival in `group`."""
        low, _ = self.terms.of_rivals(self.row, self._rivals(group))
        return self._count(low.min(-1), grid, upwards=True)

    def count_surely_wrong(self, rival: int, grid: int) -> int:
        """At least this many inputs of the cell are lost to `rival` (a tie is lost: see Accuracy)."""
        _, high = self.terms.of_rivals(self.row, self._rivals((rival,)))
        return self._count(high[..., 0], grid, upwards=False)

    def list_wrong(self, rivals: list[int]) -> Bounds:
        """Bounds for the wrong inputs by adding up the terms of every input; they differ only where
        rounding leaves a margin open. `rivals` are those that the minima leave undecided."""
        if self.size * len(rivals) > LISTED:
            raise Rejected(f"a cell of {self.size} inputs and {len(rivals)} rivals is too large to list")
        low, high = self.terms.of_rivals(self.row, rivals)
        # every partial sum is below `size`, so its roundings add up to at most `slack`; and the true
        # terms exceed the lower bounds by at most `width` in all
        size, width = np.abs(low).max(1).sum(0), up(high - low).max(1).sum(0)
        slack = up(len(self.layers) * 2.0**-51 * size)
        total = recursion.sums(self.layers, low)
        self.family.arithmetic.ops += total.size * len(self.layers)
        if not (np.isfinite(total).all() and np.isfinite(slack + width).all()):
            raise Rejected("terms too large to add")
        possible = (total <= slack).any(1)
        certain = (total <= -up(slack + up(width * (1 + 2.0**-40)))).any(1)
        return Bounds(int(certain.sum()), int(possible.sum()))

    def _rivals(self, group: tuple[int, ...]) -> list[int]:
        """A rival is an output other than the right one; counting the right one against itself is no proof."""
        if not group or not all(0 <= t < self.family.outputs and t != self.terms.right for t in group):
            raise Rejected(f"{list(group)} are not rivals of output {self.terms.right}")
        return list(group)

    def _count(self, terms: np.ndarray, grid: int, upwards: bool) -> int:
        step = _grid_step(self.layers, terms, grid)
        self.family.arithmetic.ops += terms.size * grid
        integers = recursion.to_grid(terms, step, upwards=not upwards)
        return recursion.count_nonpositive(self.layers, integers, upwards)


def _grid_step(layers: list[Layer], terms: np.ndarray, grid: int) -> float:
    """A power of two such that the sums that can still be undecided span about `grid` steps. Any step is
    sound; this choice is only about tightness."""
    alive = [np.concatenate([tokens for tokens, _ in layer.groups]) for layer in layers]
    low = np.array([terms[i, tokens].min() for i, tokens in enumerate(alive)])
    high = np.array([terms[i, tokens].max() for i, tokens in enumerate(alive)])
    reach = np.minimum(high, np.maximum(low, low - math.fsum(low)))  # fsum: the same on every machine
    span = math.fsum(reach - low)
    if not math.isfinite(span):
        raise Rejected("terms too large to count")
    finest = max(float(-low.min()) * 2.0**-29, 2.0**-1000)
    return math.ldexp(1.0, math.frexp(max(span / grid, finest))[1])
