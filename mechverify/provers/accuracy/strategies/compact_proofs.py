"""The proof families of "Compact Proofs of Model Performance via Mechanistic Interpretability" (Gross et al. 2024,
arXiv 2406.11779), and ours beside them, as witnesses of rule `compact`."""

from collections.abc import Callable
from functools import partial

import numpy as np

from mechverify.kernel.compact.parts import output_parts
from mechverify.kernel.compact.peeled import Peeled
from mechverify.provers.accuracy.problem import AccuracyProblem, Attempt
from mechverify.provers.accuracy.strategies.compact import Pass, compact
from mechverify.provers.base import Budget


def by_token(
    problem: AccuracyProblem,
    budget: Budget,
    *,
    rivals: list[str],
    loose: int = 4,
    gain: float = 1e-7,
) -> Attempt:
    """Every token's own term; exact scores. Rivals as named, from cheap to dear, each where it shows more."""
    return compact(problem, budget, [Pass(r, "each", loose) for r in rivals], gain=gain)


def by_gap(problem: AccuracyProblem, budget: Budget, *, remainder: str | None = None, mean: bool = False,
           rivals: str = "together", loose: int = 1) -> Attempt:  # fmt: skip
    """Tokens up to some token (or from one on: the order that shows more), by running extremes; scores exact, or of
    rank one up to a remainder; the query's own part exact, or its mean row."""
    peeled = None if remainder is None else singular(problem, remainder)
    return compact(
        problem,
        budget,
        [Pass(rivals, order, loose) for order in ("ascending", "descending")],
        peeled,
        mean,
    )


def singular(problem: AccuracyProblem, remainder: str) -> Peeled:
    """The first singular vectors of the scores whose rows' means are taken off: softmax doesn't see those."""
    claim = problem.claim
    form = problem.job.once(output_parts)
    matrix = np.linalg.multi_dot(
        [
            np.eye(len(claim.graph.values)),
            *(m.mid for m in form.score["query", "token"]),
        ]
    )
    left, _, right = np.linalg.svd(matrix - matrix.mean(1, keepdims=True))
    return Peeled(left[:, 0], right[0], remainder)


COMPACT_PROOFS: dict[str, tuple[str, str, Callable[[AccuracyProblem, Budget], Attempt]]] = {
    # name: complexity of the check (d: width of the model, o: outputs, k: length), what it proves, how it is found
    "rivals": ("v^2 d + v^3 o + k v^2", "cells by every rival's own lead", partial(by_token, rivals=["apart"])),
    "refined": ("v^2 d + v^2 o + c v o + k v^2, c cells", "as rivals, and as cubic where that shows as much",
                partial(by_token, rivals=["scaled", "apart"])),
    "cubic": ("v^2 d + v^2 o + v^3", "cells by every token's own term", partial(by_token, rivals=["scaled"], loose=2)),
    "tokens": ("v^2 d + v^3", "as cubic, rivals unscaled", partial(by_token, rivals=["together"], loose=0)),
    "subcubic": ("v^2 d + k v^2", "cells by a gap below the maximum", by_gap),
    "lowrank-qk-svd": ("v^2 d + v^2 o", "scores of rank one, rest by its norm",
                       partial(by_gap, remainder="svd", rivals="scaled")),
    "lowrank-qk-maxdiff": ("v d^2 + v o d + k v^2", "scores of rank one, rest by ranges",
                           partial(by_gap, remainder="maxdiff")),
    "lowrank-qk-meandiff": ("v d^2 + v o d + k v^2", "as maxdiff, with its mean row",
                            partial(by_gap, remainder="meandiff")),
    "lowrank-qk-subproduct": ("v d^2 + v o d + k v^2", "scores of rank one, rest by norms of two factors",
                              partial(by_gap, remainder="subproduct")),
    "lowrank-eu": ("v^2 d + v^2 o", "the query's own logits by their mean row",
                   partial(by_gap, mean=True, rivals="scaled")),
    "lowrank-qk-eu": ("v d^2 + v o d + v^2 o", "both",
                      partial(by_gap, remainder="maxdiff", mean=True, rivals="scaled")),
    "quadratic-qk": ("v d + d^3 + v o d + k v^2", "scores of rank one, rest by each factor's norm",
                     partial(by_gap, remainder="norms")),
    "quadratic-qk-maxdiff": ("v d + v o d + v^2 o", "scores of rank one, rest by ranges from factor to factor",
                             partial(by_gap, remainder="recursive", rivals="scaled")),
    "quadratic-qk-eu": ("v d + d^3 + v o d + v^2 o", "both quadratic-qk and lowrank-eu",
                        partial(by_gap, remainder="norms", mean=True, rivals="scaled")),
}  # fmt: skip
