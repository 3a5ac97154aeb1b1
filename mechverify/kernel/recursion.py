"""One recursion over the positions of a layered automaton, and the questions it answers about a cell:
how many sequences it has, how small a sum of one-token terms can be, how many sums are <= 0, all sums.
"""

import math
from collections import Counter
from collections.abc import Callable

import numpy as np

from mechverify.kernel.automaton import Layer
from mechverify.kernel.errors import Rejected
from mechverify.kernel.rounding import down

WINDOW_LIMIT = 2**22  # grid points kept after one token
POSITION_LIMIT = 2**10
_NEVER = 2**100
LOWEST, HIGHEST = -(2**30), 2**50  # integer terms; HIGHEST outweighs LOWEST at every other position


def pin(layers: list[Layer], position: int, token: int) -> list[Layer]:
    """The automaton of the accepted sequences with `token` at `position`."""
    old = layers[position]
    kept = [(np.array([token]), following) for tokens, following in old.groups if token in tokens]
    return [*layers[:position], Layer(old.states, kept), *layers[position + 1 :]]


def completions(layers: list[Layer]) -> list[list[int]]:
    """For every layer and state, the exact number of token sequences from there to the end."""
    counts = [[1]]
    for layer in reversed(layers):
        row = [0] * layer.states
        for tokens, following in layer.groups:
            for state, target in enumerate(following.tolist()):
                if target >= 0:
                    row[state] += len(tokens) * counts[-1][target]
        counts.append(row)
    return counts[::-1]


def size(layers: list[Layer]) -> int:
    return completions(layers)[0][0]


def sizes_by_token(layers: list[Layer], position: int) -> dict[int, int]:
    """How many accepted sequences have each token at `position`; tokens that none has are left out."""
    before = [1]
    for i, layer in enumerate(layers[:position]):
        after = [0] * _targets(layers, i)
        for tokens, following in layer.groups:
            for state, target in enumerate(following.tolist()):
                if target >= 0:
                    after[target] += len(tokens) * before[state]
        before = after
    rest, result = completions(layers)[position + 1], {}
    for tokens, following in layers[position].groups:
        count = sum(b * rest[target] for b, target in zip(before, following.tolist(), strict=True) if target >= 0)
        if count:
            result |= dict.fromkeys(tokens.tolist(), count)
    return result


def smallest(layers: list[Layer], term: Callable[[int, np.ndarray], np.ndarray], shape: tuple[int, ...]) -> np.ndarray:
    """A lower bound, over all accepted sequences, of the sum of one-token terms (min-plus recursion).

    `term(i, tokens)` gives float64 lower bounds [*shape] of the smallest term among `tokens` at position
    i, as large as you like where none is allowed. Exact up to rounding, which is downwards. Complexity: positions times
    states times groups, on arrays of `shape`.
    """
    best = [np.zeros(shape)]
    for position, layer in enumerate(layers):
        following_best = [np.full(shape, np.inf) for _ in range(_targets(layers, position))]
        for tokens, following in layer.groups:
            least = term(position, tokens)
            for state, target in enumerate(following):
                if target >= 0:
                    total = down(best[state] + least)
                    np.minimum(following_best[target], total, out=following_best[target])
        best = following_best
    return best[0]


def sums(layers: list[Layer], terms: np.ndarray) -> np.ndarray:
    """The sum of `terms` [positions, vocab, columns] along every accepted sequence: [sequences, columns].

    Added from the first position to the last in float64: at most (positions - 1) roundings a sum.
    """
    paths, alive = [np.zeros((1, terms.shape[-1]))], completions(layers)
    for position, layer in enumerate(layers):
        following_paths: list[list[np.ndarray]] = [[] for _ in range(_targets(layers, position))]
        for tokens, following in layer.groups:
            for state, target in enumerate(following):
                if target >= 0 and alive[position + 1][target]:  # so no more prefixes than sequences
                    longer = paths[state][:, None] + terms[position, tokens][None]
                    following_paths[target].append(longer.reshape(-1, terms.shape[-1]))
        paths = [np.concatenate(p) if p else np.zeros((0, terms.shape[-1])) for p in following_paths]
    return paths[0]


def _targets(layers: list[Layer], position: int) -> int:
    """The number of states after the token at `position`; at the end there is one, that of the target."""
    return layers[position + 1].states if position + 1 < len(layers) else 1


def to_grid(terms: np.ndarray, step: float, upwards: bool) -> np.ndarray:
    """Float64 terms as integer multiples of `step`, rounded down, or up. `step` is a power of two, so the
    quotient is exact unless it underflows; there the term's sign decides. Rejects a term below LOWEST
    steps; one above HIGHEST decides the sum alone and is clipped."""
    if math.frexp(step)[0] != 0.5:
        raise Rejected("the counting grid's step is not a power of two")
    scaled = terms / step
    if not (scaled >= LOWEST).all():
        raise Rejected("the counting grid is too fine for the terms of this cell")
    if upwards:
        rounded = np.where(terms > 0, np.maximum(np.ceil(scaled), 1.0), np.ceil(scaled))
    else:
        rounded = np.where(terms < 0, np.minimum(np.floor(scaled), -1.0), np.floor(scaled))
    return np.minimum(rounded, HIGHEST).astype(np.int64)


def count_nonpositive(layers: list[Layer], terms: np.ndarray, upwards: bool) -> int:
    """The number of accepted sequences whose sum of `terms` [positions, vocab] (integers from LOWEST to
    HIGHEST) is <= 0, rounded upwards or downwards; exact while the cell has fewer than 2^53 sequences.

    A state keeps only the partial sums that later tokens can still decide either way, so the work is
    positions x states x distinct terms x window. Counts are float64 sums of non-negative numbers; their
    relative error is at most gamma_d, d the depth of the additions.
    """
    remaining = completions(layers)
    total_size = remaining[0][0]
    if total_size == 0:
        return 0
    if len(layers) > POSITION_LIMIT or total_size >= 2**1000:
        raise Rejected(
            f"too many sequences to count: {len(layers)} positions, about 2^{total_size.bit_length()} inputs"
        )
    capped = _cap(layers, terms)
    if capped is None:
        return 0
    # How often each integer term occurs, by position and group of tokens.
    shifts = [[Counter(capped[i, tokens].tolist()) for tokens, _ in layer.groups] for i, layer in enumerate(layers)]
    least, most = _suffix_extremes(layers, shifts)
    if most[0][0] <= 0:
        return total_size
    if least[0][0] > 0:
        return 0
    depth, certain = 1, 0
    counts = [np.ones(1)]
    starts = [0]  # the partial sum that each state's first entry stands for
    for position, layer in enumerate(layers):
        safe = [-v for v in least[position + 1]]  # sums above pass whatever follows
        fail = [-v for v in most[position + 1]]  # sums up to here fail whatever follows
        width = [max(s - f, 0) for s, f in zip(safe, fail, strict=True)]
        if sum(width) > WINDOW_LIMIT:
            raise Rejected(f"the counting grid needs windows of {sum(width)} points (limit {WINDOW_LIMIT})")
        following_counts = [np.zeros(w) for w in width]
        for state, row in enumerate(counts):
            if not len(row):
                continue
            below = np.concatenate([[0.0], np.cumsum(row)])
            for (_, following), occurring in zip(layer.groups, shifts[position], strict=True):
                target = int(following[state])
                if target < 0 or not remaining[position + 1][target]:
                    continue
                failing, destination = 0.0, following_counts[target]
                first_open = fail[target] + 1
                for shift, times in occurring.items():
                    first = starts[state] + shift
                    cut = min(max(first_open - first, 0), len(row))
                    stop = min(safe[target] + 1 - first, len(row))
                    if cut:
                        failing += times * below[cut]
                    if stop > cut:
                        moved = row[cut:stop] if times == 1 else times * row[cut:stop]
                        destination[first + cut - first_open : first + stop - first_open] += moved
                certain += int(failing) * remaining[position + 1][target]
        depth += sum(map(len, shifts[position])) * (layer.states + 2) + max(map(len, counts)) + 2
        counts, starts = following_counts, [f + 1 for f in fail]
    if total_size < 2**53:
        return certain
    # relative error gamma_depth <= depth * 2^-52; twice that, in integers
    slack = certain * depth // 2**51 + 1
    return min(certain + slack, total_size) if upwards else max(certain - slack, 0)


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


def _suffix_extremes(layers: list[Layer], shifts: list[list[Counter]]) -> tuple[list[list[int]], list[list[int]]]:
    """For every layer and state, the least and the greatest sum of the terms still to come; for a state
    with no way to the end, a least sum above the greatest."""
    least, most = [[0]], [[0]]
    for layer, occurring in zip(reversed(layers), reversed(shifts), strict=True):
        lo, hi = [_NEVER] * layer.states, [-_NEVER] * layer.states
        for (_, following), terms in zip(layer.groups, occurring, strict=True):
            low, high = min(terms), max(terms)
            for state, target in enumerate(following.tolist()):
                if target >= 0:
                    lo[state] = min(lo[state], low + least[-1][target])
                    hi[state] = max(hi[state], high + most[-1][target])
        least.append(lo)
        most.append(hi)
    return least[::-1], most[::-1]
