"""Files that nobody wrote by hand: what `check` makes of 200,000 of them, in two processes."""

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

from benchmarks.board import Board
from benchmarks.fuzz import MEGABYTES

ROOT = Path(__file__).parent.parent.parent
FILES, FEW, PROCESSES = 200_000, 3_000, 2


def run(board: Board, quick: bool) -> None:
    """Each process is one of benchmarks/fuzz.py, with a share of the files."""
    count = FEW if quick else FILES
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    shares = [[sys.executable, "-m", "benchmarks.fuzz", str(number), str(count // PROCESSES)]
              for number in range(PROCESSES)]  # fmt: skip
    running = [subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True)
               for command in shares]  # fmt: skip
    told = [process.communicate()[0] for process in running]
    died = [process.returncode for process in running if process.returncode]
    found = [json.loads(text) for text in told if text]
    outcomes = sum((Counter(c) for one in found for c in one["outcomes"].values()), Counter())
    bad = [fault for one in found for fault in one["bad"]]
    files = sum(one["files"] for one in found)
    said = f"{files:,}: " + ", ".join(f"{n:,} {what}" for what, n in outcomes.most_common())
    board.row("hostile files: processes that died", "0", len(died), not died)
    board.row("hostile files", f"{count:,}, no process died", said, files >= 0.99 * count)
    board.row("... tracebacks, false lines, work beyond what is announced", "0", f"{len(bad)} {bad[:3]}", not bad)
    above = max((one["above"] for one in found), default=0)
    board.row("... memory above what the process held before, MiB", f"at most {MEGABYTES}", above, above <= MEGABYTES)
    seconds = max((one["slowest"][0] for one in found), default=0.0)
    dearest = max((one["dearest"] for one in found), default=0.0)
    what = f"... the slowest file ({seconds:.1f} s), as a share of the time that its announcement allows"
    board.row(what, "at most 1", round(dearest, 3), dearest <= 1)
