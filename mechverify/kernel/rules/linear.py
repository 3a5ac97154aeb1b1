"""Rule `linear`: bounds of a value over parts of the domain by linear relaxation, parts side by side.

Where a witness gives lines, they are used; any lines are sound. Otherwise the kernel takes its own.
"""

import numpy as np

from mechverify.kernel import relaxation
from mechverify.kernel.claim import Domain, Job, Range
from mechverify.kernel.errors import Rejected
from mechverify.kernel.evaluate import reserve
from mechverify.kernel.fields import Reader
from mechverify.kernel.float64 import Float64
from mechverify.kernel.linear import Cells, Lines, Relaxed

ROOM = 2**21  # coefficients of the widest form, of all cells together


class Given(Lines):
    """Lines as a certificate lists them: rows [start, node, exponent, lower, upper], integers times 2^exponent, one
    for each entry of the node, or one for each entry and form of `start`."""

    def __init__(self, entry: Reader):
        self.rows: dict[tuple[int, int], tuple[Reader, int, np.ndarray]] = {}
        for row in entry.items(2**16):
            start, node, exponent, lower, upper = row.items(5, 5)
            key = start.an_integer(), node.an_integer()
            if key in self.rows:
                raise Rejected(f"{row.where}: these lines are given twice")
            both = np.array([lower.integers(2**22), upper.integers(2**22)]) if _alike(lower, upper) else None
            if both is None or np.abs(both).max(initial=0) >= 2**53:
                raise Rejected(f"{row.where}: expected as many lower as upper lines, below 2^53")
            self.rows[key] = row, exponent.an_integer(-1_000, 900), both
        self.read: set[tuple[int, int]] = set()

    def choose(self, relaxed: Relaxed, start: int, n: int) -> tuple | None:
        if (start, n) not in self.rows:
            return None
        row, exponent, both = self.rows[start, n]
        shape = relaxed.graph.nodes[n].shape
        rows, rest = divmod(both.shape[1], int(np.prod(shape)))
        if rest or rows not in (1, relaxed.rows[start]):
            raise Rejected(f"{row.where}: {both.shape[1]} lines don't fit {relaxed.rows[start]} forms of {shape}")
        self.read.add((start, n))
        return tuple(np.ldexp(both, exponent).reshape(2, 1, rows, *shape))


def _alike(lower: Reader, upper: Reader) -> bool:
    return len(lower.integers()) == len(upper.integers())


def check(job: Job, parts: list[Domain], witnesses: list[Reader]) -> list[Range]:
    """Precondition: semantics real. Postcondition: on each part every entry of the output is within its range.
    Complexity: for every operand of a function or product, the cost of its graph times its entries."""
    if job.claim.semantics != "real" or type(job.ar) is not Float64:
        raise Rejected("rule linear is for semantics real, and is checked in float64")
    root = relaxation.rewritten(job.claim.graph, job.claim.output)
    results: list = [None] * len(parts)
    alone, together = [], []
    for i, witness in enumerate(witnesses):
        lines = witness["lines"]
        witness.close()
        (together if lines.value is None else alone).append((i, lines))
    for i, lines in alone:
        given = Given(lines)
        (results[i],) = bounds(job, root, [parts[i]], given)
        if given.read != set(given.rows):
            raise Rejected(f"{lines.where}: lines are given where none is used")
    step = side_by_side(job, root)
    for start in range(0, len(together), step):
        some = [i for i, _ in together[start : start + step]]
        for i, found in zip(some, bounds(job, root, [parts[i] for i in some]), strict=True):
            results[i] = found
    return results


def side_by_side(job: Job, root: int) -> int:
    """How many parts can be relaxed at a time in bounded memory."""
    graph, varying, widest = job.claim.graph, set(), 1
    for n in graph.ancestors([root]):
        node = graph.nodes[n]
        if node.op in ("input", "tokens") or varying & set(node.args):
            varying.add(n)
            widest = max(widest, int(np.prod(node.shape)))
    return max(1, ROOM // (2 * widest**2))


def bounds(job: Job, root: int, parts: list[Domain], lines: Lines | None = None) -> list[Range]:
    relaxed = Relaxed(job.ar, job.claim.graph, job.claim.weights, root, cells(job, parts), lines)
    output = relaxation.meet(job.ar, relaxed.bounds[root], relaxed.range(root))
    shape = len(parts), job.claim.outputs
    low, high = (np.broadcast_to(a, (len(parts), *a.shape[1:])).reshape(shape)
                 for a in (job.ar.lower(output), job.ar.upper(output)))  # fmt: skip
    return [Range(*ends) for ends in zip(low, high, strict=True)]


def cells(job: Job, parts: list[Domain]) -> Cells:
    """The parts as boxes of balls and as allowed tokens."""
    ar, shape = job.ar, (len(parts), job.claim.domain.length, len(job.claim.graph.values))
    reserve(*shape)
    allowed = np.zeros(shape, bool)
    for i, part in enumerate(parts):
        for position, tokens in enumerate(part.tokens):
            allowed[i, position, list(tokens)] = True
    low, high = (np.stack([getattr(p, end) for p in parts]) for end in ("low", "high"))
    box, inputs, start = relaxation.hull(ar, ar.exact(low), ar.exact(high)), [], 0
    for shape in job.claim.shapes:
        size = int(np.prod(shape))
        inputs.append(box.map(lambda a, s=start, n=size, t=shape: a[:, s : s + n].reshape(-1, *t)))
        start += size
    return Cells(tuple(inputs), allowed)
