"""One JSON object for a verdict; its fields are a contract (docs/cli.md)."""

import math
from fractions import Fraction
from typing import Any

from mechverify.kernel import Theorem
from mechverify.report import ranges
from mechverify.report.formula import integer
from mechverify.report.statement import brute_force_ops, counterexamples


def as_json(
    theorem: Theorem | None, verdict: str, certificate: str | None, search: float | None, check: float | None,
    reasons: list[str], semantics: str | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Bounds as floats rounded outwards and exactly, as "p/q"; seconds of search and check. `semantics` is what was
    asked for, where nothing was proved."""
    seconds = {"search": search, "check": check}
    common = {"verdict": verdict, "seconds": seconds, "certificate": certificate, "reasons": reasons}
    if theorem is None:
        nothing = {"lower": None, "upper": None, "exact_lower": None, "exact_upper": None}
        return {
            **common, "claim": None, "semantics": semantics, "value": nothing, "counterexample": None, "axioms": [],
            "cost": {"kernel_ops": 0, "brute_force_ops": None},
        }  # fmt: skip
    claim = theorem.claim
    if claim.kind == "bounds":
        return {
            **common, **ranges.as_json(theorem), "semantics": claim.semantics, "axioms": list(theorem.axioms),
            "cost": {"kernel_ops": theorem.kernel_ops, "brute_force_ops": None},
        }  # fmt: skip
    total = claim.domain.size
    low, high = Fraction(theorem.right.low, total), Fraction(theorem.right.high, total)
    wrong = next(iter(counterexamples(theorem)), None)
    return {
        **common,
        "claim": {
            "kind": "accuracy",
            "output": ranges.name(theorem),
            "equals": integer(claim.graph, claim.target),
            "at_least": None if claim.at_least is None else str(claim.at_least),
            "margin": str(claim.margin),
            "domain_size": str(total),
            "weights_sha256": claim.weights_sha256,
        },
        "semantics": claim.semantics,
        "value": {
            "lower": float_below(low), "upper": -float_below(-high), "exact_lower": str(low), "exact_upper": str(high),
        },
        "counterexample": None if wrong is None else wrong._asdict(),
        "axioms": list(theorem.axioms),
        "cost": {"kernel_ops": theorem.kernel_ops, "brute_force_ops": brute_force_ops(theorem)},
    }  # fmt: skip


def float_below(value: Fraction) -> float:
    """The largest float64 that is at most `value`."""
    nearest = float(value)
    return nearest if Fraction(nearest) <= value else math.nextafter(nearest, -math.inf)
