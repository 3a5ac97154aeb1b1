"""Run every input, or as many as there is time for: part by part, what promises most first."""

import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from math import inf

import numpy as np

from mechverify.certificate.write import Proof
from mechverify.kernel.core.counts import Counts
from mechverify.kernel.core.domain import Domain
from mechverify.kernel.core.elsewhere import doubled
from mechverify.kernel.core.errors import Rejected, Stopped
from mechverify.kernel.core.evaluate import Evaluation, batch_size
from mechverify.kernel.core.judging import decide, settle
from mechverify.kernel.core.semantics import Real
from mechverify.provers.accuracy.falsify import CLOSE, KEEP, margins_of
from mechverify.provers.accuracy.problem import AccuracyProblem, Attempt, Evidence
from mechverify.provers.accuracy.sampling import Sampler, uniform
from mechverify.provers.base import Budget

LEAF = 2**12  # inputs that are run at a time
COARSE = (
    2**3
)  # parts, at least, of what there is time for: the one that doesn't fit is left out
TRIAL = 2**7  # inputs on which the check is tried
SIDE = 2**10  # that stand side by side, likewise
WIDE = 2.0**7  # times as wide as their widest enclosure: below it, the kernel is asked
BLURRED = 1e-4  # an enclosure as wide leaves many inputs open
WHOLE = 2**18  # inputs that are run whatever it takes, where no time limit is given
LONGEST = 180.0  # seconds that the check of a larger number may take, likewise
OPEN, FEW = (
    2**10,
    2**3,
)  # inputs that are run in exact arithmetic, at most, and to begin with
QUICKEST = 1e-6  # seconds, less than any input takes
WORTH = Fraction(1, 20)  # share of the domain below which it isn't worth while
RANKED = 2**8  # parts that are compared by samples before any is run
SAMPLES = 32  # of each

Margins = Callable[[np.ndarray], np.ndarray]  # of inputs [number, length]: [number]


class Enumerate:
    """Every input of a domain of up to `limit`; without a limit, as many as there is time for."""

    name = "enumerate"

    def __init__(self, limit: int | None = None):
        self.limit = limit

    def accepts(self, problem: AccuracyProblem, evidence: Evidence) -> str | None:
        size = problem.claim.total
        if self.limit is not None and size > self.limit:
            return ""
        proved = (
            problem.known is not None and problem.known.low > 0
        )  # of all inputs: some of them would add nothing
        return (
            f"{size:,} inputs are too many to run them all; restrict the domain"
            if size > WHOLE and proved
            else None
        )

    def prove(
        self, problem: AccuracyProblem, evidence: Evidence, budget: Budget
    ) -> Attempt:
        """Raises Rejected, with the reason, where so few inputs could be run that it isn't worth while."""
        size, (each, near) = problem.claim.total, _tried(problem)
        most = _affordable(size, each, budget)
        if most < WORTH * size:
            raise Rejected(
                f"{size:,} inputs are too many to run, with time for about {most:,}; restrict the domain"
            )
        return enumerated(problem, budget, most, each, near, evidence.margins)


def affords_all(problem: AccuracyProblem, budget: Budget) -> bool:
    """Whether every input can be run, and there is time to."""
    size = problem.claim.total
    if _affordable(size, QUICKEST, budget) < size:
        return False
    try:
        each, _ = _tried(problem)
    except Rejected:
        return False
    return _affordable(size, each, budget) == size


def _affordable(size: int, each: float, budget: Budget) -> int:
    """As many inputs as there is time for, of which one takes `each` seconds."""
    if budget.end < inf:
        left = max(0.0, budget.deadline - time.monotonic() - budget.reserved)
        return int(min(size, left / each))
    return size if size <= WHOLE else min(size, int(LONGEST / each))


def enumerated(
    problem: AccuracyProblem,
    budget: Budget,
    most: int,
    each: float,
    near: float,
    known: np.ndarray | None = None,
) -> Attempt:
    """Torch says which inputs are right, and the kernel of those that lead, or fall short, by no more than `near`;
    `known` are the margins of them all, if they are; `each` is what its check of one takes, in seconds. It stops at
    `most` inputs, when the budget is spent, or when what was run settles the claim."""
    domain, margins, size, whole = (
        problem.domain,
        _margins(problem, known),
        problem.claim.total,
        problem.domain.size,
    )
    done: list[Domain] = []
    wrong_ones: list[np.ndarray] = []
    open_ones: list[np.ndarray] = []
    right = wrong = ran = unguarded = 0
    fit = LEAF if most == size else most * whole // (size * COARSE)
    for part in _parts(problem, margins, max(1, min(LEAF, fit))):
        budget.progress(f"running {size:,} inputs", ran / size)
        so_far = Counts(right, whole - wrong)
        run = problem.size(part)
        if budget.spent() or ran + run > most or problem.settled(so_far):
            break
        try:
            counts, some, unsure = counted(problem, margins, part, near)
        except Stopped:
            break
        right, wrong, ran = (
            right + counts.low,
            wrong + part.size - counts.high,
            ran + run,
        )
        unguarded += part.size - run
        budget.reserved += each * run
        done.append(part)
        wrong_ones += [some] if sum(map(len, wrong_ones)) < KEEP else []
        open_ones.append(unsure)
    exactly = False
    if (
        not problem.settled(Counts(right, whole - wrong))
        and (more := _settled(problem, open_ones, budget)) is not None
    ):
        right, wrong, exactly = (
            right + int(more[0].sum()),
            wrong + int(more[1].sum()),
            True,
        )
        wrong_ones.append(np.concatenate(open_ones)[more[1]])
    found = np.concatenate([np.zeros((0, domain.length), np.int64), *wrong_ones])
    reasons = []
    if ran < size:
        reasons.append(f"{ran:,} of {size:,} inputs were run; --time-limit allows more")
    if unclear := ran + unguarded - right - wrong:
        reasons.append(
            f"of {unclear:,} inputs enclosures don't show whether they are right"
        )
    leaf: Proof = (
        {"rule": "enumerate", "exactly": True} if exactly else {"rule": "enumerate"}
    )
    proof = _tree(domain, done, leaf) if done else None
    return Attempt(
        proof, Counts(right, whole - wrong), "; ".join(reasons) or None, found
    )


def _margins(problem: AccuracyProblem, known: np.ndarray | None) -> Margins:
    """Of any inputs: those known of the whole domain, in its order, or torch's."""
    if known is None or problem.claim.guarded:
        return margins_of(problem)

    def looked_up(inputs: np.ndarray) -> np.ndarray:
        index = np.zeros(len(inputs), np.int64)
        for position, ids in enumerate(problem.domain.tokens):
            index = index * len(ids) + np.searchsorted(ids, inputs[:, position])
        return known[index]

    return looked_up


def counted(
    problem: AccuracyProblem, margins: Margins, part: Domain, near: float
) -> tuple[Counts, np.ndarray, np.ndarray]:
    """What the kernel should count, asked of what lies `near` zero, the wrong inputs, and those that it leaves open."""
    right = wrong = run = 0
    found = [np.zeros((0, part.length), np.int64)]
    unsure = [*found]
    for inputs in problem.inputs(part):
        run += len(inputs)
        margin = margins(inputs)
        ask = ~(np.abs(margin) > near) | ~np.isfinite(
            margin
        )  # infinite: the mechanism's value is no output
        sure = (margin > 0) & ~ask, (margin < 0) & ~ask
        if ask.any():
            with np.errstate(all="ignore"):
                sure[0][ask], sure[1][ask] = decide(problem.job, inputs[ask])
        found.append(inputs[sure[1]])
        unsure.append(inputs[~(sure[0] | sure[1])])
        right, wrong = right + int(sure[0].sum()), wrong + len(found[-1])
    return (
        Counts(part.size - run + right, part.size - wrong),
        np.concatenate(found),
        np.concatenate(unsure),
    )


def _settled(
    problem: AccuracyProblem, parts: list[np.ndarray], budget: Budget
) -> tuple[np.ndarray, np.ndarray] | None:
    """Which of the inputs that float64 leaves open are right, and which wrong, in exact arithmetic: booleans each. None
    where that shows nothing more, or takes too long: the first few say how long, and whether they are ties."""
    unsure = np.concatenate(parts) if parts else np.zeros((0, 0), np.int64)
    if not 0 < len(unsure) <= OPEN:
        return None
    found: list[tuple[np.ndarray, np.ndarray]] = []
    began, few = time.monotonic(), min(len(unsure), FEW)
    try:
        with np.errstate(all="ignore"), budget.rehearsing():
            for start, stop in ((0, few), (few, len(unsure))):
                left = (
                    budget.deadline - time.monotonic() if budget.end < inf else LONGEST
                )
                if (
                    start
                    and (time.monotonic() - began) / few * 2 * (stop - start) > left
                ):
                    return None
                if start < stop:
                    found.append(settle(problem.job, unsure[start:stop]))
                if not any(sure.any() for sure in found[0]):
                    return None
    except (Rejected, Stopped):
        return None
    right, wrong = (np.concatenate(sure) for sure in zip(*found, strict=True))
    return right, wrong


def _tried(problem: AccuracyProblem) -> tuple[float, float]:
    """How many seconds the kernel takes for one input, about, and how large a lead is far more than its enclosures are
    wide, by some inputs. Raises Rejected where it can't run the model."""
    claim, rng = problem.claim, np.random.default_rng(0)
    count = min(TRIAL, batch_size(claim.graph, claim.judged))
    some = Sampler(problem).draw(count, rng)
    began = time.monotonic()

    def width(model: Real) -> float:
        value = Evaluation(claim.graph, claim.weights, model, some)[claim.output]
        return float(np.max(value.rad))

    with np.errstate(all="ignore"):
        try:
            wide = width(problem.job.semantics)
        except Rejected:
            wide = inf
        if (
            not wide <= BLURRED
        ):  # then the kernel asks for more digits, or of programs for what errors have in common
            if not problem.job.semantics.axioms:
                wide = doubled(problem.job, width)
            else:
                some = some[: TRIAL // 2]
            began = time.monotonic()  # most inputs need no more digits, all the same
            decide(problem.job, some)
        side = min(SIDE, claim.total // COARSE)
        if claim.total > WHOLE or (side > TRIAL and not problem.job.semantics.axioms):
            # neighbours share values: they take less than samples
            some = next(problem.inputs(problem.domain))[:side]
            began = time.monotonic()
            decide(problem.job, some)
    near = max(CLOSE, WIDE * wide) if np.isfinite(wide) else inf
    return (time.monotonic() - began) / len(some), near


def _parts(problem: AccuracyProblem, margins: Margins, leaf: int) -> Iterator[Domain]:
    """Of at most `leaf` inputs each, together the domain. Where a threshold is to be reached, the parts that samples
    show most often right come first; where there are too many wrong inputs, those that are most often wrong."""
    first: list[Domain] = [problem.domain]
    while len(first) < RANKED and max(part.size for part in first) > leaf:
        largest = max(range(len(first)), key=lambda i: first[i].size)
        first[largest : largest + 1] = _halves(first[largest])
    if len(first) > 1:
        rng, share = np.random.default_rng(0), []
        for part in first:
            drawn = uniform(part, SAMPLES, rng)
            drawn = drawn[problem.claim.satisfied(problem.job.ar, drawn)]
            share.append(float((margins(drawn) > 0).mean()) if len(drawn) else 1.0)
        sizes = np.array([float(part.size) for part in first])
        accuracy = float(np.dot(share, sizes) / sizes.sum())
        rising = problem.at_least is not None and accuracy < problem.at_least
        first = [
            first[i]
            for i in np.argsort(share if rising else -np.array(share), kind="stable")
        ]
    for part in first:
        todo = [part]
        while todo:
            part = todo.pop()
            if part.size <= leaf:
                yield part
            else:
                todo += _halves(part)[::-1]


def _halves(part: Domain) -> tuple[Domain, Domain]:
    position = _position(part)
    ids = part.tokens[position]
    return part.split(position, set(ids[: (len(ids) + 1) // 2]))


def _position(part: Domain) -> int:
    """The first with several tokens."""
    return next(i for i, ids in enumerate(part.tokens) if len(ids) > 1)


def _tree(domain: Domain, done: list[Domain], leaf: Proof) -> Proof:
    """The proof that runs those parts, made by `_halves`, and leaves the others open. `leaf`: of what is run."""
    if not done:
        return {"rule": "open"}
    if sum(part.size for part in done) == domain.size:
        return leaf
    position, (inside, outside) = _position(domain), _halves(domain)
    first = set(inside.tokens[position])
    here = [part for part in done if part.tokens[position][0] in first]
    there = [part for part in done if part.tokens[position][0] not in first]
    return {"rule": "split", "position": position, "first": sorted(first), "inside": _tree(inside, here, leaf),
            "outside": _tree(outside, there, leaf)}  # fmt: skip
