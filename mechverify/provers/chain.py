"""Provers from cheap to dear, and the kernel's word on what they found."""

import math
import time
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from math import ceil
from pathlib import Path

from mechverify import kernel
from mechverify.bounds.optimise import Slopes
from mechverify.certificate.write import announcing, write
from mechverify.claims.claim import Accuracy, Bounds
from mechverify.claims.errors import ClaimError
from mechverify.kernel.claim import Bounds as Counts
from mechverify.kernel.errors import Stopped, Unsupported
from mechverify.provers.base import Attempt, Budget, Evidence, Problem, Progress, Prover
from mechverify.provers.bounds import search
from mechverify.provers.cut import cut
from mechverify.provers.enumerate import Enumerate
from mechverify.provers.falsify import GRID, falsify
from mechverify.provers.fold import Fold
from mechverify.provers.margin import largest_margin
from mechverify.provers.ranges import BoundsProblem, Found, confirmed, everything
from mechverify.provers.smt import Solver
from mechverify.provers.strategies import chosen

EFFORT = 600.0  # seconds of search, where no limit is given
FEW = 2**12  # integer inputs that are split one from another before a solver is asked
SHOWN = 16  # wrong inputs listed in a certificate, or as many as refute the claim

# Enumeration decides a small domain; it is also the last resort on one of moderate size.
PROVERS: list[Prover] = [Enumerate(limit=2**14), Fold(), Enumerate(limit=2**18)]


@dataclass
class Outcome:
    """`verdict` is PROVED, REFUTED, BOUNDED or UNKNOWN. The certificate was accepted by the kernel, which
    made `theorem`; for UNKNOWN it proves the bounds that were reached, or is None where nothing was proved.
    `reasons` say what stood in the way of a verdict, or of tighter bounds, and what to try. `unchecked`: a certificate
    that the kernel had no time to check, and of which nothing is said."""

    verdict: str
    theorem: kernel.Theorem | None
    certificate: bytes | None
    evidence: Evidence | None
    reasons: list[str]
    search_seconds: float
    check_seconds: float
    unchecked: bytes | None = None


def prove(
    claim: Accuracy | Bounds, *, semantics: str = "real", time_limit: float | None = None,
    progress: Progress | None = None, budget: Budget | None = None, method: str = "branching", device: str = "cpu",
    slopes: Slopes | None = None, solver: bool = True, smtlib: Path | None = None, strategy: str | None = None,
) -> Outcome:  # fmt: skip
    """Falsify, search, write the certificate, and have the kernel check it. For claims about bounds: `method`, one of
    base.METHODS; torch's `device`; `slopes` to try, say those of bounds.lirpa; whether to ask a `solver` what bounds
    leave open; and the folder `smtlib` for its queries. For claims about accuracy: a `strategy`, by its name in
    provers.strategies, which is then all that is tried.

    `time_limit` seconds are for search and check together; without one, the search ends after EFFORT seconds, and the
    check takes what it takes.

    Postcondition: what the outcome says was accepted by the kernel. When time is up, or on an interrupt
    (`budget.interrupted`), the outcome holds what was proved until then. Raises Rejected if a prover
    wrote a proof that the kernel refuses, which is a defect of the prover.
    """
    start = time.monotonic()
    budget = budget or Budget()
    if time_limit is not None:
        budget.limit(time_limit)
    elif budget.deadline == math.inf and strategy is None:
        budget.deadline = start + EFFORT
    if progress is not None:
        budget.progress = progress
    if strategy is not None:
        return _follow(claim, strategy, semantics, budget, start)
    if isinstance(claim, Bounds):
        problem = BoundsProblem.of(claim, semantics, device, budget.watch)
        return _prove_bounds(problem, claim, budget, method, slopes or {}, Solver(solver, smtlib), start, semantics)
    problem = Problem.of(claim, semantics, budget.watch)
    evidence = falsify(problem, budget)
    if claim.margin is None and (margin := _largest_margin(problem, evidence, budget)):
        claim = Accuracy(claim.output, equals=claim.equals, over=claim.over, at_least=claim.at_least, margin=margin)
        problem = Problem.of(claim, semantics, budget.watch)
    found = _listed(problem, evidence)
    reasons = []
    for prover in PROVERS:
        if problem.settled(found.right) or budget.spent():
            break
        try:
            reason = prover.accepts(problem, evidence)
            if reason:
                reasons = [*(r for r in reasons if r != f"{prover.name}: {reason}"), f"{prover.name}: {reason}"]
                continue
            found = _meet(found, prover.prove(problem, evidence, budget))
        except Stopped:
            break
        except kernel.Rejected as error:  # say, weights so large that enclosures overflow
            reasons.append(f"{prover.name}: {error}")
    decided = problem.verdict(found.right, len(evidence.wrong) > 0)
    if decided:
        reasons = []
    if budget.spent() and not problem.settled(found.right):
        reasons.append(budget.why)
    return _confirmed(problem, claim, found, decided, evidence, reasons, budget, start)


def _follow(claim: Accuracy | Bounds, strategy: str, semantics: str, budget: Budget, start: float) -> Outcome:
    """One strategy, and nothing else: nobody looks for wrong inputs, so that the proof is the strategy's alone."""
    if not isinstance(claim, Accuracy) or claim.margin is None:
        raise ClaimError(
            f"--strategy {strategy}: strategies are for claims Accuracy(...), with a stated margin; leave it out"
        )
    problem, row = Problem.of(claim, semantics, budget.watch), chosen(strategy)
    try:
        found = row.find(problem, budget)
    except Unsupported as error:
        raise ClaimError(f"--strategy {strategy}: {error} (it needs: {row.precondition})") from None
    except Stopped:
        found = Attempt(None, Counts(0, problem.domain.size))
    reasons = []
    if budget.spent():
        reasons.append(budget.why)
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
    searched, budget.checking = time.monotonic(), True
    certificate = write(problem.document, claim.output.model.data, found.proof, decided or "BOUNDED", found.right)
    try:
        theorem, certificate = _checked(certificate, budget)
    except Stopped:
        return _unchecked(certificate, evidence, [*reasons, _no_time(budget)], start, searched)
    return Outcome(
        decided or "UNKNOWN", theorem, certificate, evidence, reasons,
        searched - start, time.monotonic() - searched,
    )  # fmt: skip


def _checked(certificate: bytes, budget: Budget) -> tuple[kernel.Theorem, bytes]:
    """The theorem, and the certificate, which now says what its check takes. Raises Stopped where that is more than is
    left of the budget."""
    began, expected = time.monotonic(), budget.reserved

    def watch(work: int, allowed: float) -> None:
        share = (time.monotonic() - began) / expected if expected else None
        budget.progress("the kernel checks the certificate", None if share is None else min(share, 0.99))
        budget.watch_check(work, allowed)

    theorem = kernel.check(certificate, limit=math.inf, watch=watch)
    budget.checking = False
    return theorem, announcing(certificate, theorem.work)


def _no_time(budget: Budget) -> str:
    said = "interrupted" if budget.interrupted else "the time limit was reached (raise --time-limit)"
    return f"{said} before the kernel had checked what was found"


def _unchecked(
    certificate: bytes, evidence: Evidence | None, reasons: list[str], start: float, searched: float
) -> Outcome:
    """Nothing is said of what the kernel hasn't accepted; it is kept."""
    return Outcome("UNKNOWN", None, None, evidence, reasons, searched - start, time.monotonic() - searched, certificate)


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
    try:
        found = cut(problem, lemmas, budget, method) if lemmas else search(
            problem, budget, "linear" if integers else method, slopes)  # fmt: skip
    except Stopped:
        found = Found(None, everything(problem), False, [])
    if problem.open(found) and not lemmas:
        found = solver.decide(problem, found, budget)
    if problem.open(found) and integers and not budget.spent():  # cells are dear where there is nothing to relax
        with suppress(Stopped):
            found = search(problem, budget, method, slopes)
    if found.range.low[0] > found.range.high[0]:
        raise ClaimError("no input of the domain satisfies the claim's conditions: nothing is claimed")
    if found.proof is None:
        if budget.spent() and budget.why not in "; ".join(found.reasons):
            found.reasons.append(budget.why)
        return Outcome("UNKNOWN", None, None, None, found.reasons, time.monotonic() - start, 0.0)
    verdict = "REFUTED" if found.broken else "BOUNDED"
    if problem.asks and not found.broken and problem.proves(found.range):
        verdict = "PROVED"
    stated, data = problem.claim.stated, claim.output.model.data
    searched, budget.checking = time.monotonic(), True
    certificate = write(stated, data, found.proof, verdict, found.range)
    try:
        try:
            theorem, certificate = _checked(certificate, budget)
        except kernel.Rejected:  # in the last bits? then what the kernel itself finds is stated
            fresh = BoundsProblem.of(claim, semantics, problem.device, budget.watch_check)
            range_ = confirmed(fresh.job, found.proof)
            verdict = "BOUNDED" if verdict == "PROVED" and not problem.proves(range_) else verdict
            certificate = write(stated, data, found.proof, verdict, range_)
            theorem, certificate = _checked(certificate, budget)
    except Stopped:
        return _unchecked(certificate, None, [*found.reasons, _no_time(budget)], start, searched)
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
