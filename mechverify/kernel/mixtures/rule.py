"""Rule `mixtures`: one layer of attention, read at one position, and anything behind it.

Cells are (query token, class of the mechanism). In each, the mixture lies in a box along a few directions, over which
the model behind attention is bounded from below by a linear form of the mixture; that is a sum of ratios of one-token
sums, whose sign over the cell rule ratios decides. A box may be halved along a direction: in a half, a multiple of how
far the mixture is from its faces is taken off the form, which is then judged over the whole cell. In the same way a
rival's lead over the right output shows inputs to be wrong.

Lemmas X5, X6, X8, X9 (docs/soundness/mixtures.md).
"""

from collections.abc import Sequence
from math import prod
from typing import NamedTuple

import numpy as np

from mechverify.kernel.core.arithmetic import Arithmetic, Ball
from mechverify.kernel.core.claim import Job
from mechverify.kernel.core.counts import Counts
from mechverify.kernel.core.domain import Domain
from mechverify.kernel.core.errors import Rejected, Unsupported
from mechverify.kernel.core.fields import Reader
from mechverify.kernel.core.meter import reserve
from mechverify.kernel.core.semantics import Real
from mechverify.kernel.counting.classes import Classes
from mechverify.kernel.counting.sizes import sizes_by_class
from mechverify.kernel.counting.tally import Key, Tally
from mechverify.kernel.mixtures.behind import Behind, Boxes, rest
from mechverify.kernel.mixtures.columns import Columns, Row, centre, mixture
from mechverify.kernel.ratios.linear import Expansion, Lead

Forms = tuple[np.ndarray, np.ndarray]  # raw slopes [.., J] and constants [..]
DIRECTIONS = 2**8
DEEPEST = 64  # halves within each other


class Leaf(NamedTuple):
    """A part of a cell's box, `low` to `high` [J]; what is taken off the form of each rival there, multiples [rivals,
    J] of t, None for none; and the exponent of a grid's step to count what stays open (None: it isn't counted).
    `winner`: a rival whose lead over the right output is judged there instead (None: the right one's over rivals)."""

    cell: int
    low: np.ndarray
    high: np.ndarray
    multipliers: np.ndarray | None = None
    step: int | None = None
    winner: int | None = None


def check(
    job: Job,
    domain: Domain,
    witness: Reader,
) -> Counts:
    """Precondition: semantics real; the mixtures are sums of ratios, and the mechanism a short fold.

    Postcondition: the bounds hold for the number of right inputs in `domain`, whatever the witness says. Complexity: of
    each query token four recursions on cells x directions columns, and one relaxation of the model behind attention for
    each half of a cell.
    """
    partition = Partition(job, domain, [*witness["keys"].items(8)])
    directions = partition.directions(witness["directions"])
    tally = Tally(witness["cells"])
    witness.close()
    for query in domain.tokens[partition.pin]:
        sizes = partition.sizes(query)
        said = {key: tally.take(query, key) for key in sizes}
        given = {key: node for key, node in said.items() if node is not None}
        given = {key: node for key, node in given.items() if partition.possible(key)}
        found = bounded(partition, directions, query, given, sizes)
        for key, size in sizes.items():
            tally.add(query, key, size, found.get(key, partition.unknown(key, size)))
    return tally.right(partition)


class Partition(Classes):
    """The domain cut into cells, one for each query token and each class of the mechanism and `keys`, further
    mechanisms."""

    def __init__(self, job: Job, domain: Domain, keys: Sequence[Reader]):
        if type(job.semantics) is not Real or job.ar.is_exact:
            raise Unsupported(
                "rule mixtures is for semantics real, and is checked in float64"
            )
        self.mixed = job.once(mixture)
        self.pin, self.outputs = self.mixed.pin, job.claim.outputs
        super().__init__(job, domain, keys)

    def directions(
        self,
        entry: Reader,
    ) -> np.ndarray:
        """Rows [J, d] of float64 numbers."""
        width = self.mixed.value.mid.shape[-1]
        rows = [_numbers(row, width) for row in entry.items(DIRECTIONS, 1)]
        return np.stack(rows)

    def row(
        self,
        query: int,
        directions: np.ndarray,
    ) -> Row:
        exact = self.ar.exact(directions)
        return Row(self.job, self.domain, self.automaton, self.mixed, exact, query)

    def indices(
        self,
        keys: Sequence[tuple[int, ...]],
    ) -> np.ndarray:
        """Where classes stand in the automaton."""
        return np.array([self.places[key] for key in keys], int)

    def sizes(
        self,
        query: int,
    ) -> dict[tuple[int, ...], int]:
        """Of the cells with an input, by their class."""
        found = sizes_by_class(
            self.ar, self.automaton, self.domain.tokens, self.pin, query
        )
        return {key: found[i] for key, i in self.places.items() if found[i]}

    def possible(
        self,
        key: tuple[int, ...],
    ) -> bool:
        """An output decodes to the mechanism's value."""
        return 0 <= key[0] < self.outputs

    def unknown(
        self,
        key: tuple[int, ...],
        size: int,
    ) -> Counts:
        """Bounds for the wrong inputs of a cell of which nothing is said."""
        return Counts(0 if self.possible(key) else size, size)


class Group:
    """Cells of one query token, side by side: of the classes `keys`, which its row can use, around centres [heads,
    cells, d] that a witness names. `boxes` are those of their mixtures."""

    def __init__(
        self,
        partition: Partition,
        row: Row,
        directions: np.ndarray,
        keys: Sequence[tuple[int, ...]],
        centres: np.ndarray,
    ):
        self.partition, self.ar, self.row = partition, partition.ar, row
        self.keys = keys
        self.behind = Behind(partition.job, row.query, directions)
        self.classes = partition.indices(keys)
        self.right = np.array([key[0] for key in keys], int)
        outputs = np.arange(partition.outputs)
        self.rivals = np.stack([outputs[outputs != m] for m in self.right])
        self.theta = _along(centres, directions)
        self.at = centre(self.theta)
        low, high = self.row.ranges(self.classes, self.theta)
        middle = centre(centres)
        left = rest(self.ar, directions, middle, self.at, self.row.least, self.row.most)
        self.boxes = Boxes(low, high, middle, left)

    def whole(
        self,
        cell: int,
    ) -> Leaf:
        return Leaf(cell, self.boxes.low[cell], self.boxes.high[cell])

    def forms(
        self,
        leaves: Sequence[Leaf],
    ) -> Forms:
        """Slopes [leaves, rivals, J] and constants [leaves, rivals], raw, of forms of t that the leads over all rivals
        are not below in the leaves; of a winner's lead, one of each. Leaves with a winner come by themselves.
        Complexity: a relaxation for each leaf."""
        cell = np.array([leaf.cell for leaf in leaves])
        boxes = Boxes(*_ends(leaves), self.boxes.centre[cell], self.boxes.rest[cell])
        if leaves[0].winner is None:
            return self.behind.affine(boxes, self.right[cell], self.rivals[cell])
        winners = np.array([leaf.winner for leaf in leaves])
        return self.behind.affine(boxes, winners, self.right[cell, None])

    def lead(
        self,
        leaves: Sequence[Leaf],
        forms: Forms,
    ) -> tuple[Lead, np.ndarray, np.ndarray]:
        """The same forms less what is taken off in a leaf, and the margin, which a winner has for itself, as leads of
        leaves x rivals columns; the ratios at the centres, as trial values [heads, columns]; and the columns' cells."""
        ar, (slopes, constants) = self.ar, forms
        margin = self.partition.job.claim.margin
        margin = margin if leaves[0].winner is None else -margin
        cell = np.repeat([leaf.cell for leaf in leaves], slopes.shape[1])
        columns, wide = len(cell), slopes.shape[-1]
        reserve(*self.row.turned.mid.shape[:3], columns)
        base = ar.exact(constants.reshape(columns))
        form = ar.exact(slopes.reshape(columns, wide))
        if any(leaf.multipliers is not None for leaf in leaves):
            off = np.zeros(slopes.shape)
            for i, leaf in enumerate(leaves):
                off[i] = 0.0 if leaf.multipliers is None else leaf.multipliers
            most = _most(ar, off, *_ends(leaves))
            base = ar.sub(base, most.map(lambda a: a.reshape(columns)))
            form = ar.add(form, ar.exact(off.reshape(columns, wide)))
        base = ar.sub(base, ar.sum(ar.mul(form, ar.exact(self.at[cell]))))
        base = ar.sub(base, ar.rational(margin)) if margin else base
        value = ar.contract("htlj,cj->htlc", self.row.turned, form)
        about, trial = ar.approximate(form), np.zeros((len(self.theta), columns))
        for j in range(wide):  # in this order on every machine
            trial = trial + about[:, j] * self.theta[:, cell, j]
        return Lead(base, value), trial, cell

    def least(
        self,
        leaves: Sequence[Leaf],
        forms: Forms | None = None,
    ) -> np.ndarray:
        """Numbers [leaves, rivals] of which one that is positive says that the lead is so on all inputs of the cell
        whose mixture lies in the leaf. Complexity: that of `forms`, and three recursions on as many columns."""
        slopes, constants = self.forms(leaves) if forms is None else forms
        known = np.isfinite(constants)
        slopes = np.where(known[..., None], slopes, 0.0)
        constants = np.where(known, constants, -1.0)  # any number: nothing is said
        step, found = max(1, self.row.step // slopes.shape[1]), []
        for start in range(0, len(leaves), step):
            some = slice(start, start + step)
            part = slopes[some], constants[some]
            lead, trial, cell = self.lead(leaves[some], part)
            around = Expansion(Columns(self.row, self.classes[cell]), lead, trial)
            linear = around.linear(np.arange(len(cell)))
            bound = np.maximum(self.ar.lower(around.total), linear.least)
            found.append(bound.reshape(-1, slopes.shape[1]))
        return np.where(known, np.concatenate(found), -np.inf)


def bounded(
    partition: Partition,
    directions: np.ndarray,
    query: int,
    given: dict[Key, Reader],
    sizes: dict[Key, int],
) -> dict[Key, Counts]:
    """Bounds for the wrong inputs of the classes that have an entry of the witness, as it says."""
    rivals = partition.outputs - 1
    if not given or not rivals:
        return dict.fromkeys(given, Counts(0, 0))
    heads, width = len(partition.mixed.value.mid), directions.shape[1]
    row = partition.row(query, directions)
    keys, trees, certain, centres = [], [], [], []
    for key, node in given.items():
        rows = node["centre"].items(heads, heads)
        numbers, tree = [_numbers(r, width) for r in rows], node["halves"]
        wins = node["certain"] if "certain" in node.value else None
        node.close()
        if row.usable[partition.places[key]]:
            keys.append(key)
            trees.append(tree)
            certain.append(wins)
            centres.append(numbers)
    if not keys:
        return {}
    group = Group(partition, row, directions, keys, np.array(centres).swapaxes(0, 1))
    leaves = [x for i, node in enumerate(trees) for x in _leaves(group, i, node)]
    wins = [x for i, n in enumerate(certain) if n for x in _leaves(group, i, n, True)]
    most, least = (_open(group, x, sizes) for x in (leaves, wins))
    return {
        key: Counts(sizes[key] - least.get(key, sizes[key]), most[key]) for key in keys
    }


def _open(
    group: Group,
    leaves: Sequence[Leaf],
    sizes: dict[Key, int],
) -> dict[Key, int]:
    """Of the cells that have these leaves, at most so many inputs are not what they are to show: right, or wrong."""
    if not leaves:
        return {}
    forms = group.forms(leaves)
    left = ~(group.least(leaves, forms) > 0)
    result = {}
    for i in {leaf.cell for leaf in leaves}:
        open_ = [
            (leaf, (forms[0][j], forms[1][j]), int(rival))
            for j, leaf in enumerate(leaves)
            if leaf.cell == i
            for rival in np.flatnonzero(left[j])
        ]
        key = group.keys[i]
        result[key] = _wrong(group, i, sizes[key], open_)
    return result


def _wrong(
    group: Group,
    cell: int,
    size: int,
    open_: list,
) -> int:
    """At most so many inputs of a cell are wrong (by leaves with winners: right), of which leaves leave these open: a
    leaf, its forms, and a rival."""
    if any(leaf.step is None or not np.isfinite(f[1][r]) for leaf, f, r in open_):
        return size
    if not open_:
        return 0
    from mechverify.kernel.mixtures.counted import Counted  # only where some are

    counted = Counted(group, cell)
    lost = (counted.lost(counted.below(*one), one[0].step) for one in open_)
    return min(size, sum(lost))


def _leaves(
    group: Group,
    cell: int,
    node: Reader,
    wins: bool = False,
) -> list[Leaf]:
    """The parts of a cell's box: a tree of halves, by direction and place; together they are the box. `wins`: each has
    a winner."""
    wide, rivals = group.boxes.low.shape[1], group.rivals.shape[1]
    todo = [(node, group.boxes.low[cell], group.boxes.high[cell], 0)]
    found = []
    while todo:
        node, low, high, depth = todo.pop()
        if type(node.value) is dict and "direction" in node.value:
            if depth == DEEPEST:
                raise Rejected(f"a box is halved more than {DEEPEST} times")
            direction = node["direction"].an_integer(0, wide - 1)
            at = min(max(node["at"].float64(), low[direction]), high[direction])
            for name, ends in (("below", high), ("above", low)):
                moved = ends.copy()
                moved[direction] = at
                part = (low, moved) if name == "below" else (moved, high)
                todo.append((node[name], *part, depth + 1))
            node.close()
        else:
            leaf = Leaf(cell, low, high)
            if wins:
                winner = node["winner"].an_integer(0, rivals)
                if winner == group.right[cell]:
                    raise Rejected(f"{node.where}: the right output is no winner")
                leaf = leaf._replace(winner=winner)
            found.append(_leaf(node, leaf, 1 if wins else rivals))
    return found


def _leaf(
    node: Reader,
    leaf: Leaf,
    rivals: int,
) -> Leaf:
    """null (without a winner), or what is taken off, and a step."""
    if node.value is None:
        return leaf
    given, step = node["multipliers"], node["step"]
    node.close()
    if given.value is not None:
        shape = rivals, len(leaf.low)
        leaf = leaf._replace(multipliers=_numbers(given, prod(shape)).reshape(shape))
    if step.value is not None:
        leaf = leaf._replace(step=step.an_integer(-1_000, 1_000))
    return leaf


def _ends(leaves: Sequence[Leaf]) -> tuple[np.ndarray, np.ndarray]:
    return np.stack([x.low for x in leaves]), np.stack([x.high for x in leaves])


def _most(
    ar: Arithmetic,
    k: np.ndarray,
    low: np.ndarray,
    high: np.ndarray,
) -> Ball:
    """What forms k.t [leaves, rivals] don't exceed for t between two raw arrays [leaves, J]."""
    form = ar.exact(k)
    ends = (ar.upper(ar.mul(form, ar.exact(end[:, None]))) for end in (low, high))
    return ar.sum(ar.exact(np.maximum(*ends)))


def _along(
    centres: np.ndarray,
    directions: np.ndarray,
) -> np.ndarray:
    """About the entries of centres [heads, cells, d] along directions [J, d]: [heads, cells, J]."""
    reserve(*centres.shape[:2], len(directions))
    total = np.zeros((*centres.shape[:2], len(directions)))
    for i in range(directions.shape[1]):  # in this order on every machine
        total = total + centres[..., i, None] * directions[:, i]
    return total


def _numbers(
    entry: Reader,
    count: int,
) -> np.ndarray:
    """[exponent, integers]: integers below 2^53, times 2^exponent."""
    exponent, integers = entry.items(2, 2)
    numbers = integers.integers(count)
    if len(numbers) != count or any(abs(v) >= 2**53 for v in numbers):
        raise Rejected(f"{entry.where}: expected {count} integers below 2^53")
    return np.ldexp(np.array(numbers, float), exponent.an_integer(-1_000, 900))
