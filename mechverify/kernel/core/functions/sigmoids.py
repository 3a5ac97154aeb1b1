"""Functions that level off, and x times such ones."""

from fractions import Fraction

from mechverify.kernel.core import elementary
from mechverify.kernel.core.arithmetic import Arithmetic, Ball
from mechverify.kernel.core.functions import Bend, Function, rational, within
from mechverify.kernel.core.powers import power


def sigmoid(ar: Arithmetic, x: Ball) -> Ball:
    """(1 + tanh(x / 2)) / 2."""
    half = rational(ar, 1, 2)
    inner = elementary.tanh(ar, ar.mul(half, x))
    return ar.add(half, ar.mul(half, inner))


def gelu(ar: Arithmetic, x: Ball) -> Ball:
    """x Phi(x); its slope Phi(x) + x phi(x) is greatest at sqrt(2), 1.129 there, and at -x one minus that at x."""
    point, root = x.point, ar.sqrt(rational(ar, 2))
    inner = elementary.erf(ar, ar.div(point, root))
    return ar.widen(_half_of(ar, point, inner), 1.13, of=x._replace(mid=x.mid * 0))


def _half_of(ar: Arithmetic, x: Ball, inner: Ball) -> Ball:
    """x (1 + inner) / 2."""
    half = ar.mul(rational(ar, 1, 2), x)
    return ar.mul(half, ar.add(rational(ar, 1), inner))


def gelu_tanh(ar: Arithmetic, x: Ball) -> Ball:
    """x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))) / 2."""
    cubed = ar.mul(rational(ar, 44715, 10**6), power(ar, x, 3))
    scale = ar.sqrt(ar.div(rational(ar, 2), elementary.pi(ar)))
    inner = elementary.tanh(ar, ar.mul(scale, ar.add(x, cubed)))
    return _half_of(ar, x, inner)


def silu(ar: Arithmetic, x: Ball) -> Ball:
    return ar.mul(x, sigmoid(ar, x))


def _odd(size: Fraction) -> Bend:
    """0 <= f'' <= size up to zero, 0 >= f'' >= -size beyond."""

    def bend(ar: Arithmetic, p: Ball, q: Ball, fp: Ball, fq: Ball) -> tuple[Ball, Ball]:
        zero = rational(ar, 0)
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
        zero = rational(ar, 0)
        inside = _below(ar, -inner, p) & _below(ar, q, inner)
        beyond = _below(ar, outer, p) | _below(ar, q, -outer)
        low = ar.where(inside, zero, -ar.rational(outside))
        high = ar.where(beyond, zero, ar.rational(middle))
        return low, high

    return bend


def _below(ar: Arithmetic, a: Ball | Fraction, b: Ball | Fraction):
    a, b = (ar.rational(v) if isinstance(v, Fraction) else v for v in (a, b))
    return ar.lower(ar.sub(b, a)) >= 0


ROWS = {
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
    "atan": Function(
        elementary.atan,
        _odd(Fraction(65, 100)),
        increasing=1,
        least=-1.5708,
        most=1.5708,
    ),
    "gelu": Function(
        gelu,
        _even(Fraction(14142, 10_000), Fraction(798, 1_000), Fraction(108, 1_000)),
        least=-0.16998,
    ),
    "gelu_tanh": Function(
        gelu_tanh,
        within(Fraction(-11, 100), Fraction(80, 100)),
        least=-0.17005,
        reach=(-(2.0**300), 2.0**300),
    ),
    "silu": Function(
        silu,
        _even(Fraction(23994, 10_000), Fraction(1, 2), Fraction(4, 100)),
        least=-0.27847,
    ),
}
