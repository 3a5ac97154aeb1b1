"""Inputs where a captured model's output is small or large: sampling, then gradient steps."""

import numpy as np
import torch

from mechverify.provers.base import Budget
from mechverify.provers.ranges.inputs import CLEARLY, Inputs
from mechverify.provers.ranges.problem import RangeProblem

STEPS, RESTARTS = 60, 32  # gradient steps, from how many of the best inputs


def sample(problem: RangeProblem, budget: Budget, seed: int) -> Inputs:
    """Random inputs, half of them corners, as many of each box of a union; those that satisfy the claim's conditions
    (maybe none)."""
    rng, domain = np.random.default_rng(seed), problem.domain
    batch = problem.batch
    budget.progress("sampling", None)
    share = rng.random((batch, len(domain.low)))
    share[batch // 2 :] = np.round(share[batch // 2 :])
    low, high = problem.own
    if len(low) > 1:
        which = rng.permutation(np.arange(batch) % len(low))
        low, high = low[which], high[which]
    points = np.clip(
        (1 - share) * low + share * high, low, high
    )  # it may round outside
    tokens = (
        np.stack([rng.choice(np.array(t), batch) for t in domain.tokens], -1)
        if domain.tokens
        else np.zeros((batch, 0), np.int64)
    )
    return Inputs.allowed(
        tokens, points, *problem.values(tokens, torch.from_numpy(points))
    )


def climb(
    problem: RangeProblem, budget: Budget, inputs: Inputs, steps: int
) -> Inputs | None:
    """Where each entry is smallest, and then largest, [2 entries]: the best of `inputs`, moved by gradient steps."""
    n = problem.claim.outputs
    if not len(inputs.values):
        return None
    starts = max(1, min(RESTARTS, 512 // n, len(inputs.values)))
    order = np.argsort(inputs.values, 0)
    start = np.concatenate(
        [order[:starts], order[::-1][:starts]], 1
    ).ravel()  # [starts, 2 entries]
    sign = np.tile(np.repeat([1.0, -1.0], n), starts)
    entry = np.tile(np.arange(n), 2 * starts)
    best = inputs.at(start)
    box = problem.owned(best.points).argmax(1)
    low, high = (
        torch.from_numpy(end[box]) for end in problem.own
    )  # each row stays in its box
    points = torch.tensor(best.points)
    live = np.arange(len(entry) if low.shape[1] else 0)  # rows that still move
    for step in range(steps):
        if not len(live) or budget.spent():
            break
        budget.progress("gradient steps", step / steps)
        moving = points.clone().requires_grad_()
        values, least = problem.values(best.tokens[live], moving)
        of, signs = entry[live], sign[live]
        aim = values[np.arange(len(live)), of] * torch.from_numpy(signs)
        (slope,) = torch.autograd.grad(aim.sum(), moving)
        old = best.values[live, of] * signs
        better = (aim.detach().numpy() < old) & (least.numpy() >= 0)
        best.points[live[better]] = points.numpy()[better]
        best.values[live[better]] = values.detach().numpy()[better]
        best.clear[live[better]] = least.numpy()[better] > CLEARLY
        rate = 0.5 * (1 - step / steps)
        reach = torch.nan_to_num(high[live] - low[live])
        after = points - rate * reach * torch.nan_to_num(slope).sign()
        after = torch.clamp(after, low[live], high[live])
        # what a step doesn't move stays where it is, as later steps are shorter
        moved = (after != points).any(1)
        points, live = after[moved], live[moved.numpy()]
    score = (best.values[np.arange(len(entry)), entry] * sign).reshape(starts, 2 * n)
    return best.at(score.argmin(0) * 2 * n + np.arange(2 * n))
