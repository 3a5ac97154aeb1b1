"""What torch computes once for each token is what it computes for each input."""

import itertools

import numpy as np
import pytest
import torch

from mechverify import capture
from mechverify.graph.run import TorchRunner
from mechverify.provers.accuracy import token_runner
from mechverify.provers.accuracy.token_runner import TokenRunner
from tests.graph.generator import captured_on_tokens
from tests.kernel.test_summands import LENGTH, VOCAB, Concatenated, Grown, SideBySide
from tests.rounds import ROUNDS

EVERY = np.array([*itertools.product(range(VOCAB), repeat=LENGTH)])


def alike(graph, roots: list[int], weights, inputs: np.ndarray) -> None:
    found = TokenRunner(graph, roots, weights).many(roots, inputs)
    plain = TorchRunner(graph, weights, torch.float64).many(roots, inputs)
    for n in roots:
        assert len(found[n]) == len(inputs)
        assert np.allclose(np.asarray(found[n]), np.asarray(plain[n]), rtol=1e-12, atol=1e-12, equal_nan=True)


@pytest.mark.parametrize("seed", range(20 * ROUNDS))
def test_of_random_graphs(seed):
    made = Grown(seed)
    some = EVERY[np.random.default_rng(seed).permutation(len(EVERY))[: 1 + seed]]
    alike(made.graph, made.nodes[-3:], made.weights, some)


@pytest.mark.parametrize("model", [SideBySide, Concatenated])
def test_of_captured_ones_a_row_a_token(model, monkeypatch):
    torch.manual_seed(0)
    made = capture(model(LENGTH).eval(), torch.zeros(1, LENGTH, dtype=torch.long))["output"].model.captured
    graph, n = made.graph, made.sites["output"]
    alike(graph, [n], made.weights, EVERY)
    sizes = []
    compute = TorchRunner._compute

    def counted(self, m, args, tokens, inputs):
        found = compute(self, m, args, tokens, inputs)
        sizes.append((self.graph.nodes[m].op, len(found)))
        return found

    monkeypatch.setattr(token_runner.TorchRunner, "_compute", counted)
    TokenRunner(graph, [n], made.weights).many([n], EVERY)
    rows = [size for op, size in sizes if op == "einsum"]
    assert sorted(rows) == [VOCAB] * LENGTH + [len(EVERY)]


def test_of_random_modules():
    taken = 0
    for model, inputs in captured_on_tokens(40, inputs=40):
        alike(model.graph, [model.sites["output"]], model.weights, inputs)
        taken += 1
    assert taken > 8
