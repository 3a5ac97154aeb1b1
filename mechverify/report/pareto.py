"""The picture of a frontier: what a proof costs against what it proves."""

import logging
from itertools import cycle
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

from mechverify.report.frontier import Point, pareto
from mechverify.report.statement import scientific

logging.getLogger("fontTools").setLevel(logging.ERROR)  # it minds that a date is left out
MARKERS = "osD^v<>pPXhd*8H"
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")  # distinct to everyone
STYLE = {
    "font.family": "serif", "mathtext.fontset": "dejavuserif", "font.size": 9, "axes.linewidth": 0.6,
    "svg.fonttype": "path", "svg.hashsalt": "mechverify", "pdf.fonttype": 42, "axes.spines.top": False,
    "axes.spines.right": False,
}  # fmt: skip
SHARES = (0, 0.5, 0.8, 0.9, 0.98, 0.99, 0.998, 0.999, 1)  # ticks of an axis whose steps are what is missing, halved
NEAREST = 1e-4  # to 1 that the axis tells apart
Published = dict[str, list[tuple[str, float, float]]]  # group: (name, operations, share of the true accuracy)


def draw(found: list[Point], targets: list[Path], published: Published | None = None) -> None:
    """One panel for each group: operations (log) against bound over true accuracy (stretched towards 1), means over
    models with deviations, and the front as a line. `published`: points of others, in grey."""
    groups = list(dict.fromkeys(p.group for p in found))
    names = list(dict.fromkeys(p.strategy for p in sorted(found, key=lambda p: -p.ratio.mean)))
    looks = {n: (m, c) for n, m, c in zip(names, cycle(MARKERS), cycle(COLOURS), strict=False)}
    with plt.rc_context(STYLE):
        width, rows = min(len(groups), 2), (len(groups) + 1) // 2
        size = (5.4 if width == 1 else 7.4, 0.3 + 3.0 * rows)
        figure, axes = plt.subplots(rows, width, figsize=size, sharey=True, squeeze=False, layout="constrained")
        for ax, group in zip(axes.flat, groups, strict=False):
            _panel(ax, group, [p for p in found if p.group == group], looks, (published or {}).get(group, []))
        for ax in axes.flat[len(groups) :]:
            ax.set_visible(False)
        for ax in axes[:, 0]:
            ax.set_ylabel("proved bound / true accuracy")
        for ax in axes.flat[max(0, len(groups) - width) : len(groups)]:
            ax.set_xlabel("operations to check the proof")
        entries = {label: line for ax in axes.flat for line, label in zip(*ax.get_legend_handles_labels(), strict=True)}
        order = [n for n in names if n in entries] + [n for n in entries if n not in names]
        legend = [entries[n] for n in order]
        figure.legend(legend, order, loc="outside right upper", frameon=False, fontsize=8, handletextpad=0.2)
        for target in targets:
            figure.savefig(target, metadata={".svg": {"Date": None}, ".pdf": {"CreationDate": None}}.get(target.suffix))
    plt.close(figure)


def _panel(ax: plt.Axes, group: str, found: list[Point], looks: dict, published: list) -> None:
    front = pareto(found)
    ends = [p.ops.mean for p in found] + [ops for _, ops, _ in published]
    left, right = min(ends) / 1.8, max(ends) * 1.8
    corners = [(front[0].ops.mean, 0.0), *((p.ops.mean, p.ratio.mean) for p in front), (right, front[-1].ratio.mean)]
    ax.step(*zip(*corners, strict=True), where="post", color="0.7", linewidth=0.9, zorder=1)
    for p in found:
        marker, colour = looks[p.strategy]
        ax.errorbar(
            p.ops.mean, p.ratio.mean, xerr=p.ops.deviation or None, yerr=p.ratio.deviation or None, label=p.strategy,
            marker=marker, color=colour, markersize=5, linestyle="none", elinewidth=0.7, capsize=1.5, capthick=0.7,
            markeredgecolor="white", markeredgewidth=0.4, zorder=3,
        )  # fmt: skip
    if published:
        _, ops, shares = zip(*published, strict=True)
        ax.plot(ops, shares, "x", color="0.45", markersize=5, linestyle="none", label="Gross et al. 2024", zorder=2)
    ax.set_xscale("log")
    ax.set_xlim(left, right)
    ax.set_yscale("function", functions=(
        lambda y: -np.log10(np.maximum(1 + NEAREST - y, NEAREST / 2)), lambda z: 1 + NEAREST - 10.0**-z))  # fmt: skip
    ax.set_ylim(0, 1 + NEAREST / 4)
    ax.set_yticks(SHARES, [f"{s:g}" for s in SHARES])
    ax.grid(True, which="major", linewidth=0.3, color="0.88")
    claim, _, inputs = group.rpartition(", ")
    base, _, power = inputs.partition("^")
    models = max(p.models for p in found)
    ax.set_title(f"{claim}, ${base}^{{{power}}}$ inputs, {models} model{'s' * (models > 1)}", fontsize=9)
    digits, _, exponent = scientific(found[0].brute_force_ops).partition("e")
    text = f"brute force: ${digits}" + (rf" \cdot 10^{{{exponent}}}$" if exponent else "$")
    ax.text(0.98, 0.03, text, transform=ax.transAxes, ha="right", fontsize=7.5, color="0.35")
