"""The provers of claims that count, from cheap to dear: falsify first, then each that can, until all is known."""

from dataclasses import replace
from fractions import Fraction
from math import ceil

import numpy as np

from mechverify.claims.accuracy import Accuracy
from mechverify.claims.errors import ClaimError
from mechverify.claims.share import Share
from mechverify.kernel.core.counts import Counts
from mechverify.kernel.core.errors import Rejected, Stopped, Unsupported
from mechverify.provers.accuracy.enumerate import Enumerate
from mechverify.provers.accuracy.falsify import falsify
from mechverify.provers.accuracy.fold import Fold
from mechverify.provers.accuracy.margin import enumerated_margin, largest_margin
from mechverify.provers.accuracy.mixtures import Mixtures
from mechverify.provers.accuracy.nested import Nested
from mechverify.provers.accuracy.problem import (
    AccuracyProblem,
    Attempt,
    Evidence,
    Findings,
    united,
)
from mechverify.provers.accuracy.ratios import Ratios
from mechverify.provers.accuracy.strategies import chosen
from mechverify.provers.base import Budget, Prover, failure

FEW = 2**14  # inputs that are run before anything else is tried
SHOWN = 16  # wrong inputs listed in a certificate, or as many as refute the claim

# Enumeration decides a small domain; it is also the last resort, for as many inputs as there is time for.
PROVERS: list[Prover[AccuracyProblem, Evidence, Attempt]] = [
    Enumerate(limit=FEW),
    Fold(),
    Ratios(),
    Nested(),
    Mixtures(),
    Enumerate(),
]


def find_accuracy(claim: Accuracy | Share, semantics: str, budget: Budget) -> Findings:
    """Postcondition: nothing of it was checked."""
    problem = AccuracyProblem.of(claim, semantics, budget.watch)
    evidence = falsify(problem, budget)
    if (
        isinstance(claim, Accuracy)
        and claim.margin is None
        and (margin := _largest_margin(problem, evidence, budget))
    ):
        claim = claim.changed(margin=margin)
        problem = AccuracyProblem.of(claim, semantics, budget.watch)
    reasons: list[str] = []
    attempts, untried = [_listed(problem, evidence)], False
    for prover in PROVERS:
        if problem.settled(united(attempts).right):
            break
        if budget.spent():
            untried = True
            break
        problem.known = united(attempts).right
        try:
            reason = prover.accepts(problem, evidence)
            if reason is None:
                attempt = _once(prover, problem, evidence, budget)
                attempts.append(attempt)
                untried |= budget.spent()
                reason = attempt.reason
                if (
                    attempts[0].proof is None
                    and attempt.wrong is not None
                    and len(attempt.wrong)
                ):
                    evidence = replace(
                        evidence,
                        wrong=attempt.wrong,
                        rivals=problem.margins.winner(attempt.wrong),
                    )
                    attempts[0] = _listed(problem, evidence)
        except Stopped:
            untried = True
            break
        except Exception as error:  # say, weights so large that enclosures overflow
            reason = failure(error)
        if not reason:
            continue
        reasons = [
            *(r for r in reasons if r != f"{prover.name}: {reason}"),
            f"{prover.name}: {reason}",
        ]
    if untried and not problem.settled(united(attempts).right):
        reasons.append(budget.why)
    return Findings(problem, claim.output.model.data, evidence, attempts, reasons)


def _once(
    prover: Prover[AccuracyProblem, Evidence, Attempt],
    problem: AccuracyProblem,
    evidence: Evidence,
    budget: Budget,
) -> Attempt:
    """What a prover finds, kept where there was time for all of it."""

    def find() -> list:
        found = prover.prove(problem, evidence, budget)
        wrong = None if found.wrong is None else found.wrong.tolist()
        return [found.proof, found.right, found.reason, wrong]

    seen = [problem.document, problem.known, {**vars(evidence)}]
    asked = [type(prover).__name__, {**vars(prover)}, *seen]
    proof, right, reason, wrong = budget.once(asked, find, lambda: not budget.spent())
    listed = None if wrong is None else np.array(wrong, np.int64).reshape(
        -1, problem.domain.length
    )  # fmt: skip
    return Attempt(proof, Counts(*right), reason, listed)


def followed(
    claim: Accuracy, strategy: str, semantics: str, budget: Budget
) -> Findings:
    """One strategy, and nothing else: nobody looks for wrong inputs, so that the proof is the strategy's alone."""
    problem, row = AccuracyProblem.of(claim, semantics, budget.watch), chosen(strategy)
    nothing = Attempt(None, Counts(0, problem.domain.size))
    try:
        found = row.find(problem, budget)
    except Unsupported as error:
        raise ClaimError(
            f"--strategy {strategy}: {error} (it needs: {row.precondition})"
        ) from None
    except Stopped:
        found = nothing
    reasons = [budget.why] if budget.spent() else []
    return Findings(problem, claim.output.model.data, None, [nothing, found], reasons)


def _largest_margin(
    problem: AccuracyProblem, evidence: Evidence, budget: Budget
) -> Fraction | None:
    """The margin to claim where any will do; zero, or None, where no better one was found. By enumeration where that
    comes first, by a fold where that says more than a few inputs do."""
    margins = evidence.margins
    if problem.at_least == 1 and (margins is None or problem.claim.total > FEW):
        try:
            return largest_margin(problem, evidence.least, budget)
        except Stopped:
            return None
        except Rejected:  # no short fold
            pass
    try:
        return None if margins is None else enumerated_margin(problem, margins)
    except (Rejected, Stopped):  # no input's value is known: then none is claimed
        return None


def _listed(problem: AccuracyProblem, evidence: Evidence) -> Attempt:
    """The wrong inputs that were found, as a proof: a few, or enough to refute the claim."""
    known, size, total = len(evidence.wrong), problem.domain.size, problem.claim.total
    if not known:
        return Attempt(None, Counts(0, size))
    enough = (
        1 if problem.at_least is None else total - ceil(problem.at_least * total) + 1
    )
    listed = enough if SHOWN < enough <= known else min(SHOWN, known)
    proof = {"rule": "counterexample", "inputs": evidence.wrong[:listed].tolist()}
    return Attempt(proof, Counts(0, size - listed))
