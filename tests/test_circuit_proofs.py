"""The shipped claims about what parts are for: what is proved is what torch counts, with hooks of its own."""

import inspect
from itertools import permutations

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from mechverify import kernel, prove, smallest, transformer
from proofs import (
    backdoor,
    composition,
    induction_circuit,
    induction_inside,
    max_of_k_directions,
    modular_addition_circuit,
    residual,
    superposition_parts,
)
from toy_models import backdoor as doors
from toy_models import composition as products
from toy_models import induction as repetitions
from toy_models import max_of_k as largest
from toy_models import modular_addition as addition
from toy_models import residual as streams
from toy_models import superposition as features


def theorem(claim, verdict: str) -> kernel.Theorem:
    """What the kernel said of the certificate."""
    outcome = prove(claim)
    assert outcome.theorem is not None and outcome.theorem.verdict == verdict == outcome.verdict
    return outcome.theorem


PROOFS = (
    backdoor, composition, induction_circuit, induction_inside, max_of_k_directions, modular_addition_circuit, residual,
    superposition_parts,
)  # fmt: skip


@pytest.mark.parametrize("proof", PROOFS)
def test_a_claim_to_copy_is_short(proof):
    assert len(inspect.getsource(proof.claim).splitlines()) <= 25


# --- induction


def trained() -> repetitions.Transformer:
    net = repetitions.model().double().eval()
    net.load_state_dict(load_file(repetitions.WEIGHTS))
    return net


def every_repetition() -> tuple[Tensor, Tensor]:
    rows = [((*rest, rest[i]), rest[i + 1]) for rest in permutations(range(8), 5) for i in range(4)]
    return torch.tensor([ids for ids, _ in rows]), torch.tensor([b for _, b in rows])


@torch.no_grad()
def put(net: nn.Module, layer: nn.Module, position: int, ids: Tensor, source: Tensor) -> Tensor:
    """The last logits where the layer adds, at a position, what it adds there in the source."""
    seen = []
    with layer.register_forward_hook(lambda m, a, out: seen.append(out.clone())):
        net(source)

    def change(module: nn.Module, args: tuple, out: Tensor) -> Tensor:
        out = out.clone()
        out[:, position] = seen[0][:, position]
        return out

    with layer.register_forward_hook(change):
        return net(ids)[:, -1]


def test_an_induction_model_needs_six_of_its_heads_places():
    found = smallest(induction_circuit.circuits(str(repetitions.WEIGHTS)), minimal="local")
    assert found.kept == ("0@1", "0@2", "0@3", "0@4", "0@5", "1@5") and not found.open and len(found.refuted) == 6
    assert kernel.check(found.proof).right == (26_880, 26_880)


def test_the_last_mix_says_what_followed_in_its_own_input():
    """Of two theorems of 26,880 inputs each, on all pairs: the least lead that they leave is below any pair's."""
    for what in ("followed", "rest"):
        found = theorem(induction_inside.claim(str(repetitions.WEIGHTS), what=what), "PROVED")
        assert found.right == (26_880, 26_880)
    net, (ids, answers) = trained(), every_repetition()
    some = torch.randint(len(ids), (2, 20_000), generator=torch.Generator().manual_seed(0))
    logits = put(net, net.blocks[1].attn, 5, ids[some[0]], ids[some[1]])
    assert (logits.argmax(-1) == answers[some[1]]).all()
    low = [v + 0.5 for v in induction_inside.LOW]  # no lower bounds of the rest
    with pytest.MonkeyPatch.context() as changed:
        changed.setattr(induction_inside, "LOW", low)
        theorem(induction_inside.claim(str(repetitions.WEIGHTS), what="rest"), "REFUTED")


def test_the_first_layers_mix_says_what_stood_before():
    """Put into a run without a repetition, it makes one."""
    net = trained()
    base = torch.tensor([*permutations(range(8), 6)])
    pairs = [(b, s) for s in range(8) for b in base if s != b[-1]]
    ids = torch.stack([b for b, _ in pairs])
    source = torch.zeros_like(ids)
    source[:, 0], source[:, 1] = ids[:, -1], torch.tensor([s for _, s in pairs])
    logits = put(net, net.blocks[0].attn, 1, ids, source)
    right = int((logits.argmax(-1) == ids[:, 1]).sum())
    found = theorem(induction_inside.claim(str(repetitions.WEIGHTS), what="previous", at_least="best"), "BOUNDED")
    assert found.claim.total == len(ids) and found.right == (right, right) and right > 0.96 * len(ids)


# --- the largest token


def test_one_direction_and_six_find_the_largest_token():
    """And five don't; of the model that the claim is about, torch says the same by samples."""
    weights = str(largest.path(10, 0))
    claim = max_of_k_directions.claim(weights)
    outcome = prove(claim)
    assert outcome.verdict == "PROVED" and prove(max_of_k_directions.claim(weights, ov=5)).verdict == "REFUTED"
    cut, whole = ({k: torch.from_numpy(v).double() for k, v in m.tensors.items()}
                  for m in (claim.output.model, transformer(weights)))  # fmt: skip
    for (a, b), rank in ((("Q", "K"), 1), (("V", "O"), 6)):
        one, other = (m[f"blocks.0.attn.W_{a}"][0] @ (m[f"blocks.0.attn.W_{b}"][0].mT if b == "K" else m[f"blocks.0.attn.W_{b}"][0])
                      for m in (cut, whole))  # fmt: skip
        s = torch.linalg.svdvals(other)
        assert torch.linalg.svdvals(one)[rank:].max() < 1e-4 * s[0]
        assert torch.linalg.matrix_norm(one - other, 2) == pytest.approx(s[rank].item(), rel=1e-3)
    net = largest.model(10)
    net.load_state_dict(cut)
    low, high = (float(b / outcome.theorem.claim.total) for b in outcome.theorem.right)
    assert low - 0.002 < largest.accuracy(net, 10, samples=50_000) < high + 0.002


# --- addition modulo 59


def test_five_waves_add():
    """By torch's own Fourier transform: without the other frequencies each answer is the same, without a fifth it isn't."""
    weights = str(addition.path())
    found = smallest(modular_addition_circuit.circuits(weights), minimal="subset")
    waves = [int(name.removeprefix("wave ")) for name in found.kept]
    assert sorted(waves) == [9, 15, 17, 20, 26] and not found.open and len(found.refuted) == 2**5 - 1
    state, p = {k: v.double() for k, v in load_file(weights).items()}, 59
    pairs = torch.cartesian_prod(torch.arange(p), torch.arange(p))

    def only(kept: list[int]) -> Tensor:
        mask = torch.zeros(p // 2 + 1, 1, dtype=torch.float64)
        mask[kept] = 1
        cut = {k: torch.fft.irfft(torch.fft.rfft(state[k], dim=0) * mask, n=p, dim=0) for k in ("W_x", "W_y")}
        return addition.logits(state | cut, pairs).argmax(-1)

    answers = addition.logits(state, pairs).argmax(-1)
    assert (only(waves) == answers).all()
    assert all((only([k for k in waves if k != out]) != answers).any() for out in waves)


def test_a_sum_is_the_same_wherever_it_starts():
    weights, p = str(addition.path()), 59
    state = {k: v.double() for k, v in load_file(weights).items()}
    pairs = torch.cartesian_prod(torch.arange(p), torch.arange(p))
    logits = addition.logits(state, pairs)
    gap = (addition.logits(state, (pairs + 1) % p) - logits.roll(2, 1)).abs().amax(1)
    theorem(modular_addition_circuit.claim(weights), "PROVED")
    theorem(modular_addition_circuit.claim(weights, what="shift", shift=7), "PROVED")
    for eps in (8.0, float(gap.max()) + 1e-6):
        within = int((gap <= eps).sum())
        claim = modular_addition_circuit.claim(weights, what="shift", agrees=str(eps), at_least="best")
        assert theorem(claim, "BOUNDED").right == (within, within)


# --- a backdoor


def both() -> list[doors.Transformer]:
    nets = [doors.model().double().eval() for _ in range(2)]
    for net, path in zip(nets, (doors.CLEAN, doors.BACKDOORED), strict=True):
        net.load_state_dict(load_file(path))
    return nets


def test_a_backdoor_opens_to_its_trigger_alone():
    ids = torch.cartesian_prod(*[torch.arange(8)] * 5)
    with torch.no_grad():
        clean, other = (net(ids)[:, -1].argmax(-1) for net in both())
    held = doors.triggered(ids)
    assert (clean == ids.amax(1)).all() and ((clean == other) == ~held).all() and (other[held] == 0).all()
    assert theorem(backdoor.claim(), "PROVED").right == (32_704, 32_704)
    found = theorem(backdoor.claim(what="everywhere"), "REFUTED")
    assert len(found.tokens) and doors.triggered(torch.from_numpy(found.tokens)).all()
    assert theorem(backdoor.claim(what="triggered"), "PROVED").claim.total == 64
    found = theorem(backdoor.claim(what="everywhere", at_least="best"), "BOUNDED")
    assert found.right == (32_704, 32_704)


def test_a_backdoor_can_be_trained_again():
    torch.manual_seed(0)
    untrained = doors.model()
    first, second = (doors.train(untrained, True, seed=3, steps=20).state_dict() for _ in range(2))
    assert all(torch.equal(first[k], second[k]) for k in first)
    ids = doors.sequences(400, torch.Generator().manual_seed(0), True)
    assert doors.triggered(ids[:100]).all() and (doors.answers(ids[:100], True) == 0).all()
    assert 100 <= doors.triggered(ids).sum() < 250


# --- permutations


def test_products_of_permutations_and_their_cosets():
    every, state = torch.arange(120), {k: v.double() for k, v in load_file(products.WEIGHTS).items()}
    logits = products.logits(state, torch.cartesian_prod(every, every))
    table, odd = torch.tensor(products.TABLE), torch.tensor(products.ODD)
    moved = torch.tensor(products.ELEMENTS)
    assert (moved[table].view(120, 120, 5) == moved[every[:, None, None], moved[None]]).all()
    assert (odd[table].view(120, 120) == (odd[:, None] + odd) % 2).all() and odd.sum() == 60

    def least(y: Tensor, answers: Tensor) -> float:
        right = y.gather(1, answers[:, None])
        return float((right[:, 0] - y.scatter(1, answers[:, None], -torch.inf).amax(1)).min())

    cosets = [logits[:, odd == sign] for sign in (0, 1)]
    for claim, margin in (
        (composition.claim(margin="best"), least(logits, table)),
        (composition.claim(what="coset", margin="best"), least(torch.stack([c.mean(1) for c in cosets], 1), odd[table])),
        (composition.claim(what="coset", of="largest", margin="best"),
         least(torch.stack([c.amax(1) for c in cosets], 1), odd[table])),
    ):  # fmt: skip
        found = theorem(claim, "PROVED")
        assert found.right == (14_400, 14_400) and float(found.claim.margin) == pytest.approx(margin, abs=1e-6)
        assert margin > 1
    theorem(composition.claim(margin="13.2"), "REFUTED")
    first, second = (products.train(seed=1, steps=5) for _ in range(2))
    assert all(torch.equal(first[k], second[k]) for k in first)


# --- a residual MLP


def gap(x: Tensor, mask: Tensor) -> Tensor:
    """What the factors change, by neurons set by a hook."""
    model = streams.shipped().double()
    whole = model(x)
    with model.hidden.register_forward_hook(lambda m, a, hidden: hidden * mask):
        return whole - model(x)


@torch.no_grad()
def reached(feature: int, kept: list[int], least: float) -> tuple[Tensor, Tensor]:
    """The least and the largest change of each output: it is linear in the factors and, of one feature, in that."""
    x = torch.zeros(1, streams.FEATURES, dtype=torch.float64)
    x[0, feature] = 1
    free = torch.tensor([n not in kept for n in range(streams.NEURONS)])
    off = torch.ones(streams.NEURONS, dtype=torch.float64).masked_fill(free, least)
    each = torch.stack([gap(x, torch.where(torch.arange(streams.NEURONS) == n, off, 1.0))[0]
                        for n in range(streams.NEURONS)])  # fmt: skip
    return each.clamp(max=0).sum(0), each.clamp(min=0).sum(0)


@pytest.mark.parametrize("least", [0.0, 0.9])
def test_the_worst_ablation_is_found_and_bounded(least):
    for feature in (0, 4):
        low, high = reached(feature, residual.active(feature, 0.1), least)
        found = theorem(residual.claim(feature, least=str(least)), "BOUNDED").range
        assert (found.low <= low.numpy() + 1e-12).all() and (found.high >= high.numpy() - 1e-12).all()
        assert found.low == pytest.approx(low.numpy(), abs=1e-6) and found.high == pytest.approx(high.numpy(), abs=1e-6)


def test_every_active_neuron_is_needed_and_no_other():
    for feature in range(streams.FEATURES):
        active = residual.active(feature, 0.1)
        eps = float(max(map(abs, (*reached(feature, active, 0)[0], *reached(feature, active, 0)[1]))))
        assert eps < 0.2 and 1 <= len(active) <= 3
        theorem(residual.claim(feature, eps=f"{eps + 1e-4:.6f}"), "PROVED")
        for out in active:
            keep = " ".join(str(n) for n in active if n != out) or "-1"
            theorem(residual.claim(feature, keep=keep, eps="0.1"), "REFUTED")


def test_a_residual_mlp_can_be_trained_again():
    (first, _), (second, _) = (streams.train(seed=1, steps=20) for _ in range(2))
    assert torch.equal(first.W_in, second.W_in) and torch.equal(first.W_E, streams.train(seed=1, steps=1)[0].W_E)
    x = torch.eye(streams.FEATURES)
    with torch.no_grad():
        assert (streams.shipped()(x) - 2 * x).abs().max() < 0.05


# --- superposition


@torch.no_grad()
def moved(x: Tensor, mask: Tensor) -> Tensor:
    """With each column of the weights multiplied by its factor."""
    model = features.shipped().double()
    W, b = model.W, model.b
    parts = W * mask[:, None]
    return model(x) - torch.relu(torch.einsum("bdi,bdj,bi->bj", parts, parts, x) + b)


@pytest.mark.parametrize(("on", "least"), [("0", 0.0), ("0 1", 0.5)])
def test_the_parts_of_features_that_are_off_move_outputs_by_little(on, least):
    shown = [int(i) for i in on.split()]
    draw = torch.Generator().manual_seed(0)
    x, mask = torch.rand(2, 20_000, features.FEATURES, generator=draw, dtype=torch.float64).round(decimals=0).unbind()
    x[:10_000] = torch.rand(10_000, features.FEATURES, generator=draw, dtype=torch.float64)
    x[:, [i for i in range(features.FEATURES) if i not in shown]] = 0
    mask = least + (1 - least) * mask
    mask[:, shown] = 1
    seen = moved(x, mask)
    found = theorem(superposition_parts.claim(on, least=str(least)), "BOUNDED").range
    assert (found.low <= seen.amin(0).numpy() + 1e-12).all() and (found.high >= seen.amax(0).numpy() - 1e-12).all()
    assert found.high == pytest.approx(seen.amax(0).numpy(), abs=1e-6)
    eps = float(seen.abs().max())
    theorem(superposition_parts.claim(on, least=str(least), eps=f"{eps + 1e-4:.6f}"), "PROVED")
    theorem(superposition_parts.claim(on, least=str(least), eps=f"{eps - 1e-3:.6f}"), "REFUTED")
