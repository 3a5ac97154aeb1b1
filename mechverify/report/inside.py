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
from mechverify.kernel.statement.sentence import state
from mechverify.report import samples
from mechverify.report.checked import Checked
from mechverify.report.mathematics import named
from mechverify.report.style import BAD, FAINT, GOOD, INK, SHADES, canvas, plain

PANELS = 8  # matrices of one picture
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
    if isinstance(theorem, RangeTheorem) and theorem.verdict == "REFUTED":
        if worst := broken(theorem):
            k = slice(worst[0].point, worst[0].point + 1)
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
            which = (
                f"of {len(margins)} inputs drawn at random, that with the least margin"
            )
    return At(inputs.some(slice(least, least + 1)), which)


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
        (f"{_called(claim, n)}{index}", matrix)
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
    """The values that the sentence names, and the output."""
    theorem, claim = checked.theorem, checked.theorem.claim
    spoken = dict(_spoken(theorem))
    if not spoken or (at := _example(theorem)) is None:
        return None
    found = zip(
        spoken, samples.values(claim, [*spoken.values()], at.inputs), strict=True
    )
    shown = [(title, _read(claim, spoken[title], value[0])) for title, value in found]
    heights = [1.6 if value.ndim < 2 else 2.2 for _, (value, _) in shown]
    figure, axes = canvas(len(shown), height=sum(heights) + 0.2)
    words = []
    for ax, (title, (value, row)) in zip(axes, shown, strict=True):
        ax.set_title(plain(f"{title}{row}"), loc="left")
        if value.ndim < 2:
            words.append(
                _bars(ax, theorem, at, np.atleast_1d(value), title == _site(claim))
            )
        else:
            image = ax.imshow(
                value, cmap=SHADES, aspect="auto", interpolation="nearest"
            )
            figure.colorbar(image, ax=ax)
    said = " ".join(filter(None, words))
    caption = f"About the values that the claim speaks of, at {_told(claim, at)}.{' ' * bool(said)}{said}"
    alt = "; ".join(
        f"{title}{row}: from {value.min():.4g} to {value.max():.4g}"
        for title, (value, row) in shown
    )
    return "values", caption, f"Values at one input. {alt}.", figure


def _site(claim: Claim) -> str:
    return printable(claim.site, 40)


def _spoken(theorem: Theorem) -> Iterator[tuple[str, int]]:
    claim = theorem.claim
    statement = state(theorem)
    words = set(named(" ".join([statement.claim, *statement.given])))
    sites = {
        text: n
        for text, n in claim.sites.items()
        if text == claim.site or name(text, VOCABULARY) in words
    }
    output = {claim.site: claim.sites[claim.site]} if claim.site in claim.sites else {}
    drawn = {n: text for text, n in (sites | output).items()}  # a node once
    for n, text in [*drawn.items()][-SITES:]:
        node = claim.graph.nodes[n]
        if (
            node.kind == "real"
            and node.op != "input"
            and 0 < np.prod(node.shape) <= LARGE
        ):
            yield printable(text, 40), n


def _read(claim: Claim, n: int, value: np.ndarray) -> tuple[np.ndarray, str]:
    """The row that the claim reads, or the whole; of more than two axes the last matrix; and what index that is."""
    if n == claim.sites[claim.site] and claim.position is not None:
        return value[claim.position], f"[{claim.position}]"
    index = ""
    while value.ndim > 2:
        index += f"[{len(value) - 1}]"
        value = value[-1]
    return (
        (value[0], f"{index}[0]")
        if value.ndim == 2 and len(value) == 1
        else (value, index)
    )


def _bars(ax: Axes, theorem: Theorem, at: At, value: np.ndarray, output: bool) -> str:
    """A vector; of an accuracy's output, marked: what the mechanism says, and what the model says."""
    claim, at_entry = theorem.claim, np.arange(len(value))
    if len(value) > BARS:
        ax.plot(at_entry, value, color=GOOD, linewidth=0.8)
    else:
        bars = ax.bar(at_entry, value, 0.8, color=GOOD, edgecolor=INK, linewidth=0.3)
    ax.axhline(0, color=FAINT, linewidth=0.5)
    ax.margins(x=0.01)
    if not (
        output and isinstance(claim, AccuracyClaim) and len(value) == claim.outputs
    ):
        return ""
    (target,) = samples.values(claim, [claim.target], at.inputs)
    says, best = int(target.ravel()[0]), int(value.argmax())
    if 0 <= says < len(value):
        ax.plot(says, value[says], "v", color=BAD, markeredgecolor=INK, markersize=6)
        if len(value) <= BARS and says != best:
            bars[best].set(hatch="////")
    other = (
        f"; the largest is {best}, hatched"
        if says != best
        else ", which is the largest"
    )
    return f"The triangle marks what the mechanism says, {says}{other}."


def _called(claim: Claim, n: int) -> str:
    """Of several names the shortest."""
    texts = [printable(text, 40) for text, node in claim.sites.items() if node == n]
    return min(texts, key=len, default=f"softmax {n}")


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
        for axis, size in ((ax.xaxis, matrix.shape[1]), (ax.yaxis, matrix.shape[0])):
            if size == len(tokens) and size <= 12:
                axis.set_ticks(range(size), [str(t) for t in tokens], fontsize=7)
    for ax in axes[len(panels) :]:
        ax.set_visible(False)
    return figure


PICTURES = (_attention, _values)
