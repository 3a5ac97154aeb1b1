"""Two layers, found and checked: what rule nested proves of models whose accuracy is enumerated, and of a published one."""

import json
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file
from sympy import Eq

from mechverify import Accuracy, count, distinct, prove, tokens, transformer
from mechverify.kernel import NotACertificate, Rejected, check
from mechverify.kernel.core import container
from mechverify.kernel.core.errors import Stopped
from mechverify.kernel.counting import automaton
from mechverify.provers.accuracy import find, nested
from mechverify.provers.accuracy.enumerate import Enumerate
from mechverify.provers.accuracy.nested import Nested
from mechverify.provers.base import Budget
from proofs.induction import claim
from tests import oracle
from tests.models import as_float64
from tests.rounds import ROUNDS
from tests.soundness.forge import places, spoil_leaf

SHARED = Path(__file__).parent.parent.parent.parent / "shared" / "models"
PUBLISHED = SHARED / "gbmi-induction8.safetensors"


def induction(tmp_path, *, vocab=4, length=4, sharp=30.0, noise=0.05, seed=0):
    """A model built by hand, and noise: the first layer attends to the previous token and copies it, the second to where
    the copied token is its own."""
    rng, d = np.random.default_rng(seed), 2 * vocab + length
    weights = {"embed.W_E": np.eye(vocab, d), "pos_embed.W_pos": np.eye(length, d, 2 * vocab)}
    for layer in range(2):
        for name, shape in (("Q", (d, d)), ("K", (d, d)), ("V", (d, d)), ("O", (d, d))):
            weights[f"blocks.{layer}.attn.W_{name}"] = np.zeros((1, *shape))
    at, copy, own = np.arange(2 * vocab, d), np.arange(vocab, 2 * vocab), np.arange(vocab)
    scale = np.sqrt(d) * sharp
    weights["blocks.0.attn.W_Q"][0, at, at] = scale
    weights["blocks.0.attn.W_K"][0, at[:-1], at[1:]] = 1
    weights["blocks.0.attn.W_V"][0, own, own] = 1
    weights["blocks.0.attn.W_O"][0, own, copy] = 1
    weights["blocks.1.attn.W_Q"][0, own, own] = scale
    weights["blocks.1.attn.W_K"][0, copy, own] = 1
    weights["blocks.1.attn.W_K"][0, at[0], own] = -2  # position 0 has copied its own token
    weights["blocks.1.attn.W_V"][0, own, own] = 1
    weights["blocks.1.attn.W_O"][0, own, own] = 4
    weights["unembed.W_U"] = np.eye(d, vocab)
    path = tmp_path / "induction.safetensors"
    noisy = {k: (w + noise * rng.normal(size=w.shape)).astype(np.float32) for k, w in weights.items()}
    save_file(noisy, path)
    return path, noisy


def alone(monkeypatch):
    """Rule nested is tried alone, on domains that are small enough to be run."""
    monkeypatch.setattr(find, "PROVERS", [Nested()])
    monkeypatch.setattr(nested, "WHOLE", 0)
    monkeypatch.setattr(nested, "affords_all", lambda *_: False)


def right(weights, over):
    """Of the inputs of the claims below, how many there are and how many are right."""
    model, found = oracle.Transformer(as_float64(weights)), []
    for x in product(*over):
        if sum(t == x[-1] for t in x[:-1]) == 1 and x[-2] != x[-1]:
            found.append(oracle.is_right(model.logits(x, len(x) - 1), x[x.index(x[-1]) + 1], oracle.arb(0)) is True)
    return len(found), sum(found)


@pytest.mark.parametrize("noise", [0.02, 0.1])
def test_where_a_token_stood_before_is_found_for_every_token(tmp_path, monkeypatch, noise):
    """A mechanism that looks back, under a guard; the certificate is no better than the truth, and of a sharp model
    proves all."""
    path, weights = induction(tmp_path, noise=noise)
    alone(monkeypatch)
    result = prove(claim(path, others="any", at_least=None), time_limit=60)
    total, true = right(weights, [range(4)] * 4)
    theorem = check(result.certificate)
    assert "nested" in theorem.rules
    assert theorem.claim.total == total and theorem.right.low <= true <= theorem.right.high
    assert not result.reasons and theorem.right.low > total / 2  # the check confirms what was found
    if noise < 0.1:
        assert theorem.right.low == true == total


def test_cells_in_which_one_rival_leads_are_wrong(tmp_path, monkeypatch):
    """More inputs are shown to be wrong than are listed."""
    path, weights = induction(tmp_path, noise=0.15)
    alone(monkeypatch)
    result = prove(claim(path, others="any", at_least=None), time_limit=60)
    total, true = right(weights, [range(4)] * 4)
    theorem = check(result.certificate)
    assert theorem.right.low <= true <= theorem.right.high < total - find.SHOWN


@pytest.mark.parametrize("hasty", [False, True])
def test_inputs_are_run_where_there_is_time_or_no_cell_is_decided(tmp_path, monkeypatch, hasty):
    """The search for cells doesn't come before what says more, and doesn't use up its time."""
    path, weights = induction(tmp_path, noise=0.02)
    monkeypatch.setattr(find, "PROVERS", [Nested(), Enumerate()])
    monkeypatch.setattr(nested, "WHOLE", 0)
    if hasty:
        monkeypatch.setattr(nested, "affords_all", lambda *_: False)
        monkeypatch.setattr(nested, "PATIENCE", 0)
    result = prove(claim(path, others="any", at_least=None), time_limit=60)
    total, true = right(weights, [range(4)] * 4)
    theorem = check(result.certificate)
    assert theorem.rules == {"enumerate": 1} and theorem.right == (true, true) == (total, total)


def test_a_spoilt_witness_proves_no_more_than_is_true(tmp_path, monkeypatch):
    """Leaves of the proof are changed; the conclusion asks for one input more than is right, and for the proved ones."""
    path, weights = induction(tmp_path, noise=0.2, seed=3)
    alone(monkeypatch)
    result = prove(claim(path, others="any", at_least=None), time_limit=60)
    _, true = right(weights, [range(4)] * 4)
    contents, rng = container.unpack(result.certificate), np.random.default_rng(0)
    document = json.loads(contents["certificate.json"])
    leaf = nested_leaf(document["proof"])
    where, accepted = places(leaf), 0
    for turn in range(ROUNDS):
        spoilt = json.loads(contents["certificate.json"])
        node, at = nested_leaf(spoilt["proof"]), where[int(rng.integers(len(where)))]
        spoil_leaf(node, at, rng)
        spoilt["cost"] = None
        if turn % 2:
            spoilt["conclusion"]["right_at_least"] = str(true + 1)
        file = {"certificate.json": json.dumps(spoilt).encode(), "weights.safetensors": contents["weights.safetensors"]}
        try:
            theorem = check(container.pack(file))
        except (Rejected, NotACertificate):
            continue
        accepted += 1
        assert theorem.right.low <= true <= theorem.right.high
    assert accepted < ROUNDS / 2


def nested_leaf(proof):
    """Of a proof that may hold wrong inputs beside it."""
    return proof if proof["rule"] == "nested" else nested_leaf(proof["second"])


def test_a_search_that_is_stopped_keeps_what_it_found(tmp_path, monkeypatch):
    """Among the cells of a family, of which the inputs that keep the guard have to be counted: no more work is allowed
    then."""
    path, _ = induction(tmp_path, vocab=5, noise=0.02)
    alone(monkeypatch)
    decide, decided, budget = nested._decided, [], Budget()

    def some(cell, family):
        if len(decided) == 2:
            budget.interrupted, cell.ar._glance = True, 0
            raise Stopped
        decided.append(decide(cell, family))
        return decided[-1]

    monkeypatch.setattr(nested, "_decided", some)
    monkeypatch.setattr(nested, "TOGETHER", 1)
    result = prove(claim(path, at_least=None), time_limit=60, budget=budget)
    theorem = check(result.certificate)
    assert 0 < theorem.right.low < theorem.right.high and "nested" in theorem.rules


def test_conditions_that_are_no_short_folds_are_left_out(tmp_path, monkeypatch):
    """The others are kept: cells are larger than the claim asks, and the count is of its inputs alone."""
    path, _ = induction(tmp_path, vocab=5, noise=0.02)
    model = transformer(path)
    x = tokens("x", length=4, vocab=5)
    follows = x[1] + 0
    given = [Eq(count(x[-1], *x[:-1]), 1), Eq(x[0], x[-1]), distinct(*x[:-1])]
    claimed = Accuracy(model.logits[-1], equals=follows, over=x, given=given, at_least=1)
    alone(monkeypatch)
    monkeypatch.setattr(automaton, "STATE_LIMIT", 12)
    result = prove(claimed, time_limit=60)
    theorem = check(result.certificate)
    proof = json.loads(container.unpack(result.certificate)["certificate.json"])["proof"]
    assert 0 < len(proof["conditions"]) < 5  # of count, one equality, and three pairs
    assert result.verdict == "PROVED" and theorem.claim.total == theorem.right.low == 5 * 4 * 3


@pytest.mark.skipif(not PUBLISHED.exists(), reason="shared models are not here")
@pytest.mark.campaign  # token 0 of the shared model: benchmarks/ratios.py measures it
def test_the_published_model_is_proved_for_one_token():
    """25^6 inputs: token 0 at 3 and 7, any other tokens elsewhere."""
    result = prove(claim(PUBLISHED, others="any", token=0, earliest=3, latest=3))
    assert result.verdict == "PROVED"
    theorem = check(result.certificate)
    assert theorem.claim.total == theorem.right.low == 25**6 and theorem.rules == {"nested": 1}
