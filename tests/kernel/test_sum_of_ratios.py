"""The sum of ratios, found by dependency analysis, gives back the outputs of known architectures and of captured modules."""

from itertools import product

import numpy as np
import pytest
import torch
from torch import nn

from mechverify.kernel.core.architectures.transformer import transformer
from mechverify.kernel.core.errors import Unsupported
from mechverify.kernel.core.exact import Exact
from mechverify.kernel.core.float32 import Float32
from mechverify.kernel.core.float64 import Float64
from mechverify.kernel.core.graph import Graph
from mechverify.kernel.core.semantics import Real
from mechverify.kernel.counting.form import sum_of_ratios
from tests import oracle
from tests.kernel.attention import WIDTH
from tests.kernel.test_forms import head, read_rightly
from tests.models import as_float64, random_weights

SHAPES = [
    dict(vocab=3, length=3, heads=1, position=2),
    dict(vocab=3, length=3, heads=2, position=1),
    dict(vocab=3, length=4, heads=3, position=3, biases=False, out=5),
    dict(vocab=2, length=1, heads=4, position=0),
]


def build(rng, position, **shape):
    weights = as_float64(random_weights(rng, **shape))
    graph = Graph(shape["length"], tuple(range(shape["vocab"])))
    sites = transformer(graph, weights)
    return weights, graph, sites, graph.select(sites["logits"], 0, position)


def outputs(form, x):
    """The form's value at an input, from its tables' centres."""
    q, at = x[form.pin], np.arange(len(x))
    row, deep = (q if n > 1 else 0 for n in (form.score.mid.shape[1], form.value.mid.shape[1]))
    score = np.where(form.attends, form.score.mid[:, row, x, at].astype(float), -np.inf)
    weight = np.exp(score - score.max(1, keepdims=True))
    weight = weight / weight.sum(1, keepdims=True)
    value = form.value.mid[:, deep, x, at].astype(float)
    return form.base.mid[q if len(form.base.mid) > 1 else 0] + np.einsum("hi,hi...->...", weight, value)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("semantics", [Real, Float32])
def test_the_form_gives_the_logits(shape, semantics):
    sizes = {k: v for k, v in shape.items() if k != "position"}
    weights, graph, _, output = build(np.random.default_rng(0), shape["position"], **sizes)
    form = sum_of_ratios(graph, weights, semantics(Float64()), output)
    assert form.pin == shape["position"] and len(form.attends) == shape["heads"]
    assert form.attends.sum(1).tolist() == [shape["position"] + 1] * shape["heads"]
    model = oracle.Transformer(weights)
    for ids in product(range(shape["vocab"]), repeat=shape["length"]):
        expected = [float(x) for x in model.logits(ids, form.pin)]
        np.testing.assert_allclose(outputs(form, np.array(ids)), expected, rtol=1e-9, atol=1e-9)


def test_exact_tables_are_the_same():
    weights, graph, _, output = build(np.random.default_rng(1), 2, vocab=3, length=3, heads=2)
    near, exact = (sum_of_ratios(graph, weights, Real(ar), output) for ar in (Float64(), Exact()))
    for a, b in ((near.base, exact.base), (near.score, exact.score), (near.value, exact.value)):
        middle = np.array([float(int(x) / (1 << -b.exponent)) for x in b.mid.flat]).reshape(b.mid.shape)
        assert (abs(middle - a.mid) <= a.rad + 1e-15 * abs(a.mid)).all()


class Heads(nn.Module):
    """Two heads by a loop, a normalisation of the embeddings, tied weights, and a bias; read at the last position."""

    def __init__(self, style: str):
        super().__init__()
        torch.manual_seed(0)
        self.style = style
        self.embed, self.places = nn.Parameter(torch.randn(4, 6)), nn.Parameter(torch.randn(3, 6))
        self.q, self.k, self.v = (nn.Parameter(torch.randn(2, 6, 3)) for _ in range(3))
        self.o, self.bias = nn.Parameter(torch.randn(2, 3, 6)), nn.Parameter(torch.randn(4))

    def forward(self, x):
        h = self.embed[x] + self.places
        if self.style == "norm":
            h = (h - h.mean(-1, keepdim=True)) / (h.var(-1, unbiased=False, keepdim=True) + 1e-5).sqrt()
        out = h[:, -1]
        for i in range(2):
            scores = (h[:, -1:] @ self.q[i]) @ (h @ self.k[i]).transpose(-1, -2) / 3**0.5
            if self.style == "future":
                scores = scores + (h @ self.v[i]).sum(-1)[:, None] * (h @ self.k[i]).mean()
            out = out + (scores.softmax(-1) @ (h @ self.v[i]) @ self.o[i])[:, 0]
        if self.style == "twice":
            out = out * out
        return out @ self.embed.T - self.bias


@pytest.mark.parametrize("style", ["plain", "norm"])
def test_a_captured_module_has_the_form(style):
    from mechverify import capture

    module = Heads(style).double().eval()
    found = capture(module, torch.zeros(1, 3, dtype=torch.long), vocab=4).captured
    output = found.sites["output"]
    form = sum_of_ratios(found.graph, found.weights, Real(Float64()), output)
    assert len(form.attends) == 2
    for x in product(range(4), repeat=3):
        with torch.no_grad():
            expected = module(torch.tensor([x]))[0].numpy()
        np.testing.assert_allclose(outputs(form, np.array(x)), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("style", ["future", "twice"])
def test_what_is_no_sum_of_ratios_is_refused(style):
    from mechverify import capture

    found = capture(Heads(style).eval(), torch.zeros(1, 3, dtype=torch.long), vocab=4).captured
    output = found.sites["output"]
    with pytest.raises(Unsupported):
        sum_of_ratios(found.graph, found.weights, Real(Float64()), output)


def test_two_layers_are_refused():
    weights, graph, _, output = build(np.random.default_rng(2), 2, vocab=3, length=3, layers=2)
    with pytest.raises(Unsupported):
        sum_of_ratios(graph, weights, Real(Float64()), output)


def test_a_token_as_a_number_is_refused():
    """Its table would be that of another position's token."""
    weights, graph, _, output = build(np.random.default_rng(3), 2, vocab=3, length=3, heads=2)
    number = graph.add("number", graph.add("value", attr=0))
    with pytest.raises(Unsupported, match="value"):
        sum_of_ratios(graph, weights, Real(Float64()), graph.add("add", output, number))


def test_a_softmax_of_a_pattern_is_refused():
    """It weighs otherwise than the pattern, whose scores are kept for it."""
    weights, graph, _, output = build(np.random.default_rng(5), 2, vocab=3, length=3, heads=1)
    twice: dict[int, int] = {}
    for n in graph.ancestors([output]):
        node = graph.nodes[n]
        twice[n] = graph.add(node.op, *(twice[a] for a in node.args), attr=node.attr)
        if node.op == "softmax":
            twice[n] = graph.add("softmax", twice[n], attr=node.attr)
    assert sum_of_ratios(graph, weights, Real(Float64()), output)
    with pytest.raises(Unsupported, match="something else than attending"):
        sum_of_ratios(graph, weights, Real(Float64()), twice[output])


def test_all_rows_of_a_pattern_together_are_refused():
    """Scores whose both axes depend on tokens of their own."""
    weights, graph, sites, output = build(np.random.default_rng(4), 2, vocab=3, length=3, heads=1)
    row = graph.add("constant", attr=((3,), (1.0, 1.0, 1.0)))
    rows = graph.add("einsum", sites["logits"], row, attr="jd,j->d")
    with pytest.raises(Unsupported, match="mixes the tokens"):
        sum_of_ratios(graph, weights, Real(Float64()), graph.add("add", output, rows))


@pytest.mark.parametrize("start", range(0, 2_000, 500))
def test_a_random_graph_is_refused_or_right_on_every_input(start):
    assert read_rightly(sum_of_ratios, outputs, range(start, start + 500)) > 50


def test_each_term_reads_the_token_of_its_own_position():
    """Neither scores nor values of other positions, nor another position's row beside the result."""
    backwards = (3, WIDTH), 2 * WIDTH, (-WIDTH, 1)
    graph, weights, output = head()
    (pattern,) = (n for n in graph.ancestors([output]) if graph.nodes[n].op == "softmax")
    (rows,) = (
        n for n in graph.ancestors([output]) if graph.nodes[n].op == "gather" and graph.nodes[n].shape == (3, WIDTH)
    )
    turned = graph.add("view", rows, attr=backwards)
    scores = graph.add("softmax", graph.add("einsum", graph.select(rows, 0, 0), turned, attr="d,id->i"), attr=3)
    column = graph.add("view", rows, attr=((WIDTH,), 0, (WIDTH,)))
    assert sum_of_ratios(graph, weights, Real(Float64()), output)
    for wrong, why in (
        (graph.add("einsum", pattern, turned, attr="i,id->d"), "one token of their own"),
        (graph.add("einsum", scores, rows, attr="i,id->d"), "sum over positions"),
        (graph.add("add", output, column), "something else that reads tokens"),
    ):
        with pytest.raises(Unsupported, match=why):
            sum_of_ratios(graph, weights, Real(Float64()), wrong)
