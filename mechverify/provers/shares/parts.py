"""How much of a box is right: parts of it, judged by the kernel's own rule, those first of which most is open.

A part is judged ever more finely while that tells more of it; then, its linear bounds are too wide, and it is cut.
Where the condition is one of rule `faces`, the parts are those of the box's faces; where it compares two runs, it is
judged in a graph of their differences (rule `differences`), if that bounds it more narrowly.
"""

import time
from collections.abc import Callable
from contextlib import suppress
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np

from mechverify.certificate.write import Proof
from mechverify.claims.share import Share
from mechverify.kernel.core.claim import Job
from mechverify.kernel.core.counts import Counts
from mechverify.kernel.core.domain import Domain
from mechverify.kernel.core.errors import Rejected, Stopped, Unsupported
from mechverify.kernel.core.share import AllRight, ShareClaim
from mechverify.kernel.differences.rule import jointly
from mechverify.kernel.relaxation import cones
from mechverify.kernel.relaxation.cases import Cases, cases, relaxed
from mechverify.kernel.relaxation.conditions import Condition
from mechverify.kernel.relaxation.rule import ranges, side_by_side
from mechverify.kernel.relaxation.shares import FINEST, counts
from mechverify.provers.accuracy.problem import AccuracyProblem, Attempt, Findings
from mechverify.provers.base import Budget, failure
from mechverify.provers.domains import read, told
from mechverify.provers.worst_first import WorstFirst

FINER = 3  # halvings of mass down to which a part is judged: at first, of its own, if it must be cut in any case
FIRST = 12  # ... and of other parts
MORE = 4  # further ones later, at most
TELLS = 0.7  # judging a part more finely must leave less open than that of what was
KINKS = 8  # open ones of a part, at most, whose signs are told apart
CONSTANT = (
    2.0**-20
)  # what reaches no further than this times another is no wider for rounding
WIDE = 0.05  # of how far an atom's bound reaches: linear bounds that are further apart tell no more by judging finely
BEYOND = Fraction(
    1, 8
)  # of how far bounds may be apart: mass beyond the box, at most, for its faces to tell of it
NARROWER = 0.9  # of how wide bounds are: those by differences are then worth their time
WIDER = 1.1  # where a minimum of two atoms becomes one, whose share no others lessen
TOGETHER = 64  # parts of an obligation
SLACK = (
    2.0**-36
)  # of the whole: bounds of parts judged beside others differ in their last bits
AT_ONCE, MOST = (
    0.9,
    2**8,
)  # parts that are looked at in a round: those that hold so much of what is open, and so many
SAME, FACES, JOINTLY = "", "faces", "differences"


class Look(NamedTuple):
    """How many `signs` of a part to tell apart, whether it is `coarse` nevertheless, and how finely to judge it."""

    signs: int
    coarse: bool
    to: int

    def beyond(self, to: int) -> "Look":
        return self._replace(to=min(self.to + to, FINEST))


class Part(NamedTuple):
    """`node`: its leaf in the proof, which judges it as `look` says, in so many `seconds`."""

    node: Proof
    domain: Domain
    look: Look
    right: Counts
    seconds: float

    @property
    def open(self) -> int:
        return self.right.high - self.right.low


class Trial(NamedTuple):
    """What may replace a part: itself, judged more finely, or its halves, and `how` it is cut."""

    part: Part
    domains: tuple[Domain, ...]
    look: Look
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
        self.about = SAME  # what parts are judged about
        self.proof: Proof | None = None  # of what is judged
        self.waiting = WorstFirst[Part]()
        self.stuck: list[Part] = []
        self.more = MORE

    @property
    def parts(self) -> list[Part]:
        return [*self.waiting, *self.stuck]

    @property
    def right(self) -> Counts:
        if self.proof is None:
            return self.problem.claim.everything
        found, total = [part.right for part in self.parts], self.problem.claim.total
        right = Counts(*map(sum, zip(*found, strict=True)))
        if self.about != FACES and all(isinstance(right, AllRight) for right in found):
            return Counts(total, total)
        if self.about == FACES:
            right = cones.of_box(self.job, self.problem.domain, right)
        low, high = right
        slack = int(SLACK * total)
        return Counts(
            max(0, low - slack if low < total else low),
            min(total, high + slack if high else 0),
        )

    def run(self, within: Fraction) -> list[str]:
        """Until the claim is decided, or, without a threshold, its bounds are near enough; the reasons why it isn't."""
        problem, total, begun = self.problem, self.problem.claim.total, time.monotonic()
        try:
            self._first(within)
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
                if not self.waiting:
                    return ["no part of which something is open can be cut any more"]
                if (
                    problem.at_least is None
                ):  # what is open falls as the root of the cubes' mass, or faster
                    times = (
                        (right.high - right.low) / (within * total)
                        if within
                        else np.inf
                    )
                    self.more = int(
                        np.clip(np.ceil(2 * np.log2(float(times))), 1, MORE)
                    )
                self._round()
        except Stopped:
            return [self.budget.why]

    def _first(self, within: Fraction) -> None:
        claim, domains = self.problem.claim, [self.problem.domain]
        assert isinstance(claim, ShareClaim)
        union = claim.union
        if union is not None:
            domains = union.parts(domains[0])
        if self._open(domains[0]):
            if union is None:
                with suppress(Rejected):
                    _, faces = self.job.once(_about_faces)
                    if 1 - self.job.once(cones.within) <= BEYOND * within:
                        self.about, domains = FACES, faces
            # a face has an input fewer to cut: in 2 to 4 inputs that was worth more than narrower bounds
            if self.about == SAME and self.job.once(_narrower):
                self.about = JOINTLY
        looked = self._look(domains)
        judged, seconds = self._judged(domains, looked)
        leaves = [_leaf(look) for look in looked]
        if union is not None:
            self.proof = {"rule": "union", "parts": leaves}
        else:
            self.proof = (
                {"rule": "faces", "faces": leaves} if self.about == FACES else leaves[0]
            )
        if self.about == JOINTLY:
            self.proof = {"rule": "differences", "proof": self.proof}
        for row in zip(leaves, domains, looked, judged, strict=True):
            self._keep(Part(*row, seconds / len(domains)))

    def _open(self, domain: Domain) -> bool:
        (found,) = counts(self.job, [domain], np.zeros(1, int), np.zeros(1, int))
        return found.low < found.high

    def _round(self) -> None:
        """The parts of which most is open: those that hold most of that, together."""
        most, trials, popped = (
            AT_ONCE * sum(part.open for part in self.waiting),
            [],
            [],
        )
        while self.waiting and most > 0 and len(trials) < MOST:
            part = self.waiting.take()
            most -= part.open
            trial = self._trial(part)
            if trial is None:
                self.stuck.append(part)
            else:
                popped.append(part)
                trials.append(trial)
        domains = [domain for trial in trials for domain in trial.domains]
        try:
            looked = self._looked(trials)
            found, seconds = self._judged(domains, looked)
        except (Stopped, Rejected, Unsupported):
            for part in popped:
                self._keep(part)
            raise
        results = iter(zip(found, looked, strict=True))
        for trial in trials:
            self._replace(
                trial, [next(results) for _ in trial.domains], seconds / len(domains)
            )
        self.budget.reserved = sum(part.seconds for part in self.parts)

    def _looked(self, trials: list[Trial]) -> list[Look]:
        """Of their domains."""
        new = [domain for t in trials if t.how is not None for domain in t.domains]
        fresh = iter(self._look(new) if new else [])
        return [
            t.look if t.how is None else next(fresh).beyond(t.look.to)
            for t in trials
            for _ in t.domains
        ]

    def _judged(
        self, domains: list[Domain], looked: list[Look]
    ) -> tuple[list[Counts], float]:
        rows = [[told(d), x.to, x.signs] for d, x in zip(domains, looked, strict=True)]
        answers = self._asked(judged, rows)
        found = [
            (AllRight if all_right else Counts)(*row)
            for right, _ in answers
            for all_right, *row in right
        ]
        return found, sum(seconds for _, seconds in answers)

    def _look(self, domains: list[Domain]) -> list[Look]:
        answers = self._asked(looked_at, [[told(domain)] for domain in domains])
        return [Look(*row) for rows in answers for row in rows]

    def _asked(self, by: Callable[..., Any], rows: list) -> list[Any]:
        """In obligations of so many parts that the kernel is about as quick as with all of them at once."""
        some = (rows[i : i + TOGETHER] for i in range(0, len(rows), TOGETHER))
        promises = (
            self.budget.ask(by, self.problem, [self.about, few]) for few in some
        )
        return [*self.budget.in_order(promises)]

    def _keep(self, part: Part) -> None:
        self.waiting.add(part, part.open)

    def _trial(self, part: Part) -> Trial | None:
        finer = part.look.beyond(self.more)
        if not part.look.coarse and finer.to > part.look.to:
            return Trial(part, (part.domain,), finer, None)
        cut = _cut(self.problem.domain, part.domain)
        to = int(np.log2(self.problem.claim.total / max(1, part.open)))
        return (
            None
            if cut is None
            else Trial(part, cut[0], part.look._replace(to=to), cut[1])
        )

    def _replace(
        self, trial: Trial, found: list[tuple[Counts, Look]], seconds: float
    ) -> None:
        part, node = trial.part, trial.part.node
        node.clear()
        if trial.how is None:
            ((right, look),) = found
            node |= _leaf(look)
            finer = Part(node, part.domain, look, right, seconds)
            coarse = finer.open > TELLS * part.open
            self._keep(finer._replace(look=look._replace(coarse=coarse)))
            return
        leaves = [_leaf(look) for _, look in found]
        node |= {"rule": "split", **trial.how} | dict(
            zip(("inside", "outside"), leaves, strict=True)
        )
        for leaf, domain, (right, look) in zip(
            leaves, trial.domains, found, strict=True
        ):
            self._keep(Part(leaf, domain, look, right, seconds))


def _leaf(look: Look) -> Proof:
    return {"rule": "relaxation", "to": look.to} | (
        {"signs": look.signs} if look.signs else {}
    )


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


def judged(problem: AccuracyProblem, asked: list, budget: Budget) -> list[Any]:
    """An obligation: the counts of parts, or faces, and the seconds that it took."""
    (about, rows), begun = asked, time.monotonic()
    job = _job(problem, about)
    to, signs = (np.array([row[at] for row in rows]) for at in (-2, -1))
    with np.errstate(all="ignore"):
        right = counts(job, [read(row[0]) for row in rows], to, signs)
    return [
        [[isinstance(row, AllRight), *row] for row in right],
        time.monotonic() - begun,
    ]


def _job(problem: AccuracyProblem, about: str) -> Job:
    if about == SAME:
        return problem.job
    return (
        problem.job.once(_jointly)
        if about == JOINTLY
        else problem.job.once(_about_faces)[0]
    )


def _jointly(job: Job) -> Job:
    return jointly(job, job.claim.domain)


def _narrower(job: Job) -> bool:
    """Whether differences bound the condition's atoms more narrowly on the whole box, or make fewer of them."""
    try:
        apart, joint = (
            about.once(Condition).job for about in (job, job.once(_jointly))
        )
        before, after = (_width(about) for about in (apart, joint))
    except (Rejected, Unsupported):
        return False
    fewer = joint.claim.outputs < apart.claim.outputs
    return after < (WIDER if fewer else NARROWER) * before


def _width(about: Job) -> float:
    """Of linear bounds on the whole box, on average."""
    (found,) = ranges(about, [about.claim.domain])
    return float(np.mean(found.high - found.low))


def _about_faces(job: Job) -> tuple[Job, list[Domain]]:
    return cones.faces(job, job.claim.domain)


def looked_at(problem: AccuracyProblem, asked: list, budget: Budget) -> list[Look]:
    """An obligation, of parts: how many signs to tell apart in each, and whether the linear bounds of an atom, neither
    of whose signs they exclude, are then so far apart that it must be cut."""
    (about, rows), found = asked, []
    about = _job(problem, JOINTLY if about == JOINTLY else SAME).once(Condition).job
    parts, step = [read(row[0]) for row in rows], side_by_side(about)
    with np.errstate(all="ignore"):
        for start in range(0, len(parts), step):
            some = parts[start : start + step]
            kinks = [len(open_) for open_ in relaxed(about, some, False).kinks()]
            signs = [n if n <= KINKS else 0 for n in kinks]
            split = cases(about, some, np.array(signs), False)
            coarse = np.zeros(len(some), bool)
            np.logical_or.at(coarse, split.part, _wide(split, some))
            found += [
                Look(n, wide, FINER if wide else FIRST)
                for n, wide in zip(signs, coarse.tolist(), strict=True)
            ]
    return found


def _wide(told: Cases, parts: list[Domain]) -> np.ndarray:
    """Which nodes of cases have such bounds."""
    low, high = (
        np.stack([getattr(p, end) for p in parts])[told.part, None]
        for end in ("low", "high")
    )
    (below, negated), (slopes, others) = (
        np.split(a, 2, 1) for a in (told.constants, told.slopes.mid)
    )
    tilt = slopes + others
    apart = -(below + negated) - np.minimum(tilt * low, tilt * high).sum(-1)
    reach = (np.abs(slopes) * (high - low)).sum(-1)
    reach = np.maximum(reach, CONSTANT * reach.max(initial=0.0))
    known = np.logical_or(*np.split(told.sure, 2, 1)) | (told.inside >= 0)[:, None]
    return ((apart > WIDE * reach) & ~known).any(1)
