"""Bounds of a captured model's values: look for an input that breaks a threshold, then relax, then branch."""

import heapq
import itertools
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
from mechverify.kernel.intervals import Cells
from mechverify.kernel.linear import Relaxed
from mechverify.kernel.rules import linear
from mechverify.provers.base import Budget

SAMPLES, STEPS, RESTARTS = 4_096, 60, 32  # inputs drawn at random; gradient steps, from how many of the best
DEPTH = 300  # cuts of a cell, one in another
FEW = 16  # coordinates: branching alone is quick
CELLS, CANDIDATES, PATIENCE, WORTH = 256, 12, 10.0, 0.995  # for the narrowest range: at most so many cells and seconds
OPTIMISED = 2  # halvings before slopes are optimised
BITS = 16  # of a slope
BRANCHES = 256  # cells cut at a time
SLACK = 1e-9  # relative; the kernel's bounds are a little wider than the search's


@dataclass
class Found:
    """A proof, the range that it should give, and the points that break a threshold (none: it is not refuted)."""

    proof: Proof | None
    range: Range
    broken: bool
    reasons: list[str]


class BoundsProblem:
    """A claim about bounds, read exactly as the kernel reads it."""

    def __init__(self, claim: Bounds, semantics: str):
        self.document: dict[str, Any] = claim_document(claim, semantics)
        self.claim = kernel_claim.Claim(Reader(self.document, "claim"), claim.output.model.data)
        self.job = Job(self.claim, Float64())
        self.run = TorchRunner(self.claim.graph, self.claim.weights, torch.float64)
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

    def values(self, tokens: np.ndarray, points: torch.Tensor) -> torch.Tensor:
        """The output [inputs, entries] in float64, differentiable in `points` [inputs, coordinates]."""
        inputs, start = [], 0
        for shape in self.claim.shapes:
            size = int(np.prod(shape))
            inputs.append(points[:, start : start + size].reshape(-1, *shape))
            start += size
        return self.run(self.claim.output, tokens, inputs).reshape(len(tokens), -1)

    def proves(self, found: Range) -> bool:
        return bool((found.low >= self.least).all() and (found.high <= self.most).all())


def _floats(thresholds: list[Fraction] | None, n: int, nothing: float) -> np.ndarray:
    return np.full(n, nothing) if thresholds is None else np.array([float(t) for t in thresholds])


def search(problem: BoundsProblem, budget: Budget, seed: int = 0) -> Found:
    """Postcondition: the range, and whether a threshold is broken, are the search's belief; the kernel decides."""
    tokens, points, low, high = _extremes(problem, budget, seed)
    everything = np.full(problem.claim.outputs, np.inf)
    shown = _points(problem, tokens, points)
    if problem.asks:
        margin = np.concatenate([problem.least - low, high - problem.most])
        if (margin > 0).any():
            worst = int(np.argmax(margin)) % len(low) + (len(low) if np.argmax(margin) >= len(low) else 0)
            return Found(_points(problem, tokens[[worst]], points[[worst]]), Range(-everything, everything), True, [])
    try:
        with np.errstate(all="ignore"):
            return _relax(problem, budget, shown)
    except (Rejected, Unsupported) as error:
        return Found(shown, Range(-everything, everything), False, [f"linear: {error}"])


def _extremes(problem: BoundsProblem, budget: Budget, seed: int) -> tuple:
    """Inputs where each entry is smallest [entries] and then largest, by sampling and gradient steps: token rows and
    points [2 entries, ...], and the values reached."""
    rng = np.random.default_rng(seed)
    domain = problem.domain
    n = problem.claim.outputs
    graph = problem.claim.graph
    numbers = sum(int(np.prod(graph.nodes[m].shape)) for m in graph.ancestors([problem.claim.output])
                  if graph.nodes[m].op not in ("weight", "constant"))  # fmt: skip
    batch = max(64, min(SAMPLES, 2**24 // max(1, numbers)))
    budget.progress("sampling", None)
    share = rng.random((batch, len(domain.low)))
    share[batch // 2 :] = np.round(share[batch // 2 :])  # half of them are corners
    points = domain.low + share * (domain.high - domain.low)
    tokens = (
        np.stack([rng.choice(np.array(t), batch) for t in domain.tokens], -1)
        if domain.tokens
        else np.zeros((batch, 0), np.int64)
    )
    values = problem.values(tokens, torch.from_numpy(points)).numpy()
    starts = max(1, min(RESTARTS, 512 // n, batch))
    order = np.argsort(values, 0)
    start = np.concatenate([order[:starts], order[::-1][:starts]], 1).ravel()  # [starts, 2 entries]
    tokens, points = tokens[start], torch.from_numpy(points[start])
    sign = torch.cat([torch.ones(n), -torch.ones(n)]).double().repeat(starts)
    entry = torch.arange(n).repeat(2 * starts)
    best, at = (values[start, entry.numpy()] * sign.numpy()), points.clone()
    if points.shape[1]:
        low, high = torch.from_numpy(domain.low), torch.from_numpy(domain.high)
        for step in range(STEPS):
            if budget.spent():
                break
            moving = points.clone().requires_grad_()
            objective = problem.values(tokens, moving)[torch.arange(len(entry)), entry] * sign
            (slope,) = torch.autograd.grad(objective.sum(), moving)
            reached = objective.detach().numpy()
            better = reached < best
            best, at = np.where(better, reached, best), torch.where(torch.from_numpy(better)[:, None], points, at)
            rate = 0.5 * (1 - step / STEPS)
            points = torch.clamp(points - rate * (high - low) * slope.sign(), low, high)
    winner = best.reshape(starts, 2 * n).argmin(0) * 2 * n + np.arange(2 * n)
    best = (best * sign.numpy())[winner]
    return tokens[winner], at.numpy()[winner], best[:n], best[n:]


def _points(problem: BoundsProblem, tokens: np.ndarray, points: np.ndarray) -> Proof:
    rows = sorted({(tuple(t), tuple(float(v).hex() for v in p)) for t, p in zip(tokens.tolist(), points, strict=True)})
    return {"rule": "point", "inputs": [[list(t), list(p)] for t, p in rows]}


def _relax(problem: BoundsProblem, budget: Budget, shown: Proof) -> Found:
    """For thresholds: the kernel's own lines, optimised ones for many coordinates, then cells until they are reached.
    Without: as narrow as a moderate effort gets."""
    budget.progress("linear bounds", None)
    (found,) = linear.bounds(problem.job, [problem.domain])
    leaf: Proof = {"rule": "linear", "lines": None}
    if not problem.asks:
        return _narrow(problem, budget, shown, found)
    if problem.proves(found):
        return Found(leaf, found, False, [])
    if len(problem.domain.low) > FEW and not budget.spent():
        budget.progress("optimising slopes", None)
        (lines,) = optimised(problem, [problem.domain], budget)
        (found,) = linear.bounds(problem.job, [problem.domain], linear.Given(Reader(lines, "lines")))
        if problem.proves(found):
            return Found({"rule": "linear", "lines": lines}, found, False, [])
    return _branch(problem, budget)


def _narrow(problem: BoundsProblem, budget: Budget, shown: Proof, found: Range) -> Found:
    """The better of two proofs, entry by entry: many cells with the kernel's lines, few with optimised ones."""
    cuts = _cuts(problem, budget)
    proofs: list[Proof] = [shown]
    reasons: list[str] = []
    if cuts:
        budget.progress(f"{2 ** len(cuts):,} cells", None)
        parts = _parts(problem.domain, cuts)
        found = _meet(found, _unite(linear.bounds(problem.job, parts)))
        proofs.append(_tree(cuts, [{"rule": "linear", "lines": None}] * len(parts), problem.domain))
    else:
        proofs.append({"rule": "linear", "lines": None})
    if not budget.spent():
        budget.progress("optimising slopes", None)
        few = cuts[:OPTIMISED]
        parts = _parts(problem.domain, few)
        try:
            lines = optimised(problem, parts, budget)
            ranges = [
                linear.bounds(problem.job, [part], linear.Given(Reader(given, "lines")))[0]
                for part, given in zip(parts, lines, strict=True)
            ]
        except (Rejected, Unsupported) as error:  # what the kernel's own lines prove stands
            reasons.append(f"optimised lines: {error}")
        else:
            found = _meet(found, _unite(ranges))
            proofs.append(_tree(few, [{"rule": "linear", "lines": given} for given in lines], problem.domain))
    while len(proofs) > 1:
        proofs[-2:] = [{"rule": "both", "first": proofs[-2], "second": proofs[-1]}]
    return Found(proofs[0], found, False, reasons)


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
        (slope,) = torch.autograd.grad(problem.values(tokens, middle).abs().sum(), middle)
        influence = slope[0].abs().numpy() * (part.high - part.low)
        likely = [int(c) for c in np.argsort(-influence)[:CANDIDATES] if part.high[c] > part.low[c]]
        if not likely:
            break
        halves = [half for c in likely for half in part.cut(c, _middle(part, c))]
        low, high = _estimate(problem, [part, *halves])
        alone = (high[0] - low[0]).mean()
        low, high = (a[1:].reshape(len(likely), 2, -1) for a in (low, high))
        widths = (high.max(1) - low.min(1)).mean(1)
        if not widths.min() < WORTH * alone:
            break
        cuts.append(likely[int(widths.argmin())])
    return cuts


def _middle(part: Domain, c: int) -> float:
    return float(part.low[c] / 2 + part.high[c] / 2)


def _parts(domain: Domain, cuts: list[int]) -> list[Domain]:
    parts = [domain]
    for c in cuts:
        parts = [half for part in parts for half in part.cut(c, _middle(part, c))]
    return parts


def _tree(cuts: list[int], leaves: list[Proof], domain: Domain) -> Proof:
    """The proof that cuts `domain` like _parts, and has these leaves."""
    if not cuts:
        return leaves[0]
    first, half = cuts[0], len(leaves) // 2
    inside, outside = domain.cut(first, at := _middle(domain, first))
    return {"rule": "split", "coordinate": first, "at": at.hex(), "inside": _tree(cuts[1:], leaves[:half], inside),
            "outside": _tree(cuts[1:], leaves[half:], outside)}  # fmt: skip


def _estimate(problem: BoundsProblem, parts: list[Domain]) -> tuple[np.ndarray, np.ndarray]:
    """The search's bounds [parts, entries], with default lines."""
    ar, ends = Tensors(), []
    step = linear.side_by_side(problem.job)
    for start in range(0, len(parts), step):
        cells = _tensors(problem, parts[start : start + step])
        with torch.no_grad():
            output = Relaxed(ar, problem.claim.graph, problem.claim.weights, problem.job.roots, cells).output()
        ends.append([getattr(ar, end)(output).reshape(len(cells), -1).numpy() for end in ("lower", "upper")])
    low, high = (np.concatenate(end) for end in zip(*ends, strict=True))
    return low, high


def _unite(ranges: list[Range]) -> Range:
    return Range(np.min([r.low for r in ranges], 0), np.max([r.high for r in ranges], 0))


def _meet(a: Range, b: Range) -> Range:
    return Range(np.maximum(a.low, b.low), np.minimum(a.high, b.high))


def optimised(problem: BoundsProblem, parts: list[Domain], budget: Budget) -> list[list]:
    """Lines as a certificate lists them, for each part, for the narrowest output there."""
    graph, cells = problem.claim.graph, _tensors(problem, parts)
    kept, *_ = optimise(graph, problem.claim.weights, problem.job.roots, cells, spent=budget.spent)
    return [listed(graph, kept, cell) for cell in range(len(parts))]


def listed(graph: Graph, kept: Kept, cell: int) -> list:
    rows = []
    for (start, n), lines in sorted(kept.lines.items()):
        lower, upper = (t.numpy()[cell] for t in lines)
        largest = max(np.abs(lower).max(), np.abs(upper).max())
        exponent = int(np.frexp(largest)[1]) - BITS if largest > 0 else 0
        limit = 2**-exponent if graph.nodes[n].op == "mul" else None
        whole = [np.rint(np.ldexp(a, -exponent)).astype(np.int64) for a in (lower, upper)]
        whole = [np.clip(a, 0, limit) if limit else a for a in whole]
        rows.append([start, n, exponent, *(a.ravel().tolist() for a in whole)])
    return rows


def _tensors(problem: BoundsProblem, parts: list[Domain]) -> Cells:
    cells, ar = linear.cells(problem.job, parts), Tensors()
    return Cells(tuple(type(ar.exact(ar.raw(b.mid)))(*(ar.raw(np.broadcast_to(a, b.mid.shape).copy()) for a in b[:2]))
                       for b in cells.inputs), cells.allowed,
                 {n: tuple(map(ar.raw, ends)) for n, ends in cells.facts.items()})  # fmt: skip


def _branch(problem: BoundsProblem, budget: Budget) -> Found:
    """Best-first: cut the cells that are farthest from the thresholds, many at a time, until all are proved."""
    count = itertools.count()
    scale = SLACK * max(1.0, float(np.abs(np.concatenate([problem.least, problem.most])[np.isfinite(
        np.concatenate([problem.least, problem.most]))]).max()))  # fmt: skip
    least, most = problem.least + scale, problem.most - scale
    tree: dict = {"rule": "linear", "lines": None}
    open_cells: list = []
    reached = [np.full(problem.claim.outputs, np.inf), np.full(problem.claim.outputs, -np.inf)]
    proved = total = 0

    def relax(cells: list[tuple[dict, Domain, float]]) -> None:
        nonlocal proved, total
        bounds = _estimate(problem, [part for _, part, _ in cells])
        for (node, part, share), a, b in zip(cells, *bounds, strict=True):
            missing = max(np.max(least - a, initial=-np.inf), np.max(b - most, initial=-np.inf))
            if missing <= 0:
                proved += share
                reached[0], reached[1] = np.minimum(reached[0], a), np.maximum(reached[1], b)
            else:
                heapq.heappush(open_cells, (-missing, next(count), node, part, share, a, b))
        total += len(cells)

    relax([(tree, problem.domain, 1.0)])
    begun = time.monotonic()
    while open_cells and not budget.spent():
        if time.monotonic() - begun > 1:
            budget.progress(f"{total:,} cells, {len(open_cells):,} open", proved)
        some = [heapq.heappop(open_cells) for _ in range(min(BRANCHES, len(open_cells)))]
        broken = _broken(problem, [part for _, _, _, part, *_ in some])
        if broken is not None:
            return broken
        if some[0][4] < 2.0**-DEPTH:
            open_cells += some
            break
        children = []
        for _, _, node, part, share, _, _ in some:
            halves, cut = _halves(problem, part)
            node.clear()
            node.update(rule="split", **cut, inside={"rule": "linear", "lines": None},
                        outside={"rule": "linear", "lines": None})  # fmt: skip
            children += [(node["inside"], halves[0], share / 2), (node["outside"], halves[1], share / 2)]
        relax(children)
    for *_, a, b in open_cells:
        reached[0], reached[1] = np.minimum(reached[0], a), np.maximum(reached[1], b)
    reasons = [f"{len(open_cells):,} of {total:,} cells are still open; raise --time-limit"] if open_cells else []
    return Found(tree, Range(reached[0] - scale, reached[1] + scale), False, reasons)


def _broken(problem: BoundsProblem, parts: list[Domain]) -> Found | None:
    """A threshold that is broken in the middle of a cell."""
    tokens = np.array([[t[len(t) // 2] for t in part.tokens] for part in parts], np.int64).reshape(len(parts), -1)
    points = np.stack([part.low + (part.high - part.low) / 2 for part in parts])
    values = problem.values(tokens, torch.from_numpy(points)).numpy()
    margin = np.maximum(problem.least - values, values - problem.most).max(1)
    if not margin.max() > 0:
        return None
    worst = [int(margin.argmax())]
    everything = np.full(problem.claim.outputs, np.inf)
    return Found(_points(problem, tokens[worst], points[worst]), Range(-everything, everything), True, [])


def _halves(problem: BoundsProblem, part: Domain) -> tuple[tuple[Domain, Domain], dict]:
    """Cut the widest coordinate (relative to the domain's) in the middle, or the largest token set."""
    if len(part.low):
        whole = problem.domain.high - problem.domain.low
        width = (part.high - part.low) / np.where(whole > 0, whole, 1)
        coordinate = int(np.argmax(width))
        at = float((part.low[coordinate] + part.high[coordinate]) / 2)
        return part.cut(coordinate, at), {"coordinate": coordinate, "at": at.hex()}
    position = int(np.argmax([len(t) for t in part.tokens]))
    first = part.tokens[position][: len(part.tokens[position]) // 2]
    return part.split(position, set(first)), {"position": position, "first": list(first)}
