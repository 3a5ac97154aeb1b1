"""Attacks on rule `faces`: which conditions are cones, masses of parts of faces against integrals, shares against known
angles, samples and the rule on whole boxes, and files that say `faces` of what has none."""

import copy
import json
from fractions import Fraction
from itertools import pairwise, product
from math import atan, pi

import mpmath
import numpy as np
import pytest
import torch
from sympy import And, Max, Ne, Or
from torch import nn

from mechverify import Share, box, capture, normal, prove, tokens, uniform
from mechverify.kernel import check
from mechverify.kernel.core import container
from mechverify.kernel.core.counts import Counts
from mechverify.kernel.core.errors import Rejected
from mechverify.kernel.core.float64 import Float64
from mechverify.kernel.core.measure import HALVINGS, Measure, Normal
from mechverify.kernel.relaxation import cones, shares
from mechverify.provers.accuracy.problem import AccuracyProblem
from tests.rounds import few
from tests.soundness import forge
from tests.soundness.test_boxes import accepted, bounds, cut

AR, TOTAL = Float64(), 2**HALVINGS
LEAF = {"rule": "relaxation", "to": 12, "signs": 8}


class Net(nn.Module):
    """ReLU layers; the last one is linear. `bias`: of the first hidden neuron alone."""

    def __init__(self, sizes: list[int], seed: int = 0, bias: float | None = None):
        super().__init__()
        torch.manual_seed(seed)
        self.w = nn.ParameterList(nn.Parameter(torch.randn(b, a)) for a, b in pairwise(sizes))
        self.b = (
            None if bias is None else nn.Parameter(torch.tensor([bias] + [0.0] * (sizes[1] - 1), dtype=torch.float64))
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for i, w in enumerate(self.w):
            x = x @ w.T
            x = x if i or self.b is None else x + self.b
            x = torch.relu(x) if i < len(self.w) - 1 else x
        return x


def net(sizes: list[int], seed: int = 0, bias: float | None = None):
    model = Net(sizes, seed, bias).double().eval()
    return model, capture(model, torch.zeros(1, sizes[0], dtype=torch.float64))


def job_of(share: Share):
    return AccuracyProblem.of(share, "real", None).job


def is_cone(condition, x) -> bool:
    job = job_of(Share(condition, over=x))
    try:
        cones.faces(job, job.claim.domain)
    except Rejected as error:
        assert "stays as it is" in str(error)
        return False
    return True


# --- which conditions -------------------------------------------------------------------------------------------------


def test_conditions_that_change_along_a_ray_are_no_cones():
    x = box([-1, -1], [1, 1])
    _, plain = net([2, 3, 2])
    y = plain["output"]
    for condition, cone in (
        (y[0] >= y[1], True), (And(y[0] > x[0], Or(x[1] > 2 * x[0], y[1] > 0)), True),
        (Max(y[0], x[1]) >= x[0], True), (And(x[0] * x[1] > 0, y[0] > y[1]), True), (x[0] ** 2 + x[1] ** 2 > y[0] * x[0], True),
        (y[0] > Fraction(1, 2**60), False), (y[0] >= y[1] + Fraction(1, 10), False), (x[0] * x[1] > y[0], False),
        (x[0] ** 2 > x[1], False), (Or(y[0] > y[1], x[0] > Fraction(1, 2)), False),
        (And(y[0] > y[1], x[0] ** 2 > x[1]), False), (Max(y[0], 1) > x[0], False),
    ):  # fmt: skip
        assert is_cone(condition, x) == cone, condition


@pytest.mark.parametrize(
    ("bias", "cone"), [(0.0, True), (-0.0, True), (1e-300, False), (-(2.0**-40), False), (1.0, False)]
)
def test_a_bias_of_which_anything_is_left_makes_none(bias, cone):
    _, biased = net([2, 3, 2], 0, bias)
    assert is_cone(biased["output"][0] > biased["output"][1], box([-1, -1], [1, 1])) == cone


class Bent(nn.Module):
    def __init__(self, name: str):
        super().__init__()
        self.name = name

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        a, b = x[:, :1], x[:, 1:2]
        return {
            "tanh": lambda: torch.tanh(a), "gelu": lambda: nn.functional.gelu(a), "softplus": lambda: nn.functional.softplus(a),
            "exp": lambda: torch.exp(a) - 1, "softmax": lambda: torch.softmax(x, 1)[:, :1] - 0.5, "sin": lambda: torch.sin(a),
            "abs": lambda: a.abs() - b, "max": lambda: torch.maximum(a, 2 * b) - a.abs(), "largest": lambda: x.max(1, keepdim=True).values - a,
            "sort": lambda: x.sort(1).values[:, :1] + b, "square": lambda: a**2 - 2 * b * a, "cube": lambda: a**3 - b * a * a,
            "mixed": lambda: a**3 - b * a, "zero": lambda: a * torch.zeros(1, dtype=x.dtype) + b, "one": lambda: 0 * a + 1 - b,
            "parts": lambda: torch.cat([a, a * b, torch.ones_like(a)], 1)[:, 1:2],
        }[self.name]()  # fmt: skip


CONES = {"abs", "max", "largest", "sort", "square", "cube", "zero", "parts"}


@pytest.mark.parametrize("name", ["tanh", "gelu", "softplus", "exp", "softmax", "sin", "abs", "max", "largest", "sort", "square",
                                  "cube", "mixed", "zero", "one", "parts"])  # fmt: skip
def test_what_is_taken_for_a_cone_is_one(name):
    """At random inputs and their multiples; and of those that aren't, some sign does change, or might for another model."""
    model = Bent(name).double().eval()
    out = capture(model, torch.zeros(1, 2, dtype=torch.float64))["output"]
    found = is_cone(out[0] > 0, box([-1, -1], [1, 1]))
    points = torch.tensor(np.random.default_rng(0).normal(size=(2_000, 2)))
    signs = torch.stack([torch.sign(model(t * points)) for t in (1, 1e-3, 7, 1e3)])
    assert not found or (signs == signs[0]).all()
    assert found or name not in CONES - {"parts"}
    assert not found or name in CONES


class Gated(nn.Module):
    def __init__(self):
        super().__init__()
        self.gate = nn.Embedding.from_pretrained(torch.tensor([[1.0], [-1.0], [0.25]], dtype=torch.float64))

    def forward(self, ids: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.gate(ids)[:, 0] * x[:, :1]) - x[:, 1:]


def test_tokens_are_told_apart_on_faces_as_elsewhere():
    model = capture(Gated().eval(), torch.zeros(1, 1, dtype=torch.long), torch.zeros(1, 2, dtype=torch.float64))
    ids, out = tokens("t", length=1, vocab=3), model["output"]
    x = box([-8, -8], [8, 8], distribution=normal(0, 1)).with_tokens(ids)
    assert is_cone(And(out[0] > 0, Ne(ids[0], 1)), x) and not is_cone(out[0] > ids[0], x)
    outcome = prove(Share(out[0] > 0, over=x, within="1/100000"))
    low, high = bounds(outcome)
    # x1 < relu(g x0): half of all, and of the half-plane g x0 > 0 an angle of atan g more
    share = (Fraction(3, 2) + Fraction((2 * atan(1) + atan(0.25)) / (2 * pi))) / 3
    assert low - Fraction(1, 10**12) <= share <= high + Fraction(1, 10**12) and high - low <= Fraction(1, 100_000)
    assert "faces" in outcome.theorem.rules


# --- masses -----------------------------------------------------------------------------------------------------------


def round_of(low: list, high: list, deviations: list) -> cones.Round:
    return cones.Round(
        np.array(low, float), np.array(high, float), tuple(Normal(Fraction(0), Fraction(s)) for s in deviations)
    )


def faces_of(measure: Measure) -> list[tuple[np.ndarray, np.ndarray]]:
    found = []
    for c, end in product(range(len(measure.low)), (measure.low, measure.high)):
        if end[c]:
            low, high = measure.low.copy(), measure.high.copy()
            low[c] = high[c] = end[c]
            found.append((low, high))
    return found


ROUND = [
    ([-8, -8], [8, 8], [1, 1]), ([-1, -3], [2, 5], ["1/2", 3]), ([0, -3], [2, 5], [1, 1]), ([0, 0], [2, 5], [1, "1/3"]),
    ([-8, -8, -8], [8, 8, 8], [1, 1, 1]), ([-1, -3, -7], [2, 5, 1], ["1/2", 3, 1]), ([0, -3, 0], [2, 5, 9], [1, 2, "1/7"]),
]  # fmt: skip
FLAT = [([-1], [2]), ([-1, -3], [2, 5]), ([0, -3], [2, 5]), ([-1, -3, -7], [2, 5, 1]), ([-1, 0, -7, -1], [2, 5, 1, 1])]


@pytest.mark.parametrize("which", few(range(len(ROUND)), 4))
def test_parts_of_faces_have_the_mass_of_their_cones(which):
    """Integrals of the density of directions, |z|^-n times the face's distance, in deviations."""
    about = ROUND[which]
    measure, rng = round_of(*about), np.random.default_rng(0)
    n, zeros = len(measure.low), sum(v == 0 for end in about[:2] for v in end)
    whole = 0.0
    for low, high in faces_of(measure):
        whole += float(measure.of(AR, low[None], high[None]).mid[0])
        for width in (1.0, 0.3, 1e-3):
            a = low + (high - low) * rng.uniform(0, 1 - width, n)
            b = np.minimum(np.where(low < high, a + width * (high - low), high), high)
            mass = measure.of(AR, a[None], b[None])
            s = np.array([float(Fraction(v)) for v in about[2]])
            (c,) = np.flatnonzero(low == high)
            distance, ends = abs(low[c] / s[c]), [[a[i] / s[i], b[i] / s[i]] for i in range(n) if i != c]
            with mpmath.workdps(20):
                exact = mpmath.quad(
                    lambda *z, d=distance: d * (d * d + sum(v * v for v in z)) ** (-mpmath.mpf(n) / 2), *ends
                )
                exact *= 2**zeros / ((2 * mpmath.pi) if n == 2 else (4 * mpmath.pi))
            error = float(mass.rad[0]) + 1e-8 * float(exact)
            assert abs(float(exact) - float(mass.mid[0])) <= error and mass.rad[0] < 1e-13
    assert abs(whole - 1) < 1e-13


@pytest.mark.parametrize("about", FLAT)
def test_parts_of_faces_have_the_volume_of_their_pyramids(about):
    low, high = (np.array(end, float) for end in about)
    measure, rng, total = cones.Flat(low, high, (None,) * len(low)), np.random.default_rng(0), Fraction(0)
    points = rng.uniform(low, high, (200_000, len(low)))
    for first, last in faces_of(measure):
        mass = measure.of(AR, first[None], last[None])
        (c,) = np.flatnonzero(first == last)
        exact = abs(Fraction(first[c])) / Fraction(high[c] - low[c]) / len(low)
        assert abs(Fraction(float(mass.mid[0])) - exact) <= Fraction(float(mass.rad[0])) < Fraction(1, 2**48)
        total += exact
        a = np.where(first < last, rng.uniform(first, (first + last) / 2), first)
        b = np.where(first < last, rng.uniform((first + last) / 2, last), first)
        mass = float(measure.of(AR, a[None], b[None]).mid[0])
        with np.errstate(divide="ignore", invalid="ignore"):
            at = points * (first[c] / points[:, [c]])
        at[:, c] = first[c]
        inside = (points[:, c] * first[c] > 0) & (at >= a).all(1) & (at <= b).all(1)
        assert abs(inside.mean() - mass) < 5 / len(points) ** 0.5
    assert total == 1


@pytest.mark.parametrize("about", ROUND)
def test_a_coordinate_of_a_face_is_as_far_as_its_mass_within_the_bow(about):
    """One coordinate after another: of the first, how much lies before it; of the second, how much where the first is."""
    measure, rng = round_of(*about), np.random.default_rng(1)
    n, s, tried = len(measure.low), np.array([float(Fraction(v)) for v in about[2]]), 0
    for low, high in faces_of(measure):
        (fixed,) = np.flatnonzero(low == high)
        free = [i for i in range(n) if i != fixed]
        for width in (0.02, 0.1, 0.3):
            a = np.where(low < high, low + (high - low) * rng.uniform(0, 1 - width, n), low)
            b = np.where(low < high, a + width * (high - low), low)
            least, most = measure.bow(AR, a[None], b[None])
            along = (np.arange(64) + 0.5) / 64
            z = [np.array([low[fixed] / s[fixed]])] + [(a[i] + (b[i] - a[i]) * along) / s[i] for i in free]
            square = sum(np.expand_dims(v * v, [k for k in range(n) if k != j]) for j, v in enumerate(z))
            density = (square ** (-n / 2))[0]
            for axis, i in enumerate(free):
                # up to points between samples; the coordinates before it are known, those after it are summed up
                rows = density.sum(tuple(range(axis + 1, n - 1))).reshape(-1, 64)
                below = rows.cumsum(1) / rows.sum(1, keepdims=True)
                t = (np.arange(64) + 1) / 64
                assert (least[0, i] - 1e-3 <= (t - below).min()) and ((t - below).max() <= most[0, i] + 1e-3)
                tried += most[0, i] - least[0, i] < 0.5
    assert tried > 2


# --- shares -----------------------------------------------------------------------------------------------------------

PLAIN2, PLAIN3 = net([2, 2, 1])[1], net([3, 2, 1])[1]
TINY = Fraction(1, 10**9)


def told(share: Share, by: str = "faces") -> tuple[Fraction, Fraction]:
    outcome = prove(share)
    assert by in outcome.theorem.rules
    return bounds(outcome)


@pytest.mark.parametrize("strict", [True, False])
def test_known_angles_lie_between_the_bounds(strict):
    def above(a, b):
        return a > b if strict else a >= b

    x, y = box([-8, -8], [8, 8], distribution=normal(0, 1)), PLAIN2["output"][0]
    for condition, share in (
        (And(above(x[0], 0), above(x[1], 0)), 0.25), (And(above(x[0], x[1]), above(x[1], 0)), 0.125),
        (above(Max(x[0], -x[0]), 2 * x[1]), 0.5 + 2 * atan(0.5) / (2 * pi)),
    ):  # fmt: skip
        low, high = told(Share(Or(condition, And(condition, above(y, x[0]))), over=x, within="1/1000000"))
        assert low - TINY <= Fraction(share) <= high + TINY and high - low <= Fraction(1, 10**6)


def test_known_solid_angles_lie_between_the_bounds():
    y = PLAIN3["output"][0]
    for deviations, share in (([1, 1, 1], 1 / 8), ([1, 2, 5], 1 / 8)):
        x = box([-40, -40, -40], [40, 40, 41], distribution=[normal(0, s) for s in deviations])
        condition = And(x[0] > 0, x[1] > 0, x[2] > 0)
        low, high = told(Share(Or(condition, And(condition, y > x[0])), over=x, within="1/10000"))
        assert low <= Fraction(share) <= high <= low + Fraction(1, 10_000)
    x = box([-8] * 3, [8] * 3, distribution=normal(0, 1))
    order = And(x[0] > x[1], x[1] > x[2])
    low, high = told(Share(Or(order, And(order, y > x[0])), over=x, within="1/1000"))
    assert low <= Fraction(1, 6) <= high <= low + Fraction(1, 1000)


def test_deviations_turn_angles():
    y = PLAIN2["output"][0]
    x = box([-16, -8], [16, 8], distribution=[normal(0, 2), normal(0, 1)])
    condition = And(x[0] > x[1], x[1] > 0)
    low, high = told(Share(Or(condition, And(condition, y > x[0])), over=x, within="1/1000000"))
    share = Fraction(atan(2) / (2 * pi))
    assert low - TINY <= share <= high + TINY


def test_volumes_of_boxes_that_are_no_cubes():
    y = PLAIN2["output"][0]
    for low, high, share in (
        ([-1, -2], [3, 5], Fraction(9, 2) / 28), ([0, 0], [1, 1], Fraction(1, 2)), ([0, -1], [2, 1], Fraction(3, 2) / 4),
    ):  # fmt: skip
        x = box(low, high)
        condition = And(x[0] > x[1], x[1] > 0)
        least, most = told(Share(Or(condition, And(condition, y > x[0])), over=x, within="1/1000000"))
        assert least <= share <= most <= least + Fraction(1, 10**6)


def says(y, x):
    return Or(And(y[0] > y[1], x[0] > x[1]), y[1] > 2 * x[0])


def holds(model: nn.Module, x: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        y = model(torch.from_numpy(x)).numpy()
    return ((y[:, 0] > y[:, 1]) & (x[:, 0] > x[:, 1])) | (y[:, 1] > 2 * x[:, 0])


@pytest.mark.parametrize("n", [2, 3])
@pytest.mark.parametrize("seed", few(range(3), 1))
def test_gaussian_shares_hold_what_samples_find(n, seed):
    model, captured = net([n, 4, 3, 2], seed)
    s = [Fraction(1), Fraction(1, 2), Fraction(3)][:n]
    x = box([-30] * n, [30] * n, distribution=[normal(0, v) for v in s])
    low, high = told(Share(says(captured["output"], x), over=x, within="1/500"))
    drawn = np.random.default_rng(seed).normal(size=(2_000_000, n)) * np.array([float(v) for v in s])
    share = holds(model, drawn).mean()
    assert low - Fraction(2, 1000) <= share <= high + Fraction(2, 1000) and high - low <= Fraction(1, 500)
    assert float(low) - 5 / 2_000_000**0.5 <= share <= float(high) + 5 / 2_000_000**0.5


@pytest.mark.parametrize("n", [2, 3, 4])
@pytest.mark.parametrize("seed", range(2))
def test_uniform_shares_hold_what_samples_find_and_what_whole_boxes_tell(n, seed):
    model, captured = net([n, 3, 2], seed)
    low, high = [-1, -3, 0, -2][:n], [2, 1, 4, 2][:n]
    x = box(low, high)
    share = Share(says(captured["output"], x), over=x, within="1/100")
    least, most = told(share)
    drawn = np.random.default_rng(seed).uniform(low, high, (2_000_000, n))
    sampled = holds(model, drawn).mean()
    assert float(least) - 5 / 2_000_000**0.5 <= sampled <= float(most) + 5 / 2_000_000**0.5
    job = job_of(share)
    (whole,) = shares.counts(job, [job.claim.domain], np.array([14]), np.array([8]))
    assert whole.low <= most * TOTAL and least * TOTAL <= whole.high


@pytest.mark.parametrize("seed", few(range(3), 1))
def test_every_face_and_part_of_it_holds_what_samples_find(seed):
    """Also where the parts' bounds are wide, with any number of signs told apart."""
    model, captured = net([3, 4, 3, 2], seed)
    x = box([-2, -1, -3], [1, 2, 1], distribution=normal(0, 1))
    job = job_of(Share(says(captured["output"], x), over=x))
    about, domains = cones.faces(job, job.claim.domain)
    drawn = np.random.default_rng(seed).normal(size=(1_000_000, 3))
    right = holds(model, drawn)
    scale = np.max(np.where(drawn > 0, drawn / np.array(x.high[0], float), drawn / np.array(x.low[0], float)), 1)
    on_box = drawn / scale[:, None]
    for face in domains:
        (fixed,) = np.flatnonzero(face.low == face.high)
        c = (fixed + 1) % 3
        for part in (face, *face.cut(c, 0.25)):
            inside = (
                np.isclose(on_box[:, fixed], face.low[fixed])
                & (on_box[:, c] >= part.low[c])
                & (on_box[:, c] <= part.high[c])
            )
            for to, signs in ((4, 0), (9, 2), (14, 8)):
                (found,) = shares.counts(about, [part], np.array([to]), np.array([signs]))
                share = (right & inside).mean()
                assert found.low / TOTAL - 0.003 <= share <= found.high / TOTAL + 0.003
                assert found.high / TOTAL <= inside.mean() + 0.003


# --- mass beyond the box ----------------------------------------------------------------------------------------------


def test_what_lies_beyond_the_box_counts_for_neither():
    x = box([-1, -2], [1, 2], distribution=normal(0, 1))
    job = job_of(Share(PLAIN2["output"][0] > x[0], over=x))
    inside = float(job.once(cones.within))
    assert abs(inside - float(mpmath.erf(1 / mpmath.sqrt(2)) * mpmath.erf(2 / mpmath.sqrt(2)))) < 1e-12
    for low, high in ((0, TOTAL), (TOTAL // 2, TOTAL // 2), (TOTAL, TOTAL), (0, 0), (TOTAL // 3, 2 * TOTAL // 3)):
        found = cones.of_box(job, job.claim.domain, Counts(low, high))
        assert found.low <= max(0, TOTAL - (TOTAL - low) / inside) + 2**10
        assert found.high >= min(TOTAL, high / inside) - 2**10
        assert 0 <= found.low <= found.high <= TOTAL


def test_a_narrow_box_is_told_of_as_far_as_its_cone_tells():
    """What is right has another share of the box than of the cone: by the cone's alone, the bounds would not hold it."""
    captured = net([2, 2, 1])[1]
    x = box([-1, "-1/8"], [1, "1/8"], distribution=normal(0, 1))
    share = Share(And(x[0] > 4 * x[1], x[0] > -4 * x[1], captured["output"][0] > -10000 * x[0]), over=x)
    document, weights = file_of(share)
    whole = [int(document["conclusion"][name]) for name in ("right_at_least", "right_at_most")]
    document["proof"] = {"rule": "faces", "faces": [LEAF] * 4}
    job = job_of(share)
    about, domains = cones.faces(job, job.claim.domain)
    found = shares.counts(about, domains, np.full(4, 14), np.full(4, 4))
    cone = Counts(sum(k.low for k in found), sum(k.high for k in found))
    assert cone.high < whole[0]  # the box has more of it
    document["conclusion"] |= {"right_at_least": str(cone.low), "right_at_most": str(cone.high)}
    assert not accepted(document, weights)
    of_box = cones.of_box(job, job.claim.domain, cone)
    assert of_box.low <= whole[0] and whole[1] <= of_box.high
    document["conclusion"] |= {"right_at_least": str(of_box.low // 2), "right_at_most": str(TOTAL)}
    assert accepted(document, weights)


# --- files ------------------------------------------------------------------------------------------------------------


def file_of(share: Share) -> tuple[dict, bytes]:
    outcome = prove(share)
    contents = container.unpack(outcome.certificate)
    document = json.loads(contents["certificate.json"])
    return document | {"cost": None}, contents["weights.safetensors"]


def free(document: dict) -> dict:
    document = copy.deepcopy(document)
    document["conclusion"] = {"verdict": "BOUNDED", "right_at_least": "0", "right_at_most": str(TOTAL)}
    return document


CAPTURED = net([2, 3, 2])[1]


def proved(distribution=None, at_least=None, low=-8, high=8) -> tuple[dict, bytes]:
    x = box([low] * 2, [high] * 2, distribution=normal(0, 1) if distribution is None else distribution)
    return file_of(Share(says(CAPTURED["output"], x), over=x, within="1/1000", at_least=at_least))


def test_what_a_proof_may_say_of_faces():
    document, weights = proved()
    assert document["proof"]["rule"] == "faces" and accepted(document, weights)
    document = free(document)

    def faces(*proofs, **more):
        return {"rule": "faces", "faces": list(proofs), **more}

    # the first two faces are where x[0] is a point: there x[1] may be cut, and elsewhere x[0]
    four, opened = [LEAF] * 4, {"rule": "open"}
    for proof, allowed in (
        (faces(*four), True), (faces(LEAF, opened, cut(1, 0.5), LEAF), False), (faces(cut(1, 0.5), LEAF, LEAF, opened), True),
        (faces(LEAF, LEAF, LEAF), False), (faces(*four, LEAF), False), (faces(), False), (faces(*four, sides=4), False),
        (cut(0, 0, faces(*four), LEAF), False), (cut(0, 0, faces(LEAF, opened, opened, opened), opened), False), (faces(faces(*four), LEAF, LEAF, LEAF), False),
        (faces(cut(0, 0), LEAF, LEAF, LEAF), False), (faces(cut(0, -8), LEAF, LEAF, LEAF), False),
        (faces(LEAF, cut(1, 8), LEAF, LEAF), False), (faces({"rule": "enumerate"}, LEAF, LEAF, LEAF), False),
        ({"rule": "both", "first": faces(*four), "second": cut(0, 0)}, True),
        (faces({"rule": "both", "first": LEAF, "second": cut(1, 0)}, LEAF, LEAF, LEAF), True),
    ):  # fmt: skip
        assert accepted(document | {"proof": proof}, weights) == allowed, proof


@pytest.mark.parametrize("distribution", [None, normal(0, 1)])
def test_exact_arithmetic_tells_no_masses(distribution):
    """With `--exact` it is refused in words, whatever the proof."""
    x = box([-8, -8], [8, 8], distribution=distribution)
    document, weights = file_of(Share(says(CAPTURED["output"], x), over=x, within="1/2"))
    opened = {"rule": "open"}
    for proof in (opened, cut(0, 0.5, opened, opened), {"rule": "faces", "faces": [opened] * 4}, LEAF):
        data = forge.file(free(document) | {"proof": proof}, weights)
        check(data)
        with pytest.raises(Rejected, match="float64"):
            check(data, exact=True)


def test_claims_that_have_no_faces():
    """Each certificate has a proof by faces, which holds of the claim as it was, and not of the one with this change."""
    document, weights = proved()
    document = free(document)
    assert accepted(document, weights)
    for change in (
        lambda c: c["measure"].__setitem__(0, ["1/1000", "1/1"]), lambda c: c["measure"].__setitem__(1, None),
        lambda c: c["domain"]["inputs"][0][1].__setitem__(0, (0.5).hex()),
        lambda c: c["domain"]["inputs"][0][2].__setitem__(1, (-0.5).hex()),
        lambda c: c["domain"]["inputs"][0][1].__setitem__(0, (8.0).hex()),
    ):  # fmt: skip
        doc = copy.deepcopy(document)
        change(doc["claim"])
        assert not accepted(doc, weights)
    for change in (
        lambda c: c["measure"].__setitem__(0, ["0/1", "1/2"]),
        lambda c: c.__setitem__("measure", [None, None]),
    ):
        doc = copy.deepcopy(document)
        change(doc["claim"])
        assert accepted(doc, weights)


def test_a_model_with_a_tiny_bias_has_no_faces():
    x = box([-8, -8], [8, 8], distribution=normal(0, 1))
    for bias in (1e-12, 5e-324):
        biased = net([2, 3, 2], 0, bias)[1]
        document, weights = file_of(Share(says(biased["output"], x), over=x, within="1/10"))
        assert document["proof"]["rule"] != "faces"
        doc = free(document) | {"proof": {"rule": "faces", "faces": [LEAF] * 4}}
        assert not accepted(doc, weights)


@pytest.mark.parametrize("distribution", [normal(0, 1), uniform])
def test_planted_false_claims_are_not_proved(distribution):
    document, weights = proved(distribution)
    assert document["proof"]["rule"] == "faces"
    low, high = (int(document["conclusion"][name]) for name in ("right_at_least", "right_at_most"))
    slack = 2 ** (HALVINGS - 30)
    for change in ({"right_at_least": low + slack}, {"right_at_most": high - slack}, {"right_at_least": high},
                   {"right_at_most": low}):  # fmt: skip
        doc = copy.deepcopy(document)
        doc["conclusion"] |= {name: str(value) for name, value in change.items()}
        assert not accepted(doc, weights)
    doc = copy.deepcopy(document)
    doc["proof"]["faces"][0] = {"rule": "open"}
    assert not accepted(doc, weights)
    middle = Fraction(low + high, 2 * TOTAL)
    assert proved(distribution, middle - Fraction(1, 500))[0]["conclusion"]["verdict"] == "PROVED"
    assert proved(distribution, middle + Fraction(1, 500))[0]["conclusion"]["verdict"] == "REFUTED"


def test_the_share_of_another_distribution_is_not_proved():
    """What faces tell of one, they don't of another."""
    document, weights = proved()
    for measure in (["0/1", "1/3"], ["0/1", "5/1"]):
        doc = copy.deepcopy(document)
        doc["claim"]["measure"][0] = measure
        assert not accepted(doc, weights)
    assert check(forge.file(document, weights)).rules["faces"] == 1
