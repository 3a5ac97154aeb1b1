"""Several heads, from claim to theorem: exact where every input can be run, and no more than is true of poor models."""

import json
from fractions import Fraction

import numpy as np
import pytest
import torch
from sympy import Eq, Max

from mechverify import Accuracy, capture, prove, tokens, transformer
from mechverify.kernel import NotACertificate, Rejected, check
from mechverify.kernel.core import container
from mechverify.kernel.core.container import pack
from mechverify.kernel.core.fields import Reader
from mechverify.kernel.core.judging import decide
from mechverify.kernel.proof import prove as prove_part
from mechverify.provers.accuracy.fold import folded
from mechverify.provers.accuracy.problem import AccuracyProblem
from mechverify.provers.accuracy.ratios import Ratios, bounded
from mechverify.provers.base import Budget
from tests.kernel.test_sum_of_ratios import Heads
from tests.models import as_bytes, max_weights
from tests.soundness.forge import places, spoil_leaf


def heads(count, *, noise=0.15, seed=0, vocab=6, length=4, spoil=None):
    """A max-of-k model of several heads that share the work; undertrained (noise) or quantised."""
    rng = np.random.default_rng(seed)
    each = [max_weights(rng, vocab=vocab, length=length, noise=noise, slope=2.0) for _ in range(count)]
    weights = dict(each[0])
    for name in "QKVO":
        key = f"blocks.0.attn.W_{name}"
        weights[key] = np.concatenate([w[key] for w in each]) / (count if name == "O" else 1)
    if spoil == "quantised":
        weights = {k: np.round(2 * v) / 2 for k, v in weights.items()}
    return {k: v.astype(np.float32) for k, v in weights.items()}


WEIGHTS = heads(2, noise=0.08, vocab=5)


def claimed(weights, folder, at_least="best", equals=Max):
    path = folder / "model.safetensors"
    path.write_bytes(as_bytes(weights))
    model = transformer(path)
    x = tokens("x", length=model.n_ctx, vocab=model.d_vocab)
    return Accuracy(model.logits[-1], equals=equals(*x), over=x, at_least=at_least)


def enumerated(claim):
    """The number of right inputs, each run in torch's float64."""
    model = claim.output.model
    w = {k: torch.from_numpy(np.asarray(v, np.float64)) for k, v in model.tensors.items()}
    x = torch.cartesian_prod(*[torch.arange(model.d_vocab)] * model.n_ctx)
    h = w["embed.W_E"][x] + w["pos_embed.W_pos"]
    attn = "blocks.0.attn.W_"
    q, k, v = (torch.einsum("bnd,hde->bhne", h, w[f"{attn}{c}"]) for c in "QKV")
    pattern = (q[:, :, -1:] @ k.transpose(-1, -2) / q.shape[-1] ** 0.5).softmax(-1)
    logits = (h[:, -1] + torch.einsum("bhe,hed->bd", (pattern @ v)[:, :, 0], w[f"{attn}O"])) @ w["unembed.W_U"]
    return int((logits.argmax(-1) == x.amax(1)).sum())


def problem(claim):
    return AccuracyProblem.of(claim, "real")


@pytest.mark.parametrize("count", [2, 3, 4])
@pytest.mark.parametrize("model", [dict(noise=0.05), dict(noise=0.3), dict(spoil="quantised", noise=0.3)], ids=str)
def test_the_accuracy_is_that_of_enumeration(count, model, tmp_path):
    claim = claimed(heads(count, **model), tmp_path)
    found = bounded(problem(claim), Budget())
    assert found.right.low == found.right.high == enumerated(claim)


def test_counted_cells_hold_the_truth(tmp_path, monkeypatch):
    """Nothing is listed, so that all that stays open is cut and counted."""
    monkeypatch.setattr("mechverify.provers.accuracy.ratios.LISTED", 0)
    for seed in range(3):
        claim = claimed(heads(2, noise=0.08, seed=seed), tmp_path)
        found, right = bounded(problem(claim), Budget()).right, enumerated(claim)
        assert found.low <= right <= found.high and found.high - found.low < 6**4 / 2


@pytest.mark.parametrize("steps", [2, 16])
def test_counts_on_a_coarse_grid_hold_the_truth(steps, tmp_path, monkeypatch):
    monkeypatch.setattr("mechverify.provers.accuracy.ratios.LISTED", 0)
    monkeypatch.setattr("mechverify.provers.accuracy.ratios.COARSE", steps)
    monkeypatch.setattr("mechverify.provers.accuracy.ratios.FINE", steps)
    for seed in range(2):
        claim = claimed(heads(2, noise=0.1, seed=seed, vocab=5), tmp_path)
        found = bounded(problem(claim), Budget()).right
        assert found.low <= enumerated(claim) <= found.high


def test_a_theorem_is_the_same_in_exact_arithmetic(tmp_path, monkeypatch):
    data = certificate(tmp_path, monkeypatch)
    assert check(data, exact=True).right == check(data).right


def test_one_head_is_no_looser_than_rule_fold(tmp_path):
    """The same accuracy, and in each cell the same rivals are decided, whatever the point."""
    for seed in range(3):
        claim = claimed(heads(1, noise=0.25, seed=seed), tmp_path)
        assert folded(problem(claim), Budget()).right == bounded(problem(claim), Budget()).right
    partition = problem(claim).partition
    from mechverify.kernel.fold.rule import InputClass as Folded
    from mechverify.kernel.ratios.rule import Partition

    other = {
        input_class.key: input_class for input_class in Partition(problem(claim).job, partition.domain, []).classes()
    }
    for key in partition.places:
        for cell in Folded(partition, key).cells():
            mine = other[key].cell(cell.query)
            point = [int(t) for t in np.resize(mine.box.tokens, len(mine.layers))]
            assert mine.undecided(point, mine.rivals).tolist() == cell.undecided


def test_a_claim_is_proved_to_its_last_input(tmp_path, monkeypatch):
    """The share that is true, and one input more: the first is proved, the second is not."""
    monkeypatch.setattr("mechverify.provers.accuracy.find.PROVERS", [Ratios()])
    right, size = enumerated(claimed(WEIGHTS, tmp_path)), 5**4
    for share, verdict in ((Fraction(right, size), "PROVED"), (Fraction(right + 1, size), "REFUTED")):
        done = prove(claimed(WEIGHTS, tmp_path, at_least=f"{share.numerator}/{share.denominator}"))
        assert done.verdict == verdict and done.theorem.right.low <= right <= done.theorem.right.high


def test_a_captured_module_is_counted(tmp_path):
    module = Heads("norm").double().eval()
    model = capture(module, torch.zeros(1, 3, dtype=torch.long), vocab=4)
    x = tokens("x", length=3, vocab=4)
    claim = Accuracy(model["output"], equals=Max(*x), over=x, at_least="best")
    found = problem(claim)
    assert Ratios().accepts(found, None) in (None, "")
    inputs = torch.cartesian_prod(*[torch.arange(4)] * 3)
    with torch.no_grad():
        right = int((module(inputs).argmax(-1) == inputs.amax(1)).sum())
    bounds = bounded(found, Budget()).right
    assert bounds.low == right == bounds.high


@pytest.mark.parametrize("given", [lambda x: x[0] > x[1], lambda x: Eq(x[3], 2), lambda x: sum(x) <= 6])
def test_a_guarded_domain_is_counted(given, tmp_path):
    """Of the inputs that satisfy the guard alone; those of other classes count as right until the conclusion."""
    plain = claimed(WEIGHTS, tmp_path)
    x = tokens("x", length=4, vocab=5)
    found = problem(Accuracy(plain.output, equals=Max(*x), over=x, at_least="best", given=given(x)))
    inside = np.concatenate([*found.inputs(found.domain)])
    right = int(decide(found.job, inside)[0].sum())
    assert 0 < right < len(inside) == found.claim.total < 5**4
    assert Ratios().accepts(found, None) is None
    attempt = bounded(found, Budget())
    assert found.claim.within(attempt.right) == (right, right)
    proved, _ = prove_part(found.job, Reader(json.loads(json.dumps(attempt.proof)), "proof"))
    assert found.claim.within(proved) == (right, right)
    nothing = {"rule": "ratios", "keys": [], "cells": []}
    assert found.claim.within(prove_part(found.job, Reader(nothing, "proof"))[0]) == (0, len(inside))


def certificate(folder, monkeypatch):
    """With cuts, groups and listed cells."""
    monkeypatch.setattr("mechverify.provers.accuracy.find.PROVERS", [Ratios()])
    monkeypatch.setattr("mechverify.provers.accuracy.ratios.LISTED", 20)
    return prove(claimed(WEIGHTS, folder)).certificate


def test_spoilt_certificates_prove_nothing_false(tmp_path, monkeypatch):
    """One entry of the proof changed at a time: what is still accepted bounds the truth."""
    data = certificate(tmp_path, monkeypatch)
    contents = container.unpack(data)
    doc = json.loads(contents["certificate.json"])
    text = json.dumps(doc["proof"])
    assert '"cut"' in text and '"groups": [[' in text and '"groups": null' in text
    right = enumerated(claimed(WEIGHTS, tmp_path))
    rng = np.random.default_rng(0)
    accepted = 0
    where = places(doc["proof"])
    for _ in range(60):
        spoilt = json.loads(contents["certificate.json"])
        path = where[int(rng.integers(len(where)))]
        spoil_leaf(spoilt["proof"], path, rng)
        spoilt["cost"] = None
        try:
            file = {
                "certificate.json": json.dumps(spoilt).encode(),
                "weights.safetensors": contents["weights.safetensors"],
            }
            theorem = check(pack(file))
        except (Rejected, NotACertificate):
            continue
        accepted += 1
        assert theorem.right.low <= right <= theorem.right.high
    assert 0 < accepted < 60
