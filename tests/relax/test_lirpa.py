"""The optional peer: the same numbers as when it was measured, errors in words, and nothing left behind."""

import logging
import sys
import warnings
from importlib import import_module
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from torch import nn

from benchmarks.reference_nets import REFERENCE, nets
from mechverify import Bounds, ball, capture, kernel, prove
from mechverify.claims.errors import ClaimError
from mechverify.relax import lirpa
from mechverify.relax.lirpa import METHODS, LirpaError, lirpa_bounds
from tests.rounds import few

peer = pytest.mark.skipif(not find_spec("auto_LiRPA"), reason=f"the peer isn't installed: {lirpa.INSTALL}")
NETS = {name: rest for name, *rest in nets()}


@peer
@pytest.mark.parametrize("name", few(NETS, 4))
@pytest.mark.parametrize("method", METHODS)
def test_reference(name, method):
    module, centre, radius = NETS[name]
    width = REFERENCE[name]["pypi"][METHODS.index(method)]
    if width is None:
        with pytest.raises(LirpaError, match=f"auto_LiRPA 0.3: {method} failed: "):
            lirpa_bounds(module, centre, radius, method)
        return
    low, high = lirpa_bounds(module, centre, radius, method)
    assert low.dtype == high.dtype == np.float64 and low.shape == high.shape == (1, low.shape[1])
    assert (high - low).mean() == pytest.approx(width, rel=1e-4)
    inside = centre + radius * torch.sign(torch.randn(1000, *centre.shape[1:], generator=torch.manual_seed(0)))
    values = module(inside).detach().double().numpy()
    assert (low - 1e-5 <= values).all() and (values <= high + 1e-5).all()  # it is float32, rounded as it comes


@peer
def test_what_it_cannot_do_is_named():
    module, centre, radius = NETS["gelu-mlp"]
    with pytest.raises(LirpaError, match="onnx::Erf"):
        lirpa_bounds(module, centre, radius, "CROWN")


@peer
def test_nan_is_an_error():
    module = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
    with pytest.raises(LirpaError, match="NaN"), torch.no_grad():
        module[0].weight.fill_(torch.nan)
        lirpa_bounds(module, torch.zeros(1, 2), 0.1, "IBP")


@peer
def test_nothing_is_left_behind(capfd):
    module, centre, radius = NETS["attention"]
    module = module.train()
    before = {name: t.clone() for name, t in module.state_dict().items()}

    def world():
        settings = lirpa._exporter().export_onnx_opset_version
        softmax = import_module("auto_LiRPA.operators.softmax").BoundSoftmaxImpl.forward
        members = import_module("auto_LiRPA").BoundedModule._named_members
        return (settings, softmax, members, hasattr(torch._C.Node, "__getitem__"), list(logging.root.handlers),
                list(warnings.filters), set(sys.modules) & {"appdirs", "numpy.lib.arraysetops"})  # fmt: skip

    lirpa_bounds(module, centre, radius, "IBP")
    start = world()
    lirpa_bounds(module, centre, radius, "CROWN")
    with pytest.raises(LirpaError):
        lirpa_bounds(*NETS["gelu-mlp"], "IBP")
    assert world() == start and not start[3] and not start[6]
    assert module.training and all(torch.equal(t, before[name]) for name, t in module.state_dict().items())
    assert capfd.readouterr() == ("", "")


def test_absence_is_told(monkeypatch):
    for name in [m for m in sys.modules if m.split(".")[0] == "auto_LiRPA"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "auto_LiRPA", None)
    with pytest.raises(LirpaError, match="install it: pip install --no-deps auto-LiRPA"):
        lirpa_bounds(nn.ReLU(), torch.zeros(1, 2), 0.1, "IBP")


def test_an_unknown_method_is_told():
    with pytest.raises(LirpaError, match="IBP, CROWN, CROWN-Optimized"):
        lirpa_bounds(nn.ReLU(), torch.zeros(1, 2), 0.1, "crown")


def relu_network():
    torch.manual_seed(2)
    layers = [nn.Linear(3, 12), nn.ReLU(), nn.Linear(12, 12), nn.ReLU(), nn.Linear(12, 4)]
    return nn.Sequential(*layers).eval(), torch.randn(1, 3)


@peer
def test_its_slopes_become_a_certificate():
    module, centre = relu_network()
    low, high = lirpa_bounds(module, centre, 0.5, "CROWN-Optimized")
    claim = Bounds(capture(module, centre)["output"], over=ball(centre[0], 0.5))
    slopes = lirpa.lirpa_slopes(module, centre - 0.5, centre + 0.5)
    outcome = prove(claim, method="linear", slopes=slopes)
    range_, plain = kernel.check(outcome.certificate).range, prove(claim, method="linear").theorem.range
    assert (range_.high - range_.low).mean() < 0.9 * (plain.high - plain.low).mean()
    assert (range_.high - range_.low).mean() < 1.1 * (high - low).mean()  # which keeps the best of all its steps


def test_any_slopes_are_sound_and_misfits_are_named():
    module, centre = relu_network()
    claim = Bounds(capture(module, centre)["output"], over=ball(centre[0], 0.5))
    values = module(centre + torch.rand(10_000, 3) - 0.5).detach().double().numpy()
    rng = np.random.default_rng(0)
    for scale in (0.5, 3, 1e3):
        slopes = {(None, 1): scale * rng.normal(size=(2, 4, 12)), (1, 0): scale * rng.normal(size=(2, 12, 12))}
        outcome = prove(claim, method="linear", slopes=slopes)
        assert (outcome.theorem.range.low <= values).all() and (values <= outcome.theorem.range.high).all()
    with pytest.raises(ClaimError, match=r"slopes of ReLU 1 for None: expected \(2, 4, 12\), got \(3,\)"):
        prove(claim, slopes={(None, 1): np.zeros(3)})
    with pytest.raises(ClaimError, match="slopes of ReLU 7 for None: the claim's value has 2 ReLUs"):
        prove(claim, slopes={(None, 7): np.zeros(3)})
