"""Proof strategies by name, from the dearest to the cheapest: what each costs, assumes and proves.

A strategy is one function that finds a proof; docs/compact_proofs.md shows how to add your own. It decides nothing: the
kernel derives the bounds from the proof, and refuses one that doesn't give what the strategy says.
"""

import difflib
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

from mechverify.claims.errors import ClaimError
from mechverify.claims.file import namespace
from mechverify.kernel.core.errors import Unsupported
from mechverify.provers.accuracy.fold import folded, listed
from mechverify.provers.accuracy.problem import AccuracyProblem, Attempt
from mechverify.provers.accuracy.strategies.brute import brute
from mechverify.provers.accuracy.strategies.compact_proofs import COMPACT_PROOFS
from mechverify.provers.accuracy.strategies.unexplained import (
    outputs_of_inputs,
    parts,
    tables,
)
from mechverify.provers.base import Budget


class Strategy(NamedTuple):
    """`complexity` of the check, in vocabulary v, width d and length k; `find` raises Unsupported, with the reason,
    where the precondition fails; `unexplained` counts the dimensions that the proof treats as unstructured."""

    name: str
    complexity: str
    precondition: str
    postcondition: str
    find: Callable[[AccuracyProblem, Budget], Attempt]
    unexplained: Callable[[AccuracyProblem], int] | None = None


def _parts(find) -> Callable[[AccuracyProblem], int]:
    chosen = getattr(find, "keywords", {})
    return partial(
        parts, remainder=chosen.get("remainder"), mean=chosen.get("mean", False)
    )


ONE_HEAD = (
    "one layer, one head, read at one position; a mechanism that folds over the tokens"
)

STRATEGIES = {
    s.name: s
    for s in (
        Strategy(
            "brute", "v^k k d (v + d)", "at most 2^25 inputs", "exact, but for rounding", brute, outputs_of_inputs
        ),
        Strategy(
            "listed", "k v^3 o + n k o, n inputs of open cells", ONE_HEAD,
            "exact, but for rounding and for cells that are too large to list", listed, tables,
        ),
        Strategy(
            "fold", "k v^3 o + c k v, c steps in counted cells", ONE_HEAD, "both bounds, often exact", folded, tables
        ),
        *(Strategy(name, cost, f"{ONE_HEAD}; no neurons; semantics real", f"a lower bound: {what}", find, _parts(find))
          for name, (cost, what, find) in COMPACT_PROOFS.items()),
    )
}  # fmt: skip

DEFAULT = [
    name for name in STRATEGIES if name != "brute"
]  # its bound is the accuracy, its cost is known beforehand


def chosen(name: str) -> Strategy:
    """The strategy of that name, or (NAME.py) the one that a file of yours calls STRATEGY. Raises ClaimError, with all
    names, where there is none."""
    if name.endswith(".py"):
        return _own(name)
    if name not in STRATEGIES:
        near = difflib.get_close_matches(name, STRATEGIES, 1)
        hint = (
            f"did you mean {near[0]}?" if near else f"there are {', '.join(STRATEGIES)}"
        )
        raise ClaimError(
            f"--strategy {name}: unknown; {hint} (`mechverify strategies` says what each is; or a file, NAME.py)"
        )
    return STRATEGIES[name]


def _own(path: str) -> Strategy:
    found = namespace(Path(path), "strategy").get("STRATEGY")
    if not isinstance(found, Strategy):
        raise ClaimError(
            f"--strategy {path}: the file doesn't say STRATEGY = Strategy(...); see docs/compact_proofs.md"
        )

    def find(problem: AccuracyProblem, budget: Budget) -> Attempt:
        try:
            return found.find(problem, budget)
        except Unsupported:
            raise
        except Exception as error:
            lines = [
                f.lineno
                for f in traceback.extract_tb(error.__traceback__)
                if f.filename == path
            ]
            raise ClaimError(
                f"{path}, line {lines[-1] if lines else 1}: {type(error).__name__}: {error}"
            ) from None

    return found._replace(name=Path(path).stem, find=find)
