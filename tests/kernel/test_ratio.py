"""The ratio form, found by dependency analysis, gives back the model's outputs."""

from itertools import product

import numpy as np
import pytest

from mechverify.kernel.core.architectures.transformer import transformer
from mechverify.kernel.core.errors import Unsupported
from mechverify.kernel.core.evaluate import Evaluation
from mechverify.kernel.core.exact import Exact
from mechverify.kernel.core.float32 import Float32
from mechverify.kernel.core.float64 import Float64
from mechverify.kernel.core.graph import Graph
from mechverify.kernel.core.semantics import Real
from mechverify.kernel.fold.ratio import ratio_form
from tests import oracle
from tests.models import as_float64, random_weights

SHAPES = [
    dict(vocab=3, length=3, heads=1, position=2),
    dict(vocab=3, length=3, heads=1, position=1),
    dict(vocab=3, length=4, heads=1, position=3, biases=False, out=5),
    dict(vocab=2, length=1, heads=1, position=0),
]
MORE = [dict(vocab=4, length=2, heads=3, position=1), dict(vocab=3, length=3, heads=2, layers=2, position=2)]


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
    form = ratio_form(graph, weights, Real(Float64()), output)
    assert (form.pin, form.attended) == (position, position + 1)
    model = oracle.Transformer(weights)
    for ids in product(range(shape["vocab"]), repeat=shape["length"]):
        q = ids[position]
        scores = [form.score.mid[q, ids[i], i] for i in range(form.attended)]
        values = [form.value.mid[min(q, len(form.value.mid) - 1), ids[i], i] for i in range(form.attended)]
        factors = np.exp(scores)
        total = form.base.mid[q, 0] + (factors[:, None] * np.array(values)).sum(0) / factors.sum()
        np.testing.assert_allclose(total, [float(x) for x in model.logits(ids, position)], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("shape", [*SHAPES, *MORE])
def test_every_site_and_the_oracle_agree(shape):
    """Evaluation's balls hold the exact logits; slices pushed down equal slices of the whole."""
    rng = np.random.default_rng(1)
    position = shape["position"]
    weights, graph, sites, output = build(rng, position, **{k: v for k, v in shape.items() if k != "position"})
    inputs = np.array(list(product(range(shape["vocab"]), repeat=shape["length"])))
    ar = Float64()
    values = Evaluation(graph, weights, Real(ar), inputs)
    low, high = ar.lower(values[output]), ar.upper(values[output])
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


@pytest.mark.parametrize("shape", [*SHAPES, *MORE])
def test_float32_balls_hold_the_real_ones_and_exact_ones_are_inside(shape):
    rng = np.random.default_rng(4)
    weights, graph, _, output = build(rng, shape["position"], **{k: v for k, v in shape.items() if k != "position"})
    inputs = np.array(list(product(range(shape["vocab"]), repeat=shape["length"])))
    real, exact = (Evaluation(graph, weights, Real(ar), inputs)[output] for ar in (Float64(), Exact()))
    single = Evaluation(graph, weights, Float32(Float64()), inputs)[output]
    assert (single.mid - single.rad < real.mid - real.rad).all() and (single.rad < 2**30 * real.rad).all()
    unit = 2.0**exact.exponent
    middle = np.array([[float(x) * unit if abs(x) < 2**900 else x / (1 << -exact.exponent) for x in row]
                       for row in exact.mid])  # fmt: skip
    assert (abs(middle - real.mid) <= real.rad + 1e-15 * abs(real.mid)).all()
    assert max(int(x) for x in exact.rad.flat) * 2**40 < max(abs(int(x)) for x in exact.mid.flat)


def test_several_heads_and_layers_are_refused():
    for shape in (dict(layers=2), dict(heads=2)):
        weights, graph, _, output = build(np.random.default_rng(2), 2, vocab=3, length=3, **shape)
        with pytest.raises(Unsupported):
            ratio_form(graph, weights, Real(Float64()), output)


def test_large_tables_are_refused_before_they_are_made():
    weights, vocab = {k: np.ones(s) for k, s in {"embed.W_E": (9000, 1), "pos_embed.W_pos": (3, 1)}.items()}, 9000
    weights |= {f"blocks.0.attn.W_{c}": np.ones((1, 1, 1)) for c in "QKVO"} | {"unembed.W_U": np.ones((1, 2))}
    graph = Graph(3, tuple(range(vocab)))
    output = graph.select(transformer(graph, weights)["logits"], 0, 2)
    with pytest.raises(Unsupported, match="vocabulary too large"):
        ratio_form(graph, weights, Real(Float64()), output)
