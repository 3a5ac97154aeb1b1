"""What lies between two numbers, and lines that bound functions and products there.

Ends are raw arrays, of which some may be infinite; lines bound a function on an interval, planes a product on a box.

Lemmas L1, L2, L5, L6 (docs/soundness/relaxation.md).
"""

from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np

from mechverify.kernel.core.arithmetic import Arithmetic, Ball
from mechverify.kernel.core.errors import Unsupported
from mechverify.kernel.core.functions import Function

STEEP = 2.0**-500  # below it, what bends without end at zero gets no lines
PIECES = 8  # into which an interval is cut to bound a curved function
Ends = tuple[
    Any, Any
]  # raw arrays, of which some may be infinite: -inf below, inf above; never NaN (lemma L1)


class Curve(NamedTuple):
    """What an interval of arguments needs, once, to bound f on it by lines of any slope: points [k, *batch, *shape],
    values there, and for each piece between two points how much f may sag below, or rise above, its chords:
    `sag` >= max f'' h^2 / 2 and `rise` >= max -f'' h^2 / 2, raw arrays [k - 1, ...], not negative. Where not `known`, a
    raw array of booleans [*batch, *shape], nothing is said, and all numbers are zero."""

    points: Ball
    values: Ball
    sag: Ball
    rise: Ball
    known: Any


def curve(ar: Arithmetic, f: Function, low: Any, high: Any) -> Curve:
    """Precondition: the arguments lie between the raw arrays, of which some may be infinite. Complexity: PIECES + 1
    values an element."""
    xp = ar.xp
    _defined(f, low)
    least, most = f.reach
    known = (low >= max(least, STEEP if f.positive or f.root else least)) & (
        high <= most
    )
    low, high = (xp.where(known, end, 1.0) for end in (low, high))
    points = ar.exact(_pieces(ar, f, low, high))
    values = ar.value(f, points)
    sag, rise = (xp.maximum(a, 0 * low) for a in _sagging(ar, f, points, values))
    bottom, top = ar.ends(values)
    known = known & (xp.isfinite(sag) & xp.isfinite(rise)).all(0)
    known = known & (xp.isfinite(bottom) & xp.isfinite(top)).all(0)
    zero = ar.rational(Fraction(0))
    points, values, sag, rise = (
        ar.where(known, b, zero)
        for b in (points, values, ar.point(sag), ar.point(rise))
    )
    return Curve(points, values, sag, rise, known)


def _pieces(ar: Arithmetic, f: Function, low: Any, high: Any) -> Any:
    """Points from `low` to `high`, one after another: the breakpoint, or those that cut it into PIECES."""
    xp = ar.xp
    if f.breakpoint:
        inner = [xp.where(low > 0, low, xp.where(high < 0, high, 0 * low))]
    else:
        steps = (low + (high - low) * (k / PIECES) for k in range(1, PIECES))
        inner = [xp.minimum(xp.maximum(step, low), high) for step in steps]
    return xp.stack([low, *inner, high])


def _sagging(
    ar: Arithmetic, f: Function, points: Ball, values: Ball
) -> tuple[Any, Any]:
    """At least max f'' h^2 / 2, and max -f'' h^2 / 2, on each piece between two points."""
    p, q = _first(points), _last(points)
    lowest, highest = f.bend(ar, p, q, _first(values), _last(values))
    width = ar.sub(q, p)
    half = ar.mul(ar.mul(width, width), ar.rational(Fraction(1, 2)))
    sag, rise = ar.mul(highest, half), ar.mul(-lowest, half)
    return ar.ends(sag)[1], ar.ends(rise)[1]


def _first(x: Ball) -> Ball:
    """At the first point of each piece."""
    return x.at[:-1]


def _last(x: Ball) -> Ball:
    return x.at[1:]


def offset(ar: Arithmetic, c: Curve, slope: Ball, upper: bool) -> Ball:
    """A number b with slope x + b <= f(x) (upper: >=) on the curve's interval, for points `slope` [*batch, *shape].

    On a piece of width h where f'' <= M, g = f - slope x exceeds its chord by at least -M (x - p)(q - x) / 2; the least
    value of that parabola is min(g(p), g(q)) - (H - |g(q) - g(p)|)^2 / 4H, H = M h^2 / 2, if that bracket is positive.
    """
    xp = ar.xp
    values, sag = (-c.values, c.rise) if upper else (c.values, c.sag)
    g = ar.sub(values, ar.mul(c.points, -slope if upper else slope))
    low = ar.ends(g)[0]
    ends = ar.point(xp.minimum(low[1:], low[:-1]))
    step = ar.sub(_last(g), _first(g))
    least = ar.sub(ends, _below_ends(ar, sag, step))
    least = ar.point(xp.amin(ar.ends(least)[0], 0))
    return -least if upper else least


def _below_ends(ar: Arithmetic, sag: Ball, step: Ball) -> Ball:
    """At least (H - |step|)^2 / 4H, or zero where the bracket isn't positive; H is `sag`."""
    xp, nothing = ar.xp, 0 * step.mid
    size = step._replace(mid=xp.abs(step.mid))
    change = xp.maximum(ar.ends(size)[0], nothing)
    bracket = xp.maximum(ar.ends(ar.sub(sag, ar.point(change)))[1], nothing)
    bracket = ar.point(bracket)
    flat = ar.where(sag.mid > 0, sag, ar.rational(Fraction(1)))
    quotient = ar.div(bracket, flat)  # first: H may be subnormal
    return ar.mul(ar.mul(quotient, bracket), ar.rational(Fraction(1, 4)))


def hull(ar: Arithmetic, low: Ball, high: Ball) -> Ball:
    """A ball that holds the lower end of `low`, the upper end of `high`, and all between."""
    mid = ar.mul(ar.add(low, high), ar.rational(Fraction(1, 2))).point
    up, down = ar.sub(high, mid).size, ar.sub(mid, low).size
    reach = up._replace(mid=ar.xp.maximum(up.mid, down.mid))  # maximum keeps a NaN
    return ar.widen(mid, 1.0, of=reach)


def ball(ar: Arithmetic, low: Any, high: Any) -> Ball:
    """A ball that holds all between two raw arrays; of infinite radius where one of them is infinite."""
    xp = ar.xp
    known = xp.isfinite(low) & xp.isfinite(high)
    x = hull(ar, *(ar.exact(xp.where(known, end, 0.0)) for end in (low, high)))
    return x._replace(rad=xp.where(known, x.rad, np.inf))


def meet(ar: Arithmetic, x: Ends, y: Ends) -> Ends:
    """What lies between both."""
    return ar.xp.maximum(x[0], y[0]), ar.xp.minimum(x[1], y[1])


def total(ar: Arithmetic, x: Ends, y: Ends) -> Ends:
    """Of every sum of a number in x and one in y. What isn't negative stays so: 0 + 0 is 0."""
    (x_low, x_high), (y_low, y_high) = x, y
    low, high = ar.down(x_low + y_low), ar.up(x_high + y_high)
    positive = (x_low >= 0) & (y_low >= 0)
    negative = (x_high <= 0) & (y_high <= 0)
    return signed(ar, low, high, positive, negative)


def product(ar: Arithmetic, x: Ends, y: Ends) -> Ends:
    """Of every product of a number in x and one in y: from the corners, where 0 times infinity is 0, as an infinite end
    stands for all numbers that are large enough."""
    xp = ar.xp
    corners = xp.stack([_corner(ar, a, b) for a in x for b in y])
    least, most = xp.amin(corners, 0), xp.amax(corners, 0)
    x_positive, y_positive = x[0] >= 0, y[0] >= 0
    x_negative, y_negative = x[1] <= 0, y[1] <= 0
    positive = (x_positive & y_positive) | (x_negative & y_negative)
    negative = (x_positive & y_negative) | (x_negative & y_positive)
    return signed(ar, ar.down(least), ar.up(most), positive, negative)


def _corner(ar: Arithmetic, a: Any, b: Any) -> Any:
    """A product of two ends; NaN only where one of them is."""
    xp = ar.xp
    nothing = ((a == 0) & xp.isinf(b)) | (xp.isinf(a) & (b == 0))
    return xp.where(nothing, 0.0, a * b)


def signed(ar: Arithmetic, low: Any, high: Any, positive: Any, negative: Any) -> Ends:
    """The ends, where a value is known not to be negative, or not to be positive."""
    xp = ar.xp
    low = xp.where(positive, xp.clip(low, 0.0, None), low)
    high = xp.where(negative, xp.clip(high, None, 0.0), high)
    return low, high


def image(ar: Arithmetic, f: Function, low: Any, high: Any) -> Ends:
    """Of f on all numbers between two raw arrays. A monotone function from its ends, within its reach: beyond, it
    exceeds what it is at the reach's end, and doesn't exceed what is known of all its values."""
    xp, (least, most) = ar.xp, f.reach
    _defined(f, low)
    if f.even:
        low, high = xp.clip(xp.maximum(low, -high), 0.0, None), xp.maximum(-low, high)
    if f.increasing or f.even:
        first, last = (
            (low, high) if f.increasing >= 0 else (high, low)
        )  # where f is least, and greatest
        bottom, top = (
            ar.ends(ar.value(f, ar.exact(xp.clip(end, least, most))))
            for end in (first, last)
        )
        bottom, top = bottom[0], top[1]
        if f.increasing >= 0:
            bottom = xp.where(low < least, -np.inf, bottom)
            top = xp.where(high > most, np.inf, top)
        else:
            bottom = xp.where(high > most, -np.inf, bottom)
            top = xp.where(low < least, np.inf, top)
    else:
        c = curve(ar, f, low, high)
        flat = ar.exact(0 * c.points.mid[0])
        bottom, top = (
            ar.ends(offset(ar, c, flat, upper))[upper] for upper in (False, True)
        )
        bottom, top = xp.where(c.known, bottom, -np.inf), xp.where(c.known, top, np.inf)
    return xp.clip(bottom, f.least, None), xp.clip(top, None, f.most)


def _defined(f: Function, low: Any) -> None:
    """What is not defined is refused, whatever is known of all values of f."""
    if (f.positive and not (low > 0).all()) or (f.root and not (low >= 0).all()):
        raise Unsupported(
            "a logarithm, root or quotient of a value that the bounds don't show to be positive"
        )
