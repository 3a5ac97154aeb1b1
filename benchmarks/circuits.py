"""The smallest circuits, proved, beside those that sampling finds.

    python benchmarks/circuits.py [--quick] [--only WORD ...]     # --quick: the two smallest models

Sampling keeps what agrees with the model on 1,000 inputs, and leaves out part after part in the same order. On which
share of the domain its circuit agrees is then proved. Exit code 1 if a target is missed: a circuit is proved and found
in time, with nothing undecided of those that are smaller; some of sampling's circuits are refuted; and differences of
nearly equal networks (differences.py) are proved to be as narrow as is asked.
"""

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).parent.parent))

import numpy as np
import torch
from sympy import Eq, Ne

from benchmarks import differences
from benchmarks.board import Board
from mechverify import Circuits, Part, count, distinct, kernel, load, parts, prove, smallest, tokens
from mechverify.graph import adapters
from mechverify.provers.base import Budget
from mechverify.provers.circuits import Search

WEIGHTS = Path(__file__).parent.parent / "toy_models" / "weights"
SAMPLES, SECONDS, REFUTED = 1_000, 600.0, 3


class Case(NamedTuple):
    what: str
    circuits: Callable[[], Circuits]
    minimal: str
    quick: bool = False


def running_sum(length: int, patch: float | str) -> Circuits:
    model = load(WEIGHTS / "running_sum_seed0.safetensors", length=length, act_fn="relu", normalization=None)
    x = tokens("x", length=length, vocab=model.d_vocab)
    return Circuits(model, parts("blocks.0.mlp.hidden", 8), over=x, patch=patch, row=-1)


def induction() -> Circuits:
    """What each layer's head mixes at each position."""
    model = load(WEIGHTS / "induction_of_6_seed0.safetensors", normalization=None)
    *rest, last = x = tokens("x", length=6, vocab=model.d_vocab)
    given = [distinct(*rest), Eq(count(last, *rest[:-1]), 1), Ne(rest[-1], last)]
    heads = {f"layer {layer} at {i}": Part(f"blocks.{layer}.attn.z", i) for layer in (0, 1) for i in range(6)}
    return Circuits(model, heads, over=x, row=-1, given=given)


def addition() -> Circuits:
    model = adapters.load(WEIGHTS / "add_mod_59_seed0.safetensors").module
    return Circuits(model, parts("hidden", 64, dims=1), over=tokens("x", length=2, vocab=59))


CASES = [
    Case("running sum of 3, neurons set to zero", lambda: running_sum(3, 0), "cardinal", True),
    Case("running sum of 3, neurons set to their mean", lambda: running_sum(3, "mean"), "cardinal", True),
    Case("running sum of 5, neurons set to zero", lambda: running_sum(5, 0), "cardinal"),
    Case("running sum of 5, neurons set to their mean", lambda: running_sum(5, "mean"), "cardinal"),
    Case("running sum of 2, neurons of any other input", lambda: running_sum(2, "resample"), "cardinal", True),
    Case("induction of 6, heads at positions", induction, "cardinal"),
    Case("addition mod 59, 64 neurons set to zero", addition, "local"),
]


def sampled(search: Search) -> frozenset[str]:
    """What is left when parts go as long as 1,000 random inputs see no difference."""
    inputs = search.pool[np.random.default_rng(1).integers(len(search.pool), size=SAMPLES)]
    kept = frozenset(search.names)
    for name in search.by_effect():
        without = kept - {name}
        if search.torch.margins(inputs, search.masks([without])).min() > 0:
            kept = without
    return kept


def compared(board: Board, case: Case) -> bool:
    """Whether sampling's circuit is refuted."""
    circuits, began = case.circuits(), time.perf_counter()
    search = Search(circuits, "argmax", None, Budget())
    guess, seconds = sampled(search), time.perf_counter() - began
    outcome = prove(circuits.agree(guess, at_least=None))
    low, high = outcome.theorem.right
    total = outcome.theorem.claim.total
    share = f"they agree on {low:,} to {high:,} of {total:,}"
    board.row(
        f"{case.what}: sampling keeps", "for information", f"{len(guess)} parts in {seconds:.1f} s; {share}", True
    )
    found = smallest(circuits, minimal=case.minimal, time_limit=SECONDS)
    assert kernel.check(found.proof).verdict == "PROVED"
    done = not found.open and found.seconds < SECONDS
    board.row(f"{case.what}: {case.minimal}-minimal, proved", f"nothing undecided, under {SECONDS:.0f} s",
              f"{len(found.kept)} of {len(circuits.names)} parts, {len(found.refuted):,} smaller ones refuted, "
              f"{found.seconds:.1f} s", done)  # fmt: skip
    return high < total


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="the smallest models, and nothing kept")
    parser.add_argument("--only", nargs="+", metavar="WORD", help="cases that hold one of these words")
    options = parser.parse_args()
    board, refuted = Board("circuits"), []
    for case in CASES:
        if (case.quick or not options.quick) and (not options.only or any(w in case.what for w in options.only)):
            refuted.append(compared(board, case))
    differences.rows(board, options.only, options.quick)
    if not options.quick and not options.only:
        board.row("circuits of sampling that are refuted", f"at least {REFUTED}", sum(refuted), sum(refuted) >= REFUTED)
    return board.finish("circuits", options.quick or bool(options.only))


if __name__ == "__main__":
    torch.set_num_threads(1)
    raise SystemExit(main())
