"""Shares of a box, by the mass of a distribution: a part of benchmarks/shares.py.

Recurrent nets without biases, trained from a seed to say which of their inputs is the second largest.
"""

from fractions import Fraction

import torch
from sympy import And, Or
from torch import Tensor, nn

from benchmarks.board import Board
from mechverify import Share, box, capture, normal, prove

BOXES = [  # hidden units, inputs, seed, and how far apart bounds may be
    (2, 2, 1, Fraction(1, 10_000)), (4, 2, 0, Fraction(1, 10_000)), (4, 3, 1, Fraction(1, 1_000)),
]  # fmt: skip
BOX_SECONDS = 60.0


class Second(nn.Module):
    """Reads numbers [batch, length] one after another; says which of them is the second largest [batch, length]."""

    def __init__(self, hidden: int, length: int):
        super().__init__()
        self.w, self.W, self.U = (nn.Parameter(0.7 * torch.randn(*size))
                                  for size in ((hidden,), (hidden, hidden), (length, hidden)))  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        h = torch.zeros(x.shape[0], self.w.shape[0], dtype=x.dtype)
        for t in range(x.shape[1]):
            h = torch.relu(h @ self.W.T + x[:, t : t + 1] * self.w)
        return h @ self.U.T


def second(x: Tensor) -> Tensor:
    return x.argsort(1, descending=True)[:, 1]


def recurrent(hidden: int, length: int, seed: int, steps: int = 3_000) -> Second:
    torch.manual_seed(seed)
    model = Second(hidden, length)
    optimiser = torch.optim.Adam(model.parameters(), 0.01)
    for _ in range(steps):
        x = torch.randn(512, length)
        loss = nn.functional.cross_entropy(3 * model(x), second(x))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return model.double().eval()


def right(y: Tensor, x: Tensor) -> Tensor:
    """Whether they say so [batch]."""
    best = y.topk(2).values
    return (y.argmax(1) == second(x)) & (best[:, 0] > best[:, 1])


def says(y, x, length: int):
    """The largest output is that of the second largest input; a tie is no answer."""
    every, cases = set(range(length)), []
    for i in range(length):
        leads = [y[i] > y[j] for j in every - {i}]
        between = [And(x[j] > x[i], *(x[i] > x[k] for k in every - {i, j})) for j in every - {i}]
        cases.append(And(*leads, Or(*between)))
    return Or(*cases)


def boxes(board: Board, quick: bool) -> None:
    """Gaussian inputs, cut off at eight deviations, which leaves out 10^-14 of their mass."""
    samples = 10**6 if quick else 10**8
    for hidden, length, seed, within in BOXES:
        model = recurrent(hidden, length, seed)
        captured = capture(model, torch.zeros(1, length, dtype=torch.float64))
        x = box([-8.0] * length, [8.0] * length, distribution=normal(0, 1))
        found = prove(Share(says(captured["output"], x, length), over=x, within=within), time_limit=BOX_SECONDS)
        count, drawn = 0, torch.Generator().manual_seed(0)
        with torch.no_grad():
            for _ in range(samples // 10**6):
                points = torch.randn(10**6, length, dtype=torch.float64, generator=drawn)
                count += int(right(model(points), points).sum())
        mean, error = count / samples, 5 / samples**0.5
        theorem = found.theorem
        low, high = (0.0, 1.0) if theorem is None else (count / theorem.claim.total for count in theorem.right)
        what = f"{length} inputs, hidden {hidden}: share of Gaussian inputs that are right"
        figure = f"{low:.6f} to {high:.6f}, {found.search_seconds:.1f} s, check {found.check_seconds:.1f} s"
        board.row(f"{what}, sampled {mean:.6f}", f"{float(within):g} wide, around the sampled one", figure,
                  low - error <= mean <= high + error and high - low <= within)  # fmt: skip
