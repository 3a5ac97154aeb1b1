"""Claims that a condition holds, on how many inputs: it is compiled to one number of a captured graph.

Lemma S1 (docs/soundness/shares.md).
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from mechverify.kernel.core import domain, splits
from mechverify.kernel.core.arithmetic import Arithmetic
from mechverify.kernel.core.claim import Job, read_weights, subject
from mechverify.kernel.core.counts import CountingClaim, Counts, read_counted
from mechverify.kernel.core.document import PROGRAMS, captured
from mechverify.kernel.core.domain import Domain
from mechverify.kernel.core.errors import Rejected
from mechverify.kernel.core.fields import Reader
from mechverify.kernel.core.graph import Graph
from mechverify.kernel.core.loading import late
from mechverify.kernel.core.measure import Measure
from mechverify.kernel.core.meter import Meter
from mechverify.kernel.core.semantics import SEMANTICS

if TYPE_CHECKING:
    from mechverify.kernel.core.evaluate import Evaluation
    from mechverify.kernel.core.unions import Union


class AllRight(Counts):
    """Of a part all of which is right, but for what weighs nothing: its parts' units, rounded down, are fewer."""


@dataclass(frozen=True, eq=False)
class ShareClaim(CountingClaim):
    """An input is right if the one entry of the node `output` is at least zero there; of a `strict` claim, if it is
    more than zero. Where there are real inputs, units are those of the `measure` of their box, or of the `union` of
    several, for each token sequence; there, rules count in those sequences alone that satisfy the guard."""

    strict: bool
    measure: Measure
    union: "Union | None" = None

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
        if "union" in entry.value:
            union = counted["union"] = late("core.unions").read(entry["union"], inputs)
            measure = late("core.masses").disjoint(graph.meter, measure, union)
        if shapes and counted["guard"] is not None and not inputs.length:
            raise Rejected("a condition `given` is on tokens, and the domain has none")
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
        return self.total if self.shapes else self.domain.size

    @staticmethod
    def unite(a: Counts, b: Counts) -> Counts:
        both = isinstance(a, AllRight) and isinstance(b, AllRight)
        return (AllRight if both else Counts)(a.low + b.low, a.high + b.high)

    @staticmethod
    def meet(a: Counts, b: Counts) -> Counts:
        either = isinstance(a, AllRight) or isinstance(b, AllRight)
        return (AllRight if either else Counts)(*CountingClaim.meet(a, b))

    def within(self, proved: Counts) -> Counts:
        if isinstance(proved, AllRight):
            proved = Counts(self.whole, self.whole)
        if self.shapes:
            return self.measure.told(proved, self.total)
        return super().within(proved)

    def sequences(self, ar: Arithmetic, part: Domain) -> int:
        """How many token sequences of a part its units are counted for: without a box, whatever the guard."""
        if self.guard is None or not self.shapes:
            return part.size
        return late("counting.guard").size(ar, self.graph, self.guard, part)

    @property
    def by_example(self) -> bool:
        return not self.shapes

    def most(self, job: Job, part: Domain) -> int:
        mass = self.measure.of(job.ar, part.low[None], part.high[None])
        return self.sequences(job.ar, part) * int(
            self.measure.units(job.ar, mass)[1, 0]
        )

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
