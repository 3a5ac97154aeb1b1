"""What is said to be true instead of a refuted claim is true, and near."""

import json
import re

import numpy as np
import pytest
import torch
from sympy import Min
from typer.testing import CliRunner

from benchmarks.mechanisms import copies
from mechverify import Accuracy, Bounds, Within, ball, capture, prove, tokens, transformer
from mechverify.cli import app
from mechverify.graph.adapters import load
from mechverify.provers.base import Budget
from mechverify.provers.nearest import nearest
from proofs import max_of_k, max_of_k_inside, superposition

WEIGHTS = "toy_models/weights/max_of_4_seed0.safetensors"


def instead(claim, semantics="real"):
    outcome = prove(claim, semantics=semantics)
    assert outcome.verdict == "REFUTED"
    return nearest(claim, semantics, outcome.evidence, Budget())


def test_the_best_constant_is_proved_and_one_that_is_a_little_better_is_not():
    (constant,) = instead(max_of_k_inside.claim(WEIGHTS, at_least="0"))
    value = float(constant.removeprefix("at_least="))
    assert prove(max_of_k_inside.claim(WEIGHTS, at_least=str(value))).verdict == "PROVED"
    assert prove(max_of_k_inside.claim(WEIGHTS, at_least=str(value + 1e-4))).verdict == "REFUTED"


def test_the_part_of_the_domain_is_where_it_holds():
    (_, part) = instead(max_of_k_inside.claim(WEIGHTS, what="copies", at_least="2.6"))
    first, last = map(int, re.match(r"all inputs with (\d+)\.\.(\d+) at position 0", part).groups())
    table = copies(load(WEIGHTS, normalization=None).module.double(), 0)
    others = np.where(np.eye(64, dtype=bool), -np.inf, table)
    holds = np.diag(table) - others.max(1) >= 2.6
    assert holds[first : last + 1].all() and holds.sum() == last + 1 - first < 64


def test_eps_and_a_share_of_a_box():
    told = instead(superposition.claim(at_most="0.05"))
    assert float(told[0].removeprefix("at_most=")) == pytest.approx(0.127795, abs=1e-5)
    share = float(told[1].split("with ")[1].split(" of")[0])
    assert 0.3 < share < 1

    model = capture(torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.ReLU()).eval(), torch.zeros(1, 2))
    x = ball(torch.zeros(2), 1.0)
    eps, *_ = instead(Within(model["output"], [0, 0], over=x, eps="0.001"))
    found = float(eps.removeprefix("eps="))
    assert prove(Within(model["output"], [0, 0], over=x, eps=str(found))).verdict == "PROVED"


def test_thresholds_of_their_own_are_named_by_entry():
    model = capture(torch.nn.Linear(2, 3).eval(), torch.zeros(1, 2))
    claim = Bounds(model["output"], over=ball(torch.zeros(2), 1.0), at_least=[-9, 5, -9])
    told = instead(claim)
    assert told[0].startswith("at_least=") and told[0].endswith("for entry 1")


def test_accuracy_is_told_with_the_classes_that_are_right():
    told = instead(max_of_k.claim(WEIGHTS, at_least="1"))
    share = told[0].removeprefix("at_least=")
    assert prove(max_of_k.claim(WEIGHTS, at_least=share)).verdict == "PROVED"
    assert "mechanism says" in told[1]
    model = transformer(WEIGHTS)
    x = tokens("x", length=2, vocab=64)
    assert nearest(Accuracy(model.logits[-1], equals=Min(*x), over=x, at_least=1), "real", None, Budget(0)) == []


def test_the_command_line_says_it(tmp_path):
    command = ["prove", "proofs/superposition.py", "-p", "at_most=0.05", "--out", str(tmp_path / "c"), "--json"]
    found = CliRunner().invoke(app, command)
    assert found.exit_code == 1 and json.loads(found.stdout)["nearest"][0].startswith("at_most=0.12")
    assert json.loads(CliRunner().invoke(app, [*command, "--nearest", "0"]).stdout)["nearest"] == []
