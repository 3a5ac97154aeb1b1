"""The logarithm, and what is made of it."""

from fractions import Fraction

from mechverify.kernel.core import elementary
from mechverify.kernel.core.arithmetic import Arithmetic, Ball
from mechverify.kernel.core.functions import LEAST, MOST, Function, rational, within
from mechverify.kernel.core.functions.piecewise import absolute, relu


def _bend_of_log(
    ar: Arithmetic, p: Ball, q: Ball, fp: Ball, fq: Ball
) -> tuple[Ball, Ball]:
    """f'' = -1 / x^2, which increases."""
    low, high = (-ar.div(rational(ar, 1), ar.mul(x, x)) for x in (p, q))
    return low, high


def softplus(ar: Arithmetic, x: Ball) -> Ball:
    """max(x, 0) + log(1 + e^-|x|); 1-Lipschitz."""
    point = x.point
    power = elementary.exp(ar, -absolute(ar, point))
    tail = elementary.log(ar, ar.add(rational(ar, 1), power))
    about_zero = x._replace(mid=x.mid * 0)
    return ar.widen(ar.add(relu(ar, point), tail), 1.0, of=about_zero)


ROWS = {
    "log": Function(
        elementary.log,
        _bend_of_log,
        increasing=1,
        positive=True,
        reach=(LEAST, MOST),
    ),
    "softplus": Function(
        softplus,
        within(0, Fraction(1, 4)),
        increasing=1,
        least=0.0,
    ),
}
