"""Claims that every entry of a model's value lies in a range, for all inputs that satisfy conditions.

Lemmas C7, C9 (docs/soundness/core.md).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np

from mechverify.kernel.core import domain, splits
from mechverify.kernel.core.claim import (
    Claim,
    Evidence,
    Job,
    Theorem,
    count_entries,
    read_weights,
    subject,
)
from mechverify.kernel.core.document import PROGRAMS, captured
from mechverify.kernel.core.domain import Domain
from mechverify.kernel.core.errors import Rejected
from mechverify.kernel.core.fields import Reader
from mechverify.kernel.core.graph import Graph
from mechverify.kernel.core.loading import late
from mechverify.kernel.core.meter import Meter
from mechverify.kernel.core.semantics import SEMANTICS

if TYPE_CHECKING:
    from mechverify.kernel.core.unions import Union


class Range(NamedTuple):
    """Every entry of a value lies between these numbers [entries], everywhere in a part of the domain: where `low` is
    above `high`, the part has no input."""

    low: np.ndarray
    high: np.ndarray

    @property
    def empty(self) -> bool:
        return bool(self.low[0] > self.high[0])


class ProvedLemma(NamedTuple):
    """Sites, by name, whose difference has these bounds [entries] on that part of the domain; None where no input of
    the part satisfies the claim's conditions."""

    site: str
    mechanism: str
    range: Range | None
    part: Domain


@dataclass(frozen=True, eq=False)
class RangeClaim(Claim):
    """Every entry of the output lies between `least` and `most` [entries] (None: no threshold), for all inputs, of the
    `union` if there is one, for which no entry of the nodes `where` is negative. `cases` are nodes whose entries a
    proof may tell apart."""

    where: tuple[int, ...]
    cases: tuple[int, ...]
    least: list[Fraction] | None
    most: list[Fraction] | None
    union: "Union | None" = None

    kind: ClassVar[str] = "bounds"
    in_exact: ClassVar[bool] = False

    @staticmethod
    def read(entry: Reader, weights_data: bytes, meter: Meter | None) -> "RangeClaim":
        entry["semantics"].one_of(SEMANTICS)
        entry["architecture"].one_of(["captured"])
        weights = read_weights(entry, weights_data)
        inputs, values, shapes = domain.read(entry["domain"], real=True)
        graph = Graph(inputs.length, values, meter)
        sites = captured(graph, weights, entry["graph"], shapes)
        about = subject(entry, weights, inputs, graph, sites, shapes)
        where, cases = (
            _conditions(graph, entry[name], sites) for name in ("where", "cases")
        )
        outputs = count_entries(graph, about["output"])
        least, most = (
            _thresholds(entry[name], outputs) for name in ("at_least", "at_most")
        )
        if "union" in entry.value:
            about["union"] = late("core.unions").read(entry["union"], inputs)
        entry.close()
        return RangeClaim(**about, where=where, cases=cases, least=least, most=most)

    @property
    def axioms(self) -> list[str]:
        return [*super().axioms, *PROGRAMS.get(self.semantics, ())]

    def about(
        self, graph: Graph, output: int, part: Domain, shapes: Sequence[tuple[int, ...]]
    ) -> "RangeClaim":
        """That another value of the model has some range; where inputs were added, of the union nothing is known."""
        return replace(
            self,
            union=self.union if shapes is self.shapes else None,
            graph=graph,
            output=output,
            domain=part,
            shapes=shapes,
            least=None,
            most=None,
        )

    @property
    def everything(self) -> Range:
        return Range(np.full(self.outputs, -np.inf), np.full(self.outputs, np.inf))

    @property
    def nothing(self) -> Range:
        """That of a part without an input."""
        return Range(np.full(self.outputs, np.inf), np.full(self.outputs, -np.inf))

    @property
    def size(self) -> int:
        return self.outputs

    @staticmethod
    def unite(a: Range, b: Range) -> Range:
        return Range(np.minimum(a.low, b.low), np.maximum(a.high, b.high))

    @staticmethod
    def meet(a: Range, b: Range) -> Range:
        if a.empty or b.empty:
            return a if a.empty else b
        both = Range(np.maximum(a.low, b.low), np.minimum(a.high, b.high))
        if not (both.low <= both.high).all():
            raise Rejected("two proofs of the same part contradict each other")
        return both

    def halves(self, job: Job, part: Domain, node: Reader) -> tuple[Domain, Domain]:
        if "node" in node.value:
            return late("relaxation.rule").sides(job, part, node)
        if "position" in node.value:  # halves of a box hold the same token sequences
            return splits.by_token(job.ar, part, node)
        return splits.by_coordinate(job.ar, part, node)

    def conclude(self, entry: Reader, verdict: str, job: Job, proved: Range) -> Range:
        """Ends that aren't stated are null; thresholds are compared as rational numbers."""
        if self.union is not None and job.old:
            raise Rejected("a union isn't written before version 5 of the format")
        if proved.empty:
            raise Rejected("no input satisfies the claim's conditions")
        stated = read_range(entry, self.outputs)
        entry.close()
        if not (
            (stated.low <= proved.low).all() and (stated.high >= proved.high).all()
        ):  # nor may a NaN pass
            raise Rejected("the bounds stated are tighter than those proved")
        if verdict != "BOUNDED" and self.least is None and self.most is None:
            raise Rejected(f"a claim without a threshold can't be {verdict}")
        least = self.least or []
        most = self.most or []
        reached = _all_at_least(stated.low, least) and _all_at_least(
            -stated.high, [-t for t in most]
        )
        if verdict == "PROVED" and not reached:
            raise Rejected("the proved bounds don't reach the claim's thresholds")
        if verdict == "REFUTED" and not any(b.any() for b in job.found.broken):
            raise Rejected(
                "the claim is not refuted: no input was shown to break a threshold"
            )
        return stated

    def theorem(
        self, common: dict[str, Any], stated: Range, found: Evidence
    ) -> "RangeTheorem":
        points = np.concatenate([np.zeros((0, len(self.domain.low))), *found.points])
        attained = (
            Range(*map(np.concatenate, zip(*found.attained, strict=True)))
            if found.attained
            else None
        )
        broken = np.concatenate([np.zeros(0, bool), *found.broken])
        return RangeTheorem(
            **common,
            range=stated,
            points=points,
            attained=attained,
            broken=broken,
            lemmas=found.lemmas,
        )


@dataclass(frozen=True, eq=False)
class RangeTheorem(Theorem):
    """Every entry is in `range` (as the certificate states it; what was proved is at least as good). `points` [number,
    coordinates] were replayed with `tokens`, the value there is in `attained`, and `broken` tells of each whether it
    was shown to break a threshold. `lemmas`: those of rule cut."""

    claim: RangeClaim
    range: Range
    points: np.ndarray
    attained: Range | None
    broken: np.ndarray
    lemmas: list[ProvedLemma]


def read_range(entry: Reader, size: int) -> Range:
    """Lists `low` and `high` of `size` numbers, null where nothing is said."""
    ends = (
        [
            nothing if v.value is None else v.float64()
            for v in entry[end].items(size, size)
        ]
        for end, nothing in (("low", -np.inf), ("high", np.inf))
    )
    return Range(*map(np.array, ends))


def _conditions(graph: Graph, entry: Reader, sites: dict[str, int]) -> tuple[int, ...]:
    """Real nodes, by the names of their sites."""
    nodes = tuple(sites[name.one_of(sites)] for name in entry.items(2**8))
    if any(graph.nodes[n].kind != "real" for n in nodes):
        raise Rejected(f"{entry.where}: a condition is no real value")
    return nodes


def _thresholds(entry: Reader, n: int) -> list[Fraction] | None:
    """One number for all entries, or one for each."""
    if entry.value is None:
        return None
    if type(entry.value) is str:
        return [entry.number()] * n
    return [v.number() for v in entry.items(n, n)]


def _all_at_least(values: np.ndarray, thresholds: list[Fraction]) -> bool:
    """Exactly; no thresholds are reached by all."""
    return all(
        value >= t for value, t in zip(values.tolist(), thresholds, strict=False)
    )


ROWS = {"bounds": RangeClaim.read}
