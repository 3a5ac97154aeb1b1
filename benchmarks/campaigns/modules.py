"""Random modules: the module's own values lie inside what is proved of them."""

from collections import Counter
from collections.abc import Callable

import torch
from torch import nn

from benchmarks.board import Board
from benchmarks.campaigns.examples import Example
from mechverify.graph.capture import capture
from mechverify.graph.source import CaptureError
from tests.graph.generator import random_module
from tests.graph.inside import trial
from tests.graph.modules import Fn, V


def _captured(make: Callable[[], nn.Module]) -> Callable[[], str]:
    def run() -> str:
        try:
            capture(make().eval(), V)
        except CaptureError:
            return "refused"
        return "captured"

    return run


EXAMPLES = [
    Example(".half().float()", "captured", "refused", _captured(lambda: Fn(lambda m, x: (1e6 * x).half().float()))),
    Example("bfloat16 inside", "captured", "refused", _captured(lambda: Fn(lambda m, x: x.bfloat16().float()))),
    Example("Softplus(threshold=5)", "captured", "refused", _captured(lambda: nn.Softplus(threshold=5))),
    Example(".long()", "refused", "refused", _captured(lambda: Fn(lambda m, x: x.long().float()))),
    Example("x.dtype == float64", "captured, doubled", "captured",
            _captured(lambda: Fn(lambda m, x: x * 2 if x.dtype == torch.float64 else x))),
]  # fmt: skip


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
