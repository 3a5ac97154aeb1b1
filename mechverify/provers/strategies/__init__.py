"""Proof strategies by name, from the dearest to the cheapest: what each costs, assumes and proves.

A strategy is one function that finds a proof; docs/strategies.md shows how to add your own. It decides nothing: the
kernel derives the bounds from the proof, and refuses one that doesn't give what the strategy says.
"""

from collections.abc import Callable
from typing import NamedTuple

from mechverify.claims.errors import ClaimError
from mechverify.provers.base import Attempt, Budget, Problem
from mechverify.provers.fold import bounds, listed
from mechverify.provers.strategies.brute import brute


class Strategy(NamedTuple):
    """`complexity` of the check, in vocabulary v, width d and length k; `find` raises Unsupported, with the reason,
    where the precondition fails; `unexplained` counts the dimensions that the proof treats as unstructured."""

    name: str
    complexity: str
    precondition: str
    postcondition: str
    find: Callable[[Problem, Budget], Attempt]
    unexplained: Callable[[Problem], int] | None = None


ONE_HEAD = "one layer, one head, read at one position; a mechanism that folds over the tokens"

STRATEGIES = {
    s.name: s
    for s in (
        Strategy("brute", "v^k k d (v + d)", "at most 2^25 inputs", "exact, but for rounding", brute),
        Strategy(
            "listed", "v^3 k + inputs of open cells, times k v", ONE_HEAD,
            "exact, but for rounding and for cells that are too large to list", listed,
        ),
        Strategy("fold", "v^3 k + counted cells, times k v", ONE_HEAD, "both bounds, often exact", bounds),
    )
}  # fmt: skip


def chosen(name: str) -> Strategy:
    """The strategy of that name; raises ClaimError with all names where there is none."""
    if name not in STRATEGIES:
        known = "; ".join(f"{s.name} ({s.complexity})" for s in STRATEGIES.values())
        raise ClaimError(f"--strategy {name}: unknown; choose one of: {known}")
    return STRATEGIES[name]
