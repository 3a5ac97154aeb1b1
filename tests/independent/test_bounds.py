"""The kernel and the second checker on claims about bounds: neither accepts what the other surely refuses.

The second may leave open what its own ranges are too wide for; the kernel may refuse what only the second proves. So
agreement is: what the kernel accepts is never rejected, and what the second confirms the kernel refuses only for its
range or its lines.
"""

import copy
import hashlib
import io
import json
import os
import zipfile
from collections import Counter
from fractions import Fraction

import numpy as np
import pytest
import torch
from flint import arb, ctx
from torch import nn

from mechverify import Bounds, ball, box, capture, prove, tokens
from tests.independent import bounds as second
from tests.independent.both import Both
from tests.independent.bounds import FUNCTIONS, Interval, NotConfirmed
from tests.independent.test_agreement import changed
from tests.models import as_bytes
from tests.soundness import bounds, forge, networks
from tests.soundness.networks import FUNCTIONS as TRUE
from tests.soundness.networks import POSITIVE, Maker, Network, constant, given
from tests.soundness.test_linear import tree
from tests.soundness.test_ratio_ranges import Attention

FORGED = int(os.environ.get("MECHVERIFY_FORGED", 120))
OURS = "tighter than those proved|lines|mixture|not refuted|units of work"  # the kernel's ranges, its lines, its limits
BOTH = Both(second.check, OURS)
mine, kernels, agree = BOTH.mine, BOTH.kernels, BOTH.agree


# --- the second checker's own arithmetic ------------------------------------------------------------------------------


def exactly(x: Fraction) -> arb:
    return arb(x.numerator) / x.denominator


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_and_slopes_hold_their_values(name: str) -> None:
    ctx.prec = 400
    rng = np.random.default_rng(1)
    value, slope = FUNCTIONS[name]
    edges = [1e-300, 5e-324, 1.0, 9.0, 9.1, 101.0, 0.5, 2.0] + [0.0] * (name not in POSITIVE)
    for x in edges + [float(rng.normal() * 10.0 ** rng.integers(-6, 3)) for _ in range(60)]:
        x = abs(x) if name in POSITIVE else x * float(rng.choice([-1, 1]))
        low, high = sorted((Fraction(x), Fraction(x) * (1 + Fraction(float(rng.random())) / 64)))
        wide, steep = value(Interval(low, high)), slope(Interval(low, high))
        for share in (0, 0.3, 1):
            at = low + (high - low) * Fraction(share)
            y, t = value(Interval(at)), TRUE[name][1](exactly(at))
            assert not (t < exactly(y.lo) or t > exactly(y.hi)) and wide.lo <= y.hi and y.lo <= wide.hi
            assert not (t < exactly(wide.lo) or t > exactly(wide.hi))
            assert y.hi - y.lo <= Fraction(1, 2**100) * max(1, y.size())
            if at and (at > 0) == (low > 0):
                step = exactly(abs(at)) * arb(2) ** -120
                rise = (TRUE[name][1](exactly(at) + step) - t) / step
                off = arb(2) ** -60 * (1 + abs(rise) + exactly(steep.size()))
                assert not (rise < exactly(steep.lo) - off or rise > exactly(steep.hi) + off), (name, x)


@pytest.mark.parametrize("group", range(4))
def test_ranges_of_random_networks_hold_samples(group: int) -> None:
    """Every operation, on boxes and token sets; and the points' enclosures hold what flint computes."""
    tried = 0
    for seed in range(group, 40, 4):
        rng = np.random.default_rng([31, seed])
        net = Maker(rng, radius=float(rng.choice([0.0, 0.05, 0.5]))).network(int(rng.integers(2, 6)))
        doc, data = networks.document(net)
        task = second.Claim(doc["claim"], data)
        try:
            found = task.values(task.domain)
        except NotConfirmed:
            continue
        tried += 1
        ids, inputs = networks.samples(net, 30, rng)
        exact = bounds._values(task, ids, inputs, exact=True)
        for i, row in enumerate(exact):
            place = second.at(ids[i].tolist(), [Fraction(float(v)) for x in inputs for v in x[i].ravel()])
            for v, known, here in zip(row, found, task.values(place), strict=True):
                assert not (v < exactly(known.lo) or v > exactly(known.hi)), (seed, i)
                assert not (v < exactly(here.lo) or v > exactly(here.hi)), (seed, i, "at a point")
                assert here.hi - here.lo <= Fraction(1, 2**40) * max(1, abs(here.hi))
    assert tried >= 6


# --- agreement --------------------------------------------------------------------------------------------------------


def test_agreement_on_random_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ranges as the kernel proves them are confirmed as a rule; moved far inwards they are rejected by both."""
    monkeypatch.setattr(second, "CELLS", 2)
    seen: Counter = Counter()
    for seed in range(40):
        rng = np.random.default_rng([32, seed])
        net = Maker(rng, radius=float(rng.choice([0.0, 0.01, 0.3, 1.0]))).network(int(rng.integers(1, 6)))
        domain = networks.claim(net).domain
        doc, data = networks.document(net, tree(domain, rng, 2), n=0)
        doc = bounds.restated(doc, data)
        if not doc["conclusion"]["low"]:
            continue
        seen["as proved", *agree(networks.file(doc, data))] += 1
        for end, by in (("low", 1.0), ("high", -1.0)):
            ends = [float(np.nextafter(float.fromhex(v), by * np.inf)).hex() for v in doc["conclusion"][end]]
            seen["one step", *agree(networks.file(changed(doc, f"conclusion.{end}", ends), data))] += 1
            other = doc["conclusion"]["high" if end == "low" else "low"]
            wrong = [(float.fromhex(v) + by).hex() for v in other]
            seen["wrong", *agree(networks.file(changed(doc, f"conclusion.{end}", wrong), data))] += 1
    assert seen["as proved", "confirmed", True] >= 20 and not seen["as proved", "rejected", False]
    assert seen["wrong", "rejected", False] >= 60
    assert not any(n for (kind, _, accepted), n in seen.items() if accepted and kind != "as proved")


def at_nodes(net: Network, depth: int, rng: np.random.Generator) -> dict:
    """A tree of splits at entries of real values, near what they are somewhere."""
    if not depth:
        return dict([LINEAR, {"rule": "relaxation"}][int(rng.integers(2))])
    claim = networks.claim(net)
    needed = set(claim.graph.ancestors([claim.output]))
    rows = [i for i, n in enumerate(claim.graph.listed) if claim.graph.nodes[n].kind == "real" and n in needed]
    node = int(rng.choice(rows))
    n = claim.graph.listed[node]
    value = networks.evaluate(claim.graph, claim.weights, [n], *networks.samples(net, 3, rng))[n].reshape(3, -1)
    entry = int(rng.integers(value.shape[1]))
    at = float(value[:, entry].mean()) + float(rng.choice([0.0, 0.0, 1.0]))
    inside, outside = (at_nodes(net, depth - 1, rng) for _ in range(2))
    return {"rule": "split", "node": node, "entry": entry, "at": at.hex(), "inside": inside, "outside": outside}


def test_agreement_on_splits_at_nodes(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the kernel proves by them is confirmed as a rule, and refused by both where it is moved inwards."""
    monkeypatch.setattr(second, "CELLS", 1)
    seen: Counter = Counter()
    for seed in range(60):
        rng = np.random.default_rng([35, seed])
        net = Maker(rng, radius=float(rng.choice([0.1, 1.0]))).network(int(rng.integers(2, 6)))
        doc, data = networks.document(net, at_nodes(net, int(rng.integers(1, 3)), rng), n=0)
        doc = bounds.restated(doc, data)
        if not doc["conclusion"]["low"]:
            seen["refused"] += 1
            continue
        seen["as proved", *agree(networks.file(doc, data))] += 1
        for end, by in (("low", 1.0), ("high", -1.0)):
            other = doc["conclusion"]["high" if end == "low" else "low"]
            if all(other):
                wrong = [(float.fromhex(v) + by).hex() for v in other]
                seen["wrong", *agree(networks.file(changed(doc, f"conclusion.{end}", wrong), data))] += 1
    assert seen["as proved", "confirmed", True] >= 20 and not seen["as proved", "rejected", False], seen
    assert seen["wrong", "rejected", False] >= 40 and not any(seen["wrong", a, True] for a in ("open", "confirmed")), (
        seen
    )


def linear() -> nn.Module:
    return nn.Linear(3, 2)


def rectified() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 6), nn.ReLU(), nn.Linear(6, 2))


def smooth() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))


def probabilities() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 3), nn.Softmax(-1))


@pytest.mark.parametrize("make", [linear, rectified, smooth, probabilities])
def test_agreement_on_certificates_of_prove(make) -> None:
    torch.manual_seed(3)
    module = make().eval()
    model = capture(module, torch.zeros(1, 3))
    over = box(-0.25 * np.ones(3), 0.25 * np.ones(3))
    with torch.inference_mode():
        corners = module.double()(torch.cartesian_prod(*[torch.tensor([-0.25, 0.25]).double()] * 3)).numpy()
    room = 0.3 * (corners.max(0) - corners.min(0)).max()
    proved = prove(Bounds(model["output"], over=over, at_most=(corners.max(0) + room).tolist(),
                          at_least=(corners.min(0) - room).tolist()))  # fmt: skip
    assert proved.verdict == "PROVED" and agree(proved.certificate) == ("confirmed", True)
    refuted = prove(Bounds(model["output"], over=over, at_most=(corners.max(0) - room / 9).tolist()))
    assert refuted.verdict == "REFUTED" and agree(refuted.certificate) == ("confirmed", True)
    assert agree(prove(Bounds(model["output"], over=ball(np.zeros(3), 1e-3))).certificate) in [
        ("confirmed", True),
        ("open", True),
    ]


def test_agreement_on_tokens_and_real_inputs() -> None:
    class Mixed(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed, self.out = nn.Embedding(4, 2), nn.Linear(2, 2)

        def forward(self, ids, shift):
            return self.out(torch.tanh(self.embed(ids) + shift).sum(1))

    torch.manual_seed(1)
    model = capture(Mixed().eval(), torch.zeros(1, 2, dtype=torch.long), torch.zeros(1, 2, 2))
    over = ball(np.zeros((2, 2)), 0.01).with_tokens(tokens("x", length=2, vocab=4, allowed=[[0, 1], [2]]))
    found = prove(Bounds(model["output"], over=over, at_most=[4.0, 4.0]))
    assert found.verdict == "PROVED" and agree(found.certificate) == ("confirmed", True)


@pytest.mark.parametrize("heads, read", [(1, "pattern"), (1, "logits"), (2, "both")])
def test_agreement_on_ranges_of_ratios(heads: int, read: str) -> None:
    """What is proved is confirmed, moved inwards beyond what is reached it is rejected; so is a witness of another
    form."""
    module = Attention(3, heads, 0.5, read)
    model = capture(module.eval(), torch.zeros(1, 3, dtype=torch.long))
    found = prove(Bounds(model["output"], over=tokens("x", length=3, vocab=4, allowed=[[0, 1], [1, 3], [0, 2, 3]])))
    assert found.theorem.rules["ratios"] and agree(found.certificate) == ("confirmed", True)
    with zipfile.ZipFile(io.BytesIO(found.certificate)) as entries:
        doc, data = json.loads(entries.read("certificate.json")), entries.read("weights.safetensors")
    moved = copy.deepcopy(doc)
    moved["conclusion"]["low"][0] = (float.fromhex(doc["conclusion"]["low"][0]) + 1e-3).hex()
    assert agree(forge.file(moved, data)) == ("rejected", False)
    for old, new in (('"points":', '"point":'), ('"high":', '"more": 0, "high":'), ('"ratios"', '"ratio"')):
        text = json.dumps(doc["proof"])
        assert old in text
        spoilt = doc | {"proof": json.loads(text.replace(old, new, 1))}
        assert agree(forge.file(spoilt, data)) == ("rejected", False)


def test_agreement_on_forged_certificates(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(second, "CELLS", 1)
    rng, seen, made = np.random.default_rng(8), Counter(), bounds.bases()
    for i in range(FORGED):
        doc, weights = made[list(made)[i % len(made)]]
        _, doc, data = forge.corrupt(doc, weights, rng)
        doc = bounds.restated(doc, data) if rng.random() < 0.5 else doc
        seen[agree(forge.file(doc, data))] += 1
    assert seen["confirmed", True] >= FORGED / 20 and seen["rejected", False] >= FORGED / 3
    assert seen["open", True] + seen["open", False] < FORGED / 2


# --- single rules -----------------------------------------------------------------------------------------------------

UNIT = Network([given(1)], {}, [(np.zeros(1), np.ones(1))], [], 0)
POINT = {"rule": "point", "inputs": [[[], ["1/2"]]]}
LINEAR = bounds.LINEAR


def at_the_sum(at: float, entry: int = 0, node: int = 2) -> dict:
    return {"rule": "split", "node": node, "entry": entry, "at": at.hex(), "inside": LINEAR, "outside": LINEAR}


@pytest.mark.parametrize("proof, mine_, kernels_", [
    (LINEAR, "open", "tighter"), (at_the_sum(0.0), "confirmed", ""), (at_the_sum(0.5), "open", "tighter"),
    (at_the_sum(2.5), "open", "tighter"), (at_the_sum(0.0, entry=1), "rejected", "no value"),
    (at_the_sum(0.0, node=8), "rejected", "no value"), (at_the_sum(0.0, node=1, entry=1), "open", "no value"),
])  # fmt: skip
def test_a_split_at_a_sign_is_used_by_both(
    proof: dict, mine_: str, kernels_: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """relu(s) relu(-s) is zero, s = x0 + x1: only by telling the signs of s apart."""
    monkeypatch.setattr(second, "CELLS", 1)
    rows = [given(2), constant([1.0, 1.0]), ["einsum", [0, 1], "a,a->"], ["relu", [2], None], constant(-1.0),
            ["mul", [2, 4], None], ["relu", [5], None], ["mul", [3, 6], None]]  # fmt: skip
    net = Network(rows, {}, [(-np.ones(2), np.ones(2))], [], 0)
    data = networks.file(*networks.document(net, proof, high=[1e-9], n=1))
    assert mine(data) == mine_
    assert kernels_ in kernels(data) and bool(kernels_) == bool(kernels(data))


def cut(at: str, inside: dict, outside: dict) -> dict:
    return {"rule": "split", "coordinate": 0, "at": at, "inside": inside, "outside": outside}


@pytest.mark.parametrize("answer, proof, settings", [
    ("confirmed", LINEAR, dict(low=[0.0], high=[1.0])),
    ("confirmed", cut("1/1", LINEAR, cut("1/1", LINEAR, LINEAR)), dict(high=[1.0])),
    ("confirmed", cut("1/2", LINEAR, POINT), dict(verdict="REFUTED", at_least="2/3")),
    ("confirmed", {"rule": "both", "first": POINT, "second": LINEAR}, dict(low=[0.0], at_least="0/1", verdict="PROVED")),
    ("rejected", LINEAR, dict(high=[0.75])),
    ("rejected", POINT, dict(high=[1.0])),  # a point says nothing of the part
    ("rejected", cut("1/2", POINT, LINEAR), dict(high=[1.0])),
    ("rejected", cut("0x1.8000000000000p+0", LINEAR, LINEAR), {}),
    ("rejected", cut("1/2", POINT, LINEAR), dict(at_most="1/2", verdict="REFUTED")),  # at most is reached
    ("rejected", POINT, dict(at_least="1/2", verdict="REFUTED")),
    ("rejected", cut("1/4", POINT, LINEAR), {}),  # outside its part
    ("rejected", LINEAR, dict(verdict="PROVED")),
    ("rejected", LINEAR, dict(at_most="1/1", verdict="PROVED")),  # nothing is stated
    ("rejected", LINEAR, dict(high=[1.0], at_most="999999999999/1000000000000", verdict="PROVED")),
    ("rejected", LINEAR, dict(at_most="1/2", verdict="REFUTED")),  # true, but no point shows it
    ("confirmed", {"rule": "relaxation"}, {}), ("rejected", {"rule": "relaxation", "multipliers": []}, {}),
    ("rejected", {"rule": "linear", "lines": None}, {}), ("rejected", {**POINT, "inputs": []}, {}),
])  # fmt: skip
def test_rules_on_the_unit_interval(answer: str, proof: dict, settings: dict) -> None:
    data = networks.file(*networks.document(UNIT, proof, **settings))
    assert mine(data) == answer and (answer == "confirmed" or kernels(data))


@pytest.mark.parametrize("path, value", [
    ("version", 2), ("version", 4), ("version", 6), ("axioms", ["ieee754"]), ("axioms", ["capture", "ieee754"]), ("claim.semantics", "float32"),
    ("claim.architecture", "transformer"), ("claim.kind", "accuracy"), ("claim.site", "input"), ("claim.position", 1),
    ("claim.position", True), ("claim.domain.inputs", []), ("claim.domain.inputs", [[[1], ["0/1"], ["0x1p+0"]]]),
    ("claim.domain.inputs", [[[1], ["1/1"], ["0/1"]]]), ("claim.domain.inputs", [[[1], ["1/3"], ["1/1"]]]),
    ("claim.graph.nodes", [["input", [], [0, [2]]]]), ("claim.graph.nodes", [["relu", [0], None]]), ("claim.graph.nodes", []),
    ("claim.graph.sites", [["output", 1]]), ("claim.graph.note", 1), ("claim.graph.replayed", None), ("claim.at_most", "0.5"),
    ("claim.at_most", ["1/1", "1/1"]), ("conclusion.low", []), ("conclusion.high", ["1e0"]), ("conclusion.verdict", "TRUE"),
    ("proof.lines", [["0", "0", 0, [1], []]]), ("proof.lines", [[0, 0, 0, [1], [1]]]), ("proof.multipliers", None), ("proof.note", 1), ("note", 1),
])  # fmt: skip
def test_malformed_documents_are_rejected_by_both(path: str, value: object) -> None:
    doc, data = networks.document(UNIT, copy.deepcopy(LINEAR))
    assert mine(networks.file(doc, data)) == "confirmed"
    spoilt = networks.file(changed(doc, path, value), data)
    assert mine(spoilt) == "rejected" and kernels(spoilt)


def test_other_weights_are_rejected_by_both() -> None:
    doc, data = networks.document(UNIT)
    assert doc["claim"]["weights_sha256"] == hashlib.sha256(data).hexdigest()
    other = networks.file(doc, as_bytes({"unused": np.ones(1)}))
    assert mine(other) == "rejected" and kernels(other)
