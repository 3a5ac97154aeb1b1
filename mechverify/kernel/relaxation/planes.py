"""Planes that bound products of two values that depend on the input.

Lemma L6 (docs/soundness/relaxation.md).
"""

from fractions import Fraction
from typing import TYPE_CHECKING

from mechverify.kernel.core.arithmetic import Arithmetic, Ball
from mechverify.kernel.core.errors import Rejected
from mechverify.kernel.relaxation.operations import Forms

if TYPE_CHECKING:
    from mechverify.kernel.relaxation.backward import Relaxed


def plane(
    ar: Arithmetic, x: Ball, y: Ball, mix: Ball, upper: bool
) -> tuple[Ball, Ball, Ball]:
    """Coefficients (a, b, c) with a x + b y + c <= x y (upper: >=) on the box of x and y (McCormick 1976): a mixture,
    by points `mix` in [0, 1], of the two planes that touch at opposite corners."""
    one = ar.rational(Fraction(1))
    if not ((mix.mid >= 0) & (mix.mid <= 1)).all():
        raise Rejected("a mixture of planes lies outside [0, 1]")
    (xl, xu), (yl, yu) = (
        [ar.exact(ar.lower(b)), ar.exact(ar.upper(b))] for b in (x, y)
    )
    first, second = ((xl, yu), (xu, yl)) if upper else ((xl, yl), (xu, yu))
    rest = ar.sub(one, mix)

    def mixed(at_first: Ball, at_second: Ball) -> Ball:
        return ar.add(ar.mul(rest, at_first), ar.mul(mix, at_second))

    slope_x = mixed(
        first[1], second[1]
    )  # the plane that touches at (p, q) is q x + p y - p q
    slope_y = mixed(first[0], second[0])
    constant = mixed(ar.mul(*first), ar.mul(*second))
    return slope_x, slope_y, -constant


def through(known: "Relaxed", start: int, n: int, k: Ball) -> tuple[Forms, Ball]:
    """By mixtures of planes of a witness, or the default ones."""
    ar, operands = known.ar, known.graph.nodes[n].args
    balls = [known.balls[a].at[:, None] for a in operands]
    finite = known.known_balls(*balls)
    x, y = (ar.where(finite, b, ar.rational(Fraction(0))) for b in balls)
    given = known.lines.choose(known, start, n)
    mixes = (
        [ar.rational(m) for m in default_mixes(known, n)]
        if given is None
        else [ar.exact(a) for a in given]
    )
    narrow = (
        known.balls[n].rad[:, None] < x.rad * y.rad
    )  # then it beats a plane over a wide box
    planes = [
        known.levelled(n, list(plane(ar, x, y, mix, upper)), upper, finite & ~narrow)
        for mix, upper in zip(mixes, (False, True), strict=True)
    ]
    forms, total = known.bent(n, k, planes)
    return list(zip(operands, forms, strict=True)), total


def default_mixes(known: "Relaxed", n: int) -> tuple[Fraction, Fraction]:
    """Any mixture is sound. The planes below and above are parallel in the operand that is nearer to being
    linear, so that what it has in common with other terms isn't lost."""
    x, y = (known.depth[a] for a in known.graph.nodes[n].args)
    half = Fraction(1, 2)
    return (half, half) if x == y else (Fraction(0), Fraction(int(x < y)))
