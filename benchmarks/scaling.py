"""How the cost of long searches grows, and what more workers give.

    python benchmarks/scaling.py [--quick] [--workers 1 2]

Measured, in seconds of CPU of one thread, which a loaded machine tells as well: each obligation in one process, what is
done outside them, the kernel's check; how that grows as a claim gets harder; and runs with real processes. Simulated,
and said so: N workers that take the obligations in their order as soon as they are known (list scheduling), with the
measured seconds, and OVERHEAD for each.
"""

import argparse
import heapq
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).parent.parent))

import torch

from benchmarks.board import Board
from benchmarks.people import RANGE, SHARE
from mechverify import kernel
from mechverify.claims.file import load_claim
from mechverify.provers import prove
from mechverify.provers.base import Budget
from mechverify.provers.executors import begun
from mechverify.provers.obligations import Desk

ROOT = Path(__file__).parent.parent
OVERHEAD = 0.01  # seconds for each obligation: to send it, to put its answer into the tree
WORKERS = (1, 2, 4, 16, 64, 256, 1024)


class Given(NamedTuple):
    """An obligation: how many answers were used before it was asked for, and its seconds."""

    after: int
    seconds: float


class Recorded(Desk):
    """Answers here; keeps what a scheduler would have known, and when."""

    def __init__(self) -> None:
        super().__init__()
        self.workers, self.given, self.used = 10**6, [], 0  # so that all that can be asked for is

    def ask(self, by: Callable, problem: Any, asked: Any, budget: Budget) -> Callable[[], Any]:
        after, promise = self.used, super().ask(by, problem, asked, budget)

        def answer() -> Any:
            begin = time.process_time()
            value = promise()
            self.used += 1
            self.given.append(Given(after, time.process_time() - begin))
            return value

        return answer


def simulated(given: Sequence[Given], workers: int, overhead: float = OVERHEAD) -> float:
    """Seconds until all answers were used, in their order: obligation i can begin once `after` answers were used, on
    the first worker that is free."""
    free, used = [0.0] * workers, [0.0]
    for after, seconds in given:
        begin = max(heapq.heappop(free), used[after])
        end = begin + seconds + overhead
        heapq.heappush(free, end)
        used.append(max(used[-1], end))
    return used[-1]


def measured(claim: Any) -> dict[str, Any]:
    desk, begin = Recorded(), time.process_time()
    with Budget(desk=desk) as budget:
        budget.deadline = time.monotonic() + 3_000
        found = prove(claim, budget=budget, solver=False)
    whole, begin = time.process_time() - begin, time.process_time()
    kernel.check(found.certificate)
    checked, inside = time.process_time() - begin, sum(g.seconds for g in desk.given)
    return {
        "verdict": found.verdict, "steps": sum(found.theorem.rules.values()),
        "obligations": len(desk.given), "inside": inside,
        "longest": max((g.seconds for g in desk.given), default=0.0),
        "outside": whole - inside - checked, "check": checked, "given": desk.given,
    }  # fmt: skip


def told(name: str, row: dict[str, Any]) -> str:
    parts = f"{row['obligations']:,} obligations of {row['inside']:.1f} s together, the longest {row['longest']:.2f} s"
    rest = f"{row['outside']:.1f} s of search outside them; check {row['check']:.1f} s"
    return f"{name}: {row['verdict']} in {row['steps']:,} steps, {parts}; {rest}"


def claims(folder: Path, quick: bool) -> dict[str, Any]:
    """A threshold over a box, a share of a box, and an accuracy."""
    for name, text in (("range", RANGE), ("share", SHARE)):
        (folder / f"{name}.py").write_text(text)
    weights = str(ROOT / "toy_models" / "weights" / f"max_of_{4 if quick else 10}_seed0.safetensors")
    dims = {"dims": "3", "hidden": "10"}
    return {
        "range": load_claim(folder / "range.py", {"most": "1.3" if quick else "1.125848"}),
        "share": load_claim(folder / "share.py", {**dims, "within": "1/500" if quick else "1/5000"}),
        "accuracy": load_claim(ROOT / "proofs" / "max_of_k.py", {"weights": weights, "at_least": "best"}),
    }  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="smaller claims")
    parser.add_argument("--workers", type=int, nargs="*", default=[1, 2], help="real processes to run with")
    arguments = parser.parse_args()
    board, kept = Board("long work"), {}
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        all_claims = claims(folder, arguments.quick)
        print(f"load of the machine: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
        for label, claim in all_claims.items():
            row = measured(claim)
            print(told(label, row), flush=True)
            times = {n: simulated(row["given"], n) for n in WORKERS}
            print(
                "    simulated seconds of the obligations, by workers:",
                {n: round(t, 1) for n, t in times.items()},
            )
            kept[label] = {**row, "given": None, "simulated": times}
            # the simulation with one worker must say what was measured
            whole = row["inside"] + OVERHEAD * row["obligations"]
            board.row(f"{label}: simulated with one worker, measured", "equal", f"{times[1]:.2f} {whole:.2f}",
                      abs(times[1] - whole) < 1e-6 * (1 + whole))  # fmt: skip
        for most in ("1.6", "1.4", "1.25", "1.18", "1.14") if not arguments.quick else ("1.6", "1.4"):
            row = measured(load_claim(folder / "range.py", {"most": most}))
            print(told(f"range, at most {most}", row), flush=True)
            kept[f"range {most}"] = {**row, "given": None}
        certificates, seconds = set(), {}
        for n in arguments.workers:
            with Budget(desk=Desk(begun("processes", n))) as budget:
                found = prove(all_claims["range"], budget=budget, solver=False)
            certificates.add(found.certificate)
            seconds[n] = found.search_seconds
            print(f"    range with {n} processes: search {found.search_seconds:.1f} s", flush=True)
        board.row("the same certificate with any number of processes", "1", len(certificates), len(certificates) == 1)
    return board.finish("scaling", arguments.quick)


if __name__ == "__main__":
    sys.exit(main())
