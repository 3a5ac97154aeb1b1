"""What is deployed: theorems about float32 programs of captured modules, beside those about real numbers, and beside
what torch computes.

    python benchmarks/deployed.py [--quick] [--only PART ...]     # --quick: one shape of eleven, fewer evaluations

Exit code 1 if a target is missed. Parts: traps (relu(x + c) - c), lies (planted false claims), boxes (those of
benchmarks/shares.py), evaluations (torch's float32, batched in several ways, with one thread and two, weights laid out
both ways, compiled, and numpy programs in random orders: tests/soundness/programs.py), table (the small transformers of
benchmarks/shares.py, each with all of its inputs).
"""

import argparse
import copy
import shutil
import sys
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch
from sympy import And, Eq, Max, Or
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks.board import Board
from benchmarks.box_shares import BOX_SECONDS, BOXES, recurrent, says
from benchmarks.shares import LENGTH, QUICK, SHAPES, VOCAB, trained
from mechverify import Bounds, Share, ball, box, capture, normal, prove, tokens
from mechverify.certificate.write import claim_document
from mechverify.kernel.core.claim import Job
from mechverify.kernel.core.errors import Rejected
from mechverify.kernel.core.evaluate import Evaluation
from mechverify.kernel.core.fields import Reader
from mechverify.kernel.core.float64 import Float64
from mechverify.kernel.core.forms import Forms
from mechverify.kernel.core.kinds import read_claim
from tests.soundness.programs import Program, rows

WIDER = 1e-4  # bounds of a share, than over the reals
ATTACKED = 128  # inputs of each shape whose evaluations are compared
SECONDS, QUICK_SECONDS = 600.0, 60.0
TRAPS = (2.0**10, 2.0**14, 2.0**18, 2.0**22, 2.0**24)
FALSE = 40


def tabled(claim: Bounds, ids: np.ndarray, semantics: str = "float32") -> tuple[np.ndarray, np.ndarray]:
    """The kernel's bounds [inputs, entries] of the claim's output at each input: by balls, or where these tell nothing,
    or little, by forms."""
    read = read_claim(Reader(claim_document(claim, semantics), "claim"), claim.output.model.data)
    job, parts = Job(read, Float64()), []
    model = job.claim.graph, job.claim.weights, job.semantics
    for some in np.array_split(ids, max(1, len(ids) // 32)):
        try:
            values = Evaluation(*model, some)
            found = [values[job.claim.output]]
        except Rejected:
            found = []
        if semantics == "float32":
            found.append(Forms(*model, some, folded=True)[job.claim.output])
        ends = [[end.reshape(len(some), -1) for end in job.ar.ends(value)] for value in found]
        parts.append((np.max([e[0] for e in ends], 0), np.min([e[1] for e in ends], 0)))
    low, high = zip(*parts, strict=True)
    return np.concatenate(low), np.concatenate(high)


def ways(model: nn.Module, x: Tensor, times: int, compiled: bool) -> Iterator[tuple[np.ndarray, Tensor]]:
    """What torch computes in float32, and of which inputs: in batches of several sizes and orders, with one thread and
    two, with the weights laid out by rows and by columns, and compiled."""
    threads, layouts = torch.get_num_threads(), (model, by_columns(model))
    with torch.no_grad():
        for k in range(times):
            order = torch.randperm(len(x), generator=torch.Generator().manual_seed(k))
            size = 1 if k == 0 else (4096, 7, 4096, 100, 4096, 33, 4096, len(x))[k % 8]
            order = order.repeat(-(-size // len(x)))
            torch.set_num_threads(1 + k // 2 % 2)
            yield order.numpy(), torch.cat([layouts[k % 4 // 2](part) for part in x[order].split(size)])
        torch.set_num_threads(threads)
        if compiled:
            yield np.arange(len(x)), compilation(model)(x)


def by_columns(model: nn.Module) -> nn.Module:
    """The same numbers, each matrix stored the other way round."""
    moved = copy.deepcopy(model)
    for weight in moved.parameters():
        if weight.ndim > 1:
            weight.data = weight.data.transpose(-1, -2).contiguous().transpose(-1, -2)
    return moved


def compilation(model: nn.Module) -> nn.Module:
    """By inductor where there is a compiler; else what torch.compile captures, run by torch's own kernels."""
    found = any(map(shutil.which, ("g++", "clang++", "c++")))
    return torch.compile(model, backend="inductor" if found else "aot_eager")


def outside(y: np.ndarray, low: np.ndarray, high: np.ndarray) -> int:
    y = y.reshape(len(y), -1).astype(float)
    return int(((y < low) | (y > high)).any(1).sum())


def evaluations(board: Board, quick: bool) -> None:
    """Of every shape of small transformer, float32 logits at some inputs, beside the kernel's bounds of each."""
    x = tokens("x", length=LENGTH, vocab=VOCAB)
    evaluated, wrong, widest, furthest = 0, 0, 0.0, 0.0
    for i, shape in enumerate(SHAPES[::QUICK] if quick else SHAPES):
        model = trained(shape)
        captured = capture(model, torch.zeros(1, LENGTH, dtype=torch.long))
        rng = np.random.default_rng(i)
        ids = rng.integers(0, VOCAB, (ATTACKED, LENGTH))
        low, high = tabled(Bounds(captured["output"][-1], over=x), ids)
        widest = max(widest, float((high - low).max()) / 2)
        ran = list(ways(model, torch.from_numpy(ids), 16 if quick else 48, compiled=i % 36 == 0))
        for seed in range(2 if quick else 4):
            values = rows(Program(np.random.default_rng([seed, i])), captured.captured, ids, [])
            ran.append((np.arange(len(ids)), torch.from_numpy(values[captured.captured.sites["output"]])))
        for at, y in ran:
            last, least, most = y[:, -1].double().numpy(), low[at], high[at]
            wrong, evaluated = wrong + outside(last, least, most), evaluated + len(at)
            furthest = max(furthest, float((np.abs(2 * last - least - most) / (most - least)).max()))
    enough = 10**5 if quick else 10**7
    board.row(f"of {evaluated:,} float32 evaluations, contradict a bound of a logit at an input",
              f"0, of at least {enough:,}", f"{wrong}; bounds are within {widest:.1e}, and evaluations come as far as "
              f"{furthest:.2f} of that", wrong == 0 and evaluated >= enough)  # fmt: skip


def table(board: Board, quick: bool) -> None:
    """Every shape of small transformer: for how many of all inputs every float32 program leads at the answer."""
    x, ids = tokens("x", length=LENGTH, vocab=VOCAB), np.indices((VOCAB,) * LENGTH).reshape(LENGTH, -1).T
    for shape in SHAPES[::QUICK] if quick else SHAPES:
        model = trained(shape)
        out = capture(model, torch.zeros(1, LENGTH, dtype=torch.long))["output"]
        largest = Max(*x)
        leads = [Or(Eq(largest, t), out[-1, largest] > out[-1, t]) for t in range(VOCAB)]
        found = prove(Share(And(*leads), over=x), semantics="float32", time_limit=QUICK_SECONDS if quick else SECONDS)
        with torch.no_grad():
            right = int((model(torch.from_numpy(ids))[:, -1].argmax(1).numpy() == ids.max(1)).sum())
        low, high = (0, len(ids)) if found.theorem is None else found.theorem.right
        share = (high - low) / len(ids)
        board.row(f"{shape}: right for every program (torch's: {right}), and how far bounds of the share are apart",
                  f"around it, at most {WIDER:g}", f"{low} to {high} of {len(ids)}, {share:.1e}",
                  low <= right <= high and share <= WIDER)  # fmt: skip


def boxes(board: Board, quick: bool) -> None:
    """Shares of a box by mass, under both semantics."""
    for hidden, length, seed, within in BOXES[: 1 if quick else None]:
        model = recurrent(hidden, length, seed, 500 if quick else 3_000).float()
        captured = capture(model, torch.zeros(1, length))
        x = box([-8.0] * length, [8.0] * length, distribution=normal(0, 1))
        claim = Share(says(captured["output"], x, length), over=x, within=within)
        bounds = []
        for semantics in ("real", "float32"):
            theorem = prove(claim, semantics=semantics, time_limit=BOX_SECONDS).theorem
            bounds.append([0.0, 1.0] if theorem is None else [n / theorem.claim.total for n in theorem.right])
        (low, high), (least, most) = bounds
        wider = max(low - least, most - high)
        figure = f"{wider:.1e} ({low:.6f} to {high:.6f}, and {least:.6f} to {most:.6f})"
        board.row(f"box, {length} inputs, hidden {hidden}: bounds of the share, wider than over the reals by",
                  f"at most {WIDER:g}", figure, wider <= WIDER)  # fmt: skip


class Trap(nn.Module):
    """relu(x + c) - c: over the reals x, in float32 a multiple of a unit of c."""

    def __init__(self, c: float):
        super().__init__()
        self.c = c

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x + self.c) - self.c


def traps(board: Board, quick: bool) -> None:
    real, false, true = 0, 0, 0
    for c in TRAPS:
        model, unit = capture(Trap(c).eval(), torch.zeros(1, 2)), c * 2.0**-23
        for limit in (unit / 4, 4 * unit):
            x, y = model["input.0"], model["output"]
            claim = Bounds([y[0] - x[0]], over=ball(torch.zeros(2), 1.0), at_least=-limit, at_most=limit)
            real += prove(claim, time_limit=SECONDS).verdict == "PROVED"
            proved = prove(claim, semantics="float32", time_limit=3).verdict == "PROVED"
            false, true = false + (proved and limit < unit), true + (proved and limit > unit)
    board.row("relu(x + c) - c near x: proved for real, for float32 where true, and where false",
              f"{2 * len(TRAPS)}, {len(TRAPS)}, 0", f"{real}, {true}, {false}",
              (real, true, false) == (2 * len(TRAPS), len(TRAPS), 0))  # fmt: skip


def lies(board: Board, quick: bool) -> None:
    """Thresholds a unit in the last place below what torch's float32 reaches; which is at most what is proved."""
    proved = refuted = 0
    many = 8 if quick else FALSE
    for seed in range(many):
        torch.manual_seed(seed)
        act = (nn.ReLU, nn.GELU, nn.Tanh, nn.SiLU)[seed % 4]
        parts = [nn.Linear(2, 8), act(), nn.Linear(8, 8), nn.LayerNorm(8) if seed % 3 == 0 else act(), nn.Linear(8, 1)]
        net = nn.Sequential(*parts).eval()
        centre = torch.randn(2)
        over = ball(centre, 2.0**-20 if seed % 2 else 1e-3)
        low, high = over.low[0], over.high[0]
        points = torch.from_numpy(np.random.default_rng(seed).uniform(low, high, (10_000, 2))).float()
        inside = ((points.double().numpy() >= low) & (points.double().numpy() <= high)).all(1)
        with torch.no_grad():
            reached = net(points[torch.from_numpy(inside)]).max().item()
        limit = float(np.nextafter(np.float32(reached), np.float32(-np.inf)))
        found = prove(Bounds(capture(net, centre[None])["output"], over=over, at_most=limit), semantics="float32",
                      time_limit=3)  # fmt: skip
        proved += found.verdict == "PROVED"
        refuted += found.verdict == "REFUTED"
    board.row(
        f"planted false claims, {many}, an ulp too tight: proved", "0", f"{proved} ({refuted} refuted)", not proved
    )
    proved, shapes = [0, 0], SHAPES[: 36 : 12 if quick else 3]  # of one layer
    x, ids = tokens("x", length=LENGTH, vocab=VOCAB), np.indices((VOCAB,) * LENGTH).reshape(LENGTH, -1).T
    for shape in shapes:
        model = trained(shape)
        out = capture(model, torch.zeros(1, LENGTH, dtype=torch.long))["output"]
        with torch.no_grad():
            says = model(torch.from_numpy(ids)).argmax(-1).numpy() == ids.max(1)[:, None]
        right = says.sum(0)
        for k, (place, count) in enumerate(((-1, right[-1] + 1), (-2, right[-1]))):
            if right[place] < count:
                leads = [Or(Eq(Max(*x), t), out[place, Max(*x)] > out[place, t]) for t in range(VOCAB)]
                claim = Share(And(*leads), over=x, at_least=Fraction(int(count), len(ids)))
                found = prove(claim, semantics="float32", time_limit=QUICK_SECONDS)
                proved[k] += found.verdict == "PROVED"
    board.row(f"planted false claims, {2 * len(shapes)}, a share too high by one input, or a place off by one: proved",
              "0, 0", f"{proved[0]}, {proved[1]}", not any(proved))  # fmt: skip


PARTS = {"traps": traps, "lies": lies, "boxes": boxes, "evaluations": evaluations, "table": table}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="smaller samples, keep nothing")
    parser.add_argument("--only", nargs="*", choices=PARTS, default=[*PARTS])
    args = parser.parse_args()
    quick, board = args.quick, Board("deployed")
    for part in args.only:
        PARTS[part](board, quick)
    return board.finish("deployed", quick=quick or len(args.only) < len(PARTS))


if __name__ == "__main__":
    sys.exit(main())
