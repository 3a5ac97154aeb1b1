"""The kernel's exp against python-flint's ball arithmetic."""

import os

import numpy as np
import pytest
from flint import arb, ctx

from mechverify.kernel.elementary import exp
from mechverify.kernel.errors import Rejected
from mechverify.kernel.rounding import Ball, Float64

POINTS = int(os.environ.get("MECHVERIFY_POINTS", 60_000))


def awkward() -> np.ndarray:
    multiples = np.arange(-1074, 1009) * 0.6931471805599453  # where the reduced argument changes sign, and between
    tie = multiples + 0.34657359027997264
    near = np.concatenate([np.nextafter(m, d) for m in (multiples, tie) for d in (-np.inf, np.inf)])
    edges = [0.0, -0.0, 5e-324, -5e-324, 2.0**-1022, 1e-17, 699.99, -744.9, -745.0, -745.2, -1e5, -1e308]
    result = np.concatenate([multiples, tie, near, edges])
    return result[result < 699.9]


def test_exp_holds_the_exact_value():
    rng = np.random.default_rng(1)
    random = np.concatenate(
        [rng.uniform(-750, 699, POINTS), rng.normal(size=POINTS) * 2.0 ** rng.integers(-60, 8, POINTS)]
    )
    points = np.concatenate([awkward(), random[random < 699]])
    result = exp(Float64(), Ball(points, np.zeros_like(points)))
    ctx.prec = 160
    for x, mid, rad in zip(points.tolist(), result.mid.tolist(), result.rad.tolist(), strict=True):
        true = arb(x).exp()
        assert true >= arb(mid) - arb(rad) and true <= arb(mid) + arb(rad), x


def test_exp_is_tight():
    points = np.linspace(-600, 600, 10_001)
    result = exp(Float64(), Ball(points, np.zeros_like(points)))
    assert (result.rad <= result.mid * 1e-13).all()


@pytest.mark.parametrize("radius", [1e-12, 0.3, 1.0, 1.5, 40.0])
def test_exp_holds_the_ends_of_a_ball(radius):
    mids = np.random.default_rng(2).uniform(-800, 650, 2_000)
    result = exp(Float64(), Ball(mids, np.full_like(mids, radius)))
    ctx.prec = 160
    for m, mid, rad in zip(mids.tolist(), result.mid.tolist(), result.rad.tolist(), strict=True):
        for end in (arb(m) - arb(radius), arb(m) + arb(radius)):
            true = end.exp()
            assert true >= arb(mid) - arb(rad) and true <= arb(mid) + arb(rad), (m, radius)


@pytest.mark.parametrize("x", [700.0, 1e308, np.inf, np.nan])
def test_exp_refuses_what_overflows(x):
    with pytest.raises(Rejected):
        exp(Float64(), Ball(np.array([x]), np.zeros(1)))
