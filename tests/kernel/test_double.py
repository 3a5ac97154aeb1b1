"""Balls around numbers of twice float64's digits, against rational arithmetic and mpmath (lemma C14)."""

from fractions import Fraction
from typing import Any

import mpmath
import numpy as np
import pytest

from mechverify.kernel.core import elementary
from mechverify.kernel.core.arithmetic import Ball
from mechverify.kernel.core.double import Double
from mechverify.kernel.core.elementary import exp
from mechverify.kernel.core.errors import Rejected
from mechverify.kernel.core.exact import Exact
from mechverify.kernel.core.float64 import Float64
from mechverify.kernel.core.functions.sigmoids import gelu

AR = Double()
EXPONENTS = [0, 0, 0, -3, 5, 40, -60, 300, -300, -520, -1000]
WIDTHS = [0.0, 0.0, 1e-33, 1e-25, 1e-3]


@pytest.fixture(autouse=True)
def _quiet():
    with np.errstate(all="ignore"):
        yield


def pairs(rng: np.random.Generator, n: int) -> Any:
    """Numbers hi + lo in form: of many sizes, with full, short and no second parts."""
    high = rng.normal(size=n) * 2.0 ** rng.choice(EXPONENTS, n)
    high = np.where(rng.random(n) < 0.2, 2.0 ** rng.integers(-40, 40, n), high)  # a lower neighbour is nearer
    half = np.spacing(np.abs(high)) / 4
    return high + 1j * (half * rng.choice([0.0, 1.0, -1.0, 0.37, 1e-10], n) * rng.uniform(-1, 1, n))


def balls(rng: np.random.Generator, n: int) -> Ball:
    mid = pairs(rng, n)
    return Ball(mid, np.abs(mid.real) * rng.choice(WIDTHS, n))


def number(z: complex) -> Fraction:
    return Fraction(float(np.real(z))) + Fraction(float(np.imag(z)))


def ends(ball: Ball, i: int) -> list[Fraction]:
    rad = Fraction(float(np.broadcast_to(ball.rad, ball.mid.shape)[i]))
    return [number(ball.mid[i]) + s * rad for s in (-1, 0, 1)]


def holds(ball: Ball, i: Any, value: Fraction) -> bool:
    """Where the ball is finite, which it is but for numbers at the ends of float64's range."""
    mid, rad = ball.mid[i], np.broadcast_to(ball.rad, ball.mid.shape)[i]
    return not (np.isfinite(mid) and np.isfinite(rad)) or abs(value - number(mid)) <= Fraction(float(rad))


OPERATIONS = {
    "add": (AR.add, lambda a, b: a + b),
    "sub": (AR.sub, lambda a, b: a - b),
    "mul": (AR.mul, lambda a, b: a * b),
    "div": (AR.div, lambda a, b: a / b),
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_of_two_balls_every_number_is_held(name):
    rng, (operation, truth) = np.random.default_rng(1), OPERATIONS[name]
    x, y = balls(rng, 3_000), balls(rng, 3_000)
    y.mid[:300], y.rad[:300] = -x.mid[:300] * (1 + rng.choice([0, 2.0**-50], 300)), x.rad[:300]  # they cancel
    result = operation(x, y)
    finite = np.isfinite(result.mid) & np.isfinite(result.rad)
    assert finite.mean() > 0.8
    for i in range(3_000):
        assert all(holds(result, i, truth(a, b)) for a in ends(x, i) for b in ends(y, i)), (x.mid[i], y.mid[i])


@pytest.mark.parametrize("name", OPERATIONS)
def test_points_of_ordinary_size_keep_a_hundred_bits(name):
    rng, (operation, _) = np.random.default_rng(2), OPERATIONS[name]
    x, y = (rng.uniform(1, 2, 500) + 1j * rng.uniform(-1, 1, 500) * 2.0**-54 for _ in range(2))
    result = operation(AR.whole(x), AR.whole(y))
    assert (result.rad <= 2.0**-99).all()


def test_numbers_near_zero_underflow_into_the_radius():
    """No formula loses a product of subnormal numbers."""
    rng = np.random.default_rng(3)
    x = AR.whole(rng.integers(-9, 10, 2_000) * 2.0**-1074 * 2.0 ** rng.integers(0, 600, 2_000))
    y = AR.whole(rng.normal(size=2_000) * 2.0 ** rng.integers(-600, 1, 2_000))
    result = AR.mul(x, y)
    for i in range(2_000):
        assert holds(result, i, number(x.mid[i]) * number(y.mid[i]))


def test_square_roots():
    rng = np.random.default_rng(4)
    x = balls(rng, 2_000)
    x = Ball(np.where(x.mid.real < 0, -x.mid, x.mid), x.rad)
    result = AR.sqrt(x)
    for i in range(2_000):
        low, high = (number(result.mid[i]) + s * Fraction(float(result.rad[i])) for s in (-1, 1))
        first, _, last = ends(x, i)
        assert max(low, 0) ** 2 <= first and last <= high**2


def test_fractions_are_held_to_a_hundred_bits():
    for value in (Fraction(1, 3), Fraction(-22, 7), Fraction(1, 10**300), Fraction(10**30 + 1, 3), Fraction(2**60 + 1)):
        ball = AR.rational(value)
        off = abs(number(ball.mid[()]) - value)
        assert off <= Fraction(float(ball.rad)) <= abs(value) / 2**104 + Fraction(1, 2**1070)
    assert AR.rational(Fraction(2**60 + 1)).rad == 0


def test_ends_lie_outside():
    rng = np.random.default_rng(5)
    x = balls(rng, 2_000)
    for low, high in ((AR.lower(x), AR.upper(x)), AR.ends(x)):
        for i in range(2_000):
            first, _, last = ends(x, i)
            assert Fraction(float(low[i])) <= first and last <= Fraction(float(high[i]))


def test_order_is_that_of_the_sums():
    """Also where `hi` is equal, and at powers of two, below which numbers are nearer."""
    rng = np.random.default_rng(6)
    x = pairs(rng, 1_000)
    y = np.where(
        rng.random(1_000) < 0.7, x.real + 1j * pairs(rng, 1_000).imag * (np.abs(x.imag) > 0), np.nextafter(x.real, 0)
    )
    y = np.where(np.abs(y.imag) <= np.spacing(np.abs(y.real)) / 4, y, y.real)
    for a, b in zip(x, y, strict=True):
        assert (np.asarray(a) > np.asarray(b)) == (number(a) > number(b))


def rows(rng: np.random.Generator, *shape: int) -> Ball:
    n = int(np.prod(shape))
    spread = rng.choice([0, 0, -30, 20], n) if rng.random() < 0.5 else np.zeros(n)
    high = rng.normal(size=n) * 2.0**spread * rng.choice([0, 1, 1, 1], n)
    if rng.random() < 0.3:
        high = high * 2.0 ** rng.choice([0, -700, 300], n)
    if rng.random() < 0.3:
        high = np.full(n, 2.0 - 2.0**-52) * rng.choice([-1, 1])  # every slice is full
    if rng.random() < 0.3:
        high = rng.uniform(1.9, 2, n)  # sums of first slices are as large as they get, and odd
    low = np.spacing(np.abs(high)) / 4 * rng.uniform(-1, 1, n) * rng.choice([0, 1], n)
    rad = np.abs(high) * rng.choice(WIDTHS) * rng.uniform(0.5, 1, n)
    return Ball((high + 1j * low).reshape(shape), rad.reshape(shape))


@pytest.mark.parametrize("seed", range(30))
def test_contractions(seed):
    rng = np.random.default_rng(seed)
    m, n, k = (int(rng.choice(sizes)) for sizes in (range(1, 5), (1, 2, 7, 40, 300), range(1, 4)))
    x, y = rows(rng, m, n), rows(rng, n, k)
    result = AR.contract("ij,jk->ik", x, y)
    for sx in (-1, 0, 1):
        for sy in (-1, 0, 1):
            a = [[number(x.mid[i, j]) + sx * Fraction(float(x.rad[i, j])) for j in range(n)] for i in range(m)]
            b = [[number(y.mid[j, c]) + sy * Fraction(float(y.rad[j, c])) for c in range(k)] for j in range(n)]
            for i in range(m):
                for c in range(k):
                    exact = sum((a[i][j] * b[j][c] for j in range(n)), Fraction(0))
                    assert holds(result, (i, c), exact)


def test_a_number_far_below_its_row_is_not_lost():
    x, y = AR.whole(np.array([[2.0**1000, 2.0**-100]])), AR.whole(np.array([[0.0, 1.0]]))
    assert holds(AR.contract("ij,kj->ik", x, y), (0, 0), Fraction(1, 2**100))


def test_contractions_with_all_signs_alike_reach_the_end_of_the_ball():
    """Radii of both factors, where every number is positive and every error the same way."""
    x = Ball(np.full((1, 9), 1.0 + 0j), np.full((1, 9), 0.5))
    result = AR.contract("ij,kj->ik", x, x)
    assert result.mid[0, 0].real + result.rad[0, 0] >= 9 * 1.5**2


def test_a_number_that_is_not_finite_spoils_its_own_row():
    x = AR.whole(np.array([[1.0, np.inf], [1.0, 2.0], [np.nan, 0.0]]))
    result = AR.contract("ij,kj->ik", x, AR.whole(np.array([[1.0, 1.0], [0.0, 0.0]])))
    known = np.isfinite(result.mid) & np.isfinite(result.rad)
    assert known.tolist() == [[False, False], [True, True], [False, False]]
    with pytest.raises(Rejected):
        AR.lower(result)


@pytest.mark.parametrize("value", [1e308, np.inf, -np.inf, np.nan])
def test_what_overflows_is_rejected(value):
    x = AR.whole(np.array([value]))
    for result in (AR.mul(x, AR.whole(np.array([1e300]))), AR.add(x, AR.add(x, x))):
        with pytest.raises(Rejected, match="not finite"):
            AR.lower(result)


def test_a_divisor_that_may_be_zero_is_rejected():
    one, tiny = AR.whole(np.ones(1)), 2.0**-60
    for mid, rad in ((0.0, 0.0), (1.0, 1.0), (1 - 1j * tiny, 1 - 2.0**-53)):
        with pytest.raises(Rejected):
            AR.div(one, Ball(np.array([mid], complex), np.array([rad])))
    with pytest.raises(Rejected):
        AR.sqrt(Ball(np.array([1.0 + 0j]), np.array([1.0])))


FUNCTIONS = {
    "exp": (exp, mpmath.exp),
    "tanh": (elementary.tanh, mpmath.tanh),
    "erf": (elementary.erf, mpmath.erf),
    "sin": (elementary.sin, mpmath.sin),
    "cos": (elementary.cos, mpmath.cos),
    "gelu": (gelu, lambda t: t * (1 + mpmath.erf(t / mpmath.sqrt(2))) / 2),
    "log": (elementary.log, mpmath.log),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_against_mpmath(name):
    f, truth = FUNCTIONS[name]
    rng = np.random.default_rng(7)
    high = rng.normal(size=200) * rng.choice([1e-12, 0.1, 1.0, 4.0, 20.0], 200)
    high = np.abs(high) if name == "log" else high
    rad = np.abs(high) * rng.choice([0.0, 1e-30, 1e-3], 200)
    x = Ball(high + 1j * np.spacing(np.abs(high)) / 4 * rng.uniform(-1, 1, 200), rad)
    result, audit = f(AR, x), f(Exact(), Exact().exact(x.mid.real))
    assert audit.mid.shape == result.mid.shape
    with mpmath.workprec(300):
        for i in range(200):
            for t in ends(x, i):
                value = truth(mpmath.mpf(t.numerator) / t.denominator)
                off = abs(value - mpmath.mpf(float(result.mid[i].real)) - mpmath.mpf(float(result.mid[i].imag)))
                assert off <= mpmath.mpf(float(result.rad[i])) * (1 + mpmath.mpf(2) ** -200)
    near = (rad == 0) & (np.abs(high) < 5)
    assert (result.rad[near] <= 2.0**-90 * np.maximum(1, np.abs(result.mid.real[near]))).all()


@pytest.mark.parametrize("name", ["sin", "cos"])
def test_waves_of_numbers_whose_quarter_turns_float64_cannot_count(name):
    """From 2^53 quarter turns on the next one is no float64; twice the digits still tell where in a turn a number is."""
    f, truth = FUNCTIONS[name]
    x = 2.0 ** np.random.default_rng(8).uniform(50, 60, 1_000) * np.tile([-1, 1], 500)
    result, told = f(AR, AR.exact(x)), 0
    with mpmath.workprec(300):
        for i in range(1_000):
            assert holds(result, i, _fraction(truth(mpmath.mpf(float(x[i])))))
            told += abs(x[i]) > 2.0**54 and result.rad[i] < 2.0**-30
    assert told > 50


def _fraction(value: mpmath.mpf) -> Fraction:
    """To 2^-200."""
    return Fraction(int(mpmath.nint(mpmath.ldexp(value, 200))), 2**200)


def test_what_it_takes_over_from_float64_does_not_round_centres():
    """A method that Float64 gains is either written for two parts, or named here: it doesn't compute with centres."""
    own = {name for name, what in vars(Double).items() if callable(what)}
    taken = {name for name, what in vars(Float64).items() if callable(what)} - own
    raw = {"down", "up", "slack", "to_grid", "units"}  # of bounds, which are float64
    moved = {"align", "exact", "point", "trim"}
    assert taken == raw | moved | {"_ball", "slop"}  # of Arithmetic's add, mul and contract, which aren't taken over
    assert {"add", "mul", "contract"} <= own
