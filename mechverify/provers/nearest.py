"""What is true instead of a refuted claim: the best constant, and the largest part of the domain that was found.

Each statement is one that the kernel derived; to have a certificate of it, claim it.
"""

from fractions import Fraction

import numpy as np

from mechverify import kernel
from mechverify.certificate.write import write
from mechverify.claims.accuracy import Accuracy
from mechverify.claims.bounds import Bounds, Cases, Within
from mechverify.claims.share import Share
from mechverify.kernel.core.counts import CountingTheorem
from mechverify.kernel.core.errors import Stopped
from mechverify.kernel.core.words import about, share
from mechverify.provers.accuracy.fold import Fold
from mechverify.provers.accuracy.problem import AccuracyProblem, Evidence
from mechverify.provers.base import Budget
from mechverify.provers.ranges.cells import kernel_ranges
from mechverify.provers.ranges.problem import RangeProblem

PARTS, HALVINGS, SHOWN = (
    2**12,
    8,
    4,
)  # parts of a domain; precision of a share of a box; entries' constants


def nearest(
    claim: Accuracy | Bounds | Share,
    semantics: str,
    evidence: Evidence | None,
    budget: Budget,
) -> list[str]:
    """True variants of a claim that was refuted, until the budget's deadline; none if none was found."""
    try:
        if isinstance(claim, Accuracy):
            return (
                [] if evidence is None else _shares(claim, semantics, evidence, budget)
            )
        if semantics != "real" or isinstance(claim, Share) or claim.lemmas:
            return []
        with np.errstate(all="ignore"):
            problem = RangeProblem.of(claim, semantics, watch=budget.watch)
            constants = [] if isinstance(claim, Cases) else _constants(problem, claim)
            return [*constants, *_part(problem, budget)]
    except (Exception, Stopped):  # nothing can be said; the verdict stands
        return []


def _shares(
    claim: Accuracy, semantics: str, evidence: Evidence, budget: Budget
) -> list[str]:
    best = claim.changed(margin=claim.margin or 0, at_least=None)
    problem = AccuracyProblem.of(best, semantics, budget.watch)
    if Fold().accepts(problem, evidence) is not None:
        return []
    found = Fold().prove(problem, evidence, budget)
    if found.proof is None or not found.right.low:
        return []
    certificate = write(
        problem.document, claim.output.model.data, found.proof, "BOUNDED", found.right
    )
    theorem = kernel.check(certificate, limit=float("inf"), watch=budget.watch)
    assert isinstance(theorem, CountingTheorem)
    right, size = theorem.right, theorem.claim.total
    told = [f"at_least={share(right.low, size, up=False)}"]
    by_class: dict[int, list[int]] = {}
    for _, key, cell, wrong in theorem.cells:
        count = by_class.setdefault(key[0], [0, 0])
        count[0], count[1] = count[0] + cell, count[1] + wrong.high
    whole = sorted(k for k, (_, wrong) in by_class.items() if not wrong)
    if whole:
        inputs = sum(by_class[k][0] for k in whole)
        told.append(
            f"all inputs whose mechanism says {_ranges(whole)}: {share(inputs, size, up=False)} of the domain"
        )
    return told


def _constants(problem: RangeProblem, claim: Bounds) -> list[str]:
    """Thresholds that the kernel's linear bounds reach."""
    low, high = kernel_ranges(problem, [problem.domain])[0]
    if isinstance(claim, Within):
        eps = max(np.abs(low).max(), np.abs(high).max())
        return [f"eps={about(float(eps), up=True)}"] if np.isfinite(eps) else []
    told = []
    for name, known, ends, side in (
        ("at_least", claim.at_least, low, -1),
        ("at_most", claim.at_most, high, 1),
    ):
        if known is None:
            continue
        if len(set(known)) == 1:  # one for all entries
            known, ends, entries = (
                known[:1],
                [ends.min() if side < 0 else ends.max()],
                [""],
            )
        else:
            entries = [f" for entry {i}" for i in range(len(known))]
        short = [
            np.isfinite(end) and side * (Fraction(float(end)) - t) > 0
            for t, end in zip(known, ends, strict=True)
        ]
        told += [f"{name}={about(float(end), up=side > 0)}{entry}"
                 for end, entry, here in zip(ends, entries, short, strict=True) if here]  # fmt: skip
    return told[:SHOWN]


def _part(problem: RangeProblem, budget: Budget) -> list[str]:
    """The tokens at one position with which the claim holds, or the share of a box around its middle."""
    domain, best = problem.domain, None
    if not domain.tokens:
        return _middle(problem, budget)
    for position, tokens in enumerate(domain.tokens):
        if len(tokens) > PARTS or budget.spent():
            continue
        parts = [domain.split(position, {t})[0] for t in tokens]
        holding = [
            t
            for t, found in zip(tokens, kernel_ranges(problem, parts), strict=True)
            if problem.proves(found)
        ]
        if holding and (
            best is None or len(holding) * len(best[2]) > len(best[1]) * len(tokens)
        ):
            best = position, holding, tokens
    if best is None:
        return []
    position, holding, tokens = best
    values = problem.claim.graph.values
    return [f"all inputs with {_ranges([values[t] for t in holding])} at position {position}: "
            f"{len(holding)} of {len(tokens)} tokens"]  # fmt: skip


def _middle(problem: RangeProblem, budget: Budget) -> list[str]:
    domain, held, found = problem.domain, 0.0, None
    middle, radius = domain.low / 2 + domain.high / 2, domain.high / 2 - domain.low / 2
    for step in range(1, HALVINGS + 1):
        wider = held + 0.5**step
        part = domain._replace(
            low=middle - wider * radius, high=middle + wider * radius
        )
        if not budget.spent() and problem.proves(kernel_ranges(problem, [part])[0]):
            held, found = wider, part
    if found is None:
        return []
    ends = [
        [Fraction(v) for v in end.tolist()]
        for end in (domain.low, found.low, found.high, domain.high)
    ]
    wide = [
        (b - a, min(a + b - 2 * c, 2 * d - a - b))
        for a, c, d, b in zip(*ends, strict=True)
        if a < b
    ]
    exact = min(
        (inner / outer for outer, inner in wide), default=Fraction(1)
    )  # corners were rounded
    return (
        [f"the box around the same middle with {about(exact, up=False)} of the radius"]
        if exact > 0
        else []
    )


def _ranges(values: list[int]) -> str:
    """Integers as "0..3, 7"."""
    runs: list[list[int]] = []
    for v in sorted(values):
        if runs and v == runs[-1][1] + 1:
            runs[-1][1] = v
        else:
            runs.append([v, v])
    shown = ", ".join(str(a) if a == b else f"{a}..{b}" for a, b in runs[:8])
    return shown + (f", ... ({len(values)} in all)" if len(runs) > 8 else "")
