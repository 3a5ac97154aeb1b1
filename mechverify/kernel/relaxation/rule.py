"""Rule `relaxation`: bounds of a value over parts of the domain, side by side.

Without `lines`, by intervals alone. With them, by linear bounds: where a witness lists lines, they are used, and any
are sound; otherwise the kernel takes its own. `multipliers` are of what is known in the part beside its box. `shared`:
forms go through the second form of a softmax. `whole`: of what functions and products read, the interval on the whole
domain is taken, which is found once, and linear bounds are those of the output alone.

Lemmas L11, L15 (docs/soundness/relaxation.md).
"""

from collections.abc import Callable
from math import prod
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import numpy as np

from mechverify.kernel.core.claim import Job
from mechverify.kernel.core.domain import Domain
from mechverify.kernel.core.errors import Rejected
from mechverify.kernel.core.fields import Reader
from mechverify.kernel.core.meter import reserve
from mechverify.kernel.core.ranges import Range
from mechverify.kernel.relaxation.backward import Lines, Relaxed
from mechverify.kernel.relaxation.intervals import Cells, Intervals
from mechverify.kernel.relaxation.lines import hull
from mechverify.kernel.relaxation.rewriting import Rewriting

if TYPE_CHECKING:
    from mechverify.kernel.relaxation.names import Names

OLD = {
    "interval": (),
    "linear": ("lines",),
    "farkas": ("lines", "multipliers"),
}  # rules before format version 5
FACTS = 2**8  # of a part
ROOM = (
    2**21
)  # coefficients of the widest form, of all cells together: about what a cache holds

CACHES = 4  # a check relaxes so many times fewer parts at a time than ROOM holds: they stay nearer to the processor
K = TypeVar("K", bound=Intervals)
Row = tuple[Reader, np.ndarray]  # where it stands, and its lists [lists, numbers]


class Given(Lines):
    """Lines as a certificate lists them, rows [start, node, exponent, lower, upper], and multipliers, rows [start,
    node, exponent, multipliers]: integers times 2^exponent, one for each entry of the node, or for each entry and form
    of `start`. All must be used. `node`: reads what a row calls a node."""

    def __init__(
        self,
        node: Callable[[Reader], int],
        lines: Reader,
        multipliers: Reader | None = None,
    ):
        self.lines = _rows(node, lines, 2) if lines.value is not None else {}
        self.factors = _rows(node, multipliers, 1) if multipliers is not None else {}
        self.unread = {*self.lines, *((*key, "multipliers") for key in self.factors)}

    def choose(self, relaxed: Relaxed, start: int, n: int) -> tuple | None:
        if (start, n) not in self.lines:
            return None
        self.unread.discard((start, n))
        return tuple(_shaped(self.lines[start, n], relaxed, start, n))

    def multipliers(self, relaxed: Relaxed, start: int, n: int) -> np.ndarray | None:
        if (start, n) not in self.factors:
            return None
        self.unread.discard((start, n, "multipliers"))
        return _shaped(self.factors[start, n], relaxed, start, n)[0]


def _rows(
    called: Callable[[Reader], int], entry: Reader, lists: int
) -> dict[tuple[int, int], Row]:
    found: dict[tuple[int, int], Row] = {}
    for row in entry.items(2**16):
        start, node, exponent, *numbers = row.items(3 + lists, 3 + lists)
        key, integers = (
            (called(start), called(node)),
            [n.integers(2**22) for n in numbers],
        )
        if key in found:
            raise Rejected(f"{row.where}: these lines are given twice")
        if len({len(i) for i in integers}) > 1 or any(
            abs(v) >= 2**53 for i in integers for v in i
        ):
            raise Rejected(
                f"{row.where}: expected as many lower as upper lines, below 2^53"
            )
        found[key] = (
            row,
            np.ldexp(np.array(integers, float), exponent.an_integer(-1_000, 900)),
        )
    return found


def _shaped(given: Row, relaxed: Relaxed, start: int, n: int) -> np.ndarray:
    """[lists, 1, rows, *shape]"""
    row, numbers = given
    shape = relaxed.graph.nodes[n].shape
    rows, rest = divmod(numbers.shape[1], prod(shape))
    if rest or rows not in (1, relaxed.rows[start]):
        raise Rejected(
            f"{row.where}: {numbers.shape[1]} lines don't fit {relaxed.rows[start]} forms of {shape}"
        )
    return numbers.reshape(-1, 1, rows, *shape)


def check(job: Job, parts: list[Domain], witnesses: list[Reader]) -> list[Range]:
    """Precondition: semantics real. Postcondition: on each part every entry of the output is within its range, which is
    upside down where the part has no input. Complexity: without lines, one evaluation; with them, for every operand of
    a function or product, the cost of its graph times its entries."""
    if job.claim.semantics != "real" or job.ar.is_exact:
        raise Rejected(
            "bounds by relaxation are for semantics real, and are checked in float64"
        )
    results: list = [None] * len(parts)
    alike: dict[tuple, list[int]] = {}
    for i, witness in enumerate(witnesses):
        lines, multipliers, flags = _fields(witness)
        if lines is None or (lines.value is None and multipliers is None):
            alike.setdefault(
                (Intervals if lines is None else Relaxed, *flags), []
            ).append(i)
            continue
        given = given_lines(job, lines, multipliers)
        (results[i],) = ranges(job, [parts[i]], flags, lines=given)
        if given.unread:
            raise Rejected(
                f"{witness.where}: lines or multipliers are given where none is used"
            )
    for (kind, *switched), places in alike.items():
        flags = Flags(*switched)
        step = max(1, side_by_side(job, flags.whole) // CACHES)
        for start in range(0, len(places), step):
            some = places[start : start + step]
            for i, found in zip(
                some,
                ranges(job, [parts[i] for i in some], flags, kind=kind),
                strict=True,
            ):
                results[i] = found
    return results


class Flags(NamedTuple):
    """Of a leaf with lines."""

    shared: bool = False
    whole: bool = False


PLAIN = Flags()


def _fields(witness: Reader) -> tuple[Reader | None, Reader | None, Flags]:
    """Lines, multipliers, and what is switched on."""
    present = [name for name in ("lines", "multipliers") if name in witness.value]
    fields = OLD.get(witness["rule"].text(), present)
    lines, multipliers = (
        witness[name] if name in fields else None for name in ("lines", "multipliers")
    )
    named = Flags._fields[:1] if witness["rule"].text() in OLD else Flags._fields
    flags = Flags(
        *(
            lines is not None and name in witness.value and witness[name].flag()
            for name in named
        )
    )
    witness.close()
    if lines is None and multipliers is not None:
        raise Rejected(
            f"{witness.where}: multipliers are given where there are no lines"
        )
    return lines, multipliers, flags


def given_lines(job: Job, lines: Reader, multipliers: Reader | None) -> Given:
    return Given(Reader.an_integer if job.old else _names(job).node, lines, multipliers)


def _names(job: Job) -> "Names":
    from mechverify.kernel.relaxation.names import Names  # only where a file has some

    return job.once(Names)


class Whole:
    """Intervals on the whole domain, with the kernel's own lines, of what functions and products read: of the nodes
    that stand for a value of the model, as the others may depend on constants that each part chooses."""

    def __init__(self, job: Job):
        value = _value(job, [job.claim.domain], Relaxed)
        known = value.roots.values.intersection(value.wanted)
        self.ends = {n: value.ends[n] for n in known}


def side_by_side(job: Job, whole: bool = False) -> int:
    """How many parts can be relaxed at a time in bounded memory."""
    rewriting = job.once(Rewriting)
    graph, varying, widest, largest = rewriting.graph, set(), 1, 1
    for n in graph.ancestors([rewriting.roots.output, *rewriting.roots.conditions]):
        node = graph.nodes[n]
        largest = max(largest, prod(node.shape))
        if node.op in ("input", "tokens", "value") or varying & set(node.args):
            varying.add(n)
            widest = max(widest, prod(node.shape))
    rows = 2 * (job.claim.outputs if whole else widest)
    return max(1, ROOM // max(rows * widest, largest))


def _value(
    job: Job, parts: list[Domain], kind: type[K], whole: bool = False, **options: Any
) -> K:
    """The claim's graph on parts of the domain."""
    rewriting, boxes = job.once(Rewriting), cells(job, parts, whole)
    graph, roots = rewriting.graph, rewriting.roots
    return kind(job.ar, graph, job.claim.weights, roots, boxes, **options)


def ranges(job: Job, parts: list[Domain], flags: Flags = PLAIN, *, kind: type[Intervals] = Relaxed,
           lines: Lines | None = None) -> list[Range]:  # fmt: skip
    options: dict = {"shared": flags.shared} | (
        {"lines": lines} if lines is not None else {}
    )
    value = _value(job, parts, kind, flags.whole, **options)
    output, shape = value.output(), (len(parts), job.claim.outputs)
    low, high = (np.broadcast_to(a, (len(parts), *a.shape[1:])).reshape(shape)
                 for a in output)  # fmt: skip
    if np.isnan(low).any() or np.isnan(high).any():
        raise Rejected("a bound is not a number")
    empty = np.broadcast_to(value.empty, len(parts))
    if not job.claim.where and any(
        e and not part.facts for e, part in zip(empty, parts, strict=True)
    ):
        raise Rejected("bounds of a part that has inputs contradict each other")
    return [
        job.claim.nothing if e else Range(*ends)
        for e, *ends in zip(empty, low, high, strict=True)
    ]


def cells(job: Job, parts: list[Domain], whole: bool = False) -> Cells:
    """The parts as boxes of balls, as allowed tokens, and as facts; of all parts, the claim's conditions, and, if it is
    asked for, what holds on the whole domain."""
    ar, rewriting = job.ar, job.once(Rewriting)
    graph, roots, tables = rewriting.graph, rewriting.roots, rewriting.tables
    shape = len(parts), job.claim.domain.length, len(graph.values)
    reserve(*shape)
    allowed = np.zeros(shape, bool)
    for i, part in enumerate(parts):
        ar.step(sum(map(len, part.tokens)) + part.length + 10 * len(part.facts), 1)
        for position, tokens in enumerate(part.tokens):
            allowed[i, position, list(tokens)] = True
    low, high = (np.stack([getattr(p, end) for p in parts]) for end in ("low", "high"))
    box, inputs, corners, start = hull(ar, ar.exact(low), ar.exact(high)), [], [], 0
    for shape in job.claim.shapes:
        size = prod(shape)
        inputs.append(
            box.map(lambda a, s=start, n=size, t=shape: a[:, s : s + n].reshape(-1, *t))
        )
        corners.append(
            tuple(
                end[:, start : start + size].reshape(-1, *shape) for end in (low, high)
            )
        )
        start += size
    facts: dict[int, np.ndarray] = {}  # [two ends, cells, entries]
    held = 0
    for n in {
        *roots.conditions[: len(job.claim.where)],
        *(n for p in parts for n, *_ in p.facts),
    }:
        size = prod(graph.nodes[n].shape)
        held += 2 * len(parts) * size
        reserve(held // 4)  # all of them together
        floor = 0.0 if n in roots.conditions[: len(job.claim.where)] else -np.inf
        facts[n] = np.stack(
            [np.full((len(parts), size), end) for end in (floor, np.inf)]
        )
    for i, part in enumerate(parts):
        for n, entry, at, above in part.facts:
            end = facts[n][0 if above else 1]
            end[i, entry] = max(end[i, entry], at) if above else min(end[i, entry], at)
    tabled = {} if tables is None else {
        roots.of[n]: tables.ranges(ar, n, allowed) for n in tables.of
    }  # fmt: skip
    shaped = [
        {
            n: tuple(end.reshape(len(parts), *graph.nodes[n].shape) for end in ends)
            for n, ends in known.items()
        }
        for known in (facts, tabled)
    ]
    common = job.once(Whole).ends if whole else {}
    return Cells(tuple(inputs), allowed, *shaped, corners=tuple(corners), whole=common)


def sides(job: Job, part: Domain, node: Reader) -> tuple[Domain, Domain]:
    """The halves of a split at a value of the model: an entry of one of the document's nodes is at most `at`, or at
    least."""
    n, entry = node["node"].an_integer(), node["entry"].an_integer()
    places = _numbered(job, n, entry) if job.old else _names(job).places(n, entry)
    if not places:
        raise Rejected(
            f"{node.where}: no value that the input decides is relaxed that is entry {entry} of node {n}"
        )
    if len(part.facts) + len(places) > FACTS:
        raise Rejected(f"{node.where}: more than {FACTS} facts are known in this part")
    job.ar.spend(len(part.facts))
    return part.sides(places, node["at"].float64())


def _numbered(job: Job, n: int, entry: int) -> list[tuple[int, int]]:
    """By the numbers of the rewritten graph, as before format version 5."""
    rewriting = job.once(Rewriting)
    known = n in rewriting.roots.values and 0 <= entry < prod(
        rewriting.graph.nodes[n].shape
    )
    return [(n, entry)] if known else []
