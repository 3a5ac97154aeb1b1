"""What a row of the operations forbids: what isn't legal is refused where it is built."""

import pytest

from mechverify.kernel.core.errors import Rejected
from mechverify.kernel.core.fields import Reader
from mechverify.kernel.core.graph import Graph
from mechverify.kernel.core.mechanism import add_expression

ILLEGAL = {
    "unknown operation": [["exec", [], None]],
    "operation of the model": [["weight", [], 0]],
    "forward reference": [["sum", [0], None]],
    "negative reference": [["integer", [], 1], ["sum", [-1], None]],
    "no such token": [["value", [], 3]],
    "boolean for an integer": [["integer", [], True]],
    "text for an integer": [["integer", [], "1"]],
    "missing attribute": [["value", [], 0], ["mod", [0], None]],
    "modulus zero": [["value", [], 0], ["mod", [0], 0]],
    "negative divisor": [["value", [], 0], ["floordiv", [0], -2]],
    "attribute where none belongs": [["value", [], 0], ["sum", [0], 1]],
    "empty sum": [["sum", [], None]],
    "logic on numbers": [["value", [], 0], ["and", [0, 0], None]],
    "condition that is no truth value": [["value", [], 0], ["where", [0, 0, 0], None]],
    "three operands to eq": [["value", [], 0], ["eq", [0, 0, 0], None]],
    "kth beyond the operands": [["value", [], 0], ["kth_largest", [0], 2]],
    "product past 62 bits": [["integer", [], 2**40], ["product", [0, 0], None]],
    "sum past 62 bits": [["integer", [], 2**61], ["sum", [0, 0], None]],
    "no node": [],
    "a table that the index leaves": [["value", [], 0], ["lookup", [0], [5, 6]]],
    "a table that the index leaves below": [["integer", [], -1], ["lookup", [0], [5, 6]]],
    "no table": [["value", [], 0], ["lookup", [0], None]],
    "a number for a table": [["value", [], 0], ["lookup", [0], 3]],
    "an empty table": [["value", [], 0], ["lookup", [0], []]],
    "a table past 62 bits": [["value", [], 0], ["lookup", [0], [0, 0, 2**62]]],
    "a table of text": [["value", [], 0], ["lookup", [0], [0, 0, "1"]]],
    "a table where none belongs": [["value", [], 0], ["mod", [0], [1, 2]]],
}


@pytest.mark.parametrize("rows", ILLEGAL.values(), ids=ILLEGAL.keys())
def test_illegal_mechanisms_are_refused(rows):
    with pytest.raises(Rejected):
        add_expression(Graph(3, (0, 1, 2)), Reader(rows, "test"))


def test_a_range_holds_what_the_index_can_mean():
    graph = Graph(2, (0, 1, 2))
    rows = [["value", [], 0], ["lookup", [0], [7, 4, -2, 100]], ["integer", [], -3], ["product", [1, 2], None]]
    root = add_expression(graph, Reader(rows, "test"))
    assert [graph.nodes[n].span for n in range(root + 1)] == [(0, 2), (-2, 7), (-3, -3), (-21, 6)]


def test_equal_nodes_are_one_node():
    graph = Graph(2, (0, 1))
    assert graph.add("value", attr=0) == graph.add("value", attr=0)
    assert graph.add("value", attr=0) != graph.add("value", attr=1)
