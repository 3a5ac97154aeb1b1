"""Guarded domains: the kernel counts them itself, and no bound of the whole product passes for one of what is given."""

import itertools
import json

import numpy as np
import pytest
from sympy import And, Eq, Max, Mod, Ne, Not, Or

from mechverify import Accuracy, Bounds, Share, count, distinct, dyck, prove, tokens, transformer
from mechverify.certificate.write import claim_document
from mechverify.claims.errors import ClaimError
from mechverify.claims.mechanisms import compile_mechanism
from mechverify.kernel import Rejected, check
from mechverify.kernel.core.domain import Domain
from mechverify.kernel.core.errors import OverLimit, Unsupported
from mechverify.kernel.core.evaluate import Evaluation
from mechverify.kernel.core.exact import Exact
from mechverify.kernel.core.fields import Reader
from mechverify.kernel.core.float64 import Float64
from mechverify.kernel.core.graph import Graph
from mechverify.kernel.core.mechanism import add_expression
from mechverify.kernel.core.meter import ROOM, Meter
from mechverify.kernel.core.semantics import Real
from mechverify.kernel.counting import guard as guards
from mechverify.kernel.counting import independent, known
from tests.models import as_bytes, max_weights
from tests.rounds import few
from tests.soundness import forge
from tests.soundness.test_shares import ENUMERATE, INPUTS, LEAD, WEIGHTS, document

DISTINCT = [["value", [], 0], ["value", [], 1], ["eq", [0, 1], None], ["not", [2], None]]  # six of nine inputs

CONDITIONS = {  # of four tokens
    "distinct": lambda x: distinct(*x),
    "a repeat": lambda x: Eq(count(x[-1], *x[:-1]), 1),
    "few": lambda x: count(1, *x) <= 2,
    "a sum": lambda x: sum(x) <= 4,
    "either": lambda x: Or(And(x[0] > x[1], x[2] > x[3]), Eq(x[0], 3)),
    "the first": lambda x: And(Ne(x[0], 2), Or(x[3] < 2, x[1] > 1)),
    "the last": lambda x: Eq(x[3], 1),
    "none of two": lambda x: Not(Or(Eq(x[0], x[3]), Eq(x[1], x[2]))),
    "nested": lambda x: And(And(x[0] <= x[1], Eq(Mod(sum(x), 2), 0)), Not(And(Eq(x[2], 0), Eq(x[3], 0)))),
}  # fmt: skip


def given(what: str, values=(0, 1, 2, 3), allowed=None) -> tuple[Graph, int, Domain, list]:
    """A graph with a guard, its domain, and the inputs of that for which it is 1, one by one."""
    x = tokens("x", length=4, vocab=4, values=values, allowed=allowed)
    graph = Graph(4, x.values)
    node = add_expression(graph, Reader(json.loads(json.dumps(compile_mechanism(CONDITIONS[what]([*x]), x))), "given"))
    condition = CONDITIONS[what]([*x])
    inside = [
        list(ids)
        for ids in itertools.product(*x.allowed)
        if bool(condition.subs({s: x.values[i] for s, i in zip(x, ids, strict=True)}, simultaneous=True))
    ]
    return graph, node, Domain(x.allowed), inside


@pytest.mark.parametrize("what", few(CONDITIONS, 3))
@pytest.mark.parametrize("values", [(0, 1, 2, 3), (3, 1, 2, 0)], ids=["ids", "others"])
def test_what_is_given_is_listed_once_in_order_and_counted(what, values, monkeypatch):
    graph, node, domain, inside = given(what, values, [[0, 1, 2, 3], [0, 2, 3], [0, 1, 2, 3], [1, 2, 3]])
    assert 0 < len(inside) < domain.size
    found = np.concatenate([*guards.listed(Meter(), graph, node, domain)])
    assert found.tolist() == inside
    everything = domain.inputs(0, domain.size)
    assert everything[guards.holds(Meter(), graph, node, everything)].tolist() == inside
    assert guards.size(Meter(), graph, node, domain) == len(inside)
    for width in (1, 3):  # blocks of any size
        monkeypatch.setattr(guards, "BLOCK", width)
        assert np.concatenate([*guards.listed(Meter(), graph, node, domain)]).tolist() == inside

    def too_large(*_):
        raise Unsupported("")

    monkeypatch.setattr(guards, "derive", too_large)
    assert guards.size(Meter(), graph, node, domain) == len(inside)
    monkeypatch.setattr(known, "counted", too_large)
    assert guards.size(Meter(), graph, node, domain) == len(inside)


def test_a_prefix_that_breaks_a_condition_is_not_read_further():
    """Of 8^8 sequences, 8! are distinct: about as much work as there is left."""
    x = tokens("x", length=8, vocab=8)
    graph = Graph(8, x.values)
    rows = compile_mechanism(distinct(*x), x)
    node, meter = add_expression(graph, Reader(rows, "given")), Meter()
    assert sum(map(len, guards.listed(meter, graph, node, Domain(x.allowed)))) == 40_320
    assert meter.work < 8**8 * len(graph.nodes)  # one unit a node and sequence


@pytest.mark.parametrize(("length", "vocab", "condition", "number"), [
    (40, 2, lambda x: dyck(*x), 6_564_120_420),  # a Catalan number, of 2^40 sequences
    (6, 16, lambda x: And(distinct(*x[:5]), Eq(count(x[5], *x[:4]), 1)), 2_096_640),  # of 16^6
    (12, 10, lambda x: sum(x) <= 9, 293_930),
    (20, 4, lambda x: count(1, *x) <= 2, 3**20 + 20 * 3**19 + 190 * 3**18),
])  # fmt: skip
def test_published_domains_have_their_sizes(length, vocab, condition, number):
    x = tokens("x", length=length, vocab=vocab, values=[1, -1] if vocab == 2 else None)
    graph = Graph(length, x.values)
    node = add_expression(graph, Reader(compile_mechanism(condition([*x]), x), "given"))
    assert guards.size(Meter(), graph, node, Domain(x.allowed)) == number


def test_a_check_stops_where_listing_takes_more_than_it_may():
    x = tokens("x", length=6, vocab=16)
    claim = Share(x[0] < x[1], over=x, given=distinct(*x))
    doc = document(proof={"rule": "open"}, right=(0, 16**6)) | {"claim": claim_document(claim, "real")}
    with pytest.raises(OverLimit):
        check(forge.file(json.loads(json.dumps(doc)), claim.output.model.data), limit=1e8)


@pytest.mark.parametrize(("op", "attributes", "least"), [
    ("lookup", ([0, 0], [0] * 2**16), 2**16),  # a table becomes an array each time it is asked
    ("kth_largest", (1, 8), 9 * 2**12 * 64),
])  # fmt: skip
def test_long_tables_and_sorts_count_as_work(op, attributes, least):
    """A condition that takes long for each block of inputs can't outlast a limit: small files did, by a factor of 70."""
    spent = []
    for attribute in attributes:
        graph, meter = Graph(1, (0, 1)), Meter()
        operands = [0] * (2**12 if op == "kth_largest" else 1)
        rows = [["value", [], 0], [op, operands, attribute], ["le", [1, 0], None]]
        node = add_expression(graph, Reader(rows, "given"))
        ids = np.zeros((64, 1), np.int64)
        assert guards.holds(meter, graph, node, ids).all()
        values = Evaluation(graph, {}, Real(Float64()), ids)
        assert (values[node] == 1).all()
        spent.append((meter.work, values.semantics.ar.work))
    assert all(long - short >= 10 * least for short, long in zip(*spent, strict=True))


def test_a_condition_that_nothing_satisfies_is_an_error_of_the_claim():
    x = tokens("x", length=2, vocab=3)
    with pytest.raises(ClaimError, match="no input of the domain satisfies"):
        prove(Share(x[0] < x[1], over=x, given=[x[0] < x[1], x[1] < x[0]]))


def test_ranges_take_the_same_conditions():
    """The range of x0 - x1 where tokens are distinct, the second one is larger, or they sum to at most one."""
    x = tokens("x", length=2, vocab=4)
    for given_, least, most in ((distinct(*x), -3, 3), ([distinct(*x), x[1] > x[0]], -3, -1), (sum(x) <= 1, -1, 1)):
        proved = prove(Bounds([x[0] - x[1]], over=x, given=given_)).theorem.range
        assert least - 1e-12 <= proved.low[0] <= least and most <= proved.high[0] <= most + 1e-12


@pytest.mark.parametrize("hopeless", [1, 10**9], ids=["token by token", "by rejection"])
@pytest.mark.parametrize("conditions", [
    lambda x: [sum(x) <= 2, x[3] < 2], lambda x: [Eq(x[0], x[2]), x[3] < x[1]], lambda x: [Or(x[0] < 2, x[3] < 1)],
], ids=["bound together", "apart", "either"])  # fmt: skip
def test_samples_are_of_what_is_given_and_uniform(conditions, hopeless, monkeypatch):
    from mechverify.provers.accuracy import sampling
    from mechverify.provers.accuracy.problem import AccuracyProblem

    x = tokens("x", length=4, vocab=3)
    problem = AccuracyProblem.of(Share(x[0] < x[1], over=x, given=conditions(x)), "real")
    every = itertools.product(range(3), repeat=4)
    inside = [t for t in every if all(c.subs(dict(zip(x, t, strict=True))) for c in conditions(x))]
    assert problem.claim.total == len(inside) < 81
    monkeypatch.setattr(sampling, "HOPELESS", hopeless)
    if hopeless > 1:
        monkeypatch.setattr(sampling.Sampler, "_walks", None)
    drawn = sampling.Sampler(problem).draw(500 * len(inside), np.random.default_rng(0))
    rows, times = np.unique(drawn, axis=0, return_counts=True)
    assert list(map(tuple, rows.tolist())) == inside and abs(times - 500).max() < 150


def test_conditions_on_different_positions_are_counted_apart():
    """Against every input, of random conditions; and of domains that nobody could list."""
    rng, found = np.random.default_rng(0), 0
    for _ in range(150):
        x = tokens("x", length=5, vocab=3, values=rng.permutation(4)[:3].tolist())
        pick = lambda: x[int(rng.integers(5))] - int(rng.integers(3)) * x[int(rng.integers(5))]  # noqa: E731
        leaves = [Ne(pick(), 0) if rng.random() < 0.5 else pick() <= pick() for _ in range(int(rng.integers(1, 5)))]
        condition = [And, Or, lambda *c: Not(And(*c)), lambda *c: And(Or(*c[:2]), *c[2:])][rng.integers(4)](*leaves)
        if condition in (True, False):
            continue
        graph = Graph(5, x.values)
        node = add_expression(graph, Reader(json.loads(json.dumps(compile_mechanism(condition, x))), "given"))
        domain = Domain([sorted(rng.choice(3, int(rng.integers(1, 4)), replace=False).tolist()) for _ in range(5)])
        number = int(guards.holds(Meter(), graph, node, domain.inputs(0, domain.size)).sum())
        try:
            assert independent.counted(Meter(), graph, node, domain) == number
            found += 1
        except Unsupported:
            pass
        assert guards.size(Meter(), graph, node, domain) == number
    assert found > 30
    x = tokens("x", length=22, vocab=33)
    pairs = [Eq(x[i], x[21 - i]) for i in range(11)]
    for condition, number in (
        (And(*pairs), 33**11), (Or(*map(Not, pairs)), 33**22 - 33**11), (Or(*pairs), 33**22 - (33 * 32) ** 11),
        (And(*pairs[:3], x[5] < 7), 33**3 * 7 * 33**15),
    ):  # fmt: skip
        graph = Graph(22, x.values)
        node = add_expression(graph, Reader(compile_mechanism(condition, x), "given"))
        assert guards.size(Meter(), graph, node, Domain(x.allowed)) == number


def test_the_search_changes_together_what_a_guard_binds():
    """A palindrome's tokens by two: no change of one token leaves another palindrome."""
    from mechverify.provers.accuracy.problem import AccuracyProblem
    from mechverify.provers.accuracy.sampling import Sampler

    x = tokens("x", length=7, vocab=5)
    problem = AccuracyProblem.of(Share(x[0] < x[1], over=x, given=[Eq(x[i], x[6 - i]) for i in range(3)]), "real")
    changes = {tuple(positions): rows.tolist() for positions, rows in Sampler(problem).changes(2**8)}
    assert changes == {(i, 6 - i): [[t, t] for t in range(5)] for i in range(3)} | {(3,): [[t] for t in range(5)]}
    assert [positions for positions, _ in Sampler(problem).changes(4)] == [[i] for i in range(7)]  # too many


def test_what_is_too_much_to_list_is_refused(monkeypatch):
    graph, node, domain, _ = given("the last")
    monkeypatch.setattr(guards, "MOST", 300)
    with pytest.raises(Unsupported, match="more than 300 sequences"):
        list(guards.listed(Meter(), graph, node, domain))


def checked(proof=ENUMERATE, right=(0, 6), verdict="BOUNDED", given=DISTINCT, **claim):
    return check(forge.file(document(LEAD, proof, right, verdict, given=given, **claim), WEIGHTS))


def test_the_count_is_about_what_is_given_and_one_more_is_rejected():
    """x0 >= x1 holds on six of nine inputs, of which three are of the six with distinct tokens."""
    theorem = checked(right=(3, 3))
    assert theorem.right == (3, 3) and theorem.claim.total == 6
    for wrong in ((4, 6), (0, 2), (6, 6), (5, 9)):
        with pytest.raises(Rejected, match="right inputs stated"):
            checked(right=wrong)
    assert checked(right=(3, 6), verdict="PROVED", at_least="1/2").verdict == "PROVED"
    with pytest.raises(Rejected, match="doesn't reach"):
        checked(right=(3, 6), verdict="PROVED", at_least="4/6")
    refuting = {"rule": "both", "first": ENUMERATE, "second": {"rule": "counterexample", "inputs": [[0, 1]]}}
    assert checked(refuting, (0, 3), "REFUTED", at_least="4/6").verdict == "REFUTED"
    with pytest.raises(Rejected, match="is not refuted"):
        checked(refuting, (0, 3), "REFUTED", at_least="3/6")


def test_a_counterexample_satisfies_the_guard():
    wrong = [row for row in INPUTS if row[0] < row[1]]
    proof = {"rule": "counterexample", "inputs": wrong}
    assert checked(proof, (0, 3)).wrong.tolist() == wrong
    with pytest.raises(Rejected, match="right inputs stated"):
        checked(proof, (0, 2))
    strict = {"rule": "counterexample", "inputs": [[1, 1]]}
    assert check(forge.file(document(LEAD, strict, (0, 8), strict=True), WEIGHTS)).right.high == 8
    with pytest.raises(Rejected, match="doesn't satisfy the claim's condition"):
        checked(strict, (0, 5), strict=True)


def test_parts_add_up_to_what_is_given():
    proof = {"rule": "split", "position": 0, "first": [2], "inside": ENUMERATE, "outside": {"rule": "open"}}
    assert checked(proof, (0, 6)).right == (0, 6)  # of (0, .) and (1, .), four are given, and may be right or wrong
    for wrong in ((3, 6), (0, 5)):
        with pytest.raises(Rejected, match="right inputs stated"):
            checked(proof, wrong)
    whole = {**proof, "outside": ENUMERATE}
    assert checked(whole, (3, 3)).right == (3, 3)
    assert checked({"rule": "open"}, (0, 6)).right == (0, 6)
    with pytest.raises(Rejected, match="right inputs stated"):
        checked({"rule": "open"}, (0, 5))


@pytest.mark.parametrize(("rows", "message"), [
    ([["integer", [], 0], ["eq", [0, 0], None], ["not", [1], None]], "no input of the domain satisfies"),
    ([["value", [], 0]], "a condition is a truth value"),
    ([["integer", [], 2]], "a condition is a truth value"),
    ([], "expected a list of 1"),
    (None, "expected a list of 1"),
    ([["value", [], 5], ["value", [], 1], ["eq", [0, 1], None]], None),
])  # fmt: skip
def test_what_is_no_guard_is_rejected(rows, message):
    with pytest.raises(Rejected, match=message):
        checked(given=rows)


def test_a_guard_is_of_version_5_and_rule_compact_is_not_for_it():
    data = as_bytes(max_weights(np.random.default_rng(1), vocab=3, length=2))
    largest = [["value", [], 0], ["value", [], 1], ["max", [0, 1], None]]
    doc = forge.document(data, ENUMERATE, length=2, vocab=3, position=1, equals=largest) | {"version": 5, "cost": None}
    doc["claim"]["given"] = DISTINCT
    assert check(forge.file(doc, data)).claim.total == 6
    with pytest.raises(Rejected, match="accuracy on a guarded domain isn't written in version 4"):
        check(forge.file({**doc, "version": 4}, data))
    with pytest.raises(Rejected, match="rule compact counts in a whole product"):
        check(forge.file({**doc, "proof": forge.compact([("apart", "each", 0, [])])}, data))


def test_conditions_on_values_of_the_model_are_no_guard(tmp_path):
    path = tmp_path / "max.safetensors"
    path.write_bytes(as_bytes(max_weights(np.random.default_rng(1), vocab=3, length=2)))
    model, x = transformer(path), tokens("x", length=2, vocab=3)
    for bad, message in (
        (x[0], "is no condition"),
        (Eq(x[0], x[0]), "is just True"),
        ("x0 > 1", "is not a token of this claim"),
    ):
        with pytest.raises(ClaimError, match=message):
            Accuracy(model.logits[-1], equals=Max(*x), over=x, given=bad)
    with pytest.raises(ClaimError, match="is not a token of this claim"):
        Accuracy(model.logits[-1], equals=Max(*x), over=x, given=tokens("z", length=1, vocab=2)[0] > 0)


@pytest.mark.parametrize("what", few(["a sum", "few", "the last", "either", "a repeat"], 2))
def test_rule_fold_counts_in_a_guarded_domain(what, tmp_path):
    """Random weights and five guards, against every input; the count of the whole product is no bound of it."""
    from mechverify.kernel.core.claim import Job
    from mechverify.kernel.core.float64 import Float64
    from mechverify.kernel.core.kinds import read_claim
    from mechverify.kernel.proof import prove as proved
    from mechverify.provers.accuracy.fold import folded, listed
    from mechverify.provers.accuracy.problem import AccuracyProblem
    from mechverify.provers.base import Budget

    path = tmp_path / "max.safetensors"
    path.write_bytes(as_bytes(max_weights(np.random.default_rng(7), vocab=4, length=4, noise=0.6)))
    x = tokens("x", length=4, vocab=4)
    claim = Accuracy(transformer(path).logits[-1], equals=Max(*x), over=x, given=CONDITIONS[what]([*x]))
    problem = AccuracyProblem.of(claim, "real")
    kernel_claim = read_claim(Reader(claim_document(claim, "real"), "claim"), claim.output.model.data)
    truth = kernel_claim.within(proved(Job(kernel_claim, Float64()), Reader(ENUMERATE, "proof"))[0])
    assert truth.low == truth.high and kernel_claim.total == len(given(what)[3])
    for how in (folded, listed):
        attempt = how(problem, Budget())
        found = proved(Job(kernel_claim, Float64()), Reader(attempt.proof, "proof"))[0]
        assert found == attempt.right
        inside = kernel_claim.within(found)
        assert inside.low <= truth.low and truth.high <= inside.high
        assert how is not listed or inside == truth
    part = {
        "rule": "split",
        "position": 3,
        "first": [0, 2],
        "inside": ENUMERATE,
        "outside": attempt.proof | {"cells": []},
    }
    found = kernel_claim.within(proved(Job(kernel_claim, Float64()), Reader(part, "proof"))[0])
    assert found.low <= truth.low and truth.high <= found.high
    key = [*problem.partition.places][-1]  # classes that are passed over count for the upper bound alone
    cells = [row for row in attempt.proof["cells"] if row[1] == list(key)]
    found = proved(
        Job(kernel_claim, Float64()), Reader(attempt.proof | {"only": [list(key)], "cells": cells}, "proof")
    )[0]
    here = sum(max(t) == key[0] for t in given(what)[3])
    assert 0 <= kernel_claim.within(found).low <= here < kernel_claim.total
    assert truth.high <= kernel_claim.within(found).high


def test_tensors_of_the_weights_are_held_as_often_as_the_file_holds_them():
    """One may be larger than any other value; many parts of it together may not."""
    whole = ROOM + 1
    weights = {"w": np.zeros(whole, np.float32)}

    def summed(parts: int, arithmetic) -> None:
        graph = Graph(1, (0, 1))
        nodes = [graph.add("weight", attr=("w", (whole - i,))) for i in range(parts)]
        ends = [graph.select(n, 0, 0) for n in nodes]
        root = ends[0]
        for end in ends[1:]:
            root = graph.add("add", root, end)
        Evaluation(graph, weights, Real(arithmetic), np.zeros((1, 1), np.int64))[root]

    summed(4, Float64())
    with pytest.raises(Unsupported):
        summed(6, Float64())
    with pytest.raises(Unsupported):
        summed(1, Exact())
