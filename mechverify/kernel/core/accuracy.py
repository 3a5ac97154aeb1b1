"""Claims that a model's output decodes to a mechanism's value, on how many inputs.

Lemmas C5, C7 (docs/soundness/core.md).
"""

import re
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, ClassVar, NamedTuple

import numpy as np

from mechverify.kernel.core import domain
from mechverify.kernel.core.architectures import ARCHITECTURES
from mechverify.kernel.core.claim import Claim, Evidence, Job, Theorem, read_weights, subject
from mechverify.kernel.core.document import add_expression, captured
from mechverify.kernel.core.domain import Domain
from mechverify.kernel.core.errors import OverLimit, Rejected
from mechverify.kernel.core.evaluate import Evaluation, batch_size
from mechverify.kernel.core.fields import Reader
from mechverify.kernel.core.graph import Graph
from mechverify.kernel.core.meter import Meter
from mechverify.kernel.core.semantics import SEMANTICS, Real

TOGETHER = 2**3  # inputs of an exact evaluation, whose numbers are long


class Counts(NamedTuple):
    """The number of right inputs in a part of the domain lies between these exact integers."""

    low: int
    high: int


@dataclass(frozen=True, eq=False)
class AccuracyClaim(Claim):
    """An input is right if output `target` (an integer node) of the vector node `output` exceeds every other by more
    than `margin` (zero if the claim has none). A tie, and a target that is no output, is wrong. At least the share
    `at_least` is right (None: however many)."""

    target: int
    at_least: Fraction | None
    margin: Fraction

    kind: ClassVar[str] = "accuracy"
    in_exact: ClassVar[bool] = True

    @staticmethod
    def read(entry: Reader, weights_data: bytes, meter: Meter | None) -> "AccuracyClaim":
        entry["semantics"].one_of(SEMANTICS)
        weights = read_weights(entry, weights_data)
        inputs, values, _ = domain.read(entry["domain"], real=False)
        graph = Graph(inputs.length, values, meter)
        target = add_expression(graph, entry["equals"])
        about = subject(entry, weights, inputs, graph, _model(graph, weights, entry))
        if len(graph.nodes[about["output"]].shape) != 1:
            raise Rejected(f"row {about['position']} of site {about['site']!r} is not a vector of outputs")
        share, margin = _share(entry["at_least"]), Fraction(0)
        if "margin" in entry.value:
            margin = entry["margin"].number()
        if not 0 <= margin < 2**1000:
            raise Rejected("a margin is negative, or too large")
        entry.close()
        return AccuracyClaim(**about, target=target, at_least=share, margin=margin)

    @property
    def everything(self) -> Counts:
        return Counts(0, self.domain.size)

    @staticmethod
    def unite(a: Counts, b: Counts) -> Counts:
        return Counts(a.low + b.low, a.high + b.high)

    @staticmethod
    def meet(a: Counts, b: Counts) -> Counts:
        both = Counts(max(a.low, b.low), min(a.high, b.high))
        if both.low > both.high:
            raise Rejected("two proofs of the same part contradict each other")
        return both

    def halves(self, job: Job, part: Domain, node: Reader) -> tuple[Domain, Domain]:
        return domain.by_token(job.ar, part, node)

    def conclude(self, entry: Reader, verdict: str, job: Job, proved: Counts) -> Counts:
        stated = Counts(entry["right_at_least"].natural(), entry["right_at_most"].natural())
        entry.close()
        if stated.low > proved.low or stated.high < proved.high:
            raise Rejected(f"right inputs stated: {stated.low} to {stated.high}; proved: {proved.low} to {proved.high}")
        if verdict != "BOUNDED" and self.at_least is None:
            raise Rejected(f"a claim without a threshold can't be {verdict}")
        needed = 0 if self.at_least is None else self.at_least * self.domain.size
        if verdict == "PROVED" and stated.low < needed:
            raise Rejected("the proved number of right inputs doesn't reach the claim's threshold")
        if verdict == "REFUTED" and not (stated.high < needed and job.found.tokens):
            raise Rejected("the claim is not refuted: too many inputs may be right, or none was shown to be wrong")
        return stated

    def theorem(self, common: dict[str, Any], stated: Counts, found: Evidence) -> "AccuracyTheorem":
        return AccuracyTheorem(**common, right=stated, cells=found.cells)


@dataclass(frozen=True, eq=False)
class AccuracyTheorem(Theorem):
    """Of `claim.domain.size` inputs, at least `right.low` and at most `right.high` are right (the bounds that the
    certificate states; those proved are at least as good). `tokens` are wrong inputs. `cells`: see Evidence."""

    claim: AccuracyClaim
    right: Counts
    cells: list[tuple]

    @property
    def wrong(self) -> np.ndarray:
        """Inputs [number, length] that were shown to be wrong."""
        return self.tokens


def decide(job: Job, inputs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Two boolean arrays [inputs]: surely right, surely wrong (in every evaluation that the semantics speaks of).
    Neither where rounding leaves it open."""
    step = batch_size(job.claim.graph, [job.claim.output, job.claim.target])
    parts = [_decide(job.claim, inputs[i : i + step], job.model) for i in range(0, len(inputs), step)]
    right, wrong = zip(*parts, strict=True)
    return np.concatenate(right), np.concatenate(wrong)


def settle(job: Job, inputs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """As `decide` says; in exact arithmetic where float64 leaves it open, or overflows."""
    try:
        right, wrong = decide(job, inputs)
    except OverLimit:
        raise
    except Rejected:  # an overflow, of any of them
        right, wrong = np.zeros((2, len(inputs)), bool)
    if not job.ar.is_exact:
        still_open = np.flatnonzero(~(right | wrong))
        for start in range(0, len(still_open), TOGETHER):
            some = still_open[start : start + TOGETHER]
            right[some], wrong[some] = job.exactly(lambda model, some=some: _decide(job.claim, inputs[some], model))
    return right, wrong


def _decide(claim: AccuracyClaim, inputs: np.ndarray, model: Real) -> tuple[np.ndarray, np.ndarray]:
    ar = model.ar
    values = Evaluation(claim.graph, claim.weights, model, inputs)
    logits, target = values[claim.output], np.broadcast_to(values[claim.target], len(inputs))
    logits = logits.map(lambda a: np.broadcast_to(a, (len(inputs), claim.outputs)))
    possible = (target >= 0) & (target < claim.outputs)
    at = np.where(possible, target, 0)[:, None]
    margin = ar.sub(logits.map(lambda a: np.take_along_axis(a, at, 1)), logits)
    margin = ar.sub(margin, ar.rational(claim.margin)) if claim.margin else margin
    rival = np.arange(claim.outputs) != at
    wins = ((ar.lower(margin) > 0) | ~rival).all(1)
    loses = ((ar.upper(margin) <= 0) & rival).any(1)
    return possible & wins, ~possible | loses


def _model(graph: Graph, weights: dict[str, np.ndarray], entry: Reader) -> dict[str, int]:
    """The sites of the model: made from the weights, or as the claim lists a captured module's nodes."""
    architecture = entry["architecture"].one_of([*ARCHITECTURES, "captured"])
    if architecture in ARCHITECTURES:
        return ARCHITECTURES[architecture](graph, weights)
    entry["semantics"].one_of(["real"])
    return captured(graph, weights, entry["graph"], [])


def _share(entry: Reader) -> Fraction | None:
    if entry.value is None:
        return None
    parts = re.fullmatch(r"([0-9]{1,400})/([1-9][0-9]{0,399})", entry.text())
    if parts is None or int(parts[1]) > int(parts[2]):
        raise Rejected(f"{entry.where}: expected null or a fraction 'p/q' of at most one")
    return Fraction(int(parts[1]), int(parts[2]))
