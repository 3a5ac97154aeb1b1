"""Random modules: the module's own values lie inside what is proved of them."""

from collections import Counter

from benchmarks.board import Board
from tests.graph.generator import random_module
from tests.graph.inside import trial

EXAMPLES: list = []


def run(board: Board, quick: bool) -> None:
    count = 60 if quick else 2000
    refused: Counter[str] = Counter()
    outside = []
    for seed in range(count):
        made = random_module(seed)
        found = trial(made.module, made.inputs, made.vocab, seed, 10**4)
        if found.refused:
            refused[found.refused.splitlines()[-1].strip()[:100]] += 1
        elif found.outside > 0:
            outside.append(seed)
    board.row(f"{count} random modules x 10^4 samples: modules with values outside", "0", str(outside), not outside)
    board.row("refused", "stated, with reasons", f"{sum(refused.values())} {dict(refused)}", True)
