"""Planted false claims that count, of the benchmark's table: none is proved, neither by the search nor with the proof of
the true claim that it differs from by one step."""

import copy
import json
import math
from functools import cache

import numpy as np
import pytest

from benchmarks.planted_shares import FALSE_SECONDS, SECONDS, Pair, on_boxes, on_tokens, on_unions
from mechverify import prove
from mechverify.certificate.write import claim_document
from mechverify.kernel import Rejected, check
from mechverify.kernel.core import container
from mechverify.provers.accuracy.problem import AccuracyProblem
from tests.independent import shares
from tests.rounds import few
from tests.soundness import forge
from tests.soundness.test_guards import DISTINCT
from tests.soundness.test_shares import ENUMERATE, LEAD, WEIGHTS, document

FAULTS = (
    "a share too high by one input", "a guard dropped", "a guard widened", "a wrong decoder", "another comparison",
    "a union's size off by one", "sequences of two sets counted twice", "a set dropped from a union",
    "a box too large by an ulp", "a share of a box too high by a millionth", "a box dropped from a union",
    "a box counted twice where two overlap", "a share of a union too high", "a box of a union too large by an ulp",
)  # fmt: skip


@cache
def pairs() -> list[Pair]:
    return [*on_tokens(0), *on_boxes(), *on_unions()]


def test_the_benchmark_plants_every_kind():
    assert {p.fault for p in pairs()} == set(FAULTS) and len(pairs()) >= 40


@pytest.mark.parametrize(("fault", "number"), few([(f, n) for n in range(3) for f in FAULTS], 14))
def test_no_false_claim_is_proved(fault, number):
    of_kind = [p for p in pairs() if p.fault == fault]
    pair = of_kind[number % len(of_kind)]
    honest, false = prove(pair.true, time_limit=SECONDS), prove(pair.false, time_limit=FALSE_SECONDS)
    assert honest.verdict == "PROVED" and false.verdict in ("REFUTED", "UNKNOWN")
    contents = container.unpack(honest.certificate)
    document_, weights = json.loads(contents["certificate.json"]), contents["weights.safetensors"]
    document_["claim"], document_["cost"] = claim_document(pair.false, "real"), None
    total = AccuracyProblem.of(pair.false, "real").claim.total
    for low in {int(document_["conclusion"]["right_at_least"]), math.ceil(pair.false.at_least * total)}:
        document_["conclusion"] |= {"right_at_least": str(low), "right_at_most": str(max(low, total))}
        with pytest.raises(Rejected):
            check(forge.file(json.loads(json.dumps(document_)), weights))


def test_corrupted_certificates_are_rejected_or_true():
    """One or two random changes: a file that is still accepted states what the second checker counts."""
    rng, accepted, rejected = np.random.default_rng(0), 0, 0
    split = {"rule": "split", "position": 0, "first": [2], "inside": ENUMERATE, "outside": ENUMERATE}
    listed = {"rule": "both", "first": split, "second": {"rule": "counterexample", "inputs": [[0, 1], [1, 2]]}}
    for trial in range(400):
        doc = copy.deepcopy(document(LEAD, listed, (3, 3), "PROVED", given=DISTINCT, at_least="1/2"))
        places = [p for p in forge.places({k: doc[k] for k in ("claim", "conclusion", "proof")}) if "replayed" not in p]
        for _ in range(1 + trial % 2):
            place = places[int(rng.integers(len(places)))]
            try:
                forge.spoil_leaf(doc, place, rng)
            except (TypeError, KeyError, IndexError):  # the first change took the place away
                continue
        try:
            theorem = check(forge.file(doc, WEIGHTS))
        except Rejected:
            rejected += 1
            continue
        accepted += 1
        low, high = shares.truth(doc["claim"], WEIGHTS)
        assert theorem.right.low <= low and high <= theorem.right.high
        assert theorem.verdict != "PROVED" or low >= theorem.claim.at_least * theorem.claim.total
    assert accepted > 10 and rejected > 200
