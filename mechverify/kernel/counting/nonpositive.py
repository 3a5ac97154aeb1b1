"""How many sums of one-token terms over a cell are not positive: counted on a grid.

Lemmas F4, F5 (docs/soundness/fold.md).
"""

from collections import Counter
from functools import cache
from typing import NamedTuple

import numpy as np

from mechverify.kernel.core.arithmetic import Arithmetic
from mechverify.kernel.core.errors import Rejected
from mechverify.kernel.counting.automaton import Layer
from mechverify.kernel.counting.recursion import completions

WINDOW_LIMIT = (
    2**21
)  # grid points kept after one token  # grid points kept after one token
_NEVER = 2**100


def count_nonpositive(
    ar: Arithmetic, layers: list[Layer], terms: np.ndarray, upwards: bool
) -> int:
    """The number of accepted sequences whose sum of `terms` [positions, vocab] (integers from LOWEST to
    HIGHEST) is <= 0: exact in exact arithmetic and while the cell has fewer than 2^53 sequences, otherwise
    rounded upwards or downwards.

    A state keeps only the partial sums that later tokens can still decide either way, so the work is
    positions x states x distinct terms x window. Counts are sums of non-negative numbers; in float64 their
    relative error is at most gamma_d, d the depth of the additions.
    """
    ar.spend(terms.size, 10 * len(layers))
    remaining = completions(ar, layers)
    size = remaining[0][0]
    if len(layers) > 2**10 or size >= 2**1000:
        raise Rejected(
            f"too many sequences to count: {len(layers)} positions, about 2^{size.bit_length()} inputs"
        )
    if not size or (capped := _cap(layers, terms)) is None:
        return 0
    least, most = _suffix_extremes(layers, capped)
    if most[0][0] <= 0 or least[0][0] > 0:
        return size if most[0][0] <= 0 else 0

    @cache
    def distinct(position: int, group: int) -> tuple[np.ndarray, np.ndarray]:
        """The terms of a group of tokens, and how often each occurs."""
        occurring = Counter(
            capped[position, layers[position].groups[group][0]].tolist()
        )
        return np.array(list(occurring)), np.array(list(occurring.values()))

    depth, certain, rows = 1, 0, [_Row(np.ones(1, ar.dtype), 0)]
    for position, layer in enumerate(layers):
        after, ways = (
            _windows(ar, least[position + 1], most[position + 1]),
            remaining[position + 1],
        )
        for state, row in enumerate(rows):
            if not len(row.counts):
                continue
            below = np.concatenate([np.zeros(1, ar.dtype), np.cumsum(row.counts)])
            for group, (_, following) in enumerate(layer.groups):
                target = int(following[state])
                if target >= 0 and ways[target]:
                    failing = _add_terms(
                        ar, row, below, *distinct(position, group), after[target]
                    )
                    certain += failing * ways[target]
        depth += (
            len(capped[0]) * (layer.states + 2)
            + max(len(row.counts) for row in rows)
            + 2
        )
        rows = after
    if size < 2**53 or ar.dtype is object:
        return certain
    # relative error gamma_depth <= depth * 2^-52; twice that, in integers
    slack = certain * depth // 2**51 + 1
    return min(certain + slack, size) if upwards else max(certain - slack, 0)


class _Row(NamedTuple):
    """How many prefixes lead to a state with each partial sum that is still open: `counts[i]` have start + i."""

    counts: np.ndarray
    start: int


def _windows(ar: Arithmetic, least: list[int], most: list[int]) -> list[_Row]:
    """Empty rows for states from which the terms still to come add up to between `least` and `most`: a sum up to -most
    fails whatever follows, one above -least passes."""
    widths = [max(high - low, 0) for low, high in zip(least, most, strict=True)]
    if sum(widths) > WINDOW_LIMIT:
        raise Rejected(
            f"the counting grid needs windows of {sum(widths)} points (limit {WINDOW_LIMIT})"
        )
    return [
        _Row(np.zeros(width, ar.dtype), 1 - high)
        for width, high in zip(widths, most, strict=True)
    ]


def _add_terms(
    ar: Arithmetic,
    row: _Row,
    below: np.ndarray,
    values: np.ndarray,
    times: np.ndarray,
    into: _Row,
) -> int:
    """Adds terms, `values[i]` as often as `times[i]`, to a row's sums. What stays open is counted in `into`; returned
    is how many now fail. `below[i]`: the first i counts together."""
    size = len(row.counts)
    shift = row.start - into.start + values  # of the row, in its new window
    cut = np.minimum(np.maximum(-shift, 0), size)
    stop = np.minimum(np.maximum(len(into.counts) - shift, 0), size)
    ar.spend(size + int((stop - cut).sum()), 2 + len(values) // 2, 1)
    for often, to, start, end in zip(
        times.tolist(), shift.tolist(), cut.tolist(), stop.tolist(), strict=True
    ):
        if end > start:
            kept = row.counts[start:end]
            into.counts[to + start : to + end] += kept if often == 1 else often * kept
    return int((times * below[cut]).sum())


def _cap(layers: list[Layer], terms: np.ndarray) -> np.ndarray | None:
    """Cap terms that decide a sum alone; no sum changes its sign. None: every sum is positive."""
    alive = [np.concatenate([tokens for tokens, _ in layer.groups]) for layer in layers]
    low = np.array([terms[i, tokens].min() for i, tokens in enumerate(alive)])
    if low.sum() > 0:
        return None
    capped = np.minimum(terms, (1 - (low.sum() - low))[:, None])
    high = np.array([capped[i, tokens].max() for i, tokens in enumerate(alive)])
    if high.sum() <= 0:
        return capped
    return np.maximum(capped, -(high.sum() - high)[:, None])


def _suffix_extremes(
    layers: list[Layer], values: np.ndarray
) -> tuple[list[list[int]], list[list[int]]]:
    """For every layer and state, the least and the greatest sum of the terms still to come; for a state
    with no way to the end, a least sum above the greatest."""
    least, most = [[0]], [[0]]
    for layer, terms in zip(reversed(layers), values[::-1], strict=True):
        lo, hi = [_NEVER] * layer.states, [-_NEVER] * layer.states
        for tokens, following in layer.groups:
            low, high = int(terms[tokens].min()), int(terms[tokens].max())
            for state, target in enumerate(following.tolist()):
                if target >= 0:
                    lo[state] = min(lo[state], low + least[-1][target])
                    hi[state] = max(hi[state], high + most[-1][target])
        least.append(lo)
        most.append(hi)
    return least[::-1], most[::-1]
