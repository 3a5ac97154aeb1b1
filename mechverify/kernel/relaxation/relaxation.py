"""Linear relaxation: a graph of linear operations, products and functions, and lines that bound the latter two.

`rewritten` brings a graph to few operations, without changing its value over the reals: a softmax becomes
p_i = 1 / sum_j e^(s_j - s_i), whose terms are functions of linear forms, and beside it p_i = e_i (1 / sum_j e_j) with
e_i = e^(s_i - c), where all share one quotient; contractions of two computed values become products and a sum; operands
that broadcast are expanded.

Lemmas L1, L5, L6, L7, L8 (docs/soundness/relaxation.md).
"""

from collections.abc import Mapping
from fractions import Fraction
from math import prod
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from mechverify.kernel.core.arithmetic import Arithmetic, Ball
from mechverify.kernel.core.errors import Rejected, Unsupported
from mechverify.kernel.core.evaluate import kept
from mechverify.kernel.core.functions import Function
from mechverify.kernel.core.graph import Graph, Node
from mechverify.kernel.core.meter import reserve

CAP = 24  # of a difference of scores; beyond it, a probability changes by less than SLACK, as e^-24 < 2^-34
SLACK = 2.0**-34
STEEP = 2.0**-500  # below it, what bends without end at zero gets no lines
PIECES = 8  # into which an interval is cut to bound a curved function


class Rewritten(NamedTuple):
    """Nodes with the values that a claim's nodes have: its output, its conditions, and, `values`, all real ones that
    these need and that depend on the input. (Other rewritten nodes may depend on a pivot, and so on more than that.)
    `shared`: for each softmax, the node of its first form and that of the second, of equal value. `narrowed`: the
    conditions in the claim's graph, with no more in it than they need; `of`: the node that each real node there, and of
    the output likewise, became."""

    output: int
    conditions: tuple[int, ...]
    values: frozenset[int]
    shared: tuple[tuple[int, int], ...]
    narrowed: tuple[int, ...]
    of: dict[int, int]
    shares: frozenset[int] = frozenset()  # nodes whose entries are a softmax's
    means: Mapping[int, tuple] = MappingProxyType({})  # nodes that are averages, with a softmax's weights: of the
    # entries, along its last axis, of a view (a node and the view's attribute)
    slices: Mapping[int, tuple] = MappingProxyType({})  # nodes whose value is a view of another's: that node, and the
    # view's attribute


def rewritten(graph: Graph, root: int, conditions: tuple[int, ...] = ()) -> Rewritten:
    """Nodes with the same values over the reals, made of: input, tokens, weight, constant, pi, gather, number, pick,
    view, concat, add, sub, mul, over_root, einsum with a fixed operand, power, functions, pivot (any constants), and
    integers. Operands of add, sub and mul have the same shape."""
    root, *narrowed = _narrowed(graph, [root, *conditions])
    order, new, shared = graph.ancestors([root, *narrowed]), {}, []
    shares: set[int] = set()
    means: dict[int, tuple] = {}
    fixed: set[int] = set()  # nodes (new ones) that don't depend on the input

    def add(op: str, *args: int, attr=None) -> int:
        node = graph.add(op, *args, attr=attr)
        if op in ("weight", "constant", "pi", "pivot") or (args and all(a in fixed for a in args)):
            fixed.add(node)
        return node

    def ones(*shape: int) -> int:
        return add("view", add("constant", attr=((1,), (1.0,))), attr=(shape, 0, (0,) * len(shape)))

    def constant(entries: np.ndarray) -> int:
        return add("constant", attr=(entries.shape, tuple(entries.ravel().tolist())))

    def expanded(n: int, shape: tuple[int, ...]) -> int:
        old = graph.nodes[n].shape
        if old == shape:
            return n
        steps = [prod(old[i + 1 :]) if size > 1 else 0 for i, size in enumerate(old)]
        return add("view", n, attr=(shape, 0, (0,) * (len(shape) - len(old)) + tuple(steps)))

    def product(x: int, y: int) -> int:
        return add("power", x, attr=2) if x == y and x not in fixed else add("mul", x, y)

    def softmax(node: Node, scores: int) -> int:
        *rest, n = node.shape
        steps = [prod(node.shape[i + 1 :]) for i in range(len(rest))]
        mask = np.broadcast_to(kept(node), node.shape).astype(float)
        weights = constant(mask)
        if n == 1:
            return weights
        letters = "abcdefgh"[: len(rest)]
        term = letters + "i"
        mean = add("pivot", scores, add("constant", attr=((n,), (1 / n,) * n)), attr=f"{term},i->{letters}")
        e = add("exp", add("sub", scores, add("view", mean, attr=(node.shape, 0, (*(s // n for s in steps), 0)))))
        e = e if mask.all() else add("mul", e, weights)
        quotient = add("reciprocal", add("einsum", e, ones(n), attr=f"{term},i->{letters}"))
        quotient = add("view", quotient, attr=(node.shape, 0, (*(s // n for s in steps), 0)))
        second = add("mul", e, quotient)  # before the first, which a form meets earlier on its way back
        pairs = (*rest, n, n - 1)  # [.., i, d]: i and the d-th after it, in a circle
        twice = add("concat", scores, scores, attr=len(rest))
        other = add("view", twice, attr=(pairs, 1, (*(2 * s for s in steps), 1, 1)))
        own = add("view", scores, attr=(pairs, 0, (*steps, 1, 0)))
        limit = expanded(add("constant", attr=((), (float(CAP),))), pairs)
        room = add("sub", limit, add("sub", other, own))
        capped = add("sub", limit, add("relu", room))  # so that nothing overflows
        after = (np.arange(n)[:, None] + 1 + np.arange(n - 1)) % n
        counted = constant(mask[..., after])
        total = add("einsum", add("exp", capped), counted, attr=f"{letters}ij,{letters}ij->{letters}i")
        total = add("add", total, ones(*node.shape))  # i's own term, kept or not
        share = add("add", add("reciprocal", total), add("slack", room, total))  # each mask errs on its own
        first = share if mask.all() else add("mul", share, weights)
        shared.append((first, second))
        shares.update((first, second))
        return first

    for n in order:
        node = graph.nodes[n]
        args = [new[a] for a in node.args]
        reserve(*node.shape, node.shape[-1] if node.op == "softmax" else 1)
        if node.kind == "int":
            new[n] = n
        elif node.op == "softmax":
            new[n] = softmax(node, args[0])
        elif node.op in ("add", "sub"):
            new[n] = add(node.op, *(expanded(a, node.shape) for a in args))
        elif node.op == "mul":
            new[n] = product(*(expanded(a, node.shape) for a in args))
        elif node.op == "einsum" and not fixed & set(args):
            first, second, result = node.attr.replace("->", ",").split(",")
            pivot = None
            if graph.nodes[node.args[0]].op == "softmax" and first[-1] not in result and set(first[:-1]) <= set(result):
                pivot = add("pivot", *args, attr=node.attr)
            summed = [c for c in dict.fromkeys(first + second) if c not in result]
            sizes = dict(zip(first + second, sum((graph.nodes[a].shape for a in args), ()), strict=True))
            letters = "".join([*result, *summed])
            shape = tuple(sizes[c] for c in letters)
            parts = [add("view", a, attr=_repeated(shape, letters, term))
                     for a, term in zip(args, (first, second), strict=True)]  # fmt: skip
            if pivot is not None:  # sum_i p_i v_i = c + sum_i p_i (v_i - c) for any c: it keeps the products small
                parts[1] = add("sub", parts[1], add("view", pivot, attr=_repeated(shape, letters, result)))
            value = product(*parts)
            new[n] = value
            if summed:
                width = tuple(sizes[c] for c in summed)
                new[n] = add("einsum", value, ones(*width), attr=f"{letters},{''.join(summed)}->{result}")
            if pivot is not None:
                new[n] = add("add", new[n], pivot)
        elif node.op == "select" and node.kind == "real":
            new[n] = add("view", args[0], attr=_slice(graph.nodes[args[0]].shape, *node.attr))
        else:
            new[n] = add(node.op, *args, attr=node.attr)
        if node.op == "einsum" and (averaged := _average(graph, node)) is not None:
            at, view = averaged
            means[new[n]] = args[at], view
    values = frozenset(new[n] for n in order if graph.nodes[n].kind == "real" and new[n] not in fixed)
    slices = {}
    for n in order:
        whole, axis, index = graph.slices.get(n, (-1, 0, 0))
        if whole in new and graph.nodes[n].kind == "real":
            slices[new[n]] = new[whole], _slice(graph.nodes[whole].shape, axis, index)
    return Rewritten(new[root], tuple(new[n] for n in narrowed), values, tuple(shared), tuple(narrowed),
                     {n: new[n] for n in order if graph.nodes[n].kind == "real"}, frozenset(shares), means,
                     slices)  # fmt: skip


def _average(graph: Graph, node: Node) -> tuple[int, tuple] | None:
    """If a contraction sums over a softmax's last axis: which operand it averages, and the view of that operand whose
    last axis holds what each entry is an average of."""
    *terms, result = node.attr.replace("->", ",").split(",")
    for at, (weights, values) in enumerate(zip(terms, terms[::-1], strict=True)):
        shapes = [graph.nodes[a].shape for a in node.args]
        summed = [c for c in weights if c not in result]
        if graph.nodes[node.args[at]].op == "softmax" and summed == [weights[-1]] and weights[-1] in values:
            sizes = {c: n for t, s in zip(terms, shapes, strict=True) for c, n in zip(t, s, strict=True)}
            letters = result + weights[-1]
            return 1 - at, _repeated(tuple(sizes[c] for c in letters), letters, values)
    return None


def _slice(shape: tuple[int, ...], axis: int, index: int) -> tuple:
    """The view of a tensor of that shape at an index along an axis."""
    steps = [prod(shape[i + 1 :]) for i in range(len(shape))]
    offset = index * steps.pop(axis)
    return shape[:axis] + shape[axis + 1 :], offset, tuple(steps)


def _narrowed(graph: Graph, roots: list[int]) -> list[int]:
    """Nodes of equal values, in which views of one slice of a value compute that slice alone."""
    new: dict[int, int] = {}
    for n in graph.ancestors(roots):
        node = graph.nodes[n]
        new[n] = graph.add(node.op, *(new[a] for a in node.args), attr=node.attr)
        while (slimmer := graph.narrowed(new[n])) != new[n]:  # one axis after another
            new[n] = slimmer
    return [new[n] for n in roots]


def _repeated(shape: tuple[int, ...], letters: str, of: str) -> tuple:
    """The view [shape], its axes named by `letters`, of a tensor with axes `of`, constant along the others."""
    sizes = dict(zip(letters, shape, strict=True))
    steps = {c: prod(sizes[d] for d in of[i + 1 :]) for i, c in enumerate(of)}
    return shape, 0, tuple(steps.get(c, 0) for c in letters)


class Curve(NamedTuple):
    """What an interval of arguments needs, once, to bound f on it by lines of any slope: points [k, *batch, *shape],
    values there, and for each piece between two points how much f may sag below, or rise above, its chords:
    `sag` >= max f'' h^2 / 2 and `rise` >= max -f'' h^2 / 2, raw arrays [k - 1, ...], not negative. Where not `known`, a
    raw array of booleans [*batch, *shape], nothing is said, and all numbers are zero."""

    points: Ball
    values: Ball
    sag: Ball
    rise: Ball
    known: Any


def curve(ar: Arithmetic, f: Function, low: Any, high: Any) -> Curve:
    """Precondition: the arguments lie between the raw arrays, of which some may be infinite. Complexity: PIECES + 1
    values an element."""
    xp = ar.xp
    _defined(f, low)
    least, most = f.reach
    known = (low >= max(least, STEEP if f.positive or f.root else least)) & (high <= most)
    low, high = (xp.where(known, end, 1.0) for end in (low, high))
    if f.breakpoint:
        inner = [xp.where(low > 0, low, xp.where(high < 0, high, 0 * low))]
    else:
        inner = [xp.minimum(xp.maximum(low + (high - low) * (k / PIECES), low), high) for k in range(1, PIECES)]
    points = ar.exact(xp.stack([low, *inner, high]))
    values = ar.value(f, points)
    ends = [b.map(move) for b in (points, values) for move in (lambda a: a[:-1], lambda a: a[1:])]
    bends = f.bend(ar, *ends)
    width = ar.sub(ends[1], ends[0])
    half = ar.mul(ar.mul(width, width), ar.rational(Fraction(1, 2)))
    sag, rise = (xp.maximum(ar.ends(ar.mul(b, half))[1], 0 * low) for b in (bends[1], -bends[0]))
    bottom, top = ar.ends(values)
    known = known & (xp.isfinite(sag) & xp.isfinite(rise)).all(0) & (xp.isfinite(bottom) & xp.isfinite(top)).all(0)
    zero = ar.rational(Fraction(0))
    points, values, sag, rise = (ar.where(known, b, zero) for b in (points, values, ar.point(sag), ar.point(rise)))
    return Curve(points, values, sag, rise, known)


def offset(ar: Arithmetic, c: Curve, slope: Ball, upper: bool) -> Ball:
    """A number b with slope x + b <= f(x) (upper: >=) on the curve's interval, for points `slope` [*batch, *shape].

    On a piece of width h where f'' <= M, g = f - slope x exceeds its chord by at least -M (x - p)(q - x) / 2; the least
    value of that parabola is min(g(p), g(q)) - (H - |g(q) - g(p)|)^2 / 4H, H = M h^2 / 2, if that bracket is positive.
    """
    xp, quarter, one = ar.xp, ar.rational(Fraction(1, 4)), ar.rational(Fraction(1))
    values, sag = (-c.values, c.rise) if upper else (c.values, c.sag)
    g = ar.sub(values, ar.mul(c.points, -slope if upper else slope))
    low, step = ar.ends(g)[0], ar.sub(g.map(lambda a: a[1:]), g.map(lambda a: a[:-1]))
    change = xp.maximum(ar.ends(step._replace(mid=xp.abs(step.mid)))[0], 0 * step.mid)
    bracket = xp.maximum(ar.ends(ar.sub(sag, ar.point(change)))[1], 0 * step.mid)
    flat = ar.where(sag.mid > 0, sag, one)
    bracket = ar.point(bracket)
    below = ar.mul(ar.mul(ar.div(bracket, flat), bracket), quarter)  # the quotient first: H may be subnormal
    ends = ar.point(xp.minimum(low[1:], low[:-1]))
    least = ar.point(xp.amin(ar.ends(ar.sub(ends, below))[0], 0))
    return -least if upper else least


def hull(ar: Arithmetic, low: Ball, high: Ball) -> Ball:
    """A ball that holds the lower end of `low`, the upper end of `high`, and all between."""
    mid = ar.mul(ar.add(low, high), ar.rational(Fraction(1, 2))).point
    up, down = ar.sub(high, mid).size, ar.sub(mid, low).size
    return ar.widen(mid, 1.0, of=up._replace(mid=ar.xp.maximum(up.mid, down.mid)))  # maximum keeps a NaN


Ends = tuple[Any, Any]  # raw arrays, of which some may be infinite: -inf below, inf above; never NaN (lemma L1)


def ball(ar: Arithmetic, low: Any, high: Any) -> Ball:
    """A ball that holds all between two raw arrays; of infinite radius where one of them is infinite."""
    xp = ar.xp
    known = xp.isfinite(low) & xp.isfinite(high)
    x = hull(ar, *(ar.exact(xp.where(known, end, 0.0)) for end in (low, high)))
    return x._replace(rad=xp.where(known, x.rad, np.inf))


def meet(ar: Arithmetic, x: Ends, y: Ends) -> Ends:
    """What lies between both."""
    return ar.xp.maximum(x[0], y[0]), ar.xp.minimum(x[1], y[1])


def total(ar: Arithmetic, x: Ends, y: Ends) -> Ends:
    """Of every sum of a number in x and one in y. What isn't negative stays so: 0 + 0 is 0."""
    low, high = ar.down(x[0] + y[0]), ar.up(x[1] + y[1])
    return _signed(ar, low, high, (x[0] >= 0) & (y[0] >= 0), (x[1] <= 0) & (y[1] <= 0))


def product(ar: Arithmetic, x: Ends, y: Ends) -> Ends:
    """Of every product of a number in x and one in y: from the corners, where 0 times infinity is 0, as an infinite end
    stands for all numbers that are large enough."""
    xp = ar.xp
    corners = xp.stack([_corner(ar, a, b) for a in x for b in y])
    least, most = xp.amin(corners, 0), xp.amax(corners, 0)
    positive = ((x[0] >= 0) & (y[0] >= 0)) | ((x[1] <= 0) & (y[1] <= 0))
    negative = ((x[0] >= 0) & (y[1] <= 0)) | ((x[1] <= 0) & (y[0] >= 0))
    return _signed(ar, ar.down(least), ar.up(most), positive, negative)


def _corner(ar: Arithmetic, a: Any, b: Any) -> Any:
    """A product of two ends; NaN only where one of them is."""
    xp = ar.xp
    nothing = ((a == 0) & xp.isinf(b)) | (xp.isinf(a) & (b == 0))
    return xp.where(nothing, 0.0, a * b)


def _signed(ar: Arithmetic, low: Any, high: Any, positive: Any, negative: Any) -> Ends:
    """The ends, where a value is known not to be negative, or not to be positive."""
    xp = ar.xp
    return (xp.where(positive, xp.clip(low, 0.0, None), low), xp.where(negative, xp.clip(high, None, 0.0), high))


def image(ar: Arithmetic, f: Function, low: Any, high: Any) -> Ends:
    """Of f on all numbers between two raw arrays. A monotone function from its ends, within its reach: beyond, it
    exceeds what it is at the reach's end, and doesn't exceed what is known of all its values."""
    xp, (least, most) = ar.xp, f.reach
    _defined(f, low)
    if f.even:
        low, high = xp.clip(xp.maximum(low, -high), 0.0, None), xp.maximum(-low, high)
    if f.increasing or f.even:
        first, last = (low, high) if f.increasing >= 0 else (high, low)  # where f is least, and greatest
        bottom, top = (ar.ends(ar.value(f, ar.exact(xp.clip(end, least, most)))) for end in (first, last))
        bottom, top = bottom[0], top[1]
        if f.increasing >= 0:
            bottom, top = xp.where(low < least, -np.inf, bottom), xp.where(high > most, np.inf, top)
        else:
            bottom, top = xp.where(high > most, -np.inf, bottom), xp.where(low < least, np.inf, top)
    else:
        c = curve(ar, f, low, high)
        flat = ar.exact(0 * c.points.mid[0])
        bottom, top = (ar.ends(offset(ar, c, flat, upper))[upper] for upper in (False, True))
        bottom, top = xp.where(c.known, bottom, -np.inf), xp.where(c.known, top, np.inf)
    return xp.clip(bottom, f.least, None), xp.clip(top, None, f.most)


def _defined(f: Function, low: Any) -> None:
    """What is not defined is refused, whatever is known of all values of f."""
    if (f.positive and not (low > 0).all()) or (f.root and not (low >= 0).all()):
        raise Unsupported("a logarithm, root or quotient of a value that the bounds don't show to be positive")


def plane(ar: Arithmetic, x: Ball, y: Ball, mix: Ball, upper: bool) -> tuple[Ball, Ball, Ball]:
    """Coefficients (a, b, c) with a x + b y + c <= x y (upper: >=) on the box of x and y (McCormick 1976): a mixture,
    by points `mix` in [0, 1], of the two planes that touch at opposite corners."""
    one = ar.rational(Fraction(1))
    if not ((mix.mid >= 0) & (mix.mid <= 1)).all():
        raise Rejected("a mixture of planes lies outside [0, 1]")
    (xl, xu), (yl, yu) = ([ar.exact(ar.lower(b)), ar.exact(ar.upper(b))] for b in (x, y))
    first, second = ((xl, yu), (xu, yl)) if upper else ((xl, yl), (xu, yu))
    rest = ar.sub(one, mix)
    a, b = (ar.add(ar.mul(rest, first[i]), ar.mul(mix, second[i])) for i in (1, 0))
    c = ar.add(ar.mul(rest, ar.mul(*first)), ar.mul(mix, ar.mul(*second)))
    return a, b, -c
