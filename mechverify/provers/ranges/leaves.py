"""Leaves of a proof with lines of the search's own: optimised, and written as a certificate lists them."""

import math
from typing import Any

import numpy as np
import torch

from mechverify.certificate.write import Proof
from mechverify.kernel.core.domain import Domain
from mechverify.kernel.core.fields import Reader
from mechverify.kernel.core.ranges import Range
from mechverify.kernel.relaxation import rule as linear
from mechverify.provers.base import Budget
from mechverify.provers.ranges.cells import tensor_cells
from mechverify.provers.ranges.problem import RangeProblem
from mechverify.relax.optimise import Kept, optimise

BITS = 16  # of a slope


def optimised_leaves(
    problem: RangeProblem,
    parts: list[Domain],
    budget: Budget,
    seconds: float = math.inf,
    **options: Any,
) -> list[tuple[Proof, Range]]:
    """For each part a leaf with optimised lines (and multipliers, where something is known of it beside its box), and
    the range that the kernel finds with them. `seconds`: for the gradient steps. Raises Stopped if time is up before
    there is any line, or before the kernel has found a range."""
    rewriting, cells = problem.rewriting, tensor_cells(problem, parts)
    options |= {"ar": problem.ar, "shared": problem.shared, "spent": budget.spent}
    with budget.within(seconds):
        kept, *_ = optimise(
            rewriting.graph, problem.claim.weights, rewriting.roots, cells, **options
        )
    with budget.rehearsing():
        return [
            checked_leaf(problem, kept, cell, part) for cell, part in enumerate(parts)
        ]


def checked_leaf(
    problem: RangeProblem, kept: Kept, cell: int, part: Domain
) -> tuple[Proof, Range]:
    """A leaf with those of a cell's lines that the kernel uses, and the range that it finds."""
    leaf = _listed(problem, kept, cell)
    multipliers = (
        Reader(leaf["multipliers"], "multipliers") if "multipliers" in leaf else None
    )
    given = linear.given_lines(problem.job, Reader(leaf["lines"], "lines"), multipliers)
    (found,) = linear.ranges(problem.job, [part], problem.flags, lines=given)
    of, unread = problem.called.of, given.unread  # a cell alone may need fewer
    for name in ("lines", "multipliers"):
        if name in leaf:
            spare = {
                (of[key[0]], of[key[1]])
                for key in unread
                if (len(key) > 2) == (name == "multipliers")
            }
            leaf[name] = [row for row in leaf[name] if tuple(row[:2]) not in spare]
    return leaf, found


def _listed(problem: RangeProblem, kept: Kept, cell: int) -> Proof:
    """What was kept for a cell, as a certificate lists it: all that it has names for."""
    lines, multipliers, of = [], [], problem.called.of
    for (start, n), pair in sorted(kept.lines.items()):
        limit = 1.0 if problem.rewriting.graph.nodes[n].op == "mul" else None
        if start in of and n in of:
            lines.append([of[start], of[n], *_rounded([t[cell] for t in pair], limit)])
    for (start, n), factors in sorted(kept.factors.items()):
        if start in of and n in of:
            multipliers.append([of[start], of[n], *_rounded([factors[cell]])])
    leaf = problem.linear | {"lines": lines}
    return leaf | {"multipliers": multipliers} if multipliers else leaf


def _rounded(tensors: list[torch.Tensor], limit: float | None = None) -> list:
    """A common exponent, and the entries as integers of BITS bits."""
    arrays = [t.cpu().numpy() for t in tensors]
    largest = max(np.abs(a).max() for a in arrays)
    exponent = int(np.frexp(largest)[1]) - BITS if largest > 0 else 0
    whole = [np.rint(np.ldexp(a, -exponent)).astype(np.int64) for a in arrays]
    if limit is not None:
        whole = [np.clip(a, 0, int(np.ldexp(limit, -exponent))) for a in whole]
    return [exponent, *(a.ravel().tolist() for a in whole)]
