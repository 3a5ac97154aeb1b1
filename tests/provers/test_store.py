"""Finished obligations are kept as soon as they are known: a process that is killed loses what it had in hand."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from sympy import Max

from mechverify import Accuracy, ClaimError, prove, tokens, transformer
from mechverify.kernel import check
from mechverify.provers import store
from mechverify.provers.accuracy import find
from mechverify.provers.base import Budget
from mechverify.provers.store import Store

ROOT = Path(__file__).parent.parent.parent
SHARE = """import os, signal
import torch
from mechverify import Share, ball, capture
from mechverify.provers.store import Store

keep, lives = Store.keep, int(os.environ.get("LIVES", 10**9))


def mortal(self, key, answer):
    keep(self, key, answer)
    if self.new > lives:
        os.kill(os.getpid(), signal.SIGKILL)


def claim():
    Store.keep = mortal
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(2, 6), torch.nn.ReLU(), torch.nn.Linear(6, 1)).double().eval()
    model = capture(net, torch.zeros(1, 2, dtype=torch.float64))
    return Share(model["output"][0] > 0.1, over=ball([0.0, 0.0], 3), within="1/20000")
"""


def run(folder: Path, name: str, *options: str, lives: int | None = None) -> int:
    """The exit code of `mechverify prove`, in a process that is killed when it has finished so many obligations."""
    command = [sys.executable, "-m", "mechverify.cli", "prove", "share.py", "--out", f"{name}.cert", *options]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)} | ({} if lives is None else {"LIVES": str(lives)})
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, check=False).returncode


def test_killed_again_and_again_it_comes_to_the_same_certificate(tmp_path):
    (tmp_path / "share.py").write_text(SHARE)
    assert run(tmp_path, "undisturbed") == 0
    kills = 0
    while (code := run(tmp_path, "killed", "--store", "kept.sqlite", lives=0)) != 0:
        assert code == -signal.SIGKILL and not (tmp_path / "killed.cert").exists()
        kills += 1
        assert kills < 40, "it doesn't go on"
    assert kills >= 3
    certificate = (tmp_path / "killed.cert").read_bytes()
    assert certificate == (tmp_path / "undisturbed.cert").read_bytes()
    assert check(certificate).verdict == "BOUNDED"


def question(small_model):
    x = tokens("x", length=3, vocab=6)
    return Accuracy(transformer(small_model).logits[-1], equals=Max(*x), over=x)


def test_nothing_is_proved_twice(small_model, tmp_path, monkeypatch):
    first = Budget(store=Store(tmp_path / "kept.sqlite"))
    found = prove(question(small_model), budget=first)
    assert first.store.new >= 1 and not first.store.known

    def never(*_):
        raise AssertionError("proved twice")

    for kind in {type(prover) for prover in find.PROVERS}:
        monkeypatch.setattr(kind, "prove", never)
    again = Budget(store=Store(tmp_path / "kept.sqlite"))
    assert prove(question(small_model), budget=again).certificate == found.certificate
    assert again.store.known >= 1 and not again.store.new
    other = question(small_model).changed(margin=1)
    assert "proved twice" in str(prove(other, budget=Budget(store=Store(tmp_path / "kept.sqlite"))).reasons)


def test_other_code_answers_anew(tmp_path, monkeypatch):
    kept = Store(tmp_path / "kept.sqlite")
    assert kept.once(["a", 1], lambda: [1, "x"]) == [1, "x"] == kept.once(["a", 1], lambda: [2])
    assert kept.once(["a", 2], lambda: 7) == 7 and (kept.new, kept.known) == (2, 1)
    assert kept.once("cut short", lambda: 1, lambda: False) == 1 and kept.once("cut short", lambda: 2) == 2
    with pytest.raises(ZeroDivisionError):
        kept.once("fails", lambda: 1 / 0)
    assert kept.once("fails", lambda: 3) == 3
    monkeypatch.setattr(store, "code", lambda: "other")
    assert kept.once(["a", 1], lambda: "new") == "new"


def test_what_a_store_says_is_only_believed_of_the_search(small_model, tmp_path):
    """A forged answer makes no theorem."""
    kept = Store(tmp_path / "kept.sqlite")
    found = prove(question(small_model), budget=Budget(store=kept))
    low, high = found.theorem.right
    assert low < 216
    rows = kept.database.execute("SELECT asked, answer FROM finished").fetchall()
    with kept.database:
        for asked, answer in rows:
            forged = answer.replace(f"[{low}, {high}]", "[216, 216]")
            kept.database.execute("UPDATE finished SET answer = ? WHERE asked = ?", [forged, asked])
    assert any(f"[{low}, {high}]" in answer for _, answer in rows)
    forged = prove(question(small_model), budget=Budget(store=Store(tmp_path / "kept.sqlite")))
    assert forged.theorem is None or forged.theorem.right.low <= low


def test_a_store_that_breaks_stops_no_proof(small_model, tmp_path):
    kept = Store(tmp_path / "kept.sqlite")
    kept.database.execute("PRAGMA query_only = ON")  # as a full disk does, it refuses what is written
    assert prove(question(small_model), budget=Budget(store=kept)).verdict == "BOUNDED"
    assert "readonly" in kept.broken and not kept.new


def test_a_file_of_another_kind_is_refused(tmp_path):
    (tmp_path / "text").write_text("a shopping list, with milk and eggs " * 50)
    with pytest.raises(ClaimError, match="give a file that is new, or a store"):
        Store(tmp_path / "text")
    with pytest.raises(ClaimError, match="give a file that is new"):
        Store(tmp_path / "absent" / "kept.sqlite")
