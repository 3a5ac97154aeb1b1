"""Lemma C17: balls of one radius, and products of leading digits. Operations on elements: test_arithmetic.py."""

import itertools
from fractions import Fraction

import numpy as np
import pytest
from flint import arb, ctx  # pyright: ignore[reportMissingTypeStubs]

from mechverify.kernel.core import float64
from mechverify.kernel.core.arithmetic import Arithmetic, Ball
from mechverify.kernel.core.attention import softmax
from mechverify.kernel.core.errors import Rejected
from mechverify.kernel.core.evaluate import Evaluation
from mechverify.kernel.core.float64 import Float64
from mechverify.kernel.core.prefixes import Prefixes, Shared
from mechverify.kernel.core.rough import Even, Leading, Rough, Slices, digits, even
from mechverify.kernel.core.semantics import Real
from tests.kernel.enclosures import FUNCTIONS, points, violations
from tests.kernel.test_arithmetic import SPECS, contracted, holds
from tests.kernel.test_prefixes import HEADS, Built, chosen_by_the_last, every
from tests.kernel.test_products import balls

TOGETHER = 40  # points of one ball


@pytest.fixture(autouse=True)
def quiet():
    with np.errstate(all="ignore"):
        yield


@pytest.mark.parametrize("radius", [0.0, 1e-12, 1e-3, 0.3, 1.5])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_hold_their_values(name, radius):
    """Of points of one size: a ball that isn't finite anywhere says nothing."""
    some = points(name, 2_000, np.random.default_rng(1))
    some = some[np.argsort(np.abs(some))]
    some = some[np.abs(some) > 2 * radius] if name in ("log", "sqrt", "reciprocal") else some
    told = 0
    for start in range(0, len(some), TOGETHER):
        try:
            assert violations(name, Rough(), some[start : start + TOGETHER], radius) == 0
            told += 1
        except Rejected:
            continue
    assert told > 5


def test_ends_hold_the_centres_moved_by_the_radius():
    """Exactly: at radii of every size beside the centres, zero and nothing else among them."""
    rng, ar = np.random.default_rng(0), Rough()
    for _ in range(400):
        mid = rng.normal(size=6) * 2.0 ** rng.integers(-1070, 900)
        rad = np.abs(rng.normal()) * np.abs(mid).max() * 2.0 ** rng.integers(-70, 10) * rng.integers(2)
        low, high = ar.lower(even(mid, rad)), ar.upper(even(mid, rad))
        for m, a, b in zip(mid, low, high, strict=True):
            assert Fraction(a) <= Fraction(m) - Fraction(rad) and Fraction(m) + Fraction(rad) <= Fraction(b)
    for bad in (np.inf, np.nan):
        with pytest.raises(Rejected):
            ar.lower(even(np.array([1.0, bad]), 0.0))
        with pytest.raises(Rejected):
            ar.upper(even(np.array([1.0, 2.0]), bad))


# --- moving entries ---------------------------------------------------------------------------------------------------


def test_what_moves_entries_keeps_the_radius():
    rng = np.random.default_rng(0)
    wide = Ball(rng.normal(size=(3, 1, 4)), rng.random((3, 5, 1)))
    one = Rough().trim(wide)
    assert one.mid.shape == (3, 5, 4) and one.rad.size == 1 and (one.rad == wide.rad.max()).all()
    for move in (lambda a: a[1], lambda a: a.transpose(2, 0, 1), lambda a: a.reshape(15, 4)[[3, 3, 0]], np.ravel):
        moved = one.map(move)
        assert isinstance(moved, Even) and np.array_equal(moved.mid, move(one.mid))
        assert moved.rad.shape == (1,) * moved.mid.ndim and moved.rad == one.rad
    assert isinstance(-one, Even) and (-one).rad == one.rad


def test_a_choice_has_the_radius_of_what_is_chosen():
    """Of nothing that isn't: a hull of everything stands beside a value that is hardly ever needed."""
    ar, x, y = Rough(), even(np.ones(3), np.array(0.5)), even(np.zeros(3), np.array(9.0))
    for mask, rad in (([True] * 3, 0.5), ([False] * 3, 9.0), ([True, False, True], 9.0)):
        assert ar.where(np.array(mask), x, y).rad == rad
        assert ar.where(np.array(mask), y, x).rad == (0.5 if not any(mask) else 9.0)
    none = even(np.zeros(3), np.array(np.nan))
    for mask in ([True, True, False], [False, True, True]):
        assert np.isnan(ar.where(np.array(mask), x, none).rad) and np.isnan(ar.where(np.array(mask), none, x).rad)


def test_nothing_is_said_beside_a_number_that_is_none():
    ar = Rough()
    for bad in (np.nan, np.inf):
        x = ar.exact(np.array([1.0, 2.0]))
        for made in (ar.add(x, Ball(np.array([bad, 1.0]), np.zeros(2))), ar.mul(x, Ball(np.array([bad, 1.0]), np.zeros(2))),
                     ar.contract("i,i->", x, Ball(np.array([bad, 1.0]), np.zeros(2))),
                     ar.contract("i,i->", x, Ball(np.array([1.0, 1.0]), np.array([0.0, bad])))):  # fmt: skip
            for end in (ar.lower, ar.upper):
                with pytest.raises(Rejected):
                    end(made)


# --- products ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("spec", SPECS)
def test_hostile_sums_are_enclosed_or_refused(spec, monkeypatch):
    monkeypatch.setattr(float64, "LEAST", 0)
    monkeypatch.setattr(float64, "LARGE", 0)
    rng, told = np.random.default_rng(2), 0
    for _ in range(120):
        x, y = balls(rng, *SPECS[spec])
        try:
            found = Rough().contract(spec, x, y)
        except Rejected:
            continue
        told += 1
        assert holds(Rough(), found, contracted(spec, x, y))
    assert told > 20


def rows(rng: np.random.Generator, n: int) -> np.ndarray:
    """[6, n]: rows of every size, full slices, ties of both slices, ends of a power of two."""
    sizes = 2.0 ** rng.integers(-30, 30, (6, 1)) * rng.choice([1.0, 1.5, 1 / 3], (6, n))
    ends = np.array([1.0, 1 - 2.0**-53, 1 - 2.0**-24, 0.5, 2.0 ** -digits(n) * 1.5, 2.0 ** (-2 * digits(n) - 2), 0.0])
    return np.where(rng.random((6, 1)) < 0.5, sizes, rng.choice(ends, (6, n))) * rng.choice([-1.0, 1.0], (6, n))


@pytest.mark.parametrize("n", [9, 64, 200])
def test_slices_are_near_what_they_stand_for(n):
    rng = np.random.default_rng(n)
    for _ in range(10):
        made, width = Slices(given := rows(rng, n)), digits(n)
        for turn in (1, -1):
            cut = made.cut(slice(None), turn)
            first, second = (cut[:, :n], cut[:, n:])[::turn]
            assert 2 * n * 2 ** (2 * width) <= 2**53 and np.abs(cut).max() <= 2**width and (cut == np.rint(cut)).all()
            for x, p, q in zip(given.flat, first.flat, second.flat, strict=True):
                near = (Fraction(p) + Fraction(q) / 2 ** (width + 1)) * Fraction(2) ** (made.exponent - width)
                assert abs(near - Fraction(x)) <= Fraction(made.rest) and max(abs(near), abs(Fraction(x))) <= made.reach
            exact = max(sum(map(abs, map(Fraction, row))) for row in given)
            assert exact <= made.sums(True) <= made.sums(False) * (1 + 2.0**-10) and exact <= made.sums(False)


@pytest.mark.parametrize("n", [9, 64, 200])
@pytest.mark.parametrize("wide", [*itertools.product((0.0, 1e-9, 2.0), repeat=2)])
def test_a_ball_is_no_narrower_than_its_factors_make_it(n, wide):
    """Points of the factors at the ends of their balls, whose products differ as much as they may; long sums, and term
    by term."""
    rng = np.random.default_rng(n)
    for few in (1, 6):
        for _ in range(8 if few == 1 else 2):
            x, y = (Ball(rows(rng, n)[None, :few], np.full((1, few, n), w)) for w in wide)
            ball = Rough().contract("ik,jk->ij", x, y)
            for i, j, sign in itertools.product(range(few), range(few), (1, -1)):
                a = x.mid[0, i] + sign * wide[0] * np.sign(y.mid[0, j])
                b = y.mid[0, j] + sign * wide[1] * np.sign(a)
                exact = sum(Fraction(p) * Fraction(q) for p, q in zip(a, b, strict=True))
                reach = np.broadcast_to(ball.rad, ball.mid.shape)[0, i, j]
                assert abs(exact - Fraction(ball.mid[0, i, j])) <= Fraction(reach) * (1 + Fraction(1, 2**40))


def test_digits_are_more_than_float32_has():
    rng = np.random.default_rng(12)
    for n in (64, 768):
        x, y = (Ball(rng.normal(size=(1, 20, n)), np.zeros((1, 20, n))) for _ in range(2))
        rough, fine = Rough().contract("ik,jk->ij", x, y), Arithmetic.contract(Float64(), "ik,jk->ij", x, y)
        assert (np.abs(rough.mid - fine.mid) <= rough.rad + fine.rad).all()
        assert rough.rad <= n * 2.0**-36
        term_by_term = Rough().contract("ik,k->i", x, y.at[:, 0])  # its rounding, in sums of either length
        assert term_by_term.rad <= n * 2.0**-36


def test_all_that_is_left_out_is_counted():
    """Products of second slices, and digits beyond them, which all point one way and are nearly as large as they may be:
    the radius has no room for less."""
    n = 64
    width = digits(n)
    value = 1 - 2.0**-width * (0.5 + 2.0**-20) + 2.0 ** (-2 * width - 1) * 0.45
    x = Ball(np.full((1, 8, n), value), np.zeros((1, 8, n)))
    ball = Rough().contract("ik,jk->ij", x, x)
    lost = abs(n * Fraction(value) ** 2 - Fraction(ball.mid[0, 0, 0]))
    assert 0 < lost <= Fraction(ball.rad.item()) <= Fraction(5, 4) * lost


# --- softmax ----------------------------------------------------------------------------------------------------------


def exactly(scores: np.ndarray) -> list[arb]:
    ctx.prec = 200
    powers = [arb(s).exp() for s in scores]
    total = sum(powers, arb(0))
    return [p / total for p in powers]


@pytest.mark.parametrize("rad", [0.0, 1e-9, 1e-2, 0.5, 3.0])
def test_a_softmax_holds_what_its_scores_may_make_of_it(rad):
    """Each score up or down by the radius; and the bound is reached where two are even."""
    rng, ar = np.random.default_rng(0), Rough()
    kept = np.array([True, True, True, False])
    for size in (0.0, 1.0, 30.0):
        scores = rng.normal(size=(3, 4)) * size
        ball = softmax(Leading(ar), even(scores, np.array(rad)), kept)
        assert not ball.mid[:, 3].any()
        for row, signs in itertools.product(range(3), itertools.product((-1, 0, 1), repeat=3)):
            moved = exactly(scores[row, :3] + rad * np.array(signs))
            for value, mid in zip(moved, ball.mid[row], strict=False):
                assert not abs(value - arb(mid)) > arb(ball.rad.max()) * (1 + 2.0**-40)
    two = softmax(Leading(ar), even(np.zeros((1, 2)), np.array(1e-3)), np.ones(2, bool))
    assert 0.4999e-3 <= two.rad.max() <= 0.5001e-3


# --- graphs -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("head", HEADS, ids=lambda head: head.__name__)
def test_values_that_inputs_share_hold_what_each_input_has(head):
    g = Built()
    root, inputs = head(g), every()
    for node in (root, g.graph.select(root, 0, g.graph.nodes[root].shape[0] - 1)):
        values = Shared(Prefixes(g.graph, [node]), g.weights, Leading(Rough()), inputs)
        found, alone = values[node], Evaluation(g.graph, g.weights, Real(Float64()), inputs)[node]
        assert (np.abs(found.mid - alone.mid) <= found.rad + alone.rad).all()
        assert found.rad.size == 1
        assert found.rad <= 1e-6 or head is chosen_by_the_last  # what stands beside it decides no radius elsewhere
