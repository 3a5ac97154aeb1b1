"""Mechanisms as folds: a layered automaton that reads the tokens in order and ends in a class.

`derive` builds, from the expression itself, the states that are reachable after each token: what is
known of every partly read operation. Nothing of it comes from the certificate. `towards` keeps what matters for
reaching one class: for a maximum, two states ("all below m so far", "m seen") whatever the vocabulary.

Lemma F2 (docs/soundness/fold.md).
"""

from typing import NamedTuple

import numpy as np

from mechverify.kernel.core.errors import Unsupported
from mechverify.kernel.core.graph import Graph
from mechverify.kernel.core.integers import FOLDS, absorb, apply, work
from mechverify.kernel.core.meter import Meter, reserve

STATE_LIMIT = 20_000  # states after any one token
TABLE_LIMIT = (
    2**24
)  # half of states times tokens times operands of one step; entries of all steps


class Automaton(NamedTuple):
    """`step[i]` [states_i, vocab] is the state after token i (-1: the token isn't in the domain there);
    `final` [states_n] is each last state's class; `classes` [n_classes, n_roots] the roots' values."""

    step: list[np.ndarray]
    final: np.ndarray
    classes: np.ndarray


class Layer(NamedTuple):
    """Transitions at one position, for the tokens that can still lead to the target. Tokens that act alike
    form a group: `groups` lists (token ids, next state or -1 for each of the `states` states)."""

    states: int
    groups: list[tuple[np.ndarray, np.ndarray]]


def derive(
    ar: Meter, graph: Graph, roots: list[int], domain: list[np.ndarray]
) -> Automaton:
    """The automaton whose classes are the values of `roots`; `domain[i]` are the token ids at position i.

    Postcondition: every sequence of the domain ends in the class of its roots' values.
    Complexity: sum over positions of states times tokens. Raises Unsupported past the limits above.
    """
    reader = _Reader(graph, roots)
    state, step = np.zeros((1, 0), np.int64), []
    for position, tokens in enumerate(domain):
        entries = len(state) * len(tokens) * reader.edges
        if (
            len(state) > STATE_LIMIT
            or max(entries // 2, sum(t.size for t in step)) > TABLE_LIMIT
        ):
            raise Unsupported(
                f"the mechanism is not a short fold: {len(state)} states after {position} tokens (limit {STATE_LIMIT})"
            )
        ar.step(2 * entries, 2 * reader.edges)
        ar.step(len(state) * len(tokens) * reader.sorted(position), 0, 1)
        reserve(len(state), len(graph.values))
        table = np.full((len(state), len(graph.values)), -1, np.int32)
        rows = reader.read(state, position, tokens)
        state, index = unique_rows(
            rows.reshape(len(state) * len(tokens), rows.shape[-1])
        )
        table[:, tokens] = index.reshape(rows.shape[:2])
        step.append(table)
    classes, final = np.unique(reader.results(state), axis=0, return_inverse=True)
    return Automaton(step, final.reshape(-1), classes)


class _Reader:
    """Which node values a state must hold after each token, and how reading a token updates them.

    A node is done once all its tokens are read. A done node's value is held while an unfinished parent
    that is no fold, or a root, still needs it; an unfinished fold holds the state of its done operands.
    """

    def __init__(self, graph: Graph, roots: list[int]):
        self.graph, self.roots = graph, roots
        self.order = graph.ancestors(roots)
        self.support: dict[int, int] = {}  # bit i: depends on token i
        self.edges = sum(
            8 + len(graph.nodes[n].args) for n in self.order
        )  # a node holds up to 8 columns
        self.parents: dict[int, list[int]] = {n: [] for n in self.order}
        for n in self.order:
            node = graph.nodes[n]
            self.support[n] = 1 << node.attr if node.op == "value" else 0
            for a in set(node.args):
                self.support[n] |= self.support[a]
                self.parents[a].append(n)
        self.fixed: dict[int, np.ndarray] = {}  # constants
        for n in (n for n in self.order if not self.support[n]):
            self.fixed[n] = self._apply(n, self.fixed)
        self.layout: list[
            tuple[str, int, int]
        ] = []  # (what, node, width): the columns of the state

    def _apply(
        self, n: int, value: dict[int, np.ndarray], tokens: np.ndarray | None = None
    ) -> np.ndarray:
        node, values = self.graph.nodes[n], self.graph.meanings
        return apply(
            node.op,
            node.attr,
            [value[a] for a in node.args],
            lambda _: values[tokens][None, :],
        )

    def _done(self, node: int, read: int) -> bool:
        return self.support[node] & ~((1 << read) - 1) == 0

    def _fresh(self, n: int, position: int) -> list[int]:
        """The operands that are done with the token at `position`."""
        done = [a for a in self.graph.nodes[n].args if self._done(a, position + 1)]
        return [a for a in done if not (position and self._done(a, position))]

    def sorted(self, position: int) -> int:
        """Units of work for each row, beside those of `edges`."""
        nodes = self.graph.nodes
        return sum(
            work(nodes[n].op, nodes[n].attr, len(self._fresh(n, position)))[0]
            for n in self.order
        )

    def read(self, state: np.ndarray, position: int, tokens: np.ndarray) -> np.ndarray:
        """State rows [states, columns] to the next ones [states, tokens, columns']."""
        held, column = {}, 0
        for what, node, width in self.layout:
            part = state[:, None, column : column + width]
            held[what, node] = part if what == "fold" else part[..., 0]
            column += width
        value = {n: held.get(("value", n), self.fixed.get(n)) for n in self.order}
        folds: dict[int, np.ndarray] = {}
        for n in self.order:
            node, done = self.graph.nodes[n], self._done(n, position + 1)
            if self._done(n, position):
                continue
            if node.op not in FOLDS:
                if done:
                    value[n] = self._apply(n, value, tokens)
                continue
            fresh = self._fresh(n, position)
            known = held.get(("fold", n))
            if fresh or known is not None:
                folds[n] = absorb(node.op, node.attr, known, [value[a] for a in fresh])
                if done:
                    value[n] = folds[n][..., -1]
        self.layout, columns, shape = [], [], (len(state), len(tokens))
        for n in self.order:
            done = self._done(n, position + 1)
            if n in self.fixed:
                continue
            if done and self._needed(n, position + 1):
                self.layout.append(("value", n, 1))
                columns.append(np.broadcast_to(value[n], shape)[..., None])
            elif not done and n in folds:
                self.layout.append(("fold", n, folds[n].shape[-1]))
                columns.append(np.broadcast_to(folds[n], (*shape, folds[n].shape[-1])))
        return (
            np.concatenate(columns, -1) if columns else np.zeros((*shape, 0), np.int64)
        )

    def _needed(self, node: int, read: int) -> bool:
        waiting = (p for p in self.parents[node] if not self._done(p, read))
        return node in self.roots or any(
            self.graph.nodes[p].op not in FOLDS for p in waiting
        )

    def results(self, state: np.ndarray) -> np.ndarray:
        """The roots' values [states, n_roots] once every token is read."""
        column = {node: state[:, i] for i, (_, node, _) in enumerate(self.layout)}
        values = [column[r] if r in column else self.fixed[r] for r in self.roots]
        return np.stack([np.broadcast_to(v, len(state)) for v in values], -1)


def towards(ar: Meter, automaton: Automaton, target: int | np.ndarray) -> list[Layer]:
    """The smallest layered automaton that accepts exactly the sequences ending in class `target`, or in one of several.

    States with the same future are merged (a layered automaton has a unique minimum, found from the
    end); transitions that can't reach the target are dropped. Complexity: that of sorting the tables.
    """
    label = np.where(np.isin(automaton.final, target), 0, -1)
    layers: list[Layer] = []
    for table in reversed(automaton.step):
        ar.step(table.size, 10)
        rows = np.where(table >= 0, label[table], -1).astype(np.int32)
        alive = (rows >= 0).any(1)
        quotient, index = unique_rows(rows[alive])
        label = np.full(len(rows), -1)
        label[alive] = index
        tokens = np.flatnonzero((quotient >= 0).any(0))
        columns, group = unique_rows(quotient[:, tokens].T)
        layers.append(
            Layer(
                len(quotient),
                [(tokens[group == g], column) for g, column in enumerate(columns)],
            )
        )
    return layers[::-1]


def unique_rows(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """np.unique over rows of integers; comparing them as bytes is much faster and just as exact."""
    if not rows.shape[1]:  # rows without columns are all alike
        return rows[:1], np.zeros(len(rows), np.int64)
    as_bytes = (
        np.ascontiguousarray(rows).view(f"V{rows.shape[1] * rows.itemsize}").ravel()
    )
    _, first, index = np.unique(as_bytes, return_index=True, return_inverse=True)
    return rows[first], index.reshape(-1)
