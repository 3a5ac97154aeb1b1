"""Corrupted certificates: none is accepted unless what it then claims is true, decided by the oracle."""

import numpy as np
import pytest

from mechverify import Accuracy, tokens, transformer
from mechverify.kernel import NotACertificate, Rejected, check
from mechverify.kernel.core import container
from mechverify.provers import prove
from mechverify.provers.accuracy import find
from mechverify.provers.accuracy import fold as fold_prover
from tests import oracle
from tests.models import as_bytes, max_weights
from tests.rounds import ROUNDS
from tests.soundness import bounds, forge, networks

CORRUPTIONS = 30 * ROUNDS


def proved(tmp_path, weights, monkeypatch, listing: bool) -> dict:
    """The document of a fold proof that counts on a grid (or lists), with counterexamples."""
    import sympy

    path = tmp_path / "model.safetensors"
    path.write_bytes(as_bytes(weights))
    monkeypatch.setattr(find, "PROVERS", [fold_prover.Fold()])
    if not listing:
        monkeypatch.setattr(fold_prover, "TINY", 0)
        monkeypatch.setattr(fold_prover, "CHEAP", 0)
        monkeypatch.setattr(fold_prover, "DEAR", 0)
    monkeypatch.setattr(fold_prover, "NEGLIGIBLE", 0.0)
    model = transformer(path)
    x = tokens("x", length=3, vocab=6)
    outcome = prove(Accuracy(model.logits[-1], equals=sympy.Max(*x), over=x))
    return oracle.parse(outcome.certificate) | {"cost": None}  # a change is not to be refused for what it costs


def implied(doc: dict, data: bytes) -> bool:
    """Whether the conclusion of an accepted document is true, by running every input in high precision."""
    claim, conclusion = doc["claim"], doc["conclusion"]
    low, high = oracle.truth(claim, container.read_weights(data))
    size = int(np.prod([len(t) for t in claim["domain"]["tokens"]]))
    if not (int(conclusion["right_at_least"]) <= low and high <= int(conclusion["right_at_most"])):
        return False
    if conclusion["verdict"] == "BOUNDED":
        return True
    top, bottom = map(int, claim["at_least"].split("/"))
    reached = low * bottom >= top * size
    return reached == (conclusion["verdict"] == "PROVED")


@pytest.mark.parametrize("listing", [False, True])
def test_no_corruption_certifies_anything_false(tmp_path, monkeypatch, listing):
    rng = np.random.default_rng(11)
    weights = max_weights(rng)
    original = proved(tmp_path, weights, monkeypatch, listing)
    assert implied(original, as_bytes(weights))
    assert original["proof"]["rule"] == "both" and len(original["proof"]["second"]["cells"]) >= 5
    check(forge.file(original, as_bytes(weights)))
    accepted, rejected, kinds = 0, 0, set()
    for _ in range(CORRUPTIONS // 2):
        kind, doc, data = forge.corrupt(original, weights, rng)
        try:
            check(forge.file(doc, data))
        except (Rejected, NotACertificate) as error:
            assert "internal error" not in str(error), (kind, error)
            rejected += 1
            kinds.add(kind)
            continue
        accepted += 1
        assert implied(doc, data), f"{kind}: a false conclusion was accepted"
    assert rejected > 0.6 * CORRUPTIONS / 2 and accepted > CORRUPTIONS / 40
    assert kinds >= {"weight", "weight, hash restamped", "bound", "grid", "cell", "rule", "mechanism", "domain"}


def test_no_corruption_certifies_a_false_bound():
    """Of proofs by lines and points, cuts and token sets; half of the mutants state what the kernel proves of them."""
    rng, kinds, accepted = np.random.default_rng(15), set(), 0
    originals = bounds.bases()
    for i in range(CORRUPTIONS):
        name = list(originals)[i % len(originals)]
        kind, doc, data = forge.corrupt(*originals[name], rng)
        file = forge.file(bounds.restated(doc, data) if rng.random() < 0.5 else doc, data)
        try:
            check(file)
        except (Rejected, NotACertificate) as error:
            assert "internal error" not in str(error), (name, kind, error)
            kinds.add(kind)
            continue
        accepted += 1
        assert bounds.is_true(file, rng), f"{name}: {kind}: a false conclusion was accepted"
    assert kinds >= set(forge.BOUNDS) - {"points", "lines"} and CORRUPTIONS / 20 < accepted < CORRUPTIONS / 2


@pytest.mark.parametrize("name", bounds.bases())
def test_the_judge_of_bounds_sees_what_is_false(name):
    """A range that ends half way to its middle, a refutation by points that break nothing, other weights."""
    rng = np.random.default_rng(14)
    doc, weights = bounds.bases()[name]
    good = forge.file(doc, as_bytes(weights))
    assert bounds.is_true(good, rng)
    low, high = ([float.fromhex(v) for v in doc["conclusion"][end]] for end in ("low", "high"))
    for end, other, own in (("low", high, low), ("high", low, high)):
        inward = networks.hexadecimal([a + (b - a) / 2 for a, b in zip(own, other, strict=True)])
        false = doc | {"conclusion": doc["conclusion"] | {end: inward}}
        assert not bounds.is_true(forge.file(false, as_bytes(weights)), rng)
    claim = doc["claim"] | {"at_least": None, "at_most": networks.hexadecimal(high)}
    false = doc | {"claim": claim, "conclusion": doc["conclusion"] | {"verdict": "REFUTED"}}
    assert not bounds.is_true(forge.file(false, as_bytes(weights)), rng)


def test_raw_bytes(tmp_path, monkeypatch):
    """Flipped, cut and repeated bytes of the file: refused, and never with another exception."""
    rng = np.random.default_rng(12)
    weights = max_weights(rng)
    good = forge.file(proved(tmp_path, weights, monkeypatch, True), as_bytes(weights))
    for _ in range(500):
        data = bytearray(good)
        match int(rng.integers(3)):
            case 0:
                data[rng.integers(len(data))] ^= 1 << int(rng.integers(8))
            case 1:
                del data[int(rng.integers(len(data))) :]
            case 2:
                at = int(rng.integers(len(data)))
                data[at:at] = data[at : at + int(rng.integers(1, 50))]
        if bytes(data) != good:
            with pytest.raises((Rejected, NotACertificate)) as refused:
                check(bytes(data))
            assert "internal error" not in str(refused.value)
