"""Queries say what claims say: z3's answers beside enumeration, and beside what bounds and samples show."""

import numpy as np
import pytest
import torch
from sympy import Abs, Eq, Max, Min, Mod, Piecewise, floor, sign
from torch import nn

from mechverify import Bounds, box, capture, lookup, tokens
from mechverify.kernel.core.errors import Unsupported
from mechverify.provers.ranges.problem import RangeProblem
from mechverify.provers.ranges.smtlib import Query
from mechverify.provers.ranges.solver import ask

X = tokens("x", length=3, vocab=4, values=[-2, 0, 1, 3])
EXPRESSIONS = {
    "sum": sum(X) - 2 * X[0], "product": X[0] * X[1] - X[2] ** 2, "mod": Mod(sum(X), 3) + floor((X[0] - X[2]) / 2),
    "max": Max(*X) - Min(X[0], X[1]), "piecewise": Piecewise((X[1], X[0] > X[2]), (7, Eq(X[1], 3)), (-X[2], True)),
    "sign": sign(X[0] + X[1]) * X[2], "lookup": lookup([0.5, -1.25, 2, 0.1], Mod(X[1], 4)) + Abs(X[0]),
}  # fmt: skip


class Net(nn.Module):
    """relu(E[a] + E[b] + x A) B, on two tokens and a box."""

    def __init__(self, seed: int):
        super().__init__()
        g = torch.Generator().manual_seed(seed)
        self.E = nn.Embedding.from_pretrained(torch.randn(3, 4, generator=g, dtype=torch.float64))
        self.A, self.B = (nn.Parameter(torch.randn(*s, generator=g, dtype=torch.float64)) for s in ((2, 4), (4, 1)))

    def forward(self, ids, x):
        return torch.relu(self.E(ids).sum(1) + x @ self.A) @ self.B


def answer(claim: Bounds, low: float, high: float = np.inf) -> str:
    read = RangeProblem.of(claim, "real").claim
    return ask(Query(read, np.full(read.outputs, low), np.full(read.outputs, high)).text, 60)[0]


@pytest.mark.parametrize("name", EXPRESSIONS)
def test_integers_are_what_enumeration_says(name):
    claim = Bounds(EXPRESSIONS[name], over=X)
    problem = RangeProblem.of(claim, "real")
    values = problem.values(problem.domain.inputs(0, 64), torch.zeros(64, 0))[0].numpy()
    assert answer(claim, values.min() - 0.01) == "unsat" and answer(claim, values.min() + 0.01) == "sat"
    assert (
        answer(claim, -np.inf, values.max() + 0.01) == "unsat" and answer(claim, -np.inf, values.max() - 0.01) == "sat"
    )


def test_conditions_and_token_sets_count():
    narrow = tokens("x", length=3, vocab=4, values=[-2, 0, 1, 3], allowed=[[0, 1], [1, 2, 3], [2]])
    claim = Bounds(sum(narrow), over=narrow)
    assert answer(claim, -1) == "unsat" and answer(claim, -0.5) == "sat"  # -2 + 0 + 1
    given = Bounds(sum(narrow), over=narrow, given=[narrow[0] + narrow[1] >= 0])
    assert answer(given, 1) == "unsat" and answer(given, 1.5) == "sat"  # 0 + 0 + 1


@pytest.mark.parametrize("seed", range(4))
def test_a_network_of_relus_is_decided_exactly(seed):
    """Between what samples reach and what bounds prove; the solver's input reaches the threshold."""
    net = Net(seed).eval()
    x = box(-np.ones(2), np.ones(2)).with_tokens(tokens("t", length=2, vocab=3))
    model = capture(net, torch.zeros(1, 2, dtype=torch.long), torch.zeros(1, 2, dtype=torch.float64))
    claim = Bounds(model["output"], over=x)
    grid = torch.cartesian_prod(*[torch.linspace(-1, 1, 81, dtype=torch.float64)] * 2)
    ids = torch.cartesian_prod(torch.arange(3), torch.arange(3))
    with torch.no_grad():
        seen = min(float(net(i[None].expand(len(grid), 2), grid).min()) for i in ids)
    read = RangeProblem.of(claim, "real").claim
    assert answer(claim, seen - 1.0) == "unsat"
    query = Query(read, np.array([seen + 1e-9]), np.array([np.inf]))
    verdict, values = ask(query.text, 60)
    assert verdict == "sat"
    at = [int(values[n]) for n in query.inputs[:2]], [float(values[n]) for n in query.inputs[2:]]
    with torch.no_grad():
        assert float(net(torch.tensor([at[0]]), torch.tensor([at[1]], dtype=torch.float64))) <= seen + 1e-8


def test_what_is_not_piecewise_linear_is_named():
    class Square(nn.Module):
        def forward(self, x):
            return torch.tanh(x) * x

    model = capture(Square().eval(), torch.zeros(1, 2))
    with pytest.raises(Unsupported, match="not piecewise linear"):
        answer(Bounds(model["output"], over=box(np.zeros(2), np.ones(2))), 0.0)


def test_a_query_that_z3_refuses_is_no_answer():
    said, values = ask("(assert (= x 1))(check-sat)", 60)
    assert said.startswith("failed: ") and "x" in said and values == {}
