"""The recursion against lists of all sequences."""

from fractions import Fraction
from itertools import product

import numpy as np
import pytest

from mechverify.kernel.core.arithmetic import HIGHEST
from mechverify.kernel.core.errors import Rejected
from mechverify.kernel.core.exact import Exact
from mechverify.kernel.core.fields import Reader
from mechverify.kernel.core.float64 import Float64
from mechverify.kernel.core.graph import Graph
from mechverify.kernel.core.mechanism import add_expression
from mechverify.kernel.counting import nonpositive, recursion, smallest, sums
from mechverify.kernel.counting.automaton import derive, towards
from tests import oracle
from tests.kernel.test_automaton import random_rows
from tests.rounds import ROUNDS

AR = Float64()


def cells(rng, count):
    """(layers, accepted sequences, vocab) of random mechanisms' classes, some with a pinned token."""
    made = 0
    while made < count:
        length, vocab = int(rng.integers(1, 6)), int(rng.integers(2, 5))
        graph = Graph(length, tuple(range(vocab)))
        rows = random_rows(rng, length)
        try:
            root = add_expression(graph, Reader(rows, "test"))
            automaton = derive(AR, graph, [root], [np.arange(vocab)] * length)
        except Rejected:
            continue
        index = int(rng.integers(len(automaton.classes)))
        layers = towards(AR, automaton, index)
        value = automaton.classes[index, 0]
        accepted = [s for s in product(range(vocab), repeat=length) if oracle.evaluate(rows, s, range(vocab)) == value]
        if rng.random() < 0.5:
            position, token = int(rng.integers(length)), int(rng.integers(vocab))
            layers = recursion.pin(layers, position, token)
            accepted = [s for s in accepted if s[position] == token]
        made += 1
        yield layers, np.array(accepted, int).reshape(-1, length), vocab


def test_size_smallest_and_sums():
    rng = np.random.default_rng(5)
    for layers, accepted, vocab in cells(rng, 150):
        assert recursion.completions(AR, layers)[0][0] == len(accepted)
        for position in range(len(layers)):
            tokens, counts = np.unique(accepted[:, position], return_counts=True)
            assert recursion.sizes_by_token(AR, layers, position) == dict(
                zip(tokens.tolist(), counts.tolist(), strict=True)
            )
        if not len(accepted):
            continue
        terms = rng.normal(size=(len(layers), vocab)) * 10.0 ** rng.integers(-3, 4, (len(layers), vocab))
        exact = sorted(sum(Fraction(terms[i, t]) for i, t in enumerate(row)) for row in accepted.tolist())
        off = Fraction(len(layers) ** 2 * 2.0**-51 * np.abs(terms).max())  # roundings of as large a sum
        least = smallest.smallest(AR, layers, lambda i, t, terms=terms: terms[i, t][None, :, None], (1, 1))
        assert 0 <= exact[0] - Fraction(least[0, 0]) <= off
        total = sorted(map(Fraction, sums.sums(AR, layers, terms[..., None])[:, 0]))
        assert all(abs(a - b) <= off for a, b in zip(total, exact, strict=True))


@pytest.mark.parametrize("ar", [Float64(), Exact()], ids=["float64", "exact"])
@pytest.mark.parametrize("upwards", [True, False])
def test_counting_is_exact_on_integers(upwards, ar):
    rng = np.random.default_rng(6)
    for layers, accepted, vocab in cells(rng, 8 * ROUNDS):
        scale = int(rng.choice([1, 3, 50, 10_000]))
        terms = rng.integers(-scale, scale + 1, (len(layers), vocab))
        terms[rng.random(terms.shape) < 0.05] = HIGHEST
        terms[rng.random(terms.shape) < 0.05] = rng.integers(-(10**5), 1)
        expected = int((terms[np.arange(len(layers)), accepted].sum(1) <= 0).sum()) if len(accepted) else 0
        assert nonpositive.count_nonpositive(ar, layers, terms, upwards) == expected


def test_counting_past_2_53_rounds_outwards():
    """64^12 sequences of symmetric terms: the exact count is known by symmetry."""
    length, vocab = 12, 64
    graph = Graph(length, tuple(range(vocab)))
    root = add_expression(graph, Reader([["integer", [], 0]], "test"))
    layers = towards(AR, derive(AR, graph, [root], [np.arange(vocab)] * length), 0)
    terms = np.tile(2 * np.arange(vocab) - (vocab - 1), (length, 1))
    zero = _ways(terms, 0)
    exact = (vocab**length + zero) // 2
    low = nonpositive.count_nonpositive(AR, layers, terms, upwards=False)
    high = nonpositive.count_nonpositive(AR, layers, terms, upwards=True)
    assert low <= exact <= high
    assert high - low < exact * 1e-9
    assert nonpositive.count_nonpositive(Exact(), layers, terms, upwards=True) == exact


def _ways(terms, target):
    ways = {0: 1}
    for row in terms.tolist():
        following: dict[int, int] = {}
        for total, count in ways.items():
            for t in row:
                following[total + t] = following.get(total + t, 0) + count
        ways = following
    return ways.get(target, 0)


def test_grid_rounds_to_the_asked_side_and_refuses_what_it_cannot_hold():
    terms = np.array([[0.3, -0.3, 0.25, -0.25, 1e300, 5e-324, -5e-324]])
    down = AR.to_grid(terms, 0, -2, upwards=False)[0].tolist()
    up = AR.to_grid(terms, 0, -2, upwards=True)[0].tolist()
    assert down == [1, -2, 1, -1, HIGHEST, 0, -1]
    assert up == [2, -1, 1, -1, HIGHEST, 1, 0]
    for bad in (-1e300, np.nan):
        with pytest.raises(Rejected):
            AR.to_grid(np.array([[bad]]), 0, -2, upwards=False)
