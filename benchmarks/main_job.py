"""The main job, measured: tightness and speed of max-of-k theorems, refutations, hostile input.

    python benchmarks/main_job.py [--quick]     # about nine minutes; with --quick under five

Exit code 1 if a target is missed. Brute force is the torch module of toy_models, run in float32 on every
input in batches, on all cores, in the same run.
"""

import argparse
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import torch
from safetensors.torch import load_file
from sympy import Max, Min

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks.board import Board, timed
from mechverify import Accuracy, kth_largest, prove, tokens, transformer
from toy_models.max_of_k import SHIPPED, model, path

ROOT = Path(__file__).parent.parent
BATCH = 2**15


def claim(k: int, seed: int, equals, at_least):
    net = transformer(path(k, seed))
    x = tokens("x", length=k, vocab=64)
    return Accuracy(net.logits[-1], equals=equals(x), over=x, at_least=at_least)


def largest(x):
    return Max(*x)


def loaded(k: int, seed: int):
    net = model(k)
    net.load_state_dict(load_file(path(k, seed)))
    return net.eval()


def right(net, inputs) -> int:
    with torch.inference_mode():
        parts = inputs.split(BATCH)
        return sum(int((net(p)[:, -1].argmax(-1) == p.amax(1)).sum()) for p in parts)


def enumerate_all(k: int, seed: int) -> int:
    """How many of the 64^k inputs float32 gets right."""
    net, first = loaded(k, seed), torch.arange(64)
    rest = torch.cartesian_prod(*[first] * (k - 1))
    total = 0
    for token in range(64):
        total += right(net, torch.cat([torch.full((len(rest), 1), token), rest], 1))
    return total


def sampled(k: int, seed: int, count: int) -> float:
    return right(loaded(k, seed), torch.randint(64, (count, k), generator=torch.Generator().manual_seed(77))) / count


def tightness_k4(board: Board, quick: bool) -> None:
    for seed in [0] if quick else sorted(s for k, s in SHIPPED if k == 4):
        seconds, outcome = timed(lambda seed=seed: prove(claim(4, seed, largest, None)))
        brute_seconds, count = timed(lambda seed=seed: enumerate_all(4, seed))
        exact, proved = Fraction(count, 64**4), Fraction(outcome.theorem.right.low, 64**4)
        name = f"K=4 seed {seed}"
        gap = float(exact - proved)
        board.row(f"{name}: exact accuracy {float(exact):.8f} minus certified {float(proved):.8f}", "at most 0.0001",
                  f"{gap:.2e}", gap <= 1e-4)  # fmt: skip
        ratio = seconds / brute_seconds
        board.row(f"{name}: search and check {seconds:.1f} s over enumeration {brute_seconds:.1f} s", "at most 0.2",
                  f"{ratio:.3f}", ratio <= 0.2)  # fmt: skip
        check_not_longer(board, name, outcome)


def check_not_longer(board: Board, name: str, outcome) -> None:
    ratio = outcome.check_seconds / outcome.search_seconds
    board.row(f"{name}: check {outcome.check_seconds:.2f} s over search {outcome.search_seconds:.2f} s", "at most 1",
              f"{ratio:.2f}", ratio <= 1)  # fmt: skip


def tightness_long(board: Board, quick: bool) -> None:
    samples = 200_000 if quick else 1_000_000
    for k, seed in sorted(s for s in SHIPPED if s[0] > 4):
        if quick and seed:
            continue
        seconds, outcome = timed(lambda k=k, seed=seed: prove(claim(k, seed, largest, None)))
        low, high = (float(Fraction(v, 64**k)) for v in outcome.theorem.right)
        sample = sampled(k, seed, samples)
        what = f"K={k} seed {seed}: certified at least {low:.6f}, at most {high:.6f}; {samples:,} samples {sample:.6f}"
        board.row(what, "lower bound at least sampled - 0.0003", f"{low - sample:+.6f}", low >= sample - 3e-4)
        check_not_longer(board, f"K={k} seed {seed}", outcome)
        if k == 20:
            board.row(f"K=20 seed {seed}: search and check", "under 60 s", f"{seconds:.1f} s", seconds < 60)


def refutations(board: Board) -> None:
    cases = [("Min", lambda x: Min(*x), "0.999"), ("second largest", lambda x: kth_largest(2, *x), "0.999"),
             ("Max, always (at least 1.0)", largest, "1.0"), ("constant 1", lambda x: 1, "0.5")]  # fmt: skip
    for k in (4, 10, 20):
        for name, equals, at_least in cases:
            seconds, outcome = timed(lambda k=k, e=equals, a=at_least: prove(claim(k, 0, e, a)))
            replayed = outcome.verdict == "REFUTED" and len(outcome.theorem.wrong) > 0
            board.row(f"K={k}: {name}, {outcome.verdict}", "REFUTED with a replayed input in under 10 s",
                      f"{seconds:.1f} s", replayed and seconds < 10)  # fmt: skip


def suite_parts(board: Board) -> None:
    """What the suite decides, counted here."""
    for what, arguments in {
        "corrupted certificates, none accepted unless true": ["tests/soundness/test_corruption.py"],
        "bad input: exit code 2, one message, no traceback": ["tests/test_cli.py", "-k", "bad"],
        "the kernel with torch, sympy and z3 made to fail": ["tests/test_cli.py", "-k", "numpy_alone"],
    }.items():
        done = subprocess.run([sys.executable, "-m", "pytest", *arguments], cwd=ROOT, capture_output=True, text=True)
        board.row(what, "all tests pass", done.stdout.strip().splitlines()[-1], done.returncode == 0)


def demo(board: Board) -> None:
    seconds, done = timed(lambda: subprocess.run(["make", "demo"], cwd=ROOT, capture_output=True, text=True))
    board.row(
        "make demo, once installed",
        "exit code 0 in under 120 s",
        f"{seconds:.1f} s",
        done.returncode == 0 and seconds < 120,
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer models, smaller samples")
    quick = parser.parse_args().quick
    board = Board("main job")
    refutations(board)
    tightness_k4(board, quick)
    tightness_long(board, quick)
    suite_parts(board)
    demo(board)
    return board.finish("main_job", quick)


if __name__ == "__main__":
    sys.exit(main())
