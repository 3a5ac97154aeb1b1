"""What slopes leave over together (lemma D5), attacked: every norm and loss against the largest value that symbols of
any size allow, found by trying all corners; against samples of networks; in pieces; and with weights of any size."""

import itertools
from fractions import Fraction

import numpy as np
import pytest

from mechverify.kernel.core.arithmetic import points
from mechverify.kernel.core.claim import Job
from mechverify.kernel.core.errors import OverLimit, Rejected, Unsupported
from mechverify.kernel.core.float64 import Float64
from mechverify.kernel.differences import rule
from mechverify.kernel.relaxation import noise
from mechverify.kernel.relaxation import rule as linear
from mechverify.kernel.relaxation.backward import Lines, Relaxed
from mechverify.kernel.relaxation.operations import row_of
from tests.soundness import bounds, networks
from tests.soundness.networks import Maker, Network, constant, evaluate, given, samples
from tests.soundness.test_differences import twins

INPUTS, NEURONS, WIDE = 3, 4, 6


def pair(
    function: str, seed: int, layers: int = 2, moved: tuple[str, ...] = ("0.",), fixed: float | None = None
) -> Network:
    """Two networks, whose weights differ where their names begin so."""
    rng, rows, weights = np.random.default_rng([91, seed]), [given(INPUTS)], {}
    for layer in range(layers):
        bounds.dense(
            rows, NEURONS if layer < layers - 1 else WIDE, INPUTS if not layer else NEURONS, f"{layer}", weights, rng
        )
        rows.append([function, [len(rows) - 1], None])
    bounds.dense(rows, 2, WIDE, "last", weights, rng)
    radius = [0.2, 0.7, 1.5][seed % 3]
    centre = rng.normal(size=INPUTS) / 2
    net = twins(Network(rows, weights, [(centre - radius, centre + radius)], [], 0), rng, 1e-3)
    for name in weights:
        if not name.startswith(moved):
            net.weights[f"{name}'"] = weights[name]
    return net


def bounded(net: Network) -> tuple[Job, Relaxed, list[int]]:
    """The kernel's values, and its secants' nodes."""
    job = Job(networks.claim(net), Float64())
    new = rule.jointly(job, job.claim.domain)
    known = linear._value(new, [new.claim.domain], Relaxed)
    known.ends[known.root] = known.output()
    return new, known, [n for n in known.order if known.graph.nodes[n].op == "secant"]


def exactly(net: Network, known: Relaxed, secants: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """What the second secant reads, [cases, entries], at all corners of the box and of the first one's slopes."""
    first = known.slopes[secants[0]]
    low, high = net.inputs[0]
    w, v = (net.weights[name] for name in ("0.W", "0.W'"))
    b, c = (net.weights[name] for name in ("0.b", "0.b'"))
    corners = np.array(list(itertools.product(*zip(low, high, strict=True))))
    d = corners @ (w - v).T + b - c
    slopes = np.array(list(itertools.product(*zip(*(end[0] for end in first), strict=True))))
    return d, (slopes[:, None] * d).reshape(-1, NEURONS) @ net.weights["1.W"].T


def loss(known: Relaxed, secant: int, k: np.ndarray, most: np.ndarray) -> np.ndarray:
    found = noise.loss(known, known.graph.nodes[secant].args[-1], points(k[None]), most[None])
    assert found is not None
    return found[0]


SEEDS = range(12)


@pytest.mark.parametrize("function", ["relu", "gelu", "tanh"])
def test_what_slopes_leave_over_is_bounded_and_nearly_reached(function):
    ratios, gains = [[], []], []
    for seed in SEEDS:
        net, rng = pair(function, seed), np.random.default_rng(seed)
        _, known, secants = bounded(net)
        for layer, d in enumerate(exactly(net, known, secants)):
            size = d.shape[1]
            k = rng.normal(size=(5, size)) * (rng.random((5, size)) < 0.8)
            k[:, :2] = rng.normal(size=(5, 2))
            most = rng.random((5, size)) * rng.choice([1e-3, 1.0, 50.0])
            reached = (np.abs(d) @ (np.abs(k) * most).T).max(0)
            found = loss(known, secants[layer], k, most)
            assert (reached <= found * (1 + 1e-12)).all(), (seed, layer, reached / found)
            ratios[layer].append(found / reached)
            gains.append(found / ((np.abs(k) * most) @ np.abs(d).max(0)))
    assert np.mean(ratios[0]) < 1.3 and np.mean(ratios[1]) < 1.7, [np.mean(r) for r in ratios]
    assert np.min(gains) < 0.8


def test_norms_of_any_weights():
    for seed in SEEDS:
        net, rng = pair("relu", seed), np.random.default_rng(seed)
        _, known, secants = bounded(net)
        for secant, d in zip(secants, exactly(net, known, secants), strict=True):
            w = rng.random((1, 6, d.shape[1])) * 10.0 ** rng.integers(-3, 4, (1, 6, 1))
            w[0, 0, 1:] = 0
            n = known.graph.nodes[secant].args[-1]
            symbols = noise.noise_of(known, n).coefficients.mid.shape[-1]
            reached = np.sqrt(((w[0, :, None] * d) ** 2).sum(-1).max(1))
            for shares in (None, 10.0 ** rng.integers(-2, 3, (1, 6, symbols))):
                found = noise.norm(known, n, slice(0, 1), w, shares)
                assert (reached <= found[0] * (1 + 1e-12)).all(), (seed, reached / found)


def multiples(radius: float, rng: np.random.Generator) -> tuple[Relaxed, int, np.ndarray]:
    """A secant whose entries are multiples of one input, and the largest size of each."""
    rows = [given(1), ["weight", [], ["w", [5, 1]]], ["einsum", [1, 0], "ab,b->a"], ["relu", [2], None]]
    bounds.dense(rows, 2, 5, "last", weights := {"w": rng.normal(size=(5, 1))}, rng)
    box = [(-radius * np.ones(1), radius * np.ones(1))]
    _, known, (secant,) = bounded(twins(Network(rows, weights, box, [], 0), rng, 1e-3))
    low, high = known.ends[known.graph.nodes[secant].args[-1]]
    return known, secant, np.maximum(-low, high)[0]


def test_any_weights_are_sound(monkeypatch):
    """Also zeros: such an entry is added by itself."""
    for seed in SEEDS:
        net, rng = pair("relu", seed), np.random.default_rng(seed)
        _, known, secants = bounded(net)
        for layer, d in enumerate(exactly(net, known, secants)):
            zero = rng.random(d.shape[1]) < 0.3 * (seed % 2)
            w = np.where(zero, 0.0, 10.0 ** rng.integers(-2, 3, d.shape[1]))
            k, most = rng.normal(size=(5, d.shape[1])), rng.random((5, d.shape[1]))
            with monkeypatch.context() as patch:
                patch.setattr(noise, "_weights", lambda known, c, sizes, w=w: w + 0 * c)
                found = loss(known, secants[layer], k, most)
            assert ((np.abs(d) @ (np.abs(k) * most).T).max(0) <= found * (1 + 1e-12)).all()
            assert np.isfinite(found).all()


def test_one_value_in_many_places_is_bounded_exactly():
    """The largest of the entries' sum is the sum of their largest, and no less."""
    rng = np.random.default_rng(3)
    known, secant, size = multiples(1.0, rng)
    k, most = rng.normal(size=(3, 5)), rng.random((3, 5))
    entries = (np.abs(k) * most) @ size
    np.testing.assert_allclose(loss(known, secant, k, most), entries, rtol=1e-2)
    assert (loss(known, secant, k, most) >= entries * (1 - 1e-12)).all()


@pytest.mark.parametrize("radius", [1e-150, 1e-250, 1e-300])
def test_values_whose_squares_vanish_are_not_taken_for_nothing(radius):
    known, secant, size = multiples(radius, np.random.default_rng(3))
    k = most = np.ones((1, 5))
    assert 0 < size.sum() * (1 - 1e-12) <= loss(known, secant, k, most)[0]


@pytest.mark.parametrize("function", ["gelu", "silu", "relu", "sigmoid"])
def test_samples_of_networks_that_differ_everywhere(function):
    found, better = 0, 0
    for seed in range(6):
        net, rng = pair(function, seed, layers=3, moved=("",)), np.random.default_rng(seed)
        job, known, secants = bounded(net)
        operands = [known.graph.nodes[s].args[-1] for s in secants]
        of = {new: old for old, new in job.once(linear.Rewriting).roots.of.items()}
        tokens, inputs = samples(net, 40, rng)
        needed = job.claim.graph.ancestors([of[n] for n in operands])
        values = evaluate(job.claim.graph, job.claim.weights, needed, tokens, inputs)
        for secant, n in zip(secants, operands, strict=True):
            d = values[of[n]].reshape(40, -1).astype(float)
            k, most = rng.normal(size=(4, d.shape[1])), rng.random((4, d.shape[1]))
            bound, reached = loss(known, secant, k, most), np.abs(d) @ (np.abs(k) * most).T
            assert (reached <= bound * (1 + 1e-9)).all()
            low, high = known.ends[n]
            better += (bound < (np.abs(k) * most) @ np.maximum(-low, high)[0]).sum()
            found += reached.size
    assert found > 1_000 and better > 15


@pytest.mark.parametrize("mask", [3, "causal", ["110", "011", "001"]])
def test_neurons_behind_a_masked_softmax(mask):
    """Where it is masked, an entry's slopes are zeros, and what they leave over is nothing, by which nothing divides."""
    net, rng = head(mask), np.random.default_rng(4)
    job, known, secants = bounded(net)
    assert noise.noise_of(known, known.graph.nodes[secants[0]].args[-1]) is not None
    (low,), (high,) = known.ends[known.root]
    tokens, inputs = samples(net, 100, rng)
    values = evaluate(job.claim.graph, job.claim.weights, job.claim.graph.ancestors([job.claim.output]), tokens, inputs)
    y = values[job.claim.output].reshape(100, -1).astype(float)
    assert (low <= y).all() and (y <= high).all() and (high - low < 5 * np.ptp(y, 0)).all()


def head(mask: int | str | list[str]) -> Network:
    """A head of three positions and a layer of neurons, twice, less each other."""
    rng = np.random.default_rng(73)
    weights, rows = {name: rng.normal(size=(2, 2)) for name in "qkv"}, [given(3, 2)]
    for name in "qkv":
        rows += [["weight", [], [name, [2, 2]]], ["einsum", [0, len(rows)], "ia,ab->ib"]]
    rows += [["einsum", [2, 4], "ib,jb->ij"], ["over_root", [7], 2], ["softmax", [8], mask],
             ["einsum", [9, 6], "ij,jb->ib"], ["view", [10], [[6], 0, [1]]]]  # fmt: skip
    bounds.dense(rows, NEURONS, 6, "mlp", weights, rng)
    rows.append(["relu", [len(rows) - 1], None])
    bounds.dense(rows, 2, NEURONS, "last", weights, rng)
    centre = rng.normal(size=(3, 2))
    return twins(Network(rows, weights, [(centre - 0.05, centre + 0.05)], [], 0), rng, 1e-3)


def test_forms_and_norms_of_every_node():
    """Of networks of every operation: no value is further from its form's middle than symbols and the rest reach, and
    no weighted sum of squares exceeds its norm; where something is known of tokens alone, nothing is said."""
    found, said, met = 0, 0, set()
    for seed in range(60):
        rng = np.random.default_rng([92, seed])
        net = twins(Maker(rng).network(int(rng.integers(2, 9))), rng, float(rng.choice([1e-3, 0.3])))
        job = Job(networks.claim(net), Float64())
        try:
            known = linear._value(job, [job.claim.domain], Relaxed, shared=seed % 2 > 0)
        except Unsupported:  # a root of what the bounds don't show to be positive
            continue
        graph = job.claim.graph
        of = {new: n for n, new in job.once(linear.Rewriting).roots.of.items() if n < len(graph.nodes)}
        tokens, inputs = samples(net, 60, rng)
        needed = graph.ancestors([n for n in of.values() if graph.nodes[n].kind == "real"])
        values = evaluate(graph, job.claim.weights, needed, tokens, inputs)
        for n in (n for n in known.order if n in of and of[n] in values and n not in known.fixed):
            z = values[of[n]].reshape(60, -1).astype(float)
            at = np.eye(z.shape[1])[rng.integers(z.shape[1], size=3)]
            w = np.concatenate([at, 10.0 ** rng.uniform(-3, 3, (3, z.shape[1]))])[None]
            norm, form = noise.norm(known, n, slice(0, 1), w), noise.noise_of(known, n)
            if form is None or not np.isfinite(z).all():
                assert form or norm == np.inf
                continue
            off = 1e-11 * (1 + np.abs(z).max())
            centre = form.symbols[-1].coefficients.mid[0, :, 0]
            reach = np.abs(form.coefficients.mid[0]).sum(-1) - np.abs(centre) + form.rest[0]
            assert (np.abs(z - centre) <= reach + off).all(), (seed, n, known.graph.nodes[n].op)
            reached = np.sqrt(((w[0][:, None] * z) ** 2).sum(-1)).max(1)
            assert (reached <= norm[0] * (1 + 1e-11) + off * w[0].max(-1)).all(), (seed, n, known.graph.nodes[n].op)
            found, said, met = found + z.size, said + 1, met | {known.graph.nodes[n].op}
    assert said > 200 and found > 20_000 and met >= {"add", "sub", "mul", "einsum", "view", "relu"}


def test_what_rounding_leaves_of_a_form_is_an_entrys_own():
    """x (W V) less x times what W V is rounded to: its coefficients are lost in their own rounding."""
    rng = np.random.default_rng(2)
    w, v = rng.normal(size=(2, 4, 4)) * 1e9
    weights = {"w": w, "v": v, "wv": w @ v}
    rows = [given(4), *(["weight", [], [name, [4, 4]]] for name in weights)]
    rows += [["einsum", [2, 0], "ab,b->a"], ["einsum", [1, 4], "ab,b->a"], ["einsum", [3, 0], "ab,b->a"],
             ["sub", [5, 6], None]]  # fmt: skip
    net = Network(rows, weights, [(-np.ones(4), np.ones(4))], [], 0)
    job = Job(networks.claim(net), Float64())
    known = linear._value(job, [job.claim.domain], Relaxed)
    form = noise.noise_of(known, known.root)
    exact = [[Fraction(a) for a in row] for row in w], [[Fraction(a) for a in row] for row in v.T]
    apart = [[sum(a * b for a, b in zip(row, column, strict=True)) - Fraction(weights["wv"][i, j])
              for j, column in enumerate(exact[1])] for i, row in enumerate(exact[0])]  # fmt: skip
    reached = np.array([float(sum(map(abs, row))) for row in apart])
    assert reached.min() > 1 and (np.abs(form.coefficients.mid[0]).sum(-1) < reached).any()
    assert (reached <= np.abs(form.coefficients.mid[0]).sum(-1) + form.rest[0]).all()


def test_nothing_is_said_of_lines_that_are_not_parallel_or_without_end(monkeypatch):
    _, known, secants = bounded(pair("tanh", 0))
    d = known.graph.nodes[secants[1]].args[-1]
    vars(known)["noises"].clear()
    monkeypatch.setattr(noise, "middle", lambda known, n: (0.25 + known.finite(known.ends[n][0][:, None]),) * 2)
    assert noise.noise_of(known, d) is not None
    vars(known)["noises"].clear()
    monkeypatch.setattr(noise, "middle", lambda known, n: known.slopes[n][::-1])
    assert noise.noise_of(known, d) is None
    rows = [given(2), constant([1e3, 1e3]), ["mul", [0, 1], None], ["exp", [2], None]]
    known = linear._value(job := Job(networks.claim(Network(rows, {}, [(np.zeros(2), np.ones(2))], [], 0)), Float64()),
                          [job.claim.domain], Relaxed)  # fmt: skip
    assert known.ends[known.root][1].max() == np.inf and noise.noise_of(known, known.root) is None


def test_what_is_refused_is_not_said_and_a_limit_ends_all(monkeypatch):
    _, known, secants = bounded(pair("tanh", 0))
    d = known.graph.nodes[secants[1]].args[-1]

    def raising(error: type[Rejected]) -> None:
        def refused(self, n):
            raise error("as it is told to")

        vars(known)["noises"].clear()
        monkeypatch.setattr(noise.Spread, "noise", refused)

    for error in (Rejected, Unsupported):
        raising(error)
        assert noise.noise_of(known, d) is None
    raising(OverLimit)
    with pytest.raises(OverLimit):
        noise.noise_of(known, d)


def test_a_form_with_a_radius_is_not_asked_for():
    _, known, (secant, _) = bounded(pair("relu", 0))
    k = points(np.ones((1, 1, NEURONS)))
    n = known.graph.nodes[secant].args[-1]
    assert noise.loss(known, n, k, np.ones((1, 1, NEURONS))) is not None
    assert noise.loss(known, n, k._replace(rad=0.1 + 0 * k.mid), np.ones((1, 1, NEURONS))) is None


class Slopes(Lines):
    """Of secants, any."""

    def __init__(self, rng: np.random.Generator, lower: float = 0.5, upper: float = 0.5):
        self.rng, self.sizes = rng, (lower, upper)

    def choose(self, relaxed, start, n):
        node = relaxed.graph.nodes[n]
        if node.op != "secant":
            return None
        return tuple(self.rng.normal(0.5, size, (1, 1, *node.shape)) for size in self.sizes)


def test_slopes_of_a_file_are_those_that_leave_over():
    """The lower ones where a form grows, the upper ones where it falls: of neurons that are a bias apart."""
    for seed, sizes in itertools.product(SEEDS, [(0.1, 0.1), (4.0, 0.1), (0.1, 4.0)]):
        net, rng = pair("relu", seed, layers=1, moved=("0.b",)), np.random.default_rng(seed)
        job = Job(networks.claim(net), Float64())
        new = rule.jointly(job, job.claim.domain)
        corners = np.array(list(itertools.product(*zip(*net.inputs[0], strict=True))))
        inputs = np.concatenate([corners, rng.uniform(*net.inputs[0], (50, INPUTS))])
        graph, tokens = job.claim.graph, np.zeros((len(inputs), 0), int)
        y = evaluate(graph, job.claim.weights, graph.ancestors([job.claim.output]), tokens, [inputs])[job.claim.output]
        (whole,) = linear.ranges(new, [new.claim.domain], lines=Slopes(np.random.default_rng(seed), *sizes))
        assert (whole.low <= y.min(0) + 1e-12).all() and (y.max(0) <= whole.high + 1e-12).all(), seed


@pytest.mark.parametrize("given_slopes", [False, True])
def test_bounds_of_many_cells_are_those_of_each(monkeypatch, given_slopes):
    """Whatever how many are taken together; and they hold, with any slopes, and are narrower than without."""
    net = pair("relu", 2, layers=3, moved=("",))
    job = Job(networks.claim(net), Float64())
    new = rule.jointly(job, job.claim.domain)
    whole = [new.claim.domain]
    cells = whole
    for c in range(INPUTS):
        cells = [half for part in cells for half in part.cut(c, float(part.low[c] / 2 + part.high[c] / 2))]

    cells = [*whole, *cells]

    def found(parts):
        lines = Slopes(np.random.default_rng(1)) if given_slopes else None
        return np.array([np.stack(r) for r in linear.ranges(new, parts, lines=lines)])

    whole = found(cells)
    monkeypatch.setattr(noise, "TOGETHER", 3_000)
    assert (found(cells) == whole).all()
    monkeypatch.setattr(noise, "MOST", 0)
    alone = found(cells)
    assert (whole[:, 1] - whole[:, 0]).sum() < (alone[:, 1] - alone[:, 0]).sum()
    tokens, inputs = samples(net, 200, np.random.default_rng(2))
    values = evaluate(job.claim.graph, job.claim.weights, job.claim.graph.ancestors([job.claim.output]), tokens, inputs)
    y, x = values[job.claim.output].reshape(200, -1).astype(float), np.asarray(inputs[0], float).reshape(200, -1)
    for part, (low, high) in zip(cells, whole, strict=True):
        inside = ((part.low <= x) & (x <= part.high)).all(1)
        assert (low <= y[inside] + 1e-12).all() and (y[inside] <= high + 1e-12).all()


@pytest.mark.parametrize("radius", [1e-300, 1e-100, 1.0])
def test_products_that_vanish_are_not_taken_for_nothing(radius):
    """Each entry leaves over a bit less than half of the smallest number, which is rounded to zero."""
    known, secant, size = multiples(radius, np.random.default_rng(3))
    k, most = 0.45 / size[None] * 2.0**-1074, np.ones((1, 5))
    reached = sum(Fraction(a) * Fraction(v) for a, v in zip(k[0], size, strict=True))
    assert 2 * Fraction(2.0**-1074) < reached <= Fraction(float(loss(known, secant, k, most)[0]))


def test_weights_that_vanish_or_overflow_say_nothing_wrong():
    net = pair("relu", 2)
    _, known, secants = bounded(net)
    for secant, d in zip(secants, exactly(net, known, secants), strict=True):
        for scale in (1e-320, 1e-200, 1e150, 1e300):
            k = np.full((1, d.shape[1]), scale)
            k[0, 0] = 1.0
            found = noise.loss(known, known.graph.nodes[secant].args[-1], points(k[None]), np.ones_like(k)[None])
            reached = (np.abs(d) @ np.abs(k[0])).max()
            assert found is None or found[0, 0] >= reached * (1 - 1e-12)


def test_forms_that_bound_from_one_side_are_refused(monkeypatch):
    """A rounding is taken off a form, which is then too small: as an equation that would be false."""
    assert not row_of("rounding").two_sided
    _, known, secants = bounded(pair("tanh", 0))
    d = known.graph.nodes[secants[1]].args[-1]
    assert noise.noise_of(known, d) is not None
    for op in ("einsum", "secant"):
        vars(known)["noises"].clear()
        with monkeypatch.context() as patch:
            patch.setattr(type(row_of(op)), "two_sided", False)
            assert noise.noise_of(known, d) is None
