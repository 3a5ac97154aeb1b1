"""Ask a solver what bounds leave open: a threshold within rounding of the truth, or integers that no relaxation
follows."""

import hashlib
import time
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch

from mechverify.claims.errors import ClaimError
from mechverify.kernel.claim import Range
from mechverify.kernel.errors import Unsupported
from mechverify.provers.base import Budget
from mechverify.provers.extremes import Inputs
from mechverify.provers.ranges import BoundsProblem, Found, refuted
from mechverify.provers.smtlib import Query
from mechverify.provers.solver import ask

SECONDS = 60.0  # of one query


@dataclass(frozen=True)
class Solver:
    """`enabled`: queries are run; `folder`: they are written there, run or not."""

    enabled: bool = True
    folder: Path | None = None

    def decide(self, problem: BoundsProblem, found: Found, budget: Budget) -> Found:
        """`found`, with a proof or a counterexample of the solver's where it has one."""
        if not self.enabled and self.folder is None:
            return found
        low = np.where(found.range.low < problem.least, problem.least, -np.inf)  # thresholds that are still open
        high = np.where(found.range.high > problem.most, problem.most, np.inf)
        low, high = _reaching(low, problem.claim.least, up=True), _reaching(high, problem.claim.most, up=False)
        try:
            query = Query(problem.claim, low, high)
        except Unsupported as error:
            found.reasons.append(f"solver: {error}")
            return found
        if self.folder is not None:
            path = self.folder / f"{hashlib.sha256(query.text.encode()).hexdigest()[:16]}.smt2"
            try:
                path.write_text(query.text)
            except OSError as error:
                raise ClaimError(f"can't write {path}: {error.strerror}") from None
        if not self.enabled or budget.spent():
            return found
        budget.progress("asking z3", None)
        answer, values = ask(query.text, min(SECONDS, budget.deadline - time.monotonic()), budget.spent)
        if answer == "unsat":
            ends = {"low": _hexadecimal(low), "high": _hexadecimal(high)}
            leaf = {"rule": "solver", **ends}
            proof = leaf if found.proof is None else {"rule": "both", "first": found.proof, "second": leaf}
            return Found(proof, Range(np.maximum(found.range.low, low), np.minimum(found.range.high, high)), False, [])
        if answer == "sat" and (broken := refuted(problem, _input(problem, query, values))) is not None:
            return broken
        says = {
            "sat": "finds a rational input that breaks a threshold, but float64 doesn't show it",
            "unknown": f"had no answer within {SECONDS:.0f} s",
        }
        found.reasons.append(f"solver: z3 {says.get(answer, answer)}")
        return found


def _reaching(open_: np.ndarray, thresholds: list[Fraction] | None, up: bool) -> np.ndarray:
    """Float64 numbers that reach the exact thresholds, infinite where none is open."""
    result = open_.copy()
    for i in np.flatnonzero(np.isfinite(open_)):
        value = float(thresholds[i])
        short = value < thresholds[i] if up else value > thresholds[i]
        result[i] = np.nextafter(value, np.inf if up else -np.inf) if short else value
    return result


def _input(problem: BoundsProblem, query: Query, values: dict[str, Fraction]) -> Inputs:
    """The solver's input, in float64, and the value there."""
    domain, n = problem.domain, problem.domain.length
    tokens = [int(values.get(name, Fraction(ids[0]))) for name, ids in zip(query.inputs, domain.tokens, strict=False)]
    points = domain.low.copy()
    for i, name in enumerate(query.inputs[n:]):
        points[i] = float(values.get(name, Fraction(domain.low[i]))) if name else points[i]
    points = np.clip(points, domain.low, domain.high)[None]
    ids = np.array(tokens, np.int64).reshape(1, n)
    value, allowed = problem.values(ids, torch.from_numpy(points))
    return Inputs(ids, points, value.numpy()).at(allowed.numpy())


def _hexadecimal(ends: np.ndarray) -> list:
    return [v.hex() if np.isfinite(v) else None for v in ends.tolist()]
