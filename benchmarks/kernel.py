"""The kernel under attack, measured: its size, its numbers, hostile files, float32 programs, speed, determinism.

    python benchmarks/kernel.py [--quick] [--only PART ...]     # about 40 minutes on two cores; --quick under five

Exit code 1 if a target is missed. Parts: size, elementary, mutants, fuzz, float32, libm, contraction, speed, semantics,
determinism, planted. The work is done in processes of their own, two at a time.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from functools import cache
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks import source
from benchmarks.board import Board, timed
from mechverify.kernel.about import everything

ROOT = Path(__file__).parent.parent
FUNCTIONS = ("exp", "tanh", "erf", "sqrt", "reciprocal", "sin", "cos", "log")
PROOFS = ROOT / "proofs" / "max_of_k.py"
PROCESSES = 2


def parallel(module: str, shares: list[tuple]) -> list[dict]:
    """`python -m benchmarks.<module> <share>` for each share, two at a time; the JSON that each prints."""

    def one(share: tuple) -> dict:
        command = [sys.executable, "-m", f"benchmarks.{module}", *map(str, share)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment)
        if done.returncode:
            raise RuntimeError(f"{module} {share} ended with exit code {done.returncode}:\n{done.stderr[-3000:]}")
        return json.loads(done.stdout.splitlines()[-1])

    with ThreadPoolExecutor(PROCESSES) as pool:
        return list(pool.map(one, shares))


def size(board: Board, quick: bool) -> None:
    rows = everything()
    tokens = sum(m.tokens for m in rows)
    board.row(f"tokens in {len(rows)} modules (what a theorem rests on: benchmarks/house.py)", "for information",
              f"{tokens:,}", True)  # fmt: skip
    for what, found in (
        ("imports beyond the standard library and numpy, or that load code", source.foreign_imports()),
        ("uses of eval, exec, compile, __import__", source.forbidden_calls()),
        ("functions that call themselves, directly or through others", source.recursive_functions()),
    ):
        board.row(what, "none", ", ".join(found) or "none", not found)


def elementary(board: Board, quick: bool) -> None:
    for arithmetic, count, parts in (
        ("Float64", 40_000 if quick else 1_000_000, 2),
        ("Exact", 600 if quick else 10_000, 1),
    ):
        shares = [(name, arithmetic, count // parts, 7 * part) for name in FUNCTIONS for part in range(parts)]
        results = parallel("enclosures", shares)
        for i, name in enumerate(FUNCTIONS):
            mine = results[i * parts : (i + 1) * parts]
            points, missed = (sum(r[k] for r in mine) for k in ("points", "missed"))
            board.row(f"{name} in {arithmetic}: balls that miss the value, of {points:,}", "0", missed, missed == 0)


def mutants(board: Board, quick: bool) -> None:
    count = 1_500 if quick else 20_000
    results = parallel("mutants", [(100 + i, count // PROCESSES) for i in range(PROCESSES)])
    kinds, accepted = (sum((Counter(r[key]) for r in results), Counter()) for key in ("kinds", "accepted"))
    bad = [b for r in results for b in r["bad"]]
    total, kept = kinds.total(), accepted.total()
    rest = sum(r["unchanged"] for r in results)
    most = ", ".join(f"{n} {kind}" for kind, n in accepted.most_common(4))
    what = (f"{total:,} mutants of 18 certificates, {len(kinds)} kinds: {total - kept - rest:,} refused, {rest:,} not "
            f"changed, {kept:,} accepted and true ({most}); false")  # fmt: skip
    board.row(what, "0 accepted, no other exception", "; ".join(bad[:3]) or "0", not bad)


def fuzz(board: Board, quick: bool) -> None:
    count, pieces = (6_000, 2) if quick else (200_000, 8)
    results = parallel("fuzz", [(1 + i, count // pieces) for i in range(pieces)])
    outcomes: dict[str, Counter] = {}
    for result in results:
        for kind, found in result["outcomes"].items():
            outcomes[kind] = outcomes.get(kind, Counter()) + Counter(found)
    told = "; ".join(f"{kind}: " + ", ".join(f"{n:,} {what}" for what, n in found.most_common())
                     for kind, found in outcomes.items())  # fmt: skip
    bad = [b for r in results for b in r["bad"]]
    total = sum(r["files"] for r in results)
    board.row(f"{total:,} fuzzed files ({told}): other exceptions and internal errors",
              "0", "; ".join(bad[:3]) or "0", not bad)  # fmt: skip
    peak, slowest = max(r["peak"] for r in results), max(tuple(r["slowest"]) for r in results)
    board.row("fuzzing: peak memory of a process", "under 1,024 MiB", f"{peak} MiB", peak < 1024)
    board.row(f"fuzzing: slowest file ({slowest[1]})", "at most 10 s", f"{slowest[0]:.2f} s", slowest[0] <= 10)


def programs(board: Board, quick: bool) -> None:
    count, samples = (150_000, 200_000) if quick else (5_000_000, 3_000_000)
    for r in parallel("boundary", [(k, count, samples) for k in (4, 10)]):
        what = (f"K={r['k']}: {r['evaluations']:,} float32 evaluations of {r['inputs']:,} inputs, {r['right']:,} "
                f"surely right (margins from {r['smallest right']:.3f}), {r['wrong']:,} surely wrong (from "
                f"{r['smallest wrong']:.3f}), {r['open']:,} open; margins off by up to {r['deviation']:.1e}: "
                "contradictions")  # fmt: skip
        board.row(
            what, "0", r["first"] or r["contradictions"], r["contradictions"] == 0 and r["right"] + r["wrong"] > 0
        )


def libm(board: Board, quick: bool) -> None:
    stride = 101 if quick else 1
    results = parallel("libm", [(stride, 0.0, 0.5), (stride, 0.5, 1.0)])
    points = sum(r["points"] for r in results)
    board.row("float32 numbers in [-110, 0] put to the axiom", "at least 10^7", f"{points:,}", points >= 10**7)
    exp, fused = "2^-21 e^d + 2^-126", "2^-18 e^d + 2^-124"
    for name, over, limit in (("torch.exp", exp, 1.0), ("numpy.exp", exp, 1.0), ("torch.softmax", exp, 1.25),
                              ("torch.attention", fused, 1.0)):  # fmt: skip
        worst = max(r[name] for r in results)
        board.row(f"{name}: largest error over {over}", f"under {limit}", f"{worst:.3f}", worst < limit)


def contraction(board: Board, quick: bool) -> None:
    """Balls by points, 4096 x 128 x 512, all in the same run; term by term is what it was before."""
    import numpy as np

    from mechverify.kernel.core.arithmetic import Arithmetic, Ball
    from mechverify.kernel.core.float64 import Float64

    rng, ar = np.random.default_rng(0), Float64()
    x = rng.normal(size=(4096, 128))
    y = rng.normal(size=(128, 512)).astype(np.float32).astype(np.float64)  # as weights are
    left, right = Ball(x, np.abs(x) / 1000), Ball(y, np.zeros((1, 1)))
    blas, slow, fast = (
        min(timed(f)[0] for _ in range(2 if quick else 5))
        for f in (lambda: x @ y, lambda: Arithmetic.contract(ar, "ik,kj->ij", left, right),
                  lambda: ar.contract("ik,kj->ij", left, right))
    )  # fmt: skip
    what = f"contraction 4096x128x512: {fast:.3f} s, BLAS alone {blas:.4f} s, term by term {slow:.2f} s: times faster"
    board.row(what, "at least 10", f"{slow / fast:.1f}", slow >= 10 * fast)


@cache
def proved(k: int, semantics: str):
    from mechverify import prove
    from mechverify.claims.file import load_claim

    weights = str(ROOT / f"toy_models/weights/max_of_{k}_seed0.safetensors")
    return prove(load_claim(PROOFS, {"weights": weights, "at_least": "best"}), semantics=semantics)


def speed(board: Board, quick: bool) -> None:
    from mechverify.kernel import check

    for k in (4, 10) if quick else (4, 5, 10, 20):
        outcome = proved(k, "real")
        ratio = outcome.check_seconds / outcome.search_seconds
        board.row(f"K={k}: check {outcome.check_seconds:.1f} s over search {outcome.search_seconds:.1f} s", "at most 1",
                  f"{ratio:.2f}", ratio <= 1)  # fmt: skip
    theorem = proved(4, "real").theorem
    seconds, exact = timed(lambda: check(proved(4, "real").certificate, exact=True, forbid=["ieee754"]))
    same = exact.right == theorem.right and exact.axioms == ()
    board.row(f"K=4 checked in exact arithmetic in {seconds:.1f} s: right inputs {exact.right.low:,} to "
              f"{exact.right.high:,}, axioms", "the same bounds, no axiom",
              ", ".join(exact.axioms) or "none", same)  # fmt: skip


def semantics(board: Board, quick: bool) -> None:
    for k in (4,) if quick else (4, 10):
        real, rounded = (proved(k, name).theorem.right for name in ("real", "float32"))
        of = [Fraction(v, 64**k) for v in (*real, *rounded)]
        holds = rounded.low <= real.low and real.high <= rounded.high
        overlap = rounded.low <= real.high and real.low <= rounded.high
        near = max(abs(of[0] - of[2]), abs(of[1] - of[3]))
        what = (f"K={k}: right under real {float(of[0]):.8f} to {float(of[1]):.8f}, under float32 {float(of[2]):.8f} "
                f"to {float(of[3]):.8f} ({'holds' if holds else 'overlaps'} the real one); ends apart")  # fmt: skip
        board.row(
            what, "they overlap, and at most 0.0001", f"{float(near):.1e}", overlap and near <= Fraction(1, 10_000)
        )


PROVE = """
import hashlib, sys, torch
from mechverify import prove
from mechverify.claims.file import load_claim
torch.set_num_threads(int(sys.argv[3]))
outcome = prove(load_claim(sys.argv[1], {"weights": sys.argv[2], "at_least": "best"}))
print(hashlib.sha256(outcome.certificate).hexdigest())
"""


def determinism(board: Board, quick: bool) -> None:
    for k in (4,) if quick else (4, 10):
        weights = str(ROOT / f"toy_models/weights/max_of_{k}_seed0.safetensors")

        def fresh(threads: int, weights: str = weights) -> str:
            environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "PYTHONHASHSEED": str(1000 * threads)}
            command = [sys.executable, "-c", PROVE, PROOFS, weights, str(threads)]
            done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
            return done.stdout.strip() or done.stderr[-300:]

        with ThreadPoolExecutor(PROCESSES) as pool:
            hashes = list(pool.map(fresh, (1, 2, 4)))
        same = len(set(hashes)) == 1 and len(hashes[0]) == 64
        what = f"K={k}: certificates of fresh processes with 1, 2 and 4 threads and other hash seeds"
        board.row(what, "the same bytes", " ".join(sorted({h[:12] for h in hashes})), same)


def planted(board: Board, quick: bool) -> None:
    """Faults planted in the kernel, each of which some test must notice; with --quick those of one rule."""
    if not (ROOT / "tests" / "mutants" / "run.py").exists():
        return
    command = [sys.executable, "-m", "tests.mutants.run", *(["split"] if quick else [])]
    seconds, done = timed(lambda: subprocess.run(command, cwd=ROOT, capture_output=True, text=True))
    last = ([line for line in done.stdout.splitlines() if line.strip()] or [done.stderr[-200:]])[-1]
    board.row(f"unsound kernels that the tests notice ({seconds:.0f} s)", "all", last, done.returncode == 0)


PARTS = {
    "size": size, "elementary": elementary, "mutants": mutants, "fuzz": fuzz, "float32": programs, "libm": libm,
    "contraction": contraction, "speed": speed, "semantics": semantics, "determinism": determinism, "planted": planted,
}  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="smaller samples")
    parser.add_argument("--only", nargs="+", choices=PARTS, help="some parts; nothing is kept in benchmarks/results")
    arguments = parser.parse_args()
    board = Board("kernel")
    for name in arguments.only or PARTS:
        start = time.perf_counter()
        PARTS[name](board, arguments.quick)
        print(f"        {name}: {time.perf_counter() - start:.0f} s", flush=True)
    return board.finish("kernel", arguments.quick or arguments.only is not None)


if __name__ == "__main__":
    sys.exit(main())
