"""Each rule at its edge, on models whose truth is known by hand: what is one step too strong is rejected."""

import hashlib

import numpy as np
import pytest

from mechverify.kernel import Rejected, check
from mechverify.kernel.core.errors import OverLimit
from tests.models import as_bytes
from tests.soundness import forge

CONSTANT = [["integer", [], 0]]


def near_tie(difference: float) -> bytes:
    """Two tokens, two positions, two outputs: y = [1 + 2^-70 + difference, 1 + 2^-70] on every input. Float64 can't see
    a difference of 1e-20, nor one of 1e-45 with twice its digits, so there it is open who wins."""
    zero = np.zeros((1, 2, 1))
    return as_bytes({
        "embed.W_E": np.ones((2, 2)), "pos_embed.W_pos": np.zeros((2, 2)),
        "unembed.W_U": np.array([[difference, 0.0], [2.0**-70, 2.0**-70]]), "unembed.b_U": np.ones(2),
        **{f"blocks.0.attn.W_{c}": zero for c in "QKV"}, "blocks.0.attn.W_O": np.zeros((1, 1, 2)),
    })  # fmt: skip


def echo() -> bytes:
    """Two tokens, two positions: the output at the last position is the last token, with margin 1."""
    zero = np.zeros((1, 2, 1))
    return as_bytes({
        "embed.W_E": np.eye(2), "pos_embed.W_pos": np.zeros((2, 2)), "unembed.W_U": np.eye(2),
        **{f"blocks.0.attn.W_{c}": zero for c in "QKV"}, "blocks.0.attn.W_O": np.zeros((1, 1, 2)),
    })  # fmt: skip


def accepted(data: bytes, proof: dict, right: tuple, equals=CONSTANT, exact=False, change=None, **options) -> bool:
    document = forge.document(data, proof, equals=equals, vocab=2, length=2, position=1, right=right, **options)
    if change:
        change(document)
    try:
        check(forge.file(document, data), exact=exact)
    except Rejected:
        return False
    return True


ENUMERATE = {"rule": "enumerate"}
FOLD = forge.fold()
LISTED = forge.fold([[q, [m], None, None] for q in (0, 1) for m in (0,)])


@pytest.mark.parametrize("proof", [ENUMERATE, FOLD, LISTED], ids=["enumerate", "fold", "listed"])
@pytest.mark.parametrize(("difference", "right"), [(1e-45, 4), (-1e-45, 0), (0.0, 0)])
def test_what_no_digits_show_stays_open(proof, difference, right):
    data = near_tie(difference)
    if proof is LISTED:
        assert accepted(data, proof, (right, right), exact=True)
    assert accepted(data, proof, (0, 4))
    assert not accepted(data, proof, (1, 4)) and not accepted(data, proof, (0, 3))
    assert accepted(data, ENUMERATE, (right, right), exact=True)
    for wrong in ((right + 1, 4), (0, right - 1)):
        if 0 <= wrong[0] <= wrong[1] <= 4:
            assert not accepted(data, proof, wrong, exact=True)


@pytest.mark.parametrize(("difference", "right"), [(1e-20, 4), (-1e-20, 0)])
def test_what_float64_cannot_see_is_run_with_twice_its_digits(difference, right):
    data = near_tie(difference)
    assert accepted(data, ENUMERATE, (right, right)) and not accepted(data, FOLD, (right, right))
    assert not accepted(data, ENUMERATE, (4 - right, 4 - right))


def test_a_counterexample_must_be_surely_wrong():
    listed = {"rule": "counterexample", "inputs": [[0, 0]]}
    assert not accepted(near_tie(1e-20), listed, (0, 3)) and not accepted(near_tie(1e-20), listed, (0, 3), exact=True)
    for exact in (False, True):  # what float64 leaves open is replayed in exact arithmetic
        assert accepted(near_tie(-1e-20), listed, (0, 3), exact=exact)
        assert accepted(near_tie(0.0), listed, (0, 3), exact=exact)
        assert not accepted(near_tie(1e-20), listed, (0, 3), exact=exact)


@pytest.mark.parametrize(("inputs", "good"), [
    ([[0, 1]], True), ([[0, 1], [1, 1]], True), ([[0, 1], [0, 1]], False), ([[0, 1], [0, 0]], False),
    ([[0, 2]], False), ([[0]], False), ([], False),
])  # fmt: skip
def test_listed_inputs_are_distinct_and_wrong(inputs, good):
    """The echo says 1 where the last token is 1; the mechanism says 0."""
    right = (0, 4 - len(inputs))
    assert accepted(echo(), {"rule": "counterexample", "inputs": inputs}, right) is good


def test_a_counterexample_belongs_to_its_part():
    def split(inputs):
        inside = {"rule": "counterexample", "inputs": inputs}
        return {"rule": "split", "position": 0, "first": [0], "inside": inside, "outside": ENUMERATE}

    assert accepted(echo(), split([[0, 1]]), (1, 2))  # inside: at most 1 of 2; outside: 1 of 2
    assert not accepted(echo(), split([[0, 1], [1, 1]]), (1, 1))


def test_a_value_that_is_no_output_is_wrong():
    for proof in (ENUMERATE, FOLD):
        assert accepted(echo(), proof, (0, 0), equals=[["integer", [], 2]])
        assert accepted(echo(), proof, (0, 0), equals=[["integer", [], -1]])
        assert not accepted(echo(), proof, (1, 4), equals=[["integer", [], -1]])
        assert not accepted(echo(), proof, (2, 4), equals=[["integer", [], 2]])


LAST = [["value", [], 1]]


def version_5(document: dict) -> None:
    document |= {"version": 5, "cost": None}


@pytest.mark.parametrize(("difference", "right"), [(1e-45, 4), (-1e-45, 0), (0.0, 0)])
def test_what_is_left_open_is_decided_in_exact_arithmetic_where_the_file_says_so(difference, right):
    data, exactly = near_tie(difference), {**ENUMERATE, "exactly": True}
    assert accepted(data, exactly, (right, right), change=version_5)
    assert accepted(data, exactly, (right, right), change=version_5, exact=True)
    assert not accepted(data, {**ENUMERATE, "exactly": False}, (right, right), change=version_5)
    assert not accepted(data, exactly, (right, right))  # version 2 has no such field
    for wrong in ((right + 1, 4), (0, right - 1)):
        if 0 <= wrong[0] <= wrong[1] <= 4:
            assert not accepted(data, exactly, wrong, change=version_5)
    half = {"rule": "split", "position": 0, "first": [0], "inside": exactly, "outside": ENUMERATE}
    assert accepted(data, half, (right // 2, right // 2 + 2), change=version_5)
    assert not accepted(data, half, (right // 2 + 1, right // 2 + 2), change=version_5)
    for other in (1, None, "true", []):
        assert not accepted(data, {**ENUMERATE, "exactly": other}, (0, 4), change=version_5)


def test_only_what_is_left_open_is_run_in_exact_arithmetic():
    """The output is [1 + 1, 1] where the last token is 0, and [1 - 1e-45, 1] where it is 1, and 2^-70 more."""
    weights = near_tie(1e-45)
    data = weights.replace(np.ones((2, 2)).tobytes(), np.array([[1e45, 1.0], [-1.0, 1.0]]).tobytes(), 1)
    assert data != weights
    exactly = {**ENUMERATE, "exactly": True}
    assert accepted(data, ENUMERATE, (2, 4), change=version_5) and accepted(data, exactly, (2, 2), change=version_5)
    assert not accepted(data, ENUMERATE, (2, 2), change=version_5)
    assert not accepted(data, exactly, (3, 4), change=version_5) and not accepted(
        data, exactly, (0, 1), change=version_5
    )


def test_what_overflows_in_float64_is_decided_in_exact_arithmetic():
    """The output is [1e308 + 1e308, 1] on every input."""
    zero = np.zeros((1, 1, 1))
    data = as_bytes({
        "embed.W_E": np.ones((2, 1)), "pos_embed.W_pos": np.ones((2, 1)), "unembed.W_U": np.array([[1e308, 0.0]]),
        "unembed.b_U": np.ones(2), **{f"blocks.0.attn.W_{c}": zero for c in "QKVO"},
    })  # fmt: skip
    assert accepted(data, ENUMERATE, (0, 4), change=version_5)
    assert not accepted(data, ENUMERATE, (1, 4), change=version_5)
    assert not accepted(data, ENUMERATE, (0, 3), change=version_5)
    assert accepted(data, {**ENUMERATE, "exactly": True}, (4, 4), change=version_5)
    assert not accepted(data, {**ENUMERATE, "exactly": True}, (0, 3), change=version_5)


def test_the_work_of_exact_arithmetic_is_counted():
    document = forge.document(near_tie(1e-45), {**ENUMERATE, "exactly": True}, equals=CONSTANT, vocab=2, length=2,
                              position=1, right=(4, 4))  # fmt: skip
    version_5(document)
    plain = forge.document(near_tie(1.0), {**ENUMERATE, "exactly": True}, equals=CONSTANT, vocab=2, length=2,
                           position=1, right=(4, 4))  # fmt: skip
    version_5(plain)
    dear, cheap = (check(forge.file(d, w)).work for d, w in ((document, near_tie(1e-45)), (plain, near_tie(1.0))))
    assert dear > 3 * cheap
    with pytest.raises(OverLimit):
        check(forge.file(document, near_tie(1e-45)), limit=(dear + cheap) // 2)


def test_a_part_that_is_left_open_bounds_nothing():
    """The echo is right on two of four."""
    opened = {"rule": "open"}
    assert accepted(echo(), opened, (0, 4), change=version_5)
    assert not accepted(echo(), opened, (1, 4), change=version_5)
    assert not accepted(echo(), opened, (0, 3), change=version_5)
    assert not accepted(echo(), {**opened, "inputs": []}, (0, 4), change=version_5)
    assert not accepted(echo(), opened, (0, 4))  # version 2 has no such rule
    half = {"rule": "split", "position": 1, "first": [0], "inside": ENUMERATE, "outside": opened}
    assert accepted(echo(), half, (2, 4), change=version_5)
    assert not accepted(echo(), half, (3, 4), change=version_5)
    assert not accepted(echo(), half, (2, 3), change=version_5)
    share = {"verdict": "REFUTED", "at_least": "1/1"}
    assert not accepted(echo(), half, (2, 3), change=version_5, **share)


def test_split_and_both_combine_bounds():
    proof = {"rule": "split", "position": 1, "first": [0], "inside": ENUMERATE, "outside": ENUMERATE}
    assert accepted(echo(), proof, (2, 2)) and accepted(echo(), proof, (4, 4), equals=LAST)
    assert not accepted(echo(), proof, (3, 4)) and not accepted(echo(), proof, (0, 1))
    half = {**proof, "inside": FOLD, "outside": {"rule": "counterexample", "inputs": [[0, 1]]}}
    assert accepted(echo(), half, (2, 3)) and not accepted(echo(), half, (3, 3)) and not accepted(echo(), half, (2, 2))
    weak = {"rule": "counterexample", "inputs": [[0, 1]]}
    both = {"rule": "both", "first": weak, "second": forge.fold(only=[])}
    assert accepted(echo(), both, (0, 3)) and not accepted(echo(), both, (1, 3)) and not accepted(echo(), both, (0, 2))
    both = {"rule": "both", "first": ENUMERATE, "second": weak}
    assert accepted(echo(), both, (2, 2)) and not accepted(echo(), both, (3, 3)) and not accepted(echo(), both, (0, 1))
    for first in ([], [0, 1]):
        assert not accepted(echo(), {**proof, "first": first}, (0, 4))


def test_the_right_output_is_no_rival_and_rivals_are_outputs():
    for rivals in ([0], [0, 1], [2], [-1], []):
        cells = [[1, [0], [[0, rivals]], None]]
        assert not accepted(echo(), forge.fold(cells), (0, 4)), rivals
    assert accepted(echo(), forge.fold([[1, [0], [[-4, [1]]], [-4, [1]]]]), (2, 2))
    assert not accepted(echo(), forge.fold([[1, [0], [], [-4, [0]]]]), (0, 4))


def test_inputs_lost_to_different_rivals_add_up():
    """Three tokens; the first decides: 1 makes output 1 win, 2 output 2; the mechanism says 0."""
    zero, value = np.zeros((1, 3, 3)), np.diag([0.0, 40.0, 40.0])[None]
    data = as_bytes({
        "embed.W_E": np.eye(3), "pos_embed.W_pos": np.zeros((2, 3)), "unembed.W_U": np.eye(3),
        "blocks.0.attn.W_Q": zero, "blocks.0.attn.W_K": zero, "blocks.0.attn.W_V": value,
        "blocks.0.attn.W_O": np.eye(3)[None],
    })  # fmt: skip
    shape = dict(equals=CONSTANT, vocab=3, length=2, position=1, tokens=[[0, 1, 2], [0]])
    for groups, most in (([[-4, [1]], [-4, [2]]], 2), ([[-4, [1, 2]]], 2), ([[-4, [1]]], 3), ([], 3), (None, 2)):
        for high in range(4):
            document = forge.document(data, forge.fold([[0, [0], groups, None]]), right=(3 - high, 3), **shape)
            if high >= most:
                assert check(forge.file(document, data)).right.low == 3 - high
            else:
                with pytest.raises(Rejected, match="right inputs stated"):
                    check(forge.file(document, data))


def test_conclusions_follow_from_what_is_proved():
    refuting = {"rule": "both", "first": {"rule": "counterexample", "inputs": [[0, 1]]}, "second": ENUMERATE}
    loose = {"rule": "counterexample", "inputs": [[0, 1]]}
    for proof, right, verdict, at_least, good in [
        (ENUMERATE, (2, 2), "PROVED", "1/2", True), (ENUMERATE, (2, 2), "PROVED", "51/100", False),
        (loose, (0, 3), "PROVED", "1/2", False), (ENUMERATE, (2, 2), "PROVED", None, False),
        (refuting, (2, 2), "REFUTED", "51/100", True), (refuting, (2, 2), "REFUTED", "1/2", False),
        (loose, (0, 3), "REFUTED", "3/4", False), (loose, (0, 3), "REFUTED", "4/5", True),
        (ENUMERATE, (2, 2), "REFUTED", "1/1", False), (refuting, (2, 2), "REFUTED", None, False),
        (ENUMERATE, (2, 2), "TRUE", "1/2", False), (ENUMERATE, (1, 3), "BOUNDED", None, True),
        (ENUMERATE, (3, 2), "BOUNDED", None, False), (loose, (2, 2), "BOUNDED", None, False),
    ]:  # fmt: skip
        assert accepted(echo(), proof, right, verdict=verdict, at_least=at_least) is good, (
            proof,
            right,
            verdict,
            at_least,
        )


@pytest.mark.parametrize("axioms", [[], ["libm:float32"], ["ieee754", "ieee754"], ["ieee754", "capture"],
                                    ["libm:float32", "ieee754"], "ieee754", None, [["ieee754"]]])  # fmt: skip
def test_another_list_of_axioms_is_rejected(axioms):
    def change(document):
        document["axioms"] = axioms

    assert not accepted(echo(), ENUMERATE, (2, 2), change=change)
    assert not accepted(echo(), ENUMERATE, (0, 4), change=change, semantics="float32")


def test_forbidden_axioms():
    for semantics, axioms in (("real", ["ieee754"]), ("float32", ["ieee754", "libm:float32"])):
        document = forge.document(echo(), ENUMERATE, equals=CONSTANT, vocab=2, length=2, position=1, right=(2, 2),
                                  semantics=semantics)  # fmt: skip
        data = forge.file(document, echo())
        assert check(data).axioms == tuple(axioms) and check(data, exact=True).axioms == tuple(axioms[1:])
        for axiom in axioms:
            with pytest.raises(Rejected, match="forbid"):
                check(data, forbid=[axiom])
        check(data, exact=True, forbid=["ieee754"])


def test_other_weights_than_the_claim_names():
    def change(document):
        document["claim"]["weights_sha256"] = hashlib.sha256(b"others").hexdigest()

    assert not accepted(echo(), ENUMERATE, (2, 2), change=change)


def test_work_is_limited():
    document = forge.document(echo(), ENUMERATE, equals=CONSTANT, vocab=2, length=2, position=1, right=(2, 2))
    with pytest.raises(Rejected, match="units of work"):
        check(forge.file(document, echo()), limit=1000)


HIGH, LOW = (0.5).hex(), (-2.0).hex()


def compact(rows, tokens="each", loose=0, rivals="together", **options) -> dict:
    return forge.compact([(rivals, tokens, loose, rows)], **options)


@pytest.mark.parametrize("rivals", ["together", "scaled", "apart"])
def test_kept_tokens_are_counted_where_their_sum_is_positive(rivals):
    """The echo is right where the last token is 0: its lead is 1 there and -1 elsewhere, whatever the first token."""
    for rows, right in [
        ([[0, 0, [HIGH]]], 2), ([[0, 0, [HIGH]], [1, 0, [LOW]]], 2), ([[1, 0, [LOW]]], 0), ([], 0), ([[0, 0, [(2.0).hex()]]], 0),
    ]:  # fmt: skip
        for exact in (False, True):
            assert accepted(echo(), compact(rows, rivals=rivals), (right, 4), exact=exact)
            assert not accepted(echo(), compact(rows, rivals=rivals), (right + 1, 4), exact=exact)
            assert not accepted(echo(), compact(rows, rivals=rivals), (right, 3), exact=exact)


def test_tokens_kept_in_an_order():
    for order, ends, right in [("ascending", 2, 2), ("descending", 2, 2), ("ascending", 1, 1), ("descending", 0, 0)]:
        proof = compact([[0, 0, [ends]]], order)
        assert accepted(echo(), proof, (right, 4)) and not accepted(echo(), proof, (right + 1, 4)), (order, ends)
    for first, second, right in [(0, 2, 1), (1, 2, 2), (2, 1, 2), (0, 0, 0)]:  # one token may be loose
        proof = compact([[0, 0, [first, second]]], "ascending", 1)
        right = 2 if (first, second) == (0, 2) else right
        assert accepted(echo(), proof, (right, 4)) and not accepted(echo(), proof, (right + 1, 4)), (first, second)
    assert not accepted(echo(), compact([[0, 0, [1]]], "ascending", rivals="apart"), (0, 4))


def test_a_positive_lead_counts_no_more_than_its_smallest_factor():
    """The last token's term is -5/e; the first adds 3 (token 1) or 3/e^5 (token 0), and both lead by 3."""
    data = as_bytes({
        "embed.W_E": np.eye(3), "pos_embed.W_pos": np.zeros((2, 3)), "unembed.W_U": np.array([[1.0, 0], [0, 0], [0, 1]]),
        "blocks.0.attn.W_Q": np.ones((1, 3, 1)), "blocks.0.attn.W_K": np.array([[[-5.0], [0], [-1]]]),
        "blocks.0.attn.W_V": np.array([[[4.0], [4], [-4]]]), "blocks.0.attn.W_O": np.array([[[1.0, 0, 0]]]),
    })  # fmt: skip
    for proof, right in [
        (compact([[2, 0, [2]]], "ascending"), 0), (compact([[2, 0, [(0.01).hex()]]]), 0), (compact([[2, 0, [(2.0).hex()]]]), 1),
    ]:  # fmt: skip
        for shown in range(3):
            document = forge.document(data, proof, equals=CONSTANT, vocab=3, tokens=[[0, 1], [2]], length=2, position=1,
                                      right=(shown, 2))  # fmt: skip
            if shown <= right:
                assert check(forge.file(document, data)).right.low == shown
            else:
                with pytest.raises(Rejected, match="right inputs stated"):
                    check(forge.file(document, data))


def test_a_mean_row_stands_for_all_rows_up_to_their_distance():
    """Output 0 leads by 1/2 in the bias and by `own` in the query's part, the same for both tokens."""
    for own, right in ((-1.0, 0), (-0.25, 4)):
        parts = {"unembed.W_U": np.array([[own, 0.0]]), "unembed.b_U": np.array([1.5, 1.0])}
        zero = {f"blocks.0.attn.W_{c}": np.zeros((1, 1, 1)) for c in "QKVO"}
        data = as_bytes(parts | zero | {"embed.W_E": np.ones((2, 1)), "pos_embed.W_pos": np.zeros((2, 1))})
        for base, rivals in (("exact", "together"), ("mean", "together"), ("mean", "scaled"), ("mean", "apart")):
            proof = compact([[q, 0, [(own + 0.5 - 1e-6).hex()]] for q in (0, 1)], rivals=rivals, base=base)
            assert accepted(data, proof, (right, 4)) and not accepted(data, proof, (right + 1, 4)), (own, base, rivals)
    rows = [
        [0, 0, [(-1.5).hex()]],
        [1, 0, [(-1.5).hex()]],
    ]  # of the echo both rows are as far from the mean as the lead
    assert not accepted(echo(), compact(rows, base="mean"), (1, 4))


def test_a_witness_of_rule_compact_names_each_cell_once_and_classes_that_exist():
    cell = [0, 0, [HIGH]]
    for rows in (
        [cell, cell],
        [[0, 1, [HIGH]]],
        [[0, -1, [HIGH]]],
        [[2, 0, [HIGH]]],
        [[0, 0, []]],
        [[0, 0, [HIGH, LOW]]],
    ):
        assert not accepted(echo(), compact(rows), (0, 4)), rows
    twice = forge.compact([("together", "each", 0, [cell])] * 2)
    assert not accepted(echo(), twice, (0, 4))
    assert not accepted(echo(), compact([cell]), (0, 4), semantics="float32")


def test_ties_are_not_shown_right():
    for difference, right in ((1e-20, 4), (-1e-20, 0), (0.0, 0)):
        data, rows = near_tie(difference), [[q, 0, [(-1.0).hex()]] for q in (0, 1)]
        for rivals in ("together", "scaled", "apart"):
            assert accepted(data, compact(rows, rivals=rivals), (0, 4))
            assert not accepted(data, compact(rows, rivals=rivals), (1, 4))
        rows = [[q, 0, [(0.0).hex()]] for q in (0, 1)]  # the threshold bounds what is kept
        assert not accepted(data, compact(rows), (1 if right == 0 else 5, 4), exact=True)
