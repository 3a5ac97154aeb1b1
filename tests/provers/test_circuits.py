"""The smallest circuit: what it claims of all smaller ones, against trying every one of them in torch."""

from itertools import combinations, product

import numpy as np
import pytest
import torch

from mechverify import Circuits, Part, kernel, parts, smallest, tokens
from mechverify.claims.errors import ClaimError
from mechverify.kernel.statement.sentence import state
from mechverify.provers import circuits as search
from mechverify.provers.base import Budget
from tests.claims.test_circuits import HIDDEN, IDS, LENGTH, VOCAB, Pair, ablated, right
from tests.rounds import few

X = tokens("x", length=LENGTH, vocab=VOCAB)


def of(seed: int, **settings) -> Circuits:
    return Circuits(Pair(seed).double().eval(), parts("act", HIDDEN, dims=1), over=X, **settings)


def agreeing(seed: int) -> set[frozenset[str]]:
    """All circuits that agree on every input."""
    model = Pair(seed).double().eval()
    found = set()
    for kept in product([False, True], repeat=HIDDEN):
        b = ablated(model, model.act, ~torch.tensor(kept), torch.zeros(()).double())
        if right(model(IDS), b) == len(IDS):
            found.add(frozenset(f"act.{i}" for i in range(HIDDEN) if kept[i]))
    return found


def subsets(kept):
    return [frozenset(c) for size in range(len(kept)) for c in combinations(kept, size)]


@pytest.mark.parametrize("seed", few([10, 9, 2], 1))
def test_minimal_in_each_sense(seed):
    known, circuits = agreeing(seed), of(seed)
    for minimal in ("quasi", "local", "subset", "cardinal"):
        found = smallest(circuits, minimal=minimal)
        kept, refuted = frozenset(found.kept), set(map(frozenset, found.refuted))
        assert kept in known and not found.open and not refuted & known
        single = {kept - {name} for name in kept}
        wanted = {
            "quasi": refuted & single,
            "local": single,
            "subset": set(subsets(kept)),
            "cardinal": {frozenset(c) for n in range(len(kept)) for c in combinations(circuits.names, n)},
        }[minimal]
        assert refuted == wanted and (refuted or not kept)
        if minimal == "cardinal":
            assert len(kept) == min(map(len, known))
        theorem = kernel.check(found.proof)
        assert theorem.verdict == "PROVED"
        assert [ids[0] for ids in theorem.claim.domain.tokens[LENGTH:]] == [int(n in kept) for n in circuits.names]
        if found.refutations is not None:
            rows = kernel.check(found.refutations).tokens
            masks = {frozenset(n for n, k in zip(circuits.names, row, strict=True) if k) for row in rows[:, LENGTH:]}
            assert masks == refuted


def test_every_listed_input_is_wrong_in_torch():
    model, found = Pair(10).double().eval(), smallest(of(10), minimal="cardinal")
    for *ids, a, b, c, d, e in kernel.check(found.refutations).tokens.tolist():
        where = torch.tensor([not k for k in (a, b, c, d, e)])
        ids = torch.tensor([ids])
        assert not right(model(ids), ablated(model, model.act, where, torch.zeros(()).double(), ids))


def test_a_finished_test_is_not_done_again(tmp_path, monkeypatch):
    first = smallest(of(10), minimal="cardinal", folder=tmp_path)
    (tests,) = tmp_path.glob("tests-*.jsonl")
    lines = tests.read_text().splitlines()
    tests.write_text("\n".join(lines) + "\n[[")  # killed while it was writing
    done = []
    real = search.prove
    monkeypatch.setattr(search, "prove", lambda claim, **k: done.append(claim) or real(claim, **k))
    again = smallest(of(10), minimal="cardinal", folder=tmp_path)
    assert (again.kept, again.refuted, again.refutations) == (first.kept, first.refuted, first.refutations)
    assert len(done) == 1  # the certificate that the circuit itself agrees
    assert again.files["agrees"].read_bytes() == again.proof
    assert again.files["smaller"].read_bytes() == again.refutations


def test_another_question_has_other_tests(tmp_path):
    smallest(of(10), minimal="local", folder=tmp_path)
    smallest(of(10, patch="mean"), minimal="local", folder=tmp_path)
    smallest(of(10), minimal="local", agrees="1/2", folder=tmp_path)
    assert len(list(tmp_path.glob("tests-*.jsonl"))) == 3


def test_when_time_is_up_the_decided_circuits_are_kept(tmp_path):
    budget = Budget(interrupted=True)
    with pytest.raises(ClaimError, match="interrupted"):
        smallest(of(10), folder=tmp_path, budget=budget)
    assert smallest(of(10), folder=tmp_path).kept


def test_a_refutation_that_the_kernel_does_not_confirm_is_open(monkeypatch):
    """Torch is made to see a wrong input where there is none."""
    known = agreeing(10)
    kept = min(known, key=lambda k: (len(k), sorted(k)))
    fake = search.Search(of(10), "argmax", None, Budget())
    true = {r: fake.test(r).wrong for r in subsets(kept) if r not in known}
    other = max(known, key=len)
    certificate, doubtful = fake._certified(true | {other: tuple(int(i) for i in IDS[0])})
    assert doubtful == {other}
    assert len(kernel.check(certificate).tokens) == len(true)


def test_a_model_that_ties_with_itself_has_no_circuit():
    model = Pair(0).double().eval()
    with torch.no_grad():
        model.down.weight[1] = model.down.weight[0] = 5.0
        model.down.bias[:2] = 9.0
    with pytest.raises(ClaimError, match="doesn't agree with itself"):
        smallest(Circuits(model, parts("act", HIDDEN, dims=1), over=X))


def test_bad_questions_are_refused():
    with pytest.raises(ClaimError, match="quasi, local"):
        smallest(of(0), minimal="tiny")
    many = Circuits(Pair(0, hidden=40).double().eval(), parts("act", 40, dims=1), over=X)
    fake = search.Search(many, "argmax", None, Budget())
    with pytest.raises(ClaimError, match="too many to refute"):
        fake.rivals(frozenset(many.names), "cardinal")


def test_the_time_for_one_circuit_does_not_end_the_next(monkeypatch):
    """Without a limit, each proof has its own; what checking one takes isn't kept back from another."""
    seen, real = [], search.prove

    def prove(claim, budget):
        seen.append((budget.deadline, budget.reserved))
        budget.reserved = 5.0
        return real(claim, budget=budget)

    monkeypatch.setattr(search, "prove", prove)
    monkeypatch.setattr(search.Search, "_glance", lambda self, circuits: None)
    budget = Budget()
    smallest(of(10), minimal="local", budget=budget)
    deadlines = [deadline for deadline, _ in seen]
    assert len(seen) > 3 and deadlines == sorted(set(deadlines)) and budget.deadline == float("inf")
    assert not any(reserved for _, reserved in seen)


def test_masks_are_the_last_tokens():
    ids = of(0).ids(np.array([[1, 2]]), np.array([[True, False, True, False, False]]))
    assert ids.tolist() == [[1, 2, 1, 0, 1, 0, 0]]


def test_names_of_parts_are_part_of_the_question(tmp_path):
    """Of names that read alike when they are joined."""
    model = Pair(10).double().eval()
    some, others = {"x": 0, "x, x": [1, 2, 3, 4]}, {"x, x": [1, 2, 3, 4], "x": 0}
    for named in (some, others):
        circuits = Circuits(model, {name: Part("act", index) for name, index in named.items()}, over=X)
        assert not smallest(circuits, folder=str(tmp_path)).open
    assert len(list(tmp_path.glob("tests-*.jsonl"))) == 2


def test_what_a_folder_says_is_believed_of_the_search_alone(tmp_path):
    """Lines that are no tests, or say what is false: nothing false follows."""
    known, true = agreeing(10), smallest(of(10), folder=tmp_path)
    (tests,) = tmp_path.glob("tests-*.jsonl")
    answers = []
    for lines in (
        [b"\xff\xfe", b"5", b'["act.0"]', b'[["act.0"], false, [9, 9], ""]', b'[["act.0"], false, [0], ""]'],
        [f'[{list(kept)}, true, null, ""]'.replace("'", '"').encode() for kept in subsets(true.kept)],
        [f'[{sorted(kept)}, false, [0, 0], ""]'.replace("'", '"').encode() for kept in known],
    ):
        tests.write_bytes(b"\n".join(lines) + b"\n")
        try:
            found = smallest(of(10), folder=tmp_path)
        except ClaimError:
            answers.append(None)
            continue
        answers.append(found.kept)
        assert frozenset(found.kept) in known and not set(map(frozenset, found.refuted)) & known
    assert answers[:2] == [true.kept, None]  # no tests; a smaller circuit that can't be proved


def test_nothing_is_said_of_parts_where_none_is_kept():
    (label, text) = smallest(of(2), minimal="quasi").lines(HIDDEN)[1]
    assert label == "quasi-minimal" and "some one" not in text and "no circuit is smaller" in text


def test_a_claim_reads_as_two_vectors_whose_leads_agree():
    printed = state(kernel.check(smallest(of(10), minimal="local").proof))
    assert printed.subject == 'extremum(min(leads(output.model), leads(output.other)), "max") > 0'
