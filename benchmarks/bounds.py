"""Bounds of any small network, measured: widths, speed beside peers, ReLU networks, real models, worst cases, attacks.

    python benchmarks/bounds.py [--quick] [--only PART ...]     # about 17 minutes on two cores; --quick under five

Exit code 1 if a target is missed. Parts: nets, speed, batch, relu_box, models, users, attack. Widths are the kernel's,
in its outward-rounded float64. The peers, auto_LiRPA and maraboupy, come with `make`; without one its rows are missed.
They and mechverify run on one thread each: the networks are small, and threads that wait for busy cores cost more; only
`batch` takes all cores, for a cell alone and for many.
"""

import argparse
import json
import math
import os
import re
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from functools import cache
from importlib.util import find_spec
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))
os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
import torch
from torch import nn

from benchmarks.attack import attack
from benchmarks.board import Board, timed
from benchmarks.reference_nets import REFERENCE, nets, relu_box
from mechverify import Bounds, ball, box, capture, kernel, prove, tokens
from mechverify.graph.adapters import load
from mechverify.kernel.core.errors import Rejected, Unsupported
from mechverify.kernel.core.ranges import Range
from mechverify.kernel.relaxation import rule as linear
from mechverify.kernel.relaxation.backward import Relaxed
from mechverify.kernel.relaxation.intervals import Cells, Intervals
from mechverify.provers.ranges.problem import RangeProblem
from mechverify.relax.lirpa import LirpaError, lirpa_bounds
from mechverify.relax.tensors import TensorBall, Tensors

ROOT = Path(__file__).parent.parent
MODELS = ROOT.parent / "shared" / "models"
SIZES, RADII, SEEDS = (5, 10, 20, 40, 80), (1.0, 0.15), (0, 1, 2)
KINDS = ("interval", "linear", "optimised")
WITH_MLP: dict = {"act_fn": "relu", "normalization": None}
SETTINGS = {"arena-cumsum": WITH_MLP, "grokking-113-low-precision": WITH_MLP, "decompiled-majority": {"n_heads": 1},
            **{name: {} for name in ("arena-palindrome", "arena-sorted-list", "c113-mlp-seed1")}}  # fmt: skip


def width(found: Range) -> float:
    return float((found.high - found.low).mean())


def relaxed(problem: RangeProblem, refine: bool) -> Range:
    """What the kernel proves of the whole domain without a witness: by intervals alone, or backwards."""
    with np.errstate(all="ignore"):
        if not refine:
            return linear.ranges(problem.job, [problem.domain], kind=Intervals)[0]
        forms = [linear.ranges(problem.job, [problem.domain])[0]]
        with suppress(Rejected, Unsupported):  # the second form of a softmax may divide by zero
            forms += linear.ranges(problem.job, [problem.domain], shared=True)
        return min(forms, key=width)


def question(module: nn.Module, centre: torch.Tensor, radius: float) -> Bounds:
    return Bounds(capture(module, centre)["output"], over=ball(centre[0], radius))


@cache
def answered(name: str) -> dict:
    """Range of each kind of bound on a reference network, how long the optimised one took, and what its check says."""
    module, centre, radius = next(rest for known, *rest in nets() if known == name)
    claim = question(module, centre, radius)
    problem = RangeProblem.of(claim, "real")
    ranges = {kind: relaxed(problem, kind == "linear") for kind in KINDS[:2]}
    outcome = prove(claim)
    theorem = kernel.check(outcome.certificate, limit=math.inf)
    return {**ranges, "optimised": theorem.range, "seconds": outcome.search_seconds + outcome.check_seconds}


def widths(board: Board, quick: bool) -> None:
    goals = []
    for name, reference in REFERENCE.items():
        found = answered(name)
        for kind, upstream in zip(KINDS, reference["upstream"], strict=True):
            reached = reference["reached"]
            limit = upstream if upstream is not None else 1.35 * reached if kind == "optimised" else math.inf
            target = f"at most {limit:.6f}" + (" (1.35 x reached)" if upstream is None else "")
            if math.isinf(limit):
                target = "finite"
            value = width(found[kind])
            met = math.isfinite(value) and value <= limit
            board.row(f"{name}: mean output width, {kind}", target, f"{value:.6f}", met)
        upstream = reference["upstream"][2]
        if upstream is not None:
            value = width(found["optimised"])
            closed = (upstream - value) / (upstream - reached)
            half = (upstream + reached) / 2
            what = (
                f"{name}: of the gap from {upstream:.4f} to what is reached, {reached:.4f} ({found['seconds']:.1f} s)"
            )
            goals.append((what, f"a goal, no gate: 50 % ({half:.4f})", f"{100 * closed:.0f} % closed"))
    for row in goals:
        board.row(*row, True)


def speed(board: Board, quick: bool) -> None:
    """From the torch module to its optimised bounds, side by side."""
    repetitions = 1 if quick else 3
    for name, module, centre, radius in nets():
        if quick and name not in ("relu-mlp", "attention"):
            continue
        ours, theirs, failed = [], [], ""
        for _ in range(repetitions + 1):
            captured, claim = timed(lambda m=module, c=centre, r=radius: question(m, c, r))
            outcome = prove(claim, method="optimised")
            ours.append(captured + outcome.search_seconds)
            mean = width(outcome.theorem.range)
            try:
                taken, ends = timed(lambda m=module, c=centre, r=radius: lirpa_bounds(m, c, r, "CROWN-Optimized"))
                theirs.append(taken)
            except LirpaError as error:
                failed = str(error)
        mine, peer = min(ours[1:]), min(theirs[1:], default=math.nan)  # the first one warms up
        what = f"{name}: module to optimised bounds, over auto_LiRPA 0.3's CROWN-Optimized"
        if failed:
            installed = find_spec("auto_LiRPA") is not None
            board.row(what, "at most 1", f"{mine:.2f} s; not compared: {failed}", installed)
        else:
            told = f"{mine / peer:.2f} ({mine:.2f} s, {peer:.2f} s)"
            widths = f"mean widths {mean:.6f}, {float((ends[1] - ends[0]).mean()):.6f}"
            board.row(what, "at most 1", f"{told}; {widths}", mine <= peer)


def batch(board: Board, quick: bool) -> None:
    """Linear bounds of sub-boxes, as branching takes them: many at a time, in float64 on torch, with all cores."""
    count = 1_000
    torch.set_num_threads(os.cpu_count() or 1)
    for name, module, centre, radius in nets():
        problem = RangeProblem.of(question(module, centre, radius), "real")
        rng, low, high = np.random.default_rng(0), problem.domain.low, problem.domain.high
        corners = np.sort(rng.uniform(low, high, (2, count, len(low))), 0)
        seconds, widest = {1: math.inf, count: math.inf}, 0.0
        for size in (1, 1, count, 1, 1, count, 1, 1):  # side by side, as others may be at work
            taken, ends = timed(lambda n=size, p=problem, c=corners: cells(p, c[:, :n]))
            seconds[size], widest = min(seconds[size], taken), max(widest, float((ends[1] - ends[0]).max()))
        gain = seconds[1] / (seconds[count] / count)
        told = f"{gain:.1f} ({1e3 * seconds[1]:.1f} ms alone, {1e3 * seconds[count] / count:.2f} ms each of {count:,})"
        board.row(f"{name}: linear bounds of a cell alone over those of one of {count:,}", "at least 20", told,
                  gain >= 20 and math.isfinite(widest))  # fmt: skip
    torch.set_num_threads(1)


def cells(problem: RangeProblem, corners: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Linear bounds of boxes, corners [2, cells, coordinates], as many side by side as the prover takes."""
    ar, claim, rewriting, results = Tensors(), problem.claim, problem.rewriting, []
    step = linear.side_by_side(problem.job)
    (shape,) = claim.shapes
    with torch.no_grad():
        for start in range(0, corners.shape[1], step):
            low, high = torch.from_numpy(corners[:, start : start + step].reshape(2, -1, *shape))
            some = Cells((TensorBall((low + high) / 2, (high - low) / 2),), np.zeros((len(low), 0, 0), bool))
            output = Relaxed(ar, rewriting.graph, claim.weights, rewriting.roots, some).output()
            results.append([ar.lower(output).numpy(), ar.upper(output).numpy()])
    low, high = (np.concatenate(ends) for ends in zip(*results, strict=True))
    return low, high


class Boxed:
    """A ReLU network of two inputs on [-r, r]^2, and what samples say of it."""

    def __init__(self, n: int, radius: float, seed: int):
        self.weights, self.biases = relu_box(n, seed)
        self.radius, layers = radius, []
        for weight, bias in zip(self.weights, self.biases, strict=True):
            layer = nn.Linear(weight.shape[1], weight.shape[0]).double()
            layer.weight.data, layer.bias.data = torch.from_numpy(weight), torch.from_numpy(bias)
            layers += [layer, nn.ReLU()]
        self.module = nn.Sequential(*layers[:-1]).eval()
        inputs = torch.from_numpy(np.random.default_rng(1_000 + seed).uniform(-radius, radius, (200_000, 2)))
        with torch.no_grad():
            values = self.module(inputs)
        self.largest = float(values.max())
        self.threshold = self.largest + (self.largest - float(values.min())) / 10

    def prove(self, most: float):
        site = capture(self.module, torch.zeros(1, 2, dtype=torch.float64))["output"]
        return prove(Bounds(site, over=box([-self.radius] * 2, [self.radius] * 2), at_most=most), time_limit=120)

    def marabou(self, most: float, limit: int = 120) -> str:
        """sat, unsat or TIMEOUT: is there an input with an output of at least `most`?"""
        from maraboupy import MarabouCore, MarabouNetwork, MarabouUtils

        network = MarabouNetwork.MarabouNetwork()
        before = [network.getNewVariable() for _ in range(2)]
        for v in before:
            network.setLowerBound(v, -self.radius)
            network.setUpperBound(v, self.radius)
        network.inputVars = [np.array(before)]
        for k, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            after = [network.getNewVariable() for _ in bias]
            for row, b, v in zip(weight.tolist(), bias.tolist(), after, strict=True):
                equation = MarabouUtils.Equation()
                for w, u in zip([*row, -1.0], [*before, v], strict=True):
                    equation.addAddend(w, u)
                equation.setScalar(-b)
                network.addEquation(equation)
            before = after
            if k + 1 < len(self.weights):
                before = [network.getNewVariable() for _ in after]
                for v, u in zip(after, before, strict=True):
                    network.addRelu(v, u)
                    network.setLowerBound(u, 0.0)
        network.outputVars = [np.array(before)]
        network.setLowerBound(before[0], most)
        options = MarabouCore.Options()
        options._verbosity, options._timeoutInSeconds, options._numWorkers = 0, limit, 1
        options._produceProofs = False
        return network.solve(filename=os.devnull, verbose=False, options=options)[0]


def relu(board: Board, quick: bool) -> None:
    peer, sizes, seeds = find_spec("maraboupy") is not None, SIZES, SEEDS[:1] if quick else SEEDS
    for radius in RADII:
        for n in sizes:
            seconds, verdicts, marabou, refuted = [], [], [], []
            for seed in seeds:
                network = Boxed(n, radius, seed)
                outcome = network.prove(network.threshold)
                seconds.append(outcome.search_seconds + outcome.check_seconds)
                verdicts.append(verdict(outcome))
                if n == 40 and peer:  # the best of three each
                    runs = [timed(lambda b=network: b.marabou(b.threshold)) for _ in range(3)]
                    marabou.append(min(runs))
                    again = [network.prove(network.threshold) for _ in range(2)]
                    seconds[-1] = min(seconds[-1], *(o.search_seconds + o.check_seconds for o in again))
                taken, outcome = timed(lambda b=network: b.prove(b.largest - 0.001))
                refuted.append((verdict(outcome, replayed=network.largest - 0.001), taken))
            told = ", ".join(f"{v} in {s:.2f} s" for v, s in zip(verdicts, seconds, strict=True))
            where = f"n = {n}, radius {radius:g}"
            board.row(f"{where}: below the largest sample and a tenth", "all PROVED, checked", told,
                      set(verdicts) == {"PROVED"})  # fmt: skip
            told = ", ".join(f"{v} in {s:.2f} s" for v, s in refuted)
            board.row(f"{where}: below the largest sample less 0.001", "all REFUTED, replayed", told,
                      {v for v, _ in refuted} == {"REFUTED"})  # fmt: skip
            if n == 40:
                what = f"{where}: search and check, over maraboupy without proofs"
                told = ", ".join(f"{s / m:.2f} ({s:.2f} s; {said} in {m:.2f} s)"
                                 for s, (m, said) in zip(seconds, marabou, strict=False))  # fmt: skip
                met = peer and all(s <= 3 * m and said in ("unsat", "TIMEOUT")
                                   for s, (m, said) in zip(seconds, marabou, strict=True))  # fmt: skip
                board.row(what, "at most 3", told or "not measured: pip install maraboupy", met)


def verdict(outcome, replayed: float | None = None) -> str:
    """The verdict, if the kernel accepts the certificate, and a point that it lists breaks the threshold."""
    if outcome.certificate is None:
        return outcome.verdict
    theorem = kernel.check(outcome.certificate, limit=math.inf)
    if outcome.verdict == "UNKNOWN":
        return f"UNKNOWN ({'; '.join(outcome.reasons)})"
    if theorem.verdict != outcome.verdict:
        return f"{outcome.verdict}, but the certificate says {theorem.verdict}"
    if outcome.verdict == "REFUTED" and replayed is not None and not (theorem.attained.low > replayed).any():
        return "REFUTED without an input"
    return outcome.verdict


def models(board: Board, quick: bool) -> None:
    if not MODELS.is_dir():
        board.row("the models of ../shared/models", "captured and bounded", "not present", True)
        return
    for path in sorted(MODELS.glob("*.safetensors")):
        adapted = load(path, **SETTINGS.get(path.stem, {"normalization": None}))
        seconds, model = timed(lambda a=adapted: capture(a.module, a.example))
        captured = model.captured
        told = f"{len(model.sites)} sites, {captured.difference:.1e} on {captured.replayed} inputs"
        board.row(f"{path.stem}: sites, and the largest difference replayed ({seconds:.1f} s)", "at most 1e-12", told,
                  captured.difference <= 1e-12)  # fmt: skip
        x = tokens("x", length=captured.tokens_length, vocab=captured.vocab)
        for kind in KINDS[:2]:
            for where, site in (("all positions", model["logits"]), ("the last position", model["logits"][-1])):
                one = len(model.shape("logits")) < 2
                if (one and where != "all positions") or (quick and not one and where == "all positions"):
                    continue
                large = math.prod(model.shape("logits")) > 1_000  # a minute a position
                if kind == "linear" and large and (quick or where == "all positions"):
                    continue
                what = f"{path.stem}: {kind} bounds of logits at {where} over {captured.vocab}^{len(x)} inputs"
                try:
                    seconds, found = timed(lambda s=site, k=kind, x=x: over_tokens(s, x, k))
                    finite = bool(np.isfinite(found.low).all() and np.isfinite(found.high).all())
                    told = f"{found.low.min():.4g} to {found.high.max():.4g} ({seconds:.1f} s)"
                except (Rejected, Unsupported) as error:
                    finite, told = False, f"{type(error).__name__}: {error}"
                board.row(what, "finite", told, finite)


def over_tokens(site, x, kind: str) -> Range:
    return relaxed(RangeProblem.of(Bounds(site, over=x), "real"), kind == "linear")


CASES = """
import torch
from torch import nn
from mechverify import Bounds, ball, capture


class Branch(nn.Module):
    def forward(self, x):
        return x * 2 if x.sum() > 0 else x - 1


class Sort(nn.Module):
    def forward(self, x):
        return torch.sort(torch.fft.fft(x).real)[0]


class Words(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(3, 4), nn.Linear(2, 4)

    def forward(self, x, *, context, scale=1.0):
        return torch.relu(self.a(x) + scale * self.b(context))


def mlp(width):
    return nn.Sequential(nn.Linear(3, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 2))


def claim(case):
    torch.manual_seed(0)
    x, options = torch.zeros(1, 3), {}
    module = {"branch": Branch, "unsupported": Sort, "kwargs": Words}.get(case, lambda: mlp(1000))()
    if case in ("bfloat16", "training"):
        module = nn.Sequential(mlp(8), nn.Dropout(0.5))
    if case == "kwargs":
        options = {"context": torch.ones(1, 2), "scale": 0.5}
    if case != "training":
        module = module.eval()
    if case == "bfloat16":
        module, x = module.bfloat16(), x.bfloat16()
    centres = [x[0], options["context"][0]] if options else x[0]
    return Bounds(capture(module, x, **options)["output"], over=ball(centres, 0.1))
"""


def users(board: Board, quick: bool) -> None:
    """Through the command line, as a user meets it: words, or a bound."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "cases.py"
        file.write_text(CASES)
        for case, what, codes in (
            ("branch", "a data-dependent branch", (2,)),
            ("unsupported", "unsupported operations", (2,)),
            ("bfloat16", "weights and example in bfloat16", (0, 2)),
            ("training", "a model in training mode", (0, 2)),
            ("kwargs", "a forward that needs keyword arguments", (0, 2)),
            ("parameters", "10^6 parameters", (0, 2)),
        ):
            command = [sys.executable, "-m", "mechverify.cli", "prove", str(file), "-p", f"case={case}", "--json"]
            environment = {**os.environ, "PYTHONPATH": str(ROOT)}
            seconds, done = timed(lambda c=command, e=environment: subprocess.run(
                c, cwd=folder, env=e, capture_output=True, text=True, timeout=600))  # fmt: skip
            said = (done.stdout + done.stderr).replace(folder + os.sep, "")
            noise = re.findall(r"Traceback.*|.*Warning: .*|^[WE]\d{4} .*", said, re.M)
            if done.returncode == 0:
                answer = json.loads(done.stdout)
                told = "; ".join([answer["verdict"], *answer["reasons"]])
            else:
                told = " ".join(done.stderr.replace(folder + os.sep, "").split())[-300:]
            met = done.returncode in codes and not noise and told != ""
            told += f" (and beside it: {noise[0][:80]} ...)" if noise else ""
            board.row(what, "words alone, without traceback or log, or a bound",
                      f"exit {done.returncode} in {seconds:.1f} s: {told}", met)  # fmt: skip


PARTS = {"nets": widths, "speed": speed, "batch": batch, "relu_box": relu, "models": models, "users": users,
         "attack": attack}  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="smaller samples")
    parser.add_argument("--only", nargs="+", choices=PARTS, help="some parts; nothing is kept in benchmarks/results")
    arguments = parser.parse_args()
    board = Board("bounds")
    for name in arguments.only or PARTS:
        start = time.perf_counter()
        PARTS[name](board, arguments.quick)
        print(f"        {name}: {time.perf_counter() - start:.0f} s", flush=True)
    return board.finish("bounds", arguments.quick or arguments.only is not None)


if __name__ == "__main__":
    sys.exit(main())
