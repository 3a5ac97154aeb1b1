"""A claim about accuracy as the search sees it, what was seen of it, and what a prover gives back."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property, reduce
from typing import Any, NamedTuple

import numpy as np

from mechverify.certificate.write import Proof, claim_document
from mechverify.claims.accuracy import Accuracy
from mechverify.claims.errors import ClaimError
from mechverify.claims.mechanisms import Row
from mechverify.claims.share import Share
from mechverify.kernel.core.claim import Claim, Job
from mechverify.kernel.core.counts import CountingClaim, Counts
from mechverify.kernel.core.domain import Domain
from mechverify.kernel.core.errors import Rejected
from mechverify.kernel.core.fields import Reader
from mechverify.kernel.core.float64 import Float64
from mechverify.kernel.core.integers import FOLDS
from mechverify.kernel.core.kinds import read_claim
from mechverify.kernel.core.meter import Watch
from mechverify.kernel.fold.rule import InputClass, Partition, output_form
from mechverify.provers.accuracy.torch_margins import Margins, margins_of

KEYS = 8  # that a witness of rule fold may have
TRIALS = 16  # values that a neuron in a cell of rule fold is compared with


@dataclass
class AccuracyProblem:
    """A claim Accuracy or Share, read exactly as the kernel reads it."""

    document: dict[str, Any]
    data: bytes  # the weights' file
    claim: CountingClaim
    job: Job
    known: Counts | None = None  # what earlier provers found

    @property
    def domain(self) -> Domain:
        return self.claim.domain

    def inputs(self, part: Domain) -> Iterator[np.ndarray]:
        """Those of a part that satisfy the claim's guard, ids [number, length], in blocks."""
        return self.claim.inputs(self.job.ar, part)

    def size(self, part: Domain) -> int:
        """How many those are."""
        return sum(map(len, self.inputs(part))) if self.claim.guarded else part.size

    @property
    def at_least(self) -> Fraction | None:
        return self.claim.at_least

    @staticmethod
    def of(
        claim: Accuracy | Share, semantics: str, watch: Watch | None = None
    ) -> "AccuracyProblem":
        """`watch` is told of the work that the search has the kernel's arithmetic do. Raises ClaimError where no input
        satisfies the claim's conditions, or it can't be told how many do."""
        document, data = claim_document(claim, semantics), claim.output.model.data
        try:
            claimed = read_claim(Reader(document, "claim"), data)
        except Rejected as error:
            raise ClaimError(str(error)) from None
        return _about(document, data, claimed, watch)

    travels = True  # to other processes

    def watched(self, watch: Watch) -> None:
        self.job.ar.watch = watch

    @cached_property
    def content(self) -> str:
        """What decides each answer about it."""
        text = json.dumps(self.document, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def __reduce__(self) -> tuple:
        return made, (self.document, self.data)

    @cached_property
    def margins(self) -> Margins:
        """By how much inputs are right, in torch."""
        return margins_of(self.job)

    @cached_property
    def trials(self) -> int | None:
        """Of rule fold: how often to compare each neuron; None without neurons. Raises Unsupported
        where the output has no ratio form."""
        with np.errstate(all="ignore"):
            return None if self.job.once(output_form).neurons is None else TRIALS

    @cached_property
    def keys(self) -> list[list[Row]]:
        """What the cells of rule fold tell apart besides the mechanism's value. A neuron is nearly linear on a cell
        where it reads nearly the same: then, the folds that the mechanism is made of (the sum in its sign)."""
        return (
            [] if self.trials is None else inner_folds(self.document["equals"])[:KEYS]
        )

    @cached_property
    def partition(self) -> Partition:
        """The domain's cells under rule fold; raises Unsupported where it has none."""
        return self.partitioned(self.keys)

    @cached_property
    def classes(self) -> dict[tuple[int, ...], InputClass]:
        """Of the partition, in its order."""
        return {key: InputClass(self.partition, key) for key in self.partition.places}

    def partitioned(self, keys: list[list[Row]]) -> Partition:
        with np.errstate(all="ignore"):
            return Partition(
                self.job,
                self.domain,
                [Reader(rows, "keys") for rows in keys],
                self.trials,
            )

    def verdict(self, right: Counts, has_counterexample: bool) -> str | None:
        """What the bounds decide; None while the threshold lies between them."""
        if self.at_least is None:
            return "BOUNDED"
        inside = self.claim.within(right)
        if inside.low >= self.at_least * self.claim.total:
            return "PROVED"
        if inside.high < self.at_least * self.claim.total and (
            has_counterexample or not self.claim.by_example
        ):
            return "REFUTED"
        return None

    def settled(self, right: Counts) -> bool:
        """Nothing is left to find out."""
        if self.at_least is None or right.low == right.high:
            return right.low == right.high
        return self.verdict(right, True) is not None


def made(
    document: dict[str, Any], data: bytes, watch: Watch | None = None
) -> AccuracyProblem:
    return _about(document, data, read_claim(Reader(document, "claim"), data), watch)


def _about(
    document: dict[str, Any], data: bytes, claim: Claim, watch: Watch | None
) -> AccuracyProblem:
    assert isinstance(claim, CountingClaim)
    job = Job(claim, Float64(watch=watch))
    return AccuracyProblem(document, data, job.claim, job)


@dataclass
class Evidence:
    """What sampling and search saw: `wrong` [inputs, length], distinct, all replayed in the kernel's
    arithmetic, the worst first; `rivals` [inputs] the output that won (the best of those that should not); the share of
    uniform samples right; the least margin seen, in float64; and, where every input was run, the margin of each, in the
    order of the domain."""

    wrong: np.ndarray
    rivals: np.ndarray
    accuracy: float
    samples: int
    least: float
    margins: np.ndarray | None = None


@dataclass
class Attempt:
    """A proof (None: nothing proved) and the bounds of the right inputs that it should give, of the whole domain (those
    that don't satisfy a guard count as right); what stood in the way of
    better ones; and some wrong inputs [number, length] that were met."""

    proof: Proof | None
    right: Counts
    reason: str | None = None
    wrong: np.ndarray | None = None


def united(attempts: list[Attempt]) -> Attempt:
    """All proofs together."""
    return reduce(_meet, attempts)


def _meet(a: Attempt, b: Attempt) -> Attempt:
    """Both proofs together: the better of each bound."""
    right = Counts(max(a.right.low, b.right.low), min(a.right.high, b.right.high))
    if a.proof is None or b.proof is None:
        return Attempt(b.proof if a.proof is None else a.proof, right)
    return Attempt({"rule": "both", "first": a.proof, "second": b.proof}, right)


class Findings(NamedTuple):
    """All that the search came to: the claim's problem, the model's weights file, what was seen, every prover's attempt
    (first the wrong inputs that are listed), and what stood in the way."""

    problem: AccuracyProblem
    data: bytes
    evidence: Evidence | None
    attempts: list[Attempt]
    reasons: list[str]


def inner_folds(rows: list[Row]) -> list[list[Row]]:
    """The parts of an expression that fold values of one token each, of several tokens; not the expression itself."""
    support: list[set[int]] = []
    found = []
    for i, (op, operands, attribute) in enumerate(rows):
        support.append(
            {attribute}
            if op == "value"
            else set().union(*(support[a] for a in operands))
        )
        folded = (
            op in FOLDS
            and len(support[i]) > 1
            and all(len(support[a]) <= 1 for a in operands)
        )
        if folded and i < len(rows) - 1:
            found.append(_part(rows, i))
    return found


def _part(rows: list[Row], root: int) -> list[Row]:
    """The rows that `root` needs, referring to each other."""
    needed = {root}
    for i in range(root, -1, -1):
        needed |= set(rows[i][1]) if i in needed else set()
    place = {old: new for new, old in enumerate(sorted(needed))}
    return [
        [rows[i][0], [place[a] for a in rows[i][1]], rows[i][2]] for i in sorted(needed)
    ]
