"""Which values of a captured model have exact ranges: those whose tables are small, however the model is written."""

import numpy as np
import pytest
import sympy
import torch
from torch import nn

from mechverify import Bounds, capture, kernel, prove, tokens
from mechverify.kernel.core import elsewhere, prefixes
from mechverify.kernel.core.claim import Job
from mechverify.kernel.core.float64 import Float64
from mechverify.kernel.relaxation import tables
from mechverify.provers.ranges import confirm, search
from mechverify.provers.ranges import enumerate as enumerate_
from mechverify.provers.ranges.problem import RangeProblem
from tests.soundness.networks import Network
from tests.soundness.networks import claim as read

VOCAB, WIDTH, HIDDEN = 6, 8, 12


class Reader(nn.Module):
    """Attention over all positions and an MLP, in one of several ways to say a product with a fixed matrix."""

    def __init__(self, length: int, style: str):
        super().__init__()
        torch.manual_seed(length)
        self.embed, self.place = nn.Embedding(VOCAB, WIDTH), nn.Parameter(torch.randn(length, WIDTH))
        self.up, self.down = nn.Parameter(torch.randn(HIDDEN, WIDTH)), nn.Parameter(torch.randn(3, HIDDEN))
        self.style = style

    def times(self, x, w):
        return {"linear": lambda: nn.functional.linear(x, w), "transposed": lambda: x @ w.t(),
                "einsum": lambda: torch.einsum("...i,oi->...o", x, w)}[self.style]()  # fmt: skip

    def forward(self, ids):
        x = self.embed(ids) + self.place
        x = (x @ x.transpose(-1, -2)).softmax(-1) @ x
        return self.times(self.times(x[:, -1], self.up).relu(), self.down)


def asked(style: str, allowed: list) -> tuple[Bounds, np.ndarray]:
    """Bounds without thresholds, and the output on every input."""
    module = Reader(len(allowed), style).eval()
    x = tokens("x", length=len(allowed), vocab=VOCAB, allowed=allowed)
    every = torch.cartesian_prod(*(torch.tensor([*ids]) for ids in allowed)).reshape(-1, len(allowed))
    model = capture(module, every[:1], vocab=VOCAB)
    return Bounds(model["output"], over=x), module.double()(every).detach().numpy()


def most(monkeypatch, numbers: int) -> None:
    """That a table may take."""
    monkeypatch.setattr(tables, "LAST", numbers)
    monkeypatch.setattr(tables, "ALONE", numbers)


def tabulated(claim: Bounds) -> bool:
    return RangeProblem.of(claim, "real").tabulated


@pytest.mark.parametrize("style", ["linear", "transposed", "einsum"])
@pytest.mark.parametrize("allowed", [[range(6)] * 2, [range(6), range(6), [3]], [[1, 4], [0, 5], [2, 3], [1, 2]],
                                     [range(6)] * 4],
                         ids=["two tokens", "one fixed", "four tokens, few inputs", "four tokens"])  # fmt: skip
def test_where_inputs_are_few_the_range_is_exact(style, allowed):
    claim, values = asked(style, allowed)
    assert tabulated(claim)
    found = prove(claim)
    range_ = kernel.check(found.certificate).range
    assert range_.low == pytest.approx(values.min(0), abs=1e-9) and (range_.low <= values.min(0) + 1e-12).all()
    assert range_.high == pytest.approx(values.max(0), abs=1e-9) and (range_.high >= values.max(0) - 1e-12).all()


def test_what_depends_on_no_token_is_no_part_of_a_tables_size(monkeypatch):
    """The largest table that one way of writing a product allows, every other way allows as well."""
    numbers = {}
    for style in ("linear", "transposed", "einsum"):
        claim, _ = asked(style, [range(6)] * 2)
        most(monkeypatch, 0)
        numbers[style] = max(RangeProblem.of(claim, "real").rewriting.tables.dropped.values())
        most(monkeypatch, numbers[style])
        assert tabulated(claim)
        most(monkeypatch, numbers[style] - 1)
        assert not tabulated(claim)
    assert max(numbers.values()) < 1.1 * min(numbers.values())


def test_a_table_that_is_too_large_is_said(monkeypatch):
    claim, _ = asked("transposed", [range(6)] * 2)
    most(monkeypatch, 1_000)
    found = prove(claim)
    assert any("tables of more than" in r and "output [3]" in r for r in found.reasons)


def test_more_than_two_tokens_need_all_inputs(monkeypatch):
    claim, _ = asked("linear", [range(6)] * 3)
    assert tabulated(claim)
    monkeypatch.setattr(tables, "WHOLE", 6**3 - 1)
    assert not tabulated(claim)


class Causal(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.embed = nn.Embedding(VOCAB, WIDTH)

    def forward(self, ids):
        x, later = self.embed(ids), torch.ones(4, 4).triu(1).bool()
        return (x @ x.transpose(-1, -2)).masked_fill(later, -torch.inf).softmax(-1) @ x


def test_positions_that_nobody_reads_make_no_rows():
    """Of a causal model, later ones; also where a part of the domain lacks the token that stands there in all rows."""
    module = Causal().eval()
    every = torch.cartesian_prod(*[torch.arange(VOCAB)] * 4)
    site = capture(module, every[:1], vocab=VOCAB)["output"]
    values = module.double()(every).detach().numpy()
    x = tokens("x", length=4, vocab=VOCAB)
    for position in range(4):
        claim = Bounds(site[position], over=x, given=x[0] < x[1])
        problem = RangeProblem.of(claim, "real")
        rewriting, plan = problem.rewriting, problem.rewriting.plan
        assert plan.alone and plan.many == VOCAB ** max(2, position + 1)
        satisfied = (every[:, 0] < every[:, 1]).numpy()
        allowed = values[satisfied, position]
        low, high = kernel.check(prove(claim).certificate).range
        assert low == pytest.approx(allowed.min(0), abs=1e-9) and high == pytest.approx(allowed.max(0), abs=1e-9)
        (n,) = [n for n in rewriting.tables.of if rewriting.roots.of[n] == rewriting.roots.output]
        part = np.ones((1, 4, VOCAB), bool)
        part[0, 3, : VOCAB - 1] = False
        ends = rewriting.tables.ranges(problem.job.ar, n, part)
        here = values[satisfied & (every[:, 3] == VOCAB - 1).numpy(), position]
        assert np.allclose(ends[0][0], here.min(0), rtol=0, atol=1e-9)
        assert np.allclose(ends[1][0], here.max(0), rtol=0, atol=1e-9)


def test_what_a_program_rounds_may_read_every_position():
    """A masked value's product with zero may be flushed, and is among what a sum may lose."""
    site = capture(Causal().eval(), torch.zeros(1, 4, dtype=torch.long), vocab=VOCAB)["output"]
    claim = Bounds(site[0], over=tokens("x", length=4, vocab=VOCAB))
    many = [RangeProblem.of(claim, semantics).rewriting.plan.many for semantics in ("real", "float32")]
    assert many == [VOCAB, VOCAB**4]


def test_conditions_on_the_tokens_of_a_small_domain_leave_the_exact_range():
    claim, values = asked("linear", [range(6)] * 3)
    x = claim.over.tokens
    allowed = values[[a + b + c <= 4 for a in range(6) for b in range(6) for c in range(6)]]
    assert (allowed.min(0) > values.min(0) + 1e-6).any() and (allowed.max(0) < values.max(0) - 1e-6).any()
    low, high = kernel.check(prove(Bounds(claim.output, over=x, given=sum(x) <= 4)).certificate).range
    assert low == pytest.approx(allowed.min(0), abs=1e-9) and high == pytest.approx(allowed.max(0), abs=1e-9)


class Turned(nn.Module):
    """A vector that is turned many times before a layer norm: turning adds up rounding errors of terms that cancel,
    three times as large each time, and leaves the length as it is."""

    def __init__(self, times: int):
        super().__init__()
        torch.manual_seed(0)
        self.embed, self.norm, self.times = nn.Embedding(VOCAB, 16), nn.LayerNorm(16), times
        self.turn = nn.Parameter(torch.linalg.qr(torch.randn(16, 16)).Q)

    def forward(self, ids):
        x = self.embed(ids).prod(1)
        for _ in range(self.times):
            x = x @ self.turn
        return self.norm(x)


def turned(times: int) -> tuple[Bounds, np.ndarray]:
    module = Turned(times).eval()
    every = torch.cartesian_prod(torch.arange(VOCAB), torch.arange(VOCAB))
    model = capture(module, every[:1], vocab=VOCAB)
    with torch.no_grad():
        values = module.double()(every).numpy()
    return Bounds(model["output"], over=tokens("x", length=2, vocab=VOCAB)), values


# All rows of the roots alone in balls whose radius is a length first, or in balls of entries.
ways = pytest.mark.parametrize("many", [1, 10**9])


@ways
@pytest.mark.parametrize("times", [2, 15, 40])
def test_what_float64_leaves_open_is_tabulated_with_twice_its_digits(times, many, monkeypatch):
    monkeypatch.setattr(tables, "MANY", many)
    claim, values = turned(times)
    found = prove(claim)
    range_ = kernel.check(found.certificate).range
    assert range_.low == pytest.approx(values.min(0), abs=1e-9) and (range_.low <= values.min(0) + 1e-12).all()
    assert range_.high == pytest.approx(values.max(0), abs=1e-9) and (range_.high >= values.max(0) - 1e-12).all()


def test_what_no_arithmetic_encloses_has_no_table_which_is_said():
    claim, _ = turned(75)
    assert not tabulated(claim)
    found = prove(claim)  # rejected while it looked for reasons, once
    assert any("rounding errors are too large" in r and "output [16]" in r for r in found.reasons)


@ways
def test_a_table_encloses_every_value_whatever_arithmetic_it_is_from(many, monkeypatch):
    """Also of rows that are not run again, since they can't hold an end of the range."""
    monkeypatch.setattr(tables, "MANY", many)
    for times, share in ((15, tables.FINE), (15, 2.0**-60), (20, tables.FINE)):
        monkeypatch.setattr(tables, "FINE", share)
        claim, values = turned(times)
        rewriting = RangeProblem.of(claim, "real").rewriting
        (table,) = [t for n, t in rewriting.tables.of.items() if rewriting.roots.of[n] == rewriting.roots.output]
        assert (table.low <= values + 1e-9).all() and (values - 1e-9 <= table.high).all()
        assert (table.low <= table.high).all()


@pytest.mark.parametrize("piece", [1, 40, 10**9])
@pytest.mark.parametrize("failing", ["log of zero", "log of nothing but constants"])
@ways
def test_a_root_that_is_rejected_leaves_the_others_what_they_are(many, failing, piece, monkeypatch):
    """Whatever inputs are evaluated together, and whether all have in common what is rejected."""
    monkeypatch.setattr(tables, "MANY", many)
    monkeypatch.setattr(prefixes, "PIECE", piece)
    rows = [
        ["tokens", [], None], ["weight", [], ["E", [8, 1]]], ["gather", [1, 0], None],
        ["view", [2], [[1], 0, [1]]], ["view", [2], [[1], 1, [1]]], ["add", [3, 4], None],
        ["weight", [], ["Z", [1]]], ["mul", [3, 6], None], ["log", [6 if "constants" in failing else 7], None],
        ["mul", [8, 3], None],
    ]  # fmt: skip
    net = Network(rows, {"E": np.arange(1.0, 9)[:, None], "Z": np.zeros(1)}, [], [[*range(8)]] * 2, 8)
    graph = (made := read(net)).graph
    total, rejected = ([n for n, node in enumerate(graph.nodes) if node.op == op][-1] for op in ("add", "mul"))
    job, both = Job(made, Float64()), (total, rejected)
    found = tables.Tables(job, graph, tables.planned(job, graph, [*both], both))
    table, true = found.of[total], found.rows.ids.sum(1, keepdims=True) + 2
    assert (table.low <= true).all() and (true <= table.high).all() and (table.high - table.low <= 1e-12).all()
    assert found.unknown == [rejected]


def test_a_table_is_the_same_whatever_is_evaluated_at_a_time(monkeypatch):
    tabled = []
    for step in (36, 18, 7):
        monkeypatch.setattr(tables, "batch_size", lambda *_, step=step: step)
        found = RangeProblem.of(turned(15)[0], "real").rewriting.tables.of
        tabled.append([*found.values()])
    for other in tabled[1:]:
        for a, b in zip(tabled[0], other, strict=True):
            assert (a.low == b.low).all() and (a.high == b.high).all()


def refused(*_):
    raise AssertionError("this was not to be asked for")


def test_thresholds_are_decided_with_twice_the_digits(monkeypatch):
    """Where float64 rejects every input, and nobody asks for exact arithmetic."""

    monkeypatch.setattr(elsewhere, "exactly", refused)
    claim, values = turned(40)
    for more, verdict in ((1e-6, "PROVED"), (-1e-6, "REFUTED")):
        found = prove(Bounds(claim.output, over=claim.over, at_most=(values.max(0) + more).tolist()))
        assert found.verdict == verdict == kernel.check(found.certificate).verdict


def at_once(monkeypatch) -> None:
    """Every domain is worth an enumeration in torch, and nothing else is asked."""
    monkeypatch.setattr(enumerate_, "DEAR", 0)
    monkeypatch.setattr(search, "FIRST", [])


def test_the_range_over_many_inputs_is_found_in_torch_and_confirmed_at_once(monkeypatch):
    """Shallow, and so deep that float64 says nothing of it; the kernel never has to say what it finds itself."""
    at_once(monkeypatch)
    monkeypatch.setattr(confirm, "derived", refused)
    for claim, values in (asked("linear", [range(6)] * 2), turned(2), turned(15), turned(40)):
        found = prove(claim)
        theorem = kernel.check(found.certificate)
        low, high = theorem.range
        assert (low <= values.min(0) + 1e-12).all() and (high >= values.max(0) - 1e-12).all()
        assert low == pytest.approx(values.min(0), abs=1e-7) and high == pytest.approx(values.max(0), abs=1e-7)
        reached = theorem.attained  # by inputs at which each entry is least, and greatest
        assert (reached.low.min(0) <= values.min(0)).all() and (reached.high.min(0) >= values.min(0)).all()
        assert (reached.high.max(0) >= values.max(0)).all() and (reached.low.max(0) <= values.max(0)).all()


def test_thresholds_are_decided_by_every_input(monkeypatch):
    at_once(monkeypatch)
    claim, values = asked("linear", [range(6)] * 2)
    for more, verdict in ((1e-6, "PROVED"), (-1e-6, "REFUTED")):
        found = prove(Bounds(claim.output, over=claim.over, at_most=(values.max(0) + more).tolist()))
        assert found.verdict == verdict == kernel.check(found.certificate).verdict


def test_only_inputs_that_satisfy_the_conditions_count(monkeypatch):
    at_once(monkeypatch)
    claim, values = asked("linear", [range(6)] * 2)
    x = claim.over.tokens
    for given, allowed in (
        (sympy.Ne(x[0], x[1]), values[[a != b for a in range(6) for b in range(6)]]),
        (claim.output[0] >= 0.1, values[values[:, 0] >= 0.1]),
    ):
        assert 0 < len(allowed) < len(values)
        low, high = kernel.check(prove(Bounds(claim.output, over=x, given=[given])).certificate).range
        assert low == pytest.approx(allowed.min(0), abs=1e-7) and high == pytest.approx(allowed.max(0), abs=1e-7)


def test_a_threshold_that_is_met_exactly_is_for_the_kernels_arithmetic(monkeypatch):
    """What torch finds leaves room for rounding: here, none is needed."""
    monkeypatch.setattr(enumerate_, "DEAR", 0)

    class Doubled(nn.Module):
        def forward(self, ids):
            return ids.double().sum(1, keepdim=True)

    x = tokens("x", length=2, vocab=9)
    model = capture(Doubled().eval(), torch.zeros(1, 2, dtype=torch.long), vocab=9)
    assert prove(Bounds(model["output"], over=x, at_least=0, at_most=16)).verdict == "PROVED"


def test_where_nothing_encloses_the_ends_the_search_goes_on(monkeypatch):
    monkeypatch.setattr(enumerate_, "DEAR", 0)
    found = prove(turned(75)[0])
    assert any("rounding errors are too large" in r and "output [16]" in r for r in found.reasons)
