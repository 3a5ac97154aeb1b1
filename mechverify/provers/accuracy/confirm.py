"""The kernel's word on what was found of a claim about accuracy, and the verdict."""

import time

from mechverify.certificate.write import write
from mechverify.kernel.core.claim import Job
from mechverify.kernel.core.counts import Counts
from mechverify.kernel.core.errors import Rejected, Stopped
from mechverify.kernel.core.float64 import Float64
from mechverify.provers.accuracy.problem import (
    AccuracyProblem,
    Attempt,
    Findings,
    united,
)
from mechverify.provers.base import Budget
from mechverify.provers.confirm import Outcome, checked, derived, no_time, unchecked


def confirm_accuracy(found: Findings, budget: Budget, start: float) -> Outcome:
    """The outcome with all that was found. Where the kernel refuses it, a prover has a defect: what else was found must
    not be lost."""
    try:
        return accept(found, budget, start)
    except Rejected as error:
        reasons = [
            *found.reasons,
            f"the kernel doesn't confirm what was found: {error}",
        ]
        each = _acceptable(found.problem, found.attempts, budget)
        return accept(found._replace(attempts=each, reasons=reasons), budget, start)


def accept(findings: Findings, budget: Budget, start: float) -> Outcome:
    """The certificate of what was found, accepted by the kernel. The first attempt lists wrong inputs: alone it bounds
    next to nothing, which is no answer to a claim without a threshold."""
    problem, data, evidence, attempts, reasons = findings
    found = united(attempts)
    decided = problem.verdict(found.right, attempts[0].proof is not None)
    if found.proof is None:
        return Outcome(
            "UNKNOWN", None, None, evidence, reasons, time.monotonic() - start, 0.0
        )
    searched = time.monotonic()
    certificate = write(
        problem.document,
        data,
        found.proof,
        decided or "BOUNDED",
        problem.claim.within(found.right),
    )
    try:
        theorem, certificate = checked(certificate, budget)
    except Stopped:
        return unchecked(
            certificate, evidence, [*reasons, no_time(budget)], start, searched
        )
    verdict = decided or "UNKNOWN"
    if decided is None:
        reasons = ["the threshold lies between the proved bounds", *reasons]
    elif (
        decided == "BOUNDED"
        and found.proof is attempts[0].proof
        and not problem.settled(found.right)
    ):
        verdict, reasons = (
            "UNKNOWN",
            ["nothing but these wrong inputs is known", *reasons],
        )
    elif decided != "BOUNDED" or problem.settled(found.right):
        reasons = []
    seconds = searched - start, time.monotonic() - searched
    return Outcome(verdict, theorem, certificate, evidence, reasons, *seconds)


def _acceptable(
    problem: AccuracyProblem, attempts: list[Attempt], budget: Budget
) -> list[Attempt]:
    """Those that the kernel accepts, each by itself, with its own bounds."""
    size, kept = problem.claim.whole, []
    for attempt in attempts:
        if attempt.proof is None:
            kept.append(Attempt(None, Counts(0, size)))
            continue
        try:
            job = Job(problem.claim, Float64(watch=budget.watch_check))
            kept.append(Attempt(attempt.proof, derived(job, attempt.proof)))
        except (Rejected, Stopped):
            kept.append(Attempt(None, Counts(0, size)))
    return kept
