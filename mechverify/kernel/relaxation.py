"""Linear relaxation: a graph of linear operations, products and functions, and lines that bound the latter two.

`rewritten` brings a graph to few operations, without changing its value over the reals: a softmax becomes
p_i = 1 / sum_j e^(s_j - s_i), whose terms are functions of linear forms, and beside it p_i = e_i (1 / sum_j e_j) with
e_i = e^(s_i - c), where all share one quotient; contractions of two computed values become products and a sum; operands
that broadcast are expanded.
"""

from fractions import Fraction
from math import prod
from typing import NamedTuple

import numpy as np

from mechverify.kernel.arithmetic import Arithmetic, Ball
from mechverify.kernel.errors import Rejected, Unsupported
from mechverify.kernel.evaluate import kept
from mechverify.kernel.functions import Function
from mechverify.kernel.graph import Graph, Node
from mechverify.kernel.meter import reserve

CAP = 24  # of a difference of scores; beyond it, a probability changes by less than SLACK, as e^-24 < 2^-34
SLACK = 2.0**-34
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


def rewritten(graph: Graph, root: int, conditions: tuple[int, ...] = ()) -> Rewritten:
    """Nodes with the same values over the reals, made of: input, tokens, weight, constant, pi, gather, number, pick,
    view, concat, add, sub, mul, over_root, einsum with a fixed operand, power, functions, pivot (any constants), and
    integers. Operands of add, sub and mul have the same shape."""
    root, *narrowed = _narrowed(graph, [root, *conditions])
    order, new, shared = graph.ancestors([root, *narrowed]), {}, []
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
            axis, index = node.attr
            old = graph.nodes[args[0]].shape
            steps = [prod(old[i + 1 :]) for i in range(len(old))]
            offset = index * steps.pop(axis)
            new[n] = add("view", args[0], attr=(node.shape, offset, tuple(steps)))
        else:
            new[n] = add(node.op, *args, attr=node.attr)
    values = frozenset(new[n] for n in order if graph.nodes[n].kind == "real" and new[n] not in fixed)
    return Rewritten(new[root], tuple(new[n] for n in narrowed), values, tuple(shared), tuple(narrowed),
                     {n: new[n] for n in order if graph.nodes[n].kind == "real"})  # fmt: skip


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
    `sag` >= max f'' h^2 / 2 and `rise` >= max -f'' h^2 / 2, raw arrays [k - 1, ...], not negative."""

    points: Ball
    values: Ball
    sag: Ball
    rise: Ball


def curve(ar: Arithmetic, f: Function, x: Ball) -> Curve:
    """Precondition: x encloses the arguments. Complexity: PIECES + 1 values an element."""
    xp, low, high = ar.xp, ar.lower(x), ar.upper(x)
    if f.positive and not (low > 0).all():
        raise Unsupported("a logarithm, root or quotient of a value that the bounds don't show to be positive")
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
    zero = 0 * width.mid
    sag, rise = (ar.exact(xp.maximum(ar.upper(ar.mul(b, half)), zero)) for b in (bends[1], -bends[0]))
    return Curve(points, values, sag, rise)


def offset(ar: Arithmetic, c: Curve, slope: Ball, upper: bool) -> Ball:
    """A number b with slope x + b <= f(x) (upper: >=) on the curve's interval, for points `slope` [*batch, *shape].

    On a piece of width h where f'' <= M, g = f - slope x exceeds its chord by at least -M (x - p)(q - x) / 2; the least
    value of that parabola is min(g(p), g(q)) - (H - |g(q) - g(p)|)^2 / 4H, H = M h^2 / 2, if that bracket is positive.
    """
    xp, quarter, one = ar.xp, ar.rational(Fraction(1, 4)), ar.rational(Fraction(1))
    values, sag = (-c.values, c.rise) if upper else (c.values, c.sag)
    g = ar.sub(values, ar.mul(c.points, -slope if upper else slope))
    low, step = ar.lower(g), ar.sub(g.map(lambda a: a[1:]), g.map(lambda a: a[:-1]))
    change = xp.maximum(ar.lower(step._replace(mid=xp.abs(step.mid))), 0 * step.mid)
    bracket = xp.maximum(ar.upper(ar.sub(sag, ar.exact(change))), 0 * step.mid)
    flat = ar.where(sag.mid > 0, sag, one)
    bracket = ar.exact(bracket)
    below = ar.mul(ar.mul(ar.div(bracket, flat), bracket), quarter)  # the quotient first: H may be subnormal
    ends = ar.exact(xp.minimum(low[1:], low[:-1]))
    least = ar.exact(xp.amin(ar.lower(ar.sub(ends, below)), 0))
    return -least if upper else least


def hull(ar: Arithmetic, low: Ball, high: Ball) -> Ball:
    """A ball that holds the lower end of `low`, the upper end of `high`, and all between."""
    mid = ar.mul(ar.add(low, high), ar.rational(Fraction(1, 2))).point
    up, down = ar.sub(high, mid).size, ar.sub(mid, low).size
    return ar.widen(mid, 1.0, of=up._replace(mid=ar.xp.maximum(up.mid, down.mid)))  # maximum keeps a NaN


def meet(ar: Arithmetic, x: Ball, y: Ball) -> Ball:
    """A ball that holds what both hold."""
    xp = ar.xp
    low, high = xp.maximum(ar.lower(x), ar.lower(y)), xp.minimum(ar.upper(x), ar.upper(y))
    return hull(ar, ar.exact(xp.minimum(low, high)), ar.exact(xp.maximum(low, high)))


def image(ar: Arithmetic, f: Function, x: Ball) -> Ball:
    """A ball that holds f of every real in x."""
    if f.increasing and not (f.positive and not (ar.lower(x) > 0).all()):
        low, high = (ar.value(f, ar.exact(end)) for end in (ar.lower(x), ar.upper(x)))
        return hull(ar, low, high) if f.increasing > 0 else hull(ar, high, low)
    c, flat = curve(ar, f, x), ar.exact(0 * x.mid)
    return hull(ar, offset(ar, c, flat, upper=False), offset(ar, c, flat, upper=True))


def product(ar: Arithmetic, x: Ball, y: Ball) -> Ball:
    """A ball that holds every product of reals in x and y, which may be far from zero radius: from the corners."""
    xp, ends = ar.xp, [[ar.exact(ar.lower(b)), ar.exact(ar.upper(b))] for b in (x, y)]
    corners = [ar.mul(a, b) for a in ends[0] for b in ends[1]]
    low = xp.amin(xp.stack([ar.lower(c) for c in corners]), 0)
    high = xp.amax(xp.stack([ar.upper(c) for c in corners]), 0)
    return hull(ar, ar.exact(low), ar.exact(high))


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
