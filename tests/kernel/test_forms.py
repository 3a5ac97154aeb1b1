"""Any graph of the operations table, read as a ratio form, or in parts: refused, or right on every input."""

from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest

from mechverify.kernel.compact.chains import product
from mechverify.kernel.compact.parts import PartsForm, parts_form
from mechverify.kernel.core.errors import Unsupported
from mechverify.kernel.core.float64 import Float64
from mechverify.kernel.core.graph import Graph
from mechverify.kernel.core.semantics import Real
from mechverify.kernel.fold.ratio import RatioForm, ratio_form
from tests.kernel.attention import WIDTH, Made, Maker

READ = [
    "tokens",
    "places",
    "query",
    "keys",
    "values",
    "product",
    "all",
    "applied",
    "swapped",
    "boxed",
    "backwards",
    "others",
    "sliced",
    "flipped",
    "divided",
    "biased",
    "scaled",
    "column",
    "some",
    "asked",
    "constant",
    "residual",
    "minus",
    "less",
    "neurons",
    "turned",
    "twice",
    "mean",
    "matrix",
    "spread",
    "wide",
]
NEVER = ["two", "number", "summed", "first", "multiplied", "square", "inner", "parallel"]


def output(form: RatioForm, ids: np.ndarray) -> np.ndarray:
    """What the form says of one input, by its definition."""

    def of(a: np.ndarray) -> np.ndarray:
        return a[ids[form.pin] if len(a) > 1 else 0]

    places, read = np.arange(form.attended), ids[: form.attended]
    factors = np.exp(of(form.score.mid)[read, places] * 2.0**form.score.exponent)
    shares = factors / factors.sum()

    def mixed(base, value) -> np.ndarray:
        rows = of(value.mid)[read, places] * 2.0**value.exponent
        return of(base.mid)[0] * 2.0**base.exponent + np.tensordot(shares, rows, 1)

    total = mixed(form.base, form.value)
    if form.neurons is not None:
        base, value, coefficient = form.neurons
        weights = of(coefficient.mid)[0] * 2.0**coefficient.exponent
        total = total + np.tensordot(np.maximum(mixed(base, value), 0), weights, 1)
    return total


@pytest.mark.parametrize("start", [0, *(pytest.param(i, marks=pytest.mark.campaign) for i in range(500, 2_000, 500))])
def test_a_random_graph_is_refused_or_right_on_every_input(start):
    assert read_rightly(ratio_form, output, range(start, start + 500)) > 50


def read_rightly(form_of: Callable, output: Callable, seeds: range) -> int:
    """How many random graphs have the form; it is right on every input of these."""
    read = 0
    for seed in seeds:
        made = Maker(seed).made()
        try:
            form = form_of(made.graph, made.weights, Real(Float64()), made.output)
        except Unsupported:
            continue
        read += 1
        for ids, value in zip(*made.values(), strict=True):
            assert output(form, np.asarray(ids)) == pytest.approx(value, rel=1e-9, abs=1e-9), (seed, made.parts)
    return read


def test_every_stage_of_the_form_is_read_and_what_mixes_positions_never():
    found: Counter[str] = Counter()
    for seed in range(1_000):
        maker = Maker(seed)
        made = maker.made()
        try:
            ratio_form(made.graph, made.weights, Real(Float64()), made.output)
        except Unsupported:
            continue
        if maker.n > 1:
            found.update(made.parts)
    assert {*READ} <= {*found}, {*READ} - {*found}
    assert not {*NEVER} & {*found}, found


def same(graph: Graph, rows: int) -> int:
    return rows


def head(
    pattern: tuple | None = None, values: tuple | None = None, mask: int | tuple = 3, pin: int = 0,
    change: Callable[[Graph, int], int] = same,
) -> tuple[Graph, dict, int]:  # fmt: skip
    """One head on three tokens, with views of its pattern and of its values, and a change to all rows before it."""
    maker = Maker(0)
    maker.n, maker.vocab = 3, 2
    maker.graph, maker.weights = Graph(3, (0, 1)), {}
    g, tokens, table = maker.graph, maker.graph.add("tokens"), maker.weight(2, WIDTH)
    rows = change(g, g.add("gather", table, tokens))
    query = g.add("gather", table, g.add("select", tokens, attr=(0, pin)))
    shares = g.add("softmax", g.add("einsum", query, rows, attr="d,id->i"), attr=mask)
    shares = shares if pattern is None else g.add("view", shares, attr=pattern)
    rows = rows if values is None else g.add("view", rows, attr=values)
    return g, maker.weights, g.add("einsum", shares, rows, attr="i,id->d")


def beside_the_first(g: Graph, rows: int) -> int:
    return g.add("add", rows, g.add("view", rows, attr=((3, WIDTH), 0, (0, 1))))


def sum_in_the_last(g: Graph, rows: int) -> int:
    total = g.add("einsum", rows, g.add("constant", attr=((3,), (1.0, 1.0, 1.0))), attr="nd,n->d")
    parts = g.add("view", rows, attr=((2, WIDTH), 0, (WIDTH, 1))), g.add("view", total, attr=((1, WIDTH), 0, (0, 1)))
    return g.add("concat", *parts, attr=0)


def smooth_in_the_last(g: Graph, rows: int) -> int:
    shares = g.add("softmax", g.add("view", rows, attr=((2, 3), 0, (1, WIDTH))), attr=3)
    parts = g.add("view", rows, attr=((2, WIDTH), 0, (WIDTH, 1))), g.add("view", shares, attr=((1, WIDTH), 0, (0, 1)))
    return g.add("concat", *parts, attr=0)


@pytest.mark.parametrize("change", [beside_the_first, sum_in_the_last, smooth_in_the_last])
def test_rows_that_read_another_position_as_well_are_refused(change):
    """Though each reads its own, and the last of those that it reads is its own."""
    graph, weights, output = head(change=change)
    with pytest.raises(Unsupported, match=r"mixes the tokens|one attention head"):
        ratio_form(graph, weights, Real(Float64()), output)
    with pytest.raises(Unsupported):
        parts_form(graph, weights, Real(Float64()), output)


def test_a_row_is_read_whole_each_entry_once_with_its_own_position():
    wrong = {
        "a part of it": (((2,), 0, (1,)), ((2, WIDTH), 0, (WIDTH, 1))),
        "not the first position": (None, None, ("011",)),
        "not the query's position": (None, None, 2, 2),
        "one entry three times": (((3,), 0, (0,)), ((3, WIDTH), 0, (0, 1)), 1),
        "values of one position": (None, ((3, WIDTH), 0, (0, 1))),
        "values of other positions": (None, ((3, WIDTH), 2 * WIDTH, (-WIDTH, 1))),
    }
    graph, weights, output = head()
    assert ratio_form(graph, weights, Real(Float64()), output).attended == 3
    for how in wrong.values():
        graph, weights, output = head(*how)
        with pytest.raises(Unsupported):
            ratio_form(graph, weights, Real(Float64()), output)
        with pytest.raises(Unsupported):
            parts_form(graph, weights, Real(Float64()), output)


def with_places(g: Graph, rows: int) -> int:
    return g.add("add", rows, g.add("constant", attr=((3, WIDTH), tuple(0.25 * i for i in range(3 * WIDTH)))))


def test_a_pattern_and_its_values_are_read_backwards_alike():
    graph, weights, root = head(((3,), 2, (-1,)), ((3, WIDTH), 2 * WIDTH, (-WIDTH, 1)), change=with_places)
    form = ratio_form(graph, weights, Real(Float64()), root)
    for row, value in zip(*Made(graph, weights, root, []).values(), strict=True):
        assert output(form, row) == pytest.approx(value, rel=1e-9, abs=1e-9)


def from_parts(form: PartsForm, ids: np.ndarray) -> np.ndarray:
    """What the parts say of one input, by their definition; rows of tables are multiplied out."""

    def table(chain) -> np.ndarray:
        return product(Float64(), chain).mid

    q, places, read = ids[form.pin], np.arange(form.attended), ids[: form.attended]
    rows = {"query": q, "fixed": 0, "token": read, "position": places}
    scores = np.zeros(form.attended)
    for (own, other), chain in form.score.items():
        scores = scores + table(chain)[rows[own], rows[other]]
    shares = np.exp(scores - scores.max())
    shares /= shares.sum()
    total = sum(table(chain)[rows[what]] for what, chain in form.base.items())
    for what, chain in form.value.items():
        total = total + shares @ table(chain)[rows[what]]
    return total


@pytest.mark.parametrize(
    "start", [0, *(pytest.param(i, marks=pytest.mark.campaign) for i in range(1_000, 3_000, 1_000))]
)
def test_a_random_graph_is_refused_or_right_in_parts(start):
    read = 0
    for seed in range(start, start + 1_000):
        maker = Maker(seed)
        made = maker.made()
        try:
            form = parts_form(made.graph, made.weights, Real(Float64()), made.output)
        except Unsupported:
            continue
        read += maker.n > 1
        for ids, value in zip(*made.values(), strict=True):
            assert from_parts(form, ids) == pytest.approx(value, rel=1e-9, abs=1e-9), (seed, made.parts)
    assert read > 5
