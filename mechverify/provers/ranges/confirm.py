"""The kernel's word on what was found of a claim about ranges, and the verdict."""

import time

import numpy as np

from mechverify import kernel
from mechverify.certificate.write import Proof, write
from mechverify.claims.bounds import Bounds
from mechverify.claims.errors import ClaimError
from mechverify.kernel.core.claim import Job
from mechverify.kernel.core.errors import Rejected, Stopped
from mechverify.kernel.core.float64 import Float64
from mechverify.kernel.core.ranges import Range, RangeTheorem
from mechverify.provers.base import Budget
from mechverify.provers.confirm import Outcome, checked, derived, no_time, unchecked
from mechverify.provers.ranges.known import Found, Known
from mechverify.provers.ranges.problem import RangeProblem

ROUNDED = "corners that are no float64 numbers are rounded outwards: the theorem's domain contains yours"


def confirm_range(
    problem: RangeProblem, claim: Bounds, known: Known, budget: Budget, start: float
) -> Outcome:
    """The outcome with what was found, or, where the kernel refuses that, with the whole domain's relaxation."""
    found, data, searched = known.found, claim.output.model.data, time.monotonic()
    for attempt in (found, known.kept):
        if attempt is None or attempt.proof is None:
            continue
        try:
            theorem, certificate = _accept(
                problem, data, attempt, attempt.proof, budget
            )
        except Rejected as error:
            found.reasons.append(f"the kernel doesn't confirm what was found: {error}")
            continue
        except Stopped:
            verdict = _believed(problem, attempt, attempt.range)
            unread = write(
                problem.claim.stated, data, attempt.proof, verdict, attempt.range
            )
            return unchecked(
                unread, None, [*found.reasons, no_time(budget)], start, searched
            )
        verdict, reasons = _verdict(problem, theorem, found.reasons)
        reasons = [*reasons, ROUNDED] if claim.over.inner is not None else reasons
        seconds = searched - start, time.monotonic() - searched
        return Outcome(verdict, theorem, certificate, None, reasons, *seconds)
    return Outcome(
        "UNKNOWN", None, None, None, found.reasons, time.monotonic() - start, 0.0
    )


def _accept(
    problem: RangeProblem, data: bytes, found: Found, proof: Proof, budget: Budget
) -> tuple[kernel.Theorem, bytes]:
    """The theorem that the kernel makes of what was found, and the certificate: as the search believes, or, where
    that is wrong in the last bits, as the kernel itself finds. Raises Rejected, Stopped, and ClaimError where the
    kernel shows that the claim is about no input."""

    def stating(range_: Range) -> bytes:
        return write(
            problem.claim.stated, data, proof, _believed(problem, found, range_), range_
        )

    try:
        return checked(stating(found.range), budget)
    except Rejected:
        range_ = derived(Job(problem.claim, Float64(watch=budget.watch_check)), proof)
    if range_.empty:
        raise ClaimError(
            "no input of the domain satisfies the claim's conditions: nothing is claimed; "
            "loosen given=, or widen the domain"
        )
    return checked(stating(range_), budget)


def _believed(problem: RangeProblem, found: Found, range_: Range) -> str:
    if found.broken:
        return "REFUTED"
    return "PROVED" if problem.asks and problem.proves(range_) else "BOUNDED"


def _verdict(
    problem: RangeProblem, theorem: kernel.Theorem, reasons: list[str]
) -> tuple[str, list[str]]:
    """The verdict that the user reads, and what stood in the way of another one: of a claim with thresholds, bounds
    alone decide nothing; nor do bounds that bound nothing, of one without."""
    if theorem.verdict != "BOUNDED":
        return theorem.verdict, reasons
    if problem.asks:
        replayed = isinstance(theorem, RangeTheorem) and theorem.attained is not None
        none = "; no input that was replayed breaks one" if replayed else ""
        return "UNKNOWN", [
            f"the proved bounds don't reach the thresholds{none}",
            *reasons,
        ]
    if isinstance(theorem, RangeTheorem) and not np.isfinite(theorem.range).any():
        return "UNKNOWN", ["nothing is bounded, from either side", *reasons]
    return "BOUNDED", reasons
