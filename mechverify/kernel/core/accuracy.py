"""Claims that a model's output decodes to a mechanism's value, on how many inputs.

Lemma C5 (docs/soundness/core.md).
"""

from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from mechverify.kernel.core import domain
from mechverify.kernel.core.architectures import ARCHITECTURES
from mechverify.kernel.core.claim import read_weights, subject
from mechverify.kernel.core.counts import CountingClaim, read_counted
from mechverify.kernel.core.errors import Rejected
from mechverify.kernel.core.fields import Reader
from mechverify.kernel.core.graph import Graph
from mechverify.kernel.core.mechanism import add_expression
from mechverify.kernel.core.meter import Meter
from mechverify.kernel.core.semantics import SEMANTICS

if TYPE_CHECKING:
    from mechverify.kernel.core.evaluate import Evaluation


@dataclass(frozen=True, eq=False)
class AccuracyClaim(CountingClaim):
    """An input is right if output `target` (an integer node) of the vector node `output` exceeds every other by more
    than `margin` (zero if the claim has none). A tie, and a target that is no output, is wrong."""

    target: int
    margin: Fraction

    kind: ClassVar[str] = "accuracy"

    @staticmethod
    def read(
        entry: Reader, weights_data: bytes, meter: Meter | None
    ) -> "AccuracyClaim":
        entry["semantics"].one_of(SEMANTICS)
        weights = read_weights(entry, weights_data)
        inputs, values, _ = domain.read(entry["domain"], real=False)
        graph = Graph(inputs.length, values, meter)
        target, counted = (
            add_expression(graph, entry["equals"]),
            read_counted(entry, inputs, graph),
        )
        about = subject(entry, weights, inputs, graph, _model(graph, weights, entry))
        if len(graph.nodes[about["output"]].shape) != 1:
            raise Rejected(
                f"row {about['position']} of site {about['site']!r} is not a vector of outputs"
            )
        margin = Fraction(0)
        if "margin" in entry.value:
            margin = entry["margin"].number()
        if not 0 <= margin < 2**1000:
            raise Rejected("a margin is negative, or too large")
        entry.close()
        return AccuracyClaim(**about, **counted, target=target, margin=margin)

    @property
    def judged(self) -> list[int]:
        return [self.output, self.target]

    def judge(self, values: "Evaluation") -> tuple[np.ndarray, np.ndarray]:
        ar, number = values.semantics.ar, len(values.tokens)
        target = np.broadcast_to(values[self.target], number)
        logits = values[self.output]
        logits = logits.map(lambda a: np.broadcast_to(a, (number, self.outputs)))
        possible = (target >= 0) & (target < self.outputs)
        at = np.where(possible, target, 0)[:, None]
        margin = ar.sub(logits.map(lambda a: np.take_along_axis(a, at, 1)), logits)
        margin = ar.sub(margin, ar.rational(self.margin)) if self.margin else margin
        rival = np.arange(self.outputs) != at
        wins = ((ar.lower(margin) > 0) | ~rival).all(1)
        loses = ((ar.upper(margin) <= 0) & rival).any(1)
        return possible & wins, ~possible | loses


def _model(
    graph: Graph, weights: dict[str, np.ndarray], entry: Reader
) -> dict[str, int]:
    """The sites of the model: made from the weights, or as the claim lists a captured module's nodes."""
    architecture = entry["architecture"].one_of([*ARCHITECTURES, "captured"])
    if architecture in ARCHITECTURES:
        return ARCHITECTURES[architecture](graph, weights)
    entry["semantics"].one_of(["real"])
    from mechverify.kernel.core.document import (
        captured,
    )  # only where a claim lists its graph

    return captured(graph, weights, entry["graph"], [])


ROWS = {"accuracy": AccuracyClaim.read}
