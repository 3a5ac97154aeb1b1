"""Parts that are cut by a model's value, conditions of a claim, multipliers, dependency tables, and a softmax's second
form: every sample of a part must lie in the part's range, whatever multipliers and lines the witness gives.
"""

from itertools import combinations, product

import numpy as np
import pytest

from mechverify.kernel import Rejected, check
from mechverify.kernel.core.claim import Job
from mechverify.kernel.core.domain import Domain
from mechverify.kernel.core.fields import Reader
from mechverify.kernel.core.float64 import Float64
from mechverify.kernel.core.graph import Graph
from mechverify.kernel.core.operations import OPERATIONS
from mechverify.kernel.core.operations.concatenation import Concat
from mechverify.kernel.proof import prove
from mechverify.kernel.relaxation import operations as bounds
from mechverify.kernel.relaxation import rule as linear
from mechverify.kernel.relaxation import tables
from mechverify.kernel.relaxation.backward import Relaxed
from mechverify.kernel.relaxation.intervals import Intervals
from mechverify.kernel.relaxation.operations import concatenation
from mechverify.kernel.relaxation.rule import FACTS
from mechverify.kernel.relaxation.tables import _pairs, _reads, _rows
from mechverify.kernel.statement.formula import Formulas, Listing
from mechverify.provers.ranges.names import Called
from tests.kernel.test_operations import plant
from tests.rounds import ROUNDS
from tests.soundness import networks
from tests.soundness.networks import Maker, Network, constant, document, evaluate, file, given, samples
from tests.soundness.test_linear import LINEAR
from tests.soundness.test_linear import Any as AnyLines


@pytest.fixture(autouse=True)
def quiet():
    with np.errstate(all="ignore"):
        yield


class Multiplied(AnyLines):
    """Any lines, and any multipliers that what is known allows."""

    def multipliers(self, relaxed, start, n):
        floor, ceiling = relaxed.cells.facts[n]
        shape = (len(relaxed.cells), self.rng.choice([1, relaxed.rows[start]]), *floor.shape[1:])
        size = np.abs(self.rng.normal(size=shape)) * self.wild * self.rng.integers(2)
        up, down = np.isfinite(floor)[:, None], np.isfinite(ceiling)[:, None]
        return np.where(up & (~down | (self.rng.random(shape) < 0.5)), size, np.where(down, -size, 0.0))


def test_samples_on_a_side_lie_in_its_range():
    compared = 0
    for seed in range(4 * ROUNDS):
        rng = np.random.default_rng([31, seed])
        net = Maker(rng).network(int(rng.integers(2, 8)))
        claim = networks.claim(net)
        job = Job(claim, Float64())
        graph, roots = (rewriting := job.once(linear.Rewriting)).graph, rewriting.roots
        points = samples(net, 400, rng)
        originals = [n for n, m in roots.of.items() if m in roots.values]
        if not originals:
            continue
        values = evaluate(graph, claim.weights, [*originals, claim.output], *points)
        parts = [(claim.domain, np.ones(400, bool))]
        for _ in range(3):
            n = int(rng.choice(originals))
            flat = values[n].reshape(400, -1)
            entry = int(rng.integers(flat.shape[1]))
            at = float(flat[rng.integers(400), entry])
            if not np.isfinite(at):
                continue
            cut = []
            for part, inside in parts:
                for side, above in zip(part.sides([(roots.of[n], entry)], at), (False, True), strict=True):
                    clearly = 1e-9 * max(1, abs(at))
                    here = flat[:, entry] >= at + clearly if above else flat[:, entry] <= at - clearly
                    cut.append((side, inside & here))
            parts = cut
        output = values[claim.output].reshape(400, -1)
        slack = 1e-9 * np.maximum(1, np.abs(output))
        for shared, lines in product((False, True), (None, Multiplied(rng))):
            try:
                found = linear.ranges(job, [part for part, _ in parts], linear.Flags(shared), lines=lines)
            except Rejected as error:
                assert "contradict" not in str(error) and "left behind" not in str(error)
                continue
            for (_, inside), range_ in zip(parts, found, strict=True):
                compared += int(inside.sum())
                assert (output[inside] >= range_.low - slack[inside]).all()
                assert (output[inside] <= range_.high + slack[inside]).all()
    assert compared > 600 * ROUNDS


@pytest.mark.parametrize("high, multipliers, good", [
    (1.5, True, True), (1.5, False, False), (1.4, True, False), (2.0, False, True),
])  # fmt: skip
def test_a_condition_is_used_through_its_multiplier(high, multipliers, good):
    """x0 + x1 <= 3/2 where it is said to be: with multiplier 1 of the condition, and not without."""
    rows = [given(2), constant([1.0, 1.0]), ["einsum", [0, 1], "a,a->"], constant(1.5), ["sub", [3, 2], None],
            constant(1.0), ["mul", [2, 5], None]]  # fmt: skip
    net = Network(rows, {}, [(-np.ones(2), np.ones(2))], [], 0)
    doc, data = document(net, n=1, high=[high * (1 + 1e-12)])
    doc["claim"]["graph"]["sites"].append(["room", 4])
    doc["claim"]["where"] = ["room"]
    leaf = {"rule": "relaxation", "lines": [], "multipliers": [["output", "4", 0, [0, 1]]]}
    doc["proof"] = leaf if multipliers else LINEAR
    if good:
        assert check(file(doc, data)).range.high[0] == high * (1 + 1e-12)
    else:
        with pytest.raises(Rejected, match="tighter"):
            check(file(doc, data))


def spoilt(doc: dict, data: bytes, change) -> str:
    change(doc)
    with pytest.raises(Rejected) as error:
        check(file(doc, data))
    assert "internal error" not in str(error.value)
    return str(error.value)


def relu(proof: dict, **settings) -> tuple[dict, bytes]:
    """relu(x0 + x1), node 3, of node 2."""
    rows = [given(2), constant([1.0, 1.0]), ["einsum", [0, 1], "a,a->"], ["relu", [2], None]]
    net = Network(rows, {}, [(-np.ones(2), np.ones(2))], [], 0)
    return document(net, proof, **settings)


def halves(n: int, inside: dict = LINEAR, outside: dict = LINEAR, at: float = 0.0) -> dict:
    return {"rule": "split", "node": n, "entry": 0, "at": at.hex(), "inside": inside, "outside": outside}


def test_a_split_at_a_sign_decides_a_relu():
    doc, data = relu(LINEAR, high=[2.0 + 1e-9], low=[-1e-9])
    doc["proof"] = halves(2)
    assert check(file(doc, data)).rules == {"split": 1, "relaxation": 2}


@pytest.mark.parametrize("name, change", [
    ("no such node", lambda proof: proof.update(node=10_000)),
    ("a constant", lambda proof: proof.update(node=1)),
    ("a negative node", lambda proof: proof.update(node=-1)),
    ("no such entry", lambda proof: proof.update(entry=1)),
    ("NaN", lambda proof: proof.update(at="nan")),
    ("no number", lambda proof: proof.update(at=0)),
    ("a side too few", lambda proof: proof.pop("outside")),
    ("a field too many", lambda proof: proof.update(coordinate=0)),
    ("a multiplier where nothing is known", lambda proof: proof.update(inside={
        "rule": "relaxation", "lines": [], "multipliers": [["3", "3", 0, [1, 1]]]})),
    ("a multiplier of the wrong sign", lambda proof: proof.update(inside={
        "rule": "relaxation", "lines": [], "multipliers": [["3", "2", 0, [1, 1]]]})),
    ("another wrong sign", lambda proof: proof.update(outside={
        "rule": "relaxation", "lines": [], "multipliers": [["3", "2", 0, [-1, -1]]]})),
    ("multipliers that don't fit", lambda proof: proof.update(inside={
        "rule": "relaxation", "lines": [], "multipliers": [["3", "2", 0, [-1, -1, -1]]]})),
    ("multipliers twice", lambda proof: proof.update(inside={
        "rule": "relaxation", "lines": [], "multipliers": [["3", "2", 0, [-1, -1]]] * 2})),
    ("shared is no truth value", lambda proof: proof["inside"].update(shared=1)),
    ("whole is no truth value", lambda proof: proof["inside"].update(whole=1)),
    ("the whole domain's intervals without lines", lambda proof: proof.update(inside={"rule": "relaxation", "whole": True})),
])  # fmt: skip
def test_what_is_not_known_is_refused(name, change):
    doc, data = relu(LINEAR)
    doc["proof"] = halves(2, dict(LINEAR), dict(LINEAR))
    assert check(file(doc, data))
    spoilt(doc, data, lambda d: change(d["proof"]))


def test_facts_of_a_part_are_few():
    doc, data = relu(LINEAR)
    proof = dict(LINEAR)
    for _ in range(FACTS + 1):
        proof = halves(2, proof)
    doc["proof"] = proof
    assert "facts" in spoilt(doc, data, lambda d: None)


def test_a_side_without_inputs_bounds_nothing_and_a_domain_without_is_refused():
    doc, data = relu(LINEAR, high=[2.0 + 1e-9])
    doc["proof"] = halves(2, at=5.0)
    assert check(file(doc, data))  # nothing is above 5
    doc["claim"]["graph"]["nodes"] += [constant(3.0), ["sub", [2, 4], None]]
    doc["claim"]["graph"]["sites"].append(["far", 5])
    doc["claim"]["where"] = ["far"]
    assert "no input" in spoilt(doc, data, lambda d: d.update(proof=dict(LINEAR)))


def test_a_point_must_satisfy_the_conditions():
    doc, data = relu(LINEAR, verdict="REFUTED", at_most="1/1")
    doc["claim"]["graph"]["nodes"] += [constant(1.5), ["sub", [4, 2], None]]
    doc["claim"]["graph"]["sites"].append(["room", 5])
    doc["proof"] = {"rule": "point", "inputs": [[[], [(0.9).hex(), (0.9).hex()]]]}
    doc["claim"]["where"] = []
    assert check(file(doc, data)).verdict == "REFUTED"  # 1.8 is more than 1
    assert "condition" in spoilt(doc, data, lambda d: d["claim"].update(where=["room"]))


@pytest.mark.parametrize("where", [["no such site"], ["output", "output", 3], "output", [["output"]], ["fixed"]])
def test_conditions_are_sites_that_depend_on_the_input(where):
    doc, data = relu(LINEAR)
    doc["claim"]["graph"]["sites"].append(["fixed", 1])
    spoilt(doc, data, lambda d: d["claim"].update(where=where))


@pytest.mark.parametrize("whole", [tables.WHOLE, 0], ids=["all inputs", "pairs of tokens"])
@pytest.mark.parametrize("kind", [Intervals, Relaxed])
def test_tables_hold_every_input_and_are_exact(kind, whole, monkeypatch):
    """Small token networks, by brute force: ranges of nodes that have a table are those that are reached."""
    monkeypatch.setattr(tables, "WHOLE", whole)
    tight = 0
    for seed in range(150):
        rng = np.random.default_rng([33, seed])
        net = Maker(rng, kind=1).network(int(rng.integers(2, 7)))
        claim = networks.claim(net)
        job = Job(claim, Float64())
        graph, roots = (rewriting := job.once(linear.Rewriting)).graph, rewriting.roots
        if job.claim.domain.size > 3_000 or rewriting.tables is None or claim.shapes:
            continue
        every = claim.domain.inputs(0, claim.domain.size)
        try:
            cells = linear.cells(job, [claim.domain])
            relaxed = kind(job.ar, graph, claim.weights, roots, cells)
        except Rejected:
            continue
        values = evaluate(graph, claim.weights, list(roots.of), every, [])
        for n, table in rewriting.tables.of.items():
            value = values[n].reshape(len(every), -1)
            if roots.of[n] not in relaxed.balls:  # a softmax of one entry doesn't need its score
                continue
            low, high = (np.broadcast_to(end, (1, *graph.nodes[n].shape)).ravel()
                         for end in relaxed.ends[roots.of[n]])  # fmt: skip
            slack = 1e-9 * np.maximum(1, np.abs(value).max(0))
            assert (value.min(0) >= low - slack).all() and (value.max(0) <= high + slack).all()
            if any(graph.nodes[m].op == "choose" for m in graph.ancestors([n])):
                continue  # a tie that rounding leaves open has both values
            assert np.allclose(value.min(0), low, atol=1e-6 * np.abs(value).max() + 1e-9)
            assert np.allclose(value.max(0), high, atol=1e-6 * np.abs(value).max() + 1e-9)
            tight += table.reads.any(1).sum()
    assert tight > 300


def test_the_rows_hold_every_pair_of_tokens_or_every_input():
    """Of random domains, and nothing that is no token of its position."""
    complete = 0
    for seed in range(200):
        rng = np.random.default_rng([35, seed])
        tokens = tuple(
            tuple(sorted(rng.choice(9, rng.integers(1, 8), replace=False).tolist())) for _ in range(rng.integers(1, 6))
        )
        domain = Domain(tokens)
        ids, known = _rows(domain, many := min(domain.size, _pairs(domain)))
        assert all(set(ids[known[:, p], p]) == {*here} for p, here in enumerate(tokens))
        if many == domain.size:
            assert sorted(map(tuple, ids.tolist())) == sorted(product(*tokens)) and known.all()
            complete += 1
            continue
        for p, q in combinations(range(len(tokens)), 2):
            both = known[:, p] & known[:, q]
            assert set(zip(ids[both, p], ids[both, q], strict=True)) == set(product(tokens[p], tokens[q]))
    assert 50 < complete < 150


def test_a_tree_of_every_kind_of_leaf_states_no_more_than_is_true():
    accepted = 0
    for seed in range(60):
        rng = np.random.default_rng([34, seed])
        net = Maker(rng).network(int(rng.integers(2, 7)))
        claim = networks.claim(net)
        job = Job(claim, Float64())
        called = job.once(Called)
        if not (values := sorted(job.once(linear.Rewriting).roots.values)):
            continue
        leaves = [LINEAR, {"rule": "relaxation"}, {**LINEAR, "shared": True}]
        tree: dict = dict(leaves[rng.integers(3)])
        for _ in range(int(rng.integers(1, 5))):
            held = int(rng.choice(values))
            shape = job.once(linear.Rewriting).graph.nodes[held].shape
            n, entry, _ = called.entry(held, int(rng.integers(np.prod(shape, dtype=int))))
            pair = [tree, dict(leaves[rng.integers(3)])]
            rng.shuffle(pair)
            tree = {"rule": "split", "node": n, "entry": entry, "at": float(rng.normal()).hex(), "inside": pair[0],
                    "outside": pair[1]}  # fmt: skip
        try:
            proved, _ = prove(job, Reader(tree, "proof"))
        except Rejected as error:
            assert "internal" not in str(error) and "contradict" not in str(error)
            continue
        accepted += 1
        values = evaluate(claim.graph, claim.weights, [claim.output], *samples(net, 300, rng))[claim.output]
        values = values.reshape(300, -1)
        slack = 1e-9 * np.maximum(1, np.abs(values))
        assert (values >= proved.low - slack).all() and (values <= proved.high + slack).all()
    assert accepted > 30


def test_two_sites_of_one_name_and_a_missing_box_are_refused():
    doc, data = relu(LINEAR)
    spoilt(doc, data, lambda d: d["claim"]["graph"]["sites"].append(["output", 2]))
    doc, data = relu(LINEAR)
    assert "inputs" in spoilt(doc, data, lambda d: d["claim"]["domain"].pop("inputs"))


def test_a_large_vocabulary_has_no_tables():
    """They would take 50,257^2 rows."""
    table = np.random.default_rng(0).normal(size=(50_257, 2))
    rows = [["weight", [], ["t", [50_257, 2]]], ["tokens", [], None], ["gather", [0, 1], None]]
    net = Network(rows, {"t": table}, [], [list(range(50_257))] * 2, 50_257)
    claim = networks.claim(net)
    job = Job(claim, Float64())
    assert job.once(linear.Rewriting).tables.of == {}
    (found,) = linear.ranges(job, [claim.domain])
    assert (found.low <= np.tile(table.min(0), 2)).all() and (found.high >= np.tile(table.max(0), 2)).all()


def test_a_formula_that_doubles_is_cut():
    doc, data = relu(LINEAR)
    nodes = doc["claim"]["graph"]["nodes"]
    for _ in range(200):
        nodes.append(["add", [len(nodes) - 1] * 2, None])
    doc["claim"]["graph"]["sites"].append(["doubled", len(nodes) - 1])
    claim = networks.read_claim(Reader(doc["claim"] | {"where": ["doubled"]}, "claim"), data)
    formulas = Formulas(Listing(claim.graph, claim.where), {})
    (text,), shared = formulas.write(list(claim.where))
    assert len(text) + sum(map(len, shared)) < 3_000


def test_a_table_that_is_not_what_tokens_mean_is_not_called_a_token():
    rows = [["tokens", [], None], constant([0.0, 1.0, 2.0]), constant([2.0, 1.0, 0.0])]
    for table in (1, 2):
        rows += [["gather", [table, 0], None], ["view", [len(rows)], [[], 1, []]]]
    claim = networks.claim(Network(rows, {}, [], [[0, 1, 2]] * 2, 3))
    views = [n for n, node in enumerate(claim.graph.nodes) if node.op == "view"]
    texts, _ = Formulas(Listing(claim.graph, views), {}).write(views)
    assert texts == ["x1", "gather([2, 1, 0], tokens)[1]"]


class Unread(concatenation.Concat):
    """An operation that somebody adds and of which nobody knows what it reads."""

    def reads(self, graph, node, args):
        return None


def test_nothing_is_known_of_what_reads_an_operation_of_which_nothing_is_known(monkeypatch):
    plant(monkeypatch, OPERATIONS, "unread", Concat())
    plant(monkeypatch, bounds.OPERATIONS, "unread", Unread())
    graph = Graph(3, (0, 1))
    table = graph.add("constant", attr=((2,), (0.0, 1.0)))
    plain = graph.add("relu", graph.add("gather", table, graph.add("tokens")))
    summed = graph.add("unread", plain, attr=0)
    after = graph.add("relu", summed)
    reads = _reads(graph, [plain, after], Float64(float("inf")), {})
    assert (reads[plain] == np.eye(3, dtype=bool)).all() and reads[summed] is None and reads[after] is None


def test_what_a_token_changes_is_known_to_read_it():
    """Of every operation on tokens, softmax under every mask among them: no entry moves with a token that it isn't said
    to read."""
    net = Network([
        ["tokens", [], None], constant(np.array([[0.0, 1.0, -1.0], [2.0, 0.5, 3.0]])), ["gather", [1, 0], None],
        ["softmax", [2], 2], ["softmax", [2], "causal"], ["softmax", [2], ["110", "011", "101"]],
        ["view", [2], [[3, 3], 0, [1, 3]]], ["softmax", [6], 2], ["softmax", [6], "causal"],
        ["softmax", [6], ["110", "011", "101"]], ["einsum", [3, 2], "ij,jk->ik"], ["concat", [7, 10], 0], ["relu", [11], None],
        ["extremum", [2], "max"], ["ascending", [2], None], ["ascending", [6], None], ["extremum", [6], "min"],
        ["choose", [2, 3, 4, 2], None],
    ], {}, [], [[0, 1]] * 3, 2)  # fmt: skip
    claim = networks.claim(net)
    nodes = [n for n, node in enumerate(claim.graph.nodes) if node.kind == "real"]
    reads = _reads(claim.graph, nodes, Float64(float("inf")), {})
    every = np.array(list(np.ndindex(2, 2, 2)))
    values = evaluate(claim.graph, claim.weights, nodes, every, [])
    moved = 0
    for n, position in product(nodes, range(3)):
        other = every.copy()
        other[:, position] = 1 - other[:, position]
        there = evaluate(claim.graph, claim.weights, [n], other, [])[n]
        moves = (np.abs(values[n] - there) > 1e-9).any(0)
        assert (reads[n][..., position] | ~moves).all(), claim.graph.nodes[n]
        moved += moves.sum()
    assert moved > 50
