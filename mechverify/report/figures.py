"""Figures of a theorem, made from what the kernel checked."""

import io

import matplotlib

from mechverify.kernel.core.counts import CountingTheorem

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.colors import ListedColormap, LogNorm

from mechverify.kernel import Theorem

TINY = 1e-300


def cells_figure(theorem: Theorem) -> str | None:
    """An SVG of the cells of fold, ratios and nested: query token across, mechanism value upwards, and in colour the
    largest share of the cell's inputs that can be wrong; grey where the proof leaves a cell open (often because
    it is too small to be worth counting). None where the proof has no such cells."""
    cells = theorem.cells if isinstance(theorem, CountingTheorem) else []
    if not cells:
        return None
    tokens = sorted({c[0] for c in cells})
    values = sorted({c[1][0] for c in cells})
    share = np.full(
        (len(values), len(tokens)), np.nan
    )  # of several cells at one place, the worst
    nothing = np.ma.masked_all(share.shape)
    for token, key, size, wrong in cells:
        at = values.index(key[0]), tokens.index(token)
        if wrong == (0, size):
            nothing[at] = 1.0
        else:
            some = (
                max(wrong.high / size, TINY) if wrong.high else 0.0
            )  # not right everywhere, however few are wrong
            share[at] = np.fmax(share[at], some)
    fig, axes = plt.subplots(figsize=(6.4, 5.2), layout="constrained")
    proved = np.ma.masked_where(~(share == 0), share)
    open_ = np.ma.masked_where(~(share > 0), share)
    axes.pcolormesh(
        tokens, values, proved, cmap=ListedColormap(["#d9ead3"]), rasterized=True
    )
    axes.pcolormesh(
        tokens, values, nothing, cmap=ListedColormap(["#d0d0d0"]), rasterized=True
    )
    if open_.count():
        norm = LogNorm(max(float(open_.min()), 1e-8), 1.0, clip=True)
        image = axes.pcolormesh(
            tokens, values, open_, norm=norm, cmap="inferno_r", rasterized=True
        )
        fig.colorbar(image, label="proved: at most this share of the cell is wrong")
    position, length = theorem.claim.position, theorem.claim.domain.length
    axes.set_xlabel(
        "last token" if position == length - 1 else f"token at position {position}"
    )
    axes.set_ylabel("value of the mechanism")
    axes.set_title(
        "green: right on every input of the cell; grey: nothing proved", fontsize=10
    )
    buffer = io.StringIO()
    with plt.rc_context({"svg.hashsalt": "mechverify"}):
        fig.savefig(buffer, format="svg", dpi=200, metadata={"Date": None})
    plt.close(fig)
    text = buffer.getvalue()
    return text[text.index("<svg") :]
