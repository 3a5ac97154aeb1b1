"""What is deployed: theorems about float32 programs of captured modules, beside those about real numbers, and beside
what torch computes.

    python benchmarks/deployed.py [--quick]     # --quick: one shape of eleven, fewer evaluations; under five minutes

Exit code 1 if a target is missed. Parts: the table of small transformers of benchmarks/shares.py, each with all of its
inputs; its boxes; the rounding trap; planted false claims. Float32 evaluations are torch's, batched in several ways,
with several threads and compiled, and those of numpy programs in random orders (tests/soundness/programs.py).
"""

import argparse
import sys
from collections.abc import Callable, Iterator
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
from mechverify.kernel.core.evaluate import Evaluation
from mechverify.kernel.core.fields import Reader
from mechverify.kernel.core.float64 import Float64
from mechverify.kernel.core.kinds import read_claim
from tests.soundness.programs import Program, rows

WIDER = 1e-4  # bounds of a share, than over the reals
ATTACKED = 256  # inputs of numpy programs, which are slow
SECONDS = 30.0
TRAPS = (2.0**10, 2.0**14, 2.0**18, 2.0**22, 2.0**24)
FALSE = 40


def tabled(claim: Bounds, semantics: str, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The kernel's bounds [inputs, entries] of the claim's output at each input."""
    read = read_claim(Reader(claim_document(claim, semantics), "claim"), claim.output.model.data)
    job = Job(read, Float64())
    parts = []
    for some in np.array_split(ids, max(1, len(ids) // 512)):
        value = Evaluation(job.claim.graph, job.claim.weights, job.semantics, some)[job.claim.output]
        parts.append([end.reshape(len(some), -1) for end in (job.ar.lower(value), job.ar.upper(value))])
    low, high = zip(*parts, strict=True)
    return np.concatenate(low), np.concatenate(high)


def ways(model: nn.Module, x: Tensor, times: int, compiled: bool) -> Iterator[Tensor]:
    """What torch computes in float32: all at once, in blocks, in another order, with threads, compiled."""
    threads = torch.get_num_threads()
    with torch.no_grad():
        for k in range(times):
            order = torch.randperm(len(x), generator=torch.Generator().manual_seed(k))
            size = (len(x), 1024, 100, 33, 7)[k % 5]
            torch.set_num_threads(1 + k % 2)
            out = torch.cat([model(part) for part in x[order].split(size)])
            yield out[order.argsort()]
        torch.set_num_threads(threads)
        if compiled:
            yield torch.compile(model)(x)


def outside(y: np.ndarray, low: np.ndarray, high: np.ndarray) -> int:
    y = y.reshape(len(y), -1).astype(float)
    return int(((y < low) | (y > high)).any(1).sum())


def table(board: Board, quick: bool) -> None:
    """Every shape of small transformer: bounds of the last logits at all inputs, and a share."""
    x, ids = tokens("x", length=LENGTH, vocab=VOCAB), np.indices((VOCAB,) * LENGTH).reshape(LENGTH, -1).T
    evaluated, wrong, widest = 0, 0, 0.0
    for i, shape in enumerate(SHAPES[::QUICK] if quick else SHAPES):
        model = trained(shape)
        captured = capture(model, torch.zeros(1, LENGTH, dtype=torch.long))
        out = captured["output"]
        claim = Bounds(out[-1], over=x)
        real, (low, high) = tabled(claim, "real", ids), tabled(claim, "float32", ids)
        wider = float(max((real[0] - low).max(), (high - real[1]).max()))
        widest = max(widest, wider)
        last: Callable[[Tensor], Tensor] = lambda y: y[:, -1]  # noqa: E731
        for y in ways(model, torch.from_numpy(ids), 10 if quick else 40, compiled=not quick and i == 0):
            wrong += outside(last(y).numpy(), low, high)
            evaluated += len(ids)
        some = np.random.default_rng(i).integers(0, len(ids), ATTACKED)
        for seed in range(2 if quick else 20):
            run = rows(Program(np.random.default_rng(seed)), captured.captured, ids[some], [])
            y = run[captured.captured.sites["output"]][:, -1]
            wrong += outside(y, low[some], high[some])
            evaluated += len(some)
        largest = Max(*x)
        leads = [Or(Eq(largest, t), out[-1, largest] > out[-1, t]) for t in range(VOCAB)]
        found = prove(Share(And(*leads), over=x), semantics="float32", time_limit=SECONDS)
        with torch.no_grad():
            right = int((model(torch.from_numpy(ids))[:, -1].argmax(1).numpy() == ids.max(1)).sum())
        low_, high_ = (0, len(ids)) if found.theorem is None else found.theorem.right
        share = (high_ - low_) / len(ids)
        board.row(f"{shape}: right for every program (torch's: {right}), and how far bounds of the share are apart",
                  f"around it, at most {WIDER:g}",
                  f"{low_} to {high_} of {len(ids)}, {share:.1e}; logits are within {wider:.1e}",
                  low_ <= right <= high_ and share <= WIDER)  # fmt: skip
    board.row(
        "table: bounds of logits at an input, wider than over the reals by", "for information", f"{widest:.1e}", True
    )
    enough = 10**5 if quick else 10**7
    board.row(f"table: of {evaluated:,} float32 evaluations, contradict a bound", f"0, of at least {enough:,}", wrong,
              wrong == 0 and evaluated >= enough)  # fmt: skip


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


def traps(board: Board) -> None:
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


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="smaller samples, keep nothing")
    quick = parser.parse_args().quick
    board = Board("deployed")
    traps(board)
    lies(board, quick)
    boxes(board, quick)
    table(board, quick)
    return board.finish("deployed", quick=quick)


if __name__ == "__main__":
    sys.exit(main())
