"""Look for wrong inputs before trying to prove that there are none (or few)."""

from abc import ABC, abstractmethod
from contextlib import suppress
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mechverify.graph.run import TorchRunner
from mechverify.kernel.core.accuracy import AccuracyClaim
from mechverify.kernel.core.errors import Rejected, Stopped
from mechverify.kernel.core.judging import decide, settle
from mechverify.kernel.mixtures.behind import Behind
from mechverify.kernel.mixtures.columns import mixture
from mechverify.kernel.ratios.linear import LIGHTEST
from mechverify.provers.accuracy.problem import AccuracyProblem, Evidence
from mechverify.provers.accuracy.sampling import Sampler
from mechverify.provers.base import Budget

SAMPLES, BATCH = 2**17, 2**12
LISTED = 2**24  # inputs of a product of which all that satisfy a guard are looked at
KEEP, WORST = (
    2**13,
    64,
)  # wrong inputs that are replayed: the worst first, the rest as they were drawn
STARTS, ROUNDS = 64, 12  # of the greedy search
EXACTLY, REPLAY = (
    8,
    2e9,
)  # wrong inputs to replay in exact arithmetic, and units of work of each
LONG = 2**4  # positions from which on tables pay
GRID = 2.0**-24
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
    return (
        KEEP if problem.at_least is not None and accuracy < problem.at_least else WORST
    )


def replay(
    problem: AccuracyProblem, margins: "Margins", wrong: np.ndarray
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


class Margins(ABC):
    """By how much an input is right: in float64, rounded to a grid far coarser than its rounding errors, so that ties
    are broken by position; -inf where nothing could make it right."""

    def __init__(self, problem: AccuracyProblem):
        self.claim: Any = problem.claim
        self.run = TorchRunner(
            problem.claim.graph, problem.claim.weights, torch.float64
        )

    def __call__(self, inputs: np.ndarray) -> np.ndarray:
        parts = [
            self._batch(inputs[i : i + BATCH]) for i in range(0, len(inputs), BATCH)
        ]
        return np.concatenate(parts) if parts else np.zeros(0)

    @abstractmethod
    def _batch(self, inputs: np.ndarray) -> np.ndarray: ...

    def winner(self, inputs: np.ndarray) -> np.ndarray:
        """Of wrong inputs, the output that beats the right one, where there are several."""
        return np.zeros(len(inputs), np.int64)


class Values(Margins):
    """Of a claim Share: the number that its condition is compiled to."""

    def _batch(self, inputs: np.ndarray) -> np.ndarray:
        value = self.run.real(self.claim.output, inputs).reshape(len(inputs))
        return (torch.round(value / GRID) * GRID).numpy()


class Leads(Margins):
    """Of a claim Accuracy: logit[target] - largest other logit - the claim's margin; -inf where the target is no
    output."""

    def logits(self, inputs: np.ndarray) -> Tensor:
        """[inputs, outputs]"""
        return self.run.real(self.claim.output, inputs)

    def _others(self, inputs: np.ndarray):
        logits = self.logits(inputs).clone()
        target = torch.from_numpy(np.array(self.run(self.claim.target, inputs)))
        possible = (target >= 0) & (target < logits.shape[-1])
        at = torch.where(possible, target, 0)[:, None]
        right = logits.gather(1, at)[:, 0]
        return logits.scatter(1, at, -torch.inf), right, possible

    def _batch(self, inputs: np.ndarray) -> np.ndarray:
        others, right, possible = self._others(inputs)
        margin = (
            torch.round((right - others.amax(1) - float(self.claim.margin)) / GRID)
            * GRID
        )
        return torch.where(possible, margin, -torch.inf).numpy()

    def winner(self, inputs: np.ndarray) -> np.ndarray:
        parts = [
            self._others(inputs[i : i + BATCH])[0].argmax(1).numpy()
            for i in range(0, len(inputs), BATCH)
        ]
        return np.concatenate(parts) if parts else np.zeros(0, np.int64)


class Tabled(Leads):
    """The same of a captured model with one layer of attention, read at one position: what attention mixes is read off
    tables, so that an input costs a row of each token, and what stands behind attention. Where a head's weights are
    tiny beside the largest of all, the model itself is run."""

    def __init__(self, problem: AccuracyProblem):
        """Raises Unsupported where the model isn't one."""
        super().__init__(problem)
        with np.errstate(all="ignore"):
            self.mixed = problem.job.once(mixture)
        self.job, self.rows = problem.job, {}
        size = self.mixed.value.mid.shape[-1]
        self.basis = np.eye(size)

    def logits(self, inputs: np.ndarray) -> Tensor:
        queries = inputs[:, self.mixed.pin]
        found = torch.zeros((len(inputs), self.claim.outputs), dtype=torch.float64)
        for query in np.unique(queries).tolist():
            found[queries == query] = self._of_query(query, inputs[queries == query])
        return found

    def _of_query(self, query: int, inputs: np.ndarray) -> Tensor:
        if query not in self.rows:
            self.rows[query] = self._tables(query)
        tables, behind, run = self.rows[query]
        length, vocab, heads, _ = tables.shape
        at = torch.from_numpy(inputs + vocab * np.arange(length))
        sums = torch.nn.functional.embedding_bag(
            at, tables.reshape(length * vocab, -1), mode="sum"
        ).reshape(len(inputs), heads, -1)
        z = (sums[..., 1:] / sums[..., :1]).sum(1)
        nothing = torch.zeros_like(z)
        found = run.real(behind.output, None, [z, nothing, nothing])
        known = (sums[..., 0] >= LIGHTEST).all(1)  # else digits are lost, or all
        if not known.all():
            found = torch.broadcast_to(found, (len(inputs), self.claim.outputs)).clone()
            found[~known] = super().logits(inputs[~known.numpy()])
        return found

    def _tables(self, query: int) -> tuple:
        """e^s and e^s u [length, vocab, heads, 1 + d], and what stands behind attention."""
        mixed = self.mixed
        row, deep = (
            query if len(b.mid[0]) > 1 else 0 for b in (mixed.score, mixed.value)
        )
        score = np.where(mixed.attends[:, None], mixed.score.mid[:, row], -np.inf)
        weight = np.exp(score - score.max((1, 2), keepdims=True))[..., None]
        value = mixed.value.mid[:, deep]
        tables = np.concatenate([weight, weight * value], -1).transpose(2, 1, 0, 3)
        behind = Behind(self.job, query, self.basis)
        run = TorchRunner(behind.graph, self.claim.weights, torch.float64)
        return torch.from_numpy(np.ascontiguousarray(tables)), behind, run


def margins_of(problem: AccuracyProblem) -> Margins:
    if not isinstance(problem.claim, AccuracyClaim):
        return Values(problem)
    if problem.claim.captured and problem.domain.length >= LONG:
        with suppress(Rejected, Stopped):  # Unsupported, say
            return Tabled(problem)
    return Leads(problem)


def _greedy(
    problem: AccuracyProblem, margins: Margins, best: np.ndarray, budget: Budget
):
    """Change one token at a time, always to the smallest margin, from each row of `best`; what leaves the guard has an
    infinite one."""
    seen, seen_margin = [best], [margins(best)]
    current, current_margin = best.copy(), seen_margin[0]
    for turn in range(ROUNDS):
        budget.progress("searching for the smallest margin", turn / ROUNDS)
        trials = []
        for position, ids in enumerate(problem.domain.tokens):
            changed = np.repeat(current[:, None], len(ids), 1)
            changed[:, :, position] = ids
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
