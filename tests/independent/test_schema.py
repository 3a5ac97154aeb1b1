"""The published JSON Schema accepts good certificates, and refuses malformed ones."""

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from tests.independent import checker
from tests.independent.test_agreement import KINDS, SEMANTICS, changed, good
from tests.soundness import forge

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


@pytest.mark.parametrize(
    "node",
    [["value", [], 2], ["integer", [], -5], ["sum", [0, 0], None], ["product", [0], None], ["max", [0], None],
     ["min", [0], None], ["and", [0], None], ["or", [0], None], ["kth_largest", [0, 0], 2], ["not", [0], None],
     ["eq", [0, 0], None], ["lt", [0, 0], None], ["le", [0, 0], None], ["mod", [0], 3], ["floordiv", [0], 2],
     ["where", [0, 0, 0], None]],
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
    "a row too short": with_row(0, [1], [GROUP]),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_certificates_dont(name: str) -> None:
    assert not VALIDATOR.is_valid(MALFORMED[name])
