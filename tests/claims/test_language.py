"""From sympy to rows: what compiles means the same; what doesn't is named, all of it at once."""

from itertools import product

import pytest
import sympy
from hypothesis import given, settings
from hypothesis import strategies as st

from mechverify import kth_largest, tokens
from mechverify.claims import ClaimError
from mechverify.claims.language import compile_mechanism
from tests import oracle
from tests.cases import IDS, MECHANISMS

X = tokens("x", length=3, vocab=4, values=[-2, 0, 1, 3])


@pytest.mark.parametrize(("name", "expression", "plain"), MECHANISMS, ids=IDS)
def test_compiled_means_the_same(name, expression, plain):
    rows = compile_mechanism(expression(X), X)
    for ids in product(range(4), repeat=3):
        assert oracle.evaluate(rows, ids, X.values) == plain([X.values[i] for i in ids])


leaves = st.sampled_from([*X, sympy.Integer(2), sympy.Integer(-1)])
integers = st.recursive(
    leaves,
    lambda e: st.one_of(
        st.tuples(e, e).map(lambda p: p[0] + p[1]),
        st.tuples(e, e).map(lambda p: p[0] * p[1]),
        st.tuples(e, e).map(lambda p: sympy.Max(*p)),
        st.tuples(e, e).map(lambda p: sympy.Min(*p)),
        e.map(lambda a: sympy.Mod(a, 3)),
        e.map(lambda a: sympy.floor(a / 2)),
        e.map(sympy.Abs),
        e.map(sympy.sign),
        st.tuples(e, e, e).map(lambda p: sympy.Piecewise((p[0], p[1] < p[2]), (p[2], True))),
        st.tuples(e, e, e).map(lambda p: kth_largest(2, *p)),
    ),
    max_leaves=8,
)


@given(integers)
@settings(max_examples=300, deadline=None)
def test_sympy_agrees_on_random_expressions(expression):
    rows = compile_mechanism(expression, X)
    for ids in [(0, 1, 2), (3, 3, 0), (2, 0, 3), (1, 1, 1)]:
        values = {s: sympy.Integer(X.values[i]) for s, i in zip(X, ids, strict=True)}
        assert oracle.evaluate(rows, ids, X.values) == int(numeric(sympy.sympify(expression), values))


def numeric(e: sympy.Basic, values: dict) -> sympy.Basic:
    """Sympy's own operations on numbers, from the leaves up. (Substitution simplifies symbolically on the
    way, and is at times wrong: Mod(floor(Max(x0, x0*x2)/2), 3) gives 0 at x0 = -2, x2 = 1, where it is 2.)"""
    if isinstance(e, sympy.Piecewise):
        return next(numeric(v, values) for v, c in e.args if numeric(c, values))
    return values.get(e, e) if not e.args else e.func(*(numeric(a, values) for a in e.args))


def test_every_problem_is_named_at_once():
    y = sympy.Symbol("y")
    expression = sympy.Max(X[0] / 2, sympy.cos(X[1]), sympy.Mod(X[0], X[2]), y, sympy.Piecewise((1, X[0] > 1)))
    with pytest.raises(ClaimError) as caught:
        compile_mechanism(expression, X)
    text = str(caught.value)
    for part in ("1/2", "cos(x1)", "Mod(x0, x2)", "y: is not a token", "(value, True)"):
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
