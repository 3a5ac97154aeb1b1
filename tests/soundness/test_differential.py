"""Random models, mechanisms, domains and witnesses: the kernel's bounds hold the truth, every time."""

import numpy as np
import pytest

from mechverify.kernel import Rejected, Unsupported, check
from mechverify.kernel.core import container
from mechverify.kernel.core.claim import Job
from mechverify.kernel.core.exact import Exact
from mechverify.kernel.core.fields import Reader
from mechverify.kernel.core.float64 import Float64
from mechverify.kernel.core.kinds import read_claim
from mechverify.kernel.proof import prove
from tests import oracle
from tests.cases import IDS, MECHANISMS
from tests.models import as_bytes, max_weights, random_weights
from tests.rounds import ROUNDS
from tests.soundness import forge


def random_claim(rng):
    """A random model, mechanism and domain; weights of wild scales, and integer weights for exact ties."""
    from mechverify import tokens
    from mechverify.claims.mechanisms import compile_mechanism

    vocab, length = int(rng.integers(2, 5)), int(rng.integers(2, 4))
    style = str(rng.choice(["max", "random", "large", "tiny", "integer"]))
    if style == "max":
        weights = max_weights(rng, vocab=vocab, length=length, noise=float(rng.choice([0.1, 0.6])))
    else:
        scale = {"large": 30.0, "tiny": 1e-12}.get(style, 1.0)
        weights = random_weights(rng, vocab=vocab, length=length, scale=scale, biases=bool(rng.random() < 0.5))
    if style == "integer":
        weights = {k: np.round(v).astype(np.float32) for k, v in weights.items()}
    x = tokens("x", length=length, vocab=vocab)
    name, expression, _ = MECHANISMS[int(rng.integers(len(MECHANISMS)))]
    rows = compile_mechanism(expression(x), x)
    domain = [sorted(rng.choice(vocab, int(rng.integers(1, vocab + 1)), replace=False).tolist()) for _ in range(length)]
    if rng.random() < 0.5:
        domain = [list(range(vocab))] * length
    values = [int(v) for v in rng.permutation(vocab)] if rng.random() < 0.3 else list(range(vocab))
    position = int(rng.integers(length))
    return (
        f"{style} {name}",
        weights,
        dict(equals=rows, tokens=domain, values=values, vocab=vocab, length=length, position=position),
    )


def random_proof(rng, doc, depth=2) -> dict:
    """Any proof tree: splits, meets, enumerations and folds with random groups, grids and rivals."""
    claim = doc["claim"]
    pick = rng.random()
    if depth and pick < 0.25:
        ids = claim["domain"]["tokens"]
        position = int(rng.integers(len(ids)))
        first = [t for t in ids[position] if rng.random() < 0.5]
        return {"rule": "split", "position": position, "first": first, "inside": random_proof(rng, doc, depth - 1),
                "outside": random_proof(rng, doc, depth - 1)}  # fmt: skip
    if depth and pick < 0.35:
        return {"rule": "both", "first": random_proof(rng, doc, depth - 1), "second": random_proof(rng, doc, depth - 1)}
    if pick < 0.4:
        return {"rule": "enumerate"}
    vocab = len(claim["domain"]["values"])
    cells = []
    for q in range(vocab):
        for m in range(-1, vocab + 1):
            if rng.random() < 0.7:
                groups = None
                step = int(rng.integers(-14, 0))
                if rng.random() < 0.7:
                    rivals = [t for t in range(vocab) if t != m]
                    rng.shuffle(rivals)
                    cut = int(rng.integers(0, len(rivals) + 1))
                    groups = [[step, g] for g in (rivals[:cut], rivals[cut:]) if g]
                    if groups and rng.random() < 0.25:
                        groups.pop()  # rivals left out: nothing follows from above
                certain = None
                if groups is not None and rng.random() < 0.5:
                    certain = [step, [int(rng.choice([t for t in range(vocab) if t != m]))]]
                cells.append([q, [m], groups, certain])
    keys = [[["value", [], 0]]] if rng.random() < 0.2 else []
    if keys:
        cells = [[q, [*m, int(rng.integers(vocab))], g, c] for q, m, g, c in cells]
    only = None if rng.random() < 0.8 else [c[1] for c in cells if rng.random() < 0.5]
    return forge.fold(cells, keys=keys, only=only)


def kept_cells(proof: dict, job: Job, domain) -> None:
    """Drop cells that don't exist (the kernel refuses a witness that names one)."""
    from mechverify.kernel.fold.rule import InputClass, Partition

    todo = [(proof, domain)]
    while todo:
        node, part = todo.pop()
        if node["rule"] == "split":
            inside, outside = part.split(node["position"], set(node["first"]))
            todo += [(node["inside"], inside), (node["outside"], outside)]
        elif node["rule"] == "both":
            todo += [(node["first"], part), (node["second"], part)]
        elif node["rule"] == "fold" and part.size:
            roots = [Reader(rows, "keys") for rows in node["keys"]]
            partition = Partition(job, part, roots)
            real = {key: InputClass(partition, key).sizes for key in partition.places}
            if node["only"] is not None:
                real = {k: v for k, v in real.items() if list(k) in node["only"]}
            node["cells"] = [c for c in node["cells"] if c[0] in real.get(tuple(c[1]), {})]


@pytest.mark.parametrize("seed", range(ROUNDS))
def test_bounds_hold_the_truth(seed):
    rng = np.random.default_rng(seed)
    name, weights, shape = random_claim(rng)
    data = as_bytes(weights)
    doc = forge.document(data, {}, **shape)
    claim = read_claim(Reader(doc["claim"], "claim"), data)
    low, high = oracle.truth(doc["claim"], container.read_weights(data))
    for turn in range(9):
        job = Job(claim, Exact() if turn == 8 else Float64())
        proof = random_proof(rng, doc)
        with np.errstate(all="ignore"):
            try:
                kept_cells(proof, job, claim.domain)
                bounds, _ = prove(job, Reader(proof, "proof"))
            except Unsupported:
                continue
            except Rejected as error:
                expected = "empty", "too large to be reduced", "too fine", "finite", "overflow"
                assert any(text in str(error) for text in expected), (name, error)
                continue
        # an exact tie is wrong, and bounds that leave it open are sound
        assert bounds.low <= low and low <= bounds.high, (name, proof, bounds, (low, high))
        doc["proof"] = proof
        doc["conclusion"]["right_at_least"], doc["conclusion"]["right_at_most"] = str(bounds.low), str(bounds.high)
        exact = turn == 8
        theorem = check(forge.file(doc, data), exact=exact)
        assert theorem.right == bounds
        doc["conclusion"]["right_at_least"] = str(bounds.low + 1)
        with pytest.raises(Rejected, match="right inputs stated"):
            check(forge.file(doc, data), exact=exact)


@pytest.mark.parametrize(("name", "expression", "plain"), MECHANISMS, ids=IDS)
def test_listing_every_cell_is_exact(name, expression, plain):
    """With every undecided cell listed, fold finds the number of right inputs exactly."""
    from mechverify import tokens
    from mechverify.claims.mechanisms import compile_mechanism

    rng = np.random.default_rng(len(name))
    vocab, length = 4, 3
    data = as_bytes(weights := max_weights(rng, vocab=vocab, length=length))
    x = tokens("x", length=length, vocab=vocab)
    rows = compile_mechanism(expression(x), x)
    doc = forge.document(data, {}, equals=rows, vocab=vocab, length=length, position=length - 1)
    claim = read_claim(Reader(doc["claim"], "claim"), data)
    job = Job(claim, Float64())
    cells = [[q, [m], None, None] for q in range(vocab) for m in range(-30, 30)]
    proof = forge.fold(cells)
    kept_cells(proof, job, claim.domain)
    bounds, _ = prove(job, Reader(proof, "proof"))
    truth = oracle.truth(doc["claim"], {k: v.astype(np.float64) for k, v in weights.items()})
    assert bounds == truth
