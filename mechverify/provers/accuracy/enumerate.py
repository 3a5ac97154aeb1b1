"""Run every input, where there are few enough."""

import numpy as np

from mechverify.kernel.core.fields import Reader
from mechverify.kernel.replay import rule as replay
from mechverify.provers.accuracy.problem import AccuracyProblem, Attempt, Evidence
from mechverify.provers.base import Budget


class Enumerate:
    name = "enumerate"

    def __init__(self, limit: int):
        self.limit = limit

    def accepts(self, problem: AccuracyProblem, evidence: Evidence) -> str | None:
        if problem.domain.size <= self.limit:
            return None
        return f"{problem.domain.size:,} inputs are too many to run them all; restrict the domain"

    def prove(self, problem: AccuracyProblem, evidence: Evidence, budget: Budget) -> Attempt:
        budget.progress(f"running all {problem.domain.size:,} inputs", None)
        with np.errstate(all="ignore"), budget.rehearsing():
            right = replay.enumerate(problem.job, problem.domain, Reader({}, "enumerate"))
        return Attempt({"rule": "enumerate"}, right)
