"""Comparisons of values that depend on the input, and what is made of them: rows of the lowering table.

A truth value is the number 1 or 0. Which of two numbers is larger decides it, as it decides `where`.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from mechverify.graph import arithmetic, reductions
from mechverify.graph.attention import embedding
from mechverify.graph.build import Builder, NotLowered, Operand, Value

MASK = "minus infinity where the input decides: multiply what exp gives by the mask instead"
WHOLE = "a bitwise operation on integers: only truth values are known"


def chosen(b: Builder, x: Operand, y: Operand, above: Operand, other: Operand) -> Value:
    """`above` where x > y, `other` where x <= y."""
    return b.elementwise("choose", x, y, above, other)


def truth(b: Builder, value: Value) -> Value:
    b.truths.add(value.node)
    return value


def more(b: Builder, x: Operand, y: Operand) -> Value:
    return truth(b, chosen(b, x, y, 1.0, 0.0))


def at_most(b: Builder, x: Operand, y: Operand) -> Value:
    return truth(b, chosen(b, x, y, 0.0, 1.0))


def differs(b: Builder, x: Operand, y: Operand) -> Value:
    return truth(b, chosen(b, x, y, 1.0, more(b, y, x)))


def equals(b: Builder, x: Operand, y: Operand) -> Value:
    return truth(b, chosen(b, x, y, 0.0, at_most(b, y, x)))


def turned(row: Callable) -> Callable:
    return lambda b, x, y: row(b, y, x)


def truth_of(b: Builder, ids: Value) -> Value:
    """What the token ids have become, if it isn't zero."""
    assert ids.table is not None
    return truth(b, embedding(b, (ids.table != 0).double(), Value(ids.node)))


def holds(b: Builder, x: Operand) -> Operand:
    """What torch takes a number for: true unless it is zero."""
    if not isinstance(x, Value):
        return (torch.as_tensor(x) != 0).double()
    if b.graph.nodes[x.node].kind == "ids" and x.table is not None:
        return truth_of(b, x)
    return x if x.node in b.truths else differs(b, x, 0.0)


def negation(b: Builder, x: Operand) -> Value:
    return truth(b, chosen(b, holds(b, x), 0.0, 0.0, 1.0))


def both(b: Builder, x: Operand, y: Operand) -> Value:
    return truth(b, chosen(b, holds(b, x), 0.0, holds(b, y), 0.0))


def either(b: Builder, x: Operand, y: Operand) -> Value:
    return truth(b, chosen(b, holds(b, x), 0.0, 1.0, holds(b, y)))


def one_of_two(b: Builder, x: Operand, y: Operand) -> Value:
    return differs(b, holds(b, x), holds(b, y))


def bitwise(row: Callable) -> Callable:
    """Of truth values."""

    def checked(b: Builder, *xs: Operand) -> Value:
        for x in xs:
            known = isinstance(x, Value) and x.node in b.truths
            if not known and not (isinstance(x, Tensor) and x.dtype == torch.bool):
                raise NotLowered(WHOLE)
        return row(b, *xs)

    return checked


def along(which: str) -> Callable:
    """Whether any, or all, of the entries along `dim` hold."""
    reduce = reductions.reduced(reductions.extreme(which))

    def row(b: Builder, x: Operand, *rest) -> Operand:
        found = reduce(b, holds(b, x), *rest)
        return truth(b, found) if isinstance(found, Value) else found

    return row


def where(b: Builder, condition: Value | Tensor, x: Operand, y: Operand) -> Operand:
    if not isinstance(condition, Value):
        return arithmetic.where(b, condition, x, y)
    for branch in (x, y):
        if arithmetic.finite(b, branch)[1] is not None:
            raise NotLowered(MASK)
    return chosen(b, holds(b, condition), 0.0, x, y)


def masked_fill(
    b: Builder, x: Operand, mask: Value | Tensor, value: Operand
) -> Operand:
    return where(b, mask, value, x)


ROWS: dict[str, Callable] = {
    "gt": more, "lt": turned(more), "le": at_most, "ge": turned(at_most), "eq": equals, "ne": differs,
    "greater": more, "less": turned(more), "less_equal": at_most, "greater_equal": turned(at_most),
    "logical_not": negation, "logical_and": both, "logical_or": either, "logical_xor": one_of_two,
    "bitwise_not": bitwise(negation), "bitwise_and": bitwise(both), "bitwise_or": bitwise(either),
    "bitwise_xor": bitwise(one_of_two), "any": along("max"), "all": along("min"),
    "where": where, "masked_fill": masked_fill,
}  # fmt: skip
