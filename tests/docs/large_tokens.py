"""Strategy: wherever a sequence has a large token, the model names its largest one."""

from mechverify.kernel.core.counts import Counts
from mechverify.kernel.fold.rule import InputClass
from mechverify.provers.accuracy.problem import AccuracyProblem, Attempt
from mechverify.provers.accuracy.strategies import Strategy
from mechverify.provers.base import Budget

SHARE = 0.25  # of the mechanism's values, the largest: where rule fold is asked for


def large_tokens(problem: AccuracyProblem, budget: Budget) -> Attempt:
    partition = problem.partition  # raises Unsupported where rule fold doesn't apply
    values = sorted(key[0] for key in partition.places)
    only = [[v] for v in values[-max(1, round(SHARE * len(values))) :]]
    right = 0
    for key in only:
        budget.progress(f"inputs whose largest token is {key[0]}", None)
        for cell in InputClass(partition, tuple(key)).cells():
            right += 0 if cell.undecided else cell.size  # no rival can win: every input of the cell is right
    proof = {"rule": "fold", "keys": [], "only": only, "cells": []}
    return Attempt(proof, Counts(right, problem.domain.size))


STRATEGY = Strategy(
    name="large_tokens",
    complexity="k v^3 / 4",
    precondition="one layer, one head, read at one position; a mechanism that folds over the tokens",
    postcondition="a lower bound: cells with a large token that no rival can win",
    find=large_tokens,
)
