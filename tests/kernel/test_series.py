"""Horner's rule in float64: what it says of its rounding, against rational arithmetic (lemma C2)."""

from fractions import Fraction

import numpy as np
import pytest

from mechverify.kernel.core import elementary, series
from mechverify.kernel.core.arithmetic import Ball
from mechverify.kernel.core.float64 import UNIT, Float64
from mechverify.kernel.core.rough import Rough
from tests.rounds import ROUNDS

ERF = [(elementary._erf, end**2 * Fraction(43, 42)) for end in elementary.BANDS]
SERIES = [(series.exponential, Fraction(36, 100)), (elementary._sinh, Fraction(1)), (elementary._cosh, Fraction(1)),
          (elementary._atanh, Fraction(1, 25)), *ERF]  # fmt: skip
POINTS = 12 * ROUNDS


def exactly(coefficients, y: Fraction) -> Fraction:
    value = Fraction(0)
    for c in reversed(coefficients):
        value = value * y + c
    return value


def misses(coefficients, mid: np.ndarray, rad: np.ndarray, kind=Float64) -> int:
    """Of reals at the ends of balls and within them: how many values lie outside."""
    found, wrong = series._in_place(kind(), tuple(coefficients), Ball(mid, rad)), 0
    for m, r, value, reach in np.nditer(np.broadcast_arrays(mid, rad, found.mid, found.rad)):
        for part in (-1, Fraction(1, 3), 1):
            y = Fraction(float(m)) + part * Fraction(float(r))
            wrong += abs(exactly(coefficients, y) - Fraction(float(value))) > Fraction(float(reach))
    return wrong


def balls(reach: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Centres of all sizes and signs, whose balls lie within the reach."""
    mid = np.concatenate([rng.uniform(-reach, reach, POINTS), reach * rng.choice([-1, 1], POINTS) * 10.0 **
                          -rng.uniform(0, 20, POINTS), [0.0, reach, -reach, 2.0**-1070]])  # fmt: skip
    rad = np.where(rng.random(len(mid)) < 0.5, 0.0, (reach - np.abs(mid)) * 10.0 ** -rng.uniform(0, 18, len(mid)))
    return mid, rad


@pytest.mark.parametrize("kind", [Float64, Rough])
@pytest.mark.parametrize(("ratio", "reach"), SERIES)
def test_every_series_holds_its_polynomial(ratio, reach, kind):
    coefficients, _ = series._terms(ratio, reach, kind.precision)
    assert min(coefficients) >= Fraction(1, 2**900)  # the precondition
    mid, rad = balls(float(reach), np.random.default_rng(len(coefficients)))
    assert misses(coefficients, mid, rad, kind) == 0


@pytest.mark.parametrize("degree", [0, 1, 2, 7])
def test_random_polynomials(degree):
    """Of coefficients of all sizes and signs: so that now one part of the error, now another is the largest."""
    rng = np.random.default_rng(degree)
    for _ in range(4 * ROUNDS):
        sizes = 10.0 ** rng.uniform(-20, 3, degree + 1)
        coefficients = [Fraction(float(c)) / 3 for c in sizes * rng.choice([-1.0, 1.0], degree + 1)]
        mid, rad = balls(float(10.0 ** rng.uniform(-6, 4)), rng)
        assert misses(coefficients, mid, rad) == 0


@pytest.mark.parametrize("kind", [Float64, Rough])
def test_a_sum_that_cancels_and_each_part_of_the_error(kind):
    one = Fraction(1)
    near = 1 + np.random.default_rng(0).uniform(-1e-9, 1e-9, (200, 1))
    assert misses([one, -one], near, np.zeros_like(near), kind) == 0  # nothing is rounded but the sum
    assert misses([one / 3, one / 10**6], near * 1e-3, np.zeros_like(near), kind) == 0  # the first coefficient alone
    assert misses([one, one / 7, one], near * 1e3, np.zeros_like(near), kind) == 0  # what was wrong grows
    assert misses([one * 0, one * 5], near, near * 1e-3, kind) == 0  # the operand's radius


def test_a_point_costs_few_units_in_the_last_place():
    for ratio, reach in SERIES:
        coefficients, _ = series._terms(ratio, reach, Float64.precision)
        y = np.linspace(0, float(reach), 300)
        found = series._in_place(Float64(), coefficients, Ball(y, np.zeros_like(y)))
        terms = len(coefficients) if reach > 1 else 4  # of those beyond 1 many are as large as the sum
        assert (found.rad <= 3 * terms * UNIT * found.mid).all()


def test_what_overflows_is_not_finite():
    ar, coefficients = Float64(), (Fraction(1), Fraction(1), Fraction(1))
    with np.errstate(all="ignore"):
        for mid, rad in ((1e200, 0.0), (np.inf, 0.0), (np.nan, 0.0), (0.0, np.inf), (0.0, 1e300)):
            found = series._in_place(ar, coefficients, Ball(np.array([mid]), np.array([rad])))
            assert not np.isfinite(found.rad).any()
