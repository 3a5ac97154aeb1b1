"""Float64's bounds of one-token terms and of their minima enclose those of exact arithmetic."""

from fractions import Fraction

import numpy as np
import pytest

from mechverify.kernel.core.claim import Job
from mechverify.kernel.core.exact import Exact
from mechverify.kernel.core.fields import Reader
from mechverify.kernel.core.float64 import Float64
from mechverify.kernel.core.kinds import read_claim
from mechverify.kernel.fold.rule import InputClass, Partition
from tests.models import as_bytes, max_weights, random_weights
from tests.soundness import forge


def families(data, semantics="real"):
    document = forge.document(data, {}, semantics=semantics)
    claim = read_claim(Reader(document["claim"], "claim"), data)
    partitions = [Partition(Job(claim, ar), claim.domain, []) for ar in (Float64(), Exact())]
    for key in partitions[0].places:
        yield key, *(InputClass(p, key) for p in partitions)


def value(number, exponent: int) -> Fraction:
    return Fraction(int(number)) * Fraction(2) ** exponent


@pytest.mark.parametrize("seed", range(4))
def test_terms_and_minima(seed):
    rng = np.random.default_rng(seed)
    weights = max_weights(rng) if seed % 2 else random_weights(rng, vocab=6, out=6, d=4)
    inside = 0
    for _, rounded, exact in families(as_bytes(weights)):
        for a, b in zip(rounded.cells(), exact.cells(), strict=True):
            exponent = b.terms.exponent
            for t in range(6):
                if t == rounded.right:
                    continue
                least = value(b.terms.minima[b.row, t], exponent)
                assert Fraction(float(a.terms.minima[a.row, t])) <= least
                assert float(least) - a.terms.minima[a.row, t] < 1e-9 * (1 + abs(float(least)))
                (low, high), (tight_low, tight_high) = a.terms.of_rivals(a.row, [t]), b.terms.of_rivals(b.row, [t])
                for i, tokens in ((i, tokens) for i, layer in enumerate(a.layers) for tokens, _ in layer.groups):
                    for v in tokens:
                        assert Fraction(float(low[i, v, 0])) <= value(tight_low[i, v, 0], exponent)
                        assert Fraction(float(high[i, v, 0])) >= value(tight_high[i, v, 0], exponent)
                        inside += 1
    assert inside > 500


def test_float32_terms_enclose_the_real_ones():
    data = as_bytes(max_weights(np.random.default_rng(5)))
    for (_, real, _), (_, single, _) in zip(families(data), families(data, "float32"), strict=True):
        for a, b in zip(real.cells(), single.cells(), strict=True):
            assert (b.terms.minima <= a.terms.minima).all() and set(a.undecided) <= set(b.undecided)
