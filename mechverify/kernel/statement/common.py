"""What the sentences of both kinds of claims say: the parts of a statement, its domain, its graph; and what values at
an input are, where a sentence shows one.
"""

from collections.abc import Callable, Iterable, Sequence
from fractions import Fraction
from hashlib import sha256
from math import prod
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from mechverify.kernel.check import AXIOMS
from mechverify.kernel.core.arithmetic import Arithmetic
from mechverify.kernel.core.claim import Claim, Theorem
from mechverify.kernel.core.errors import Rejected
from mechverify.kernel.core.evaluate import Evaluation
from mechverify.kernel.core.exact import Exact
from mechverify.kernel.core.float64 import Float64
from mechverify.kernel.core.neighbours import float_below
from mechverify.kernel.core.semantics import Real
from mechverify.kernel.core.words import listed, number, runs
from mechverify.kernel.statement.formula import Listing

if TYPE_CHECKING:
    from mechverify.kernel.core.unions import Union

SHOWN = 4  # replayed inputs
NOTHING = Fraction(1, 10**300)  # numbers below it are about zero
MEANING = {
    "real": "exact real arithmetic on these exact weights",
    "float32": "every float32 evaluation of the model, in any summation order",
}
Rows = list[tuple[str, str]]


class Statement(NamedTuple):
    """`subject` is the value that is claimed about, `claim` what of it; `equals`, `margin` and `threshold` are parts of
    that. `given` are conditions, `lemmas` pairs of a site and what was proved of it; `asserted` is what the file says
    and nobody checked; `proved` the numbers that were proved, `examples` inputs that were replayed, both with their
    labels."""

    verdict: str
    claim: str
    subject: str
    equals: str | None
    margin: str
    threshold: str
    domain: tuple[str, ...]
    given: tuple[str, ...]
    lemmas: tuple[tuple[str, str], ...]
    model: str
    assumed: tuple[str, ...]
    asserted: tuple[str, ...]
    proved: tuple[tuple[str, str], ...]
    semantics: str
    axioms: tuple[str, ...]
    examples: tuple[tuple[str, str], ...]

    def rows(self) -> Rows:
        """(label, text), each a line; `examples` apart."""
        return [
            ("verdict", self.verdict),
            ("claim", self.claim),
            *(("domain", text) for text in self.domain),
            *(("given", text) for text in self.given),
            *(("lemma", text) for _, text in self.lemmas),
            ("model", self.model),
            *(("assumed", text) for text in self.assumed),
            *(("the file says", text) for text in self.asserted),
            *self.proved,
            ("semantics", self.semantics),
            *(("axiom", text) for text in self.axioms or ["none"]),
        ]


def digest(nodes: Listing) -> str:
    """Of the listing's lines, each with a line feed."""
    whole = sha256()
    for line in nodes.lines():
        whole.update(f"{line}\n".encode())
    return whole.hexdigest()


def graph_of(nodes: Listing) -> str:
    return f"graph of {len(nodes.nodes)} nodes, sha256 {digest(nodes)}"


def common(theorem: Theorem) -> dict:
    claim = theorem.claim
    return {
        "verdict": theorem.verdict,
        "semantics": f"{claim.semantics} ({MEANING[claim.semantics]})",
        "axioms": tuple(f"{axiom}: {AXIOMS[axiom]}" for axiom in theorem.axioms),
        "domain": domain(claim),
    }


def defined(shared: list[str]) -> str:
    return f", where {', '.join(shared)}" if shared else ""


# --- The domain -------------------------------------------------------------------------------------------------------


def domain(claim: Claim) -> tuple[str, ...]:
    """The token sequences, and the box of each real input."""
    d, texts = claim.domain, []
    if d.length:
        texts.append(_sequences(claim))
    start = 0
    for k, shape in enumerate(claim.shapes):
        ends = zip(
            *(end[start : start + prod(shape)].tolist() for end in (d.low, d.high)),
            strict=True,
        )
        box = listed(runs([interval(*e) for e in ends]), separator=" x ")
        texts.append(f"input{k} of shape {_shape(shape)} in {box}")
        start += prod(shape)
    return tuple(texts)


def boxes(union: "Union | None") -> tuple[str, ...]:
    """Of the real inputs, those of a union: each box by the intervals of all coordinates."""
    if union is None:
        return ()
    each = [
        listed(runs([interval(*e) for e in zip(*ends, strict=True)]), separator=" x ")
        for ends in zip(union.low.tolist(), union.high.tolist(), strict=True)
    ]
    which = f"in at least one of {len(each):,} boxes" if len(each) > 1 else "in one box"
    return (f"of these real inputs, those {which}: {listed(each, separator=' or ')}",)


def _sequences(claim: Claim) -> str:
    d, values = claim.domain, claim.graph.values
    vocab, size = len(values), f"{d.size:,}"
    full = all(len(t) == vocab for t in d.tokens)
    size = f"all {vocab}^{d.length} = {size}" if full else size
    symbols = f"x0 .. x{d.length - 1}" if d.length > 1 else "x0"
    sets = (
        ""
        if full
        else f", with ids {listed(runs([ids_of(t) for t in d.tokens]), separator=' x ')}"
    )
    meaning = (
        "" if values == tuple(range(vocab)) else f"; ids from 0 mean [{listed(values)}]"
    )
    return f"{size} sequences {symbols} over {vocab} tokens{sets}{meaning}"


def ids_of(tokens: tuple[int, ...]) -> str:
    """A set of ascending ids; three neighbours and more as `first..last`."""
    ids = np.array(tokens)
    starts = np.flatnonzero(np.diff(ids, prepend=ids[0] - 2) != 1)
    parts: list[str] = []
    for first, last in zip(
        ids[starts].tolist(), ids[[*(starts[1:] - 1), -1]].tolist(), strict=True
    ):
        parts += (
            [f"{first}..{last}"]
            if last > first + 1
            else map(str, dict.fromkeys((first, last)))
        )
    return f"{{{listed(parts, separator=',')}}}"


def interval(low: float, high: float) -> str:
    return f"[{number(low)}, {number(high)}]"


def _shape(shape: Iterable[int]) -> str:
    return f"({', '.join(map(str, shape))})"


# --- Values at one input ----------------------------------------------------------------------------------------------


class Value(NamedTuple):
    """Of a node's entries: near which number each is, and between which."""

    centre: list[Fraction]
    low: list[Fraction]
    high: list[Fraction]


def values_at(
    claim: Claim, nodes: Sequence[int], tokens: np.ndarray, inputs: Sequence[np.ndarray] = (),
    clear: Callable[[Value], bool] = lambda value: True,
) -> list[Value]:  # fmt: skip
    """Of nodes at one input; in exact arithmetic, as the kernel replays it, where one overflows in float64 or isn't
    `clear` there."""
    with np.errstate(all="ignore"):
        try:
            rounded = _evaluated(claim, nodes, tokens, inputs, Float64())
        except (
            Rejected,
            OverflowError,
            ValueError,
        ):  # the latter two: of what is no number
            return _evaluated(claim, nodes, tokens, inputs, Exact())
        if all(map(clear, rounded)):
            return rounded
        try:
            return _evaluated(claim, nodes, tokens, inputs, Exact())
        except Rejected:  # its numbers would be too long
            return rounded


def _evaluated(
    claim: Claim,
    nodes: Sequence[int],
    tokens: np.ndarray,
    inputs: Sequence[np.ndarray],
    ar: Arithmetic,
) -> list[Value]:
    values, found = (
        Evaluation(claim.graph, claim.weights, Real(ar), tokens[None], inputs=inputs),
        [],
    )
    for n in nodes:
        ball, size = values[n], prod(claim.graph.nodes[n].shape)
        unit = Fraction(2) ** ball.exponent
        ends = ball.map(np.ravel).mid, ar.lower(ball).ravel(), ar.upper(ball).ravel()
        lists = [np.broadcast_to(end, size).tolist() for end in ends]
        found.append(
            Value(*([Fraction(v) * unit for v in numbers] for numbers in lists))
        )
    return found


def near(value: Fraction) -> float:
    """A finite float64."""
    return max(float_below(value), -np.finfo(np.float64).max)


def around(low: Fraction, high: Fraction) -> str:
    """What two ends agree in, of seven digits; nothing where that is less than two."""
    if max(abs(low), abs(high)) < NOTHING:
        return "0"
    for digits in range(7, 1, -1):
        least, most = (f"{near(end):.{digits}g}" for end in (low, high))
        if least == most:
            return least.replace("e+", "e")  # as other numbers are written
    return ""


def is_sharp(value: Value) -> bool:
    """There is a number to name."""
    return around(value.low[0], value.high[0]) != ""
