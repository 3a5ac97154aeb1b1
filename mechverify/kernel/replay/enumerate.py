"""Rule `enumerate`: the model is run on every input of a part.

Lemma C5 (docs/soundness/core.md).
"""

from mechverify.kernel.core.claim import Job
from mechverify.kernel.core.counts import Counts
from mechverify.kernel.core.domain import Domain
from mechverify.kernel.core.fields import Reader
from mechverify.kernel.core.judging import decide, need_inputs, settle


def check(job: Job, domain: Domain, witness: Reader) -> Counts:
    """Postcondition: exact, except for inputs whose margin rounding leaves open, which count for neither bound; the
    witness says whether these are run again, `exactly`. The model is run on those alone that satisfy the claim's guard.
    Complexity: their number times the cost of one evaluation."""
    exactly = not job.old and "exactly" in witness.value and witness["exactly"].flag()
    witness.close()
    need_inputs(job)
    judge = settle if exactly else decide
    right = wrong = run = 0
    for inputs in job.claim.inputs(job.ar, domain):
        sure = judge(job, inputs)
        right += int(sure[0].sum())
        wrong += int(sure[1].sum())
        run += len(inputs)
    return Counts(right + domain.size - run, domain.size - wrong)
