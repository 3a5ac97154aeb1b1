"""The kernel and the second checker on shares of a box: neither accepts what the other surely refuses."""

import copy
import json
from collections import Counter
from fractions import Fraction

import numpy as np
import pytest
from sympy import And, Or

from mechverify import Share, box, normal, prove, uniform
from mechverify.kernel.core import container
from mechverify.kernel.core.counts import Counts
from mechverify.kernel.core.measure import HALVINGS
from mechverify.kernel.relaxation import cones
from mechverify.kernel.relaxation.shares import counts
from tests.independent import boxes
from tests.independent.both import Both
from tests.independent.test_schema import VALIDATOR
from tests.rounds import few
from tests.soundness import forge
from tests.soundness.test_boxes import PLAIN, cut, mixed, proved
from tests.soundness.test_cases import job_of

OURS = "right inputs stated|units of work|made alike"  # its bounds, its limits, and where it sees two runs
agree = Both(boxes.check, OURS).agree
TOTAL = 2**HALVINGS


def test_the_schema_knows_shares_of_boxes():
    document, _ = proved(distribution=[uniform, normal("1/3", 2)])
    VALIDATOR.validate(document | {"cost": "1"})
    for change in ({"measure": [["1/3"], None]}, {"measure": 1}, {"strict": 1}):
        assert not VALIDATOR.is_valid(document | {"cost": "1", "claim": document["claim"] | change})
    assert not VALIDATOR.is_valid(document | {"cost": "1", "proof": {"rule": "relaxation", "to": 41}})


def two(at_least=None) -> tuple[dict, bytes]:
    """A union of conditions, of a Gaussian and a uniform number."""
    x, out = box([-2, -1], [2, 3], distribution=[normal("1/4", 1), uniform]), PLAIN["output"]
    condition = Or(And(out[0] > out[1], x[0] > x[1]), out[1] > 1)
    contents = container.unpack(prove(Share(condition, over=x, within="1/20", at_least=at_least)).certificate)
    return json.loads(contents["certificate.json"]) | {"cost": None}, contents["weights.safetensors"]


def with_tokens() -> tuple[dict, bytes]:
    contents = container.unpack(mixed("1/4").certificate)
    return json.loads(contents["certificate.json"]) | {"cost": None}, contents["weights.safetensors"]


def weaker(document: dict, weights: bytes) -> tuple[dict, bytes]:
    """The same, with bounds that are weaker by three tenths of the whole: the second checker tells that they are true."""
    document, part = copy.deepcopy(document), 3 * TOTAL // 10
    stated = document["conclusion"]
    stated["right_at_least"] = str(max(0, int(stated["right_at_least"]) - part))
    stated["right_at_most"] = str(min(TOTAL, int(stated["right_at_most"]) + part))
    return document, weights


def of_faces(distribution) -> tuple[dict, bytes]:
    """A condition that is a cone's, with bounds that are weaker: the second checker tells that they are true."""
    x, out = box([-2, -1], [2, 4], distribution=distribution), PLAIN["output"]
    condition = Or(And(out[0] > out[1], x[0] > x[1]), out[1] > 2 * x[0])
    share = Share(condition, over=x, within="1/4")
    job = job_of(share)
    contents = container.unpack(prove(share).certificate)
    document = json.loads(contents["certificate.json"]) | {"cost": None}
    document["proof"] = {"rule": "faces", "faces": [LEAF, cut(1, 0.5, LEAF, LEAF), LEAF, cut(0, 0, LEAF, LEAF)]}
    about, domains = cones.faces(job, job.claim.domain)
    found = [counts(about, [d], np.array([6]), np.array([2]))[0] for d in domains]
    right = cones.of_box(job, job.claim.domain, Counts(*map(sum, zip(*found, strict=True))))
    part = TOTAL // 5
    ends = {"right_at_least": str(max(0, right.low - part)), "right_at_most": str(min(TOTAL, right.high + part))}
    document["conclusion"] = {"verdict": "BOUNDED"} | ends
    return document, contents["weights.safetensors"]


LEAF = {"rule": "relaxation", "to": 6, "signs": 2}
FILES = {
    "flat faces": lambda: of_faces(uniform), "round faces": lambda: of_faces([normal(0, 1), normal(0, "1/2")]),
    "uniform": proved, "proved": lambda: proved(Fraction(1, 10)), "refuted": lambda: two(Fraction(9, 10)), "two": two,
    "weaker": lambda: weaker(*two()), "tokens": with_tokens,
}  # fmt: skip


@pytest.mark.parametrize("name", few(FILES, 3))
def test_both_agree_on_files_with_one_change(name):
    document, weights = FILES[name]()
    here, there = agree(forge.file(document, weights))
    assert there and (here == "confirmed" or name not in ("weaker", "flat faces", "round faces"))
    rng, told = np.random.default_rng(len(name)), Counter()
    places = forge.places({k: v for k, v in document.items() if k not in ("cost", "format")})
    groups = [[p for p in places if which(p)] for which in (
        lambda p: p[:2] == ("claim", "graph"), lambda p: p[0] == "proof",
        lambda p: p[0] != "proof" and p[:2] != ("claim", "graph"))]  # fmt: skip
    for trial in range(90):  # until one of them was none that matters
        if trial >= 18 and any(there for _, there in told):
            break
        doc, some = copy.deepcopy(document), groups[trial % 3]
        path = some[int(rng.integers(len(some)))]
        forge.spoil_leaf(doc, path, rng)
        try:
            told[agree(forge.file(doc, weights))] += 1
        except AssertionError as error:
            raise AssertionError(f"{error}: {path} {forge.entry_at(doc, path)}") from None
    assert told["rejected", False] > 3 and any(there for _, there in told)


@pytest.mark.parametrize("name", ["uniform", "two", "tokens"])
def test_neither_accepts_what_is_surely_not_true(name):
    """A share too high, or too low; and parts left open, of which more is said than nothing."""
    document, weights = {"uniform": proved, "two": two, "tokens": with_tokens}[name]()
    task = boxes.Claim(document["claim"], weights)
    low, high = task.shares(task.domain)
    stated = [int(document["conclusion"][key]) for key in ("right_at_least", "right_at_most")]
    assert low - 2 <= stated[1] and stated[0] <= high + 2 and high - low < task.total * 3 // 4
    for change in ({"right_at_least": str(int(high) + 2), "right_at_most": str(task.total)},
                   {"right_at_least": "0", "right_at_most": str(int(low) - 2)}):  # fmt: skip
        doc = document | {"conclusion": document["conclusion"] | change}
        assert agree(forge.file(doc, weights)) == ("rejected", False)
    for proof, most in ((cut(0, 0, LEAF, {"rule": "open"}), task.total), ({"rule": "open"}, 0)):
        doc = document | {"proof": proof}
        doc["conclusion"] = {
            "verdict": "BOUNDED",
            "right_at_least": str(most * 4 // 5 + 1),
            "right_at_most": str(task.total),
        }
        assert agree(forge.file(doc, weights)) == ("rejected", False), proof
        doc["conclusion"] = {"verdict": "BOUNDED", "right_at_least": "0", "right_at_most": str(task.total)}
        assert agree(forge.file(doc, weights)) == ("confirmed", True), proof


def test_both_refuse_what_the_page_refuses():
    document, weights = proved()
    document["conclusion"] = {"verdict": "BOUNDED", "right_at_least": "0", "right_at_most": str(TOTAL)}
    assert agree(forge.file(document, weights)) == ("confirmed", True)
    for proof, allowed in (
        (LEAF, True), (LEAF | {"signs": 13}, False), (LEAF | {"to": 41}, False), (LEAF | {"to": True}, False),
        (LEAF | {"shared": 1}, False), (LEAF | {"shared": True}, True), (LEAF | {"lines": None}, False),
        (cut(0, 0.25), True), (cut(0, 1), False), (cut(0, -1), False), (cut(2, 0), False), ({"rule": "enumerate"}, False),
        ({"rule": "counterexample", "inputs": [[]]}, False), ({"rule": "both", "first": LEAF, "second": cut(1, 0)}, True),
        ({"rule": "split", "node": 0, "entry": 0, "at": "0x0.0p+0", "inside": LEAF, "outside": LEAF}, False),
    ):  # fmt: skip
        here, there = agree(forge.file({**document, "proof": proof}, weights))
        assert (here, there) == (("confirmed", True) if allowed else ("rejected", False)), proof
    for change in ({"version": 4}, {"axioms": ["ieee754"]}, {"axioms": ["capture", "ieee754"]}):
        assert agree(forge.file({**document, **change}, weights)) == ("rejected", False)
    for measure in ([None], [None, ["0/1", "0/1"]], [None, ["0/1", "-1/1"]], None, [None, None, None]):
        doc = document | {"claim": document["claim"] | {"measure": measure}}
        assert agree(forge.file(doc, weights)) == ("rejected", False), measure
    guarded = document | {"claim": document["claim"] | {"given": [["integer", [], 1]]}}
    assert agree(forge.file(guarded, weights)) == ("rejected", False)


def test_its_masses_and_shares_hold_what_samples_find():
    document, weights = two()
    task = boxes.Claim(document["claim"], weights)
    rng, n = np.random.default_rng(0), 200_000
    first = rng.normal(0.25, 1, 2 * n)
    points = np.stack([first[np.abs(first) <= 2][:n], rng.uniform(-1, 3, n)], 1)
    y = np.maximum(points @ PLAIN.captured.weights["w"].T, 0) @ PLAIN.captured.weights["u"].T
    right = ((y[:, 0] > y[:, 1]) & (points[:, 0] > points[:, 1])) | (y[:, 1] > 1)
    for part in (task.domain, *task.values_of.by_number(task.domain, 0, (0.5).hex())):
        inside = (points >= np.array(part.low, float)).all(1) & (points <= np.array(part.high, float)).all(1)
        mass, (low, high) = task.mass(part), task.shares(part)
        assert mass.hi - mass.lo <= 1 and abs(float(mass.lo) / TOTAL - inside.mean()) < 5 / n**0.5
        assert float(low) / TOTAL - 5 / n**0.5 <= (right & inside).mean() <= float(high) / TOTAL + 5 / n**0.5


def test_both_refuse_faces_of_what_has_none():
    """The page's conditions, one after another."""
    document, weights = of_faces([normal(0, 1), normal(0, "1/2")])
    document["conclusion"] = {"verdict": "BOUNDED", "right_at_least": "0", "right_at_most": str(TOTAL)}
    faces = document["proof"]["faces"]
    for proof, allowed in (
        (faces, True), (faces[:3], False), ([*faces, LEAF], False), ([], False), ([{"rule": "faces", "faces": faces}, *faces[1:]], False),
        ([cut(0, 0, LEAF, LEAF), *faces[1:]], False), ([{"rule": "open"}, *faces[1:]], True),
    ):  # fmt: skip
        doc = document | {"proof": {"rule": "faces", "faces": proof}}
        assert agree(forge.file(doc, weights)) == (("confirmed", True) if allowed else ("rejected", False)), proof
    doc = document | {"proof": cut(0, 0, document["proof"], LEAF)}
    assert agree(forge.file(doc, weights)) == ("rejected", False)
    for measure, low in ((["1/9", "1/1"], None), (None, None), (["0/1", "1/1"], 0.5), (["0/1", "1/1"], 2.0)):
        doc = copy.deepcopy(document)
        doc["claim"]["measure"][0] = measure
        if low is not None:
            doc["claim"]["domain"]["inputs"][0][1][0] = low.hex()
        assert agree(forge.file(doc, weights)) == ("rejected", False), measure
    for doc, weights in (two(), proved()):  # of which the first compares an output with 1
        doc |= {"proof": {"rule": "faces", "faces": [LEAF] * 4}, "conclusion": document["conclusion"]}
        doc["claim"]["measure"] = [None, None]
        cone = forge.file(doc, weights)
        assert agree(cone)[1] == (doc["claim"]["domain"]["inputs"][0][2] == [(1.0).hex()] * 2)
