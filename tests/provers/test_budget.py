"""Time that is up, wherever the search is: what is proved by then stands, and nothing else is said."""

import json
import math

import numpy as np
import pytest
import torch
from rich.console import Console
from sympy import Max
from typer.testing import CliRunner

from mechverify import Accuracy, Bounds, ball, capture, tokens, transformer
from mechverify.cli import app
from mechverify.kernel import check
from mechverify.kernel.core import container
from mechverify.kernel.core.errors import Stopped
from mechverify.provers import base, guard, prove
from mechverify.provers.base import Budget
from mechverify.provers.guard import Guard
from mechverify.provers.ranges.solver import ask
from tests.models import as_bytes, max_weights


class Impatient(Budget):
    """Time is up at the n-th look at the clock."""

    def __init__(self, looks: int):
        super().__init__()
        self.looks = looks

    def spent(self) -> bool:
        self.looks -= 1
        return self.looks < 0


def network(at_most=None):
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(18, 8), torch.nn.ReLU(), torch.nn.Linear(8, 1)).double().eval()
    x = torch.zeros(1, 18, dtype=torch.float64)
    return Bounds(capture(net, x)["output"], over=ball(x[0], 1.0), at_most=at_most)


def largest(folder, at_least):
    path = folder / "max.safetensors"
    path.write_bytes(as_bytes(max_weights(np.random.default_rng(0), vocab=8, length=6)))
    model, x = transformer(path), tokens("x", length=6, vocab=8)
    return Accuracy(model.logits[-1], equals=Max(*x), over=x, at_least=at_least)


@pytest.fixture(autouse=True)
def often(monkeypatch):
    """The arithmetic looks at the clock at every step."""
    monkeypatch.setattr("mechverify.kernel.core.meter.GLANCE", 0.0)


CLAIMS = {"best range": lambda _: network(), "a threshold": lambda _: network(1.2),
          "accuracy": lambda folder: largest(folder, None),
          "accuracy of at least": lambda folder: largest(folder, "0.999")}  # fmt: skip


@pytest.mark.parametrize("what", CLAIMS)
@pytest.mark.parametrize("looks", [0, 1, 5, 40, 300, 2_000, 20_000])
def test_what_is_proved_when_time_is_up_is_accepted(what, looks, tmp_path):
    outcome = prove(CLAIMS[what](tmp_path), budget=Impatient(looks), solver=False)
    assert outcome.unchecked is None
    if outcome.certificate is None:
        assert outcome.verdict == "UNKNOWN" and outcome.reasons
    else:
        theorem = check(outcome.certificate)
        assert outcome.verdict in (theorem.verdict, "UNKNOWN")
        assert json.loads(container.unpack(outcome.certificate)["certificate.json"])["cost"] == str(theorem.work)


class NoTimeToCheck(Budget):
    def watch_check(self, work, allowed):
        if work > 1e4:
            raise Stopped


@pytest.mark.parametrize("what", CLAIMS)
def test_what_the_kernel_has_not_checked_is_not_called_proved(what, tmp_path):
    outcome = prove(CLAIMS[what](tmp_path), budget=NoTimeToCheck(), solver=False)
    assert outcome.verdict == "UNKNOWN" and outcome.theorem is None and outcome.certificate is None
    assert any("before the kernel had checked" in reason for reason in outcome.reasons)
    assert check(outcome.unchecked, limit=math.inf).verdict in ("BOUNDED", "PROVED", "REFUTED")


def test_time_is_left_for_the_check(monkeypatch):
    now = 100.0
    monkeypatch.setattr(base.time, "monotonic", lambda: now)
    budget = Budget()
    budget.limit(60.0)
    with budget.rehearsing():
        now += 20.0
        assert not budget.spent()
        now += 11.0
        assert budget.spent(), "31 seconds again, of 60"
    assert budget.reserved == 31.0 and budget.spent()
    with pytest.raises(Stopped):
        budget.watch(0, 1)
    now += 28.0
    budget.watch_check(0, 1)
    now += 30.0
    with pytest.raises(Stopped):
        budget.watch_check(0, 1)


def test_a_step_has_its_own_time(monkeypatch):
    now = 100.0
    monkeypatch.setattr(base.time, "monotonic", lambda: now)
    budget = Budget()
    with budget.within(10.0):
        now += 11.0
        assert budget.spent()
    assert not budget.spent()
    with budget.rehearsing():
        now += 1_000.0
    assert not budget.spent(), "where nobody waits, the check has all the time that it needs"


def test_who_finishes_on_a_busy_machine_has_longer(monkeypatch):
    """Where other processes have the cores, a second of the clock is no second of work."""
    clock, own = 100.0, 7.0
    monkeypatch.setattr(guard.time, "monotonic", lambda: clock)
    monkeypatch.setattr(guard.time, "process_time", lambda: own)
    watched = Guard(Budget(), Console(), lambda reason: None)
    assert watched._since(math.inf) == 0 and watched._since(100.5) == 0
    assert watched._since(clock) == 0
    clock, own = 102.0, 7.8
    assert watched._since(100.0) == pytest.approx(0.8), "what it worked"
    own = 15.0
    assert watched._since(100.0) == pytest.approx(2.0), "on several cores, no more than what passed"
    clock, own = 109.0, 7.1
    assert watched._since(100.0) == pytest.approx(3.0), "asleep, it is ended in the end"
    assert watched._since(math.inf) == 0
    own = 50.0
    assert watched._since(109.0) == 0 and watched._since(108.0) == pytest.approx(1 / 3)


def test_a_solver_is_stopped():
    looks = iter([False, False, True])
    query = "(declare-const x Real)\n(assert (= (* x x x) 2.0))\n(check-sat)\n"
    assert ask(query, 0.0) == ("unknown", {})
    assert ask(query, 60.0, lambda: next(looks, True))[0] in ("unknown", "sat")


def test_a_file_that_does_not_end_is_ended(tmp_path):
    catches = "try:\n        while True:\n            pass\n    except Exception:\n        pass"
    for what in ("import time\n    time.sleep(1_000)", catches):
        file = tmp_path / "slow.py"
        file.write_text(f"def claim():\n    {what}\n")
        result = CliRunner().invoke(app, ["prove", str(file), "--time-limit", "0.5", "--json"])
        assert result.exit_code == 3, result.output
        told = json.loads(result.stdout)
        assert told["verdict"] == "UNKNOWN" and "slow.py didn't end" in told["reasons"][0]


def test_what_was_found_and_not_checked_is_kept_aside(tmp_path, monkeypatch, small_model):
    monkeypatch.setattr(Budget, "watch_check", NoTimeToCheck.watch_check)
    out = tmp_path / "max.cert"
    arguments = ["prove", "proofs/max_of_k.py", "-p", f"weights={small_model}", "-p", "at_least=1/2", "--out", str(out)]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 3 and "PROVED" not in result.output, result.output
    aside = tmp_path / "max.cert.unchecked"
    assert not out.exists() and str(aside) in result.output.replace("\n", "")
    assert CliRunner().invoke(app, ["check", str(aside)]).exit_code == 0
