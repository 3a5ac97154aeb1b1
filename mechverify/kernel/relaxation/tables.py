"""Dependency tables: exact ranges of values that depend on few tokens, such as attention scores.

The rows are all inputs of the domain, where these are few, or tell all that is asked. Otherwise row (a, b) has at
position p the token of the domain there whose number is (a + p b) mod m, for all a and b below a prime m: at any two
positions every pair of tokens stands in some row, so one evaluation of m^2 inputs tabulates every entry that depends on
two tokens at most.

Lemma L10 (docs/soundness/relaxation.md).
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from mechverify.kernel.core.arithmetic import Arithmetic
from mechverify.kernel.core.claim import Job
from mechverify.kernel.core.domain import Domain
from mechverify.kernel.core.errors import OverLimit, Rejected, Unsupported
from mechverify.kernel.core.evaluate import Evaluation, batch_size
from mechverify.kernel.core.graph import Graph
from mechverify.kernel.core.judging import MANY
from mechverify.kernel.core.loading import late
from mechverify.kernel.core.meter import ROOM
from mechverify.kernel.core.semantics import Real
from mechverify.kernel.relaxation.operations import row_of

MOST = 2**25  # numbers computed for a table
LAST = 2**28  # likewise, where a value that has no table reads it, or the claim itself
ALONE = 2**29  # likewise, where that needs no other table
WHOLE = 2**20  # rows of such a table
FINE = 2.0**-30  # of a table's largest number, what float64 may leave open of it

Ends = tuple[np.ndarray, np.ndarray]  # raw arrays [rows, entries]


class Table(NamedTuple):
    """Of a node: bounds [rows, entries] of its value on each row of tokens, and which positions each entry depends on,
    booleans [entries, length]."""

    low: np.ndarray
    high: np.ndarray
    reads: np.ndarray


class Rows(NamedTuple):
    """Of tokens, ids [rows, length]; `known`, booleans [rows, length]: others stand for no token."""

    ids: np.ndarray
    known: np.ndarray


class Plan(NamedTuple):
    """Rows: `many` of the domain, all of its inputs or what each pair of positions may hold at once. Which nodes get a
    table, `reads`: the positions that each entry depends on, booleans [*shape, length]. `last` are those that a node
    reads which gets none, and the roots: where the others are of no use, they are left out, and the roots stand
    `alone`. `dropped`: what would cost too much and would be of use, and how many numbers it takes."""

    domain: Domain
    many: int  # rows
    reads: dict[int, np.ndarray]
    last: set[int]
    alone: bool
    dropped: dict[int, int]


def planned(job: Job, graph: Graph, wanted: list[int], roots: tuple[int, ...]) -> Plan:
    """Of the nodes of `wanted` whose entries depend on two tokens at most (on any number, where the rows are all
    inputs) and on nothing else. `roots` are what the claim is about: where all inputs show all that is asked of them,
    and aren't too many, these are the rows."""
    ar, domain, too_large = job.ar, job.claim.domain, {}
    reads = _reads(graph, wanted, ar, too_large)
    known = {n: r for n in wanted if (r := reads[n]) is not None and r.any()}
    costs = {n: _cost(graph, n, ar) for n in known}

    def of(domain: Domain, many: int, most: int) -> Plan:
        complete, fits = many == domain.size, many * graph.length <= ROOM
        cost = {
            n: many * costs[n]
            for n, r in known.items()
            if complete or r.sum(-1).max() <= 2
        }
        last = _last(graph, wanted, {*cost}, roots)
        small = {n for n in cost if fits and cost[n] <= (most if n in last else MOST)}
        dropped = too_large | {n: cost[n] for n in cost if n in last - small}
        alone = complete and last.issubset(roots) and last.issubset(small)
        if alone:  # every range that is asked for stands in these
            small = last
        some = {n: known[n] for n in cost if n in small}
        return Plan(domain, many, some, last, alone, dropped)

    read = [True] * graph.length  # by what a program rounds, also where it adds zeros
    if type(job.semantics) is Real:
        read = late("core.prefixes").positions(graph, roots)
    asked = Domain(
        tuple(t if r else t[:1] for t, r in zip(domain.tokens, read, strict=True))
    )
    if asked.size <= WHOLE and (whole := of(asked, asked.size, ALONE)).alone:
        return whole._replace(reads={n: r & read for n, r in whole.reads.items()})
    return of(domain, min(domain.size, _pairs(domain)), LAST)


class Tables:
    """`where` are those of the roots that are not negative on any input in question.
    Postcondition: `of[n]` for the planned nodes, but for `unknown`: those that would be of use and have no finite
    bounds in some row. Complexity: an evaluation of the rows, and one with twice the digits of those that float64
    leaves open."""

    def __init__(self, job: Job, graph: Graph, plan: Plan, where: tuple[int, ...] = ()):
        self.of: dict[int, Table] = {}
        self.dropped = plan.dropped
        self.unknown: list[int] = []
        self.barred: list[
            tuple[np.ndarray, np.ndarray]
        ] = []  # rows that break a condition on the tokens it reads
        if not plan.reads:
            return
        self.rows = _rows(plan.domain, plan.many)
        ends = _enclosed(job, graph, plan, self.rows.ids)
        for n, (low, high) in ends.items():
            if _known((low, high)):
                self.of[n] = Table(low, high, plan.reads[n].reshape(-1, graph.length))
            elif n in plan.last:
                self.unknown.append(n)
        for n in where:
            if n in self.of:
                ends = self.of[n].high.T, self.of[n].reads
                self.barred += [
                    (high < 0, reads) for high, reads in zip(*ends, strict=True)
                ]

    def ranges(
        self, ar: Arithmetic, n: int, allowed: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Least and greatest values [cells, entries] of a node, over the tokens allowed [cells, length, vocabulary]
        that satisfy the conditions; the other way round where there are none."""
        table, ends = self.of[n], [[], []]
        ids, known = self.rows
        length = ids.shape[1]
        for cell in allowed:
            ar.spend(table.low.size, 10, 3)
            ar.step(table.low.size * (length + 3 * len(self.barred)), 1, 1)
            here = cell[np.arange(length), ids] & known
            counts = ~(
                ~here @ table.reads.T
            )  # the tokens that an entry reads are allowed: [rows, entries]
            for rows, reads in self.barred:
                counts &= ~(rows[:, None] & table.reads[:, reads].all(1))
            ends[0].append(np.where(counts, table.low, np.inf).min(0))
            ends[1].append(np.where(counts, table.high, -np.inf).max(0))
        return np.stack(ends[0]), np.stack(ends[1])


def _enclosed(job: Job, graph: Graph, plan: Plan, ids: np.ndarray) -> dict[int, Ends]:
    """Of the nodes' values on rows of tokens: of the last ones, with twice the digits on rows where float64 leaves
    open whether they hold the least or the greatest value of an entry, and by how much."""
    wanted = [*plan.reads]
    refined = type(job.semantics) is Real and not job.ar.is_exact
    if plan.alone and refined and len(ids) >= MANY:
        try:
            found = _of_roots(job, graph, wanted, ids)
        except (OverLimit, Unsupported):
            raise
        except Rejected:  # of what all rows have in common
            found = {}
        if found and all(map(_known, found.values())):
            return found  # else one root's error is all roots'
    found = _evaluated(job, graph, job.semantics, wanted, ids)
    finer = [n for n in wanted if n in plan.last]
    rows = _any_open(found, finer)
    if not rows.any() or not refined:
        return found
    again = late("core.elsewhere").doubled(
        job, lambda semantics: _evaluated(job, graph, semantics, finer, ids[rows])
    )
    return _met(found, again, rows)


def _of_roots(
    job: Job, graph: Graph, roots: list[int], ids: np.ndarray
) -> dict[int, Ends]:
    """The same of values that nothing else reads: in balls whose radius is a length first, each computed once for all
    rows that agree in what it reads."""
    from mechverify.kernel.core.prefixes import Prefixes, shared

    elsewhere, made = late("core.elsewhere"), Prefixes(graph, roots)
    sizes = {n: math.prod(graph.nodes[n].shape) for n in roots}

    def found(values: Evaluation) -> list[Ends]:
        number = len(values.tokens)
        return [_spread(_ends(values, n, size), number) for n, size in sizes.items()]

    def on(some: np.ndarray) -> Callable[[Real], dict[int, Ends]]:
        def evaluate(semantics: Real) -> dict[int, Ends]:
            parts = shared(made, job.claim.weights, semantics, some, found)
            return {n: _joined(ends) for n, *ends in zip(roots, *parts, strict=True)}

        return evaluate

    ends = elsewhere.roughly(job, on(ids), "Fine")
    rows = _any_open(ends, roots)
    if not rows.any():
        return ends
    return _met(ends, elsewhere.doubled(job, on(ids[rows])), rows)


def _spread(ends: Ends, number: int) -> Ends:
    """On as many rows, where all have the same."""
    low, high = (np.broadcast_to(end, (number, end.shape[1])) for end in ends)
    return low, high


def _joined(parts: list[Ends]) -> Ends:
    low, high = (np.concatenate(ends) for ends in zip(*parts, strict=True))
    return low, high


def _known(ends: Ends) -> bool:
    return all(np.isfinite(end).all() for end in ends)


def _any_open(found: dict[int, Ends], nodes: list[int]) -> np.ndarray:
    return np.logical_or.reduce([_open(*found[n]) for n in nodes])


def _met(
    found: dict[int, Ends], again: dict[int, Ends], rows: np.ndarray
) -> dict[int, Ends]:
    """With the better end of either where rows were evaluated again."""
    for n, (least, greatest) in again.items():
        low, high = found[n]
        low[rows] = np.maximum(low[rows], least)
        high[rows] = np.minimum(high[rows], greatest)
    return found


def _open(low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Rows [rows] that may hold an end of an entry's range, which is known up to more than FINE of the largest value
    alone."""
    width = high - low
    size = np.abs(np.where(np.isfinite(width), high, 0.0)).max(initial=0.0)
    least, greatest = low <= high.min(0), high >= low.max(0)
    return ((least | greatest) & ~(width <= FINE * size)).any(1)


def _evaluated(
    job: Job, graph: Graph, semantics: Real, wanted: list[int], ids: np.ndarray
) -> dict[int, Ends]:
    """In the model's arithmetic, as many rows at a time as bounded memory allows."""
    sizes = {n: math.prod(graph.nodes[n].shape) for n in wanted}
    found = {n: (np.empty((len(ids), size)), np.empty((len(ids), size)))
             for n, size in sizes.items()}  # fmt: skip
    step, varying = batch_size(graph, wanted), {*graph.varying(wanted)}
    fixed: dict = {}  # what depends on no token, computed once
    for start in range(0, len(ids), step):
        some = slice(start, start + step)
        values = Evaluation(graph, job.claim.weights, semantics, ids[some])
        values.values |= fixed
        for n, ends in found.items():
            for end, value in zip(ends, _ends(values, n, sizes[n]), strict=True):
                end[some] = value
        fixed = {n: v for n, v in values.values.items() if n not in varying}
    return found


def _ends(values: Evaluation, n: int, size: int) -> Ends:
    """Infinite where balls are too wide for an operation: there, nothing is known."""
    try:
        low, high = values.semantics.ar.ends(values[n])
    except OverLimit:
        raise
    except Rejected:
        return np.full((1, size), -np.inf), np.full((1, size), np.inf)
    return low.reshape(-1, size), high.reshape(-1, size)


def _cost(graph: Graph, n: int, ar: Arithmetic) -> int:
    """Numbers that an evaluation takes for each row."""
    varying = graph.varying([n])
    ar.spend(len(varying), 1, 1_000)
    return sum(math.prod(graph.nodes[m].shape) for m in varying)


def _last(
    graph: Graph, wanted: list[int], candidates: set[int], roots: tuple[int, ...]
) -> set[int]:
    """The candidates that a node reads which is none, and the roots among them: with tables of these, those of what
    they depend on add nothing but where a part is known to be smaller by its facts."""
    read = {
        a
        for n in graph.ancestors(wanted)
        if n not in candidates
        for a in graph.nodes[n].args
    }
    return candidates & (read | {*roots})


def _pairs(domain: Domain) -> int:
    """Rows in which any two positions hold every pair of tokens."""
    return _prime(max(domain.length, *map(len, domain.tokens))) ** 2


def _rows(domain: Domain, many: int) -> Rows:
    if many == domain.size:
        inputs = domain.inputs(0, domain.size)
        return Rows(inputs, np.ones_like(inputs, bool))
    m, sizes = math.isqrt(many), np.array([len(here) for here in domain.tokens])
    a, b = np.divmod(np.arange(many), m)
    numbers = (a[:, None] + b[:, None] * np.arange(domain.length)) % m
    known = numbers < sizes
    pairs = known.sum(1) > 1
    numbers, known = numbers[pairs], known[pairs]
    columns = [
        np.array(here)[np.where(known[:, p], numbers[:, p], 0)]
        for p, here in enumerate(domain.tokens)
    ]
    return Rows(np.stack(columns, 1), known)


def _prime(least: int) -> int:
    m = max(2, least)
    while any(m % k == 0 for k in range(2, math.isqrt(m) + 1)):
        m += 1
    return m


def _reads(
    graph: Graph, wanted: list[int], ar: Arithmetic, dropped: dict[int, int]
) -> dict[int, np.ndarray | None]:
    """Which positions' tokens each entry of a node may depend on, booleans [*shape, length]; None where the node
    depends on real inputs, or is too large (or all nodes together are), which is left in `dropped`."""
    reads: dict[int, np.ndarray | None] = {}
    held = 0
    for n in graph.ancestors(wanted):
        node = graph.nodes[n]
        args = [reads[a] for a in node.args]
        size = math.prod(node.shape) * graph.length
        if node.op == "input" or any(a is None for a in args):
            reads[n] = None
            continue
        if size > ROOM or held + size > MOST:
            reads[n], dropped[n] = None, size
            continue
        held += size
        ar.spend(size, 10, 1)
        reads[n] = row_of(node.op).reads(
            graph, node, [a for a in args if a is not None]
        )
    return reads
