"""Between which numbers the slopes of a function lie on an interval.

Lemma D1 (docs/soundness/differences.md).
"""

from fractions import Fraction
from functools import reduce
from typing import Any

import numpy as np

from mechverify.kernel.core.arithmetic import Arithmetic, Ball
from mechverify.kernel.core.functions import FUNCTIONS, rational
from mechverify.kernel.core.operations import Node
from mechverify.kernel.core.operations.functions import function_of
from mechverify.kernel.relaxation import lines
from mechverify.kernel.relaxation.lines import Curve, Ends

NEAR = 32.0  # derivatives are evaluated up to there
DENSITY = Fraction("0.39894228040143267794")  # 1 / sqrt(2 pi), to 20 places
ROUNDED = 2.0**-60  # more than what is wrong with it, relatively
CUBE = Fraction(44715, 10**6)  # of GELU's tanh form


def slopes(ar: Arithmetic, node: Node, low: Any, high: Any) -> Ends:
    """Between which (f(x) - f(y)) / (x - y) lies for all x != y between two raw arrays, where f is the function of a
    node; infinite where nothing is said. Complexity: a few curves."""
    xp, f = ar.xp, function_of(node)
    c = lines.curve(ar, f, low, high)
    width = ar.sub(c.points.at[1:], c.points.at[:-1])
    wide = ar.ends(width)[0] > 0
    step = ar.where(wide, width, rational(ar, 1))
    least, most = _from_chords(ar, c, step)
    if node.op in DERIVATIVES:
        near = (xp.abs(c.points.mid[1:]) <= NEAR) & (xp.abs(c.points.mid[:-1]) <= NEAR)
        inner = _from_derivatives(ar, node, c, step)
        least = xp.where(near, xp.maximum(least, inner[0]), least)
        most = xp.where(near, xp.minimum(most, inner[1]), most)
    if node.op in LIMITS:
        bottom, top = LIMITS[node.op]
        least, most = xp.clip(least, bottom, None), xp.clip(most, None, top)
    none = c.points.mid[1:] == c.points.mid[:-1]  # a piece that is a point has no slope
    nothing = ~c.known | none.all(0) | (~wide & ~none).any(0)
    least = xp.amin(xp.where(none, np.inf, least), 0)
    most = xp.amax(xp.where(none, -np.inf, most), 0)
    return xp.where(nothing, -np.inf, least), xp.where(nothing, np.inf, most)


def _from_chords(ar: Arithmetic, c: Curve, step: Ball) -> Ends:
    """On a piece of width h where -N <= f'' <= M the mean of f' is the chord's slope, from which f' differs by at most
    max(M, N) h / 2."""
    chord = ar.div(ar.sub(c.values.at[1:], c.values.at[:-1]), step)
    larger = ar.xp.maximum(c.sag.mid, c.rise.mid)
    bends = ar.div(ar.point(larger), step)
    low, _ = ar.ends(ar.sub(chord, bends))
    _, high = ar.ends(ar.add(chord, bends))
    return low, high


def _from_derivatives(ar: Arithmetic, node: Node, c: Curve, step: Ball) -> Ends:
    """From f' at both ends of a piece, u and v: on the way it exceeds u by at most M h, and v by at most N h, so the
    larger one by at most min(M, N) h; likewise below."""
    xp = ar.xp
    points = xp.where(c.known, xp.clip(c.points.mid, -NEAR, NEAR), 1.0)
    low, high = ar.ends(DERIVATIVES[node.op](ar, node, ar.exact(points)))
    smaller = xp.minimum(c.sag.mid, c.rise.mid)
    over = ar.div(ar.point(2 * smaller), step)
    least, most = xp.minimum(low[1:], low[:-1]), xp.maximum(high[1:], high[:-1])
    least, _ = ar.ends(ar.sub(ar.point(least), over))
    _, most = ar.ends(ar.add(ar.point(most), over))
    return least, most


def _at(ar: Arithmetic, name: str, x: Ball) -> Ball:
    return ar.value(FUNCTIONS[name], x)


def _less(ar: Arithmetic, x: Ball) -> Ball:
    """1 - x."""
    return ar.sub(rational(ar, 1), x)


def _product(ar: Arithmetic, *factors: Ball | Fraction) -> Ball:
    balls = (ar.rational(f) if isinstance(f, Fraction) else f for f in factors)
    return reduce(ar.mul, balls)


def _density(ar: Arithmetic, x: Ball) -> Ball:
    """e^(-x^2 / 2) / sqrt(2 pi)."""
    power = _at(ar, "exp", _product(ar, Fraction(-1, 2), x, x))
    return ar.mul(ar.widen(ar.rational(DENSITY), ROUNDED), power)


def _exp(ar: Arithmetic, node: Node, x: Ball) -> Ball:
    return _at(ar, "exp", x)


def _log(ar: Arithmetic, node: Node, x: Ball) -> Ball:
    return ar.div(rational(ar, 1), x)


def _sqrt(ar: Arithmetic, node: Node, x: Ball) -> Ball:
    return ar.div(rational(ar, 1, 2), _at(ar, "sqrt", x))


def _rsqrt(ar: Arithmetic, node: Node, x: Ball) -> Ball:
    value = _at(ar, "rsqrt", x)
    return _product(ar, Fraction(-1, 2), value, value, value)


def _reciprocal(ar: Arithmetic, node: Node, x: Ball) -> Ball:
    value = _at(ar, "reciprocal", x)
    return -ar.mul(value, value)


def _tanh(ar: Arithmetic, node: Node, x: Ball) -> Ball:
    value = _at(ar, "tanh", x)
    return _less(ar, ar.mul(value, value))


def _sigmoid(ar: Arithmetic, node: Node, x: Ball) -> Ball:
    value = _at(ar, "sigmoid", x)
    return ar.mul(value, _less(ar, value))


def _erf(ar: Arithmetic, node: Node, x: Ball) -> Ball:
    """2 e^(-x^2) / sqrt(pi)."""
    root = ar.sqrt(rational(ar, 2))
    return _product(ar, Fraction(2), root, _density(ar, ar.mul(root, x)))


def _atan(ar: Arithmetic, node: Node, x: Ball) -> Ball:
    one = rational(ar, 1)
    return ar.div(one, ar.add(one, ar.mul(x, x)))


def _softplus(ar: Arithmetic, node: Node, x: Ball) -> Ball:
    return _at(ar, "sigmoid", x)


def _gelu(ar: Arithmetic, node: Node, x: Ball) -> Ball:
    """Phi(x) + x phi(x)."""
    root = ar.sqrt(rational(ar, 2))
    inner = _at(ar, "erf", ar.div(x, root))
    half = rational(ar, 1, 2)
    share = ar.add(half, ar.mul(half, inner))
    return ar.add(share, ar.mul(x, _density(ar, x)))


def _gelu_tanh(ar: Arithmetic, node: Node, x: Ball) -> Ball:
    """(1 + t) / 2 + x (1 - t^2) u' / 2, where t = tanh(u), u = sqrt(2 / pi) (x + CUBE x^3)."""
    scale = _product(ar, Fraction(2), ar.widen(ar.rational(DENSITY), ROUNDED))
    cubed = _product(ar, CUBE, x, x, x)
    inner = ar.mul(scale, ar.add(x, cubed))
    t = _at(ar, "tanh", inner)
    one, half = rational(ar, 1), rational(ar, 1, 2)
    steep = ar.add(one, _product(ar, 3 * CUBE, x, x))
    slope = ar.mul(scale, steep)
    falling = _less(ar, ar.mul(t, t))
    first = ar.mul(half, ar.add(one, t))
    second = _product(ar, half, x, falling, slope)
    return ar.add(first, second)


def _silu(ar: Arithmetic, node: Node, x: Ball) -> Ball:
    """s + x s (1 - s), where s is the sigmoid."""
    s = _at(ar, "sigmoid", x)
    rest = _product(ar, x, s, _less(ar, s))
    return ar.add(s, rest)


def _sin(ar: Arithmetic, node: Node, x: Ball) -> Ball:
    return _at(ar, "cos", x)


def _cos(ar: Arithmetic, node: Node, x: Ball) -> Ball:
    return -_at(ar, "sin", x)


def _power(ar: Arithmetic, node: Node, x: Ball) -> Ball:
    return _product(ar, Fraction(node.attr), *[x] * (node.attr - 1))


DERIVATIVES = {
    "exp": _exp,
    "log": _log,
    "sqrt": _sqrt,
    "rsqrt": _rsqrt,
    "reciprocal": _reciprocal,
    "tanh": _tanh,
    "sigmoid": _sigmoid,
    "erf": _erf,
    "atan": _atan,
    "softplus": _softplus,
    "gelu": _gelu,
    "gelu_tanh": _gelu_tanh,
    "silu": _silu,
    "sin": _sin,
    "cos": _cos,
    "power": _power,
}  # of all that have one everywhere
LIMITS = {
    "relu": (0.0, 1.0),
    "abs": (-1.0, 1.0),
    "tanh": (0.0, 1.0),
    "sigmoid": (0.0, 0.25),
    "erf": (0.0, 1.1284),
    "atan": (0.0, 1.0),
    "softplus": (0.0, 1.0),
    "gelu": (-0.129, 1.129),
    "gelu_tanh": (-0.13, 1.13),
    "silu": (-0.1, 1.1),
    "sin": (-1.0, 1.0),
    "cos": (-1.0, 1.0),
}  # between which all slopes lie, wherever
