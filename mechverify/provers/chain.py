"""Provers from cheap to dear, and the kernel's word on what they found."""

import time
from dataclasses import dataclass
from fractions import Fraction
from math import ceil
from pathlib import Path

from mechverify import kernel
from mechverify.bounds.optimise import Slopes
from mechverify.certificate.write import write
from mechverify.claims.claim import Accuracy, Bounds
from mechverify.claims.errors import ClaimError
from mechverify.kernel.claim import Bounds as Counts
from mechverify.kernel.errors import Unsupported
from mechverify.provers.base import Attempt, Budget, Evidence, Problem, Progress, Prover
from mechverify.provers.bounds import search
from mechverify.provers.cut import cut
from mechverify.provers.enumerate import Enumerate
from mechverify.provers.falsify import GRID, falsify
from mechverify.provers.fold import Fold
from mechverify.provers.margin import largest_margin
from mechverify.provers.ranges import BoundsProblem, confirmed
from mechverify.provers.smt import Solver
from mechverify.provers.strategies import chosen

FEW = 2**12  # integer inputs that are split one from another before a solver is asked
SHOWN = 16  # wrong inputs listed in a certificate, or as many as refute the claim

# Enumeration decides a small domain; it is also the last resort on one of moderate size.
PROVERS: list[Prover] = [Enumerate(limit=2**14), Fold(), Enumerate(limit=2**18)]


@dataclass
class Outcome:
    """`verdict` is PROVED, REFUTED, BOUNDED or UNKNOWN. The certificate was accepted by the kernel, which
    made `theorem`; for UNKNOWN it proves the bounds that were reached, or is None where nothing was proved.
    `reasons` say what stood in the way of a verdict, or of tighter bounds, and what to try."""

    verdict: str
    theorem: kernel.Theorem | None
    certificate: bytes | None
    evidence: Evidence | None
    reasons: list[str]
    search_seconds: float
    check_seconds: float


def prove(
    claim: Accuracy | Bounds, *, semantics: str = "real", time_limit: float | None = None,
    progress: Progress | None = None, budget: Budget | None = None, method: str = "branching", device: str = "cpu",
    slopes: Slopes | None = None, solver: bool = True, smtlib: Path | None = None, strategy: str | None = None,
) -> Outcome:  # fmt: skip
    """Falsify, search, write the certificate, and have the kernel check it. For claims about bounds: `method`, one of
    base.METHODS; torch's `device`; `slopes` to try, say those of bounds.lirpa; whether to ask a `solver` what bounds
    leave open; and the folder `smtlib` for its queries. For claims about accuracy: a `strategy`, by its name in
    provers.strategies, which is then all that is tried.

    Postcondition: what the outcome says was accepted by the kernel. When time is up, or on an interrupt
    (`budget.interrupted`), the outcome holds what was proved until then. Raises Rejected if a prover
    wrote a proof that the kernel refuses, which is a defect of the prover.
    """
    start = time.monotonic()
    budget = budget or Budget()
    if time_limit is not None:
        budget.deadline = start + time_limit
    if progress is not None:
        budget.progress = progress
    if strategy is not None:
        return _follow(claim, strategy, semantics, budget, start)
    if isinstance(claim, Bounds):
        problem = BoundsProblem.of(claim, semantics, device)
        return _prove_bounds(problem, claim, budget, method, slopes or {}, Solver(solver, smtlib), start, semantics)
    problem = Problem.of(claim, semantics)
    evidence = falsify(problem, budget)
    if claim.margin is None and (margin := _largest_margin(problem, evidence, budget)):
        claim = Accuracy(claim.output, equals=claim.equals, over=claim.over, at_least=claim.at_least, margin=margin)
        problem = Problem.of(claim, semantics)
    found = _listed(problem, evidence)
    reasons, refused = [], 0
    for prover in PROVERS:
        if problem.settled(found.right) or budget.spent():
            break
        reason = prover.accepts(problem, evidence)
        if reason:
            refused += 1
            reasons = [*(r for r in reasons if r != f"{prover.name}: {reason}"), f"{prover.name}: {reason}"]
            continue
        try:
            found = _meet(found, prover.prove(problem, evidence, budget))
        except kernel.Rejected as error:  # say, weights so large that enclosures overflow
            reasons.append(f"{prover.name}: {error}")
    decided = problem.verdict(found.right, len(evidence.wrong) > 0)
    if decided and not (decided == "BOUNDED" and found.right.low == 0):  # else nothing but wrong inputs was found
        reasons = []
    if budget.spent() and not problem.settled(found.right):
        more = "" if refused == len(PROVERS) else "; raise --time-limit"  # no prover would use it
        reasons.append("interrupted" if budget.interrupted else f"the time limit was reached{more}")
    return _confirmed(problem, claim, found, decided, evidence, reasons, budget, start)


def _follow(claim: Accuracy | Bounds, strategy: str, semantics: str, budget: Budget, start: float) -> Outcome:
    """One strategy, and nothing else: nobody looks for wrong inputs, so that the proof is the strategy's alone."""
    if not isinstance(claim, Accuracy) or claim.margin is None:
        raise ClaimError(
            f"--strategy {strategy}: strategies are for claims Accuracy(...), with a stated margin; leave it out"
        )
    problem, row = Problem.of(claim, semantics), chosen(strategy)
    try:
        found = row.find(problem, budget)
    except Unsupported as error:
        raise ClaimError(f"--strategy {strategy}: {error} (it needs: {row.precondition})") from None
    reasons = []
    if budget.spent():
        reasons.append("interrupted" if budget.interrupted else "the time limit was reached; raise --time-limit")
    decided = problem.verdict(found.right, False)
    try:
        return _confirmed(problem, claim, found, decided, None, reasons, budget, start)
    except kernel.Rejected as error:
        raise kernel.Rejected(f"the kernel refuses what strategy {strategy} found: {error}") from None


def _confirmed(
    problem: Problem, claim: Accuracy, found: Attempt, decided: str | None, evidence: Evidence | None,
    reasons: list[str], budget: Budget, start: float,
) -> Outcome:  # fmt: skip
    """The certificate of what was found, accepted by the kernel."""
    if found.proof is None:
        return Outcome("UNKNOWN", None, None, evidence, reasons, time.monotonic() - start, 0.0)
    if decided is None:
        reasons.insert(0, "the threshold lies between the proved bounds")
    certificate = write(problem.document, claim.output.model.data, found.proof, decided or "BOUNDED", found.right)
    searched = time.monotonic()
    budget.progress("the kernel checks the certificate", None)
    theorem = kernel.check(certificate, limit=float("inf"))
    return Outcome(
        decided or "UNKNOWN", theorem, certificate, evidence, reasons,
        searched - start, time.monotonic() - searched,
    )  # fmt: skip


def _largest_margin(problem: Problem, evidence: Evidence, budget: Budget) -> Fraction | None:
    """The margin to claim where any will do; zero, or None, where no better one was found."""
    try:
        return largest_margin(problem, evidence.least, budget)
    except Unsupported:  # no short fold: then all inputs were seen, or none is proved
        least = (evidence.least - 2 * GRID) * (1 - 1e-6)
        return Fraction(least) if least > 0 and evidence.samples == problem.domain.size else None


def _prove_bounds(
    problem: BoundsProblem, claim: Bounds, budget: Budget, method: str, slopes: Slopes, solver: Solver, start: float,
    semantics: str,
) -> Outcome:  # fmt: skip
    lemmas = claim.lemmas
    integers = not problem.claim.weights and not len(problem.domain.low) and solver.enabled
    integers &= problem.domain.size > FEW
    found = cut(problem, lemmas, budget, method) if lemmas else search(
        problem, budget, "linear" if integers else method, slopes)  # fmt: skip
    if problem.open(found) and not lemmas:
        found = solver.decide(problem, found, budget)
    if problem.open(found) and integers:  # cells are dear where there is nothing to relax
        found = search(problem, budget, method, slopes)
    if found.range.low[0] > found.range.high[0]:
        raise ClaimError("no input of the domain satisfies the claim's conditions: nothing is claimed")
    if found.proof is None:
        return Outcome("UNKNOWN", None, None, None, found.reasons, time.monotonic() - start, 0.0)
    verdict = "REFUTED" if found.broken else "BOUNDED"
    if problem.asks and not found.broken and problem.proves(found.range):
        verdict = "PROVED"
    stated, data = problem.claim.stated, claim.output.model.data
    certificate = write(stated, data, found.proof, verdict, found.range)
    searched = time.monotonic()
    budget.progress("the kernel checks the certificate", None)
    try:
        theorem = kernel.check(certificate, limit=float("inf"))
    except kernel.Rejected:  # in the last bits? then what the kernel itself finds is stated
        range_ = confirmed(BoundsProblem.of(claim, semantics, problem.device).job, found.proof)
        verdict = "BOUNDED" if verdict == "PROVED" and not problem.proves(range_) else verdict
        certificate = write(stated, data, found.proof, verdict, range_)
        theorem = kernel.check(certificate, limit=float("inf"))
    undecided = problem.asks and verdict == "BOUNDED"
    reasons = ["the proved bounds don't reach the thresholds", *found.reasons] if undecided else found.reasons
    return Outcome(
        "UNKNOWN" if undecided else verdict, theorem, certificate, None, reasons,
        searched - start, time.monotonic() - searched,
    )  # fmt: skip


def _listed(problem: Problem, evidence: Evidence) -> Attempt:
    """The wrong inputs that were found, as a proof: a few, or enough to refute the claim."""
    known, size = len(evidence.wrong), problem.domain.size
    if not known:
        return Attempt(None, Counts(0, size))
    enough = 1 if problem.at_least is None else size - ceil(problem.at_least * size) + 1
    listed = enough if SHOWN < enough <= known else min(SHOWN, known)
    proof = {"rule": "counterexample", "inputs": evidence.wrong[:listed].tolist()}
    return Attempt(proof, Counts(0, size - listed))


def _meet(a: Attempt, b: Attempt) -> Attempt:
    """Both proofs together: the better of each bound."""
    right = Counts(max(a.right.low, b.right.low), min(a.right.high, b.right.high))
    if a.proof is None:
        return Attempt(b.proof, right)
    return Attempt({"rule": "both", "first": a.proof, "second": b.proof}, right)
