"""Rules of claims that count inputs: they run the model on single inputs, `enumerate` and `counterexample`, or on none,
`open`.

Lemma C5 (docs/soundness/core.md).
"""

import numpy as np

from mechverify.kernel.core.claim import Job
from mechverify.kernel.core.counts import Counts
from mechverify.kernel.core.domain import Domain
from mechverify.kernel.core.errors import Rejected
from mechverify.kernel.core.fields import Reader
from mechverify.kernel.core.judging import decide, settle


def enumerate(job: Job, domain: Domain, witness: Reader) -> Counts:
    """Postcondition: exact, except for inputs whose margin rounding leaves open, which count for neither bound; the
    witness says whether these are run again, `exactly`. The model is run on those alone that satisfy the claim's guard.
    Complexity: their number times the cost of one evaluation."""
    exactly = not job.old and "exactly" in witness.value and witness["exactly"].flag()
    witness.close()
    _one_by_one(job)
    judge = settle if exactly else decide
    right = wrong = run = 0
    for inputs in job.claim.inputs(job.ar, domain):
        sure = judge(job, inputs)
        right += int(sure[0].sum())
        wrong += int(sure[1].sum())
        run += len(inputs)
    return Counts(right + domain.size - run, domain.size - wrong)


def counterexample(job: Job, domain: Domain, witness: Reader) -> Counts:
    """Postcondition: at most size - (number listed) inputs are right. Rejects an input that is listed twice,
    lies outside the part or the guard, or is not surely wrong. Complexity: one evaluation an input, and one in exact
    arithmetic for those that float64 leaves open."""
    _one_by_one(job)
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


def leave_open(job: Job, domain: Domain, witness: Reader) -> Counts:
    """Postcondition: none: of the part nothing is said."""
    witness.close()
    return Counts(0, job.claim.most(job, domain))


def _one_by_one(job: Job) -> None:
    if not job.claim.by_example:
        raise Rejected("of a box, no inputs can be run one by one")
