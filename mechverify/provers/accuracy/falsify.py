"""Look for wrong inputs before trying to prove that there are none (or few)."""

import numpy as np

from mechverify.kernel.core.errors import Rejected, Stopped
from mechverify.kernel.core.judging import decide, settle
from mechverify.provers.accuracy.problem import AccuracyProblem, Evidence
from mechverify.provers.accuracy.sampling import Sampler
from mechverify.provers.accuracy.torch_margins import BATCH, Margins
from mechverify.provers.base import Budget

SAMPLES = 2**17
LISTED = 2**24  # inputs of a product of which all that satisfy a guard are looked at
KEEP, WORST = (
    2**13,
    64,
)  # wrong inputs that are replayed: the worst first, the rest as they were drawn
STARTS, ROUNDS = 64, 12  # of the greedy search
TOGETHER = 2**8  # ways to change tokens at once that a guard binds to each other
EXACTLY, REPLAY = (
    8,
    2e9,
)  # wrong inputs to replay in exact arithmetic, and units of work of each
CLOSE = (
    2.0**-20
)  # a margin up to here is worth the kernel's look; torch's float64 errs by much less


def falsify(problem: AccuracyProblem, budget: Budget, seed: int = 0) -> Evidence:
    """Uniform samples (every input of a small domain), then greedy single-token changes from the smallest
    margins. The model runs in torch; which inputs are wrong is the kernel's word, so that they are the same
    whatever the number of threads."""
    rng = np.random.default_rng(seed)
    margins = problem.margins
    inputs, margin, seen = [], [], 0
    every = problem.claim.total <= SAMPLES and problem.domain.size <= LISTED
    total = problem.claim.total if every else SAMPLES
    sampler = Sampler(problem)
    drawn = (sampler.draw(BATCH, rng) for _ in range(0, total, BATCH))
    for batch in problem.inputs(problem.domain) if every else drawn:
        budget.progress("looking for wrong inputs", seen / total)
        inputs.append(batch)
        margin.append(margins(batch))
        seen += len(batch)
        if budget.spent():
            break
    sampled, sampled_margin = np.concatenate(inputs), np.concatenate(margin)
    accuracy = float((sampled_margin > 0).mean())
    searched, searched_margin = sampled, sampled_margin
    if (sampled_margin <= 0).sum() < 16 and not every and not budget.spent():
        best = sampled[np.argsort(sampled_margin, kind="stable")[:STARTS]]
        found, found_margin = _greedy(problem, margins, best, budget)
        searched = np.concatenate([sampled, found])
        searched_margin = np.concatenate([sampled_margin, found_margin])
    candidates = np.flatnonzero(searched_margin <= CLOSE)
    worst = candidates[np.argsort(searched_margin[candidates], kind="stable")][:WORST]
    candidates = np.concatenate([worst, candidates])
    unique = np.unique(searched[candidates], axis=0, return_index=True)[1]
    wrong = searched[candidates[np.sort(unique)[: _worth_replaying(problem, accuracy)]]]
    least, complete = float(searched_margin.min()), every and len(sampled) == total
    whole = sampled_margin if complete else None
    return Evidence(
        *replay(problem, margins, wrong), accuracy, len(sampled), least, whole
    )


def _worth_replaying(problem: AccuracyProblem, accuracy: float) -> int:
    """How many of the wrong inputs that were found: more than a few only where the claim seems false, for the classes
    and rivals of its refutation are read from them."""
    asked = problem.at_least
    return KEEP if asked is not None and accuracy < float(asked) else WORST


def replay(
    problem: AccuracyProblem, margins: Margins, wrong: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Of inputs that seem wrong, those that surely are, and the outputs that win there."""
    if not len(wrong):
        return wrong, np.zeros(0, np.int64)
    with np.errstate(all="ignore"):
        try:
            sure = decide(problem.job, wrong)[1]
        except Rejected:  # an overflow, of any of them
            sure = np.zeros(len(wrong), bool)
        except Stopped:  # time is up: none was replayed
            return wrong[:0], np.zeros(0, np.int64)
        if not sure.any():  # ties, say: float64 can't tell
            sure[:EXACTLY] = [
                _surely_wrong(problem, wrong[i : i + 1])
                for i in range(min(EXACTLY, len(wrong)))
            ]
    return wrong[sure], margins.winner(wrong[sure])


def _surely_wrong(problem: AccuracyProblem, one: np.ndarray) -> bool:
    ar = problem.job.ar
    limit, ar.limit = ar.limit, ar.work + REPLAY
    try:
        return bool(settle(problem.job, one)[1][0])
    except (Rejected, Stopped):
        return False
    finally:
        ar.limit = limit


def _greedy(
    problem: AccuracyProblem, margins: Margins, best: np.ndarray, budget: Budget
):
    """Change one token at a time, or those of a part of the guard, always to the smallest margin, from each row of
    `best`; what leaves the guard has an infinite one."""
    changes = Sampler(problem).changes(TOGETHER)
    seen, seen_margin = [best], [margins(best)]
    current, current_margin = best.copy(), seen_margin[0]
    for turn in range(ROUNDS):
        budget.progress("searching for the smallest margin", turn / ROUNDS)
        trials = []
        for positions, ids in changes:
            changed = np.repeat(current[:, None], len(ids), 1)
            changed[:, :, positions] = ids
            trials.append(changed)
        neighbours = np.concatenate(trials, 1)
        rows = neighbours.reshape(-1, neighbours.shape[-1])
        inside = problem.claim.satisfied(problem.job.ar, rows)
        value = np.full(len(rows), np.inf)
        value[inside] = margins(rows[inside])
        value = value.reshape(len(current), -1)
        pick = value.argmin(1)
        rows = np.arange(len(current))
        improved = value[rows, pick] < current_margin
        if not improved.any() or budget.spent():
            break
        current = np.where(improved[:, None], neighbours[rows, pick], current)
        current_margin = np.where(improved, value[rows, pick], current_margin)
        seen.append(current)
        seen_margin.append(current_margin)
    return np.concatenate(seen), np.concatenate(seen_margin)
