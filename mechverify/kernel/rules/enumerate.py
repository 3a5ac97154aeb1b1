"""Rule `enumerate`: run the model on every input of the part, in balls."""

from mechverify.kernel.errors import Unsupported
from mechverify.kernel.fields import Reader
from mechverify.kernel.job import Bounds, Domain, Job

INPUT_LIMIT = 2**25
BATCH = 2**13


def check(job: Job, domain: Domain, witness: Reader) -> Bounds:
    """Precondition: at most 2^25 inputs. Postcondition: exact, except for inputs whose margin rounding
    leaves open, which count for neither bound. Complexity: inputs times the cost of one evaluation."""
    witness.close()
    if domain.size > INPUT_LIMIT:
        raise Unsupported(f"{domain.size} inputs are too many to enumerate (limit 2^25)")
    right = wrong = 0
    for start in range(0, domain.size, BATCH):
        inputs = domain.inputs(start, min(start + BATCH, domain.size))
        surely_right, surely_wrong = job.decide(inputs)
        right += int(surely_right.sum())
        wrong += int(surely_wrong.sum())
    return Bounds(right, domain.size - wrong)
