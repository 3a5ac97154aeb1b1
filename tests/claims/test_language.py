"""From sympy to rows: what compiles means the same; what doesn't is named, all of it at once."""

from itertools import product

import pytest
import sympy

from mechverify import kth_largest, tokens
from mechverify.claims import ClaimError
from mechverify.claims.mechanisms import compile_mechanism
from tests import oracle
from tests.cases import IDS, MECHANISMS

X = tokens("x", length=3, vocab=4, values=[-2, 0, 1, 3])


@pytest.mark.parametrize(("name", "expression", "plain"), MECHANISMS, ids=IDS)
def test_compiled_means_the_same(name, expression, plain):
    rows = compile_mechanism(expression(X), X)
    for ids in product(range(4), repeat=3):
        assert oracle.evaluate(rows, ids, X.values) == plain([X.values[i] for i in ids])


def test_every_problem_is_named_at_once():
    y = sympy.Symbol("y")
    expression = sympy.Max(X[0] / 2, sympy.cos(X[1]), sympy.Mod(X[0], X[2]), y, sympy.Piecewise((1, X[0] > 1)))
    with pytest.raises(ClaimError) as caught:
        compile_mechanism(expression, X)
    text = str(caught.value)
    for part in ("divided by 2", "cos(x1)", "Mod(x0, x2)", "y: is not a token", "(value, True)"):
        assert part in text


def test_kth_largest_says_what_k_may_be():
    with pytest.raises(ClaimError, match="1 to 3"):
        kth_largest(4, *X)
    assert kth_largest(2, 5, 7, 7) == 7


@pytest.mark.parametrize(
    "bad",
    [dict(length=0, vocab=3), dict(length=2, vocab=0), dict(length=2, vocab=3, values=[1]),
     dict(length=2, vocab=3, allowed=[3]), dict(length=2, vocab=3, allowed=[[0]]),
     dict(length=2, vocab=3, allowed=[[], [1]])],
)  # fmt: skip
def test_domains_that_make_no_sense(bad):
    with pytest.raises(ClaimError):
        tokens("x", **bad)


def test_a_domain_knows_its_size_and_samples_itself():
    import numpy as np

    x = tokens("x", length=3, vocab=9, allowed=[[1, 2], range(9), [4]])
    assert x.size == 18
    sample = x.sample(200, np.random.default_rng(0))
    assert set(sample[:, 0]) == {1, 2} and set(sample[:, 2]) == {4}


def test_a_quotient_that_sympy_knows_to_be_whole():
    x = X[0]
    rows = compile_mechanism(sympy.floor(sympy.Max(2, 2 * x) / 2), X)  # sympy leaves out the floor
    for ids in [(0, 1, 2), (3, 3, 0), (2, 0, 3)]:
        assert oracle.evaluate(rows, ids, X.values) == max(1, X.values[ids[0]])
