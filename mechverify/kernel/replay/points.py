"""Rules of claims about ranges that run the model on single inputs, `point`, or on none, `solver`.

Lemmas C9 (docs/soundness/core.md); O3 (docs/soundness/options.md).
"""

import numpy as np

from mechverify.kernel.core.claim import Job
from mechverify.kernel.core.domain import Domain
from mechverify.kernel.core.errors import Rejected
from mechverify.kernel.core.fields import Reader
from mechverify.kernel.core.ranges import Range, enclose, read_range


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
        points.append(
            [v.float64() for v in numbers.items(len(domain.low), len(domain.low))]
        )
    witness.close()
    if any(len(row) != domain.length for row in tokens):
        raise Rejected("a point needs one token for each position")
    ids, numbers = (
        np.array(tokens, np.int64).reshape(len(tokens), -1),
        np.array(points).reshape(len(points), -1),
    )
    if (
        not domain.contains(ids)
        or not ((domain.low <= numbers) & (numbers <= domain.high)).all()
    ):
        raise Rejected("a point lies outside its part of the domain")
    job.found.tokens.append(ids)
    job.found.points.append(numbers)
    attained, broken = enclose(job, ids, numbers)
    job.found.attained.append(attained)
    job.found.broken.append(broken)
    return job.claim.everything
