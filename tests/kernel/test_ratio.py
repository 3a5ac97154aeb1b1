"""The ratio form, found by dependency analysis, gives back the model's outputs."""

from itertools import product

import numpy as np
import pytest

from mechverify.kernel.architectures import transformer
from mechverify.kernel.errors import Unsupported
from mechverify.kernel.evaluate import Evaluation
from mechverify.kernel.graph import Graph
from mechverify.kernel.ratio import ratio_form
from mechverify.kernel.rounding import Float64, lower, upper
from tests import oracle
from tests.models import as_float64, random_weights

SHAPES = [
    dict(vocab=3, length=3, heads=1, position=2),
    dict(vocab=3, length=3, heads=1, position=1),
    dict(vocab=4, length=2, heads=3, position=1),
    dict(vocab=3, length=4, heads=2, position=3, biases=False, out=5),
    dict(vocab=2, length=1, heads=1, position=0),
]


def build(rng, position, **shape):
    weights = as_float64(random_weights(rng, **shape))
    graph = Graph(shape["length"], tuple(range(shape["vocab"])))
    sites = transformer(graph, weights)
    return weights, graph, sites, graph.select(sites["logits"], 0, position)


@pytest.mark.parametrize("shape", SHAPES)
def test_ratio_form_gives_the_logits(shape):
    rng = np.random.default_rng(0)
    position = shape["position"]
    sizes = {k: v for k, v in shape.items() if k != "position"}
    weights, graph, _, output = build(rng, position, **sizes)
    form = ratio_form(graph, weights, output, Float64())
    assert form.pinned == (position,) and len(form.heads) == shape["heads"]
    model = oracle.Transformer(weights)
    for ids in product(range(shape["vocab"]), repeat=shape["length"]):
        q = ids[position]
        total = form.base.mid[q, 0].copy()
        for head in form.heads:
            scores = [head.scores.mid[q, ids[p], i] for i, p in enumerate(head.positions)]
            values = [
                head.values.mid[min(q, len(head.values.mid) - 1), ids[p], i] for i, p in enumerate(head.positions)
            ]
            factors = np.exp(scores)
            total += (factors[:, None] * np.array(values)).sum(0) / factors.sum()
        np.testing.assert_allclose(total, [float(x) for x in model.logits(ids, position)], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("shape", [*SHAPES, dict(vocab=3, length=3, heads=2, layers=2, position=2)])
def test_every_site_and_the_oracle_agree(shape):
    """Evaluation's balls hold the exact logits; slices pushed down equal slices of the whole."""
    rng = np.random.default_rng(1)
    position = shape["position"]
    weights, graph, sites, output = build(rng, position, **{k: v for k, v in shape.items() if k != "position"})
    inputs = np.array(list(product(range(shape["vocab"]), repeat=shape["length"])))
    values = Evaluation(graph, weights, Float64(), inputs, ordered=False)
    low, high = lower(values[output]), upper(values[output])
    model = oracle.Transformer(weights)
    for row, ids in enumerate(inputs.tolist()):
        for t, exact in enumerate(model.logits(ids, position)):
            assert low[row, t] <= exact <= high[row, t]
            assert high[row, t] - low[row, t] < 1e-7
    for name, site in sites.items():
        if name == "tokens" or name == "pos_embed":
            continue
        whole = values[site].mid
        sliced = values[graph.select(site, 0, 0)].mid
        np.testing.assert_allclose(sliced, whole[:, 0], rtol=1e-9, atol=1e-9)


def test_two_layers_are_refused():
    weights, graph, _, output = build(np.random.default_rng(2), 2, vocab=3, length=3, layers=2)
    with pytest.raises(Unsupported):
        ratio_form(graph, weights, output, Float64())


def test_large_tables_are_refused_before_they_are_made():
    weights, vocab = {k: np.ones(s) for k, s in {"embed.W_E": (9000, 1), "pos_embed.W_pos": (3, 1)}.items()}, 9000
    weights |= {f"blocks.0.attn.W_{c}": np.ones((1, 1, 1)) for c in "QKVO"} | {"unembed.W_U": np.ones((1, 2))}
    graph = Graph(3, tuple(range(vocab)))
    output = graph.select(transformer(graph, weights)["logits"], 0, 2)
    with pytest.raises(Unsupported, match="vocabulary is too large"):
        ratio_form(graph, weights, output, Float64())
