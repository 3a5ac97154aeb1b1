"""Rule `counterexample`: inputs that are listed are wrong.

Lemma C5 (docs/soundness/core.md).
"""

import numpy as np

from mechverify.kernel.core.claim import Job
from mechverify.kernel.core.counts import Counts
from mechverify.kernel.core.domain import Domain
from mechverify.kernel.core.errors import Rejected
from mechverify.kernel.core.fields import Reader
from mechverify.kernel.core.judging import need_inputs, settle


def check(job: Job, domain: Domain, witness: Reader) -> Counts:
    """Postcondition: at most size - (number listed) inputs are right. Rejects an input that is listed twice,
    lies outside the part or the guard, or is not surely wrong. Complexity: one evaluation an input, and one in exact
    arithmetic for those that float64 leaves open."""
    need_inputs(job)
    rows = [row.integers() for row in witness["inputs"].items(2**20, 1)]
    witness.close()
    if any(len(row) != domain.length for row in rows):
        raise Rejected("counterexample needs inputs of the domain's length")
    listed = np.array(rows, np.int64)
    job.ar.spend(10 * listed.size + sum(map(len, domain.tokens)), 10 * domain.length)
    if len(set(map(tuple, rows))) != len(rows) or not domain.contains(listed):
        raise Rejected(
            "a counterexample is listed twice or lies outside its part of the domain"
        )
    if not job.claim.satisfied(job.ar, listed).all():
        raise Rejected("a counterexample doesn't satisfy the claim's condition `given`")
    wrong = settle(job, listed)[1]
    if not wrong.all():
        raise Rejected(f"input {listed[~wrong][0].tolist()} is not shown to be wrong")
    job.found.tokens.append(listed)
    return Counts(0, domain.size - len(listed))
