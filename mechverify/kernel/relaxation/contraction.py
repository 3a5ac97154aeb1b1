"""Contractions of two values that depend on the input, as products and sums; and those that are averages.

Lemma L7 (docs/soundness/relaxation.md).
"""

from math import prod
from typing import TYPE_CHECKING

from mechverify.kernel.core.graph import Graph
from mechverify.kernel.core.operations import Node

if TYPE_CHECKING:
    from mechverify.kernel.relaxation.rewriting import Steps


def products(steps: "Steps", node: Node, args: list[int]) -> int:
    """Of two values that depend on the input: products of repeated entries, and a sum. Of shares p of a softmax and
    values v: sum_i p_i v_i = c + sum_i p_i (v_i - c) for any c, which keeps the products small; of a difference of
    shares likewise, without the c."""
    first, second, result = node.attr.replace("->", ",").split(",")
    graph, pivot = steps.graph, None
    total = _total(graph, node.args[0])
    if total is not None and first[-1] not in result and set(first[:-1]) <= set(result):
        about = args[0]
        if not total:  # near the mean
            shape = graph.nodes[about].shape
            mean = steps.add("constant", attr=((), (1 / shape[-1],)))
            about = steps.expanded(mean, shape)
        pivot = steps.add("pivot", about, args[1], attr=node.attr)
    summed = [c for c in dict.fromkeys(first + second) if c not in result]
    sizes = dict(
        zip(first + second, sum((graph.nodes[a].shape for a in args), ()), strict=True)
    )
    letters = "".join([*result, *summed])
    shape = tuple(sizes[c] for c in letters)
    parts = [steps.add("view", a, attr=_repeated(shape, letters, term))
             for a, term in zip(args, (first, second), strict=True)]  # fmt: skip
    if pivot is not None:
        about = steps.add("view", pivot, attr=_repeated(shape, letters, result))
        parts[1] = steps.add("sub", parts[1], about, role="centred")
    value = steps.product(parts[0], parts[1], role="products")
    if summed:
        ones = steps.ones(*(sizes[c] for c in summed))
        value = steps.add(
            "einsum", value, ones, attr=f"{letters},{''.join(summed)}->{result}"
        )
    return steps.add("add", value, pivot) if pivot is not None and total else value


def _total(graph: Graph, n: int) -> int | None:
    """What the entries of the last axis add up to, if that is known: one, or of a difference of such, zero."""
    node = graph.nodes[n]
    if node.op == "blend":
        return _total(graph, node.args[1])  # of the second, which is no other blend
    operands = [graph.nodes[a] for a in node.args]
    if node.op == "sub" and all(
        o.op == "softmax" and o.shape == node.shape for o in operands
    ):  # one entry that broadcasts would be taken off each of the others
        return 0
    return 1 if node.op == "softmax" else None


def average(graph: Graph, node: Node) -> tuple[int, tuple] | None:
    """If a contraction sums over a softmax's last axis: which operand it averages, and the view of that operand whose
    last axis holds what each entry is an average of."""
    *terms, result = node.attr.replace("->", ",").split(",")
    for at, (weights, values) in enumerate(zip(terms, terms[::-1], strict=True)):
        shapes = [graph.nodes[a].shape for a in node.args]
        summed = [c for c in weights if c not in result]
        if (
            graph.nodes[node.args[at]].op == "softmax"
            and summed == [weights[-1]]
            and weights[-1] in values
        ):
            sizes = {
                c: n
                for t, s in zip(terms, shapes, strict=True)
                for c, n in zip(t, s, strict=True)
            }
            letters = result + weights[-1]
            return 1 - at, _repeated(tuple(sizes[c] for c in letters), letters, values)
    return None


def _repeated(shape: tuple[int, ...], letters: str, of: str) -> tuple:
    """The view [shape], its axes named by `letters`, of a tensor with axes `of`, constant along the others."""
    sizes = dict(zip(letters, shape, strict=True))
    steps = {c: prod(sizes[d] for d in of[i + 1 :]) for i, c in enumerate(of)}
    return shape, 0, tuple(steps.get(c, 0) for c in letters)
