"""Float32's widened operations against adversaries that use every freedom that docs/soundness/options.md (O1) gives them."""

from itertools import product
from types import SimpleNamespace

import numpy as np
import pytest

from mechverify.kernel.core.attention import softmax
from mechverify.kernel.core.errors import Rejected
from mechverify.kernel.core.exact import Exact
from mechverify.kernel.core.float32 import EXP, Float32
from mechverify.kernel.core.float64 import Float64
from mechverify.kernel.core.semantics import Real


@pytest.mark.parametrize("arithmetic", [Float64, Exact])
def test_softmax_holds_an_exp_at_the_end_of_the_axiom(arithmetic):
    """Exact scores; every exp off by +-2^-21, the difference to the largest score by +-2^-24, both ways."""
    rng = np.random.default_rng(0)
    for _ in range(20):
        scores = np.round(rng.normal(size=2) * 2.0 ** rng.integers(-2, 6), 3).astype(np.float32).astype(np.float64)
        ar = arithmetic()
        ball = softmax(Float32(ar), ar.exact(scores), np.ones(2, bool))
        unit = 2.0**ball.exponent
        low, high = (np.array([float(x) for x in bound.flat]) * unit for bound in (ar.lower(ball), ar.upper(ball)))
        d = np.float128(scores) - scores.max() if hasattr(np, "float128") else scores - scores.max()
        for e, v in product(product((-1, 1), repeat=2), product((-1, 1), repeat=2)):
            factors = np.exp(d * (1 + np.array(v) * 2.0**-24)) * (1 + np.array(e) * EXP)
            p = factors / factors.sum()
            assert (low <= p).all() and (p <= high).all()
        assert (high - low < 1e-4).all()


def test_real_softmax_is_inside_and_masked_entries_are_zero():
    ar, kept = Float64(), np.array([True, True, False])
    scores = ar.exact(np.array([1.0, 2.0, 1e6]))
    real, single = softmax(Real(ar), scores, kept), softmax(Float32(ar), scores, kept)
    assert real.mid[2] == real.rad[2] == single.mid[2] == single.rad[2] == 0
    assert (ar.lower(single) <= ar.lower(real)).all() and (ar.upper(real) <= ar.upper(single)).all()
    assert abs(real.mid[:2].sum() - 1) < 1e-14


def test_what_may_overflow_float32_is_rejected():
    ar = Float64()
    with pytest.raises(Rejected, match="overflow"):
        Float32(ar).add(ar.exact(np.array([2.0**126])), ar.exact(np.array([0.0])))
    with pytest.raises(Rejected, match="overflow"):
        Float32(ar).contract("i,i->", ar.exact(np.full(4, 2.0**62)), ar.exact(np.array([1.0, -1, 1, -1]) * 2.0**62))
    with pytest.raises(Rejected, match="float32 weights"):
        Float32.of(SimpleNamespace(captured=False, weights={"w": np.array([1e-300])}), ar)
