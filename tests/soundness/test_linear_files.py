"""Small hostile files: whatever they ask for, the kernel answers soon, in little memory, and not with an internal error.

And files that once got something false accepted.
"""

import json
import subprocess
import sys

import numpy as np
import pytest

from mechverify.kernel import Rejected, check
from mechverify.kernel.core.claim import Job
from mechverify.kernel.core.float64 import Float64
from mechverify.kernel.relaxation import rule
from tests.rounds import few
from tests.soundness import forge
from tests.soundness.networks import Network, constant, document, file, given, hexadecimal

LIMIT = 2e8  # of work
TIMES, MEGABYTES = 6, 512  # at most: as long as it takes to round as many numbers outward, in the same process; more
CHECK = f"""
import resource, sys
resource.setrlimit(resource.RLIMIT_AS, (3 * 2**30, 3 * 2**30))
import numpy as np
from mechverify.kernel import NotACertificate, Rejected, check
import time
data = sys.stdin.buffer.read()


def peak():
    lines = [line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")]
    return int(lines[0]) // 1024  # ru_maxrss counts the parent's


before, start = peak(), time.process_time()
try:
    check(data, limit={LIMIT})
    answer = "accepted"
except (Rejected, NotACertificate) as error:
    answer = str(error)
spent = time.process_time() - start
memory = peak() - before
numbers = np.ones(2**22)
start = time.process_time()
for _ in range(int({LIMIT}) // numbers.size):
    np.nextafter(numbers, np.inf, out=numbers)
print(spent / (time.process_time() - start), memory, answer[:300])
"""


def spread(*shape: int, of: int = 0) -> list:
    return ["view", [of], [list(shape), 0, [0] * len(shape)]]


def first(rows: list) -> list:
    """The rows, and one entry of the last as the output."""
    return [*rows, ["view", [len(rows) - 1], [[1], 0, [1]]]]


def of(rows: list, proof=None, n: int = 1, **settings) -> tuple:
    return document(Network([given(1), *rows], {}, [(np.zeros(1), np.ones(1))], [], 0), proof, n=n, **settings)


def many(leaf: dict, count: int) -> dict:
    proof = leaf
    for _ in range(count):
        proof = {"rule": "both", "first": proof, "second": leaf}
    return proof


def balanced(leaf: dict, depth: int) -> dict:
    for _ in range(depth):
        leaf = {"rule": "both", "first": leaf, "second": leaf}
    return leaf


def views(count: int, size: int = 1) -> list:
    """Views of views: of distinct attributes where there is one entry, reversals of many."""
    rows = [spread(size), ["relu", [1], None]]
    return rows + [["view", [2 + i], [[size], size - 1, [-1]]] for i in range(count)] + [["relu", [2 + count], None]]


def layer_norm(size: int) -> list:
    """The norm of each of many vectors of one entry."""
    return [["power", [0], 2], constant([1.0]), ["add", [1, 2], None], spread(size, of=3), ["rsqrt", [4], None],
            spread(size), ["mul", [5, 6], None]]  # fmt: skip


def sliced(chain: int, slices: int) -> list:
    """Entries of a long chain, one by one: each is a chain of its own."""
    rows = [spread(slices), *(["sin", [1 + i], None] for i in range(chain))]
    return [*rows, *(["view", [1 + chain], [[1], i, [1]]] for i in range(slices))]


def in_one_slice(count: int) -> list:
    """Large views of single slices of an operand with many axes."""
    rows = [spread(*[2] * 15), ["exp", [1], None]]
    for i in range(count):
        rows += [["view", [2], [[2**20], i, [0]]], ["view", [3 + 2 * i], [[1], 0, [1]]]]
    return [*rows, ["concat", [4 + 2 * i for i in range(count)], 0], ["view", [3 + 2 * count], [[1], 0, [1]]]]


def products(count: int) -> list:
    rows: list = [["exp", [0], None]]
    for i in range(count):
        rows += [["mul", [0, 1 + i], None]]
    return rows


def behind_views(count: int) -> list:
    """Functions that read the end of a long chain of views."""
    rows = [["view", [i], [[1], 0, [1]]] for i in range(count)]
    last = len(rows)
    rows += [["power", [last], 2 + i % 15] for i in range(15)]
    return [*rows, *(["mul", [last, last + 1 + i % 15], None] for i in range(15))]


def meanings(count: int) -> tuple:
    """Many integers over a long vocabulary."""
    rows: list = [["value", [], i] for i in range(count)]
    rows += [["sum", list(range(count)), None], ["mod", [count], 3], ["number", [count + 1], None]]
    return document(Network(rows, {}, [], [[0]] * count, 2**18), {"rule": "relaxation"})


def wide(count: int) -> list:
    rows: list = []
    for i in range(count):
        rows += [constant([i + 1.0]), ["mul", [0, 3 * i + 1], None], ["exp", [3 * i + 2], None]]
    return [*rows, ["concat", [3 * i + 3 for i in range(count)], 0]]


def tokens(rows: list, length: int, vocab: int) -> tuple:
    return document(Network(rows, {"e": np.zeros((vocab, 1))}, [], [[0]] * length, vocab))


HOSTILE = {
    "a layer norm of many vectors": lambda: of(layer_norm(30_000), n=30_000),
    "products in a row": lambda: of(products(15_000)),
    "slices of a long chain": lambda: of(sliced(2_000, 2_000)),
    "large views of single slices": lambda: of(in_one_slice(100)),
    "functions behind a chain of views": lambda: of(behind_views(20_000), n=1),
    "many integers of a long vocabulary": lambda: meanings(1_000),
    "many ranges of a wide output": lambda: of([spread(2**16)], balanced({"rule": "relaxation"}, 11), n=2**16),
    "many points at a wide output": lambda: of(
        [spread(2**16)], balanced({"rule": "point", "inputs": [[[], ["0x0.0p+0"]]]}, 11), n=2**16),
    "softmax of 4096 x 4096": lambda: of(first([spread(4096, 4096), ["softmax", [1], 4096], ["relu", [2], None]])[0:]),
    "causal softmax": lambda: of(first([spread(2048, 2048), ["softmax", [1], "causal"], ["relu", [2], None]])),
    "a site of 2^27 entries": lambda: of([spread(2**13, 2**14)]),
    "a site of 2^192 entries": lambda: of([spread(*[2**24] * 8)]),
    "thresholds for 2^27 entries": lambda: of([spread(2**13, 2**14)], at_most="1/1", verdict="PROVED"),
    "an outer product of constants": lambda: of(first([
        constant([1.0]), spread(2**14, of=1), ["einsum", [2, 2], "a,b->ab"], ["mul", [0, 3], None], ["relu", [4], None]])),
    "an outer product": lambda: of(first([
        spread(2**14), ["exp", [1], None], ["einsum", [1, 2], "a,b->ab"], ["relu", [3], None]])),
    "a broadcast sum": lambda: of(first([spread(2**14, 1), spread(1, 2**14), ["add", [1, 2], None], ["relu", [3], None]])),
    "concat of large views": lambda: of(first([spread(2**22), ["concat", [1] * 64, 0], ["relu", [2], None]])),
    "a chain of large views": lambda: of(first(views(60, 2**22))),
    "a chain of large views, at points": lambda: of(first(views(60, 2**20)), {"rule": "point", "inputs": [[[], ["0x0.0p+0"]]]}),
    "a sum of one entry, 2^16 times": lambda: of([
        spread(2**16, 1), constant([1.0]), spread(2**16, 1, of=2), ["einsum", [1, 3], "ab,ab->b"], ["relu", [4], None]]),
    "one token, 2^16 times": lambda: tokens([
        ["tokens", [], None], ["weight", [], ["e", [2, 1]]], spread(2**16), ["gather", [1, 2], None], constant([1.0]),
        spread(2**16, 1, of=4), ["einsum", [3, 5], "ab,ab->b"]], 1, 2),
    "wide nodes on the way of a form": lambda: of([
        spread(2**18), ["relu", [1], None], ["view", [2], [[1024], 0, [1]]]], n=1024),
    "a long graph and many leaves": lambda: of(
        first([["view", [i], [[1], 0, [i]]] for i in range(10_000)]), many({"rule": "relaxation", "lines": []}, 30)),
    "a long graph and many points": lambda: of(
        first([["view", [i], [[1], 0, [i]]] for i in range(10_000)]),
        many({"rule": "point", "inputs": [[[], ["0x0.0p+0"]]]}, 60)),
    "many forms over a long graph": lambda: of(first(wide(4_000))),
    "a long vocabulary and many positions": lambda: tokens([
        ["tokens", [], None], spread(1), ["weight", [], ["e", [2**16, 1]]], ["gather", [2, 1], None]], 1024, 2**16),
    "powers of powers": lambda: of([["power", [i], 16] for i in range(2_000)]),
    "nested proofs": lambda: of([["exp", [0], None]], many({"rule": "relaxation", "lines": None}, 400)),
    "16 axes": lambda: of(first([spread(*[1] * 16), *(
        ["einsum", [1 + i, 1 + i], "abcdefghijklmnop,abcdefghijklmnop->abcdefghijklmnop"] for i in range(200))])[:-1], n=1),
    "softmax with ten axes": lambda: of([spread(*[1] * 10), ["softmax", [1], 1]]),
    "concat of unequal ranks": lambda: of([constant(1.0), ["concat", [0, 1], 0]], n=2),
    "a sum over no tokens": lambda: document(Network(
        [given(1), ["tokens", [], None], ["weight", [], ["e", [2, 1]]], ["gather", [2, 1], None],
         ["einsum", [3, 3], "ab,ab->b"]], {"e": np.zeros((2, 1))}, [(np.zeros(1), np.ones(1))], [], 2)),
}  # fmt: skip


def answer(name: str) -> tuple[float, int, str]:
    data = file(*HOSTILE[name]())
    assert len(data) < 2 * 2**20
    try:
        done = subprocess.run([sys.executable, "-c", CHECK], input=data, capture_output=True, timeout=60)
    except subprocess.TimeoutExpired:
        return float("inf"), 0, "timed out"
    times, memory, text = (
        done.stdout.decode().split(" ", 2) if done.stdout else ("inf", "0", f"died: {done.stderr[-200:]}")
    )
    return float(times), int(memory), text


@pytest.mark.parametrize("name", few(HOSTILE, 8))
def test_small_files_take_little(name):
    times, memory, text = answer(name)
    assert times < TIMES and memory < MEGABYTES and "internal error" not in text, (times, memory, text)


# --- false theorems ---------------------------------------------------------------------------------------------------


def test_an_accuracy_claim_has_no_box_whose_halves_count_twice():
    from mechverify.kernel.core import container
    from tests.test_versions import GOLDEN

    contents = container.unpack(GOLDEN.read_bytes())
    document = json.loads(contents["certificate.json"])
    document["claim"]["domain"]["inputs"] = [[[1], ["0x0.0p+0"], ["0x1.0000000000000p+0"]]]
    cut = {"rule": "split", "coordinate": 0, "at": "0x1.0000000000000p-1"}
    for proof in (document["proof"], cut | {"inside": document["proof"], "outside": document["proof"]}):
        changed = document | {"proof": proof}
        with pytest.raises(Rejected, match="unknown fields"):
            check(container.pack({**contents, "certificate.json": json.dumps(changed).encode()}))


def test_saturated_softmaxes_of_the_same_scores_do_not_share_their_error():
    """Two masks: each probability has an error of its own, so their difference is not certain to 2^-34."""
    rows = [given(2), constant([100.0]), ["mul", [0, 1], None], ["softmax", [2], ["11"]], ["softmax", [2], ["10"]],
            ["sub", [3, 4], None]]  # fmt: skip
    box = [(np.zeros(2), np.array([1.0, 0.0]))]
    theorem = check(file(*document(Network(rows, {}, box, [], 0), {"rule": "relaxation", "lines": None}, n=2)))
    assert theorem.verdict == "BOUNDED"
    graph = Job(theorem.claim, Float64()).once(rule.Rewriting).graph
    slacks = [n for n in graph.nodes if n.op == "slack"]
    assert len(slacks) == len({n.args for n in slacks}) == 2


TABLE = {"e": np.array([[0.0], [1.0], [2.0]])}


def test_a_row_of_embedded_views_of_tokens_is_not_refuted():
    """Row 0 of the embedding of reversed tokens is that of the last token, which is at least 1 here."""
    net = Network([["tokens", [], None], ["view", [0], [[2], 1, [-1]]], ["weight", [], ["e", [3, 1]]], ["gather", [2, 1], None]],
                  TABLE, [], [[0, 1, 2], [1, 2]], 3)  # fmt: skip
    proof = {"rule": "point", "inputs": [[[0, 2], []]]}
    with pytest.raises(Rejected, match="no input was shown to break a threshold"):
        check(file(*document(net, proof, position=0, at_least="1/1", verdict="REFUTED")))
    theorem = check(file(*document(net, proof, position=0)))
    assert theorem.attained.low.item() <= 2 <= theorem.attained.high.item()


def accuracy(net: Network, proof: dict, position: int, right: tuple[int, int], equals: list) -> bytes:
    doc, data = document(net, proof)
    claim = doc["claim"] | {"kind": "accuracy", "equals": equals, "at_least": None, "position": position}
    for name in ("at_most", "where", "cases"):
        del claim[name]
    del claim["domain"]["inputs"]
    doc |= {"claim": claim, "conclusion": {
        "verdict": "BOUNDED", "right_at_least": str(right[0]), "right_at_most": str(right[1])}}  # fmt: skip
    return forge.file(doc, data)


def test_accuracy_of_reversed_tokens_is_not_that_of_the_tokens():
    """Row 0 shows token 1: right on three of nine."""
    net = Network([["tokens", [], None], ["view", [0], [[2], 1, [-1]]], ["weight", [], ["e", [3, 3]]], ["gather", [2, 1], None]],
                  {"e": np.eye(3)}, [], [[0, 1, 2]] * 2, 3)  # fmt: skip
    for position, number in ((0, 3), (1, 9)):
        equals = [["value", [], 0]]
        assert check(accuracy(net, {"rule": "enumerate"}, position, (number, number), equals)).right == (number, number)
    with pytest.raises(Rejected, match="right inputs stated: 9 to 9; proved: 3 to 3"):
        check(accuracy(net, {"rule": "enumerate"}, 0, (9, 9), [["value", [], 0]]))


def test_rule_fold_does_not_take_a_view_of_the_tokens_for_the_query():
    """The output is 10 at the first token: right on three of nine."""
    rows = [["tokens", [], None], ["weight", [], ["e", [3, 3]]], ["gather", [1, 0], None],
            ["einsum", [2, 2], "qd,kd->qk"], ["softmax", [3], "causal"], ["einsum", [4, 2], "qk,kd->qd"],
            ["view", [0], [[], 0, []]], ["weight", [], ["big", [3, 3]]], ["gather", [7, 6], None],
            ["add", [5, 8], None]]  # fmt: skip
    net = Network(rows, {"e": 0.1 * np.eye(3), "big": 10 * np.eye(3)}, [], [[0, 1, 2]] * 2, 3)
    fold = {"rule": "fold", "keys": [], "only": None, "cells": []}
    assert check(accuracy(net, {"rule": "enumerate"}, 1, (3, 3), [["integer", [], 0]])).right == (3, 3)
    for right in ((9, 9), (0, 9)):
        with pytest.raises(Rejected, match="joins the result of attention and a value that reads other tokens"):
            check(accuracy(net, fold, 1, right, [["integer", [], 0]]))
    of_query = net._replace(rows=[*rows[:6], rows[7], ["gather", [6, 0], None], ["add", [5, 7], None]])
    assert check(accuracy(of_query, fold, 1, (3, 9), [["integer", [], 0]])).right == (3, 9)


@pytest.mark.parametrize("rows", [[], [["exp", [0], None]]])
def test_a_threshold_is_refuted_by_what_breaks_it_in_float64_alone(rows):
    """In exact arithmetic numbers share an exponent, which belongs to them: no claim about ranges is checked there."""
    proof = {"rule": "point", "inputs": [[[], hexadecimal([0.5])]]}
    with pytest.raises(Rejected, match="no input was shown to break a threshold"):
        check(file(*of(rows, proof, at_most="3/1", verdict="REFUTED")))
    data = file(*of(rows, proof, at_most="1/4", verdict="REFUTED"))
    assert 0.4 < check(data).attained.low.item() < 1.7
    with pytest.raises(Rejected, match="float64 only"):
        check(data, exact=True)


@pytest.mark.parametrize("where", ["constant", "input"])
def test_float32_speaks_of_float32_numbers(where):
    """A float32 program reads 1 + 0.99 2^-24 as 1, and computes 1 - 1 = 0."""
    near = 1 + 2**-24 * 0.99
    rows = [
        given(1),
        constant([near if where == "constant" else 1.0]),
        constant([1.0]),
        ["sub", [1, 2], None],
        ["add", [0, 3], None],
    ]
    centre = np.zeros(1) if where == "constant" else np.full(1, near - 1)
    if where == "input":
        rows = [given(1), constant([1.0]), ["sub", [0, 1], None]]
        centre = np.full(1, near)
    net = Network(rows, {}, [(centre, centre)], [], 0)
    proof = {"rule": "point", "inputs": [[[], hexadecimal(centre)]]}
    assert check(file(*document(net, proof, at_most="0/1", verdict="REFUTED"))).verdict == "REFUTED"
    doc, data = document(net, proof, at_most="0/1", verdict="REFUTED", semantics="float32")
    doc["claim"]["graph"] |= {
        "module": {"rows": len(rows), "norms": []},
        "compared": {"dtype": "torch.float32", "inputs": 0, "difference": "0/1", "tolerance": "0/1"},
    }
    with pytest.raises(Rejected, match="no input was shown to break a threshold"):
        check(file(doc, data))
