"""Slopes chosen by gradient steps, for the narrowest output (alpha-CROWN: Xu et al. 2021, arXiv 2011.13824), and with
them multipliers of what is known of a cell (beta-CROWN: Wang et al. 2021, arXiv 2103.06624)."""

from collections.abc import Callable

import numpy as np
import torch

from mechverify.kernel.core.arithmetic import Ball
from mechverify.kernel.core.errors import Stopped, Unsupported
from mechverify.kernel.core.graph import Graph
from mechverify.kernel.relaxation import noise, planes
from mechverify.kernel.relaxation.backward import Lines, Relaxed
from mechverify.kernel.relaxation.intervals import Cells
from mechverify.kernel.relaxation.operations import differences
from mechverify.kernel.relaxation.rewriting import Rewritten
from mechverify.relax.tensors import Tensors

DECAY = 0.05  # of the rate, from the first step to the last
RECENT, WORTH = (
    5,
    1e-3,
)  # so many steps that gain no more than this share of the width are the last ones

Key = tuple[int, int]  # the node where forms start, and the node that they pass
Slopes = dict[tuple[int | None, int], np.ndarray]
"""Below ReLU number j where the operand of ReLU i (None: the output) is bounded, by (i, j) and numbered as they are
computed: [2, entries of what is bounded, *shape], for lower and for upper bounds. Any number is sound."""
Pair = tuple[
    torch.Tensor, torch.Tensor
]  # of the lower and of the upper lines, [cells, rows, *shape]


class Moving(Lines):
    """One number in [0, 1] a line, for every form that passes: between the slopes of a function at the two ends of its
    interval, or between the two planes of a product. Where only one line is sensible, none: above a convex function
    every line is above the chord, and below a concave one."""

    def __init__(self) -> None:
        self.numbers: dict[Key, list[torch.Tensor]] = {}
        self.factors: dict[Key, torch.Tensor] = {}
        self.used: dict[
            Key, Pair
        ] = {}  # what the numbers came to when they were last asked for
        self._of: Relaxed | None = None
        self._known: dict[
            int, list[Pair]
        ] = {}  # slopes between which the lines of a node lie

    def choose(self, relaxed: Relaxed, start: int, n: int) -> Pair:
        key, rows = (start, n), relaxed.rows[start]
        ends, initial = self._between(relaxed, n)
        if key not in self.numbers:
            self.numbers[key] = [
                v.detach()
                .expand(v.shape[0], rows, *v.shape[2:])
                .clone()
                .requires_grad_()
                for v in initial()
            ]
        low, high = (
            a + (b - a) * t for (a, b), t in zip(ends, self.numbers[key], strict=True)
        )
        self.used[key] = low.detach(), high.detach()
        return low, high

    def _between(
        self, relaxed: Relaxed, n: int
    ) -> tuple[list[Pair], Callable[[], list[torch.Tensor]]]:
        """Between which numbers the lines of a node lie, and where to begin."""
        op = relaxed.graph.nodes[n].op
        if op == "mul":
            return self._planes(relaxed, n), lambda: self._mixes(relaxed, n)
        if op == "blend":
            share = differences.ROWS["blend"].default(relaxed, n)
            return self._planes(relaxed, n), lambda: [share, share]
        if op in ("secant", "exchanged"):
            row = differences.ROWS[op]
            slopes = [
                relaxed.finite(end[:, None]).detach() for end in row.slopes(relaxed, n)
            ]
            first = (
                noise.middle(relaxed, n) if row.together else row.default(relaxed, n)
            )
            return [(slopes[0], slopes[1])] * 2, lambda: [
                self._share(s, *slopes) for s in first
            ]
        ends = self._ends(relaxed, n)
        return ends, lambda: self._shares(relaxed, n, ends)

    def multipliers(self, relaxed: Relaxed, start: int, n: int) -> torch.Tensor:
        floor, ceiling = (
            torch.as_tensor(end)[:, None] for end in relaxed.cells.facts[n]
        )
        if (start, n) not in self.factors:
            shape = floor.shape[0], relaxed.rows[start], *floor.shape[2:]
            self.factors[start, n] = floor.new_zeros(shape).requires_grad_()
        factor = self.factors[start, n]
        least = torch.where(
            ceiling.isfinite(), -torch.inf, 0.0
        )  # signs that what is known allows
        most = torch.where(floor.isfinite(), torch.inf, 0.0)
        with torch.no_grad():
            factor.copy_(torch.minimum(torch.maximum(factor, least), most))
        return factor

    def tensors(self) -> list[torch.Tensor]:
        return [
            *(t for pair in self.numbers.values() for t in pair),
            *self.factors.values(),
        ]

    @staticmethod
    def _planes(relaxed: Relaxed, n: int) -> list[Pair]:
        """Of a product: all of the first, and all of the second."""
        zero = relaxed.ar.raw(
            np.zeros((len(relaxed.cells), 1, *relaxed.graph.nodes[n].shape))
        )
        return [(zero, zero + 1)] * 2

    def _mixes(self, relaxed: Relaxed, n: int) -> list[torch.Tensor]:
        zero = self._planes(relaxed, n)[0][0]
        return [zero + float(m) for m in planes.default_mixes(relaxed, n)]

    def _shares(self, relaxed: Relaxed, n: int, ends: list[Pair]) -> list[torch.Tensor]:
        slopes = relaxed.default_slopes(n)
        return [self._share(s.mid, *both) for s, both in zip(slopes, ends, strict=True)]

    @staticmethod
    def _share(
        slope: torch.Tensor, first: torch.Tensor, last: torch.Tensor
    ) -> torch.Tensor:
        return ((slope - first) / torch.where(last != first, last - first, 1.0)).clamp(
            0, 1
        )

    def _ends(self, relaxed: Relaxed, n: int) -> list[Pair]:
        """The least and the greatest slope of a piece's chord; the whole chord's where no other line is better."""
        if self._of is not relaxed:
            self._of, self._known = relaxed, {}
        if n not in self._known:
            relaxed.curve(n)  # with its gradient
            self._known[n] = self._sensible(relaxed, n)
        return self._known[n]

    @staticmethod
    @torch.no_grad()
    def _sensible(relaxed: Relaxed, n: int) -> list[Pair]:
        c = relaxed.curve(n)
        x, y = c.points.mid.detach(), c.values.mid.detach()
        width = x[1:] - x[:-1]
        slope = (y[1:] - y[:-1]) / torch.where(width > 0, width, 1.0)
        least = torch.where(width > 0, slope, torch.inf).amin(0)
        most = torch.where(width > 0, slope, -torch.inf).amax(0)
        least, most = (torch.where(least > most, 0.0, end) for end in (least, most))
        _, chord = relaxed.default_slopes(n)
        chord, steps = (
            chord.mid.detach(),
            torch.where(
                (width[1:] > 0) & (width[:-1] > 0), slope[1:] - slope[:-1], 0.0
            ),
        )
        ends = []
        for bends, sign in (
            (c.sag, -1),
            (c.rise, 1),
        ):  # sag is zero where f is concave on each piece
            settled = (bends.mid.detach() == 0).all(0) & (sign * steps >= 0).all(0)
            ends.append(
                (torch.where(settled, chord, least), torch.where(settled, chord, most))
            )
        return ends


class Kept(Lines):
    """The lines of each form from the step where its bound was best. An interval that narrowed since only helps."""

    def __init__(self) -> None:
        self.lines: dict[Key, Pair] = {}
        self.factors: dict[Key, torch.Tensor] = {}
        self.lows: dict[int, torch.Tensor] = {}

    def keep(self, moving: Moving, lows: dict[int, torch.Tensor]) -> None:
        for start, low in lows.items():
            known = self.lows.get(start)
            better = (
                torch.ones_like(low, dtype=torch.bool) if known is None else low > known
            )
            self.lows[start] = low if known is None else torch.where(better, low, known)
            for key, new in moving.used.items():
                if key[0] == start:
                    old = self.lines.get(key, new)
                    at = better.reshape(*better.shape, *(1,) * (new[0].ndim - 2))
                    low, high = (
                        torch.where(at, n, o) for n, o in zip(new, old, strict=True)
                    )
                    self.lines[key] = low, high

            for key, factor in moving.factors.items():
                if key[0] == start:
                    new, old = factor.detach(), self.factors.get(key, factor.detach())
                    self.factors[key] = torch.where(
                        better.reshape(*better.shape, *(1,) * (new.ndim - 2)), new, old
                    )

    def choose(self, relaxed: Relaxed, start: int, n: int) -> Pair | None:
        return self.lines.get((start, n))

    def multipliers(self, relaxed: Relaxed, start: int, n: int) -> torch.Tensor | None:
        return self.factors.get((start, n))


class _Recorded(Relaxed):
    """Keeps what the forms of each node came to."""

    def __init__(self, *args, **options):
        self.lows: dict[int, torch.Tensor] = {}
        super().__init__(*args, **options)

    def form(self, start: int, coefficients: Ball) -> torch.Tensor:
        low = super().form(start, coefficients)
        self.lows[start] = low.detach()
        return low


def optimise(
    graph: Graph, weights: dict[str, np.ndarray], roots: Rewritten, cells: Cells, *,
    ar: Tensors | None = None, shared: bool = False, steps: int = 40, rate: float = 0.2,
    spent: Callable[[], bool] = lambda: False, enough: Callable[[torch.Tensor], bool] = lambda lows: False,
) -> tuple[Kept, torch.Tensor, torch.Tensor]:  # fmt: skip
    """Lines for the narrowest sum of widths of the output's entries, and the bounds [cells, *shape] that they give.

    Ends early where these are `enough`: lower bounds [cells, 2 entries] of the entries and of their negatives.

    Complexity: for each step, a few times that of linear bounds."""
    ar, moving, kept = ar or Tensors(), Moving(), Kept()
    optimiser, widths = None, []
    for step in range(steps):
        try:
            relaxed = _Recorded(ar, graph, weights, roots, cells, moving, shared)
            low, high = relaxed.range(roots.output)
        except (
            Unsupported,
            Stopped,
        ):  # a step went astray, or time is up; the best so far stands
            if not widths:
                raise
            break
        kept.keep(moving, relaxed.lows)
        width = (high - low).sum()
        widths.append(
            -kept.lows[roots.output].sum().item()
        )  # lower bounds of each entry and of its negative
        slow = (
            len(widths) > 2 * RECENT
            and widths[-RECENT] - widths[-1] < WORTH * widths[-1]
        )
        if (
            slow or spent() or not moving.tensors() or enough(kept.lows[roots.output])
        ):  # or a linear model: no lines
            break
        if optimiser is None:
            optimiser = torch.optim.Adam(moving.tensors(), lr=rate, foreach=True)
        optimiser.param_groups[0]["lr"] = rate * DECAY ** (step / steps)
        optimiser.zero_grad()
        width.backward()
        for t in moving.tensors():
            if t.grad is not None:
                t.grad.nan_to_num_(0.0, 0.0, 0.0)  # where huge numbers cancel
        optimiser.step()
        with torch.no_grad():
            for pair in moving.numbers.values():
                for t in pair:
                    t.clamp_(0, 1)
    if spent():
        low, high = kept.lows[roots.output].chunk(2, 1)
        shape = len(low), *graph.nodes[roots.output].shape
        return kept, low.reshape(shape), -high.reshape(shape)
    with torch.no_grad():
        low, high = Relaxed(ar, graph, weights, roots, cells, kept, shared).range(
            roots.output
        )
    return kept, low, high
