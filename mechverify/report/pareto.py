"""The picture of a frontier: what a proof costs against what it proves."""

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mechverify.kernel.core.words import scientific
from mechverify.report.frontier import Point, pareto
from mechverify.report.style import FAINT, INK, plain, save, styled

MARKERS = "os^DvPX<*>"
COLOURS = (
    "#0072b2",
    "#d55e00",
    "#009e73",
    "#cc79a7",
    "#e69f00",
    "#56b4e9",
    INK,
)  # distinct to everyone
SHARES = (
    0,
    0.5,
    0.8,
    0.9,
    0.98,
    0.99,
    0.998,
    0.999,
    1,
)  # ticks of an axis whose steps are what is missing, halved
NEAREST = 1e-4  # to 1 that the axis tells apart
Published = dict[
    str, list[tuple[str, float, float]]
]  # group: (name, operations, share of the true accuracy)


def draw(
    found: list[Point], targets: list[Path], published: Published | None = None
) -> None:
    """Write the picture of a measured frontier."""
    figure = picture(found, "proved bound / true accuracy", published)
    for target in targets:
        save(figure, target)


def picture(
    found: list[Point], ylabel: str, published: Published | None = None, widest: int = 2
) -> Figure:
    """One panel for each group: operations (log) against the points' `ratio` (stretched towards 1), means over models
    with deviations, and the front as a line. `published`: points of others, in grey. `widest`: panels side by side."""
    groups = list(dict.fromkeys(p.group for p in found))
    names = list(
        dict.fromkeys(p.strategy for p in sorted(found, key=lambda p: -p.ratio.mean))
    )
    looks = {n: _look(i) for i, n in enumerate(names)}
    with styled():
        width = min(len(groups), widest)
        rows = -(-len(groups) // width)
        size = ({1: 4.8}.get(widest, 6.0 if width == 1 else 7.8), 0.3 + 3.2 * rows)
        figure = Figure(figsize=size, layout="constrained")
        axes = figure.subplots(rows, width, sharey=True, squeeze=False)
        for ax, group in zip(axes.flat, groups, strict=False):
            _panel(
                ax,
                group,
                [p for p in found if p.group == group],
                looks,
                (published or {}).get(group, []),
            )
        for ax in axes.flat[len(groups) :]:
            ax.set_visible(False)
        for ax in axes[:, 0]:
            ax.set_ylabel(ylabel)
        for ax in axes.flat[max(0, len(groups) - width) : len(groups)]:
            ax.set_xlabel("operations to check the proof")
        entries = {
            label: line
            for ax in axes.flat
            for line, label in zip(*ax.get_legend_handles_labels(), strict=True)
        }
        order = [n for n in map(plain, names) if n in entries]
        order += [n for n in entries if n not in order]
        figure.legend(
            [entries[n] for n in order],
            order,
            loc="outside right upper" if widest > 1 else "outside lower left",
            ncols=1 if widest > 1 else 2,
            frameon=False,
            fontsize=8,
            handletextpad=0.2,
        )
        figure.draw_without_rendering()  # now it is known where points are
        for ax, group in zip(axes.flat, groups, strict=False):
            _names(ax, [p for p in found if p.group == group])
    return figure


def _look(i: int) -> dict[str, str]:
    """Colours change fastest; past the last marker, points are hollow."""
    colour, hollow = COLOURS[i % len(COLOURS)], i // len(MARKERS) % 2
    return {
        "marker": MARKERS[i % len(MARKERS)],
        "color": colour,
        "markerfacecolor": "white" if hollow else colour,
    }


def _panel(
    ax: Axes, group: str, found: list[Point], looks: dict, published: list
) -> None:
    front = pareto(found)
    ends = [p.ops.mean for p in found] + [ops for _, ops, _ in published]
    left, right = min(ends) / 6, max(ends) * 1.8  # names stand left of the front
    corners = [
        (front[0].ops.mean, 0.0),
        *((p.ops.mean, p.ratio.mean) for p in front),
        (right, front[-1].ratio.mean),
    ]
    ax.step(
        *zip(*corners, strict=True), where="post", color=FAINT, linewidth=0.9, zorder=1
    )
    for p in found:
        above = min(
            p.ratio.deviation, 1 - p.ratio.mean
        )  # no bound is more than the accuracy
        ax.errorbar(
            p.ops.mean, p.ratio.mean, xerr=p.ops.deviation or None, label=plain(p.strategy), linestyle="none",
            yerr=[[p.ratio.deviation], [above]] if p.ratio.deviation else None, elinewidth=0.7, capsize=1.5,
            capthick=0.7, markersize=4.5, markeredgewidth=0.8, zorder=3, **looks[p.strategy],
        )  # fmt: skip
    if published:
        _, ops, shares = zip(*published, strict=True)
        ax.plot(
            ops,
            shares,
            "x",
            color=FAINT,
            markersize=5,
            linestyle="none",
            label="Gross et al. 2024",
            zorder=2,
        )
    ax.set_xscale("log")
    ax.set_xlim(left, right)
    ax.set_yscale("function", functions=(
        lambda y: -np.log10(np.maximum(1 + NEAREST - y, NEAREST / 2)), lambda z: 1 + NEAREST - 10.0**-z))  # fmt: skip
    ax.set_ylim(0, 1 + NEAREST / 4)
    ax.set_yticks(SHARES, [f"{s:g}" for s in SHARES])
    ax.grid(True, which="major", linewidth=0.3, color=FAINT, alpha=0.5)
    models = max(p.models for p in found)
    ax.set_title(_title(group, models), fontsize=9)
    if brute := found[0].brute_force_ops:
        digits, _, exponent = scientific(brute).partition("e")
        text = f"brute force: ${digits}" + (
            rf" \cdot 10^{{{exponent}}}$" if exponent else "$"
        )
        ax.text(0.98, 0.03, text, transform=ax.transAxes, ha="right", fontsize=7.5)


def _title(group: str, models: int) -> str:
    claim, _, inputs = group.rpartition(", ")
    base, power, exponent = inputs.partition("^")
    if not (power and (base + exponent).isdigit()):
        return plain(group)
    many = f", {models} models" if models > 1 else ""
    return f"{plain(claim)}, ${base}^{{{exponent}}}$ inputs{many}"


def _names(ax: Axes, found: list[Point]) -> None:
    """To the left of the points of the front, the better first, where there is room."""
    edge = ax.transAxes.transform((0, 0))[0] * 72 / ax.figure.dpi
    taken: list[
        tuple[float, float, float]
    ] = []  # left, right and baseline of a name, in points
    for p in reversed(pareto(found)):
        x, y = ax.transData.transform((p.ops.mean, p.ratio.mean)) * 72 / ax.figure.dpi
        left = x - 5 - 3.6 * len(p.strategy)
        if left > edge and all(
            left > end or x < start or abs(y - base) > 7 for start, end, base in taken
        ):
            taken.append((left, x, y))
            ax.annotate(
                plain(p.strategy), (p.ops.mean, p.ratio.mean), xytext=(-5, 2), textcoords="offset points",
                ha="right", fontsize=6.5,
            )  # fmt: skip
