"""Slopes that somebody proposes, say auto_LiRPA's."""

import numpy as np
import torch

from mechverify.claims.errors import ClaimError
from mechverify.kernel.core.errors import Rejected, Unsupported
from mechverify.provers.base import Budget
from mechverify.provers.ranges.cells import relaxed, tensor_cells
from mechverify.provers.ranges.known import Found, Known
from mechverify.provers.ranges.leaves import checked_leaf
from mechverify.provers.ranges.problem import RangeProblem
from mechverify.relax.optimise import Kept, Slopes


class GivenSlopes:
    name = "the given slopes"

    def accepts(self, problem: RangeProblem, known: Known) -> str | None:
        if known.slopes and problem.claim.union is not None:
            raise ClaimError("slopes can be given for one box, not for a union")
        return None if known.slopes else ""

    def prove(self, problem: RangeProblem, known: Known, budget: Budget) -> Found:
        found = known.found
        try:
            leaf, range_ = checked_leaf(
                problem, _proposed(problem, known.slopes), 0, problem.domain
            )
        except (Rejected, Unsupported) as error:
            found.reasons.append(f"{self.name}: {error}")
            return found
        return found.beside(leaf, range_)


def _proposed(problem: RangeProblem, slopes: Slopes) -> Kept:
    """Slopes below ReLUs as lines of the whole domain; above, the chord's. Raises ClaimError where they don't fit."""
    whole, kept = relaxed(problem, tensor_cells(problem, [problem.domain])), Kept()
    graph, root = problem.rewriting.graph, problem.rewriting.roots.output
    relus = [
        n for n in whole.order if graph.nodes[n].op == "relu" and n not in whole.fixed
    ]
    if problem.rewriting.roots.shared:
        raise ClaimError("slopes can be given for networks without a softmax")
    for (start, at), given in slopes.items():
        if not (
            at in range(len(relus))
            and (start is None or start in range(at + 1, len(relus)))
        ):
            raise ClaimError(
                f"slopes of ReLU {at} for {start}: the claim's value has {len(relus)} ReLUs before it"
            )
        node = relus[at]
        bounded = (
            root
            if start is None
            else whole.source(graph.nodes[relus[start]].args[0])[0]
        )
        shape, size = graph.nodes[node].shape, int(np.prod(graph.nodes[bounded].shape))
        try:
            below = torch.from_numpy(
                np.asarray(given, float).reshape(1, 2 * size, *shape)
            )
        except ValueError:
            what = f"slopes of ReLU {at} for {start}: expected (2, {size}, {', '.join(map(str, shape))})"
            raise ClaimError(f"{what}, got {np.shape(given)}") from None
        above = whole.default_slopes(node)[1].mid.expand_as(below)
        kept.lines[bounded, node] = below, above
    return kept
