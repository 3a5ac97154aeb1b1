"""Circuits and other pairs of runs: what is counted of them is what torch counts, with hooks of its own."""

import copy
from itertools import product

import numpy as np
import pytest
import torch
from sympy import Mod, Ne
from torch import nn

from mechverify import (
    Accuracy,
    Circuits,
    Equivariant,
    Part,
    Same,
    box,
    differ,
    interchanged,
    parts,
    prove,
    tokens,
)
from mechverify.claims.errors import ClaimError
from mechverify.graph.interventions import agreement, leads

VOCAB, LENGTH, HIDDEN = 4, 2, 5


class Pair(nn.Module):
    """An MLP of two tokens."""

    def __init__(self, seed: int = 0, out: int = VOCAB, hidden: int = HIDDEN):
        super().__init__()
        torch.manual_seed(seed)
        self.embed, self.up = nn.Embedding(VOCAB, 6), nn.Linear(6 * LENGTH, hidden)
        self.act, self.down = nn.ReLU(), nn.Linear(hidden, out)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.down(self.act(self.up(self.embed(ids).flatten(1))))


class Attention(nn.Module):
    """Two heads whose mixtures are a site [position, head, size], and a head that reads them."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(3)
        self.embed, self.qkv = nn.Embedding(VOCAB, 4), nn.Linear(4, 12)
        self.z, self.out = nn.Identity(), nn.Linear(4, VOCAB)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        x = self.embed(ids)
        q, k, v = self.qkv(x).reshape(*ids.shape, 3, 2, 2).permute(2, 0, 3, 1, 4)
        z = self.z(((q @ k.mT).softmax(-1) @ v).transpose(1, 2))
        return self.out(x + z.flatten(2))


X = tokens("x", length=LENGTH, vocab=VOCAB)
IDS = torch.tensor(list(product(range(VOCAB), repeat=LENGTH)))


def counted(claim) -> int:
    """How many inputs it holds on, exactly."""
    outcome = prove(claim)
    assert outcome.theorem is not None and outcome.theorem.right.low == outcome.theorem.right.high
    return outcome.theorem.right.low


@torch.no_grad()
def right(a: torch.Tensor, b: torch.Tensor) -> int:
    return int((a.argmax(-1) == b.argmax(-1)).sum())


@torch.no_grad()
def ablated(model: nn.Module, module: nn.Module, where: torch.Tensor, patch: torch.Tensor, ids: torch.Tensor = IDS):
    """With a hook of our own: the patch where `where` says so."""
    handle = module.register_forward_hook(lambda m, a, out: torch.where(where, patch, out))
    try:
        return model(ids)
    finally:
        handle.remove()


@torch.no_grad()
def returned(model: nn.Module, module: nn.Module, ids: torch.Tensor = IDS) -> torch.Tensor:
    found: list[torch.Tensor] = []
    handle = module.register_forward_hook(lambda m, a, out: found.append(out))
    model(ids)
    handle.remove()
    return found[0]


def test_leads_and_agreement():
    rng = torch.Generator().manual_seed(0)
    a, b = (torch.randint(0, 4, (500, 5), generator=rng).double() for _ in "ab")  # many ties
    for row, lead in zip(a, leads(a), strict=True):
        others = [torch.cat([row[:i], row[i + 1 :]]).max() for i in range(5)]
        assert torch.equal(lead, row - torch.stack(others))
    for x, y, margin in zip(a, b, agreement(a, b), strict=True):
        tops = [torch.nonzero(v == v.max()).flatten().tolist() for v in (x, y)]
        assert (margin > 0) == (len(tops[0]) == 1 and tops[0] == tops[1])


@pytest.mark.parametrize("patch", [0, 0.5, "mean", "array", "resample"])
def test_neurons_are_patched(patch):
    model = Pair().double().eval()
    act, array = returned(model, model.act), np.arange(HIDDEN) / 4 - 0.5
    circuits = Circuits(
        model, parts("act", HIDDEN, dims=1), over=X, patch={"act": array} if patch == "array" else patch
    )
    if patch == "resample":
        values = list(act)
    elif patch == "mean":
        values = [act.mean(0)]
    else:
        values = [torch.as_tensor(array if patch == "array" else float(patch), dtype=torch.float64)]
    seen = set()
    for keep in ([], [0, 3], [1, 2, 4], range(HIDDEN)):
        where = torch.tensor([i not in keep for i in range(HIDDEN)])
        want = sum(right(model(IDS), ablated(model, model.act, where, value)) for value in values)
        assert counted(circuits.agree([f"act.{i}" for i in keep], at_least=None)) == want
        seen.add(want)
    assert len(seen) > 1


def test_heads_at_every_position_and_one_row_of_the_output():
    model = Attention().double().eval()
    circuits = Circuits(model, parts("z", 2, axis=1, dims=3), over=X, row=-1)
    for keep in ([], ["z.0"], ["z.1"], ["z.0", "z.1"]):
        where = torch.tensor([f"z.{h}" not in keep for h in range(2)])[:, None].expand(2, 2)
        want = right(model(IDS)[:, -1], ablated(model, model.z, where, torch.zeros(()).double())[:, -1])
        assert counted(circuits.agree(keep, at_least=None)) == want
    last = Circuits(model, {"last": Part("z", -1), "first": Part("z", (0, slice(None)))}, over=X, row=-1)
    where = torch.tensor([True, False])[:, None, None].expand(2, 2, 2)
    want = right(model(IDS)[:, -1], ablated(model, model.z, where, torch.zeros(()).double())[:, -1])
    assert counted(last.agree(["last"], at_least=None)) == want


def test_differences_and_shares_within():
    model = Pair().double().eval()
    circuits = Circuits(model, parts("act", HIDDEN, dims=1), over=X)
    where = torch.tensor([False, True, False, False, False])
    gap = (model(IDS) - ablated(model, model.act, where, torch.zeros(()).double())).detach().abs().amax(1)
    keep, middle = ["act.0", "act.2", "act.3", "act.4"], round(float(gap.median()), 6)
    assert counted(circuits.agree(keep, agrees=middle, at_least=None)) == int((gap <= middle).sum())
    most = float(gap.max())
    assert prove(circuits.differ(keep, at_most=most * (1 + 1e-9))).verdict == "PROVED"
    assert prove(circuits.differ(keep, at_most=most * (1 - 1e-6))).verdict == "REFUTED"


def test_conditions_hold_of_both_inputs():
    model = Pair().double().eval()
    circuits = Circuits(model, parts("act", HIDDEN, dims=1), over=X, patch="resample", given=Ne(X[0], X[1]))
    ids = IDS[IDS[:, 0] != IDS[:, 1]]
    act, where = returned(model, model.act, ids), torch.tensor([True, True, False, False, False])
    want = sum(right(model(ids), ablated(model, model.act, where, a, ids)) for a in act)
    claim = circuits.agree(["act.2", "act.3", "act.4"], at_least=None)
    assert counted(claim) == want
    assert prove(claim).theorem.claim.total == len(ids) ** 2


def test_two_models_on_tokens_and_on_a_box():
    one, other = Pair(0).double().eval(), Pair(0).double().eval()
    with torch.no_grad():
        other.down.weight += 0.2 * torch.randn_like(other.down.weight)
    want = right(one(IDS), other(IDS))
    assert want < len(IDS)
    assert counted(Same(one, other, over=X, at_least=None)) == want
    assert prove(Same(one, other, over=X, at_least=f"{want}/{len(IDS)}")).verdict == "PROVED"
    assert prove(Same(one, other, over=X, at_least=f"{want + 1}/{len(IDS)}")).verdict == "REFUTED"
    torch.manual_seed(1)
    first, second = nn.Linear(2, 3).double().eval(), nn.Linear(2, 3).double().eval()
    outcome = prove(Same(first, second, over=box([-1, -1], [1, 1]), at_least=None, within="1/100"))
    drawn = torch.rand(200_000, 2, dtype=torch.float64) * 2 - 1
    share = right(first(drawn), second(drawn)) / len(drawn)
    low, high = (float(b / outcome.theorem.claim.total) for b in outcome.theorem.right)
    assert low - 0.005 <= share <= high + 0.005 and high - low <= 0.01


def test_a_symmetric_model_is_equivariant_and_another_is_not():
    class Symmetric(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.embed = nn.Embedding(VOCAB, VOCAB)

        def forward(self, ids):
            return self.embed(ids).sum(1)

    symmetric, other = Symmetric().double().eval(), Pair().double().eval()
    assert prove(Equivariant(symmetric, over=X, positions=[1, 0])).verdict == "PROVED"
    want = right(other(IDS), other(IDS.flip(1)))
    assert want < len(IDS) and counted(Equivariant(other, over=X, positions=[1, 0], at_least=None)) == want
    moved, outputs = torch.tensor([1, 2, 3, 0]), [3, 0, 1, 2]
    want = right(other(moved[IDS]), other(IDS)[:, outputs])
    claim = Equivariant(other, over=X, tokens=moved.tolist(), outputs=outputs, at_least=None)
    assert counted(claim) == want


def test_interchanges_say_what_a_part_carries():
    """The first token's embedding is what the model adds: interchanged, the sum is that of the other input's."""

    class Adds(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Identity(), nn.Identity()
            self.register_buffer("turn", torch.eye(VOCAB))

        def forward(self, ids):
            a, b = self.first(self.turn[ids[:, 0]]), self.second(self.turn[ids[:, 1]])
            table = torch.stack([self.turn.roll(k, 1) for k in range(VOCAB)])
            return torch.einsum("bi,bj,ijk->bk", a, b, table)

    model, xy = interchanged(Adds().eval(), Part("first"), over=X)
    x, y = xy[:LENGTH], xy[LENGTH:]
    assert counted(Accuracy(model["output"], equals=Mod(y[0] + x[1], VOCAB), over=xy)) == VOCAB**4
    assert counted(Accuracy(model["output"], equals=Mod(x[0] + x[1], VOCAB), over=xy)) == VOCAB**3
    some = tokens("x", length=LENGTH, vocab=VOCAB, allowed=[[1, 2], [3]])
    model, xy = interchanged(Adds().eval(), Part("first"), over=X, source=some)
    assert xy.size == VOCAB**2 * 2 and [*xy.allowed] == [*X.allowed, *some.allowed]
    assert counted(Accuracy(model["output"], equals=Mod(xy[2] + xy[1], VOCAB), over=xy)) == VOCAB**2 * 2
    with pytest.raises(ClaimError, match="source= has 3 tokens of 4 ids, over= 2 of 4"):
        interchanged(Adds().eval(), Part("first"), over=X, source=tokens("x", length=3, vocab=VOCAB))


def test_false_claims_are_not_proved():
    """A share up by one input, a part left out, an eps too small: of models that are not perfect."""
    tried = 0
    for seed in range(3):
        model = Pair(seed).double().eval()
        circuits = Circuits(model, parts("act", HIDDEN, dims=1), over=X)
        for drop in range(HIDDEN):
            keep = [name for name in circuits.names if name != f"act.{drop}"]
            where = torch.tensor([i == drop for i in range(HIDDEN)])
            b = ablated(model, model.act, where, torch.zeros(()).double())
            n, gap = right(model(IDS), b), float((model(IDS) - b).detach().abs().max())
            if n < len(IDS):
                tried += 1
                assert prove(circuits.agree(keep, at_least=f"{n + 1}/{len(IDS)}")).verdict == "REFUTED"
            if gap > 0 and drop == seed % HIDDEN:
                tried += 1
                assert prove(circuits.agree(keep, agrees=gap * (1 - 1e-9))).verdict == "REFUTED"
    assert tried > 9


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (dict(parts={"a": Part("nothing")}), "no submodule 'nothing'"),
        (dict(parts={"a": Part("act", 9)}), "part a: act[9]"),
        (dict(parts={"a": Part("act", 1), "b": Part("act", slice(0, 2))}), "share entries"),
        (dict(parts={}), "needs parts"),
        (dict(patch="median"), "'median'"),
        (dict(patch={"act": [1.0, 2.0]}), "patch of act"),
        (dict(patch={"up": 0.0}), "the parts stand at act"),
        (dict(over=box([0], [1])), "over=tokens"),
    ],
)
def test_what_is_wrong_is_said(change, said):
    settings = dict(parts=parts("act", HIDDEN, dims=1), over=X) | change
    with pytest.raises(ClaimError) as error:
        circuits = Circuits(Pair().double().eval(), settings.pop("parts"), **settings)
        circuits.agree([])
    assert said in str(error.value)


def test_a_matrix_needs_a_row_and_names_must_be_known():
    with pytest.raises(ClaimError, match="row=-1"):
        Circuits(Attention().double().eval(), parts("z", 2, axis=1, dims=3), over=X).agree([])
    circuits = Circuits(Pair().double().eval(), parts("act", HIDDEN, dims=1), over=X)
    with pytest.raises(ClaimError, match=r"no part act\.7"):
        circuits.agree(["act.7"])
    with pytest.raises(ClaimError, match="negative"):
        circuits.agree([], agrees=-1)


# --- what a hook sees -------------------------------------------------------------------------------------------------


class InPlace(nn.Module):
    """The first token's value, to which the second one's is added in place."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Identity(), nn.Identity()

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        total = self.first(ids[:, :1].double())
        total += self.second(ids[:, 1:].double())
        return -((total - torch.arange(9.0, dtype=torch.float64)) ** 2)


def test_what_changes_in_place_afterwards_is_not_what_a_part_returned():
    model, xy = interchanged(InPlace().eval(), Part("first"), over=X)
    assert counted(Accuracy(model["output"], equals=xy[2] + xy[1], over=xy)) == VOCAB**4
    resampled = Circuits(InPlace().eval(), {"first": Part("first")}, over=X, patch="resample")
    want = sum(int(a == c) for a, _, c, _ in product(range(VOCAB), repeat=4))
    assert counted(resampled.agree([], at_least=None)) == want
    mean = Circuits(InPlace().eval(), {"first": Part("first")}, over=X, patch="mean").module
    assert mean.constants["first"].item() == 1.5


class Placed(nn.Module):
    """Position embeddings without a batch axis."""

    def __init__(self):
        super().__init__()
        self.token, self.place = nn.Embedding(VOCAB, VOCAB), nn.Embedding(LENGTH, VOCAB)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return (self.token(ids) + self.place(torch.arange(ids.shape[1])))[:, -1]


class Sometimes(nn.Module):
    """Calls a submodule when it is trained alone."""

    def __init__(self):
        super().__init__()
        self.embed, self.noise = nn.Embedding(VOCAB, VOCAB), nn.Identity()

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        x = self.embed(ids[:, 0])
        return self.noise(x) if self.training else x


@pytest.mark.parametrize(
    ("model", "named", "said"),
    [
        (Placed().double().eval(), {"a": Part("place", 1)}, "the batch's axis first"),
        (Sometimes().double(), {"a": Part("noise")}, "training mode"),
        (Sometimes().double().eval(), {"a": Part("noise")}, "called 0 times"),
        (nn.Sequential(nn.Embedding(VOCAB, 3), nn.Flatten(), nn.Sequential(nn.Linear(6, 3))).eval(),
         {"a": Part("2"), "b": Part("2.0")}, "2.0 is inside 2"),
    ],
)  # fmt: skip
def test_a_part_that_is_no_value_of_each_input_is_refused(model, named, said):
    with pytest.raises(ClaimError) as error:
        Circuits(model, named, over=X)
    assert said in str(error.value)


def test_models_in_training_mode_are_refused_everywhere():
    model, trained = Pair().double().eval(), Pair().double()
    for make in (lambda: Same(model, trained, over=X), lambda: Equivariant(trained, over=X, positions=[1, 0]),
                 lambda: interchanged(trained, Part("act"), over=X)):  # fmt: skip
        with pytest.raises(ClaimError, match="training mode"):
            make()
    assert trained.training


def test_a_condition_by_itself_and_arrays_are_taken():
    model = Pair().double().eval()
    circuits = Circuits(model, parts("act", HIDDEN, dims=1), over=X, given=Ne(X[0], X[1]), patch={"act": np.zeros(5)})
    assert prove(circuits.agree(circuits.names)).verdict == "PROVED"
    with pytest.raises(ClaimError, match="given"):
        circuits.differ([])
    with pytest.raises(ClaimError, match="mapping of names"):
        Circuits(model, [Part("act")], over=X)


def test_nearly_equal_models_differ_by_little():
    torch.manual_seed(2)
    model = nn.Sequential(nn.Linear(2, 6), nn.GELU(), nn.Linear(6, 3)).double().eval()
    other = copy.deepcopy(model)
    other[0].weight.data += 1e-3
    over = box([-1, -1], [1, 1])
    points = torch.cat(
        [torch.rand(4_000, 2, dtype=torch.float64) * 2 - 1, torch.tensor([[1.0, 1], [-1, -1], [1, -1], [-1, 1]])]
    )
    with torch.no_grad():
        largest = float((model(points) - other(points)).abs().max())
    outcome = prove(differ(model, other, over=over), method="linear")
    assert largest <= float(outcome.theorem.range.high[0]) < 6 * largest
    assert "differences" in outcome.theorem.rules
    assert prove(differ(model, other, over=over, at_most=str(2 * largest))).verdict == "PROVED"
    assert prove(differ(model, other, over=over, at_most=str(0.9 * largest))).verdict == "REFUTED"
    with pytest.raises(ClaimError, match="shapes"):
        differ(model, nn.Sequential(nn.Linear(2, 2)).double().eval(), over=over)
