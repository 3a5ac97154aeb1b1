"""How claims, models and domains show themselves in a notebook: a line, and a table.

What is printed of a theorem is the kernel's own; this is what the user said, before anything is proved.
"""

from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import sympy

from mechverify.graph.messages import short
from mechverify.verdict import Rows, table

WIDTH, NAMED = 160, 12  # characters of a line; sites of a model that are named


class Shown:
    """A subclass says what it is, as `described` gives it, (label, text); the first one names it."""

    def described(self) -> Rows:
        raise NotImplementedError

    def __repr__(self) -> str:
        (_, first), *rest = self.described()
        said = "; ".join(f"{label} {text}" for label, text in rest)
        return f"<{short(f'{first}; {said}' if said else first, WIDTH)}>"

    def _repr_html_(self) -> str:
        return table(self.described())


def said(value: Any) -> str:
    """A site, an expression, or a list of them."""
    if isinstance(value, Sequence) and not isinstance(value, str):
        inner = ", ".join(map(said, value))
        return f"[{inner}]" if len(value) > 1 else inner
    name, position = getattr(value, "name", None), getattr(value, "position", None)
    if name is None or isinstance(value, sympy.Basic):
        return str(value)
    return f"{name}[{position}]" if position is not None else str(name)


def sites(names: Sequence[str]) -> str:
    more = f", ... ({len(names)} in all)" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more


def threshold(least: Any, most: Any) -> str:
    """Of bounds: numbers, or lists of one for each entry."""
    ends = ("at least", least), ("at most", most)
    told = [f"{word} {_alike(end)}" for word, end in ends if end is not None]
    return " and ".join(told) or "the best that can be proved"


def _alike(values: Sequence) -> str:
    if len(set(values)) == 1:
        return str(values[0])
    return short([*map(str, values)])


def of_all(share: Fraction | None) -> str:
    """Of inputs: so many of them."""
    return "as many as can be proved of" if share is None else f"at least {share} of"
