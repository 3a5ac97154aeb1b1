"""Several certificates of one claim, beside each other: what each costs, and what it proves."""

from collections.abc import Sequence
from fractions import Fraction

from matplotlib.figure import Figure

from mechverify.kernel import Theorem
from mechverify.kernel.core.counts import CountingClaim, CountingTheorem
from mechverify.kernel.core.neighbours import float_below
from mechverify.kernel.core.ranges import RangeClaim, RangeTheorem
from mechverify.kernel.core.words import decimal
from mechverify.kernel.statement.common import Statement
from mechverify.kernel.statement.ranges import widths
from mechverify.kernel.statement.sentence import state
from mechverify.report.checked import Checked, names
from mechverify.report.frontier import Mean, Point
from mechverify.report.pareto import picture
from mechverify.report.samples import union_of
from mechverify.report.statement import brute_force_ops

LONG = 200  # characters of a claim in a caption
SHARE = "proved: at least this share"
WIDTH = "reached width / proved width"


def fronts(checked: Sequence[Checked]) -> list[tuple[str, str, Figure]]:
    """(caption, alt, figure) of the certificates that count, and of those that bound, where two or more are of one
    claim, whatever its threshold."""
    alike: dict[tuple, list[tuple[str, Theorem]]] = {}
    for name, one in zip(names(checked), checked, strict=True):
        alike.setdefault(_claim(one.theorem), []).append((name, one.theorem))
    found = []
    groups = [group for group in alike.values() if len(group) > 1]
    for kind, ylabel, points in (
        (CountingTheorem, SHARE, _counted),
        (RangeTheorem, WIDTH, _bounded),
    ):
        several = [g for g in groups if isinstance(g[0][1], kind)]
        some = [
            p
            for i, g in enumerate(several)
            for p in points(f"claim {i + 1}, {_inputs(g[0][1])}", g)
        ]
        if some:
            listed = "; ".join(
                f"{p.strategy}: {p.ops.mean:.2e} operations, {decimal(Fraction(p.ratio.mean), 6, up=False)}"
                for p in some
            )
            claims = " ".join(
                f"Claim {i + 1}: {_short(state(g[0][1]))}."
                for i, g in enumerate(several)
            )
            caption = (
                f"{claims} Further left is cheaper to check, further up says more. The line joins those that no other "
                "one beats or equals at no more cost."
            )
            found.append(
                (caption, f"{ylabel}. {listed}.", picture(some, ylabel, widest=1))
            )
    return found


def _short(statement: Statement) -> str:
    """What is claimed, without the threshold; where that is long, what it is about is in the theorems."""
    text = " = ".join(filter(None, (statement.subject, statement.equals)))
    return text if len(text) <= LONG else "see there"


def _claim(theorem: Theorem) -> tuple:
    said = state(theorem)
    return (
        said.subject,
        said.equals,
        said.margin,
        said.domain,
        said.given,
        said.model,
        said.semantics,
    )


def _inputs(theorem: Theorem) -> str:
    claim = theorem.claim
    domain, values = claim.domain, claim.graph.values
    if claim.shapes:
        return "a box" if union_of(claim) is None else "a union of boxes"
    if isinstance(claim, CountingClaim) and claim.guarded:
        return f"{claim.total:,} inputs"
    if isinstance(claim, RangeClaim) and claim.where:
        return "inputs that are given"
    if all(len(ids) == len(values) for ids in domain.tokens):
        return f"{len(values)}^{domain.length}"
    return f"{domain.size:,} inputs"


def _counted(group: str, of: list[tuple[str, Theorem]]) -> list[Point]:
    points = []
    for name, theorem in of:
        assert isinstance(theorem, CountingTheorem)
        share = Fraction(theorem.right.low, theorem.claim.total)
        points.append(
            _point(group, name, theorem, share, brute_force_ops(theorem) or 0)
        )
    return points


def _bounded(group: str, of: list[tuple[str, Theorem]]) -> list[Point]:
    """The width that any of the certificates' inputs reach, over the width proved."""
    both = [widths(theorem) for _, theorem in of if isinstance(theorem, RangeTheorem)]
    reached = max((sum(r, Fraction(0)) for _, r in both), default=Fraction(0))
    if not reached or not all(proved for proved, _ in both):
        return []
    return [
        _point(group, name, theorem, min(reached / sum(proved), Fraction(1)), 0)
        for (name, theorem), (proved, _) in zip(of, both, strict=True)
    ]


def _point(
    group: str, name: str, theorem: Theorem, value: Fraction, brute: int
) -> Point:
    mean = Mean.of([float_below(value)])
    ops = Mean.of([float(theorem.kernel_ops)])
    return Point(group, name, "", 1, 0, mean, mean, ops, brute, None, 0.0, 0.0)
