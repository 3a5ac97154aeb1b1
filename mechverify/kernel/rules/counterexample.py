"""Rule `counterexample`: listed inputs of the part are wrong; each is replayed."""

import numpy as np

from mechverify.kernel.errors import Rejected
from mechverify.kernel.fields import Reader
from mechverify.kernel.job import Bounds, Domain, Job


def inputs(domain: Domain, witness: Reader) -> np.ndarray:
    """The listed ids [inputs, length]: distinct, and all in the domain."""
    rows = [row.integers() for row in witness.list("inputs", limit=2**22)]
    if not rows or any(len(row) != domain.length for row in rows):
        raise Rejected("counterexample needs inputs of the domain's length")
    listed = np.array(rows, np.int64)
    if len(set(map(tuple, rows))) != len(rows) or not domain.contains(listed):
        raise Rejected("a counterexample is listed twice or lies outside its part of the domain")
    return listed


def check(job: Job, domain: Domain, witness: Reader) -> Bounds:
    """Postcondition: at most size - (number listed) inputs are right. Rejects an input that is not surely
    wrong. Complexity: one evaluation an input."""
    listed = inputs(domain, witness)
    witness.close()
    _, wrong = job.decide(listed)
    if not wrong.all():
        raise Rejected(f"input {listed[~wrong][0].tolist()} is not shown to be wrong")
    return Bounds(0, domain.size - len(listed))
