"""By how much inputs are right, in torch: what sampling and enumeration look at before the kernel does."""

from abc import ABC, abstractmethod
from contextlib import suppress
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mechverify.graph.run import TorchRunner
from mechverify.kernel.core.accuracy import AccuracyClaim
from mechverify.kernel.core.claim import Job
from mechverify.kernel.core.errors import Rejected, Stopped
from mechverify.kernel.mixtures.behind import Behind
from mechverify.kernel.mixtures.columns import mixture
from mechverify.kernel.ratios.linear import LIGHTEST
from mechverify.provers.accuracy.token_runner import TokenRunner

BATCH = 2**12  # inputs that are run at a time
LONG = 2**4  # positions from which on tables pay
GRID = 2.0**-24


class Margins(ABC):
    """By how much an input is right: in float64, rounded to a grid far coarser than its rounding errors, so that ties
    are broken by position; -inf where nothing could make it right."""

    def __init__(self, job: Job):
        self.claim: Any = job.claim
        self.run = TokenRunner(self.claim.graph, self.claim.judged, self.claim.weights)

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

    def __init__(self, job: Job):
        """Raises Unsupported where the model isn't one."""
        super().__init__(job)
        with np.errstate(all="ignore"):
            self.mixed = job.once(mixture)
        self.job, self.rows = job, {}
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


def margins_of(job: Job) -> Margins:
    claim: Any = job.claim
    if not isinstance(claim, AccuracyClaim):
        return Values(job)
    if claim.captured and claim.domain.length >= LONG:
        with suppress(Rejected, Stopped):  # Unsupported, say
            return Tabled(job)
    return Leads(job)
