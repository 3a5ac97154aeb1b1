"""The first proof: one relaxation of the whole domain, in the kernel."""

import time
from dataclasses import replace

import numpy as np

from mechverify.certificate.write import Proof
from mechverify.kernel.core.errors import Rejected, Stopped, Unsupported
from mechverify.kernel.relaxation import rule as linear
from mechverify.kernel.relaxation.backward import Relaxed
from mechverify.kernel.relaxation.intervals import Intervals
from mechverify.provers.base import Budget
from mechverify.provers.ranges.cells import ranges
from mechverify.provers.ranges.known import Found, Known, unite
from mechverify.provers.ranges.problem import RangeProblem

SLOW = 5.0  # seconds of linear bounds, beyond which a range isn't narrowed any further
INTERVAL: Proof = {"rule": "relaxation"}


class Whole:
    name = "bounds of the whole domain"

    def accepts(self, problem: RangeProblem, known: Known) -> str | None:
        return None

    def prove(self, problem: RangeProblem, known: Known, budget: Budget) -> Found:
        begun = time.monotonic()
        found = _relaxed(
            problem, budget, Intervals if known.method == "interval" else Relaxed
        )
        known.seconds, known.kept = (
            time.monotonic() - begun,
            replace(found, reasons=[*found.reasons]),
        )
        return found


def _relaxed(problem: RangeProblem, budget: Budget, kind: type[Intervals]) -> Found:
    """Of the whole domain, of a union of each box, through the better form of a softmax. Intervals where linear bounds
    can't be had, or where the output has a table, and nothing where intervals can't."""
    best, reasons, begun = None, [], time.monotonic()
    tries = (
        [(Relaxed, False), (Relaxed, True), (Intervals, False)]
        if kind is Relaxed
        else [(Intervals, False)]
    )
    try:
        with budget.rehearsing():
            tabulated = problem.tabulated
    except Stopped:
        return Found(None, problem.claim.everything, False, [f"tables: {budget.why}"])
    except Rejected as error:
        return Found(None, problem.claim.everything, False, [str(error)])
    if tabulated:
        kind, tries = Intervals, tries[::-1]
    for rule, shared in tries:
        if (
            shared
            and (not problem.rewriting.roots.shared or time.monotonic() - begun > SLOW)
        ) or (rule is not kind and best is not None):
            continue
        name = "linear bounds" if rule is Relaxed else "intervals"
        budget.progress(name, None)
        started = time.monotonic()
        try:
            with budget.rehearsing():
                range_ = unite(
                    ranges(problem, problem.parts, linear.Flags(shared), rule)
                )
        except Stopped:
            reasons.append(f"{name}: {budget.why}")
            break
        except (Rejected, Unsupported) as error:
            if not shared:
                reasons.append(f"{name}: {error}")
            continue
        if best is None or np.mean(range_.high - range_.low) < np.mean(
            best.range.high - best.range.low
        ):
            problem.shared, problem.seconds = shared, time.monotonic() - started
            leaf = problem.linear if rule is Relaxed else INTERVAL
            proof = problem.joined([{**leaf} for _ in problem.parts])
            best = Found(proof, range_, False, reasons, len(problem.parts) == 1)
    return best or Found(None, problem.claim.everything, False, reasons)
