"""Bounds from lemmas: each is proved by itself, and then what follows from them alone."""

from dataclasses import replace
from fractions import Fraction

import numpy as np
import torch

from mechverify.claims.captured import Lemma
from mechverify.kernel.core.claim import Job
from mechverify.kernel.core.neighbours import float_below
from mechverify.kernel.core.ranges import Range
from mechverify.kernel.cut import rule
from mechverify.provers.base import Budget
from mechverify.provers.confirm import derived
from mechverify.provers.ranges.extremes import climb, sample
from mechverify.provers.ranges.known import Found, Known
from mechverify.provers.ranges.problem import RangeProblem
from mechverify.provers.ranges.refute import refuted, shown
from mechverify.provers.ranges.search import search


def cut(
    problem: RangeProblem, lemmas: tuple[Lemma, ...], budget: Budget, method: str
) -> Found:
    """An input of the model's own may refute the claim; errors within the lemmas only show that it doesn't follow."""
    with np.errstate(all="ignore"):
        seen = sample(problem, budget, 0)
        if (broken := refuted(problem, seen)) is not None:
            return broken
        points = shown(problem, climb(problem, budget, seen, steps=0))
        rows, proved = [], []
        for stated in lemmas:
            budget.progress(f"lemma about {stated.site}", None)
            site, mechanism = (
                problem.claim.sites[name] for name in (stated.site, stated.mechanism)
            )
            about = rule.lemma(problem.job, problem.domain, site, mechanism)
            if stated.eps is not None:
                least, most = (
                    [sign * stated.eps] * about.claim.outputs for sign in (-1, 1)
                )
                about = about.about(replace(about.claim, least=least, most=most))
            found = _searched(
                RangeProblem(about, problem.device, problem.own),
                budget,
                method,
                cases=False,
            )
            if (
                found.broken
                or found.proof is None
                or (stated.eps is not None and not _within(found.range, stated.eps))
            ):
                what = (
                    _falsehood(RangeProblem(about), found)
                    if found.broken
                    else "is not proved"
                )
                hint = (
                    ""
                    if found.broken
                    else ": state it as a claim of its own to see why"
                )
                return Found(None, problem.claim.everything, False, [
                    f"the lemma about {stated.site} {what}{hint}", *found.reasons
                ])  # fmt: skip
            range_ = (
                _kernels(about, found)
                if stated.eps is None
                else _box(stated.eps, about.claim.outputs)
            )
            ends = {
                end: [v.hex() for v in values.tolist()]
                for end, values in zip(("low", "high"), range_, strict=True)
            }
            rows.append(
                {
                    "site": stated.site,
                    "mechanism": stated.mechanism,
                    "proof": found.proof,
                    **ends,
                }
            )
            proved.append(rule.Lemma(site, mechanism, range_))
        about = rule.conclusion(problem.job, problem.domain, proved)
        about = about.about(
            replace(about.claim, least=problem.claim.least, most=problem.claim.most)
        )
        found = _searched(RangeProblem(about, problem.device), budget, method)
    if found.broken or found.proof is None:
        reason = "errors within the lemmas, which no input of the model may show, break a threshold: it doesn't follow"
        return Found(
            None,
            problem.claim.everything,
            False,
            [reason] if found.broken else found.reasons,
        )
    range_ = _kernels(about, found)
    proof = {"rule": "cut", "lemmas": rows, "proof": found.proof}
    if points is not None:
        proof = {"rule": "both", "first": points, "second": proof}
    return Found(proof, range_, False, found.reasons)


def _kernels(about: Job, found: Found) -> Range:
    """The range that the kernel bounds with a proof."""
    assert found.proof is not None
    return found.range if found.derived else derived(about, found.proof)


def _searched(
    problem: RangeProblem, budget: Budget, method: str, cases: bool = True
) -> Found:
    """What inputs reach stands beside the whole proof: within it nobody would read it."""
    nothing = Found(None, problem.claim.everything, False, [])
    return search(problem, Known(nothing, method, cases=cases, reached=False), budget)


def _falsehood(problem: RangeProblem, found: Found) -> str:
    """Where, and by how much, site and mechanism differ at the input that was found."""
    assert found.proof is not None
    tokens, point = found.proof["inputs"][0]
    numbers = [float.fromhex(v) for v in point]
    values, _ = problem.values(
        np.array([tokens], dtype=np.int64), torch.tensor([numbers], dtype=torch.float64)
    )
    at = " and ".join(
        str(part) for part in (tokens, [float(f"{v:.6g}") for v in numbers]) if part
    )
    return f"is false: off by {float(values.abs().max()):.6g} at {at}"


def _box(eps: Fraction, entries: int) -> Range:
    """What a lemma says, in float64, rounded inwards."""
    most = float_below(eps)
    return Range(np.full(entries, -most), np.full(entries, most))


def _within(found: Range, eps: Fraction) -> bool:
    box = _box(eps, len(found.low))
    return bool((found.low >= box.low).all() and (found.high <= box.high).all())
