"""Guards whose conditions are about different positions: each part of them is counted by itself.

Of pairs of tokens that are equal, a palindrome's, no automaton of a few states knows all that are still to be matched.

Lemma S2 (docs/soundness/shares.md).
"""

from math import prod
from typing import NamedTuple

from mechverify.kernel.core.domain import Domain
from mechverify.kernel.core.errors import Unsupported
from mechverify.kernel.core.graph import Graph
from mechverify.kernel.core.loading import late
from mechverify.kernel.core.meter import Meter


class Part(NamedTuple):
    """Positions, ascending, and a guard that reads these alone, of a graph for sequences of their tokens."""

    positions: list[int]
    graph: Graph
    guard: int

    def domain(self, whole: Domain) -> Domain:
        """The tokens at its positions; of a part that reads none, one sequence of one token."""
        tokens = [whole.tokens[i] for i in self.positions] or [whole.tokens[0][:1]]
        return Domain(tuple(tokens))


def counted(meter: Meter, graph: Graph, guard: int, domain: Domain) -> int:
    """The number of inputs that satisfy the guard, from those of its parts, or of the parts of its negation. Raises
    Unsupported where neither has two. Complexity: that of counting the parts."""
    if found := parts(meter, graph, guard):
        return _together(meter, found, domain)
    if found := parts(meter, graph, guard, False):
        return domain.size - _together(meter, found, domain)
    raise Unsupported("the conditions have positions in common")


def parts(meter: Meter, graph: Graph, guard: int, true: bool = True) -> list[Part]:
    """Guards that read no position in common and hold together exactly where the guard is `true`, or is false; none
    where that would be one alone."""
    meter.step(len(graph.nodes), 1)
    graph, groups = graph.copy(meter), list[tuple[set[int], list[int]]]()
    for condition in _asked(graph, guard, true):
        above = graph.ancestors([condition])
        meter.step(len(above) + len(groups), 1)
        read = {graph.nodes[n].attr for n in above if graph.nodes[n].op == "value"}
        met = [group for group in groups if group[0] & read]
        groups = [group for group in groups if not group[0] & read]
        conditions = [c for _, others in met for c in others] + [condition]
        groups.append((read.union(*(positions for positions, _ in met)), conditions))
    if len(groups) < 2:
        return []
    return [_part(meter, graph, sorted(read), nodes) for read, nodes in groups]


def _part(meter: Meter, graph: Graph, read: list[int], conditions: list[int]) -> Part:
    """Conditions that read those positions, all of them at once."""
    own, new = Graph(max(1, len(read)), graph.values, meter), dict[int, int]()
    place = {position: i for i, position in enumerate(read)}
    for n in graph.ancestors(conditions):
        node = graph.nodes[n]
        attr = place[node.attr] if node.op == "value" else node.attr
        new[n] = own.add(node.op, *(new[a] for a in node.args), attr=attr)
    return Part(read, own, own.add("and", *(new[n] for n in conditions)))


def _together(meter: Meter, found: list[Part], domain: Domain) -> int:
    size, read = late("counting.guard").size, {i for p in found for i in p.positions}
    free = [len(ids) for i, ids in enumerate(domain.tokens) if i not in read]
    each = [size(meter, p.graph, p.guard, p.domain(domain)) for p in found]
    return prod(free) * prod(each)


def _asked(graph: Graph, guard: int, true: bool) -> list[int]:
    """Conditions that are all 1 exactly where the guard is 1, or, of one that isn't to be `true`, 0."""
    found: dict[int, None] = {}
    todo, seen = [(guard, true)], {(guard, true)}
    while todo:
        node, value = todo.pop()
        op, operands = graph.nodes[node].op, graph.nodes[node].args
        graph.meter.step(1 + len(operands), 1)
        if op == "not":
            following = [(operands[0], not value)]
        elif op == ("and" if value else "or"):
            following = [(a, value) for a in reversed(operands)]
        else:
            found[node if value else graph.add("not", node)] = None
            continue
        todo += [row for row in following if row not in seen]
        seen.update(following)
    return [*found]
