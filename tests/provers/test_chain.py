"""Whole proofs on shipped models, held against enumeration and sampling that don't use the kernel."""

from fractions import Fraction

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from sympy import Max, Min, Mod

from mechverify import Accuracy, kth_largest, prove, tokens, transformer
from mechverify.claims import ClaimError
from mechverify.kernel import check
from mechverify.kernel.statement.accuracy import counterexamples
from mechverify.provers.base import Budget
from tests.cases import IDS, MECHANISMS
from tests.rounds import few
from toy_models.max_of_k import model as build


def claim(path, equals, at_least=None, **domain):
    model = transformer(path)
    x = tokens("x", **{"length": model.n_ctx, "vocab": model.d_vocab, **domain})
    return Accuracy(model.logits[-1], equals=equals(x), over=x, at_least=at_least)


def largest(x):
    return Max(*x)


def float32_accuracy(path, k, inputs):
    """Share right by the torch module of toy_models, nothing of mechverify."""
    net = build(k)
    net.load_state_dict(load_file(path))
    with torch.inference_mode():
        right = [(net(part)[:, -1].argmax(-1) == part.amax(1)).sum().item() for part in inputs.split(2**15)]
    return sum(right) / len(inputs)


def test_k4_restricted_to_16_tokens_is_exact(shipped):
    """16^4 inputs of the shipped model: the certificate's bounds meet at the enumerated accuracy."""
    outcome = prove(claim(shipped(4), largest, allowed=range(0, 64, 4)))
    inputs = torch.cartesian_prod(*[torch.arange(0, 64, 4)] * 4)
    right = round(float32_accuracy(shipped(4), 4, inputs) * 16**4)
    assert outcome.verdict == "BOUNDED" and "fold" in outcome.theorem.rules
    assert outcome.theorem.right == (right, right)


@pytest.mark.parametrize(("k", "seed"), few([(4, 0), (4, 1), (5, 0), (10, 0)], 2))
def test_shipped_models_hold_their_sampled_accuracy(shipped, k, seed):
    outcome = prove(claim(shipped(k, seed), largest, at_least="0.99"))
    total = outcome.theorem.claim.domain.size
    low, high = (Fraction(v, total) for v in outcome.theorem.right)
    inputs = torch.randint(64, (200_000, k), generator=torch.Generator().manual_seed(9))
    sampled = float32_accuracy(shipped(k, seed), k, inputs)
    deviation = 5 * (sampled * (1 - sampled) / 200_000) ** 0.5
    assert outcome.verdict == "PROVED" and total == 64**k
    assert low - deviation <= sampled <= high + deviation
    assert high - low < 0.0005
    assert check(outcome.certificate, limit=1e10).right == outcome.theorem.right


@pytest.mark.parametrize("k", [4, 10])
@pytest.mark.parametrize(
    ("equals", "at_least"),
    [(lambda x: Min(*x), "0.999"), (lambda x: kth_largest(2, *x), "0.999"), (largest, "1.0"), (lambda x: 1, "0.5"),
     (lambda x: Mod(sum(x), 4), "0.999"), (lambda x: Max(*x) - 1, "0.9"), (lambda x: 64 + x[0], "0.1")],
    ids=["min", "second", "always", "constant", "mod sum", "off by one", "no output"],
)  # fmt: skip
def test_false_claims_are_refuted_with_a_replayed_input(shipped, k, equals, at_least):
    outcome = prove(claim(shipped(k), equals, at_least))
    assert outcome.verdict == "REFUTED"
    wrong = counterexamples(outcome.theorem)[0]
    net = build(k)
    net.load_state_dict(load_file(shipped(k)))
    with torch.inference_mode():
        logits = net(torch.tensor([wrong.tokens]))[0, -1].double()
    assert int(logits.argmax()) != wrong.expected


@pytest.mark.parametrize(("name", "expression", "plain"), MECHANISMS, ids=IDS)
def test_every_mechanism_on_a_small_model(small_model, name, expression, plain):
    """216 inputs: what is proved is what torch counts (the smallest margins are far above float32's error)."""
    model = transformer(small_model)
    x = tokens("x", length=3, vocab=6)
    outcome = prove(Accuracy(model.logits[-1], equals=expression(x), over=x))
    from mechverify.graph.run import TorchRunner
    from mechverify.provers.accuracy.problem import AccuracyProblem

    problem = AccuracyProblem.of(Accuracy(model.logits[-1], equals=expression(x), over=x), "real")
    inputs = np.stack(np.meshgrid(*[np.arange(6)] * 3, indexing="ij"), -1).reshape(-1, 3)
    logits = TorchRunner(problem.claim.graph, problem.claim.weights, torch.float64)(problem.claim.output, inputs)
    expected = np.array([plain(row) for row in inputs.tolist()])
    right = int((logits.argmax(1).numpy() == expected).sum())
    assert outcome.theorem.right == (right, right)


def test_thresholds_on_either_side_of_the_exact_accuracy(small_model):
    exact = prove(claim(small_model, largest)).theorem.right.low
    assert prove(claim(small_model, largest, f"{exact}/216")).verdict == "PROVED"
    assert prove(claim(small_model, largest, f"{exact + 1}/216")).verdict == "REFUTED"
    assert prove(claim(small_model, largest, f"{2 * exact + 1}/432")).verdict == "REFUTED"


def test_best_bounds_go_on_to_enumerate(shipped):
    """Counting leaves a gap for a mechanism that the model doesn't compute; 8^4 inputs are few."""
    outcome = prove(claim(shipped(4), lambda x: kth_largest(2, *x), allowed=range(0, 64, 4)))
    assert "enumerate" in outcome.theorem.rules or outcome.theorem.right.low == outcome.theorem.right.high
    assert outcome.theorem.right.high - outcome.theorem.right.low <= 2


def test_no_time_is_unknown_or_bounded_and_never_wrong(shipped):
    outcome = prove(claim(shipped(10), largest, "0.999999"), time_limit=0.0)
    assert outcome.verdict in ("UNKNOWN", "REFUTED")
    outcome = prove(claim(shipped(10), largest, "0.9985"), time_limit=2.0)
    assert outcome.verdict in ("UNKNOWN", "PROVED")
    low, high = (v / 64**10 for v in outcome.theorem.right)
    assert low < 0.99902 and high > 0.99896  # 10^7 samples: 0.998998 +- 0.00001


def test_an_interrupt_keeps_what_was_proved(shipped):
    budget = Budget()
    calls = 0

    def interrupt(what, share):
        nonlocal calls
        calls += "cells" in what
        budget.interrupted = calls > 20

    outcome = prove(claim(shipped(5), largest, "0.9997"), budget=budget, progress=interrupt)
    assert "interrupted" in outcome.reasons
    assert outcome.verdict == "UNKNOWN" and 0 < outcome.theorem.right.low < outcome.theorem.right.high


def test_two_heads_are_enumerated_or_unknown_with_advice(tmp_path):
    from tests.models import as_bytes, random_weights

    path = tmp_path / "two.safetensors"
    path.write_bytes(as_bytes(random_weights(np.random.default_rng(0), vocab=5, length=3, heads=2)))
    assert prove(claim(path, largest)).theorem.rules == {"both": 1, "counterexample": 1, "enumerate": 1}
    path.write_bytes(as_bytes(random_weights(np.random.default_rng(0), vocab=30, length=6, heads=2, layers=2)))
    outcome = prove(claim(path, largest, "0.001"))
    assert outcome.verdict == "UNKNOWN" and any("mixes the tokens" in r for r in outcome.reasons)


def test_the_best_bounds_of_what_no_prover_takes_come_with_the_reason(tmp_path):
    from tests.models import as_bytes, random_weights

    path = tmp_path / "two.safetensors"
    path.write_bytes(as_bytes(random_weights(np.random.default_rng(0), vocab=30, length=6, heads=2, layers=2)))
    outcome = prove(claim(path, largest, "best"))
    assert outcome.verdict == "UNKNOWN" and outcome.theorem.right.low == 0
    assert any("mixes the tokens" in r for r in outcome.reasons) and not any(
        "--time-limit" in r for r in outcome.reasons
    )


def test_certificates_are_deterministic(small_model, shipped):
    for path in (small_model, shipped(4)):
        first, second = (prove(claim(path, largest)).certificate for _ in range(2))
        assert first == second


def test_a_strategy_is_all_that_is_tried(small_model):
    """brute, listed and fold agree with enumeration on a small model, each by its own rule."""
    found = {name: prove(claim(small_model, largest), strategy=name) for name in ("brute", "listed", "fold")}
    right = prove(claim(small_model, largest)).theorem.right
    assert {name: o.theorem.right for name, o in found.items()} == dict.fromkeys(found, right)
    rules = {name: list(o.theorem.rules) for name, o in found.items()}
    assert rules == {"brute": ["enumerate"], "listed": ["fold"], "fold": ["fold"]}


def test_a_strategy_that_does_not_fit_says_why(shipped):
    with pytest.raises(ClaimError, match=r"too many to run .*it needs: at most 2\^25 inputs"):
        prove(claim(shipped(10), largest), strategy="brute")
    with pytest.raises(ClaimError, match=r"not a short fold.*it needs: one layer, one head"):
        prove(claim(shipped(10), lambda x: sum(t * 64**i for i, t in enumerate(x))), strategy="fold")
    with pytest.raises(ClaimError, match=r"unknown; there are brute, "):
        prove(claim(shipped(4), largest), strategy="nothing")
