"""What the sentences of theorems that count inputs share: the threshold, and what was proved."""

from mechverify.kernel.core.counts import CountingClaim, CountingTheorem
from mechverify.kernel.core.words import share
from mechverify.kernel.statement.common import Rows, defined, graph_of
from mechverify.kernel.statement.formula import Formulas


def threshold(claim: CountingClaim) -> str:
    return (
        ""
        if claim.at_least is None
        else f"at least {claim.at_least.numerator}/{claim.at_least.denominator}"
    )


def of_them(claim: CountingClaim) -> str:
    """The threshold as the end of a claim."""
    least, whole = threshold(claim), "them" if claim.by_example else "the whole"
    return f", on {least} of {whole}" if least else ""


def given(claim: CountingClaim, formulas: Formulas, units: int = 1) -> tuple[str, ...]:
    """The guard, and how many sequences satisfy it, of so many units each."""
    if claim.guard is None:
        return ()
    (text,), shared = formulas.write([claim.guard])
    if (
        text == formulas.listing.name(claim.guard) and not claim.captured
    ):  # of a captured one, the graph is named
        text += f" of a {graph_of(formulas.listing)}"
    return (f"{text}: {claim.total // units:,} of these sequences{defined(shared)}",)


def counted(theorem: CountingTheorem, what: str) -> tuple[tuple[str, str], ...]:
    """The bounds that were proved; `what` inputs they count."""
    claim = theorem.claim
    rows: Rows = []
    of = "those given" if claim.guarded else "all"
    for number, end, up in (
        (theorem.right.low, "least", False),
        (theorem.right.high, "most", True),
    ):
        part = share(number, claim.total, up=up)
        rounded = f"rounded {'up' if up else 'down'}"
        said = (
            f"{number:,}  ({part} of {of}, {rounded})"
            if claim.by_example
            else f"{part} of the whole  ({rounded})"
        )
        rows.append((f"{what}, at {end}", said))
    return tuple(rows)
