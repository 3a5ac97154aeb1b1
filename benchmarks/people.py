"""For the people who use it: start-up, the first hour, bad inputs, killed runs, what a release holds.

    python benchmarks/people.py [--quick]

Exit code 1 if a target is missed. Start-up is measured in seconds of CPU, the least of some runs: what it takes on an
idle core. The time on the clock stands beside it. Ray runs as a cluster on this machine, whose start isn't counted.
"""

import argparse
import json
import os
import random
import runpy
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks.board import Board
from mechverify.claims.file import load_claim
from mechverify.kernel import check
from mechverify.provers.base import Budget
from mechverify.provers.executors import begun
from mechverify.provers.obligations import Desk
from mechverify.provers.ranges.find import find_range
from mechverify.provers.ranges.problem import RangeProblem
from mechverify.provers.ranges.smt import Solver
from mechverify.provers.store import plain
from mechverify.relax.threads import one_thread

ROOT = Path(__file__).parent.parent
CERTIFICATE = ROOT / "tests" / "data" / "version_5.cert"
WEIGHTS = ROOT / "toy_models" / "weights"
SHARED = ROOT.parent / "shared" / "models"
SOON = 0.5  # seconds until a command that needs no search ends
ROUND = 10  # kills, after which a proof is let end
HOUR = 600.0  # seconds from own weights to a checked certificate and a report
SHARE = """import torch
from mechverify import Share, ball, capture


def claim(dims=2, hidden=6, within="1/20000"):
    torch.manual_seed(0)
    layers = torch.nn.Linear(dims, hidden), torch.nn.ReLU(), torch.nn.Linear(hidden, 1)
    model = capture(torch.nn.Sequential(*layers).double().eval(), torch.zeros(1, dims, dtype=torch.float64))
    return Share(model["output"][0] > 0.1, over=ball([0.0] * dims, 3), within=within)
"""
RANGE = """import torch
from mechverify import Bounds, ball, capture


def claim(dims="6", hidden="16", most="1.125848"):
    torch.manual_seed(0)
    d, h, linear = int(dims), int(hidden), torch.nn.Linear
    layers = linear(d, h), torch.nn.Tanh(), linear(h, h), torch.nn.Tanh(), linear(h, 1)
    net = torch.nn.Sequential(*layers).double().eval().requires_grad_(False)
    for layer in (net[0], net[2]):
        layer.weight *= 3
    model = capture(net, torch.zeros(1, d, dtype=torch.float64))
    return Bounds(model["output"][0], over=ball([0.0] * d, 1), at_most=most)
"""
WIDE = """import torch
from mechverify import Bounds, ball, capture


def claim(most="0.88"):
    torch.manual_seed(0)
    linear, relu = torch.nn.Linear, torch.nn.ReLU
    net = torch.nn.Sequential(linear(256, 128), relu(), linear(128, 128), relu(), linear(128, 1)).double().eval()
    model = capture(net, torch.zeros(1, 256, dtype=torch.float64))
    return Bounds(model["output"][0], over=ball([0.0] * 256, 0.05), at_most=most)
"""
NET = """import torch

torch.manual_seed(0)
net = torch.nn.Sequential(torch.nn.Linear(4, 16), torch.nn.GELU(), torch.nn.Linear(16, 2))
"""


def run(folder: Path, *words: object, module: str = "mechverify.cli") -> tuple[float, subprocess.CompletedProcess]:
    command = [sys.executable, "-m", module, *map(str, words)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": ""}
    start = time.perf_counter()
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    return time.perf_counter() - start, done


def start_up(board: Board, folder: Path, quick: bool) -> None:
    run(folder, "check", CERTIFICATE)  # leaves bytecode, as any first call does
    for words in (["--help"], ["check", CERTIFICATE]):
        clock, cpu = [], []
        for _ in range(4 if quick else 12):
            before = os.times()
            clock.append(run(folder, *words)[0])
            after = os.times()
            cpu.append(after.children_user + after.children_system - before.children_user - before.children_system)
        board.row(f"mechverify {words[0]}: seconds of CPU (on the clock), the least of {len(cpu)}", f"under {SOON}",
                  f"{min(cpu):.2f} ({min(clock):.2f})", min(cpu) < SOON)  # fmt: skip


def first_hour(board: Board, folder: Path, quick: bool) -> None:
    """init, prove, check and report, as the tutorial has them."""
    (folder / "mine.py").write_text(NET)
    sources: list[str | Path] = [WEIGHTS / "max_of_4_seed0.safetensors", WEIGHTS / "induction_of_6_seed0.safetensors"]
    shared = sorted(SHARED.glob("*.safetensors"))
    for source in [*sources, *(shared[:1] if quick else shared), "mine.py:net"]:
        name = Path(source).stem if isinstance(source, Path) else "net"
        file, cert = folder / f"claim_{name.replace('-', '_')}.py", folder / f"{name}.cert"
        steps = (
            ("init", source, "--out", file),
            ("prove", file, "--time-limit", 60, "--out", cert),
            ("check", cert),
            ("report", cert, "--html", folder / f"{name}_report"),
        )
        total, codes = 0.0, []
        for step in steps:
            seconds, done = run(folder, *step)
            total += seconds
            codes.append(done.returncode)
        board.row(f"{name}: init, prove, check, report: exit codes, seconds", f"all 0, under {HOUR:.0f}",
                  f"{codes}, {total:.0f}", not any(codes) and total < HOUR)  # fmt: skip


def suite(file: str) -> tuple[bool, str]:
    """Whether all tests of a file pass, and pytest's last line."""
    command = [sys.executable, "-m", "pytest", file, "-p", "no:cacheprovider"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return done.returncode == 0, done.stdout.strip().splitlines()[-1]


def bad_inputs(board: Board) -> None:
    """The table of the suite, with pytest's word on it."""
    rows = runpy.run_path(str(ROOT / "tests" / "test_bad_inputs.py"))["TABLE"]
    passed, said = suite("tests/test_bad_inputs.py")
    board.row(f"bad inputs: {len(rows)} rows, and full disks, pipes, signals", "30 or more, all with one clear message",
              said, passed and len(rows) >= 30)  # fmt: skip


def reports(board: Board) -> None:
    """With pytest's word on them; without Chromium, the extra `browser` or pdflatex they are missed."""
    for what, file in (
        ("the report page in Chromium at three widths, light and dark: it fits, axe finds nothing", "test_browser.py"),
        ("report --latex compiles, and no line is too wide", "test_latex.py"),
    ):
        passed, said = suite(f"tests/report/{file}")
        board.row(what, "all passed, none skipped", said, passed and "passed" in said and "skipped" not in said)


def kills(board: Board, folder: Path, quick: bool) -> None:
    """A share of a box, and a threshold over one, killed at random moments, against an undisturbed run. Each
    is let go on for a third of that run's time at most, so that every proof is interrupted many times."""
    share = ["hidden=8", "within=1/500"] if quick else ["hidden=10", "within=1/20000"]
    _killed(board, folder, "share", SHARE, ["dims=3", *share], 4 if quick else 100)
    _killed(board, folder, "range", WIDE, ["most=0.93"] if quick else [], 4 if quick else 100)


def _killed(board: Board, folder: Path, name: str, text: str, parameters: list[str], wanted: int) -> None:
    (folder / f"{name}.py").write_text(text)
    size = [word for parameter in parameters for word in ("-p", parameter)]
    begin = ["prove", f"{name}.py", *size, "--no-solver"]
    whole, done = run(folder, *begin, "--out", "undisturbed.cert", "--jobs", 1)
    assert done.returncode == 0, done.stderr
    undisturbed = (folder / "undisturbed.cert").read_bytes()
    again, rng = [*begin, "--out", "killed.cert", "--store", "kept.sqlite"], random.Random(0)
    killed = ended = same = 0
    while killed < wanted and ended < wanted:  # a proof is killed some times, let end, and begun anew
        for _ in range(min(ROUND, wanted)):
            killed += _killed_once(folder, again, rng.uniform(0, whole / 3))
        (folder / "killed.cert").unlink(missing_ok=True)
        _, done = run(folder, *again)
        ended += 1
        same += done.returncode == 0 and (folder / "killed.cert").read_bytes() == undisturbed
        for path in folder.glob("kept.sqlite*"):
            path.unlink()
    board.row(f"kill -9 at random moments of a {name} of {whole:.0f} s; proofs that ended, with the same bytes",
              f"{wanted} kills, all", f"{killed} kills, {same} of {ended}",
              killed >= wanted and 0 < ended == same)  # fmt: skip


def _killed_once(folder: Path, words: list[str], seconds: float) -> bool:
    """Whether it had not ended before. What is there then was written whole: `check` raises otherwise."""
    (folder / "killed.cert").unlink(missing_ok=True)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen([sys.executable, "-m", "mechverify.cli", *words], cwd=folder, env=environment,
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # fmt: skip
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
        process.wait()
    if (folder / "killed.cert").exists():
        check((folder / "killed.cert").read_bytes())
    return process.returncode == -signal.SIGKILL


def clusters(board: Board, folder: Path, quick: bool) -> None:
    """One search, in this process with one thread, and by a Ray cluster of one and of two workers, which are there."""
    (folder / "range.py").write_text(RANGE)
    parameters = {"dims": "8", "most": "1.4" if quick else "1.18"}
    claim, seconds, made = load_claim(folder / "range.py", parameters), {}, set()
    for workers in (0, 1, 2):
        with Budget(desk=Desk(begun("ray", workers) if workers else None)) as budget, one_thread():
            problem = RangeProblem.of(claim, "real", "cpu", budget.watch)
            start = time.perf_counter()
            known = find_range(problem, (), budget, "branching", {}, Solver(False, None))
            seconds[workers] = time.perf_counter() - start
        made.add(json.dumps(known.found.proof, default=plain))
    alone, one, two = (seconds[n] for n in (0, 1, 2))
    board.row(f"Ray with one worker, over this process, of {alone:.0f} s", "at most 1.15", round(one / alone, 2),
              one <= 1.15 * alone)  # fmt: skip
    board.row(f"Ray with one worker ({one:.0f} s), over two", "at least 1.6", round(one / two, 2), one >= 1.6 * two)
    board.row("the same proof each time", "1", len(made), len(made) == 1)


def release(board: Board, folder: Path) -> None:
    """What a release holds, and a check from the source archive alone."""
    made = runpy.run_path(str(ROOT / "release.py"))["write"](folder / "dist")
    sdist = next(path for path in made if path.suffix == ".gz")
    shutil.unpack_archive(sdist, folder / "sdist", filter="data")
    (alone,) = (folder / "sdist").iterdir()
    command = [sys.executable, "-m", "mechverify.kernel", str(CERTIFICATE)]
    environment = {**os.environ, "PYTHONPATH": str(alone)}
    done = subprocess.run(command, cwd=alone, env=environment, capture_output=True, text=True, check=False)
    board.row("a certificate checked from the source archive", "ACCEPTED", done.stdout.split("\n")[0],
              done.stdout.startswith("ACCEPTED"))  # fmt: skip
    sizes = {path.name: path.stat().st_size // 1000 for path in made}
    board.row("wheel and source archive, kB", "under 2,000 each", str(sizes), max(sizes.values()) < 2_000)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="smaller samples, under five minutes")
    quick = parser.parse_args().quick
    board = Board("for the people who use it")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        start_up(board, folder, quick)
        release(board, folder)
        clusters(board, folder, quick)
        kills(board, folder, quick)
        first_hour(board, folder, quick)
        bad_inputs(board)
        reports(board)
    return board.finish("people", quick)


if __name__ == "__main__":
    sys.exit(main())
