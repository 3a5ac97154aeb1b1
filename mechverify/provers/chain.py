"""Provers from cheap to dear, and the kernel's word on what they found."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import reduce
from math import ceil
from pathlib import Path

import numpy as np

from mechverify import kernel
from mechverify.bounds.optimise import Slopes
from mechverify.certificate.write import announcing, write
from mechverify.claims.claim import Accuracy, Bounds
from mechverify.claims.errors import ClaimError
from mechverify.kernel.core.accuracy import Counts
from mechverify.kernel.core.claim import Job
from mechverify.kernel.core.errors import Rejected, Stopped, Unsupported
from mechverify.kernel.core.fields import Reader
from mechverify.kernel.core.float64 import Float64
from mechverify.kernel.core.ranges import Range
from mechverify.kernel.proof import prove as kernel_prove
from mechverify.provers.base import Attempt, Budget, Evidence, Problem, Progress, Prover
from mechverify.provers.bounds import search
from mechverify.provers.cut import cut
from mechverify.provers.enumerate import Enumerate
from mechverify.provers.falsify import GRID, falsify
from mechverify.provers.fold import Fold
from mechverify.provers.margin import largest_margin
from mechverify.provers.ranges import BoundsProblem, Found, confirmed
from mechverify.provers.smt import Solver
from mechverify.provers.strategies import chosen

EFFORT = 600.0  # seconds of search, where no limit is given
FEW = 2**12  # integer inputs that are split one from another before a solver is asked
ROUNDED = "corners that are no float64 numbers are rounded outwards: the theorem's domain contains yours"
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
    (`budget.interrupted`), where a prover fails, or the kernel doesn't confirm what it found, the outcome holds what is
    proved beside that, with the reason. Raises Rejected if the kernel can't read the claim itself, or with a
    `strategy`, and ClaimError if the kernel shows that no input satisfies the claim's conditions.
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
    attempts, reasons, untried = [_listed(problem, evidence)], [], False
    for prover in PROVERS:
        if problem.settled(_all(attempts).right):
            break
        if budget.spent():
            untried = True
            break
        try:
            reason = prover.accepts(problem, evidence)
            if reason is None:
                attempts.append(prover.prove(problem, evidence, budget))
                untried |= budget.spent()
                continue
        except Stopped:
            untried = True
            break
        except Exception as error:  # say, weights so large that enclosures overflow
            reason = _failure(error)
        reasons = [*(r for r in reasons if r != f"{prover.name}: {reason}"), f"{prover.name}: {reason}"]
    if untried and not problem.settled(_all(attempts).right):
        reasons.append(budget.why)
    try:
        return _confirmed(problem, claim, attempts, evidence, reasons, budget, start)
    except kernel.Rejected as error:  # a prover's defect: what else was found must not be lost
        reasons.append(f"the kernel doesn't confirm what was found: {error}")
        return _confirmed(problem, claim, _acceptable(problem, attempts, budget), evidence, reasons, budget, start)


def _follow(claim: Accuracy | Bounds, strategy: str, semantics: str, budget: Budget, start: float) -> Outcome:
    """One strategy, and nothing else: nobody looks for wrong inputs, so that the proof is the strategy's alone."""
    if not isinstance(claim, Accuracy) or claim.margin is None:
        raise ClaimError(
            f"--strategy {strategy}: strategies are for claims Accuracy(...), with a stated margin; leave it out"
        )
    problem, row = Problem.of(claim, semantics, budget.watch), chosen(strategy)
    nothing = Attempt(None, Counts(0, problem.domain.size))
    try:
        found = row.find(problem, budget)
    except Unsupported as error:
        raise ClaimError(f"--strategy {strategy}: {error} (it needs: {row.precondition})") from None
    except Stopped:
        found = nothing
    reasons = [budget.why] if budget.spent() else []
    try:
        return _confirmed(problem, claim, [nothing, found], None, reasons, budget, start)
    except kernel.Rejected as error:
        raise kernel.Rejected(f"the kernel refuses what strategy {strategy} found: {error}") from None


def _confirmed(
    problem: Problem, claim: Accuracy, attempts: list[Attempt], evidence: Evidence | None,
    reasons: list[str], budget: Budget, start: float,
) -> Outcome:  # fmt: skip
    """The certificate of what was found, accepted by the kernel. The first attempt lists wrong inputs: alone it bounds
    next to nothing, which is no answer to a claim without a threshold."""
    found = _all(attempts)
    decided = problem.verdict(found.right, attempts[0].proof is not None)
    if found.proof is None:
        return Outcome("UNKNOWN", None, None, evidence, reasons, time.monotonic() - start, 0.0)
    searched = time.monotonic()
    certificate = write(problem.document, claim.output.model.data, found.proof, decided or "BOUNDED", found.right)
    try:
        theorem, certificate = _checked(certificate, budget)
    except Stopped:
        return _unchecked(certificate, evidence, [*reasons, _no_time(budget)], start, searched)
    verdict = decided or "UNKNOWN"
    if decided is None:
        reasons = ["the threshold lies between the proved bounds", *reasons]
    elif decided == "BOUNDED" and found.proof is attempts[0].proof and not problem.settled(found.right):
        verdict, reasons = "UNKNOWN", ["nothing but these wrong inputs is known", *reasons]
    elif decided != "BOUNDED" or problem.settled(found.right):
        reasons = []
    return Outcome(
        verdict, theorem, certificate, evidence, reasons, searched - start, time.monotonic() - searched
    )  # fmt: skip


def _checked(certificate: bytes, budget: Budget) -> tuple[kernel.Theorem, bytes]:
    """The theorem, and the certificate, which now says what its check takes. Raises Stopped where that is more than is
    left of the budget."""
    began, expected, budget.checking = time.monotonic(), budget.reserved, True

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


def _all(attempts: list[Attempt]) -> Attempt:
    return reduce(_meet, attempts)


def _acceptable(problem: Problem, attempts: list[Attempt], budget: Budget) -> list[Attempt]:
    """Those that the kernel accepts, each by itself, with its own bounds."""
    size, kept = problem.domain.size, []
    for attempt in attempts:
        try:
            with np.errstate(all="ignore"):
                right = kernel_prove(
                    Job(problem.claim, Float64(watch=budget.watch_check)), Reader(attempt.proof, "proof")
                )[0]
            kept.append(Attempt(attempt.proof, right))
        except (Rejected, Stopped):
            kept.append(Attempt(None, Counts(0, size)))
    return kept


def _largest_margin(problem: Problem, evidence: Evidence, budget: Budget) -> Fraction | None:
    """The margin to claim where any will do; zero, or None, where no better one was found."""
    try:
        return largest_margin(problem, evidence.least, budget)
    except Stopped:
        return None
    except Rejected:  # no short fold: then all inputs were seen, or none is proved
        least = (evidence.least - 2 * GRID) * (1 - 1e-6)
        return Fraction(least) if least > 0 and evidence.samples == problem.domain.size else None


def _prove_bounds(
    problem: BoundsProblem, claim: Bounds, budget: Budget, method: str, slopes: Slopes, solver: Solver, start: float,
    semantics: str,
) -> Outcome:  # fmt: skip
    integers = not problem.claim.weights and not len(problem.domain.low) and solver.enabled
    integers &= problem.domain.size > FEW
    nothing = Found(None, problem.claim.everything, False, [])
    if claim.lemmas:
        found = _guarded(nothing, budget, lambda: cut(problem, claim.lemmas, budget, method))
    else:
        first = "linear" if integers else method
        found = _guarded(nothing, budget, lambda: search(problem, budget, first, slopes))
        if found.proof is None and problem.kept is not None:  # it failed late
            found = replace(problem.kept, reasons=found.reasons)
        if problem.open(found):
            before = found
            found = _guarded(before, budget, lambda: solver.decide(problem, before, budget))
        if problem.open(found) and integers and not budget.spent():  # cells are dear where there is nothing to relax
            found = _guarded(found, budget, lambda: search(problem, budget, method, slopes))
    if budget.spent() and problem.open(found) and budget.why not in "; ".join(found.reasons):
        found.reasons.append(budget.why)
    searched = time.monotonic()
    for attempt in (found, problem.kept):
        if attempt is None or attempt.proof is None:
            continue
        try:
            certificate, theorem = _accepted(problem, claim, attempt, semantics, budget)
        except Rejected as error:
            found.reasons.append(f"the kernel doesn't confirm what was found: {error}")
            continue
        except Stopped:
            unchecked = write(problem.claim.stated, claim.output.model.data, attempt.proof,
                              _believed(problem, attempt, attempt.range), attempt.range)  # fmt: skip
            return _unchecked(unchecked, None, [*found.reasons, _no_time(budget)], start, searched)
        verdict, reasons = _called(problem, theorem, found.reasons)
        reasons = [*reasons, ROUNDED] if claim.over.inner is not None else reasons
        return Outcome(
            verdict, theorem, certificate, None, reasons, searched - start, time.monotonic() - searched
        )  # fmt: skip
    return Outcome("UNKNOWN", None, None, None, found.reasons, time.monotonic() - start, 0.0)


def _guarded(before: Found, budget: Budget, step: Callable[[], Found]) -> Found:
    """What a step of the search finds; where it fails, or time is up, what was found before it, with the reason."""
    try:
        return step()
    except ClaimError:
        raise
    except Stopped:
        return replace(before, reasons=[*before.reasons, budget.why])
    except Exception as error:
        return replace(before, reasons=[*before.reasons, _failure(error)])


def _failure(error: Exception) -> str:
    said = str(error)[:500]
    return (
        said if isinstance(error, Rejected) else f"the search failed, please report it: {type(error).__name__}: {said}"
    )


def _accepted(
    problem: BoundsProblem, claim: Bounds, found: Found, semantics: str, budget: Budget
) -> tuple[bytes, kernel.Theorem]:
    """The certificate of what was found, and the theorem that the kernel makes of it: as the search believes, or, where
    that is wrong in the last bits, as the kernel itself finds. Raises Rejected, Stopped, and ClaimError where the
    kernel shows that the claim is about no input."""
    stated, data = problem.claim.stated, claim.output.model.data

    def checked(verdict: str, range_: Range) -> tuple[bytes, kernel.Theorem]:
        theorem, certificate = _checked(write(stated, data, found.proof, verdict, range_), budget)
        return certificate, theorem

    try:
        return checked(_believed(problem, found, found.range), found.range)
    except Rejected:
        fresh = BoundsProblem.of(claim, semantics, problem.device, budget.watch_check)
        range_ = confirmed(fresh.job, found.proof)
    if range_.empty:
        raise ClaimError("no input of the domain satisfies the claim's conditions: nothing is claimed")
    return checked(_believed(problem, found, range_), range_)


def _believed(problem: BoundsProblem, found: Found, range_: Range) -> str:
    if found.broken:
        return "REFUTED"
    return "PROVED" if problem.asks and problem.proves(range_) else "BOUNDED"


def _called(problem: BoundsProblem, theorem: kernel.Theorem, reasons: list[str]) -> tuple[str, list[str]]:
    """The verdict that the user reads, and what stood in the way of another one: of a claim with thresholds, bounds
    alone decide nothing; nor do bounds that bound nothing, of one without."""
    if theorem.verdict != "BOUNDED":
        return theorem.verdict, reasons
    if problem.asks:
        return "UNKNOWN", ["the proved bounds don't reach the thresholds", *reasons]
    if not np.isfinite(theorem.range).any():
        return "UNKNOWN", ["nothing is bounded, from either side", *reasons]
    return "BOUNDED", reasons


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
    if a.proof is None or b.proof is None:
        return Attempt(b.proof if a.proof is None else a.proof, right)
    return Attempt({"rule": "both", "first": a.proof, "second": b.proof}, right)
