"""The value of a softmax.

Lemma C4 (docs/soundness/core.md).
"""

import numpy as np

from mechverify.kernel.core.arithmetic import Ball
from mechverify.kernel.core.semantics import Real
from mechverify.kernel.core.series import exp_parts, relative_exponentials


def softmax(semantics: Real, scores: Ball, kept: np.ndarray) -> Ball:
    """Over the last axis; exactly zero where not kept."""
    ar, n = semantics.ar, kept.shape[-1]
    blank = ar.whole(np.zeros(1, np.int64))
    scores = semantics.scores(ar.where(kept, scores, blank), (-1,))
    factors = relative_exponentials(ar, exp_parts(ar, scores), kept, -1)
    factors = ar.where(kept, factors, blank)
    ones = ar.whole(np.ones(factors.mid.shape[-1], np.int64))
    total = ar.contract("i,i->", factors, ones)
    result = semantics.probabilities(ar.div(factors, total.at[..., None]), n)
    return ar.where(kept, result, blank)
