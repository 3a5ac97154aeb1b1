"""Claims that a condition holds, on how many inputs: it is compiled to one number of a captured graph.

Lemma S1 (docs/soundness/shares.md).
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from mechverify.kernel.core import domain, splits
from mechverify.kernel.core.claim import Job, read_weights, subject
from mechverify.kernel.core.counts import CountingClaim, read_counted
from mechverify.kernel.core.document import PROGRAMS, captured
from mechverify.kernel.core.domain import Domain
from mechverify.kernel.core.errors import Rejected
from mechverify.kernel.core.fields import Reader
from mechverify.kernel.core.graph import Graph
from mechverify.kernel.core.measure import Measure
from mechverify.kernel.core.meter import Meter
from mechverify.kernel.core.semantics import SEMANTICS

if TYPE_CHECKING:
    from mechverify.kernel.core.evaluate import Evaluation


@dataclass(frozen=True, eq=False)
class ShareClaim(CountingClaim):
    """An input is right if the one entry of the node `output` is at least zero there; of a `strict` claim, if it is
    more than zero. Where there are real inputs, units are those of the `measure` of their box, for each token
    sequence."""

    strict: bool
    measure: Measure

    kind: ClassVar[str] = "share"
    where: ClassVar[tuple[int, ...]] = ()  # conditions on the domain's inputs
    cases: ClassVar[tuple[int, ...]] = ()

    @staticmethod
    def read(entry: Reader, weights_data: bytes, meter: Meter | None) -> "ShareClaim":
        entry["semantics"].one_of(SEMANTICS)
        entry["architecture"].one_of(["captured"])
        weights = read_weights(entry, weights_data)
        inputs, values, shapes = domain.read(
            entry["domain"], real="measure" in entry.value
        )
        measure = Measure.read(
            entry["measure"] if shapes else None, inputs.low, inputs.high
        )
        graph = Graph(inputs.length, values, meter)
        counted = read_counted(entry, inputs, graph)
        if shapes and counted["guard"] is not None:
            raise Rejected("a condition `given` is for token sequences alone")
        counted["total"] *= measure.total
        about = subject(
            entry,
            weights,
            inputs,
            graph,
            captured(graph, weights, entry["graph"], shapes),
            shapes,
        )
        claim = ShareClaim(
            **about, **counted, strict=entry["strict"].flag(), measure=measure
        )
        entry.close()
        if claim.outputs != 1:
            raise Rejected(
                f"site {claim.site!r} has {claim.outputs} entries; a condition is one number"
            )
        return claim

    @property
    def axioms(self) -> list[str]:
        return [*super().axioms, *PROGRAMS.get(self.semantics, ())]

    @property
    def whole(self) -> int:
        return self.domain.size * self.measure.total

    @property
    def by_example(self) -> bool:
        return not self.shapes

    def most(self, job: Job, part: Domain) -> int:
        mass = self.measure.of(job.ar, part.low[None], part.high[None])
        return part.size * int(self.measure.units(job.ar, mass)[1, 0])

    def halves(self, job: Job, part: Domain, node: Reader) -> tuple[Domain, Domain]:
        """Those of a box share what has no mass."""
        if not self.shapes or "position" in node.value:
            return splits.by_token(job.ar, part, node)
        if "node" in node.value:
            raise Rejected(
                f"{node.where}: of a split at a value of the model nobody knows how much each half is"
            )
        halves, c = (
            splits.by_coordinate(job.ar, part, node),
            node["coordinate"].an_integer(),
        )
        if not part.low[c] < halves[0].high[c] < part.high[c]:
            raise Rejected(
                f"{node.where}: coordinate {c} is not cut inside its interval"
            )
        return halves

    @property
    def judged(self) -> list[int]:
        return [self.output]

    def judge(self, values: "Evaluation") -> tuple[np.ndarray, np.ndarray]:
        ar, number = values.semantics.ar, len(values.tokens)
        value = values[self.output].map(
            lambda a: np.broadcast_to(a.reshape(len(a), -1), (number, 1))[:, 0]
        )
        ar.lower(value)  # rejects what isn't finite
        # |f - mid| <= rad, and numbers are compared as they are: a ball without radius is decided at zero as well
        if self.strict:
            return (value.mid > value.rad).astype(bool), (
                value.mid <= -value.rad
            ).astype(bool)
        return (value.mid >= value.rad).astype(bool), (value.mid < -value.rad).astype(
            bool
        )


ROWS = {"share": ShareClaim.read}
