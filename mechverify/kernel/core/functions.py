"""Elementwise functions of a model: how to enclose a value, and how far the function bends.

The bend (second derivative) is all that a linear bound needs to know of a function: relaxation/lines.py turns it into
lines with proved offsets. A new function is one row here and one in lemma L4.

Lemmas L2, L4 (docs/soundness/relaxation.md).
"""

from collections.abc import Callable
from fractions import Fraction
from functools import partial, reduce
from typing import NamedTuple

from mechverify.kernel.core import elementary
from mechverify.kernel.core.arithmetic import Arithmetic, Ball

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


def _q(ar: Arithmetic, p: int | Fraction, q: int = 1) -> Ball:
    return ar.rational(Fraction(p, q))


def power(ar: Arithmetic, x: Ball, n: int) -> Ball:
    return reduce(ar.mul, [x] * n)


def relu(ar: Arithmetic, x: Ball) -> Ball:
    return Ball(x.mid * (x.mid > 0), x.rad, x.exponent)  # 1-Lipschitz: the radius stays


def absolute(ar: Arithmetic, x: Ball) -> Ball:
    return Ball(x.mid * (x.mid > 0) - x.mid * (x.mid < 0), x.rad, x.exponent)


def sigmoid(ar: Arithmetic, x: Ball) -> Ball:
    """(1 + tanh(x / 2)) / 2."""
    half = _q(ar, 1, 2)
    inner = elementary.tanh(ar, ar.mul(half, x))
    return ar.add(half, ar.mul(half, inner))


def softplus(ar: Arithmetic, x: Ball) -> Ball:
    """max(x, 0) + log(1 + e^-|x|); 1-Lipschitz."""
    point = x.point
    power = elementary.exp(ar, -absolute(ar, point))
    tail = elementary.log(ar, ar.add(_q(ar, 1), power))
    about_zero = x._replace(mid=x.mid * 0)
    return ar.widen(ar.add(relu(ar, point), tail), 1.0, of=about_zero)


def gelu(ar: Arithmetic, x: Ball) -> Ball:
    """x Phi(x); its slope Phi(x) + x phi(x) is greatest at sqrt(2), 1.129 there, and at -x one minus that at x."""
    point, root = x.point, ar.sqrt(_q(ar, 2))
    inner = elementary.erf(ar, ar.div(point, root))
    return ar.widen(_half_of(ar, point, inner), 1.13, of=x._replace(mid=x.mid * 0))


def _half_of(ar: Arithmetic, x: Ball, inner: Ball) -> Ball:
    """x (1 + inner) / 2."""
    half = ar.mul(_q(ar, 1, 2), x)
    return ar.mul(half, ar.add(_q(ar, 1), inner))


def gelu_tanh(ar: Arithmetic, x: Ball) -> Ball:
    """x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))) / 2."""
    cubed = ar.mul(_q(ar, 44715, 10**6), power(ar, x, 3))
    scale = ar.sqrt(ar.div(_q(ar, 2), elementary.pi(ar)))
    inner = elementary.tanh(ar, ar.mul(scale, ar.add(x, cubed)))
    return _half_of(ar, x, inner)


def silu(ar: Arithmetic, x: Ball) -> Ball:
    return ar.mul(x, sigmoid(ar, x))


def rsqrt(ar: Arithmetic, x: Ball) -> Ball:
    return elementary.reciprocal(ar, ar.sqrt(x))


def _within(low: Fraction | int, high: Fraction | int) -> Bend:
    return lambda ar, p, q, fp, fq: (_q(ar, low), _q(ar, high))


def _monotone(bend: Callable[[Arithmetic, Ball], Ball], rising: bool) -> Bend:
    """f'' is a monotone function `bend` of f(x)."""

    def ends(ar: Arithmetic, p: Ball, q: Ball, fp: Ball, fq: Ball) -> tuple[Ball, Ball]:
        a, b = bend(ar, fp), bend(ar, fq)
        return (a, b) if rising else (b, a)

    return ends


def _odd(size: Fraction) -> Bend:
    """0 <= f'' <= size up to zero, 0 >= f'' >= -size beyond."""

    def bend(ar: Arithmetic, p: Ball, q: Ball, fp: Ball, fq: Ball) -> tuple[Ball, Ball]:
        zero = _q(ar, 0)
        most = ar.rational(size)
        low = ar.where(ar.upper(q) <= 0, zero, -most)
        high = ar.where(ar.lower(p) >= 0, zero, most)
        return low, high

    return bend


def _even(edge: Fraction, middle: Fraction, outside: Fraction) -> Bend:
    """0 <= f'' <= middle on [-edge', edge'] and 0 >= f'' >= -outside elsewhere, for an edge' within 2^-10 of `edge`."""
    inner = edge - Fraction(1, 2**10)
    outer = edge + Fraction(1, 2**10)

    def bend(ar: Arithmetic, p: Ball, q: Ball, fp: Ball, fq: Ball) -> tuple[Ball, Ball]:
        zero = _q(ar, 0)
        inside = _below(ar, -inner, p) & _below(ar, q, inner)
        beyond = _below(ar, outer, p) | _below(ar, q, -outer)
        low = ar.where(inside, zero, -ar.rational(outside))
        high = ar.where(beyond, zero, ar.rational(middle))
        return low, high

    return bend


def _below(ar: Arithmetic, a: Ball | Fraction, b: Ball | Fraction):
    a, b = (ar.rational(v) if isinstance(v, Fraction) else v for v in (a, b))
    return ar.lower(ar.sub(b, a)) >= 0


def _wave(ar: Arithmetic, p: Ball, q: Ball, fp: Ball, fq: Ball) -> tuple[Ball, Ball]:
    """f'' = -f, which changes by at most q - p."""
    width = ar.sub(q, p).size
    return ar.sub(-fp, width), ar.add(-fp, width)


def _bend_of_log(ar: Arithmetic, p: Ball, q: Ball, fp: Ball, fq: Ball) -> tuple[Ball, Ball]:
    """f'' = -1 / x^2, which increases."""
    low, high = (-ar.div(_q(ar, 1), ar.mul(x, x)) for x in (p, q))
    return low, high


def power_of(n: int) -> Function:
    """x^n; its bend n (n-1) x^(n-2) is monotone on either side of zero."""

    def bend(ar: Arithmetic, p: Ball, q: Ball, fp: Ball, fq: Ball) -> tuple[Ball, Ball]:
        if n == 2:
            return _q(ar, 2), _q(ar, 2)
        factor = _q(ar, n * (n - 1))
        a, b = (ar.mul(factor, power(ar, x, n - 2)) for x in (p, q))
        if n % 2:
            return a, b
        left = ar.upper(q) <= 0
        right = ar.lower(p) >= 0
        least = ar.where(left, b, ar.where(right, a, _q(ar, 0)))
        nearer = ar.upper(ar.add(p, q)) <= 0  # q is nearer to zero
        return least, ar.where(nearer, a, b)

    if n % 2:
        return Function(partial(power, n=n), bend, 1)
    return Function(partial(power, n=n), bend, even=True, least=0.0)


def _times(factor: Fraction, n: int) -> Callable[[Arithmetic, Ball], Ball]:
    return lambda ar, f: ar.mul(ar.rational(factor), power(ar, f, n))


def _bend_of_sqrt(ar: Arithmetic, f: Ball) -> Ball:
    return -ar.div(_q(ar, 1, 4), power(ar, f, 3))


FUNCTIONS: dict[str, Function] = {
    "relu": Function(
        relu,
        _within(0, 0),
        increasing=1,
        breakpoint=True,
        least=0.0,
        reach=(-MOST, MOST),
    ),
    "abs": Function(
        absolute,
        _within(0, 0),
        breakpoint=True,
        even=True,
        least=0.0,
        reach=(-MOST, MOST),
    ),
    "exp": Function(
        elementary.exp,
        _monotone(lambda ar, f: f, rising=True),
        increasing=1,
        least=0.0,
        reach=(-745.0, 709.78),
    ),
    "log": Function(
        elementary.log,
        _bend_of_log,
        increasing=1,
        positive=True,
        reach=(LEAST, MOST),
    ),
    "sqrt": Function(
        elementary.sqrt,
        _monotone(_bend_of_sqrt, rising=True),
        increasing=1,
        root=True,
        least=0.0,
        reach=(LEAST, MOST),
    ),
    "rsqrt": Function(
        rsqrt,
        _monotone(_times(Fraction(3, 4), 5), rising=False),
        increasing=-1,
        positive=True,
        least=0.0,
        reach=(LEAST, MOST),
    ),
    "reciprocal": Function(
        elementary.reciprocal,
        _monotone(_times(Fraction(2), 3), rising=False),
        increasing=-1,
        positive=True,
        least=0.0,
        reach=(LEAST, MOST),
    ),
    "tanh": Function(
        elementary.tanh,
        _odd(Fraction(77, 100)),
        increasing=1,
        least=-1.0,
        most=1.0,
    ),
    "sigmoid": Function(
        sigmoid,
        _odd(Fraction(963, 10_000)),
        increasing=1,
        least=0.0,
        most=1.0,
    ),
    "erf": Function(
        elementary.erf,
        _odd(Fraction(97, 100)),
        increasing=1,
        least=-1.0,
        most=1.0,
    ),
    "softplus": Function(
        softplus,
        _within(0, Fraction(1, 4)),
        increasing=1,
        least=0.0,
    ),
    "gelu": Function(
        gelu,
        _even(Fraction(14142, 10_000), Fraction(798, 1_000), Fraction(108, 1_000)),
        least=-0.16998,
    ),
    "gelu_tanh": Function(
        gelu_tanh,
        _within(Fraction(-11, 100), Fraction(80, 100)),
        least=-0.17005,
        reach=(-(2.0**300), 2.0**300),
    ),
    "silu": Function(
        silu,
        _even(Fraction(23994, 10_000), Fraction(1, 2), Fraction(4, 100)),
        least=-0.27847,
    ),
    "sin": Function(elementary.sin, _wave, least=-1.0, most=1.0),
    "cos": Function(elementary.cos, _wave, least=-1.0, most=1.0),
}
