"""Rule `compact` counts every operation, and what each strategy shows right is right on every input."""

import numpy as np
import pytest

from mechverify.kernel.core.claim import Job
from mechverify.kernel.core.fields import Reader
from mechverify.kernel.core.float64 import Float64
from mechverify.kernel.core.kinds import read_claim
from mechverify.kernel.proof import prove
from tests.models import as_bytes, random_weights
from tests.soundness import forge

VOCAB, WIDTH, HEAD, OUT, LENGTH = 20, 6, 5, 18, 3
EXP = 48  # operations of one exponential: 8 terms of three, reduction, and what covers the ball's radius


def counted(passes, **options) -> int:
    rng = np.random.default_rng(0)
    weights = random_weights(rng, vocab=VOCAB, length=LENGTH, d=WIDTH, e=HEAD, out=OUT, biases=False)
    proof = forge.compact(passes, **options)
    data = as_bytes(weights)
    document = forge.document(data, proof, vocab=VOCAB)
    job = Job(read_claim(Reader(document["claim"], "claim"), data), Float64())
    with np.errstate(all="ignore"):
        prove(job, Reader(proof, "proof"))
    return job.ar.ops


def products() -> int:
    """Twice the multiply-adds: scores, attended values and the query's own logits; what positions add to scores, values."""
    inner = WIDTH * HEAD * WIDTH
    scores = VOCAB * WIDTH * WIDTH + VOCAB * WIDTH * VOCAB + inner
    value = inner + VOCAB * WIDTH * WIDTH + VOCAB * WIDTH * OUT
    base = VOCAB * WIDTH * OUT
    positions = VOCAB * WIDTH * LENGTH + LENGTH * WIDTH * OUT
    return 2 * (scores + value + base + positions)


def test_the_tables_cost_their_products_and_exponentials():
    ops = counted([])
    least = products() + VOCAB * (VOCAB + LENGTH) * EXP // 2
    assert least <= ops <= least + VOCAB * (VOCAB + LENGTH) * EXP + 4 * WIDTH**3 + VOCAB * WIDTH + 1_000, (ops, least)


@pytest.mark.parametrize(("rivals", "loose"), [("together", 0), ("together", 2), ("scaled", 0), ("apart", 1)])
def test_a_class_of_cells_costs_what_it_reads(rivals, loose):
    """Of class m with all m + 1 query tokens and m + 1 tokens: leads, h (two operations), a comparison a threshold."""
    m, others = 17, OUT - 1
    cells = [[q, m, [(-0.01 * 2**c).hex() for c in range(loose + 1)]] for q in range(m + 1)]
    ops = counted([(rivals, "each", loose, cells)]) - counted([])
    q = t = m + 1
    leads = {
        "together": 6 * (VOCAB + LENGTH) * OUT // 2,
        "scaled": 3 * q * others + 4 * t * others,
        "apart": 3 * q * others + 4 * t * others - (q + t) * others + 2 * q * t * others,
    }[rivals]
    own = q * t * (2 + loose + 1)
    steps = 4 * q * sum(2 + 4 * (c + 1) for c in range(loose + 1))
    assert leads + own + steps - q * t <= ops <= 1.3 * (leads + own + 2 * steps) + 3_000, (ops, leads, own, steps)
