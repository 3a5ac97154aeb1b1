"""The pictures of a checked certificate: what was proved of each part, margins over the domain, the cost."""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib import colormaps
from matplotlib.colors import ListedColormap, LogNorm
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from mechverify.kernel.core.claim import Claim
from mechverify.kernel.core.counts import CountingTheorem
from mechverify.kernel.core.errors import Rejected
from mechverify.kernel.core.ranges import RangeClaim, RangeTheorem
from mechverify.kernel.core.words import scientific
from mechverify.report import inside, samples
from mechverify.report.checked import Checked, names
from mechverify.report.statement import brute_force_ops
from mechverify.report.style import (
    BAD,
    FAINT,
    GOOD,
    INK,
    SHADES,
    canvas,
    save,
    styled,
    whole,
)
from mechverify.report.tree import cuts

TINY = 1e-300
FINE = 10_000  # cells up to which a picture holds each as a shape of its own
SHOWN = 48  # entries of a bounded value
FEW = 4  # replayed inputs that are drawn one by one
GRID = 120  # points a side of a map
# from light to dark, but neither as light as what is proved nor as dark as a dark page
RIGHT, WRONG = "#dcefd6", colormaps["inferno_r"](np.linspace(0.2, 0.8, 256))
DRAWN = "Drawn for the eye: no part of the theorem."


class Picture(NamedTuple):
    """`name` is one word; `alt` says what is to be seen to those who don't."""

    name: str
    caption: str
    alt: str
    figure: Figure


def pictures(checked: Checked) -> Iterator[Picture]:
    """Those that the theorem has."""
    for draw in (cells, _bounds, _map, _margins, *inside.PICTURES, _cost):
        # where the values of a picture overflow, there is none
        with suppress(Rejected, OverflowError), styled():
            if found := draw(checked):
                yield Picture(*found)


def write_figures(folder: Path, checked: Sequence[Checked]) -> list[Path]:
    """Each picture as `folder`/CERTIFICATE-PICTURE.pdf and .png; return the paths."""
    folder.mkdir(parents=True, exist_ok=True)
    found = [
        (f"{name.removesuffix('.cert')}-{picture.name}", picture.figure)
        for name, one in zip(names(checked), checked, strict=True)
        for picture in pictures(one)
    ]
    if len(checked) > 1:
        from mechverify.report.compare import fronts

        found += [(f"front-{i + 1}", f) for i, (*_, f) in enumerate(fronts(checked))]
    return [
        save(figure, folder / f"{name}{suffix}")
        for name, figure in found
        for suffix in (".pdf", ".png")
    ]


def cells(checked: Checked) -> tuple | None:
    """The cells of fold, ratios and nested: query token across, mechanism value upwards, and in colour the largest
    share of the cell's inputs that can be wrong; hatched where the proof leaves a cell open (often because it is too
    small to be worth counting)."""
    theorem = checked.theorem
    found = theorem.cells if isinstance(theorem, CountingTheorem) else []
    if not found:
        return None
    tokens = sorted({c[0] for c in found})
    values = sorted({c[1][0] for c in found})
    share = np.full(
        (len(values), len(tokens)), np.nan
    )  # of several cells at one place, the worst
    nothing = np.ma.masked_all(share.shape)
    for token, key, size, wrong in found:
        at = values.index(key[0]), tokens.index(token)
        if wrong == (0, size):
            nothing[at] = 1.0
        else:
            some = (
                max(wrong.high / size, TINY) if wrong.high else 0.0
            )  # not right everywhere, however few are wrong
            share[at] = np.fmax(share[at], some)
    figure, (axes,) = canvas(height=3.6)
    proved = np.ma.masked_where(~(share == 0), share)
    open_ = np.ma.masked_where(~(share > 0), share)
    coarse = share.size > FINE
    axes.pcolormesh(
        tokens, values, proved, cmap=ListedColormap([RIGHT]), rasterized=coarse
    )
    if nothing.count():
        axes.pcolor(
            tokens,
            values,
            nothing,
            cmap=ListedColormap(["#b9b9b9"]),
            hatch="////",
            edgecolor="#555555",
            linewidth=0,
            rasterized=coarse,
        )
    if open_.count():
        norm = LogNorm(max(float(open_.min()), 1e-8), 1.0, clip=True)
        image = axes.pcolormesh(
            tokens,
            values,
            open_,
            norm=norm,
            cmap=ListedColormap(WRONG),
            rasterized=coarse,
        )
        figure.colorbar(image, label="proved: at most this share of the cell is wrong")
    position, length = theorem.claim.position, theorem.claim.domain.length
    axes.set_xlabel(
        "last token" if position == length - 1 else f"token at position {position}"
    )
    axes.set_ylabel("value of the mechanism")
    whole(axes.xaxis)
    whole(axes.yaxis)
    right = sum(1 for *_, wrong in found if not wrong.high)
    left = sum(1 for *_, size, wrong in found if wrong == (0, size) and size)
    caption = (
        "What was proved of each cell, by query token and value of the mechanism. Pale: right on every input of the "
        f"cell.{' Coloured: at most that share of it is wrong.' * bool(open_.count())}"
        f"{' Hatched: nothing was proved of it.' * bool(nothing.count())}"
    )
    alt = f"{len(found)} cells, {right} of them right everywhere; of {left} nothing was proved."
    return "cells", caption, alt, figure


def _bounds(checked: Checked) -> tuple | None:
    """Of each entry: the proved range, what inputs reach, and the thresholds."""
    theorem = checked.theorem
    if not isinstance(theorem, RangeTheorem):
        return None
    claim, shown = theorem.claim, min(theorem.claim.outputs, SHOWN)
    low, high = (end[:shown] for end in theorem.range)
    finite = (np.abs(low) < samples.LARGEST) & (np.abs(high) < samples.LARGEST)
    at = np.arange(shown)
    figure, (axes,) = canvas()
    if finite.any():
        axes.bar(
            at[finite], (high - low)[finite], 0.7, low[finite], facecolor=f"{GOOD}33",
            edgecolor=GOOD, linewidth=0.9, label="proved range",
        )  # fmt: skip
    count = samples.affordable(claim, [claim.output])
    inputs = samples.drawn(claim, count) if count else None
    if inputs is not None and len(inputs.tokens):
        reached = samples.entries(claim, inputs)[:, :shown]
        axes.vlines(
            at,
            reached.min(0),
            reached.max(0),
            INK,
            linewidth=2.2,
            label=f"{len(reached)} inputs drawn at random",
        )
    if theorem.attained is not None and len(theorem.points):
        points = (theorem.attained.low + theorem.attained.high)[:, :shown] / 2
        if len(points) > FEW:
            points = np.stack([points.min(0), points.max(0)])
        axes.plot(
            np.broadcast_to(at, points.shape).ravel(), points.ravel(), "x", color=BAD, markersize=4,
            linestyle="none", label=f"{'ends of ' * (len(theorem.points) > FEW)}inputs in the certificate",
        )  # fmt: skip
    for ends, word, style in _thresholds(claim):
        axes.step(
            np.append(at, shown) - 0.5,
            [float(t) for t in (*ends[:shown], ends[shown - 1])],
            style,
            where="post",
            color=BAD,
            linewidth=1.2,
            label=f"claimed: {word}",
        )
    axes.set_xlabel("entry" if shown > 1 else "the value")
    axes.set_xticks(at if shown <= 12 else at[:: -(-shown // 8)])
    axes.set_xlim(-0.8, shown - 0.2)
    figure.legend(loc="outside upper left", ncols=2, fontsize=8)
    of = f" (the first {shown} of {claim.outputs})" if shown < claim.outputs else ""
    unbounded = int((~finite).sum())
    boxes = "proved ranges as boxes, and " * bool(finite.any())
    rest = (
        f" Of {unbounded} entries an end is unbounded, so that they have no box."
        if 0 < unbounded < shown
        else ""
    )
    caption = (
        f"Each entry{of}: {boxes}about the values at inputs, which are drawn for the eye and no part of the theorem."
        f"{rest}"
    )
    alt = f"A bar for each of {shown} entries; the proved ranges stand in the theorem above."
    return "bounds", caption, alt, figure


def _map(checked: Checked) -> tuple | None:
    """Over a box with one or two coordinates that vary: the value that is claimed about, and the proof's parts."""
    theorem, claim = checked.theorem, checked.theorem.claim
    free = np.flatnonzero(claim.domain.low < claim.domain.high)
    if claim.domain.size != 1 or not 1 <= len(free) <= 2 or claim.outputs != 1:
        return None
    if samples.affordable(claim, [claim.output]) < samples.MOST:
        return None
    counting = isinstance(theorem, CountingTheorem)
    low, high = claim.domain.low, claim.domain.high
    sides = [
        np.linspace(low[c], high[c], GRID if len(free) > 1 else 8 * GRID) for c in free
    ]
    grid = np.stack(np.meshgrid(*sides, indexing="ij"), -1).reshape(-1, len(free))
    points = np.tile(low, (len(grid), 1))
    points[:, free] = grid
    tokens = np.tile([ids[0] for ids in claim.domain.tokens], (len(grid), 1))
    inputs = samples.Inputs(tokens.reshape(len(grid), -1).astype(np.int64), points)
    value, union = samples.entries(claim, inputs)[:, 0], samples.union_of(claim)
    if union is not None:  # of other inputs the claim doesn't speak
        value = np.where(union.holds(points), value, np.nan)
        if np.isnan(value).all():
            return None
    count, over = (
        int((~np.isnan(value)).sum()),
        "box" if union is None else "union's boxes",
    )
    least, most = float(np.nanmin(value)), float(np.nanmax(value))
    figure, (axes,) = canvas(height=3.4)
    names = [coordinate(claim, int(c)) for c in free]
    axes.set_xlabel(names[0])
    parts = cuts(checked.data, claim.domain)
    if len(free) == 1:
        axes.plot(sides[0], value, color=GOOD, linewidth=1.4)
        for part in parts[1:]:
            axes.axvline(float(part.low[free[0]]), color=FAINT, linewidth=0.4)
        _levels(theorem, axes.axhline)
        axes.set_ylabel("left side of the condition" if counting else "the value")
    else:
        x, y = np.meshgrid(*sides, indexing="ij")
        z = value.reshape(x.shape)
        image = axes.pcolormesh(x, y, z, cmap=SHADES, rasterized=True, shading="auto")
        figure.colorbar(
            image, label="left side of the condition" if counting else "the value"
        )
        if counting and least < 0 < most:
            axes.contourf(x, y, z, [least, 0], colors="none", hatches=["////"])
            axes.contour(x, y, z, [0], colors=BAD, linewidths=1.4)
        for part in parts:
            (x0, y0), (x1, y1) = part.low[free].tolist(), part.high[free].tolist()
            box = Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, linewidth=0.3)
            box.set_edgecolor("#00000055")
            axes.add_patch(box)
        axes.set_ylabel(names[1])
    what = (
        "the left side of the condition: hatched, where it is below zero"
        if counting
        else "the value that is bounded"
    )
    boxes = (
        f"; thin lines are the borders of the proof's {len(parts):,} parts"
        if len(parts) > 1
        else ""
    )
    caption = f"About {what}, at {count:,} points of the {over}{boxes}. {DRAWN}"
    alt = f"A map of {what} over the {over}, from about {least:.4g} to {most:.4g}."
    return "map", caption, alt, figure


def _levels(theorem: object, line: Callable) -> None:
    """What a value is compared with."""
    if isinstance(theorem, CountingTheorem):
        line(0, color=BAD, linestyle="--", linewidth=1.2)
    elif isinstance(theorem, RangeTheorem):
        for ends, _, style in _thresholds(theorem.claim):
            line(float(ends[0]), color=BAD, linestyle=style, linewidth=1.2)


def _thresholds(claim: RangeClaim) -> list[tuple[list[Fraction], str, str]]:
    """Those that are claimed, in words, and how they are drawn."""
    ends = (claim.least, "at least", "--"), (claim.most, "at most", ":")
    return [(end, word, style) for end, word, style in ends if end is not None]


def _margins(checked: Checked) -> tuple | None:
    """Of inputs drawn at random: by how much each is right."""
    theorem, claim = checked.theorem, checked.theorem.claim
    count = samples.affordable(claim, [claim.output])
    if not isinstance(theorem, CountingTheorem) or count < 100:
        return None
    inputs = samples.drawn(claim, count)
    margins = samples.entries(claim, inputs).ravel() if len(inputs.tokens) else []
    if len(margins) < 10:
        return None
    needed = float(getattr(claim, "margin", 0))
    figure, (axes,) = canvas()
    number, edges = np.histogram(margins, 40)
    short = edges[:-1] < needed
    for here, colour, hatch in ((~short, GOOD, ""), (short, f"{BAD}88", "////")):
        axes.bar(
            edges[:-1][here], number[here], np.diff(edges)[here], align="edge",
            facecolor=colour, edgecolor=INK, linewidth=0.3, hatch=hatch,
        )  # fmt: skip
    axes.axvline(needed, color=BAD, linestyle="--", linewidth=1.2)
    lead = claim.kind == "accuracy"
    axes.set_xlabel(
        "lead of the mechanism's output" if lead else "left side of the condition"
    )
    axes.set_ylabel("inputs")
    fails = np.less_equal if getattr(claim, "strict", True) else np.less
    failing = int(fails(margins, needed).sum())
    caption = (
        f"Margins of {len(margins):,} inputs, drawn uniformly: the least is about {min(margins):.4g}. The condition "
        f"fails left of the dashed line: for {f'about {failing} of them' if failing else 'none of them'}. {DRAWN}"
    )
    alt = f"A histogram of margins from about {min(margins):.4g} to {max(margins):.4g}."
    return "margins", caption, alt, figure


def _cost(checked: Checked) -> tuple | None:
    """The check beside running every input."""
    theorem = checked.theorem
    brute = brute_force_ops(theorem) if isinstance(theorem, CountingTheorem) else None
    if not brute:
        return None
    figure, (axes,) = canvas(height=1.5)
    sizes = [math.log10(n) for n in (brute, max(theorem.kernel_ops, 1))]
    bars = axes.barh(
        ["brute force", "this check"],
        sizes,
        color=["none", GOOD],
        edgecolor=INK,
        hatch=["////", ""],
        linewidth=0.6,
    )
    axes.bar_label(bars, [scientific(brute), scientific(theorem.kernel_ops)], padding=3)
    axes.set_xlim(0, max(sizes) * 1.2)
    axes.xaxis.set_major_formatter(lambda power, _: f"1e{power:g}")
    axes.set_xlabel("operations")
    caption = (
        "Operations of the check, beside those of running every input of the domain."
    )
    alt = f"The check took {scientific(theorem.kernel_ops)} operations; brute force takes {scientific(brute)}."
    return "cost", caption, alt, figure


def coordinate(claim: Claim, c: int) -> str:
    """The name of a coordinate of all real inputs together."""
    for k, shape in enumerate(claim.shapes):
        size = int(np.prod(shape))
        if c < size:
            index = ", ".join(str(int(i)) for i in np.unravel_index(c, shape))
            return f"input{k}[{index}]" if shape else f"input{k}"
        c -= size
    raise ValueError(f"no coordinate {c}")
