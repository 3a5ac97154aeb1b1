"""What every prover gets, and what it gives back."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property
from typing import Any, Protocol

import numpy as np

from mechverify.certificate.write import Proof, claim_document
from mechverify.claims.claim import Accuracy
from mechverify.kernel import claim as kernel_claim
from mechverify.kernel.claim import Bounds, Domain, Job
from mechverify.kernel.fields import Reader
from mechverify.kernel.float64 import Float64
from mechverify.kernel.rules.fold import Partition

METHODS = ("interval", "linear", "optimised", "branching")  # for bounds, from cheap to dear
Progress = Callable[[str, float | None], None]  # what is being done; how much of it is done, from 0 to 1


@dataclass
class Problem:
    """A claim, read exactly as the kernel reads it."""

    document: dict[str, Any]
    claim: kernel_claim.Claim
    job: Job

    @property
    def domain(self) -> Domain:
        return self.claim.domain

    @property
    def at_least(self) -> Fraction | None:
        return self.claim.at_least

    @staticmethod
    def of(claim: Accuracy, semantics: str) -> "Problem":
        document = claim_document(claim, semantics)
        checked = kernel_claim.Claim(Reader(document, "claim"), claim.output.model.data)
        return Problem(document, checked, Job(checked, Float64()))

    @cached_property
    def partition(self) -> Partition:
        """The domain's cells under rule fold; raises Unsupported where it has none."""
        with np.errstate(all="ignore"):
            return Partition(self.job, self.domain, [])

    def verdict(self, right: Bounds, has_counterexample: bool) -> str | None:
        """What the bounds decide; None while the threshold lies between them."""
        if self.at_least is None:
            return "BOUNDED"
        if right.low >= self.at_least * self.domain.size:
            return "PROVED"
        if right.high < self.at_least * self.domain.size and has_counterexample:
            return "REFUTED"
        return None

    def settled(self, right: Bounds) -> bool:
        """Nothing is left to find out."""
        if self.at_least is None or right.low == right.high:
            return right.low == right.high
        return self.verdict(right, True) is not None


@dataclass
class Evidence:
    """What sampling and search saw: `wrong` [inputs, length], distinct, all replayed in the kernel's
    arithmetic, the worst first; `rivals` [inputs] the output that won; the share of uniform samples right."""

    wrong: np.ndarray
    rivals: np.ndarray
    accuracy: float
    samples: int


@dataclass
class Attempt:
    """A proof (None: nothing proved) and the bounds of the right inputs that it should give."""

    proof: Proof | None
    right: Bounds


@dataclass
class Budget:
    """Time and interruption. A prover asks `spent` between steps, and then returns what it has."""

    deadline: float = float("inf")
    progress: Progress = lambda what, share: None
    interrupted: bool = field(default=False)

    def spent(self) -> bool:
        return self.interrupted or time.monotonic() > self.deadline


class Prover(Protocol):
    name: str

    def accepts(self, problem: Problem, evidence: Evidence) -> str | None:
        """None if this prover can try; otherwise the reason why it can't, with what to do."""
        ...

    def prove(self, problem: Problem, evidence: Evidence, budget: Budget) -> Attempt: ...
