"""Rule `open`: of a part nothing is said.

Lemma C5 (docs/soundness/core.md).
"""

from mechverify.kernel.core.claim import Job
from mechverify.kernel.core.counts import Counts
from mechverify.kernel.core.domain import Domain
from mechverify.kernel.core.fields import Reader


def check(job: Job, domain: Domain, witness: Reader) -> Counts:
    """Postcondition: none: of the part nothing is said."""
    witness.close()
    return Counts(0, job.claim.most(job, domain))
