"""Nearly equal networks: the proved width of their difference over what gradient search reaches.

Three ways to bound x - y: both runs apart, one graph of both with linear bounds (a pair), and rule `differences`.
Part of benchmarks/circuits.py.
"""

import copy
import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.board import Board
from mechverify import Bounds, box, capture, prove
from mechverify.kernel.core.claim import Job
from mechverify.kernel.differences.rule import jointly
from mechverify.kernel.relaxation import rule as linear
from mechverify.provers.base import Budget
from mechverify.provers.ranges.extremes import climb, sample
from mechverify.provers.ranges.problem import RangeProblem

SIZE, SEEDS, STEPS, SECONDS = 1e-3, 5, 150, 60.0


class Difference(nn.Module):
    def __init__(self, first: nn.Module, second: nn.Module):
        super().__init__()
        self.first, self.second = first, second

    def forward(self, x: Tensor) -> Tensor:
        return self.first(x) - self.second(x)


class Superposition(nn.Module):
    """relu(W^T W x + b): features of unit length in few dimensions."""

    def __init__(self, n: int, hidden: int):
        super().__init__()
        w = torch.randn(hidden, n)
        self.W, self.b = nn.Parameter(w / w.norm(dim=0)), nn.Parameter(torch.full((n,), -0.1))

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x @ self.W.T @ self.W + self.b)


class Masked(nn.Module):
    """What a superposition model's hidden dimensions, each multiplied by an input of its own, change in the output."""

    def __init__(self, model: Superposition):
        super().__init__()
        self.model = model
        self.register_buffer("ones", torch.ones(len(model.W)))

    def forward(self, z: Tensor) -> Tensor:
        x, mask = z.tensor_split([self.model.W.shape[1]], dim=1)
        return self._run(x, self.ones) - self._run(x, mask)

    def _run(self, x: Tensor, mask: Tensor) -> Tensor:
        return torch.relu((mask * (x @ self.model.W.T)) @ self.model.W + self.model.b)


class Attention(nn.Module):
    """A head of width 4 on 4 positions of width 8, and the residual."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v = (
            nn.Parameter(torch.randn(n, 8) * s / math.sqrt(8)) for n, s in ((4, 1.5), (4, 1.5), (8, 1))
        )

    def forward(self, x: Tensor) -> Tensor:
        x = x.view(-1, 4, 8)
        q, k, v = (x @ w.T for w in (self.q, self.k, self.v))
        return (x + torch.softmax(q @ k.transpose(1, 2) / 2, 2) @ v).reshape(-1, 32)


def network(activation: type[nn.Module]) -> nn.Module:
    layers: list[nn.Module] = []
    for n, m in ((5, 16), (16, 16), (16, 3)):
        layer = nn.Linear(n, m)
        layer.weight.data, layer.bias.data = torch.randn(m, n) * 1.4 / math.sqrt(n), 0.3 * torch.randn(m)
        layers += [layer, activation()]
    return nn.Sequential(*layers[:-1])


class Pair(NamedTuple):
    """Modules of one input each, and a box of that."""

    joint: nn.Module
    apart: list[nn.Module]
    low: np.ndarray
    high: np.ndarray


def nearly(make: Callable[[], nn.Module], centre: Tensor | None, radius: float) -> Pair:
    """`centre`: None for a random one of 32 numbers."""
    first = make()
    centre = torch.randn(32) if centre is None else centre
    second = copy.deepcopy(first)
    with torch.no_grad():
        for p in second.parameters():
            p += SIZE * torch.randn_like(p)
    return Pair(Difference(first, second), [first, second], *((centre + s * radius).numpy() for s in (-1, 1)))


def masked(n: int, hidden: int, least: float) -> Pair:
    low = np.concatenate([np.zeros(n), np.full(hidden, least)])
    return Pair(Masked(Superposition(n, hidden)), [], low, np.ones(n + hidden))


def bounds(module: nn.Module, pair: Pair) -> Bounds:
    return Bounds(capture(module.eval(), torch.tensor(pair.low)[None])["output"], over=box(pair.low, pair.high))


def width(job: Job) -> np.ndarray:
    """Of each entry, by the kernel's own lines, without splitting."""
    (found,) = linear.ranges(job, [job.claim.domain])
    return found.high - found.low


class Widths(NamedTuple):
    """Over what search reaches, the mean of all entries (the worst entry: `worst`). `joint`: with optimised lines, and
    without splitting; `own`: with the kernel's own lines."""

    apart: float
    pair: float
    joint: float
    worst: float
    own: float


def measured(pair: Pair) -> tuple[Widths, np.ndarray]:
    problem, budget = RangeProblem.of(bounds(pair.joint, pair), "real"), Budget()
    seen = climb(problem, budget, sample(problem, budget, 0), STEPS)
    assert seen is not None
    reached = seen.values.max(0) - seen.values.min(0)
    own = width(jointly(problem.job, problem.domain)) / reached
    theorem = prove(bounds(pair.joint, pair), method="optimised", time_limit=SECONDS).theorem
    joint = (theorem.range.high - theorem.range.low) / reached
    alone = [width(RangeProblem.of(bounds(m, pair), "real").job) for m in pair.apart]
    apart = np.mean(sum(alone) / reached) if alone else math.nan
    return Widths(
        float(apart), float(np.mean(width(problem.job) / reached)), joint.mean(), joint.max(), own.mean()
    ), reached


def split(pair: Pair, reached: np.ndarray) -> float:
    """With all that the search does in a minute."""
    theorem = prove(bounds(pair.joint, pair), time_limit=SECONDS).theorem
    return float(np.mean((theorem.range.high - theorem.range.low) / reached))


class Case(NamedTuple):
    what: str
    make: Callable[[], Pair]
    whole: float | None  # targets: without splitting, and with it
    parts: float | None = None
    quick: bool = False


def cases() -> list[Case]:
    found = []
    for name, activation in (("ReLU", nn.ReLU), ("GELU", nn.GELU)):
        for radius in (0.1, 0.5, 1.0):
            make = partial(nearly, partial(network, activation), torch.zeros(5), radius)
            found.append(Case(f"{name} 5-16-16-3, radius {radius}", make, 8, 3, radius == 0.5))
    for n, hidden in ((5, 2), (40, 10)):
        make = partial(nearly, partial(Superposition, n, hidden), torch.full((n,), 0.5), 0.5)
        found.append(Case(f"superposition {n}-{hidden}", make, 1.3, quick=n == 5))
    for radius in (0.01, 0.05, 0.1):
        make = partial(nearly, Attention, None, radius)
        asked = radius == 0.05
        found.append(Case(f"attention 4 x 8, radius {radius}", make, 4 if asked else None, quick=asked))
    for least in (0.99, 0.5, 0.0):
        what = f"every mask in [{least:g}, 1], superposition 5-2"
        found.append(Case(what, partial(masked, 5, 2, least), None, 1.2, least == 0.5))
    return found


def rows(board: Board, words: list[str] | None, quick: bool) -> None:
    kind = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        for case in cases():
            if (case.quick or not quick) and (not words or any(w in case.what for w in words)):
                _row(board, case, 1 if quick else SEEDS)
    finally:
        torch.set_default_dtype(kind)


def _row(board: Board, case: Case, seeds: int) -> None:
    found, parts = [], []
    for seed in range(seeds):
        torch.manual_seed(seed)
        pair = case.make()
        widths, reached = measured(pair)
        found.append(widths)
        if case.parts is not None:
            parts.append(split(pair, reached))
    mean = Widths(*np.mean(found, 0))
    worst = max(w.joint for w in found)
    told = f"{mean.joint:.2f} (worst pair {worst:.2f}); as a pair {mean.pair:.1f}"
    told += "" if math.isnan(mean.apart) else f", apart {mean.apart:.0f}"
    target = "for information" if case.whole is None else f"at most {case.whole:g} on average"
    told += f"; with the kernel's own lines {mean.own:.2f}"
    never = all(max(w.joint, w.own) <= w.pair for w in found)
    board.row(f"{case.what}: proved width over reached, {seeds} pairs", target, told,
              never and (case.whole is None or mean.joint <= case.whole))  # fmt: skip
    if parts:
        told = f"{np.mean(parts):.2f} (worst pair {max(parts):.2f})"
        board.row(f"{case.what}: with splitting, {SECONDS:.0f} s", f"at most {case.parts:g} on average", told,
                  np.mean(parts) <= case.parts)  # fmt: skip
