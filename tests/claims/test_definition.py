"""The formula is what the user typed: the definition of the language, and the ways in which it was another one."""

import hashlib
from fractions import Fraction

import numpy as np
import pytest
import sympy
import torch
from sympy import (
    Abs,
    And,
    Eq,
    Float,
    Implies,
    Max,
    Ne,
    Not,
    Or,
    Piecewise,
    Rational,
    Sum,
    Xor,
    cos,
    floor,
    pi,
    sign,
    sqrt,
)
from torch import nn

from benchmarks.campaigns import mechanisms
from mechverify import Accuracy, Bounds, Holds, Mod, Within, ball, capture, count, kth_largest, lookup, prove, tokens
from mechverify.claims import ClaimError
from mechverify.claims.language import Table
from mechverify.claims.mechanisms import compile_mechanism
from mechverify.claims.numbers import number as exact
from mechverify.kernel.core.graph import Graph
from mechverify.kernel.statement.formula import Formulas, Listing
from mechverify.kernel.statement.sentence import state
from tests import oracle

X = tokens("x", length=2, vocab=7)
PAIRS = [(a, b) for a in range(7) for b in range(7)]


def test_a_mechanism_is_what_python_makes_of_the_same_text():
    differ, refused, compared = mechanisms.integers(2, 1_500)
    assert not differ and compared > 1_400 * mechanisms.INPUTS
    assert refused.total() < 60, refused


@pytest.mark.parametrize("conditions", [False, True], ids=["expressions", "conditions"])
def test_a_real_expression_is_what_python_makes_of_the_same_text(conditions):
    differ, refused, compared = mechanisms.reals(3, 150, conditions)
    assert not differ and compared > 150, refused


def test_the_comparison_can_fail(monkeypatch):
    """Another meaning of one name, on Python's side."""
    monkeypatch.setitem(mechanisms.PLAIN, "Max", min)
    monkeypatch.setitem(mechanisms.REAL, "Max", min)
    assert mechanisms.integers(2, 200)[0] and mechanisms.reals(3, 60)[0]


@pytest.mark.parametrize("example", mechanisms.EXAMPLES, ids=lambda e: e.what)
def test_an_example_is_mended(example):
    assert example.run() == example.after


REMAINDERS = {
    "of a remainder": (Mod(3 * Mod(X[0], 5), 5), lambda a, b: 3 * (a % 5) % 5),
    "of a sum": (Mod(2 * Mod(X[0] + X[1], 5), 7), lambda a, b: 2 * ((a + b) % 5) % 7),
    "by an operator": (3 * (X[0] % 5) % 5, lambda a, b: 3 * (a % 5) % 5),
    "of a floor, by an operator": (3 * (X[0] // 2 % 5) % 5, lambda a, b: 3 * (a // 2 % 5) % 5),
    "sympy's": (sympy.Mod(2 * sympy.Mod(X[0] + X[1], 5), 7), lambda a, b: 2 * ((a + b) % 5) % 7),
    "of negative numbers": ((X[0] - 6) % 4 + (X[0] - 6) // 4, lambda a, b: (a - 6) % 4 + (a - 6) // 4),
    "sympy's parity": (sympy.Mod(Piecewise((1, Eq(X[0], 3)), (0, True)) + X[1], 2), lambda a, b: ((a == 3) + b) % 2),
    "a difference that sympy cancelled": (Mod(3 * Mod(floor(X[0] / 2), 5), 5) - 3 * Mod(floor(X[0] / 2), 5) + 9,
                                          lambda a, b: 3 * (a // 2 % 5) % 5 - 3 * (a // 2 % 5) + 9),
}  # fmt: skip


@pytest.mark.parametrize("name", REMAINDERS)
def test_remainders(name):
    expression, plain = REMAINDERS[name]
    rows = compile_mechanism(expression, X)
    assert [oracle.evaluate(rows, p, X.values) for p in PAIRS] == [plain(*p) for p in PAIRS]


@pytest.mark.parametrize(
    "expression",
    [Sum(sympy.Mod(2 * sympy.Mod(mechanisms.K, 5), 7), (mechanisms.K, 1, 3)) + X[0],
     Sum(sympy.Mod(3 * sympy.Mod(mechanisms.K, 5), 5), (mechanisms.K, 1, 3)) + X[0]],
)  # fmt: skip
def test_sympys_remainder_is_refused_where_it_may_be_wrong(expression):
    with pytest.raises(ClaimError, match="from mechverify import Mod"):
        compile_mechanism(expression, X)


@pytest.mark.parametrize(("expression", "plain"), [
    (sympy.Mod(3 * sympy.Mod(sign(X[0]), 5), 5), lambda a: 3 * (_sign(a) % 5) % 5),
    (8 * (sign(X[0]) % 6) % 6 // 2, lambda a: 8 * (_sign(a) % 6) % 6 // 2),
    (sympy.Piecewise((2, X[0] > 1), (4, True)) % 6, lambda a: 2 if a > 1 else 4),
    (6 * sympy.floor(sympy.Piecewise((2, X[0] > 1), (4, True)) / 6), lambda a: 0),
])  # fmt: skip
def test_what_speaks_of_a_token_is_left_as_it_is_written(expression, plain):
    rows = compile_mechanism(expression, X)
    assert [oracle.evaluate(rows, p, X.values) for p in PAIRS] == [plain(X.values[p[0]]) for p in PAIRS]


def _sign(a: int) -> int:
    return (a > 0) - (a < 0)


def test_the_symbol_of_a_sum_is_what_it_was_declared_to_be():
    """Of a positive k, sympy makes k of Abs(k)."""
    k = sympy.Symbol("k", positive=True)
    with pytest.raises(ClaimError, match="declared"):
        compile_mechanism(Sum(Abs(k) * X[0], (k, -1, 1)), X)
    rows = compile_mechanism(Sum(Abs(k) * X[0], (k, 1, 2)), X)
    assert [oracle.evaluate(rows, p, X.values) for p in PAIRS] == [3 * a for a, _ in PAIRS]


def test_a_fold_may_nest_as_deep_as_there_are_tokens():
    many = tokens("x", length=300, vocab=3)
    state, pieces = many[0], many[0]
    for token in many[1:]:
        state, pieces = Mod(2 * state + token, 7), Piecewise((pieces, token > 1), (token, True))
    assert len(compile_mechanism(state, many)) > 900 and len(compile_mechanism(pieces, many)) > 600


def test_a_quotient_of_python_is_no_fraction():
    """3/5 is a float64 below three fifths: floor(x0/5 + 3/5) would be 0 at x0 = 2."""
    with pytest.raises(ClaimError, match=r"write Rational\(3, 5\)"):
        compile_mechanism(floor(X[0] / 5 + 3 / 5), X)
    rows = compile_mechanism(floor(X[0] / 5 + Rational(3, 5)), X)
    assert [oracle.evaluate(rows, p, X.values) for p in PAIRS] == [(a + 3) // 5 for a, _ in PAIRS]


def test_a_modulus_is_positive():
    with pytest.raises(ClaimError, match="must be positive"):
        Mod(X[0], 0)
    with pytest.raises(ClaimError, match="positive integer"):
        compile_mechanism(Mod(X[0], X[1]), X)


MORE = {
    "half": (floor(X[0] + 0.5), lambda a, b: a),
    "fractions in a floor": (floor(Max(X[0] / 2, X[1] / 3)), lambda a, b: max(3 * a, 2 * b) // 6),
    "a ceiling": (sympy.ceiling(X[0] / 2 - X[1]), lambda a, b: -((2 * b - a) // 2)),
    "a power of -1": ((-1) ** (X[0] + X[1]), lambda a, b: (-1) ** (a + b)),
    "fractions compared": (Piecewise((1, X[0] / 2 < X[1] / 3), (0, True)), lambda a, b: int(3 * a < 2 * b)),
    "implies": (Piecewise((1, Implies(X[0] > 2, X[1] > 2)), (0, True)), lambda a, b: int(a <= 2 or b > 2)),
    "exclusive or": (Piecewise((1, Xor(X[0] > 2, X[1] > 2)), (0, True)), lambda a, b: int((a > 2) != (b > 2))),
    "a table": (lookup([3, -1, 4, 1, -5, 9, 2], X[0]), lambda a, b: [3, -1, 4, 1, -5, 9, 2][a]),
    "a table of fractions": (floor(lookup([0.5, Rational(4, 3)], X[0] % 2) * X[1]),
                             lambda a, b: 4 * b // 3 if a % 2 else b // 2),
    "a sum": (Sum(lookup([1, 2, 4, 8], mechanisms.K) * X[0], (mechanisms.K, 0, 3)), lambda a, b: 15 * a),
    "an empty sum": (Sum(X[0], (mechanisms.K, 1, 0)) + X[1], lambda a, b: b),
    "a double sum": (Sum(X[0] * mechanisms.K + sympy.Symbol("j"), (mechanisms.K, 1, 2), (sympy.Symbol("j"), 0, 2)),
                     lambda a, b: 9 * a + 6),
    "a sum over a token's name": (Sum(X[0] * X[1], (X[1], 1, 3)), lambda a, b: 6 * a),
}  # fmt: skip


@pytest.mark.parametrize("name", MORE)
def test_more_of_the_language(name):
    expression, plain = MORE[name]
    rows = compile_mechanism(expression, X)
    assert [oracle.evaluate(rows, p, X.values) for p in PAIRS] == [plain(*p) for p in PAIRS]


class Pair(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.embed = nn.Embedding(7, 4)
        self.head = nn.Linear(8, 5)

    def forward(self, ids):
        return self.head(torch.relu(self.embed(ids)).flatten(1))


@pytest.fixture(scope="module")
def pair():
    module = Pair().eval().double()
    values = module(torch.tensor(PAIRS)).detach().numpy().reshape(7, 7, 5)
    return capture(module, torch.tensor([[1, 2]])), values


def test_entries_have_arguments(pair):
    site = pair[0]["output"]
    assert site[X[1]].subs(X[1], 3) == site[3] != site[2]
    assert Sum(site[X[1]], (X[1], 0, 3)).doit() == site[0] + site[1] + site[2] + site[3]
    assert X[1] in site[X[1]].free_symbols and X[1] not in Sum(site[X[1]], (X[1], 0, 3)).free_symbols
    assert str(site[X[1]] + 1) == "output[x1] + 1"
    summed = prove(Within(Sum(site[X[1]], (X[1], 0, 3)), 0, over=X)).theorem.range
    truth = pair[1][..., :4].sum(-1)
    assert (summed.low[0], summed.high[0]) == pytest.approx((truth.min(), truth.max()), abs=1e-12)


def test_sites_are_sequences(pair):
    model, values = pair
    site, embed = model["output"], model["embed"]
    assert len(site) == 5 and list(site) == [site[i] for i in range(5)]
    assert len(embed) == 2 and [len(row) for row in embed] == [4, 4] and embed[1][2] == embed[1, 2]
    assert embed[:, 1].tolist() == [embed[0, 1], embed[1, 1]] and embed[1, ::2].tolist() == [embed[1, 0], embed[1, 2]]
    assert embed[X[0], 1:3].tolist() == [embed[X[0], 1], embed[X[0], 2]] and embed[:, :].shape == (2, 4)
    top = prove(Bounds(Max(*site), over=X)).theorem.range
    assert top.low[0] <= values.max(-1).min() and values.max(-1).max() <= top.high[0]
    assert prove(Within(site, site, over=X, eps=0)).verdict == "PROVED"
    assert prove(Within(embed[:, 1] - embed[:, 2], [embed[0, 1] - embed[0, 2], embed[1][1] - embed[1][2]], over=X,
                        eps=0)).verdict == "PROVED"  # fmt: skip
    assert prove(Holds(embed[0, :] >= -99, over=X)).verdict == "PROVED"
    constants = np.arange(8, dtype=np.float32).reshape(2, 4)
    for expected in (
        constants,
        torch.from_numpy(constants),
        sympy.Matrix(constants),
        constants.tolist(),
        list(constants),
    ):
        assert float(Within(embed, expected, over=X).expected[5]) == 5
    with pytest.raises(ClaimError, match="an array of shape"):
        Max(site, 0)
    with pytest.raises(ClaimError, match="has 8 expressions, actual has 5"):
        Within(site, embed, over=X)
    with pytest.raises(ClaimError, match=r"\[0, 0, 0\]: the site has shape"):
        embed[0, 0, 0]
    for bad in ("a", None, 1.0, Float(1), [0, 1]):
        with pytest.raises(ClaimError, match="an index is an integer"):
            site[bad]


A, B = X
CONDITIONS = {  # of the outputs y, and what it says of them and of the tokens
    "or": (lambda y: Or(y[0] >= y[1], y[2] >= y[3] + 1), lambda v, a, b: (v[0] >= v[1]) | (v[2] >= v[3] + 1)),
    "or that holds": (lambda y: Or(y[0] >= y[1], y[1] >= y[0]), lambda v, a, b: v[0] == v[0]),
    "and in or": (lambda y: Or(And(y[0] >= y[1], y[2] >= 0), y[3] <= 0),
                  lambda v, a, b: ((v[0] >= v[1]) & (v[2] >= 0)) | (v[3] <= 0)),
    "equal, or": (lambda y: Or(Eq(Max(y[0], y[1]), y[0]), y[3] <= 9), lambda v, a, b: v[0] == v[0]),
    "tokens imply": (lambda y: Implies(A > B, y[0] >= y[1]), lambda v, a, b: (a <= b) | (v[0] >= v[1])),
    "a strict premise": (lambda y: Implies(y[0] > y[1], y[2] >= y[3]), lambda v, a, b: (v[0] <= v[1]) | (v[2] >= v[3])),
    "not strictly": (lambda y: Not(And(y[0] > y[1], y[2] > y[3])), lambda v, a, b: ~((v[0] > v[1]) & (v[2] > v[3]))),
    "tokens differ": (lambda y: Ne(A + B, 12), lambda v, a, b: a + b != 12),
    "tokens differ, or not": (lambda y: Or(Ne(A, B), y[0] >= -9), lambda v, a, b: a == a),
    "tokens, strictly": (lambda y: A / 2 < B + 4, lambda v, a, b: a < 2 * b + 8),
    "a step": (lambda y: Piecewise((y[0], A > B), (y[1], True)) <= Max(y[0], y[1]), lambda v, a, b: v[0] == v[0]),
    "another step": (lambda y: Piecewise((y[0], A > B), (y[1], True)) >= y[0],
                     lambda v, a, b: np.where(a > b, v[0], v[1]) >= v[0]),
    "the second": (lambda y: kth_largest(2, *y) >= y[0], lambda v, a, b: np.sort(v, 0)[-2] >= v[0]),
    "the first two": (lambda y: kth_largest(1, *y) >= kth_largest(2, *y), lambda v, a, b: v[0] == v[0]),
}  # fmt: skip


@pytest.mark.parametrize("name", CONDITIONS)
def test_conditions_hold_where_they_hold(pair, name):
    model, values = pair
    write, says = CONDITIONS[name]
    truth = says(np.moveaxis(values, -1, 0), *np.mgrid[:7, :7])
    outcome = prove(Holds(write(model["output"]), over=X))
    assert outcome.verdict == ("PROVED" if truth.all() else "REFUTED")
    if not truth.all():
        a, b = outcome.theorem.tokens[0]
        assert not truth[a, b]


REFUSALS = {  # and what is advised
    "a strict comparison": (lambda y: y[0] > y[1], "write <= or >="),
    "differing": (lambda y: Ne(y[0], y[1]), r"Or\(a <= b - eps, a >= b \+ eps\)"),
    "a closed premise": (lambda y: Implies(y[0] >= 0, y[1] >= 0), "given="),
    "a sign": (lambda y: sign(y[0]) >= 0, "given="),
    "a floor": (lambda y: floor(y[0]) >= y[1], "given="),
    "a remainder": (lambda y: Mod(y[0], 2) >= 0, "given="),
    "a count": (lambda y: count(0, *y) <= 1, r"Abs\(a - b\) <= eps"),
    "pieces": (lambda y: Piecewise((y[0], y[0] > 0), (0, True)) >= 0, "Max, Min and Abs"),
    "exclusive or": (lambda y: Xor(y[0] >= 0, y[1] >= 0), "And and Or"),
    "no condition": (lambda y: y[0] + 1, "is no condition"),
    "a token alone": (lambda y: A, "is no condition"),
    "a power": (lambda y: Max(y[0], 0) ** Rational(1, 3) >= 0.5, r"exp\(b\*log\(a\)\)"),
    "an index": (lambda y: y[A] >= 0, r"from 0 to 6, the axis has 5 entries \(0 to 4\)"),
    "python's equality": (lambda y: y[0] == y[1], r"Eq\(a, b\)"),
    "python's inequality": (lambda y: y[0] != y[1], r"Ne\(a, b\)"),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_refusals_say_what_to_write(pair, name):
    write, advice = REFUSALS[name]
    with pytest.raises(ClaimError, match=advice):
        Holds(write(pair[0]["output"]), over=X)


def test_a_strict_condition_is_never_proved_at_a_tie():
    """relu(x) > 0 is false at x = 0 alone; its closure is true."""
    model = capture(nn.ReLU().eval(), torch.zeros(1, 1, dtype=torch.float64))
    box = ball([0.5], 0.5)
    for given in ([], [box[0] > 0]):
        with pytest.raises(ClaimError, match="strict"):
            Holds(model["output"][0] > 0 if not given else model["output"][0] >= 0, over=box, given=given)


def test_indices_respect_what_is_allowed(pair):
    model, values = pair
    z = tokens("x", length=2, vocab=7, allowed=[range(7), [2, 4]])
    range_ = prove(Bounds(model["output"][6 - z[1]], over=z)).theorem.range
    truth = np.stack([values[:, b, 6 - b] for b in (2, 4)])
    assert (range_.low[0], range_.high[0]) == pytest.approx((truth.min(), truth.max()), abs=1e-12)
    rows = compile_mechanism(lookup([7, 8, 9], z[1] - 2), z)
    assert [oracle.evaluate(rows, (0, b), z.values) for b in (2, 4)] == [7, 9]
    with pytest.raises(ClaimError, match="from 2 to 4, the axis has 2 entries"):
        compile_mechanism(lookup([7, 8], z[1]), z)
    meant = tokens("x", length=2, vocab=7, values=range(10, 17))
    with pytest.raises(ClaimError, match="from 10 to 16"):
        Bounds(model["output"][meant[0]], over=meant)


def test_a_group_table_of_14400_entries(pair):
    group = tokens("x", length=2, vocab=120)
    table = [(7 * a + 11 * b) % 120 for a in range(120) for b in range(120)]
    rows = compile_mechanism(lookup(table, 120 * group[0] + group[1]), group)
    assert [op for op, *_ in rows].count("lookup") == 1
    assert all(
        oracle.evaluate(rows, (a, b), range(120)) == table[120 * a + b] for a, b in [(0, 0), (119, 119), (7, 90)]
    )
    with pytest.raises(ClaimError) as error:
        compile_mechanism(lookup(table, 121 * group[0] + group[1]) / 2, group)
    assert "from 0 to 14518, the axis has 14400 entries" in str(error.value) and len(str(error.value)) < 2_000
    assert len(repr(lookup(table, group[0]))) < 200
    for bad in (["a"], [], [1, pi], [float("nan")], [[1, 2], [3]], 3):
        with pytest.raises(ClaimError, match="lookup"):
            Table(bad)


def test_a_table_as_an_index_and_in_an_accuracy(pair):
    model, values = pair
    table = [[(a * b) % 5 for b in range(7)] for a in range(7)]
    at = lookup([v for row in table for v in row], 7 * X[0] + X[1])
    range_ = prove(Bounds(model["output"][at], over=X)).theorem.range
    truth = np.take_along_axis(values, np.array(table)[..., None], 2)
    assert (range_.low[0], range_.high[0]) == pytest.approx((truth.min(), truth.max()), abs=1e-12)


def test_a_table_is_printed_by_its_first_entries_and_a_digest():
    table = [(3 * i) % 101 for i in range(200)]
    digest = hashlib.sha256(", ".join(map(str, table)).encode()).hexdigest()
    at = lookup(table, 25 * X[0])
    for mechanism in (at, Mod(at, 200)):  # a real table, and one of integers
        text = state(prove(Bounds(mechanism, over=X)).theorem).claim
        assert f"[0, 3, 6, 9, 12, 15, 18, 21, ... (200 in all, sha256 {digest})][(25 * x0)]" in text


def test_messages_fit_a_screen():
    with pytest.raises(ClaimError) as error:
        compile_mechanism(Max(*(sympy.gamma(X[0] + i) for i in range(60))), X)
    said = str(error.value)
    assert len(said.split("\n")) <= 40 and "lines more" in said and "the vocabulary: " in said
    assert len(str(ClaimError("a" * 10**6 + "\n" * 100))) < 1_000


def test_numbers_are_taken_exactly():
    model = capture(nn.Identity().eval(), torch.zeros(1, 1, dtype=torch.float64))
    box = ball([0.0], 1.0)
    assert exact(Float("0.1", 60)) - Fraction(0.1) != 0 and abs(exact(Float("0.1", 60)) - Fraction(1, 10)) < 1e-60
    for value, expected in (
        (0.1, Fraction(0.1)), (np.float32(0.7), Fraction(float(np.float32(0.7)))), (Float(0.1), Fraction(0.1)), (2, 2),
        (Rational(1, 3), Fraction(1, 3)), (np.int64(2**62 - 1), 2**62 - 1), (Fraction(1, 3), Fraction(1, 3)),
    ):  # fmt: skip
        assert exact(value) == expected
    assert prove(Within(model["output"][0], box[0], over=box, eps=0)).verdict == "PROVED"


def test_waves_and_roots():
    z = tokens("z", length=2, vocab=6)
    assert prove(Within(cos(pi * z[0]), (-1) ** z[0], over=z, eps="1e-9")).verdict == "PROVED"
    assert prove(Within((z[0] + 1) ** 0.5, sqrt(z[0] + 1), over=z, eps="1e-9")).verdict == "PROVED"
    assert prove(Within((z[0] + 1) ** 1.5, (z[0] + 1) * sqrt(z[0] + 1), over=z, eps="1e-9")).verdict == "PROVED"
    assert prove(Within(2 ** z[0], lookup([1, 2, 4, 8, 16, 32], z[0]), over=z, eps="1e-9")).verdict == "PROVED"
    assert prove(Within(sympy.E, sympy.exp(1), over=z, eps=0)).verdict == "PROVED"
    assert prove(Within(sqrt(z[0] ** 2 + 1) ** 2, z[0] ** 2 + 1, over=z, eps="1e-9")).verdict == "PROVED"
    assert prove(Within(Abs(z[0] - z[1]), Max(z[0] - z[1], z[1] - z[0]), over=z, eps="1e-9")).verdict == "PROVED"


def test_an_accuracy_by_a_table(tmp_path):
    """The same mechanism, as a table and as arithmetic: the same theorem."""
    from safetensors.numpy import save_file

    from mechverify import pair_mlp

    rng, p = np.random.default_rng(0), 11
    shapes = {"W_x": (p, 4), "W_y": (p, 4), "W": (8, 6), "W_U": (6, p)}
    save_file({k: rng.normal(size=s).astype(np.float32) for k, s in shapes.items()}, tmp_path / "w.safetensors")
    network, y = pair_mlp(tmp_path / "w.safetensors"), tokens("x", length=2, vocab=p)
    table = [(a + b) % p for a in range(p) for b in range(p)]
    found = [prove(Accuracy(network.logits, equals=mechanism, over=y)).theorem
             for mechanism in (lookup(table, p * y[0] + y[1]), Mod(y[0] + y[1], p))]  # fmt: skip
    assert found[0].right == found[1].right


def test_decimals_and_fractions_that_meet_in_a_condition_are_compared_exactly():
    """Sympy rounds their difference to 53 bits, or to zero; both conditions are false of the one token allowed."""
    for value, condition in ((0, lambda a: a + 0.1 <= Rational(1, 10)),
                             (3, lambda a: a + Rational(1, 3) >= 3.3333333333333335)):  # fmt: skip
        z = tokens("z", length=2, vocab=5, allowed=[value])
        for form in (condition(z[0]), Or(condition(z[0]), z[1] >= 4)):
            assert prove(Holds(form, over=z), solver=False).verdict == "REFUTED"
    z = tokens("z", length=1, vocab=2, allowed=[0])
    with pytest.raises(ClaimError, match="no input"):
        prove(Bounds([z[0]], over=z, given=[z[0] + 0.1 <= Rational(1, 10)]), solver=False)


def test_integers_that_no_float_holds_are_never_rounded():
    """Not by a claim, which is told so; nor by the sentence of a file whose table of them was rounded."""
    big = 2**53
    z = tokens("z", length=1, vocab=2, values=[big, big + 1])
    for entry in (z[0] - big, z[0] + Mod(z[0], 2), kth_largest(1, z[0], 3)):
        with pytest.raises(ClaimError, match="53 bits"):
            Bounds([entry], over=z)
    with pytest.raises(ClaimError, match="53 bits"):
        Holds(z[0] >= big, over=z)
    assert prove(Within([Mod(z[0], 2)], [Mod(z[0] + 4, 2)], over=z, eps=0), solver=False).verdict != "REFUTED"

    graph = Graph(1, z.values)
    table = graph.add("constant", attr=((2,), (float(big), float(big))))
    n = graph.add("view", graph.add("gather", table, graph.add("tokens")), attr=((), 0, ()))
    (text,), _ = Formulas(Listing(graph, [n]), {}).write([n])
    assert text != "x0" and str(big) in text


def test_a_power_of_a_number_shows_what_is_raised():
    graph = Graph(1, (0, 1))
    one, two, three = (graph.add("constant", attr=((), (v,))) for v in (-1.0, 2.0, 3.0))
    ratio = graph.add("mul", two, graph.add("reciprocal", three))
    powers = [graph.add("power", n, attr=2) for n in (one, ratio, three)]
    texts, _ = Formulas(Listing(graph, powers), {}).write(powers)
    assert texts == ["((-1) ^ 2)", "((2/3) ^ 2)", "(3 ^ 2)"]
