"""On how much of a domain a claim holds, measured: every shape of small transformer, as a captured module.

    python benchmarks/shares.py [--quick] [--only shapes|models]     # --quick: one shape of eleven

Exit code 1 if a target is missed. Each transformer is trained for a moment, from a seed, to say which of its tokens is
the largest; its accuracy is proved, and compared with an enumeration in torch in float64. The models: real_models.py.
"""

import argparse
import sys
from fractions import Fraction
from itertools import product
from math import prod
from pathlib import Path
from time import monotonic
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).parent.parent))

import torch
from sympy import And, Eq, Max, Or, Piecewise
from torch import Tensor, nn

from benchmarks.board import Board
from benchmarks.real_models import models
from mechverify import Accuracy, Share, box, capture, count, distinct, normal, prove, tokens, transformer
from mechverify.provers.accuracy.problem import AccuracyProblem

VOCAB, LENGTH, WIDTH = 8, 4, 16
STEPS, BATCH, RATE = 60, 256, 3e-3
SECONDS = 5.0
INDUCTION = Path(__file__).parents[2] / "shared" / "models" / "induction6-2heads.safetensors"
INDUCTION_SECONDS = 600.0
BOXES = [  # hidden units, inputs, seed, and how far apart bounds may be
    (2, 2, 1, Fraction(1, 10_000)), (4, 2, 0, Fraction(1, 10_000)), (4, 3, 1, Fraction(1, 1_000)),
]  # fmt: skip
BOX_SECONDS = 60.0
QUICK = 11  # one shape of so many: all settings occur


class Shape(NamedTuple):
    """`norm`: layer norms before each part, one at the end alone, or none; `act`: of the MLPs, or none of these."""

    layers: int
    heads: int
    norm: str
    act: str
    causal: bool

    def __str__(self) -> str:
        mlp = f"{self.act} MLP" if self.act != "none" else "no MLP"
        mask = "causal" if self.causal else "not causal"
        return f"layers {self.layers}, heads {self.heads}, layer norm {self.norm}, {mlp}, {mask}"


SHAPES = [Shape(*s) for s in product((1, 2, 3), (1, 4), ("none", "before", "final"), ("relu", "gelu", "none"),
                                     (True, False))]  # fmt: skip


class Block(nn.Module):
    def __init__(self, width: int, shape: Shape):
        super().__init__()
        self.heads, self.causal = shape.heads, shape.causal
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.first, self.second = (nn.LayerNorm(width) if shape.norm == "before" else nn.Identity() for _ in "12")
        act = {"relu": nn.ReLU, "gelu": nn.GELU}.get(shape.act)
        self.mlp = act and nn.Sequential(nn.Linear(width, 4 * width), act(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        batch, length, width = x.shape
        split = self.qkv(self.first(x)).reshape(batch, length, 3, self.heads, width // self.heads)
        q, k, v = split.permute(2, 0, 3, 1, 4)
        scores = q @ k.transpose(-1, -2) / (width // self.heads) ** 0.5
        if self.causal:
            later = torch.triu(torch.ones(length, length, dtype=torch.bool), 1)
            scores = scores.masked_fill(later, float("-inf"))
        attended = (scores.softmax(-1) @ v).transpose(1, 2).reshape(batch, length, width)
        x = x + self.out(attended)
        return x if self.mlp is None else x + self.mlp(self.second(x))


class Transformer(nn.Module):
    """Token ids [batch, length] to logits [batch, length, vocab]."""

    def __init__(self, shape: Shape, vocab: int = VOCAB, length: int = LENGTH, width: int = WIDTH):
        super().__init__()
        self.embed, self.place = nn.Embedding(vocab, width), nn.Parameter(torch.randn(length, width))
        self.blocks = nn.Sequential(*(Block(width, shape) for _ in range(shape.layers)))
        self.norm = nn.LayerNorm(width) if shape.norm == "final" else nn.Identity()
        self.unembed = nn.Linear(width, vocab)

    def forward(self, ids: Tensor) -> Tensor:
        return self.unembed(self.norm(self.blocks(self.embed(ids) + self.place)))


def trained(shape: Shape, steps: int = STEPS) -> Transformer:
    torch.manual_seed(SHAPES.index(shape))
    model = Transformer(shape)
    optimiser = torch.optim.Adam(model.parameters(), RATE)
    for _ in range(steps):
        ids = torch.randint(VOCAB, (BATCH, LENGTH))
        loss = nn.functional.cross_entropy(model(ids)[:, -1], ids.amax(1))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return model.eval()


def enumerated(model: nn.Module, vocab: int, length: int) -> tuple[Tensor, Tensor]:
    """All inputs [number, length], and the last position's logits in float64."""
    ids = torch.cartesian_prod(*[torch.arange(vocab)] * length)
    with torch.no_grad():
        return ids, model.double()(ids)[:, -1]


def shapes(board: Board, quick: bool) -> None:
    x = tokens("x", length=LENGTH, vocab=VOCAB)
    slowest = 0.0
    for shape in SHAPES[::QUICK] if quick else SHAPES:
        model = trained(shape)
        captured = capture(model, torch.zeros(1, LENGTH, dtype=torch.long))
        found = prove(Accuracy(captured["output"][-1], equals=Max(*x), over=x))
        ids, logits = enumerated(model, VOCAB, LENGTH)
        truth = int((logits.argmax(1) == ids.amax(1)).sum())
        low, high = (None, None) if found.theorem is None else found.theorem.right
        seconds = found.search_seconds + found.check_seconds
        slowest = max(slowest, seconds)
        figure = f"{low} to {high} of {len(ids)}, {seconds:.2f} s"
        board.row(f"{shape}: right inputs, search and check", f"{truth}, under {SECONDS:g} s", figure,
                  low == high == truth and seconds < SECONDS)  # fmt: skip
    board.row("every shape: the slowest, seconds", f"under {SECONDS:g}", round(slowest, 2), slowest < SECONDS)


def induction(board: Board, quick: bool) -> None:
    """A published domain: of n tokens all but the last are distinct, the last repeats one that isn't the one before it,
    and the answer is the token after that."""
    if not INDUCTION.exists():
        print(f"not measured: {INDUCTION} is not there")
        return
    model = transformer(INDUCTION)
    for vocab, whole in ((6, False), (16, True)):
        x = tokens("x", length=6, vocab=16, allowed=range(vocab))
        answer = Piecewise(*((x[i + 1], Eq(x[i], x[5])) for i in range(3)), (x[4], True))
        given = [distinct(*x[:5]), Eq(count(x[5], *x[:4]), 1)]
        size, start = 4 * prod(range(vocab - 4, vocab + 1)), monotonic()
        claim = Accuracy(model.logits[-1], equals=answer, over=x, given=given)
        counted = AccuracyProblem.of(claim, "real").claim.total
        figure = f"{counted:,} of {vocab**6:,} in {monotonic() - start:.1f} s"
        board.row(f"induction over {vocab} tokens: inputs that are given", f"{size:,}", figure, counted == size)
        if whole and quick:
            continue
        found = prove(claim, time_limit=INDUCTION_SECONDS)
        low, high = (None, None) if found.theorem is None else found.theorem.right
        seconds = found.search_seconds + found.check_seconds
        board.row(f"induction over {vocab} tokens: right inputs, search and check",
                  f"exact, under {INDUCTION_SECONDS:g} s", f"{low} to {high} of {size:,}, {seconds:.1f} s",
                  low is not None and low == high and seconds < INDUCTION_SECONDS)  # fmt: skip


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


def says(y, x, length: int):
    """The largest output is that of the second largest input."""
    every, cases = set(range(length)), []
    for i in range(length):
        leads = [y[i] >= y[j] for j in every - {i}]
        between = [And(x[j] >= x[i], *(x[i] >= x[k] for k in every - {i, j})) for j in every - {i}]
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
        right, drawn = 0, torch.Generator().manual_seed(0)
        with torch.no_grad():
            for _ in range(samples // 10**6):
                points = torch.randn(10**6, length, dtype=torch.float64, generator=drawn)
                right += int((model(points).argmax(1) == second(points)).sum())
        mean, error = right / samples, 5 / samples**0.5
        theorem = found.theorem
        low, high = (0.0, 1.0) if theorem is None else (count / theorem.claim.total for count in theorem.right)
        what = f"{length} inputs, hidden {hidden}: share of Gaussian inputs that are right"
        figure = f"{low:.6f} to {high:.6f}, {found.search_seconds:.1f} s, check {found.check_seconds:.1f} s"
        board.row(f"{what}, sampled {mean:.6f}", f"{float(within):g} wide, around the sampled one", figure,
                  low - error <= mean <= high + error and high - low <= within)  # fmt: skip


PARTS = {"shapes": shapes, "models": models, "induction": induction, "boxes": boxes}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer shapes, and nothing kept")
    parser.add_argument("--only", choices=PARTS, help="one part of the table, and nothing kept")
    options = parser.parse_args()
    board = Board("shares")
    for name in [options.only] if options.only else PARTS:
        PARTS[name](board, options.quick)
    return board.finish("shares", quick=options.quick or options.only is not None)


if __name__ == "__main__":
    sys.exit(main())
