"""Lemma C15: largest entries, entries in order, and choices, in every arithmetic, at ties and where balls overlap."""

from fractions import Fraction
from itertools import product

import numpy as np
import pytest

from mechverify.kernel.core.arithmetic import Ball
from mechverify.kernel.core.double import Double
from mechverify.kernel.core.errors import Rejected
from mechverify.kernel.core.evaluate import Evaluation
from mechverify.kernel.core.exact import Exact
from mechverify.kernel.core.float64 import Float64
from mechverify.kernel.core.graph import Graph
from mechverify.kernel.core.operations.order import ascending, exceeds, hull, largest
from mechverify.kernel.core.semantics import Real
from mechverify.kernel.relaxation.order import exchanges
from tests.soundness.networks import Network, claim, constant, given

KINDS = {"float64": Float64, "double": Double, "exact": Exact}
RADII = [0.0, 0.0, 5e-324, 2.0**-60, 0.25, 1.0, 3.0]


@pytest.fixture(params=KINDS)
def ar(request):
    return KINDS[request.param]()


def number(x: Ball, at: tuple, what: str = "mid") -> Fraction:
    """Exactly, the centre or the radius of one entry."""
    value = np.broadcast_to(getattr(x, what), np.shape(x.mid))[at]
    parts = [value.real, value.imag] if isinstance(value, complex) else [value]
    return (
        sum((Fraction(int(p) if isinstance(p, int) else float(p)) for p in parts), Fraction(0))
        * Fraction(2) ** x.exponent
    )


def ball(ar, mid: np.ndarray, rad: np.ndarray) -> Ball:
    return ar.widen(ar.exact(mid), 1.0, of=ar.exact(rad)) if rad.any() else ar.exact(mid)


def entries(x: Ball, what: str = "mid") -> list[Fraction]:
    return [number(x, at, what) for at in np.ndindex(np.shape(x.mid))]


def corners(mids: list, rads: list, rng, count: int = 40):
    """Choices of reals in the balls: the ends, in every way, and points between."""
    ways = list(product((-1, 0, 1), repeat=len(mids)))
    ways = [ways[i] for i in rng.permutation(len(ways))[:count]]
    ways += [tuple(Fraction(int(k), 8) for k in rng.integers(-8, 9, len(mids))) for _ in range(count)]
    for way in ways:
        yield [m + w * r for m, w, r in zip(mids, way, rads, strict=True)]


def drawn(rng, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Near each other, with ties; radii of every size."""
    mid = rng.choice([0.0, -0.0, 1.0, 1.0 + 2.0**-52, -1.0, 0.5, 2.0**-70, 1e9], n)
    return mid, np.array([RADII[i] for i in rng.integers(0, len(RADII), n)])


@pytest.mark.parametrize("n", [1, 2, 3, 5])
def test_every_choice_of_reals_lies_within(ar, n):
    rng = np.random.default_rng(n)
    for _ in range(60):
        x = ball(ar, *drawn(rng, n))
        mids, rads = entries(x), entries(x, "rad")
        most, in_order = largest(ar, x), ascending(ar, x)
        least = -largest(ar, -x)
        for values in corners(mids, rads, rng, 20):
            assert abs(number(most, ()) - max(values)) <= number(most, (), "rad")
            assert abs(number(least, ()) - min(values)) <= number(least, (), "rad")
            for i, value in enumerate(sorted(values)):
                assert abs(number(in_order, (i,)) - value) <= number(in_order, (i,), "rad")
        for found in (most, least, in_order):
            assert max(entries(found, "rad")) <= max(rads)  # never the sum


def test_a_radius_is_that_of_what_may_stand_there(ar):
    x = ball(ar, np.array([0.0, 5.0, 1.0, 9.0]), np.array([2.0, 0.0, 0.5, 0.0]))
    radii = entries(x, "rad")
    assert number(largest(ar, x), (), "rad") == radii[3]
    assert entries(-largest(ar, -x), "rad") == [max(radii)]
    assert entries(ascending(ar, x), "rad")[2:] == [radii[1], radii[3]]
    assert min(entries(ascending(ar, x), "rad")[:2]) >= 2


def test_points_stay_points(ar):
    """Ties among them, too: nothing is rounded."""
    x = ar.exact(np.array([[3.0, -1.0, 3.0, 0.5], [1.0, 1.0, 1.0, 1.0]]))
    assert entries(ascending(ar, x)) == [-1, Fraction(1, 2), 3, 3, 1, 1, 1, 1]
    assert entries(largest(ar, x)) == [3, 1]
    assert not any(entries(ascending(ar, x), "rad") + entries(largest(ar, x), "rad"))


def test_digits_beyond_float64_decide():
    ar = Double()
    near = ar.add(ar.exact(np.array([1.0, 1.0])), ar.exact(np.array([2.0**-70, 2.0**-80])))
    assert number(largest(ar, near), ()) == 1 + Fraction(1, 2**70)
    assert entries(ascending(ar, near)) == [1 + Fraction(1, 2**80), 1 + Fraction(1, 2**70)]
    assert exceeds(ar, near.at[:1], near.at[1:])[0].all() and not exceeds(ar, near.at[1:], near.at[:1])[0].any()


def test_which_of_two_is_larger(ar):
    """Surely, or not at all; equal numbers are not more, and only numbers without radius are known to be equal."""
    rng = np.random.default_rng(0)
    seen = set()
    for _ in range(300):
        (a, b), (r, s) = drawn(rng, 2)
        x, y = ball(ar, a[None], r[None]), ball(ar, b[None], s[None])
        more, less = (bool(v[0]) for v in exceeds(ar, x, y))
        (m,), (n,), (u,), (v,) = entries(x), entries(y), entries(x, "rad"), entries(y, "rad")
        assert not (more and less)
        if more:
            assert m - u > n - v or m - u > n + v
            assert all(p > q for p in (m - u, m + u) for q in (n - v, n + v))
        if less:
            assert all(p <= q for p in (m - u, m + u) for q in (n - v, n + v))
        if u == v == 0:
            assert more == (m > n) and less == (m <= n)
        seen.add((more, less, m == n))
    assert seen >= {(True, False, False), (False, True, True), (False, True, False), (False, False, False)}


def test_a_hull_holds_both(ar):
    rng = np.random.default_rng(1)
    for _ in range(100):
        mid, rad = drawn(rng, 2)
        x, y = (ball(ar, mid[i : i + 1], rad[i : i + 1]) for i in (0, 1))
        both = hull(ar, x, y)
        (centre,), (reach,) = entries(both), entries(both, "rad")
        for part in (x, y):
            (m,), (r,) = entries(part), entries(part, "rad")
            assert centre - reach <= m - r and m + r <= centre + reach
        assert reach <= (abs(entries(x)[0] - entries(y)[0]) / 2 + sum(map(Fraction, rad))) * (
            1 + Fraction(1, 2**40)
        ) + Fraction(1, 2**40)


@pytest.mark.parametrize("kind", [Float64, Double])
@pytest.mark.parametrize("bad", [np.inf, -np.inf, np.nan])
def test_what_is_not_finite_is_refused(kind, bad):
    ar = kind()
    x = ar.point(np.array([1.0, bad]))
    for operation in (largest, ascending, lambda ar, x: exceeds(ar, x, x)):
        with np.errstate(invalid="ignore"), pytest.raises(Rejected, match="finite"):
            operation(ar, x)
    wide = Ball(ar.exact(np.zeros(2)).mid, np.array([0.0, np.inf]))
    with np.errstate(invalid="ignore"), pytest.raises(Rejected, match="finite"):
        largest(ar, wide)


@pytest.mark.parametrize("n", range(1, 18))
def test_exchanges_put_everything_in_order(n):
    """All rows of zeros and ones: by Knuth's principle that says it of all numbers."""
    pairs = [*exchanges(n)]
    assert all(0 <= i < j < n for i, j in pairs)
    rows = np.arange(2**n)[:, None] >> np.arange(n) & 1
    for i, j in pairs:
        rows[:, i], rows[:, j] = np.minimum(rows[:, i], rows[:, j]), np.maximum(rows[:, i], rows[:, j])
    assert (np.diff(rows, axis=1) >= 0).all()


def test_the_operations_of_a_graph_and_their_slices():
    """On a batch of tokens, against numpy; a slice of each is the slice of its value."""
    graph, table = Graph(3, (0, 1, 2)), np.random.default_rng(3).normal(size=(3, 4))
    x = graph.add("gather", graph.add("weight", attr=("E", (3, 4))), graph.add("tokens"))
    zero = graph.add("constant", attr=((), (0.0,)))
    inputs = np.array([*product(range(3), repeat=3)])
    rows, first = table[inputs], table[inputs][:, :1]
    start = graph.select(x, 0, 0)
    expected = {
        graph.add("extremum", x, attr="max"): rows.max(-1),
        graph.add("extremum", x, attr="min"): rows.min(-1),
        graph.add("ascending", x): np.sort(rows, -1),
        graph.add("choose", x, zero, start, x): np.where(rows > 0, first, rows),
        graph.add("choose", start, x, zero, x): np.where(first > rows, 0.0, rows),
    }
    for n, value in expected.items():
        known = Evaluation(graph, {"E": table}, Real(Float64()), inputs)
        assert np.array_equal(known[n].mid, value) and not np.any(known[n].rad), graph.nodes[n]
        for axis, size in enumerate(graph.nodes[n].shape):
            for i in range(size):
                part = known[graph.select(n, axis, i)]
                assert np.array_equal(
                    np.broadcast_to(part.mid, np.take(value, i, axis + 1).shape), np.take(value, i, axis + 1)
                )


@pytest.mark.parametrize("op, args, attr", [
    ("extremum", ["x"], None), ("extremum", ["x"], "largest"), ("extremum", ["scalar"], "max"), ("ascending", ["scalar"], None),
    ("ascending", ["ids"], None), ("choose", ["x", "x", "x"], None), ("choose", ["x", "x", "x", "ids"], None),
    ("choose", ["x", "x", "x", "long"], None),
])  # fmt: skip
def test_what_is_not_legal_is_refused(op, args, attr):
    rows = [given(3), ["tokens", [], None], constant(0.0), constant([0.0, 1.0]), [op, [], attr]]
    rows[-1][1] = [{"x": 0, "ids": 1, "scalar": 2, "long": 3}[name] for name in args]
    net = Network(rows, {}, [(np.zeros(3), np.ones(3))], [[0, 1], [0, 1]], 2)
    with pytest.raises(Rejected):
        claim(net)
