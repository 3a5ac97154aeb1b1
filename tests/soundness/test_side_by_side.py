"""A leaf's range is a function of its part and its witness, to the last bit, whatever leaves are bounded beside it."""

import numpy as np
import pytest
import torch
from torch import nn

from mechverify import Bounds, ball, capture
from mechverify.kernel.core.claim import Job
from mechverify.kernel.core.errors import Rejected, Unsupported
from mechverify.kernel.core.float64 import Float64
from mechverify.kernel.core.ranges import Range
from mechverify.kernel.relaxation import rule as linear
from mechverify.kernel.relaxation.backward import Relaxed
from mechverify.kernel.relaxation.intervals import Intervals
from mechverify.provers.ranges.problem import RangeProblem
from tests.soundness import networks
from tests.soundness.networks import Maker
from tests.soundness.test_linear import parts

KINDS = [(Intervals, False), (Relaxed, False), (Relaxed, True)]


class Scaled(nn.Module):
    """By the root of a sum of squares of what may be zero: a norm in some parts, and none in others."""

    def forward(self, x):
        return x * torch.rsqrt((torch.relu(x) ** 2).sum(-1, keepdim=True) + 0.1)


class Times(nn.Module):
    def forward(self, x):
        return 20 * x


NETS = {
    "relu": lambda: [nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 2)],
    "softmax": lambda: [nn.Linear(3, 2), nn.ReLU(), nn.Linear(2, 3), nn.Softmax(-1), nn.Linear(3, 2), nn.ReLU(), nn.Linear(2, 2)],
    "norms": lambda: [nn.Linear(3, 3), Scaled(), nn.Linear(3, 3), nn.LayerNorm(3), nn.ReLU(), nn.Linear(3, 2)],
    "capped softmax": lambda: [nn.Linear(3, 3), Times(), nn.Softmax(-1), nn.Linear(3, 1)],
}  # fmt: skip


def pieces(problem: RangeProblem, count: int, rng: np.random.Generator) -> list:
    """Of the domain, cut at coordinates and at values."""
    graph, values = problem.rewriting.graph, sorted(problem.rewriting.roots.values)
    found = [problem.domain]
    while len(found) < count:
        part = found.pop(int(rng.integers(len(found))))
        if rng.random() < 0.7:
            c, share = int(rng.integers(len(part.low))), rng.random()
            found += part.cut(
                c, float(np.clip(part.low[c] * (1 - share) + part.high[c] * share, part.low[c], part.high[c]))
            )
        else:
            n = int(rng.choice(values))
            entry = int(rng.integers(np.prod(graph.nodes[n].shape, dtype=int)))
            found += part.sides([(n, entry)], float(rng.normal()))
    return found


def bounded(job: Job, some: list, kind: type, shared: bool) -> list[Range] | None:
    with np.errstate(all="ignore"):
        try:
            return linear.bounds(job, some, shared=shared, kind=kind)
        except (Rejected, Unsupported):
            return None


def alone_and_beside(job: Job, some: list, rng: np.random.Generator) -> int:
    """Compares each part's range alone with that in a random partition into batches; how many were compared."""
    compared = 0
    for kind, shared in KINDS:
        alone = [bounded(job, [part], kind, shared) for part in some]
        known = rng.permutation([i for i, found in enumerate(alone) if found is not None])
        for batch in np.array_split(known, int(rng.integers(1, 4))):
            beside = bounded(job, [some[i] for i in batch], kind, shared) if len(batch) else []
            assert beside is not None, "refused side by side alone"
            for i, found in zip(batch, beside, strict=True):
                for a, b in zip(alone[i][0], found, strict=True):
                    np.testing.assert_array_equal(a, b)
                compared += 1
    return compared


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("seed", range(3))
def test_parts_of_networks(name: str, seed: int):
    torch.manual_seed(seed)
    rng = np.random.default_rng([71, seed])
    model = capture(nn.Sequential(*NETS[name]()).double().eval(), torch.zeros(1, 3).double())
    problem = RangeProblem.of(Bounds(model["output"], over=ball(np.zeros(3), 2.0)), "real")
    assert alone_and_beside(problem.job, pieces(problem, 30, rng), rng) >= 60


def test_parts_of_random_networks():
    compared = 0
    for seed in [*range(80), 194]:  # 194: two softmaxes, capped in some parts alone
        rng = np.random.default_rng([61, seed])
        net = Maker(rng).network(int(rng.integers(2, 9)))
        claim = networks.claim(net)
        compared += alone_and_beside(Job(claim, Float64()), parts(claim.domain, rng) + parts(claim.domain, rng), rng)
    assert compared > 400


def test_cells_that_differ_are_told_apart(monkeypatch: pytest.MonkeyPatch):
    """Planted: decisions by all cells together are noticed."""
    monkeypatch.setattr(
        Intervals, "each_all", lambda self, holds: holds.reshape(1, -1).all(1).reshape(1, *(1,) * (holds.ndim - 1))
    )
    with pytest.raises(AssertionError):
        for seed in range(3):
            test_parts_of_networks("relu", seed)
