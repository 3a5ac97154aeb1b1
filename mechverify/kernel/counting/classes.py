"""The classes of a mechanism: a domain, cut by its value, and those of further mechanisms.

Lemmas F2 (docs/soundness/fold.md), S2 (docs/soundness/shares.md).
"""

from collections.abc import Sequence

import numpy as np

from mechverify.kernel.core.claim import Job
from mechverify.kernel.core.domain import Domain
from mechverify.kernel.core.errors import Rejected
from mechverify.kernel.core.fields import Reader
from mechverify.kernel.core.graph import Graph
from mechverify.kernel.core.mechanism import add_expression
from mechverify.kernel.counting.automaton import derive, towards
from mechverify.kernel.counting.recursion import completions


class Classes:
    """`keys` lists the classes' values, of the claim's mechanism and of the expressions that are given, for inputs that
    satisfy the claim's guard; `places` where they stand in `automaton`. Of the other inputs there is only the number,
    `unguarded`."""

    def __init__(
        self,
        job: Job,
        domain: Domain,
        keys: Sequence[Reader],
        known: tuple[int, int] | None = None,
        conditions: Sequence[int] | None = None,
    ):
        """`known`: a position and the one token that the domain has there, which then counts as read before all others.
        `conditions`: of those that the guard asks for, the numbers of the ones that are kept; what satisfies them
        counts as satisfying the guard (None: the guard as it is)."""
        self.job, self.ar, self.domain = job, job.ar, domain
        claim, graph = job.claim, job.further()
        roots = [claim.target, *(add_expression(graph, key) for key in keys)]
        if claim.guarded:
            roots.append(_kept(graph, claim.guard, conditions))
        elif conditions:
            raise Rejected("a claim without a guard has no conditions")
        if known is not None:
            roots = with_token(graph, roots, *known)
        self.automaton = derive(
            self.ar, graph, roots, [np.array(t) for t in domain.tokens]
        )
        values = self.automaton.classes
        inside = values[:, -1] == 1 if claim.guarded else np.ones(len(values), bool)
        self.places = {
            tuple(values[i, : 1 + len(keys)].tolist()): i
            for i in np.flatnonzero(inside).tolist()
        }
        self.keys = list(self.places)
        self.unguarded = 0 if inside.all() else self._size(np.flatnonzero(~inside))

    def _size(self, classes: np.ndarray) -> int:
        """How many inputs end in one of these classes."""
        layers = towards(self.ar, self.automaton, classes)
        return completions(self.ar, layers)[0][0]


def conditions_of(graph: Graph, guard: int) -> list[int]:
    """What a guard asks for at once: it is 1 where all of these are."""
    found, todo = [], [guard]
    while todo:
        node = todo.pop()
        if graph.nodes[node].op == "and":
            todo += reversed(graph.nodes[node].args)
        else:
            found.append(node)
    return found


def _kept(graph: Graph, guard: int, conditions: Sequence[int] | None) -> int:
    """A guard that asks for no more than those conditions, by their numbers."""
    if conditions is None:
        return guard
    asked = conditions_of(graph, guard)
    if not all(0 <= i < len(asked) for i in conditions):
        raise Rejected(
            f"the guard has {len(asked)} conditions, not {[*conditions]!s:.100}"
        )
    zero = graph.add("integer", attr=0)
    always = graph.add("eq", zero, zero)
    return graph.add("and", always, *(asked[i] for i in conditions))


def with_token(graph: Graph, roots: list[int], position: int, token: int) -> list[int]:
    """Nodes of equal values where the token at a position is that one."""
    new: dict[int, int] = {}
    for n in graph.ancestors(roots):
        node = graph.nodes[n]
        if node.op == "value" and node.attr == position:
            new[n] = graph.add("integer", attr=int(graph.values[token]))
        else:
            new[n] = graph.add(node.op, *(new[a] for a in node.args), attr=node.attr)
    return [new[r] for r in roots]
