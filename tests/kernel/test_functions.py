"""Functions of a model: values, bounds of the bend, lines and images, against python-flint's balls, without tolerance.

MECHVERIFY_POINTS asks for more.
"""

import os
from fractions import Fraction

import numpy as np
import pytest
from flint import arb, ctx

from mechverify.kernel.core.arithmetic import Ball
from mechverify.kernel.core.errors import Rejected
from mechverify.kernel.core.exact import Exact
from mechverify.kernel.core.float64 import Float64
from mechverify.kernel.core.functions import FUNCTIONS, Function
from mechverify.kernel.core.powers import power_of
from mechverify.kernel.relaxation import lines
from tests.soundness.networks import FUNCTIONS as TRUE

COUNT = int(os.environ.get("MECHVERIFY_POINTS", 40_000)) // 1_000
ALL = {**FUNCTIONS, **{f"power {n}": power_of(n) for n in (2, 3, 4, 5, 6, 7, 16)}}
EDGES = [0.0, 5e-324, 2.3e-308, 1e-8, 0.36, 0.7, 1.0, 1.41321, 1.41421356, 1.5, np.pi / 2, 2.3984, 2.3994, 6.5, 40.0]
SCALES = [1e-300, 1e-20, 1e-3, 0.1, 1.0, 1.0, 1.0, 3.0, 10.0, 100.0, 1e5, 1e20, 1e150]
every = pytest.mark.parametrize("name", ALL)


@pytest.fixture(autouse=True)
def quiet():
    ctx.prec = 300
    with np.errstate(all="ignore"):
        yield


def truth(name: str, x: float) -> arb:
    return arb(x) ** int(name.split()[1]) if name.startswith("power") else TRUE[name][1](arb(x))


def intervals(name: str, count: int, rng: np.random.Generator) -> list[tuple[float, float]]:
    """Points, one-ulp intervals, narrow and wide ones, at breakpoints, and of all sizes of numbers."""
    found = []
    while len(found) < count:
        near = rng.choice(EDGES) * rng.choice([-1, 1]) if rng.random() < 0.5 else rng.normal() * rng.choice(SCALES)
        width = rng.choice([0.0, 10.0 ** rng.uniform(-18, 1), 10.0 ** rng.uniform(-2, 2), abs(near) * 0.1, 2e-323])
        ends = [
            (near, near + width),
            (near - width, near),
            (near - width / 3, near + width),
            (near - width, near + width / 2),
        ]
        low, high = ends[rng.integers(4)]
        if rng.random() < 0.2:
            high = float(np.nextafter(low, np.inf))
        if ALL[name].positive or ALL[name].root:
            low, high = sorted((abs(low), abs(high)))
        found.append((float(low), float(high)))
    return found


def inside(low: float, high: float, rng: np.random.Generator) -> list[float]:
    share = [0.0, 1.0, *rng.random(4), *np.linspace(0, 1, 25)]
    special = [v for v in (*EDGES, *(-e for e in EDGES)) if low <= v <= high]
    return [float(np.clip(low + (high - low) * s, low, high)) for s in share] + special


def between(low: float, high: float) -> Ball:
    mid = low + (high - low) / 2
    return Ball(np.array([[mid]]), np.array([[max(high - mid, mid - low)]]))


# --- lines and images -------------------------------------------------------------------------------------------------


@every
def test_lines_and_images_hold_at_every_point(name):
    rng = np.random.default_rng(1)
    ar, f, tested = Float64(), ALL[name], 0
    for low, high in intervals(name, COUNT, rng):
        try:
            x = between(low, high)
            low, high = (float(end.item()) for end in ar.ends(x))
            curve, (bottom, top) = (step(ar, f, *ar.ends(x)) for step in (lines.curve, lines.image))
            y = curve.values.mid.ravel()
            chord = (y[-1] - y[0]) / (high - low) if high > low else 0.0
            slopes = [
                0.0,
                1.0,
                chord,
                -chord,
                chord * rng.uniform(0.5, 1.5),
                rng.normal() * 10.0 ** rng.integers(-5, 5),
            ]
            slopes = np.array([[s for s in slopes if np.isfinite(s)]])
            ends = [lines.offset(ar, curve, ar.exact(slopes), upper).mid.ravel() for upper in (False, True)]
        except Rejected:
            continue
        tested += 1
        bottom, top = bottom.item(), top.item()
        for at in inside(low, high, rng):
            value = truth(name, at)
            assert not (value < bottom or value > top), (low, high, at, "image")
            if not curve.known.all():
                continue
            for slope, below, above in zip(slopes.ravel().tolist(), *(e.tolist() for e in ends), strict=True):
                if not (np.isfinite(below) and np.isfinite(above)):
                    continue
                line = arb(slope) * arb(at)
                assert not (line + arb(below) > value), (low, high, at, slope, "lower line")
                assert not (line + arb(above) < value), (low, high, at, slope, "upper line")
    assert tested > COUNT // 2


@every
def test_lines_are_not_much_wider_than_the_function(name):
    """Of chords on an interval where it is smooth: not half as much again as a parabola's f'' h^2 / 8."""
    ar, f = Float64(), ALL[name]
    for width in (1e-9, 1e-3, 0.05):
        c = lines.curve(ar, f, *ar.ends(between(1.0, 1.0 + width)))
        chord = ar.exact((c.values.mid[-1] - c.values.mid[0]) / (c.points.mid[-1] - c.points.mid[0]))
        gap = lines.offset(ar, c, chord, True).mid - lines.offset(ar, c, chord, False).mid
        bends = max(float(abs(bent(name, arb(1 + width * k / 4))).mid()) for k in range(5))
        assert 0 <= gap.item() < 1.5 * bends * width**2 / 8 + width**3 + 1e-13


# --- bends ------------------------------------------------------------------------------------------------------------


def normal(x: arb) -> arb:
    return (-x * x / 2).exp() / (2 * arb.pi()).sqrt()


def bent_gelu_tanh(x: arb) -> arb:
    root, tail = (2 / arb.pi()).sqrt(), arb(44715) / 10**6
    inner = root * (x + tail * x**3)
    first, second = root * (1 + 3 * tail * x**2), 6 * root * tail * x
    slope = 1 / inner.cosh() ** 2
    return slope * first + x / 2 * slope * (second - 2 * inner.tanh() * first**2)


BENT = {  # the second derivatives, derived by hand
    "relu": lambda x: arb(0), "abs": lambda x: arb(0),
    "exp": arb.exp, "log": lambda x: -1 / x**2, "sqrt": lambda x: -1 / (4 * x * x.sqrt()),
    "rsqrt": lambda x: arb(3) / 4 / (x**2 * x.sqrt()), "reciprocal": lambda x: 2 / x**3,
    "atan": lambda x: -2 * x / (1 + x * x) ** 2,
    "tanh": lambda x: -2 * x.tanh() / x.cosh() ** 2,
    "sigmoid": lambda x: -(x / 2).tanh() / (4 * (x / 2).cosh() ** 2),
    "erf": lambda x: -4 * x / arb.pi().sqrt() * (-x * x).exp(),
    "softplus": lambda x: 1 / (4 * (x / 2).cosh() ** 2),
    "gelu": lambda x: normal(x) * (2 - x * x),
    "gelu_tanh": bent_gelu_tanh,
    "silu": lambda x: (2 - x * (x / 2).tanh()) / (4 * (1 + (x / 2).sinh() ** 2)),
    "sin": lambda x: -x.sin(), "cos": lambda x: -x.cos(),
}  # fmt: skip


def bent(name: str, x: arb) -> arb:
    if name.startswith("power"):
        n = int(name.split()[1])
        return n * (n - 1) * x ** (n - 2)
    return BENT[name](x)


def bend(ar: Float64, f: Function, low: float, high: float) -> tuple[float, float]:
    ends = [ar.exact(np.array([v])) for v in (low, high)]
    least, most = f.bend(ar, *ends, *(f.value(ar, e) for e in ends))
    least, most = (b.map(lambda a: np.broadcast_to(a, (1,))) for b in (least, most))
    return ar.lower(least).item(), ar.upper(most).item()


@every
def test_bends_lie_within_their_bounds(name):
    rng = np.random.default_rng(2)
    ar, f, tested = Float64(), ALL[name], 0
    for low, high in intervals(name, 2 * COUNT, rng):
        if not low < high or (f.positive and low <= 0):
            continue
        if f.breakpoint and low < 0 < high:
            high = 0.0
        try:
            least, most = bend(ar, f, low, high)
        except Rejected:
            continue
        tested += 1
        for at in inside(low, high, rng):
            value = bent(name, arb(at))
            assert not (value < least or value > most), (low, high, at)
    assert tested > COUNT // 2


EDGE = Fraction(1, 2**10)
GELU, SILU = Fraction(14142, 10_000), Fraction(23994, 10_000)
CLAIMED = [  # function, from, to, and between what the kernel takes its bend to lie there
    ("atan", -60, 0, 0, "0.65"), ("atan", 0, 60, "-0.65", 0),
    ("tanh", -60, 0, 0, "0.77"), ("tanh", 0, 60, "-0.77", 0), ("sigmoid", -90, 0, 0, "0.0963"),
    ("sigmoid", 0, 90, "-0.0963", 0), ("erf", -30, 0, 0, "0.97"), ("erf", 0, 30, "-0.97", 0),
    ("softplus", -90, 90, 0, "0.25"), ("gelu", -GELU + EDGE, GELU - EDGE, 0, "0.798"),
    ("gelu", GELU + EDGE, 40, "-0.108", 0), ("gelu", -40, -GELU - EDGE, "-0.108", 0), ("gelu", -40, 40, "-0.108", "0.798"),
    ("silu", -SILU + EDGE, SILU - EDGE, 0, "0.5"), ("silu", SILU + EDGE, 90, "-0.04", 0),
    ("silu", -90, -SILU - EDGE, "-0.04", 0), ("silu", -90, 90, "-0.04", "0.5"), ("gelu_tanh", -12, 12, "-0.11", "0.8"),
]  # fmt: skip


@pytest.mark.parametrize("name, start, end, least, most", CLAIMED)
def test_claimed_bends_by_subdivision(name, start, end, least, most):
    """Everywhere in between, by interval arithmetic; up to 10^-12, since some extrema are attained (at zero). Beyond,
    each of these is below 10^-20: the exponential outweighs the rest."""
    ctx.prec = 80
    low, high = (arb(Fraction(v).numerator) / Fraction(v).denominator for v in (least, most))
    todo, slack = [(Fraction(start) + (Fraction(end) - start) * i / 128,
                    Fraction(start) + (Fraction(end) - start) * (i + 1) / 128) for i in range(128)], arb(1e-12)  # fmt: skip
    while todo:
        a, b = todo.pop()
        mid, radius = (a + b) / 2, (b - a) / 2
        value = bent(
            name, arb(mid.numerator) / mid.denominator + arb(0, 1) * (arb(radius.numerator) / radius.denominator)
        )
        if value >= low - slack and value <= high + slack:
            continue
        assert radius > Fraction(1, 2**40), (name, float(a), float(b), value)
        todo += [(a, mid), (mid, b)]


@pytest.mark.parametrize("name, at", [("tanh", 60), ("sigmoid", 90), ("erf", 30), ("gelu", 40), ("silu", 90),
                                      ("gelu_tanh", 12)])  # fmt: skip
def test_tails_vanish(name, at):
    ctx.prec = 80
    assert abs(bent(name, arb(at))) < 1e-20 and abs(bent(name, arb(-at))) < 1e-20


# --- values -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [Float64, Exact])
@every
def test_a_ball_holds_the_values_of_all_its_points(name, kind):
    rng = np.random.default_rng(3)
    ar, f = kind(), ALL[name]
    for low, high in intervals(name, COUNT if kind is Float64 else COUNT // 4, rng):
        if abs(high) > 1e60 and kind is Exact:
            continue
        both = ar.exact(np.array([low / 2 + high / 2, (high - low) / 4]))
        x = Ball(both.mid[:1], both.rad[:1] + abs(both.mid[1:]), both.exponent)
        try:
            result = f.value(ar, x)
            bottom, top = ar.lower(result).item(), ar.upper(result).item()
        except Rejected:
            continue
        unit = arb((1, result.exponent))
        for offset in (-1, -0.4, 0, 0.7, 1):
            ctx.prec = 2_300
            at = (arb(low / 2 + high / 2)) + arb((high - low) / 4) * arb(offset)
            ctx.prec = 400
            value = at ** int(name.split()[1]) if name.startswith("power") else TRUE[name][1](at)
            assert not (value < arb(bottom) * unit or value > arb(top) * unit), (low, high, offset)


# --- refusals ---------------------------------------------------------------------------------------------------------


@every
@pytest.mark.parametrize("x", [np.nan, np.inf, -np.inf])
def test_what_is_no_number_is_refused_or_bounds_nothing(name, x):
    ar = Float64()
    for ball in (Ball(np.array([[1.0, x]]), np.zeros((1, 2))), Ball(np.ones((1, 2)), np.array([[0.0, abs(x)]]))):
        if ALL[name].positive or ALL[name].root:
            with pytest.raises(Rejected):
                lines.image(ar, ALL[name], *ar.ends(ball))
        else:
            low, high = lines.image(ar, ALL[name], *ar.ends(ball))
            assert low[0, 1] == ALL[name].least and high[0, 1] == ALL[name].most


@pytest.mark.parametrize("name", [n for n, f in ALL.items() if f.positive])
@pytest.mark.parametrize("low, high", [(0.0, 1.0), (-0.0, 1.0), (-1.0, 1.0), (-1.0, 2.0), (-2.0, -1.0), (0.0, 0.0)])
def test_what_may_not_be_positive_is_refused(name, low, high):
    for step in (lines.curve, lines.image):
        with pytest.raises(Rejected):
            step(Float64(), ALL[name], *Float64().ends(between(low, high)))


# --- known ranges -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name, reached", [("gelu", -0.16997), ("gelu_tanh", -0.17004), ("silu", -0.27846)])
def test_the_least_value_is_proved_by_subdivision(name, reached):
    """Of x g(x) with 0 <= g <= 1 growing: on [p, q] below zero it is at least p g(q)."""
    g = {"gelu": lambda x: (1 + (x / arb(2).sqrt()).erf()) / 2, "silu": lambda x: 1 / (1 + (-x).exp()),
         "gelu_tanh": lambda x: (1 + ((2 / arb.pi()).sqrt() * (x + arb(44715) / 10**6 * x**3)).tanh()) / 2}[name]  # fmt: skip
    ctx.prec, step = 100, 2.0**-17
    least, p = 0.0, -20.0
    while p < 0:
        width = step if -1.6 <= p < -0.4 else 2.0**-8
        assert arb(p) * g(arb(p + width)) > arb(FUNCTIONS[name].least), p
        p += width
    least = float(truth(name, {"gelu": -0.7518, "gelu_tanh": -0.7525, "silu": -1.2785}[name]).mid())
    assert FUNCTIONS[name].least < least < reached  # and is nearly reached
    assert truth(name, -20.0) > arb(-1e-6)


@every
def test_known_ranges_hold_and_infinite_ends_bound_one_side(name):
    ar, f = Float64(), ALL[name]
    first = 1.0 if f.positive or f.root else -np.inf
    low, high = lines.image(ar, f, np.array([first]), np.array([np.inf]))
    for x in (1.0, 1.5, 3.0, 100.0, 700.0, *([] if first == 1 else [-1e3, -1.0, -0.75, 0.0])):
        assert not (truth(name, x) < arb(low.item()) or truth(name, x) > arb(high.item()))
    assert low.item() >= f.least and high.item() <= f.most and not np.isnan([low, high]).any()


def test_gelu_of_a_ball_holds_its_ends():
    """Its slope is greatest near sqrt(2), and least near -sqrt(2): balls around there, and of many widths."""
    ar, rng = Float64(), np.random.default_rng(0)
    mid = np.concatenate([rng.normal(size=200) * 4, 2**0.5 + rng.normal(size=50), -(2**0.5) + rng.normal(size=50)])
    rad = 10.0 ** rng.uniform(-12, 0, size=300)
    ball = FUNCTIONS["gelu"].value(ar, ar.exact(mid)._replace(rad=rad))
    low, high = ar.lower(ball), ar.upper(ball)
    for share in np.linspace(-1, 1, 5):
        for x, a, b in zip((mid + share * rad * (1 - 2**-50)).tolist(), low.tolist(), high.tolist(), strict=True):
            value = TRUE["gelu"][1](arb(x))
            assert not value < a and not value > b
