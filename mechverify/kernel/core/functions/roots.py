"""Roots and quotients."""

from fractions import Fraction

from mechverify.kernel.core.arithmetic import Arithmetic, Ball
from mechverify.kernel.core.functions import LEAST, MOST, Function, monotone, rational
from mechverify.kernel.core.powers import power, times


def reciprocal(ar: Arithmetic, x: Ball) -> Ball:
    return ar.div(rational(ar, 1), x)


def sqrt(ar: Arithmetic, x: Ball) -> Ball:
    return ar.sqrt(x)


def rsqrt(ar: Arithmetic, x: Ball) -> Ball:
    return reciprocal(ar, ar.sqrt(x))


def _bend_of_sqrt(ar: Arithmetic, f: Ball) -> Ball:
    return -ar.div(rational(ar, 1, 4), power(ar, f, 3))


ROWS = {
    "sqrt": Function(
        sqrt,
        monotone(_bend_of_sqrt, rising=True),
        increasing=1,
        root=True,
        least=0.0,
        reach=(LEAST, MOST),
    ),
    "rsqrt": Function(
        rsqrt,
        monotone(times(Fraction(3, 4), 5), rising=False),
        increasing=-1,
        positive=True,
        least=0.0,
        reach=(LEAST, MOST),
    ),
    "reciprocal": Function(
        reciprocal,
        monotone(times(Fraction(2), 3), rising=False),
        increasing=-1,
        positive=True,
        least=0.0,
        reach=(LEAST, MOST),
    ),
}
