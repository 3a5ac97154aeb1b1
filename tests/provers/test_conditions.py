"""Conditions, cases, methods, and branching on a model's values: from the claim to the checked certificate."""

import numpy as np
import pytest
import sympy
import torch
from torch import nn

from mechverify import Bounds, ball, box, capture, prove, tokens
from mechverify.claims import ClaimError
from mechverify.kernel import check
from mechverify.provers.base import METHODS
from mechverify.provers.ranges.cases import cases as split_cases
from mechverify.provers.ranges.problem import RangeProblem
from mechverify.report.statement import lines
from tests.rounds import few


def relu_net(inputs: int, width: int, outputs: int = 1):
    torch.manual_seed(0)
    layers = [nn.Linear(inputs, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, outputs)]
    return nn.Sequential(*layers).double().eval()


def site_of(net: nn.Module, inputs: int):
    return capture(net, torch.zeros(1, inputs, dtype=torch.float64))["output"]


PLANE = relu_net(2, 12)
x = ball([0.0, 0.0], 1.0)
GRID = torch.cartesian_prod(*[torch.linspace(-1, 1, 401, dtype=torch.float64)] * 2)
CONDITIONS = {
    "a half plane": ([x[0] >= x[1]], lambda a, b: a >= b),
    "a corner": ([x[0] + x[1] <= -1], lambda a, b: a + b <= -1),
    "a disc": ([x[0] ** 2 + x[1] ** 2 <= sympy.Rational(1, 4)], lambda a, b: a**2 + b**2 <= 0.25),
    "a diagonal": ([sympy.Eq(x[0], x[1])], lambda a, b: a == b),
    "two at once": ([sympy.And(x[0] >= 0.5, sympy.Max(x[0], x[1]) <= 0.75)],
                    lambda a, b: (a >= 0.5) & (torch.maximum(a, b) <= 0.75)),
    "functions": ([sympy.sin(3 * x[0]) >= sympy.exp(x[1]) / 3], lambda a, b: torch.sin(3 * a) >= torch.exp(b) / 3),
}  # fmt: skip


@pytest.mark.parametrize("name", few(CONDITIONS, 2))
def test_the_range_holds_where_the_conditions_do_and_is_no_wider_than_without(name):
    where, holds = CONDITIONS[name]
    theorem = prove(Bounds(site_of(PLANE, 2), over=x, given=where)).theorem
    free = prove(Bounds(site_of(PLANE, 2), over=x)).theorem
    with torch.no_grad():
        values = PLANE(GRID[holds(*GRID.T)]).numpy()
    assert len(values) > 50
    assert theorem.range.low[0] <= values.min() and values.max() <= theorem.range.high[0]
    assert theorem.range.high[0] - theorem.range.low[0] <= (free.range.high[0] - free.range.low[0]) * 1.001
    assert any(label == "given" and text.endswith(">= 0") for label, text in lines(theorem))


def test_a_condition_decides_a_claim_that_is_false_without():
    with torch.no_grad():
        inside = PLANE(GRID[GRID.sum(1) <= -1]).max().item()
        everywhere = PLANE(GRID).max().item()
    most = (inside + everywhere) / 2
    assert prove(Bounds(site_of(PLANE, 2), over=x, at_most=most, given=[x[0] + x[1] <= -1])).verdict == "PROVED"
    refuted = prove(Bounds(site_of(PLANE, 2), over=x, at_most=most))
    assert refuted.verdict == "REFUTED"
    false = prove(Bounds(site_of(PLANE, 2), over=x, at_most=inside - 0.01, given=[x[0] + x[1] <= -1]))
    assert false.verdict == "REFUTED" and (false.theorem.points.sum(1) <= -1).all()


def test_cases_are_told_apart_first():
    claim = Bounds(site_of(PLANE, 2), over=x, cases=[x[0] >= x[1], x[0] >= 0])
    theorem = prove(claim).theorem
    assert theorem.rules["split"] == 3
    with torch.no_grad():
        values = PLANE(GRID).numpy()
    assert theorem.range.low[0] <= values.min() and values.max() <= theorem.range.high[0]
    most = values.max() + 0.01
    assert prove(Bounds(site_of(PLANE, 2), over=x, at_most=most, cases=[x[0] >= x[1]])).verdict == "PROVED"


def test_conditions_on_tokens():
    """A form of ids: the sum of two embeddings, where the first token is the smaller one."""

    class Sum(nn.Module):
        def __init__(self):
            super().__init__()
            self.table = nn.Parameter(torch.arange(5, dtype=torch.float64).reshape(5, 1) ** 2)

        def forward(self, ids):
            rows = self.table[ids][..., 0]
            return torch.relu(rows[:, :1] - rows[:, 1:] + 1)

    t = tokens("t", length=2, vocab=5)
    site = capture(Sum().eval(), torch.zeros(1, 2, dtype=torch.long), vocab=5)["output"]
    free = prove(Bounds(site, over=t)).theorem.range
    ordered = prove(Bounds(site, over=t, given=[t[0] < t[1]])).theorem.range
    assert 17 <= free.high[0] <= 17 + 1e-12
    assert ordered.low[0] <= 0 and 0 <= ordered.high[0] < 17
    assert prove(Bounds(site, over=t, at_most=0.5, given=[t[0] < t[1]])).verdict == "PROVED"


@pytest.mark.parametrize("where, told", [
    ([x[0] < x[1]], "strict"),
    ([sympy.Symbol("y") >= 0], "none of the domain's inputs"),
    ([sympy.gamma(x[0]) >= 0], "vocabulary"),
    ([x[0]], "no condition"),
    ([sympy.Ne(x[0], x[1])], "strict"),
    ([sympy.Symbol("y") >= 0, x[0] < 1], "strict"),
])  # fmt: skip
def test_bad_conditions_are_named_all_at_once(where, told):
    with pytest.raises(ClaimError, match=told):
        Bounds(site_of(PLANE, 2), over=x, given=where)


@pytest.mark.parametrize("index", [2, (0, 1), -3, "a"])
def test_symbols_are_entries(index):
    with pytest.raises((ClaimError, IndexError)):
        x[index]


def test_no_input_satisfies_the_conditions():
    with pytest.raises(ClaimError, match="no input"):
        prove(Bounds(site_of(PLANE, 2), over=x, given=[x[0] + x[1] >= 3]))


def test_methods_are_ever_narrower():
    net = relu_net(5, 10, outputs=2)
    claim = Bounds(site_of(net, 5), over=ball(np.full(5, 0.1), 0.2))
    outcomes = [prove(claim, method=m) for m in METHODS]
    widths = [(o.theorem.range.high - o.theorem.range.low).mean() for o in outcomes]
    assert all(check(o.certificate) for o in outcomes)
    assert widths[0] > widths[1] > widths[2] > widths[3]
    assert [sorted(set(o.theorem.rules) - {"both", "point", "split"}) for o in outcomes[:3]] == [["relaxation"]] * 3


def test_many_coordinates_are_branched_by_what_relus_read():
    """A threshold that optimised lines miss: signs of ReLUs, with multipliers, reach it."""
    torch.manual_seed(1)
    net = nn.Sequential(nn.Linear(40, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 1)).double().eval()
    domain = ball(np.zeros(40), 0.3)
    found = prove(Bounds(site_of(net, 40), over=domain), method="optimised").theorem
    reached = found.attained.low.max()
    most = reached + (found.range.high[0] - reached) * 0.9
    outcome = prove(Bounds(site_of(net, 40), over=domain, at_most=most), time_limit=120)
    assert outcome.verdict == "PROVED"
    assert outcome.theorem.rules["relaxation"] > 1
    points = torch.from_numpy(np.random.default_rng(0).uniform(-0.3, 0.3, (20_000, 40)))
    with torch.no_grad():
        assert net(points).max() < most


def test_a_device_that_is_not_there():
    with pytest.raises(ClaimError, match="device"):
        prove(Bounds(site_of(PLANE, 2), over=x), device="cuda:7")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_the_search_runs_on_a_gpu():
    net = relu_net(5, 10, outputs=2)
    claim = Bounds(site_of(net, 5), over=ball(np.full(5, 0.1), 0.2))
    on_gpu, on_cpu = (prove(claim, device=d).theorem.range for d in ("cuda", "cpu"))
    assert np.allclose(on_gpu.high, on_cpu.high, atol=1e-3)


def test_a_domain_of_tokens_alone_is_described():
    net = nn.Sequential(nn.Embedding(5, 3), nn.Flatten(), nn.Linear(6, 2)).double().eval()
    t = tokens("t", length=2, vocab=5)
    theorem = prove(Bounds(capture(net, torch.zeros(1, 2, dtype=torch.long), vocab=5)["output"], over=t)).theorem
    assert ("domain", "all 5^2 = 25 sequences x0 .. x1 over 5 tokens") in lines(theorem)
    every = net(torch.cartesian_prod(torch.arange(5), torch.arange(5))).detach().numpy()
    np.testing.assert_allclose(theorem.range.low, every.min(0), rtol=0, atol=1e-12)
    np.testing.assert_allclose(theorem.range.high, every.max(0), rtol=0, atol=1e-12)


def test_a_box_of_several_inputs_names_its_entries():
    b = box([np.zeros((2, 2)), np.zeros(3)], [np.ones((2, 2)), np.ones(3)], name="u")
    assert [str(b[0, 1, 0]), str(b[1, 2])] == ["u[0, 1, 0]", "u[1, 2]"]


def test_thresholds_on_one_value_are_bisected_and_tokens_split():
    """A bound that needs the token and the sum known: by hand, where a product of all cases would be 2^14 cells."""

    class Bent(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("values", torch.arange(-2.0, 3.0))
            self.total = nn.Identity()

        def forward(self, ids):
            total = self.total(self.values[ids].sum(1, keepdim=True))
            return torch.relu(total - self.values[ids[:, :1]]) - torch.relu(-total) - torch.relu(total)

    model = capture(Bent().eval(), torch.zeros(1, 4, dtype=torch.long), vocab=5)
    t, total = tokens("t", length=4, vocab=5), model["total"][0]
    cases = [t[0] >= v for v in range(1, 5)] + [total <= s + 0.5 for s in range(-5, 5)]
    ids = torch.cartesian_prod(*[torch.arange(5)] * 4)
    true = Bent()(ids).max().item()
    groups = split_cases(RangeProblem.of(Bounds(model["output"], over=t, cases=cases), "real"))
    assert [len(g) for g in groups] == [4, 10]
    assert {g[0].key[0] for g in groups} == {"position", "node"}
    outcome = prove(Bounds(model["output"], over=t, at_most=true + 0.5, cases=cases))
    assert outcome.verdict == "PROVED" and outcome.theorem.rules.get("split", 0) < 60
    assert prove(Bounds(model["output"], over=t, at_most=true - 0.1, cases=cases)).verdict == "REFUTED"
