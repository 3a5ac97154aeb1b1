"""One recursion over a layered automaton, and what it answers about a cell: size, smallest sum, sums <= 0, all sums.

Lemmas F3, F4, F5 (docs/soundness/fold.md).
"""

from collections import Counter
from collections.abc import Callable, Sequence
from functools import cache
from typing import NamedTuple

import numpy as np

from mechverify.kernel.core.arithmetic import Arithmetic
from mechverify.kernel.core.errors import Rejected
from mechverify.kernel.core.meter import Meter, reserve
from mechverify.kernel.counting.automaton import Automaton, Layer

WINDOW_LIMIT = 2**21  # grid points kept after one token
_NEVER = 2**100


def pin(layers: list[Layer], position: int, token: int) -> list[Layer]:
    """The automaton of the accepted sequences with `token` at `position`."""
    old = layers[position]
    kept = [(np.array([token]), following) for tokens, following in old.groups if token in tokens]
    return [*layers[:position], Layer(old.states, kept), *layers[position + 1 :]]


def completions(ar: Meter, layers: list[Layer]) -> list[list[int]]:
    """For every layer and state, the exact number of token sequences from there to the end."""
    counts = [np.ones(1, object)]  # integers of Python: exact
    for layer in reversed(layers):
        ar.spend(10 * layer.states * len(layer.groups))
        row = np.zeros(layer.states, object)
        for tokens, following in layer.groups:
            going = following >= 0
            row[going] += len(tokens) * counts[-1][following[going]]
        counts.append(row)
    return [row.tolist() for row in counts[::-1]]


def sizes_by_token(ar: Arithmetic, layers: list[Layer], position: int) -> dict[int, int]:
    """How many accepted sequences have each token at `position`; tokens that none has are left out."""
    rest, before = np.array(completions(ar, layers)[position + 1], object), np.ones(1, object)
    ar.spend(10 * sum(layer.states * len(layer.groups) for layer in layers))
    for i, layer in enumerate(layers[:position]):
        after = np.zeros(_targets(layers, i), object)
        for tokens, following in layer.groups:
            going = following >= 0
            np.add.at(after, following[going], len(tokens) * before[going])
        before = after
    result: dict[int, int] = {}
    for tokens, following in layers[position].groups:
        going = following >= 0
        if count := int((before[going] * rest[following[going]]).sum()):
            result |= dict.fromkeys(tokens.tolist(), count)
    return result


def smallest(
    ar: Arithmetic, layers: list[Layer], term: Callable[[int, np.ndarray], np.ndarray], shape: tuple[int, int]
) -> np.ndarray:
    """A lower bound, over all accepted sequences, of the sum of one-token terms (min-plus recursion).

    `term(i, tokens)` gives lower bounds [rows, tokens, columns] of the terms of `tokens` at position i, as large as
    you like where one isn't allowed; `shape` is (rows, columns). Exact up to rounding, which is downwards. Complexity:
    positions times states times groups, on arrays of `shape`.
    """
    best = np.zeros((1, *shape), ar.dtype)
    for position, layer in enumerate(layers):
        after = np.full((_targets(layers, position), *shape), ar.infinity, ar.dtype)
        terms, start = term(position, np.concatenate([tokens for tokens, _ in layer.groups])), 0
        for tokens, following in layer.groups:
            least, start = ar.down(terms[:, start : start + len(tokens)].min(1)), start + len(tokens)
            going = np.flatnonzero(following >= 0)
            _keep_least(ar, after, following[going], ar.down(best[going] + least))
        best = after
    return best[0]


def smallest_by_class(
    ar: Arithmetic,
    automaton: Automaton,
    domain: Sequence[Sequence[int]],
    terms: np.ndarray,
    pin: int,
    queries: np.ndarray,
) -> np.ndarray:
    """Lower bounds [classes, queries, columns] of the sum of `terms` [positions, vocab, queries, columns] (no terms at
    later positions), over the sequences of each class that have each of `queries` at position `pin`; infinity where
    there is none. All classes at once, so that no term may depend on the class.

    Complexity: positions times states times tokens, on arrays of queries times columns.
    """
    best = np.zeros((1, *terms.shape[2:]), ar.dtype)
    for position, (table, tokens) in enumerate(zip(automaton.step, domain, strict=True)):
        states = len(automaton.step[position + 1] if position + 1 < len(automaton.step) else automaton.final)
        reserve(states, *best.shape[1:])
        after = np.full((states, *best.shape[1:]), ar.infinity, ar.dtype)
        for token in tokens:
            total = best + terms[position, token] if position < len(terms) else best
            if position == pin:
                total = np.where((queries == token)[:, None], total, ar.infinity)
            _keep_least(ar, after, table[:, token], total)
        best = after
    result = np.full((len(automaton.classes), *best.shape[1:]), ar.infinity, ar.dtype)
    _keep_least(ar, result, automaton.final, best)
    bound = ar.down(result - ar.slack(np.abs(terms).max(1).sum(0), len(automaton.step) + 1))
    return np.where(result >= ar.infinity, ar.infinity, bound)  # a NaN stays one


def _keep_least(ar: Arithmetic, after: np.ndarray, targets: np.ndarray, values: np.ndarray) -> None:
    """after[targets[i]] becomes at most values[i], for all i; a NaN stays."""
    ar.spend(values.size, 12, 10)
    order = np.argsort(targets, kind="stable")
    at = targets[order]
    first = np.concatenate([[True], at[1:] != at[:-1]])
    if not first.all():
        values, order = np.minimum.reduceat(values[order], np.flatnonzero(first), 0), slice(None)
    at = at[first]
    after[at] = np.minimum(after[at], values[order])


def sums(ar: Arithmetic, layers: list[Layer], terms: np.ndarray) -> np.ndarray:
    """The sum of `terms` [positions, vocab, columns] along every accepted sequence: [sequences, columns].

    Added from the first position to the last: at most (positions - 1) roundings a sum.
    """
    columns, alive = terms.shape[-1], completions(ar, layers)
    paths = [np.zeros((1, columns), ar.dtype)]
    for position, layer in enumerate(layers):
        longer: list[list[np.ndarray]] = [[] for _ in range(_targets(layers, position))]
        for tokens, following in layer.groups:
            for state, target in enumerate(following.tolist()):
                if target >= 0 and alive[position + 1][target]:  # so no more prefixes than sequences
                    ar.spend(len(paths[state]) * len(tokens) * columns, 1, 4)
                    longer[target].append(paths[state][:, None] + terms[position, tokens][None])
        empty = np.zeros((0, columns), ar.dtype)
        paths = [np.concatenate([empty, *(p.reshape(-1, columns) for p in parts)]) for parts in longer]
    return paths[0]


def _targets(layers: list[Layer], position: int) -> int:
    return layers[position + 1].states if position + 1 < len(layers) else 1


def count_nonpositive(ar: Arithmetic, layers: list[Layer], terms: np.ndarray, upwards: bool) -> int:
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
        raise Rejected(f"too many sequences to count: {len(layers)} positions, about 2^{size.bit_length()} inputs")
    if not size or (capped := _cap(layers, terms)) is None:
        return 0
    least, most = _suffix_extremes(layers, capped)
    if most[0][0] <= 0 or least[0][0] > 0:
        return size if most[0][0] <= 0 else 0

    @cache
    def distinct(position: int, group: int) -> tuple[np.ndarray, np.ndarray]:
        """The terms of a group of tokens, and how often each occurs."""
        occurring = Counter(capped[position, layers[position].groups[group][0]].tolist())
        return np.array(list(occurring)), np.array(list(occurring.values()))

    depth, certain, rows = 1, 0, [_Row(np.ones(1, ar.dtype), 0)]
    for position, layer in enumerate(layers):
        after, ways = _windows(ar, least[position + 1], most[position + 1]), remaining[position + 1]
        for state, row in enumerate(rows):
            if not len(row.counts):
                continue
            below = np.concatenate([np.zeros(1, ar.dtype), np.cumsum(row.counts)])
            for group, (_, following) in enumerate(layer.groups):
                target = int(following[state])
                if target >= 0 and ways[target]:
                    failing = _add_terms(ar, row, below, *distinct(position, group), after[target])
                    certain += failing * ways[target]
        depth += len(capped[0]) * (layer.states + 2) + max(len(row.counts) for row in rows) + 2
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
        raise Rejected(f"the counting grid needs windows of {sum(widths)} points (limit {WINDOW_LIMIT})")
    return [_Row(np.zeros(width, ar.dtype), 1 - high) for width, high in zip(widths, most, strict=True)]


def _add_terms(ar: Arithmetic, row: _Row, below: np.ndarray, values: np.ndarray, times: np.ndarray, into: _Row) -> int:
    """Adds terms, `values[i]` as often as `times[i]`, to a row's sums. What stays open is counted in `into`; returned
    is how many now fail. `below[i]`: the first i counts together."""
    size = len(row.counts)
    shift = row.start - into.start + values  # of the row, in its new window
    cut = np.minimum(np.maximum(-shift, 0), size)
    stop = np.minimum(np.maximum(len(into.counts) - shift, 0), size)
    ar.spend(size + int((stop - cut).sum()), 2 + len(values) // 2, 1)
    for often, to, start, end in zip(times.tolist(), shift.tolist(), cut.tolist(), stop.tolist(), strict=True):
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


def _suffix_extremes(layers: list[Layer], values: np.ndarray) -> tuple[list[list[int]], list[list[int]]]:
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
