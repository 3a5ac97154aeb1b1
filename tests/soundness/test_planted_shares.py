"""Planted false claims that count: a guard dropped or widened, a share too high by one input, a wrong decoder, another
comparison. None is proved, neither by the search nor with the proof of the claim that it was made from."""

import copy
import itertools
import json
from collections.abc import Callable
from fractions import Fraction
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from sympy import Eq, Max, Mod, Ne, Piecewise

from benchmarks.shares import Shape, Transformer
from mechverify import Accuracy, Share, capture, count, prove, tokens, transformer
from mechverify.certificate.write import claim_document
from mechverify.kernel import Rejected, check
from mechverify.kernel.core import container
from tests.independent import shares
from tests.models import as_bytes, as_float64, random_weights
from tests.rounds import few
from tests.soundness import forge
from tests.soundness.test_guards import DISTINCT
from tests.soundness.test_shares import ENUMERATE, LEAD, WEIGHTS, document

VOCAB, LENGTH = 4, 3
INPUTS = list(itertools.product(range(VOCAB), repeat=LENGTH))
KINDS = ("the guard dropped", "the guard widened", "one input more", "another decoder")

GUARDS: dict[str, tuple[Callable, Callable]] = {  # in sympy, and in Python
    "unequal": (lambda x: Ne(x[0], x[1]), lambda t: t[0] != t[1]),
    "a repeat": (lambda x: Eq(count(x[2], x[0], x[1]), 1), lambda t: t[:2].count(t[2]) == 1),
    "a small sum": (lambda x: sum(x) <= 5, lambda t: sum(t) <= 5),
}
SAID: dict[str, tuple[Callable, Callable]] = {  # what the output decodes to
    "largest": (lambda x: Max(*x), max),
    "sum": (lambda x: Mod(sum(x), VOCAB), lambda t: sum(t) % VOCAB),
    "next": (lambda x: Piecewise((x[1], Eq(x[0], x[2])), (x[2], True)), lambda t: t[1] if t[0] == t[2] else t[2]),
}
HOLDS: dict[str, tuple[Callable, Callable]] = {  # of an output's values y
    "first leads": (lambda y: y[0] > y[1], lambda y: y[0] > y[1]),
    "second leads": (lambda y: y[1] > y[0], lambda y: y[1] > y[0]),
    "positive": (lambda y: y[2] >= 0, lambda y: y[2] >= 0),
}


class Claim(NamedTuple):
    model: str
    position: int
    says: str  # of SAID or HOLDS
    given: tuple[str, ...]
    at_least: Fraction

    def inside(self) -> list[int]:
        return [i for i, t in enumerate(INPUTS) if all(GUARDS[g][1](t) for g in self.given)]

    def right(self) -> int:
        values = logits(self.model)[:, self.position]
        if self.says in HOLDS:
            return sum(bool(HOLDS[self.says][1](values[i])) for i in self.inside())
        return sum(int(values[i].argmax()) == SAID[self.says][1](INPUTS[i]) for i in self.inside())

    @property
    def true(self) -> bool:
        return self.right() >= self.at_least * len(self.inside())

    def made(self, folder) -> Accuracy | Share:
        x = tokens("x", length=LENGTH, vocab=VOCAB)
        given = [GUARDS[g][0](x) for g in self.given]
        site = sites(self.model, folder)
        if self.says in HOLDS:
            return Share(HOLDS[self.says][0](site[self.position]), over=x, given=given, at_least=self.at_least)
        output, equals = site[self.position], SAID[self.says][0](x)
        return Accuracy(output, equals=equals, over=x, given=given, at_least=self.at_least)


def attended(weights: dict[str, np.ndarray], ids: np.ndarray) -> np.ndarray:
    """The logits of a causal transformer without neurons and biases."""
    n = ids.shape[1]
    x, later = weights["embed.W_E"][ids] + weights["pos_embed.W_pos"][:n], np.triu(np.ones((n, n), bool), 1)
    for layer in range(2):
        q, k, v = (np.einsum("bid,hde->bhie", x, weights[f"blocks.{layer}.attn.W_{name}"]) for name in "QKV")
        scores = np.where(later, -np.inf, q @ k.swapaxes(-1, -2) / q.shape[-1] ** 0.5)
        pattern = np.exp(scores - scores.max(-1, keepdims=True))
        z = pattern / pattern.sum(-1, keepdims=True) @ v
        x = x + np.einsum("bhie,hed->bid", z, weights[f"blocks.{layer}.attn.W_O"])
    return x @ weights["unembed.W_U"]


@cache
def parts(model: str) -> Any:
    if model == "known":
        return random_weights(np.random.default_rng(5), vocab=VOCAB, length=LENGTH, heads=2, layers=2, biases=False)
    torch.manual_seed(11)
    return Transformer(Shape(2, 4, "before", "gelu", True), VOCAB, LENGTH, width=8).double().eval()


@cache
def logits(model: str) -> np.ndarray:
    """Of all inputs [number, position, output], in float64."""
    if model == "known":
        return attended(as_float64(parts(model)), np.array(INPUTS))
    with torch.no_grad():
        return parts(model)(torch.tensor(INPUTS)).numpy()


def sites(model: str, folder) -> Any:
    if model == "known":
        path = folder / "known.safetensors"
        path.write_bytes(as_bytes(parts(model)))
        return transformer(path).logits
    return capture(parts(model), torch.zeros(1, LENGTH, dtype=torch.long))["output"]


def true_claims() -> list[Claim]:
    """Each reached by just as many inputs as there are right ones."""
    pairs = [*itertools.combinations(GUARDS, 2)]
    found = [Claim(*c, Fraction(0)) for c in itertools.product(("known", "captured"), (1, 2), SAID, pairs)]
    found += [Claim(*c, Fraction(0)) for c in itertools.product(("captured",), (1, 2), HOLDS, pairs)]
    return [c._replace(at_least=Fraction(c.right(), len(c.inside()))) for c in found]


def spoilt(kind: str, c: Claim) -> list[Claim]:
    match kind:
        case "the guard dropped":
            return [c._replace(given=())]
        case "the guard widened":
            return [c._replace(given=(g,)) for g in c.given]
        case "one input more":
            return [c._replace(at_least=c.at_least + Fraction(1, len(c.inside())))]
        case _:
            others = HOLDS if c.says in HOLDS else SAID
            return [c._replace(says=other) for other in others if other != c.says] + [
                c._replace(position=3 - c.position)
            ]


def planted() -> list[tuple[str, Claim, Claim]]:
    """Ten of each kind that are false: (kind, the true claim, the false one)."""
    found = []
    for kind in KINDS:
        some = [(kind, c, f) for c in true_claims() for f in spoilt(kind, c) if f.at_least <= 1 and not f.true]
        found += [some[i * len(some) // 10] for i in range(10)]
    return found


PLANTED = planted()


def test_there_are_forty():
    assert len({(kind, f) for kind, _, f in PLANTED}) == 40 and {c.model for _, c, _ in PLANTED} == {
        "known",
        "captured",
    }
    assert {c.says in HOLDS for _, c, _ in PLANTED} == {True, False}


@pytest.mark.parametrize("i", few(range(40), 14))
def test_no_false_claim_is_proved(i, tmp_path):
    kind, honest, false = PLANTED[i]
    outcome = prove(false.made(tmp_path))
    assert outcome.verdict == "REFUTED", kind
    assert outcome.theorem.right.low <= false.right() <= outcome.theorem.right.high
    assert outcome.theorem.claim.total == len(false.inside())
    if i % 5:
        return
    proved = prove(honest.made(tmp_path))
    assert proved.verdict == "PROVED" and proved.theorem.right.low == honest.right()
    contents = container.unpack(proved.certificate)
    document_, weights = json.loads(contents["certificate.json"]), contents["weights.safetensors"]
    document_["claim"], document_["cost"] = claim_document(false.made(tmp_path), "real"), None
    for low in {honest.right(), false.right(), false.right() + 1}:
        document_["conclusion"] |= {"right_at_least": str(low), "right_at_most": str(len(INPUTS))}
        with pytest.raises(Rejected):
            check(forge.file(json.loads(json.dumps(document_)), weights))


def test_corrupted_certificates_are_rejected_or_true():
    """One or two random changes: a file that is still accepted states what the second checker counts."""
    rng, accepted, rejected = np.random.default_rng(0), 0, 0
    split = {"rule": "split", "position": 0, "first": [2], "inside": ENUMERATE, "outside": ENUMERATE}
    listed = {"rule": "both", "first": split, "second": {"rule": "counterexample", "inputs": [[0, 1], [1, 2]]}}
    for trial in range(400):
        doc = copy.deepcopy(document(LEAD, listed, (3, 3), "PROVED", given=DISTINCT, at_least="1/2"))
        places = [p for p in forge.places({k: doc[k] for k in ("claim", "conclusion", "proof")}) if "replayed" not in p]
        for _ in range(1 + trial % 2):
            *path, last = places[int(rng.integers(len(places)))]
            at = doc
            try:
                for key in path:
                    at = at[key]
                at[last] = forge.changed_leaf(at[last], rng)
            except (TypeError, KeyError, IndexError):  # the first change took the place away
                continue
        try:
            theorem = check(forge.file(doc, WEIGHTS))
        except Rejected:
            rejected += 1
            continue
        accepted += 1
        low, high = shares.truth(doc["claim"], WEIGHTS)
        assert theorem.right.low <= low and high <= theorem.right.high
        assert theorem.verdict != "PROVED" or low >= theorem.claim.at_least * theorem.claim.total
    assert accepted > 10 and rejected > 200
