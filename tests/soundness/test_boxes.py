"""Attacks on shares of boxes: half-spaces and masses against exact ones, whole proofs against known answers, and files
that claim more than is true."""

import copy
import json
from fractions import Fraction
from itertools import product
from math import factorial, prod
from pathlib import Path

import mpmath
import numpy as np
import pytest
import torch
from sympy import And, Eq, Ne, Or
from torch import nn

from mechverify import Share, box, capture, normal, prove, tokens, uniform
from mechverify.claims import ClaimError
from mechverify.kernel import Rejected, check
from mechverify.kernel.core import container
from mechverify.kernel.core.float64 import Float64
from mechverify.kernel.core.measure import HALVINGS, Measure, Normal
from mechverify.kernel.relaxation import halfspaces, shares
from mechverify.report.checked import Checked
from mechverify.report.latex import write_latex
from tests.soundness import forge

AR = Float64()


def volume(constant: Fraction, slopes: list[Fraction]) -> Fraction:
    """Of the unit cube where constant + slopes u >= 0, by inclusion and exclusion over its corners."""
    constant += sum(min(k, 0) for k in slopes)
    steep = [abs(k) for k in slopes if k]
    if not steep:
        return Fraction(constant >= 0)
    n, total = len(steep), Fraction(0)
    for corner in product((0, 1), repeat=n):
        at = constant + sum(k for k, here in zip(steep, corner, strict=True) if here)
        total += (-1) ** (n - sum(corner)) * max(at, Fraction(0)) ** n
    return total / factorial(n) / prod(steep)


@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_a_half_space_is_never_said_to_be_larger_than_it_is(n):
    rng = np.random.default_rng(n)
    for trial in range(60):
        scale = 10.0 ** rng.uniform(-9 if trial % 3 else -1, 2, n)
        slopes = np.where(rng.random(n) < 0.1, 0.0, rng.normal(size=n) * scale)
        low, high = np.minimum(slopes, 0).sum(), np.maximum(slopes, 0).sum()
        constant = -rng.choice([rng.uniform(low, high), low, high, 0.0])
        exact = volume(Fraction(float(constant)), list(map(Fraction, slopes.tolist())))
        (found,) = halfspaces.of_cube(AR, np.array([constant]), slopes[None])
        assert 0 <= found <= exact or (exact == 1 and found == 1)
        if n <= halfspaces.MAIN and np.abs(slopes).max() > 0:
            assert found >= exact - Fraction(1, 10**4), (constant, slopes)


def test_what_is_not_finite_bounds_nothing():
    slopes = np.array([[np.inf, 1.0], [np.nan, 1.0], [1.0, 1.0], [0.0, 0.0], [0.0, 0.0]])
    found = halfspaces.of_cube(AR, np.array([1.0, 1.0, -np.inf, 0.0, 1.0]), slopes)
    assert found.tolist() == [0, 0, 0, 0, 1]


def gaussian(a: float, b: float, normal: Normal) -> mpmath.mpf:
    with mpmath.workdps(60):
        a, b = ((mpmath.mpf(v) - mpmath.mpf(normal.mean.numerator) / normal.mean.denominator)
                / (mpmath.mpf(normal.deviation.numerator) / normal.deviation.denominator) for v in (a, b))  # fmt: skip
        return (mpmath.erf(b / mpmath.sqrt(2)) - mpmath.erf(a / mpmath.sqrt(2))) / 2


@pytest.mark.parametrize("normal", [Normal(Fraction(0), Fraction(1)), Normal(Fraction(1, 3), Fraction(7, 10))])
def test_masses_hold_the_exact_ones(normal):
    rng = np.random.default_rng(0)
    measure = Measure(np.array([-4.0, -1.0]), np.array([3.0, 5.0]), (normal, None))
    low = rng.uniform(measure.low, measure.high, (60, 2))
    high = rng.uniform(low, measure.high)
    mass, whole = measure.of(AR, low, high), gaussian(-4.0, 3.0, normal)
    for m, r, (a, c), (b, d) in zip(mass.mid, mass.rad, low.tolist(), high.tolist(), strict=True):
        with mpmath.workdps(60):
            exact = gaussian(a, b, normal) / whole * (mpmath.mpf(d) - c) / 6
            assert abs(exact - m) <= r <= 1e-13
    assert measure.of(AR, measure.low[None], measure.high[None])[:2] == (1, 0)


def test_the_parts_of_a_coordinate_have_no_more_mass_than_the_whole():
    measure = Measure(np.array([-9.0]), np.array([9.0]), (Normal(Fraction(0), Fraction(1)),))
    at = np.linspace(-9, 9, 200)
    low, high = measure.units(AR, measure.of(AR, at[:-1, None], at[1:, None]))
    assert low.sum() <= 2**HALVINGS <= high.sum()


@pytest.mark.parametrize("normal", [Normal(Fraction(0), Fraction(1)), Normal(Fraction(-1, 3), Fraction(1, 2))])
def test_a_coordinate_is_as_far_as_its_mass_within_the_bow(normal):
    rng = np.random.default_rng(1)
    measure = Measure(np.array([-9.0]), np.array([9.0]), (normal,))
    for width in (1e-3, 0.05, 0.3, 1.0, 4.0):
        low = rng.uniform(-3, 3, (40, 1))
        least, most = measure.bow(AR, low, low + width)
        for a, small, large in zip(low[:, 0].tolist(), least[:, 0], most[:, 0], strict=True):
            b = a + width
            for t in (0.1, 0.3, 0.5, 0.8):
                u = gaussian(a, a + t * (b - a), normal) / gaussian(a, b, normal)
                assert small - 1e-12 <= t - u <= large + 1e-12
    assert (measure.bow(AR, np.array([[1.0]]), np.array([[1.01]]))[1] == 0).all()  # beyond the mean: one side


class Net(nn.Module):
    def __init__(self, rows: list, out: list):
        super().__init__()
        self.w, self.u = nn.Parameter(torch.tensor(rows)), nn.Parameter(torch.tensor(out))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(x @ self.w.T) @ self.u.T


def net(rows: list, out: list):
    return capture(Net(rows, out).double().eval(), torch.zeros(1, len(rows[0]), dtype=torch.float64))


PLAIN = net([[1.0, 0.5], [-1.0, 1.0], [0.25, -1.0]], [[1.0, -1.0, 0.5], [0.5, 1.0, -1.0]])


def bounds(outcome) -> tuple[Fraction, Fraction]:
    theorem = outcome.theorem
    return Fraction(theorem.right.low, theorem.claim.total), Fraction(theorem.right.high, theorem.claim.total)


def test_known_shares_lie_between_the_bounds():
    x, out = box([-1, -1], [1, 1]), PLAIN["output"]
    triangle = And(x[0] + x[1] >= 1, out[0] >= -1000)
    low, high = bounds(prove(Share(triangle, over=x)))
    assert low <= Fraction(1, 8) <= high < low + Fraction(1, 10_000)
    x = box([-4, -4], [4, 4], distribution=normal(0, "1/2"))
    low, high = bounds(prove(Share(And(x[0] + x[1] > 0, out[0] > -1000), over=x)))
    assert low <= Fraction(1, 2) <= high < low + Fraction(1, 10_000)


@pytest.mark.parametrize("distribution", [uniform, normal("1/4", 1), [uniform, normal(0, "1/2")]])
def test_bounds_hold_what_samples_find(distribution):
    x, out = box([-2, -1], [2, 3], distribution=distribution), PLAIN["output"]
    low, high = bounds(prove(Share(Or(And(out[0] >= out[1], x[0] >= x[1]), out[1] >= 1), over=x, within="1/500")))
    assert high - low <= Fraction(1, 500)
    rng, columns = np.random.default_rng(0), []
    for c, each in enumerate(x.distribution):
        a, b = x.low[0][c], x.high[0][c]
        drawn = rng.uniform(a, b, 400_000) if each is None else rng.normal(*map(float, each), 1_600_000)
        columns.append(drawn[(a <= drawn) & (drawn <= b)][:400_000])
    points = np.stack([c[: min(map(len, columns))] for c in columns], 1)
    y = np.maximum(points @ PLAIN.captured.weights["w"].T, 0) @ PLAIN.captured.weights["u"].T
    share = (((y[:, 0] >= y[:, 1]) & (points[:, 0] >= points[:, 1])) | (y[:, 1] >= 1)).mean()
    error = 5 / len(points) ** 0.5
    assert low - error <= share <= high + error


class Extremum(nn.Module):
    """One of the inputs and, `sign` times, how much the first exceeds the second."""

    def __init__(self, own: int, sign: int):
        super().__init__()
        self.own, self.sign = own, sign

    def forward(self, x):
        above = torch.relu(x[:, 0] - x[:, 1])
        return (x[:, self.own] + above if self.sign > 0 else x[:, self.own] - above)[:, None]


@pytest.mark.parametrize("own", [0, 1, 2])
@pytest.mark.parametrize("sign", [1, -1])
def test_only_with_an_operand_of_its_own_it_is_an_extremum(own, sign):
    module = Extremum(own, sign).double().eval()
    x = box([-1, -1, -1], [1, 1, 1])
    out = capture(module, torch.zeros(1, 3, dtype=torch.float64))["output"]
    low, high = bounds(prove(Share(out[0] > 0, over=x, within="1/20"), time_limit=20))
    drawn = torch.from_numpy(np.random.default_rng(0).uniform(-1, 1, (400_000, 3)))
    share = float((module(drawn)[:, 0] > 0).double().mean())
    assert low - 0.005 <= share <= high + 0.005 and high - low <= 0.05


def test_strict_conditions_count_what_is_above_zero():
    dead = net([[1.0, 0.0]], [[1.0]])
    x = box([-1, 0], [1, 1])
    assert bounds(prove(Share(dead["output"][0] >= 0, over=x))) == (1, 1)
    low, high = bounds(prove(Share(dead["output"][0] > 0, over=x)))
    assert low <= Fraction(1, 2) <= high < low + Fraction(1, 10_000)


class Gated(nn.Module):
    def __init__(self):
        super().__init__()
        self.gate = nn.Embedding.from_pretrained(torch.tensor([[1.0], [-1.0], [0.0]], dtype=torch.float64))

    def forward(self, ids: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.gate(ids)[:, 0, 0] * x[:, 0] - x[:, 1])[:, None]


def test_token_sequences_weigh_alike():
    model = capture(Gated().eval(), torch.zeros(1, 1, dtype=torch.long), torch.zeros(1, 2, dtype=torch.float64))
    ids = tokens("t", length=1, vocab=3)
    x = box([-1, -1], [1, 1]).with_tokens(ids)
    low, high = bounds(prove(Share(And(model["output"][0] > 0, Ne(ids[0], 1)), over=x)))
    assert low <= Fraction(1, 3) <= high < low + Fraction(1, 10_000)


class Mixed(nn.Module):
    """Two tokens turn and move what two numbers are compared with."""

    def __init__(self):
        super().__init__()
        self.turn = nn.Embedding.from_pretrained(torch.tensor([[1.0], [-1.0], [0.25]], dtype=torch.float64))
        self.move = nn.Embedding.from_pretrained(torch.tensor([[0.0], [0.5], [-0.75]], dtype=torch.float64))

    def forward(self, ids: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        h = torch.relu(self.turn(ids[:, 0]) * x[:, :1] + self.move(ids[:, 1]) - x[:, 1:])
        return torch.cat([h, 0.5 - h], 1)


MIXED = capture(Mixed().eval(), torch.zeros(1, 2, dtype=torch.long), torch.zeros(1, 2, dtype=torch.float64))


def mixed(within: str = "1/1000"):
    """That the first output is larger, or the tokens are alike and the second number is positive."""
    ids = tokens("t", length=2, vocab=3)
    x = box([-2, -1], [2, 1], distribution=[normal("1/4", 1), uniform])
    out, alike = MIXED["output"], Or(*(And(Eq(ids[0], v), Eq(ids[1], v)) for v in range(3)))
    return prove(Share(Or(out[0] > out[1], And(alike, x[1] > 0)), over=x.with_tokens(ids), within=within))


def test_bounds_hold_what_samples_of_tokens_and_numbers_find():
    low, high = bounds(mixed())
    assert high - low <= Fraction(1, 1_000)
    rng, n = np.random.default_rng(0), 1_000_000
    first = rng.normal(0.25, 1, 2 * n)
    first = first[np.abs(first) <= 2][:n]
    points = np.stack([first, rng.uniform(-1, 1, n)], 1)
    ids = rng.integers(0, 3, (n, 2))
    with torch.no_grad():
        y = Mixed()(torch.from_numpy(ids), torch.from_numpy(points)).numpy()
    share = ((y[:, 0] > y[:, 1]) | ((ids[:, 0] == ids[:, 1]) & (points[:, 1] > 0))).mean()
    assert low - 5 / n**0.5 <= share <= high + 5 / n**0.5


def test_shares_of_tokens_and_numbers_are_of_that_domain_alone():
    """Its bounds don't pass for a domain with a token less, another box or another distribution: what is claimed is
    then another share, which differs by more than the bounds are wide."""
    contents = container.unpack(mixed().certificate)
    document, weights = json.loads(contents["certificate.json"]) | {"cost": None}, contents["weights.safetensors"]
    assert accepted(document, weights)

    def fewer(claim):
        claim["domain"]["tokens"][1] = [0, 1]

    def larger(claim):
        claim["domain"]["inputs"][0][2][1] = (1.25).hex()

    def steeper(claim):
        claim["measure"][0] = ["1/4", "1/2"]

    def flat(claim):
        claim["measure"] = [None, None]

    def off(claim):
        claim["measure"][0] = ["-1/4", "1/1"]

    for change in (fewer, larger, steeper, flat, off):
        doc = copy.deepcopy(document)
        change(doc["claim"])
        assert not accepted(doc, weights), change.__name__
        doc["conclusion"] |= {"right_at_least": "0", "right_at_most": str(9 * 2**HALVINGS)}
        if change is not fewer:  # of a token less, a split has no halves; of the rest, only the numbers are refused
            assert accepted(doc, weights), change.__name__
    total = 9 * 2**HALVINGS
    for end, sign in (("right_at_least", 1), ("right_at_most", -1)):
        doc = copy.deepcopy(document)
        doc["conclusion"][end] = str(int(doc["conclusion"][end]) + sign * total // 10**6)
        assert not accepted(doc, weights), end


def test_a_box_that_would_be_rounded_is_refused():
    x = box(["0.1", 0], [1, 1])
    with pytest.raises(ClaimError, match="no float64"):
        Share(PLAIN["output"][0] >= x[0], over=x)
    with pytest.raises(ClaimError, match="not positive"):
        normal(0, 0)
    with pytest.raises(ClaimError, match="2 coordinates"):
        box([0, 0], [1, 1], distribution=[uniform])


def test_a_gaussian_far_away_is_refused():
    x = box([60, -1], [61, 1], distribution=normal(0, 1))
    outcome = prove(Share(PLAIN["output"][0] >= x[1], over=x))
    assert outcome.verdict == "UNKNOWN" and "less mass" in " ".join(outcome.reasons)


def test_a_box_that_is_too_wide_is_refused():
    x = box([-1.7e308, 0], [1.7e308, 1])
    outcome = prove(Share(PLAIN["output"][0] >= x[0], over=x))
    assert outcome.verdict == "UNKNOWN" and "is more, or has less mass" in " ".join(outcome.reasons)


def test_what_overflows_is_no_matter_of_the_user(recwarn):
    x, out = box([-1e200, 0], [1e200, 1]), PLAIN["output"]
    assert prove(Share(out[0] * out[1] >= x[0] ** 3, over=x), time_limit=2).verdict == "BOUNDED"
    assert not [w for w in recwarn if w.category is RuntimeWarning]


def accepted(document, weights) -> bool:
    try:
        check(forge.file(document, weights))
    except Rejected:
        return False
    return True


def proved(at_least=None, distribution=uniform):
    x, out = box([-1, -1], [1, 1], distribution=distribution), PLAIN["output"]
    outcome = prove(Share(out[0] >= out[1] + x[0], over=x, within="1/100", at_least=at_least))
    contents = container.unpack(outcome.certificate)
    document = json.loads(contents["certificate.json"])
    document["cost"] = None
    return document, contents["weights.safetensors"]


LEAF = {"rule": "relaxation", "to": 8}


def cut(c: int, at: float, inside=LEAF, outside=LEAF):
    return {"rule": "split", "coordinate": c, "at": float(at).hex(), "inside": inside, "outside": outside}


def test_what_a_proof_may_not_say():
    document, weights = proved()
    assert accepted(document, weights)
    total = 2**HALVINGS
    document["conclusion"] |= {"verdict": "BOUNDED", "right_at_least": "0", "right_at_most": str(total)}
    for proof, allowed in (
        (LEAF, True), (cut(0, 0.25), True), ({"rule": "open"}, True),
        (cut(0, 1), False), (cut(0, -1), False), (cut(0, np.nextafter(1, 2)), False), (cut(2, 0), False),
        (cut(0, 0, cut(0, np.nextafter(0, 1))), False), (cut(0, 0, {"rule": "enumerate"}), False),
        ({"rule": "counterexample", "inputs": [[]]}, False), ({"rule": "relaxation", "lines": None}, False),
        ({"rule": "relaxation", "to": shares.FINEST + 1}, False), ({"rule": "relaxation", "to": -1}, False),
        ({"rule": "relaxation", "to": 8, "lines": None}, False),
        ({"rule": "both", "first": LEAF, "second": cut(1, 0)}, True),
    ):  # fmt: skip
        assert accepted({**document, "proof": proof}, weights) == allowed, proof
    at_a_value = {"rule": "split", "node": 0, "entry": 0, "at": "0x0.0p+0", "inside": LEAF, "outside": LEAF}
    with pytest.raises(Rejected, match="nobody knows how much each half is"):
        check(forge.file({**document, "proof": at_a_value}, weights))


def test_a_point_is_not_cut():
    """Both halves would be the whole of it."""
    x = box([-1, 0.5], [1, 0.5])
    contents = container.unpack(prove(Share(PLAIN["output"][0] >= x[0], over=x)).certificate)
    document = json.loads(contents["certificate.json"])
    document["proof"] = cut(1, 0.5)
    document["conclusion"] |= {"right_at_least": "0", "right_at_most": str(2**HALVINGS)}
    assert not accepted(document | {"cost": None}, contents["weights.safetensors"])


@pytest.mark.parametrize("distribution", [uniform, normal(0, "1/2")])
def test_planted_false_claims_are_not_proved(distribution):
    """Each certificate, with one thing in it said larger, is refused."""
    document, weights = proved(distribution=distribution)
    low, high = (int(document["conclusion"][name]) for name in ("right_at_least", "right_at_most"))
    slack = 2 ** (HALVINGS - 30)
    for change in ({"right_at_least": low + slack}, {"right_at_most": high - slack},
                   {"right_at_least": high}, {"right_at_most": low}):  # fmt: skip
        doc = copy.deepcopy(document)
        doc["conclusion"] |= {name: str(value) for name, value in change.items()}
        assert not accepted(doc, weights)
    for share, verdict in (
        (Fraction(high + slack, 2**HALVINGS), "PROVED"),
        (Fraction(low - slack, 2**HALVINGS), "REFUTED"),
    ):
        doc = copy.deepcopy(document)
        doc["claim"]["at_least"] = f"{share.numerator}/{share.denominator}"
        doc["conclusion"]["verdict"] = verdict
        assert not accepted(doc, weights)
    for measure in (
        [None],
        [None, None, None],
        [None, ["0/1", "0/1"]],
        [None, ["0/1", "-1/1"]],
        [["0/1", "1/9"]] * 2,
        None,
    ):
        doc = copy.deepcopy(document)
        doc["claim"]["measure"] = measure
        assert not accepted(doc, weights), measure


def test_verdicts():
    document, _ = proved()
    middle = Fraction(int(document["conclusion"]["right_at_least"]), 2**HALVINGS)
    assert proved(middle - Fraction(1, 50))[0]["conclusion"]["verdict"] == "PROVED"
    assert proved(middle + Fraction(1, 50))[0]["conclusion"]["verdict"] == "REFUTED"


class Sum(nn.Module):
    def __init__(self):
        super().__init__()
        self.value = nn.Embedding.from_pretrained(torch.arange(6.0, dtype=torch.float64)[:, None] - 2)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.value(ids).sum(1))


def test_parts_of_token_sequences_are_judged_by_relaxation():
    model = capture(Sum().eval(), torch.zeros(1, 3, dtype=torch.long))
    ids = tokens("t", length=3, vocab=6)
    outcome = prove(Share(model["output"][0] > 0.5, over=ids))
    right = outcome.theorem.right
    contents = container.unpack(outcome.certificate)
    document = json.loads(contents["certificate.json"]) | {"cost": None}
    low = {"rule": "split", "position": 0, "first": [0, 1, 2, 3], "inside": LEAF, "outside": {
        "rule": "split", "position": 1, "first": [0, 1], "inside": LEAF, "outside": {
            "rule": "split", "position": 2, "first": [0, 1], "inside": LEAF, "outside": LEAF}}}  # fmt: skip
    document["proof"] = low
    document["conclusion"] |= {"right_at_least": "0", "right_at_most": "216"}
    assert accepted(document, contents["weights.safetensors"])
    document["conclusion"] |= {"right_at_least": str(2 * 4 * 4)}  # 4 or 5, 2 to 5, 2 to 5: at least 2
    assert right.low == right.high > 32 and accepted(document, contents["weights.safetensors"])
    document["conclusion"] |= {"right_at_least": "33"}
    assert not accepted(document, contents["weights.safetensors"])


def test_a_table_counts_no_inputs_of_a_box(tmp_path):
    """Units of mass are no inputs."""
    x = box([-1, -1], [1, 1], distribution=[uniform, normal("1/3", 2)])
    found = prove(Share(PLAIN["output"][0] >= x[0], over=x, within="1/10"))
    checked = Checked(Path("box.cert"), found.theorem, 0.0, found.certificate)
    text = write_latex(tmp_path / "table.tex", [checked]).read_text()
    assert "& real & -- &" in text and "\\num{" not in text
