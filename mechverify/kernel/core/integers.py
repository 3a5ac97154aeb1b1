"""Integer operations: what a mechanism is made of, one row each.

Every value knows a span (low, high) that holds it; spans stay below 2^62, so int64 arithmetic is exact.
Truth values are 0 and 1.

Lemma C3 (docs/soundness/core.md).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from mechverify.kernel.core.errors import Rejected
from mechverify.kernel.core.operations import Span

LIMIT = 2**62
LONGEST = 2**16  # a table's entries
SORTED, CONVERTED = (
    20,
    20,
)  # units of work for a number that is sorted, and for an entry of a table


class Operation(NamedTuple):
    """`arity` operands (None: one or more), of which the first `truths` are truth values; an attribute from 1 to
    `most`, or a table of integers (neither: no attribute). `merge` is associative and commutative: what is known of
    the operands read so far is a small state."""

    arity: int | None
    span: Callable[[list[Span], Any], Span]
    apply: Callable[..., np.ndarray] | None
    merge: np.ufunc | None = None
    most: int | None = None
    truths: int = 0
    table: bool = False


def _sum(spans: list[Span], _: int) -> Span:
    size = sum(max(abs(lo), abs(hi)) for lo, hi in spans)
    return (
        (sum(lo for lo, _ in spans), sum(hi for _, hi in spans))
        if size < LIMIT
        else (-LIMIT, LIMIT)
    )


def _product(spans: list[Span], _: int) -> Span:
    size, ends = 1, (1, 1)
    for lo, hi in spans:
        size = min(
            size * max(abs(lo), abs(hi), 1), LIMIT
        )  # no partial product may be larger
        corners = [a * b for a in ends for b in (lo, hi)]
        ends = min(corners), max(corners)
    return ends if size < LIMIT else (-LIMIT, LIMIT)


def _ends(low: Callable, high: Callable) -> Callable[[list[Span], Any], Span]:
    return lambda spans, _: (low(lo for lo, _ in spans), high(hi for _, hi in spans))


_hull = _ends(min, max)


def _truth(spans: list[Span], _: int) -> Span:
    return 0, 1


def _looked_up(spans: list[Span], table: tuple[int, ...]) -> Span:
    """Of the entries that the index can mean."""
    ((low, high),) = spans
    if not 0 <= low <= high < len(table):
        raise Rejected(
            f"lookup: the index reaches from {low} to {high}, the table has {len(table)} entries"
        )
    return min(table[low : high + 1]), max(table[low : high + 1])


OPERATIONS = {
    "sum": Operation(None, _sum, None, np.add),
    "product": Operation(None, _product, None, np.multiply),
    "max": Operation(None, _ends(max, max), None, np.maximum),
    "min": Operation(None, _ends(min, min), None, np.minimum),
    "and": Operation(None, _truth, None, np.minimum, truths=LIMIT),
    "or": Operation(None, _truth, None, np.maximum, truths=LIMIT),
    "kth_largest": Operation(None, _hull, None, most=8),  # counted with repetition
    "not": Operation(1, _truth, lambda k, a: 1 - a, truths=1),
    "eq": Operation(2, _truth, lambda k, a, b: (a == b).astype(np.int64)),
    "lt": Operation(2, _truth, lambda k, a, b: (a < b).astype(np.int64)),
    "le": Operation(2, _truth, lambda k, a, b: (a <= b).astype(np.int64)),
    "mod": Operation(
        1, lambda spans, k: (0, k - 1), lambda k, a: a % k, most=LIMIT - 1
    ),
    "floordiv": Operation(
        1,
        lambda spans, k: tuple(end // k for end in spans[0]),
        lambda k, a: a // k,
        most=LIMIT - 1,
    ),
    "where": Operation(
        3,
        lambda spans, k: _hull(spans[1:], k),
        lambda k, c, a, b: np.where(c == 1, a, b),
        truths=1,
    ),
    "lookup": Operation(
        1, _looked_up, lambda table, i: np.asarray(table, np.int64)[i], table=True
    ),
}
FOLDS = {name for name, operation in OPERATIONS.items() if operation.apply is None}


def span(name: str, spans: list[Span], attribute: Any) -> Span:
    """The result's span; rejects illegal operands, attributes and results."""
    if name not in OPERATIONS:
        raise Rejected(f"unknown operation {name!r}")
    operation = OPERATIONS[name]
    if (len(spans) != operation.arity) if operation.arity else not spans:
        raise Rejected(f"{name!r} with {len(spans)} operands")
    if not _belongs(
        operation, attribute, len(spans) if name == "kth_largest" else LIMIT
    ):
        raise Rejected(f"{name!r} with attribute {str(attribute)[:80]}")
    if any(lo < 0 or hi > 1 for lo, hi in spans[: operation.truths]):
        raise Rejected(f"an operand of {name!r} should be a truth value")
    result = operation.span(spans, attribute)
    if not -LIMIT < result[0] <= result[1] < LIMIT:
        raise Rejected(f"{name!r} can leave the range of 62 bits")
    return result


def _belongs(operation: Operation, attribute: Any, most: int) -> bool:
    """Whether an operation takes that attribute."""
    if operation.table:
        return type(attribute) is tuple and 0 < len(attribute) <= LONGEST
    if operation.most is None:
        return attribute is None
    return type(attribute) is int and 1 <= attribute <= min(operation.most, most)


def apply(
    name: str,
    attribute: Any,
    args: list[np.ndarray],
    token: Callable[[int], np.ndarray],
) -> np.ndarray:
    """Elementwise over int64 arrays that broadcast; `token(i)` is the integer that the token at position i means."""
    if name == "value":
        return token(attribute)
    if name == "integer":
        return np.asarray(attribute, np.int64)
    operation = OPERATIONS[name].apply
    if operation is None:
        return absorb(name, attribute, None, args)[..., -1]
    return operation(attribute, *args)


def work(name: str, attribute: Any, operands: int) -> tuple[int, int]:
    """Units that `apply` takes beside those of an operation without attribute: for each row, and for each call, which
    makes an array of a table."""
    if name == "kth_largest":
        return SORTED * (1 + attribute) * operands, 0
    return 0, CONVERTED * len(attribute) if name == "lookup" else 0


def absorb(
    name: str, attribute: Any, state: np.ndarray | None, args: list[np.ndarray]
) -> np.ndarray:
    """The state of a fold after further operands, at least one if it has none yet: int64 [..., width], the result last.

    `kth_largest` keeps the k largest so far, in descending order, padded with -2^62 (below every value)."""
    merge = OPERATIONS[name].merge
    for arg in args:
        column = np.asarray(arg)[..., None]
        if merge is not None:
            state = column if state is None else merge(state, column)
            continue
        state = np.full((1, attribute), -LIMIT) if state is None else state
        shape = np.broadcast_shapes(state.shape[:-1], column.shape[:-1])
        both = np.concatenate(
            [np.broadcast_to(a, (*shape, a.shape[-1])) for a in (state, column)], -1
        )
        state = -np.sort(-both, -1)[..., :attribute]
    assert state is not None  # `span` rejects a fold without operands
    return state
