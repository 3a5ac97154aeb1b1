"""The dimensions of a model that a proof leaves unexplained: estimates by hand, as the paper's.

What is counted: docs/compact_proofs.md.
"""

from mechverify.kernel.compact.parts import output_parts
from mechverify.provers.accuracy.problem import AccuracyProblem

# Of what is left of scores without a matrix of rank one, in vocabulary v and width d: a singular value, ranges
# on both sides (and a mean row), norms of rows and columns.
REMAINDERS = {
    "svd": lambda v, d: 1,
    "maxdiff": lambda v, d: 2 * d,
    "meandiff": lambda v, d: 2 * d + v,
    "subproduct": lambda v, d: 2 * v,
    "norms": lambda v, d: 2 * v,
    "recursive": lambda v, d: 2 * d,
}


def outputs_of_inputs(problem: AccuracyProblem) -> int:
    """Of brute force: the logits of every input."""
    return problem.claim.total * problem.claim.outputs


def tables(problem: AccuracyProblem) -> int:
    """Of rule fold: scores [query, token, position], values [token, position, output], base [query, output]."""
    vocab, length, outputs = (
        len(problem.claim.graph.values),
        problem.domain.length,
        problem.claim.outputs,
    )
    return vocab * (outputs + length * (vocab + outputs))


def parts(
    problem: AccuracyProblem, remainder: str | None = None, mean: bool = False
) -> int:
    """Of rule compact: scores [query, token] and [query, position], values [token, output] and [position, output], base
    [query, output]; of scores of rank one, two vectors and what bounds the rest; of a mean row, it and a width each."""
    claim = problem.claim
    vocab, length, outputs = (
        len(claim.graph.values),
        problem.domain.length,
        claim.outputs,
    )
    scores = vocab * vocab
    if remainder is not None:
        form = problem.job.once(output_parts)
        width = form.score["query", "token"][0].mid.shape[1]
        scores = 2 * vocab + REMAINDERS[remainder](vocab, width)
    base = vocab + outputs if mean else vocab * outputs
    return scores + base + vocab * outputs + length * (vocab + outputs)
