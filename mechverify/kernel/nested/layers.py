"""Two layers of attention, taken apart: what the second layer asks for, where it may look, and what it finds there.

Read at one position, the output is what is left where the second layer adds nothing, plus a mean of what each position
adds if it is attended to alone; the weights are a softmax of inner products of a query and of keys. All of these are
sums of ratios of one position's row of the first layer (counting/form.py), so that each is looked up there.

Lemma N1 (docs/soundness/nested.md).
"""

import math
from functools import partial
from typing import NamedTuple

import numpy as np

from mechverify.kernel.core.errors import Unsupported
from mechverify.kernel.core.graph import Graph, entries
from mechverify.kernel.core.operations.softmax import kept
from mechverify.kernel.core.semantics import Real
from mechverify.kernel.counting.form import SumOfRatios, row_by_row, sum_of_ratios

HEADS = 64  # of the second layer
FIXED = ("constant", "weight")  # the same for all inputs
LINEAR = {"add", "mul", "einsum", "over_root", "view", "select"}


class Head(NamedTuple):
    """One of the second layer: a mean of values[i], weighed by the softmax over i of query . keys[i]. `query` is read
    at the position that the output is, `keys` and `values` at the position i that they belong to: those attended to.
    """

    query: SumOfRatios
    keys: dict[int, SumOfRatios]
    values: dict[int, SumOfRatios]


class TwoLayers(NamedTuple):
    """The output is `direct`, read at position `pin`, plus what each head adds."""

    pin: int
    direct: SumOfRatios
    heads: list[Head]


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
    graph: Graph, weights: dict[str, np.ndarray], semantics: Real, output: int
) -> TwoLayers:
    """Precondition: none (Unsupported says what stands in the way). Postcondition: for every input the output is as
    TwoLayers says, for reals within the balls. Complexity: that of `sum_of_ratios`, twice for each position.
    """
    graph = graph.copy()
    output = row_by_row(graph, output)
    found = _second(graph, output)

    form = partial(_form, graph, weights, semantics)
    direct = form(_left(graph, output, found.mixed))
    pattern = graph.nodes[found.pattern]
    mask = np.broadcast_to(kept(pattern), pattern.shape)
    heads = []
    for head in np.ndindex(pattern.shape[:-1]):
        query, keys = _scores(graph, found.pattern, head)
        attended = np.flatnonzero(mask[head]).tolist()
        rows = {i: graph.select(*keys, i) for i in attended}
        alone = {i: _alone(graph, output, found, head, i) for i in attended}
        heads.append(
            Head(
                form(query, direct.pin),
                {i: form(node, i) for i, node in rows.items()},
                {i: form(node, i) for i, node in alone.items()},
            )
        )
    return TwoLayers(direct.pin, direct, heads)


class Looking(NamedTuple):
    """One row of the second layer's pattern: the softmax over i of query . keys[i]."""

    query: SumOfRatios
    keys: dict[int, SumOfRatios]


def entry_of_pattern(
    graph: Graph, weights: dict[str, np.ndarray], semantics: Real, output: int
) -> tuple[Looking, int]:
    """The row of the second layer's pattern in which the output, one number, is an entry, and the position of that.

    Precondition: none (Unsupported says what stands in the way). Complexity: as of `two_layers`.
    """
    graph = graph.copy()
    top = row_by_row(graph, output)
    moved = []
    while (node := graph.nodes[top]).op in ("view", "select", "concat"):
        if len(node.args) > 1 or (node.op == "concat" and node.shape != (1,)):
            raise Unsupported("several values side by side: ask for one at a time")
        moved.append(node)
        top = max(node.args)  # the one there is
    pattern = graph.nodes[top]
    if pattern.op != "softmax" or math.prod(graph.nodes[output].shape) != 1:
        raise Unsupported("the output is no entry of a pattern of attention")
    place = np.arange(math.prod(pattern.shape)).reshape(pattern.shape)
    for node in reversed(moved):
        if node.op == "select":
            place = np.take(place, node.attr[1], node.attr[0])
        elif node.op == "view":
            place = place.ravel()[entries(node.attr)]
    *head, position = np.unravel_index(int(place.item()), pattern.shape)
    if pattern.shape[-1] != graph.length:
        raise Unsupported(f"a pattern of shape {pattern.shape} is not of positions")
    row = tuple(int(i) for i in head)
    query, keys = _scores(graph, top, row)
    mask = np.broadcast_to(kept(pattern), pattern.shape)[row]
    form = partial(_form, graph, weights, semantics)
    attended = np.flatnonzero(mask).tolist()
    rows = {i: form(graph.select(*keys, i), i) for i in attended}
    return Looking(form(query), rows), int(position)


def _form(
    graph: Graph,
    weights: dict[str, np.ndarray],
    semantics: Real,
    node: int,
    pin: int | None = None,
) -> SumOfRatios:
    """Of one position's row: that of `pin`, where it is said."""
    sums = sum_of_ratios(graph, weights, semantics, node)
    if pin is not None and sums.pin != pin:
        raise Unsupported(
            f"the row of position {pin} reads the token at {sums.pin} by itself"
        )
    if sums.value.mid.shape[1] > 1:
        raise Unsupported("a value of the first layer depends on the query's token")
    return sums


def _second(graph: Graph, output: int) -> _Attention:
    """The one softmax that reads the result of a softmax; each of its rows is a head."""
    depth: dict[int, int] = {}
    for n in graph.ancestors([output]):
        node = graph.nodes[n]
        below = max((depth[a] for a in node.args), default=0)
        depth[n] = below + (node.op == "softmax")
    patterns = [n for n in depth if graph.nodes[n].op == "softmax" and depth[n] == 2]
    if len(patterns) != 1:
        raise Unsupported("the output isn't one softmax's that reads attention")
    (pattern,) = patterns
    shape = graph.nodes[pattern].shape
    if shape[-1] != graph.length or math.prod(shape[:-1]) > HEADS:
        raise Unsupported(f"a pattern of shape {shape} is not of a few heads")
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


def _scores(
    graph: Graph, pattern: int, head: tuple[int, ...]
) -> tuple[int, tuple[int, int]]:
    """Of a head the query, a vector; and the node and axis of which the i-th slice is the key of position i."""
    top, scaled = graph.nodes[pattern].args[0], []
    while (scale := _scale(graph, top)) is not None:
        scaled.append((graph.nodes[top], scale))
        top = graph.nodes[top].args[1 - scale]
    node = graph.nodes[top]
    if node.op != "einsum":
        raise Unsupported(f"scores made by {node.op!r} are no inner products")
    first, second, result = node.attr.replace("->", ",").split(",")
    last = result[-1]
    if (last in first) == (last in second):
        raise Unsupported(f"scores made as {node.attr!r} are no query times a key")
    operands = [(node.args[0], first), (node.args[1], second)]
    (query, asked), (keys, offered) = operands if last in second else operands[::-1]
    for letter, index in zip(result[:-1], head, strict=True):
        query, asked = _sliced(graph, query, asked, letter, index)
        keys, offered = _sliced(graph, keys, offered, letter, index)
    if len(asked) != 1 or set(offered) != {asked, last}:
        raise Unsupported(f"scores made as {node.attr!r} are no inner products")
    for node, scale in scaled:
        if node.op == "mul":
            query = graph.add("mul", query, node.args[scale])
        else:
            query = graph.add(node.op, query, attr=node.attr)
    return query, (keys, offered.index(last))


def _scale(graph: Graph, n: int) -> int | None:
    """Which operand of a node is the number that it multiplies by (1: the root that it divides by, no operand)."""
    node = graph.nodes[n]
    if node.op == "over_root":
        return 1
    if node.op != "mul":
        return None
    numbers = [
        graph.nodes[a].shape == () and graph.nodes[a].op in FIXED for a in node.args
    ]
    return numbers.index(True) if any(numbers) else None


def _sliced(
    graph: Graph, node: int, term: str, letter: str, index: int
) -> tuple[int, str]:
    """The slice along that letter, if it is there, and the letters that are left."""
    if letter not in term:
        return node, term
    return graph.select(node, term.index(letter), index), term.replace(letter, "")


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


def _alone(
    graph: Graph, output: int, found: _Attention, head: tuple[int, ...], position: int
) -> int:
    """What a head adds to the output if it attends to that position alone."""
    here, term = _sliced(graph, found.source, found.term, found.places[-1], position)
    shape = graph.nodes[found.pattern].shape[:-1]
    one = np.zeros(shape)
    one[head] = 1
    only = graph.add("constant", attr=(shape, tuple(one.ravel().tolist())))
    spec = f"{found.places[:-1]},{term}->{found.result}"
    added = {found.mixed: graph.add("einsum", only, here, attr=spec)}
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
