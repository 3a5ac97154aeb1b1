"""Rule `enumerate`: run the model on every input of the part, in balls."""

import numpy as np

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
    sizes = tuple(map(len, domain.tokens))
    right = wrong = 0
    for start in range(0, domain.size, BATCH):
        index = np.unravel_index(np.arange(start, min(start + BATCH, domain.size)), sizes)
        inputs = np.stack([np.array(t)[i] for t, i in zip(domain.tokens, index, strict=True)], -1)
        surely_right, surely_wrong = job.decide(inputs)
        right += int(surely_right.sum())
        wrong += int(surely_wrong.sum())
    return Bounds(right, domain.size - wrong)
