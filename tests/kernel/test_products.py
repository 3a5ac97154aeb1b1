"""Contractions by matrix multiplication: exact rationals in every ball, and the same bits however they are computed."""

import itertools
from fractions import Fraction

import numpy as np
import pytest

from mechverify.kernel.core import float64, products
from mechverify.kernel.core.arithmetic import Arithmetic, Ball
from mechverify.kernel.core.errors import Rejected
from mechverify.kernel.core.float64 import Float64
from mechverify.kernel.core.products import Factor, Rows, bits, check_matmul, product, raised, sliced
from tests.kernel.test_arithmetic import SPECS, contracted, holds

SPREADS = ((-1, 1), (-30, 30), (-540, 500), (-1074, -1020), (900, 1020), (-1000, 1000))


@pytest.fixture(autouse=True)
def quiet():
    with np.errstate(all="ignore"):
        yield


@pytest.fixture
def always(monkeypatch):
    """Also what is so small that it would be added up term by term."""
    monkeypatch.setattr(float64, "LEAST", 0)
    monkeypatch.setattr(float64, "LARGE", 0)


def numbers(rng: np.random.Generator, shape: tuple[int, ...], integers: bool = False) -> np.ndarray:
    """Awkward ones: far apart within a row, subnormal, zeros, ties of the slices."""
    low, high = SPREADS[rng.integers(len(SPREADS))]
    mantissa = rng.choice([1.0, 1.5, 1 + 2.0**-52, 2 - 2.0**-52, 1 / 3, rng.normal()], shape)
    values = mantissa * rng.choice([-1.0, 1.0], shape) * 2.0 ** rng.integers(low, high, shape, endpoint=True)
    return np.where(rng.random(shape) < rng.choice([0.0, 0.3, 0.9]), 0.0, values)


def slices(rows: Rows) -> list[np.ndarray]:
    """The integers."""
    unit = np.where(rows.unit > 0, rows.unit, 1.0)
    parts = [np.ldexp(p / unit, rows.step * k) for k, p in enumerate(np.split(rows.slices, rows.many, -1))]
    assert all((p == np.rint(p)).all() and (np.abs(p) <= 2.0 ** (rows.step - 1)).all() for p in parts)
    return parts


def multiplied(x: Ball, y: Ball) -> tuple[np.ndarray, np.ndarray]:
    mid, rad, *room = np.full((4, len(x.mid), len(y.mid)), np.nan)
    Factor(x.mid, x.rad, 1).times(Factor(y.mid, y.rad, -1), mid, rad, np.array(room))
    return mid, rad


def balls(rng: np.random.Generator, *shapes: tuple[int, ...]) -> list[Ball]:
    found = []
    for shape in shapes:
        mid = numbers(rng, shape)
        rad = np.abs(mid * rng.choice([0.0, 2.0**-50, 3.0], shape) if rng.random() < 0.5 else numbers(rng, shape))
        found.append(Ball(mid, rad * rng.integers(2)))
    return found


@pytest.mark.parametrize("spec", SPECS)
def test_hostile_sums_are_enclosed(spec, always):
    rng = np.random.default_rng(2)
    for _ in range(60):
        x, y = balls(rng, *SPECS[spec])
        assert holds(Float64(), Float64().contract(spec, x, y), contracted(spec, x, y))


def test_cancellation_leaves_a_small_radius(always):
    """x . y - x . y: the sum is zero, and so is its ball, to within far less than the products."""
    rng = np.random.default_rng(3)
    x, y = rng.normal(size=(2, 1, 40))
    both = Float64().contract(
        "i,i->", *(Ball(np.concatenate([a, b], 1), np.zeros((1, 1))) for a, b in ((x, x), (y, -y)))
    )
    assert both.mid[0] == 0 and 0 < both.rad[0] <= 1e-18
    for a, b in rng.normal(size=(200, 2)):  # what the rounding of a b leaves
        x, y = (Ball(np.array([v]), np.zeros((1, 1))) for v in ([a, 1.0], [b, -a * b]))
        assert holds(Float64(), Float64().contract("i,i->", x, y), contracted("i,i->", x, y))


@pytest.mark.parametrize("n", [1, 2, 3, 1000, 2**16, 2**18 + 1])
def test_no_sum_of_slices_exceeds_two_to_53(n):
    """Full slices: the largest sums there are, compared with those of Python's integers. The last one is odd."""
    top = 2 ** bits(n)
    assert products.SLICES * n * top**2 <= 2**53 < products.SLICES * n * (2 * top) ** 2 * 4
    x = np.full((1, n), (2.0 ** (bits(n) * 2 + 2) - 1) / 2.0 ** (bits(n) * 2 + 2))
    (rows, near), (turned, _) = sliced(x, 1), sliced(x, -1)
    parts = slices(rows)
    assert (np.abs(parts) <= top).all() and (near == x).all()
    whole = [int(v) for v in np.concatenate(parts, -1)[0]]
    for parts in itertools.product(range(rows.many), repeat=2):
        a, b = (whole[p * n : (p + 1) * n] for p in parts)
        assert products.SLICES * sum(abs(p * q) for p, q in zip(a, b, strict=True)) <= 2**53
    total, off = multiplied(Ball(x, 0 * x), Ball(x, 0 * x))
    assert total[0, 0] == product(rows, turned, *np.empty((2, 1, 1)))[0, 0]
    assert abs(Fraction(total[0, 0]) - n * Fraction(x[0, 0]) ** 2) <= Fraction(total[0, 0]) / 2**53 + Fraction(
        off[0, 0]
    )


def test_slices_add_up_to_the_row():
    rng = np.random.default_rng(4)
    for _ in range(200):
        a = numbers(rng, (3, 7))
        rows, near = sliced(a, 1)
        parts = slices(rows)
        for i, j in np.ndindex(a.shape):
            exponent = int(rows.apart[i, 0]) + int(np.frexp(rows.unit[i, 0])[1]) - 1
            exact = sum(Fraction(p[i, j]) * Fraction(2) ** (exponent - k * rows.step) for k, p in enumerate(parts))
            assert exact == Fraction(near[i, j])
            top = Fraction(float(np.abs(a[i]).max()))
            assert abs(exact - Fraction(a[i, j])) <= top / 2 ** (3 * rows.step - 2)


def test_raised_rows_are_at_least_the_numbers_and_not_by_much():
    rng = np.random.default_rng(5)
    for _ in range(200):
        a = np.abs(numbers(rng, (3, 7)))
        rows = raised(a, 1)
        parts = slices(rows)
        for i, j in np.ndindex(a.shape):
            exponent = int(rows.apart[i, 0]) + int(np.frexp(rows.unit[i, 0])[1]) - 1
            above = sum(Fraction(p[i, j]) * Fraction(2) ** (exponent - k * rows.step) for k, p in enumerate(parts))
            least = Fraction(2) ** (exponent - rows.step)  # of the second slice
            assert Fraction(a[i, j]) <= above <= 2 * Fraction(a[i, j]) + least * (a[i, j] > 0)


def test_what_is_not_finite_spoils_its_own_sums_only(always):
    rng = np.random.default_rng(6)
    for bad, field in itertools.product((np.nan, np.inf, -np.inf), (0, 1)):
        x, y = (Ball(rng.normal(size=(1, 5, 40)), np.full((1, 5, 40), 1e-3)) for _ in range(2))
        good = Float64().contract("ik,jk->ij", x, y)
        spoilt = [Ball(*(a.copy() for a in z[:2])) for z in (x, y)]
        spoilt[0][field][0, 1, 7] = spoilt[1][field][0, 3, 0] = abs(bad) if field else bad
        spoilt[1].mid[0, 0, 7] = 0.0  # 0 inf is no number
        other = Float64().contract("ik,jk->ij", *spoilt)
        hit = np.zeros((1, 5, 5), bool)
        hit[:, 1], hit[:, :, 3] = True, True
        assert not (np.isfinite(other.mid) & np.isfinite(other.rad))[hit].any()
        assert np.isfinite(other.mid)[hit].any() == bool(field)  # a centre without its radius may be finite
        hit[:, :, 0] = True  # y changed there
        assert all((a == b)[~hit].all() for a, b in zip(good[:2], other[:2], strict=True))
        assert np.isfinite(other.rad[0, 0, 0])


@pytest.mark.parametrize(("spec", "shapes"), [
    ("k,kn->n", ((9, 40), (1, 40, 16))), ("nk,k->n", ((1, 16, 40), (9, 40))), ("k,kn->n", ((9, 40), (9, 40, 16))),
    ("hk,hkn->hn", ((9, 2, 40), (9, 2, 40, 16))),
])  # fmt: skip
def test_a_cell_does_not_depend_on_the_cells_beside_it(spec, shapes, monkeypatch):
    """However they are batched: alone, all at once, in blocks; numbers that need more slices beside those that don't."""
    rng = np.random.default_rng(7)
    for _ in range(20):
        x, y = balls(rng, *shapes)
        whole = Float64().contract(spec, x, y)
        assert all(np.asarray(a).tobytes() != b"" for a in whole[:2])
        monkeypatch.setattr(products, "CACHED", int(rng.choice([1, 100, 2**17])))
        for at in (*range(9), slice(2, 5)):
            at = slice(at, at + 1) if isinstance(at, int) else at
            cell = Float64().contract(spec, *(z.map(lambda a: a[at] if len(a) > 1 else a) for z in (x, y)))
            for a, b in zip(whole[:2], cell[:2], strict=True):
                assert np.ascontiguousarray(a[at]).tobytes() == np.ascontiguousarray(b).tobytes()


def test_any_order_of_summation_gives_the_same_bits():
    """A matmul of single sums, in any order of the terms, as another machine's might add them."""
    rng = np.random.default_rng(8)
    x, y = rng.normal(size=(2, 20, 200)) * 2.0 ** rng.integers(-20, 20, (2, 20, 200))
    order = rng.permutation(200)
    total = multiplied(Ball(x, np.abs(x) / 9), Ball(y, np.abs(y) / 7))
    x, y = x[:, order], y[:, order]
    again = multiplied(Ball(x, np.abs(x) / 9), Ball(y, np.abs(y) / 7))
    assert [a.tobytes() for a in total] == [a.tobytes() for a in again]


def test_balls_are_hardly_wider_than_those_of_sums_term_by_term():
    rng = np.random.default_rng(9)
    for wide in itertools.product((0.0, 1e-12, 1e-3, 3.0), repeat=2):
        x, y = (Ball(a, np.abs(rng.normal(size=a.shape)) * w)
                for a, w in zip(rng.normal(size=(2, 1, 60, 128)), wide, strict=True))  # fmt: skip
        fast, slow = Float64().contract("ik,jk->ij", x, y), Arithmetic.contract(Float64(), "ik,jk->ij", x, y)
        assert (fast.rad <= 1.001 * slow.rad).all()
        assert (np.abs(fast.mid - slow.mid) <= slow.rad).all()


def test_digits_far_below_a_rows_radius_are_left_out():
    """A row's radius alone says so, and its ball holds what it stands for all the same."""
    rng = np.random.default_rng(11)
    a = rng.normal(size=(3, 40))
    rad = np.array([[0.0], [1e-6], [1e-15]]) * np.ones((3, 40))
    rows, near = sliced(a, 1, rad)
    assert rows.many == 3
    assert (near[[0, 2]] == a[[0, 2]]).all() and (near[1] != a[1]).any() and (np.abs(near - a)[1] < 1e-6 / 2**10).all()
    for i in range(3):
        alone, one = sliced(a[i : i + 1], 1, rad[i : i + 1])
        assert (one == near[i]).all() and alone.many == (2 if i == 1 else 3)
    tiny = np.array([[1.0] + [2.0**-1074] * 39])  # what is left of it underflows
    assert (sliced(np.concatenate([tiny, a[:1]]), 1, np.array([[0.0], [1.0]]) * np.ones((2, 40)))[0].slices[0, :40]
            == sliced(tiny, 1)[0].slices[0, :40]).all()  # fmt: skip
    x, y = Ball(a[None], rad[None]), Ball(rng.normal(size=(1, 40, 16)), np.zeros((1, 40, 16)))
    assert holds(Float64(), Float64().contract("ik,kj->ij", x, y), contracted("ik,kj->ij", x, y))


def test_a_sum_without_terms_is_zero(always):
    empty = Ball(np.zeros((1, 2, 0)), np.zeros((1, 2, 0)))
    result = Float64().contract("ik,jk->ij", empty, empty)
    assert result.mid.shape == (1, 2, 2) and not result.mid.any()


def test_a_matmul_that_rounds_is_refused():
    check_matmul()
    with pytest.raises(Rejected, match="not exact"):
        check_matmul(lambda a, b: (a.astype(np.float32) @ b.astype(np.float32)).astype(float))
    with pytest.raises(Rejected, match="not exact"):  # one part in 2^53
        check_matmul(lambda a, b: np.nextafter(a @ b, np.inf))
