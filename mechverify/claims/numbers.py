"""Numbers as the user gives them, exactly: text, fractions and sympy's rationals as they say, and a machine number (of
Python, numpy, torch or sympy) as the number that it holds, whatever it stands in."""

import numbers
import re
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import sympy

DIGITS = 400  # of a numerator or denominator: what a certificate holds


def number(value: Any) -> Fraction:
    """Raises ValueError for what is no finite rational number."""
    if hasattr(value, "detach"):  # torch's
        value = value.detach().cpu().item()
    if isinstance(value, np.ndarray) and value.ndim == 0:
        value = value[()]
    try:
        found = _exactly(value)
    except (TypeError, ValueError, ZeroDivisionError, OverflowError):
        raise ValueError(f"{value!r:.60} is not a number that is finite") from None
    if max(abs(found.numerator), found.denominator) >= 10**DIGITS:
        raise ValueError(f"{value!r:.60} has more than {DIGITS} digits")
    return found


def _exactly(value: Any) -> Fraction:
    match value:
        case str():
            if len(value) > 3 * DIGITS or re.search(r"e[+-]?\d{4}", value.lower()):
                raise ValueError(value)
            return Fraction(value)
        case float() | Decimal() | numbers.Rational():
            return Fraction(value)
        case np.integer():
            return Fraction(int(value))
        case np.floating():
            return Fraction(*value.as_integer_ratio())
        case sympy.Rational():
            return Fraction(int(value.p), int(value.q))
        case sympy.Float():
            sign, digits, exponent, _ = value._mpf_
            if (not digits and exponent) or abs(
                exponent
            ) > 10 * DIGITS:  # infinite or NaN, or too long
                raise ValueError(value)
            return (-1) ** sign * int(digits) * Fraction(2) ** int(exponent)
    raise TypeError(value)


def difference(a: sympy.Expr, b: sympy.Expr) -> sympy.Expr:
    """a - b, exactly: sympy rounds a float and a fraction that meet."""
    plain, exact = a - b, rational(a) - rational(b)
    return plain if rational(plain) == exact else exact


def rational(e: sympy.Expr) -> sympy.Expr:
    """The same with floats as the fractions that they are."""
    floats = [f for f in e.atoms(sympy.Float) if f.is_finite]
    exact: Any = e.xreplace(
        {f: sympy.Rational(*number(f).as_integer_ratio()) for f in floats}
    )
    return exact


def array(value: Any) -> np.ndarray:
    """Nested lists, an array of any library, or one number: float64 where that holds all of them, else Fractions.
    Raises ValueError."""
    raw = _nested(value)
    if (raw.dtype.kind == "f" and raw.itemsize <= 8) or (
        raw.dtype.kind in "iu" and raw.itemsize <= 4
    ):
        if not np.isfinite(raw).all():
            raise ValueError(f"{value!r:.60} holds something that is not finite")
        return raw.astype(np.float64)
    result = np.empty(raw.shape, object)
    result.ravel()[:] = [number(v) for v in raw.ravel()]
    return result


def _nested(value: Any) -> np.ndarray:
    if hasattr(value, "detach"):
        value = value.detach().cpu()
        return (value.double() if value.is_floating_point() else value).numpy()
    if isinstance(value, np.ndarray):
        return value
    if not isinstance(value, list | tuple):
        result = np.empty((), object)
        result[()] = value
        return result
    parts = [_nested(v) for v in value]
    if len({p.shape for p in parts}) > 1:
        raise ValueError(f"{value!r:.60} holds rows of different lengths")
    result = np.empty((len(parts), *(parts[0].shape if parts else ())), object)
    for i, part in enumerate(parts):
        result[i] = part if part.ndim else part[()]
    return result
