"""How much of a box is right: parts of it, judged by the kernel's own rule, those first of which most is open.

A part is judged ever more finely while that tells more of it; then, its linear bounds are too wide, and it is cut.
"""

import heapq
import itertools
import time
from fractions import Fraction
from typing import NamedTuple

import numpy as np

from mechverify.certificate.write import Proof
from mechverify.claims.claim import Share
from mechverify.kernel.core.claim import Job
from mechverify.kernel.core.counts import Counts
from mechverify.kernel.core.domain import Domain
from mechverify.kernel.core.errors import Rejected, Stopped, Unsupported
from mechverify.kernel.relaxation.shares import FINEST, counts, linear_bounds
from mechverify.provers.accuracy.problem import AccuracyProblem, Attempt, Findings
from mechverify.provers.base import Budget, failure

FINER = 3  # halvings of mass down to which a part is judged: at first, of its own, and more of them later
TELLS = 0.7  # judging a part more finely must leave less open than that of what was
WIDE = 0.05  # of how far an atom's bound reaches: linear bounds that are further apart tell no more by judging finely
SLACK = (
    2.0**-36
)  # of the whole: bounds of parts judged beside others differ in their last bits
AT_ONCE, MOST = (
    0.9,
    2**8,
)  # parts that are looked at in a round: those that hold so much of what is open, and so many


class Part(NamedTuple):
    """`node`: its leaf in the proof, which judges it down to `to`. `seconds` that this takes; `coarse`: it must be
    cut."""

    node: Proof
    domain: Domain
    to: int
    right: Counts
    seconds: float
    coarse: bool

    @property
    def open(self) -> int:
        return self.right.high - self.right.low


class Trial(NamedTuple):
    """What may replace a part: itself, judged more finely, or its halves, and `how` it is cut."""

    part: Part
    domains: tuple[Domain, ...]
    to: int
    how: dict | None


def find_share(claim: Share, semantics: str, budget: Budget) -> Findings:
    """Of a box. Postcondition: nothing of it was checked."""
    problem = AccuracyProblem.of(claim, semantics, budget.watch)
    search = Parts(problem, budget)
    try:
        with np.errstate(all="ignore"):  # what overflows bounds nothing
            reasons = search.run(claim.within)
    except (Rejected, Unsupported) as error:
        reasons = [failure(error)]
    attempts = [
        Attempt(None, problem.claim.everything),
        Attempt(search.proof, search.right),
    ]
    return Findings(problem, claim.output.model.data, None, attempts, reasons)


class Parts:
    def __init__(self, problem: AccuracyProblem, budget: Budget):
        self.problem, self.budget, self.job = problem, budget, problem.job
        self.proof: Proof | None = None  # of what is judged
        self.heap: list[tuple[int, int, Part]] = []
        self.stuck: list[Part] = []
        self.number = itertools.count()

    @property
    def parts(self) -> list[Part]:
        return [*(part for *_, part in self.heap), *self.stuck]

    @property
    def right(self) -> Counts:
        if self.proof is None:
            return self.problem.claim.everything
        low, high = (
            sum(end) for end in zip(*(part.right for part in self.parts), strict=True)
        )
        total = self.problem.claim.total
        slack = int(SLACK * total)
        return Counts(
            max(0, low - slack if low < total else low),
            min(total, high + slack if high else 0),
        )

    def run(self, within: Fraction) -> list[str]:
        """Until the claim is decided, or, without a threshold, its bounds are near enough; the reasons why it isn't."""
        problem, total, begun = self.problem, self.problem.claim.total, time.monotonic()
        try:
            self._first()
            while True:
                right = self.right
                if time.monotonic() - begun > 1:
                    found = f"{right.low / total:.6f} to {right.high / total:.6f}"
                    self.budget.progress(f"{len(self.parts):,} parts: {found}", None)
                near = (
                    problem.at_least is None
                    and right.high - right.low <= within * total
                )
                if near or problem.settled(right):
                    return []
                if self.budget.spent():
                    return [self.budget.why]
                if not self.heap:
                    return ["no part of which something is open can be cut any more"]
                self._round()
        except Stopped:
            return [self.budget.why]

    def _first(self) -> None:
        whole: Proof = {"rule": "relaxation", "to": FINER}
        (found,), seconds = self._judged([self.problem.domain], [FINER])
        self.proof = whole
        self._keep(Part(whole, self.problem.domain, FINER, found, seconds, True))

    def _round(self) -> None:
        """The parts of which most is open: those that hold most of that, together."""
        most, trials, popped = (
            AT_ONCE * sum(part.open for *_, part in self.heap),
            [],
            [],
        )
        while self.heap and most > 0 and len(trials) < MOST:
            *_, part = heapq.heappop(self.heap)
            most -= part.open
            trial = self._trial(part)
            if trial is None:
                self.stuck.append(part)
            else:
                popped.append(part)
                trials.append(trial)
        domains = [domain for trial in trials for domain in trial.domains]
        try:
            found, seconds = self._judged(
                domains, [trial.to for trial in trials for _ in trial.domains]
            )
            coarse = wide(self.job, domains)
        except (Stopped, Rejected, Unsupported):
            for part in popped:
                self._keep(part)
            raise
        results = iter(zip(found, coarse, strict=True))
        for trial in trials:
            self._replace(
                trial, [next(results) for _ in trial.domains], seconds / len(domains)
            )
        self.budget.reserved = sum(part.seconds for part in self.parts)

    def _judged(
        self, domains: list[Domain], to: list[int]
    ) -> tuple[list[Counts], float]:
        begun = time.monotonic()
        found = counts(self.job, domains, np.array(to))
        return found, time.monotonic() - begun

    def _keep(self, part: Part) -> None:
        heapq.heappush(self.heap, (-part.open, next(self.number), part))

    def _trial(self, part: Part) -> Trial | None:
        if not part.coarse and part.to + FINER <= FINEST:
            return Trial(part, (part.domain,), part.to + FINER, None)
        cut = _cut(self.problem.domain, part.domain)
        to = FINER + int(np.log2(self.problem.claim.total / max(1, part.open)))
        return None if cut is None else Trial(part, cut[0], min(to, FINEST), cut[1])

    def _replace(
        self, trial: Trial, found: list[tuple[Counts, bool]], seconds: float
    ) -> None:
        part, node = trial.part, trial.part.node
        if trial.how is None:
            node["to"] = trial.to
            finer = part._replace(to=trial.to, right=found[0][0], seconds=seconds)
            self._keep(finer._replace(coarse=finer.open > TELLS * part.open))
            return
        leaves: list[Proof] = [{"rule": "relaxation", "to": trial.to} for _ in found]
        node.clear()
        node.update(
            rule="split",
            **trial.how,
            **dict(zip(("inside", "outside"), leaves, strict=True)),
        )
        for leaf, domain, (right, coarse) in zip(
            leaves, trial.domains, found, strict=True
        ):
            self._keep(Part(leaf, domain, trial.to, right, seconds, coarse))


def _cut(whole: Domain, part: Domain) -> tuple[tuple[Domain, Domain], dict] | None:
    """The halves of a part, and how a proof says so: of its largest token set; of one token sequence, along the
    coordinate that is widest, compared with the whole. None where there is nothing to cut."""
    if part.size > 1:
        position = int(np.argmax([len(ids) for ids in part.tokens]))
        first = part.tokens[position][: len(part.tokens[position]) // 2]
        return part.split(position, set(first)), {
            "position": position,
            "first": list(first),
        }
    if not len(part.low):
        return None
    middle = part.low / 2 + part.high / 2
    width = np.where(
        (part.low < middle) & (middle < part.high), part.high - part.low, 0.0
    )
    c = int(np.argmax(width / np.where(width > 0, whole.high - whole.low, 1)))
    at = float(middle[c])
    return (
        (part.cut(c, at), {"coordinate": c, "at": at.hex()}) if width[c] > 0 else None
    )


def wide(job: Job, parts: list[Domain]) -> list[bool]:
    """Of which parts the linear bounds of an atom, neither of whose signs they exclude, are so far apart that they must
    be cut."""
    bounds = linear_bounds(job, parts, False)
    low, high = (
        np.stack([getattr(p, end) for p in parts])[:, None] for end in ("low", "high")
    )
    (below, negated), (slopes, others) = (
        np.split(a, 2, 1) for a in (bounds.constants, bounds.slopes.mid)
    )
    tilt = slopes + others
    apart = -(below + negated) - np.minimum(tilt * low, tilt * high).sum(-1)
    reach = (np.abs(slopes) * (high - low)).sum(-1)
    known = np.logical_or(*np.split(bounds.sure, 2, 1))
    return ((apart > WIDE * reach) & ~known).any(1).tolist()
