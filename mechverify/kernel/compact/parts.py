"""Dependency analysis once more, without joint tables: every value as a sum of parts.

A table of ratio.py is indexed by query token, own token and position at once. Most of these values are sums of parts
that each depend on one of them, and a score is a sum of products of two. Kept apart, and as chains of matrices that
nobody has multiplied yet, they cost what a proof reads of them. Over the reals only: rounding doesn't distribute.

Lemma K1 (docs/soundness/compact.md).
"""

import math
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np

from mechverify.kernel.compact.chains import Chain, product, transposed
from mechverify.kernel.core.arithmetic import Ball
from mechverify.kernel.core.claim import Job
from mechverify.kernel.core.errors import Unsupported
from mechverify.kernel.core.graph import Graph, Node, entries
from mechverify.kernel.core.meter import reserve
from mechverify.kernel.core.operations.softmax import kept
from mechverify.kernel.core.operations.weights import table
from mechverify.kernel.core.semantics import Real

Parts = dict[
    str, Chain
]  # by what its rows stand for: "query" or "token" [vocab], "position" [length], "fixed" [1]


class PartsForm(NamedTuple):
    """With q the token at position `pin`: output = base + sum_i e^(s_i) u_i / sum_i e^(s_i) over the positions i <
    `attended`. base is the sum of the rows q of part "query" and 0 of "fixed", u_i of the rows x_i of "token" and i of
    "position". `score`, by what its rows and columns stand for, sums to s_i up to a number that q decides."""

    pin: int
    attended: int
    base: Parts
    score: dict[tuple[str, str], Chain]
    value: Parts


class _Value(NamedTuple):
    """A sum of parts [rows, entries]: of the whole value (axis None), or of its i-th slice along `axis`, whose token is
    the i-th."""

    axis: int | None
    parts: Parts


class _Scores(NamedTuple):
    parts: dict[tuple[str, str], Chain]


class _Mixture(NamedTuple):
    attended: int
    base: Parts
    score: dict[tuple[str, str], Chain]
    value: Parts


def parts_form(
    graph: Graph, weights: dict[str, np.ndarray], semantics: Real, output: int
) -> PartsForm:
    """The output of a model of one layer and one head, in parts.

    Precondition: semantics real (Unsupported says what else stands in the way). Postcondition: for every input the
    output has the form above, for reals within the balls. Complexity: sums of embeddings and biases; nothing is
    multiplied.
    """
    if type(semantics) is not Real:
        raise Unsupported("rule compact is about real arithmetic")
    order, nodes = graph.ancestors([output]), graph.nodes
    pinned = {
        nodes[n].attr[1]
        for n in order
        if nodes[n].op == "select" and nodes[n].kind == "ids"
    }
    if len(pinned) != 1 or any(
        nodes[n].op == "view" and nodes[n].kind == "ids" for n in order
    ):
        raise Unsupported(
            "rule compact needs one query token, and tokens in their own order"
        )
    reader, found = _Reader(graph, weights, semantics), {}
    for n in order:
        found[n] = reader.read(nodes[n], [found[a] for a in nodes[n].args])
    result = found[output]
    if type(result) is not _Mixture:
        raise Unsupported("the output doesn't go through attention")
    pin = pinned.pop()
    if pin >= result.attended:
        raise Unsupported("attention leaves out the query's own position")
    return PartsForm(pin, result.attended, result.base, result.score, result.value)


def output_parts(job: Job) -> PartsForm:
    """The claim's output in parts."""
    graph, output = job.slim()
    return parts_form(graph, job.claim.weights, job.semantics, output)


class _Reader:
    def __init__(self, graph: Graph, weights: dict[str, np.ndarray], semantics: Real):
        self.graph, self.weights, self.ar = graph, weights, semantics.ar

    def read(self, node: Node, args: list) -> Any:
        """A Ball (a weight), _Value, _Scores, _Mixture; of tokens and of an attention pattern what says which."""
        graph, ar = self.graph, self.ar
        kinds = [type(a) for a in args]
        match node.op:
            case "tokens":
                return "token"
            case "weight" | "constant":
                return ar.exact(table(self.weights, node))
            case "select" if node.kind == "ids":
                return "query"
            case "select" if kinds == [Ball]:
                return args[0].map(lambda a: np.take(a, node.attr[1], node.attr[0]))
            case "gather":
                rows = ar.exact(
                    table(self.weights, graph.nodes[node.args[0]])[: len(graph.values)]
                )
                return _Value(
                    0 if args[1] == "token" else None, {args[1]: (_flat(rows),)}
                )
            case "view" if kinds == [Ball]:
                return args[0].map(lambda a: a.ravel()[entries(node.attr)])
            case "view" if kinds[0] in (_Value, _Mixture):
                return self._viewed(node, args[0])
            case "add" if any(k in (_Value, _Mixture) and graph.nodes[a].shape != node.shape
                              for k, a in zip(kinds, node.args, strict=True)):  # fmt: skip
                raise Unsupported("rule compact adds values of one shape")
            case "add" if _Mixture in kinds:
                return self._on_mixture(
                    node, *sorted(args, key=lambda a: type(a) is not _Mixture)
                )
            case "add":
                return self._sum(
                    node, *sorted(args, key=lambda a: type(a) is not _Value)
                )
            case "over_root" if kinds[0] in (_Scores, _Value):
                root = ar.sqrt(ar.rational(Fraction(node.attr)))
                return args[0]._replace(
                    parts={
                        k: self._over(chain, root) for k, chain in args[0].parts.items()
                    }
                )
            case "softmax" if kinds == [_Scores] and math.prod(node.shape[:-1]) == 1:
                here = np.flatnonzero(kept(node))
                if len(here) and here[-1] == len(here) - 1:
                    return args[0], len(here)
            case "einsum":
                return self._einsum(node, args, kinds)
        raise Unsupported(f"rule compact knows no {node.op!r} of such values")

    def _over(self, chain: Chain, root: Ball) -> Chain:
        """The quotient, taken of the smallest matrix."""
        at = min(range(len(chain)), key=lambda i: chain[i].mid.size)
        return (*chain[:at], self.ar.div(chain[at], root), *chain[at + 1 :])

    def _viewed(self, node: Node, x: Any) -> Any:
        """The same entries in another order, each position's alike; other views are refused."""
        at = entries(node.attr)
        self.ar.step(at.size, 1 + at.ndim)
        if type(x) is _Mixture:
            return x._replace(
                base=self._columns(x.base, at.ravel()),
                value=self._columns(x.value, at.ravel()),
            )
        if x.axis is None:
            return x._replace(parts=self._columns(x.parts, at.ravel()))
        shape = self.graph.nodes[node.args[0]].shape
        whole = np.moveaxis(
            np.arange(math.prod(shape)).reshape(shape), x.axis, 0
        ).reshape(shape[x.axis], -1)
        for axis, size in enumerate(node.shape):
            rows = np.moveaxis(at, axis, 0).reshape(size, -1)
            columns = np.searchsorted(whole[0], rows[0])
            if (
                size == len(whole)
                and columns.max() < whole.shape[1]
                and np.array_equal(whole[:, columns], rows)
            ):
                return _Value(axis, self._columns(x.parts, columns))
        raise Unsupported(
            "rule compact needs views that keep each position's value together"
        )

    def _columns(self, parts: Parts, which: np.ndarray) -> Parts:
        """These columns of each product."""
        for *_, last in parts.values():
            reserve(len(last.mid), which.size)
            self.ar.step(len(last.mid) * which.size, 1)
        return {
            k: (*chain[:-1], chain[-1].map(lambda a: a[:, which]))
            for k, chain in parts.items()
        }

    def _sum(self, node: Node, x: Any, y: Any) -> Any:
        if type(x) is not _Value:
            raise Unsupported("rule compact adds values of tokens")
        if type(y) is _Value:
            if x.axis != y.axis:
                raise Unsupported("the query's value is added to every row")
            return _Value(x.axis, self._added(x.parts, y.parts))
        return _Value(x.axis, self._added(x.parts, self._constant(node, x.axis, y)))

    def _constant(self, node: Node, axis: int | None, y: Ball) -> Parts:
        """A weight that is added to a value: one row a position, or the same everywhere."""
        if not np.any(y.mid):
            return {}
        y = y.map(lambda a: a.reshape((1,) * (len(node.shape) - a.ndim) + a.shape))
        if axis is None:
            return {
                "fixed": (_flat(y.map(lambda a: np.broadcast_to(a, node.shape)[None])),)
            }
        y = y.map(lambda a: np.moveaxis(a, axis, 0))
        shape = node.shape[:axis] + node.shape[axis + 1 :]
        what = "fixed" if y.mid.shape[0] == 1 else "position"
        return {what: (_flat(y.map(lambda a: np.broadcast_to(a, (len(a), *shape)))),)}

    def _added(self, x: Parts, y: Parts) -> Parts:
        """Parts of one kind are added; a fixed row is added to a query's that is a table already."""
        result = dict(x)
        for what, chain in y.items():
            if what in result:
                chain = (
                    self.ar.add(
                        product(self.ar, result[what]), product(self.ar, chain)
                    ),
                )
            result[what] = chain
        if len(result.get("query", ())) == len(result.get("fixed", ())) == 1:
            result["query"] = (self.ar.add(result["query"][0], result.pop("fixed")[0]),)
        return result

    def _on_mixture(self, node: Node, x: _Mixture, y: Any) -> _Mixture:
        if type(y) is Ball:
            return x._replace(base=self._added(x.base, self._constant(node, None, y)))
        if type(y) is not _Value or y.axis is not None:
            raise Unsupported(
                "only values of the query are added to the result of attention"
            )
        return x._replace(base=self._added(x.base, y.parts))

    def _einsum(self, node: Node, args: list, types: list) -> Any:
        first, second, result = node.attr.replace("->", ",").split(",")
        sizes = [self.graph.nodes[a].shape for a in node.args]
        small = {
            c
            for t, s in zip((first, second), sizes, strict=True)
            for c, n in zip(t, s, strict=True)
            if n == 1
        }
        if types[1] is Ball and types[0] in (_Value, _Mixture):
            return self._transformed(args[0], args[1], first, second, result)
        if types[0] is Ball and types[1] in (_Value, _Mixture):
            return self._transformed(args[1], args[0], second, first, result)
        left, right, out = (
            "".join(c for c in t if c not in small) for t in (first, second, result)
        )
        if types == [_Value, _Value] and (args[0].axis is None) != (
            args[1].axis is None
        ):
            query, key, own, other = (
                (*args, left, right)
                if args[0].axis is None
                else (*args[::-1], right, left)
            )
            place = (second if args[0].axis is None else first)[key.axis]
            if (
                own == other.replace(place, "")
                and out in (place, "")
                and result[-1:] == place
            ):
                return _Scores(self._scores(query.parts, key.parts))
        if types[0] is tuple and types[1] is _Value and args[1].axis is not None:
            scores, attended = args[0]
            place = second[args[1].axis]
            if (
                first[-1] == place
                and place not in result
                and out == right.replace(place, "")
            ):
                value = dict(args[1].parts)
                fixed = (
                    {"fixed": value.pop("fixed")} if "fixed" in value else {}
                )  # its weights add up to one
                return _Mixture(attended, fixed, scores.parts, value)
        raise Unsupported(
            f"rule compact doesn't know the contraction {node.attr!r} here"
        )

    def _transformed(self, x: Any, w: Ball, term: str, other: str, result: str) -> Any:
        """A value, or a mixture, times a weight that sums all of its entries."""
        place = term[x.axis] if type(x) is _Value and x.axis is not None else ""
        if place and place not in result:
            raise Unsupported(
                "rule compact knows no sum over positions but attention's"
            )
        inside = term.replace(place, "")
        outside = result.replace(place, "")
        if (
            set(inside) & set(result)
            or not set(inside) <= set(other)
            or set(other) != set(inside) | set(outside)
        ):
            raise Unsupported(
                "rule compact needs a weight that sums all entries of a value"
            )
        order = [other.index(c) for c in inside + outside]
        rows = int(np.prod([w.mid.shape[other.index(c)] for c in inside]))
        self.ar.step(w.mid.size, 1)
        matrix = w.map(lambda a: a.transpose(order).reshape(rows, -1))
        if type(x) is _Mixture:
            base, value = (
                {k: (*c, matrix) for k, c in p.items()} for p in (x.base, x.value)
            )
            return x._replace(base=base, value=value)
        axis = None if not place else result.index(place)
        return _Value(axis, {k: (*c, matrix) for k, c in x.parts.items()})

    def _scores(self, query: Parts, key: Parts) -> dict[tuple[str, str], Chain]:
        """Products of parts; one of the query alone with a fixed row is a number added to all scores."""
        return {
            (a, b): (*x, *transposed(y))
            for a, x in query.items()
            for b, y in key.items()
            if b != "fixed"
        }


def _flat(x: Ball) -> Ball:
    return x.map(lambda a: a.reshape(len(a), -1))
