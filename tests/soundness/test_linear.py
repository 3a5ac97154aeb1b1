"""Rule linear and rule point, attacked: random networks over every operation, with the kernel's lines and with any others.

Every node's interval must hold the value of every sampled input; python-flint decides where float64 comes close.
"""

import os

import numpy as np
import pytest
from flint import arb, ctx

from mechverify.kernel import Rejected, check
from mechverify.kernel.core.arithmetic import Ball
from mechverify.kernel.core.claim import Job
from mechverify.kernel.core.fields import Reader
from mechverify.kernel.core.float64 import Float64
from mechverify.kernel.core.operations import is_function
from mechverify.kernel.core.ranges import Range
from mechverify.kernel.proof import prove
from mechverify.kernel.relaxation import lines, planes
from mechverify.kernel.relaxation import rule as linear
from mechverify.kernel.relaxation.backward import Lines, Relaxed
from mechverify.kernel.relaxation.intervals import Intervals
from mechverify.provers.ranges.names import Called
from tests.rounds import few
from tests.soundness import networks
from tests.soundness.networks import Maker, Network, constant, document, evaluate, file, given, samples

NETWORKS = int(os.environ.get("MECHVERIFY_NETWORKS", 320))
LINEAR = {"rule": "relaxation", "lines": None}


@pytest.fixture(autouse=True)
def quiet():
    with np.errstate(all="ignore"):
        yield


class Any(Lines):
    """Lines as bad as can be: any slopes, any mixtures, for all forms alike or for each."""

    def __init__(self, rng: np.random.Generator):
        self.rng, self.wild = rng, rng.choice([0.01, 1.0, 100.0])

    def choose(self, relaxed: Relaxed, start: int, n: int):
        rng, rows = self.rng, relaxed.rows[start]
        if rng.random() < 0.2:
            return None
        shape = (rng.choice([1, len(relaxed.cells)]), rng.choice([1, rows]), *relaxed.graph.nodes[n].shape)
        if not is_function(relaxed.graph.nodes[n]):
            mixes = [rng.random(shape), np.zeros(shape), np.ones(shape)]
            return tuple(mixes[rng.integers(3)] for _ in range(2))
        slopes = [s.mid for s in relaxed.default_slopes(n)]
        return tuple(s + np.zeros(shape) + rng.normal(size=shape) * self.wild * rng.integers(2) for s in slopes)


def parts(domain, rng: np.random.Generator) -> list:
    """The domain cut a few times, at random places: coordinates at their ends too, and token sets."""
    pieces = [domain]
    for _ in range(int(rng.integers(0, 4))):
        piece = pieces.pop(int(rng.integers(len(pieces))))
        wide = [i for i, tokens in enumerate(piece.tokens) if len(tokens) > 1]
        if wide and (not len(piece.low) or rng.random() < 0.5):
            position = int(rng.choice(wide))
            pieces += piece.split(position, {piece.tokens[position][0]})
        elif len(piece.low):
            at, share = int(rng.integers(len(piece.low))), rng.random()
            low, high = float(piece.low[at]), float(piece.high[at])
            within = min(max(low * (1 - share) + high * share, low), high)
            pieces += piece.cut(at, float(rng.choice([low, high, within])))
        else:
            pieces.append(piece)
    return pieces


def inputs_of(net: Network, part, count: int, rng: np.random.Generator) -> tuple[np.ndarray, list[np.ndarray]]:
    corners, start = [], 0
    for low, _ in net.inputs:
        size = np.size(low)
        corners.append(tuple(end[start : start + size].reshape(np.shape(low)) for end in (part.low, part.high)))
        start += size
    return samples(net._replace(inputs=corners, tokens=[list(t) for t in part.tokens]), count, rng)


def verify(graph, weights, bounds: dict, pivots: dict, root: int, output: int, points: tuple, exact: bool) -> set[int]:
    """Which samples come so close to a bound that float64 can't tell (all are told apart if `exact`)."""
    values = evaluate(graph, weights, [*bounds, output], *points, exact=exact, pivots=pivots)
    close: set[int] = set()
    for n, (low, high) in [*bounds.items(), (output, bounds[root])]:
        value = values[n]
        low, high = (np.broadcast_to(end, (1, *value.shape[1:])) for end in (low, high))
        if exact:
            low, high = (np.broadcast_to(end, value.shape).ravel().tolist() for end in (low, high))
            for a, v, b in zip(low, value.ravel().tolist(), high, strict=True):
                assert not (v < arb(a) or v > arb(b)), (n, graph.nodes[n], a, v, b)
        else:
            slack = 1e-11 * np.maximum(1, np.abs(value))
            near = (value < low + slack) | (value > high - slack)
            close |= set(np.flatnonzero(near.reshape(len(value), -1).any(1)).tolist())
    if exact:
        for a, b in zip(values[root].ravel().tolist(), values[output].ravel().tolist(), strict=True):
            assert (a - b).contains(0) or not a.is_finite(), ("rewritten", a, b)
    return close


@pytest.mark.parametrize("group", few(range(8), 2))
def test_every_interval_holds_every_sample(group):
    refused = 0
    for seed in range(group, NETWORKS, 8):
        rng = np.random.default_rng([1, seed])
        net = Maker(rng).network(int(rng.integers(2, 9)))
        claim = networks.claim(net)
        job = Job(claim, Float64())
        rewriting = job.once(linear.Rewriting)
        graph, roots = rewriting.graph, rewriting.roots
        root = roots.output
        chosen_lines = Any(rng) if rng.random() < 0.6 else None
        pieces = parts(claim.domain, rng)
        try:
            cells = linear.cells(job, pieces, whole=bool(rng.integers(2)))
            relaxed = Relaxed(job.ar, graph, claim.weights, roots, cells, chosen_lines)
            final = lines.meet(job.ar, relaxed.ends[root], relaxed.range(root))
        except Rejected:
            refused += 1
            continue
        assert not relaxed.empty.any(), seed
        balls = relaxed.balls
        ends = relaxed.ends | {root: final}
        for i, piece in enumerate(pieces):
            here = {n: tuple(e[[i if len(e) > 1 else 0]] for e in both) for n, both in ends.items()}
            pivots = {n: b.mid[i if len(b.mid) > 1 else 0] for n, b in balls.items() if graph.nodes[n].op == "pivot"}
            tokens, inputs = inputs_of(net, piece, 60, rng)
            close = verify(graph, claim.weights, here, pivots, root, claim.output, (tokens, inputs), False)
            chosen = [0, 59, *list(close)[:2]]
            exactly = tokens[chosen], [x[chosen] for x in inputs]
            verify(graph, claim.weights, here, pivots, root, claim.output, exactly, True)
    assert refused < NETWORKS / 8 / 4


def test_what_a_part_centres_by_its_own_mean_has_no_range_on_the_whole_domain():
    """The values 10 x and 0, mixed by shares near one half, are taken about 2.5 on [0, 1] and about 4.75 on [.9, 1]: the
    second is not the same number there."""
    net = Network([given(2), ["view", [0], [[2], 0, [0]]], ["view", [0], [[2], 1, [0]]], constant([10.0, 0.0]),
                   ["mul", [1, 3], None], constant([0.1, 0.0]), ["mul", [2, 5], None], ["softmax", [6], 2],
                   ["einsum", [7, 4], "i,i->"]], {}, [(np.zeros(2), np.ones(2))], [], 0)  # fmt: skip
    claim = networks.claim(net)
    job, at = Job(claim, Float64()), np.array([[0.9, 0.0], [0.95, 0.5], [1.0, 1.0]])
    rewriting, part = job.once(linear.Rewriting), claim.domain._replace(low=at[0], high=at[-1])
    cells = linear.cells(job, [part], whole=True)
    relaxed = Relaxed(job.ar, rewriting.graph, claim.weights, rewriting.roots, cells)
    relaxed.output()
    assert not relaxed.empty.any()
    pivots = {n: b.mid[0] for n, b in relaxed.balls.items() if rewriting.graph.nodes[n].op == "pivot"}
    assert pivots
    root = rewriting.roots.output
    verify(
        rewriting.graph, claim.weights, relaxed.ends, pivots, root, claim.output, (np.zeros((3, 0), int), [at]), False
    )


def test_a_corner_of_a_linear_network_is_reached():
    """What is linear is bounded exactly, up to rounding: so the tests above aren't about bounds that hold anyway."""
    for seed in range(40):
        rng = np.random.default_rng([2, seed])
        low = rng.normal(size=(2, 3))
        net = Network([given(2, 3), constant(rng.normal(size=(3, 4))), ["einsum", [0, 1], "ab,bc->ac"],
                       ["view", [2], [[4, 2], 7, [-1, -4]]], constant(rng.normal(size=2)), ["mul", [3, 4], None]],
                      {}, [(low, low + rng.random((2, 3)))], [], 0)  # fmt: skip
        claim = networks.claim(net)
        (found,) = linear.ranges(Job(claim, Float64()), [claim.domain])
        corners = np.array(list(np.ndindex(*(2,) * 6))).reshape(64, 2, 3)
        values = evaluate(
            claim.graph, {}, [claim.output], np.zeros((64, 0), int), [low + corners * (net.inputs[0][1] - low)]
        )
        values = values[claim.output].reshape(64, -1)
        np.testing.assert_allclose(found.low, values.min(0), rtol=0, atol=1e-12)
        np.testing.assert_allclose(found.high, values.max(0), rtol=0, atol=1e-12)


def test_relu_network_bounds_are_below_the_optimum_of_a_descent():
    """A search for the least output, in many steps from many points, never gets below the bound."""
    for seed in range(6):
        rng = np.random.default_rng([3, seed])
        width = 5
        net = Network([given(3), constant(rng.normal(size=(width, 3))), ["einsum", [1, 0], "ab,b->a"],
                       constant(rng.normal(size=width)), ["add", [2, 3], None],
                       [["relu", "tanh", "gelu", "silu", "sin", "softplus"][seed], [4], None],
                       constant(rng.normal(size=width)), ["einsum", [5, 6], "a,a->"]],
                      {}, [(-np.ones(3), np.ones(3))], [], 0)  # fmt: skip
        claim = networks.claim(net)
        (found,) = linear.ranges(Job(claim, Float64()), [claim.domain])
        x, best = rng.uniform(-1, 1, (2_000, 3)), []
        for step in range(12):
            value = evaluate(claim.graph, {}, [claim.output], np.zeros((len(x), 0), int), [x])[claim.output]
            order = np.argsort(value)[:200]
            best.append(value[order[0]])
            x = np.clip(np.repeat(x[order], 10, 0) + rng.normal(size=(2_000, 3)) * 0.5**step, -1, 1)
            x[:200] = x[::10]
        assert found.low.item() <= min(best)
        assert found.low.item() > min(best) - 10  # it is a bound of this network


# --- the steps --------------------------------------------------------------------------------------------------------


def random_balls(rng: np.random.Generator, count: int) -> tuple[Ball, np.ndarray, np.ndarray]:
    """Balls, and their ends as the kernel reads them: of all sizes, with radius zero, subnormal, touching zero."""
    mid = rng.normal(size=count) * 10.0 ** rng.integers(-320, 150, count)
    rad = np.abs(rng.normal(size=count)) * 10.0 ** rng.integers(-320, 150, count)
    rad = np.where(rng.random(count) < 0.3, 0, np.where(rng.random(count) < 0.3, np.abs(mid), rad))
    mid = np.where(rng.random(count) < 0.1, 0.0, mid)
    x = Ball(mid, rad)
    return x, Float64().lower(x), Float64().upper(x)


def at(low: np.ndarray, high: np.ndarray, share: float) -> list[arb]:
    return [arb(a) + (arb(b) - arb(a)) * arb(share) for a, b in zip(low.tolist(), high.tolist(), strict=True)]


def holds(low: np.ndarray, values: list[arb], high: np.ndarray) -> bool:
    return all(not (v < arb(a) or v > arb(b)) for a, v, b in zip(low.tolist(), values, high.tolist(), strict=True))


def test_hull_meet_and_product_hold_what_they_must():
    networks.ctx.prec = 4_000
    ar = Float64()
    for seed in range(4):
        rng = np.random.default_rng([4, seed])
        (x, xl, xu), (y, yl, yu) = random_balls(rng, 400), random_balls(rng, 400)
        first, second = (Ball(*(np.where(xl <= yl, a, b) for a, b in pair))
                         for pair in (zip(x[:2], y[:2], strict=True), zip(y[:2], x[:2], strict=True)))  # fmt: skip
        hull = lines.hull(ar, first, second)
        assert holds(ar.lower(hull), at(ar.lower(first), ar.lower(first), 0), ar.upper(hull))
        assert holds(ar.lower(hull), at(ar.upper(second), ar.upper(second), 0), ar.upper(hull))
        product = lines.product(ar, (xl, xu), (yl, yu))
        for s in (0, 0.3, 1):
            for t in (0, 0.5, 1):
                values = [a * b for a, b in zip(at(xl, xu, s), at(yl, yu, t), strict=True)]
                assert holds(product[0], values, product[1])
        common = ~((xl > yu) | (yl > xu))
        meet = [end[common] for end in lines.meet(ar, (xl, xu), (yl, yu))]
        for s in (0, 0.5, 1):
            values = at(np.maximum(xl, yl)[common], np.minimum(xu, yu)[common], s)
            assert holds(meet[0], values, meet[1])


@pytest.mark.parametrize("upper", [False, True])
def test_planes_bound_products(upper):
    networks.ctx.prec = 4_000
    ar = Float64()
    for seed in range(4):
        rng = np.random.default_rng([5, seed])
        (x, xl, xu), (y, yl, yu) = random_balls(rng, 200), random_balls(rng, 200)
        mix = rng.choice([rng.random(200), np.zeros(200), np.ones(200), np.full(200, 5e-324), np.full(200, 1 - 2**-53)])
        a, b, c = planes.plane(ar, x, y, ar.exact(mix), upper)
        ends = [(ar.lower(v), ar.upper(v)) for v in (a, b, c)]
        exact = [arb(float(m)) for m in mix]
        corners = [at(e, e, 0) for e in (xl, xu, yl, yu)]
        pairs = ((0, 3), (1, 2)) if upper else ((0, 2), (1, 3))
        (p, q), (r, s) = ([corners[i] for i in pair] for pair in pairs)
        true = ([(1 - m) * i + m * j for m, i, j in zip(exact, q, s, strict=True)],
                [(1 - m) * i + m * j for m, i, j in zip(exact, p, r, strict=True)],
                [-(1 - m) * i * j - m * k * n for m, i, j, k, n in zip(exact, p, q, r, s, strict=True)])  # fmt: skip
        for (low, high), values in zip(ends, true, strict=True):
            assert holds(low, values, high)  # the balls hold the mixture's exact coefficients
        for share in (0, 0.4, 1):
            for other in (0, 0.7, 1):
                for u, v, ka, kb, kc in zip(at(xl, xu, share), at(yl, yu, other), *true, strict=True):
                    gap = (u * v - ka * u - kb * v - kc) * (-1 if upper else 1)
                    assert not gap < 0


@pytest.mark.parametrize("mix", [-5e-324, 1 + 2**-52, np.nan, -1.0, 2.0])
def test_mixtures_outside_the_unit_interval_are_refused(mix):
    ones = Ball(np.ones(1), np.ones(1))
    with pytest.raises(Rejected, match=r"lies outside \[0, 1\]"):
        planes.plane(Float64(), ones, ones, Ball(np.array([mix]), np.zeros(1)), False)


def relaxed(net: Network) -> tuple[Relaxed, int]:
    claim = networks.claim(net)
    job = Job(claim, Float64())
    rewriting = job.once(linear.Rewriting)
    cells = linear.cells(job, [claim.domain])
    return Relaxed(job.ar, rewriting.graph, claim.weights, rewriting.roots, cells), rewriting.roots.output


@pytest.mark.parametrize("function", ["relu", "exp", "tanh"])
def test_a_form_holds_for_all_coefficients_that_it_may_have(function):
    """Rounding makes coefficients balls; before signs are looked at, what that may change is taken off."""
    net = Network([given(2), [function, [0], None]], {}, [(np.array([-1.0, 1.0]), np.array([1.0, 2.0]))], [], 0)
    found, root = relaxed(net)
    mid, rad = (
        np.array([[[1.0, -1.0]], [[0.25, 0.25]], [[0.0, 0.0]]]),
        np.array([[[0.5, 0.25]], [[0.5, 0.5]], [[1.0, 0.0]]]),
    )
    low = found.form(root, Ball(mid.reshape(1, 3, 2), rad.reshape(1, 3, 2)))
    for x in np.stack(np.meshgrid(np.linspace(-1, 1, 9), np.linspace(1, 2, 9)), -1).reshape(-1, 2):
        y = np.array([networks.FUNCTIONS[function][0](v) for v in x])
        least = (mid[:, 0] * y - rad[:, 0] * np.abs(y)).sum(-1)  # over all coefficients
        assert (low[0] <= least + 1e-12).all()


def test_a_coefficient_that_may_be_negative_of_an_entry_without_end_bounds_nothing():
    """exp(x) on [0, 2000] has no end above: 0.1 e^x is at least 0.1, but (0.1 - 0.5) e^x is anything below zero."""
    net = Network([given(1), ["exp", [0], None]], {}, [(np.zeros(1), np.full(1, 2000.0))], [], 0)
    found, root = relaxed(net)
    assert np.isinf(found.ends[root][1]).all()
    mid, rad = np.full((1, 2, 1), 0.1), np.array([[[0.0], [0.5]]])
    low = found.form(root, Ball(mid, rad))
    assert 0.09 < low[0, 0] <= 0.1 and low[0, 1] == -np.inf


def test_a_coefficient_whose_radius_is_no_number_bounds_nothing():
    """-e^x / 2, whose coefficient is rounded to 1/2, beside zeros whose radii overflow, so that its own is NaN."""
    sums = np.array([[-(2.0**54), -1, 2.0**54, 0.5, 1e300, -1e300, 1e300, -1e300]])
    copies = np.repeat(np.eye(3), [4, 2, 2], 0)
    rows: list = [given(3), ["exp", [0], None]]
    for matrix in (np.eye(3), np.diag([1.0, 1e30, 1e30]), copies, sums):
        rows += [constant(matrix), ["einsum", [len(rows), len(rows) - 1], "ab,b->a"]]
    net = Network(rows, {}, [(np.full(3, 700.0), np.full(3, 720.0))], [], 0)
    found, _ = relaxed(net)
    assert [end.tolist() for end in found.output()] == [[[-np.inf]], [[np.inf]]]
    doc, data = document(net, LINEAR, low=[0.0], verdict="PROVED", at_least=["0x0.0p+0"])
    with pytest.raises(Rejected, match="bounds"):
        check(file(doc, data))


def test_what_is_no_number_in_a_form_bounds_nothing():
    """One coefficient's radius is NaN, of forms of every value of random networks, many of whose values have no end."""
    tried = 0
    for seed in range(80):
        rng = np.random.default_rng([56, seed])
        try:
            found, _ = relaxed(Maker(rng, radius=float(rng.choice([0.3, 800.0, 1e200]))).network(5))
        except Rejected:
            continue
        for start in found.roots.values.intersection(found.order):
            mid = rng.normal(size=(1, 4, *found.graph.nodes[start].shape))
            rad = np.zeros_like(mid)
            rad.reshape(4, -1)[:, int(rng.integers(mid[0, 0].size))] = np.nan
            tried += 1
            assert (found.form(start, Ball(mid, rad)) == -np.inf).all(), (seed, start)
    assert tried > 200


def test_entries_that_are_bounded_beside_others_get_the_same_bounds():
    """Of each cell other entries, side by side, in rows of their own: as when all are bounded; of the rest nothing."""
    rng = np.random.default_rng(11)
    rows = [given(3), constant(rng.normal(size=(3, 6))), ["einsum", [0, 1], "a,ab->b"], ["relu", [2], None],
            constant(rng.normal(size=(6, 5))), ["einsum", [3, 4], "a,ab->b"]]  # fmt: skip
    claim = networks.claim(Network(rows, {}, [(-np.ones(3), np.ones(3))], [], 0))
    job = Job(claim, Float64())
    rewriting = job.once(linear.Rewriting)
    pieces = [half for c in range(2) for half in claim.domain.cut(c, 0.25)]
    cells, root = linear.cells(job, pieces), rewriting.roots.output
    found = Relaxed(job.ar, rewriting.graph, claim.weights, rewriting.roots, cells)
    everything = found.range(root)
    for _ in range(20):
        wanted = rng.random((len(pieces), 5)) < rng.random()
        for all_, some, none in zip(everything, found.range(root, wanted), (-np.inf, np.inf), strict=True):
            assert np.array_equal(some, np.where(wanted, all_, none))


@pytest.mark.parametrize("shift", [-0.9, 1e-5, 0.5])
def test_a_scale_that_something_is_taken_off_is_no_norm(shift):
    """x / sqrt(x^2 + shift) on [1, 2]: at most one only if nothing is taken off the square."""
    rows = [
        given(1),
        ["power", [0], 2],
        constant([shift]),
        ["add", [1, 2], None],
        ["rsqrt", [3], None],
        ["mul", [0, 4], None],
    ]
    found, root = relaxed(Network(rows, {}, [(np.ones(1), 2 * np.ones(1))], [], 0))
    low, high = (end.item() for end in found.ends[root])
    values = [x / np.sqrt(x * x + shift) for x in np.linspace(1, 2, 50)]
    assert low <= min(values) and max(values) <= high + 1e-12
    assert (high < 1 + 1e-9) == (shift >= 0)


def test_a_sum_of_entries_that_only_rounding_makes_zero_is_not_zero():
    """c = (x_0, 0), written so that its entries' form passes 2^53: one of x_0 gets lost there, and |c_0 / s| would be at
    most 1 / sqrt 2 if c were centred."""
    most = 2.0**52
    rows = [given(2), constant([1.0, 1.0]), ["mul", [0, 1], None]]

    def put(op: str, args: list, attr=None) -> int:
        rows.append([op, args, attr])
        return len(rows) - 1

    def times(n: int, k: float) -> int:
        rows.append(constant([k, 0.0]))
        return put("mul", [n, len(rows) - 1])

    zero = times(put("sub", [2, 2]), 2.0)
    more = [times(2, k) for k in (most - 1, most - 2, 2.0)]  # 2^53 - 1 times x, by way of node 2
    less = [times(0, k) for k in (most - 1, most - 2, 1.0)]
    c = put("add", [put("add", [put("add", [more[0], more[1]]), more[2]]), zero])
    for part in less:
        c = put("sub", [c, part])
    square = put("einsum", [put("power", [c], 2), 1], "a,a->")
    rows.append(["constant", [], [[], [(1e-5).hex()]]])
    put("mul", [c, put("rsqrt", [put("add", [square, len(rows) - 1])])])
    found, root = relaxed(Network(rows, {}, [(np.ones(2), 2 * np.ones(2))], [], 0))
    assert found.ends[root][1].ravel()[0] >= 2 / np.sqrt(4 + 1e-5)
    assert found.ends[root][1].ravel()[0] < 1 + 1e-9  # it is seen to be a norm


def test_a_norm_narrower_than_its_planes_is_held():
    """x / sqrt(x^2 + 1/10) on [-3, 3]: its interval, of both ends, takes the place of planes over the wide box."""
    rows = [
        given(1),
        ["power", [0], 2],
        constant([0.1]),
        ["add", [1, 2], None],
        ["rsqrt", [3], None],
        ["mul", [0, 4], None],
    ]
    found, root = relaxed(Network(rows, {}, [(-3 * np.ones(1), 3 * np.ones(1))], [], 0))
    x, y = (found.balls[a].rad.item() for a in found.graph.nodes[root].args)
    assert found.balls[root].rad.item() < x * y  # which is when it does
    value = 3 / np.sqrt(9.1)
    for low, high in (found.ends[root], found.range(root)):
        assert low.item() <= -value and value <= high.item()
    low = found.form(root, found.ar.exact(np.array([1.0, -1.0]).reshape(1, 2, 1)))
    assert (low <= -value).all() and (low > -1.01).all()


X, Y = ["view", [0], [[], 0, []]], ["view", [0], [[], 1, []]]
JOINT = {  # rows on x (1) and y (2); whether the value is one of f's smooth maxima or minima, whose ends are exact
    "x + f(y - x)": ([["sub", [2, 1], None], "f", ["add", [1, 4], None]], True),
    "f(y - x) + x": ([["sub", [2, 1], None], "f", ["add", [4, 1], None]], True),
    "x - f(x - y)": ([["sub", [1, 2], None], "f", ["sub", [1, 4], None]], True),
    "x + f(x - y)": ([["sub", [1, 2], None], "f", ["add", [1, 4], None]], False),
    "y - f(x - y)": ([["sub", [1, 2], None], "f", ["sub", [2, 4], None]], False),
    "f(x - y) - x": ([["sub", [1, 2], None], "f", ["sub", [4, 1], None]], False),
    "x + f(y + x)": ([["add", [2, 1], None], "f", ["add", [1, 4], None]], False),
    "x + f(y - x) of itself": ([["sub", [1, 1], None], "f", ["add", [1, 4], None]], True),
}


@pytest.mark.parametrize("function", ["relu", "softplus", "silu", "gelu", "abs", "exp"])
@pytest.mark.parametrize("form", JOINT)
@pytest.mark.parametrize("scale", [1e-3, 1.0, 30.0])
def test_smooth_maxima_are_held(function, form, scale):
    rows, joint = JOINT[form]
    rows = [given(2), X, Y, *([function, [3], None] if row == "f" else row for row in rows)]
    rng = np.random.default_rng(0)
    for _ in range(4):
        centre, radius = rng.normal(size=2) * scale, rng.random(2) * scale
        box = centre - radius, centre + radius
        claim = networks.claim(Network(rows, {}, [box], [], 0))
        at = np.array([[a, b] for a in (0, 1, *rng.random(9)) for b in (0, 1, *rng.random(9))])
        points = np.clip(box[0] + at * (box[1] - box[0]), *box)
        values = evaluate(claim.graph, {}, [claim.output], np.zeros((len(points), 0), int), [points], exact=True)
        values = values[claim.output].ravel()
        for kind in (Intervals, Relaxed):
            (found,) = linear.ranges(Job(claim, Float64()), [claim.domain], kind=kind)
            low, high = found.low.item(), found.high.item()
            assert all(arb(low) <= v <= arb(high) for v in values)
            if joint and function in ("relu", "softplus"):
                ends = min(map(float, values)), max(map(float, values))
                size = 1e-12 * (1 + np.abs(box).max())
                assert ends[0] - size <= low and high <= ends[1] + size


@pytest.mark.parametrize("gap", [23.0, 25.0, 100.0])
@pytest.mark.parametrize("width", [0.0, 3.0])
def test_capped_probabilities_are_held(gap, width):
    """Scores 0 and x, x in [gap, gap + width]: the first's share, exactly; a cap is active from 24 on."""
    net = Network([constant([[1.0], [0.0]]), given(1), ["einsum", [0, 1], "ab,b->a"], ["softmax", [2], 2]], {},
                  [(np.array([gap]), np.array([gap + width]))], [], 0)  # fmt: skip
    claim = networks.claim(net)
    (found,) = linear.ranges(Job(claim, Float64()), [claim.domain])
    for x in (gap, gap + width):
        with ctx.workprec(600):  # 1 - e^-100 is less than 1 by far more than 53 bits show
            share = 1 / (1 + arb(x).exp())
            for low, value, high in zip(found.low.tolist(), (1 - share, share), found.high.tolist(), strict=True):
                assert arb(low) <= value <= arb(high)


# --- whole certificates -----------------------------------------------------------------------------------------------


def tree(domain, rng: np.random.Generator, depth: int) -> dict:
    """A proof: splits at random places, also at the ends; both; points."""
    kind = rng.integers(4) if depth else 0
    wide = [i for i, tokens in enumerate(domain.tokens) if len(tokens) > 1]
    if kind == 1 and len(domain.low):
        i = int(rng.integers(len(domain.low)))
        low, high = float(domain.low[i]), float(domain.high[i])
        cut = float(rng.choice([low, high, low + (high - low) * rng.random()]))
        halves = domain.cut(i, cut)
        where: dict = {"coordinate": i, "at": cut.hex()}
    elif kind == 2 and wide:
        position = int(rng.choice(wide))
        first = [t for t in domain.tokens[position] if rng.random() < 0.5]
        halves = domain.split(position, set(first))
        if not all(h.size for h in halves):
            return tree(domain, rng, depth - 1)
        where = {"position": position, "first": first}
    elif kind == 3:
        point = {"rule": "point", "inputs": [[[t[0] for t in domain.tokens], networks.hexadecimal(domain.high)]]}
        return {"rule": "both", "first": tree(domain, rng, depth - 1), "second": point}
    else:
        return LINEAR if rng.random() < 0.7 else {"rule": "relaxation", "lines": []}
    inside, outside = (tree(h, rng, depth - 1) for h in halves)
    return {"rule": "split", **where, "inside": inside, "outside": outside}


def test_certificates_state_no_more_than_is_true():
    """What is proved is accepted, one step more is not; all samples lie within; a threshold is met exactly or not."""
    accepted = 0
    for seed in range(25):
        rng = np.random.default_rng([6, seed])
        net = Maker(rng).network(int(rng.integers(1, 6)))
        claim = networks.claim(net)
        proof = tree(claim.domain, rng, 4)
        try:
            proved, _ = prove(Job(claim, Float64()), Reader(proof, "proof"))
        except Rejected:
            continue
        accepted += 1
        n = claim.outputs
        doc, data = document(net, proof, low=proved.low, high=proved.high, n=n)
        theorem = check(file(doc, data))
        values = evaluate(claim.graph, claim.weights, [claim.output], *samples(net, 300, rng))[claim.output].reshape(
            300, -1
        )
        slack = 1e-9 * np.maximum(1, np.abs(values))
        assert (values >= theorem.range.low - slack).all() and (values <= theorem.range.high + slack).all()
        for end, outward in (("low", np.inf), ("high", -np.inf)):
            ends = {"low": proved.low, "high": proved.high}
            i = int(rng.integers(n))
            ends[end] = ends[end].copy()
            ends[end][i] = np.nextafter(ends[end][i], outward)
            with pytest.raises(Rejected, match="tighter"):
                check(file(*document(net, proof, n=n, **ends)))
        low = [networks.hexadecimal(v)[0] for v in proved.low]
        assert (
            check(file(*document(net, proof, low=proved.low, n=n, at_least=low, verdict="PROVED"))).verdict == "PROVED"
        )
        beyond = [f"{a}/{b}" for a, b in ((int(v) * 10**30 + 1, 10**30) for v in np.ceil(proved.low).tolist())]
        for verdict in ("PROVED", "REFUTED"):  # REFUTED would need a replayed input below
            if verdict == "PROVED" or "point" not in str(proof):
                with pytest.raises(Rejected):
                    check(file(*document(net, proof, low=proved.low, n=n, at_least=beyond, verdict=verdict)))
    assert accepted > 15


def unit(proof: dict, **settings) -> str:
    """The verdict on x in [0, 1]."""
    net = Network([given(1)], {}, [(np.zeros(1), np.ones(1))], [], 0)
    return check(file(*document(net, proof, **settings))).verdict


def point(x: float) -> dict:
    return {"rule": "point", "inputs": [[[], [x.hex()]]]}


def cut(where: float, inside: dict = LINEAR, outside: dict = LINEAR) -> dict:
    return {"rule": "split", "coordinate": 0, "at": where.hex(), "inside": inside, "outside": outside}


BELOW, ABOVE = [-(2.0**-40)], [1 + 2.0**-40]
EXACT = f"{2**40 + 1}/{2**40}"
BARELY = f"{(2**40 + 1) * 10**40 - 1}/{2**40 * 10**40}"


@pytest.mark.parametrize("proof, settings", [
    (LINEAR, dict(at_most="1/1", high=ABOVE, verdict="PROVED")),
    (LINEAR, dict(at_most=BARELY, high=ABOVE, verdict="PROVED")),
    (LINEAR, dict(at_most="2/1", verdict="PROVED")),  # nothing is stated
    (LINEAR, dict(at_most="2/1", at_least="1/1000", high=ABOVE, low=BELOW, verdict="PROVED")),
    (LINEAR, dict(high=ABOVE, verdict="PROVED")),
    (LINEAR, dict(verdict="REFUTED")),
    (LINEAR, dict(at_most="-1/1", verdict="REFUTED")),  # false, but no input was shown
    (point(1.0), dict(at_most="1/1", verdict="REFUTED")),
    (point(0.5), dict(at_most="1/2", verdict="REFUTED")),
    (point(0.5), dict(at_most="1/2", at_least="1/2", verdict="REFUTED")),
    (point(0.5), dict(at_most="1/1", verdict="PROVED")),
    (point(1.5), dict(at_most="1/1", verdict="REFUTED")),
    (point(-5e-324), dict(at_least="0/1", verdict="REFUTED")),
    (cut(0.25, point(0.75)), dict(at_most="1/2", verdict="REFUTED")),  # outside its part
    (cut(0.5, LINEAR, point(0.7)), dict(high=ABOVE)),  # of one half nothing is proved
    (cut(0.5, point(0.2), LINEAR), dict(low=BELOW)),
    (cut(1.5), {}), (cut(-5e-324), {}), (cut(float(np.nextafter(1, 2))), {}),
    ({**cut(0.5), "coordinate": 1}, {}), ({**cut(0.5), "coordinate": -1}, {}), ({**cut(0.5), "position": 0}, {}),
    ({**cut(0.5), "first": []}, {}), ({**LINEAR, "rule": "enumerate"}, {}), ({**LINEAR, "rule": "fold"}, {}),
    ({"rule": "relaxation", "multipliers": []}, {}), ({"rule": "relaxation", "shared": True}, {}),
    ({"rule": "relaxation", "lines": [["0", "0", 0, [1], [1]]]}, {}), ({"rule": "linear", "lines": None}, {}), ({"rule": "interval"}, {}),
    ({"rule": "point", "inputs": []}, {}), ({"rule": "point", "inputs": [[[0], ["0x0.0p+0"]]]}, {}),
    ({"rule": "point", "inputs": [[[], []]]}, {}), ({"rule": "point", "inputs": [[[], ["0x0.0p+0"] * 2]]}, {}),
])  # fmt: skip
def test_what_does_not_follow_is_refused(proof, settings):
    with pytest.raises(Rejected) as error:
        unit(proof, **settings)
    assert "internal error" not in str(error.value)


@pytest.mark.parametrize("at", [1.5, -5e-324, float(np.nextafter(1, 2))])
def test_a_half_that_is_no_part_of_the_box_is_refused_as_such(at):
    with pytest.raises(Rejected, match="outside its interval"):
        unit(cut(at))


@pytest.mark.parametrize("proof, settings", [
    (LINEAR, dict(at_most=EXACT, high=ABOVE, verdict="PROVED")),
    (cut(0.0), dict(low=BELOW, high=ABOVE)), (cut(1.0), dict(low=BELOW)), (cut(-0.0), dict(low=BELOW, high=ABOVE)),
    (cut(0.5, {"rule": "both", "first": LINEAR, "second": point(0.2)}, cut(0.5)), dict(low=BELOW, high=ABOVE)),
    (cut(0.25, LINEAR, point(0.75)), dict(at_most="1/2", verdict="REFUTED")),
    (point(1.0), dict(at_most=f"{2**40 - 1}/{2**40}", verdict="REFUTED")),
])  # fmt: skip
def test_what_follows_is_accepted(proof, settings):
    assert unit(proof, **settings) == settings.get("verdict", "BOUNDED")


@pytest.mark.parametrize("low, high, true_low, true_high", [
    (0.0, 0.0, 0.0, 0.0), (-0.0, 0.0, 0.0, 0.0), (5e-324, 5e-324, 0.0, 1e-323), (-5e-324, 5e-324, -5e-324, 5e-324),
    (1.0, 1.0, 1.0, 1.0), (-1.7e308, 1.6e308, -1.7e308, 1.6e308), (1e308, 1.1e308, 0, 1.7e308), (1.0, np.nextafter(1, 2), 1.0, 1.0),
])  # fmt: skip
def test_extreme_boxes(low, high, true_low, true_high):
    """Of x itself and of x - x: a range that holds it, or a refusal."""
    for rows, most in (([given(1)], high), ([given(1), ["sub", [0, 0], None]], 0.0)):
        net = Network(rows, {}, [(np.array([low]), np.array([high]))], [], 0)
        claim = networks.claim(net)
        try:
            proved, _ = prove(Job(claim, Float64()), Reader(LINEAR, "proof"))
        except Rejected as error:
            assert "internal" not in str(error)
            continue
        assert proved.low.item() <= (low if len(rows) == 1 else 0.0) and proved.high.item() >= most


@pytest.mark.parametrize("low, high, least, most", [(0, 1, -1, 1), (-1, 0, -1, -1), (0, 0, -1, -1), (0.25, 1, 1, 1)])
def test_of_a_tie_the_other_one_is_chosen(low, high, least, most):
    """One where x > 0, minus one elsewhere: no more is proved than is true at zero, and no less than signs tell."""
    rows = [given(1), constant([0.0]), constant([1.0]), constant([-1.0]), ["choose", [0, 1, 2, 3], None]]
    claim = networks.claim(Network(rows, {}, [(np.array([float(low)]), np.array([float(high)]))], [], 0))
    proved, _ = prove(Job(claim, Float64()), Reader(LINEAR, "proof"))
    assert least - 1e-9 <= proved.low.item() <= least and most <= proved.high.item() <= most + 1e-9


@pytest.mark.parametrize("low, high", [(1.0, 0.0), (5e-324, -0.0), (0.0, -5e-324)])
def test_an_empty_box_is_refused(low, high):
    with pytest.raises(Rejected, match="a box of the domain is empty"):
        networks.claim(Network([given(1)], {}, [(np.array([low]), np.array([high]))], [], 0))


@pytest.mark.parametrize("row", [
    ["pivot", [0, 0], "a,a->a"], ["select", [0], [0, 0]], ["value", [], 0], ["integer", [], 1], ["sum", [0, 0], None],
    ["relu", [0, 0], None], ["relu", [], None], ["relu", [0], 1], ["power", [0], 1], ["power", [0], 17], ["power", [0], None],
    ["over_root", [0], 0], ["over_root", [0], -1], ["softmax", [0], 0], ["softmax", [0], 3], ["softmax", [0], "causal"],
    ["softmax", [0], ["00"]], ["softmax", [0], ["10", "01", "11"]], ["softmax", [0], ["1"]], ["softmax", [0], ["12"]],
    ["view", [0], [[3], 0, [1]]], ["view", [0], [[2], 0, [-1]]], ["view", [0], [[2], 1, [1]]], ["view", [0], [[2], 0, []]],
    ["view", [0], [[0], 0, [1]]], ["view", [0], [[2], 0, [2**61]]], ["concat", [0, 0], 1], ["concat", [], 0],
    ["einsum", [0, 0], "aa,a->a"], ["einsum", [0, 0], "a,b->a"], ["einsum", [0, 0], "a,a->aa"], ["einsum", [0, 0], "a,a->b"],
    ["einsum", [0, 0], "a,a"], ["einsum", [0], "a->a"], ["einsum", [0, 0], "A,A->A"], ["gather", [0, 0], None],
    ["add", [0, 1], None], ["add", [1, 1], None], ["input", [], [1, [2]]], ["input", [], [0, [3]]], ["tokens", [0], None],
    ["constant", [], [[2], ["0x0.0p+0"]]], ["constant", [], [[1], ["inf"]]], ["constant", [], [[1], ["nan"]]],
    ["constant", [], [[1], [0]]], ["weight", [], ["none", [1]]],
])  # fmt: skip
def test_illegal_rows_are_refused(row):
    net = Network([given(2), row], {}, [(np.zeros(2), np.ones(2))], [], 0)
    with pytest.raises(Rejected) as error:
        check(file(*document(net)))
    assert "internal error" not in str(error.value)


# --- lines of a certificate -------------------------------------------------------------------------------------------


def curved() -> Network:
    """relu and a product: rows 3 and 4 of the graph, bounded through 2."""
    rows = [given(2), constant(np.array([[1.0, -2.0], [3.0, 1.0]])), ["einsum", [1, 0], "ab,b->a"], ["tanh", [2], None],
            ["view", [3], [[2], 1, [-1]]], ["mul", [3, 4], None]]  # fmt: skip
    return Network(rows, {}, [(np.array([-0.5, 0.25]), np.array([0.5, 1.0]))], [], 0)


def listed(net: Network, rng: np.random.Generator, scale: float) -> list:
    """Rows of random lines, for every form that passes a function or a product."""
    claim = networks.claim(net)
    seen: dict[tuple[int, int], tuple] = {}

    class Recorder(Lines):
        def choose(self, relaxed, start, n):
            seen[start, n] = relaxed.rows[start], relaxed.graph.nodes[n]

    job = Job(claim, Float64())
    linear.ranges(job, [claim.domain], lines=Recorder())
    of, rows = job.once(Called).of, []
    for (start, n), (forms, node) in seen.items():
        count = int(np.prod(node.shape)) * int(rng.choice([1, forms]))
        numbers = (
            rng.integers(0, 2**16 + 1, (2, count)) if node.op == "mul" else rng.normal(size=(2, count)) * 2**16 * scale
        )
        rows.append([of[start], of[n], -16, *np.asarray(numbers, int).tolist()])
    return rows


@pytest.mark.parametrize("scale", [0.0, 0.5, 30.0])
def test_listed_lines_are_sound_whatever_they_are(scale):
    accepted = 0
    for seed in range(25):
        rng = np.random.default_rng([7, seed])
        net = curved() if seed < 5 else Maker(rng, radius=0.5).network(4)
        claim = networks.claim(net)
        try:
            lines = listed(net, rng, scale)
            proved, _ = prove(Job(claim, Float64()), Reader({"rule": "relaxation", "lines": lines}, "proof"))
        except Rejected as error:
            assert "internal" not in str(error)
            continue
        accepted += 1
        values = evaluate(claim.graph, claim.weights, [claim.output], *samples(net, 300, rng))[claim.output].reshape(
            300, -1
        )
        slack = 1e-9 * np.maximum(1, np.abs(values))
        assert (values >= proved.low - slack).all() and (values <= proved.high + slack).all()
    assert accepted > 15


def spoilt(row: list, kind: str) -> list:
    start, n, exponent, lower, upper = row
    return {
        "one too many": [start, n, exponent, [*lower, 0], [*upper, 0]],
        "one too few": [start, n, exponent, lower[:-1], upper[:-1]],
        "none": [start, n, exponent, [], []],
        "unequal": [start, n, exponent, lower, upper[:-1]],
        "another node": [start, "1000", exponent, lower, upper],
        "no name": [start, n + ".", exponent, lower, upper],
        "a number": [start, 0, exponent, lower, upper],
        "another role": [start, n + ".total", exponent, lower, upper],
        "a slice that isn't there": [start, n + "[0]", exponent, lower, upper],
        "another start": [n, n, exponent, lower, upper],
        "a huge number": [start, n, exponent, [2**53] * len(lower), upper],
        "a huge exponent": [start, n, 901, lower, upper],
        "no integer": [start, n, exponent, ["1"] * len(lower), upper],
        "truth values": [start, n, exponent, [True] * len(lower), upper],
        "a field less": [start, n, exponent, lower],
    }[kind]


@pytest.mark.parametrize("kind", ["one too many", "one too few", "none", "unequal", "another node", "another start", "no name", "a number",
                                  "another role", "a slice that isn't there",
                                  "a huge number", "a huge exponent", "no integer", "truth values", "a field less"])  # fmt: skip
def test_lines_that_do_not_fit_are_refused(kind):
    net = curved()
    rows = listed(net, np.random.default_rng(1), 0.5)
    assert check(file(*document(net, {"rule": "relaxation", "lines": rows}, n=2)))
    for i in [i for i, r in enumerate(rows) if kind != "another start" or r[0] != r[1]]:
        lines = [spoilt(r, kind) if i == j else r for j, r in enumerate(rows)]
        with pytest.raises(Rejected) as error:
            check(file(*document(net, {"rule": "relaxation", "lines": lines}, n=2)))
        assert "internal error" not in str(error.value)
    with pytest.raises(Rejected, match="twice"):
        check(file(*document(net, {"rule": "relaxation", "lines": [*rows, rows[0]]}, n=2)))


@pytest.mark.parametrize("wrong", [-1, 2**16 + 1])
def test_mixtures_of_a_certificate_lie_in_the_unit_interval(wrong):
    """A product's numbers are mixtures; a function's are slopes, of which any is sound."""
    net = curved()
    rows = listed(net, np.random.default_rng(1), 0.5)
    kinds = {"3": "slopes", "5": "mixtures"}
    assert {kinds[n] for _, n, *_ in rows} == {"slopes", "mixtures"}
    for i, (start, n, exponent, lower, upper) in enumerate(rows):
        for ends in (([wrong] * len(lower), upper), (lower, [wrong] * len(upper))):
            lines = [*rows[:i], [start, n, exponent, *ends], *rows[i + 1 :]]
            spoilt_file = file(*document(net, {"rule": "relaxation", "lines": lines}, n=2))
            if kinds[n] == "slopes":
                assert check(spoilt_file).verdict == "BOUNDED"
            else:
                with pytest.raises(Rejected, match=r"lies outside \[0, 1\]"):
                    check(spoilt_file)


@pytest.mark.parametrize("value", [np.nan, 0.0])
def test_a_bound_that_is_no_number_is_refused(monkeypatch, value):
    """Whatever a rule returns, a comparison that is not true accepts nothing."""
    doc, data = document(Network([given(1)], {}, [(np.zeros(1), np.ones(1))], [], 0))
    doc["conclusion"] |= {"low": [(0.0).hex()], "high": [(0.0).hex()]}
    found = Range(np.full(1, value), np.full(1, value))
    monkeypatch.setattr(linear, "ranges", lambda job, parts, *_, **__: [found] * len(parts))
    if np.isnan(value):
        with pytest.raises(Rejected, match=r"tighter than those proved|contradict"):
            check(file(doc, data))
    else:
        assert check(file(doc, data)).range.high.tolist() == [0.0]
