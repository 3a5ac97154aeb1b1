"""The shipped claims about the inside of networks: their certificates are made again, and say what brute force says."""

from itertools import pairwise, permutations
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from sympy import Eq, Mod, Piecewise

from benchmarks.mechanisms import (
    SUM,
    VOTES,
    all_logits,
    false_sums,
    false_votes,
    falsify_all,
    kept,
    next_leads,
    pairs,
    scores,
)
from mechverify import Accuracy, count, distinct, kernel, pair_mlp, prove, tokens, transformer
from mechverify.claims import ClaimError
from mechverify.graph.adapters import load
from mechverify.graph.run import TorchRunner
from mechverify.kernel import Rejected
from mechverify.kernel.core.architectures import ARCHITECTURES
from mechverify.kernel.core.graph import Graph
from mechverify.provers.accuracy.margin import largest_margin
from mechverify.provers.accuracy.problem import AccuracyProblem
from mechverify.provers.base import Budget
from proofs import (
    induction,
    majority,
    max_of_k_inside,
    modular_addition,
    modular_addition_inside,
    palindrome,
    running_sum,
    running_sum_inside,
    sorted_list,
    superposition,
)
from toy_models import at_every_position
from toy_models import induction as repetitions
from toy_models import majority as votes
from toy_models import modular_addition as addition
from toy_models import running_sum as sums
from toy_models.superposition import shipped, train

ROOT = Path(__file__).parent.parent
OWN, MAX = (
    str(ROOT / "toy_models" / "weights" / f"{name}.safetensors") for name in ("add_mod_59_seed0", "max_of_4_seed0")
)


def theorem(claim, verdict: str = "BOUNDED", method: str = "branching") -> kernel.Theorem:
    outcome = prove(claim, method=method)
    found = kernel.check(outcome.certificate, limit=float("inf"))
    assert found.verdict == verdict == outcome.verdict
    return found


@pytest.mark.parametrize(
    "family", ["induction", "max_of_k", "running_sum", "majority", "modular_addition", "sorted_list", "superposition"]
)
def test_a_claim_to_copy_is_short(family):
    assert len((ROOT / "proofs" / f"{family}.py").read_text().splitlines()) < 40


def test_every_repetition_is_completed():
    """Two layers, on the sequences that have one; the network by itself says so too, and a wrong neighbour is refuted."""
    net = repetitions.model()
    net.load_state_dict(load_file(repetitions.WEIGHTS))
    inputs = [(*rest, rest[i]) for rest in permutations(range(8), 5) for i in range(4)]
    answers = [rest[i + 1] for rest in permutations(range(8), 5) for i in range(4)]
    with torch.no_grad():
        right = net(torch.tensor(inputs))[:, -1].argmax(-1) == torch.tensor(answers)
    found = theorem(induction.claim(str(repetitions.WEIGHTS)), "PROVED")
    assert found.right == (right.sum(), right.sum()) == (26_880, 26_880) and found.claim.total == 8 * 7 * 6 * 5 * 4 * 4
    claim = induction.claim(str(repetitions.WEIGHTS))
    *rest, last = claim.over
    before = Piecewise(*((a, Eq(b, last)) for a, b in pairwise(rest)), (0, True))
    given = [distinct(*rest), Eq(count(last, *rest[1:]), 1)]
    false = Accuracy(claim.output, equals=before, over=claim.over, given=given, at_least="1/2")
    assert prove(false).verdict == "REFUTED"


def test_addition_is_right_on_all_pairs_by_the_margin():
    values = all_logits(OWN)
    p = len(values)
    a, b = np.mgrid[:p, :p]
    d = np.arange(1, p)
    lead = (
        values[a, b, (a + b) % p][..., None] - values[a[..., None], b[..., None], (a[..., None] + b[..., None] + d) % p]
    )
    found = theorem(modular_addition.claim(OWN), "PROVED")
    assert found.range.low == pytest.approx(lead.min((0, 1)), abs=1e-10)
    assert (found.range.low <= lead.min((0, 1)) + 1e-13).all() and found.range.low.min() > 11


@pytest.mark.parametrize("semantics", ["real", "float32"])
def test_addition_is_right_whatever_the_rounding(semantics):
    claim = modular_addition.claim(OWN, what="accuracy")
    outcome = prove(claim, semantics=semantics)
    found = kernel.check(outcome.certificate)
    assert found.verdict == "PROVED" and found.right == (59**2, 59**2) and found.claim.architecture == "pair_mlp"
    x = claim.over
    wrong = prove(Accuracy(claim.output, equals=Mod(x[0] - x[1], 59), over=x, at_least="1/2"), semantics=semantics)
    assert wrong.verdict == "REFUTED" and kernel.check(wrong.certificate).right.high < 59**2 / 2


def test_a_network_of_two_tokens_is_what_the_module_computes():
    network, module = pair_mlp(OWN), load(OWN).module.double()
    graph = Graph(2, tuple(range(59)))
    logits = ARCHITECTURES["pair_mlp"](graph, network.tensors)["logits"]
    ids = np.random.default_rng(0).integers(59, size=(200, 2))
    torch.testing.assert_close(
        TorchRunner(graph, network.tensors, torch.float64)(logits, ids), module(torch.from_numpy(ids))
    )
    state = dict(network.tensors)
    for broken, length in ((state | {"b": np.zeros(3)}, 2), (state | {"W": state["W"].T[:3]}, 2), (state, 3)):
        with pytest.raises(Rejected, match="don't fit the architecture"):
            ARCHITECTURES["pair_mlp"](Graph(length, (0, 1)), broken)
    x = tokens("x", length=2, vocab=59)
    with pytest.raises(ClaimError, match=r"read one of: embed_x, embed_y, pre, hidden, logits"):
        Accuracy(network["logits"][-1], equals=x[0], over=x)


def test_embeddings_are_waves():
    table = load(OWN).module.double().W_x.detach().numpy().T
    off = np.stack([row - kept(row) for row in table])
    found = theorem(modular_addition_inside.claim(OWN, what="embedding"))
    assert found.range.low == pytest.approx(off.min(1), abs=1e-10)
    assert found.range.high == pytest.approx(off.max(1), abs=1e-10)


def test_scores_grow_and_values_are_copied():
    module = load(MAX, normalization=None).module.double()
    table = scores(module, 0, 3, 0, 64)
    assert theorem(max_of_k_inside.claim(MAX)).range.low == pytest.approx(np.diff(table, axis=1).min(0), abs=1e-10)
    theorem(max_of_k_inside.claim(MAX, what="copies", least=8, at_least="2.6"), "PROVED")
    theorem(max_of_k_inside.claim(MAX, what="copies", at_least="2.6"), "REFUTED")  # not of the smallest tokens


def test_interference_is_what_the_corner_shows():
    for i, j, seen in pairs():
        if i < 2:
            high = float(theorem(superposition.claim(i, str(j))).range.high[0])
            assert seen <= high <= seen + 1e-9


def test_training_is_deterministic():
    first, second = (addition.train(7, seed=1, steps=50) for _ in range(2))
    assert all(torch.equal(first[k], second[k]) for k in first)
    state = load_file(addition.path())
    assert addition.accuracy(state) == 1 and {k: v.shape for k, v in state.items()} == {
        k: v.shape for k, v in addition.train(steps=1).items()
    }
    (one, _), (other, _) = (train(seed=1, steps=20) for _ in range(2))
    assert torch.equal(one.W, other.W) and shipped().W.shape == one.W.shape


FOLDS = {"sum": (running_sum.claim, SUM, 11, 7), "majority": (majority.claim, VOTES, 3, 13)}


@pytest.mark.parametrize("semantics", ["real", "float32"])
@pytest.mark.parametrize("name", FOLDS)
def test_a_fold_through_neurons_is_right_on_every_input(name, semantics):
    claim, weights, vocab, length = FOLDS[name]
    outcome = prove(claim(weights, length=length), semantics=semantics)
    found = kernel.check(outcome.certificate)
    assert found.verdict == "PROVED" and found.right == (vocab**length, vocab**length) and found.rules == {"fold": 1}
    assert found.claim.architecture == "transformer_relu"


@pytest.mark.parametrize("name", FOLDS)
def test_the_fold_finds_the_smallest_margin(name):
    claim, weights, _, _ = FOLDS[name]
    for n in (1, 2, 3):
        problem = AccuracyProblem.of(claim(weights, length=n), "real")
        least = falsify_all(problem)  # rounded to a grid of 6e-8
        margin = float(largest_margin(problem, least, Budget()))
        assert 0.99 * least <= margin <= least + 1e-7
        assert prove(claim(weights, length=n, margin=str(margin + 1e-4 * least))).verdict == "REFUTED"
    found = prove(claim(weights, length=3, margin="best")).theorem
    assert float(found.claim.margin) == pytest.approx(margin, rel=1e-6) and found.verdict == "PROVED"


def test_false_claims_about_folds_are_refuted():
    planted = [*false_sums(SUM, []), *false_votes([])]
    assert len(planted) >= 60
    for name, claim in planted[::9]:
        outcome = prove(claim)
        assert outcome.verdict == "REFUTED" and kernel.check(outcome.certificate).verdict == "REFUTED", name


@pytest.mark.parametrize("task", [sums.TASK, votes.TASK], ids=["sum", "majority"])
def test_the_tasks_of_folds_can_be_trained_again(task):
    first, second = (at_every_position.train(task, seed=3, steps=30).state_dict() for _ in range(2))
    assert all(torch.equal(first[k], second[k]) for k in first)
    net = task.model()
    net.load_state_dict(load_file(task.weights))
    assert min(at_every_position.accuracy(task, net, samples=5_000)) == 1.0
    network = FOLDS["sum" if task is sums.TASK else "majority"][0](str(task.weights), length=6).output.model
    ids = task.sequences(50, torch.Generator().manual_seed(0))[:, :6].numpy()
    graph = Graph(6, tuple(range(network.d_vocab)))
    logits = ARCHITECTURES["transformer_relu"](graph, network.tensors)["logits"]
    with torch.inference_mode():
        expected = net.double()(torch.from_numpy(ids))
    torch.testing.assert_close(TorchRunner(graph, network.tensors, torch.float64)(logits, ids), expected)


def test_an_mlp_needs_its_activation():
    with pytest.raises(ClaimError, match='act_fn="relu"'):
        transformer(SUM)
    with pytest.raises(ClaimError, match="known is 'relu'"):
        transformer(SUM, act_fn="gelu")


SORTED = ROOT.parent / "shared" / "models" / "arena-sorted-list.safetensors"


@pytest.mark.skipif(not SORTED.exists(), reason="needs ../shared/models/arena-sorted-list.safetensors")
def test_a_head_of_the_sorted_list_looks_up():
    claim = sorted_list.claim(str(SORTED), least=40, length=4)
    module = load(SORTED).module.double()
    leads = next_leads(module, 14, 4)
    found = theorem(claim)
    assert float(found.range.low.min()) == pytest.approx(min(leads[q] for q in range(40, 46)), abs=1e-9)


PALINDROME = SORTED.with_name("arena-palindrome.safetensors")


@pytest.mark.skipif(not PALINDROME.exists(), reason="needs ../shared/models/arena-palindrome.safetensors")
def test_a_palindrome_is_rejected_that_no_sample_shows(monkeypatch):
    """Of 31^10, by a model that accepts all that are sampled. Few samples do: the search goes on from the least leads."""
    from mechverify.provers.accuracy import falsify

    monkeypatch.setattr(falsify, "SAMPLES", 2**11)
    monkeypatch.setattr(falsify, "STARTS", 16)
    found = theorem(palindrome.claim(PALINDROME), "REFUTED")
    assert found.claim.total == 31**10 and len(found.wrong)
    assert all((ids[1:11] == ids[20:10:-1]).all() for ids in found.wrong)
    module, half = load(PALINDROME).module, torch.randint(31, (500, 10), generator=torch.Generator().manual_seed(0))
    marks = torch.full((500, 1), 31)
    with torch.no_grad():
        assert (module(torch.from_numpy(found.wrong))[:, -1].argmax(-1) == 0).all()
        assert (module(torch.cat([marks, half, half.flip(1), marks + 1], 1))[:, -1].argmax(-1) == 1).all()


def test_a_sum_is_found_by_uniform_attention():
    """Each lemma holds on all inputs, and what follows from the first one is nearly what inputs reach; without it the
    range is exact, where inputs are so few."""
    network = load(SUM, act_fn="relu", normalization=None).module.double()
    values = [*range(6), *range(-5, 0)]
    part = running_sum_inside.AtTheLastPosition(network, values)
    ids = torch.cartesian_prod(*[torch.arange(11)] * 3)
    with torch.no_grad():
        seen = {}
        for name in ("pattern", "moved", "total"):
            getattr(part, name).register_forward_hook(lambda _, __, out, name=name: seen.__setitem__(name, out))
        logits = part(ids)
        assert torch.allclose(logits, network(ids)[:, -1], rtol=0, atol=1e-9)
    c, d = running_sum_inside.affine(network, values, 3)
    off = (seen["moved"] - c - d * seen["total"].double()).abs().max().item()
    eps = {}
    for lemmas in ("yes", "no"):
        found = theorem(running_sum_inside.claim(SUM, what="moved", length=3, lemmas=lemmas), method="linear").range
        eps[lemmas] = float(max(-found.low.min(), found.high.max()))
        assert off <= eps[lemmas] <= 3 * off
    assert eps["no"] == pytest.approx(off, rel=1e-6)
    found = theorem(running_sum_inside.claim(SUM, what="attention", length=3)).range
    assert (seen["pattern"] - 1 / 3).abs().max().item() <= max(-found.low.min(), found.high.max()) < 0.01


@pytest.mark.parametrize("what", ["negative", "zero"])
def test_the_sign_follows_from_what_attention_moves(what):
    found = theorem(running_sum_inside.claim(SUM, what=what, length=2), "PROVED")
    assert found.rules["cut"] == 1 and len(found.lemmas) == 1
