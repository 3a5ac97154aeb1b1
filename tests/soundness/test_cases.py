"""Attacks on cases of signs: bounds of every case against samples, shares of sets against exact ones, and shares of boxes
under piecewise linear nets, whose signs are told apart, against known answers and samples."""

from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
import torch
from sympy import And, Or
from torch import nn

from mechverify import Share, box, capture, normal, prove
from mechverify.kernel.core.arithmetic import Ball
from mechverify.kernel.core.float64 import Float64
from mechverify.kernel.relaxation import conditions, halfspaces, shares
from mechverify.kernel.relaxation.cases import SIGNS, Cases, cases
from mechverify.kernel.relaxation.halfspaces import UnitForms
from mechverify.provers.accuracy.problem import AccuracyProblem
from tests.rounds import few
from tests.soundness.test_boxes import accepted as is_accepted
from tests.soundness.test_boxes import bounds, cut, proved

AR = Float64()


def test_what_two_sets_share_is_rounded_down():
    rng = np.random.default_rng(0)
    a, b = rng.permuted(
        [1 - rng.random(2_000) / 3, rng.random(2_000) / 2 + 1e-3], axis=0
    )  # the smaller has more digits
    found = conditions.both(AR, a, b)
    exact = [max(Fraction(x) + Fraction(y) - 1, Fraction(0)) for x, y in zip(a.tolist(), b.tolist(), strict=True)]
    assert all(Fraction(low) <= true for low, true in zip(found.tolist(), exact, strict=True))
    assert (found > 0).sum() > 500
    assert conditions.both(AR, np.array([1.0, 0.25]), np.array([0.75, 1.0])).tolist() == [0.75, 0.25]


class Deep(nn.Module):
    def __init__(self, sizes: list[int], seed: int):
        super().__init__()
        torch.manual_seed(seed)
        self.w = nn.ParameterList(nn.Parameter(torch.randn(b, a)) for a, b in pairwise(sizes))
        self.b = nn.ParameterList(nn.Parameter(0.3 * torch.randn(b)) for b in sizes[1:])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for i, (w, b) in enumerate(zip(self.w, self.b, strict=True)):
            x = x @ w.T + b
            x = torch.relu(x) if i < len(self.w) - 1 else x
        return x


def deep(sizes: list[int], seed: int):
    model = Deep(sizes, seed).double().eval()
    return model, capture(model, torch.zeros(1, sizes[0], dtype=torch.float64))


def job_of(share: Share):
    return AccuracyProblem.of(share, "real", None).job


def condition(out, x):
    return Or(And(out[0] >= out[1], x[0] >= x[1]), out[1] >= 1)


def exactly(model: Deep, x: np.ndarray) -> np.ndarray:
    """Whether that condition holds, in float64."""
    with torch.no_grad():
        y = model(torch.from_numpy(x)).numpy()
    return ((y[:, 0] >= y[:, 1]) & (x[:, 0] >= x[:, 1])) | (y[:, 1] >= 1)


@pytest.mark.parametrize("seed", range(4))
def test_bounds_of_each_case_hold_where_its_signs_do(seed):
    """Of samples, whose way through the tree is that of the values themselves: in torch, layer by layer."""
    model, captured = deep([2, 3, 3, 2], seed)
    x = box([-2, -1], [1, 2])
    job = job_of(Share(condition(captured["output"], x), over=x))
    about = job.once(conditions.Condition).job
    told = cases(about, [job.claim.domain], np.array([6]), False)
    assert (told.inside >= 0).any() and len(told.inside) > 3
    drawn = np.random.default_rng(seed).uniform([-2, -1], [1, 2], (4_000, 2))
    low, rad = (told.constants[:, None] + np.einsum("nfc,pc->npf", told.slopes.mid, drawn),
                np.einsum("nfc,pc->npf", told.slopes.rad, np.abs(drawn)))  # fmt: skip
    low -= rad
    with torch.no_grad():
        y = model(torch.from_numpy(drawn)).numpy()
    atoms = np.stack([y[:, 0] - y[:, 1], drawn[:, 0] - drawn[:, 1], y[:, 1] - 1], 1)
    m = low.shape[2] // 2
    assert m == 3
    met, width = np.zeros(len(told.inside), bool), []
    for p in range(len(drawn)):
        n = 0
        while told.inside[n] >= 0:
            met[n] = True
            above, below = low[n, p, 0], low[n, p, m]
            assert above <= -below + 1e-9
            n = told.inside[n] if above + below > -1e-9 and above >= 0 else told.outside[n]
        met[n] = True
        ours = sorted(atoms[p])
        assert (np.sort(low[n, p, :m]) <= np.array(ours) + 1e-9).all()
        assert (np.sort(-low[n, p, m:]) >= np.array(ours) - 1e-9).all()
        width.append((-low[n, p, m:] - low[n, p, :m]).max())
    assert met.sum() > 3 and np.median(width) < 1e-9  # all signs are told apart: exact


@pytest.mark.parametrize("signs", few([0, 1, 2, 4, SIGNS], 2))
@pytest.mark.parametrize("distribution", [None, normal("1/4", 1)])
def test_shares_hold_what_samples_find_whatever_is_told_apart(signs, distribution):
    for seed in range(3):
        model, captured = deep([2, 4, 3, 2], seed)
        x = box([-2, -1], [1, 2]) if distribution is None else box([-2, -1], [1, 2], distribution=distribution)
        job = job_of(Share(condition(captured["output"], x), over=x))
        parts = job.claim.domain.cut(0, -0.25)
        found = shares.counts(job, list(parts), np.array([13, 15]), np.array([signs, signs]))
        rng, n = np.random.default_rng(seed), 1_000_000
        drawn = rng.uniform([-2, -1], [1, 2], (n, 2))
        weight = np.ones(n) if distribution is None else np.exp(-((drawn - 0.25) ** 2).sum(1) / 2)
        right = exactly(model, drawn)
        for part, inside in zip(found, (drawn[:, 0] <= -0.25, drawn[:, 0] >= -0.25), strict=True):
            share = (weight * (right & inside)).sum() / weight.sum()
            low, high = part.low / job.claim.total, part.high / job.claim.total
            assert low - 0.003 <= share <= high + 0.003, (seed, signs)
            assert high - low < (0.02 if signs == SIGNS else 1)


@pytest.mark.parametrize("of", [0, 1])
def test_an_atom_that_is_sure_says_nothing_of_a_sign(of):
    drawn, tried = np.random.default_rng(0).uniform([-2, -1], [1, 2], (400_000, 2)), 0
    for seed in range(4):
        model, captured = deep([2, 4, 3, 2], seed)
        with torch.no_grad():
            value = model(torch.from_numpy(drawn))[:, of]
        middle = Fraction(round(64 * value.mean().item()), 64)
        x, out = box([-2, -1], [1, 2]), captured["output"]
        job = job_of(Share(And(out[1 - of] >= -1000, out[of] >= middle), over=x))
        (found,) = shares.counts(job, [job.claim.domain], np.array([13]), np.array([SIGNS]))
        share = (value >= float(middle)).double().mean().item()
        low, high = found.low / job.claim.total, found.high / job.claim.total
        assert low - 0.004 <= share <= high + 0.004, seed
        tried += 0.05 < share < 0.95
    assert tried > 1


class Folded(nn.Module):
    """The sum of sizes, by two neurons each, and what is left of it beyond one."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        size = (torch.relu(x) + torch.relu(-x)).sum(1, keepdim=True)
        return torch.relu(size - 1)


@pytest.mark.parametrize(("n", "share"), [(1, Fraction(1, 2)), (2, Fraction(1, 8)), (3, Fraction(1, 48))])
def test_known_volumes_of_nets_with_kinks(n, share):
    """|x_0| + .. <= 1 within [-2, 2]^n: 2^n / n! of 4^n. Beyond, the output is above zero, and elsewhere zero."""
    model = capture(Folded().eval(), torch.zeros(1, n, dtype=torch.float64))
    x = box([-2] * n, [2] * n)
    low, high = bounds(prove(Share(model["output"][0] <= 0, over=x, within="1/1000")))
    assert low <= share <= high <= low + Fraction(1, 1000)
    low, high = bounds(prove(Share(model["output"][0] > 0, over=x, within="1/1000")))
    assert low <= 1 - share <= high <= low + Fraction(1, 1000)


def test_a_symmetric_net_is_right_on_half():
    model = capture(Folded().eval(), torch.zeros(1, 2, dtype=torch.float64))
    x = box([-3, -3], [3, 3], distribution=normal(0, 1))
    out = model["output"][0]
    low, high = bounds(prove(Share(x[0] + out >= x[1] + out, over=x, within="1/10000")))
    assert low <= Fraction(1, 2) <= high <= low + Fraction(1, 10_000)


def test_what_is_zero_for_sure_is_told_to_be():
    """Both outputs are zero where the number is negative: neither is less."""

    class Dead(nn.Module):
        def forward(self, x):
            h = torch.relu(x[:, :1])
            return torch.cat([h, 2 * h], 1)

    out = capture(Dead().eval(), torch.zeros(1, 2, dtype=torch.float64))["output"]
    x = box([-1, -1], [1, 1])
    low, high = bounds(prove(Share(out[0] >= out[1], over=x, within="1/1000")))
    assert low <= Fraction(1, 2) <= high <= low + Fraction(1, 1_000)


def test_points_and_faces_in_planes():
    """A coordinate that is a point, and planes through corners and along faces of the box."""
    model = capture(Folded().eval(), torch.zeros(1, 2, dtype=torch.float64))
    out = model["output"][0]
    for low, high, share in (
        ([-2, 0.5], [2, 0.5], Fraction(1, 4)),  # |x| <= 1/2
        ([0, 0], [1, 1], Fraction(1, 2)),  # the plane goes through two corners
        ([0, 0], [0.5, 0.5], Fraction(1)),  # touches one
        ([-1, 1], [1, 2], Fraction(0)),  # touches a face in a point
    ):
        least, most = bounds(prove(Share(out <= 0, over=box(low, high), within="1/1000")))
        assert least <= share <= most <= least + Fraction(1, 1_000), (low, high)


def test_two_sets_have_so_much_in_common():
    rng = np.random.default_rng(0)
    sets = rng.random((2, 400, 64)) < rng.random((2, 400, 1))
    sets[0, :40], sets[1, 20:60] = True, True
    a, b = sets.mean(2)
    found = conditions.both(AR, a, b)
    assert (found <= (sets[0] & sets[1]).mean(1)).all()
    assert (found[:40] == b[:40]).all() and (found[20:60] == a[20:60]).all()
    for p, q in ((0.1, 0.95), (0.3, 0.7), (1 / 3, 2 / 3), (1 - 2.0**-53, 0.1), (1e-17, 1 - 2.0**-53), (0.7, 0.6)):
        least = max(Fraction(0), Fraction(p) + Fraction(q) - 1)
        (one,) = conditions.both(AR, np.array([p]), np.array([q]))
        assert 0 <= Fraction(float(one)) <= least <= Fraction(float(one)) + Fraction(1, 2**50)


@pytest.mark.parametrize("apart", [True, False])
def test_shares_of_cases_are_no_larger_than_what_is_right(apart):
    """Of points, some of which lie in the case. There forms are right where they say positive, or negative; elsewhere
    they may say both, unless they are apart."""
    rng = np.random.default_rng(1)
    case, positive, negative, inside, outside = rng.random((5, 4_000, 12)) < rng.random((5, 4_000, 1))
    negative &= ~positive | ~(case | apart)
    right = np.where(positive, inside, outside)  # of what is in the case
    free = ~positive & ~negative  # there is a sign, and no form shows it
    right = np.where(free, inside & outside, right)
    ways = np.stack([positive.mean(1), negative.mean(1)])
    r, s = inside.mean(1), outside.mean(1)
    cases = np.stack([r, 1 - r]), np.stack([s, 1 - s])
    none, flags = np.zeros((2, 4_000)), np.full(4_000, apart)
    found, together = shares._of_cases(AR, ways, *zip(cases, (none, none), strict=True), flags)
    least = (right | ~case).mean(1)  # of sets that are right wherever they meet the case
    assert (found[0] <= least + 1e-15).all() and (found[0] > 0).any() and not together.any()
    known = positive.all(1)
    assert known.any() and (found[0, known] == r[known]).all()
    # some of what forms show of the sign and of the rest at once is known
    seen = rng.random((2, 4_000, 12)) < 0.7
    one, other = inside & positive & seen[0], outside & negative & seen[1]
    commons = (np.stack([a.mean(1), none[1]]) for a in (one, other))
    more, together = shares._of_cases(AR, ways, *zip(cases, commons, strict=True), flags)
    assert (more[0] <= least + 1e-15).all() and (more[0] >= found[0]).all() and (more[0] > found[0]).sum() > 500
    both = (one | other).mean(1)
    both = np.where(known, one.mean(1), np.where(negative.all(1), other.mean(1), both))
    assert (together[0] <= both + 1e-15).all() and (together[0] > 0).any()


class Gated(nn.Module):
    """relu(x0 - 2 x2) gates x1, and a further relu reads the product: where the gate is closed the two forms of the
    product in the case in which it is open are both positive."""

    def __init__(self, *numbers: float):
        super().__init__()
        self.numbers = numbers

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        tilt, inner, outer, rest = self.numbers
        gate = torch.relu(x[:, :1] - tilt * x[:, 2:])
        return inner * torch.relu(gate * x[:, 1:2]) - outer * gate + rest * x[:, 2:]


GATED = (2.0, 0.001, 1.0, 0.05)
RANDOM = [tuple(np.random.default_rng(i).uniform(-1, 1, 4) * [3, 0.5, 2, 0.5]) for i in range(3)]


@pytest.mark.parametrize("numbers", [GATED, *RANDOM])
def test_forms_beyond_their_own_case_say_nothing(numbers):
    net = Gated(*numbers).double().eval()
    model = capture(net, torch.zeros(1, 3, dtype=torch.float64))
    low, high = [-3, -1, 0.125], [1, 1, 0.25]
    job = job_of(Share(model["output"][0] >= 0, over=box(low, high)))
    x = torch.tensor(np.random.default_rng(0).uniform(low, high, (400_000, 3)))
    truth = float((net(x) >= 0).double().mean())
    for to in (0, 8):
        for signs in (0, 2, 12):
            (found,) = shares.counts(job, [job.claim.domain], np.array([to]), np.array([signs]))
            assert found.low / job.claim.total < truth + 0.005 and found.high / job.claim.total > truth - 0.005


def test_forms_that_are_apart_are_nowhere_positive_together():
    """Forms of a value and of its negation that are opposite, but for rounding, are apart; those that cross on the box
    aren't, and what is no number, or bounds nothing, tells neither."""
    rng, low, high = np.random.default_rng(0), np.array([[-1.0, -2.0]]), np.array([[1.0, 3.0]])
    drawn = rng.uniform(low, high, (2_000, 2))

    def apart(constants, slopes, rad=0.0):
        told = Cases(np.array([constants]), Ball(np.array([slopes]), np.full((1, 2, 2), rad)), np.zeros((1, 2), bool),
                     np.array([-1]), np.array([-1]), np.array([0]))  # fmt: skip
        (found,) = shares._apart(AR, told, np.array([0]), low, high)
        return bool(found)

    assert apart([0.5, -0.5 - 1e-12], [[1.0, 2.0], [-1.0, -2.0]])
    assert not apart([0.5, -0.5 + 1e-12], [[1.0, 2.0], [-1.0, -2.0]])
    assert not apart([-1e-9, -1e-9], [[1.0, 2.0], [-1.0, -2.0]], 1e-9)
    assert not apart([0.0, 0.0], [[-1.0, 0.0], [-1.0, 0.0]])  # both positive where x0 < 0
    assert not apart([-0.9, -0.9], [[-1.0, 0.0], [-1.0, 0.0]])
    assert apart([-1.0 - 1e-12, -1.0], [[-1.0, 0.0], [-1.0, 0.0]])
    for bad in (np.nan, np.inf):
        with np.errstate(invalid="ignore"):
            assert not apart([bad, -1.0], [[0.0, 0.0], [0.0, 0.0]])
            assert not apart([-1.0, -1.0], [[bad, 0.0], [0.0, 0.0]])
            assert not apart([-1.0, -1.0], [[bad, 0.0], [-bad, 0.0]])
    found = []
    for _ in range(400):
        slope = rng.normal(size=2)
        constants, slopes = (
            rng.normal(size=2) - rng.choice([0, 1, 3]),
            np.stack([slope, -slope + 0.3 * rng.normal(size=2)]),
        )
        ours = constants + drawn @ slopes.T
        found.append(apart(constants.tolist(), slopes.tolist()))
        assert not (found[-1] and (ours > 0).all(1).any())
    assert 0.2 < np.mean(found) < 0.8


def test_forms_are_no_less_on_a_box_than_is_said():
    rng = np.random.default_rng(2)
    for trial in range(200):
        c = int(rng.integers(1, 4))
        low = rng.choice([0.0, -1.0, 1e-300, *rng.normal(size=3)], c) * 10.0 ** rng.integers(-3, 4)
        high = low + np.abs(rng.choice([0.0, 1.0, 1e-9, rng.normal()], c))
        mid = rng.normal(size=(1, 2, c)) * rng.choice([0.0, 1.0, 1e-200, 1e9], (1, 2, c))
        rad = np.abs(rng.normal(size=(1, 2, c))) * rng.choice([0.0, 1e-16, 1.0])
        constants = rng.normal(size=(1, 2)) * 10.0 ** rng.integers(-5, 5)
        if trial % 2:  # nearly cancelled
            constants = -(mid * np.where(mid > 0, low, high)).sum(2)
        (found,) = halfspaces.least_in(constants, Ball(mid, rad), low[None], high[None])
        for f in range(2):
            exact = Fraction(float(constants[0, f]))
            for k, r, a, b in zip(mid[0, f].tolist(), rad[0, f].tolist(), low.tolist(), high.tolist(), strict=True):
                exact += min((Fraction(k) + s * Fraction(r)) * Fraction(at) for at in (a, b) for s in (-1, 1))
            size = max(
                1.0, np.abs(constants).max(), (np.abs(mid) + rad).max() * max(np.abs(low).max(), np.abs(high).max())
            )
            assert Fraction(float(found[f])) <= exact
            assert (
                float(found[f])
                >= float(exact) - 1e-11 * size - 2 * (rad[0, f] * np.maximum(np.abs(low), np.abs(high))).sum()
            )
    nothing = halfspaces.least_in(np.array([[-np.inf, 0.0, np.nan]]), Ball(np.array([[[1.0], [np.inf], [1.0]]]), np.zeros((1, 3, 1))),
                              np.zeros((1, 1)), np.ones((1, 1)))  # fmt: skip
    assert (nothing == -np.inf).all()


def test_a_lowered_form_is_positive_together_with_another():
    """In exact arithmetic, at corners and samples: where it is above zero, so is the other; also of forms that are nearly
    the same, that cross, and that slope apart."""
    rng, near = np.random.default_rng(0), 0
    for trial in range(400):
        c = int(rng.integers(1, 4))
        slopes = rng.normal(size=(1, c)) * 10.0 ** rng.integers(-3, 4)
        along = slopes * rng.choice([0.3, 1.0, 7.0]) if trial % 2 else rng.normal(size=(1, c))
        if trial % 4 == 1:
            along = along * (1 + rng.choice([1e-15, 0.1]) * rng.normal(size=(1, c)))
        constants = -slopes @ rng.random(c)
        constant = constants * (along[0] @ slopes[0]) / (slopes[0] @ slopes[0]) + rng.choice([0, 1e-12, 0.1, -0.1])
        (by,) = halfspaces.drop(AR, UnitForms(constants, slopes), UnitForms(constant, along))
        near += 0 <= by < 1e-9 * np.abs(slopes).sum()
        assert by >= 0
        if not np.isfinite(by):
            assert (slopes * along).sum() <= 0
            continue
        ours, other = ([Fraction(float(v)) for v in [*c0, *k[0]]] for c0, k in ((constants, slopes), (constant, along)))
        points = np.concatenate([rng.integers(0, 2, (16, c)), rng.random((16, c))])
        for u in points.tolist():
            at = [Fraction(1), *map(Fraction, u)]
            mine, its = (sum(map(lambda k, v: k * v, form, at)) for form in (ours, other))
            assert mine - Fraction(float(by)) <= 0 or its > 0
    assert near > 50
    form, flat = UnitForms(np.zeros(1), np.ones((1, 2))), UnitForms(np.zeros(1), np.zeros((1, 2)))
    assert halfspaces.drop(AR, form, flat) == np.inf
    for bad in (np.nan, np.inf):
        steep, far = form._replace(slopes=np.full((1, 2), bad)), form._replace(constants=np.array([bad]))
        with np.errstate(invalid="ignore"):
            for mine, other in ((form, far), (far, form), (form, steep), (steep, form)):
                assert halfspaces.drop(AR, mine, other) == np.inf


def test_what_vanishes_together_with_a_sign_is_told_with_it():
    """A half-space that an activation also bends at is told as narrowly as one of the inputs alone."""

    class Positive(nn.Module):
        def forward(self, x):
            h = torch.relu(x.sum(1, keepdim=True))
            return torch.cat([h, 3 * torch.relu(h - 0.5) - torch.relu(-h)], 1)

    out = capture(Positive().eval(), torch.zeros(1, 2, dtype=torch.float64))["output"]
    x = box([-4, -4], [4, 4], distribution=normal(0, 1))
    opened = {}
    for name, predicate in (
        ("a half-space", x[0] + x[1] > 0),
        ("a unit of it", out[0] > 0),
        ("a unit behind", out[1] > 0),
        ("the other way", out[0] <= 0),
        ("two at once", And(out[0] > 0, x[0] + x[1] + out[1] > 0)),
    ):
        job = job_of(Share(predicate, over=x))
        (found,) = shares.counts(job, [job.claim.domain], np.array([18]), np.array([SIGNS]))
        opened[name] = (found.high - found.low) / job.claim.total
    assert max(opened.values()) < 2 * opened["a half-space"] < 0.001, opened


class Integers(nn.Module):
    """Small integers as weights, no biases but of half of the first layer: many entries vanish where others do."""

    def __init__(self, seed: int):
        super().__init__()
        torch.manual_seed(seed)
        self.w = nn.ParameterList(
            nn.Parameter(torch.randint(-1, 2, (b, a)).double()) for a, b in ((2, 4), (4, 3), (3, 2))
        )
        self.b = torch.tensor([0.0, 0.0, 1.0, -1.0], dtype=torch.float64)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = torch.relu(torch.relu(x @ self.w[0].T + self.b) @ self.w[1].T)
        return h @ self.w[2].T


@pytest.mark.parametrize("seed", few(range(24), 6))
def test_nets_whose_entries_vanish_together(seed):
    """Against points of every cell of a fine grid, whose mean is off by about 1e-5."""
    model, n = Integers(seed).eval(), 1_000
    out = capture(model, torch.zeros(1, 2, dtype=torch.float64))["output"]
    x, rng = box([-2, -2], [2, 2]), np.random.default_rng(seed)
    cells = np.stack(np.meshgrid(np.arange(n), np.arange(n), indexing="ij"), -1).reshape(-1, 2)
    drawn = -2 + 4 * (cells + rng.random(cells.shape)) / n
    with torch.no_grad():
        y = model(torch.from_numpy(drawn)).numpy()
    for predicate, right in (
        (out[0] > 0, y[:, 0] > 0),
        (out[1] >= 0, y[:, 1] >= 0),
        (And(out[0] > 0, out[1] < 0), (y[:, 0] > 0) & (y[:, 1] < 0)),
        (Or(out[0] > out[1], out[1] > 0), (y[:, 0] > y[:, 1]) | (y[:, 1] > 0)),
    ):
        job = job_of(Share(predicate, over=x))
        for to in (4, 8, 12):
            (found,) = shares.counts(job, [job.claim.domain], np.array([to]), np.array([SIGNS]))
            low, high = (count / job.claim.total for count in found)
            assert low - 2e-4 <= right.mean() <= high + 2e-4, (predicate, to)


def test_a_cube_starts_where_its_signs_are_known():
    """Two signs, of x and of y, and four atoms' worth of cases; a cube that both signs leave open starts at the root."""
    constants, slopes = np.zeros((7, 2)), np.zeros((7, 2, 2))
    slopes[0, :, 0] = slopes[1, :, 1] = slopes[2, :, 1] = [1, -1]
    constants[3:] = [[1, -1], [-1, 1], [-1, 1], [1, -1]]
    told = Cases(constants, Ball(slopes, np.zeros_like(slopes)), np.zeros((7, 2), bool),
                 np.array([1, 3, 5, -1, -1, -1, -1]), np.array([2, 4, 6, -1, -1, -1, -1]), np.zeros(7, np.int64))  # fmt: skip
    _, captured = deep([2, 2, 1], 0)
    x = box([-1, -1], [1, 1])
    job = job_of(Share(captured["output"][0] >= 0, over=x))
    low = np.array([[-1.0, -1], [0.5, -1], [0.5, 0.5], [-1, 0.5], [-1, -1]])
    high = np.array([[1.0, 1], [1, 1], [1, 1], [1, 1], [-0.5, -0.5]])
    cubes = shares._Cubes(*np.zeros((5, 5), np.int64))
    _, start = shares._levels(job, told, cubes, (low, high))
    assert start.tolist() == [0, 1, 3, 0, 6]


def test_what_a_leaf_may_say_of_signs():
    document, weights = proved()
    document["conclusion"] |= {"verdict": "BOUNDED", "right_at_least": "0", "right_at_most": str(2**60)}
    for signs, allowed in (
        (0, True),
        (3, True),
        (SIGNS, True),
        (SIGNS + 1, False),
        (-1, False),
        ("1", False),
        (None, False),
    ):
        proof = {"rule": "relaxation", "to": 6, "signs": signs}
        assert is_accepted({**document, "proof": proof}, weights) == allowed, signs
        assert is_accepted({**document, "proof": cut(0, 0.25, proof)}, weights) == allowed, signs
