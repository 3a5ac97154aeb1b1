"""Captured modules compute what torch computes; what can't be captured is explained."""

import copy
import math
import re
import threading

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mechverify.graph.capture import capture
from mechverify.graph.run import TorchRunner
from mechverify.graph.source import CaptureError
from mechverify.kernel.core.operations import LISTED
from tests.graph.modules import IDS, INFINITE, MODULES, Block, Fn, M, V, w


@pytest.mark.parametrize("module, inputs", MODULES.values(), ids=MODULES.keys())
def test_every_operation(module, inputs):
    captured = capture(module.eval(), *inputs)
    assert captured.difference <= 1e-12
    assert captured.replayed == 16
    assert {n.op for n in captured.graph.nodes} <= {*LISTED, "select"}
    assert any(name.split(".")[0] == "output" for name in captured.sites)


def ops(module: nn.Module, *inputs: Tensor) -> list[str]:
    return [n.op for n in capture(module.eval(), *inputs).graph.nodes]


def attrs(module: nn.Module, op: str, *inputs: Tensor) -> list:
    return [n.attr for n in capture(module.eval(), *inputs).graph.nodes if n.op == op]


def test_masks_become_softmax_masks():
    def masked(mask: Tensor) -> nn.Module:
        return Fn(lambda m, x: (x @ x.mT).masked_fill(~m.mask, -math.inf).softmax(-1), mask=mask)

    ones = torch.ones(4, 4)
    assert attrs(masked(ones.tril() > 0), "softmax", M) == ["causal"]
    assert attrs(masked(ones > 0), "softmax", M) == [4]
    assert attrs(masked(torch.arange(4) < 3), "softmax", M) == [3]
    assert attrs(masked(torch.arange(4) != 1), "softmax", M) == [("1011",)]
    assert attrs(masked(ones.triu() > 0), "softmax", M) == [("1111", "0111", "0011", "0001")]
    assert attrs(Fn(lambda m, x: (x @ x.mT + m.mask).softmax(-1), mask=INFINITE), "softmax", M) == ["causal"]


def test_scales_are_exact():
    assert attrs(Fn(lambda m, x: x / 12**0.5), "over_root", V) == [12]
    assert attrs(Fn(lambda m, x: x * 12**-0.5), "over_root", V) == [12]
    assert attrs(Fn(lambda m, x: x / 3), "over_root", V) == [9]
    assert attrs(Fn(lambda m, x: x.mean(-1)), "over_root", V) == [36]
    assert attrs(Fn(lambda m, x: x / 8), "constant", V) == [((), (0.125,))]
    assert attrs(Fn(lambda m, x: x * 0.3), "constant", V) == [((), (0.3,))]
    assert attrs(Fn(lambda m, x: F.scaled_dot_product_attention(x, x, x)), "over_root", M) == [6]
    scale = torch.tensor([0.1])  # a weight is what it is
    assert attrs(Fn(lambda m, x: x * m.a, a=scale), "over_root", V) == []


def test_weights_are_not_rounded_together():
    captured = capture(Fn(lambda m, x: x @ (m.a @ m.b), a=w(6, 3), b=w(3, 2)).eval(), V)
    assert set(captured.weights) == {"a", "b"}
    assert np.array_equal(captured.weights["a"], w(6, 3).double().numpy())


def test_views_are_merged_and_batch_axes_are_gone():
    captured = capture(Fn(lambda m, x: (x.transpose(1, 2).reshape(1, 2, 3, 4)[:, 1].mT * 2).flip(1)).eval(), M)
    assert [n.op for n in captured.graph.nodes].count("view") <= 2
    assert captured.graph.nodes[captured.sites["output"]].shape == (4, 3)
    assert "view" not in ops(nn.Sequential(nn.Linear(6, 4), nn.GELU(), nn.Linear(4, 2)), V)


def test_sites():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.Sequential(nn.Linear(6, 6), nn.Tanh())
            self.same = nn.Identity()
            self.mha = nn.MultiheadAttention(6, 2, batch_first=True)

        def forward(self, x: Tensor) -> Tensor:
            x = self.same(self.inner(self.inner(x)))
            return x + self.mha(x, x, x)[0]

    captured = capture(Twice().eval(), M)
    assert {"input.0", "inner", "inner.0", "inner.1", "inner@1", "inner.0@1", "inner.1@1", "same", "mha", "mha.1",
            "mha.scores", "mha.pattern", "output"} == set(captured.sites)  # fmt: skip
    shape = {name: captured.graph.nodes[node].shape for name, node in captured.sites.items()}
    assert shape["mha.pattern"] == (2, 4, 4) and shape["mha.1"] == (4, 4) and shape["input.0"] == (4, 6)
    assert captured.sites["inner@1"] == captured.sites["same"] != captured.sites["inner"]
    assert captured.inputs == ((4, 6),) and captured.vocab == captured.tokens_length == 0


def test_tokens_and_vocabulary():
    module = Fn(lambda m, t: F.embedding(t, m.a) @ F.embedding(t, m.b).mT, a=w(9, 3), b=w(7, 3)).eval()
    captured = capture(module, IDS)
    assert captured.vocab == 7 and captured.tokens_length == 5 and captured.graph.values == tuple(range(7))
    assert capture(module, IDS, vocab=6).vocab == 6
    with pytest.raises(CaptureError, match="fewer rows than the vocabulary"):
        capture(module, IDS, vocab=8)
    numbers = Fn(lambda m, t: t.float().sum(1)).eval()
    with pytest.raises(CaptureError, match="pass vocab="):
        capture(numbers, IDS)
    assert capture(numbers, IDS, vocab=9).difference == 0


def test_a_graph_runs_on_a_batch_in_float32():
    module = MODULES["mixed"][0].eval()
    captured = capture(module, *MODULES["mixed"][1])
    tokens, reals = torch.randint(7, (11, 5)), torch.randn(11, 6)
    run = TorchRunner(captured.graph, captured.weights)
    got = run(captured.sites["output"], tokens.numpy(), [reals])
    assert got.dtype == torch.float32
    torch.testing.assert_close(got, module(tokens, reals))


def test_keyword_arguments_are_inputs_or_constants():
    def function(m: nn.Module, x: Tensor, scale: float = 1.0, shift: Tensor | None = None) -> Tensor:
        return x * scale + shift

    captured = capture(Fn(function).eval(), V, shift=2 * V, scale=4.0)
    assert captured.inputs == ((6,), (6,))
    run = TorchRunner(captured.graph, captured.weights, torch.float64)
    x, y = torch.randn(2, 3, 6, dtype=torch.float64)
    torch.testing.assert_close(run(captured.sites["output"], inputs=[x, y]), x * 4 + y)


def test_inputs_without_a_batch_axis():
    for example in (V[0], M[0], torch.tensor(0.5), torch.zeros(2, 6)):
        captured = capture(Fn(lambda m, x: 2 * x).eval(), example)
        assert captured.inputs == (tuple(example.shape),)
        run = TorchRunner(captured.graph, captured.weights, torch.float64)
        assert torch.equal(run(captured.sites["output"], inputs=[example[None]])[0], 2 * example.double())
    assert capture(nn.Embedding(7, 2).eval(), IDS[0]).tokens_length == 5


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_weights_of_other_floats_are_exact(dtype):
    torch.manual_seed(0)  # of some weights, bfloat16 errs by more than the comparison allows
    module = nn.Sequential(nn.Linear(6, 3), nn.RMSNorm(3)).to(dtype).eval()
    captured = capture(module, V.to(dtype))
    assert captured.weights["0.weight"].dtype == np.float64
    assert np.array_equal(captured.weights["0.weight"], module[0].weight.double().detach().numpy())
    assert ((), (torch.finfo(dtype).eps,)) in [n.attr for n in captured.graph.nodes]


def test_the_module_is_left_alone():
    module = MODULES["layer encoder_layer"][0].eval()
    before = copy.deepcopy(module.state_dict())
    capture(module, M)
    assert all(torch.equal(v, before[k]) and v.dtype == before[k].dtype for k, v in module.state_dict().items())
    assert all(p.requires_grad for p in module.parameters()) and not module.self_attn._forward_hooks
    assert torch.get_default_dtype() == torch.float32 and torch.is_grad_enabled()
    assert torch.backends.mha.get_fastpath_enabled()


def test_a_million_parameters():
    module = nn.Sequential(nn.Linear(784, 1000), nn.ReLU(), nn.LayerNorm(1000), nn.Linear(1000, 300)).eval()
    captured = capture(module, torch.randn(1, 784))
    assert sum(v.size for v in captured.weights.values()) > 10**6


# --- errors


def test_all_unsupported_operations_at_once():
    class Bad(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.argmax(-1, keepdim=True).double() + x.argmin(-1, keepdim=True).double()

    module = Fn(lambda m, x: (m.bad(x) * torch.sign(x)).relu())
    module.bad = Bad()
    with pytest.raises(CaptureError) as error:
        capture(module.eval(), V)
    text = str(error.value)
    assert text.startswith("3 operations can't be captured")
    for part in ("bad: aten.argmax", "bad: aten.argmin", "the module: aten.sign", "amax", "test_capture.py:"):
        assert part in text


def unused_maximum(m: nn.Module, x: Tensor) -> Tensor:
    values, _ = x.max(-1)
    return values


def branch(m: nn.Module, x: Tensor) -> Tensor:
    return x if x.sum() > 0 else -x


ERRORS = {
    "decides by the values of its input at test_capture.py": (Fn(branch), (V,)),
    "item() reads a value": (Fn(lambda m, x: x * x[0, 0].item()), (V,)),
    "training mode": (Fn(lambda m, x: x).train(), (V,)),
    "several integer inputs": (Fn(lambda m, x, y: x), (IDS, IDS)),
    "make it a buffer": (Fn(lambda m, x: x), (torch.ones(1, 3) > 0,)),
    "no example tensor": (Fn(lambda m: torch.zeros(1)), ()),
    "takes a torch.nn.Module": (torch.relu, (V,)),
    "random numbers": (Fn(lambda m, x: x + torch.rand(6)), (V,)),
    "dropout in training": (Fn(lambda m, x: F.dropout(x, 0.5)), (V,)),
    "amax": (Fn(lambda m, x: x.max(-1)[1].double()), (V,)),
    "minus infinity where the input decides": (Fn(lambda m, x: x.masked_fill(x < 0, -math.inf).softmax(-1)), (V,)),
    "only truth values": (Fn(lambda m, x: ((x > 0).long() & 3).double()), (V,)),
    "minus infinity may only": (Fn(lambda m, x: x + INFINITE[0, 1]), (V,)),
    "masks all entries of a row": (Fn(lambda m, x: (x + INFINITE[0, 1]).softmax(-1)), (V,)),
    "a holds infinity": (Fn(lambda m, x: x * m.a, a=torch.tensor([math.nan] * 6)), (V,)),
    "on meta": (nn.Linear(6, 2, device="meta"), (V,)),
    "complex numbers": (Fn(lambda m, x: torch.view_as_complex(x.view(1, 3, 2)).real), (V,)),
    "rms_norm without eps": (Fn(lambda m, x: F.rms_norm(x, (6,))), (V,)),
    "embed first": (Fn(lambda m, t: F.embedding(t[:, [1, 0, 3]], m.a), a=w(7, 2)), (IDS,)),
    "isn't a function": (Fn(lambda m, x: x * next(m.count)), (V,)),
    "can't be copied": (Fn(lambda m, x: x), (V,)),
}
ERRORS["isn't a function"][0].count = iter(range(1, 100))
ERRORS["can't be copied"][0].lock = threading.Lock()


@pytest.mark.parametrize("message, case", ERRORS.items(), ids=ERRORS.keys())
def test_errors_are_clear(message, case):
    module, inputs = case
    if isinstance(module, nn.Module) and message != "training mode":
        module = module.eval()
    with pytest.raises(CaptureError, match=re.escape(message)):
        capture(module, *inputs)


def test_unused_indices_of_a_maximum():
    assert capture(Fn(unused_maximum).eval(), M).difference <= 1e-12


def test_nested_paths():
    module = Block(blocks=nn.ModuleDict({"0": nn.Sequential(nn.Linear(6, 3))})["0"], softmax=nn.Softmax(-1)).eval()
    assert {"blocks", "blocks.0", "softmax", "softmax.pattern", "softmax.scores"} <= set(capture(module, V).sites)


class Named(nn.Module):
    """A parameter that is called as constants are, and a constant that no random input tells from it."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.constant = nn.ParameterList([nn.Parameter(torch.zeros(1)), nn.Parameter(torch.randn(6, 6))])

    def forward(self, x):
        far = torch.relu(x - 50) @ torch.tensor([[i * j % 7.0 for i in range(6)] for j in range(6)])
        return x @ self.constant[1] + far + torch.relu(x) @ self.constant[1]


def test_constants_have_names_of_their_own():
    module = Named().eval()
    captured = capture(module, V)
    x = torch.full((1, 6), 60.0)
    run = TorchRunner(captured.graph, captured.weights, torch.float64)
    value = run.many([captured.sites["output"]], None, [x.double()])[captured.sites["output"]]
    with torch.no_grad():
        assert torch.allclose(torch.as_tensor(value), module(x).double(), rtol=1e-5)
    assert len(captured.weights) == 2
    assert "constant.k" in captured.programs.missing
