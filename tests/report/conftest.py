"""One certificate of each kind, made once."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from mechverify import Share, ball, capture, prove
from mechverify.report.checked import Checked
from mechverify.report.html import write_html
from tests.report import made


@pytest.fixture(scope="session")
def kinds() -> dict[str, Checked]:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(2, 6), nn.ReLU(), nn.Linear(6, 1)).double().eval()
    model = capture(net, torch.zeros(1, 2, dtype=torch.float64))
    share = prove(Share(model["output"][0] > 0.1, over=ball(np.zeros(2), 3), within="1/50"))
    files = {
        "fold": made.accuracy(), "listed": made.accuracy(wrong=False, proof={"rule": "enumerate"}),
        "bounds": made.bounds(), "refuted": made.refuted(), "share": share.certificate,
    }  # fmt: skip
    return {name: made.checked(data, f"{name}.cert") for name, data in files.items()}


@pytest.fixture(scope="session")
def whole(kinds, tmp_path_factory) -> Path:
    """The page of all kinds, one of them twice."""
    twice = kinds["fold"]._replace(path=Path("again.cert"))
    return write_html(tmp_path_factory.mktemp("page"), [*kinds.values(), twice])
