"""A theorem in words, made from the checked data alone."""

import hashlib
from fractions import Fraction
from typing import NamedTuple

import numpy as np

from mechverify.kernel.architectures import ASSUMED
from mechverify.kernel.check import AXIOMS, Theorem
from mechverify.kernel.claim import Job
from mechverify.kernel.evaluate import Evaluation
from mechverify.kernel.float64 import Float64
from mechverify.kernel.semantics import Real
from mechverify.report import formula, ranges

SHOWN = 4  # replayed inputs
MEANING = {
    "real": "exact real arithmetic on these exact weights",
    "float32": "every float32 evaluation of the model, in any summation order",
}


def decimal(value: Fraction, places: int, upwards: bool) -> str:
    """`value` rounded down, or up, to so many decimal places."""
    scaled = value * 10**places
    whole = -(-scaled.numerator // scaled.denominator) if upwards else scaled.numerator // scaled.denominator
    digits = f"{abs(whole):0{places + 1}d}"
    return f"{'-' if whole < 0 else ''}{digits[:-places]}.{digits[-places:]}"


def scientific(value: int) -> str:
    """A natural number of any size to three digits."""
    digits = str(value)
    return digits if len(digits) <= 4 else f"{digits[0]}.{digits[1:3]}e{len(digits) - 1}"


def domain(theorem: Theorem) -> str:
    claim = theorem.claim
    length, vocab = claim.domain.length, len(claim.graph.values)
    full = all(len(t) == vocab for t in claim.domain.tokens)
    size = claim.domain.size
    shape = f"all {vocab}^{length} = {size:,}" if full else f"{size:,}"
    sets = "" if full else ", with token sets " + " x ".join(_ids(t) for t in claim.domain.tokens)
    meaning = "" if claim.graph.values == tuple(range(vocab)) else f"; id i means {list(claim.graph.values)}[i]"
    return f"{shape} sequences x0 .. x{length - 1} over {vocab} tokens{sets}{meaning}"


def _ids(tokens: tuple[int, ...]) -> str:
    if len(tokens) > 1 and tokens[-1] - tokens[0] == len(tokens) - 1:
        return f"{{{tokens[0]}..{tokens[-1]}}}"
    if len(tokens) <= 64:
        return "{" + ",".join(map(str, tokens)) + "}"
    return f"{len(tokens)} ids, sha256 {hashlib.sha256(repr(tokens).encode()).hexdigest()}"


def lines(theorem: Theorem) -> list[tuple[str, str]]:
    """(label, text) pairs: the whole theorem, its assumptions and its cost."""
    if theorem.claim.kind == "bounds":
        return ranges.lines(theorem, _assumptions(theorem))
    claim, right, total = theorem.claim, theorem.right, theorem.claim.domain.size
    threshold = "" if claim.at_least is None else f", on at least {claim.at_least} of them"
    margin = f", by more than {decimal(claim.margin, 9, upwards=False)}" if claim.margin else ""
    ops, brute = theorem.kernel_ops, brute_force_ops(theorem)
    times = brute // max(ops, 1)
    ratio = f", {scientific(times)} times as many" if times > 1 else ""
    rows = [
        ("verdict", theorem.verdict),
        (
            "claim",
            f"strict argmax {ranges.name(theorem)} = {formula.integer(claim.graph, claim.target)}{margin}{threshold}",
        ),
        ("domain", domain(theorem)),
        ("model", f"{claim.architecture}, weights sha256 {claim.weights_sha256}"),
        *(("assumed", text) for text in ASSUMED.get(claim.architecture, ())),
        ("right, at least", f"{right.low:,}  ({decimal(Fraction(right.low, total), 8, False)} of all, rounded down)"),
        ("right, at most", f"{right.high:,}  ({decimal(Fraction(right.high, total), 8, True)} of all, rounded up)"),
    ]
    rows += _assumptions(theorem)
    rows[-1] = ("cost", f"{scientific(ops)} operations; brute force takes {scientific(brute)}{ratio}")
    for wrong in counterexamples(theorem):
        lead = f"{wrong.decoded}" if wrong.decoded != wrong.expected else f"the same, by {wrong.lead:.9g}"
        rows.append(("wrong on", f"{wrong.tokens}: the mechanism says {wrong.expected}, the model {lead}"))
    return rows


def _assumptions(theorem: Theorem) -> list[tuple[str, str]]:
    semantics = theorem.claim.semantics
    rows = [("semantics", f"{semantics} ({MEANING[semantics]})")]
    rows += [("axiom", f"{axiom}: {AXIOMS[axiom]}") for axiom in theorem.axioms] or [("axiom", "none")]
    rows.append(("proof", ", ".join(f"{times:,} {rule}" for rule, times in sorted(theorem.rules.items()))))
    rows.append(("arithmetic", "exact rationals" if theorem.exact else "float64 with outward rounding"))
    rows.append(("cost", f"{scientific(theorem.kernel_ops)} operations"))
    return rows


class Counterexample(NamedTuple):
    tokens: list[int]
    expected: int
    decoded: int
    lead: float | None  # of the mechanism's output over the best other one, about; None where it is no output


def counterexamples(theorem: Theorem) -> list[Counterexample]:
    """Some inputs that the kernel replayed: each is surely wrong, and comes with the mechanism's value and the
    output whose enclosure has the largest centre."""
    claim, wrong = theorem.claim, theorem.wrong[:SHOWN]
    if not len(wrong):
        return []
    values = Evaluation(claim.graph, claim.weights, Real(Float64()), wrong)
    expected = np.broadcast_to(values[claim.target], len(wrong)).tolist()
    logits = values[claim.output].map(lambda a: np.broadcast_to(a, (len(wrong), claim.outputs)))
    decoded = logits.mid.argmax(-1).tolist()
    possible = (m if 0 <= m < claim.outputs > 1 else None for m in expected)
    leads = [None if m is None else float(row[m] - np.delete(row, m).max())
             for row, m in zip(logits.mid, possible, strict=True)]  # fmt: skip
    return [Counterexample(*row) for row in zip(wrong.tolist(), expected, decoded, leads, strict=True)]


def brute_force_ops(theorem: Theorem) -> int:
    """The operations of one evaluation, counted as the kernel counts its own, times the number of inputs."""
    job = Job(theorem.claim, Float64())
    job.decide(np.array([[tokens[0] for tokens in theorem.claim.domain.tokens]]))
    return job.ar.ops * theorem.claim.domain.size
