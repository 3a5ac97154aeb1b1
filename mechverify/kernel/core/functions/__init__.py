"""Elementwise functions of a model: how to enclose a value, and how far the function bends.

The bend (second derivative) is all that a linear bound needs to know of a function: relaxation/lines.py turns it into
lines with proved offsets. A new function is a row in one of the modules beside, which are loaded
where a value has such a function, and one in lemma L4.

Lemmas L2, L4 (docs/soundness/relaxation.md).
"""

from collections.abc import Callable
from fractions import Fraction
from typing import NamedTuple

from mechverify.kernel.core.arithmetic import Arithmetic, Ball
from mechverify.kernel.core.loading import Rows

Bend = Callable[[Arithmetic, Ball, Ball, Ball, Ball], tuple[Ball, Ball]]


INFINITY = float("inf")
FAR, MOST, LEAST = 2.0**1000, (2 - 2.0**-52) * 2.0**1023, 2.0**-1022


class Function(NamedTuple):
    """`value` encloses f on balls. `bend(ar, p, q, f(p), f(q))`: balls whose lower and upper ends bound f'' on (p, q),
    the breakpoint apart. `increasing`: 1 or -1 where f is monotone, else 0. `breakpoint`: the derivative jumps at
    zero. `positive`: defined for positive numbers alone; `root`: and for zero. `even`: f(-x) = f(x), and f increases
    from zero on. `least` and `most`: between these lies every value. `reach`: from and up to where `value` is asked;
    beyond, monotony and these two say what is known."""

    value: Callable[[Arithmetic, Ball], Ball]
    bend: Bend
    increasing: int = 0
    breakpoint: bool = False
    positive: bool = False
    root: bool = False
    even: bool = False
    least: float = -INFINITY
    most: float = INFINITY
    reach: tuple[float, float] = (-FAR, FAR)


def rational(ar: Arithmetic, p: int | Fraction, q: int = 1) -> Ball:
    return ar.rational(Fraction(p, q))


def within(low: Fraction | int, high: Fraction | int) -> Bend:
    return lambda ar, p, q, fp, fq: (rational(ar, low), rational(ar, high))


def monotone(bend: Callable[[Arithmetic, Ball], Ball], rising: bool) -> Bend:
    """f'' is a monotone function `bend` of f(x)."""

    def ends(ar: Arithmetic, p: Ball, q: Ball, fp: Ball, fq: Ball) -> tuple[Ball, Ball]:
        a, b = bend(ar, fp), bend(ar, fq)
        return (a, b) if rising else (b, a)

    return ends


# By the modules that hold their rows.
GROUPS = {
    "piecewise": ("relu", "abs"),
    "exponential": ("exp",),
    "logarithms": ("log", "softplus"),
    "roots": ("sqrt", "rsqrt", "reciprocal"),
    "sigmoids": ("tanh", "sigmoid", "erf", "atan", "gelu", "gelu_tanh", "silu"),
    "waves": ("sin", "cos"),
}
FUNCTIONS: Rows[Function] = Rows("core.functions", GROUPS)
