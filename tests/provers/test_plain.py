"""Shipped models, written as plain modules in three styles and captured: the same theorems as of the known architecture."""

from functools import cache

import pytest
import torch
from safetensors.torch import load_file
from sympy import Max, Mod, sign
from torch import nn
from torch.nn import functional as F

from mechverify import Accuracy, capture, kernel, pair_mlp, prove, tokens, transformer
from tests.plain import Plain
from tests.rounds import few

FOLDER = "toy_models/weights"
STYLES = ("einsum", "fused", "loop")
MAX, SUM, ADD = (f"{FOLDER}/{name}_seed0.safetensors" for name in ("max_of_4", "running_sum", "add_mod_59"))
REACH = 5  # of the running sum's tokens


def largest(length: int, output, **options) -> Accuracy:
    x = tokens("x", length=length, vocab=64)
    return Accuracy(output, equals=Max(*x), over=x, **options)


def running_sum(length: int, output, **options) -> Accuracy:
    values = [*range(REACH + 1), *range(-REACH, 0)]
    x = tokens("x", length=length, vocab=2 * REACH + 1, values=values)
    return Accuracy(output, equals=sign(sum(x)) + 1, over=x, **options)


def plain(path: str, style: str, length: int):
    module = Plain(load_file(path), style, length).eval()
    return capture(module, torch.zeros(1, length, dtype=torch.long))["output"][-1]


@cache
def known_largest(strategy: str | None):
    return prove(largest(4, transformer(MAX).logits[-1]), strategy=strategy).theorem


@pytest.mark.parametrize("strategy", [None, "cubic", "lowrank-qk-maxdiff"])
@pytest.mark.parametrize("style", few(STYLES, 1))
def test_the_largest_of_four(style, strategy):
    found = prove(largest(4, plain(MAX, style, 4)), strategy=strategy)
    theorem = kernel.check(found.certificate)
    assert theorem.right == known_largest(strategy).right and "capture" in theorem.axioms
    assert {"fold", "compact"} & {*theorem.rules} and "enumerate" not in theorem.rules


@pytest.mark.parametrize("style", few(STYLES, 1))
def test_a_sum_through_neurons(style):
    found = prove(running_sum(6, plain(SUM, style, 6), at_least=1, margin="1/4"))
    known = prove(running_sum(6, transformer(SUM, act_fn="relu").logits[-1], at_least=1, margin="1/4"))
    assert found.verdict == known.verdict == "PROVED" and found.theorem.right == known.theorem.right
    assert found.theorem.rules == known.theorem.rules == {"fold": 1}


@pytest.mark.parametrize("style", STYLES)
def test_with_biases_everywhere_rules_agree(style):
    """Random weights, without neurons: the fold counts what all inputs say, and rule compact no more."""
    torch.manual_seed(STYLES.index(style))
    shapes = {k: v.shape for k, v in load_file(SUM).items() if "mlp" not in k} | {"unembed.b_U": (3,)}
    module = Plain({k: torch.randn(shape) / 3 for k, shape in shapes.items()}, style, 3).eval()
    output = capture(module, torch.zeros(1, 3, dtype=torch.long))["output"][-1]
    every, folded, compact = (prove(running_sum(3, output), strategy=s).theorem for s in ("brute", "listed", "cubic"))
    assert every.right.low == every.right.high and folded.right == every.right
    assert compact.right.low <= every.right.low and {*folded.rules} == {"fold"} and {*compact.rules} == {"compact"}


class Adds(nn.Module):
    """relu([W_x[a], W_y[b]] W) W_U, as its own weights are laid out, or every matrix on the right of a linear layer."""

    def __init__(self, weights: dict[str, torch.Tensor], style: str):
        super().__init__()
        self.style = style
        for name, tensor in weights.items():
            self.register_parameter(name, nn.Parameter(tensor, requires_grad=False))

    def forward(self, ids):
        x, y = (F.embedding(ids[:, i], table) for i, table in enumerate((self.W_x, self.W_y)))
        if self.style == "loop":
            d = x.shape[-1]
            return (x @ self.W[:d] + y @ self.W[d:]).relu() @ self.W_U
        both = torch.cat([x, y], -1)
        if self.style == "fused":
            return F.linear(F.relu(F.linear(both, self.W.t())), self.W_U.t())
        return torch.einsum("bm,mo->bo", torch.einsum("bd,dm->bm", both, self.W).clamp(min=0), self.W_U)


@pytest.mark.parametrize("style", STYLES)
def test_modular_addition(style):
    x = tokens("x", length=2, vocab=59)
    module = Adds(load_file(ADD), style).eval()
    output = capture(module, torch.zeros(1, 2, dtype=torch.long), vocab=59)["output"]
    found, known = (prove(Accuracy(site, equals=Mod(x[0] + x[1], 59), over=x, at_least=1)).theorem
                    for site in (output, pair_mlp(ADD).logits))  # fmt: skip
    assert found.verdict == known.verdict == "PROVED" and found.right == known.right
