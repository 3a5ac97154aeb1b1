"""On how much of a domain a claim holds, measured: every shape of small transformer, as a captured module.

    python benchmarks/shares.py [--quick] [--only PART ...]     # --quick: one shape of eleven, one net of five

Parts: shapes, models (real_models.py), induction (a guarded domain), boxes (box_shares.py), speed (enumerations against
float32 torch on all cores), checks (of split proofs of ReLU nets, against their search), planted (planted_shares.py:
claims that are false). Exit code 1 if a target is missed. Each transformer of `shapes` is trained for a moment, from a
seed, to say which of its tokens is the largest; its accuracy is proved, and compared with an enumeration in torch in
float64.
"""

import argparse
import sys
import time
from itertools import pairwise, product
from math import prod
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).parent.parent))

import torch
from sympy import Eq, Max, Mod, Piecewise
from torch import Tensor, nn

from benchmarks.board import Board
from benchmarks.box_shares import boxes
from benchmarks.planted_shares import planted
from benchmarks.real_models import models
from mechverify import Accuracy, Bounds, ball, capture, count, distinct, prove, tokens, transformer
from mechverify.provers.accuracy.problem import AccuracyProblem
from mechverify.provers.confirm import Outcome

VOCAB, LENGTH, WIDTH = 8, 4, 16
STEPS, BATCH, RATE = 60, 256, 3e-3
SECONDS = 5.0
INDUCTION = Path(__file__).parents[2] / "shared" / "models" / "induction6-2heads.safetensors"
INDUCTION_SECONDS = 600.0
TIMES = 10  # as long as torch takes for the same enumeration
REPEATS = 5  # of what is soon done
CLIMBS = 20  # steps to a corner with a large output
NETS, LIMIT = 10, 60.0  # of each shape; seconds
SLACK, SHARE = 0.5, 0.945  # above the largest sample: of the sampled range; of the way to what one relaxation proves
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
        size, start = 4 * prod(range(vocab - 4, vocab + 1)), time.monotonic()
        claim = Accuracy(model.logits[-1], equals=answer, over=x, given=given)
        counted = AccuracyProblem.of(claim, "real").claim.total
        figure = f"{counted:,} of {vocab**6:,} in {time.monotonic() - start:.1f} s"
        board.row(f"induction over {vocab} tokens: inputs that are given", f"{size:,}", figure, counted == size)
        if whole and quick:
            continue
        found = prove(claim, time_limit=INDUCTION_SECONDS)
        low, high = (None, None) if found.theorem is None else found.theorem.right
        seconds = found.search_seconds + found.check_seconds
        board.row(f"induction over {vocab} tokens: right inputs, search and check",
                  f"exact, under {INDUCTION_SECONDS:g} s", f"{low} to {high} of {size:,}, {seconds:.1f} s",
                  low is not None and low == high and seconds < INDUCTION_SECONDS)  # fmt: skip


def compared(board: Board, what: str, model: nn.Module, claim: Accuracy, ids: Tensor, targeted: bool = True) -> None:
    """Search and check against float32 torch, batched, on all cores, in the same run. Of what takes less than a second
    both have run before, and the least of several times counts."""

    def proved() -> tuple[float, Outcome]:
        found = prove(claim)
        return found.search_seconds + found.check_seconds, found

    def run() -> float:
        began = time.perf_counter()
        with torch.no_grad():
            for part in ids.split(2**12):
                model(part)
        return time.perf_counter() - began

    seconds, found = proved()
    if seconds < 1:
        seconds, found = min((proved() for _ in range(REPEATS)), key=lambda p: p[0])
    model.float()
    alone = run()
    if alone < 1:
        alone = min(run() for _ in range(REPEATS))
    ratio = seconds / alone
    counts = None if found.theorem is None else tuple(found.theorem.right)
    figure = f"{ratio:.0f} ({found.search_seconds:.2f} s and {found.check_seconds:.2f} s, torch {alone:.3f} s)"
    sure = counts is not None and counts[0] == counts[1]
    target, met = (f"at most {TIMES}", ratio <= TIMES) if targeted else ("for information", True)
    board.row(f"{what}: {len(ids):,} inputs, {counts} right; times torch's time", target, figure, sure and met)


class Summed(nn.Module):
    """Of two tokens, an MLP of their embeddings' sum."""

    def __init__(self, vocab: int, width: int):
        super().__init__()
        self.embed = nn.Embedding(vocab, width)
        self.mlp = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, vocab))

    def forward(self, ids: Tensor) -> Tensor:
        return self.mlp(self.embed(ids).sum(1))


class Pair(nn.Module):
    """Of two tokens, an MLP of their embeddings side by side, as published models of addition are (the sizes are those
    of c113-mlp)."""

    def __init__(self, vocab: int, width: int = 256, hidden: int = 128):
        super().__init__()
        self.first, self.second = nn.Embedding(vocab, width), nn.Embedding(vocab, width)
        self.mlp = nn.Sequential(
            nn.Linear(2 * width, hidden, bias=False), nn.ReLU(), nn.Linear(hidden, vocab, bias=False)
        )

    def forward(self, ids: Tensor) -> Tensor:
        return self.mlp(torch.cat([self.first(ids[:, 0]), self.second(ids[:, 1])], -1))


def speed(board: Board, quick: bool) -> None:
    """Of a prefix of eight tokens the last four vary (three, quickly)."""
    torch.manual_seed(0)
    vocab, length, fixed = 26, 8, 5 if quick else 4
    model = Transformer(Shape(2, 4, "none", "relu", True), vocab, length, width=64).eval()
    x = tokens("x", length=length, vocab=vocab, allowed=[[i] for i in range(fixed)] + [range(vocab)] * (length - fixed))
    ids = torch.cartesian_prod(*[torch.tensor([i]) for i in range(fixed)], *[torch.arange(vocab)] * (length - fixed))
    captured = capture(model, torch.zeros(1, length, dtype=torch.long))
    compared(board, "two causal layers", model, Accuracy(captured["output"][-1], equals=Max(*x), over=x), ids)
    vocab = 113
    x = tokens("x", length=2, vocab=vocab)
    ids = torch.cartesian_prod(torch.arange(vocab), torch.arange(vocab))
    for what, pair in ("MLP of two tokens", Pair(vocab)), ("half as large a one, of their sum", Summed(vocab, 128)):
        captured = capture(pair.eval(), torch.zeros(1, 2, dtype=torch.long))
        claimed = Accuracy(captured["output"], equals=Mod(x[0] + x[1], vocab), over=x)
        compared(board, what, pair, claimed, ids, targeted=isinstance(pair, Pair))


def relu_net(seed: int, sizes: list[int]) -> nn.Sequential:
    torch.manual_seed(seed)
    layers = [part for a, b in pairwise(sizes) for part in (nn.Linear(a, b), nn.ReLU())]
    return nn.Sequential(*layers[:-1]).double().eval()


def climbed(net: nn.Module, centre: Tensor, radius: float, sign: int) -> Tensor:
    """The largest output (times `sign`) that corners of the box reach, each the one that the last one's slope says."""
    corner = centre + radius * (torch.randint(0, 2, (2**6, centre.shape[1])).double() * 2 - 1)
    best = torch.tensor(-torch.inf, dtype=torch.float64)
    for _ in range(CLIMBS):
        corner.requires_grad_(True)
        values = sign * net(corner)
        (slope,) = torch.autograd.grad(values.sum(), corner)
        best = torch.maximum(best, values.detach().max())
        corner = (centre + radius * slope.sign()).detach()
    return best


def checks(board: Board, quick: bool) -> None:
    """Split proofs: the box is so large, and the threshold so far below what a relaxation of all of it proves, that
    splits are needed. Seconds are those of one process, search first, with everything loaded."""
    for sizes, radius in (([5] + [50] * 6 + [1], 0.25), ([784, 256, 256, 1], 0.02)):
        for seed in range(0, NETS, 5 if quick else 1):
            net = relu_net(seed, sizes)
            centre = torch.rand(1, sizes[0], dtype=torch.float64)
            most, least = (sign * float(climbed(net, centre, radius, sign)) for sign in (1, -1))
            output = capture(net, centre)["output"]
            over, wide = ball(centre[0], radius), sizes[0] > sizes[1]
            at_most = most + SLACK * (most - least)
            if wide:
                relaxed = prove(Bounds(output, over=over), method="linear").theorem
                at_most = most + SHARE * (float(relaxed.range.high[0]) - most)
            claim = Bounds(output, over=over, at_most=at_most)
            found = prove(claim, time_limit=LIMIT)
            rules = {} if found.theorem is None else found.theorem.rules
            figure = f"{found.check_seconds / found.search_seconds:.2f} ({found.search_seconds:.1f} s)"
            what = f"{'-'.join(map(str, sizes))}, seed {seed}: {found.verdict}, {rules.get('split', 0)} splits"
            split = found.verdict == "PROVED" and rules.get("split", 0) > 0  # else there is nothing to compare
            board.row(f"{what}; check over search", "a split proof, at most 1", figure,
                      split and found.check_seconds <= found.search_seconds)  # fmt: skip


PARTS = {
    "shapes": shapes, "models": models, "induction": induction, "boxes": boxes, "speed": speed, "checks": checks,
    "planted": planted,
}  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer shapes, and nothing kept")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=[*PARTS], metavar="PART")
    options = parser.parse_args()
    board = Board("shares")
    for part in options.only:
        PARTS[part](board, options.quick)
    return board.finish("shares", quick=options.quick or len(options.only) < len(PARTS))


if __name__ == "__main__":
    sys.exit(main())
