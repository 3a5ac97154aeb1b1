"""Run a frontier and write all that there is to see of it."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from mechverify.provers.frontier import REFERENCE, Row, Task, run, sampled
from mechverify.report.frontier import (
    Point,
    Truth,
    group_of,
    points,
    truths,
    write_csv,
    write_latex,
)
from mechverify.report.pareto import Published, draw


class Measured(NamedTuple):
    """`known`: the accuracy of each (group, hash of weights)."""

    rows: list[Row]
    known: dict[tuple[str, str], Truth]
    points: list[Point]


def measure(
    tasks: list[Task],
    folder: Path,
    jobs: int,
    told: Callable[[Row, int], None],
    published: Published | None = None,
) -> Measured:
    """Postcondition: rows and certificates are in `folder`, and frontier.csv, .tex, .svg and .pdf (the csv alone if
    nothing was proved)."""
    found = run(tasks, folder, jobs, told)
    shares = {}
    for task in tasks:
        row = found[task.key]
        if task.strategy == REFERENCE and row.reason is not None:
            shares[group_of(row), row.weights_sha256] = sampled(task)
    rows = [found[task.key] for task in tasks]
    known = truths(rows, shares)
    made = points(rows, known)
    write_csv(folder / "frontier.csv", rows, known)
    if made:
        write_latex(folder / "frontier.tex", made)
        draw(made, [folder / "frontier.svg", folder / "frontier.pdf"], published)
    return Measured(rows, known, made)
