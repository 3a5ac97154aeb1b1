"""A view of what comes out of attention is no operation of the arithmetic: it takes memory and time all the same."""

from itertools import pairwise

import numpy as np
import pytest

from mechverify.kernel.compact.chains import product
from mechverify.kernel.compact.parts import parts_form
from mechverify.kernel.core.errors import Unsupported
from mechverify.kernel.core.float64 import Float64
from mechverify.kernel.core.graph import Graph
from mechverify.kernel.core.semantics import Real
from mechverify.kernel.counting.form import sum_of_ratios
from mechverify.kernel.fold.ratio import ratio_form
from tests.kernel.test_ratio import build

FORMS = [ratio_form, sum_of_ratios, parts_form]


def model():
    return build(np.random.default_rng(0), 2, vocab=4, length=3, heads=1, out=2)


@pytest.mark.parametrize("form", FORMS)
def test_a_view_that_repeats_entries_is_refused_before_it_is_made(form):
    """Two million entries for each query, token and position."""
    weights, graph, _, output = model()
    wide = graph.add("view", output, attr=((2**20, 2), 0, (0, 1)))
    with pytest.raises(Unsupported, match="a value needs"):
        form(graph, weights, Real(Float64()), graph.add("view", wide, attr=((2,), 0, (3,))))


@pytest.mark.parametrize("form", FORMS)
def test_each_view_costs_what_it_moves(form):
    """A file may hold thousands of them."""
    weights, graph, _, output = model()
    work, moved = [], 0
    for _ in range(4):
        output = graph.add("view", output, attr=((2,), 1, (-1,)))
        ar = Float64()
        found = form(graph, weights, Real(ar), output)
        work.append(ar.work)
        moved = found.value["token"][-1].mid.size if form is parts_form else found.value.mid.size
    assert all(b - a >= moved for a, b in pairwise(work))


def test_each_use_of_a_pattern_costs_what_is_sorted():
    """Masked entries count as well: a row may be much longer than the input."""
    work, n = [], 2**16
    for uses in (1, 2, 3):
        graph = Graph(2, (0, 1))
        tokens, table = graph.add("tokens"), graph.add("constant", attr=((2, 1), (1.0, 2.0)))
        rows = graph.add("gather", table, tokens)
        query = graph.add("gather", table, graph.select(tokens, 0, 1))
        blank = graph.add("view", graph.add("constant", attr=((1,), (1.0,))), attr=((n, 1), 0, (0, 0)))
        rows = graph.add("concat", rows, blank, attr=0)
        one = graph.add("constant", attr=((1,), (1.0,)))
        pattern = graph.add("softmax", graph.add("einsum", rows, one, attr="ie,e->i"), attr=2)
        output = query
        for letter in "abc"[:uses]:
            output = graph.add("add", output, graph.add("einsum", pattern, rows, attr=f"i,i{letter}->{letter}"))
        ar = Float64()
        ratio_form(graph, {}, Real(ar), output)
        work.append(ar.work)
    assert all(b - a >= n for a, b in pairwise(work))


def test_the_order_of_a_long_product_costs_work():
    """The cube of its length, of which a file may have thousands."""
    works = []
    for length in (8, 16, 32):
        ar = Float64()
        product(ar, (ar.exact(np.eye(2)),) * length)
        works.append(ar.work)
    first, second = (b - a for a, b in pairwise(works))
    assert second > 4 * first
