"""Random modules: the module's own values lie inside what is proved of them."""

from collections import Counter
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from benchmarks.board import Board
from benchmarks.campaigns.examples import Example
from mechverify.graph.capture import capture
from mechverify.graph.source import CaptureError
from tests.graph.generator import random_module
from tests.graph.inside import Trial, trial
from tests.graph.modules import MODULES, Fn, M, V

EPS = torch.finfo(torch.float32).eps
MIXED = {"one_hot", "outside"}  # hold tensors of a fixed type, so that there is no float64 copy to compare with


def _captured(make: Callable[[], nn.Module], example: Tensor = V) -> Callable[[], str]:
    def run() -> str:
        try:
            capture(make().eval(), example)
        except CaptureError:
            return "refused"
        return "captured"

    return run


class Padded(nn.Module):
    """A transformer of which the last two positions are masked."""

    def __init__(self):
        super().__init__()
        self.encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(6, 2, 8, batch_first=True), 2)
        self.register_buffer("padding", torch.arange(4)[None] >= 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.encoder(x, src_key_padding_mask=self.padding)


EXAMPLES = [
    Example(".half().float()", "captured", "refused", _captured(lambda: Fn(lambda m, x: (1e6 * x).half().float()))),
    Example("bfloat16 inside", "captured", "refused", _captured(lambda: Fn(lambda m, x: x.bfloat16().float()))),
    Example("Softplus(threshold=5)", "captured", "refused", _captured(lambda: nn.Softplus(threshold=5))),
    Example(".long()", "refused", "refused", _captured(lambda: Fn(lambda m, x: x.long().float()))),
    Example("x.dtype == float64", "captured, doubled", "captured",
            _captured(lambda: Fn(lambda m, x: x * 2 if x.dtype == torch.float64 else x))),
    Example("masked positions: zeros without gradients", "captured", "refused", _captured(Padded, M)),
]  # fmt: skip


def run(board: Board, quick: bool) -> None:
    """Random modules, and all of tests/graph/modules.py."""
    count, samples = (40, 10**4) if quick else (2000, 10**4)
    trials = ((f"seed {seed}", trial(made.module, made.inputs, made.vocab, seed, samples))
              for seed in range(count) for made in [random_module(seed)])  # fmt: skip
    _told(board, f"{count:,} random modules x 10^4 samples", trials)
    few, each = (12, 20) if quick else (len(MODULES), 10**4)
    known = list(MODULES.items())[:: len(MODULES) // few]
    trials = ((name, trial(module.eval(), inputs, None, i, each, batched=False))
              for i, (name, (module, inputs)) in enumerate(known) if name not in MIXED)  # fmt: skip
    _told(board, f"{len(known)} modules of tests/graph/modules.py x {each:,} samples", trials)


def _told(board: Board, what: str, trials: Iterable[tuple[str, Trial]]) -> None:
    """A float64 copy may lie outside by an eps of the module's own type, where forward names that type itself: what it
    computes from constants alone is in the graph as float64 computes it (docs/soundness.md), and in the copy is not."""
    refused, outside, short, counts = Counter(), [], [], Counter()
    for name, found in trials:
        counts[found.samples] += not found.refused
        if found.refused:
            refused[found.refused.splitlines()[-1].strip()[:100]] += 1
        elif found.outside > 0:
            (outside if found.outside > EPS else short).append(name)
    board.row(f"{what}: modules with values outside", "0", f"{len(outside)} {outside}", not outside)
    board.row("... of which the float64 copy differs by less than an eps of float32", "stated", str(short), True)
    taken = ", ".join(f"{n} x {samples:,}" for samples, n in sorted(counts.items(), reverse=True) if n)
    board.row("... modules x samples (fewer where one takes one input at a time)", "stated", taken, True)
    board.row("... refused", "stated, with reasons", f"{sum(refused.values())} {dict(refused)}", True)
