"""How much a head of the second layer attends to one position, over token sequences."""

import numpy as np
import torch

from mechverify.kernel.core.errors import Rejected, Stopped, Unsupported
from mechverify.kernel.core.fields import Reader
from mechverify.kernel.nested.patterns import Looked
from mechverify.kernel.proof import prove
from mechverify.provers.base import Budget
from mechverify.provers.ranges.inputs import Inputs
from mechverify.provers.ranges.known import Found, Known
from mechverify.provers.ranges.problem import RangeProblem
from mechverify.provers.ranges.refute import refuted

SWEEPS = 20  # of a search that changes one token at a time
CLOSE = 1.5  # times wider than what is reached: nothing else will be closer
LITTLE = (
    0.5  # an entry that never reaches so much is bounded by another position's score
)


class Patterns:
    name = "differences of scores"

    def accepts(self, problem: RangeProblem, known: Known) -> str | None:
        if len(problem.domain.low):
            return "it is for token sequences alone"
        if problem.claim.semantics != "real" or problem.claim.outputs != 1:
            return "it is for one entry, in real arithmetic"
        graph = problem.claim.graph
        attends = any(graph.nodes[n].op == "softmax" for n in problem.needed)
        return "" if known.exact or not attends else None

    def prove(self, problem: RangeProblem, known: Known, budget: Budget) -> Found:
        """Where the output is no entry of a pattern of the second layer, what was found before."""
        try:
            looking = problem.job.once(Looked)
        except (Rejected, Unsupported):
            return known.found
        budget.progress(self.name, None)
        known.seen = climbed(problem, known.seen)
        if (broken := refuted(problem, known.seen)) is not None:
            return broken
        try:
            with budget.rehearsing():
                leaf = {"rule": "nested", "other": _other(problem, looking, known.seen)}
                range_, _ = prove(problem.job, Reader(leaf, "proof"))
        except Stopped:
            return known.found
        except (Rejected, Unsupported) as error:
            known.found.reasons.append(str(error))
            return known.found
        known.exact = _close(float(range_.low[0]), float(range_.high[0]), known.seen)
        return known.found.beside(leaf, range_)


def _close(low: float, high: float, seen: Inputs) -> bool:
    """As much as it attends elsewhere, or, where that is most of it, here."""
    if not len(seen.values):
        return False
    least, most = float(seen.values.min()), float(seen.values.max())
    return 1 - low <= CLOSE * (1 - least) or high <= CLOSE * most


def climbed(problem: RangeProblem, seen: Inputs) -> Inputs:
    """With the sequences where no other token at one position gives less, or more."""
    if not len(seen.values):
        return seen
    allowed = [np.array(sorted(t)) for t in problem.domain.tokens]
    for sign in (1.0, -1.0):
        best = seen.at([int((sign * seen.values[:, 0]).argmin())])
        for _ in range(SWEEPS):
            tokens = np.concatenate(
                [_with(best.tokens[0], i, here) for i, here in enumerate(allowed)]
            )
            points = np.zeros((len(tokens), 0))
            near = Inputs.allowed(
                tokens, points, *problem.values(tokens, torch.from_numpy(points))
            )
            if not len(near.values):
                break
            better = near.at([int((sign * near.values[:, 0]).argmin())])
            if not (sign * better.values < sign * best.values).all():
                break
            best = better
        seen = Inputs(*map(np.concatenate, zip(seen, best, strict=True)))
    return seen


def _with(sequence: np.ndarray, position: int, tokens: np.ndarray) -> np.ndarray:
    changed = np.repeat(sequence[None], len(tokens), 0)
    changed[:, position] = tokens
    return changed


def _other(problem: RangeProblem, looking: Looked, seen: Inputs) -> int | None:
    """The position whose score keeps the entry lowest, for one token of the query; None where it isn't low anyway."""
    if len(seen.values) and seen.values.max() >= LITTLE:
        return None
    query = min(problem.domain.tokens[looking.pin])
    box = [
        np.array(sorted(t))
        for t in problem.domain.split(looking.pin, {query})[0].tokens
    ]
    others = [i for i in looking.keys if i != looking.position]
    return min(others, key=lambda i: looking.most(query, box, i), default=None)
