"""Time limits, costs and memory: how long a process takes that was given so many seconds, and what files make of it.

python -m benchmarks.campaigns.limits SECONDS ...     # some limits, over all claims
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple
from unittest.mock import patch

import numpy as np

from benchmarks.board import Board
from benchmarks.campaigns.examples import Example
from mechverify import kernel
from mechverify.kernel.core.errors import OverLimit
from mechverify.report.statement import lines
from tests import test_versions
from tests.models import as_bytes, random_weights
from tests.soundness import forge, test_linear_files

ROOT = Path(__file__).parent.parent.parent
LIMITS, SHARE, MORE = (5, 20, 60), 0.1, 5.0  # seconds of a limit; by what share and how many seconds it may be missed
CODES = {0: ("PROVED", "BOUNDED"), 1: ("REFUTED",), 3: ("UNKNOWN",)}

HARD = """
import time

import torch
from sympy import Max
from torch import nn

from mechverify import Accuracy, Bounds, Holds, ball, box, capture, tokens, transformer


def relu(*widths, seed=0):
    torch.manual_seed(seed)
    layers = [layer for a, b in zip(widths, widths[1:]) for layer in (nn.Linear(a, b), nn.ReLU())]
    return nn.Sequential(*layers[:-1]).eval()


def bounds(module, radius, **thresholds):
    x = torch.zeros(1, module[0].in_features)
    return Bounds(capture(module, x)["output"], over=ball(x[0], radius), **thresholds)


def claim(what):
    if what == "sleeps":
        time.sleep(10_000)
    if what == "runs":
        while True:
            pass
    if what == "computes":
        return sum(k * k % 7 for k in range(10**12))
    if what == "parameters":
        return bounds(relu(3, 1000, 1000, 2), 0.1)
    if what == "deep":
        return bounds(relu(32, 64, 64, 64, 4), 1.0, at_most=2.0)
    if what == "tight":
        return bounds(relu(18, 24, 24, 1), 1.0, at_most=0.62)
    if what == "few inputs":
        return bounds(relu(6, 40, 40, 1), 1.0, at_most=0.32)
    if what == "wide":
        return bounds(relu(200, 400, 100), 0.5)
    if what == "layers":
        torch.manual_seed(0)
        layer = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.0, batch_first=True)
        x = torch.randn(1, 6, 16)
        return Bounds(capture(layer.eval(), x)["output"], over=ball(x[0], 0.05))
    if what == "integers":
        x = tokens("x", length=8, vocab=30)
        model = capture(nn.Embedding(30, 1).eval(), torch.zeros(1, 8, dtype=torch.long))
        return Holds(Max(*x) * Max(x[0], x[1]) + x[2] * x[3] - x[4] * x[5] <= 1682, over=x)
    raise ValueError(what)
"""


class Case(NamedTuple):
    what: str
    file: str  # "" for HARD
    parameters: tuple[str, ...] = ()
    options: tuple[str, ...] = ()


WEIGHTS = "weights=toy_models/weights/"
CASES = [
    Case("a file that sleeps", "", ("what=sleeps",)),
    Case("max of 20, best", "max_of_k", (f"{WEIGHTS}max_of_20_seed0.safetensors", "at_least=best")),
    Case("a deep ReLU network", "", ("what=deep",)),
    Case("10^6 parameters", "", ("what=parameters",)),
    Case("a file that loops", "", ("what=runs",)),
    Case("a file that computes", "", ("what=computes",)),
    Case("max of 20, as claimed", "max_of_k", (f"{WEIGHTS}max_of_20_seed1.safetensors", "at_least=0.9991")),
    Case("max of 10, best", "max_of_k", ("at_least=best",)),
    Case("max of 10 in float32", "max_of_k", (), ("--semantics", "float32")),
    Case("every input of max of 4", "max_of_k", (f"{WEIGHTS}max_of_4_seed0.safetensors",), ("--strategy", "brute")),
    Case("the running sum, best margin", "running_sum", ("length=14", "margin=best")),
    Case("majority", "majority"),
    Case("a threshold that cells decide", "", ("what=tight",)),
    Case("a threshold, few coordinates", "", ("what=few inputs",)),
    Case("a wide network", "", ("what=wide",)),
    Case("a transformer layer", "", ("what=layers",)),
    Case("integers, for z3", "", ("what=integers",)),
    Case("modular addition", "modular_addition"),
    Case("waves", "modular_addition_inside"),
    Case("lemmas of the running sum", "running_sum_inside", ("what=positive",)),
]
QUICK = [(CASES[0], 5), (CASES[1], 5), (CASES[2], 10)]


class Seen(NamedTuple):
    seconds: float
    verdict: str
    fault: str  # "" if none


def prove(case: Case, limit: float | None, folder: Path) -> Seen:
    """In a process of its own; plain `check` must accept what it writes."""
    file = ROOT / "proofs" / f"{case.file}.py"
    if not case.file:
        file = folder / "hard.py"
        file.write_text(HARD)
    out = folder / "found.cert"
    out.unlink(missing_ok=True)
    command = [sys.executable, "-m", "mechverify.cli", "prove", str(file), "--json", "--out", str(out), *case.options]
    command += [word for p in case.parameters for word in ("-p", p)]
    command += [] if limit is None else ["--time-limit", str(limit)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    start = time.perf_counter()
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=3_600)
    seconds = time.perf_counter() - start
    if done.returncode not in CODES:
        return Seen(seconds, "none", f"exit {done.returncode}: {done.stderr[-300:]}")
    verdict = json.loads(done.stdout)["verdict"]
    fault = "" if verdict in CODES[done.returncode] else f"exit {done.returncode}"
    if out.exists():
        try:
            theorem = kernel.check(out.read_bytes())
            fault = fault or ("" if verdict in (theorem.verdict, "UNKNOWN") else f"the file says {theorem.verdict}")
        except kernel.Rejected as error:
            fault = f"plain check: {error}"
    return Seen(seconds, verdict, fault)


def measured(board: Board, cases: list[tuple[Case, float]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        for case, limit in cases:
            seen = prove(case, limit, Path(folder))
            most = limit * (1 + SHARE) + MORE
            told = f"{seen.seconds:.1f} s, {seen.verdict}" + (f", {seen.fault}" if seen.fault else "")
            board.row(f"{case.what}, {limit} s", f"at most {most:.1f} s; checked by plain check", told,
                      seen.seconds <= most and not seen.fault)  # fmt: skip


def run(board: Board, quick: bool) -> None:
    measured(board, QUICK if quick else [(case, limit) for limit in LIMITS for case in CASES])


def small_file(name: str) -> str:
    """One of tests/soundness/test_linear_files.py, checked in a process of its own."""
    times, memory, told = test_linear_files.answer(name)
    good = times < test_linear_files.TIMES and memory < test_linear_files.MEGABYTES and "internal error" not in told
    return WITHIN if good else f"{times:.1f} times the work allowed, {memory} MiB: {told}"


def dear_proof() -> str:
    """What `check` says of an honest proof that costs more than the default limit, here set lower than it costs."""
    said = []
    with patch("mechverify.kernel.check.LIMIT", 1e5):
        for path in (test_versions.BOUNDS, test_versions.COSTED):
            try:
                said.append(kernel.check(path.read_bytes()).verdict)
            except kernel.Rejected as error:
                said.append(str(error).split(". ")[-1])
    return "; ".join(said)


def stranger() -> str:
    """A file that needs more than it announces."""
    try:
        return kernel.check(test_versions.changed(test_versions.COSTED, cost="100000")).verdict
    except OverLimit:
        return "not checked"
    except kernel.Rejected as error:
        return f"rejected: {error}"


def overflowing() -> str:
    """A wrong input is listed; the first input of the domain overflows. Then the theorem is printed."""
    weights = random_weights(np.random.default_rng(0), vocab=3, length=2)
    weights["embed.W_E"] = weights["embed.W_E"].astype(float) * np.array([[1e200], [1.0], [1.0]])
    proof = {"rule": "counterexample", "inputs": [[1, 1]]}
    doc = forge.document(
        as_bytes(weights), proof, equals=[["integer", [], 7]], vocab=3, length=2, position=1, right=(0, 8)
    )
    return dict(lines(kernel.check(forge.file(doc, as_bytes(weights)))))["verdict"]


WITHIN = "within the work allowed, and 512 MiB"
EXAMPLES = [
    Example("1 kB that asks for a form of each of 30,000 vectors (layer norm)", "6.9 GB", WITHIN,
            lambda: small_file("a layer norm of many vectors")),
    Example("8 kB of large views of single slices", "more than a minute", WITHIN,
            lambda: small_file("large views of single slices")),
    Example("117 kB of slices of a long chain", "1.3 GB and 88 s", WITHIN,
            lambda: small_file("slices of a long chain")),
    Example("2,000 ranges of 2^16 entries", "1.6 GB", WITHIN, lambda: small_file("many ranges of a wide output")),
    Example("2,000 points at a value of 2^16 entries", "3 GB, and an internal error", WITHIN,
            lambda: small_file("many points at a wide output")),
    Example("1,000 integers over 2^18 tokens", "five times the work allowed", WITHIN,
            lambda: small_file("many integers of a long vocabulary")),
    Example("an honest proof that costs more than the default limit: not announced; announced",
            "REJECTED: ... allow more if you trust its author",
            "What was checked until here is in order; --limit allows more; PROVED", dear_proof),
    Example("a file that needs more than it announces", "no file announced anything",
            "rejected: it takes more than the 1e+05 units of work that it announces", stranger),
    Example("a listed wrong input, where the first input overflows", "ACCEPTED, then a traceback", "BOUNDED",
            overflowing),
]  # fmt: skip

if __name__ == "__main__":
    found = Board("limits")
    measured(found, [(case, float(limit)) for limit in sys.argv[1:] for case in CASES])
    found.finish("limits", quick=True)
