"""How claims, verdicts and counterexamples show themselves, and that it is true."""

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import sympy
import torch
from safetensors.numpy import save_file
from torch import nn

from mechverify import (
    Accuracy,
    Bounds,
    Holds,
    MechverifyError,
    Share,
    Verdict,
    Within,
    ball,
    capture,
    check,
    load,
    prove,
    tokens,
    transformer,
)

DATA = Path(__file__).parent / "data"


class Cells(HTMLParser):
    """The texts of a table's cells, and whether every tag is closed."""

    def __init__(self, html: str):
        super().__init__()
        self.texts, self.open = [], []
        self.feed(html)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.open.append(tag)
        if tag in ("th", "td"):
            self.texts.append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts[-1] += data


@pytest.fixture
def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1)).eval()


def test_a_checked_file_shows_its_theorem():
    found = check(DATA / "version_2.cert")
    assert isinstance(found, Verdict) and found.verdict == "PROVED"
    assert len(repr(found)) < 200 and repr(found).startswith("<PROVED: strict argmax logits[2] = max(x0, x1, x2)")
    shown = Cells(found._repr_html_()).texts
    assert shown[:2] == ["verdict", "PROVED"]
    rows = [text for row in found.rows() for text in row]
    assert shown == rows and "ieee754" in " ".join(rows)


def test_names_in_a_file_are_text_on_the_page():
    from mechverify.verdict import table

    assert "<b>" not in table([("verdict", "<b>PROVED"), ("<b>", "x & y")])


def test_a_wrong_input_is_explained_by_its_values(small_model):
    x = tokens("x", length=3, vocab=6)
    found = prove(Accuracy(transformer(small_model).logits[-1], equals=sympy.Max(*x), over=x, at_least=1))
    wrong = found.counterexample
    assert found.verdict == "REFUTED" and wrong is not None and "the mechanism says" in repr(wrong)
    rows = dict(wrong.explain().rows)
    run = load(small_model, normalization=None).module(torch.tensor([wrong.tokens.tolist()]))[0, -1].detach().numpy()
    np.testing.assert_allclose(numbers(rows["logits[2]"]), run, rtol=1e-4, atol=1e-5)
    assert sum(numbers(rows["blocks.0.attn.pattern[0][2]"])) == pytest.approx(1, abs=1e-5)
    assert str(wrong.explain()).count("\n") == len(wrong.explain().rows) - 1
    assert "blocks.0.attn.pattern[0][2]" in Cells(wrong.explain()._repr_html_()).texts


def test_every_head_is_explained(tmp_path):
    rng, sizes = np.random.default_rng(0), {"Q": (2, 8, 4), "K": (2, 8, 4), "V": (2, 8, 4), "O": (2, 4, 8)}
    outer = {"embed.W_E": (6, 8), "pos_embed.W_pos": (3, 8), "unembed.W_U": (8, 6)}
    shapes = outer | {f"blocks.0.attn.W_{name}": shape for name, shape in sizes.items()}
    weights = {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    save_file(weights, tmp_path / "two.safetensors")
    x = tokens("x", length=3, vocab=6)
    claim = Accuracy(transformer(tmp_path / "two.safetensors").logits[-1], equals=sympy.Max(*x), over=x, at_least=1)
    wrong = prove(claim).counterexample
    rows = dict(wrong.explain().rows)
    residual = weights["embed.W_E"][wrong.tokens] + weights["pos_embed.W_pos"]
    q, k, v = (np.einsum("nd,hde->hne", residual, weights[f"blocks.0.attn.W_{name}"]) for name in "QKV")
    for head in (0, 1):
        scores = np.exp(k[head] @ q[head, -1] / 2)
        assert np.allclose(numbers(rows[f"blocks.0.attn.pattern[{head}][2]"]), scores / scores.sum(), rtol=1e-3)
        assert np.allclose(numbers(rows[f"blocks.0.attn.v[2][{head}]"]), v[head, -1], rtol=1e-3, atol=1e-5)


def numbers(text: str) -> list[float]:
    return [float(part) for part in re.match(r"\[(.*?)\]", text)[1].split(",")]


def test_a_broken_threshold_is_explained(net):
    found = prove(Bounds(capture(net, torch.zeros(1, 2))["output"], over=ball([0.0, 0.0], 1), at_most=-5))
    wrong = found.counterexample
    rows = dict(wrong.explain().rows)
    value = net(torch.tensor(wrong.inputs, dtype=torch.float32)[None]).item()
    assert numbers(rows["output"]) == [pytest.approx(value, rel=1e-5)] and value > -5
    assert "above by at least" in rows["wrong"] and rows["input"].startswith("inputs [")


def test_a_failing_condition_is_explained():
    class Compare(nn.Module):
        def forward(self, ids):
            return ids[:, 0].float() - ids[:, 1].float()

    x = tokens("x", length=2, vocab=3)
    model = capture(Compare().eval(), torch.zeros(1, 2, dtype=torch.long), vocab=3)
    found = prove(Share(model["output"][()] > 0, over=x))
    assert found.verdict == "BOUNDED" and "fails" not in repr(found)
    rows = dict(found.counterexample.explain().rows)
    a, b = found.counterexample.tokens.tolist()
    assert a <= b and rows["input"] == f"tokens [{a}, {b}]"


def test_without_a_counterexample_there_is_none(net):
    found = prove(Bounds(capture(net, torch.zeros(1, 2))["output"], over=ball([0.0, 0.0], 1), at_most=50))
    assert found.verdict == "PROVED" and found.counterexample is None


def test_what_was_not_proved_says_why(shipped, tmp_path):
    model = transformer(shipped(4))
    x = tokens("x", length=4, vocab=64)
    found = prove(Accuracy(model.logits[-1], equals=sympy.Max(*x), over=x, at_least="0.9995"), time_limit=0)
    assert found.verdict == "UNKNOWN" and "time limit" in repr(found) and "time limit" in found._repr_html_()
    with pytest.raises(MechverifyError, match="no certificate"):
        replace(found, certificate=None).save(tmp_path / "none.cert")
    assert not (tmp_path / "none.cert").exists()


def test_a_verdict_is_kept(net, tmp_path):
    found = prove(Bounds(capture(net, torch.zeros(1, 2))["output"], over=ball([0.0, 0.0], 1)))
    assert check(found.save(tmp_path / "kept.cert")).rows() == Verdict(found.verdict, found.theorem, b"").rows()


def test_claims_show_what_was_said(net, shipped):
    model, over = capture(net, torch.zeros(1, 2)), ball([0.0, 0.0], 1)
    out, x = model["output"], tokens("x", length=4, vocab=64)
    known = transformer(shipped(4))
    said = [
        (Accuracy(known.logits[-1], equals=sympy.Max(*x), over=x, at_least="0.5"),
         "Accuracy: argmax logits[3] = Max(x0, x1, x2, x3); on at least 1/2 of 16,777,216 inputs"),
        (Bounds(out, over=over, at_most=3), "Bounds: output; is at most 3; over boxes of shapes (2,); model Sequential"),
        (Bounds(out[0], over=over), "is the best that can be proved"),
        (Holds(out[0] <= 3, over=over, given=over[0] >= 0), "3 - output[0]; is at least 0; over boxes of shapes (2,); given 1"),
        (Within(out, [0.5], over=over, eps=2), "output[0] - 0.5; is at least -2 and at most 2"),
        (Share(out[0] < 0.3, over=over), "Share: output[0] < 0.3; on as many as can be proved of a box"),
        (known, "4 positions, 64 tokens"),
        (model, "captured Sequential; sites "),
        (over, "box (2,) from [-1.0, -1.0] to [1.0, 1.0]"),
        (x, "16,777,216 sequences x0 .. x3, 64 tokens"),
    ]  # fmt: skip
    for value, text in said:
        assert text in repr(value) and len(repr(value)) <= 163
        assert len(Cells(value._repr_html_()).texts) == 2 * len(value.described())
