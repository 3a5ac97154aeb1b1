"""Inputs where a value is extreme: steps that change nothing are not taken, and nothing is lost by that."""

import json

import numpy as np
import pytest
import torch
from torch import nn

from mechverify import Bounds, Within, box, capture
from mechverify.kernel.core import container
from mechverify.provers import prove
from mechverify.provers.base import Budget
from mechverify.provers.ranges import refute
from mechverify.provers.ranges.extremes import STEPS, climb, sample
from mechverify.provers.ranges.inputs import CLEARLY, Inputs
from mechverify.provers.ranges.known import Found, Known
from mechverify.provers.ranges.problem import RangeProblem
from tests.soundness.test_cut import setting


class Network(nn.Module):
    def __init__(self, seed: int, function: nn.Module):
        super().__init__()
        torch.manual_seed(seed)
        self.layers = nn.Sequential(nn.Linear(3, 6), function, nn.Linear(6, 2)).double()

    def forward(self, x):
        return self.layers(x)


def about(seed: int, function: nn.Module, **threshold) -> RangeProblem:
    model = capture(Network(seed, function).eval(), torch.zeros(1, 3, dtype=torch.float64))
    return RangeProblem.of(Bounds(model["output"], over=box([-1] * 3, [1] * 3), **threshold), "real")


def plainly(problem: RangeProblem, inputs: Inputs, count: int) -> np.ndarray:
    """The least and greatest values that every start finds, each taking all steps."""
    n, order = problem.claim.outputs, np.argsort(inputs.values, 0)
    low, high = map(torch.from_numpy, problem.own)
    ends = []
    for entry, sign in [(e, 1.0) for e in range(n)] + [(e, -1.0) for e in range(n)]:
        rows = order[:count, entry] if sign > 0 else order[::-1][:count, entry]
        points, found = torch.tensor(inputs.points[rows]), inputs.values[rows, entry] * sign
        for step in range(STEPS):
            moving = points.clone().requires_grad_()
            values, _ = problem.values(inputs.tokens[rows], moving)
            (slope,) = torch.autograd.grad((values[:, entry] * sign).sum(), moving)
            found = np.minimum(found, values.detach().numpy()[:, entry] * sign)
            points = torch.clamp(points - 0.5 * (1 - step / STEPS) * (high - low) * slope.sign(), low, high)
        ends.append(found.min() * sign)
    return np.array(ends)


@pytest.mark.parametrize("function", [nn.Identity(), nn.ReLU(), nn.Tanh(), nn.GELU()])
@pytest.mark.parametrize("seed", range(3))
def test_nothing_is_lost_where_steps_end(seed, function):
    problem = about(seed, function)
    seen = sample(problem, Budget(), 0)
    best = climb(problem, Budget(), seen, STEPS)
    reached = best.values[np.arange(4), [0, 1, 0, 1]]
    np.testing.assert_allclose(reached, plainly(problem, seen, 32), rtol=1e-12, atol=1e-12)
    again, least = problem.values(best.tokens, torch.from_numpy(best.points))
    np.testing.assert_allclose(again.detach().numpy(), best.values, rtol=1e-12, atol=1e-12)
    assert (best.clear == (least.numpy() > CLEARLY)).all()


def test_steps_end_where_nothing_moves(monkeypatch):
    problem, runs = about(0, nn.Identity()), []  # linear: each start is at its corner within three steps
    seen, values = sample(problem, Budget(), 0), problem.values
    monkeypatch.setattr(problem, "values", lambda tokens, points: runs.append(len(points)) or values(tokens, points))
    climb(problem, Budget(), seen, STEPS)
    assert 0 < len(runs) <= 4 and runs == sorted(runs, reverse=True)


def test_a_search_looks_once(monkeypatch):
    problem, climbs = about(0, nn.Tanh(), at_most=100), []
    monkeypatch.setattr(refute, "climb", lambda *args: climbs.append(args) or climb(*args))
    known = Known(Found(None, problem.claim.everything, False, []), seen=sample(problem, Budget(), 0))
    assert refute.look(problem, known, Budget()) is None and refute.look(problem, known, Budget()) is None
    assert len(climbs) == 1


def rules_of(proof) -> list[str]:
    if isinstance(proof, dict):
        return [r for r in [proof.get("rule")] if r] + [r for v in proof.values() for r in rules_of(v)]
    return [r for v in proof for r in rules_of(v)] if isinstance(proof, list) else []


def test_what_inputs_reach_is_said_once_beside_a_proof_from_lemmas():
    _, model, x, mechanism = setting(0)
    outcome = prove(Bounds(model["output"], over=x, using=[Within(model["mid"], mechanism, over=x)]))
    proof = json.loads(container.unpack(outcome.certificate)["certificate.json"])["proof"]
    assert proof["rule"] == "both" and proof["first"]["rule"] == "point" and proof["second"]["rule"] == "cut"
    assert "point" not in rules_of(proof["second"]) and outcome.theorem.attained is not None
