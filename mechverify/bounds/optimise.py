"""Slopes chosen by gradient steps, for the narrowest output (alpha-CROWN: Xu et al. 2021, arXiv 2011.13824)."""

from collections.abc import Callable

import numpy as np
import torch

from mechverify.bounds.tensors import Tensors
from mechverify.kernel.errors import Unsupported
from mechverify.kernel.graph import Graph
from mechverify.kernel.linear import Cells, Lines, Relaxed

DECAY = 0.05  # of the rate, from the first step to the last


class Slopes(Lines):
    """One number in [0, 1] a line, for every form that passes: between the slopes of a function at the two ends of its
    interval, or between the two planes of a product."""

    def __init__(self) -> None:
        self.numbers: dict[tuple[int, int], tuple[torch.Tensor, torch.Tensor]] = {}
        self.frozen = False

    def choose(self, relaxed: Relaxed, start: int, n: int) -> tuple:
        key, rows = (start, n), relaxed.rows[start]
        function = relaxed.graph.nodes[n].op != "mul"
        first, last = self._ends(relaxed, n) if function else (0.0, 1.0)
        if key not in self.numbers:
            if function:
                spread = torch.where(last != first, last - first, torch.ones_like(first))
                initial = [((s.mid - first) / spread).clamp(0, 1) for s in relaxed.default_slopes(n)]
            else:
                shape = (len(relaxed.cells), 1, *relaxed.graph.nodes[n].shape)
                initial = [torch.full(shape, float(m), dtype=torch.float64) for m in relaxed.default_mixes(n)]
            self.numbers[key] = tuple(
                v.detach().expand(v.shape[0], rows, *v.shape[2:]).clone().requires_grad_() for v in initial
            )
        return tuple(first + (last - first) * t for t in self.numbers[key])

    @staticmethod
    def _ends(relaxed: Relaxed, n: int) -> tuple[torch.Tensor, torch.Tensor]:
        """The least and the greatest slope of a piece's chord."""
        c = relaxed.curve(n)
        x, y = c.points.mid.detach(), c.values.mid.detach()
        width = x[1:] - x[:-1]
        slope = (y[1:] - y[:-1]) / torch.where(width > 0, width, torch.ones_like(width))
        least = torch.where(width > 0, slope, torch.inf).amin(0)
        most = torch.where(width > 0, slope, -torch.inf).amax(0)
        point = least > most
        return torch.where(point, 0.0, least), torch.where(point, 0.0, most)


def optimise(
    graph: Graph, weights: dict[str, np.ndarray], root: int, cells: Cells, *, steps: int = 40, rate: float = 0.1,
    spent: Callable[[], bool] = lambda: False,
) -> tuple[Slopes, torch.Tensor, torch.Tensor]:  # fmt: skip
    """Slopes for the narrowest sum of widths of `root`'s entries, and the bounds [cells, *shape] that they give."""
    ar, slopes = Tensors(), Slopes()
    best, optimiser = None, None
    for step in range(steps + 1):
        with torch.set_grad_enabled(step < steps):
            try:
                relaxed = Relaxed(ar, graph, weights, root, cells, slopes)
                output = relaxed.range(root)
            except Unsupported:  # a step went astray; the best so far stands
                if best is None:
                    raise
                break
            low, high = ar.lower(output), ar.upper(output)
            width = (high - low).sum()
        if best is None or width.item() < best[0]:
            kept = {k: tuple(t.detach().clone() for t in v) for k, v in slopes.numbers.items()}
            best = width.item(), kept, low.detach(), high.detach()
        if step == steps or spent() or not slopes.numbers:  # a linear model has no lines to choose
            break
        if optimiser is None:
            numbers = [t for pair in slopes.numbers.values() for t in pair]
            optimiser = torch.optim.Adam(numbers, lr=rate)
        optimiser.param_groups[0]["lr"] = rate * DECAY ** (step / steps)
        optimiser.zero_grad()
        width.backward()
        for t in numbers:
            if t.grad is not None:
                t.grad.nan_to_num_(0.0, 0.0, 0.0)  # where huge numbers cancel
        optimiser.step()
        with torch.no_grad():
            for t in numbers:
                t.clamp_(0, 1)
    slopes.numbers = best[1]
    return slopes, best[2], best[3]
