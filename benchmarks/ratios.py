"""Several heads, and two layers: what rules ratios and nested certify of models whose accuracy is known, and of where
their heads look, and how long search and check take.

    python benchmarks/ratios.py [--quick]
    python benchmarks/ratios.py --cell     # the figures of the one cell that docs/ratios.md explains

Exit code 1 if a target is missed. Of max of 4 the accuracy is enumerated in float64; of longer sequences a million
inputs are sampled. Models of other numbers of heads are trained here, by seed. Shared models are left out where they
are not there. --quick: the shorter ones, and fewer steps of training.
"""

import argparse
import sys
import tempfile
import time
from math import perm
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import load_file
from safetensors.torch import save_file

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks.board import Board, timed
from mechverify import prove
from mechverify.kernel import check
from mechverify.kernel.core.arithmetic import Ball
from mechverify.kernel.ratios.rule import Partition
from mechverify.provers.accuracy.problem import AccuracyProblem
from proofs import attention, induction
from proofs.max_of_k import claim
from toy_models.max_of_k import path, train

SHARED = Path(__file__).parent.parent.parent / "shared" / "models"
BATCH = 2**16
NEAR, SHORT, LONG = 0.00005, 60.0, 300.0  # share, and seconds of search and check
SAMPLED = 0.002  # share below that of samples
CLOSE, LOOKS = 1.5, 0.99  # what a pattern's constant leaves, over what is left where search looked; of one position
SHIPPED = Path(__file__).parent.parent / induction.SHIPPED


def right(weights: dict[str, torch.Tensor], x: torch.Tensor) -> int:
    """Inputs [number, length] on which the last position says their largest token, in float64."""
    h = weights["embed.W_E"][x] + weights["pos_embed.W_pos"]
    q, k, v = (torch.einsum("bnd,hde->bhne", h, weights[f"blocks.0.attn.W_{c}"]) for c in "QKV")
    pattern = (q[:, :, -1:] @ k.transpose(-1, -2) / q.shape[-1] ** 0.5).softmax(-1)
    out = torch.einsum("bhe,hed->bd", (pattern @ v)[:, :, 0], weights["blocks.0.attn.W_O"])
    return int((((h[:, -1] + out) @ weights["unembed.W_U"]).argmax(-1) == x.amax(1)).sum())


def accuracy(file: Path, samples: int | None) -> float:
    """The share of right inputs: of all, or of samples."""
    weights = {name: torch.from_numpy(a.astype(np.float64)) for name, a in load_file(file).items()}
    vocab, length = len(weights["embed.W_E"]), len(weights["pos_embed.W_pos"])
    size = vocab**length if samples is None else samples
    rng = torch.Generator().manual_seed(0)
    found = 0
    for start in range(0, size, BATCH):
        number = min(BATCH, size - start)
        if samples is None:
            index = torch.arange(start, start + number)
            x = torch.stack([index // vocab**i % vocab for i in reversed(range(length))], -1)
        else:
            x = torch.randint(vocab, (number, length), generator=rng)
        found += right(weights, x)
    return found / size


def certified(board: Board, what: str, file: Path, samples: int | None, limit: float) -> None:
    """A row for the share that is proved, and one for the time."""
    true = accuracy(file, samples)
    seconds, done = timed(lambda: prove(claim(file, at_least="best"), time_limit=limit))
    theorem = check(done.certificate)
    low, high = (count / theorem.claim.domain.size for count in theorem.right)
    target = true - (NEAR if samples is None else SAMPLED)
    known = "enumerated" if samples is None else "sampled"
    board.row(f"{what}: share proved right", f"at least {target:.6f} ({known} {true:.6f})", f"{low:.6f}", low >= target)
    inside = samples is not None or low <= true <= high
    board.row(f"{what}: the truth lies between the bounds", known, f"{low:.6f} to {high:.6f}", inside)
    board.row(f"{what}: search and check", f"at most {limit:.0f} s", f"{seconds:.1f} s", seconds <= limit)


def cell() -> None:
    """Of the shipped model with two heads: last token 10, maximum 12, rival 17."""
    problem = AccuracyProblem.of(claim(str(path(4, 0, 2)), at_least="best"), "real")
    input_class = next(f for f in Partition(problem.job, problem.domain, []).classes() if f.key == (12,))
    here, ar = input_class.cell(10), problem.job.ar
    lead, factor = here.lead([17]), here.box.factor
    around = here.expansion((11, 12, 11, 10), [17])

    def of_all(terms: Ball) -> np.ndarray:
        return here._sums(terms.mid)[..., 0]  # [heads, inputs], without enclosures: for the picture

    mass = of_all(factor.at[..., None])
    ratio, rest = of_all(ar.mul(factor.at[..., None], lead.value)) / mass, of_all(around.rest)
    base = lead.base.mid[0]
    for what, value in {
        "inputs": here.size, "base": base, "least ratios": ratio.min(1), "least lead": base + ratio.sum(0).min(),
        "both heads at their least": base + ratio.min(1).sum(), "Z": np.stack([mass.min(1), mass.max(1)], 1),
        "R": np.stack([rest.min(1), rest.max(1)], 1), "R where the lead is not positive, at most":
        around._where_not_positive(np.arange(1)).mid[:, 0], "bounds of R / Z": around.ratio.mid[:, 0],
        "bound of step 1": around.total.mid[0], "bound of steps 2 and 3": around.linear(np.arange(1)).least[0],
    }.items():  # fmt: skip
        print(f"{what}: {np.array2string(np.asarray(value), precision=3, separator=', ')}")


def trained(folder: str, k: int, heads: int, steps: int) -> Path:
    file = Path(folder) / f"{heads}_{k}.safetensors"
    net = train(k, seed=0, steps=steps, heads=heads)
    save_file({name: value.contiguous() for name, value in net.state_dict().items()}, file)
    return file


def repeated(board: Board, what: str, file: Path, inputs: int, **which: int) -> None:
    """Rows for a two-layer model that completes repetitions: whether it is proved on all `inputs`, and for the time."""
    claimed = induction.claim(file, others="any", **which)
    seconds, done = timed(lambda: prove(claimed, time_limit=LONG))
    if done.certificate is None:
        board.row(f"{what}: right inputs", f"{inputs:,}", done.verdict, False)
        return
    theorem = check(done.certificate)
    met = done.verdict == "PROVED" and theorem.right.low == theorem.claim.total == inputs
    board.row(f"{what}: right inputs", f"{inputs:,}", f"{theorem.right.low:,}", met)
    board.row(f"{what}: search and check, seconds", f"at most {LONG:g}", round(seconds, 1), seconds <= LONG)


def completed(board: Board, what: str, file: Path, inputs: int, least: float) -> None:
    """Rows for a two-layer model that completes repetitions among distinct tokens: of all `inputs` the share that is
    proved right, and the time."""
    claimed = induction.claim(file, at_least="best")
    seconds, done = timed(lambda: prove(claimed, time_limit=LONG))
    target = f"at least {least:g} of {inputs:,}"
    if done.certificate is None:
        board.row(f"{what}: share proved right", target, done.verdict, False)
        return
    theorem = check(done.certificate)
    share = theorem.right.low / theorem.claim.total
    figure = f"{share:.5f}, at most {theorem.right.high / theorem.claim.total:.5f} (rules {[*theorem.rules]})"
    board.row(f"{what}: share proved right", target, figure, theorem.claim.total == inputs and share >= least)
    board.row(f"{what}: search and check, seconds", f"at most {LONG:g}", round(seconds, 1), seconds <= LONG)


def patterns(board: Board, what: str, file: Path, length: int, heads: int) -> None:
    """Each head of the first layer on the token before, at every position: the best constant, and what is reached."""
    worst, begun = 1.0, time.monotonic()
    for head in range(heads):
        for position in range(1, length):
            proved, reached = attended(file, length=length, head=head, position=position)
            worst = max(worst, (1 - proved) / max(1 - reached, 1e-12))
    seconds = time.monotonic() - begun
    figure = f"{worst:.4f} ({heads * (length - 1)} entries, {seconds:.1f} s)"
    board.row(f"{what}, token before: what is left, proved over reached", f"at most {CLOSE:g}", figure, worst <= CLOSE)


def attended(file: Path, **which: int | str) -> tuple[float, float]:
    """An entry of a pattern: at least how much is proved, and reached."""
    done = prove(attention.claim(file, **which), time_limit=SHORT)
    assert done.theorem is not None and done.theorem.attained is not None
    return float(done.theorem.range.low[0]), float(done.theorem.attained.high.min())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--cell", action="store_true")
    options = parser.parse_args()
    if options.cell:
        cell()
        return 0
    quick = options.quick
    board = Board("several heads, two layers")
    samples = 100_000 if quick else 1_000_000
    certified(board, "max of 4, 2 heads, shipped", path(4, 0, 2), None, SHORT)
    for name, count, limit in (("max4-4heads", None, SHORT), ("max10-2heads", samples, LONG)):
        if (file := SHARED / f"{name}.safetensors").exists() and not (quick and limit > SHORT):
            certified(board, name, file, count, limit)
    if (file := SHARED / "gbmi-induction8.safetensors").exists():
        repeated(board, "gbmi-induction8, token 0 at 3 and 7", file, 25**6, token=0, earliest=3, latest=3)
        if quick:
            repeated(board, "gbmi-induction8, token 0 at 1 to 5", file, 5 * 25**6, token=0, earliest=1)
        else:
            repeated(board, "gbmi-induction8, any token at 1 to 5", file, 26 * 5 * 25**6, earliest=1)
    for name, number, length, least in (("induction6-2heads", 16, 6, 1.0), ("induction8-1head", 16, 8, 0.999)):
        if (file := SHARED / f"{name}.safetensors").exists() and not quick:
            completed(board, name, file, (length - 2) * perm(number, length - 1), least)
    looking = (("induction6-2heads", 6, 2), ("induction8-1head", 8, 1), ("gbmi-induction8", 8, 1))
    for name, length, heads in looking[-1:] if quick else looking:
        if (file := SHARED / f"{name}.safetensors").exists():
            patterns(board, name, file, length, heads)
    patterns(board, "induction of 6, shipped", SHIPPED, 6, 1)
    if (file := SHARED / "gbmi-induction8.safetensors").exists():
        low, reached = attended(file, length=8, layer=1, position=7, source=4, repeated="3,7")
        figure = f"{low:.6f} (reached {reached:.6f})"
        board.row("gbmi-induction8, layer 1 on position 4", f"at least {LOOKS}", figure, low >= LOOKS)
    with tempfile.TemporaryDirectory() as folder:
        for heads in (8,) if quick else (1, 2, 4, 8):
            file = trained(folder, 4, heads, 600 if quick else 3_000)
            certified(board, f"max of 4, {heads} heads, trained here", file, None, SHORT)
        for heads in () if quick else (2, 8):
            file = trained(folder, 10, heads, 3_000)
            certified(board, f"max of 10, {heads} heads, trained here", file, samples, LONG)
    return board.finish("ratios", quick)


if __name__ == "__main__":
    sys.exit(main())
