"""Bounds of captured modules, from the claim to the checked certificate."""

from fractions import Fraction

import numpy as np
import pytest
import torch
from torch import nn

from mechverify import Bounds, ball, box, capture, prove, tokens
from mechverify.claims import ClaimError
from mechverify.kernel import Rejected, check
from mechverify.kernel.core import container
from mechverify.provers.base import Budget
from mechverify.provers.ranges import refute


class Attention(nn.Module):
    """Two heads over four positions, layer norm, and an MLP; read at the last position."""

    def __init__(self):
        super().__init__()
        self.attn = nn.MultiheadAttention(8, 2, batch_first=True)
        self.norm = nn.LayerNorm(8)
        self.mlp = nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 5))

    def forward(self, x):
        return self.mlp(self.norm(x + self.attn(x, x, x, need_weights=False)[0]))[:, -1]


class Mixed(nn.Module):
    """Tokens whose embedding is perturbed by a real input."""

    def __init__(self):
        super().__init__()
        self.embed, self.out = nn.Embedding(6, 4), nn.Linear(4, 3)

    def forward(self, ids, shift):
        return self.out(torch.tanh(self.embed(ids) + shift).sum(1))


def seeded(make):
    torch.manual_seed(0)
    return make().eval()


def sampled(module, low, high, count=4_000):
    points = torch.rand(count, *low.shape, dtype=torch.float64)
    points[: count // 2].round_()
    with torch.inference_mode():
        return module.double()(low + points * (high - low)).numpy()


def mlp():
    return nn.Sequential(nn.Linear(3, 12), nn.ReLU(), nn.Linear(12, 12), nn.Tanh(), nn.Linear(12, 2))


@pytest.mark.parametrize("make, shape", [(mlp, (3,)), (Attention, (4, 8))])
def test_the_range_holds_every_sample_and_is_not_far_from_what_is_reached(make, shape):
    module = seeded(make)
    centre = torch.randn(shape, dtype=torch.float64)
    outcome = prove(Bounds(capture(module, centre[None].float())["output"], over=ball(centre, 0.05)))
    found, attained = outcome.theorem.range, outcome.theorem.attained
    values = sampled(module, centre - 0.05, centre + 0.05)
    assert outcome.verdict == "BOUNDED" and outcome.theorem.axioms == ("ieee754", "capture")
    assert (found.low <= values).all() and (values <= found.high).all()
    reached = attained.low.max(0) - attained.high.min(0)
    assert ((found.high - found.low) < 1.5 * reached).all()


def question(at_most, seed=0):
    module = seeded(mlp)
    model = capture(module, torch.zeros(1, 3))
    return module, Bounds(model["output"], over=box(-torch.ones(3), torch.ones(3)), at_most=at_most)


def test_thresholds_are_proved_by_branching_and_refuted_with_a_point():
    module, _ = question(None)
    top = float(sampled(module, -torch.ones(3).double(), torch.ones(3).double(), 50_000).max())
    proved = prove(question(top + 0.1)[1])
    assert proved.verdict == "PROVED" and proved.theorem.rules["split"] > 0
    assert (proved.theorem.range.high <= top + 0.1).all()
    refuted = prove(question(top - 0.01)[1])
    assert refuted.verdict == "REFUTED"
    with torch.inference_mode():
        value = module.double()(torch.from_numpy(refuted.theorem.points)).numpy()
    assert value.max() > top - 0.01


def test_a_search_that_is_stopped_leaves_valid_bounds():
    module, _ = question(None)
    top = float(sampled(module, -torch.ones(3).double(), torch.ones(3).double(), 50_000).max())
    outcome = prove(question(top + 0.02)[1], budget=Budget(interrupted=True))
    assert outcome.verdict == "UNKNOWN" and check(outcome.certificate).verdict == "BOUNDED"
    assert outcome.theorem.range.high.max() > top and "interrupted" in " ".join(outcome.reasons)
    best = outcome.theorem.attained.low.max()  # what replay reached stands beside: the best of what was seen
    assert top - 0.5 < best <= top + 0.02 < outcome.theorem.range.high.max()
    assert (
        "; reached " in dict(outcome.statement.rows())["entry 0"] and "no input that was replayed" in outcome.reasons[0]
    )
    assert len(outcome.theorem.points) and not outcome.theorem.broken.any()


def test_what_the_kernel_shows_of_an_open_threshold_in_the_end_counts(monkeypatch):
    """Inputs that the search gave no look break the threshold: that is no UNKNOWN with such a value beside it."""
    monkeypatch.setattr(refute, "TRIED", 0)
    module, _ = question(None)
    top = float(sampled(module, -torch.ones(3).double(), torch.ones(3).double(), 50_000).max())
    outcome = prove(question(top - 0.01)[1], method="linear", solver=False)
    assert outcome.verdict == "REFUTED" and outcome.theorem.broken.any()


def test_tokens_and_real_inputs_mix():
    module = seeded(Mixed)
    model = capture(module, torch.zeros(1, 3, dtype=torch.long), torch.zeros(1, 3, 4))
    over = ball(np.zeros((3, 4)), 0.01).with_tokens(tokens("x", length=3, vocab=6, allowed=[[0, 1], [2], [3, 4, 5]]))
    found = prove(Bounds(model["output"], over=over)).theorem.range
    values = []
    with torch.inference_mode():
        for a in (0, 1):
            for c in (3, 4, 5):
                ids = torch.tensor([[a, 2, c]]).expand(200, 3)
                values.append(module.double()(ids, (torch.rand(200, 3, 4).double() * 2 - 1) * 0.01).numpy())
    values = np.concatenate(values)
    assert (found.low <= values).all() and (values <= found.high).all()


def test_a_linear_function_of_tokens_is_bounded_exactly():
    """The embedding is read twice: its two forms belong to one token."""

    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed, self.a, self.b = nn.Embedding(7, 5), nn.Linear(5, 2), nn.Linear(5, 2)

        def forward(self, ids):
            x = self.embed(ids)
            return self.a(x).sum(1) - self.b(x).sum(1)

    module = seeded(Twice)
    model = capture(module, torch.zeros(1, 3, dtype=torch.long))
    found = prove(Bounds(model["output"], over=tokens("x", length=3, vocab=7))).theorem.range
    with torch.inference_mode():
        every = module.double()(torch.cartesian_prod(*[torch.arange(7)] * 3)).numpy()
    assert np.allclose(found.low, every.min(0), rtol=0, atol=1e-12) and (found.low <= every.min(0)).all()
    assert np.allclose(found.high, every.max(0), rtol=0, atol=1e-12) and (found.high >= every.max(0)).all()


def test_thresholds_are_compared_exactly():
    class Sum(nn.Module):
        def forward(self, x):
            return x.sum(-1, keepdim=True)

    model, over = capture(Sum().eval(), torch.zeros(1, 2)), box([0.0, 0.0], [0.25, 0.25])
    assert prove(Bounds(model["output"], over=over, at_most=Fraction(1, 2) + Fraction(1, 10**12))).verdict == "PROVED"
    assert prove(Bounds(model["output"], over=over, at_most=Fraction(1, 2) - Fraction(1, 10**12))).verdict == "REFUTED"
    tie = prove(Bounds(model["output"], over=over, at_most=Fraction(1, 2)))
    assert tie.verdict in ("PROVED", "UNKNOWN")  # true, but rounding may leave it open; never refuted


def test_certificates_of_bounds_fail_closed():
    _, claim = question(None)
    certificate = prove(claim).certificate
    contents = container.unpack(certificate)
    text = contents["certificate.json"].decode()
    theorem = check(certificate)
    tighter = float(np.nextafter(theorem.range.high[0], -np.inf) - 1e-6).hex()
    for old, new, message in [
        (float(theorem.range.high[0]).hex(), tighter, "tighter than those proved"),
        (',"capture"', "", "needs the axioms"),
        ('"verdict":"BOUNDED"', '"verdict":"PROVED"', "without a threshold can't be PROVED"),
        ('"version":5', '"version":2', "isn't written in version 2"),
        ('"tanh"', '"relu"', "tighter than those proved"),
    ]:
        assert old in text
        changed = container.pack({**contents, "certificate.json": text.replace(old, new, 1).encode()})
        with pytest.raises(Rejected, match=message):
            check(changed)


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda m: Bounds(m["outptu"], over=ball(np.zeros(3), 1)), "no site 'outptu'"),
        (lambda m: Bounds(m["output"], over=ball(np.zeros(4), 1)), "reads real inputs of shapes"),
        (lambda m: Bounds(m["output"], over=tokens("x", length=2, vocab=3)), "reads real inputs of shapes"),
        (lambda m: Bounds(m["output"], over=ball(np.zeros(3), 1), at_most=[1, 2, 3]), "one for each entry"),
        (lambda m: Bounds(m["output"], over=ball(np.zeros(3), 1), at_most=float("nan")), "not a number that is finite"),
        (lambda m: Bounds(m["output"], over=ball(np.zeros(3), -1)), "not negative"),
        (lambda m: Bounds(m["output"], over=box([0, 0, 1], [1, 1, 0])), "low <= high"),
        (lambda m: Bounds(m["output"][5], over=ball(np.zeros(3), 1)), "the site has shape"),
    ],
)
def test_what_is_wrong_with_a_claim_is_said(make, message):
    model = capture(seeded(mlp), torch.zeros(1, 3))
    with pytest.raises(ClaimError, match=message):
        make(model)


def test_scalar_parameters_and_flipped_tokens():
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale, self.embed = nn.Parameter(torch.tensor(2.0)), nn.Embedding(3, 2)

        def forward(self, ids):
            return self.scale * self.embed(ids.flip(1))

    module = seeded(Scaled)
    model = capture(module, torch.zeros(1, 2, dtype=torch.long))
    over = tokens("x", length=2, vocab=3, allowed=[[0, 1, 2], [1]])
    found = prove(Bounds(model["output"][0], over=over)).theorem.range
    value = 2 * module.embed.weight.detach().double().numpy()[1]  # row 0 shows the last token
    assert np.allclose(found.low, value, rtol=0, atol=1e-12) and np.allclose(found.high, value, rtol=0, atol=1e-12)


def test_a_saturated_softmax_has_finite_bounds():
    class Steep(nn.Module):
        def forward(self, x):
            return torch.softmax(1000 * x, -1)

    model = capture(Steep().eval(), torch.zeros(1, 3))
    found = prove(Bounds(model["output"], over=ball(torch.zeros(3), 1.0))).theorem.range
    assert (found.low <= 0).all() and (found.low > -1e-9).all() and (found.high >= 1).all() and (found.high < 1.1).all()
