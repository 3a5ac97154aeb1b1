"""The user's own case split: which of the claim's `cases` to tell apart next in a cell.

A condition on one token splits that position's tokens; a linear one of a single entry (`total[0] <= 3`) splits the
values of that entry, so that many thresholds on one entry are bisected; any other splits at its own sign.
"""

from itertools import groupby
from math import prod
from typing import Any, NamedTuple

import numpy as np

from mechverify.kernel.core.domain import Domain
from mechverify.kernel.core.graph import Graph, Node, entries
from mechverify.provers.ranges.names import Entry
from mechverify.provers.ranges.problem import RangeProblem


class Case(NamedTuple):
    """The `key` of what is split: ("position", p), ("coordinate", c) or ("node", n, entry); where: a set of tokens, or
    a number; and what a certificate calls an entry of a node."""

    key: tuple
    at: Any
    called: Entry | None = None

    def splits(self, part: Domain) -> bool:
        """The part may hold inputs on both sides."""
        kind, *place = self.key
        if kind == "position":
            here = set(part.tokens[place[0]])
            return bool(here & self.at) and not here <= self.at
        if kind == "coordinate":
            return bool(part.low[place[0]] < self.at < part.high[place[0]])
        known = [
            (at, above) for n, entry, at, above in part.facts if [n, entry] == place
        ]
        return all((at < self.at) if above else (self.at < at) for at, above in known)

    def halves(self, part: Domain) -> tuple[tuple[Domain, Domain], dict]:
        """The two sides, and how a certificate tells the split."""
        kind, *place = self.key
        if kind == "position":
            first = [t for t in part.tokens[place[0]] if t in self.at]
            return part.split(place[0], set(first)), {
                "position": place[0],
                "first": first,
            }
        if kind == "coordinate":
            return part.cut(place[0], self.at), {
                "coordinate": place[0],
                "at": self.at.hex(),
            }
        assert self.called is not None
        return self.called.halves(part, self.at)


def cases(problem: RangeProblem) -> list[list[Case]]:
    """In the user's order; neighbours that split the same thing together."""
    rewriting, found = problem.rewriting, []
    for n in rewriting.roots.conditions[len(problem.claim.where) :]:
        for entry in range(prod(rewriting.graph.nodes[n].shape)):
            found.append(_of_token(problem, n) or _threshold(problem, n, entry))
    return [
        list(group)
        for _, group in groupby(filter(None, found), key=lambda case: case.key)
    ]


def following(groups: list[list[Case]], part: Domain) -> Case | None:
    """The next case to tell apart: of the first group that still splits the part, the one in the middle."""
    for group in groups:
        if some := [case for case in group if case.splits(part)]:
            if some[0].key[0] == "position":
                here = len(part.tokens[some[0].key[1]])
                return min(
                    some,
                    key=lambda c: abs(
                        2 * len(c.at & set(part.tokens[c.key[1]])) - here
                    ),
                )
            return sorted(some, key=lambda c: c.at)[len(some) // 2]
    return None


def _of_token(problem: RangeProblem, n: int) -> Case | None:
    """A condition on one token, as the tokens that satisfy it."""
    tables, graph, roots = (
        problem.rewriting.tables,
        problem.rewriting.graph,
        problem.rewriting.roots,
    )
    if tables is None:
        return None
    m = next((m for m in tables.of if roots.of[m] == n), None)
    if m is None or prod(graph.nodes[n].shape) != 1 or tables.of[m].reads.sum() != 1:
        return None
    position = int(tables.of[m].reads[0].argmax())
    at = tables.rows.ids[:, position]
    rows = tables.rows.known[:, position] & (tables.of[m].low[:, 0] >= 0)
    return Case(("position", position), frozenset(at[rows].tolist()))


def _threshold(problem: RangeProblem, n: int, entry: int) -> Case | None:
    """Where the sign of scale * value + offset changes, through additions and products with constants; None for what
    a certificate has no name."""
    graph, shapes = problem.rewriting.graph, problem.claim.shapes
    condition, scale, offset = (n, entry), 1.0, 0.0
    while True:
        node = graph.nodes[n]
        if node.op == "view":
            n, entry = node.args[0], _viewed(node, entry)
            continue
        numbers = (
            [_constant(graph, a, entry) for a in node.args]
            if node.op in ("add", "sub", "mul")
            else []
        )
        if len(numbers) != 2 or numbers.count(None) != 1:
            break
        side = numbers.index(None)
        number = numbers[1 - side] or 0.0
        if node.op == "mul":
            scale *= number
        else:
            offset += scale * (number if node.op == "add" or side == 1 else -number)
            scale = -scale if node.op == "sub" and side == 1 else scale
        n = node.args[side]
    at = -offset / scale if scale else 0.0
    linear = (n, entry) != condition and scale != 0 and bool(np.isfinite(at))
    if linear and graph.nodes[n].op == "input":
        return Case(
            ("coordinate", sum(map(prod, shapes[: graph.nodes[n].attr[0]])) + entry), at
        )
    if linear and (called := problem.called.entry(n, entry)) is not None:
        return Case(("node", n, entry), at, called)
    called = problem.called.entry(*condition)
    return None if called is None else Case(("node", *condition), 0.0, called)


def _constant(graph: Graph, n: int, entry: int) -> float | None:
    """The value of an entry that is written down as a number; operands have the shape of the result."""
    node = graph.nodes[n]
    if node.op == "view":
        return _constant(graph, node.args[0], _viewed(node, entry))
    return float(node.attr[1][entry]) if node.op == "constant" else None


def _viewed(node: Node, entry: int) -> int:
    """Which entry of its operand an entry of a view is."""
    return int(entries(node.attr).ravel()[entry])
