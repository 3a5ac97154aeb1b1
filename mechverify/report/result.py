"""One JSON object for a verdict; its fields are a contract (docs/cli.md)."""

from fractions import Fraction
from math import inf
from typing import Any

from mechverify.kernel import Theorem
from mechverify.kernel.core.accuracy import AccuracyClaim
from mechverify.kernel.core.counts import CountingTheorem
from mechverify.kernel.core.neighbours import float_below
from mechverify.kernel.core.ranges import ProvedLemma, RangeTheorem
from mechverify.kernel.statement.accuracy import counterexamples
from mechverify.kernel.statement.common import Statement
from mechverify.kernel.statement.ranges import broken
from mechverify.kernel.statement.sentence import state
from mechverify.report.statement import brute_force_ops


def as_json(
    theorem: Theorem | None, verdict: str, certificate: str | None, search: float | None, check: float | None,
    reasons: list[str], semantics: str | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Bounds as floats rounded outwards and exactly, as "p/q"; seconds of search and check. `semantics` is what was
    asked for, where nothing was proved."""
    seconds = {"search": search, "check": check}
    common = {
        "verdict": verdict,
        "seconds": seconds,
        "certificate": certificate,
        "reasons": reasons,
    }
    if theorem is None:
        nothing = {
            "lower": None,
            "upper": None,
            "exact_lower": None,
            "exact_upper": None,
        }
        return {
            **common, "claim": None, "semantics": semantics, "value": nothing, "counterexample": None, "axioms": [],
            "cost": {"kernel_ops": 0, "brute_force_ops": None}, "statement": None,
        }  # fmt: skip
    statement = state(theorem)
    common |= {"semantics": theorem.claim.semantics, "axioms": list(theorem.axioms)}
    common["statement"] = [
        list(row) for row in (*statement.rows(), *statement.examples)
    ]
    if isinstance(theorem, CountingTheorem):
        return {**common, **_counting(theorem, statement)}
    assert isinstance(theorem, RangeTheorem)
    return {**common, **_range(theorem, statement)}


def _counting(theorem: CountingTheorem, statement: Statement) -> dict[str, Any]:
    claim, total = theorem.claim, theorem.claim.total
    low, high = Fraction(theorem.right.low, total), Fraction(theorem.right.high, total)
    if isinstance(claim, AccuracyClaim):
        about = {
            "output": statement.subject,
            "equals": statement.equals,
            "margin": str(claim.margin),
        }
        wrong = next((w._asdict() for w in counterexamples(theorem)), None)
    else:
        about = {"condition": statement.subject}
        wrong = next(({"tokens": tokens} for tokens in theorem.wrong.tolist()), None)
    return {
        "claim": {
            "kind": claim.kind,
            **about,
            "at_least": None if claim.at_least is None else str(claim.at_least),
            "given": list(statement.given),
            "domain": list(statement.domain),
            "domain_size": str(total) if claim.by_example else None,
            "weights_sha256": claim.weights_sha256,
        },
        "value": {
            "lower": float_below(low), "upper": -float_below(-high), "exact_lower": str(low), "exact_upper": str(high),
        },
        "counterexample": wrong,
        "cost": {"kernel_ops": theorem.kernel_ops, "brute_force_ops": brute_force_ops(theorem)},
    }  # fmt: skip


def _range(theorem: RangeTheorem, statement: Statement) -> dict[str, Any]:
    claim, low, high = (
        theorem.claim,
        theorem.range.low.tolist(),
        theorem.range.high.tolist(),
    )
    point = None
    if theorem.verdict == "REFUTED":
        worst = broken(theorem)[0].point
        ids, numbers = theorem.tokens[worst].tolist(), theorem.points[worst].tolist()
        assert theorem.attained is not None
        value = [
            [v if -inf < v < inf else None for v in end[worst].tolist()]
            for end in theorem.attained
        ]
        point = {"tokens": ids, "inputs": numbers, "value": value}
    return {
        "claim": {
            "kind": "bounds",
            "output": statement.subject,
            "given": list(statement.given),
            "at_least": None if claim.least is None else [str(t) for t in claim.least],
            "at_most": None if claim.most is None else [str(t) for t in claim.most],
            "using": [_lemma(*row) for row in zip(theorem.lemmas, statement.lemmas, strict=True)],
            "domain": list(statement.domain),
            "domain_size": str(claim.domain.size) if not len(claim.domain.low) else None,
            "weights_sha256": claim.weights_sha256,
        },
        "value": {
            "lower": [v if v > -inf else None for v in low], "upper": [v if v < inf else None for v in high],
            "exact_lower": [str(Fraction(v)) if v > -inf else None for v in low],
            "exact_upper": [str(Fraction(v)) if v < inf else None for v in high],
        },
        "counterexample": point,
        "cost": {"kernel_ops": theorem.kernel_ops, "brute_force_ops": None},
    }  # fmt: skip


def _lemma(lemma: ProvedLemma, said: tuple[str, str]) -> dict[str, Any]:
    low, high = (
        (None, None) if lemma.range is None else (end.tolist() for end in lemma.range)
    )
    return {"site": said[0], "low": low, "high": high, "statement": said[1]}
