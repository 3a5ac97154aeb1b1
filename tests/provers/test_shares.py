"""Shares: exactly what an enumeration in float64 finds, whatever the condition, and nothing more."""

import itertools
import json
from fractions import Fraction

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from sympy import And, Eq, Implies, Max, Ne, Not, Or, Piecewise

from benchmarks.shares import INDUCTION, Shape, Transformer
from mechverify import Accuracy, Share, capture, count, distinct, prove, tokens, transformer
from mechverify.claims.errors import ClaimError
from mechverify.report.checked import Checked
from mechverify.report.latex import write_latex
from mechverify.report.result import as_json
from mechverify.report.statement import lines

VOCAB, LENGTH = 4, 3
IDS = torch.tensor(list(itertools.product(range(VOCAB), repeat=LENGTH)))
torch.manual_seed(1)
MODULE = Transformer(Shape(2, 4, "before", "gelu", True), VOCAB, LENGTH, width=8).double().eval()


def attended(weights: dict[str, np.ndarray], ids: np.ndarray) -> np.ndarray:
    """The logits of a causal transformer without neurons and biases."""
    n = ids.shape[1]
    x, later = weights["embed.W_E"][ids] + weights["pos_embed.W_pos"][:n], np.triu(np.ones((n, n), bool), 1)
    for layer in range(2):
        q, k, v = (np.einsum("bid,hde->bhie", x, weights[f"blocks.{layer}.attn.W_{name}"]) for name in "QKV")
        scores = np.where(later, -np.inf, q @ k.swapaxes(-1, -2) / q.shape[-1] ** 0.5)
        pattern = np.exp(scores - scores.max(-1, keepdims=True))
        z = pattern / pattern.sum(-1, keepdims=True) @ v
        x = x + np.einsum("bhie,hed->bid", z, weights[f"blocks.{layer}.attn.W_O"])
    return x @ weights["unembed.W_U"]


@pytest.fixture(scope="module")
def model():
    return capture(MODULE, torch.zeros(1, LENGTH, dtype=torch.long))


@pytest.fixture(scope="module")
def y():
    with torch.no_grad():
        return MODULE(IDS)


@pytest.fixture
def x():
    return tokens("x", length=LENGTH, vocab=VOCAB)


CASES = {  # a condition on y (the model's output, as symbols or as numbers) and the tokens; its truth in float64
    "strict": (lambda y, x: y[-1, 2] > y[-1, 1], lambda y, t: y[:, -1, 2] > y[:, -1, 1]),
    "closed": (lambda y, x: y[-1, 2] <= y[-1, 1], lambda y, t: y[:, -1, 2] <= y[:, -1, 1]),
    "denied": (lambda y, x: Not(y[-1, 2] > y[-1, 1]), lambda y, t: y[:, -1, 2] <= y[:, -1, 1]),
    "and": (lambda y, x: And(y[-1, 0] > 0.6, y[0, 1] < 1), lambda y, t: (y[:, -1, 0] > 0.6) & (y[:, 0, 1] < 1)),
    "or": (lambda y, x: Or(y[-1, 0] >= 0.9, Eq(x[0], x[2])), lambda y, t: (y[:, -1, 0] >= 0.9) | (t[:, 0] == t[:, 2])),
    "implies": (lambda y, x: Implies(x[0] > x[1], y[-1, 0] < y[1, 0]),
                lambda y, t: (t[:, 0] <= t[:, 1]) | (y[:, -1, 0] < y[:, 1, 0])),
    "unequal": (lambda y, x: Ne(y[-1, 0], y[-1, 1]), lambda y, t: y[:, -1, 0] != y[:, -1, 1]),
    "a denied implication": (lambda y, x: Not(Implies(y[-1, 2] > y[-1, 1], y[0, 0] > 0.3)),
                             None),
    "an index": (lambda y, x: y[-1, x[0]] >= y[-1, x[1]], lambda y, t: y[:, -1].gather(1, t[:, :1])[:, 0]
                 >= y[:, -1].gather(1, t[:, 1:2])[:, 0]),
    "tokens and values": (lambda y, x: y[-1, 2] * x[0] > x[1] - 1.5, lambda y, t: y[:, -1, 2] * t[:, 0] > t[:, 1] - 1.5),
    "tokens alone": (lambda y, x: Max(*x) < 3, lambda y, t: t.amax(1) < 3),
    "a list": (lambda y, x: [y[-1, 0] > 0.6, x[0] < 2], lambda y, t: (y[:, -1, 0] > 0.6) & (t[:, 0] < 2)),
}  # fmt: skip


@pytest.mark.parametrize("what", CASES)
def test_shares_are_counted_exactly(what, model, x, y):
    condition, truth = CASES[what]
    if truth is None:
        with pytest.raises(ClaimError, match="write all of them with >, or all with >="):
            Share(condition(model["output"], x), over=x)
        return
    outcome = prove(Share(condition(model["output"], x), over=x))
    count = int(truth(y, IDS).sum())
    assert outcome.theorem.right.high == count and (outcome.reasons == []) == (what != "an index")
    open_ = int((IDS[:, 0] == IDS[:, 1]).sum()) if what == "an index" else 0  # one value twice: equal, in a ball
    assert count - open_ <= outcome.theorem.right.low <= count <= outcome.theorem.right.high
    assert 0 < count <= len(IDS)


def test_a_share_that_is_reached_is_proved_and_one_more_input_refutes_it(model, x, y):
    condition = model["output"][-1, 2] > model["output"][-1, 1]
    count = int((y[:, -1, 2] > y[:, -1, 1]).sum())
    assert prove(Share(condition, over=x, at_least=f"{count}/64")).verdict == "PROVED"
    refuted = prove(Share(condition, over=x, at_least=f"{count + 1}/64"))
    assert refuted.verdict == "REFUTED" and len(refuted.theorem.wrong) == 64 - count
    for tokens_ in refuted.theorem.wrong.tolist():
        row = y[IDS.tolist().index(tokens_), -1]
        assert row[2] <= row[1]


def test_a_larger_domain_is_counted_as_far_as_there_is_time(model, x):
    """What was run bounds the share, and what wasn't is open."""
    from mechverify.provers.accuracy import enumerate as running
    from mechverify.provers.accuracy.problem import AccuracyProblem
    from mechverify.provers.base import Budget

    problem = AccuracyProblem.of(Share(model["output"][-1, 2] > model["output"][-1, 1], over=x), "real")
    whole = running.enumerated(problem, Budget(), 64, 0.0, 1e-9).right
    assert whole.low == whole.high
    some = running.enumerated(problem, Budget(), 63, 0.0, 1e-9).right
    assert 0 < some.low < some.high < 64 and some.low <= whole.low <= some.high


def test_every_report_says_the_same(model, x, tmp_path):
    claim = Share(And(model["output"][-1, 2] > model["output"][-1, 1], x[0] < 3), over=x, at_least="1/64")
    outcome = prove(claim)
    rows = dict(lines(outcome.theorem))
    count = outcome.theorem.right.low
    assert rows["claim"].endswith(" > 0, on at least 1/64 of them")
    assert rows["holds, at least"].startswith(f"{count}  ({count / 64:.8f} of all")
    found = json.loads(json.dumps(as_json(outcome.theorem, outcome.verdict, None, 0, 0, [])))
    assert found["claim"]["kind"] == "share" and found["claim"]["domain_size"] == "64"
    assert found["claim"]["condition"].endswith(" > 0") and found["value"]["exact_lower"] == str(Fraction(count, 64))
    checked = Checked(tmp_path / "a.cert", outcome.theorem, 0.1, outcome.certificate)
    table = write_latex(tmp_path / "table.tex", [checked]).read_text()
    assert ">0$, on at least 1/64 of them" in table and r"\texttt{-{}-}" in table


@pytest.mark.parametrize(("make", "message"), [
    (lambda y, x: Share(And(y[-1, 0] > 0, y[-1, 1] >= 0), over=x), "write all of them with >, or all with >="),
    (lambda y, x: Share(y[-1, 0], over=x), "is no condition"),
    (lambda y, x: Share(y[-1, 0] > 0, over=[x]), "over= needs box"),
    (lambda y, x: Share(y[-1, 0] > 0, over=tokens("x", length=2, vocab=4)), "reads 3 tokens of 4"),
    (lambda y, x: Share(1 < 2, over=x), "is just True"),
    (lambda y, x: Share(y[-1, 0] > 0, over=x, at_least=2), "must lie between 0 and 1"),
])  # fmt: skip
def test_what_is_no_share_says_why(make, message, model, x):
    with pytest.raises(ClaimError, match=message):
        make(model["output"], x)


@pytest.mark.skipif(not INDUCTION.exists(), reason=f"{INDUCTION.name} is not there")
def test_induction_over_six_tokens_is_exact():
    """The published domain (all but the last token distinct, the last one a repeat) of a two-layer model, made small."""
    x = tokens("x", length=6, vocab=16, allowed=range(6))
    answer = Piecewise(*((x[i + 1], Eq(x[i], x[5])) for i in range(3)), (x[4], True))
    given = [distinct(*x[:5]), Eq(count(x[5], *x[:4]), 1)]
    claim = Accuracy(transformer(INDUCTION).logits[-1], equals=answer, over=x, given=given)
    weights = {name: w.astype(np.float64) for name, w in load_file(INDUCTION).items()}
    ids = np.array([(*t, t[j]) for t in itertools.permutations(range(6), 5) for j in range(4)])
    said = attended(weights, ids)[:, -1].argmax(1)
    right = int((said == [t[list(t).index(t[5]) + 1] for t in ids.tolist()]).sum())
    theorem = prove(claim).theorem
    assert theorem.claim.total == len(ids) == 2_880 and theorem.right == (right, right)
