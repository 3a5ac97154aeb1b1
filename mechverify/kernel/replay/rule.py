"""Rules `enumerate`, `counterexample` and `point`: run the model on single inputs; `solver` and `open` run nothing.

Lemmas C5, C9 (docs/soundness/core.md); O3 (docs/soundness/options.md).
"""

import numpy as np

from mechverify.kernel.core.accuracy import Counts, decide, surely_wrong
from mechverify.kernel.core.claim import Job
from mechverify.kernel.core.domain import Domain
from mechverify.kernel.core.errors import Rejected
from mechverify.kernel.core.fields import Reader
from mechverify.kernel.core.ranges import Range, enclose, read_range


def enumerate(job: Job, domain: Domain, witness: Reader) -> Counts:
    """Postcondition: exact, except for inputs whose margin rounding leaves open, which count for neither bound.
    Complexity: inputs times the cost of one evaluation."""
    witness.close()
    right = wrong = 0
    for start in range(0, domain.size, 2**13):
        job.ar.spend(2**13 * domain.length + sum(map(len, domain.tokens)), 10 * domain.length)
        sure = decide(job, domain.inputs(start, min(start + 2**13, domain.size)))
        right += int(sure[0].sum())
        wrong += int(sure[1].sum())
    return Counts(right, domain.size - wrong)


def counterexample(job: Job, domain: Domain, witness: Reader) -> Counts:
    """Postcondition: at most size - (number listed) inputs are right. Rejects an input that is listed twice,
    lies outside the part, or is not surely wrong. Complexity: one evaluation an input, and one in exact arithmetic for
    those that float64 leaves open."""
    rows = [row.integers() for row in witness["inputs"].items(2**20, 1)]
    witness.close()
    if any(len(row) != domain.length for row in rows):
        raise Rejected("counterexample needs inputs of the domain's length")
    listed = np.array(rows, np.int64)
    job.ar.spend(10 * listed.size + sum(map(len, domain.tokens)), 10 * domain.length)
    if len(set(map(tuple, rows))) != len(rows) or not domain.contains(listed):
        raise Rejected("a counterexample is listed twice or lies outside its part of the domain")
    wrong = surely_wrong(job, listed)
    if not wrong.all():
        raise Rejected(f"input {listed[~wrong][0].tolist()} is not shown to be wrong")
    job.found.tokens.append(listed)
    return Counts(0, domain.size - len(listed))


def leave_open(job: Job, domain: Domain, witness: Reader) -> Counts:
    """Postcondition: none: of the part nothing is said."""
    witness.close()
    return Counts(0, domain.size)


def solver(job: Job, domain: Domain, witness: Reader) -> Range:
    """Postcondition: none but by the axiom `solver:z3`, which it adds to the theorem: z3 found no input of the part
    whose value leaves the range in the file."""
    job.axioms.add("solver:z3")
    stated = read_range(witness, job.claim.outputs)
    witness.close()
    if (stated.low > stated.high).any():
        raise Rejected("the range that a solver confirmed is upside down")
    return stated


def point(job: Job, domain: Domain, witness: Reader) -> Range:
    """Postcondition: the value at each listed input of the part is in a range that is left for the report, with whether
    it surely breaks a threshold; of the part as a whole nothing is said. Complexity: one evaluation an input, and one
    in exact arithmetic for those that float64 leaves open."""
    tokens, points = [], []
    for row in witness["inputs"].items(2**12, 1):
        ids, numbers = row.items(2, 2)
        tokens.append(ids.integers(domain.length))
        points.append([v.float64() for v in numbers.items(len(domain.low), len(domain.low))])
    witness.close()
    if any(len(row) != domain.length for row in tokens):
        raise Rejected("a point needs one token for each position")
    ids, numbers = np.array(tokens, np.int64).reshape(len(tokens), -1), np.array(points).reshape(len(points), -1)
    if not domain.contains(ids) or not ((domain.low <= numbers) & (numbers <= domain.high)).all():
        raise Rejected("a point lies outside its part of the domain")
    job.found.tokens.append(ids)
    job.found.points.append(numbers)
    attained, broken = enclose(job, ids, numbers)
    job.found.attained.append(attained)
    job.found.broken.append(broken)
    return job.claim.everything
