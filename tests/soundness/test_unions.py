"""Attacks on unions of boxes: hand-made proofs against samples and exact masses, and files that say more than is true."""

import copy
import itertools
import json
import math
from fractions import Fraction

import mpmath
import numpy as np
import pytest
import torch
from sympy import And, Ne
from torch import nn

from mechverify import Bounds, Share, ball, box, capture, normal, prove, tokens, union
from mechverify.kernel import Rejected, check
from mechverify.kernel.core import container, masses, unions
from mechverify.kernel.core.claim import Job
from mechverify.kernel.core.domain import Domain
from mechverify.kernel.core.fields import Reader
from mechverify.kernel.core.float64 import Float64
from mechverify.kernel.core.kinds import read_claim
from mechverify.kernel.core.measure import HALVINGS, Measure, Normal
from mechverify.kernel.core.meter import Meter
from mechverify.kernel.proof import prove as proved_by
from mechverify.kernel.statement.sentence import state
from tests.independent.sentence import false_lines
from tests.rounds import ROUNDS, few
from tests.soundness import forge
from tests.soundness.test_boxes import MIXED, PLAIN, Mixed, gaussian

AR = Float64()
LEAF = {"rule": "relaxation", "lines": None}
JUDGED = {"rule": "relaxation", "to": 8, "signs": 3}
TOTAL = 2**HALVINGS


def opened(outcome) -> tuple[dict, bytes]:
    contents = container.unpack(outcome.certificate)
    return json.loads(contents["certificate.json"]) | {"cost": None}, contents["weights.safetensors"]


def y_of(points: np.ndarray) -> np.ndarray:
    return np.maximum(points @ PLAIN.captured.weights["w"].T, 0) @ PLAIN.captured.weights["u"].T


BALLS = [ball([0.5, 0.25], 0.25), ball([-2.0, 1.0], 0.5), ball([0.25, 0.0], 0.5)]  # the first and the last overlap


def bounded(**thresholds) -> tuple[dict, bytes]:
    return opened(prove(Bounds(PLAIN["output"], over=union(*BALLS), **thresholds)))


def cut(c: int, at: float, inside: dict, outside: dict) -> dict:
    return {"rule": "split", "coordinate": c, "at": float(at).hex(), "inside": inside, "outside": outside}


def joined(*parts: dict) -> dict:
    return {"rule": "union", "parts": list(parts)}


def range_of(document: dict, weights: bytes):
    with np.errstate(all="ignore"):
        job = Job(read_claim(Reader(document["claim"], "claim"), weights), Float64())
        return proved_by(job, Reader(document["proof"], "proof"))[0]


def stating(document: dict, low, high, verdict="BOUNDED") -> dict:
    ends = {"low": [float(v).hex() for v in low], "high": [float(v).hex() for v in high]}
    return document | {"conclusion": {"verdict": verdict, **ends}}


# --- ranges -----------------------------------------------------------------------------------------------------------


def drawn_tree(rng: np.random.Generator, part: Domain, boxes: unions.Union, depth: int, inside: bool) -> dict:
    """A random proof of a part: splits above and below unions."""
    kind = rng.integers(0, 4) if depth else 0
    if kind == 1 and len(part.low):
        c = int(rng.integers(len(part.low)))
        at = float(rng.choice([part.low[c], part.high[c], (part.low[c] + part.high[c]) / 2]))
        halves = part.cut(c, at)
        return cut(c, at, *(drawn_tree(rng, h, boxes, depth - 1, inside) for h in halves))
    if kind == 2 and (parts := boxes.parts(part)):
        return joined(*(drawn_tree(rng, p, boxes, depth - 1, True) for p in parts))
    if kind == 3:
        return {"rule": "both", "first": drawn_tree(rng, part, boxes, depth - 1, inside), "second": LEAF}
    return LEAF


@pytest.mark.parametrize("seed", range(ROUNDS))
def test_a_proof_of_a_union_holds_on_all_of_it(seed):
    rng, (document, weights) = np.random.default_rng(seed), bounded()
    low = rng.integers(-12, 12, (int(rng.integers(1, 6)), 2)) / 4
    high = low + rng.integers(0, 9, low.shape) / 4
    claim = document["claim"]
    claim["domain"]["inputs"] = [[[2], [v.hex() for v in low.min(0)], [v.hex() for v in high.max(0)]]]
    claim["union"] = [
        [[v.hex() for v in end] for end in ends] for ends in zip(low.tolist(), high.tolist(), strict=True)
    ]
    hull = Domain((), low.min(0), high.max(0))
    document["proof"] = drawn_tree(rng, hull, unions.Union(low, high), 3, False)
    found = range_of(document, weights)
    which = rng.integers(0, len(low), 2000)
    share = rng.random((2000, 2))
    share[::2] = np.round(share[::2])
    y = y_of(low[which] * (1 - share) + high[which] * share)
    assert (found.low <= y.min(0) + 1e-12).all() and (y.max(0) - 1e-12 <= found.high).all()
    check(forge.file(stating(document, *found), weights))
    for k in range(2):
        for end, beyond in ((0, np.inf), (1, -np.inf)):
            ends = [found.low.copy(), found.high.copy()]
            ends[end][k] = np.nextafter(ends[end][k], beyond)
            with pytest.raises(Rejected, match="tighter"):
                check(forge.file(stating(document, *ends), weights))


def test_only_the_boxes_are_bounded_and_all_of_them():
    document, weights = bounded()
    document["proof"] = joined(LEAF, LEAF, LEAF)
    narrow = range_of(document, weights)
    document["proof"] = LEAF
    wide = range_of(document, weights)
    assert (wide.low < narrow.low).any() and (wide.low <= narrow.low).all() and (wide.high >= narrow.high).all()
    each = []
    for k in range(3):
        one = copy.deepcopy(document)
        one["claim"]["union"] = [one["claim"]["union"][k]]
        one["proof"] = joined(LEAF)
        each.append(range_of(one, weights))
    assert (narrow.low == np.min([r.low for r in each], 0)).all()
    assert (narrow.high == np.max([r.high for r in each], 0)).all()
    for k in range(3):  # a box dropped: its proof is missing, or another claim
        parts = [LEAF] * 2
        with pytest.raises(Rejected, match="3 to 3"):
            check(forge.file(stating(document | {"proof": joined(*parts)}, *narrow), weights))
        one = copy.deepcopy(document) | {"proof": joined(LEAF, LEAF, LEAF)}
        others = [each[i] for i in range(3) if i != k]
        ends = np.min([r.low for r in others], 0), np.max([r.high for r in others], 0)
        if (ends[0] > narrow.low).any() or (ends[1] < narrow.high).any():
            with pytest.raises(Rejected, match="tighter"):
                check(forge.file(stating(one, *ends), weights))


def test_a_box_an_ulp_too_large_is_another_claim():
    """relu(x + y - 1) is zero up to the boxes' corner, and not a step beyond it; a bound is proved a little before it."""
    net = nn.Sequential(nn.Linear(2, 1), nn.ReLU()).double().eval()
    with torch.no_grad():
        net[0].weight.copy_(torch.ones(1, 2))
        net[0].bias.copy_(-torch.ones(1))
    out = capture(net, torch.zeros(1, 2, dtype=torch.float64))["output"]
    first = box([-2.0, -2.0], [-1.0, -1.0])
    for corner in ([0.5, 0.5], [0.25, 0.75]):
        before, beyond = [corner[0], corner[1] - 2.0**-20], [corner[0], math.nextafter(corner[1], 2)]
        document, weights = opened(prove(Bounds(out, over=union(first, box([0.0, 0.0], before)), at_most=0)))
        assert document["conclusion"]["verdict"] == "PROVED"
        false = prove(Bounds(out, over=union(first, box([0.0, 0.0], beyond)), at_most=0), time_limit=5)
        assert false.verdict in ("REFUTED", "UNKNOWN")
        larger = copy.deepcopy(document)
        larger["claim"]["domain"]["inputs"][0][2] = [v.hex() for v in beyond]
        check(forge.file(larger, weights))  # the box around the union says nothing of its own
        larger["claim"]["union"][1][1] = [v.hex() for v in beyond]
        with pytest.raises(Rejected, match="tighter than those proved"):
            check(forge.file(larger, weights))


def test_a_counterexample_lies_in_a_box():
    document, weights = bounded(at_most=-10)
    assert document["conclusion"]["verdict"] == "REFUTED"
    (row,) = document["proof"]["inputs"]
    for x, allowed in (([0.5, 0.25], True), ([0.75, 0.5], True), ([-1.0, 0.5], False), ([0.75, 0.5000001], False)):
        row[1] = [float(v).hex() for v in x]
        if allowed:
            check(forge.file(document, weights))
            continue
        with pytest.raises(Rejected, match="no box"):
            check(forge.file(document, weights))
    document["proof"]["inputs"].append([[], [float(v).hex() for v in (0.5, 0.25)]])
    with pytest.raises(Rejected, match="no box"):  # one of the two is in a box
        check(forge.file(document, weights))
    del document["claim"]["union"]
    check(forge.file(document, weights))


def test_what_is_no_union_is_refused():
    document, weights = bounded()
    document["proof"] = joined(LEAF, LEAF, LEAF)
    document["conclusion"] = {"verdict": "BOUNDED", "low": [None, None], "high": [None, None]}
    check(forge.file(document, weights))
    zero, one, far = (0.0).hex(), (1.0).hex(), (9.0).hex()
    for boxes, words in (
        ([], "list of 1"), ([[[zero, zero], [far, one]]] * 3, "beyond"), ([[[(-9.0).hex(), zero], [zero, one]]] * 3, "beyond"), ([[[one, one], [zero, one]]] * 3, "empty"),
        ([[[zero], [one]]] * 3, "list of 2"), ([[[zero, zero]]] * 3, "list of 2"), ([[["1/3", zero], [one, one]]] * 3, "float64"),
    ):  # fmt: skip
        doc = copy.deepcopy(document)
        doc["claim"]["union"] = boxes
        with pytest.raises(Rejected, match=words):
            check(forge.file(doc, weights))
    for proof, words in (
        (joined(), "3 to 3"), (joined(LEAF, LEAF, LEAF, LEAF), "3 to 3"), ({"rule": "union", "parts": LEAF}, "list"),
        (joined(LEAF, LEAF, LEAF) | {"boxes": 1}, "unknown"), (joined(joined(LEAF), LEAF, LEAF), "2 to 2"),
        (cut(0, -1.4, joined(LEAF), joined(LEAF, LEAF)), None), (cut(0, -1.5, joined(LEAF), joined(LEAF, LEAF)), "3 to 3"),
        (cut(0, -1.0, joined(LEAF), cut(0, -0.5, joined(LEAF), joined(LEAF, LEAF))), "no box"),
    ):  # fmt: skip
        if words is None:
            check(forge.file(document | {"proof": proof}, weights))
            continue
        with pytest.raises(Rejected, match=words):
            check(forge.file(document | {"proof": proof}, weights))
    whole = copy.deepcopy(document)
    del whole["claim"]["union"]
    with pytest.raises(Rejected, match="no union"):
        check(forge.file(whole, weights))
    old = document | {"version": 4, "proof": {"rule": "linear", "lines": None}}
    with pytest.raises(Rejected, match="before version 5"):
        check(forge.file(old, weights))
    del old["claim"]["union"]
    check(forge.file(old, weights))


def test_a_thousand_balls_are_one_search():
    rng = np.random.default_rng(0)
    centres = rng.integers(-64, 64, (1000, 2)) / 16
    over = union([ball(c, 1 / 32) for c in centres])
    y = y_of(centres)
    outcome = prove(Bounds(PLAIN["output"], over=over, at_most=float(y.max()) + 0.5))
    assert outcome.verdict == "PROVED" and outcome.search_seconds < 10
    assert prove(Bounds(PLAIN["output"], over=over, at_most=float(y.max()) + 1e-3)).verdict == "REFUTED"


# --- shares -----------------------------------------------------------------------------------------------------------


def exact_contents(low: np.ndarray, high: np.ndarray, normals) -> list:
    """Of boxes, but for a factor."""
    found = []
    for a, b in zip(low.tolist(), high.tolist(), strict=True):
        size = mpmath.mpf(1)
        for p, q, n in zip(a, b, normals, strict=True):
            size *= (mpmath.mpf(q) - mpmath.mpf(p)) if n is None else gaussian(p, q, n)
        found.append(size)
    return found


def drawn_boxes(rng: np.random.Generator, n: int, size: int, width: float) -> tuple[np.ndarray, np.ndarray]:
    """Disjoint ones: of different cells of a grid, some side by side."""
    cells = np.array([*itertools.product(range(4), repeat=n)])
    some = cells[rng.permutation(len(cells))[:size]]
    return some - 2.0, some - 2.0 + rng.choice([1.0, 0.75, width], (len(some), n))


@pytest.mark.parametrize("seed", range(ROUNDS))
@pytest.mark.parametrize("normals", [(None, None), (Normal(Fraction(1, 3), Fraction(7, 10)), None)])
def test_parts_of_a_union_weigh_what_they_do(normals, seed):
    rng = np.random.default_rng(seed)
    width = (0.75, 2.0**-20)[seed % 2]
    low, high = drawn_boxes(rng, 2, int(rng.integers(1, 9)), width)
    whole = Measure(low.min(0), high.max(0), normals)
    measure = masses.disjoint(Meter(), whole, unions.Union(low, high))
    which = rng.integers(0, len(low), 60)
    a, b = np.sort(rng.random((2, 60, 2)), 0)
    a, b = (low[which] * (1 - t) + high[which] * t for t in (a * (rng.random((60, 1)) < 0.7), b))
    a, b = np.clip(a, low[which], high[which]), np.clip(b, low[which], high[which])
    mass, sizes = measure.of(AR, a, b), exact_contents(low, high, normals)
    assert sum(map(Fraction, measure.share.tolist())) == 1 and (measure.share > 0).all()
    with mpmath.workdps(60):
        true = [size / sum(sizes) for size in sizes]
        apart = sum(abs(s - t) for s, t in zip(measure.share.tolist(), true, strict=True)) * TOTAL
        assert apart <= measure.error < (2**20 if width == 0.75 else 2**40)
        for m, r, i, part in zip(mass.mid, mass.rad, which.tolist(), exact_contents(a, b, normals), strict=True):
            exact = mpmath.mpf(float(measure.share[i])) * part / sizes[i]
            assert abs(exact - m) <= r <= (1e-12 if width == 0.75 else 1e-7)
    units = measure.units(AR, measure.of(AR, low, high))
    assert units[0].sum() == TOTAL == units[1].sum()
    with pytest.raises(Rejected, match="inside one box"):
        measure.of(AR, low.min(0)[None] - 1, high.max(0)[None])


def test_tiny_and_many_dimensional_boxes_have_shares():
    centres = np.random.default_rng(0).integers(-8, 8, (50, 200)) * 4.0
    union_ = unions.Union(centres - 0.125, centres + 0.125)
    whole = Measure(union_.low.min(0), union_.high.max(0), (None,) * 200)
    mass = masses.disjoint(Meter(), whole, union_).of(AR, union_.low, union_.high)
    assert (abs(mass.mid - 1 / 50) <= 50 * 2.0**-53).all() and (mass.rad == 0).all()


def test_no_box_weighs_nothing():
    """Of one whose share is far below 2^-53 something is counted, and what that is too much."""
    low = np.array([[0.0, 0.0], [2.0, 2.0]])
    boxes = unions.Union(low, low + np.array([[1.0], [2.0**-40]]))
    measure = masses.disjoint(Meter(), Measure(boxes.low.min(0), boxes.high.max(0), (None, None)), boxes)
    assert measure.share.min() == 2.0**-53 and sum(map(Fraction, measure.share.tolist())) == 1
    assert 2**8 <= measure.error < 2**12


def test_a_cones_faces_are_not_those_of_a_union():
    boxes = [box([-1.0, -1.0], [1.0, 1.0]), box([2.0, -1.0], [3.0, 1.0])]
    document, weights = opened(prove(Share(PLAIN["output"][0] > PLAIN["output"][1], over=union(*boxes), within="1/20")))
    document["conclusion"] = {"verdict": "BOUNDED", "right_at_least": "0", "right_at_most": str(TOTAL)}
    document["proof"] = {"rule": "faces", "faces": [JUDGED] * 4}
    with pytest.raises(Rejected, match="one box"):
        check(forge.file(document, weights))
    del document["claim"]["union"]
    check(forge.file(document, weights))


@pytest.mark.parametrize(("low", "high", "words"), [
    ([[0, 0], [1, 0]], [[2, 1], [3, 1]], "boxes 0 and 1"),
    ([[0, 0], [5, 5], [5.5, 5.5]], [[1, 1], [6, 6], [7, 7]], "boxes 1 and 2"),
    ([[0, 0], [0, 0]], [[1, 1], [1, 1]], "boxes 0 and 1"),
    ([[0, 0], [2, 0]], [[1, 1], [2, 1]], "point"),
    ([[0, 0]], [[0, 0]], "point"),
])  # fmt: skip
def test_boxes_that_would_count_twice_or_not_at_all_are_refused(low, high, words):
    boxes = unions.Union(np.array(low, float), np.array(high, float))
    with pytest.raises(Rejected, match=words):
        masses.disjoint(Meter(), Measure(boxes.low.min(0), boxes.high.max(0), (None, None)), boxes)


def test_boxes_may_touch_and_share_a_point_coordinate():
    low, high = np.array([[0.0, 3.0], [1.0, 3.0]]), np.array([[1.0, 3.0], [4.0, 3.0]])
    measure = masses.disjoint(Meter(), Measure(low.min(0), high.max(0), (None, None)), unions.Union(low, high))
    mass = measure.of(AR, low, high)
    assert (abs(mass.mid - [0.25, 0.75]) <= 2.0**-52).all() and (mass.rad == 0).all()


APART = [box([0.0, 0.0], [1.0, 1.0]), box([1.0, 0.0], [3.0, 0.5]), box([-2.0, -2.0], [-1.0, 0.0])]


def shared(distribution=None, boxes=APART, condition=None, **options) -> tuple[dict, bytes]:
    boxes = [box(b.low[0], b.high[0], distribution=distribution) for b in boxes] if distribution else boxes
    x = union(*boxes)
    condition = x[0] + 2 * x[1] > 1 if condition is None else condition
    options = {"within": "1/10000"} | options
    return opened(prove(Share(And(condition, PLAIN["output"][0] > -1000), over=x, **options)))


def counted(document: dict) -> tuple[Fraction, Fraction]:
    return tuple(Fraction(int(document["conclusion"][f"right_at_{end}"]), TOTAL) for end in ("least", "most"))


def test_a_known_share_of_a_union_lies_between_the_bounds():
    """Of x + 2 y > 1: 3/4 of the unit square (1/4 missing below the line); all of [1, 3] x [0, 1/2]; none of the last."""
    low, high = counted(shared()[0])
    exact = (Fraction(3, 4) + 1) / (1 + 1 + 2)
    assert low <= exact <= high <= low + Fraction(1, 10_000)
    assert Fraction(1) > high


def test_overlapping_boxes_weigh_once():
    boxes = [box([0.0, 0.0], [2.0, 1.0]), box([1.0, 0.0], [3.0, 1.0]), box([0.0, 0.0], [2.0, 1.0])]
    document, _ = shared(boxes=boxes, condition=PLAIN["output"][0] > -500)
    assert len(document["claim"]["union"]) == 2
    x = union(*boxes)
    low, high = counted(shared(boxes=boxes, condition=x[0] > 1)[0])
    assert low <= Fraction(2, 3) <= high <= low + Fraction(1, 10_000)  # and not 3/6 or 4/6 of overlapping weights
    x = union(*boxes)
    low, high = counted(shared(boxes=boxes, condition=x[0] > 2)[0])
    assert low <= Fraction(1, 3) <= high <= low + Fraction(1, 10_000)


@pytest.mark.parametrize("distribution", [None, normal("1/4", 1)])
def test_shares_of_unions_hold_what_samples_find(distribution):
    rng = np.random.default_rng(1)
    centres = rng.integers(-6, 6, (12, 2)) / 4
    boxes = [box(c - 0.5, c + 0.5, **({"distribution": distribution} if distribution else {})) for c in centres]
    over = union(*boxes)
    out = PLAIN["output"]
    theorem = prove(Share(And(out[0] >= out[1], over[0] >= over[1]), over=over, within="1/500")).theorem
    n = 800_000
    points = rng.uniform(-2, 2, (n, 2))
    points = points[np.array([(np.abs(points - c) <= 0.5).all(1) for c in centres]).any(0)]
    weight = np.exp(-((points - 0.25) ** 2).sum(1) / 2) if distribution else np.ones(len(points))
    y = y_of(points)
    held = (y[:, 0] >= y[:, 1]) & (points[:, 0] >= points[:, 1])
    share, error = (weight * held).sum() / weight.sum(), 5 / len(points) ** 0.5
    low, high = (Fraction(n, theorem.claim.total) for n in theorem.right)
    assert low - error <= share <= high + error and high - low <= Fraction(1, 500)


def test_all_of_a_union_and_none_of_it_are_said_exactly():
    for condition, share in ((PLAIN["output"][0] > -500, 1), (PLAIN["output"][0] < -500, 0)):
        document, weights = shared(boxes=[*APART, box([7.0, 1.0], [7.3, 1.1])][:4], condition=condition)
        assert counted(document) == (share, share)
        check(forge.file(document, weights))
    document, _ = shared(condition=PLAIN["output"][0] > -500, at_least=1)
    assert document["conclusion"]["verdict"] == "PROVED"


def test_a_share_is_stated_beyond_what_boxes_may_weigh_otherwise():
    """Thirds are no float64 numbers."""
    boxes = [box([float(k), 0.0], [k + 1.0, 1.0]) for k in range(0, 6, 2)]
    x = union(*boxes)
    document, weights = shared(boxes=boxes, condition=x[0] > 3.5)
    claim = read_claim(Reader(document["claim"], "claim"), weights)
    low, high = counted(document)
    assert 0 < claim.measure.error < 2**12 and low <= Fraction(1, 3) <= high
    counts = type(claim.everything)(100, TOTAL // 3)
    assert claim.within(counts) == (max(0, 100 - claim.measure.error), TOTAL // 3 + claim.measure.error)
    assert claim.within(claim.everything._replace(low=TOTAL)) == (TOTAL, TOTAL)


def test_a_leaf_lies_in_one_box():
    document, weights = shared()
    document["conclusion"] = {"verdict": "BOUNDED", "right_at_least": "0", "right_at_most": str(TOTAL)}
    flat = {"rule": "open"}
    for proof, words in (
        (joined(JUDGED, JUDGED, JUDGED), None), (joined(JUDGED, flat, cut(0, -1.5, JUDGED, flat)), None), (JUDGED, "inside one box"),
        (flat, "inside one box"), (cut(0, 1.5, JUDGED, JUDGED), "inside one box"), (joined(JUDGED, JUDGED), "3 to 3"),
        ({"rule": "faces", "faces": [JUDGED] * 4}, "faces"), (cut(0, -0.5, joined(JUDGED), joined(JUDGED, JUDGED)), None),
        (cut(0, 2.0, joined(JUDGED, JUDGED, JUDGED), JUDGED), "inside one box"), ({"rule": "both", "first": joined(flat, flat, flat), "second": flat}, "inside"),
    ):  # fmt: skip
        if words is None:
            check(forge.file(document | {"proof": proof}, weights))
            continue
        with pytest.raises(Rejected, match=words):
            check(forge.file(document | {"proof": proof}, weights))


def test_files_that_count_too_much_are_refused():
    document, weights = shared()
    check(forge.file(document, weights))
    least = int(document["conclusion"]["right_at_least"])
    for change in ({"right_at_least": str(least + 2**26)}, {"right_at_most": str(least)}):
        with pytest.raises(Rejected, match="right inputs stated"):
            check(forge.file(document | {"conclusion": document["conclusion"] | change}, weights))
    twice = copy.deepcopy(document)
    twice["claim"]["union"].append(twice["claim"]["union"][0])
    twice["proof"]["parts"].append(twice["proof"]["parts"][0])
    with pytest.raises(Rejected, match="overlap"):
        check(forge.file(twice, weights))
    dropped = copy.deepcopy(document)
    dropped["claim"]["union"].pop()
    with pytest.raises(Rejected, match="2 to 2"):
        check(forge.file(dropped, weights))
    dropped["proof"]["parts"].pop()
    with pytest.raises(Rejected, match="right inputs stated"):  # of what is left, more is right
        check(forge.file(dropped, weights))


# --- conditions on the tokens of boxes ---------------------------------------------------------------------------------


def gated(given, over=None) -> tuple:
    ids = tokens("t", length=2, vocab=3)
    x = (ball([0.0, 0.0], 1) if over is None else over).with_tokens(ids)
    return Share(MIXED["output"][0] > 0, over=x, given=given(ids), within="1/500")


GIVEN = {
    "unequal": (lambda t: Ne(t[0], t[1]), lambda a, b: a != b),
    "few": (lambda t: t[0] + t[1] <= 1, lambda a, b: a + b <= 1),
    "one": (lambda t: And(t[0] >= 2, t[1] >= 2), lambda a, b: a == b == 2),
}


@pytest.mark.parametrize("name", GIVEN)
@pytest.mark.parametrize("over", [None, union(ball([0.0, 0.0], 0.5), ball([2.0, 1.0], 0.25))])
def test_a_condition_on_a_boxs_tokens_is_a_mean_over_those(name, over):
    theorem = prove(gated(GIVEN[name][0], over)).theorem
    rng, share, number = np.random.default_rng(0), 0.0, 0
    boxes = (ball([0.0, 0.0], 1) if over is None else over).each
    sizes = np.array([float(np.prod(b.high[0] - b.low[0])) for b in boxes])
    for a, b in itertools.product(range(3), repeat=2):
        if GIVEN[name][1](a, b):
            which = rng.choice(len(boxes), 100_000, p=sizes / sizes.sum())
            low, high = (np.stack([getattr(x, end)[0] for x in boxes])[which] for end in ("low", "high"))
            points = torch.tensor(rng.uniform(low, high))
            held = Mixed()(torch.tensor([[a, b]]).expand(len(points), 2), points)[:, 0] > 0
            share, number = share + held.double().mean().item(), number + 1
    assert theorem.claim.total == number * TOTAL
    low, high = (Fraction(n, theorem.claim.total) for n in theorem.right)
    error = 5 / 100_000**0.5
    assert low - error <= share / number <= high + error and high - low <= Fraction(1, 500)


def test_a_guard_of_a_box_is_not_dropped_or_faked():
    document, weights = opened(prove(gated(GIVEN["few"][0])))
    check(forge.file(document, weights))
    other = opened(prove(gated(GIVEN["one"][0])))[0]
    for change in (None, other["claim"]["given"]):
        doc = copy.deepcopy(document)
        if change is None:
            del doc["claim"]["given"]
        else:
            doc["claim"]["given"] = change
        with pytest.raises(Rejected, match="right inputs stated"):
            check(forge.file(doc, weights))
    with pytest.raises(Rejected, match="no input"):
        check(forge.file(document | {"claim": document["claim"] | {"given": [["integer", [], 0]]}}, weights))
    job = Job(read_claim(Reader(document["claim"], "claim"), weights), Float64())
    for ids, number in (({0}, 2), ({1}, 1), ({2}, 0), ({0, 2}, 2)):  # what a part that is left open may hold
        assert job.claim.most(job, job.claim.domain.split(0, ids)[0]) == number * TOTAL
    with pytest.raises(Rejected, match="rule faces"):
        check(forge.file(document | {"proof": {"rule": "faces", "faces": [JUDGED] * 4}}, weights))


def test_parts_of_token_sequences_are_not_relaxed_under_a_guard():
    from tests.soundness.test_guards import DISTINCT
    from tests.soundness.test_shares import LEAD, WEIGHTS
    from tests.soundness.test_shares import document as of_tokens

    leaf = {"rule": "relaxation", "to": 0}
    for given, words in (({"given": DISTINCT}, "leave out given"), ({}, None)):
        doc = of_tokens(LEAD, leaf, (0, 9), **given)
        doc["conclusion"]["right_at_most"] = "9"
        if words is None:
            check(forge.file(doc, WEIGHTS))
            continue
        with pytest.raises(Rejected, match=words):
            check(forge.file(doc, WEIGHTS))


# --- what is printed ----------------------------------------------------------------------------------------------------

PRINTED = {
    "bounds": lambda: prove(Bounds(PLAIN["output"], over=union(*BALLS))),
    "many": lambda: prove(Bounds(PLAIN["output"], over=union([ball([k / 4, -k / 8], 0.25) for k in range(40)]), at_most=99)),
    "one": lambda: prove(Bounds(PLAIN["output"], over=union(ball([0.0, 1.0], 1)))),
    "share": lambda: prove(Share(PLAIN["output"][0] > 0, over=union(*APART), within="1/100", at_least="1/100")),
    "gaussian": lambda: prove(Share(PLAIN["output"][0] > 0, over=box([0, 0], [1, 1], distribution=normal("1/3", 2)), within="1/50")),
    "guard": lambda: prove(gated(GIVEN["few"][0], union(ball([0.0, 0.0], 0.5), ball([2.0, 1.0], 0.25)))),
}  # fmt: skip


@pytest.mark.parametrize("name", few(list(PRINTED), 6))
def test_the_printed_theorem_is_the_files(name):
    outcome = PRINTED[name]()
    rows = state(outcome.theorem).rows()
    printed = "\n".join(f"{label:>16}  {text}" for label, text in rows)
    assert not false_lines(printed, outcome.certificate)
    domain = [text for label, text in rows if label == "domain"]
    if name == "bounds":
        assert domain[-1] == (
            "of these real inputs, those in at least one of 3 boxes: [0.25, 0.75] x [0, 0.5] or [-2.5, -1.5] x [0.5, 1.5]"
            " or [-0.25, 0.75] x [-0.5, 0.5]"
        )
        for spoilt in (printed.replace("3 boxes", "2 boxes"), printed.replace("[-2.5, -1.5]", "[-2.5, -1.25]"),
                       printed.replace(" or [-0.25, 0.75] x [-0.5, 0.5]", "")):  # fmt: skip
            assert spoilt != printed and false_lines(spoilt, outcome.certificate)
    if name == "guard":
        assert any(text.endswith(": 3 of these sequences") for label, text in rows if label == "given")
