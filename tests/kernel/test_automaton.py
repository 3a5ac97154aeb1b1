"""Automata derived from mechanisms, and what is reached from them, against every sequence."""

from itertools import product

import numpy as np
import pytest
import sympy

from mechverify import tokens
from mechverify.claims.mechanisms import compile_mechanism
from mechverify.kernel.core.errors import Rejected, Unsupported
from mechverify.kernel.core.fields import Reader
from mechverify.kernel.core.float64 import Float64
from mechverify.kernel.core.graph import Graph
from mechverify.kernel.core.mechanism import add_expression
from mechverify.kernel.counting import recursion
from mechverify.kernel.counting.automaton import derive, towards
from mechverify.kernel.counting.sizes import sizes_by_class
from tests import oracle
from tests.cases import IDS, MECHANISMS


def run(automaton, ids) -> int:
    state = 0
    for step, token in zip(automaton.step, ids, strict=True):
        state = int(step[state, token])
        assert state >= 0
    return int(automaton.final[state])


def check_against_enumeration(rows_list, domain, values):
    graph = Graph(len(domain), tuple(values))
    roots = [add_expression(graph, Reader(rows, "test")) for rows in rows_list]
    automaton = derive(Float64(), graph, roots, [np.array(d) for d in domain])
    sizes: dict[tuple, int] = {}
    for ids in product(*domain):
        expected = tuple(oracle.evaluate(rows, ids, values) for rows in rows_list)
        assert tuple(automaton.classes[run(automaton, ids)].tolist()) == expected
        sizes[expected] = sizes.get(expected, 0) + 1
    for index, values_ in enumerate(automaton.classes.tolist()):
        layers = towards(Float64(), automaton, index)
        assert recursion.completions(Float64(), layers)[0][0] == sizes[tuple(values_)]
    by_token = [sizes_by_class(Float64(), automaton, domain, 0, token) for token in domain[0]]
    assert [sum(column) for column in zip(*by_token, strict=True)] == [
        sizes[tuple(v)] for v in automaton.classes.tolist()
    ]


def test_sizes_are_of_tokens_that_the_automaton_reads():
    """Elsewhere its tables hold -1, which would count for the last state."""
    graph = Graph(2, (0, 1, 2))
    x = tokens("x", length=2, vocab=3)
    root = add_expression(graph, Reader(compile_mechanism(x[0] + x[1], x), "test"))
    automaton = derive(Float64(), graph, [root], [np.array([0, 2]), np.array([1, 2])])
    assert sizes_by_class(Float64(), automaton, [[0, 2], [1, 2]], 0, 2) == [0, 0, 1, 1]
    for domain in ([[0, 1], [1, 2]], [[0, 2], [0, 1, 2]]):
        with pytest.raises(Rejected, match="doesn't read all tokens"):
            sizes_by_class(Float64(), automaton, domain, 0, 2)


@pytest.mark.parametrize(("name", "expression", "plain"), MECHANISMS, ids=IDS)
def test_mechanisms(name, expression, plain):
    x = tokens("x", length=4, vocab=4)
    rows = compile_mechanism(expression(x), x)
    for ids in product(range(4), repeat=4):
        assert oracle.evaluate(rows, ids, range(4)) == plain(list(ids))
    check_against_enumeration([rows], [range(4)] * 4, range(4))


OPERATIONS = [
    "sum",
    "max",
    "min",
    "kth_largest",
    "mod",
    "floordiv",
    "eq",
    "lt",
    "le",
    "where",
    "and",
    "or",
    "not",
    "product",
    "lookup",
]


def random_rows(rng: np.random.Generator, length: int) -> list:
    """A random expression, with shared, repeated and constant operands and every operation."""
    rows = [["value", [], int(i)] for i in rng.permutation(length)]
    rows += [["integer", [], int(rng.integers(-3, 4))]]
    truths = []
    for _ in range(int(rng.integers(3, 12))):
        op = str(rng.choice(OPERATIONS))
        pick = [int(i) for i in rng.integers(0, len(rows), int(rng.integers(1, 5)))]
        bits = [int(rng.choice(truths)) for _ in pick] if truths else []
        match op:
            case "sum" | "max" | "min":
                row = [op, pick, None]
            case "product":
                row = [op, pick[:2], None]
            case "kth_largest":
                row = [op, pick, int(rng.integers(1, len(pick) + 1))]
            case "mod" | "floordiv":
                row = [op, pick[:1], int(rng.integers(1, 5))]
            case "eq" | "lt" | "le":
                row = [op, [pick[0], pick[-1]], None]
            case "lookup":
                size = int(rng.integers(1, 6))
                rows.append(["mod", pick[:1], size])
                row = [op, [len(rows) - 1], [int(v) for v in rng.integers(-3, 4, size)]]
            case "where" if bits:
                row = [op, [bits[0], pick[0], pick[-1]], None]
            case "and" | "or" if bits:
                row = [op, bits, None]
            case "not" if bits:
                row = [op, bits[:1], None]
            case _:
                continue
        if op in ("eq", "lt", "le", "and", "or", "not"):
            truths.append(len(rows))
        rows.append(row)
    return rows


def test_random_expressions():
    rng = np.random.default_rng(3)
    tried = 0
    for _ in range(400):
        length, vocab = int(rng.integers(1, 5)), int(rng.integers(1, 4))
        values = [int(v) for v in rng.integers(-4, 5, vocab)]
        domain = [
            sorted(rng.choice(vocab, int(rng.integers(1, vocab + 1)), replace=False).tolist()) for _ in range(length)
        ]
        expressions = [random_rows(rng, length) for _ in range(int(rng.integers(1, 3)))]
        try:
            check_against_enumeration(expressions, domain, values)
        except Unsupported:
            continue
        except Rejected as error:
            assert "62 bits" in str(error)
            continue
        tried += 1
    assert tried > 350


def test_minimal_for_a_maximum():
    """Two states whatever the vocabulary: all below so far, and seen."""
    x = tokens("x", length=6, vocab=50)
    graph = Graph(6, tuple(range(50)))
    root = add_expression(graph, Reader(compile_mechanism(sympy.Max(*x), x), "test"))
    automaton = derive(Float64(), graph, [root], [np.arange(50)] * 6)
    assert max(layer.states for layer in towards(Float64(), automaton, 30)) == 2


def test_what_is_no_fold_is_refused():
    x = tokens("x", length=8, vocab=40)
    rows = compile_mechanism(sympy.Mod(sum(3**i * t for i, t in enumerate(x)), 10**7), x)
    graph = Graph(8, tuple(range(40)))
    root = add_expression(graph, Reader(rows, "test"))
    with pytest.raises(Unsupported, match="short fold"):
        derive(Float64(), graph, [root], [np.arange(40)] * 8)
