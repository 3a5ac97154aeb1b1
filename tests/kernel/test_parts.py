"""The form in parts gives back the model's outputs, and encloses what the joint tables hold."""

from fractions import Fraction
from itertools import product as sequences

import numpy as np
import pytest

from mechverify.kernel.compact.chains import product
from mechverify.kernel.compact.parts import parts_form
from mechverify.kernel.compact.peeled import REMAINDERS, Peeled, along_rows
from mechverify.kernel.core.errors import Unsupported
from mechverify.kernel.core.exact import Exact
from mechverify.kernel.core.float32 import Float32
from mechverify.kernel.core.float64 import Float64
from mechverify.kernel.core.semantics import Real
from tests import oracle
from tests.kernel.test_ratio import SHAPES, build


def tables(ar, parts):
    return {name: product(ar, chain).mid.astype(float) for name, chain in parts.items()}


@pytest.mark.parametrize("shape", SHAPES)
def test_the_parts_give_the_logits(shape):
    rng, position = np.random.default_rng(0), shape["position"]
    sizes = {k: v for k, v in shape.items() if k != "position"}
    weights, graph, _, output = build(rng, position, **sizes)
    ar = Float64()
    form = parts_form(graph, weights, Real(ar), output)
    assert (form.pin, form.attended) == (position, position + 1)
    base, value, score = (tables(ar, p) for p in (form.base, form.value, form.score))
    model = oracle.Transformer(weights)
    for ids in sequences(range(shape["vocab"]), repeat=shape["length"]):
        q, n = ids[position], form.attended

        def row(what, i, ids=ids, q=q):
            return {"query": q, "token": ids[i], "position": i, "fixed": 0}[what]

        scores = [sum(t[row(a, i), row(b, i)] for (a, b), t in score.items()) for i in range(n)]
        values = [sum(t[row(a, i)] for a, t in value.items()) for i in range(n)]
        factors = np.exp(scores)
        total = sum(t[row(a, 0)] for a, t in base.items()) + factors @ np.array(values) / factors.sum()
        np.testing.assert_allclose(total, [float(x) for x in model.logits(ids, position)], rtol=1e-9, atol=1e-9)


def test_what_has_no_parts_is_refused():
    for shape in (dict(layers=2), dict(heads=2)):
        weights, graph, _, output = build(np.random.default_rng(2), 2, vocab=3, length=3, **shape)
        with pytest.raises(Unsupported):
            parts_form(graph, weights, Real(Float64()), output)
    weights, graph, _, output = build(np.random.default_rng(2), 2, vocab=3, length=3)
    with pytest.raises(Unsupported, match="real"):
        parts_form(graph, weights, Float32(Float64()), output)


@pytest.mark.parametrize("ar", [Float64(), Exact()], ids=["float64", "exact"])
@pytest.mark.parametrize("remainder", REMAINDERS)
def test_peeled_chains_hold_the_product_up_to_a_number_for_each_row(ar, remainder):
    rng = np.random.default_rng(3)
    for turn in range(6):
        sizes = [(5, 3), (3, 4), (4, 3), (3, 6)]
        low = rng.normal(size=(5, 1)) @ rng.normal(size=(1, 3)) * (turn % 3)
        matrices = [rng.normal(size=s) * 0.3 for s in sizes]
        matrices[0] = matrices[0] + low
        chain = tuple(ar.exact(m) for m in matrices)
        peeled = Peeled(rng.normal(size=5), rng.normal(size=6), remainder)
        table, width = along_rows(ar, chain, peeled)
        true = np.linalg.multi_dot(matrices)
        found, widths = numbers(table), numbers(width.size)
        off = true - found
        assert (off.max(1) - off.min(1) <= widths[:, 0] * (1 + 1e-9) + 1e-12).all()


def numbers(x):
    return np.array([[float(Fraction(v) * Fraction(2) ** x.exponent) for v in row] for row in x.mid])


def test_the_count_of_a_product_is_twice_its_multiply_adds_in_the_best_order():
    ar = Float64()
    chain = tuple(ar.exact(np.ones(s)) for s in [(64, 32), (32, 32), (32, 32), (32, 64)])
    ar.ops = 0
    product(ar, chain)
    assert ar.ops == 2 * (32**3 + 64 * 32 * 32 + 64 * 64 * 32)
