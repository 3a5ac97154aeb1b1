"""Known ranges: an operation's printed range is never wider than what its values can be; overflow bounds one side."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import nn

from benchmarks import attack
from benchmarks.attack import Attack
from benchmarks.board import Board
from benchmarks.campaigns.examples import Example
from mechverify import Bounds, box, capture, prove


class Of(nn.Module):
    def __init__(self, f: Callable):
        super().__init__()
        self.f = f

    def forward(self, x):
        return self.f(x)


def ends(f: Callable, low: list[float], high: list[float], method: str = "linear") -> tuple[float, float]:
    """The proved range of f over a box, of all entries together."""
    low, high = (torch.tensor(end, dtype=torch.float64) for end in (low, high))
    model = capture(Of(f).eval(), (low / 2 + high / 2)[None].float())
    found = prove(Bounds(model["output"], over=box(low, high)), method=method).theorem.range
    return float(found.low.min()), float(found.high.max())


def _said(f: Callable, low: list[float], high: list[float]) -> Callable[[], str]:
    def run() -> str:
        said = {"{:.4g} to {:.4g}".format(*ends(f, low, high, method)) for method in ("interval", "linear")}
        return " or ".join(sorted(said))

    return run


def _example(what: str, before: str, after: str, f: Callable, low: list[float], high: list[float]) -> Example:
    return Example(what, before, after, _said(f, low, high))


EXAMPLES = [
    _example("exp on [700, 720]", "rejected", "1.014e+304 to inf", torch.exp, [700.0], [720.0]),
    _example("softmax(1e30 x)", "rejected", "0 to 1", lambda x: torch.softmax(1e30 * x, -1), [-1.0] * 2, [1.0] * 2),
    _example("layer norm of 4", "-2 to 2", "-1.732 to 1.732", lambda x: F.layer_norm(x, (4,)), [-10.0] * 4, [10.0] * 4),
    _example("an entry of a layer norm", "-4743 to 4743", "-1.732 to 1.732",
             lambda x: F.layer_norm(x, (4,))[:, :1], [-10.0] * 4, [10.0] * 4),
    _example("cosine similarity", "-inf to inf", "-1 to 1",
             lambda x: F.cosine_similarity(x[:, :3], x[:, 3:], dim=-1), [-1.0] * 6, [1.0] * 6),
    _example("F.normalize", "-inf to inf", "-1 to 1", lambda x: F.normalize(x, dim=-1), [-1.0] * 3, [1.0] * 3),
    _example("hardswish", "-10 to 10", "-0.375 to 10", F.hardswish, [-10.0], [10.0]),
    _example("SiLU", "-7.398 to 10", "-0.2785 to 10", F.silu, [-100.0], [10.0]),
    _example("sin", "-2.796 to 2.939", "-1 to 1", torch.sin, [-10.0], [10.0]),
    _example("sqrt at zero", "rejected", "0 to 1", torch.sqrt, [0.0], [1.0]),
    _example("norm at zero", "-inf to inf", "0 to 1.414", lambda x: x.norm(dim=-1), [-1.0] * 2, [1.0] * 2),
    _example("std at zero", "rejected", "0 to 1.414", lambda x: x.std(dim=-1), [-1.0] * 2, [1.0] * 2),
    _example("x / (|x| + 1e-12)", "-1.008e+12 to 1.008e+12", "-1 to 1", lambda x: x / (x.abs() + 1e-12), [-1.0], [1.0]),
    _example("softmax(3 x).sum()", "0.004945 to 1.995", "1 to 1",
             lambda x: torch.softmax(3 * x, -1).sum(-1), [-1.0] * 2, [1.0] * 2),
]  # fmt: skip


def run(board: Board, quick: bool) -> None:
    """Graphs of these operations at hostile scales, judged by python-flint."""
    found = attack.hostile(97 if quick else 3)
    board.row("known ranges at the ends of float64: values outside", "0", str(found), found.nothing)
    found = Attack(("interval", "linear"))
    for name in ("layer norm", "softmax of the first entries", "sqrt", "even power", "mul"):
        found.operation(name, 0, found.networks + (1 if quick else 16), 2_000 if quick else 200_000)
    board.row("random graphs of these operations: values outside", "0", str(found), found.nothing)
