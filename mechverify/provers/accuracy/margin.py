"""The largest margin to claim: the one that rule fold proves on all inputs, or the one that enumeration shows."""

from fractions import Fraction
from math import ceil, inf

import numpy as np

from mechverify.kernel.core.accuracy import AccuracyClaim
from mechverify.kernel.core.counts import CountingClaim
from mechverify.kernel.core.elsewhere import doubled
from mechverify.kernel.core.errors import Rejected, Stopped
from mechverify.kernel.core.evaluate import Evaluation, batch_size
from mechverify.kernel.core.semantics import Real
from mechverify.kernel.fold.rule import InputClass
from mechverify.provers.accuracy.falsify import CLOSE as NEAR
from mechverify.provers.accuracy.fold import terms_of
from mechverify.provers.accuracy.problem import AccuracyProblem
from mechverify.provers.base import Budget

ROUNDS, CLOSE = 12, 1e-9  # of the secant; relative change at which it stops
DIGITS = 9  # decimal places of the margin that is claimed


def largest_margin(
    problem: AccuracyProblem, seen: float, budget: Budget
) -> Fraction | None:
    """A margin that rule fold should prove on every input, found below the least one `seen`; None if not even zero.

    A cell's least sum of terms is concave in the margin (a minimum of linear functions), so the secant through a
    margin that a cell reaches and one that it doesn't meets zero at a margin that it reaches. Each round keeps the
    cells that bind. Raises Unsupported where the rule doesn't apply.
    """
    partition = problem.partition
    if seen <= 0 or any(
        not 0 <= key[0] < problem.claim.outputs for key in partition.places
    ):
        return None

    def least(keys: list[tuple[int, ...]], margin: float) -> dict[tuple, float]:
        """The least sum of every cell of these classes."""
        found = {}
        for i, key in enumerate(keys):
            budget.progress(f"the largest margin: {margin:.6g}?", i / len(keys))
            for cell in InputClass(partition, key, Fraction(margin)).cells():
                found[key, cell.query] = float(terms_of(cell).minima[cell.row].min())
        return found

    proved = None
    with np.errstate(all="ignore"):
        try:
            high = seen * (1 + 1e-6)
            beyond = {
                cell: value
                for cell, value in least([*partition.places], high).items()
                if not value > 0
            }
            if not beyond:
                proved = seen
            keys, margin = sorted({key for key, _ in beyond}), 0.0
            for _ in range(ROUNDS if beyond else 0):
                reached = least(keys, margin)
                if budget.spent() or not all(reached[cell] > 0 for cell in beyond):
                    break
                proved = margin
                step = min(
                    (high - margin) * reached[c] / (reached[c] - beyond[c])
                    for c in beyond
                )
                if step <= CLOSE * high:
                    break
                margin += step * (1 - CLOSE)
        except Rejected:  # say, weights so large that enclosures overflow
            return None
        except Stopped:  # time is up: what is proved stands
            pass
    return (
        None
        if proved is None
        else Fraction(int(proved * (1 - CLOSE) * 10**DIGITS), 10**DIGITS)
    )


def enumerated_margin(problem: AccuracyProblem, margins: np.ndarray) -> Fraction | None:
    """Below the least lead of as many inputs as the claim asks for, those with the largest leads; None where it isn't
    positive. `margins` are float64's, of all inputs; the kernel encloses the leads of those that may be the least."""
    needed = ceil((problem.at_least or 0) * len(margins))
    last = np.sort(margins)[-needed]
    close = np.abs(margins - last) <= NEAR
    surely = int((margins > last + NEAR).sum())
    lows = np.sort(
        _leads(problem, np.concatenate([*problem.inputs(problem.domain)])[close])
    )
    least = float(lows[surely - needed])
    return _below(least) if least > 0 else None


def _leads(problem: AccuracyProblem, inputs: np.ndarray) -> np.ndarray:
    """Lower ends of the right output's leads, with twice float64's digits; -inf where the mechanism's value is none."""
    step = batch_size(problem.claim.graph, problem.claim.judged)
    return np.concatenate(
        [_batch(problem, inputs[i : i + step]) for i in range(0, len(inputs), step)]
    )


def _batch(problem: AccuracyProblem, inputs: np.ndarray) -> np.ndarray:
    return doubled(problem.job, lambda model: _lows(problem.claim, model, inputs))


def _lows(claim: CountingClaim, model: Real, inputs: np.ndarray) -> np.ndarray:
    assert isinstance(claim, AccuracyClaim)  # no other has a margin
    ar, values = model.ar, Evaluation(claim.graph, claim.weights, model, inputs)
    shape = (len(inputs), claim.outputs)
    logits = values[claim.output].map(lambda a: np.broadcast_to(a, shape))
    target = np.broadcast_to(values[claim.target], len(inputs))
    possible = (target >= 0) & (target < claim.outputs)
    at = np.where(possible, target, 0)[:, None]
    leads = ar.sub(logits.map(lambda a: np.take_along_axis(a, at, 1)), logits)
    rival = np.arange(claim.outputs) != at
    return np.where(possible, np.where(rival, ar.lower(leads), inf).min(1), -inf)


def _below(lead: float) -> Fraction:
    """A decimal fraction a little below, of DIGITS significant places at least."""
    scale = 10**DIGITS
    while lead * scale < 10**DIGITS:
        scale *= 10
    return Fraction(ceil(Fraction(lead) * scale) - 1, scale)
