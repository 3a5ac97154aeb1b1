"""A softmax as functions of linear forms.

Lemma L8 (docs/soundness/relaxation.md).
"""

from math import prod
from typing import TYPE_CHECKING

import numpy as np

from mechverify.kernel.core.operations import Node
from mechverify.kernel.core.operations.softmax import kept
from mechverify.kernel.relaxation.operations import internal

if TYPE_CHECKING:
    from mechverify.kernel.relaxation.rewriting import Steps

LETTERS = "abcdefgh"  # axes before the last one


def shares(steps: "Steps", node: Node, scores: int) -> int:
    """The first form; the second is added before it, as a form meets the first one earlier on its way back."""
    mask = np.broadcast_to(kept(node), node.shape).astype(float)
    weights = _constant(steps, mask)
    if node.shape[-1] == 1:
        return weights
    second = _quotients(steps, node, scores, mask, weights)
    first = _differences(steps, node, scores, mask, weights)
    steps.shared.append((first, second))
    return first


def _quotients(
    steps: "Steps", node: Node, scores: int, mask: np.ndarray, weights: int
) -> int:
    """p_i = e_i (1 / sum_j e_j) with e_i = e^(s_i - c), for c near the mean score."""
    *rest, n = node.shape
    letters = LETTERS[: len(rest)]
    along = (
        node.shape,
        0,
        (*(prod(rest[i + 1 :]) for i in range(len(rest))), 0),
    )  # one number for each row
    share = steps.add("constant", attr=((n,), (1 / n,) * n))
    mean = steps.add("pivot", scores, share, attr=f"{letters}i,i->{letters}")
    centred = steps.add(
        "sub", scores, steps.add("view", mean, attr=along), role="centred"
    )
    e = steps.add("exp", centred, role="exponentials")
    e = e if mask.all() else steps.add("mul", e, weights, role="kept")
    total = steps.add(
        "einsum", e, steps.ones(n), attr=f"{letters}i,i->{letters}", role="sum"
    )
    quotient = steps.add(
        "view", steps.add("reciprocal", total, role="quotient"), attr=along
    )
    return steps.add("mul", e, quotient, role="second")


def _differences(
    steps: "Steps", node: Node, scores: int, mask: np.ndarray, weights: int
) -> int:
    """p_i = 1 / (1 + sum of e^(s_j - s_i) over the others), capped so that nothing overflows."""
    *rest, n = node.shape
    letters = LETTERS[: len(rest)]
    strides = [prod(node.shape[i + 1 :]) for i in range(len(rest))]
    pairs = (*rest, n, n - 1)  # [.., i, d]: i and the d-th after it, in a circle
    twice = steps.add("concat", scores, scores, attr=len(rest))
    other = steps.add("view", twice, attr=(pairs, 1, (*(2 * s for s in strides), 1, 1)))
    own = steps.add("view", scores, attr=(pairs, 0, (*strides, 1, 0)))
    limit = steps.expanded(
        steps.add("constant", attr=((), (float(internal.CAP),))), pairs
    )
    room = steps.add("sub", limit, steps.add("sub", other, own), role="room")
    capped = steps.add(
        "sub", limit, steps.add("relu", room, role="positive"), role="capped"
    )
    after = (np.arange(n)[:, None] + 1 + np.arange(n - 1)) % n
    counted = _constant(steps, mask[..., after])
    powers = steps.add("exp", capped, role="powers")
    total = steps.add(
        "einsum", powers, counted, attr=f"{letters}ij,{letters}ij->{letters}i"
    )
    total = steps.add(
        "add", total, steps.ones(*node.shape), role="total"
    )  # i's own term, kept or not
    share = steps.add("reciprocal", total, role="share")
    share = steps.add(
        "add", share, steps.add("slack", room, total)
    )  # each mask errs on its own
    return share if mask.all() else steps.add("mul", share, weights)


def _constant(steps: "Steps", entries: np.ndarray) -> int:
    return steps.add("constant", attr=(entries.shape, tuple(entries.ravel().tolist())))
