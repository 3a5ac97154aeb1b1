"""Functions of straight pieces."""

from mechverify.kernel.core.arithmetic import Arithmetic, Ball
from mechverify.kernel.core.functions import MOST, Function, within


def relu(ar: Arithmetic, x: Ball) -> Ball:
    return Ball(x.mid * (x.mid > 0), x.rad, x.exponent)  # 1-Lipschitz: the radius stays


def absolute(ar: Arithmetic, x: Ball) -> Ball:
    return Ball(x.mid * (x.mid > 0) - x.mid * (x.mid < 0), x.rad, x.exponent)


ROWS = {
    "relu": Function(
        relu,
        within(0, 0),
        increasing=1,
        breakpoint=True,
        least=0.0,
        reach=(-MOST, MOST),
    ),
    "abs": Function(
        absolute,
        within(0, 0),
        breakpoint=True,
        even=True,
        least=0.0,
        reach=(-MOST, MOST),
    ),
}
