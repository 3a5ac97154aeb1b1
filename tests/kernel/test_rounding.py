"""Balls hold the exact result, whatever the operands; attacked with awkward numbers."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mechverify.kernel.errors import Rejected
from mechverify.kernel.rounding import Ball, Float64, check_environment, lower, upper

AWKWARD = [0.0, -0.0, 5e-324, -5e-324, 2.0**-1022, 1.0, 1.0 + 2.0**-52, -1.0, 0.1, 1e16, -1e16, 1e300, 1 / 3]
numbers = st.one_of(st.sampled_from(AWKWARD), st.floats(-1e150, 1e150), st.floats(-1e-300, 1e-300))
radii = st.one_of(st.just(0.0), st.sampled_from([5e-324, 1e-20, 1.0]), st.floats(0, 1e100))


def ball(mid: float, rad: float) -> Ball:
    return Ball(np.array([mid]), np.array([rad]))


def holds(x: Ball, exact: Fraction) -> bool:
    """Whether `exact` is in the ball; a ball that overflowed claims nothing, and must say so."""
    if not (np.isfinite(x.mid).all() and np.isfinite(x.rad).all()):
        with pytest.raises(Rejected):
            lower(x)
        return True
    return Fraction(float(lower(x)[0])) <= exact <= Fraction(float(upper(x)[0]))


def ends(mid: float, rad: float) -> list[Fraction]:
    return [Fraction(mid) - Fraction(rad), Fraction(mid), Fraction(mid) + Fraction(rad)]


@given(numbers, radii, numbers, radii)
@settings(max_examples=1500, deadline=None)
def test_elementwise_operations_hold_every_result(a, ra, b, rb):
    ar, x, y = Float64(), ball(a, ra), ball(b, rb)
    with np.errstate(all="ignore"):
        results = {"add": ar.add(x, y), "sub": ar.sub(x, y), "mul": ar.mul(x, y)}
    for p in ends(a, ra):
        for q in ends(b, rb):
            assert holds(results["add"], p + q)
            assert holds(results["sub"], p - q)
            assert holds(results["mul"], p * q)


@given(numbers, radii, numbers, radii)
@settings(max_examples=1500, deadline=None)
def test_division_holds_every_quotient_or_refuses(a, ra, b, rb):
    with np.errstate(all="ignore"):
        try:
            result = Float64().div(ball(a, ra), ball(b, rb))
            bounds = lower(result), upper(result)
        except Rejected:
            return
    assert not (abs(Fraction(b)) <= Fraction(rb)), "a divisor that may be zero was accepted"
    for p in ends(a, ra):
        for q in ends(b, rb):
            assert Fraction(float(bounds[0][0])) <= p / q <= Fraction(float(bounds[1][0]))


@pytest.mark.parametrize("ordered", [True, False])
def test_contraction_holds_the_exact_dot_product(ordered):
    """Cancellation to nothing, subnormal products and wide ranges, against rational arithmetic."""
    rng = np.random.default_rng(0)
    for _ in range(300):
        n = int(rng.integers(1, 40))
        x = rng.normal(size=n) * 2.0 ** rng.integers(-540, 200, n)
        y = rng.normal(size=n) * 2.0 ** rng.integers(-540, 200, n)
        if n > 2:
            y[-1] = -(x[:-1] @ y[:-1]) / x[-1]
        rx, ry = (np.abs(v) * rng.choice([0.0, 1e-9], n) for v in (x, y))
        with np.errstate(all="ignore"):
            result = Float64().contract("i,i->", Ball(x, rx), Ball(y, ry), ordered)
        if not np.isfinite(result.mid).all():
            continue
        for sign in (-1, 0, 1):
            exact = sum(
                (Fraction(a) + sign * Fraction(s)) * (Fraction(b) + sign * Fraction(t))
                for a, s, b, t in zip(x, rx, y, ry, strict=True)
            )
            low, high = (
                lower(Ball(np.atleast_1d(result.mid), result.rad)),
                upper(Ball(np.atleast_1d(result.mid), result.rad)),
            )
            assert Fraction(float(low.ravel()[0])) <= exact <= Fraction(float(high.ravel()[0]))


def test_not_finite_never_reaches_a_comparison():
    for bad in (np.nan, np.inf, -np.inf):
        with pytest.raises(Rejected):
            lower(ball(bad, 0.0))
        with pytest.raises(Rejected):
            upper(ball(0.0, bad))


def test_this_machine_rounds_to_nearest():
    check_environment()
