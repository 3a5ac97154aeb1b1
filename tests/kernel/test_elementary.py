"""The kernel's elementary functions against python-flint's balls; MECHVERIFY_POINTS asks for more points."""

import os
from fractions import Fraction

import numpy as np
import pytest
from flint import arb, ctx

from mechverify.kernel.core import elementary
from mechverify.kernel.core import functions as kernel
from mechverify.kernel.core.arithmetic import Ball
from mechverify.kernel.core.double import Double
from mechverify.kernel.core.errors import Rejected
from mechverify.kernel.core.exact import Exact
from mechverify.kernel.core.float64 import Float64
from tests.kernel.enclosures import FUNCTIONS, balls, points, violations

POINTS = int(os.environ.get("MECHVERIFY_POINTS", 40_000))
RADII = [1e-300, 1e-12, 1e-3, 0.3, 1.0, float(np.nextafter(1.0, 2.0)), 1.5, 40.0]
both = pytest.mark.parametrize("kind", [Float64, Exact])
every = pytest.mark.parametrize("name", FUNCTIONS)


@pytest.fixture(autouse=True)
def quiet():
    with np.errstate(all="ignore"):
        yield


def value(name: str, ar, x, radius: float = 0.0) -> Ball:
    return kernel.FUNCTIONS[name].value(ar, balls(ar, np.asarray(x, float), radius))


def relative(x: Ball) -> np.ndarray:
    """Radius over centre, above."""
    ratios = [abs(Fraction(r) / Fraction(m)) if m else np.inf for m, r in zip(x.mid, x.rad, strict=True)]
    return np.array([float(r) * (1 + 1e-15) for r in ratios])


def absolute(x: Ball) -> np.ndarray:
    return np.array([float(Fraction(r) * Fraction(2) ** x.exponent) for r in x.rad])


# --- soundness --------------------------------------------------------------------------------------------------------


@every
def test_every_ball_holds_the_true_value(name):
    assert violations(name, Float64(), points(name, POINTS, np.random.default_rng(1))) == 0


@every
@pytest.mark.parametrize("alike", [False, True])
def test_every_exact_ball_holds_the_true_value(name, alike):
    """An array shares its exponent: numbers of all sizes at once, and each with its like."""
    some = points(name, POINTS // 20, np.random.default_rng(2))
    some = some[np.argsort(np.abs(some))] if alike else some
    assert violations(name, Exact(), some) == 0


def careless(kind: type, operation: str):
    """That arithmetic; but the balls of one operation are larger, and hold what they should barely: at an end."""
    ar, rng = kind(), np.random.default_rng(4)
    usual = getattr(ar, operation)

    def spoilt(*operands):
        x = usual(*operands)
        off = np.abs(x.mid) >> 20 if kind is Exact else np.abs(x.mid) * 2.0**-20
        sign = np.where(rng.random(np.shape(x.mid)) < 0.5, -1, 1).astype(np.asarray(x.mid).dtype)
        return Ball(
            x.mid + sign * off, x.rad + off + off // 2**10 if kind is Exact else x.rad + 1.001 * off, x.exponent
        )

    setattr(ar, operation, spoilt)
    return ar


@both
@every
@pytest.mark.parametrize("operation", ["add", "mul", "div", "sqrt"])
def test_no_radius_on_the_way_is_lost(name, operation, kind):
    """What is left out may be less than what formulas add to what is rounded, and not be seen otherwise."""
    rng = np.random.default_rng(5)
    some = np.concatenate([rng.uniform(-50, 50, 200), 10.0 ** rng.uniform(-3, 3, 200), rng.uniform(-2, 2, 200)])
    some = some[some > 0] if name in ("log", "sqrt") else some
    assert violations(name, careless(kind, operation), some) == 0


@both
@every
@pytest.mark.parametrize("radius", RADII)
def test_a_ball_holds_the_values_of_all_its_points(name, kind, radius):
    rng = np.random.default_rng(3)
    count = POINTS // (20 if kind is Float64 else 400)
    mids = np.concatenate([points(name, count, rng), rng.uniform(-50, 50, count // 4)])
    if name in ("log", "sqrt"):
        mids = mids[mids > radius * (1 + 1e-9) + 1e-322]
    elif name == "reciprocal":
        mids = mids[np.abs(mids) > radius * (1 + 1e-9) + 1e-322]
    elif kind is Exact:  # both the huge and the moderate: they would share an exponent
        mids = mids[np.abs(mids) < 1e17]
    assert violations(name, kind(), mids, radius) == 0


@both
def test_constants_hold_their_numbers(kind):
    """Which are cut below 2^-390: more than a sum of fractions is rounded by."""
    ctx.prec = 8_000
    ar = kind()
    for found, true in ((elementary.pi(ar), arb.pi()), (elementary.ln2(ar), arb(2).log())):
        mid, rad = (arb(v.item()) * arb(2) ** found.exponent for v in (found.mid, found.rad))
        assert abs(mid - true) <= rad


@pytest.mark.parametrize("n", [1, 2, 3, 5, 11, 13])
def test_logarithm_of_short_integers(n, exponent=3):
    """Few bits, so that the limits of the reduced argument are no multiples of the last one."""
    result = elementary.log(Exact(), Ball(np.array([n], object), np.array([0], object), exponent))
    ctx.prec = 1_000
    distance = abs(arb((n, exponent)).log() - arb((result.mid[0], result.exponent)))
    assert distance <= arb((result.rad[0], result.exponent))


@pytest.mark.parametrize("name", ["exp", "tanh", "erf", "sin", "cos"])
def test_zero_and_what_is_next_to_it(name):
    for ar in (Float64(), Exact()):
        assert violations(name, ar, np.array([0.0, -0.0, 5e-324, -5e-324])) == 0


# --- tightness --------------------------------------------------------------------------------------------------------


def test_exp_is_tight():
    x = np.concatenate([np.linspace(-700, 709, 20_001), np.linspace(-1, 1, 2_001)])
    assert (relative(value("exp", Float64(), x)) <= 4e-16 * (2 + np.abs(x))).all()


@pytest.mark.parametrize(
    "name, low, high, limit",
    [("tanh", 1e-290, 1e3, 3e-15), ("erf", 1e-290, 6.4, 5e-14), ("sqrt", 1e-290, 1e300, 4e-16),
     ("reciprocal", 1e-300, 1e290, 4e-16), ("log", 1e-300, 0.9, 3e-15), ("log", 1.1, 1e300, 3e-15)],
)  # fmt: skip
def test_relative_errors_are_small(name, low, high, limit):
    x = np.geomspace(low, high, 20_001)
    assert relative(value(name, Float64(), x)).max() <= limit


def test_errors_near_a_zero_of_the_logarithm_are_small():
    """f - 1 is exact, so nothing cancels but k ln 2, where k = 0."""
    x = 1 + np.concatenate([s * np.geomspace(1e-15, 0.25, 5_001) for s in (-1, 1)])
    assert (absolute(value("log", Float64(), x)) <= 2e-15 * np.abs(np.log(x)) + 1e-18).all()


@pytest.mark.parametrize("name", ["sin", "cos"])
def test_errors_of_sine_and_cosine_are_small(name):
    x = np.concatenate([np.linspace(-2_000, 2_000, 20_001), np.geomspace(1e-300, 1e14, 5_001)])
    assert (absolute(value(name, Float64(), x)) <= 1e-15 * (2 + np.abs(x))).all()


@every
def test_exact_arithmetic_is_tight(name):
    """To some 2^-100, of single numbers: a larger one in the same array may take digits away."""
    rng = np.random.default_rng(4)
    x = np.concatenate([rng.uniform(0.1, 6.4, 40), rng.uniform(-1, 1, 10) * 1e-3, [1e-30, -1e-200]])
    if name in ("sqrt", "log", "reciprocal"):
        x = np.append(np.abs(x), [1e300, 1e-300])
    for one in x:
        assert relative(value(name, Exact(), [one]))[0] <= 2.0**-100


@pytest.mark.parametrize("name", ["tanh", "erf", "sin", "cos"])
@both
def test_a_wide_ball_gets_no_more_than_the_range(name, kind):
    ar = kind()
    result = value(name, ar, [0.3, -7.0, 1e16], 1e4)
    for m, r in zip(result.mid, result.rad, strict=True):
        assert (abs(Fraction(m)) + Fraction(r)) * Fraction(2) ** result.exponent <= Fraction(1 + 1e-12)


@both
@pytest.mark.parametrize("radius", [1e-9, 1e-3, 0.5])
def test_the_radius_grows_with_the_ball(kind, radius):
    x = np.linspace(0.6, 3.0, 50)
    slopes = {
        "exp": lambda x: np.exp(x + radius) * (1 + radius), "tanh": np.ones_like, "sin": np.ones_like,
        "cos": np.ones_like, "erf": lambda x: np.full_like(x, 1.13), "log": lambda x: 1 / (x - radius),
        "sqrt": lambda x: 1 / np.sqrt(x), "reciprocal": lambda x: 1 / x / (x - radius),
    }  # fmt: skip
    for name, slope in slopes.items():
        assert (absolute(value(name, kind(), x, radius)) <= radius * slope(x) * (1 + 1e-4) + 1e-12).all(), name


# --- refusals ---------------------------------------------------------------------------------------------------------


@both
@every
def test_what_is_no_number_is_refused(name, kind):
    """As an exact number, before any function sees it."""
    ar = kind()
    for x in (np.nan, np.inf, -np.inf):
        with pytest.raises(Rejected):
            ar.lower(value(name, ar, [1.0, x]))
        with pytest.raises(Rejected):
            ar.lower(value(name, ar, [x]))


@pytest.mark.parametrize("kind", [Float64, Double])
@every
def test_nothing_finite_is_said_of_a_ball_that_is_not_finite(name, kind):
    """By the function, or as soon as anyone looks at its ball: 1 / inf is not 0, and tanh inf not 1, whatever the
    radius."""
    ar = kind()
    for mid in (1.0, np.nan, np.inf, -np.inf):
        for rad in (0.0, 1e-3, np.nan, np.inf):
            x = ar.point(np.array([1.0, mid]))._replace(rad=np.array([0.0, rad]))
            if np.isfinite(mid) and np.isfinite(rad):
                continue
            for end in (ar.lower, ar.upper):
                with pytest.raises(Rejected):
                    end(kernel.FUNCTIONS[name].value(ar, x))


@both
@pytest.mark.parametrize("x", [1e20, 1e50, 1e300, -1e300, 1e308])
def test_exp_refuses_what_it_cannot_reduce(kind, x):
    if kind is Float64 and x < 0:
        found = value("exp", kind(), [x])
        assert found.mid == 0 and 2.0**-1074 <= found.rad <= 2.0**-1060
        return
    with pytest.raises(Rejected):
        value("exp", kind(), [x])


@pytest.mark.parametrize("x", [709.79, 3_000.0, 1e10])
def test_exp_that_overflows_is_refused(x):
    ar = Float64()
    for way_out in (ar.lower, ar.upper):
        with pytest.raises(Rejected):
            way_out(value("exp", ar, [x]))


@both
def test_exp_of_a_hopelessly_wide_ball_is_refused(kind):
    """In exact arithmetic e^radius would take radius bits, of every number in the array."""
    ar = kind()
    with pytest.raises(Rejected):
        ar.lower(value("exp", ar, [-1e6, 0.0], 1e5))


@both
@pytest.mark.parametrize("name, refused", [
    ("log", [(0.0, 0.0), (-0.0, 0.0), (-1.0, 0.0), (1.0, 1.0), (1.0, 2.0), (5e-324, 5e-324), (-5e-324, 0.0)]),
    ("sqrt", [(0.0, 0.0), (-0.0, 0.0), (-1.0, 0.0), (1.0, 1.0), (1.0, 2.0), (5e-324, 5e-324), (-5e-324, 0.0)]),
    ("reciprocal", [(0.0, 0.0), (-0.0, 0.0), (1.0, 1.0), (-1.0, 1.0), (0.5, 2.0), (1e300, 1e300), (0.0, 5e-324)]),
])  # fmt: skip
def test_balls_outside_the_domain_are_refused(name, refused, kind):
    """One such ball in an array is enough."""
    for mid, rad in refused:
        ar = kind()
        x = balls(ar, np.array([mid]), rad)
        fine = ar.exact(np.array([2.0]))
        a, b = ar.align(x, fine)
        pair = Ball(np.append(a.mid, b.mid), np.append(a.rad, b.rad), a.exponent)
        for refused_ball in (x, pair):
            with pytest.raises(Rejected):
                ar.lower(kernel.FUNCTIONS[name].value(ar, refused_ball))


@every
@both
def test_arrays_of_any_shape(name, kind):
    """Without axes, with several, empty; a radius that broadcasts."""
    ar = kind()
    flat = value(name, ar, [0.25, 0.5, 0.75, 1.0])
    for shape in ((), (2, 2), (4, 1), (0,), (2, 0)):
        x = np.array(0.25) if shape == () else np.array([0.25, 0.5, 0.75, 1.0][: int(np.prod(shape))]).reshape(shape)
        result = kernel.FUNCTIONS[name].value(ar, ar.exact(x))
        assert np.shape(result.mid) == shape
        wanted = np.asarray(flat.mid).reshape(-1)[: x.size]
        for m, expected in zip(np.asarray(result.mid).flat, wanted, strict=True):
            apart = Fraction(m) * Fraction(2) ** result.exponent - Fraction(expected) * Fraction(2) ** flat.exponent
            assert abs(apart) < 1e-14
