"""The kernel's word on what was found, of a claim of any kind."""

import math
import time
from dataclasses import dataclass
from typing import Any

import numpy as np

from mechverify import kernel
from mechverify.certificate.write import Proof, announcing
from mechverify.errors import in_words
from mechverify.kernel.core.claim import Job
from mechverify.kernel.core.fields import Reader
from mechverify.kernel.proof import prove
from mechverify.provers.accuracy.problem import Evidence
from mechverify.provers.base import Budget
from mechverify.verdict import Verdict


@dataclass(repr=False)
class Outcome(Verdict):
    """A verdict, and how it was reached. For UNKNOWN the certificate proves the bounds that were reached, or is None.
    `reasons` say what stood in the way of a verdict, or of tighter bounds, and what to try. `unchecked`: a certificate
    that the kernel had no time to check, and of which nothing is said."""

    evidence: Evidence | None
    reasons: list[str]
    search_seconds: float
    check_seconds: float
    unchecked: bytes | None = None

    def __post_init__(self) -> None:
        self.reasons = [in_words(reason) for reason in self.reasons]

    @property
    def notes(self) -> list[str]:
        return self.reasons


def derived(job: Job, proof: Proof) -> Any:
    """What the kernel bounds with a proof. It may differ in its last bits from what the search believes, which relaxed
    other parts side by side. Raises Rejected, Stopped."""
    with np.errstate(all="ignore"):
        return prove(job, Reader(proof, "proof"))[0]


def checked(certificate: bytes, budget: Budget) -> tuple[kernel.Theorem, bytes]:
    """The theorem, and the certificate, which now says what its check takes. Raises Stopped where that is more than is
    left of the budget."""
    began, expected, budget.checking = time.monotonic(), budget.reserved, True

    def watch(work: int, allowed: float) -> None:
        share = (time.monotonic() - began) / expected if expected else None
        budget.progress(
            "the kernel checks the certificate",
            None if share is None else min(share, 0.99),
        )
        budget.watch_check(work, allowed)

    theorem = kernel.check(certificate, limit=math.inf, watch=watch)
    budget.checking = False
    return theorem, announcing(certificate, theorem.work)


def no_time(budget: Budget) -> str:
    said = (
        "interrupted"
        if budget.interrupted
        else "the time limit was reached (raise --time-limit)"
    )
    return f"{said} before the kernel had checked what was found"


def unchecked(
    certificate: bytes,
    evidence: Evidence | None,
    reasons: list[str],
    start: float,
    searched: float,
) -> Outcome:
    """Nothing is said of what the kernel hasn't accepted; it is kept."""
    return Outcome(
        "UNKNOWN",
        None,
        None,
        evidence,
        reasons,
        searched - start,
        time.monotonic() - searched,
        certificate,
    )
