"""Rule `compact` against every input: whatever a witness says, what it shows right is right."""

from collections import Counter
from fractions import Fraction
from itertools import product

import numpy as np
import pytest

from mechverify.kernel import Rejected, check
from mechverify.kernel.compact.enclosed import Enclosed
from mechverify.kernel.compact.leads import RIVALS, Leads
from mechverify.kernel.compact.peeled import REMAINDERS, read
from mechverify.kernel.compact.rule import InputClass
from mechverify.kernel.core import container
from mechverify.kernel.core.claim import Job
from mechverify.kernel.core.exact import Exact
from mechverify.kernel.core.fields import Reader
from mechverify.kernel.core.float64 import Float64
from mechverify.kernel.core.kinds import read_claim
from mechverify.kernel.counting.automaton import derive, towards
from mechverify.kernel.proof import prove
from mechverify.provers.accuracy.strategies.compact import Pass, _search
from tests import oracle
from tests.cases import MECHANISMS
from tests.independent import checker
from tests.models import as_bytes, max_weights, random_weights
from tests.rounds import ROUNDS
from tests.soundness import forge


def random_claim(rng):
    """A random model of five to seven tokens, a mechanism and a domain. The hand-built ones are mostly right."""
    from mechverify import tokens
    from mechverify.claims.mechanisms import compile_mechanism

    vocab, length = int(rng.integers(4, 7)), int(rng.integers(2, 4))
    if rng.random() < 0.7:
        weights = max_weights(rng, vocab=vocab, length=length, noise=float(rng.choice([0.02, 0.1, 0.3])))
        if rng.random() < 0.5:
            other = random_weights(rng, vocab=vocab, length=length, d=vocab + 1, e=vocab, scale=0.3)
            weights |= {k: v for k, v in other.items() if ".b_" in k}
    else:
        scale = float(rng.choice([0.3, 1.0, 3.0, 20.0]))
        weights = random_weights(rng, vocab=vocab, length=length, scale=scale, biases=bool(rng.random() < 0.5))
    x = tokens("x", length=length, vocab=vocab)
    largest = [m for m in MECHANISMS if m[0].lower().startswith("max")]
    name, expression, _ = (
        (largest or MECHANISMS)[0] if rng.random() < 0.7 else MECHANISMS[int(rng.integers(len(MECHANISMS)))]
    )
    rows = compile_mechanism(expression(x), x)
    domain = [sorted(rng.choice(vocab, int(rng.integers(1, vocab + 1)), replace=False).tolist()) for _ in range(length)]
    if rng.random() < 0.6:
        domain = [list(range(vocab))] * length
    values = [int(v) for v in rng.permutation(vocab)] if rng.random() < 0.2 else list(range(vocab))
    position = int(rng.integers(length)) if rng.random() < 0.3 else length - 1
    margin = None if rng.random() < 0.8 else "1/3"
    shape = dict(equals=rows, tokens=domain, values=values, vocab=vocab, length=length, position=position)
    return name, weights, shape | dict(margin=margin)


def random_proof(rng, doc, weights) -> dict:
    """Any witness: rivals, tokens, thresholds, enclosures of the scores along any vectors."""
    vocab, outputs = len(doc["claim"]["domain"]["values"]), weights["unembed.W_U"].shape[1]
    scores = None
    if rng.random() < 0.35:
        left, right = ([float(v).hex() for v in rng.normal(size=vocab)] for _ in "lr")
        scores = {"left": left, "right": right, "remainder": str(rng.choice(REMAINDERS))}
    cells = [(q, m) for q in range(vocab) for m in range(outputs)]
    passes, split = [], rng.integers(0, 3, len(cells))
    for number in range(2):
        tokens, rivals = str(rng.choice(["each", "each", "ascending", "descending"])), str(rng.choice(RIVALS))
        rivals = "scaled" if tokens != "each" and rivals == "apart" else rivals
        loose = int(rng.integers(0, 3))

        def limits(tokens=tokens, loose=loose):
            if tokens == "each":
                return [
                    float(t).hex() for t in np.sort(rng.choice([-0.9, -0.3, -0.05, -0.001, 0.0, 0.1], loose + 1))[::-1]
                ]
            return np.sort(rng.integers(0, vocab + 2, loose + 1)).tolist()

        rows = [[q, m, limits()] for (q, m), s in zip(cells, split, strict=True) if s == number]
        passes.append({"rivals": rivals, "tokens": tokens, "loose": loose, "cells": rows})
    return {"rule": "compact", "scores": scores, "base": str(rng.choice(["exact", "exact", "mean"])), "passes": passes}


def widest(rng, job: Job, proof: dict) -> None:
    """Replace the thresholds by the widest that the search finds, and some of them by slightly wider ones: the witness
    that a wrong kernel would be most likely to be taken in by."""
    claim = job.claim
    tables = Enclosed(
        job, claim.domain, read(Reader(proof["scores"], "")) if proof["scores"] else None, proof["base"] == "mean"
    )
    automaton = derive(job.ar, claim.graph, [claim.target], [np.array(t) for t in claim.domain.tokens])
    classes = {int(k[0]): i for i, k in enumerate(automaton.classes)}
    for entry in proof["passes"]:
        cells = []
        for key in sorted({c[1] for c in entry["cells"]}):
            queries = np.array(sorted({c[0] for c in entry["cells"] if c[1] == key and not tables.wide[c[0]]}), int)
            if not len(queries):
                continue
            input_class = InputClass(tables, towards(job.ar, automaton, classes[key]), key, queries)
            found = _search(input_class, Leads(tables), Pass(entry["rivals"], entry["tokens"], entry["loose"]))
            for query, row in zip(queries.tolist(), found.thresholds.tolist(), strict=True):
                row = [_wider(rng, t) if rng.random() < 0.3 else t for t in row]
                cells.append([query, key, [t.hex() if isinstance(t, float) else t for t in row]])
        entry["cells"] = cells


def _wider(rng, threshold):
    if isinstance(threshold, int):
        return threshold + int(rng.integers(0, 3))
    return threshold - abs(threshold) * float(rng.choice([1e-12, 1e-3, 0.3]))


def existing(proof: dict, job: Job) -> None:
    """Drop cells of classes that the mechanism doesn't have (the kernel refuses a witness that names one)."""
    domain = [np.array(t) for t in job.claim.domain.tokens]
    keys = {int(k[0]) for k in derive(job.ar, job.claim.graph, [job.claim.target], domain).classes}
    for entry in proof["passes"]:
        entry["cells"] = [c for c in entry["cells"] if c[1] in keys]


EXPECTED = (
    "not known closely",
    "too large to be reduced",
    "too wide",
    "finite",
    "overflow",
    "positive",
    "zero",
    "depend on",
)


@pytest.mark.parametrize("seed", range(ROUNDS))
def test_what_is_shown_right_is_right(seed):
    rng = np.random.default_rng(seed)
    name, weights, shape = random_claim(rng)
    data = as_bytes(weights)
    doc = forge.document(data, {}, **shape)
    claim = read_claim(Reader(doc["claim"], "claim"), data)
    right = truth(doc["claim"], container.read_weights(data))
    for turn in range(9):
        exact = turn == 8
        job = Job(claim, Exact() if exact else Float64())
        proof = random_proof(rng, doc, weights)
        existing(proof, job)
        with np.errstate(all="ignore"):
            try:
                if turn % 4 and not exact:
                    widest(rng, job, proof)
                bounds, _ = prove(job, Reader(proof, "proof"))
            except Rejected as error:
                assert any(text in str(error) for text in EXPECTED), (name, str(error))
                continue
        shown = {(query, key): size - wrong.high for query, (key,), size, wrong in job.found.cells}
        assert all(0 <= number <= right[cell] for cell, number in shown.items()), (name, proof, shown, right)
        assert bounds.low == sum(shown.values()) and bounds.high == claim.domain.size
        doc["proof"] = proof
        doc["conclusion"]["right_at_least"] = str(bounds.low)
        assert check(forge.file(doc, data), exact=exact).right == bounds
        if not turn:  # another checker, by brute force
            assert checker.check(forge.file(doc, data))
        doc["conclusion"]["right_at_least"] = str(bounds.low + 1)
        with pytest.raises(Rejected, match="right inputs stated"):
            check(forge.file(doc, data), exact=exact)


def truth(claim: dict, weights) -> Counter:
    """The right inputs, by query token and the mechanism's value, by running every input; a tie is wrong."""
    model, domain = oracle.Transformer(weights), claim["domain"]
    margin, right = Fraction(claim.get("margin", 0)), Counter()
    for ids in product(*domain["tokens"]):
        value = oracle.evaluate(claim["equals"], ids, domain["values"])
        logits = model.logits(ids, claim["position"])
        if oracle.is_right(logits, value, oracle.arb(margin.numerator) / margin.denominator):
            right[ids[claim["position"]], value] += 1
    return right
