"""Rule `mixtures` against brute force: every enclosure by itself on every input, and the counts, whatever the witness
says."""

import json
from fractions import Fraction
from itertools import product

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from mechverify import Accuracy, capture, lookup, tokens
from mechverify.kernel import Rejected, check
from mechverify.kernel.core.arithmetic import Ball
from mechverify.kernel.core.claim import Job
from mechverify.kernel.core.counts import CountingTheorem, Counts
from mechverify.kernel.core.errors import Unsupported
from mechverify.kernel.core.exact import Exact
from mechverify.kernel.core.fields import Reader
from mechverify.kernel.core.float64 import Float64
from mechverify.kernel.mixtures.behind import rest
from mechverify.kernel.mixtures.counted import Counted
from mechverify.kernel.mixtures.rule import Group, Leaf, Partition, _leaves, _open, _wrong, bounded
from mechverify.kernel.proof import prove as proved
from mechverify.kernel.ratios.linear import Linear
from mechverify.provers.accuracy import mixtures as search
from mechverify.provers.accuracy.mixtures import _Search, _written
from mechverify.provers.accuracy.problem import AccuracyProblem
from mechverify.provers.base import Budget
from tests.rounds import ROUNDS
from tests.soundness import forge

SLACK = 1e-9
ACTS = {"relu": nn.ReLU, "gelu": nn.GELU, "tanh": nn.Tanh, "silu": nn.SiLU}


class Net(nn.Module):
    """Embeddings, attention read at one position, a residual, an MLP, and layer norms, or not; `loop`: a head after the
    other, each a contraction by itself; `causal`: nothing after that position is attended to."""

    def __init__(self, vocab: int, length: int, heads: int, *, width=4, position=-1, norms="", act="gelu", loop=False,
                 causal=False, out=None, scale=1.0):  # fmt: skip
        super().__init__()
        self.heads, self.position, self.loop, self.causal = heads, position % length, loop, causal
        wide = width * heads if loop else width
        self.norms = norms
        self.embed, self.place = nn.Embedding(vocab, width), nn.Parameter(torch.randn(length, width))
        self.q, self.k, self.v = (nn.Linear(width, wide) for _ in "qkv")
        self.out = nn.Linear(wide, width)
        self.first, self.second, self.last = (
            nn.LayerNorm(width) if c in norms else nn.Identity() for c in ("first", "second", "last")
        )
        self.mlp = nn.Sequential(nn.Linear(width, 3 * width), ACTS[act](), nn.Linear(3 * width, width)) if act else None
        self.unembed = nn.Linear(width, out or vocab)
        for p in self.parameters():
            nn.init.normal_(p, std=scale * (0.7 if p.ndim > 1 else 0.3))
        self.double().eval()

    def mixed(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        """The heads' mixtures [batch, heads, e] and the query's residual [batch, width]."""
        x = self.embed(ids) + self.place
        y = self.first(x)
        k, v = (p(y).unflatten(-1, (self.heads, -1)).transpose(1, 2) for p in (self.k, self.v))
        q = self.q(y[:, self.position]).unflatten(-1, (self.heads, -1))
        if self.loop:
            parts = [
                torch.einsum("bi,bie->be", self.pattern(torch.einsum("be,bie->bi", q[:, h], k[:, h])), v[:, h])
                for h in range(self.heads)
            ]
            return torch.stack(parts, 1), x[:, self.position]
        pattern = self.pattern(torch.einsum("bhe,bhie->bhi", q, k) / k.shape[-1] ** 0.5)
        return torch.einsum("bhi,bhie->bhe", pattern, v), x[:, self.position]

    def pattern(self, scores: Tensor) -> Tensor:
        if self.causal:
            later = torch.arange(scores.shape[-1]) > self.position
            scores = scores.masked_fill(later, -torch.inf)
        return scores.softmax(-1)

    def behind(self, z: Tensor, x: Tensor) -> Tensor:
        """Logits [batch, out]."""
        x = x + self.out(z.flatten(1))
        if self.mlp is not None:
            x = x + self.mlp(self.second(x))
        return self.unembed(self.last(x))

    def forward(self, ids: Tensor) -> Tensor:
        return self.behind(*self.mixed(ids))


class Made:
    """A claim about a random network: its argmax is what the mechanism says, but for some inputs; `shifted`: it is one
    less."""

    def __init__(self, seed: int, margin: Fraction | None = None, guarded=False, shifted=False, **options):
        rng = self.rng = np.random.default_rng(seed)
        torch.manual_seed(seed)
        vocab, self.length = int(rng.integers(2, 4)), int(rng.integers(2, 5))
        options = {
            "heads": int(rng.integers(1, 3)), "norms": str(rng.choice(["", "second", "first second last", "last"])),
            "act": str(rng.choice([*ACTS])), "loop": bool(rng.random() < 0.3), "position": int(rng.integers(self.length)),
            "scale": float(rng.choice([0.3, 1.0, 1.0, 2.0])), "causal": seed % 3 == 2,
        } | options  # fmt: skip
        self.options, self.margin = options, margin or 0
        self.net = Net(vocab, self.length, **options)
        allowed = [sorted(rng.choice(vocab, int(rng.integers(1, vocab + 1)), replace=False).tolist())
                   for _ in range(self.length)]  # fmt: skip
        allowed = [list(range(vocab))] * self.length if rng.random() < 0.5 else allowed
        self.x = tokens("x", length=self.length, vocab=vocab, allowed=allowed)
        self.inputs = np.array([*product(*allowed)])
        with torch.no_grad():
            self.logits = self.net(torch.from_numpy(self.inputs)).numpy()
        table = np.zeros(vocab**self.length, int)
        index = (self.inputs * vocab ** np.arange(self.length)[::-1]).sum(1)
        table[index] = self.logits.argmax(1) if not shifted else (self.logits.argmax(1) + 1) % self.logits.shape[1]
        for _ in range(int(rng.integers(3))):
            table[rng.choice(index)] = int(rng.integers(-1, vocab + 1))
        self.target = table[index]
        place = sum(int(vocab ** (self.length - 1 - i)) * self.x[i] for i in range(self.length))
        captured = capture(self.net, torch.zeros(1, self.length, dtype=torch.long), vocab=vocab)
        said = lookup(table.tolist(), place)
        guard = guarded and self.length > 1
        self.inside = self.inputs[:, 0] <= self.inputs[:, -1] if guard else np.ones(len(self.inputs), bool)
        given = {"given": self.x[0] <= self.x[self.length - 1]} if guard else {}
        self.claim = Accuracy(captured["output"], equals=said, over=self.x, at_least=None, margin=margin or 0, **given)
        self.problem = AccuracyProblem.of(self.claim, "real")
        possible = (self.target >= 0) & (self.target < self.logits.shape[1])
        right = np.take_along_axis(self.logits, np.where(possible, self.target, 0)[:, None], 1)
        self.leads = right - self.logits  # [inputs, outputs]
        others = np.where(np.arange(self.logits.shape[1]) == self.target[:, None], np.inf, self.leads)
        self.good = (others.min(1) > float(margin or 0)) & possible
        self.right = int((self.good | ~self.inside).sum())  # those that a guard leaves out count as right

    def turned(self, directions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """z [inputs, d] and B z."""
        with torch.no_grad():
            z = self.net.mixed(torch.from_numpy(self.inputs))[0].flatten(1).numpy()
        return z, z @ directions.T

    def behind(self, z: np.ndarray, query: int) -> np.ndarray:
        with torch.no_grad():
            x = self.net.embed.weight[query] + self.net.place[self.net.position]
            return self.net.behind(torch.from_numpy(z), x.expand(len(z), -1)).numpy()


def directions_of(rng, width: int) -> np.ndarray:
    """A basis, nearly; or too few directions, or too many."""
    square = np.linalg.qr(rng.normal(size=(width, width)))[0]
    kind = rng.random()
    if kind < 0.2:
        return square[: int(rng.integers(1, width + 1))]
    if kind < 0.3:
        return np.concatenate([square, rng.normal(size=(1, width)) * 0.1])
    return square + rng.normal(size=square.shape) * rng.choice([0.0, 1e-9, 1e-2])


def random_tree(rng, group, cell: int, depth: int = 0, wins: bool = False):
    """Halves anywhere, also beyond the box, and multipliers of any sign; `wins`: and winners."""
    wide, rivals = group.boxes.low.shape[1], group.rivals.shape[1]
    if depth < 3 and rng.random() < 0.5:
        j = int(rng.integers(wide))
        at = float(rng.uniform(group.boxes.low[cell, j], group.boxes.high[cell, j]) * rng.choice([1.0, 1.0, 3.0]))
        below, above = (random_tree(rng, group, cell, depth + 1, wins) for _ in range(2))
        return {"direction": j, "at": at.hex(), "below": below, "above": above}
    if rng.random() < 0.3 and not wins:
        return None
    size = rng.choice([0.01, 0.3, 3.0])
    rivals = 1 if wins else rivals
    off = [-20, np.rint(rng.normal(size=rivals * wide) * size * 2**20).astype(int).tolist()]
    step = int(rng.integers(-12, -4)) if rng.random() < 0.8 else None
    named = {"winner": int(rng.choice(group.rivals[cell]))} if wins else {}
    return named | {"multipliers": off if rng.random() < 0.5 else None, "step": step}


def random_group(made: Made, partition: Partition, query: int, directions=None) -> tuple[Group, np.ndarray] | None:
    rng = made.rng
    width = partition.mixed.value.mid.shape[-1]
    directions = directions_of(rng, width) if directions is None else directions
    row = partition.row(query, directions)
    keys = [k for k in partition.sizes(query) if partition.possible(k) and row.usable[partition.places[k]]]
    if not keys:
        return None
    heads = len(partition.mixed.value.mid)
    z, _ = made.turned(directions)
    centres = np.zeros((heads, len(keys), width))
    centres[0] = z.mean(0) + rng.normal(size=(len(keys), width)) * rng.choice([0.0, 0.1, 2.0])
    if rng.random() < 0.5:  # as a search places them: each head's own entries
        mine = np.arange(width) * heads // width == np.arange(heads)[:, None]
        centres = np.where(mine[:, None], centres[0], 0.0)
    centres = np.round(centres * 2**20) / 2**20
    return Group(partition, row, directions, keys, centres), centres


def test_what_is_no_such_model_is_refused():
    """Two layers; tokens that are read beside attention; float32; exact arithmetic."""

    class Twice(Net):
        def forward(self, ids: Tensor) -> Tensor:
            return super().forward(ids) + self.embed(ids)[:, 0] @ self.unembed.weight.T

    class Layers(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed, self.unembed = nn.Embedding(3, 4), nn.Linear(4, 3)

        def forward(self, ids: Tensor) -> Tensor:
            x = self.embed(ids)
            for _ in range(2):
                x = x + (x @ x.transpose(1, 2)).softmax(-1) @ x
            return self.unembed(x)[:, -1]

    x = tokens("x", length=3, vocab=3)

    def problem(net: nn.Module, semantics: str = "real") -> AccuracyProblem:
        captured = capture(net.float().eval(), torch.zeros(1, 3, dtype=torch.long), vocab=3)
        return AccuracyProblem.of(Accuracy(captured["output"], equals=x[0], over=x, at_least=None), semantics)

    torch.manual_seed(0)
    for net in (Twice(3, 3, 1), Layers()):
        made = problem(net)
        with pytest.raises(Unsupported), np.errstate(all="ignore"):
            partition = Partition(made.job, made.domain, [])
            keys = [*partition.sizes(0)]
            Group(partition, partition.row(0, np.eye(4)), np.eye(4), keys, np.zeros((1, len(keys), 4)))
    made = problem(Net(3, 3, 1))
    with pytest.raises(Unsupported, match="semantics real"):
        Partition(Job(made.claim, Exact()), made.domain, [])


def test_what_a_file_gets_wrong_is_refused():
    made = Made(7, heads=1, norms="second", act="gelu", scale=1.0)
    partition = Partition(made.problem.job, made.problem.domain, [])
    query = made.problem.domain.tokens[partition.pin][0]
    (key, *_), width = [k for k in partition.sizes(query) if partition.possible(k)], 4
    numbers = [0, [0] * width]
    leaf = {"multipliers": None, "step": None}
    cell = {"centre": [numbers], "halves": leaf}
    good = {"rule": "mixtures", "keys": [], "directions": [numbers], "cells": [[query, list(key), cell]]}

    def told(**changes) -> str:
        proof = json.loads(json.dumps(good)) | changes
        try:
            with np.errstate(all="ignore"):
                proved(Job(made.problem.claim, made.problem.job.ar), Reader(proof, "proof"))
        except Rejected as error:
            return str(error)
        return ""

    def of(**changes) -> str:
        return told(cells=[[query, list(key), cell | changes]])

    assert told() == ""
    assert "don't exist" in told(cells=[[query, [99], cell]])
    assert "listed twice" in told(cells=[[query, list(key), cell]] * 2)
    assert "expected 4 integers" in told(directions=[[0, [1, 2]]])
    assert "expected 4 integers" in told(directions=[[0, [2**53, 0, 0, 0]]])
    assert "1 to 256" in told(directions=[])
    assert "1 to 1" in of(centre=[numbers, numbers])
    assert "integers below" in of(halves={"multipliers": [0, [1]], "step": None})
    assert "[-1000, 1000]" in of(halves={"multipliers": None, "step": 2_000})
    assert "[0, 0]" in of(halves={"direction": 1, "at": (0.0).hex(), "below": None, "above": None})
    deep = None
    for _ in range(80):
        deep = {"direction": 0, "at": (0.0).hex(), "below": deep, "above": None}
    assert "halved more than 64 times" in of(halves=deep)
    assert "unknown fields" in of(halves=leaf | {"at": 1})


@pytest.mark.parametrize("seed", range(ROUNDS))
def test_every_enclosure_holds_on_every_input_and_between(seed):
    """The tables are the model's; t, what is left, the forms in every leaf, and what is concluded there."""
    made = Made(seed, Fraction(1, 8) if seed % 3 == 1 else None, seed % 4 == 3)
    partition = Partition(made.problem.job, made.problem.domain, [])
    assert partition.pin == made.net.position
    queries = np.where(made.inside, made.inputs[:, partition.pin], -1)
    for query in made.problem.domain.tokens[partition.pin]:
        of_query = made.target[queries == query]
        sizes = partition.sizes(query)
        assert sizes == {(int(m),): int(n) for m, n in zip(*np.unique(of_query, return_counts=True), strict=True)}
        with np.errstate(all="ignore"):
            found = random_group(made, partition, query)
        if found is None:
            continue
        group, _ = found
        b, boxes = group.behind.directions, group.boxes
        z, along = made.turned(b)
        assert (z >= group.row.least - SLACK)[queries == query].all()
        assert (z <= group.row.most + SLACK)[queries == query].all()
        with np.errstate(all="ignore"):
            leaves = [
                leaf for i in range(len(group.keys))
                for leaf in _leaves(group, i, Reader(random_tree(made.rng, group, i), "halves"))
            ]  # fmt: skip
            forms = group.forms(leaves)
            least = group.least(leaves, forms)
        for i, key in enumerate(group.keys):
            mine = (queries == query) & (made.target == key[0])
            t = along[mine] - group.at[i]
            assert (t >= boxes.low[i] - SLACK).all() and (t <= boxes.high[i] + SLACK).all()
            left = z[mine] - boxes.centre[i] - t @ b
            assert (np.abs(left) <= boxes.rest[i] + SLACK).all()
            covered = np.zeros(len(t), bool)
            for leaf, slopes, constants, sure in zip(leaves, *forms, least, strict=True):
                if leaf.cell != i:
                    continue
                inside = ((t >= leaf.low) & (t <= leaf.high)).all(1)
                covered |= inside
                leads = made.leads[mine][:, group.rivals[i]]
                assert (leads >= t @ slopes.T + constants - SLACK)[inside].all()
                anywhere = made.rng.uniform(leaf.low, leaf.high, (32, len(leaf.low)))
                corner = np.where(made.rng.random((32, len(leaf.low))) < 0.5, leaf.low, leaf.high)
                anywhere[::2] = corner[::2]
                shift = made.rng.choice([-1, 0, 1], (32, z.shape[1])) * boxes.rest[i]
                logits = made.behind(boxes.centre[i] + anywhere @ b + shift, query)
                lead = logits[:, [key[0]]] - logits[:, group.rivals[i]]
                assert (lead >= anywhere @ slopes.T + constants - SLACK).all()
                margin = float(made.margin)
                assert (leads[inside][:, sure > 0] > margin - SLACK).all()
                if leaf.multipliers is None:  # then the whole form is positive
                    assert (t @ slopes[sure > 0].T + constants[sure > 0] > margin - SLACK).all()
            edge = ((t < boxes.low[i]) | (t > boxes.high[i])).any(1)
            assert (covered | edge).all()


@pytest.mark.parametrize("seed", range(ROUNDS))
def test_what_directions_leave_of_a_mixture_is_bounded_wherever_the_box_begins(seed):
    """Also where s isn't B c: then each term of the bound is seen."""
    rng, (rows, d, cells) = np.random.default_rng(seed), (2, 3, 4)
    b, centre, at = rng.normal(size=(rows, d)), rng.normal(size=(cells, d)), rng.normal(size=(cells, rows))
    if seed % 2:
        b, at = np.linalg.qr(b.T)[0].T, at * 5  # (I - B^T B)(z - c) is small then
    least, most = np.sort(rng.normal(size=(2, d)), 0)
    bound = rest(Float64(), b, centre, at, least, most)
    corners = np.array([*product(*zip(least, most, strict=True))])
    for z in (*corners, *rng.uniform(least, most, (50, d))):
        t = b @ z - at
        left = np.abs(z - centre - t @ b)
        assert (left <= bound + 1e-12).all()


def random_proof(made: Made):
    partition = Partition(made.problem.job, made.problem.domain, [])
    rng, cells = made.rng, []
    b = np.round(directions_of(rng, partition.mixed.value.mid.shape[-1]) * 2**30) / 2**30
    for query in made.problem.domain.tokens[partition.pin]:
        found = random_group(made, partition, query, b)
        if found is None:
            continue
        group, centres = found
        for i, key in enumerate(group.keys):
            if rng.random() < 0.9:
                where = [_written(c) for c in centres[:, i]]
                entry = {"centre": where, "halves": random_tree(rng, group, i)}
                if len(group.rivals[i]) and rng.random() < 0.7:
                    entry["certain"] = random_tree(rng, group, i, wins=True)
                cells.append([query, list(key), entry])
    return {"rule": "mixtures", "keys": [], "directions": [_written(row) for row in b], "cells": cells}


def document(made: Made, proof, low: int, high: int) -> dict:
    return {
        "format": "mechverify-certificate", "version": 5, "cost": None,
        "claim": json.loads(json.dumps(made.problem.document)),
        "conclusion": {"verdict": "BOUNDED", "right_at_least": str(low), "right_at_most": str(high)},
        "axioms": ["ieee754", "capture"], "proof": proof,
    }  # fmt: skip


@pytest.mark.parametrize("seed", range(ROUNDS))
def test_bounds_hold_the_truth(seed, monkeypatch):
    """Of random witnesses and of the search's; and what is one step too strong is rejected."""
    monkeypatch.setattr(search, "LEAVES", 8)  # it need not find much
    monkeypatch.setattr(search, "ROUNDS", 2)
    made = Made(1_000 + seed, Fraction(1, 8) if seed % 3 == 1 else None, seed % 4 == 3)
    with np.errstate(all="ignore"):
        proofs = [random_proof(made), _Search(made.problem, Budget()).bounded().proof]
    for random, proof in zip((True, False), proofs, strict=True):
        if proof is None:
            continue
        try:
            with np.errstate(all="ignore"):
                bounds, _ = proved(Job(made.problem.claim, made.problem.job.ar), Reader(proof, "proof"))
        except Rejected as error:
            assert random and "grid is too fine" in str(error)
            continue
        assert bounds.low <= made.right <= bounds.high, (made.options, bounds, made.right)
        data, inside = made.claim.output.model.data, made.problem.claim.within(bounds)
        theorem = check(forge.file(document(made, proof, *inside), data))
        assert isinstance(theorem, CountingTheorem) and theorem.right == inside
        with pytest.raises(Rejected, match="right inputs stated"):
            check(forge.file(document(made, proof, inside.low + 1, inside.high), data))
        with pytest.raises(Rejected, match="right inputs stated" if inside.high else "natural number"):
            check(forge.file(document(made, proof, inside.low, inside.high - 1), data))


@pytest.mark.parametrize("seed", range(max(4, ROUNDS // 4)))
def test_cells_that_are_surely_right_are_decided(seed):
    """The tests above say something: small weights make nearly linear networks, whose cells are right or wrong."""
    made = Made(2_000 + seed, scale=0.05, act="tanh", norms="")
    with np.errstate(all="ignore"):
        found = _Search(made.problem, Budget()).bounded()
    cells = zip(made.inputs[:, made.net.position].tolist(), made.target.tolist(), strict=True)
    lost = {cell for cell, good in zip(cells, made.good, strict=True) if not good}
    inside = [(q, m) not in lost for q, m in zip(made.inputs[:, made.net.position], made.target, strict=True)]
    assert found.right.low >= sum(inside) > 0


@pytest.mark.parametrize("seed", range(ROUNDS))
def test_a_winners_forms_hold_on_every_input_and_what_they_show_is_wrong(seed):
    """Of the rival's lead over the right output, in every leaf; and all that is not shown is counted as maybe right."""
    made = Made(3_000 + seed, Fraction(1, 8) if seed % 3 == 1 else None, seed % 4 == 3)
    partition = Partition(made.problem.job, made.problem.domain, [])
    queries = np.where(made.inside, made.inputs[:, partition.pin], -1)
    for query in made.problem.domain.tokens[partition.pin]:
        with np.errstate(all="ignore"):
            found = random_group(made, partition, query)
        if found is None or not found[0].rivals.size:
            continue
        group, sizes = found[0], partition.sizes(query)
        trees = [random_tree(made.rng, group, i, wins=True) for i in range(len(group.keys))]
        with np.errstate(all="ignore"):
            leaves = [x for i, tree in enumerate(trees) for x in _leaves(group, i, Reader(tree, "certain"), True)]
            forms = group.forms(leaves)
            least = group.least(leaves, forms)
            maybe = _open(group, leaves, sizes) if all(x.step is None or x.step > -8 for x in leaves) else {}
        along = made.turned(group.behind.directions)[1]
        for leaf, slopes, constants, sure in zip(leaves, *forms, least, strict=True):
            mine = (queries == query) & (made.target == group.right[leaf.cell])
            t, lead = along[mine] - group.at[leaf.cell], -made.leads[mine][:, leaf.winner]
            inside = ((t >= leaf.low) & (t <= leaf.high)).all(1)
            assert (lead >= t @ slopes[0] + constants[0] - SLACK)[inside].all()
            if sure[0] > 0:
                assert (lead[inside] + float(made.margin) > -SLACK).all()
                if leaf.multipliers is None:
                    assert (t @ slopes[0] + constants[0] + float(made.margin) > -SLACK).all()
        for key, open_ in maybe.items():
            mine = (queries == query) & (made.target == key[0])
            assert made.good[mine].sum() <= open_ <= sizes[key]


def slow(seed: int):
    """The third network takes minutes."""
    return pytest.param(seed, marks=[pytest.mark.campaign] if seed == 2 else [])


@pytest.mark.parametrize("seed", [slow(seed) for seed in range(max(4, ROUNDS // 4))])
def test_cells_that_are_surely_wrong_are_decided(seed, monkeypatch):
    """As above, where another answer is asked for than the model's."""
    monkeypatch.setattr(search, "LEAVES", 4)
    monkeypatch.setattr(search, "ROUNDS", 1)
    made = Made(2_000 + seed, scale=0.05, act="tanh", norms="", shifted=True)
    with np.errstate(all="ignore"):
        found = _Search(made.problem, Budget()).bounded()
    cells = [*zip(made.inputs[:, made.net.position].tolist(), made.target.tolist(), strict=True)]
    some = {cell for cell, good in zip(cells, made.good, strict=True) if good}
    wrong = sum(cell not in some for cell in cells)
    assert made.right <= found.right.high <= len(cells) - wrong < len(cells)


def test_a_tie_is_not_shown_to_be_wrong_nor_right():
    """Outputs that are alike on every input: the kernel shows nothing, though a tie is wrong; a margin decides."""
    torch.manual_seed(0)
    net = Net(2, 2, 1, act="tanh", scale=0.1)
    for p in net.unembed.parameters():
        p.data[1] = p.data[0]
    x = tokens("x", length=2, vocab=2)
    captured = capture(net, torch.zeros(1, 2, dtype=torch.long), vocab=2)

    def bounds(margin: Fraction, winner: int) -> Counts:
        said = lookup([1] * 4, 2 * x[0] + x[1])
        claim = Accuracy(captured["output"], equals=said, over=x, at_least=None, margin=margin)
        problem = AccuracyProblem.of(claim, "real")
        cell = {"centre": [[0, [0, 0, 0, 0]]], "halves": None,
                "certain": {"winner": winner, "multipliers": None, "step": None}}  # fmt: skip
        directions = [[0, row] for row in np.eye(4, dtype=int).tolist()]
        proof = {"rule": "mixtures", "keys": [], "directions": directions, "cells": [[q, [1], cell] for q in (0, 1)]}
        return proved(Job(problem.claim, problem.job.ar), Reader(proof, "proof"))[0]

    assert bounds(Fraction(0), 0) == Counts(0, 4)
    assert bounds(Fraction(1, 2**20), 0) == Counts(0, 0)
    for winner in (1, 2, -1):
        with pytest.raises(Rejected):
            bounds(Fraction(0), winner)


class Given:
    """In place of Counted: of each rival, how many inputs are lost to it."""

    def __init__(self, *_):
        pass

    def below(self, leaf, forms, rival):
        return rival

    def lost(self, form, step):
        return [3, 0, 4][form]


def test_what_is_lost_to_one_rival_or_another_is_added_up(monkeypatch):
    """Other inputs may be lost to each."""
    monkeypatch.setattr("mechverify.kernel.mixtures.counted.Counted", Given)
    forms = np.zeros((3, 1)), np.zeros(3)
    leaf, uncounted = (Leaf(0, np.zeros(1), np.ones(1), None, step) for step in (-8, None))

    def wrong(size: int, *open_):
        return _wrong(None, 0, size, [(leaf, forms, r) for leaf, r in open_])

    assert wrong(10) == 0 and wrong(10, (leaf, 0)) == 3 and wrong(10, (leaf, 0), (leaf, 1), (leaf, 2)) == 7
    assert wrong(10, (leaf, 2), (leaf, 2)) == 8 and wrong(5, (leaf, 0), (leaf, 2)) == 5
    assert wrong(10, (leaf, 1), (uncounted, 1)) == 10


@pytest.mark.parametrize("says", [-1, 2])
def test_no_input_is_right_where_the_mechanism_names_no_output(says):
    """Also where the last output, which an index of -1 would read, surely leads, and is less than nothing."""
    torch.manual_seed(0)
    net = Net(2, 2, 1, act="tanh", scale=0.1)
    net.unembed.bias.data[:] = torch.tensor([-200.0, -100.0])
    x = tokens("x", length=2, vocab=2)
    captured = capture(net, torch.zeros(1, 2, dtype=torch.long), vocab=2)

    def bounds(answer: int) -> Counts:
        claim = Accuracy(captured["output"], equals=lookup([answer] * 4, 2 * x[0] + x[1]), over=x, at_least=None)
        problem = AccuracyProblem.of(claim, "real")
        cell = {"centre": [[0, [0, 0, 0, 0]]], "halves": {"multipliers": None, "step": None}}
        directions = [[0, row] for row in np.eye(4, dtype=int).tolist()]
        proof = {
            "rule": "mixtures",
            "keys": [],
            "directions": directions,
            "cells": [[q, [answer], cell] for q in (0, 1)],
        }
        found, _ = proved(Job(problem.claim, problem.job.ar), Reader(proof, "proof"))
        return Counts(found.low, found.high)

    assert bounds(1) == Counts(4, 4) and bounds(0).low == 0 and bounds(says).low == 0


def test_every_rival_that_is_open_is_counted(monkeypatch):
    """Each of three rivals, in each half of a cell's box: one input a time is lost."""
    monkeypatch.setattr("mechverify.kernel.mixtures.counted.Counted", Given)
    monkeypatch.setattr(Given, "lost", lambda *_: 1)
    monkeypatch.setattr(Group, "least", lambda group, leaves, forms: -np.ones(forms[1].shape))
    made = Made(1, heads=1, norms="", act="tanh", out=4, causal=False)
    partition = Partition(made.problem.job, made.problem.domain, [])
    query = made.problem.domain.tokens[partition.pin][0]
    key = next(k for k in partition.sizes(query) if partition.possible(k))
    leaf = {"multipliers": None, "step": -8}
    directions, centre = np.eye(4), [[0, [0, 0, 0, 0]]]
    for tree, lost in ((leaf, 3), ({"direction": 0, "at": (0.0).hex(), "below": leaf, "above": leaf}, 6)):
        given = Reader({"centre": centre, "halves": tree}, "cell")
        assert bounded(partition, directions, query, {key: given}, {key: 100}) == {key: Counts(0, lost)}
    won = {"winner": next(t for t in range(4) if t != key[0]), "multipliers": None, "step": -8}
    for tree, open_ in ((won, 1), ({"direction": 0, "at": (0.0).hex(), "below": won, "above": won}, 2)):
        given = Reader({"centre": centre, "halves": leaf, "certain": tree}, "cell")
        assert bounded(partition, directions, query, {key: given}, {key: 100}) == {key: Counts(100 - open_, 3)}


@pytest.mark.parametrize("seed", range(ROUNDS))
def test_inputs_whose_sum_may_not_be_positive_are_all_counted(seed):
    """Terms anywhere in their balls, of which a grid sees less."""
    made = Made(seed, guarded=seed % 4 == 3)
    rng, partition = made.rng, Partition(made.problem.job, made.problem.domain, [])
    queries = np.where(made.inside, made.inputs[:, partition.pin], -1)
    for query in made.problem.domain.tokens[partition.pin]:
        with np.errstate(all="ignore"):
            found = random_group(made, partition, query)
        for i, key in enumerate(found[0].keys if found else []):
            group, inputs = found[0], made.inputs[(queries == query) & (made.target == key[0])]
            mid = rng.integers(-6, 7, (len(group.row.tokens), made.length, 1)) / 4
            rad = rng.integers(0, 3, mid.shape) / 16
            lost = Counted(group, i).lost(Linear(Ball(mid, rad, 0), np.zeros(1)), step=-1)
            place = np.searchsorted(group.row.tokens, inputs)
            sums = (mid - rad)[place, np.arange(made.length), 0].sum(1)
            assert (sums <= 0).sum() <= lost <= (sums <= made.length / 2).sum()
