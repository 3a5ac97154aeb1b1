"""The sentence of a theorem that counts inputs on which the model agrees with the mechanism."""

from fractions import Fraction
from typing import NamedTuple

import numpy as np

from mechverify.kernel.core.accuracy import AccuracyClaim
from mechverify.kernel.core.counts import CountingTheorem
from mechverify.kernel.core.evaluate import Evaluation
from mechverify.kernel.core.float64 import Float64
from mechverify.kernel.core.semantics import Real
from mechverify.kernel.core.words import listed, number
from mechverify.kernel.statement.assumed import ASSUMED
from mechverify.kernel.statement.common import (
    SHOWN,
    Statement,
    Value,
    common,
    defined,
    graph_of,
    near,
    values_at,
)
from mechverify.kernel.statement.counting import counted, given, of_them, threshold
from mechverify.kernel.statement.formula import Formulas, Listing


def _claim(theorem: CountingTheorem) -> AccuracyClaim:
    assert isinstance(theorem.claim, AccuracyClaim)
    return theorem.claim


def listing(theorem: CountingTheorem) -> Listing:
    claim = _claim(theorem)
    return Listing(claim.graph, [claim.sites[claim.site], *_own(claim)])


def _own(claim: AccuracyClaim) -> list[int]:
    """The nodes that the claim adds to the model's."""
    return [claim.target, *([claim.guard] if claim.guard is not None else [])]


def state(theorem: CountingTheorem) -> Statement:
    claim = _claim(theorem)
    subject, equals, shared, formulas, about_model = (
        _of_captured if claim.captured else _of_known
    )(theorem)
    margin = f", by more than {number(claim.margin)}" if claim.margin else ""
    return Statement(
        **common(theorem),
        claim=f"strict argmax {subject} = {equals}{margin}{of_them(claim)}{defined(shared)}",
        subject=subject,
        equals=equals + defined(shared),
        margin=number(claim.margin),
        threshold=threshold(claim),
        given=given(claim, formulas),
        lemmas=(),
        **about_model,
        proved=counted(theorem, "right"),
        examples=tuple(("wrong on", _wrong(w)) for w in counterexamples(theorem)),
    )


def _of_known(theorem: CountingTheorem) -> tuple[str, str, list[str], Formulas, dict]:
    """The output, the mechanism and the parts that both share; and what is said of the model."""
    claim = _claim(theorem)
    nodes = Listing(
        claim.graph, _own(claim)
    )  # the model's graph follows from architecture and weights
    formulas = Formulas(nodes, {})
    (equals,), shared = formulas.write([claim.target])
    if equals == nodes.name(claim.target):
        equals += f" of a {graph_of(nodes)}"
    said = {"model": f"{claim.architecture}, weights sha256 {claim.weights_sha256}",
            "assumed": ASSUMED[claim.architecture], "asserted": ()}  # fmt: skip
    return f"{claim.site}{_place(theorem)}", equals, shared, formulas, said


def _of_captured(
    theorem: CountingTheorem,
) -> tuple[str, str, list[str], Formulas, dict]:
    """The same, of a graph that the file lists."""
    from mechverify.kernel.statement import captured  # only where a theorem needs it

    claim = _claim(theorem)
    n, roots, nodes = claim.sites[claim.site], captured.added(claim), listing(theorem)
    formulas = Formulas(nodes, captured.names(claim, nodes, {n} if roots else set()))
    (*texts, equals), shared = formulas.write([*(roots or [n]), claim.target])
    whole = f"[{', '.join(texts)}]" if roots else texts[0]
    if texts == [nodes.name(r) for r in roots or [n]]:  # together they are too long
        whole = nodes.name(n) if roots else formulas.write([n])[0][0]
        (equals,), shared = formulas.write([claim.target])
    said = {"model": f"{graph_of(nodes)}, weights sha256 {claim.weights_sha256}", "assumed": (),
            "asserted": captured.asserted(claim, formulas, nodes)}  # fmt: skip
    return f"{whole}{_place(theorem)}", equals, shared, formulas, said


def _place(theorem: CountingTheorem) -> str:
    return "" if theorem.claim.position is None else f"[{theorem.claim.position}]"


class Counterexample(NamedTuple):
    """`decoded`: the output whose enclosure has the largest centre, `sure` where it surely is the largest; `lead`: of
    the mechanism's output over the best other one, about; None where it is no output."""

    tokens: list[int]
    expected: int
    decoded: int
    lead: float | None
    sure: bool


def counterexamples(theorem: CountingTheorem) -> list[Counterexample]:
    """Some inputs that the kernel replayed: each is surely wrong."""
    claim, found = _claim(theorem), []
    for tokens in theorem.wrong[:SHOWN]:
        values = Evaluation(claim.graph, claim.weights, Real(Float64()), tokens[None])
        m = int(np.broadcast_to(values[claim.target], 1)[0])
        (logits,) = values_at(claim, [claim.output], tokens, clear=_has_a_largest)
        best = logits.centre.index(max(logits.centre))
        sure = _has_a_largest(logits) and claim.semantics == "real"
        lead = (
            near(logits.centre[m] - max(_others(logits.centre, m)))
            if 0 <= m < claim.outputs > 1
            else None
        )
        found.append(Counterexample(tokens.tolist(), m, best, lead, sure))
    return found


def _has_a_largest(value: Value) -> bool:
    best = value.centre.index(max(value.centre))
    return len(value.centre) == 1 or value.low[best] > max(_others(value.high, best))


def _others(values: list[Fraction], i: int) -> list[Fraction]:
    return [*values[:i], *values[i + 1 :]]


def _wrong(w: Counterexample) -> str:
    says = f"[{listed(w.tokens)}]: the mechanism says {w.expected}, the model"
    if w.decoded == w.expected:
        return f"{says} the same, by about {w.lead:.9g}"
    return f"{says} {w.decoded}" if w.sure else f"{says} about as much {w.decoded}"
