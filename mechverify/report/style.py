"""How every picture looks, and how it is written: into a page, or as a file.

Pictures are read in black and white as well: what differs in colour also differs in lightness, hatching or shape.
"""

import io
import logging
import re
from html import escape
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.collections import PolyQuadMesh, QuadMesh
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

logging.getLogger("fontTools").setLevel(
    logging.ERROR
)  # it minds that a date is left out
INK, FAINT = "#010203", "#8a8b8c"  # a page puts its own colours there, dark or light
GOOD, BAD = "#2b7bba", "#c8620b"  # seen on white and on black
SHADES = "YlGnBu"  # lightness falls with the value
STYLE: Any = {
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "hatch.linewidth": 0.5,
    "svg.fonttype": "none",
    "svg.hashsalt": "mechverify",
    "pdf.fonttype": 42,
    "legend.frameon": False,
    "axes.titlesize": 9,
}
WIDTH, HEIGHT = 4.4, 3.0  # inches: letters are still read on a phone
DPI = 200
UNDATED: Any = {".svg": {"Date": None}, ".pdf": {"CreationDate": None}}


def canvas(
    rows: int = 1, columns: int = 1, height: float = HEIGHT, width: float = WIDTH
) -> tuple[Figure, list[Axes]]:
    """A figure and its panels, row by row; call it within `styled`."""
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False)
    return figure, [*np.ravel(axes)]


def whole(axis: Axis) -> None:
    """Ticks at integers alone."""
    axis.set_major_locator(MaxNLocator(integer=True))


def plain(text: str) -> str:
    """A text in a picture as it stands: dollars don't begin a formula."""
    return text.replace("$", r"\$")


def styled() -> Any:
    """A context in which pictures are made and written."""
    return matplotlib.rc_context(STYLE)


def save(figure: Figure, target: Path) -> Path:
    """As the file's suffix says."""
    with styled():
        figure.savefig(target, dpi=DPI, metadata=UNDATED.get(target.suffix))
    return target


def inline(figure: Figure, prefix: str, alt: str) -> str:
    """An SVG element for a page, in the page's ink, with a text for those who don't see it. `prefix` keeps its ids
    apart from those of other pictures."""
    for mesh in [*figure.findobj(QuadMesh), *figure.findobj(PolyQuadMesh)]:
        mesh.set_rasterized(True)  # thousands of shapes are slow to show
    buffer = io.StringIO()
    with styled():
        figure.savefig(
            buffer, format="svg", dpi=DPI, transparent=True, metadata=UNDATED[".svg"]
        )
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<!--.*?-->|<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'((?:\sid="|href="#|url\(#))', rf"\1{prefix}-", text)
    text = text.replace(INK, "currentColor").replace(FAINT, "var(--faint)")
    head = f'<svg role="img" aria-labelledby="{prefix}-alt"'
    title = f'<title id="{prefix}-alt">{escape(alt)}</title>'
    return re.sub(r"<svg([^>]*)>", lambda m: f"{head}{m[1]}>{title}", text, count=1)
