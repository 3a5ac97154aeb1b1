"""What is to be decided: a model, a domain, and what is claimed of one of the model's values there.

A claim is a value: nothing changes it once it is read, and a rule that needs further nodes adds them to a copy of the
graph. Its kinds, accuracy.py and ranges.py, say what a proof bounds, and what a conclusion needs.

Lemma C8 (docs/soundness/core.md).
"""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any, ClassVar, TypeVar

import numpy as np

from mechverify.kernel.core import container
from mechverify.kernel.core.arithmetic import Arithmetic
from mechverify.kernel.core.domain import Domain
from mechverify.kernel.core.errors import Rejected
from mechverify.kernel.core.fields import Reader
from mechverify.kernel.core.graph import Graph
from mechverify.kernel.core.semantics import SEMANTICS

MOST_ENTRIES = 2**16  # of an output
COPIED = 20  # units of work of a node that is copied

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Claim(ABC):
    """`stated` is the certificate's text of it; `sites` are nodes of the graph by their names. Of what a proof bounds
    of a part of the domain (counts of inputs, or ranges): `everything` is known before any proof, `unite` bounds two
    parts together, `meet` is the better of two bounds of one part. `shapes` are those of the real inputs."""

    stated: dict
    semantics: str
    architecture: str
    weights_sha256: str
    weights: dict[str, np.ndarray]
    domain: Domain
    graph: Graph
    sites: dict[str, int]
    site: str
    position: int | None
    output: int
    shapes: Sequence[tuple[int, ...]]

    kind: ClassVar[str]
    in_exact: ClassVar[bool]  # its rules can be checked in exact arithmetic

    def __post_init__(self) -> None:
        count_entries(self.graph, self.output)

    @property
    def outputs(self) -> int:
        """Entries of the output."""
        return prod(self.graph.nodes[self.output].shape)

    @property
    def captured(self) -> bool:
        return self.architecture == "captured"

    @property
    def guarded(self) -> bool:
        """It counts in a guarded domain."""
        return False

    @property
    def names(self) -> list[str]:
        """Those that the file chose, of sites and tensors."""
        return [*self.sites, *self.weights]

    @property
    def axioms(self) -> list[str]:
        return [
            "ieee754",
            *(["capture"] if self.captured else []),
            *SEMANTICS[self.semantics].axioms,
        ]

    @property
    @abstractmethod
    def everything(self) -> Any: ...

    @property
    def size(self) -> int:
        """Numbers of one bound."""
        return 1

    @staticmethod
    @abstractmethod
    def unite(a: Any, b: Any) -> Any: ...

    @staticmethod
    @abstractmethod
    def meet(a: Any, b: Any) -> Any:
        """Rejects bounds that contradict each other."""

    @abstractmethod
    def halves(self, job: "Job", part: Domain, node: Reader) -> tuple[Domain, Domain]:
        """Those of a split, which cover the part whatever the file says."""

    @abstractmethod
    def conclude(self, entry: Reader, verdict: str, job: "Job", proved: Any) -> Any:
        """The bounds that the certificate states; rejects them, or the verdict, if the proved ones don't imply it."""

    @abstractmethod
    def theorem(
        self, common: dict[str, Any], stated: Any, found: "Evidence"
    ) -> "Theorem": ...


@dataclass
class Evidence:
    """What the rules leave behind. `cells`: (query token, class, size, bounds of its wrong inputs) of each cell of
    rules fold and ratios; `tokens`, `points`: inputs that were replayed, arrays [number, ..] each; `attained`: ranges
    there; `broken`: booleans [number], a threshold is surely broken there; `lemmas`: of rule cut."""

    cells: list[tuple] = field(default_factory=list)
    tokens: list[np.ndarray] = field(default_factory=list)
    points: list[np.ndarray] = field(default_factory=list)
    attained: list[Any] = field(default_factory=list)
    broken: list[np.ndarray] = field(default_factory=list)
    lemmas: list[Any] = field(default_factory=list)


@dataclass(frozen=True, eq=False)
class Theorem:
    """What an accepted certificate establishes. `rules`: how often each was used; `work`: in units that `limit` bounds.
    `tokens`: inputs [number, length] that were replayed."""

    claim: Claim
    verdict: str
    axioms: tuple[str, ...]
    rules: dict[str, int]
    kernel_ops: int
    work: int
    exact: bool
    tokens: np.ndarray


class Job:
    """A claim, the arithmetic to decide it in, `axioms` that rules needed beside the claim's, and what they `found`.
    `old`: its proof is written as before format version 5."""

    def __init__(
        self,
        claim: Any,
        arithmetic: Arithmetic,
        axioms: set[str] | None = None,
        old: bool = False,
    ):
        self.ar, self.old = arithmetic, old
        self.semantics, self.claim = SEMANTICS[claim.semantics].of(claim, arithmetic)
        self.axioms = set() if axioms is None else axioms
        self.found = Evidence()
        self._made: dict[Callable, Any] = {}

    def about(self, claim: Claim) -> "Job":
        """About another value of the same model; it leaves nothing behind but axioms."""
        return Job(claim, self.ar, self.axioms, self.old)

    def further(self) -> Graph:
        """A copy of the claim's graph, for further nodes."""
        self.ar.step(len(self.claim.graph.nodes), 1, COPIED)
        return self.claim.graph.copy()

    def slim(self) -> tuple[Graph, int]:
        """A graph, and the claim's output in it, that computes no more of the model than it needs."""
        graph, output = self.claim.graph, self.claim.output
        if not any(graph.nodes[n].op == "view" for n in graph.ancestors([output])):
            return graph, output
        from mechverify.kernel.core.narrowing import slim  # only where there are views

        graph = self.further()
        return graph, slim(graph, [output])[output]

    def once(self, make: "Callable[[Job], T]") -> T:
        """What a family of rules makes of this job, made once."""
        if make not in self._made:
            self._made[make] = make(self)
        return self._made[make]


def read_weights(entry: Reader, data: bytes) -> dict[str, np.ndarray]:
    """Those of a safetensors file that the claim names."""
    if entry["weights_sha256"].text() != hashlib.sha256(data).hexdigest():
        raise Rejected(
            "the weights in the file are not those that the claim names (SHA-256 differs)"
        )
    try:
        return container.read_weights(data)
    except ValueError as error:
        raise Rejected(f"weights: {error}") from None


def count_entries(graph: Graph, output: int) -> int:
    """Rejects what has too many for lists of bounds."""
    count = prod(graph.nodes[output].shape)
    if count > MOST_ENTRIES:
        raise Rejected(f"the output has {count} entries (limit {MOST_ENTRIES})")
    return count


def subject(
    entry: Reader,
    weights: dict[str, np.ndarray],
    domain: Domain,
    graph: Graph,
    sites: dict[str, int],
    shapes: Sequence[tuple[int, ...]] = (),
) -> dict[str, Any]:
    """What every claim says, as arguments of its class."""
    site = entry["site"].one_of(sites)
    position = entry["position"]
    row = None if position.value is None else position.an_integer(0, 2**20)
    output = sites[site]
    if row is not None:
        output = graph.select(output, 0, row)
    if graph.nodes[output].kind != "real":
        raise Rejected(f"row {row} of site {site!r} is not a vector of outputs")
    return {
        "stated": entry.value,
        "semantics": entry["semantics"].text(),
        "architecture": entry["architecture"].text(),
        "weights_sha256": entry["weights_sha256"].text(),
        "weights": weights,
        "domain": domain,
        "graph": graph,
        "sites": sites,
        "site": site,
        "position": row,
        "output": output,
        "shapes": shapes,
    }
