"""A claim about bounds as the search sees it, and what every step of the search may find."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from mechverify.bounds.optimise import Kept, Slopes, optimise
from mechverify.bounds.tensors import Tensors
from mechverify.certificate.write import Proof, claim_document
from mechverify.claims.claim import Bounds
from mechverify.claims.errors import ClaimError
from mechverify.graph.run import TorchRunner
from mechverify.kernel.core.claim import Job
from mechverify.kernel.core.domain import Domain
from mechverify.kernel.core.errors import Rejected
from mechverify.kernel.core.fields import Reader
from mechverify.kernel.core.float64 import Float64, float_above, float_below
from mechverify.kernel.core.kinds import read_claim
from mechverify.kernel.core.meter import Watch
from mechverify.kernel.core.ranges import Range, enclose
from mechverify.kernel.proof import prove
from mechverify.kernel.relaxation import rule as linear
from mechverify.kernel.relaxation.backward import Relaxed
from mechverify.kernel.relaxation.intervals import Cells
from mechverify.provers.base import Budget
from mechverify.provers.extremes import Inputs

BITS = 16  # of a slope
TRIED, REPLAYS, REPLAY = 2, 16, 2e9  # inputs of one search that the kernel looks at; of all; units of work of each
NEAR = 1e-12  # relative: how near a threshold torch's value may be for the kernel to look whether it is broken


@dataclass
class Found:
    """A proof, the range that it should give, and whether a point in it breaks a threshold."""

    proof: Proof | None
    range: Range
    broken: bool
    reasons: list[str]


class BoundsProblem:
    """A claim about bounds, read exactly as the kernel reads it."""

    def __init__(self, job: Job, device: str = "cpu", own: tuple[np.ndarray, np.ndarray] | None = None):
        """`own`: the corners between which a point is one of the user's inputs, if these aren't the domain's."""
        self.job, self.claim, self.device = job, job.claim, device
        self.own = (self.domain.low, self.domain.high) if own is None else own
        self.kept: Found | None = None  # what is proved already, whatever comes
        self.failed, self.unshown = 0, -np.inf  # inputs that the kernel didn't confirm, and the largest margin of one
        self.run = TorchRunner(self.claim.graph, self.claim.weights, torch.float64)
        try:
            self.ar = Tensors(device)
            self.ar.watch = job.ar.watch
            self.ar.raw(np.zeros(1))
        except (RuntimeError, AssertionError) as error:
            said = str(error).splitlines()[0]
            raise ClaimError(f"device {device!r}: torch can't compute in float64 there ({said}); use cpu") from None
        self.seconds = 0.0  # that the kernel's relaxation of the whole domain takes
        self.shared = False  # which form of a softmax narrower bounds go through
        n = self.claim.outputs
        least, most = self.claim.least or [-np.inf] * n, self.claim.most or [np.inf] * n
        # a float64 reaches a threshold exactly if it reaches the nearest float64 inside it
        self.least, self.most = np.array(list(map(float_above, least))), np.array(list(map(float_below, most)))

    @staticmethod
    def of(claim: Bounds, semantics: str, device: str = "cpu", watch: Watch | None = None) -> "BoundsProblem":
        document = claim_document(claim, semantics)
        read = read_claim(Reader(document, "claim"), claim.output.model.data)
        own = claim.over.own if claim.over.inner else None
        return BoundsProblem(Job(read, Float64(watch=watch)), device, own)

    @property
    def rewriting(self) -> linear.Rewriting:
        return self.job.once(linear.Rewriting)

    @property
    def domain(self) -> Domain:
        return self.claim.domain

    @property
    def linear(self) -> Proof:
        """A leaf with the kernel's own lines."""
        return {"rule": "linear", "lines": None} | ({"shared": True} if self.shared else {})

    @property
    def asks(self) -> bool:
        """There is a threshold to decide."""
        return self.claim.least is not None or self.claim.most is not None

    def values(self, tokens: np.ndarray, points: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The output [inputs, entries] in float64, differentiable in `points` [inputs, coordinates]; and the least
        value [inputs] of the claim's conditions, infinite without any, -inf where the input is none of the user's, or
        NaN comes out."""
        inputs, start = [], 0
        for shape in self.claim.shapes:
            size = int(np.prod(shape))
            inputs.append(points[:, start : start + size].reshape(-1, *shape))
            start += size
        values = self.run.many([self.claim.output, *self.claim.where], tokens, inputs)
        output = values[self.claim.output].reshape(len(tokens), -1)
        least = torch.full((len(tokens),), torch.inf, dtype=torch.float64)
        for n in self.claim.where:
            least = torch.minimum(least, values[n].detach().reshape(len(tokens), -1).amin(1))
        own = ((torch.from_numpy(self.own[0]) <= points) & (points <= torch.from_numpy(self.own[1]))).all(1)
        return output, torch.where(own & ~output.detach().isnan().any(1) & ~least.isnan(), least, -torch.inf)

    def missing(self, low: np.ndarray, high: np.ndarray) -> np.ndarray:
        """By how much [...] bounds [..., entries] fail to reach the thresholds; not positive where they do, infinite
        where a bound is no number."""
        with np.errstate(invalid="ignore", over="ignore"):  # an end that isn't asked for, of a range without ends
            below = np.where(self.least > -np.inf, self.least - low, -np.inf)
            above = np.where(self.most < np.inf, high - self.most, -np.inf)
        short = np.maximum(below, above)
        return np.where(np.isnan(short), np.inf, short).max(-1, initial=-np.inf)

    def proves(self, found: Range) -> bool:
        return bool(self.missing(found.low, found.high) <= 0)

    def replayed(self, inputs: Inputs) -> bool | None:
        """Whether the kernel shows that a threshold is broken at one of the inputs; None if it can't enclose one."""
        ar = self.job.ar
        limit, ar.limit = ar.limit, ar.work + REPLAY
        try:
            with np.errstate(all="ignore"):
                return bool(enclose(self.job, inputs.tokens, inputs.points)[1].any())
        except Rejected:
            return None
        finally:
            ar.limit = limit

    def open(self, found: Found) -> bool:
        """There is a threshold that neither a proof nor an input decides."""
        return self.asks and not found.broken and not self.proves(found.range)

    def cells(self, parts: list[Domain]) -> Cells:
        """The parts as the search's tensors."""
        cells, ar = linear.cells(self.job, parts), self.ar
        boxes = [[ar.raw(np.broadcast_to(a, b.mid.shape).copy()) for a in b[:2]] for b in cells.inputs]
        ball = type(ar.exact(None))
        known = ({n: tuple(map(ar.raw, ends)) for n, ends in group.items()} for group in (cells.facts, cells.tabled))
        corners = tuple(tuple(ar.raw(end.copy()) for end in ends) for ends in cells.corners)
        return Cells(tuple(ball(*b) for b in boxes), cells.allowed, *known, corners)

    def relaxed(self, cells: Cells, kind: type[Relaxed] = Relaxed) -> Relaxed:
        rewriting = self.rewriting
        return kind(self.ar, rewriting.graph, self.claim.weights, rewriting.roots, cells, shared=self.shared)

    def bounds(self, parts: list[Domain]) -> Range:
        """What the kernel proves of all parts together, with its own lines."""
        found, step = [], linear.side_by_side(self.job)
        for start in range(0, len(parts), step):
            found += linear.bounds(self.job, parts[start : start + step], shared=self.shared)
        return unite(found)

    def estimate(self, parts: list[Domain]) -> tuple[np.ndarray, np.ndarray]:
        """The search's bounds [parts, entries], with default lines; the other way round where a part is empty, which
        is the kernel's word alone: rounding makes neighbours contradict each other here."""
        ends, step = [], linear.side_by_side(self.job)
        for start in range(0, len(parts), step):
            cells = self.cells(parts[start : start + step])
            with torch.no_grad():
                ends.append(_ends(self.relaxed(cells), len(cells)))
        low, high, empty = (np.concatenate(end) for end in zip(*ends, strict=True))
        low, high = np.where(np.isnan(low), -np.inf, low), np.where(np.isnan(high), np.inf, high)
        for i in np.flatnonzero(empty):
            if self.claim.where or parts[i].facts:
                low[i], high[i] = self._word(parts[i])
        return low, high

    def _word(self, part: Domain) -> Range:
        """The kernel's bounds of a part, if it has any."""
        try:
            return linear.bounds(self.job, [part], shared=self.shared)[0]
        except Rejected:
            return self.claim.everything


def confirmed(job: Job, proof: Proof) -> Range:
    """What the kernel finds with a proof: its last bits depend on which parts it relaxes side by side."""
    with np.errstate(all="ignore"):
        return prove(job, Reader(proof, "proof"))[0]


def unite(ranges: list[Range]) -> Range:
    return Range(np.min([r.low for r in ranges], 0), np.max([r.high for r in ranges], 0))


def _ends(relaxed: Relaxed, cells: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    low, high = (end.expand(cells, *end.shape[1:]).reshape(cells, -1).cpu().numpy() for end in relaxed.output())
    return low, high, relaxed.empty.expand(cells).cpu().numpy()


def middle_of(part: Domain, c: int) -> float:
    return float(part.low[c] / 2 + part.high[c] / 2)


def refuted(problem: BoundsProblem, inputs: Inputs) -> Found | None:
    """What an input that breaks a threshold proves, once the kernel has replayed it: the worst one, or another of the
    worst where it doesn't confirm that (a condition on its boundary, say). Inputs that come very near a threshold are
    worth its look as well."""
    if not problem.asks or not len(inputs.values):
        return None
    margin = problem.missing(inputs.values, inputs.values)
    order = np.argsort(-margin, kind="stable")
    tried = dict.fromkeys([*order[:TRIED], *order[inputs.clear[order]][:TRIED]])
    for i in tried:
        near = NEAR * max(1.0, np.abs(inputs.values[i]).max())
        if not margin[i] > (-near if problem.failed < REPLAYS else max(0.0, problem.unshown)):
            continue
        if problem.replayed(one := inputs.at([int(i)])):
            return Found(one.proof(), problem.claim.everything, True, [])
        problem.failed, problem.unshown = problem.failed + 1, max(problem.unshown, float(margin[i]))
    return None


def shown(problem: BoundsProblem, inputs: Inputs | None) -> Proof | None:
    """What is reached at those inputs that the kernel can enclose, as a proof to stand beside others."""
    if inputs is None or not len(inputs.values):
        return None
    if problem.replayed(inputs) is None:
        inputs = inputs.at([i for i in np.flatnonzero(inputs.clear) if problem.replayed(inputs.at([i])) is not None])
    return inputs.proof() if len(inputs.values) else None


def optimised(
    problem: BoundsProblem, parts: list[Domain], budget: Budget, seconds: float = math.inf, **options: Any
) -> list[tuple[Proof, Range]]:
    """For each part a leaf with optimised lines (and multipliers, where something is known of it beside its box), and
    the range that the kernel finds with them. `seconds`: for the gradient steps. Raises Stopped if time is up before
    there is any line, or before the kernel has found a range."""
    rewriting, cells = problem.rewriting, problem.cells(parts)
    options |= {"ar": problem.ar, "shared": problem.shared, "spent": budget.spent}
    with budget.within(seconds):
        kept, *_ = optimise(rewriting.graph, problem.claim.weights, rewriting.roots, cells, **options)
    with budget.rehearsing():
        return [checked(problem, kept, cell, part) for cell, part in enumerate(parts)]


def checked(problem: BoundsProblem, kept: Kept, cell: int, part: Domain) -> tuple[Proof, Range]:
    """A leaf with those of a cell's lines that the kernel uses, and the range that it finds."""
    leaf = listed(problem, kept, cell)
    given = linear.Given(*(Reader(leaf[name], name) for name in ("lines", "multipliers") if name in leaf))
    (found,) = linear.bounds(problem.job, [part], shared=problem.shared, lines=given)
    for name, used in (("lines", ()), ("multipliers", ("multipliers",))):  # a cell alone may need fewer
        if name in leaf:
            leaf[name] = [row for row in leaf[name] if (*row[:2], *used) not in given.unread]
    return leaf, found


def proposed(problem: BoundsProblem, slopes: Slopes) -> Kept:
    """Slopes below ReLUs as lines of the whole domain; above, the chord's. Raises ClaimError where they don't fit."""
    relaxed, kept = problem.relaxed(problem.cells([problem.domain])), Kept()
    graph, root = problem.rewriting.graph, problem.rewriting.roots.output
    relus = [n for n in relaxed.order if graph.nodes[n].op == "relu" and n not in relaxed.fixed]
    if problem.rewriting.roots.shared:
        raise ClaimError("slopes can be given for networks without a softmax")
    for (start, at), given in slopes.items():
        if not (at in range(len(relus)) and (start is None or start in range(at + 1, len(relus)))):
            raise ClaimError(f"slopes of ReLU {at} for {start}: the claim's value has {len(relus)} ReLUs before it")
        node = relus[at]
        bounded = root if start is None else relaxed.source(graph.nodes[relus[start]].args[0])[0]
        shape, size = graph.nodes[node].shape, int(np.prod(graph.nodes[bounded].shape))
        try:
            below = torch.from_numpy(np.asarray(given, float).reshape(1, 2 * size, *shape))
        except ValueError:
            what = f"slopes of ReLU {at} for {start}: expected (2, {size}, {', '.join(map(str, shape))})"
            raise ClaimError(f"{what}, got {np.shape(given)}") from None
        above = relaxed.default_slopes(node)[1].mid.expand_as(below)
        kept.lines[bounded, node] = below, above
    return kept


def listed(problem: BoundsProblem, kept: Kept, cell: int) -> Proof:
    """What was kept for a cell, as a certificate lists it."""
    lines, multipliers = [], []
    for (start, n), pair in sorted(kept.lines.items()):
        limit = 1.0 if problem.rewriting.graph.nodes[n].op == "mul" else None
        lines.append([start, n, *_rounded([t[cell] for t in pair], limit)])
    for (start, n), factors in sorted(kept.factors.items()):
        multipliers.append([start, n, *_rounded([factors[cell]])])
    leaf = problem.linear | {"lines": lines}
    return leaf | {"rule": "farkas", "multipliers": multipliers} if multipliers else leaf


def _rounded(tensors: list[torch.Tensor], limit: float | None = None) -> list:
    """A common exponent, and the entries as integers of BITS bits."""
    arrays = [t.cpu().numpy() for t in tensors]
    largest = max(np.abs(a).max() for a in arrays)
    exponent = int(np.frexp(largest)[1]) - BITS if largest > 0 else 0
    whole = [np.rint(np.ldexp(a, -exponent)).astype(np.int64) for a in arrays]
    if limit is not None:
        whole = [np.clip(a, 0, int(np.ldexp(limit, -exponent))) for a in whole]
    return [exponent, *(a.ravel().tolist() for a in whole)]
