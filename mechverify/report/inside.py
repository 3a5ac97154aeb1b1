"""Pictures of what the model does at one input: where it attends, and the values that the claim speaks of."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mechverify.kernel.core.accuracy import AccuracyClaim
from mechverify.kernel.core.claim import Claim, Theorem
from mechverify.kernel.core.counts import CountingTheorem
from mechverify.kernel.core.ranges import RangeTheorem
from mechverify.kernel.core.texts import printable
from mechverify.kernel.core.words import name
from mechverify.kernel.statement.formula import VOCABULARY
from mechverify.kernel.statement.ranges import broken
from mechverify.kernel.statement.sentence import listing, state
from mechverify.report import samples
from mechverify.report.checked import Checked
from mechverify.report.mathematics import named
from mechverify.report.style import BAD, FAINT, GOOD, INK, SHADES, canvas, plain, whole

PANELS = 8  # matrices of one picture
CLAIMED = "what is claimed about"  # where the sentence has a formula for it
SITES = 3  # values that are drawn
BARS = 64  # entries of a vector that is drawn as bars
LARGE = 2**14  # entries of a value that is not drawn
LOOKED = 64  # inputs among which one with a small margin is looked for


class At(NamedTuple):
    """One input, and in words which."""

    inputs: samples.Inputs
    which: str


def _example(theorem: Theorem) -> At | None:
    """The counterexample; where there is none, of some inputs drawn at random the one with the least margin."""
    claim = theorem.claim
    if isinstance(theorem, CountingTheorem) and len(theorem.wrong):
        one = samples.Inputs(theorem.wrong[:1], np.zeros((1, 0)))
        return At(one, "the first counterexample")
    if isinstance(theorem, RangeTheorem) and (worst := _worst(theorem)) is not None:
        k = slice(worst, worst + 1)
        one = samples.Inputs(theorem.tokens[k], theorem.points[k])
        return At(one, "the worst counterexample")
    inputs = samples.drawn(
        claim, min(LOOKED, samples.affordable(claim, [claim.output]))
    )
    if not len(inputs.tokens):
        return None
    least = 0
    which = "one input, drawn at random"
    if isinstance(theorem, CountingTheorem):
        margins = samples.entries(claim, inputs)
        if len(margins) == len(inputs.tokens):
            least = int(margins.min(1).argmin())
            which = f"the input with the least margin of {len(margins)} drawn at random"
    return At(inputs.some(slice(least, least + 1)), which)


def _worst(theorem: RangeTheorem) -> int | None:
    """The row of a replayed input."""
    return next((b.point for b in broken(theorem)), None)


def _told(claim: Claim, at: At) -> str:
    ids = at.inputs.tokens[0].tolist()
    if not ids:
        numbers = ", ".join(f"{v:.4g}" for v in at.inputs.points[0, :6].tolist())
        more = ", ..." if at.inputs.points.shape[1] > 6 else ""
        return f"{at.which}: [{numbers}{more}]"
    return f"{at.which}: {_clipped([claim.graph.values[i] for i in ids])}"


def _clipped(tokens: list[int]) -> str:
    text = ", ".join(map(str, tokens[:24]))
    return f"[{text}{', ...' if len(tokens) > 24 else ''}]"


def _attention(checked: Checked) -> tuple | None:
    claim = checked.theorem.claim
    roots = [claim.sites[claim.site]]
    nodes = claim.graph.nodes
    found = [
        n
        for n in claim.graph.ancestors(roots)
        if nodes[n].op == "softmax"
        and len(nodes[n].shape) >= 2
        and np.prod(nodes[n].shape) <= LARGE
    ]
    if not found or (at := _example(checked.theorem)) is None:
        return None
    panels = [
        (f"{_called(checked.theorem, n)}{index}", matrix)
        for n, value in zip(found, samples.values(claim, found, at.inputs), strict=True)
        for index, matrix in _matrices(value[0])
    ]
    figure = _grid(panels[:PANELS], at, claim)
    shown = f" (the first {PANELS} of {len(panels)})" if len(panels) > PANELS else ""
    caption = (
        f"Attention{shown}: each row a query, each column a key, darker where it attends more, from 0 to 1. At "
        f"{_told(claim, at)}."
    )
    alt = "; ".join(
        f"{title}: from position {len(m) - 1} most to position {int(m[-1].argmax())}, about {m[-1].max():.2f}"
        for title, m in panels[:PANELS]
    )
    return "attention", caption, f"Attention patterns. {alt}.", figure


def _values(checked: Checked) -> tuple | None:
    """The values that the sentence names, and the output; those of one entry in words."""
    theorem, claim = checked.theorem, checked.theorem.claim
    spoken = _spoken(theorem)
    if not spoken or (at := _example(theorem)) is None:
        return None
    found = samples.values(claim, [*spoken.values()], at.inputs)
    shown, words, height = [], [], 0.1
    for (title, n), value in zip(spoken.items(), found, strict=True):
        index, here = _read(claim, n, value[0])
        if here.size == 1:
            words.append(f"{title}{index} is about {here.item():.6g}.")
        else:
            shown.append((f"{title}{index}", here, n == claim.sites[claim.site]))
            height += 1.7 if here.ndim < 2 else 2.3
    if not shown:
        return None
    figure, axes = canvas(len(shown), height=height)
    for ax, (title, value, own) in zip(axes, shown, strict=True):
        ax.set_title(plain(title), loc="left")
        if value.ndim == 2:
            image = ax.imshow(
                value, cmap=SHADES, aspect="auto", interpolation="nearest"
            )
            figure.colorbar(image, ax=ax)
            continue
        _bars(ax, value)
        if own and isinstance(claim, AccuracyClaim):
            words.append(_answers(ax, claim, at, value))
    about = f"About the values that the claim speaks of, at {_told(claim, at)}."
    alt = "; ".join(
        f"{title}: from {v.min():.4g} to {v.max():.4g}" for title, v, _ in shown
    )
    return "values", " ".join([about, *words]), f"Values at one input. {alt}.", figure


def _spoken(theorem: Theorem) -> dict[str, int]:
    """Nodes by the sites' names: those in the sentence, and the claim's own."""
    claim, statement = theorem.claim, state(theorem)
    words = named(" ".join([statement.claim, *statement.given]))
    sites = {
        n: text for text, n in claim.sites.items() if name(text, VOCABULARY) in words
    }
    own = name(claim.site, VOCABULARY) in words
    sites |= {claim.sites[claim.site]: claim.site if own else CLAIMED}
    nodes = claim.graph.nodes
    return {
        printable(text, 40): n
        for n, text in [*sites.items()][-SITES:]
        if nodes[n].kind == "real"
        and nodes[n].op != "input"
        and 0 < np.prod(nodes[n].shape) <= LARGE
    }


def _read(claim: Claim, n: int, value: np.ndarray) -> tuple[str, np.ndarray]:
    """The row that the claim reads, or the whole, of more than two axes the last matrix; and before it, which."""
    if n == claim.sites[claim.site] and claim.position is not None:
        return f"[{claim.position}]", value[claim.position]
    index = ""
    while value.ndim > 2 or (value.ndim == 2 and len(value) == 1):
        index, value = f"{index}[{len(value) - 1}]", value[-1]
    return index, value


def _bars(ax: Axes, value: np.ndarray) -> None:
    at = np.arange(len(value))
    if len(value) > BARS:
        ax.plot(at, value, color=GOOD, linewidth=0.8)
    else:
        ax.bar(at, value, 0.8, color=GOOD, edgecolor=INK, linewidth=0.3)
    ax.axhline(0, color=FAINT, linewidth=0.5)
    ax.margins(x=0.01)
    whole(ax.xaxis)


def _answers(ax: Axes, claim: AccuracyClaim, at: At, value: np.ndarray) -> str:
    """Mark what the mechanism says, and the largest output."""
    ax.margins(y=0.15)  # a mark is larger than its point
    (target,) = samples.values(claim, [claim.target], at.inputs)
    says, best = int(target.ravel()[0]), int(value.argmax())
    ax.plot(best, value[best], "o", color=INK, markerfacecolor="none", markersize=9)
    if not 0 <= says < len(value):
        return f"The mechanism says {says}, which is no output; the circle marks the largest, {best}."
    ax.plot(says, value[says], "v", color=BAD, markeredgecolor=INK, markersize=6)
    return f"Triangle: what the mechanism says, {says}. Circle: the largest, {best}."


def _called(theorem: Theorem, n: int) -> str:
    """Of several names the shortest; of none, the node's number in the listing."""
    sites = theorem.claim.sites.items()
    texts = [printable(text, 40) for text, node in sites if node == n]
    nodes = listing(theorem)
    return min(
        texts, key=len, default=nodes.name(n) if n in nodes.number else "attention"
    )


def _matrices(value: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """(index, matrix) of the last two axes."""
    for index in np.ndindex(value.shape[:-2]):
        yield f"[{', '.join(map(str, index))}]" if index else "", value[index]


def _grid(panels: list[tuple[str, np.ndarray]], at: At, claim: Claim) -> Figure:
    columns = min(len(panels), 2)
    rows = -(-len(panels) // columns)
    figure, axes = canvas(
        rows, columns, height=min(1.9 * rows + 0.4, 9.0) if columns > 1 else 3.2
    )
    tokens = [claim.graph.values[i] for i in at.inputs.tokens[0].tolist()]
    for ax, (title, matrix) in zip(axes, panels, strict=False):
        ax.imshow(
            matrix, cmap=SHADES, vmin=0, vmax=1, interpolation="nearest", aspect="auto"
        )
        ax.set_title(plain(title), fontsize=7 if columns > 1 else 9)
        ax.set_ylabel("query", fontsize=7)
        ax.set_xlabel("key", fontsize=7)
        if matrix.size <= 64 // columns**2:
            for (i, j), weight in np.ndenumerate(matrix):
                ink = "white" if weight > 0.55 else "black"
                ax.text(
                    j,
                    i,
                    f"{weight:.2f}",
                    ha="center",
                    va="center",
                    color=ink,
                    fontsize=7,
                )
        for axis, size in ((ax.xaxis, matrix.shape[1]), (ax.yaxis, matrix.shape[0])):
            if size == len(tokens) and size <= 12:
                axis.set_ticks(range(size), [str(t) for t in tokens], fontsize=7)
            else:
                whole(axis)
    for ax in axes[len(panels) :]:
        ax.set_visible(False)
    return figure


PICTURES = (_attention, _values)
