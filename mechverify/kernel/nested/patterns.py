"""Rule `nested` of claims about ranges: how much a head of the second layer attends to one position.

An entry of its pattern is 1 / (1 + sum_(i != k) e^(s_i - s_k)), so that upper bounds of differences of scores, in
windows of two tokens (scores.py), bound it from below; from above, e^(s_k - s_r) / (1 + e^(s_k - s_r)) does, with one
other position r.

Lemma N9 (docs/soundness/nested.md).
"""

import numpy as np

from mechverify.kernel.core.arithmetic import Arithmetic, Ball, points
from mechverify.kernel.core.claim import Job
from mechverify.kernel.core.domain import Domain
from mechverify.kernel.core.errors import Rejected, Unsupported
from mechverify.kernel.core.fields import Reader
from mechverify.kernel.core.ranges import Range
from mechverify.kernel.nested.layers import entry_of_pattern
from mechverify.kernel.nested.ranges import Row
from mechverify.kernel.nested.rule import exponentials, largest_sum
from mechverify.kernel.nested.scores import Scores
from mechverify.kernel.nested.sums import possible

NONE: frozenset[int] = frozenset()  # of positions that are known to differ


def check(job: Job, part: Domain, witness: Reader) -> Range:
    """`other`: a position that bounds the entry from above, or null.

    Precondition: the domain has tokens alone; the output is one entry of the second layer's pattern. Postcondition: on
    every sequence of the part, also on those that don't satisfy the claim's conditions, it is in the range. Complexity:
    for each token of the query that of `Scores`, once or twice.
    """
    if len(part.low) or part.facts:
        raise Rejected("rule nested is for token sequences alone")
    other = None if witness["other"].value is None else witness["other"].an_integer()
    witness.close()
    looking = job.once(Looked)
    if other is not None and (other == looking.position or other not in looking.keys):
        raise Rejected(f"position {other} is no other that the head attends to")
    low, high = 1.0, 0.0
    for query in part.tokens[looking.pin]:
        here = part.split(looking.pin, {query})[0]
        box = [np.array(sorted(tokens)) for tokens in here.tokens]
        low = np.minimum(low, looking.least(query, box))
        most = 1.0 if other is None else looking.most(query, box, other)
        high = np.maximum(high, most)
    return Range(np.array([low]), np.array([high]))


class Looked:
    """The row of a pattern that the claim's output is an entry of; `keys` are the rows that it attends to."""

    def __init__(self, job: Job):
        claim, self.ar = job.claim, job.ar
        if claim.semantics != "real":
            raise Unsupported("rule nested speaks of exact real arithmetic alone")
        found, self.position = entry_of_pattern(
            claim.graph, claim.weights, job.semantics, claim.output
        )
        self.pin, self.asking = found.query.pin, Row(self.ar, found.query)
        self.keys = {i: Row(self.ar, form) for i, form in found.keys.items()}

    def least(self, query: int, box: list[np.ndarray]) -> float:
        """Of the entry on sequences of the box: zero where nothing is known, or the head doesn't attend there."""
        if self.position not in self.keys:
            return 0.0
        factors = self._factors(query, box, self.position)
        if factors is None:
            return 0.0
        ar = self.ar
        nothing = ar.whole(np.zeros((1, 1, 1), np.int64))
        terms = [factors.get(i, nothing) for i in range(max(self.keys) + 1)]
        windows = [possible(i, box, NONE) for i in range(len(box))]
        most = points(largest_sum(ar, terms, windows).max(), terms[0].exponent)
        return float(ar.lower(ar.div(_one(ar), ar.add(_one(ar), most))))

    def most(self, query: int, box: list[np.ndarray], other: int) -> float:
        """Of the entry, by the head's score at another position."""
        if self.position not in self.keys:
            return 0.0
        factors = self._factors(query, box, other)
        if factors is None:
            return 1.0
        ar, factor = self.ar, factors[self.position]
        largest = points(factor.mid.max(), factor.exponent)
        share = ar.div(largest, ar.add(_one(ar), largest))
        return min(1.0, float(ar.upper(share)))

    def _factors(
        self, query: int, box: list[np.ndarray], reference: int
    ) -> dict[int, Ball] | None:
        """Upper bounds [tokens at the reference, tokens before, own tokens] of e^(s_i - s_r); None where one is too
        large."""
        scores = Scores(self.ar, self.asking, self.keys, query, box, reference, NONE)
        return exponentials(self.ar, scores.differences(box, True))


def _one(ar: Arithmetic) -> Ball:
    return ar.whole(np.ones((), np.int64))
