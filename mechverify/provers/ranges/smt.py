"""Ask a solver what bounds leave open: a threshold within rounding of the truth, or integers that no relaxation
follows."""

import hashlib
import time
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch

from mechverify.kernel.core.errors import Unsupported
from mechverify.kernel.core.ranges import Range
from mechverify.provers.base import Budget
from mechverify.provers.ranges.inputs import Inputs
from mechverify.provers.ranges.known import Found, Known
from mechverify.provers.ranges.problem import RangeProblem
from mechverify.provers.ranges.refute import refuted
from mechverify.provers.ranges.smtlib import Query
from mechverify.provers.ranges.solver import ask

SECONDS = 60.0  # of one query


@dataclass(frozen=True)
class Solver:
    """`enabled`: queries are run; `folder`: they are written there, run or not."""

    enabled: bool = True
    folder: Path | None = None
    name: ClassVar[str] = "solver"

    def accepts(self, problem: RangeProblem, known: Known) -> str | None:
        return (
            None
            if (self.enabled or self.folder is not None)
            and problem.claim.union is None
            and problem.open(known.found)
            else ""
        )

    def prove(self, problem: RangeProblem, known: Known, budget: Budget) -> Found:
        """What was found, with a proof or a counterexample of the solver's where it has one."""
        found = known.found
        claim, n = problem.claim, problem.claim.outputs
        open_ = found.range.low < problem.least, found.range.high > problem.most
        sides = [*zip((claim.least, claim.most), open_, (-np.inf, np.inf), strict=True)]
        exact = [
            [t if o else no for t, o in zip(known or [no] * n, here, strict=True)]
            for known, here, no in sides
        ]
        # a certificate states float64 numbers: the nearest ones inside the thresholds
        ends = [
            np.where(open_[0], problem.least, -np.inf),
            np.where(open_[1], problem.most, np.inf),
        ]
        try:
            query = Query(claim, *exact)
        except Unsupported as error:
            found.reasons.append(f"solver: {error}")
            return found
        if self.folder is not None:
            path = (
                self.folder
                / f"{hashlib.sha256(query.text.encode()).hexdigest()[:16]}.smt2"
            )
            try:
                path.write_text(query.text)
            except OSError as error:  # what is proved already must not be lost
                found.reasons.append(f"solver: can't write {path}: {error.strerror}")
        if not self.enabled or budget.spent():
            return found
        budget.progress("asking z3", None)
        answer, values = _asked(query, budget)
        if answer == "unsat" and [end.tolist() for end in ends] != exact:
            answer, _ = _asked(Query(claim, ends[0].tolist(), ends[1].tolist()), budget)
            answer = answer if answer == "unsat" else "inside"
        if answer == "unsat":
            leaf = {
                "rule": "solver",
                "low": _hexadecimal(ends[0]),
                "high": _hexadecimal(ends[1]),
            }
            proof = (
                leaf
                if found.proof is None
                else {"rule": "both", "first": found.proof, "second": leaf}
            )
            return Found(
                proof,
                Range(
                    np.maximum(found.range.low, ends[0]),
                    np.minimum(found.range.high, ends[1]),
                ),
                False,
                [],
            )
        if (
            answer == "sat"
            and (broken := refuted(problem, _input(problem, query, values))) is not None
        ):
            return broken
        whose = " of the rounded domain" if problem.rounded else ""
        says = {
            "sat": f"finds a rational input{whose} that breaks a threshold, but float64 doesn't show it",
            "inside": "finds no input that breaks a threshold, but a certificate states float64 numbers, and "
            "the nearest one inside a threshold isn't reached: claim the one outside",
            "unknown": f"had no answer within {SECONDS:.0f} s",
        }
        found.reasons.append(f"solver: z3 {says.get(answer, answer)}")
        return found


def _asked(query: Query, budget: Budget) -> tuple[str, dict[str, Fraction]]:
    return ask(
        query.text, min(SECONDS, budget.deadline - time.monotonic()), budget.spent
    )


def _input(problem: RangeProblem, query: Query, values: dict[str, Fraction]) -> Inputs:
    """The solver's input, in float64, and the value there."""
    domain, n = problem.domain, problem.domain.length
    tokens = [
        int(values.get(str(name), Fraction(ids[0])))
        for name, ids in zip(query.inputs, domain.tokens, strict=False)
    ]
    points = domain.low.copy()
    for i, name in enumerate(query.inputs[n:]):
        points[i] = (
            float(values.get(name, Fraction(domain.low[i]))) if name else points[i]
        )
    points = np.clip(points, *(end[0] for end in problem.own))[None]
    ids = np.array(tokens, np.int64).reshape(1, n)
    return Inputs.allowed(ids, points, *problem.values(ids, torch.from_numpy(points)))


def _hexadecimal(ends: np.ndarray) -> list:
    return [v.hex() if np.isfinite(v) else None for v in ends.tolist()]
