"""Claims about the inside of networks, measured: what is proved beside brute force, and planted false claims.

    python benchmarks/mechanisms.py [--quick] [--only FAMILY ...]     # some minutes on two cores; --quick: one

Exit code 1 if a target is missed. Families: addition, max_of_k, superposition, running_sum, majority, sorted_list (the
last one with ../shared/models alone).
"""

import argparse
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import numpy as np
import torch
from sympy import Max, Min, Piecewise, sign

from benchmarks.board import Board
from mechverify import Accuracy, Bounds, Mod, Within, box, capture, count, kernel, prove, tokens
from mechverify.graph.adapters import load
from mechverify.provers.accuracy.margin import largest_margin
from mechverify.provers.accuracy.problem import AccuracyProblem
from mechverify.provers.base import Budget
from proofs import (
    majority,
    max_of_k_inside,
    modular_addition,
    modular_addition_inside,
    running_sum,
    running_sum_inside,
    sorted_list,
    superposition,
)
from toy_models.superposition import FEATURES, shipped

ROOT = Path(__file__).parent.parent
SHARED = ROOT.parent / "shared" / "models" / "c113-mlp-seed1.safetensors"
OWN = str(ROOT / "toy_models" / "weights" / "add_mod_59_seed0.safetensors")
MAX = str(ROOT / "toy_models" / "weights" / "max_of_4_seed0.safetensors")
SUM, VOTES = (
    str(ROOT / "toy_models" / "weights" / f"{name}_seed0.safetensors") for name in ("running_sum", "majority")
)
SHARED_SUM = str(ROOT.parent / "shared" / "models" / "arena-cumsum.safetensors")
SORTED = str(ROOT.parent / "shared" / "models" / "arena-sorted-list.safetensors")
LIMIT = 60  # seconds of a planted claim
Planted = Iterator[tuple[str, Accuracy | Bounds]]


def judged(claim: Accuracy | Bounds, semantics: str = "real") -> tuple[str, kernel.Theorem | None, float]:
    """The verdict that the kernel confirms, and the seconds from the claim to it."""
    start = time.perf_counter()
    outcome = prove(claim, semantics=semantics, time_limit=LIMIT)
    theorem = kernel.check(outcome.certificate, limit=float("inf")) if outcome.certificate else None
    verdict = outcome.verdict if theorem is None or outcome.verdict == "UNKNOWN" else theorem.verdict
    return verdict, theorem, time.perf_counter() - start


def planted(board: Board, family: str, claims: Planted, quick: bool) -> None:
    """False claims: none is proved, most are refuted."""
    verdicts, slowest, proved = Counter(), 0.0, []
    for i, (name, claim) in enumerate(claims):
        if quick and i % 4:
            continue
        verdict, _, taken = judged(claim)
        verdicts[verdict] += 1
        slowest = max(slowest, taken)
        proved += [name] if verdict == "PROVED" else []
    total = sum(verdicts.values())
    told = f"{dict(verdicts)}, the slowest in {slowest:.1f} s" + (f"; proved: {proved}" if proved else "")
    met = not proved and verdicts["REFUTED"] >= 0.9 * total and set(verdicts) <= {"REFUTED", "UNKNOWN"}
    enough = total >= (8 if quick else 30)
    board.row(f"{family}: {total} false claims", "none proved, 90 % refuted, each within 60 s", told,
              met and enough and slowest <= LIMIT)  # fmt: skip


def true(board: Board, what: str, claim: Bounds) -> None:
    verdict, _, taken = judged(claim)
    board.row(f"{what}", "PROVED", f"{verdict} in {taken:.1f} s", verdict == "PROVED")


# --- addition ---------------------------------------------------------------------------------------------------------


def all_logits(weights: str) -> np.ndarray:
    """[p, p, p] in float64."""
    module = load(weights).module.double()
    p = len(module.W_x)
    pairs = torch.cartesian_prod(torch.arange(p), torch.arange(p))
    with torch.no_grad():
        return module(pairs).numpy().reshape(p, p, p)


def addition(board: Board, quick: bool) -> None:
    for weights in [OWN, *([str(SHARED)] if SHARED.exists() and not quick else [])]:
        name, values = Path(weights).stem, all_logits(weights)
        p = len(values)
        a, b = np.mgrid[:p, :p]
        right = values[a, b, (a + b) % p]
        others = np.where((np.arange(p) == ((a + b) % p)[..., None]), -np.inf, values)
        margin = (right - others.max(-1)).min()
        verdict, theorem, taken = judged(modular_addition.claim(weights))
        low = float(theorem.range.low.min())
        told = f"{verdict} in {taken:.1f} s; smallest margin {low:.9f}, in float64 {margin:.9f}"
        board.row(f"{name}: right on all {p * p:,} pairs, and by how much", "PROVED, margin within 1e-6", told,
                  verdict == "PROVED" and abs(low - margin) <= 1e-6 * abs(margin))  # fmt: skip
        for semantics in ("real", "float32"):
            start = time.perf_counter()
            outcome = prove(modular_addition.claim(weights, what="accuracy"), semantics=semantics)
            verdict = kernel.check(outcome.certificate, limit=float("inf")).verdict
            told = f"{verdict} in {time.perf_counter() - start:.1f} s"
            board.row(f"{name}: right on all {p * p:,} pairs under {semantics}", "PROVED", told, verdict == "PROVED")
    for what in ("embedding",) if quick else ("embedding", "waves"):
        _, theorem, taken = judged(modular_addition_inside.claim(OWN, what=what))
        eps = float(max(-theorem.range.low.min(), theorem.range.high.max()))
        seen = deviation(what)
        told = f"{eps:.6f} in {taken:.1f} s; the largest deviation found {seen:.6f}"
        board.row(f"{Path(OWN).stem}: {what} are sums of waves up to", "within 5 % of the largest found", told,
                  seen <= eps <= 1.05 * seen)  # fmt: skip
    planted(board, "addition", false_additions(), quick)


def deviation(what: str) -> float:
    """The largest one on all inputs, in float64, of what modular_addition_inside says."""
    module = load(OWN).module.double()
    p, values = len(module.W_x), all_logits(OWN)
    if what == "embedding":
        table = module.W_x.detach().numpy().T
        return max(float(np.abs(row - kept(row)).max()) for row in table)
    a, b, c = np.ogrid[:p, :p, :p]
    distance = (a + b - c) % p
    mean = np.bincount(distance.ravel(), values.ravel()) / p**2
    return float(np.abs(values - kept(mean)[distance]).max())


def kept(values: np.ndarray, count: int = 6) -> np.ndarray:
    """The function made of its mean and its largest waves."""
    f = np.fft.rfft(values)
    small = np.argsort(-np.abs(f[1:]))[count:] + 1
    f[small] = 0
    return np.fft.irfft(f, len(values))


def false_additions() -> Planted:
    adapted = load(OWN)
    model, p = capture(adapted.module, adapted.example), len(adapted.module.W_x)
    x, logits, embed = tokens("x", length=2, vocab=p), model["logits"], model["embed_x"]
    margin = float(judged(modular_addition.claim(OWN))[1].range.low.min())
    yield "a margin 10 % larger", modular_addition.claim(OWN, at_least=str(1.1 * margin))
    for s in range(1, 11):
        wrong = logits[Mod(x[0] + x[1] + s, p)]
        yield (
            f"off by {s}",
            Bounds([wrong - logits[Mod(x[0] + x[1] + s + d, p)] for d in (1, 2, p - s)], over=x, at_least=0),
        )
    for name, sum_ in {"minus": x[0] - x[1], "twice": 2 * x[0] + x[1], "product": x[0] * x[1], "one": x[0]}.items():
        wrong = logits[Mod(sum_, p)]
        yield name, Bounds([wrong - logits[Mod(sum_ + d, p)] for d in range(1, p)], over=x, at_least=0)
    table = adapted.module.W_x.double().detach().numpy().T
    for i, row in enumerate(table[:9]):
        eps = float(np.abs(row - kept(row)).max())
        yield (
            f"embedding {i}, eps 10 % smaller",
            Within(embed[i], modular_addition_inside.wave(row, x[0], 6), over=x, eps=0.9 * eps),
        )
        other = table[(i + 1) % len(table)]
        yield (
            f"embedding {i}, another's waves",
            Within(embed[i], modular_addition_inside.wave(other, x[0], 6), over=x, eps=eps),
        )
        yield f"embedding {i}, sign", Within(embed[i], -modular_addition_inside.wave(row, x[0], 6), over=x, eps=eps)


# --- the inside of max-of-k -------------------------------------------------------------------------------------------


def max_of_k(board: Board, quick: bool) -> None:
    module = load(MAX, normalization=None).module.double()
    for what, table in (("scores", scores(module, 0, 3, 0, 64)), ("copies", copies(module, 0))):
        steps = np.diff(table, axis=1)
        t = np.arange(64)
        lead = table[t, t][:, None] - table[t[:, None], (t[:, None] + np.arange(1, 64)) % 64]
        seen = (steps if what == "scores" else lead[8:]).min()
        _, theorem, taken = judged(max_of_k_inside.claim(MAX, what=what, least=0 if what == "scores" else 8))
        low = float(theorem.range.low.min())
        board.row(f"max of 4: {what}, the smallest margin", "within 1e-9 of brute force",
                  f"{low:.9f}, by brute force {seen:.9f} ({taken:.1f} s)", 0 <= seen - low <= 1e-9)  # fmt: skip
        true(board, f"max of 4: {what}, with that margin",
             max_of_k_inside.claim(MAX, what=what, least=0 if what == "scores" else 8, at_least=str(low)))  # fmt: skip
    planted(board, "max of 4", false_insides(), quick)


def scores(module: torch.nn.Module, head: int, query: int, key: int, tokens: int) -> np.ndarray:
    """[query token, key token]: what the first layer's head says on sequences with these tokens at these positions."""
    ids = torch.zeros(tokens**2, len(module.pos_embed.W_pos), dtype=torch.long)
    ids[:, key], ids[:, query] = torch.cartesian_prod(torch.arange(tokens), torch.arange(tokens)).T.flip(0)
    seen, parts = [], ids.split(2**12)
    hook = module.blocks[0].attn.attn_scores.register_forward_hook(
        lambda _, __, out: seen.append(out[:, head, query, key])
    )
    with torch.no_grad():
        for part in parts:
            module(part)
    hook.remove()
    return torch.cat(seen).reshape(tokens, tokens).numpy()


def copies(module: torch.nn.Module, head: int) -> np.ndarray:
    """[attended token, output]"""
    attn = module.blocks[0].attn
    with torch.no_grad():
        v = module.embed.W_E @ attn.W_V[head] + attn.b_V[head]
        return (v @ attn.W_O[head] @ module.unembed.W_U).numpy()


def false_insides() -> Planted:
    for what, least in (("scores", 0), ("copies", 8)):
        claim = max_of_k_inside.claim(MAX, what=what, least=least)
        lows = judged(claim)[1].range.low
        for i in range(0, 63, 4):
            thresholds = lows - 1.0
            thresholds[i] = lows[i] + 0.1 * abs(lows[i])
            yield f"{what} {i}, 10 % more", Bounds(claim.output, over=claim.over, at_least=thresholds)
        yield f"{what}, upside down", Bounds(claim.output, over=claim.over, at_most=0)
    yield "copies, the small tokens as well", max_of_k_inside.claim(MAX, what="copies", at_least="2.6")
    yield "scores grow at every step", max_of_k_inside.claim(MAX, at_least="0")


# --- superposition ----------------------------------------------------------------------------------------------------


def pairs() -> Iterator[tuple[int, int, float]]:
    """A feature, another one, and how far the second moves the first one's output, at its corner or between."""
    module = shipped().double()
    for i in range(FEATURES):
        for j in range(FEATURES):
            if i != j:
                x = torch.zeros(1_001, FEATURES, dtype=torch.float64)
                x[:, j] = torch.linspace(0, 1, 1_001, dtype=torch.float64)
                yield i, j, float(module(x)[:, i].detach().max())


def interference(board: Board, quick: bool) -> None:
    worst, slowest = 0.0, 0.0
    for i, j, seen in pairs():
        _, theorem, taken = judged(superposition.claim(i, str(j)))
        worst, slowest = max(worst, abs(float(theorem.range.high[0]) - seen)), max(slowest, taken)
        if seen > float(theorem.range.high[0]):
            worst = float("inf")
    told = f"at most {worst:.1e} apart, the slowest in {slowest:.1f} s"
    board.row(f"superposition: each feature on each other one, {FEATURES * (FEATURES - 1)} ranges",
              "within 1e-6 of the largest seen", told, worst <= 1e-6)  # fmt: skip
    planted(board, "superposition", false_interferences(), quick)


def false_interferences() -> Planted:
    for i, j, seen in pairs():
        yield f"{j} on {i}", superposition.claim(i, str(j), at_most=str(0.9 * seen if seen > 1e-6 else -0.01))
    model = capture(shipped(), torch.zeros(1, FEATURES))
    everything = " ".join(map(str, range(FEATURES)))
    for i in range(FEATURES):
        high = float(judged(superposition.claim(i, everything))[1].range.high[0])
        yield f"all on {i}", superposition.claim(i, everything, at_most=str(0.9 * high))
        x = box(np.zeros(FEATURES), np.ones(FEATURES))
        yield f"{i} is copied", Within(model["output"][i], x[i], over=x, eps=0.2)
        yield f"{i} is never seen", Bounds(model["output"][i], over=x, at_most=0.5)


# --- folds through neurons: the running sum, and majority -------------------------------------------------------------


def every_length(board: Board, quick: bool, name: str, claim: Callable, weights: str, inputs: int) -> None:
    """All lengths under both semantics, with their checks, two at a time."""
    lengths = (1, 2, 5, 9) if quick else range(1, 21)
    jobs = [(claim, weights, n, semantics) for n in reversed(lengths) for semantics in ("float32", "real")]
    start = time.perf_counter()
    with ProcessPoolExecutor(
        2, mp_context=get_context("spawn"), initializer=torch.set_num_threads, initargs=(1,)
    ) as pool:
        verdicts = list(pool.map(_of_length, *zip(*jobs, strict=True)))
    taken = time.perf_counter() - start
    told = f"{dict(Counter(verdicts))} in {taken:.0f} s"
    board.row(f"{name}: right on all {inputs}^n inputs, n = {lengths[0]} to {lengths[-1]}, real and float32",
              "PROVED, all in 300 s", told, set(verdicts) == {"PROVED"} and taken <= 300)  # fmt: skip


def _of_length(claim: Callable, weights: str, length: int, semantics: str) -> str:
    return judged(claim(weights, length=length), semantics)[0]


def margins(board: Board, quick: bool, name: str, claim: Callable, weights: str) -> list[float]:
    """The margins proved by the fold, beside those of all inputs, for short sequences; the exact ones."""
    found, exact, worst = [], [], 0.0
    for n in (1, 2, 3) if quick else range(1, 7):
        problem = AccuracyProblem.of(claim(weights, length=n), "real")
        exact.append(falsify_all(problem))
        found.append(float(largest_margin(problem, exact[-1], Budget()) or 0))
        theorem = judged(claim(weights, length=n, margin=str(found[-1])))[1]
        assert theorem.verdict == "PROVED" and float(theorem.claim.margin) == found[-1]
        worst = max(worst, 1 - found[-1] / exact[-1])
        assert found[-1] < exact[-1] + 1e-7  # margins_of rounds to a grid of 6e-8
    told = ", ".join(f"{a:.6f} of {b:.6f}" for a, b in zip(found, exact, strict=True))
    board.row(f"{name}: smallest margin, n = 1 to {len(found)}", "within 1 % of all inputs'", told, worst <= 0.01)
    return exact


def falsify_all(problem: AccuracyProblem) -> float:
    """The least margin of all inputs, in float64."""
    least = np.inf
    for start in range(0, problem.domain.size, 2**14):
        inputs = problem.domain.inputs(start, min(start + 2**14, problem.domain.size))
        least = min(least, float(problem.margins(inputs).min()))
    return least


def sums(board: Board, quick: bool) -> None:
    for weights in [SUM, *([SHARED_SUM] if Path(SHARED_SUM).exists() else [])]:
        name = Path(weights).stem
        every_length(board, quick, name, running_sum.claim, weights, 11)
        exact = margins(board, quick, name, running_sum.claim, weights)
        lemmas(board, name, weights, 4 if quick else 20)
    planted(board, "running sum", false_sums(weights, exact), quick)


def lemmas(board: Board, name: str, weights: str, n: int) -> None:
    """How uniform attention is, and how affine what it adds is in the sum: proved, beside samples and a climb."""
    for what in ("attention", "moved"):
        claim = running_sum_inside.claim(weights, what, length=n)
        start = time.perf_counter()
        outcome = prove(claim, method="linear")
        theorem = kernel.check(outcome.certificate, limit=float("inf"))
        taken = time.perf_counter() - start
        eps = float(max(-theorem.range.low.min(), theorem.range.high.max()))
        seen = float(max(-theorem.attained.low.min(), theorem.attained.high.max()))
        board.row(f"{name}: {what} at n = {n}, lemma on all inputs", "bounded, at most 5 times what inputs reach",
                  f"within {eps:.2e} in {taken:.1f} s; reached {seen:.2e}", 0 < seen <= eps <= 5 * seen)  # fmt: skip


def false_sums(weights: str, exact: list[float]) -> Planted:
    for n, margin in enumerate(exact, 1):
        yield f"{n}: a margin 10 % larger", running_sum.claim(weights, length=n, margin=str(1.1 * margin))
    for n in (2, 3, 7, 13, 20):
        true = running_sum.claim(weights, length=n)
        x, total = true.over, sum(true.over)
        wrong = {
            "one more": sign(total + 1) + 1, "the other sign": 1 - sign(total), "zero is positive": sign(total + 1) + 1,
            "zero is negative": sign(total - 1) + 1, "the first token left out": sign(total - x[0]) + 1,
            "the last token twice": sign(total + x[-1]) + 1, "the largest token": sign(Max(*x)) + 1,
            "never zero": Piecewise((2, total >= 0), (0, True)),
        }  # fmt: skip
        for what, mechanism in wrong.items():
            yield f"{n}: {what}", Accuracy(true.output, equals=mechanism, over=x, at_least=1)


def votes(board: Board, quick: bool) -> None:
    every_length(board, quick, "majority of three", majority.claim, VOTES, 3)
    exact = margins(board, quick, "majority of three", majority.claim, VOTES)
    planted(board, "majority", false_votes(exact), quick)


def false_votes(exact: list[float]) -> Planted:
    for n, margin in enumerate(exact, 1):
        yield f"{n}: a margin 10 % larger", majority.claim(VOTES, length=n, margin=str(1.1 * margin))
    for n in (4, 8, 14, 20):
        true = majority.claim(VOTES, length=n)
        x = true.over
        a, b, c = (count(candidate, *x) for candidate in range(3))
        wrong = {
            "ties go to the first": Piecewise((0, a >= Max(b, c)), (1, b >= c), (2, True)),
            "the first two in turn": Piecewise((1, a > Max(b, c)), (0, b > Max(a, c)), (2, c > Max(a, b)), (3, True)),
            "the least votes": Piecewise((0, a < Min(b, c)), (1, b < Min(a, c)), (2, c < Min(a, b)), (3, True)),
            "more than half": Piecewise((0, 2 * a > n), (1, 2 * b > n), (2, 2 * c > n), (3, True)),
            "the last vote": x[-1],
            "a lead of two": Piecewise((0, a > 1 + Max(b, c)), (1, b > Max(a, c)), (2, c > Max(a, b)), (3, True)),
            "no third candidate": Piecewise((0, a > b), (1, b > a), (3, True)),
        }  # fmt: skip
        for what, mechanism in wrong.items():
            yield f"{n}: {what}", Accuracy(true.output, equals=mechanism, over=x, at_least=1)


# --- the sorted list --------------------------------------------------------------------------------------------------


def looking_up(board: Board, quick: bool) -> None:
    if not Path(SORTED).exists():
        return
    module, length = load(SORTED).module.double(), 4
    for position in (14,) if quick else (11, 14, 17):
        leads = next_leads(module, position, length)
        least = min(q for q in range(50) if all(leads[r] > 0 for r in range(q, 46)))
        _, theorem, taken = judged(sorted_list.claim(SORTED, position=position, least=least, length=length))
        low, seen = float(theorem.range.low.min()), min(leads[q] for q in range(least, 46))
        board.row(f"sorted list, position {position}: the next number leads, written last {least} to 45",
                  "within 1e-9 of brute force", f"by {low:.9f}, by brute force {seen:.9f} ({taken:.1f} s)",
                  0 <= seen - low <= 1e-9)  # fmt: skip
    planted(board, "sorted list", false_orders(length), quick)


def next_leads(module: torch.nn.Module, position: int, length: int) -> dict[int, float]:
    """By brute force: by how much the number after q scores above all up to q, for each q written last."""
    table = np.stack([scores(module, 1, position, key, 51) for key in range(length)])
    low, high = table.min(0), table.max(0)
    return {q: low[q, q + 1] - high[q, : q + 1].max() for q in range(50)}


def false_orders(length: int) -> Planted:
    module = load(SORTED).module.double()
    for position in range(11, 19):
        claim = sorted_list.claim(SORTED, position=position, least=40, length=length)
        lows = judged(claim)[1].range.low
        thresholds = lows - 1.0
        i = int(lows.argmin())
        thresholds[i] = lows[i] + 0.1 * abs(lows[i])
        yield f"{position}: 10 % more", Bounds(claim.output, over=claim.over, at_least=thresholds)
        yield f"{position}: upside down", Bounds(claim.output, over=claim.over, at_most=0)
        if min(next_leads(module, position, length).values()) < 0:  # at some positions it is true
            wide = sorted_list.claim(SORTED, position=position, least=0, most=49, length=length, at_least="0")
            yield f"{position}: whatever was written", wide
        yield f"{position}: the other head", sorted_list.claim(SORTED, 0, position, 7, 45, length, at_least="0")


FAMILIES: dict[str, Callable[[Board, bool], None]] = {
    "addition": addition, "max_of_k": max_of_k, "superposition": interference, "running_sum": sums,
    "majority": votes, "sorted_list": looking_up,
}  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="smaller samples")
    parser.add_argument("--only", nargs="+", choices=FAMILIES, help="some families; nothing is kept")
    arguments = parser.parse_args()
    board = Board("mechanisms")
    for name in arguments.only or FAMILIES:
        start = time.perf_counter()
        FAMILIES[name](board, arguments.quick)
        print(f"        {name}: {time.perf_counter() - start:.0f} s", flush=True)
    return board.finish("mechanisms", arguments.quick or arguments.only is not None)


if __name__ == "__main__":
    sys.exit(main())
