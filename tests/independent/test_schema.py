"""The published JSON Schema accepts good certificates, and refuses malformed ones."""

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from jsonschema import Draft202012Validator

from tests.independent import bounds as second
from tests.independent import checker
from tests.independent.test_agreement import KINDS, SEMANTICS, changed, good
from tests.soundness import bounds, forge, networks
from tests.soundness.networks import Maker, Network, given

SCHEMA = json.loads((Path(__file__).parents[2] / "docs" / "certificate.schema.json").read_text())
VALIDATOR = Draft202012Validator(SCHEMA)
GROUP = [-8, [0, 1]]
PARTS = {"inside": {"rule": "enumerate"}, "outside": {"rule": "enumerate"}}


def document(proof: dict[str, Any] | None = None, **options: Any) -> dict[str, Any]:
    return forge.document(b"", proof or {"rule": "enumerate"}, **options)


def with_row(*row: Any) -> dict[str, Any]:
    return document(forge.fold([list(row)]))


def test_the_schema_is_one() -> None:
    Draft202012Validator.check_schema(SCHEMA)


@pytest.mark.parametrize(("kind", "semantics"), list(itertools.product(KINDS, SEMANTICS)))
def test_good_certificates_validate(kind: str, semantics: str) -> None:
    if made := good(kind, semantics, 0):
        VALIDATOR.validate(made[0])


def test_rule_compact_validates() -> None:
    scores = {"left": ["0x1.8p+0"], "right": ["-1/2"], "remainder": "svd"}
    for rivals, tokens, limit in (
        ("apart", "each", "-0x1.0p-3"),
        ("scaled", "ascending", 7),
        ("together", "descending", 0),
    ):
        passes = [(rivals, tokens, 1, [[0, 1, [limit, limit]]])]
        VALIDATOR.validate(document(forge.compact(passes, scores=scores, base="mean")))
        VALIDATOR.validate(document(forge.compact(passes)))


@pytest.mark.parametrize("margin", ["0/1", "1/3", "0x1.8000000000000p-4", "0x0.0p+0", "-0/1", "-0x0.0p+0"])
def test_margins_validate(margin: str) -> None:
    assert checker.margin_of(margin) >= 0
    VALIDATOR.validate(document(margin=margin))


def test_networks_with_mlps_validate() -> None:
    doc = document(forge.fold(trials=256), architecture="transformer_relu")
    for site in ("resid_mid", "mlp.pre", "mlp.post", "mlp_out", "resid_post"):
        VALIDATOR.validate(changed(doc, "claim.site", f"blocks.12.{site}"))
    pair = changed(document(architecture="pair_mlp", tokens=[[0]] * 2), "claim.position", None)
    for site in ("embed_x", "embed_y", "pre", "hidden", "logits"):
        VALIDATOR.validate(changed(pair, "claim.site", site))


@pytest.mark.parametrize(
    "node",
    [["value", [], 2], ["integer", [], -5], ["sum", [0, 0], None], ["product", [0], None], ["max", [0], None],
     ["min", [0], None], ["and", [0], None], ["or", [0], None], ["kth_largest", [0, 0], 2], ["not", [0], None],
     ["eq", [0, 0], None], ["lt", [0, 0], None], ["le", [0, 0], None], ["mod", [0], 3], ["floordiv", [0], 2],
     ["where", [0, 0, 0], None], ["lookup", [0], [3, -1]]],
    ids=lambda node: node[0],
)  # fmt: skip
def test_every_operation_validates(node: list) -> None:
    assert node[0] in {*checker.OPERATIONS, "value", "integer"}
    VALIDATOR.validate(document(equals=[["value", [], 0], node]))
    for other in ([*node, None], [node[0], node[1], "1"], [node[0], 0, node[2]], [node[0], [-1], node[2]], node[:2]):
        assert not VALIDATOR.is_valid(document(equals=[["value", [], 0], other]))


MALFORMED = {
    "another format": changed(document(), "format", "certificate"),
    "another version": changed(document(), "version", 1),
    "a missing field": {k: v for k, v in document().items() if k != "axioms"},
    "an unknown field": changed(document(), "claim.note", "?"),
    "a count that is a number": changed(document(), "conclusion.right_at_least", 3),
    "a count with a leading zero": changed(document(), "conclusion.right_at_most", "007"),
    "an unknown verdict": document(verdict="MAYBE"),
    "a verdict without a threshold": document(verdict="PROVED"),
    "a threshold that is no fraction": document(at_least="0.5"),
    "a threshold over 0": document(at_least="1/0"),
    "a digest in capitals": changed(document(), "claim.weights_sha256", "A" * 64),
    "unknown semantics": document(semantics="float64"),
    "an axiom too many": changed(document(), "axioms", ["ieee754", "libm:float32"]),
    "an axiom too few": changed(document(semantics="float32"), "axioms", ["ieee754"]),
    "a token id that is text": document(tokens=[["0"]]),
    "a token id that is true": document(tokens=[[True]]),
    "a token twice": document(tokens=[[0, 0]]),
    "no tokens": document(tokens=[[]]),
    "a value of 2^62": document(values=[2**62]),
    "a negative position": document(position=-1),
    "an unknown site": changed(document(), "claim.site", "blocks.00.attn_out"),
    "an empty mechanism": document(equals=[]),
    "an unknown operation": document(equals=[["value", [], 0], ["median", [0], None]]),
    "mod 0": document(equals=[["value", [], 0], ["mod", [0], 0]]),
    "an unknown rule": document({"rule": "axiom"}),
    "thresholds in another form": document(forge.compact([("together", "each", 0, [[0, 1, [3]]])])),
    "an order of numbers": document(forge.compact([("together", "ascending", 0, [[0, 1, ["0x1.8p+0"]]])])),
    "rivals apart in an order": document(forge.compact([("apart", "ascending", 0, [[0, 1, [3]]])])),
    "nine loose tokens": document(forge.compact([("together", "ascending", 9, [])])),
    "an unknown remainder": document(forge.compact(scores={"left": ["1/2"], "right": ["1/2"], "remainder": "none"})),
    "no inputs": document({"rule": "counterexample", "inputs": []}),
    "an input twice": document({"rule": "counterexample", "inputs": [[0, 0, 0], [0, 0, 0]]}),
    "a split of one proof": document({"rule": "split", "position": 0, "first": [0], "inside": {"rule": "enumerate"}}),
    "a split by no token": document({"rule": "split", "position": 0, "first": [], **PARTS}),
    "another rule's field": document({"rule": "both", "first": {"rule": "enumerate"}, "second": {"rule": "fold"}}),
    "nine keys": document(forge.fold(keys=[[["integer", [], 0]]] * 9)),
    "a class that is a number": with_row(0, 1, [GROUP], None),
    "a listed cell with a lower count": with_row(0, [1], None, [-8, [0]]),
    "two rivals from below": with_row(0, [1], [GROUP], GROUP),
    "no rivals": with_row(0, [1], [[-8, []]], None),
    "a step out of range": with_row(0, [1], [[1001, [0]]], None),
    "a margin that is a number": document(margin=1),
    "a margin of null": changed(document(), "claim.margin", None),
    "a margin in decimals": document(margin="0.5"),
    "a margin over 0": document(margin="1/0"),
    "a margin that is infinite": document(margin="inf"),
    "a negative margin": document(margin="-1/2"),
    "a negative margin of large parts": document(margin="-10/1"),
    "a negative float64": document(margin=(-0.5).hex()),
    "a negative subnormal": document(margin=(-(2.0**-1074)).hex()),
    "no trials": changed(document(forge.fold()), "proof.trials", 0),
    "too many trials": document(forge.fold(trials=257)),
    "trials that are true": changed(document(forge.fold()), "proof.trials", True),
    "trials of null": changed(document(forge.fold()), "proof.trials", None),
    "trials of another rule": changed(document(), "proof.trials", 1),
    "a network with MLPs without a position": changed(
        document(architecture="transformer_relu"), "claim.position", None
    ),
    "an unknown site of an MLP": changed(
        document(architecture="transformer_relu"), "claim.site", "blocks.0.mlp.hidden"
    ),
    "a row too short": with_row(0, [1], [GROUP]),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_certificates_dont(name: str) -> None:
    assert not VALIDATOR.is_valid(MALFORMED[name])


# --- version 3 --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", bounds.bases())
def test_good_bounds_validate(name: str) -> None:
    VALIDATOR.validate(bounds.bases()[name][0])


def test_random_networks_validate() -> None:
    """All operations and attributes that the kernel reads."""
    seen = set()
    for seed in range(60):
        rng = np.random.default_rng([41, seed])
        net = Maker(rng).network(8)
        doc, data = networks.document(net)
        second.Claim(doc["claim"], data)
        VALIDATOR.validate(doc)
        seen |= {row[0] for row in net.rows}
    assert seen >= {
        *second.FUNCTIONS,
        "pi",
        "number",
        "pick",
        "value",
        "mod",
        "where",
        "tokens",
        "gather",
        "view",
        "concat",
        "einsum",
        "softmax",
        "power",
        "over_root",
    }


UNIT, _ = networks.document(Network([given(1), ["relu", [0], None]], {}, [(np.zeros(1), np.ones(1))], [], 0))
LEAF = {"rule": "relaxation", "lines": None}
CUT = {"rule": "split", "coordinate": 0, "at": "1/2", "inside": LEAF, "outside": LEAF}


def test_proofs_of_bounds_validate() -> None:
    point = {"rule": "point", "inputs": [[[], ["0x1.0000000000000p+0"]], [[], ["-1/3"]]]}
    token = {"rule": "split", "position": 0, "first": [1], "inside": LEAF, "outside": point}
    lines = {"rule": "relaxation", "lines": [["output", "2[0,:].total", -16, [1, -2], [0, 4]]]}
    node = {"rule": "split", "node": 1, "entry": 0, "at": "1/2", "inside": {"rule": "relaxation"}, "outside": lines}
    for proof in (LEAF, point, CUT, token, lines, node, {"rule": "both", "first": CUT, "second": token}):
        VALIDATOR.validate(changed(UNIT, "proof", proof))


def with_operation(*row: Any) -> dict[str, Any]:
    return changed(UNIT, "claim.graph.nodes", [given(1), list(row)])


COSTLESS = document(), {k: v for k, v in UNIT.items() if k != "cost"}


@pytest.mark.parametrize("cost", [None, "0", "5000000000", "1" + 18 * "0"])
def test_costs_validate(cost: str | None) -> None:
    for one, version in itertools.product(COSTLESS, (4, 5)):
        VALIDATOR.validate({**one, "version": version, "cost": cost})
        assert checker.announced({**one, "version": version, "cost": cost}) == {**one, "version": version}


@pytest.mark.parametrize("cost", ["", "-1", "01", "1e9", 5, [], "1" + 19 * "0", "2" + 18 * "0"])
def test_malformed_costs_dont_validate(cost: Any) -> None:
    for one, version in itertools.product(COSTLESS, (4, 5)):
        assert not VALIDATOR.is_valid({**one, "version": version, "cost": cost})
        with pytest.raises(checker.Rejected):
            checker.announced({**one, "version": version, "cost": cost})


def test_versions_from_4_on_have_a_cost() -> None:
    for one, old in zip(COSTLESS, (2, 3), strict=True):
        assert not VALIDATOR.is_valid({**one, "version": 4}) and not VALIDATOR.is_valid({**one, "version": 5})
        assert not VALIDATOR.is_valid({**one, "version": old, "cost": "5"})


MALFORMED_BOUNDS = {
    "an accuracy claim's version": changed(UNIT, "version", 2),
    "an accuracy claim": changed(document(), "version", 3),
    "float32": changed(UNIT, "claim.semantics", "float32"),
    "another architecture": changed(UNIT, "claim.architecture", "transformer"),
    "no capture": changed(UNIT, "axioms", ["ieee754"]),
    "no inputs": changed(UNIT, "claim.domain", {"tokens": [], "values": []}),
    "nothing to read": changed(UNIT, "claim.domain.inputs", []),
    "a corner that is a number": changed(UNIT, "claim.domain.inputs", [[[1], [0], ["1/1"]]]),
    "a corner too few": changed(UNIT, "claim.domain.inputs", [[[1], ["1/1"]]]),
    "a size of zero": changed(UNIT, "claim.domain.inputs", [[[0], [], []]]),
    "a threshold in decimals": changed(UNIT, "claim.at_most", "0.5"),
    "a threshold over zero": changed(UNIT, "claim.at_most", ["1/0"]),
    "an end that is no float": changed(UNIT, "conclusion.low", ["inf"]),
    "an end as a number": changed(UNIT, "conclusion.high", [1]),
    "counts": changed(UNIT, "conclusion", document()["conclusion"]),
    "a verdict without a threshold": changed(UNIT, "conclusion.verdict", "PROVED"),
    "a negative position": changed(UNIT, "claim.position", -1),
    "a mechanism": changed(UNIT, "claim.equals", forge.MAX),
    "an empty graph": changed(UNIT, "claim.graph.nodes", []),
    "a site without a node": changed(UNIT, "claim.graph.sites", [["output"]]),
    "nothing replayed": changed(UNIT, "claim.graph.replayed", {}),
    "an operation of the kernel's own": with_operation("pivot", [0], None),
    "a slice": with_operation("select", [0], [0, 0]),
    "a function of two": with_operation("relu", [0, 0], None),
    "a function with an attribute": with_operation("relu", [0], 1),
    "a sum of one": with_operation("add", [0], None),
    "concat of nothing": with_operation("concat", [], 0),
    "power 1": with_operation("power", [0], 1),
    "power 17": with_operation("power", [0], 17),
    "einsum of one": with_operation("einsum", [0, 0], "a->a"),
    "einsum in capitals": with_operation("einsum", [0, 0], "A,A->A"),
    "a mask that keeps nothing": with_operation("softmax", [0], ["0"]),
    "a mask of no rows": with_operation("softmax", [0], []),
    "softmax of none": with_operation("softmax", [0], 0),
    "a view without strides": with_operation("view", [0], [[1], 0]),
    "a view from before the start": with_operation("view", [0], [[1], -1, [1]]),
    "a constant as numbers": with_operation("constant", [], [[1], [1]]),
    "enumerate": changed(UNIT, "proof", {"rule": "enumerate"}),
    "multipliers alone": changed(UNIT, "proof", {"rule": "relaxation", "multipliers": []}),
    "a line too short": changed(UNIT, "proof", {"rule": "relaxation", "lines": [["0", "0", 0, [1]]]}),
    "a line's exponent": changed(UNIT, "proof", {"rule": "relaxation", "lines": [["0", "0", 901, [1], [1]]]}),
    "no points": changed(UNIT, "proof", {"rule": "point", "inputs": []}),
    "a point without numbers": changed(UNIT, "proof", {"rule": "point", "inputs": [[[]]]}),
    "a cut without a place": changed(UNIT, "proof", {k: v for k, v in CUT.items() if k != "at"}),
    "a cut of both kinds": changed(UNIT, "proof", {**CUT, "position": 0, "first": [0]}),
}


def test_the_unit_document_validates() -> None:
    VALIDATOR.validate(UNIT)


@pytest.mark.parametrize("name", MALFORMED_BOUNDS)
def test_malformed_bounds_dont_validate(name: str) -> None:
    assert not VALIDATOR.is_valid(MALFORMED_BOUNDS[name])
