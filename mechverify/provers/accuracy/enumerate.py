"""Run every input, or as many as there is time for: part by part, what promises most first. Each is an obligation."""

import math
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from itertools import tee
from math import inf
from typing import Any, NamedTuple

import numpy as np

from mechverify.certificate.write import Proof
from mechverify.kernel.core.counts import Counts
from mechverify.kernel.core.domain import Domain
from mechverify.kernel.core.elsewhere import doubled
from mechverify.kernel.core.errors import Rejected, Stopped
from mechverify.kernel.core.evaluate import Evaluation, batch_size
from mechverify.kernel.core.judging import decide, settle
from mechverify.kernel.core.semantics import Real
from mechverify.provers.accuracy.falsify import CLOSE, KEEP
from mechverify.provers.accuracy.problem import AccuracyProblem, Attempt, Evidence
from mechverify.provers.accuracy.sampling import Sampler, uniform
from mechverify.provers.base import Budget
from mechverify.provers.domains import read, told
from mechverify.provers.remaining import Remaining

NUMBERS = 2**26  # that a part's inputs are run through, about: half a second's work
COARSE = (
    2**3
)  # parts, at least, of what there is time for: the one that doesn't fit is left out
TRIAL = 2**7  # inputs on which the check is tried
SIDE = 2**10  # that stand side by side, likewise
WIDE = 2.0**7  # times as wide as their widest enclosure: below it, the kernel is asked
BLURRED = 1e-4  # an enclosure as wide leaves many inputs open
WHOLE = 2**18  # inputs that are run whatever it takes, where no time limit is given
LONGEST = (
    2.0**38
)  # units of work that the check of a larger number may take, likewise: a minute or so
OPEN, FEW = (
    2**10,
    2**3,
)  # inputs that are run in exact arithmetic, at most, and as an obligation
WORTH = Fraction(1, 20)  # share of the domain below which it isn't worth while
RANKED = 2**8  # parts that are compared by samples before any is run
SAMPLES = 32  # of each
SOME = 2**8  # wrong inputs that are told of each
LITTLE = 2**10  # inputs that the kernel is asked of: no obligation


class Cost(NamedTuple):
    """Of the kernel's check of an input, about; `work` is the same on every machine."""

    seconds: float
    work: float


QUICKEST = Cost(1e-6, 1e3)  # less than any input takes


class Enumerate:
    """Every input of a domain of up to `limit`; without a limit, as many as there is time for."""

    name = "enumerate"

    def __init__(self, limit: int | None = None):
        self.limit = limit

    def accepts(self, problem: AccuracyProblem, evidence: Evidence) -> str | None:
        few = self.limit is None or problem.claim.total <= self.limit
        return None if few else ""

    def prove(
        self, problem: AccuracyProblem, evidence: Evidence, budget: Budget
    ) -> Attempt:
        """Raises Rejected, with the reason, where so few inputs could be run that it isn't worth while."""
        size, (each, near) = problem.claim.total, _tried(problem, budget)
        most = _affordable(size, each, budget)
        proved = problem.known is not None and problem.known.low > 0
        if most < size and proved:  # a part of them would add nothing
            raise Rejected(
                f"{size:,} inputs are too many to run them all; restrict the domain"
            )
        if most < WORTH * size:
            raise Rejected(
                f"{size:,} inputs are too many to run, with time for about {most:,}; restrict the domain"
            )
        return enumerated(problem, budget, most, each.seconds, near, evidence.margins)


def affords_all(problem: AccuracyProblem, budget: Budget) -> bool:
    """Whether every input can be run, and there is time to."""
    return patience(problem, budget) < inf


def patience(problem: AccuracyProblem, budget: Budget) -> float:
    """Units of work that a prover which may fail may take before every input is run instead: as many as that takes, and
    no more than leaves time for it. Infinite where not all can be run."""
    size = problem.claim.total
    if _affordable(size, QUICKEST, budget) < size:
        return inf
    try:
        each, _ = _tried(problem, budget)
    except Rejected:
        return inf
    if _affordable(size, each, budget) < size:
        return inf
    if budget.end == inf:
        return each.work * size
    left = budget.deadline - time.monotonic() - budget.reserved
    return each.work * min(size, left / each.seconds - size)


def _affordable(size: int, each: Cost, budget: Budget) -> int:
    """As many inputs as there is time for. Without a limit it is told from work: then every run says the same."""
    if budget.end < inf:
        left = max(0.0, budget.deadline - time.monotonic() - budget.reserved)
        return int(min(size, left / each.seconds))
    return size if size <= WHOLE else min(size, int(LONGEST / each.work))


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
    domain, size, whole = (
        problem.domain,
        problem.claim.total,
        problem.domain.size,
    )
    if problem.claim.guarded:
        known = None
    done: list[Domain] = []
    wrong_ones: list[np.ndarray] = []
    open_ones: list[np.ndarray] = []
    right = wrong = ran = unguarded = 0
    fit = _leaf(problem) if most == size else most * whole // (size * COARSE)
    parts, ahead = tee(_parts(problem, max(1, min(_leaf(problem), fit))))
    answers = budget.in_order(
        _promised(problem, part, near, known, budget) for part in ahead
    )
    left = Remaining.of(budget.desk)
    for part in parts:
        waiting = (size - ran) * len(done) // max(1, ran)
        budget.progress(f"running {size:,} inputs{left.words(waiting)}", ran / size)
        so_far = Counts(right, whole - wrong)
        if budget.spent() or problem.settled(so_far):
            break
        if most < size and ran + problem.size(part) > most:
            break
        try:
            low, high, run, some, unsure = next(answers)
        except Stopped:
            break
        right, wrong, ran = right + low, wrong + part.size - high, ran + run
        unguarded += part.size - run
        budget.reserved += each * run
        done.append(part)
        wrong_ones += [_ids(some, part)] if sum(map(len, wrong_ones)) < KEEP else []
        open_ones.append(_ids(unsure, part))
        left.answered(0)
    unclear, exactly = ran + unguarded - right - wrong, False
    if (
        not problem.settled(Counts(right, whole - wrong))
        and 0 < unclear <= OPEN
        and (more := _settled(problem, np.concatenate(open_ones), budget)) is not None
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


def _leaf(problem: AccuracyProblem) -> int:
    """Inputs of a part, at most."""
    graph = problem.claim.graph
    each = sum(
        math.prod(graph.nodes[n].shape) for n in graph.varying(problem.claim.judged)
    )
    return max(1, NUMBERS // max(1, each))


def _promised(
    problem: AccuracyProblem,
    part: Domain,
    near: float,
    known: np.ndarray | None,
    budget: Budget,
) -> Callable[[], list]:
    """What `counted` says of a part. Where torch has run it, and little is left to the kernel, it isn't given out."""
    if known is None:
        return budget.ask(counted, problem, [told(part), near, None])
    margins = known[_places(problem.domain, part)]
    asked = [told(part), near, margins]
    if (~(np.abs(margins) > near)).sum() <= LITTLE:
        return lambda: counted(problem, asked, budget)
    return budget.ask(counted, problem, asked)


def _places(domain: Domain, part: Domain) -> np.ndarray:
    """Where a part's inputs stand among the domain's, both in their order."""
    index = np.zeros(1, np.int64)
    for ids, here in zip(domain.tokens, part.tokens, strict=True):
        index = np.add.outer(index * len(ids), np.searchsorted(ids, here)).ravel()
    return index


def counted(problem: AccuracyProblem, asked: list, budget: Budget) -> list[Any]:
    """An obligation: what the kernel should count in a part, asked of what lies `near` zero; how many inputs were run;
    and some of the wrong ones, and of those that it leaves open, where these are few enough to be run again."""
    row, near, known = asked
    part, right, wrong, run = read(row), 0, 0, 0
    found, unsure = np.zeros((2, 0, part.length), np.int64)
    for inputs in problem.inputs(part):
        if budget.spent():
            raise Stopped
        margin = problem.margins(inputs) if known is None else np.asarray(known[run : run + len(inputs)])  # fmt: skip
        run += len(inputs)
        ask = ~(np.abs(margin) > near) | ~np.isfinite(
            margin
        )  # infinite: the mechanism's value is no output
        sure = (margin > 0) & ~ask, (margin < 0) & ~ask
        if ask.any():
            with np.errstate(all="ignore"):
                sure[0][ask], sure[1][ask] = decide(problem.job, inputs[ask])
        right, wrong = right + int(sure[0].sum()), wrong + int(sure[1].sum())
        found = np.concatenate([found, inputs[sure[1]]])[:SOME]
        unsure = np.concatenate([unsure, inputs[~(sure[0] | sure[1])]])[:OPEN]
    counts = part.size - run + right, part.size - wrong
    return [*counts, run, found.tolist(), unsure.tolist()]


def _ids(rows: list, part: Domain) -> np.ndarray:
    return np.array(rows, np.int64).reshape(-1, part.length)


def _settled(
    problem: AccuracyProblem, unsure: np.ndarray, budget: Budget
) -> tuple[np.ndarray, np.ndarray] | None:
    """Which of the inputs that float64 leaves open are right, and which wrong, in exact arithmetic: booleans each. None
    where that shows nothing more, or takes too long: the first few say how long, and whether they are ties."""
    some = (unsure[i : i + FEW].tolist() for i in range(0, len(unsure), FEW))
    found: list[list] = []
    try:
        found.append(budget.ask(settled, problem, next(some))())
        right, wrong, seconds, work = found[0]
        more = 2 * (len(unsure) / len(right) - 1)
        left = budget.deadline - time.monotonic()
        late = seconds * more > left if budget.end < inf else work * more > LONGEST
        if late or not any(right + wrong):
            return None
        for row in budget.in_order(budget.ask(settled, problem, few) for few in some):
            found.append(row)
    except (Rejected, Stopped):
        return None
    budget.reserved += sum(row[2] for row in found)
    right, wrong = (np.concatenate([row[i] for row in found]) for i in (0, 1))
    return right, wrong


def settled(problem: AccuracyProblem, rows: list, budget: Budget) -> list[Any]:
    """An obligation: which inputs are right, and which wrong; and the seconds, and the work, that it took."""
    began, before = time.monotonic(), problem.job.ar.work
    with np.errstate(all="ignore"):
        right, wrong = settle(problem.job, np.array(rows, np.int64))
    spent = time.monotonic() - began, problem.job.ar.work - before
    return [right.tolist(), wrong.tolist(), *spent]


def _tried(problem: AccuracyProblem, budget: Budget) -> tuple[Cost, float]:
    """What the kernel takes for one input, and how large a lead is far more than its enclosures are wide, by some
    inputs. Raises Rejected where it can't run the model."""
    claim, rng, ar = problem.claim, np.random.default_rng(0), problem.job.ar
    count = min(TRIAL, batch_size(claim.graph, claim.judged))
    some = Sampler(problem).draw(count, rng)
    began = time.monotonic()

    def width(model: Real) -> float:
        value = Evaluation(claim.graph, claim.weights, model, some)[claim.output]
        return float(np.max(value.rad))

    before = ar.work
    with np.errstate(all="ignore"):
        try:
            wide = width(problem.job.semantics)
        except Rejected:
            wide = inf
        axioms = problem.job.semantics.axioms
        again = (
            not wide <= BLURRED
        )  # then the kernel asks for more digits, or of programs
        if again and axioms:
            some = some[: TRIAL // 2]
        elif again:
            wide = doubled(problem.job, width)
        side = min(SIDE, claim.total // COARSE)
        timed = side > TRIAL and not axioms and budget.end < inf
        if claim.total > WHOLE or timed:
            # neighbours share values: they take less than samples
            some, again = next(problem.inputs(problem.domain))[:side], True
        if again:  # most need no more digits, all the same
            began, before = time.monotonic(), ar.work
            decide(problem.job, some)
    near = max(CLOSE, WIDE * wide) if np.isfinite(wide) else inf
    spent = time.monotonic() - began, max(1, ar.work - before)
    return Cost(*(one / len(some) for one in spent)), near


def _parts(problem: AccuracyProblem, leaf: int) -> Iterator[Domain]:
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
            share.append(
                float((problem.margins(drawn) > 0).mean()) if len(drawn) else 1.0
            )
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
