"""Lemma D1: slopes of every function, against chords in python-flint's balls, without tolerance."""

from itertools import pairwise

import numpy as np
import pytest
from flint import arb, ctx

from mechverify.kernel.core.float64 import Float64
from mechverify.kernel.core.operations import Node
from mechverify.kernel.relaxation.slopes import DERIVATIVES, LIMITS, slopes
from tests.kernel.test_functions import ALL, COUNT, every, inside, intervals, truth
from tests.soundness.networks import FUNCTIONS as TRUE


@pytest.fixture(autouse=True)
def quiet():
    ctx.prec = 300
    with np.errstate(all="ignore"):
        yield


def node(name: str) -> Node:
    op, *exponent = name.split()
    return Node(op, (0,), int(exponent[0]) if exponent else None, "real", ())


def bounds(name: str, low: float, high: float) -> tuple[float, float]:
    found = slopes(Float64(), node(name), *(np.array([[end]]) for end in (low, high)))
    return tuple(float(end[0, 0]) for end in found)


def chords(name: str, points: list[float]) -> list[arb]:
    """Between neighbours, and between the first and all others."""
    pairs = [*pairwise(points), *((points[0], p) for p in points[1:])]
    return [(truth(name, x) - truth(name, y)) / (arb(x) - arb(y)) for x, y in pairs if x != y]


@every
def test_no_chord_is_steeper(name):
    rng, tested, said = np.random.default_rng(11), 0, 0
    for low, high in intervals(name, 4 * COUNT, rng):
        if ALL[name].positive and low <= 0:
            continue
        least, most = bounds(name, low, high)
        assert least <= most
        said += np.isfinite(least) and np.isfinite(most) and high > low
        for slope in chords(name, sorted(inside(low, high, rng))):
            if slope.is_finite():
                assert not (slope < least) and not (slope > most), (name, low, high, slope, least, most)
                tested += 1
    assert tested > 20 * COUNT and said > COUNT / 2


@every
def test_slopes_are_close_where_the_interval_is_narrow(name):
    """Within a few parts of what chords show."""
    rng, ratios = np.random.default_rng(12), []
    for _ in range(40):
        low = abs(rng.normal()) + 0.3
        high = low + 10.0 ** rng.uniform(-2, 0)
        if not (ALL[name].positive or ALL[name].root) and rng.random() < 0.5:
            low, high = -high, -low
        shown = [float(c.mid()) for c in chords(name, np.linspace(low, high, 60).tolist()[:])]
        least, most = bounds(name, low, high)
        if max(shown) - min(shown) > 1e-6:
            ratios.append((most - least) / (max(shown) - min(shown)))
    assert bool(ratios) == (name not in ("relu", "abs")), "those have one slope away from zero"
    assert not ratios or np.median(ratios) < 1.35, np.median(ratios)


@pytest.mark.parametrize("name", LIMITS)
def test_what_holds_of_all_slopes(name):
    points = sorted([*np.linspace(-8, 8, 3_000).tolist(), *np.linspace(-100, 100, 200).tolist()])
    shown = chords(name, points)
    least, most = LIMITS[name]
    assert all(not (c < least) and not (c > most) for c in shown)
    assert min(map(float, (c.mid() for c in shown))) - least < 0.01 and most - max(float(c.mid()) for c in shown) < 0.01


@pytest.mark.parametrize("name", [n for n in ALL if n.split()[0] in DERIVATIVES])
def test_derivatives_are_the_functions_own(name):
    """Against a chord of width 2^-100, whose slope is a derivative within it."""
    rng, ar = np.random.default_rng(13), Float64()
    points = [*np.abs(rng.normal(size=30)) + 2.0**-6, 1e-3, 0.5, 2.0, 31.9]
    if not (ALL[name].positive or ALL[name].root):
        points += [-p for p in points] + [0.0]
    found = DERIVATIVES[node(name).op](ar, node(name), ar.exact(np.array(points)))
    low, high = ar.ends(found)
    step = arb(2) ** -100
    for x, least, most in zip(points, low.tolist(), high.tolist(), strict=True):
        f = (lambda v: v ** node(name).attr) if name.startswith("power") else TRUE[name][1]
        slope = (f(arb(x) + step) - f(arb(x) - step)) / (2 * step)
        near = arb(2) ** -80 * (1 + abs(slope))
        assert not (slope + near < least) and not (slope - near > most), (name, x, slope, least, most)
        assert most - least < 1e-8 * (1 + abs(float(slope.mid()))), (name, x)


@pytest.mark.parametrize(
    "low, high", [(-1.0, 5e-324), (-5e-324, 1.0), (0.0, 5e-324), (-5e-324, 0.0), (-5e-324, 5e-324)]
)
def test_pieces_too_narrow_to_tell_say_nothing(low, high):
    for name in ("relu", "abs"):
        least, most = bounds(name, low, high)
        for slope in chords(name, sorted({low, 0.0, high})):
            assert not (slope < least) and not (slope > most), (name, slope, least, most)
