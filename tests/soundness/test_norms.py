"""Known ranges attacked: normalisations and almost such, operations at the ends of float64, sums that are almost zero."""

import os
from fractions import Fraction
from math import isqrt, prod
from types import SimpleNamespace

import numpy as np
import pytest

from mechverify.kernel.core.claim import Job
from mechverify.kernel.core.errors import Rejected
from mechverify.kernel.core.float64 import Float64
from mechverify.kernel.core.functions import FUNCTIONS
from mechverify.kernel.core.graph import entries
from mechverify.kernel.relaxation import lines, norms
from mechverify.kernel.relaxation import rule as linear
from mechverify.kernel.relaxation.intervals import Intervals
from tests.rounds import ROUNDS, few
from tests.soundness import hostile, networks
from tests.soundness.hostile import HUGE, Extreme, Normaliser, outside
from tests.soundness.networks import Maker, Network, constant, given

NETWORKS = int(os.environ.get("MECHVERIFY_NETWORKS", 320))
GROUPS = 8


@pytest.fixture(autouse=True)
def quiet():
    with np.errstate(all="ignore"):
        yield


# --- what is almost a norm --------------------------------------------------------------------------------------------


def _total(m, x: int, weights=(1.0, 1.0, 1.0), op: str = "power", eps: float = 1e-9) -> int:
    term = m.one(op, x, 2 if op == "power" else None)
    total = m._add("einsum", [term, m.number(weights)], "ab,b->a", (2,))
    return m.two("add", total, m.number(eps)) if eps else total


def _over(m, c: int, s: int, op: str = "reciprocal") -> int:
    return m.two("mul", c, m.along(m.one(op, s), (2, 3), 1))


# By name: the largest absolute value of an entry, if the kernel is to know it; and the rows, by a maker and a matrix x.
ALMOST = {
    "c / sqrt(sum c^2)": (1, lambda m, x: _over(m, x, _total(m, x), "rsqrt")),
    "c / sum c^2": (None, lambda m, x: _over(m, x, _total(m, x))),
    "c / (sqrt / 2)": (2, lambda m, x: _over(m, x, m.two("mul", m.one("sqrt", _total(m, x)), m.number(0.5)))),
    "c / sum |c|": (1, lambda m, x: _over(m, x, _total(m, x, op="abs"))),
    "c / sum |c| / 2": (2, lambda m, x: _over(m, x, _total(m, x, (0.5, 0.5, 0.5), "abs"))),
    "c / sqrt(sum |c|)": (None, lambda m, x: _over(m, x, _total(m, x, op="abs"), "rsqrt")),
    "c / sqrt(sum c^4)": (None, lambda m, x: _over(m, y := m.two("mul", x, m.number(1e-4)), m.two("add", m.number(1e-9), m._add(
        "einsum", [m.one("power", y, 4), m.number(np.ones(3))], "ab,b->a", (2,))), "rsqrt")),
    "c / sqrt(of another)": (None, lambda m, x: _over(m, x, _total(m, m.two("mul", x, m.number(0.1))), "rsqrt")),
    "rows turned": (None, lambda m, x: _over(m, x, _total(m, m.view(x, (2, 3), 5, [-3, -1])), "rsqrt")),
    "entries turned": (1, lambda m, x: _over(m, x, _total(m, m.view(x, (2, 3), 2, [3, -1])), "rsqrt")),
    "entries turned, weighed": (1, lambda m, x: _over(m, x, _total(m, m.view(x, (2, 3), 2, [3, -1]), (4, 1, 1)), "rsqrt")),
    "|entries turned|, weighed": (1, lambda m, x: _over(m, x, _total(m, m.view(x, (2, 3), 2, [3, -1]), (4, 1, 1), "abs"))),
    "the other row's": (None, lambda m, x: m.two("mul", x, m.view(m.one("rsqrt", _total(m, x)), (2, 3), 1, [-1, 0]))),
    "the other row's root": (None, lambda m, x: m.two(
        "mul", x, m.view(m.one("reciprocal", m.one("sqrt", _total(m, x))), (2, 3), 1, [-1, 0]))),
    "one row's": (None, lambda m, x: m.two("mul", x, m.view(m.one("rsqrt", _total(m, x)), (2, 3), 0, [0, 0]))),
    "one row's root": (None, lambda m, x: m.two("mul", x, m.view(m.one("reciprocal", m.one("sqrt", _total(m, x))),
                                                                (2, 3), 0, [0, 0]))),
    "less its half": (None, lambda m, x: m.view(_over(m, y := m.two("add", x, m.number(2e3)), m.two(
        "sub", _total(m, y, (1, 1e-4, 1e-4)), _total(m, m.two("mul", y, m.number(0.7)), (1, 1e-4, 1e-4))), "rsqrt"),
        (2,), 0, [3])),
    "a weight below zero": (None, lambda m, x: m.view(_over(m, y := m.two("add", x, m.number(2e3)), _total(
        m, y, (1, -0.9, 0.2)), "rsqrt"), (2,), 0, [3])),
    "plus what may be below zero": (None, lambda m, x: _over(m, x, m.two(
        "add", m.one("sqrt", _total(m, x, eps=4.0)), m.mean(m.one("tanh", x), 1)))),
    "plus what may be below zero, in the root": (None, lambda m, x: _over(m, x, m.two(
        "add", _total(m, x, eps=4.0), m.mean(m.one("sin", x), 1)), "rsqrt")),
    "at least a number": (1, lambda m, x: _maximum(m, x, 1e-3, 1e-3)),
    "at least no number": (None, lambda m, x: _maximum(m, x, 1e-3, 50.0)),
    "centred": (1.5**-0.5, lambda m, x: _centred(m, x, (1, 1, 1))),
    "centred and weighed": (1.05**-0.5, lambda m, x: _centred(m, x, (1, 4, 0.25))),
    "not centred": (1, lambda m, x: _centred(m, x, (1, 1, 1), [[2, -1, -1], [-1, 2, -1], [-1, -1, 2.5]])),
    "plus for minus": (1, lambda m, x: _over(m, c := m.two("sub", x, m.two("sub", y := m.along(m.mean(x, 1), (2, 3), 1), m.two(
        "mul", y, m.number(3.0)))), _total(m, c), "rsqrt")),
    "a column of products": (None, lambda m, x: m._add("einsum", [y := _over(m, x, _total(m, x), "rsqrt"), y], "ab,ab->b",
                                                       (3,))),
    "a cosine": (1, lambda m, x: m._add("einsum", [y := _over(m, x, _total(m, x), "rsqrt"), y], "ab,cb->ac", (2, 2))),
    "a cosine of an entry read thrice": (None, lambda m, x: m._add("einsum", [m.view(_over(m, x, _total(m, x), "rsqrt"), (2, 3),
        0, [3, 0])] * 2, "ab,ab->a", (2,))),
    "a cosine of weighed ones": (4, lambda m, x: m._add("einsum", [y := _over(m, x, _total(m, x, (1, 0.25, 1)), "rsqrt"), y],
                                                       "ab,ab->a", (2,))),
    "a cosine with turned entries": (1, lambda m, x: m._add("einsum", [y := _over(m, x, _total(m, x), "rsqrt"), m.view(
        y, (2, 3), 2, [3, -1])], "ab,ab->a", (2,))),
    "products weighed": (None, lambda m, x: m._add("einsum", [m.two("mul", y := _over(m, x, _total(m, x), "rsqrt"), m.number(
        [2.0, 1.0, 0.5])), y], "ab,ab->a", (2,))),
    "products summed with weights": (2, lambda m, x: m._add("einsum", [m.one("power", _over(m, x, _total(m, x), "rsqrt"), 2),
        m.number([2.0, 1.0, 0.5])], "ab,b->a", (2,))),
}  # fmt: skip


def _maximum(m, x: int, least: float, other: float) -> int:
    """c / (least + relu(root - other))."""
    root = m.one("sqrt", _total(m, x))
    room = m.two("sub", root, m.along(m.number([other] * 2), (2,), 0))
    return _over(m, x, m.two("add", m.number([least] * 2), m.one("relu", room)))


def _centred(m, x: int, weights: tuple, matrix=None) -> int:
    matrix = 3 * np.eye(3) - 1 if matrix is None else matrix
    c = m._add("einsum", [x, m.number(matrix)], "ab,bc->ac", (2, 3))
    return _over(m, c, _total(m, c, weights), "rsqrt")


@pytest.mark.parametrize("name", ALMOST)
@pytest.mark.parametrize("sliced", [False, True])
def test_what_is_almost_a_norm_is_held(name, sliced):
    rng = np.random.default_rng(7)
    m = Normaliser(rng)
    x = m._add("input", [], [0, [2, 3]], (2, 3))
    m.inputs = [(np.full((2, 3), -1e2), np.full((2, 3), 1e2))]
    limit, rows = ALMOST[name]
    last = rows(m, x)
    if sliced and len(m.shapes[last]) == 2:
        m.view(last, m.shapes[last][:1], 0, [m.shapes[last][1]])
    net = Network(m.rows, {}, m.inputs, [], 0)
    assert outside(net, rng, 160) == []
    known = intervals(net)
    high = max(known.ends[known.root][1].max(), -known.ends[known.root][0].min())
    assert limit is None or (high < limit + 1e-9 if sliced else abs(high - limit) < 1e-9)


@pytest.mark.parametrize("group", few(range(GROUPS), 2))
def test_no_normalisation_leaves_its_range(group):
    proved = 0
    for seed in range(group, NETWORKS, GROUPS):
        rng = np.random.default_rng([41, seed])
        found = outside(Normaliser(rng).network(), rng)
        assert not found, (seed, found[0])
        proved += found is not None
    assert proved > NETWORKS // GROUPS / 3


@pytest.mark.parametrize("group", few(range(GROUPS), 2))
def test_no_value_at_the_ends_of_float64_leaves_its_range(group):
    proved = 0
    for seed in range(group, NETWORKS, GROUPS):
        rng = np.random.default_rng([42, seed])
        found = outside(Extreme(rng).network(int(rng.integers(1, 7))), rng, 24)
        assert not found, (seed, found[0])
        proved += found is not None
    assert proved > NETWORKS // GROUPS / 3


def test_most_normalisations_that_are_drawn_are_seen_to_be_such():
    """The attack would show nothing if no range of a norm were ever used."""
    seen = 0
    for seed in range(60):
        net = Normaliser(np.random.default_rng([43, seed])).network()
        try:
            known = intervals(net)
        except Rejected:
            continue
        seen += any(norms.limit(known, n) is not None for n in known.order)
    assert seen > 8


def intervals(net: Network) -> Intervals:
    claim = networks.claim(net)
    job = Job(claim, Float64())
    rewriting = job.once(linear.Rewriting)
    return Intervals(job.ar, rewriting.graph, claim.weights, rewriting.roots, linear.cells(job, [claim.domain]))


# --- entries that add up to zero --------------------------------------------------------------------------------------

NUMBERS = [0.0, 1.0, 1.0, -1.0, 2.0, 3.0, 0.5, 0.1, 1 / 3, 2.0**26, 2.0**26 + 1, 2.0**52, 2.0**52 + 1, 2.0**53, 2.0**-30,
           2.0**-31, 1e300, 5e-324]  # fmt: skip


class Sums(Maker):
    """Rows that are linear in one input of n entries, of which the last may be centred."""

    def __init__(self, rng: np.random.Generator):
        super().__init__(rng, kind=1)
        self.rows, self.shapes, self.real, self.tokens, self.vocab, self.weights = [], [], [], [], 0, {}
        self.n = int(rng.integers(2, 5))
        self._add("input", [], [0, [self.n]], (self.n,))
        self.inputs = [(-np.ones(self.n), np.ones(self.n))]

    def number(self, a) -> int:
        return self._add(*constant(a), np.shape(a), False)

    def put(self, op: str, args: list[int], attr=None) -> int:
        return self._add(op, args, attr, (self.n,))

    def times(self, x: int, numbers) -> int:
        return self.put("mul", [x, self.number(np.broadcast_to(numbers, (self.n,)))])

    def step(self) -> int:
        x, y, rng = self._pick(self.real), self._pick(self.real), self.rng
        match int(rng.integers(8)):
            case 0 | 1:
                return self.put("add", [x, y])
            case 2 | 3:
                return self.put("sub", [x, y])
            case 4:
                return self.times(x, rng.choice(NUMBERS) if rng.random() < 0.7 else rng.choice(NUMBERS, self.n))
            case 5:
                return self.put("over_root", [x], self._pick([4, 9, 16, 2, 3]))
            case 6:
                steps = self._pick([[1, 0], [-1, self.n - 1], [0, 0]])
                return self.put("view", [x], [[self.n], steps[1], steps[:1]])
        return self.put("einsum", [x, self.number(rng.choice(NUMBERS, (self.n, self.n)))], "a,ab->b")

    def centred(self) -> int:
        """Its entries add up to zero, or nearly."""
        x, n = self._pick(self.real), self.n
        numbers = n * np.eye(n) - 1
        if self.rng.random() < 0.3:
            numbers /= n
        if self.rng.random() < 0.3:
            numbers[0, 0] = np.nextafter(numbers[0, 0], 9)
        x = self.put("einsum", [x, self.number(numbers)], "a,ba->b" if self.rng.random() < 0.8 else "a,ab->b")
        for _ in range(int(self.rng.integers(0, 3))):  # what is added and taken off again, by other ways
            y, k = self._pick(self.real), self._pick(NUMBERS)
            parts = [self.times(y, k), self.times(y, 1.0 if k < 2.0**50 else 2.0)]
            both = k + (1.0 if k < 2.0**50 else 2.0)
            if self.rng.random() < 0.2:
                both = np.nextafter(both, 9)
            x = self.put("sub", [self.put("add", [self.put("add", [x, parts[0]]), parts[1]]), self.times(y, both)])
        return x

    def network(self, steps: int) -> Network:
        for _ in range(steps):
            self.step()
        self.centred()
        return Network(self.rows, {}, self.inputs, [], 0)


def coefficients(graph, root: int) -> np.ndarray:
    """Of the entries of a linear node, of those of the input: [entries, n], exactly."""
    values: dict[int, np.ndarray] = {}  # the input's coefficients along a last axis, which numbers haven't
    for m in graph.ancestors([root]):
        node, args = graph.nodes[m], [np.asarray(values[a], object) for a in graph.nodes[m].args]
        varies = [a.ndim > len(graph.nodes[n].shape) for a, n in zip(args, node.args, strict=True)]
        if node.op == "input":
            values[m] = np.array([[Fraction(int(i == j)) for j in range(node.shape[0])] for i in range(node.shape[0])])
        elif node.op == "constant":
            values[m] = np.array([Fraction(v) for v in node.attr[1]], object).reshape(node.shape)
        elif node.op in ("add", "sub"):
            values[m] = args[0] + args[1] if node.op == "add" else args[0] - args[1]
        elif node.op == "mul":
            x, number = args if varies[0] else args[::-1]
            values[m] = x * number[..., None]
        elif node.op == "view":
            values[m] = args[0].reshape(-1, *args[0].shape[args[0].ndim - varies[0] :])[entries(node.attr)]
        elif node.op == "over_root":  # of no square: none of the sums that are said to be zero may depend on it
            root_of = isqrt(node.attr)
            values[m] = args[0] / (root_of if root_of**2 == node.attr else Fraction(17320508, 10**7))
        else:
            terms, result = node.attr.split("->")
            spec = [t + "Z" * v for t, v in zip(terms.split(","), varies, strict=True)]
            values[m] = np.einsum(f"{spec[0]},{spec[1]}->{result}Z", *args)
    return np.asarray(values[root]).reshape(prod(graph.nodes[root].shape), -1)


def test_a_sum_is_zero_only_if_it_is_zero_exactly():
    zero = missed = 0
    for seed in range(60 * ROUNDS):
        rng = np.random.default_rng([44, seed])
        known = intervals(Sums(rng).network(int(rng.integers(0, 5))))
        true = coefficients(known.graph, known.root)
        groups = rng.random((3, len(true))) < 0.7
        groups[0] = True
        said = norms._add_up_to_zero(known, known.root, groups)
        for group, answer in zip(groups, said, strict=True):
            is_zero = not (true[group].sum(0) != 0).any()
            assert is_zero or not answer, seed
            zero, missed = zero + answer, missed + (is_zero and not answer)
    assert zero > 20 * ROUNDS


NEARLY = {  # what a careless hand would cancel; and how it is when it does
    "a difference": ([["mul", [0, 1], None], ["sub", [0, 2], None]], [-1.0, -1.0], [1.0, 1.0]),
    "a root": ([["over_root", [0], 2], ["sub", [0, 2], None]], [0.0, 0.0], None),
}  # fmt: skip


@pytest.mark.parametrize("what", NEARLY)
def test_what_almost_cancels_does_not_add_up_to_zero(what):
    steps, numbers, cancels = NEARLY[what]
    for factors, expected in ((numbers, False), (cancels, True)):
        if factors is not None:
            box = (-np.ones(2), np.ones(2))
            known = intervals(Network([given(2), constant(np.array(factors)), *steps], {}, [box], [], 0))
            everything = np.ones((1, known.ends[known.root][0][0].size), bool)
            assert norms._add_up_to_zero(known, known.root, everything).tolist() == [expected]


def test_large_numbers_do_not_hide_small_ones():
    """2^55, ones and -2^55, in whichever order they are added."""
    for ones in range(1, 17):
        numbers = np.zeros((2, ones + 2))
        numbers[0] = [2.0**55, *[1.0] * ones, -(2.0**55)]
        rows = [given(2), constant(numbers), ["einsum", [0, 1], "a,ab->b"]]
        known = intervals(Network(rows, {}, [(-np.ones(2), np.ones(2))], [], 0))
        assert norms._add_up_to_zero(known, known.root, np.ones((1, ones + 2), bool)).tolist() == [False]


def test_a_sum_has_an_end_only_where_each_of_its_terms_has_one():
    for factor in (1.0, -1.0):
        rows = [given(2), ["exp", [0], None], constant([[factor], [0.5 * factor]]), ["einsum", [1, 2], "a,ab->b"]]
        known = intervals(Network(rows, {}, [(np.zeros(2), np.array([1e3, 1.0]))], [], 0))
        low, high = (end.item() for end in known.ends[known.root])
        assert (high if factor > 0 else -low) == np.inf
        assert abs((low if factor > 0 else high) - 1.5 * factor) < 1e-9


# --- no number, and overflow ------------------------------------------------------------------------------------------


def test_a_corner_is_no_number_only_if_an_end_is_none():
    ar, values = Float64(), [0.0, -0.0, 1.0, -2.0, HUGE, 5e-324, np.inf, -np.inf, np.nan]
    x, y = (np.array(v) for v in zip(*[(a, b) for a in values for b in values], strict=True))
    corner = lines._corner(ar, x, y)
    assert (np.isnan(corner) == (np.isnan(x) | np.isnan(y))).all()
    assert (corner[(x == 0) & np.isinf(y)] == 0).all() and corner[(x == -2) & (y == np.inf)] == -np.inf
    low, high = lines.product(ar, (np.array([np.nan]), np.array([1.0])), (np.zeros(1), np.ones(1)))
    assert np.isnan(low).all() and np.isnan(high).all()


@pytest.mark.parametrize("name", ["rsqrt", "reciprocal"])
def test_a_falling_function_of_what_has_no_bound_comes_near_zero(name):
    low, high = lines.image(Float64(), FUNCTIONS[name], np.ones(1), np.full(1, np.inf))
    assert low == 0 and 1 <= high < 1 + 1e-9


def test_an_end_that_is_no_number_bounds_nothing(monkeypatch):
    image = lines.image
    monkeypatch.setattr(lines, "image", lambda *args: [end * np.nan for end in image(*args)])
    net = Network([given(2), ["exp", [0], None]], {}, [(-np.ones(2), np.ones(2))], [], 0)
    known = intervals(net)
    assert (known.ends[known.root][0] == -np.inf).all() and (known.ends[known.root][1] == np.inf).all()


def layer_norm(weights: list[float]) -> list:
    """Of four entries, centred, the squares times numbers added."""
    n, rows = len(weights), [given(4), constant(4 * np.eye(4) - 1), ["einsum", [0, 1], "a,ab->b"], ["power", [2], 2]]
    rows += [constant(weights[:n]), ["einsum", [3, 4], "a,a->"], constant(1e-5), ["add", [5, 6], None],
             ["rsqrt", [7], None], ["view", [8], [[4], 0, [0]]], ["mul", [2, 9], None]]  # fmt: skip
    return rows


@pytest.mark.parametrize("weights, high", [
    ([1.0] * 4, np.sqrt(3 / 4)), ([1e300] * 4, np.sqrt(3 / 4e300)), ([1e-320, 1.0, 1.0, 1.0], None),
    ([5e-324] * 4, None), ([2.0**-1001, 1.0, 1.0, 1.0], None), ([2.0**-999] * 4, None), ([HUGE] * 4, None),
])  # fmt: skip
def test_a_factor_that_is_too_small_loses_its_own_range_alone(weights, high):
    """The other node, x / sqrt(x^2 + 1), keeps its own."""
    rows = [*layer_norm(weights), ["power", [0], 2], constant(np.ones(4)), ["add", [11, 12], None], ["rsqrt", [13], None],
            ["mul", [0, 14], None], ["concat", [10, 15], 0]]  # fmt: skip
    known = intervals(Network(rows, {}, [(-1e3 * np.ones(4), 1e3 * np.ones(4))], [], 0))
    ends = known.ends[known.root][1].ravel()
    assert (ends[4:] < 1 + 1e-9).all()
    if high is not None:
        assert (ends[:4] >= high).all() and np.allclose(ends[:4], high, rtol=1e-9, atol=0)
    rng = np.random.default_rng(0)
    assert not outside(Network(rows, {}, [(-1e3 * np.ones(4), 1e3 * np.ones(4))], [], 0), rng)


@pytest.mark.parametrize("function", ["relu", "softplus"])
def test_a_maximum_of_what_lies_far_apart_is_not_refused(function):
    """y - x overflows."""
    rows = [given(2), ["view", [0], [[], 0, []]], ["view", [0], [[], 1, []]], ["sub", [2, 1], None],
            [function, [3], None], ["add", [1, 4], None]]  # fmt: skip
    for low, high in [(-1e308, 1e308), (-1e308, 1.5e308), (-1.5e308, 0.0)]:
        net = Network(rows, {}, [(np.full(2, low), np.full(2, high))], [], 0)
        known = intervals(net)
        assert low * 1.001 <= known.ends[known.root][0].item() <= low
        assert outside(net, np.random.default_rng(1)) == []


def test_a_normalised_entry_is_bounded_by_no_less_than_the_root_says():
    """1 / sqrt(factor) is rounded up."""
    rng = np.random.default_rng(3)
    factors = np.concatenate([10.0 ** rng.uniform(-8, 8, 2_000), 4.0 ** np.arange(-9, 9)])
    found = norms._most(SimpleNamespace(ar=Float64()), factors)
    for factor, most in zip(factors.tolist(), found.tolist(), strict=True):
        assert Fraction(most) ** 2 * Fraction(factor) >= 1
    np.testing.assert_allclose(found, factors**-0.5, rtol=1e-14)
    assert norms._most(SimpleNamespace(ar=Float64()), np.array([0.0, -1.0])).tolist() == [np.inf, np.inf]


def test_the_judge_finds_what_is_outside(monkeypatch):
    net = Network([given(2), ["tanh", [0], None]], {}, [(-np.ones(2), np.ones(2))], [], 0)
    assert hostile.outside(net, np.random.default_rng(0)) == []
    image = lines.image
    monkeypatch.setattr(lines, "image", lambda *args: [end * (1 - 2.0**-50) for end in image(*args)])
    assert hostile.outside(net, np.random.default_rng(0))
