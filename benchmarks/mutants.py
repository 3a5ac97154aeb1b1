"""Structured mutants of good certificates: none is accepted unless what it then claims is true.

    python -m benchmarks.mutants SEED COUNT      # one process's share of the campaign, as JSON

The judges are tests/oracle.py and, for inputs whose margin is far from zero, plain float64; the container is read
with zipfile. Under `float32` the claim must hold for the real function, and for some float32 programs. Claims about
bounds are judged by tests/soundness/bounds.py, by samples; half of their mutants state what the kernel proves of them.
"""

import hashlib
import io
import json
import sys
import time
import zipfile
from collections import Counter
from itertools import product
from typing import Any

import numpy as np
from safetensors.numpy import load

from mechverify.kernel import NotACertificate, Rejected, check
from mechverify.kernel.core.claim import Job
from mechverify.kernel.core.fields import Reader
from mechverify.kernel.core.float64 import Float64
from mechverify.kernel.core.kinds import read_claim
from mechverify.kernel.proof import prove
from tests import oracle
from tests.models import as_bytes, max_weights
from tests.soundness import bounds, float32, forge

VOCAB, LENGTH = 4, 3
RIVALS = {m: [t for t in range(VOCAB) if t != m] for m in range(VOCAB)}
BYTES = 0.15  # share of the mutants that are made of the file's bytes
MARGIN = 1e-6  # float64 decides a larger one, with weights of ordinary size


def bases() -> dict[str, tuple[dict, dict]]:
    """name -> (document, weights): a proof of every kind, with its best bounds."""
    weights = max_weights(np.random.default_rng(4), vocab=VOCAB, length=LENGTH, noise=0.35)
    cells = [(q, m) for m in range(VOCAB) for q in range(m + 1)]
    groups = {m: [[-13, rivals[:1]], [-12, rivals[1:]]] for m, rivals in RIVALS.items()}
    counted = forge.fold([[q, [m], groups[m], [-13, RIVALS[m][:1]]] for q, m in cells])
    listed = forge.fold([[q, [m], None, None] for q, m in cells])
    first = [["value", [], 0]]
    only = [[m, k] for m in range(VOCAB) for k in range(m + 1) if (m + k) % 3]
    keyed = forge.fold(
        [[q, [m, k], groups[m] if q % 2 else None, None] for m, k in only for q in range(m + 1) if m in (q, k)],
        keys=[first], only=only,
    )  # fmt: skip
    wrong = {"rule": "counterexample", "inputs": _wrong_inputs(weights)[:5]}
    proofs = {
        "fold, counted": counted, "fold, listed": listed, "fold with keys and only": keyed,
        "enumerate": {"rule": "enumerate"},
        "counterexample and fold": {"rule": "both", "first": wrong, "second": listed},
        "split": {"rule": "split", "position": 1, "first": [0, 2], "inside": {"rule": "enumerate"}, "outside": {
            "rule": "split", "position": 0, "first": [3], "inside": forge.fold(), "outside": {"rule": "enumerate"}}},
    }  # fmt: skip
    result = {}
    for semantics in ("real", "float32"):
        for name, proof in proofs.items():
            result[f"{name}, {semantics}"] = _stated(weights, proof, semantics), weights
    return result | bounds.bases()


def _stated(weights: dict, proof: dict, semantics: str) -> dict:
    data = as_bytes(weights)
    doc = forge.document(data, proof, vocab=VOCAB, length=LENGTH, semantics=semantics)
    with np.errstate(all="ignore"):
        bounds, _ = prove(Job(read_claim(Reader(doc["claim"], "claim"), data), Float64()), Reader(proof, "proof"))
    doc["conclusion"] |= {"right_at_least": str(bounds.low), "right_at_most": str(bounds.high)}
    if proof["rule"] == "both":
        doc["claim"]["at_least"], doc["conclusion"]["verdict"] = "19/20", "REFUTED"
    elif proof["rule"] in ("split", "enumerate"):
        doc["claim"]["at_least"], doc["conclusion"]["verdict"] = f"{bounds.low}/{VOCAB**LENGTH}", "PROVED"
    check(forge.file(doc, data))
    return doc


def _wrong_inputs(weights: dict) -> list[list[int]]:
    inputs = np.array(list(product(range(VOCAB), repeat=LENGTH)))
    logits = float32.plain(weights, inputs, LENGTH - 1)
    right = float32.is_right(logits, inputs.max(1))
    return inputs[~right].tolist()


class Judge:
    """Whether an accepted file's conclusion is true."""

    def __init__(self, rng: np.random.Generator):
        self.rng, self.known = rng, {}

    def agrees(self, file: bytes) -> bool:
        with zipfile.ZipFile(io.BytesIO(file)) as members:
            doc, data = json.loads(members.read("certificate.json")), members.read("weights.safetensors")
        if doc["version"] == 3:
            return bounds.is_true(file, self.rng)
        claim, conclusion = doc["claim"], doc["conclusion"]
        if hashlib.sha256(data).hexdigest() != claim["weights_sha256"] or claim["site"] != "logits":
            return False
        low, high = int(conclusion["right_at_least"]), int(conclusion["right_at_most"])
        key = json.dumps([claim[k] for k in ("weights_sha256", "domain", "position", "equals", "semantics")])
        if key not in self.known:
            self.known[key] = self._counts(claim, load(data))
        counts = self.known[key]  # of the real function, then of float32 programs
        if not all(low <= fewest and most <= high for fewest, most in counts):
            return False
        if conclusion["verdict"] == "BOUNDED":
            return True
        top, bottom = map(int, claim["at_least"].split("/"))
        size = int(np.prod([len(t) for t in claim["domain"]["tokens"]]))
        return all((fewest * bottom >= top * size) == (conclusion["verdict"] == "PROVED") for fewest, _ in counts)

    def _counts(self, claim: dict, weights: dict[str, np.ndarray]) -> list[tuple[int, int]]:
        inputs = np.array(list(product(*claim["domain"]["tokens"])))
        values, position = claim["domain"]["values"], claim["position"]
        target = np.array([oracle.evaluate(claim["equals"], ids, values) for ids in inputs.tolist()])
        fewest = most = 0
        model = oracle.Transformer({k: v.astype(np.float64) for k, v in weights.items()})
        with np.errstate(all="ignore"):
            logits = float32.plain(weights, inputs, position)
        ordinary = all(np.abs(v).max() < 1e3 for v in weights.values())
        for ids, m, row in zip(inputs.tolist(), target.tolist(), logits, strict=True):
            verdict: bool | None = False
            if 0 <= m < len(row):
                margin = row[m] - np.delete(row, m).max()
                clear = ordinary and abs(margin) > MARGIN
                verdict = bool(margin > 0) if clear else oracle.is_right(model.logits(ids, position), m)
            fewest, most = fewest + (verdict is True), most + (verdict is not False)
        result = [(fewest, most)]
        for _ in range(3 if claim["semantics"] == "float32" else 0):
            with np.errstate(all="ignore"):
                found = float32.random_program(self.rng).logits(weights, inputs, position)
            result.append((int(float32.is_right(found, target).sum()),) * 2)
        return result


def mutate(doc: dict, weights: dict, rng: np.random.Generator) -> tuple[str, bytes]:
    kind, changed, data = forge.corrupt(doc, weights, rng)
    if rng.random() < BYTES:
        return forge.spoil(forge.file(doc, as_bytes(weights)), rng)
    if doc["version"] == 3 and rng.random() < 0.5:
        kind, changed = f"{kind}, restated", bounds.restated(changed, data)
    return kind, forge.file(changed, data)


def campaign(seed: int, count: int) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    judge, originals = Judge(np.random.default_rng(seed + 1)), bases()
    files = {name: forge.file(doc, as_bytes(weights)) for name, (doc, weights) in originals.items()}
    assert all(judge.agrees(file) for file in files.values())
    kinds, accepted, unchanged, bad, slowest = Counter(), Counter(), 0, [], (0.0, "")
    for _ in range(count):
        base = str(rng.choice(list(originals)))
        kind, file = mutate(*originals[base], rng)
        kinds[kind] += 1
        if file == files[base]:
            unchanged += 1
            continue
        start = time.perf_counter()
        try:
            check(file)
        except (Rejected, NotACertificate) as error:
            if "internal error" in str(error):
                bad.append(f"{base}: {kind}: {error}")
        except Exception as error:
            bad.append(f"{base}: {kind}: raised {type(error).__name__}: {error}")
        else:
            accepted[kind] += 1
            try:
                true = judge.agrees(file)
            except Exception as error:
                true, kind = False, f"{kind} (the judge can't read it: {type(error).__name__}: {error})"
            if not true:
                bad.append(f"{base}: {kind}: a false conclusion was accepted")
        slowest = max(slowest, (time.perf_counter() - start, f"{base}: {kind}"))
    return {"mutants": count, "kinds": kinds, "accepted": accepted, "unchanged": unchanged, "bad": bad,
            "slowest": slowest}  # fmt: skip


if __name__ == "__main__":
    print(json.dumps(campaign(int(sys.argv[1]), int(sys.argv[2]))))
