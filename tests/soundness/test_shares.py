"""Claims that count: a share of one input too many, another comparison, or a spoilt file proves nothing."""

import hashlib
import itertools

import pytest
from safetensors.numpy import save

from mechverify.kernel import Rejected, check
from tests.soundness import forge
from tests.soundness.forge import setting

ENUMERATE = {"rule": "enumerate"}
INPUTS = [list(ids) for ids in itertools.product(range(3), repeat=2)]
WEIGHTS = save({})
# x0 - x1 as a real number: zero on three of nine inputs, more than zero on three
LEAD = [["value", [], 0], ["value", [], 1], ["integer", [], -1], ["product", [2, 1], None], ["sum", [0, 3], None],
        ["number", [4], None]]  # fmt: skip


def document(nodes=LEAD, proof=ENUMERATE, right=(0, 9), verdict="BOUNDED", **claim) -> dict:
    about = {
        "kind": "share", "semantics": "real", "architecture": "captured", "strict": False, "at_least": None,
        "weights_sha256": hashlib.sha256(WEIGHTS).hexdigest(), "site": "claimed", "position": None,
        "domain": {"tokens": [[0, 1, 2]] * 2, "values": [0, 1, 2]},
        "graph": {"nodes": nodes, "sites": [["claimed", len(nodes) - 1]],
                  "replayed": {"module": "M", "inputs": 0, "difference": "0x0.0p+0"}},
    }  # fmt: skip
    return {
        "format": "mechverify-certificate", "version": 5, "cost": None, "claim": about | claim,
        "conclusion": {"verdict": verdict, "right_at_least": str(right[0]), "right_at_most": str(right[1])},
        "axioms": ["ieee754", "capture"], "proof": proof,
    }  # fmt: skip


def checked(*args, exact=False, **options):
    return check(forge.file(document(*args, **options), WEIGHTS), exact=exact)


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize(("strict", "count"), [(False, 6), (True, 3)])
def test_zero_belongs_to_one_comparison_alone(strict, count, exact):
    assert checked(right=(count, count), strict=strict, exact=exact).right == (count, count)
    for wrong in ((count + 1, 9), (0, count - 1)):
        with pytest.raises(Rejected, match="right inputs stated"):
            checked(right=wrong, strict=strict, exact=exact)


@pytest.mark.parametrize("strict", [False, True])
def test_a_ball_around_zero_counts_for_neither_bound(strict):
    """tanh(x0 - x1): the ball is a little wider than its value, and holds zero where they are equal."""
    nodes = [*LEAD, ["exp", [5], None], ["constant", [], [[], ["-0x1.0000000000000p+0"]]], ["add", [6, 7], None]]
    assert checked(nodes, right=(3, 6), strict=strict).right == (3, 6)
    for wrong in ((4, 9), (0, 5)):
        with pytest.raises(Rejected, match="right inputs stated"):
            checked(nodes, right=wrong, strict=strict)
    ties = [row for row in INPUTS if row[0] == row[1]]
    refuting = {"rule": "counterexample", "inputs": ties[:1]}
    with pytest.raises(Rejected, match="is not shown to be wrong"):  # nothing shows on which side of zero it lies
        checked(nodes, refuting, (0, 8), strict=strict)


def test_counterexamples_are_replayed_by_the_same_comparison():
    ties, below = ([row for row in INPUTS if row[0] - row[1] == d] for d in (0, -1))
    for rows, strict in ((ties, True), (below, False), ([*ties, *below], True)):
        proof = {"rule": "counterexample", "inputs": rows}
        theorem = checked(LEAD, proof, (0, 9 - len(rows)), "REFUTED", strict=strict, at_least="1/1")
        assert theorem.wrong.tolist() == rows
        with pytest.raises(Rejected, match="right inputs stated"):
            checked(LEAD, proof, (0, 8 - len(rows)), strict=strict)
    for rows, strict in ((ties, False), ([below[0], ties[0]], False), ([[2, 1]], True)):
        with pytest.raises(Rejected, match="is not shown to be wrong"):
            checked(LEAD, {"rule": "counterexample", "inputs": rows}, (0, 8), strict=strict)


@pytest.mark.parametrize(("at_least", "verdict", "right"), [
    ("6/9", "PROVED", (6, 9)), ("7/9", "PROVED", None), ("2/3", "REFUTED", None), ("1/1", "REFUTED", None),
])  # fmt: skip
def test_a_threshold_is_reached_by_the_count_or_not(at_least, verdict, right):
    """Enumeration alone refutes nothing: no input was listed."""
    if right:
        assert checked(right=right, verdict=verdict, at_least=at_least).verdict == verdict
    else:
        with pytest.raises(Rejected, match=r"doesn't reach|is not refuted"):
            checked(right=(6, 6), verdict=verdict, at_least=at_least)


def test_an_overflow_is_no_positive_number():
    """2^1026 less 20 times 2^1023 is negative; added up in float64 it stays infinite."""
    big = (2.0**1023).hex()
    nodes = [["constant", [], [[], [big]]], ["constant", [], [[], [(8.0).hex()]]], ["mul", [0, 1], None]]
    for _ in range(20):
        nodes.append(["sub", [len(nodes) - 1, 0], None])
    with pytest.raises(Rejected, match="right inputs stated"):
        checked(nodes, right=(9, 9))
    with pytest.raises(Rejected, match="right inputs stated"):
        checked(nodes, right=(1, 9))
    assert checked(nodes, right=(0, 0), exact=True).right == (0, 0)


@pytest.mark.parametrize("proof", [ENUMERATE, {"rule": "enumerate", "exactly": True}])
def test_a_cosine_of_more_turns_than_float64_counts(proof):
    """cos(-2.17e16) = -0.81, whose sine is 0.58: float64 knows neither, and twice its digits took one for the other."""
    nodes = [["constant", [], [[], [(-2.169798470157704e16).hex()]]], ["cos", [0], None]]
    for exact in (False, True):
        assert checked(nodes, proof, right=(0, 0), exact=exact).right == (0, 0)
        with pytest.raises(Rejected, match="right inputs stated"):
            checked(nodes, proof, right=(9, 9), verdict="PROVED", at_least="1/1", exact=exact)


CHANGES = {
    "version 4": (setting("version", 4), "share isn't written in version 4"),
    "float32": (setting("claim", "semantics", "float32"), "which rows of the graph are the module's"),
    "float16": (setting("claim", "semantics", "float16"), "known: real, float32"),
    "a known architecture": (setting("claim", "architecture", "transformer"), "known: captured"),
    "no comparison": (lambda doc: doc["claim"].pop("strict"), "field 'strict' is missing"),
    "a comparison that is no truth value": (setting("claim", "strict", 1), "expected true or false"),
    "a mechanism": (setting("claim", "equals", [["value", [], 0]]), "unknown fields"),
    "a margin": (setting("claim", "margin", "1/2"), "unknown fields"),
    "real inputs": (setting("claim", "domain", "inputs", []), "unknown fields"),
    "no axiom": (setting("axioms", ["ieee754"]), "needs the axioms"),
    "an integer": (setting("claim", "graph", "sites", [["claimed", 4]]), "is not a vector of outputs"),
    "two entries": (setting("claim", "graph", "nodes", [*LEAD, ["view", [5], [[2], 0, [0]]]]), "has 2 entries"),
    "more than all": (setting("claim", "at_least", "10/9"), "a fraction 'p/q' of at most one"),
    "rule fold": (setting("proof", forge.fold()), "known: enumerate"),
    "rule relaxation": (setting("proof", {"rule": "relaxation"}), "field .to. is missing"),
    "rule cut": (setting("proof", {"rule": "cut"}), "known: enumerate"),
}  # fmt: skip


@pytest.mark.parametrize("what", CHANGES)
def test_what_makes_no_claim_is_rejected(what):
    change, message = CHANGES[what]
    doc = document()
    assert check(forge.file(doc, WEIGHTS)).verdict == "BOUNDED"
    change(doc)
    if what == "two entries":
        doc["claim"]["graph"]["sites"] = [["claimed", 6]]
    with pytest.raises(Rejected, match=message):
        check(forge.file(doc, WEIGHTS))


def test_a_part_that_is_left_open_bounds_nothing():
    proof = {"rule": "split", "position": 0, "first": [2], "inside": ENUMERATE, "outside": {"rule": "open"}}
    assert checked(LEAD, proof, (3, 9)).right == (3, 9)
    with pytest.raises(Rejected, match="right inputs stated"):
        checked(LEAD, proof, (4, 9))
    both = {"rule": "both", "first": proof, "second": {"rule": "counterexample", "inputs": [[0, 1]]}}
    assert checked(LEAD, both, (3, 8)).right == (3, 8)
