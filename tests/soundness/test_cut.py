"""Rule `cut` (bounds from lemmas), rule `solver`, and what a spoilt certificate with them is worth."""

import copy
import json

import numpy as np
import pytest
import torch
from sympy import Eq, Max, Mod
from torch import nn

from mechverify import Bounds, Cases, Within, box, capture, kernel, prove, tokens
from mechverify.certificate.write import write
from mechverify.claims import ClaimError
from mechverify.kernel import Rejected
from mechverify.kernel.core import container
from mechverify.kernel.core.container import read_json, unpack
from mechverify.kernel.core.ranges import Range
from tests.rounds import few

INPUTS, HIDDEN = 3, 4


class Net(nn.Module):
    """relu(x A) B, whose site `mid` is x A, and after a further layer of ReLUs, `late`."""

    def __init__(self, rng: np.random.Generator):
        super().__init__()
        self.A, self.B, self.C = (nn.Parameter(torch.tensor(rng.normal(size=shape)), requires_grad=False)
                                  for shape in ((INPUTS, HIDDEN), (HIDDEN, 2), (2, 2)))  # fmt: skip
        self.mid, self.late = nn.Identity(), nn.Identity()

    def forward(self, x):
        return torch.relu(self.late(torch.relu(self.mid(x @ self.A)) @ self.B)) @ self.C


def setting(seed: int):
    rng = np.random.default_rng(seed)
    net = Net(rng).eval()
    x = box(-np.ones(INPUTS), np.ones(INPUTS))
    model = capture(net, torch.zeros(1, INPUTS, dtype=torch.float64))
    rough = np.round(net.A.numpy() * 4) / 4
    mechanism = [sum(float(rough[i, j]) * x[i] for i in range(INPUTS)) for j in range(HIDDEN)]
    return net, model, x, mechanism


def parts(certificate: bytes) -> tuple[dict, bytes]:
    contents = unpack(certificate)
    return read_json(contents["certificate.json"]), contents["weights.safetensors"]


def rewritten(document: dict, weights: bytes) -> bytes:
    """A file of a changed document; its conclusion is kept."""
    ends = [
        np.array([np.nan if v is None else float.fromhex(v) for v in document["conclusion"][e]])
        for e in ("low", "high")
    ]
    low, high = np.nan_to_num(ends[0], nan=-np.inf), np.nan_to_num(ends[1], nan=np.inf)
    return write(document["claim"], weights, document["proof"], document["conclusion"]["verdict"], Range(low, high))


def cut_of(node: dict) -> dict:
    while node["rule"] != "cut":
        node = node["second"]
    return node


@pytest.mark.parametrize("seed", few(range(6), 2))
def test_bounds_from_lemmas_hold(seed):
    net, model, x, mechanism = setting(seed)
    lemmas = [Within(model["mid"], mechanism, over=x), Within(model["late"], [0, 0], over=x)]
    rng = np.random.default_rng(seed)
    points = torch.tensor(
        np.concatenate([rng.uniform(-1, 1, (2_000, INPUTS)), np.sign(rng.normal(size=(200, INPUTS)))])
    )
    values = net(points).numpy()
    for using in (lemmas[:1], lemmas[1:], lemmas):
        theorem = prove(Bounds(model["output"], over=x, using=using)).theorem
        assert theorem.rules["cut"] == 1 and len(theorem.lemmas) == len(using)
        assert (theorem.range.low <= values.min(0)).all() and (values.max(0) <= theorem.range.high).all()
    # a lemma about the last site says all that the first one could
    alone = prove(Bounds(model["output"], over=x, using=lemmas[1:])).theorem.range
    low, high = prove(lemmas[1]).theorem.range
    c = net.C.numpy()
    ends = np.maximum(np.stack([low, high]), 0)
    exact = [sum(sorted(ends[:, i] * c[i, o])[k] for i in range(2)) for k in (0, 1) for o in range(2)]
    np.testing.assert_allclose([*alone.low, *alone.high], exact, rtol=0, atol=1e-12)


def test_what_the_file_says_of_a_lemma_is_checked():
    _, model, x, mechanism = setting(0)
    outcome = prove(Bounds(model["output"], over=x, using=[Within(model["mid"], mechanism, over=x)]))
    document, weights = parts(outcome.certificate)
    np.testing.assert_array_equal(kernel.check(rewritten(document, weights)).range, outcome.theorem.range)

    def spoilt(change) -> bytes:
        new = copy.deepcopy(document)
        change(cut_of(new["proof"]))
        return rewritten(new, weights)

    def tighter(cut):
        cut["lemmas"][0]["high"][1] = (float.fromhex(cut["lemmas"][0]["high"][1]) * 0.99).hex()

    def swapped(cut):
        cut["lemmas"][0]["mechanism"] = "late"

    def circular(cut):
        cut["lemmas"][0]["mechanism"] = "mid"
        cut["lemmas"][0] |= {end: [(0.0).hex()] * HIDDEN for end in ("low", "high")}

    def twice(cut):
        cut["lemmas"].append(copy.deepcopy(cut["lemmas"][0]))

    def none(cut):
        cut["lemmas"] = []

    def elsewhere(cut):
        cut["lemmas"][0]["site"] = "output"

    for change, message in (
        (tighter, r"lemmas\[0\]: the bounds stated are tighter"), (swapped, "one shape"), (circular, "tighter|depends on the site"),
        (twice, "cut twice"), (none, "at least|1 to"), (elsewhere, "one shape|tighter"),
    ):  # fmt: skip
        with pytest.raises(Rejected, match=message):
            kernel.check(spoilt(change))


def test_errors_within_a_lemma_refute_nothing():
    """The threshold holds, but doesn't follow; and a false lemma is no ground."""
    _, model, x, mechanism = setting(1)
    direct = prove(Bounds(model["output"], over=x)).theorem.range
    high = float(direct.high.max()) + 0.01
    wide = Within(model["mid"], mechanism, over=x, eps=3)
    outcome = prove(Bounds(model["output"], over=x, at_most=high, using=wide))
    assert outcome.verdict == "UNKNOWN" and "doesn't follow" in outcome.reasons[0]
    outcome = prove(
        Bounds(model["output"], over=x, at_most=high, using=Within(model["mid"], mechanism, over=x, eps=0.01))
    )
    assert outcome.verdict == "UNKNOWN" and "is false: off by " in outcome.reasons[0]
    assert prove(Bounds(model["output"], over=x, at_most=high + 30, using=wide)).verdict == "PROVED"
    low = float(direct.high.min()) - 1.0  # some input is above
    outcome = prove(Bounds(model["output"], over=x, at_most=low, using=wide))
    assert outcome.verdict == "REFUTED" and "cut" not in outcome.theorem.rules


def test_lemmas_must_fit_the_claim():
    _, model, x, mechanism = setting(2)
    other = setting(3)[1]
    narrow = box(-np.ones(INPUTS), np.zeros(INPUTS))
    for lemma, message in (
        (Bounds(model["mid"], over=x), "takes claims Within"),
        (Within(other["mid"], mechanism, over=x), "another model"),
        (Within(model["mid"], [0] * HIDDEN, over=narrow), "another domain"),
    ):
        with pytest.raises(ClaimError, match=message):
            Bounds(model["output"], over=x, using=[lemma])


def test_a_solver_decides_what_rounding_leaves_open(tmp_path):
    _, model, x, _ = setting(4)
    claim = Bounds(Max(model["late"][0], 0), over=x, at_least=0)
    assert prove(claim, solver=False).verdict == "UNKNOWN"
    outcome = prove(claim, smtlib=tmp_path)
    assert outcome.verdict == "PROVED" and outcome.theorem.axioms[-1] == "solver:z3"
    (query,) = tmp_path.iterdir()
    assert query.read_text().count("(check-sat)") == 1
    with pytest.raises(Rejected, match="solver:z3, which you forbid"):
        kernel.check(outcome.certificate, forbid=["solver:z3"])
    document, weights = parts(outcome.certificate)
    hidden = container.pack({
        "certificate.json": json.dumps(document | {"axioms": ["ieee754", "capture"], "cost": None}).encode(),
        "weights.safetensors": weights,
    })  # fmt: skip
    with pytest.raises(Rejected, match="needs the axioms"):
        kernel.check(hidden)


def test_cases_cover_and_exclude():
    t = tokens("t", length=4, vocab=3)
    rest = [Eq(Mod(sum(t), 3), r) for r in range(3)]
    assert prove(Cases(*rest, over=t)).verdict == "PROVED"
    for wrong in (rest[:2], [*rest, Eq(t[0], 2)], [Eq(Max(*t), v) for v in (0, 2)]):
        outcome = prove(Cases(*wrong, over=t))
        assert outcome.verdict == "REFUTED"
        ids = outcome.theorem.tokens[0]
        values = dict(zip(t, map(int, ids), strict=True))
        assert sum(bool(case.subs(values)) for case in wrong) != 1
    assert prove(Cases(*rest[:2], over=t), solver=False).verdict == "REFUTED"
    rare = Cases(sum(tokens("u", length=12, vocab=9)) <= 95, over=tokens("u", length=12, vocab=9))
    outcome = prove(rare)  # one input of 9^12 breaks it
    assert outcome.verdict == "REFUTED" and outcome.theorem.tokens.tolist() == [[8] * 12]
