"""Rule `nested` of claims about ranges against brute force: entries of the second layer's patterns."""

from itertools import product

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from mechverify import Bounds, capture, prove, tokens
from mechverify.kernel import Rejected
from mechverify.kernel.core.errors import Unsupported
from mechverify.kernel.core.fields import Reader
from mechverify.kernel.nested.patterns import Looked
from mechverify.kernel.proof import prove as checked
from mechverify.provers.ranges.problem import RangeProblem
from tests.rounds import ROUNDS

VOCAB, LENGTH = 3, 4
SLACK = 1e-9


class TwoLayers(nn.Module):
    """Returns the second layer's patterns [heads, positions, positions]. `scale`: how sharply it attends."""

    def __init__(self, seed: int, heads: int = 1, scale: float = 1.0, causal: bool = True):
        super().__init__()
        rng = torch.Generator().manual_seed(seed)

        def random(*shape: int) -> nn.Parameter:
            return nn.Parameter(torch.randn(*shape, generator=rng, dtype=torch.float64) * scale, requires_grad=False)

        self.embed, self.place = nn.Embedding(VOCAB, 4), random(LENGTH, 4)
        self.embed.weight = random(VOCAB, 4)
        self.first = nn.ParameterList(random(4, 4) for _ in range(3))
        self.q, self.k, self.causal = random(heads, 4, 2), random(heads, 4, 2), causal

    def forward(self, ids: Tensor) -> Tensor:
        x = self.embed(ids) + self.place
        mask = torch.ones(LENGTH, LENGTH).tril() < 1
        q, k, v = (x @ w for w in self.first)
        scores = q @ k.transpose(-1, -2)
        x = x + (scores.masked_fill(mask, -torch.inf) if self.causal else scores).softmax(-1) @ v
        q, k = (torch.einsum("bid,hde->bhie", x, w) for w in (self.q, self.k))
        return (q @ k.transpose(-1, -2) * 0.7).masked_fill(mask, -torch.inf).softmax(-1)


def problem_of(module: nn.Module, entry: tuple[int, int, int], allowed=None, **settings) -> RangeProblem:
    model = capture(module.eval(), torch.zeros(1, LENGTH, dtype=torch.long))
    x = tokens("x", length=LENGTH, vocab=VOCAB, allowed=allowed or range(VOCAB))
    return RangeProblem.of(Bounds(model["output"][entry], over=x, **settings), "real")


def truth(module: nn.Module, entry: tuple[int, int, int], allowed) -> np.ndarray:
    inputs = torch.tensor([*product(*allowed)])
    return module(inputs)[:, *entry].numpy()


def proved(problem: RangeProblem, other: int | None):
    return checked(problem.job, Reader({"rule": "nested", "other": other}, "proof"))[0]


@pytest.mark.parametrize("seed", range(ROUNDS))
def test_every_entry_is_in_its_range(seed):
    """N9: of any entry, by any other position, in any part."""
    rng = np.random.default_rng(seed)
    heads, row = int(rng.integers(1, 3)), int(rng.integers(1, LENGTH))
    module = TwoLayers(seed, heads, float(rng.choice([0.1, 0.5, 1])), bool(rng.random() < 0.7))
    entry = int(rng.integers(heads)), row, int(rng.integers(LENGTH))
    allowed = [
        sorted(rng.choice(VOCAB, int(rng.integers(1, VOCAB + 1)), replace=False).tolist()) for _ in range(LENGTH)
    ]
    problem, values = problem_of(module, entry, allowed), truth(module, entry, allowed)
    for other in (None, *(i for i in range(row + 1) if i != entry[2])):
        found = proved(problem, other)
        assert found.low[0] <= values.min() + SLACK and found.high[0] >= values.max() - SLACK
        assert found.low[0] >= 0 and found.high[0] <= 1


@pytest.mark.parametrize("seed", range(ROUNDS // 4))
def test_of_one_sequence_the_entry_is_known(seed):
    """And a position that isn't attended to has nothing."""
    rng = np.random.default_rng(seed)
    module = TwoLayers(seed)
    allowed = [[int(t)] for t in rng.integers(0, VOCAB, LENGTH)]
    (value,) = truth(module, (0, 2, 1), allowed)
    found = proved(problem_of(module, (0, 2, 1), allowed), 0)
    assert abs(found.low[0] - value) < 1e-6 and value - SLACK <= found.high[0]
    nothing = proved(problem_of(module, (0, 2, 3), allowed), 0)
    assert nothing.low[0] == 0 and nothing.high[0] == 0


def test_ranges_are_found_and_false_thresholds_refuted():
    module, allowed = TwoLayers(5, scale=0.5), [range(VOCAB)] * LENGTH
    model = capture(module.eval(), torch.zeros(1, LENGTH, dtype=torch.long))
    x = tokens("x", length=LENGTH, vocab=VOCAB)
    values = truth(module, (0, 3, 3), allowed)
    outcome = prove(Bounds(model["output"][0, 3, 3], over=x))
    found = outcome.theorem.range
    assert found.low[0] <= values.min() <= values.max() <= found.high[0]
    assert 1 - found.low[0] <= 1.6 * (1 - values.min())
    below = prove(Bounds(model["output"][0, 3, 3], over=x, at_least=float(found.low[0]) - 1e-6))
    assert below.verdict == "PROVED"
    beyond = prove(Bounds(model["output"][0, 3, 3], over=x, at_least=float(values.min()) + 1e-6))
    assert beyond.verdict == "REFUTED"


@pytest.mark.parametrize("witness, said", [
    ({"rule": "nested"}, "other"), ({"rule": "nested", "other": 3}, "position 3"), ({"rule": "nested", "other": 1}, "position 1"),
    ({"rule": "nested", "other": -1}, "position -1"), ({"rule": "nested", "other": None, "more": 0}, "more"),
])  # fmt: skip
def test_a_witness_of_another_form_is_refused(witness, said):
    with pytest.raises(Rejected, match=said):
        checked(problem_of(TwoLayers(0), (0, 2, 1)).job, Reader(witness, "proof"))


@pytest.mark.parametrize("kind", ["sum", "first layer"])
def test_what_is_no_entry_of_a_pattern_is_refused(kind):
    model = capture(TwoLayers(0).eval(), torch.zeros(1, LENGTH, dtype=torch.long))
    x, pattern = tokens("x", length=LENGTH, vocab=VOCAB), model["output"]
    what = pattern[0, 2, 1] + pattern[0, 2, 0]
    if kind == "sum":
        with pytest.raises(Unsupported):
            Looked(RangeProblem.of(Bounds(what, over=x), "real").job)
    else:
        with pytest.raises(Unsupported):
            Looked(RangeProblem.of(Bounds(tokens_site(), over=x), "real").job)


def tokens_site():
    class OneLayer(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed = nn.Embedding(VOCAB, 4)

        def forward(self, ids: Tensor) -> Tensor:
            x = self.embed(ids)
            return (x @ x.transpose(-1, -2)).softmax(-1)

    torch.manual_seed(0)
    return capture(OneLayer().eval(), torch.zeros(1, LENGTH, dtype=torch.long))["output"][2, 1]
