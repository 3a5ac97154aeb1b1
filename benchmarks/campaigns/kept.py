"""Nothing that was proved is lost: the shipped proofs' verdicts and bounds beside those of an earlier release.

python -m benchmarks.campaigns.kept      # writes benchmarks/results/kept.json, the reference for later code
"""

import json
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

from benchmarks.board import Board
from mechverify import prove
from mechverify.kernel.core.counts import CountingTheorem
from proofs import (
    majority,
    max_of_k,
    max_of_k_inside,
    modular_addition,
    modular_addition_inside,
    robust,
    running_sum,
    running_sum_inside,
    scores,
    superposition,
)

RECORD = Path(__file__).parent.parent / "results" / "kept.json"
WEIGHTS = "toy_models/weights"
SLACK = Fraction(1, 10**9)  # relative: an end that moved by less has moved by rounding; it decides no verdict


def _max_of(k: int, seed: int, at_least: str | None) -> Callable:
    return lambda: max_of_k.claim(f"{WEIGHTS}/max_of_{k}_seed{seed}.safetensors", at_least)


CLAIMS: dict[str, tuple[Callable, dict[str, Any]]] = {
    **{f"max of 4, seed {s}": (_max_of(4, s, None), {}) for s in range(5)},
    **{f"max of 5, seed {s}": (_max_of(5, s, None), {}) for s in range(2)},
    "max of 4, float32": (_max_of(4, 0, None), {"semantics": "float32"}),
    "max of 4, cubic": (_max_of(4, 0, None), {"strategy": "cubic"}),
    "max of 10, seed 0": (_max_of(10, 0, "0.998"), {}),
    "max of 10, seed 1": (_max_of(10, 1, "0.998"), {}),
    "max of 10, always": (_max_of(10, 0, "1"), {}),
    "max of 20, seed 0": (_max_of(20, 0, "0.999"), {}),
    "max of 20, seed 1": (_max_of(20, 1, "0.999"), {}),
    "running sum, 20": (lambda: running_sum.claim(), {}),
    "running sum, 20, float32": (lambda: running_sum.claim(), {"semantics": "float32"}),
    "running sum, 6, margin": (lambda: running_sum.claim(length=6, margin="best"), {}),
    "majority, 20, float32": (lambda: majority.claim(), {"semantics": "float32"}),
    "majority, 9, margin": (lambda: majority.claim(length=9, margin="best"), {}),
    "addition, margin": (lambda: modular_addition.claim(), {}),
    "addition, accuracy": (lambda: modular_addition.claim(what="accuracy"), {}),
    "addition, accuracy, float32": (lambda: modular_addition.claim(what="accuracy"), {"semantics": "float32"}),
    "addition, embedding": (lambda: modular_addition_inside.claim(what="embedding"), {}),
    "addition, waves": (lambda: modular_addition_inside.claim(), {}),
    "max of 4, scores": (lambda: max_of_k_inside.claim(), {}),
    "max of 4, copies": (lambda: max_of_k_inside.claim(what="copies", least=8, at_least="2.6"), {}),
    "max of 4, copies of all": (lambda: max_of_k_inside.claim(what="copies", at_least="2.6"), {}),
    "robust": (lambda: robust.claim(), {"method": "optimised"}),
    "scores": (lambda: scores.claim(), {}),
    "sum, attention": (lambda: running_sum_inside.claim(what="attention"), {"method": "linear"}),
    "sum, moved": (lambda: running_sum_inside.claim(), {"method": "linear"}),
    "sum, negative": (lambda: running_sum_inside.claim(what="negative", length=2), {}),
    "superposition": (lambda: superposition.claim(), {}),
}
QUICK = ("max of 4, seed 0", "running sum, 20", "addition, margin", "max of 4, scores", "max of 4, copies of all")


def verdict(name: str) -> dict[str, Any]:
    """The verdict, and the proved bounds as exact numbers."""
    claim, options = CLAIMS[name]
    outcome = prove(claim(), **options)
    found: dict[str, Any] = {"verdict": outcome.verdict}
    if outcome.theorem is not None:
        counted = isinstance(outcome.theorem, CountingTheorem)
        bounds = outcome.theorem.right if counted else outcome.theorem.range
        ends = ([end] if isinstance(end, int) else end.tolist() for end in bounds)
        found["low"], found["high"] = ([_text(v) for v in end] for end in ends)
    if isinstance(outcome.theorem, CountingTheorem) and outcome.theorem.claim.margin:
        found["margin"] = str(outcome.theorem.claim.margin)
    return found


def _text(value: float) -> str | None:
    return None if value in (float("inf"), float("-inf")) else str(Fraction(value))


def _weaker(before: dict[str, Any], now: dict[str, Any]) -> bool:
    """Whether some bound says less than it did, by more than rounding."""
    if "low" not in before:
        return False
    if "margin" in before and _fallen(before["margin"], now.get("margin"), 1):
        return True
    return any(_fallen(old, new, sign) for end, sign in (("low", 1), ("high", -1))
               for old, new in zip(before[end], now.get(end, [None] * len(before[end])), strict=True))  # fmt: skip


def _fallen(old: str | None, new: str | None, sign: int) -> bool:
    if old is None:
        return False
    if new is None:
        return True
    before, now = sign * Fraction(old), sign * Fraction(new)
    return now < before - SLACK * max(1, abs(before))


def run(board: Board, quick: bool) -> None:
    record = json.loads(RECORD.read_text())
    for name in QUICK if quick else record:
        now = verdict(name)
        weaker = _weaker(record[name], now)
        figure = now["verdict"] + (", bounds weaker" if weaker else "")
        board.row(f"kept: {name}", record[name]["verdict"], figure, figure == record[name]["verdict"])


if __name__ == "__main__":
    RECORD.write_text(json.dumps({name: verdict(name) for name in CLAIMS}, indent=1) + "\n")
