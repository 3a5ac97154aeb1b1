"""Rule `differences`: bounds of an output that holds differences of two runs, in terms of their operands' differences.

Where the graph takes x - y, and both are made in the same way, the difference is made anew from those of their
operands: of W a - V b, V (a - b) and (W - V) a; of f(a) - f(b), a slope of f times a - b. All of it is equal for every
input, so that a proof of the new graph's output is one of the old.

Lemmas D2, D4 (docs/soundness/differences.md).
"""

from collections.abc import Callable
from dataclasses import replace
from math import prod

from mechverify.kernel.core.claim import Job
from mechverify.kernel.core.domain import Domain
from mechverify.kernel.core.errors import Rejected
from mechverify.kernel.core.fields import Reader
from mechverify.kernel.core.graph import Graph, Node
from mechverify.kernel.core.operations import is_function
from mechverify.kernel.core.ranges import Range
from mechverify.kernel.core.semantics import Real

LETTERS = "abcdefgh"  # axes before the last one
FIXED = ("weight", "constant", "pi")
MOVED = ("view", "select", "over_root")
Pair = tuple[int, int]


def check(
    job: Job, part: Domain, witness: Reader, prove: Callable
) -> tuple[Range, dict[str, int]]:
    """Precondition: nothing but its box and tokens is known of the part. Postcondition: every entry of the output is in
    the range, everywhere in the part. Complexity: that of the proof."""
    found, used = prove(jointly(job, part), [(part, witness["proof"])])
    witness.close()
    return found, used


def jointly(job: Job, part: Domain) -> Job:
    """About the output on that part, in a graph where differences of what is made alike are made from differences."""
    if part.facts:
        raise Rejected("joint bounds stand above splits at a model's values")
    if type(job.semantics) is not Real:
        raise Rejected("joint bounds are for semantics real")
    graph = job.further()
    differences, new, listed = Differences(graph), {}, len(graph.nodes)
    for n in graph.ancestors([job.claim.output]):
        node = graph.nodes[n]
        args = [new[a] for a in node.args]
        if (least := _least(graph, n)) is not None:
            x, y = (new[a] for a in least)
            more = graph.add("relu", differences.of(x, y))
            new[n] = graph.add("extremum", graph.add("sub", x, more), attr="min")
        elif (
            node.op == "sub"
            and node.shape == graph.nodes[args[0]].shape == graph.nodes[args[1]].shape
        ):
            new[n] = differences.of(args[0], args[1])
        else:
            new[n] = graph.add(node.op, *args, attr=node.attr)
    output = new[job.claim.output]
    if output == job.claim.output:
        raise Rejected("the output holds no difference of values that are made alike")
    graph.listed = [*graph.listed, *range(listed, len(graph.nodes))]
    return job.about(replace(job.claim, graph=graph, output=output, domain=part))


def _least(graph: Graph, n: int) -> Pair | None:
    """x and y of one shape, if node n is the minimum of their smallest entries: x_i - relu(x_i - y_i) of the smallest
    x_i and y_i. It is the smallest entry of the minima of x and y in pairs."""
    nodes, node = graph.nodes, graph.nodes[n]
    if node.op != "sub" or nodes[node.args[1]].op != "relu":
        return None
    first, (apart,) = node.args[0], nodes[node.args[1]].args
    if nodes[apart].op != "sub" or nodes[apart].args[0] != first:
        return None
    both = [nodes[m] for m in nodes[apart].args]
    x, y = (m.args[0] if (m.op, m.attr) == ("extremum", "min") else -1 for m in both)
    return None if -1 in (x, y) or nodes[x].shape != nodes[y].shape else (x, y)


class Differences:
    """Adds to a graph nodes with the values of differences x - y, made from those of operands: `made`, by x and y; None
    where both are one node."""

    def __init__(self, graph: Graph):
        self.graph = graph
        self.made: dict[Pair, int | None] = {}
        self.fixed: list[bool] = []  # of each node

    def of(self, x: int, y: int) -> int:
        """A node of equal value as x - y."""
        self._make((x, y))
        made = self.made[x, y]
        return self._zero(self.graph.nodes[x].shape) if made is None else made

    def _make(self, root: Pair) -> None:
        """One pair after another, operands first, without recursion: a file chooses how deep its graph is."""
        path = [root]
        while path:
            pair = path[-1]
            missing = [p for p in self._operands(pair) if p not in self.made]
            self.graph.meter.step(1 + len(missing), 1)
            if pair in self.made or not missing:
                path.pop()
                if pair not in self.made:
                    self.made[pair] = self._difference(*pair)
            else:
                path += missing

    def _operands(self, pair: Pair) -> list[Pair]:
        """Those of operands that a pair's difference is made from; none where it is taken as it is."""
        x, y = (self.graph.nodes[n] for n in pair)
        alike = (
            pair[0] != pair[1]
            and (x.op, x.attr, x.shape) == (y.op, y.attr, y.shape)
            and not all(map(self._fixed, pair))
            and (
                x.op in (*MOVED, "add", "sub", "mul", "einsum", "concat", "softmax")
                or is_function(x)
            )
        )
        operands = (
            list(zip(x.args, y.args, strict=True))
            if alike and len(x.args) == len(y.args)
            else []
        )
        shapes = all(
            self.graph.nodes[a].shape == self.graph.nodes[b].shape for a, b in operands
        )
        return operands if shapes else []

    def _fixed(self, n: int) -> bool:
        """The same on all inputs."""
        nodes, fixed = self.graph.nodes, self.fixed
        while len(fixed) <= n:  # also of nodes that were added since
            node = nodes[len(fixed)]
            self.graph.meter.step(1 + len(node.args), 1)
            fixed.append(
                all(fixed[a] for a in node.args) if node.args else node.op in FIXED
            )
        return fixed[n]

    def _difference(self, x: int, y: int) -> int | None:
        if x == y:
            return None
        apart = self.graph.add("sub", x, y)
        operands = self._operands((x, y))
        if not operands:
            return apart
        first, second = self.graph.nodes[x], self.graph.nodes[y]
        between = [self.made[p] for p in operands]
        joint = (
            self._exchanged(x, y, between[0])
            if first.op == "softmax"
            else self._joint(first, second, between)
        )
        if joint is None or first.op in MOVED:
            return joint
        return self.graph.add("blend", joint, apart)

    def _joint(self, x: Node, y: Node, apart: list[int | None]) -> int | None:
        """x - y, of nodes of one operation whose operands are `apart` by that; None: by nothing."""
        if all(d is None for d in apart):
            return None
        add = self.graph.add
        if x.op in ("mul", "einsum"):  # a b - c d = (a - c) b + c (b - d)
            terms = []
            if apart[0] is not None:
                terms.append(add(x.op, apart[0], x.args[1], attr=x.attr))
            if apart[1] is not None:
                terms.append(add(x.op, y.args[0], apart[1], attr=x.attr))
            return terms[0] if len(terms) == 1 else add("add", *terms)
        filled = [
            self._zero(self.graph.nodes[a].shape) if d is None else d
            for a, d in zip(x.args, apart, strict=True)
        ]
        if is_function(x):
            return add("secant", x.args[0], y.args[0], filled[0], attr=(x.op, x.attr))
        return add(x.op, *filled, attr=x.attr)

    def _exchanged(self, p: int, q: int, scores: int | None) -> int | None:
        """The difference of two softmaxes, from that of their scores."""
        if scores is None:
            return None
        add, shape = self.graph.add, self.graph.nodes[scores].shape
        *rest, n = shape
        steps = [prod(shape[i + 1 :]) for i in range(len(rest))]
        own, other = (
            add("view", scores, attr=((*shape, n), 0, (*steps, *last)))
            for last in ((1, 0), (0, 1))
        )
        terms = add("exchanged", p, q, add("sub", own, other))
        ones = add("constant", attr=((n,), (1.0,) * n))
        letters = LETTERS[: len(rest)]
        return add("einsum", terms, ones, attr=f"{letters}ik,k->{letters}i")

    def _zero(self, shape: tuple[int, ...]) -> int:
        zero = self.graph.add("constant", attr=((1,), (0.0,)))
        return self.graph.add("view", zero, attr=(shape, 0, (0,) * len(shape)))
