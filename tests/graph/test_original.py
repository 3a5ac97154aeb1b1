"""The graph is the user's module: what was captured falsely once is captured right, or refused."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.campaigns.modules import Padded
from mechverify.graph.capture import capture
from mechverify.graph.source import CaptureError
from tests.graph.generator import constructs, random_module
from tests.graph.inside import trial
from tests.graph.modules import CAUSAL, IDS, Fn, M, V, w


def into_integers(m: nn.Module, x: Tensor) -> Tensor:
    z = torch.zeros(1, 6, dtype=torch.int64)
    z[:, 1:] = x[:, 1:]
    return z.float()


REFUSED = {
    "long": (Fn(lambda m, x: (x * 3).long().float()), "rounds real numbers"),
    "int": (Fn(lambda m, x: (x * 3).int() + x), "rounds real numbers"),
    "bool": (Fn(lambda m, x: x.bool() * x), "rounds real numbers"),
    "type": (Fn(lambda m, x: x.type(torch.LongTensor).float()), "rounds real numbers"),
    "to": (Fn(lambda m, x: x.to(torch.int64).float()), "rounds real numbers"),
    "slices": (Fn(into_integers), "rounds real numbers"),
    "sum": (Fn(lambda m, x: x.sum(-1, dtype=torch.int64).float()), "rounds real numbers"),
    "half": (Fn(lambda m, x: (1e6 * x).half().float()), "rounds to float16"),
    "bfloat16": (Fn(lambda m, x: x.bfloat16().float()), "rounds to bfloat16"),
    "softplus": (nn.Softplus(threshold=5), "threshold"),
    "sparse": (Fn(lambda m, x: torch.sparse.mm(m.mask, x.T).T, mask=torch.eye(6).to_sparse()), "to_dense"),
    "name": (nn.Sequential(), "rename it"),
}
REFUSED["name"][0].add_module("a\nb", nn.ReLU())


@pytest.mark.parametrize("module, message", REFUSED.values(), ids=REFUSED.keys())
def test_refused(module, message):
    with pytest.raises(CaptureError, match=message):
        capture(module.eval(), V)


class Parent(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        h = self.a(x)
        h -= 5
        return h


def test_sites_are_what_was_returned_when_it_was_returned():
    captured = capture(Parent().eval(), V)
    assert captured.graph.nodes[captured.sites["a"]].op == "relu"
    module = nn.Sequential(nn.Linear(6, 6), nn.ReLU(inplace=True), nn.Linear(6, 2)).eval()
    sites = capture(module, V).sites
    assert sites["0"] != sites["1"]


def test_names_of_the_module_itself_are_kept():
    module = nn.Sequential()
    module.add_module("output", nn.Linear(6, 6))
    module.add_module("tokens", nn.ReLU())
    assert {"output", "self.output", "self.tokens"} <= set(capture(module.eval(), V).sites)


def test_the_module_sees_its_own_types():
    assert capture(Fn(lambda m, x: x * 2 if x.dtype == torch.float64 else x).eval(), V).compared.difference == 0
    assert capture(Fn(lambda m, x: x * 0 + torch.finfo(x.dtype).eps).eval(), V).compared.difference == 0


def test_integers_wrap_as_in_torch():
    module = Fn(lambda m, t: F.embedding((t + 1).long(), m.a), a=w(300, 2)).eval()
    table = capture(module, IDS.to(torch.uint8), vocab=256)
    assert table.difference == 0
    wraps = Fn(lambda m, t: (t[:, :1] - t[:, 1:]).float()).eval()
    with pytest.raises(CaptureError, match="may wrap"):
        capture(wraps, IDS.to(torch.uint8), vocab=200)


def test_masked_scores_are_named_so():
    module = Fn(lambda m, x: (x @ x.mT).masked_fill(~CAUSAL[:4, :4], -math.inf).softmax(-1)).eval()
    sites = capture(module, M).sites
    assert "unmasked_scores" in sites and "scores" not in sites


def test_what_float32_computes_badly_is_claimable():
    compared = capture(Fn(lambda m, x: (x + 2.0**25).relu() - 2.0**25).eval(), V).compared
    assert compared.difference > 0.1 and compared.tolerance > compared.difference


def test_random_modules():
    assert len(constructs()) >= 100
    for seed in range(8):
        made = random_module(seed)
        assert trial(made.module, made.inputs, made.vocab, seed, 1000).outside <= 0


def test_the_module_is_compared_as_its_user_calls_it():
    """Without gradients torch's fast path writes zeros at masked positions; gradients, too, may make a difference."""
    with pytest.raises(CaptureError, match=r"without gradients.*fast path"):
        capture(Padded().eval(), M)
    capture(nn.TransformerEncoderLayer(6, 2, 8, batch_first=True).eval(), M)
    with pytest.raises(CaptureError, match="with gradients"):
        capture(Fn(lambda m, x: x * 2 if torch.is_grad_enabled() else x * 3).eval(), V)
    assert torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        capture(Padded().eval(), M)
    finally:
        torch.backends.mha.set_fastpath_enabled(True)


def test_constants_that_forward_computes_are_those_of_float64_and_buffers_are_themselves():
    from mechverify import Bounds, box, prove
    from mechverify import capture as model_of

    def value(function, **tensors) -> float:
        model = model_of(Fn(function, **tensors).eval(), torch.ones(1, 4))
        return prove(Bounds(model["output"][3], over=box([1.0] * 4, [1.0] * 4))).theorem.range.low[0]

    table = torch.sin(torch.arange(4) / 3)
    computed = [value(lambda m, x: x * torch.sin(torch.arange(4) / 3)),
                value(lambda m, x: x * torch.sin(torch.arange(4).float() / 3))]  # fmt: skip
    assert all(abs(v - math.sin(1.0)) < 1e-15 for v in computed)
    assert abs(value(lambda m, x: x * m.mask, mask=table) - float(table[3])) < 1e-15
    assert abs(float(table[3]) - math.sin(1.0)) > 1e-9
