"""Unions of domains as users write them: sizes, samples, conditions and boxes against sets that are listed."""

import itertools
from fractions import Fraction
from math import prod

import numpy as np
import pytest
import torch
from sympy import And, Eq, Ge, Max
from torch import nn

from mechverify import (
    Accuracy,
    Bounds,
    Cases,
    Circuits,
    ClaimError,
    Holds,
    Share,
    Within,
    ball,
    box,
    capture,
    interchanged,
    normal,
    parts,
    prove,
    tokens,
    transformer,
    union,
)
from mechverify.claims.mechanisms import compile_mechanism
from mechverify.claims.unions import disjoint
from mechverify.kernel import check
from tests.independent.checker import Mechanism
from tests.models import as_bytes, random_weights
from tests.rounds import ROUNDS

LENGTH, VOCAB = 3, 5
ALL = list(itertools.product(range(VOCAB), repeat=LENGTH))


def of(*sets, values=None):
    return tokens("x", length=LENGTH, vocab=VOCAB, values=values, allowed=sets)


def drawn(rng: np.random.Generator) -> tuple:
    return tuple(sorted(set(rng.integers(0, VOCAB, 4).tolist())) for _ in range(LENGTH))


def inside(t: tuple, members: list) -> bool:
    return any(all(v in here for v, here in zip(t, sets, strict=True)) for sets in members)


@pytest.mark.parametrize("seed", range(ROUNDS))
def test_a_union_of_token_sets_is_the_set_union(seed):
    rng = np.random.default_rng(seed)
    members = [drawn(rng) for _ in range(int(rng.integers(1, 5)))]
    values = None if seed % 2 else rng.permutation(9)[:VOCAB].tolist()
    x = union(*(of(*sets, values=values) for sets in members))
    listed = {t for t in ALL if inside(t, members)}
    assert x.size == len(listed)
    hull = set(itertools.product(*x.allowed))
    assert listed <= hull
    sampled = set(map(tuple, x.sample(400, rng).tolist()))
    assert sampled <= listed
    if not x.given:
        assert hull == listed
        return
    guard = Mechanism(compile_mechanism(And(*x.given), x), list(x.values), LENGTH)
    assert {t for t in hull if guard(t)} == listed


def test_samples_of_overlapping_sets_are_uniform():
    x = union(of([0, 1], [0, 1], [0]), of([0], [0, 1, 2, 3], [0]), of([0], [0], [0, 1]))
    n, counts = 60_000, {}
    for row in map(tuple, x.sample(n, np.random.default_rng(3)).tolist()):
        counts[row] = counts.get(row, 0) + 1
    assert len(counts) == x.size == 7
    assert all(abs(c / n - 1 / 7) < 5 * (1 / 7 / n) ** 0.5 for c in counts.values())


def test_sizes_of_large_unions_are_exact():
    big = [tokens("x", length=200, vocab=50, allowed=range(k, k + 25)) for k in (0, 10, 20)]
    assert union(*big).size == 3 * 25**200 - 2 * 15**200 - 5**200 + 5**200


def test_accuracy_counts_each_input_once(tmp_path):
    path = tmp_path / "w.safetensors"
    path.write_bytes(
        as_bytes(random_weights(np.random.default_rng(0), vocab=VOCAB, length=LENGTH, heads=1, layers=1, biases=False))
    )

    def theorem(over):
        return prove(Accuracy(transformer(path).logits[-1], equals=Max(*over), over=over)).theorem

    sets = [([0, 1], [0, 1, 3], [1, 2]), ([1, 3], [0, 1], [0, 1]), ([1], [1], [1, 4])]
    over = union(*(of(*s) for s in sets))
    listed = [t for t in ALL if inside(t, sets)]
    found = theorem(over)
    assert found.claim.total == over.size == len(listed) < sum(prod(map(len, s)) for s in sets)
    assert found.right.low == found.right.high == sum(theorem(of(*([v] for v in t))).right.low for t in listed)


class Embedded(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.e, self.l = nn.Embedding(VOCAB, 4), nn.Linear(4 * LENGTH, 3)

    def forward(self, ids):
        return self.l(torch.tanh(self.e(ids).flatten(1)))


NET = Embedded().double().eval()
MODEL = capture(NET, torch.zeros(1, LENGTH, dtype=torch.long))
SETS = [([0, 1], [0, 1, 2], [0, 4]), ([1, 3], [2, 3], [0, 1, 2]), ([1], [2], [0])]


def outputs(ids: list) -> np.ndarray:
    with torch.no_grad():
        return NET(torch.tensor(ids)).numpy()


def test_claims_of_every_kind_speak_of_the_union_alone():
    x, out = union(*(of(*s) for s in SETS)), MODEL["output"]
    ids = [t for t in ALL if inside(t, SETS)]
    y = outputs(ids)
    theorem = prove(Share(out[0] > out[1], over=x)).theorem
    assert (theorem.claim.total, theorem.right.low) == (len(ids), int((y[:, 0] > y[:, 1]).sum()))
    assert theorem.right.low == theorem.right.high
    found = prove(Bounds(out, over=x)).theorem.range
    assert (found.low <= y.min(0)).all() and (y.max(0) <= found.high).all()
    others = outputs([t for t in itertools.product(*x.allowed) if not inside(t, SETS)])
    e = int(np.argmax(others.max(0) - y.max(0)))
    most = float(y[:, e].max())
    assert others[:, e].max() > most + 1e-3  # the product of all tokens breaks what the union keeps
    assert prove(Bounds(out[e], over=x, at_most=most + 1e-7)).verdict == "PROVED"
    assert prove(Holds(Ge(most + 1e-7, out[e]), over=x)).verdict == "PROVED"
    assert prove(Bounds(out[e], over=x, at_most=most - 1e-7)).verdict == "REFUTED"
    assert prove(Within(out[e], 0, over=x, eps=float(np.abs(y[:, e]).max()) + 1e-7)).verdict == "PROVED"
    assert prove(Cases(Eq(x[0], 1), Eq(x[0], 0), Eq(x[0], 3), over=x)).verdict == "PROVED"


def test_given_holds_beside_a_union():
    x, out = union(*(of(*s) for s in SETS)), MODEL["output"]
    ids = [t for t in ALL if inside(t, SETS) and t[0] != t[1]]
    theorem = prove(Share(out[0] > out[1], over=x, given=~Eq(x[0], x[1]))).theorem
    y = outputs(ids)
    assert (theorem.claim.total, theorem.right.low) == (len(ids), int((y[:, 0] > y[:, 1]).sum()))


def test_circuits_over_a_union():
    class Small(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(2)
            self.e, self.h, self.o = nn.Embedding(VOCAB, 3), nn.Linear(3 * LENGTH, 3), nn.Linear(3, 2)

        def forward(self, ids):
            return self.o(torch.relu(self.h(self.e(ids).flatten(1))))

    x = union(*(of(*s) for s in SETS))
    circuits = Circuits(Small().double().eval(), parts("h", 3, dims=1), over=x)
    assert prove(circuits.agree(circuits.names)).verdict == "PROVED"
    theorem = prove(circuits.agree(circuits.names[:1], at_least=None)).theorem
    assert theorem.claim.total == x.size
    with pytest.raises(ClaimError, match="union"):
        interchanged(Small().double().eval(), parts("h", 3, dims=1)["h.0"], over=x)


# --- boxes ------------------------------------------------------------------------------------------------------------


def volume(boxes: list) -> Fraction:
    """Of a union, by cells between all corners."""
    edges = [sorted({Fraction(v) for low, high in boxes for v in (low[c], high[c])}) for c in range(len(boxes[0][0]))]
    total = Fraction(0)
    for cell in itertools.product(*(itertools.pairwise(e) for e in edges)):
        held = any(all(a <= p and q <= b for a, b, (p, q) in zip(low, high, cell, strict=True)) for low, high in boxes)
        total += prod(q - p for p, q in cell) * held
    return total


@pytest.mark.parametrize("seed", range(ROUNDS))
def test_overlapping_boxes_are_cut_into_disjoint_ones(seed):
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 4))
    wider = np.array([[0.0], [0.25]])
    ends = [np.sort(rng.integers(0, 9, (2, n)) / 4.0, 0) + wider for _ in range(int(rng.integers(2, 7)))]
    whole = union(*(box(*e) for e in ends))
    cut = disjoint(whole)
    pieces = list(zip(*(end.tolist() for end in cut.corners), strict=True))
    assert sum(prod(Fraction(b) - Fraction(a) for a, b in zip(*p, strict=True)) for p in pieces) == volume(
        [tuple(map(np.ndarray.tolist, e)) for e in ends]
    )
    for (a, b), (c, d) in itertools.combinations(pieces, 2):
        assert any(q <= r or s <= p for p, q, r, s in zip(a, b, c, d, strict=True))
    points = rng.uniform(-0.5, 3, (400, n))
    held = [
        np.array([((low <= x) & (x <= high)).all(1).any() for x in points])
        for low, high in (whole.corners, cut.corners)
    ]
    assert (held[0] == held[1]).all()


def test_a_union_of_boxes_shows_and_samples_itself():
    whole = union([ball([0.0, 0.0], 0.5), ball([3.0, 1.0], 0.25)])
    assert "union of 2 boxes" in repr(whole) and len(whole.each) == 2
    assert [a.tolist() for a in whole.low] == [[-0.5, -0.5]] and [a.tolist() for a in whole.high] == [[3.25, 1.25]]
    again = union(whole, ball([0.0, 9.0], 1))
    assert len(again.each) == 3
    assert union(ball([0.0], 1)) is not None and len(union(ball([0.0], 1)).each) == 1


def refused(call, *words):
    with pytest.raises(ClaimError) as error:
        call()
    assert all(w in str(error.value) for w in words), error.value


def test_what_a_union_may_not_be_gets_one_clear_error():
    a, b = ball([0.0], 1), ball([3.0], 1)
    refused(lambda: union(), "one kind")
    refused(lambda: union(a, of(*SETS[0])), "one kind")
    refused(lambda: union(1, 2), "one kind")
    refused(lambda: union(a, ball([0.0, 1.0], 1)), "same shapes")
    refused(lambda: union(a, ball([0.0], 1, name="y")), "one name")
    refused(lambda: union(a, box([2.0], [3.0], distribution=normal(0, 1))), "same distribution")
    refused(lambda: union(a.with_tokens(of(*SETS[0])), b), "with_tokens")
    refused(lambda: union(of(*SETS[0]), tokens("y", length=LENGTH, vocab=VOCAB)), "one name")
    refused(lambda: union(of(*SETS[0]), tokens("x", length=2, vocab=VOCAB)), "length")
    refused(lambda: union(of([0], [0], [0], values=[1, 1, 2, 3, 4]), of([1], [1], [1], values=[1, 1, 2, 3, 4])), "id")
    line = capture(nn.Linear(1, 1).double().eval(), torch.zeros(1, 1, dtype=torch.float64))
    out = line["output"]
    whole = union(a, b)
    refused(lambda: Share(out[0] > 0, over=whole, given=Ge(whole[0], 0)), "given=", "tokens")
    lemma = Within(out, [out[0]], over=whole)
    refused(lambda: Bounds(out, over=whole, using=lemma), "using=", "union")
    refused(lambda: Share(out[0] > 0, over=union(ball([0.1], "1/10"), b)), "float64")


def test_rounded_corners_are_said_and_a_counterexample_is_the_users():
    line = capture(nn.Linear(1, 1).double().eval(), torch.zeros(1, 1, dtype=torch.float64))
    outcome = prove(Bounds(line["output"], over=union(ball(["1/10"], "1/30"), ball(["5"], "1/30"))))
    assert outcome.verdict == "BOUNDED" and any("rounded outwards" in r for r in outcome.reasons)
    assert check(outcome.certificate)
