"""Rule `ratios` of claims about ranges against brute force: what attention gives, its patterns, and what is made of
both, whatever the witness says."""

from itertools import product
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from mechverify import Bounds, capture, prove, tokens
from mechverify.kernel import Rejected
from mechverify.kernel.core.evaluate import Evaluation
from mechverify.kernel.core.fields import Reader
from mechverify.kernel.core.float64 import Float64
from mechverify.kernel.core.semantics import Real
from mechverify.kernel.proof import prove as checked
from mechverify.kernel.ratios.ranges import attending
from mechverify.provers.ranges.problem import RangeProblem
from tests.rounds import ROUNDS

VOCAB, LENGTH = 4, 3
SLACK = 1e-9


class Attention(nn.Module):
    """`heads` read at one position of three; what it returns is `read` of their patterns and results."""

    def __init__(self, seed: int, heads: int = 1, scale: float = 1.5, read: str = "logits", position: int = -1):
        super().__init__()
        rng = torch.Generator().manual_seed(seed)

        def random(*shape: int) -> nn.Parameter:
            return nn.Parameter(torch.randn(*shape, generator=rng, dtype=torch.float64) * scale, requires_grad=False)

        self.embed, self.place = nn.Embedding(VOCAB, 4), random(LENGTH, 4)
        self.embed.weight = random(VOCAB, 4)
        self.q, self.k, self.v = random(heads, 4, 2), random(heads, 4, 2), random(heads, 4, 5)
        self.direct, self.read, self.position = random(4, 5), read, position

    def forward(self, ids: Tensor) -> Tensor:
        x = self.embed(ids) + self.place
        q = torch.einsum("bd,hde->bhe", x[:, self.position], self.q)
        k, v = (torch.einsum("bid,hde->bhie", x, w) for w in (self.k, self.v))
        pattern = torch.einsum("bhe,bhie->bhi", q, k).softmax(-1)
        out = torch.einsum("bhi,bhie->be", pattern, v) + x[:, self.position] @ self.direct
        match self.read:
            case "pattern":
                return pattern[:, 0]
            case "others":
                return 1 - pattern[:, 0, 1] - pattern[:, -1, 0] / 2
            case "both":
                return torch.cat([out, pattern[:, -1], pattern[:, 0] - out[:, :3]], -1)
        return out


def problem_of(module: nn.Module, allowed=None, **settings) -> RangeProblem:
    model = capture(module.eval(), torch.zeros(1, LENGTH, dtype=torch.long))
    x = tokens("x", length=LENGTH, vocab=VOCAB, allowed=allowed or range(VOCAB))
    return RangeProblem.of(Bounds(model["output"], over=x, **settings), "real")


def every(problem: RangeProblem) -> np.ndarray:
    return np.array([*product(*map(sorted, problem.domain.tokens))])


def truth(module: nn.Module, inputs: np.ndarray) -> np.ndarray:
    return module(torch.from_numpy(inputs)).reshape(len(inputs), -1).numpy()


def hexadecimal(values) -> list:
    return [float(v).hex() if np.isfinite(v) else None for v in values]


def leaf(low, high, points=None) -> dict:
    return {"rule": "ratios", "trials": {"low": hexadecimal(low), "high": hexadecimal(high)}, "points": points}


def proved(problem: RangeProblem, witness: dict):
    return checked(problem.job, Reader(witness, "proof"))[0]


READ = ["logits", "pattern", "others", "both"]


@pytest.mark.parametrize("seed", range(ROUNDS))
def test_every_value_is_in_the_range_whatever_the_witness_says(seed):
    """R8: trial values near, far and beyond; points anywhere in the part; some ends not asked for."""
    rng = np.random.default_rng(seed)
    module = Attention(
        seed, int(rng.integers(1, 4)), float(rng.choice([0.3, 1, 2])), READ[seed % 4], int(rng.integers(3))
    )
    allowed = [
        sorted(rng.choice(VOCAB, int(rng.integers(1, VOCAB + 1)), replace=False).tolist()) for _ in range(LENGTH)
    ]
    problem = problem_of(module, allowed)
    values = truth(module, every(problem))
    queries = allowed[module.position]
    for _ in range(6):
        spread = rng.choice([0, 1e-9, 0.1, 10]) * rng.normal(size=(2, values.shape[1]))
        low, high = values.min(0) + spread[0], values.max(0) + spread[1]
        low[rng.random(len(low)) < 0.2] = -np.inf
        ends = int(np.isfinite(low).sum()) + len(high)
        points = None
        if rng.random() < 0.7:
            points = [[[q if i == module.position % LENGTH else int(rng.choice(t)) for i, t in enumerate(allowed)]
                       for _ in range(ends)] for q in queries]  # fmt: skip
        try:
            found = proved(problem, leaf(low, high, points))
        except Rejected as error:  # scores that differ by hundreds
            assert "known to be positive" in str(error)
            continue
        assert (found.low <= values.min(0) + SLACK).all() and (found.high >= values.max(0) - SLACK).all()
        assert (found.low <= np.where(np.isfinite(low), low, -np.inf)).all() and (found.high >= high).all()


@pytest.mark.parametrize("seed", range(ROUNDS // 2))
@pytest.mark.parametrize("read", ["logits", "pattern"])
def test_of_one_head_what_is_reached_is_proved(seed, read):
    module = Attention(seed, read=read)
    problem = problem_of(module)
    values = truth(module, every(problem))
    low, high = values.min(0) - SLACK, values.max(0) + SLACK
    found = proved(problem, leaf(low, high))
    assert (found.low >= low - SLACK).all() and (found.high <= high + SLACK).all()


@pytest.mark.parametrize("read", READ)
def test_a_pattern_is_a_mean_of_unit_vectors(read):
    """The node that reads means has the value of the one that reads the pattern, on every input."""
    problem = problem_of(Attention(0, 2, read=read))
    graph, claim, inputs = problem.job.further(), problem.claim, every(problem)
    other = attending(graph, claim.output)
    run = Evaluation(graph, claim.weights, Real(Float64()), inputs, lambda j: inputs[:, j])
    before, after = run[claim.output], run[other]
    assert (np.abs(before.mid - after.mid) <= before.rad + after.rad).all() and np.abs(after.rad).max() < SLACK
    if read != "logits":
        assert other != claim.output


@pytest.mark.parametrize("read, heads", [("logits", 1), ("logits", 3), ("pattern", 2), ("both", 2)])
def test_ranges_are_found_and_false_thresholds_refuted(read, heads):
    module = Attention(1, heads, 0.5, read)
    model = capture(module.eval(), torch.zeros(1, LENGTH, dtype=torch.long))
    x = tokens("x", length=LENGTH, vocab=VOCAB)
    values = truth(module, np.array([*product(range(VOCAB), repeat=LENGTH)]))
    least, most = values.min(0), values.max(0)
    outcome = prove(Bounds(model["output"], over=x))
    assert outcome.theorem.rules["ratios"] >= 1
    found = outcome.theorem.range
    assert (found.low <= least + SLACK).all() and (found.high >= most - SLACK).all()
    assert (found.high - found.low <= 1.2 * (most - least) + SLACK).all()
    for at_least, at_most, verdict in ((least - 1, most + 1, "PROVED"), (least + 1e-6, None, "REFUTED"),
                                       (None, most - 1e-6, "REFUTED")):  # fmt: skip
        settings = {k: v.tolist() for k, v in (("at_least", at_least), ("at_most", at_most)) if v is not None}
        assert prove(Bounds(model["output"], over=x, **settings)).verdict == verdict


def test_conditions_are_left_out_of_the_bound():
    """It holds of more sequences than the claim speaks of."""
    module = Attention(2)
    model = capture(module.eval(), torch.zeros(1, LENGTH, dtype=torch.long))
    x = tokens("x", length=LENGTH, vocab=VOCAB)
    outcome = prove(Bounds(model["output"], over=x, given=[x[0] >= x[1]]))
    inputs = np.array([ids for ids in product(range(VOCAB), repeat=LENGTH) if ids[0] >= ids[1]])
    values, found = truth(module, inputs), outcome.theorem.range
    assert (found.low <= values.min(0) + SLACK).all() and (found.high >= values.max(0) - SLACK).all()


GOOD = SimpleNamespace(low=[0.0] * 5, high=[1.0] * 5)
POINTS = [[[0, 0, q]] * 10 for q in range(VOCAB)]


@pytest.mark.parametrize("witness, said", [
    (leaf([0.0] * 4, GOOD.high), "low"), (leaf(GOOD.low, [1.0] * 6), "high"),
    (leaf(GOOD.low, GOOD.high, POINTS[:-1]), "points"), (leaf(GOOD.low, GOOD.high, [p[:-1] for p in POINTS]), "points"),
    (leaf(GOOD.low, GOOD.high, [[[0, 9, q]] * 10 for q in range(VOCAB)]), "no sequence of tokens"),
    (leaf(GOOD.low, GOOD.high, [[[0, q]] * 10 for q in range(VOCAB)]), "no sequence of tokens"),
    ({**leaf(GOOD.low, GOOD.high), "more": 1}, "more"), ({"rule": "ratios", "points": None}, "trials"),
])  # fmt: skip
def test_a_witness_of_another_form_is_refused(witness, said):
    with pytest.raises(Rejected, match=said):
        proved(problem_of(Attention(0)), witness)


def test_real_inputs_are_refused():
    from mechverify import ball

    model = capture(nn.Linear(2, 1).eval(), torch.zeros(1, 2))
    problem = RangeProblem.of(Bounds(model["output"], over=ball(torch.zeros(2), 0.5)), "real")
    with pytest.raises(Rejected, match="token sequences alone"):
        proved(problem, leaf([0.0], [1.0]))
