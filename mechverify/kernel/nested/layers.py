"""Two layers of attention, taken apart: what the second layer asks for, where it may look, and what it finds there.

Read at one position, the output is what is left where the second layer adds nothing, plus a mean of what each position
adds if it is attended to alone; the weights are a softmax of inner products of a query and of keys. All of these are
sums of ratios of one position's row of the first layer (counting/form.py), so that each is looked up there.

Lemma N1 (docs/soundness/nested.md).
"""

from typing import NamedTuple

import numpy as np

from mechverify.kernel.core.errors import Unsupported
from mechverify.kernel.core.graph import Graph
from mechverify.kernel.core.operations.softmax import kept
from mechverify.kernel.core.semantics import Real
from mechverify.kernel.counting.form import SumOfRatios, row_by_row, sum_of_ratios

LINEAR = {"add", "mul", "einsum", "over_root", "view", "select"}


class TwoLayers(NamedTuple):
    """output = direct + sum_i A_i values[i], A the softmax over i of query . keys[i]. `query` and `direct` are read at
    position `pin`, `keys` and `values` at the position i that they belong to: those that the second layer attends to.
    """

    pin: int
    direct: SumOfRatios
    query: SumOfRatios
    keys: dict[int, SumOfRatios]
    values: dict[int, SumOfRatios]


class _Attention(NamedTuple):
    """The second layer's softmax, the contraction that applies it, its operand with the values, and both operands'
    letters and the result's."""

    pattern: int
    mixed: int
    source: int
    places: str
    term: str
    result: str


def two_layers(
    graph: Graph, weights: dict[str, np.ndarray], model: Real, output: int
) -> TwoLayers:
    """Precondition: none (Unsupported says what stands in the way). Postcondition: for every input the output is as
    TwoLayers says, for reals within the balls. Complexity: that of `sum_of_ratios`, twice for each position.
    """
    graph = graph.copy()
    output = row_by_row(graph, output)
    found = _second(graph, output)

    def form(node: int, pin: int | None = None) -> SumOfRatios:
        sums = sum_of_ratios(graph, weights, model, node)
        if pin is not None and sums.pin != pin:
            raise Unsupported(
                f"the row of position {pin} reads the token at {sums.pin} by itself"
            )
        if sums.value.mid.shape[1] > 1:
            raise Unsupported("a value of the first layer depends on the query's token")
        return sums

    direct = form(_left(graph, output, found.mixed))
    query, keys = _scores(graph, found)
    attended = np.flatnonzero(kept(graph.nodes[found.pattern]).reshape(-1)).tolist()
    rows = {i: graph.select(*keys, i) for i in attended}
    alone = {i: _alone(graph, output, found, i) for i in attended}
    return TwoLayers(
        direct.pin,
        direct,
        form(query, direct.pin),
        {i: form(node, i) for i, node in rows.items()},
        {i: form(node, i) for i, node in alone.items()},
    )


def _second(graph: Graph, output: int) -> _Attention:
    """The one softmax that reads the result of a softmax, of one head and one row."""
    depth: dict[int, int] = {}
    for n in graph.ancestors([output]):
        node = graph.nodes[n]
        below = max((depth[a] for a in node.args), default=0)
        depth[n] = below + (node.op == "softmax")
    patterns = [n for n in depth if graph.nodes[n].op == "softmax" and depth[n] == 2]
    if len(patterns) != 1:
        raise Unsupported("the output isn't one softmax's that reads attention")
    (pattern,) = patterns
    if graph.nodes[pattern].shape != (1,) * (len(graph.nodes[pattern].shape) - 1) + (
        graph.length,
    ):
        raise Unsupported("the second layer has several heads, or rows")
    users = [n for n in depth if pattern in graph.nodes[n].args]
    if len(users) != 1 or graph.nodes[users[0]].op != "einsum":
        raise Unsupported("a pattern is used for something else than attending")
    node = graph.nodes[users[0]]
    first, second, result = node.attr.replace("->", ",").split(",")
    at = node.args.index(pattern)
    places, term = (first, second) if at == 0 else (second, first)
    source = node.args[1 - at]
    if source == pattern or places[-1] not in term or places[-1] in result:
        raise Unsupported(
            f"attention applied as {node.attr!r} is no sum over positions"
        )
    return _Attention(pattern, users[0], source, places, term, result)


def _scores(graph: Graph, found: _Attention) -> tuple[int, tuple[int, int]]:
    """The query, a vector; and the node and axis of which the i-th slice is the key of position i."""
    top = graph.nodes[found.pattern].args[0]
    roots = []
    while graph.nodes[top].op == "over_root":
        roots.append(graph.nodes[top].attr)
        top = graph.nodes[top].args[0]
    node = graph.nodes[top]
    if node.op != "einsum":
        raise Unsupported(f"scores made by {node.op!r} are no inner products")
    first, second, result = node.attr.replace("->", ",").split(",")
    last = result[-1]
    if (last in first) == (last in second):
        raise Unsupported(f"scores made as {node.attr!r} are no query times a key")
    operands = [(node.args[0], first), (node.args[1], second)]
    (query, asked), (keys, offered) = operands if last in second else operands[::-1]
    for letter in result[:-1]:  # of size one
        query, asked = _without(graph, query, asked, letter)
        keys, offered = _without(graph, keys, offered, letter)
    if len(asked) != 1 or set(offered) != {asked, last}:
        raise Unsupported(f"scores made as {node.attr!r} are no inner products")
    for size in roots:
        query = graph.add("over_root", query, attr=size)
    return query, (keys, offered.index(last))


def _without(graph: Graph, node: int, term: str, letter: str) -> tuple[int, str]:
    """The first slice along that letter, and the letters that are left."""
    if letter not in term:
        return node, term
    return graph.select(node, term.index(letter), 0), term.replace(letter, "")


def _left(graph: Graph, output: int, mixed: int) -> int:
    """The output where `mixed` is zero."""
    left: dict[int, int | None] = {mixed: None}
    for n in graph.ancestors([output]):
        node = graph.nodes[n]
        if n == mixed or not any(a in left for a in node.args):
            continue
        _need_linear(graph, n, left)
        parts = [left.get(a, a) for a in node.args]
        there = [a for a in parts if a is not None]
        if len(there) == len(parts):
            left[n] = graph.add(node.op, *there, attr=node.attr)
        else:
            left[n] = there[0] if there and node.op == "add" else None
    result = left.get(output)
    if result is None:
        raise Unsupported("nothing but the second layer reaches the output")
    return result


def _alone(graph: Graph, output: int, found: _Attention, position: int) -> int:
    """What the second layer adds to the output if it attends to that position alone."""
    here = graph.select(found.source, found.term.index(found.places[-1]), position)
    ones = (1,) * (len(found.places) - 1)
    one = graph.add("constant", attr=(ones, (1.0,)))
    term = found.term.replace(found.places[-1], "")
    spec = f"{found.places[:-1]},{term}->{found.result}"
    added = {found.mixed: graph.add("einsum", one, here, attr=spec)}
    for n in graph.ancestors([output]):
        node = graph.nodes[n]
        if n == found.mixed or not any(a in added for a in node.args):
            continue
        _need_linear(graph, n, added)
        if node.op == "add":
            parts = [added[a] for a in node.args if a in added]
            added[n] = parts[0] if len(parts) == 1 else graph.add("add", *parts)
        else:
            parts = [added.get(a, a) for a in node.args]
            added[n] = graph.add(node.op, *parts, attr=node.attr)
    return added[output]


def _need_linear(graph: Graph, n: int, reached: dict) -> None:
    """Refuses a node that isn't linear in those of its operands that the second layer reaches."""
    node = graph.nodes[n]
    linear = [a for a in node.args if a in reached]
    if node.op not in LINEAR or (node.op in ("mul", "einsum") and len(linear) > 1):
        raise Unsupported(f"{node.op!r} on the second layer's result is not linear")
    if node.op == "add" and any(graph.nodes[a].shape != node.shape for a in node.args):
        raise Unsupported("the second layer's result is added to another shape")
