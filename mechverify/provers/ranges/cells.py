"""Parts of the domain, relaxed side by side: on the search's tensors, and in the kernel."""

from typing import TypeVar

import numpy as np
import torch

from mechverify.kernel.core.domain import Domain
from mechverify.kernel.core.errors import Rejected
from mechverify.kernel.core.ranges import Range
from mechverify.kernel.relaxation import rule as linear
from mechverify.kernel.relaxation.backward import Relaxed
from mechverify.kernel.relaxation.intervals import Cells, Intervals
from mechverify.provers.ranges.problem import RangeProblem
from mechverify.relax.tensors import TensorBall

R = TypeVar("R", bound=Relaxed)


def tensor_cells(problem: RangeProblem, parts: list[Domain]) -> Cells:
    """The parts as the search's tensors."""
    cells, ar = linear.cells(problem.job, parts, problem.whole), problem.ar
    boxes = (
        TensorBall(
            ar.raw(b.mid.copy()), ar.raw(np.broadcast_to(b.rad, b.mid.shape).copy())
        )
        for b in cells.inputs
    )
    facts, tabled, whole = (
        {n: tuple(map(ar.raw, ends)) for n, ends in group.items()}
        for group in (cells.facts, cells.tabled, cells.whole)
    )
    corners = tuple(tuple(ar.raw(end.copy()) for end in ends) for ends in cells.corners)
    return Cells(tuple(boxes), cells.allowed, facts, tabled, corners, whole)


def relaxed(problem: RangeProblem, cells: Cells, kind: type[R] = Relaxed) -> R:
    """The claim's graph over the search's cells."""
    rewriting = problem.rewriting
    return kind(
        problem.ar,
        rewriting.graph,
        problem.claim.weights,
        rewriting.roots,
        cells,
        shared=problem.shared,
    )


def kernel_ranges(problem: RangeProblem, parts: list[Domain]) -> list[Range]:
    """What the kernel proves of each part, with its own lines."""
    return ranges(problem, parts, problem.flags, Relaxed)


def ranges(
    problem: RangeProblem,
    parts: list[Domain],
    flags: linear.Flags,
    kind: type[Intervals],
) -> list[Range]:
    """What the kernel proves of each part, with its own lines, or by intervals."""
    found, step = [], linear.side_by_side(problem.job, flags.whole)
    for start in range(0, len(parts), step):
        some = parts[start : start + step]
        found += linear.ranges(problem.job, some, flags, kind=kind)
    return found


def estimated_ends(
    problem: RangeProblem, parts: list[Domain]
) -> tuple[np.ndarray, np.ndarray]:
    """The search's bounds [parts, entries], with default lines; the other way round where a part is empty, which
    is the kernel's word alone: rounding makes neighbours contradict each other here."""
    ends, step = [], linear.side_by_side(problem.job, problem.whole)
    for start in range(0, len(parts), step):
        cells = tensor_cells(problem, parts[start : start + step])
        with torch.no_grad():
            ends.append(_ends(relaxed(problem, cells), len(cells)))
    low, high, empty = (np.concatenate(end) for end in zip(*ends, strict=True))
    low, high = (
        np.where(np.isnan(low), -np.inf, low),
        np.where(np.isnan(high), np.inf, high),
    )
    for i in np.flatnonzero(empty):
        if problem.claim.where or parts[i].facts:
            low[i], high[i] = _kernels_word(problem, parts[i])
    return low, high


def middle_of(part: Domain, c: int) -> float:
    return float(part.low[c] / 2 + part.high[c] / 2)


def _kernels_word(problem: RangeProblem, part: Domain) -> Range:
    """The kernel's bounds of a part, if it has any."""
    try:
        return kernel_ranges(problem, [part])[0]
    except Rejected:
        return problem.claim.everything


def _ends(relaxed: Relaxed, cells: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    low, high = (
        end.expand(cells, *end.shape[1:]).reshape(cells, -1).cpu().numpy()
        for end in relaxed.output()
    )
    return low, high, relaxed.empty.expand(cells).cpu().numpy()
