"""Claims that count the inputs on which something is right: accuracy.py and share.py say what.

A part of the domain is measured in units. Over token sequences a unit is one input, and bounds of its right inputs are
exact integers. Of a guarded domain (counting/guard.py) the rules count the whole product: inputs that don't satisfy the
guard count as right. The conclusion takes them off, and speaks of the others alone.

Lemmas C5, C7 (docs/soundness/core.md), S2 (docs/soundness/shares.md).
"""

import re
from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np

from mechverify.kernel.core import domain
from mechverify.kernel.core.arithmetic import Arithmetic
from mechverify.kernel.core.claim import Claim, Evidence, Job, Theorem
from mechverify.kernel.core.domain import Domain
from mechverify.kernel.core.errors import Rejected, Unsupported
from mechverify.kernel.core.fields import Reader
from mechverify.kernel.core.graph import Graph
from mechverify.kernel.core.loading import late

if TYPE_CHECKING:
    from mechverify.kernel.core.evaluate import Evaluation


class Counts(NamedTuple):
    """The number of right inputs in a part of the domain lies between these exact integers."""

    low: int
    high: int


@dataclass(frozen=True, eq=False)
class CountingClaim(Claim):
    """At least the share `at_least` of the `total` units that satisfy the `guard` is right (None: however much; all
    units, if there is no guard). What an input must be to be right, `judge` says."""

    at_least: Fraction | None
    guard: int | None
    total: int

    in_exact: ClassVar[bool] = True

    @abstractmethod
    def judge(self, values: "Evaluation") -> tuple[np.ndarray, np.ndarray]:
        """Of the inputs [number, length] of an evaluation of `judged`, two boolean arrays [number]: surely right,
        surely wrong (in every evaluation that the semantics speaks of). Neither where rounding leaves it open."""

    @property
    @abstractmethod
    def judged(self) -> list[int]:
        """The nodes that `judge` evaluates."""

    @property
    def whole(self) -> int:
        """The units of the domain, whatever the guard."""
        return self.domain.size

    @property
    def by_example(self) -> bool:
        """Inputs can be run one by one; a claim is refuted with one."""
        return True

    def most(self, job: Job, part: Domain) -> int:
        """Units of a part, at most."""
        return part.size

    @property
    def everything(self) -> Counts:
        return Counts(0, self.whole)

    @property
    def guarded(self) -> bool:
        return self.guard is not None

    def need_whole(self, rule: str) -> None:
        """For rules that count in whole products."""
        if self.guarded:
            raise Unsupported(
                f"rule {rule} counts in a whole product of token sets: leave out given="
            )

    def inputs(self, ar: Arithmetic, part: Domain) -> Iterator[np.ndarray]:
        """Those of a part that satisfy the guard, ids [number, length], in blocks."""
        if self.guard is None:
            return domain.listed(ar, part)
        return late("counting.guard").listed(ar, self.graph, self.guard, part)

    def satisfied(self, ar: Arithmetic, inputs: np.ndarray) -> np.ndarray:
        """Booleans [inputs]."""
        if self.guard is None:
            ar.step(len(inputs), 1, 1)
            return np.ones(len(inputs), bool)
        return late("counting.guard").holds(ar, self.graph, self.guard, inputs)

    def within(self, proved: Counts) -> Counts:
        """Of the right inputs of the whole domain, those that satisfy the guard."""
        others = self.whole - self.total
        return Counts(max(proved.low - others, 0), proved.high - others)

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
        from mechverify.kernel.core import splits  # only where a proof has one

        return splits.by_token(job.ar, part, node)

    def conclude(self, entry: Reader, verdict: str, job: Job, proved: Counts) -> Counts:
        stated = Counts(
            entry["right_at_least"].natural(), entry["right_at_most"].natural()
        )
        entry.close()
        proved = self.within(proved)
        if stated.low > proved.low or stated.high < proved.high:
            raise Rejected(
                f"right inputs stated: {stated.low} to {stated.high}; proved: {proved.low} to {proved.high}"
            )
        if verdict != "BOUNDED" and self.at_least is None:
            raise Rejected(f"a claim without a threshold can't be {verdict}")
        needed = 0 if self.at_least is None else self.at_least * self.total
        if verdict == "PROVED" and stated.low < needed:
            raise Rejected(
                "the proved number of right inputs doesn't reach the claim's threshold"
            )
        if verdict == "REFUTED" and not (
            stated.high < needed and (job.found.tokens or not self.by_example)
        ):
            raise Rejected(
                "the claim is not refuted: too many inputs may be right, or none was shown to be wrong"
            )
        return stated

    def theorem(
        self, common: dict[str, Any], stated: Counts, found: Evidence
    ) -> "CountingTheorem":
        return CountingTheorem(**common, right=stated, cells=found.cells)


@dataclass(frozen=True, eq=False)
class CountingTheorem(Theorem):
    """Of `claim.total` inputs, at least `right.low` and at most `right.high` are right (the bounds that the certificate
    states; those proved are at least as good). `tokens` are wrong inputs. `cells`: see Evidence."""

    claim: CountingClaim
    right: Counts
    cells: list[tuple]

    @property
    def wrong(self) -> np.ndarray:
        """Inputs [number, length] that were shown to be wrong."""
        return self.tokens


def read_counted(entry: Reader, inputs: Domain, graph: Graph) -> dict[str, Any]:
    """What every claim that counts says of its domain, as arguments of its class."""
    share, node, total = read_share(entry["at_least"]), None, inputs.size
    if "given" in entry.value:
        guard = late("counting.guard")
        node = guard.read(graph, entry["given"])
        total = guard.size(graph.meter, graph, node, inputs)
    if not total:
        raise Rejected("no input of the domain satisfies the condition in `given`")
    return {"at_least": share, "guard": node, "total": total}


def read_share(entry: Reader) -> Fraction | None:
    """A threshold: null, or a fraction of at most one."""
    if entry.value is None:
        return None
    parts = re.fullmatch(r"([0-9]{1,400})/([1-9][0-9]{0,399})", entry.text())
    if parts is None or int(parts[1]) > int(parts[2]):
        raise Rejected(
            f"{entry.where}: expected null or a fraction 'p/q' of at most one"
        )
    return Fraction(int(parts[1]), int(parts[2]))
