"""Lemma C20: what all entries of an input are off by together, as a vector's length. Deviations are exact rationals, and
point where they do the most harm."""

from fractions import Fraction
from math import prod

import numpy as np
import pytest
import torch
from flint import arb, ctx  # pyright: ignore[reportMissingTypeStubs]

from mechverify.kernel.core.arithmetic import Ball
from mechverify.kernel.core.attention import softmax
from mechverify.kernel.core.errors import Rejected
from mechverify.kernel.core.euclidean import (
    SLOPES,
    Euclidean,
    Fine,
    Round,
    Smooth,
    longest,
    repeats,
    rounded,
    slices,
    spectral,
)  # fmt: skip
from mechverify.kernel.core.evaluate import Evaluation
from mechverify.kernel.core.float64 import Float64
from mechverify.kernel.core.functions import FUNCTIONS
from mechverify.kernel.core.prefixes import Prefixes, Shared
from mechverify.kernel.core.rough import digits
from mechverify.kernel.core.semantics import Real
from tests.kernel.test_prefixes import HEADS, Built, chosen_by_the_last, every

KINDS = [Euclidean, Fine]
INPUTS = 3
REAL = {"gelu": torch.nn.functional.gelu, "gelu_tanh": lambda x: torch.nn.functional.gelu(x, approximate="tanh"),
        "silu": torch.nn.functional.silu, "softplus": torch.nn.functional.softplus}  # fmt: skip


@pytest.fixture(autouse=True)
def quiet():
    with np.errstate(all="ignore"):
        yield


def drawn(rng: np.random.Generator, shape: tuple[int, ...], wide: float) -> Round:
    """Lengths that differ by input; numbers of all sizes."""
    mid = rng.normal(size=shape) * 2.0 ** rng.integers(-6, 6, shape)
    return rounded(mid, wide * rng.random(shape[0]) * np.abs(mid).max() if len(shape) else np.array([wide]))


def exact(a: np.ndarray) -> np.ndarray:
    return np.vectorize(Fraction, otypes=[object])(np.asarray(a, float))


def moved(x: Round, direction: np.ndarray) -> np.ndarray:
    """The centre, off by nearly as much as the radius allows along a direction in each slice; exactly."""
    flat = direction.reshape(len(direction), -1)
    lengths = np.sqrt((flat**2).sum(1)) * (1 + 2.0**-40)
    lengths = np.where(lengths > 0, lengths, 1.0).reshape((-1,) + (1,) * (direction.ndim - 1))
    return exact(x.mid) + exact(x.rad) * exact(direction / lengths)


def holds(found: Ball, true: np.ndarray) -> bool:
    """Of Fractions: no slice's deviations are longer than the radius."""
    assert isinstance(found, Round) and true.shape == found.mid.shape
    off = (true - exact(found.mid)).reshape(len(true), -1)
    rad = np.broadcast_to(exact(found.rad).reshape(-1), (len(true),))
    return all(sum(o * o for o in row) <= r * r for row, r in zip(off, rad, strict=True))


def tightness(found: Round, true: np.ndarray) -> float:
    off = (true - exact(found.mid)).astype(float).reshape(len(true), -1)
    return float((np.sqrt((off**2).sum(1)) / np.broadcast_to(found.rad.reshape(-1), len(true))).max())


# --- elements ---------------------------------------------------------------------------------------------------------

OF_TWO = {
    "add": (lambda ar, x, y: ar.add(x, y), lambda a, b: a + b),
    "sub": (lambda ar, x, y: Smooth(ar).sub(x, y), lambda a, b: a - b),
    "mul": (lambda ar, x, y: ar.mul(x, y), lambda a, b: a * b),
    "div": (lambda ar, x, y: ar.div(x, y), lambda a, b: a / b),
}
SHAPES = [((INPUTS, 2, 3), (INPUTS, 2, 3)), ((INPUTS, 2, 3), (INPUTS, 2, 1)), ((INPUTS, 2, 1), (1, 1, 3)),
          ((1, 2, 3), (INPUTS, 1, 1)), ((INPUTS, 3), ()), ((INPUTS, 1), (3,))]  # fmt: skip


@pytest.mark.parametrize("shapes", SHAPES)
@pytest.mark.parametrize("name", OF_TWO)
def test_operations_of_two_hold_what_both_may_make_of_it(name, shapes):
    """Either operand off along a random direction, along the other one's largest entry, or everywhere alike."""
    operate, truth = OF_TWO[name]
    rng, best = np.random.default_rng(1), 0.0
    for wide in (0.0, 1e-12, 1e-3, 0.2):
        for turn in range(12):
            x, y = (drawn(rng, shape, wide if turn % 3 != i else 0.0) for i, shape in enumerate(shapes))
            if name == "div":
                y = Round(np.sign(y.mid) * (np.abs(y.mid) + 1 + 2 * y.rad.max()), y.rad)
            found = operate(Euclidean(), x, y)
            ways = [
                rng.normal(size=x.mid.shape),
                np.ones(x.mid.shape),
                np.where(rng.random(x.mid.shape) < 0.3, 1.0, 0.0),
            ]
            for way in ways:
                for sign in (1, -1):
                    other = np.ones(y.mid.shape) if turn % 2 else rng.normal(size=y.mid.shape)
                    a = moved(x, way) if x.mid.ndim else exact(x.mid) + exact(x.rad) * Fraction(9, 10)
                    b = moved(y, sign * other) if y.mid.ndim else exact(y.mid) + sign * exact(y.rad) * Fraction(9, 10)
                    true = truth(a, b)
                    assert holds(found, true)
                    best = max(best, tightness(found, true))
    assert best > 0.3  # and is no more than it needs to be, at best


def test_entries_are_compared_each_by_itself():
    rng, ar = np.random.default_rng(2), Euclidean()
    x, y = drawn(rng, (INPUTS, 1), 1e-3), drawn(rng, (INPUTS, 5), 1e-3)
    found = ar.sub(x, y)
    assert (found.rad >= x.rad + y.rad).all() and (found.rad <= (x.rad + y.rad) * 1.001).all()
    low, high = ar.lower(found), ar.upper(found)
    least, most = (exact(x.mid - y.mid) + sign * (exact(x.rad) + exact(y.rad)) for sign in (-1, 1))
    assert (exact(low) <= least).all() and (exact(high) >= most).all()
    assert len({*found.rad.reshape(-1)}) == INPUTS  # one input's radius isn't another's


def test_square_roots():
    ctx.prec, ar, rng = 200, Euclidean(), np.random.default_rng(3)
    for wide in (0.0, 1e-9, 0.05):
        x = drawn(rng, (INPUTS, 4), wide)
        x = Round(np.abs(x.mid) + 2 * x.rad.max() + 2.0**-4, x.rad)
        found = ar.sqrt(x)
        for way in (rng.normal(size=x.mid.shape), np.where(x.mid == x.mid.min(), -1.0, 0.0)):
            true = moved(x, way)
            for i in range(INPUTS):
                off = sum(((arb(t.numerator) / t.denominator).sqrt() - arb(float(m))) ** 2
                          for t, m in zip(true[i], found.mid[i], strict=True))  # fmt: skip
                assert not off > arb(float(np.broadcast_to(found.rad.reshape(-1), INPUTS)[i])) ** 2
    with pytest.raises(Rejected):
        ar.sqrt(rounded(np.ones((2, 2)), np.array([0.5, 1.0])))
    with pytest.raises(Rejected):
        ar.div(rounded(np.ones((2, 2)), np.zeros(1)), rounded(np.ones((2, 2)), np.array([1.0, 0.1])))


def test_scaling_choosing_and_what_stands_side_by_side():
    rng, ar = np.random.default_rng(4), Euclidean()
    x, y = drawn(rng, (INPUTS, 2, 3), 0.1), drawn(rng, (INPUTS, 2, 1), 0.1)
    powers = rng.integers(-3, 4, (1, 2, 3))
    assert holds(ar.scale(x, powers), moved(x, 4.0**powers * np.ones(x.mid.shape)) * exact(2.0**powers))
    mask = rng.random((2, 3)) < 0.5
    chosen = ar.where(mask, x, y)
    assert holds(chosen, np.where(mask, moved(x, rng.normal(size=x.mid.shape)), moved(y, np.ones(y.mid.shape))))
    only = ar.where(np.ones((2, 3), bool), x, y)
    assert (only.rad <= x.rad * (1 + 2.0**-40)).all() and (only.rad >= x.rad).all()
    parts = [x, rounded(rng.normal(size=(1, 2, 3)), np.array([0.3]))]
    side = ar.together(np.concatenate([x.mid, np.broadcast_to(parts[1].mid, x.mid.shape)], 2), parts)
    other = np.broadcast_to(moved(parts[1], np.ones((1, 2, 3))), x.mid.shape)
    assert holds(side, np.concatenate([moved(x, rng.normal(size=x.mid.shape)), other], 2))
    plain = Ball(np.zeros((1, 2, 3)), np.full((1, 2, 3), 0.3))  # beside entries with radii of their own
    for mixed in ([x, plain], [plain, x]):
        found = ar.together(np.zeros((INPUTS, 2, 6)), mixed)
        assert isinstance(found, Round) and (found.rad**2 >= x.rad**2 + 6 * 0.09).all()
        assert found.map(lambda a: a[:, :1]).rad.shape == (INPUTS, 1, 1)
    wider = ar.widen(x, 0.0, 1.0)
    assert holds(wider, moved(x, np.ones(x.mid.shape)) + 1) and (wider.rad <= 1.01 * (x.rad + 6**0.5)).all()
    wider = ar.widen(x, 0.5, of=y)
    assert holds(wider, moved(x, np.ones(x.mid.shape)) + exact(np.full(x.mid.shape, 0.5 * np.abs(y.mid).max())))


def test_moving_entries():
    """Repeating one makes a length larger; picking some, or another order, does not. Each input keeps its own."""
    rng = np.random.default_rng(5)
    x = drawn(rng, (INPUTS, 2, 3), 0.1)
    way = rng.normal(size=x.mid.shape)
    moves = {
        "turned": lambda a: a.transpose(0, 2, 1), "some": lambda a: a[:, :, 1:], "flat": lambda a: a.reshape(len(a), -1),
        "rows": lambda a: a if len(a) == 1 else a[[0, 2, 2, 1]], "new axis": lambda a: a[:, None],
        "twice": lambda a: a.reshape(len(a), -1)[:, [[0, 1], [1, 0]]], "spread": lambda a: np.broadcast_to(a[:, :, :1], (len(a), 2, 9)),
    }  # fmt: skip
    for name, move in moves.items():
        found = x.map(move)
        assert holds(found, move(moved(x, way))), name
        for entry in np.ndindex(2, 3):  # all of it in one entry
            alone = np.zeros(x.mid.shape)
            alone[(slice(None), *entry)] = 1.0
            assert holds(found, move(moved(x, alone))), name
        often = {"twice": 2, "spread": 9}.get(name, 1)
        lengths = x.rad.reshape(-1)[[0, 2, 2, 1]] if name == "rows" else x.rad.reshape(-1)
        assert repeats(move, x.mid.shape) == often
        assert np.allclose(found.rad.reshape(-1), lengths * often**0.5, rtol=1e-9, atol=0)
    assert holds(-x, -moved(x, way))


# --- norms ------------------------------------------------------------------------------------------------------------


def test_lengths_are_at_least_what_they_are():
    rng = np.random.default_rng(6)
    for size in (1, 3, 70, 3_000):
        rows = rng.normal(size=(4, size)) * 2.0 ** rng.integers(-40, 40, (4, size))
        for row, found in zip(rows, longest(rows), strict=True):
            square = sum(Fraction(v) ** 2 for v in row)
            assert square <= Fraction(found) ** 2
        assert longest(rows).max() <= 1.01 * np.sqrt((rows**2).sum(1)).max()
    assert longest(np.zeros((2, 3))).max() == 0.0
    for odd in (2.0**-900, 2.0**900):
        assert (longest(np.full((2, 4), odd)) >= 2 * odd).all()
    assert not np.isfinite(longest(np.array([[1.0, np.inf]]))).any() and np.isnan(longest(np.array([[np.nan]]))).all()


def test_lengths_count_what_underflows_beside_something_large():
    """A slice whose numbers are nothing beside another one's: errors there grow by what multiplies them later on."""
    ar, rng = Euclidean(), np.random.default_rng(13)
    for large, small in ((2.0**200, 2.0**-1000), (2.0**399, 2.0**-700), (2.0**390, 2.0**-1074), (1.0, 2.0**-1074)):
        assert (longest(np.array([[large] * 3, [small] * 3])) >= np.array([large, small]) * 1.7).all()
        x = rounded(np.stack([np.full(50, large), small * (1 + rng.random(50))]), np.zeros(1))
        y = rounded(x.mid[:, ::-1].copy(), np.zeros(1))
        assert holds(ar.add(x, y), exact(x.mid) + exact(y.mid))
    for n in range(1, 9):  # the root isn't rounded to a smaller multiple of the least number
        assert Fraction(longest(np.full((1, n), 2.0**-1074))[0]) ** 2 >= n * Fraction(2.0**-1074) ** 2


def test_short_sums_of_tiny_numbers_times_large_ones_are_rounded_too():
    """The unit's share of the tiny factor alone would underflow."""
    rng = np.random.default_rng(14)
    for n in (2, 5, 7):
        tiny = rng.integers(-(2**30), 2**30, (1, 1, n)) * 2.0**-1070
        wide = rng.normal(size=(1, n, 6)) * 2.0**900
        wide[:, -1] = -(tiny[:, 0, :-1] @ wide[:, :-1]) / tiny[0, 0, -1]  # sums that nearly cancel
        for spec, x, y in (("ab,bc->ac", tiny, wide), ("bc,ab->ac", wide, tiny)):
            found = Euclidean().contract(spec, *(Round(a, np.zeros((1, 1, 1))) for a in (x, y)))
            assert holds(found, product(spec, exact(x), exact(y)))


def test_many_short_lengths_beside_a_long_one():
    """Each square alone is nothing beside the sum so far."""
    parts = [rounded(np.zeros((1, 1)), np.array([v])) for v in [1.0] + [2.0**-27] * 20_000]
    found = Fraction(Euclidean().together(np.zeros(1), parts).rad.item())
    assert found**2 >= sum(Fraction(part.rad.item()) ** 2 for part in parts)


def test_spectral_norms_are_at_least_what_they_are():
    """Along the vector that is stretched most; and little more."""
    rng = np.random.default_rng(7)
    for m, n in ((1, 1), (5, 9), (64, 64), (128, 30), (3, 300)):
        some = rng.normal(size=(2, m, n)) * 2.0 ** rng.integers(-9, 3, (2, m, n))
        some[0] = np.outer(rng.normal(size=m), rng.normal(size=n)) if m > 1 else some[0]
        found = spectral(some)
        for matrix in some:
            vector = exact(np.linalg.svd(matrix)[2][0])
            stretched = exact(matrix) @ vector
            assert sum(v * v for v in stretched) <= Fraction(found) ** 2 * sum(v * v for v in vector)
        assert found <= 1.2 * np.linalg.norm(some, 2, axis=(1, 2)).max()
    assert spectral(np.full((1, 2, 2), np.nan)) == np.inf


# --- products ---------------------------------------------------------------------------------------------------------

SPECS = {
    "ab,bc->ac": ((INPUTS, 2, 12), (1, 12, 40)),  # a layer
    "bc,ab->ac": ((1, 12, 40), (INPUTS, 2, 12)),
    "eab,ebc->eac": ((INPUTS, 2, 3, 9), (INPUTS, 2, 9, 3)),  # scores, and what attention mixes
    "ei,ei->e": ((INPUTS, 2, 9), (INPUTS, 2, 9)),
    "i,i->": ((INPUTS, 3), (1, 3)),
    "i,j->ij": ((INPUTS, 4), (INPUTS, 3)),
    "ab,b->a": ((1, 4, 30), (INPUTS, 30)),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("spec", SPECS)
def test_products_hold_what_their_factors_may_make_of_them(spec, kind):
    """A factor off along the singular vector that the other one stretches most, at each input."""
    rng, best = np.random.default_rng(8), 0.0
    letters = {c: s for term, shape in zip(spec.split("->")[0].split(","), SPECS[spec], strict=True)
               for c, s in zip(term, shape[1:], strict=True)}  # fmt: skip
    for wide in (0.0, 1e-9, 1e-2):
        for turn in range(3):
            x, y = (drawn(rng, shape, wide if turn != i else 0.0) for i, shape in enumerate(SPECS[spec]))
            found = kind().contract(spec, x, y)
            for which in (0, 1):
                own, other = (x, y) if which == 0 else (y, x)
                way = rng.normal(size=own.mid.shape)
                for _ in range(6):  # power steps: the way that grows most
                    out = product(spec, *((way, other.mid) if which == 0 else (other.mid, way)))
                    way = _back(spec, which, out, other.mid, own.mid.shape, letters)
                pair = moved(own, way), moved(other, rng.normal(size=other.mid.shape))
                true = product(spec, *(pair if which == 0 else pair[::-1]))
                assert holds(found, true)
                best = max(best, tightness(found, true) if wide else 0.0)
    assert best > (0.15 if spec != "i,i->" else 0.1)


def product(spec: str, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Term by term over the slices, numbers of any kind."""
    number = max(len(x), len(y))
    each = [np.einsum(spec, x[min(i, len(x) - 1)], y[min(i, len(y) - 1)]) for i in range(number)]
    return np.array(each).reshape(number, *np.shape(each[0]))


def _back(spec: str, which: int, out: np.ndarray, other: np.ndarray, shape: tuple, letters: dict) -> np.ndarray:
    """The transposed map: from the result to one operand."""
    first, second, result = spec.replace("->", ",").split(",")
    own, beside = (first, second) if which == 0 else (second, first)
    missing = [c for c in own if c not in beside + result]
    assert not missing
    each = [np.einsum(f"{result},{beside}->{own}", out[i], other[min(i, len(other) - 1)]) for i in range(len(out))]
    way = np.array(each)
    return way if shape[0] > 1 else way.sum(0, keepdims=True)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_left_out_of_exact_factors_is_counted(kind):
    """Full slices, whose last digits all point one way; sums of every length."""
    for n in (2, 7, 8, 64):
        x = rounded(np.full((1, 3, n), 1 - 2.0**-21 * (0.5 + 2.0**-20) - 2.0**-50), np.zeros(1))
        found = kind().contract("ab,bc->ac", x, rounded(x.mid.swapaxes(1, 2), np.zeros(1)))
        assert holds(found, product("ab,bc->ac", exact(x.mid), exact(x.mid.swapaxes(1, 2))))
        assert found.rad <= n * 3 * (2.0**-36 if kind is Euclidean else 2.0**-49)


def test_all_that_is_left_out_points_one_way():
    """Products of second slices, and digits beyond them, nearly as large as they may be, in every entry of the result:
    the length has no room for less."""
    n = 64
    width = digits(n)
    value = 1 - 2.0**-width * (0.5 + 2.0**-20) + 2.0 ** (-2 * width - 1) * 0.45
    x = rounded(np.full((1, 8, n), value), np.zeros(1))
    found = Euclidean().contract("ik,jk->ij", x, x)
    true = np.full((1, 8, 8), n * Fraction(value) ** 2)
    assert holds(found, true) and tightness(found, true) > 0.8


def test_slices_of_an_operand_that_a_slice_of_the_result_is_made_of():
    a, b = np.zeros((3, 2, 5)), np.zeros((5, 4))
    assert slices("ab,bc->ac", a, b) == [1, 5] and slices("bc,ab->ac", b, a) == [5, 1]
    assert slices("ab,bc->ac", np.zeros((2, 5)), b) == [1, 5] and slices("i,i->", b[:, 0], b[:, 0]) == [5, 5]
    # No axis of inputs: slices are rows, and all those of the second operand are off the same way.
    x, y = rounded(np.ones((2, 9)), np.zeros(1)), rounded(np.zeros((9, 4)), np.array([1e-2]))
    found = Euclidean().contract("ab,bc->ac", x, y)
    one = np.zeros((9, 4))
    one[:, 1] = 1.0
    true = exact(x.mid) @ moved(y, one)
    assert holds(found, true) and tightness(found, true) > 0.6


# --- functions --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SLOPES)
def test_no_function_is_steeper_than_is_said(name):
    f = REAL.get(name, getattr(torch, name, None))
    x = torch.cat([torch.linspace(-12, 12, 400_001), torch.linspace(-1e3, 1e3, 20_001)]).double().requires_grad_()
    (slope,) = torch.autograd.grad(f(x).sum(), x)
    assert slope.abs().max() <= SLOPES[name] and slope.abs().max() >= 0.95 * SLOPES[name]


@pytest.mark.parametrize("name", [*SLOPES, "exp", "sqrt", "rsqrt", "reciprocal", "log"])
def test_functions_hold_what_their_argument_may_make_of_them(name):
    rng, ar = np.random.default_rng(10), Fine()
    told = 0
    for wide in (0.0, 1e-9, 1e-2):
        x = drawn(rng, (INPUTS, 40), wide)
        if name in ("sqrt", "rsqrt", "reciprocal", "log"):
            x = Round(np.abs(x.mid) + 0.5 + 2 * x.rad.max(), x.rad)
        found = Smooth(ar).function(name, FUNCTIONS[name], x)
        for way in (rng.normal(size=x.mid.shape), np.sign(x.mid), np.where(np.abs(x.mid) < 1, 1.0, 0.0)):
            true = moved(x, way)
            each = FUNCTIONS[name].value(Float64(), Float64().exact(true.astype(float)))
            off = np.sqrt(((np.abs(each.mid - found.mid) - each.rad - 2.0**-45).clip(0) ** 2).sum(1))
            assert (off <= np.broadcast_to(ar.round(found).rad.reshape(-1), INPUTS)).all()
            told += 1
    assert told == 9


@pytest.mark.parametrize("rad", [0.0, 1e-9, 1e-2, 0.5])
def test_a_softmax_holds_what_its_scores_may_make_of_it(rad):
    """Of all rows of an input together; the bound is reached where two are even."""
    ctx.prec, rng, ar = 200, np.random.default_rng(0), Fine()
    kept = np.array([[True, True, True, False], [True, True, True, True]])
    for size in (0.0, 1.0, 30.0):
        scores = rounded(rng.normal(size=(INPUTS, 2, 4)) * size, np.array([rad, rad / 2, 0.0]))
        found = ar.round(softmax(Smooth(ar), scores, kept))
        assert not found.mid[:, 0, 3].any()
        for _ in range(6):
            true = moved(scores, rng.normal(size=scores.mid.shape) * kept)
            for i in range(INPUTS):
                off = arb(0)
                for row in range(2):
                    powers = [(arb(t.numerator) / t.denominator).exp() if k else arb(0) for t, k in zip(true[i, row], kept[row], strict=True)]  # fmt: skip
                    total = sum(powers, arb(0))
                    off += sum(((p / total - arb(float(m))) ** 2 for p, m in zip(powers, found.mid[i, row], strict=True)), arb(0))  # fmt: skip
                assert not off > arb(float(np.broadcast_to(found.rad.reshape(-1), INPUTS)[i])) ** 2
    two = softmax(Smooth(ar), rounded(np.zeros((1, 2)), np.array([1e-3])), np.ones(2, bool))
    assert 0.4999e-3 <= two.rad.max() <= 0.5001e-3


# --- numbers that are none, and graphs --------------------------------------------------------------------------------


def test_nothing_is_said_beside_a_number_that_is_none():
    ar, x = Euclidean(), rounded(np.ones((2, 9)), np.array([1e-9]))
    for bad in (np.nan, np.inf):
        odd = rounded(np.array([[bad] + [1.0] * 8] * 2), np.array([1e-9]))
        blurred = rounded(np.ones((2, 9)), np.array([0.0, bad]))
        for other in (odd, blurred):
            made = [ar.add(x, other), ar.mul(x, other), ar.contract("i,j->ij", x, other), ar.sub(x, other),
                    ar.where(np.arange(9) > 3, x, other), ar.scale(other, np.zeros((2, 9), np.int64)), ar.widen(other, 1.0)]  # fmt: skip
            if other is blurred:
                made.append(ar.contract("i,i->", x, other))
            for ball in made:
                for end in (ar.lower, ar.upper):
                    with pytest.raises(Rejected):
                        end(ball)


def test_what_overflows_is_never_finite_again():
    ar, large = Euclidean(), rounded(np.full((1, 3), 1e300), np.zeros(1))
    for over in (ar.mul(large, large), ar.add(large, large), ar.scale(large, np.full((1, 3), 60))):
        beside = Round(np.where([True, False, True], over.mid, 1.0), over.rad)  # 1 / inf = 0 is near nothing
        if np.isinf(over.mid).any():
            with pytest.raises(Rejected):
                ar.lower(ar.div(rounded(np.ones((1, 3)), np.zeros(1)), beside))
    over = ar.mul(large, large)
    for ball in (
        over,
        ar.add(over, large),
        ar.scale(over, np.full((1, 3), -2_000)),
        ar.mul(over, rounded(np.zeros((1, 3)), np.zeros(1))),
    ):
        with pytest.raises(Rejected):
            ar.lower(ball)
    with pytest.raises(Rejected):
        ar.contract("i,j->ij", over, large).map(lambda a: ar.lower(Ball(a, np.zeros(1))))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("head", HEADS, ids=lambda head: head.__name__)
def test_values_that_inputs_share_hold_what_each_input_has(head, kind):
    g = Built()
    root, inputs = head(g), every()
    for node in (root, g.graph.select(root, 0, g.graph.nodes[root].shape[0] - 1)):
        values = Shared(Prefixes(g.graph, [node]), g.weights, Smooth(kind()), inputs)
        found, alone = values[node], Evaluation(g.graph, g.weights, Real(Float64()), inputs)[node]
        off = np.abs(found.mid - alone.mid) - alone.rad
        lengths = np.sqrt((off.clip(0) ** 2).reshape(len(off), -1).sum(1))
        rad = kind().round(found).rad.reshape(-1)
        assert (lengths <= np.broadcast_to(rad, len(off))).all()
        assert (rad <= 1e-6).all() or head is chosen_by_the_last


def test_entries_of_a_ball_make_a_length():
    ball = Ball(np.zeros((2, 3, 4)), np.full((1, 3, 1), 0.5))
    made = Euclidean().round(ball)
    assert made.rad.size == 2 and made.rad.min() >= 0.5 * 12**0.5 and made.rad.max() <= 0.5001 * 12**0.5
    assert prod(made.mid.shape) == 24 and Euclidean().round(made) is made
