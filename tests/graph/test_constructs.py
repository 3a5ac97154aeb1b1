"""What people write is captured, proved, checked and sampled, or refused with what to do."""

import re

import numpy as np
import pytest
import torch
from torch import nn

from mechverify.graph.capture import capture
from mechverify.graph.source import CaptureError
from tests.graph.constructs import CAPTURED, REFUSED
from tests.graph.modules import V
from tests.graph.sampling import sampled


@pytest.mark.parametrize("case", CAPTURED.values(), ids=CAPTURED.keys())
def test_constructs_are_proved_and_checked_and_hold_the_modules_values(case):
    found = sampled(case.module, *case.inputs, radius=case.radius, count=40, vocab=case.vocab)
    assert np.isfinite(found.proved.low).all() and np.isfinite(found.proved.high).all()
    assert found.outside() <= 1e-6
    assert found.times() <= 30  # a range that says something


@pytest.mark.parametrize("case, says", REFUSED.values(), ids=REFUSED.keys())
def test_refusals_say_what_to_do(case, says, capfd):
    with pytest.raises(CaptureError) as error:
        capture(case.module, *case.inputs, vocab=case.vocab)
    message = str(error.value)
    assert says in message
    assert len(message.splitlines()) <= 40 and not re.search(r"KeyError|IndexError|RecursionError|report", message)
    assert capfd.readouterr() == ("", "")  # nothing of torch's own beside it


@pytest.mark.filterwarnings("ignore:.*weight_norm:FutureWarning")
def test_old_weight_norm():
    layer = nn.utils.weight_norm(nn.Linear(6, 3))
    assert sampled(layer.eval(), V, count=20).outside() <= 1e-6
    assert {"weight_g", "weight_v"} <= set(capture(layer, V).weights)


def test_a_long_list_of_problems_is_cut():
    class Many(nn.Module):
        def __init__(self):
            super().__init__()
            self.parts = nn.ModuleList(nn.Threshold(0.1, 20.0) for _ in range(40))

        def forward(self, x):
            return sum(part(x) for part in self.parts)

    with pytest.raises(CaptureError, match="and 25 more") as error:
        capture(Many().eval(), V)
    assert len(str(error.value).splitlines()) <= 40


def test_masked_rows_are_what_torch_says_they_are():
    for name in ("masked rows, booleans", "masked rows, infinities"):
        module, inputs, *_ = CAPTURED[name]
        assert torch.equal(module(*inputs)[0, 1], torch.zeros(6))
        found = sampled(module, *inputs, count=5)
        assert np.abs(found.proved.low.reshape(4, 6)[1]).max() < 1e-300


def test_log_probabilities_stay_at_most_zero():
    found = sampled(CAPTURED["log_softmax, gap 800"].module, V, radius=10.0, count=50)
    assert found.proved.high.max() <= 1e-9 and found.proved.low.min() > -900
