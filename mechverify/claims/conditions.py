"""What claims are given: entries, expressions and conditions, one or several."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import sympy
from sympy.core.relational import Relational
from sympy.logic import boolalg

from mechverify.claims.domain import Tokens
from mechverify.claims.errors import ClaimError, here
from mechverify.claims.mechanisms import compile_mechanism
from mechverify.claims.model import CapturedModel, Entry, Site
from mechverify.graph.messages import short


def entries(value) -> list[Any]:
    """A site's entries in row-major order, or expressions: one, or as nested lists and arrays hold them."""
    if isinstance(value, Site):
        if not isinstance(value.model, CapturedModel):
            raise ClaimError(
                f"{value.name}: a claim about sites needs a captured module"
            )
        first = () if value.position is None else (value.position,)
        return [value.entry((*first, *index)) for index in np.ndindex(*value.shape)]
    value = listed(value)
    if isinstance(value, Iterable) and not isinstance(value, str):
        return [entry for v in value for entry in entries(v)]
    return [sympy.sympify(value)]


def listed(value):
    """An array of numpy, torch or sympy as nested lists."""
    return value.tolist() if hasattr(value, "tolist") else value


def conditions(name: str, value) -> list[Any]:
    """A condition or several. Python compares `a == b` and `a != b` at once, which leaves nothing of them to prove."""
    found = entries(value)
    for i, condition in enumerate(found):
        if condition in (sympy.true, sympy.false):
            hint = "write Eq(a, b) for a == b, and Ne(a, b) for a != b"
            raise ClaimError(
                f"{here()}{name}, number {i + 1}, is just {condition}, whatever the input; {hint}"
            )
    return found


def conjunction(name: str, value) -> sympy.Basic:
    """A condition, or several that hold together, as one."""
    parts = conditions(name, value)
    for part in parts:
        if not isinstance(
            part, Relational | boolalg.BooleanFunction | boolalg.BooleanAtom
        ):
            raise ClaimError(
                f"{here()}{name}: {short(part)} is no condition; say >, Eq, And, ..."
            )
    return parts[0] if len(parts) == 1 else boolalg.And(*parts)


def guard(given, over: Tokens) -> list[list]:
    """Rows of what `given` says of the tokens; none if it says nothing."""
    if not entries(given):
        return []
    condition = conjunction("given", given)
    if condition.atoms(Entry):
        what = "given= of a claim that counts takes conditions on tokens, whose number is known exactly"
        raise ClaimError(
            f"{here()}{what}; put those on the model's values into the claim: Share(And(..), ..)"
        )
    return compile_mechanism(condition, over)
