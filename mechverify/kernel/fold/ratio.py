"""Dependency analysis: write an output as a ratio of sums of one-token terms.

Most values of a one-layer model depend on few tokens, so they are tables: those that the graph reads by
themselves (the query's, "pinned"), and, row by row, the token of that row. One application of attention to such
rows is

    sum_i e^(s_i) u_i / sum_i e^(s_i),

s_i and u_i depending on the pinned token and on the token at position i, and linear operations keep that form. A layer
of ReLU neurons that read such values is kept as it is: the output is such a form plus multiples of the neurons.
This is what papers derive by hand for a one-layer model (EQKE, EVOU, EU).

Lemma F1 (docs/soundness/fold.md).
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from mechverify.kernel.core.arithmetic import Ball
from mechverify.kernel.core.errors import Unsupported
from mechverify.kernel.core.evaluate import Evaluation
from mechverify.kernel.core.graph import Graph, Node
from mechverify.kernel.core.meter import reserve
from mechverify.kernel.core.operations.contraction import products
from mechverify.kernel.core.operations.softmax import kept
from mechverify.kernel.core.semantics import Real
from mechverify.kernel.counting.owners import NONE, Owners, owners, query
from mechverify.kernel.fold.factors import MOVED, Neurons

SORTED = 100  # and for an entry of a pattern that is put in the order of positions


class RatioForm(NamedTuple):
    """With q the token at position `pin`: output = base[q] + sum_i e^(s_i) u_i / sum_i e^(s_i), s = score[q, x_i, i]
    and u = value[q, x_i, i], over the positions i < `attended`. Shapes: base [q or 1, 1, *shape], score [q or 1,
    vocab, attended], value [q or 1, vocab, attended, *shape]."""

    pin: int
    attended: int
    base: Ball
    score: Ball
    value: Ball
    neurons: Neurons | None


class _Table(NamedTuple):
    """A value that is read off a table; `owners` as in owners.py."""

    value: Ball
    owners: Owners


class _Pattern(NamedTuple):
    """Entries of one row of attention: `at`, integers of the node's shape, which entry of softmax `node` each is."""

    node: int
    at: np.ndarray


class _Mixture(NamedTuple):
    """A value as in RatioForm, `attention` being its softmax's number; `neurons` are the coefficients there."""

    attention: int
    base: Ball
    value: Ball
    neurons: Ball | None


class _Scores(NamedTuple):
    """Of a row of attention: `order` are its entries, that of position i the i-th."""

    order: np.ndarray
    score: Ball


def ratio_form(
    graph: Graph, weights: dict[str, np.ndarray], semantics: Real, output: int
) -> RatioForm:
    """The ratio form of node `output`, with every table enclosed under `semantics`.

    Precondition: none (Unsupported says what stands in the way). Postcondition: for every input and every
    evaluation that it speaks of, the output has the form above for reals within the balls.
    Complexity: one evaluation of the graph on vocab^2 inputs, row by row.
    """
    order = graph.ancestors([output])
    pin = query(graph, order)
    analysis, found = Analysis(graph, weights, semantics), {}
    for n in order:
        node = graph.nodes[n]
        found[n] = analysis.read(n, node, [found[a] for a in node.args])
    result = found[output]
    if type(result) is not _Mixture:
        raise Unsupported("the output doesn't go through attention")
    score, neurons = analysis.scores[result.attention].score, analysis.neurons
    if pin >= score.mid.shape[-1]:
        raise Unsupported("attention leaves out the query's own position")
    read = None
    if result.neurons is not None:
        assert neurons is not None  # whose coefficient it is
        read = neurons._replace(coefficient=result.neurons)
    return RatioForm(pin, score.mid.shape[-1], result.base, score, result.value, read)


class Analysis:
    """`scores` of the rows of attention, by the softmax's number; `neurons`, once they are met, with the identity as
    coefficients."""

    def __init__(self, graph: Graph, weights: dict[str, np.ndarray], semantics: Real):
        self.graph, self.semantics, self.vocab = graph, semantics, len(graph.values)
        ids = np.arange(self.vocab)
        free = np.broadcast_to(ids[None, :, None], (1, self.vocab, graph.length))
        self.tables = Evaluation(
            graph, weights, semantics, free, lambda _: ids[:, None]
        )
        self.rows: dict[int, _Table] = {}  # the scores of each row of attention
        self.scores: dict[int, _Scores] = {}
        self.neurons: Neurons | None = None

    def read(self, n: int, node: Node, args: list[Any]) -> Any:
        kinds = {type(a) for a in args}
        if (
            node.op == "softmax"
            and kinds == {_Table}
            and math.prod(node.shape[:-1]) == 1
        ):
            self.rows[n] = args[0]
            return _Pattern(n, np.arange(node.shape[-1]).reshape(node.shape))
        if _Pattern in kinds:
            return self._of_pattern(node, args)
        if node.op == "relu" and kinds == {_Mixture}:
            from mechverify.kernel.fold.hidden import neurons

            return neurons(self, node, args[0])
        if _Mixture in kinds:
            return self._linear(node, args)
        self.semantics.ar.step(math.prod(node.shape), 1, 1)
        return _Table(
            self.tables[n], owners(self.graph, node, [a.owners for a in args])
        )

    def _of_pattern(self, node: Node, args: list[Any]) -> Any:
        if node.op in ("view", "select"):
            from mechverify.kernel.fold.captured import moved

            return args[0]._replace(at=moved(node)(args[0].at, 0))
        if node.op != "einsum" or [type(a) for a in args].count(_Table) != 1:
            raise Unsupported(
                "an attention pattern is used for something else than attending"
            )
        return self._attend(node, *_operands(node, args, _Pattern))

    def _attend(
        self,
        node: Node,
        pattern: _Pattern,
        values: _Table,
        first: str,
        second: str,
        result: str,
    ) -> _Mixture:
        """pattern [.., i] times values over i: its ratio. All other letters of the pattern have one index."""
        sizes = {
            c: size
            for c, size in zip(first, pattern.at.shape, strict=True)
            if c not in result
        }
        term = max(sizes, key=lambda c: sizes[c], default="")
        if pattern.at.size != sizes.get(term, 0):
            raise Unsupported(
                f"attention applied as {node.attr!r} is not a sum over positions"
            )
        ones = [c for c in result if c not in second]  # letters of the pattern alone
        letters = second + "".join(ones)
        alone = [
            c for c in second if c not in result and c != term
        ]  # summed, and of one index
        order = [letters.index(c) for c in (term, *result, *alone)]

        def placed(a: np.ndarray) -> np.ndarray:
            """[.., term, *result]"""
            lead = a.ndim - len(second)
            a = a.reshape(*a.shape, *(1,) * len(ones)).transpose(
                [*range(lead), *(lead + i for i in order)]
            )
            return a.reshape(*a.shape[: lead + 1 + len(result)])

        at = pattern.at.ravel()
        scores = self._scores(
            node, pattern.node, at, placed(values.owners).reshape(len(at), -1)
        )
        entry = np.argsort(at)[
            np.searchsorted(np.sort(at), scores.order)
        ]  # of the term, by position
        moved = len(values.value.mid), self.vocab, len(entry), *node.shape
        reserve(*moved)
        self.semantics.ar.step(math.prod(moved), 1, MOVED)
        value = self._wide(values.value.map(lambda a: placed(a)[:, :, entry]))
        zero = self.semantics.ar.whole(np.zeros((1, 1, *node.shape), np.int64))
        rows = self.graph.nodes[pattern.node].shape[-1]
        return _Mixture(pattern.node, zero, self.semantics.attended(value, rows), None)

    def _scores(
        self, node: Node, softmax: int, at: np.ndarray, values: Owners
    ) -> _Scores:
        """Which entry of the row reads which position, and the scores in that order. `at`: the row's entry of each term
        of the sum; `values` [terms, entries] are the owners of what it is multiplied by."""
        scores, row = self.rows[softmax], self.graph.nodes[softmax]
        self.semantics.ar.step(row.shape[-1] + values.size, 1, SORTED)
        here = np.flatnonzero(np.broadcast_to(kept(row), row.shape).ravel())
        if len({*at.tolist()}) != len(at):
            raise Unsupported(
                f"attention applied as {node.attr!r} reads an entry of its pattern twice"
            )
        owned = np.concatenate([scores.owners.reshape(-1, 1)[at], values], 1)
        position = np.full(
            row.shape[-1], NONE
        )  # of what the mask keeps and no term reads, and refused below
        position[at] = owned.max(1)
        known = (owned == NONE) | (owned == owned.max(1, keepdims=True))
        order = here[np.argsort(position[here])]
        if not known[np.isin(at, here)].all() or not np.array_equal(
            position[order], np.arange(len(order))
        ):
            raise Unsupported(
                "the attention's terms don't each depend on one token of their own, from the first on"
            )
        if softmax not in self.scores:
            score = self._wide(
                scores.value.map(lambda a: a.reshape(*a.shape[:2], -1)[..., order])
            )
            self.scores[softmax] = _Scores(order, self.semantics.scores(score, (1, 2)))
        if not np.array_equal(self.scores[softmax].order, order):
            raise Unsupported(
                "one attention pattern reads values of different positions"
            )
        return self.scores[softmax]

    def _wide(self, x: Ball) -> Ball:
        """With the axis of the free token, which a constant lacks."""
        return x.map(
            lambda a: np.broadcast_to(a, (a.shape[0], self.vocab, *a.shape[2:]))
        )

    def _linear(self, node: Node, args: list[Any]) -> _Mixture:
        """A linear operation: of one mixture; of two, and of one and a table of the query's token alone. A rounding
        error is a factor of the whole, so that each part may bear it."""
        if any(type(a) is _Table and (a.owners != NONE).any() for a in args):
            raise Unsupported(
                f"{node.op!r} joins the result of attention and a value that reads other tokens"
            )
        self._reserve(node, args)
        if node.op == "add":
            return self.sum(node, *args)
        if node.op == "einsum" and [type(a) for a in args].count(_Mixture) == 1:
            return self._product(node, args)
        from mechverify.kernel.fold import captured  # operations of other graphs

        return captured.linear(self, node, args)

    def _reserve(self, node: Node, args: list[Any]) -> None:
        """Room for the result's parts."""
        factors = [
            a.value.mid.shape[:2]
            for a in args
            if type(a) is _Table and node.op in ("einsum", "mul")
        ]
        for part in (
            part
            for a in args
            if type(a) is _Mixture
            for part in (a.value, a.neurons)
            if part is not None
        ):
            sizes = (
                *np.broadcast_shapes(part.mid.shape[:2], *factors),
                part.mid.shape[2],
                *node.shape,
            )
            reserve(*sizes)

    def each(
        self, x: _Mixture, move: Callable[[np.ndarray, int], np.ndarray]
    ) -> _Mixture:
        """Entries moved, alike in all parts; `move` gets how many axes come before those of the value."""
        return self.parts(x, lambda ball, lead: ball.map(lambda a: move(a, lead)))

    def parts(self, x: _Mixture, change: Callable[[Ball, int], Ball]) -> _Mixture:
        neurons = None if x.neurons is None else change(x.neurons, 3)
        return _Mixture(x.attention, change(x.base, 2), change(x.value, 3), neurons)

    def spread(self, node: Node, x: _Mixture) -> _Mixture:
        """Broadcast on the right."""

        def wide(a: np.ndarray, lead: int) -> np.ndarray:
            missing = len(node.shape) + lead - a.ndim
            a = a.reshape(*a.shape[:lead], *(1,) * missing, *a.shape[lead:])
            return np.broadcast_to(a, (*a.shape[:lead], *node.shape))

        return self.each(x, wide)

    def sum(self, node: Node, x: Any, y: Any) -> _Mixture:
        semantics, sums = self.semantics, products(self.graph, node)
        if type(x) is not _Mixture:
            x, y, sums = y, x, sums[::-1]
        x = self.spread(node, x)
        if type(y) is _Mixture:
            y = self.spread(node, y)
            if y.attention != x.attention:
                raise Unsupported("two applications of attention are added")
            base, value = (
                semantics.add(a, b, sums)
                for a, b in ((x.base, y.base), (x.value, y.value))
            )
            neurons = _added(semantics, x.neurons, y.neurons, sums)
        else:
            table = self.tables.align(y.value, len(node.shape))
            base, value = (
                semantics.add(x.base, table, sums),
                semantics.alone(x.value, sums[1]),
            )
            neurons = _added(semantics, x.neurons, None, sums)
        return _Mixture(x.attention, base, value, neurons)

    def _product(self, node: Node, args: list[Any]) -> _Mixture:
        """A contraction with a factor that the query decides."""
        x, y, first, second, result = _operands(node, args, _Mixture)
        how, factor = f"{first},{second}->{result}", y.value
        wider = factor.map(lambda a: a[:, :, None])
        return self.parts(
            x,
            lambda a, lead: self.semantics.contract(
                how, a, factor if lead == 2 else wider
            ),
        )


def _operands(node: Node, args: list[Any], kind: type) -> tuple:
    """Of a contraction: the operand of that kind and the other, their letters, and the result's."""
    first, second, result = node.attr.replace("->", ",").split(",")
    x, y = args
    return (
        (x, y, first, second, result)
        if type(x) is kind
        else (y, x, second, first, result)
    )


def _added(
    semantics: Real, x: Ball | None, y: Ball | None, sums: tuple[int, ...]
) -> Ball | None:
    """A part of a sum (see Real.add); None is zero."""
    if x is not None and y is not None:
        return semantics.add(x, y, sums)
    if x is not None:
        return semantics.alone(x, sums[1])
    return None if y is None else semantics.alone(y, sums[0])
