"""Shipped weights come from the shipped script, and the torch module is the architecture of the kernel."""

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from mechverify.graph.run import TorchRunner
from mechverify.kernel.core.architectures import transformer
from mechverify.kernel.core.container import read_weights
from mechverify.kernel.core.graph import Graph
from toy_models.max_of_k import SEVERAL, SHIPPED, model, path, train


def test_training_is_deterministic_and_learns():
    first, second = (train(4, seed=3, steps=200).state_dict() for _ in range(2))
    assert all(torch.equal(first[k], second[k]) for k in first)
    inputs = torch.randint(64, (2_000, 4), generator=torch.Generator().manual_seed(0))
    net = model(4)
    net.load_state_dict(first)
    with torch.inference_mode():
        assert (net(inputs)[:, -1].argmax(-1) == inputs.amax(1)).float().mean() > 0.5
    assert all((v == 0).all() for k, v in first.items() if ".b_" in k)


@pytest.mark.parametrize(("k", "seed", "heads"), sorted({(k, seed, 1) for k, seed in SHIPPED} | SEVERAL))
def test_the_graph_computes_what_the_module_computes(k, seed, heads):
    net = model(k, heads=heads).double()
    net.load_state_dict(load_file(path(k, seed, heads)))
    weights = read_weights(path(k, seed, heads).read_bytes())
    graph = Graph(k, tuple(range(64)))
    logits = transformer(graph, weights)["logits"]
    inputs = np.random.default_rng(0).integers(64, size=(200, k))
    with torch.inference_mode():
        expected = net(torch.from_numpy(inputs))
    torch.testing.assert_close(TorchRunner(graph, weights, torch.float64)(logits, inputs), expected)
