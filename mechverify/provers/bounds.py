"""Bounds of a captured model's values: sample, relax, look for an input that breaks a threshold, then branch."""

import time
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import torch

from mechverify.bounds.optimise import Kept, optimise
from mechverify.bounds.tensors import Tensors
from mechverify.certificate.write import Proof, claim_document
from mechverify.claims.claim import Bounds
from mechverify.graph.run import TorchRunner
from mechverify.kernel import claim as kernel_claim
from mechverify.kernel.claim import Domain, Job, Range
from mechverify.kernel.errors import Rejected, Unsupported
from mechverify.kernel.fields import Reader
from mechverify.kernel.float64 import Float64
from mechverify.kernel.graph import Graph
from mechverify.kernel.intervals import Cells, Intervals
from mechverify.kernel.linear import Relaxed
from mechverify.kernel.rules import linear
from mechverify.provers.base import Budget
from mechverify.provers.extremes import Inputs, climb, sample

METHODS = ("interval", "linear", "optimised", "branching")  # from cheap to dear
FEW = 16  # coordinates: branching on them is quick
CELLS, CANDIDATES, PATIENCE, WORTH = 256, 12, 10.0, 0.995  # for the narrowest range: at most so many cells and seconds
OPTIMISED = 2  # halvings before slopes are optimised
BITS = 16  # of a slope
INTERVAL: Proof = {"rule": "interval"}
LINEAR: Proof = {"rule": "linear", "lines": None}


@dataclass
class Found:
    """A proof, the range that it should give, and whether a point in it breaks a threshold."""

    proof: Proof
    range: Range
    broken: bool
    reasons: list[str]


class BoundsProblem:
    """A claim about bounds, read exactly as the kernel reads it."""

    def __init__(self, claim: Bounds, semantics: str, device: str = "cpu"):
        self.document: dict[str, Any] = claim_document(claim, semantics)
        self.claim = kernel_claim.Claim(Reader(self.document, "claim"), claim.output.model.data)
        self.job = Job(self.claim, Float64())
        self.run = TorchRunner(self.claim.graph, self.claim.weights, torch.float64)
        self.ar = Tensors(device)
        n = self.claim.outputs
        self.least = _floats(self.claim.least, n, -np.inf)
        self.most = _floats(self.claim.most, n, np.inf)

    @property
    def domain(self) -> Domain:
        return self.claim.domain

    @property
    def asks(self) -> bool:
        """There is a threshold to decide."""
        return self.claim.least is not None or self.claim.most is not None

    def values(self, tokens: np.ndarray, points: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The output [inputs, entries] in float64, differentiable in `points` [inputs, coordinates]; and which of the
        inputs satisfy the claim's conditions."""
        inputs, start = [], 0
        for shape in self.claim.shapes:
            size = int(np.prod(shape))
            inputs.append(points[:, start : start + size].reshape(-1, *shape))
            start += size
        values = self.run.many([self.claim.output, *self.claim.where], tokens, inputs)
        allowed = torch.ones(len(tokens), dtype=torch.bool)
        for n in self.claim.where:
            allowed &= (values[n].detach().reshape(len(tokens), -1) >= 0).all(1)
        return values[self.claim.output].reshape(len(tokens), -1), allowed

    def missing(self, low: np.ndarray, high: np.ndarray) -> np.ndarray:
        """By how much [...] bounds [..., entries] fail to reach the thresholds; not positive where they do."""
        return np.maximum(self.least - low, high - self.most).max(-1, initial=-np.inf)

    def proves(self, found: Range) -> bool:
        return not self.missing(found.low, found.high) > 0

    def cells(self, parts: list[Domain]) -> Cells:
        """The parts as the search's tensors."""
        cells, ar = linear.cells(self.job, parts), self.ar
        boxes = [[ar.raw(np.broadcast_to(a, b.mid.shape).copy()) for a in b[:2]] for b in cells.inputs]
        ball = type(ar.exact(None))
        return Cells(tuple(ball(*b) for b in boxes), cells.allowed,
                     {n: tuple(map(ar.raw, ends)) for n, ends in cells.facts.items()})  # fmt: skip

    def estimate(self, parts: list[Domain]) -> tuple[np.ndarray, np.ndarray]:
        """The search's bounds [parts, entries], with default lines; the other way round where a part is empty."""
        ends, step = [], linear.side_by_side(self.job)
        for start in range(0, len(parts), step):
            cells = self.cells(parts[start : start + step])
            with torch.no_grad():
                relaxed = Relaxed(self.ar, self.claim.graph, self.claim.weights, self.job.roots, cells)
                ends.append(_ends(self.ar, relaxed, len(cells)))
        low, high = (np.concatenate(end) for end in zip(*ends, strict=True))
        return low, high


def _floats(thresholds: list[Fraction] | None, n: int, nothing: float) -> np.ndarray:
    return np.full(n, nothing) if thresholds is None else np.array([float(t) for t in thresholds])


def _ends(ar: Tensors, relaxed: Relaxed, cells: int) -> tuple[np.ndarray, np.ndarray]:
    output = relaxed.output()
    low, high = (end(output).reshape(cells, -1).cpu().numpy() for end in (ar.lower, ar.upper))
    empty = relaxed.empty.expand(cells).cpu().numpy()[:, None]
    return np.where(empty, np.inf, low), np.where(empty, -np.inf, high)


def search(problem: BoundsProblem, budget: Budget, method: str = "branching", seed: int = 0) -> Found:
    """Cheap means first: each of METHODS up to `method`, until the thresholds are reached, or an input breaks one.

    Postcondition: the range, and whether a threshold is broken, are the search's belief; the kernel decides."""
    with np.errstate(all="ignore"):
        seen = sample(problem, budget, seed)
        if (found := refuted(problem, seen)) is not None:
            return found
        kind = Intervals if method == "interval" else Relaxed
        try:
            found = _relaxed(problem, budget, kind)
        except (Rejected, Unsupported) as error:
            if kind is Intervals:
                return Found(seen.at([0]).proof(), _everything(problem), False, [f"interval: {error}"])
            found = _fallback(problem, budget, error)
            method = "interval"
        if problem.asks and problem.proves(found.range):
            return found
        best = climb(problem, budget, seen) if len(seen.values) else seen
        if (broken := refuted(problem, best)) is not None:
            return broken
        if METHODS.index(method) > METHODS.index("linear"):
            found = _search(problem, budget, found, method)
        if not problem.asks and len(best.values):
            found.proof = {"rule": "both", "first": best.proof(), "second": found.proof}
        return found


def _relaxed(problem: BoundsProblem, budget: Budget, kind: type[Intervals]) -> Found:
    budget.progress("linear bounds" if kind is Relaxed else "intervals", None)
    (found,) = linear.bounds(problem.job, [problem.domain], kind=kind)
    return Found(LINEAR if kind is Relaxed else INTERVAL, found, False, [])


def _fallback(problem: BoundsProblem, budget: Budget, error: Exception) -> Found:
    try:
        found = _relaxed(problem, budget, Intervals)
    except (Rejected, Unsupported):
        found = Found(INTERVAL, _everything(problem), False, [])
    found.reasons.append(f"linear: {error}")
    return found


def _everything(problem: BoundsProblem) -> Range:
    everything = np.full(problem.claim.outputs, np.inf)
    return Range(-everything, everything)


def refuted(problem: BoundsProblem, inputs: Inputs) -> Found | None:
    """What an input that breaks a threshold proves: the worst one."""
    if not problem.asks or not len(inputs.values):
        return None
    margin = problem.missing(inputs.values, inputs.values)
    if not margin.max() > 0:
        return None
    return Found(inputs.at([int(margin.argmax())]).proof(), _everything(problem), True, [])


def _search(problem: BoundsProblem, budget: Budget, found: Found, method: str) -> Found:
    from mechverify.provers.branch import branch

    many = len(problem.domain.low) > FEW or method == "optimised"
    if problem.asks and many and not problem.claim.cases:
        found = _optimised(problem, budget, found, [])
    if method == "optimised":
        return found if problem.asks else _optimised(problem, budget, found, [])
    if problem.asks or problem.claim.cases:
        return found if problem.asks and problem.proves(found.range) else branch(problem, budget)
    return _narrow(problem, budget, found)


def _optimised(problem: BoundsProblem, budget: Budget, found: Found, cuts: list[int]) -> Found:
    """With optimised lines on the parts that `cuts` make. What was found before stands beside it, unless it is worse
    in every entry."""
    if budget.spent():
        return found
    budget.progress("optimising slopes", None)
    parts = _parts(problem.domain, cuts)
    try:
        leaves = optimised(problem, parts, budget)
        range_ = _unite([found for _, found in leaves])
    except (Rejected, Unsupported) as error:  # what the kernel's own lines prove stands
        found.reasons.append(f"optimised lines: {error}")
        return found
    proof = _tree(cuts, [leaf for leaf, _ in leaves], problem.domain)
    if not ((found.range.low > range_.low).any() or (found.range.high < range_.high).any()):
        return Found(proof, range_, False, found.reasons)
    return Found(
        {"rule": "both", "first": found.proof, "second": proof}, _meet(found.range, range_), False, found.reasons
    )


def _narrow(problem: BoundsProblem, budget: Budget, found: Found) -> Found:
    """The better of two proofs, entry by entry: many cells with the kernel's lines, few with optimised ones."""
    cuts = _cuts(problem, budget)
    if cuts:
        budget.progress(f"{2 ** len(cuts):,} cells", None)
        parts = _parts(problem.domain, cuts)
        range_ = _meet(found.range, _unite(linear.bounds(problem.job, parts)))
        found = Found(_tree(cuts, [LINEAR] * len(parts), problem.domain), range_, False, found.reasons)
    return _optimised(problem, budget, found, cuts[:OPTIMISED])


def _cuts(problem: BoundsProblem, budget: Budget) -> list[int]:
    """Coordinates to halve one after another, in every cell: each time the one, of those that move the output most,
    that makes the output's range narrowest; until it is no longer worth a doubling."""
    domain, cuts = problem.domain, []
    begun = time.monotonic()
    while (
        len(domain.low) and 2 ** (len(cuts) + 1) <= CELLS and time.monotonic() - begun < PATIENCE and not budget.spent()
    ):
        budget.progress(f"choosing the next of {len(cuts)} cuts", None)
        part = _parts(domain, cuts)[0]
        middle = torch.from_numpy((part.low + part.high) / 2)[None].requires_grad_()
        tokens = np.array([[t[0] for t in domain.tokens]], np.int64).reshape(1, -1)
        (slope,) = torch.autograd.grad(problem.values(tokens, middle)[0].abs().sum(), middle)
        influence = slope[0].abs().numpy() * (part.high - part.low)
        likely = [int(c) for c in np.argsort(-influence)[:CANDIDATES] if part.high[c] > part.low[c]]
        if not likely:
            break
        halves = [half for c in likely for half in part.cut(c, middle_of(part, c))]
        low, high = problem.estimate([part, *halves])
        alone = (high[0] - low[0]).mean()
        low, high = (a[1:].reshape(len(likely), 2, -1) for a in (low, high))
        widths = (high.max(1) - low.min(1)).mean(1)
        if not widths.min() < WORTH * alone:
            break
        cuts.append(likely[int(widths.argmin())])
    return cuts


def middle_of(part: Domain, c: int) -> float:
    return float(part.low[c] / 2 + part.high[c] / 2)


def _parts(domain: Domain, cuts: list[int]) -> list[Domain]:
    parts = [domain]
    for c in cuts:
        parts = [half for part in parts for half in part.cut(c, middle_of(part, c))]
    return parts


def _tree(cuts: list[int], leaves: list[Proof], domain: Domain) -> Proof:
    """The proof that cuts `domain` like _parts, and has these leaves."""
    if not cuts:
        return leaves[0]
    first, half = cuts[0], len(leaves) // 2
    inside, outside = domain.cut(first, at := middle_of(domain, first))
    return {"rule": "split", "coordinate": first, "at": at.hex(), "inside": _tree(cuts[1:], leaves[:half], inside),
            "outside": _tree(cuts[1:], leaves[half:], outside)}  # fmt: skip


def _unite(ranges: list[Range]) -> Range:
    return Range(np.min([r.low for r in ranges], 0), np.max([r.high for r in ranges], 0))


def _meet(a: Range, b: Range) -> Range:
    return Range(np.maximum(a.low, b.low), np.minimum(a.high, b.high))


def optimised(problem: BoundsProblem, parts: list[Domain], budget: Budget, **options: Any) -> list[tuple[Proof, Range]]:
    """For each part a leaf with optimised lines (and multipliers, where something is known of it beside its box), and
    the range that the kernel finds with them."""
    claim, leaves = problem.claim, []
    cells = problem.cells(parts)
    kept, *_ = optimise(claim.graph, claim.weights, problem.job.roots, cells, ar=problem.ar, spent=budget.spent,
                        **options)  # fmt: skip
    for cell, part in enumerate(parts):
        leaf = listed(claim.graph, kept, cell)
        given = linear.Given(*(Reader(leaf[name], name) for name in ("lines", "multipliers") if name in leaf))
        (found,) = linear.bounds(problem.job, [part], given)
        for name, used in (("lines", ()), ("multipliers", ("multipliers",))):  # a cell alone may need fewer
            if name in leaf:
                leaf[name] = [row for row in leaf[name] if (*row[:2], *used) not in given.unread]
        leaves.append((leaf, found))
    return leaves


def listed(graph: Graph, kept: Kept, cell: int) -> Proof:
    """What was kept for a cell, as a certificate lists it."""
    lines, multipliers = [], []
    for (start, n), pair in sorted(kept.lines.items()):
        limit = 1.0 if graph.nodes[n].op == "mul" else None
        lines.append([start, n, *_rounded([t[cell] for t in pair], limit)])
    for (start, n), factors in sorted(kept.factors.items()):
        multipliers.append([start, n, *_rounded([factors[cell]])])
    return (
        {"rule": "farkas", "lines": lines, "multipliers": multipliers}
        if multipliers
        else {"rule": "linear", "lines": lines}
    )


def _rounded(tensors: list[torch.Tensor], limit: float | None = None) -> list:
    """A common exponent, and the entries as integers of BITS bits."""
    arrays = [t.cpu().numpy() for t in tensors]
    largest = max(np.abs(a).max() for a in arrays)
    exponent = int(np.frexp(largest)[1]) - BITS if largest > 0 else 0
    whole = [np.rint(np.ldexp(a, -exponent)).astype(np.int64) for a in arrays]
    if limit is not None:
        whole = [np.clip(a, 0, int(np.ldexp(limit, -exponent))) for a in whole]
    return [exponent, *(a.ravel().tolist() for a in whole)]
