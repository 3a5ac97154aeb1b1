"""One layer of attention with layer norms and an MLP behind it, from claim to theorem: what is proved is true, also of
models that are wrong."""

from fractions import Fraction
from itertools import product

import numpy as np
import pytest
import torch
from sympy import Max, Piecewise

from mechverify import Accuracy, capture, prove, tokens
from mechverify.kernel import check
from mechverify.kernel.core.counts import CountingTheorem
from mechverify.kernel.core.fields import Reader
from mechverify.kernel.mixtures.rule import Group
from mechverify.kernel.proof import prove as proved
from mechverify.provers.accuracy import mixtures as search
from mechverify.provers.accuracy.enumerate import patience
from mechverify.provers.accuracy.falsify import falsify
from mechverify.provers.accuracy.problem import AccuracyProblem
from mechverify.provers.accuracy.torch_margins import Leads, Tabled
from mechverify.provers.base import Budget
from tests.soundness.test_mixtures import Net

BITS = 17


class Majority:
    """Heads that attend to all bits alike, made by hand; `noise`: of an MLP that knows nothing, `shift`: of the
    unembedding, so that it is wrong near the middle; `scale`: of its outputs."""

    def __init__(self, heads: int, noise: float, shift: float = 0.0, scale: float = 1.0):
        torch.manual_seed(heads)
        self.net = Net(3, BITS + 1, heads, norms="second last", act="gelu", out=2, scale=noise)
        bit = torch.tensor([1.0, -1.0, 0.0, 0.0], dtype=torch.float64)
        with torch.no_grad():
            for name in ("embed", "q", "k", "v", "out", "unembed"):
                for p in getattr(self.net, name).parameters():
                    p.zero_()
            self.net.place.zero_()
            for norm in (self.net.second, self.net.last):
                norm.reset_parameters()
            self.net.embed.weight += torch.stack([-bit, bit, bit.roll(2)])
            self.net.v.weight += torch.eye(4)
            self.net.out.weight += torch.eye(4)
            self.net.unembed.weight += torch.stack([-bit, bit])
            self.net.unembed.bias[1] = shift
            for p in self.net.unembed.parameters():
                p *= scale
        self.x = tokens("x", length=BITS + 1, vocab=3, allowed=[*[range(2)] * BITS, [2]])
        self.inputs = np.array([*product(*self.x.allowed)])
        self.captured = capture(self.net, torch.zeros(1, BITS + 1, dtype=torch.long), vocab=3)

    def claim(self, at_least: str | Fraction) -> Accuracy:
        said = Piecewise((1, sum(self.x[:-1]) > BITS // 2), (0, True))
        return Accuracy(self.captured["output"], equals=said, over=self.x, at_least=at_least)

    @property
    def right(self) -> int:
        with torch.no_grad():
            logits = torch.cat([self.net(ids) for ids in torch.from_numpy(self.inputs).split(2**14)])
        lead = (logits[:, 1] - logits[:, 0]).numpy()
        return int((np.where(self.inputs.sum(1) - 2 > BITS // 2, lead, -lead) > 0).sum())


def theorem(done) -> CountingTheorem:
    found = check(done.certificate)
    assert isinstance(found, CountingTheorem)
    return found


@pytest.mark.parametrize("heads", [1, 2])
def test_a_model_that_is_right_is_proved(heads):
    made = Majority(heads, 0.1)
    assert made.right == 2**BITS
    done = prove(made.claim("1"))
    assert done.verdict == "PROVED" and theorem(done).rules == {"mixtures": 1}


@pytest.mark.parametrize("heads", [1, 2])
def test_of_a_model_that_is_wrong_no_more_is_proved_than_is_true(heads):
    made = Majority(heads, 0.1, shift=0.3)
    right = made.right
    assert 0 < right < 2**BITS
    refuted = prove(made.claim("1"))
    assert refuted.verdict == "REFUTED" and len(theorem(refuted).tokens)
    problem = AccuracyProblem.of(made.claim("best"), "real")
    with np.errstate(all="ignore"):
        found = search._Search(problem, Budget()).bounded()
    assert found.right.low <= right <= found.right.high and found.right.low > right / 2
    more = AccuracyProblem.of(made.claim(Fraction(right + 1, 2**BITS)), "real")
    with np.errstate(all="ignore"):
        assert search._Search(more, Budget()).bounded().right.low <= right


def test_cells_that_one_box_leaves_open_are_decided_in_halves(monkeypatch):
    """Where the forms of whole boxes are said to be open, those of halves are not; and the kernel agrees."""
    whole, asked = Group.least, []

    def least(self, leaves, forms=None):
        asked.append(len(leaves))
        return whole(self, leaves, forms) if len(asked) > 1 else np.full((len(leaves), 1), -1.0)

    monkeypatch.setattr(Group, "least", least)
    problem = AccuracyProblem.of(Majority(1, 0.1).claim("1"), "real")
    with np.errstate(all="ignore"):
        found = search._Search(problem, Budget()).bounded()
        assert found.right.low == 2**BITS and found.proof is not None
        assert all(entry["halves"] is not None for *_, entry in found.proof["cells"])
        assert proved(problem.job, Reader(found.proof, "proof"))[0] == found.right


def test_a_lead_that_rounds_to_nothing_is_not_called_wrong(monkeypatch):
    """Where whole boxes are said to be open, so that the search looks for wrong inputs in them; and the leads are
    smaller than the grid of margins."""
    whole, asked = Group.least, []

    def least(self, leaves, forms=None):
        asked.append(len(leaves))
        return whole(self, leaves, forms) if len(asked) > 1 else np.full((len(leaves), 1), -1.0)

    monkeypatch.setattr(Group, "least", least)
    made = Majority(1, 0.1, scale=1e-9)
    assert made.right == 2**BITS
    problem = AccuracyProblem.of(made.claim("1"), "real")
    with np.errstate(all="ignore"):
        found = search._Search(problem, Budget()).bounded()
    assert found.wrong is None and found.right.low == 2**BITS


def test_margins_by_tables_are_the_graphs():
    made = Majority(2, 0.3, shift=0.1)
    problem = AccuracyProblem.of(made.claim("1"), "real")
    some = made.inputs[:: 2**7]
    by_tables, by_graph = Tabled(problem.job), Leads(problem.job)
    np.testing.assert_allclose(by_tables(some), by_graph(some), rtol=0, atol=1e-9)
    np.testing.assert_array_equal(by_tables.winner(some[:9]), by_graph.winner(some[:9]))


@pytest.mark.parametrize("far", [740.0, 900.0])
@pytest.mark.parametrize("allowed", [0, 1])
def test_margins_by_tables_are_the_graphs_where_weights_underflow(far, allowed):
    """A token whose score is larger than others' by hundreds, which stands nowhere, or only sometimes at first."""
    torch.manual_seed(0)
    net = Net(3, 16, 1, norms="second", act="relu")
    with torch.no_grad():
        for p in (*net.q.parameters(), *net.k.parameters(), net.place):
            p.zero_()
        net.embed.weight[2, 0] += far
        net.q.bias[0], net.k.weight[0, 0] = 2.0, 1.0
    x = tokens("x", length=16, vocab=3, allowed=[[0, 1, 2] if allowed else [0, 1], *[[0, 1]] * 15])
    captured = capture(net, torch.zeros(1, 16, dtype=torch.long), vocab=3)
    problem = AccuracyProblem.of(Accuracy(captured["output"], equals=x[0], over=x, at_least=None), "real")
    inputs = np.array([*product(*x.allowed)])[::97]
    by_graph = Leads(problem.job)(inputs)
    np.testing.assert_allclose(Tabled(problem.job)(inputs), by_graph, rtol=0, atol=1e-9)
    assert falsify(problem, Budget()).least <= by_graph.min()


def test_where_no_cell_is_decided_every_input_is_run():
    """The maximum of three tokens, by a net that knows nothing: no line is near it anywhere, and 27,000 are soon run."""
    net = Net(30, 3, 1, norms="first last", act="gelu", out=30)
    x = tokens("x", length=3, vocab=30)
    captured = capture(net, torch.zeros(1, 3, dtype=torch.long), vocab=30)
    found = prove(Accuracy(captured["output"], equals=Max(*x), over=x, at_least="best"))
    ids = torch.cartesian_prod(*[torch.arange(30)] * 3)
    with torch.no_grad():
        right = int((net.double()(ids).argmax(-1) == ids.amax(1)).sum())
    assert found.theorem.right.low == found.theorem.right.high == right > 0
    assert found.theorem.rules["enumerate"]


def test_a_search_begins_no_cell_after_its_work():
    """That is what running every input takes: of 2^17 so much, of a domain that nobody could run any."""
    made = Majority(1, noise=0.0)
    problem = AccuracyProblem.of(made.claim("best"), "real")
    assert 0 < patience(problem, Budget()) < np.inf
    assert search._Search(problem, Budget(), 0.0).bounded().proof is None
    assert search._Search(problem, Budget()).bounded().right == (made.right, made.right)
    x = tokens("x", length=BITS + 1, vocab=3)
    large = Accuracy(made.captured["output"], equals=0, over=x, at_least="best")
    assert patience(AccuracyProblem.of(large, "real"), Budget()) == np.inf
