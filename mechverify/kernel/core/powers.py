"""Powers with whole exponents.

Lemma L4 (docs/soundness/relaxation.md).
"""

from collections.abc import Callable
from fractions import Fraction
from functools import partial, reduce

from mechverify.kernel.core.arithmetic import Arithmetic, Ball
from mechverify.kernel.core.functions import Function, rational


def power(ar: Arithmetic, x: Ball, n: int) -> Ball:
    return reduce(ar.mul, [x] * n)


def times(factor: Fraction, n: int) -> Callable[[Arithmetic, Ball], Ball]:
    return lambda ar, f: ar.mul(ar.rational(factor), power(ar, f, n))


def power_of(n: int) -> Function:
    """x^n; its bend n (n-1) x^(n-2) is monotone on either side of zero."""

    def bend(ar: Arithmetic, p: Ball, q: Ball, fp: Ball, fq: Ball) -> tuple[Ball, Ball]:
        if n == 2:
            return rational(ar, 2), rational(ar, 2)
        factor = rational(ar, n * (n - 1))
        a, b = (ar.mul(factor, power(ar, x, n - 2)) for x in (p, q))
        if n % 2:
            return a, b
        left = ar.upper(q) <= 0
        right = ar.lower(p) >= 0
        least = ar.where(left, b, ar.where(right, a, rational(ar, 0)))
        nearer = ar.upper(ar.add(p, q)) <= 0  # q is nearer to zero
        return least, ar.where(nearer, a, b)

    if n % 2:
        return Function(partial(power, n=n), bend, 1)
    return Function(partial(power, n=n), bend, even=True, least=0.0)
