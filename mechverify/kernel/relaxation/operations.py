"""What the relaxation knows of each operation: an interval of its value, what a form of it becomes, and which tokens
each entry depends on.

The rows have the names and the order of core/operations.py. A row of a real operation is `Linear`, whose interval is
computed on balls and whose forms are transposed, or `Curved`, whose interval comes from the operands' ends. Rows of
ids say which tokens they stand for, rows of integers a span. What a row doesn't say is refused; what it reads, each
row must say.

Lemmas L7, L10, L11, L13 (docs/soundness/relaxation.md).
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from fractions import Fraction
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from mechverify.kernel.core import integers
from mechverify.kernel.core.arithmetic import Ball
from mechverify.kernel.core.elementary import pi
from mechverify.kernel.core.errors import Unsupported
from mechverify.kernel.core.functions import power_of
from mechverify.kernel.core.integers import Span
from mechverify.kernel.core.meter import reserve
from mechverify.kernel.core.operations import FUNCTIONS, Node, entries, function_of, kept, table, weight
from mechverify.kernel.relaxation import lines
from mechverify.kernel.relaxation.lines import Ends

if TYPE_CHECKING:
    from mechverify.kernel.core.graph import Graph
    from mechverify.kernel.relaxation.backward import Relaxed
    from mechverify.kernel.relaxation.intervals import Intervals

CAP = 24  # of a difference of scores; beyond it, a probability changes by less than SLACK, as e^-24 < 2^-34
SLACK = 2.0**-34
ONE_HOT = -1  # stands for the tokens themselves, one-hot, [length x vocabulary], where a form names a node
Forms = list[tuple[int, Ball]]  # of nodes; those of one node are added


class Row(ABC):
    """Of one operation; `known` has what was found of earlier nodes. Here everything but `reads` is refused."""

    fixed = False  # whether the value is the same on all inputs, without operands that are

    def linear(self, known: "Intervals", n: int) -> bool:
        """Whether node n's interval is computed on balls."""
        raise self._refused(known, n)

    def bends(self, known: "Intervals", n: int) -> bool:
        """Whether lines are needed to carry a form through node n."""
        raise self._refused(known, n)

    def ball(self, known: "Intervals", n: int) -> Ball:
        """Of a linear node, from its operands' balls."""
        raise self._refused(known, n)

    def ends(self, known: "Intervals", n: int, found: Ends) -> Ends:
        """From the operands' ends, of which some may be infinite; `found` is what a linear node's ball says."""
        raise self._refused(known, n)

    def transposed(self, known: "Intervals", n: int, k: Ball) -> Forms:
        """Of a linear node: the forms of its operands whose sum is the form `k`."""
        raise self._refused(known, n)

    def back(self, known: "Relaxed", start: int, n: int, k: Ball) -> tuple[Forms, Ball | None]:
        """Forms and a number whose sum is not above the form `k` of node n, one of the forms of node `start`."""
        raise self._refused(known, n)

    def positions(self, known: "Intervals", n: int) -> np.ndarray:
        """Of ids: at which position each stands."""
        raise self._refused(known, n)

    def spans(self, known: "Intervals", n: int) -> list[Span]:
        """Of an integer, cell by cell."""
        raise self._refused(known, n)

    @abstractmethod
    def reads(self, graph: "Graph", node: Node, args: list[np.ndarray]) -> np.ndarray | None:
        """Which positions' tokens each entry may depend on, booleans [*shape, length], from the operands'; None: it
        isn't known."""

    def _refused(self, known: "Intervals", n: int) -> Unsupported:
        return Unsupported(f"rule relaxation has no bound for {known.graph.nodes[n].op!r}")


def no_tokens(graph: "Graph", node: Node) -> np.ndarray:
    return np.zeros((*node.shape, graph.length), bool)


class Elementwise(Row, ABC):
    """An entry depends on the operands' entries at its own place, or at the one that they broadcast, alone."""

    def reads(self, graph, node, args):
        found = no_tokens(graph, node)
        for x in args:
            found = found | x.reshape(*(1,) * (found.ndim - x.ndim), *x.shape)
        return found


class Linear(Row, ABC):
    """Forms go through by transposing."""

    def linear(self, known, n):
        return True

    def bends(self, known, n):
        return False

    @abstractmethod
    def ball(self, known, n) -> Ball: ...

    @abstractmethod
    def ends(self, known, n, found) -> Ends: ...

    @abstractmethod
    def transposed(self, known, n, k) -> Forms: ...

    def back(self, known, start, n, k) -> tuple[Forms, Ball | None]:
        return self.transposed(known, n, k), None


class Curved(Row, ABC):
    def linear(self, known, n):
        return False

    @abstractmethod
    def ends(self, known, n, found) -> Ends: ...


class Fixed(Linear):
    """The same on all inputs."""

    fixed = True

    def ends(self, known, n, found):
        return found

    def transposed(self, known, n, k):
        raise self._refused(known, n)  # a form ends before, at the value

    def back(self, known, start, n, k):
        return [], known.dot(k, known.bounds[n])

    def reads(self, graph, node, args) -> np.ndarray | None:
        return no_tokens(graph, node)


class Exact(Fixed):
    """Numbers, whose ends they are."""

    def ends(self, known, n, found):
        number = self.ball(known, n).mid
        return number, number


class Ending(Curved):
    """A form ends here, at the interval."""

    def bends(self, known, n):
        return False

    def back(self, known, start, n, k):
        return [], known.dot(k, known.bounds[n])


def _balls(known: "Intervals", n: int) -> list[Ball]:
    return [known.bounds[a] for a in known.graph.nodes[n].args]


def _ends(known: "Intervals", n: int) -> list[Ends]:
    return [known.ends[a] for a in known.graph.nodes[n].args]


# --- inputs and fixed values ------------------------------------------------------------------------------------------


class Tokens(Row):
    def positions(self, known, n):
        return np.arange(known.graph.length)

    def reads(self, graph, node, args):
        return np.eye(graph.length, dtype=bool)


class Input(Linear):
    """A form ends here, at the box."""

    def ball(self, known, n):
        return known.cells.inputs[known.graph.nodes[n].attr[0]]

    def ends(self, known, n, found):
        corners = known.cells.corners
        return corners[known.graph.nodes[n].attr[0]] if corners else found

    def transposed(self, known, n, k):
        raise self._refused(known, n)

    def back(self, known, start, n, k):
        return [], known.dot(k, known.bounds[n])

    def reads(self, graph, node, args):
        """What depends on a real input depends on more than tokens."""


class Weight(Exact):
    def ball(self, known, n):
        return known.ar.exact(known.ar.raw(weight(known.weights, *known.graph.nodes[n].attr)[None]))


class Constant(Exact):
    def ball(self, known, n):
        shape, numbers = known.graph.nodes[n].attr
        return known.ar.exact(known.ar.raw(np.array(numbers, float).reshape(1, *shape)))


class Pi(Fixed):
    def ball(self, known, n):
        return pi(known.ar).map(lambda a: a.reshape(1))


class Pivot(Fixed):
    """Any numbers; near the value."""

    def ball(self, known, n):
        points = (x.point for x in _balls(known, n))
        return known.ar.exact(known.finite(known.ar.contract(known.graph.nodes[n].attr, *points).mid))

    def reads(self, graph, node, args): ...


# --- moving entries ---------------------------------------------------------------------------------------------------


class View(Linear):
    def positions(self, known, n):
        node = known.graph.nodes[n]
        return known.positions[node.args[0]].ravel()[entries(node.attr)]

    def ball(self, known, n):
        (x,), at = _balls(known, n), entries(known.graph.nodes[n].attr)
        return x.map(lambda a: a.reshape(a.shape[0], -1)[:, at])

    def ends(self, known, n, found):
        ((low, high),), view = _ends(known, n), known.graph.nodes[n].attr
        return viewed(low, view), viewed(high, view)

    def transposed(self, known, n, k):
        ar, node, lead = known.ar, known.graph.nodes[n], k.mid.shape[:2]
        shape = known.graph.nodes[node.args[0]].shape
        at = entries(node.attr).ravel()
        form = k.map(lambda a: a.reshape(*lead, -1))
        if not np.array_equal(at, np.arange(prod(shape))):  # more than a reshape
            form = ar.scatter(form, at, prod(shape))
        return [(node.args[0], form.map(lambda a: a.reshape(*lead, *shape)))]

    def reads(self, graph, node, args):
        return args[0].reshape(-1, graph.length)[entries(node.attr)]


def viewed(a: Any, view: tuple) -> Any:
    """The entries that a view reads, of a raw array [cells, *shape]."""
    return a.reshape(a.shape[0], -1)[:, entries(view)]


class Select(Row):
    """Of ids; slices of real values are rewritten to views."""

    def positions(self, known, n):
        node = known.graph.nodes[n]
        axis, index = node.attr
        return np.take(known.positions[node.args[0]], index, axis)

    def reads(self, graph, node, args):
        axis, index = node.attr
        return np.take(args[0], index, axis)


class Concat(Linear):
    def ball(self, known, n):
        ar, shape = known.ar, known.graph.nodes[n].shape
        size, whole = prod(shape), ar.rational(Fraction(0))
        for (_, at), x in zip(self._places(known, n), _balls(known, n), strict=True):
            part = ar.scatter(x.map(lambda a: a.reshape(a.shape[0], -1)), at, size)
            whole = ar.add(whole, part.map(lambda a: a.reshape(-1, *shape)))
        return whole

    def ends(self, known, n, found):
        xp, operands, axis = known.ar.xp, _ends(known, n), known.graph.nodes[n].attr + 1
        cells = max(end.shape[0] for ends in operands for end in ends)
        low, high = (
            xp.concatenate([xp.broadcast_to(ends[side], (cells, *ends[side].shape[1:])) for ends in operands], axis)
            for side in (0, 1)
        )
        return low, high

    def transposed(self, known, n, k):
        flat = k.map(lambda a: a.reshape(*k.mid.shape[:2], -1))
        forms = []
        for operand, at in self._places(known, n):
            shape = *k.mid.shape[:2], *known.graph.nodes[operand].shape
            forms.append((operand, flat.map(lambda v, at=at, shape=shape: v[..., at].reshape(shape))))
        return forms

    def _places(self, known: "Intervals", n: int) -> Iterable[tuple[int, np.ndarray]]:
        """For every operand, where its entries go in the flattened result."""
        node, start = known.graph.nodes[n], 0
        here = np.arange(prod(node.shape)).reshape(node.shape)
        for operand in node.args:
            width = known.graph.nodes[operand].shape[node.attr]
            yield operand, np.take(here, np.arange(start, start + width), node.attr).ravel()
            start += width

    def reads(self, graph, node, args):
        return np.concatenate(args, node.attr)


class Gather(Curved):
    """A form of embeddings is one of one-hot tokens."""

    def bends(self, known, n):
        return False

    def ends(self, known, n, found):
        rows = self._table(known, n)
        low, high = (self._least(known, n, sign * rows) for sign in (1, -1))
        return low, -high

    def back(self, known, start, n, k):
        ar, places, rows = known.ar, known.positions[known.graph.nodes[n].args[1]].ravel(), self._table(known, n)
        reserve(*k.mid.shape[:2], known.graph.length, len(rows))
        flat = k.map(lambda a: a.reshape(*a.shape[:2], len(places), -1))
        scores = ar.contract("pd,vd->pv", flat, ar.exact(rows.reshape(1, 1, len(rows), -1)))
        at = places[:, None] * len(rows) + np.arange(len(rows))
        scores = scores.map(lambda a: a.reshape(*a.shape[:2], -1))
        return [(ONE_HOT, ar.scatter(scores, at.ravel(), known.graph.length * len(rows)))], None

    def _table(self, known: "Intervals", n: int) -> Any:
        rows = known.graph.nodes[known.graph.nodes[n].args[0]]
        return known.ar.raw(table(known.weights, rows)[: len(known.graph.values)])

    def _least(self, known: "Intervals", n: int, rows: Any) -> Any:
        """The least entry of a table [vocabulary, ...] over the tokens allowed at each position: [cells, *ids, ...]."""
        places = known.positions[known.graph.nodes[n].args[1]]
        allowed = known.cells.allowed[:, places]
        reserve(*allowed.shape, *rows.shape[1:])
        allowed = known.ar.raw(allowed.reshape(*allowed.shape, *(1,) * (len(rows.shape) - 1)))
        return known.ar.xp.amin(known.ar.xp.where(allowed, rows, np.inf), 1 + places.ndim)

    def reads(self, graph, node, args):
        ids = args[1]
        rank = len(node.shape) - ids.ndim + 1
        return no_tokens(graph, node) | ids.reshape(*ids.shape[:-1], *(1,) * rank, graph.length)


class Pick(Ending):
    def ends(self, known, n, found):
        ar, xp, node = known.ar, known.ar.xp, known.graph.nodes[n]
        least, most = known.ends[node.args[0]]
        low, high = np.array(known.spans[node.args[1]]).T[:, :, None]
        at = np.arange(least.shape[1])
        inside = ar.raw(((low <= at) & (at <= high)).reshape(len(low), -1, *(1,) * len(node.shape)))
        low, high = (xp.amin(xp.where(inside, end, np.inf), 1) for end in (least, -most))
        return low, -high

    def reads(self, graph, node, args):
        return args[0].any(0) | args[1]


# --- computing --------------------------------------------------------------------------------------------------------


class Add(Elementwise, Linear):
    def ball(self, known, n):
        return known.ar.add(*_balls(known, n))

    def ends(self, known, n, found):
        return lines.total(known.ar, *_ends(known, n))

    def transposed(self, known, n, k):
        return [(a, k) for a in known.graph.nodes[n].args]


class Sub(Elementwise, Linear):
    def ball(self, known, n):
        return known.ar.sub(*_balls(known, n))

    def ends(self, known, n, found):
        first, (low, high) = _ends(known, n)
        return lines.total(known.ar, first, (-high, -low))

    def transposed(self, known, n, k):
        first, second = known.graph.nodes[n].args
        return [(first, k), (second, -k)]


class Mul(Elementwise):
    """Linear where an operand is fixed; otherwise it bends, and planes bound it."""

    def linear(self, known, n):
        return bool(known.fixed & set(known.graph.nodes[n].args))

    def bends(self, known, n):
        return not self.linear(known, n)

    def ball(self, known, n):
        return known.ar.mul(*_balls(known, n))

    def ends(self, known, n, found):
        x, y = _ends(known, n)
        if not self.linear(known, n) and self._same(known, *known.graph.nodes[n].args):
            return lines.image(known.ar, power_of(2), *x)
        return lines.product(known.ar, x, y)

    def _same(self, known: "Intervals", x: int, y: int) -> bool:
        """Both are the same view of one node."""
        (first, here), (second, there) = (known.source(n, slices=True) for n in (x, y))
        return first == second and np.array_equal(here, there)

    def transposed(self, known, n, k):
        args = known.graph.nodes[n].args
        one, other = args if args[1] in known.fixed else args[::-1]
        return [(one, known.ar.mul(k, known.bounds[other].map(lambda a: a[:, None])))]

    def back(self, known, start, n, k):
        if self.linear(known, n):
            return self.transposed(known, n, k), None
        return known.through_product(start, n, k)


class OfEach(Elementwise, Curved):
    """A function of each entry, bounded by lines."""

    def bends(self, known, n):
        return True

    def ends(self, known, n, found):
        (x,), f = _ends(known, n), function_of(known.graph.nodes[n])
        return lines.image(known.ar, f, *x)

    def back(self, known, start, n, k):
        return known.through_function(start, n, k)


class OverRoot(Elementwise, Linear):
    def ball(self, known, n):
        (x,) = _balls(known, n)
        return self._divided(known, n, x)

    def ends(self, known, n, found):
        (x,), ar = _ends(known, n), known.ar
        return lines.product(ar, x, ar.ends(self._divided(known, n, ar.rational(Fraction(1)))))

    def transposed(self, known, n, k):
        return [(known.graph.nodes[n].args[0], self._divided(known, n, k))]

    def _divided(self, known: "Intervals", n: int, x: Ball) -> Ball:
        return known.ar.div(x, known.ar.sqrt(known.ar.rational(Fraction(known.graph.nodes[n].attr))))


class Einsum(Linear):
    """One operand is fixed; other contractions are rewritten to products and a sum."""

    def ball(self, known, n):
        return known.ar.contract(known.graph.nodes[n].attr, *_balls(known, n))

    def ends(self, known, n, found):
        """Of sums of products k x with fixed k, from what balls say, which is all where every end is finite; but a sum
        of what isn't negative isn't negative."""
        xp, args = known.ar.xp, known.graph.nodes[n].args
        at = 0 if args[0] in known.fixed else 1
        k, x = known.ends[args[at]], known.ends[args[1 - at]]
        if not all(bool(xp.isfinite(end).all()) for end in x):
            (low, low_of_minus) = (self._least(known, n, at, k, ends) for ends in (x, (-x[1], -x[0])))
            found = lines.meet(known.ar, found, (low, -low_of_minus))
        signs = [bool((low >= 0).all()) - bool((high <= 0).all()) for low, high in (k, x)]
        sign = signs[0] * signs[1]
        floor, ceiling = 0.0 if sign > 0 else -np.inf, 0.0 if sign < 0 else np.inf
        return xp.clip(found[0], floor, None), xp.clip(found[1], None, ceiling)

    def _least(self, known: "Intervals", n: int, at: int, k: Ends, x: Ends) -> Any:
        """Lower bounds of sums of products k x, whose operand number `at` is k: of k x, max(k, 0) low + min(k, 0) high.
        An infinite end counts where its factor may be other than zero."""
        ar, xp, spec = known.ar, known.ar.xp, known.graph.nodes[n].attr
        one, zero = (ar.rational(Fraction(v)).mid for v in (1, 0))
        parts = []
        for limits, factor, end in (((0.0, None), k[1] > 0, x[0]), ((None, 0.0), k[0] < 0, x[1])):
            part = lines.ball(ar, *(xp.clip(e, *limits) for e in k))
            finite = xp.isfinite(end)
            pairs = (
                (part, ar.point(xp.where(finite, end, zero))),
                tuple(ar.point(xp.where(some, one, zero)) for some in (factor, ~finite)),
            )
            parts.append([ar.contract(spec, *(pair if at == 0 else pair[::-1])) for pair in pairs])
        (first, missing), (second, more) = parts
        return xp.where((missing.mid > 0) | (more.mid > 0), -np.inf, ar.ends(ar.add(first, second))[0])

    def transposed(self, known, n, k):
        node = known.graph.nodes[n]
        *terms, result = node.attr.replace("->", ",").split(",")
        at = 1 if node.args[0] in known.fixed else 0
        constant = known.bounds[node.args[1 - at]].map(lambda a: a[:, None])
        return [(node.args[at], known.ar.contract(f"{result},{terms[1 - at]}->{terms[at]}", k, constant))]

    def reads(self, graph, node, args):
        """What is summed, whatever the weights."""
        *terms, result = node.attr.replace("->", ",").split(",")
        found = no_tokens(graph, node)
        for term, x in zip(terms, args, strict=True):
            summed = tuple(i for i, c in enumerate(term) if c not in result)
            left = [c for c in term if c in result]
            rest = np.any(x, summed).transpose([left.index(c) for c in result if c in left] + [len(left)])
            shape = [found.shape[i] if c in left else 1 for i, c in enumerate(result)]
            found = found | rest.reshape(*shape, x.shape[-1])
        return found


class Softmax(Row):
    """Rewritten to functions of linear forms (rewriting.py): bounds of it are never asked for."""

    def reads(self, graph, node, args):
        """All entries that are kept."""
        keeps = np.broadcast_to(kept(node), node.shape)[..., None]
        return no_tokens(graph, node) | (args[0] & keeps).any(-2, keepdims=True)


class Slack(Ending):
    """What capping the scores takes from a share: nothing, where no room (the first operand) is negative."""

    def ends(self, known, n, found):
        room = known.graph.nodes[n].args[0]
        zero = 0 * known.finite(known.bounds[room].point.mid).sum(-1)
        inactive = bool((known.ends[room][0] >= 0).all())
        return (zero if inactive else zero - SLACK), zero

    def reads(self, graph, node, args): ...


# --- integers of the tokens -------------------------------------------------------------------------------------------


class Number(Elementwise, Ending):
    def ends(self, known, n, found):
        low, high = np.array(known.spans[known.graph.nodes[n].args[0]], float).T
        return known.ar.raw(low), known.ar.raw(high)


class Value(Row):
    def spans(self, known, n):
        values, position = known.graph.meanings, known.graph.nodes[n].attr
        known.ar.step(len(known.cells) * len(values), 1)
        at = [values[allowed[position]] for allowed in known.cells.allowed]
        return [(int(v.min()), int(v.max())) for v in at]

    def reads(self, graph, node, args):
        return np.arange(graph.length) == node.attr


class Integer(Elementwise):
    def spans(self, known, n):
        return [(known.graph.nodes[n].attr, known.graph.nodes[n].attr)] * len(known.cells)


class OfIntegers(Elementwise):
    """By interval arithmetic; of integers that are known, the value."""

    def spans(self, known, n):
        node, found = known.graph.nodes[n], []
        for s in zip(*(known.spans[a] for a in node.args), strict=True):
            low, high = integers.span(node.op, list(s), node.attr)
            if all(a == b for a, b in s):
                value = integers.apply(node.op, node.attr, [np.array(a) for a, _ in s], lambda _: known.graph.meanings)
                low = high = int(value.item())
            found.append((low, high))
        return found


OPERATIONS: dict[str, Row] = {
    "tokens": Tokens(),
    "input": Input(),
    "weight": Weight(),
    "constant": Constant(),
    "view": View(),
    "concat": Concat(),
    "einsum": Einsum(),
    "softmax": Softmax(),
    "power": OfEach(),
    "over_root": OverRoot(),
    "gather": Gather(),
    "add": Add(),
    "sub": Sub(),
    "mul": Mul(),
    "pi": Pi(),
    "number": Number(),
    "pick": Pick(),
    **{name: OfEach() for name in FUNCTIONS},
    "value": Value(),
    "integer": Integer(),
    **{name: OfIntegers() for name in integers.OPERATIONS},
    "select": Select(),
    "slack": Slack(),
    "pivot": Pivot(),
}
FIXED = {name for name, row in OPERATIONS.items() if row.fixed}


def row_of(name: str) -> Row:
    if name not in OPERATIONS:
        raise Unsupported(f"rule relaxation has no bound for {name!r}")
    return OPERATIONS[name]
