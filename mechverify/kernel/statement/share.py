"""The sentence of a theorem that counts inputs on which a condition holds."""

from mechverify.kernel.core.counts import CountingTheorem
from mechverify.kernel.core.share import ShareClaim
from mechverify.kernel.core.words import listed, number, runs
from mechverify.kernel.statement import captured
from mechverify.kernel.statement.common import (
    SHOWN,
    Statement,
    around,
    boxes,
    common,
    defined,
    graph_of,
    is_sharp,
    values_at,
)
from mechverify.kernel.statement.counting import counted, given, of_them, threshold
from mechverify.kernel.statement.formula import Formulas, Listing


def listing(theorem: CountingTheorem) -> Listing:
    claim = theorem.claim
    return Listing(
        claim.graph,
        [claim.sites[claim.site], *([claim.guard] if claim.guard is not None else [])],
    )


def state(theorem: CountingTheorem) -> Statement:
    claim, nodes, said = theorem.claim, listing(theorem), common(theorem)
    assert isinstance(claim, ShareClaim)
    said["domain"] += (*boxes(claim.union), *_weights(claim))
    n = claim.sites[claim.site]
    own = (
        {n} if claim.graph.nodes[n].shape == () else set()
    )  # one number: added for the claim
    formulas = Formulas(nodes, captured.names(claim, nodes, own))
    (text,), shared = formulas.write([n])
    subject = text if claim.position is None else f"{text}[{claim.position}]"
    condition = f"{subject} {'>' if claim.strict else '>='} 0"
    return Statement(
        **said,
        claim=f"{condition}{of_them(claim)}{defined(shared)}",
        subject=condition + defined(shared),
        equals=None,
        margin="",
        threshold=threshold(claim),
        given=given(claim, formulas, claim.measure.total),
        lemmas=(),
        model=f"{graph_of(nodes)}, weights sha256 {claim.weights_sha256}",
        assumed=(),
        asserted=captured.asserted(claim, formulas, nodes),
        proved=counted(theorem, "holds"),
        examples=tuple(
            ("fails on", _failing(theorem, i))
            for i in range(min(SHOWN, len(theorem.wrong)))
        ),
    )


def _weights(claim: ShareClaim) -> tuple[str, ...]:
    """How much each part of the box is."""
    if claim.by_example:
        return ()
    each = [
        "uniform" if n is None else f"normal({number(n.mean)}, {number(n.deviation)})"
        for n in claim.measure.normal
    ]
    given = " that are given" if claim.guarded else ""
    sequences = f", all sequences{given} alike" if claim.domain.length else ""
    within = "these bounds" if claim.union is None else "these boxes"
    return (
        f"weighed by {listed(runs(each), separator=' x ')} within {within}{sequences}",
    )


def _failing(theorem: CountingTheorem, i: int) -> str:
    tokens = theorem.wrong[i]
    (value,) = values_at(theorem.claim, [theorem.claim.output], tokens, clear=is_sharp)
    near = around(value.low[0], value.high[0])
    return f"[{listed(tokens.tolist())}]" + (
        f": the left side is about {near}" if near else ""
    )
