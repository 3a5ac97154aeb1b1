"""Claims that a condition holds, on how many inputs: it is compiled to one number of a captured graph.

Lemma S1 (docs/soundness/shares.md).
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from mechverify.kernel.core import domain
from mechverify.kernel.core.claim import read_weights, subject
from mechverify.kernel.core.counts import CountingClaim, read_counted
from mechverify.kernel.core.document import captured
from mechverify.kernel.core.errors import Rejected
from mechverify.kernel.core.evaluate import Evaluation
from mechverify.kernel.core.fields import Reader
from mechverify.kernel.core.graph import Graph
from mechverify.kernel.core.meter import Meter
from mechverify.kernel.core.semantics import Real


@dataclass(frozen=True, eq=False)
class ShareClaim(CountingClaim):
    """An input is right if the one entry of the node `output` is at least zero there; of a `strict` claim, if it is
    more than zero."""

    strict: bool

    kind: ClassVar[str] = "share"

    @staticmethod
    def read(entry: Reader, weights_data: bytes, meter: Meter | None) -> "ShareClaim":
        entry["semantics"].one_of(["real"])
        entry["architecture"].one_of(["captured"])
        weights = read_weights(entry, weights_data)
        inputs, values, _ = domain.read(entry["domain"], real=False)
        graph = Graph(inputs.length, values, meter)
        counted = read_counted(entry, inputs, graph)
        about = subject(entry, weights, inputs, graph, captured(graph, weights, entry["graph"], []))
        claim = ShareClaim(**about, **counted, strict=entry["strict"].flag())
        entry.close()
        if claim.outputs != 1:
            raise Rejected(f"site {claim.site!r} has {claim.outputs} entries; a condition is one number")
        return claim

    @property
    def judged(self) -> list[int]:
        return [self.output]

    def judge(self, inputs: np.ndarray, model: Real) -> tuple[np.ndarray, np.ndarray]:
        ar = model.ar
        value = Evaluation(self.graph, self.weights, model, inputs)[self.output]
        value = value.map(lambda a: np.broadcast_to(a.reshape(len(a), -1), (len(inputs), 1))[:, 0])
        ar.lower(value)  # rejects what isn't finite
        # |f - mid| <= rad, and numbers are compared as they are: a ball without radius is decided at zero as well
        if self.strict:
            return (value.mid > value.rad).astype(bool), (value.mid <= -value.rad).astype(bool)
        return (value.mid >= value.rad).astype(bool), (value.mid < -value.rad).astype(bool)
