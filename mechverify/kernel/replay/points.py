"""Rules of claims about ranges that run the model on single inputs, `point`, or on none, `solver`.

Lemmas C9 (docs/soundness/core.md); O3 (docs/soundness/options.md).
"""

from fractions import Fraction
from math import prod

import numpy as np

from mechverify.kernel.core.claim import Job
from mechverify.kernel.core.domain import Domain
from mechverify.kernel.core.errors import OverLimit, Rejected, Unsupported
from mechverify.kernel.core.evaluate import Evaluation, batch_size
from mechverify.kernel.core.fields import Reader
from mechverify.kernel.core.loading import late
from mechverify.kernel.core.neighbours import float_above, float_below
from mechverify.kernel.core.ranges import Range, read_range
from mechverify.kernel.core.semantics import Real


def solver(job: Job, domain: Domain, witness: Reader) -> Range:
    """Postcondition: none but by the axiom `solver:z3`, which it adds to the theorem: z3 found no input of the part
    whose value leaves the range in the file."""
    if type(job.semantics) is not Real:
        raise Unsupported("a solver is asked about real values alone")
    job.axioms.add("solver:z3")
    stated = read_range(witness, job.claim.outputs)
    witness.close()
    if (stated.low > stated.high).any():
        raise Rejected("the range that a solver confirmed is upside down")
    return stated


def point(job: Job, domain: Domain, witness: Reader) -> Range:
    """Postcondition: the value at each listed input of the part is in a range that is left for the report, with whether
    it surely breaks a threshold; of the part as a whole nothing is said. Complexity: one evaluation an input, and one
    with twice the digits, or in exact arithmetic, for those that float64 leaves open."""
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
    if job.claim.union is not None:
        late("core.unions").need_inside(job, numbers)
    job.found.tokens.append(ids)
    job.found.points.append(numbers)
    attained, broken = enclose(job, ids, numbers)
    job.found.attained.append(attained)
    job.found.broken.append(broken)
    return job.claim.everything


def enclose(
    job: Job, tokens: np.ndarray, points: np.ndarray
) -> tuple[Range, np.ndarray]:
    """Bounds [inputs, entries] of the output at single inputs, and at which of them [inputs] an entry surely breaks its
    threshold: in float64, with twice its digits where that rejects inputs or leaves this open, and in exact arithmetic
    where these do. Rejects an input that isn't shown to satisfy the claim's conditions."""
    step = batch_size(job.claim.graph, [job.claim.output, *job.claim.where])
    return _by_parts(job, tokens, points, step)


def _by_parts(
    job: Job, tokens: np.ndarray, points: np.ndarray, step: int
) -> tuple[Range, np.ndarray]:
    parts = [slice(i, i + step) for i in range(0, len(tokens), step)]
    each = [_together(job, tokens[part], points[part]) for part in parts]
    ranges, broken = zip(*each, strict=True)
    ends = map(np.concatenate, zip(*ranges, strict=True))
    return Range(*ends), np.concatenate(broken)


def _together(
    job: Job, tokens: np.ndarray, points: np.ndarray
) -> tuple[Range, np.ndarray]:
    """The same of as many inputs as can be evaluated side by side."""
    kind = object if job.ar.is_exact else float  # Fractions stay what they are
    low, high = np.zeros((2, len(tokens), job.claim.outputs), kind)
    broken, decided = np.zeros((2, len(tokens)), bool)

    def evaluate(semantics: Real) -> None:
        some = ~decided
        try:
            found = enclosed(job, tokens[some], points[some], semantics)
        except (OverLimit, Unsupported):
            raise
        except Rejected:  # one of them, or each
            return
        (low[some], high[some]), broken[some], decided[some] = found

    evaluate(job.semantics)
    if type(job.semantics) is Real and not job.ar.is_exact:
        if not decided.all():
            late("core.elsewhere").doubled(job, evaluate)
    elif not decided.any() and len(tokens) > 1:
        return _by_parts(job, tokens, points, 1)
    for i in np.flatnonzero(~decided):
        low[i], high[i], broken[i] = _closer(job, tokens[i : i + 1], points[i : i + 1])
    return Range(low, high), broken


def _closer(
    job: Job, tokens: np.ndarray, points: np.ndarray
) -> tuple[np.ndarray, np.ndarray, bool]:
    """Of one input that float64 rejects or leaves open: with twice its digits, and in exact arithmetic where these do
    as well."""
    from mechverify.kernel.core import elsewhere  # only where it is needed

    def evaluate(semantics: Real) -> tuple[Range, np.ndarray, np.ndarray]:
        return enclosed(job, tokens, points, semantics)

    if type(job.semantics) is Real and not job.ar.is_exact:
        try:
            (low, high), broken, decided = elsewhere.doubled(job, evaluate)
            if decided[0]:
                return low[0], high[0], broken[0]
        except (OverLimit, Unsupported):
            raise
        except Rejected:
            pass
    (low, high), broken, _ = elsewhere.exactly(job, evaluate)
    below, above = (
        np.array([nearest(v) for v in end[0]])
        for nearest, end in ((float_below, low), (float_above, high))
    )
    return below, above, broken[0]


def enclosed(
    job: Job, tokens: np.ndarray, points: np.ndarray, semantics: Real
) -> tuple[Range, np.ndarray, np.ndarray]:
    """The output's bounds, floats or Fractions [inputs, entries]; where one entry surely breaks its threshold; and
    where that is decided, one way or the other."""
    claim, ar = job.claim, semantics.ar
    inputs, start = [], 0
    for shape in claim.shapes:
        inputs.append(points[:, start : start + prod(shape)].reshape(-1, *shape))
        start += prod(shape)
    values = Evaluation(claim.graph, claim.weights, semantics, tokens, inputs=inputs)
    if not all((ar.lower(values[n]) >= 0).all() for n in claim.where):
        raise Rejected("a point is not shown to satisfy the claim's conditions")
    value = values[claim.output]
    value = value.map(
        lambda a: np.broadcast_to(a, (len(tokens), *a.shape[1:])).reshape(
            len(tokens), -1
        )
    )
    low = ar.lower(value)
    high = ar.upper(value)
    if ar.is_exact:
        ar.spend(claim.outputs, 1, 100)
        unit = Fraction(2) ** value.exponent
        low, high = low * unit, high * unit
        least, most = job.once(_exact_thresholds)
    else:
        least, most = job.once(_float_thresholds)
    broken = ((high < least) | (low > most)).astype(bool).any(1)
    return (
        Range(low, high),
        broken,
        broken | ((low >= least) & (high <= most)).astype(bool).all(1),
    )


def _exact_thresholds(job: Job) -> tuple[np.ndarray, np.ndarray]:
    """[entries]; infinite where there are none."""
    claim = job.claim
    job.ar.spend(claim.outputs, 1, 100)
    least = claim.least or [-np.inf] * claim.outputs
    most = claim.most or [np.inf] * claim.outputs
    return np.array(least, object), np.array(most, object)


def _float_thresholds(job: Job) -> tuple[np.ndarray, np.ndarray]:
    """A float64 is below a threshold if and only if it is below the next float64."""
    job.ar.spend(job.claim.outputs, 1, 1_000)
    least, most = job.once(_exact_thresholds)
    return np.array(list(map(float_above, least))), np.array(
        list(map(float_below, most))
    )
