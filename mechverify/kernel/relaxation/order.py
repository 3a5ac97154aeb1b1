"""Largest entries, and entries in order, as differences of ReLUs; and choices by the sign of a difference.

max(x, y) = x + relu(y - x), in halves. In order: of two entries the smaller one is x - relu(x - y), the larger one
y + relu(x - y); Batcher's merge exchange (Knuth, The Art of Computer Programming, volume 3, 5.2.2, algorithm M) says
which two, about n (log2 n)^2 / 4 times.

Lemma L16 (docs/soundness/relaxation.md).
"""

from collections.abc import Iterator
from math import prod
from typing import TYPE_CHECKING

from mechverify.kernel.core.operations import Node

if TYPE_CHECKING:
    from mechverify.kernel.relaxation.rewriting import Steps


def extremum(steps: "Steps", node: Node, args: list[int]) -> int:
    (x,), stage = args, 0
    while (n := steps.graph.nodes[x].shape[-1]) > 1:
        first, second = (_part(steps, x, start, n // 2) for start in (0, n // 2))
        both = _extreme(steps, node.attr, first, second, stage)
        rest = [_part(steps, x, n - 1, 1)] if n % 2 else []
        axis = len(node.shape)
        x = steps.add("concat", both, *rest, attr=axis) if rest else both
        stage += 1
    return steps.add("view", x, attr=_flat(node.shape))


def ascending(steps: "Steps", node: Node, args: list[int]) -> int:
    (x,), n = args, node.shape[-1]
    entries = [_part(steps, x, i, 1) for i in range(n)]
    for k, (i, j) in enumerate(exchanges(n)):
        first, second = entries[i], entries[j]
        more = steps.add("sub", first, second, role=_role("difference", k))
        more = steps.add("relu", more, role=_role("excess", k))
        entries[i] = steps.add("sub", first, more)
        entries[j] = steps.add("add", second, more)
    return steps.add("concat", *entries, attr=len(node.shape) - 1)


def choose(steps: "Steps", node: Node, args: list[int]) -> int:
    x, y, above, other = (steps.expanded(a, node.shape) for a in args)
    difference = steps.add("sub", x, y, role="difference")
    zero = steps.add("constant", attr=((), (0.0,)))
    return steps.add("choose", difference, zero, above, other)


def exchanges(n: int) -> Iterator[tuple[int, int]]:
    """Pairs i < j of entries that are put in order, one after another, until all are."""
    step = first = 1 << max(0, (n - 1).bit_length() - 1)
    while step:
        width, rest, apart = first, 0, step
        while True:
            yield from ((i, i + apart) for i in range(n - apart) if i & step == rest)
            if width == step:
                break
            apart, width, rest = width - step, width // 2, step
        step //= 2


def _extreme(steps: "Steps", which: str, x: int, y: int, stage: int) -> int:
    first, second = (y, x) if which == "max" else (x, y)
    difference = steps.add("sub", first, second, role=_role("difference", stage))
    more = steps.add("relu", difference, role=_role("excess", stage))
    return steps.add("add" if which == "max" else "sub", x, more)


def _part(steps: "Steps", x: int, start: int, size: int) -> int:
    """Entries of the last axis."""
    shape = (*steps.graph.nodes[x].shape[:-1], size)
    strides = _flat(steps.graph.nodes[x].shape)[2]
    return steps.add("view", x, attr=(shape, start, strides))


def _flat(shape: tuple[int, ...]) -> tuple:
    return shape, 0, tuple(prod(shape[i + 1 :]) for i in range(len(shape)))


def _role(word: str, number: int) -> str:
    """Files name what is within the rewriting by letters alone: a for the first."""
    letters = ""
    while number >= 0:
        letters = chr(ord("a") + number % 26) + letters
        number = number // 26 - 1
    return word + letters


ROWS = {"extremum": extremum, "ascending": ascending, "choose": choose}
