"""A claim about ranges as the search sees it."""

import hashlib
import json
from collections.abc import Callable
from functools import cached_property
from typing import Any

import numpy as np
import torch

from mechverify.certificate.write import Proof, claim_document
from mechverify.claims.bounds import Bounds
from mechverify.claims.errors import ClaimError
from mechverify.graph.run import TorchRunner
from mechverify.kernel.core.claim import Job
from mechverify.kernel.core.domain import Domain
from mechverify.kernel.core.errors import Rejected, Stopped
from mechverify.kernel.core.fields import Reader
from mechverify.kernel.core.float64 import Float64
from mechverify.kernel.core.kinds import read_claim
from mechverify.kernel.core.meter import ROOM, Watch
from mechverify.kernel.core.neighbours import float_above, float_below
from mechverify.kernel.core.ranges import Range
from mechverify.kernel.core.words import listed
from mechverify.kernel.relaxation import rule as linear
from mechverify.kernel.relaxation.rule import Flags
from mechverify.kernel.relaxation.tables import LAST
from mechverify.provers.ranges.known import Found
from mechverify.provers.ranges.names import Called
from mechverify.provers.store import plain
from mechverify.relax.tensors import Tensors

SHOWN = 3  # values without a table that are named
BATCH = 4_096  # inputs that torch evaluates at a time, at most
FEW = 16  # coordinates: cutting these alone is quick


class RangeProblem:
    """A claim about ranges, read exactly as the kernel reads it."""

    def __init__(
        self,
        job: Job,
        device: str = "cpu",
        own: tuple[np.ndarray, np.ndarray] | None = None,
        plain: "RangeProblem | None" = None,
        made: tuple[Callable[..., Any], tuple] | None = None,
    ):
        """`own`: the corners [boxes, coordinates] between which a point is one of the user's inputs, if these aren't
        the parts'. `plain`: the problem about another graph of the same values, which torch can run. `made`: a function
        of a module, and its arguments, that make it again (None: what is about a part of another claim stays in this
        process)."""
        self.made = made
        self.job, self.claim, self.device = job, job.claim, device
        union = self.claim.union
        self.parts = [self.domain] if union is None else union.parts(self.domain)
        self.rounded = own is not None
        low, high = (
            np.stack([getattr(p, end) for p in self.parts]) for end in ("low", "high")
        )
        self.own = own or (low, high)
        self.plain = plain
        self.failed, self.unshown = (
            0,
            -np.inf,
        )  # inputs that the kernel didn't confirm, and the largest margin of one
        self.run = TorchRunner(self.claim.graph, self.claim.weights, torch.float64)
        try:
            self.ar = Tensors(device)
            self.ar.watch = job.ar.watch
            self.ar.raw(np.zeros(1))
        except (RuntimeError, AssertionError) as error:
            said = str(error).splitlines()[0]
            raise ClaimError(
                f"device {device!r}: torch can't compute in float64 there ({said}); use cpu"
            ) from None
        self.seconds = 0.0  # that the kernel's relaxation of the whole domain takes
        self.shared = False  # which form of a softmax narrower bounds go through
        self.whole = (
            False  # whether what functions read is bounded once, on the whole domain
        )
        n = self.claim.outputs
        least, most = self.claim.least or [-np.inf] * n, self.claim.most or [np.inf] * n
        # a float64 reaches a threshold exactly if it reaches the nearest float64 inside it
        self.least, self.most = (
            np.array(list(map(float_above, least))),
            np.array(list(map(float_below, most))),
        )

    @staticmethod
    def of(
        claim: Bounds, semantics: str, device: str = "cpu", watch: Watch | None = None
    ) -> "RangeProblem":
        own = claim.over.own if claim.over.inner else None
        document, data = claim_document(claim, semantics), claim.output.model.data
        return made(document, data, device, own, watch)

    def watched(self, watch: Watch) -> None:
        self.job.ar.watch = self.ar.watch = watch

    @property
    def travels(self) -> bool:
        return self.made is not None

    @property
    def content(self) -> str:
        """What decides each answer about it."""
        stated = self._stated if self.plain is None else f"jointly {self.plain.content}"
        return f"{stated} {self.device} {self.shared:d}{self.whole:d}"

    @cached_property
    def _stated(self) -> str:
        own = [end.tolist() for end in self.own]
        about = json.dumps([self.claim.stated, own], sort_keys=True, default=plain)
        return hashlib.sha256(about.encode()).hexdigest()

    def __reduce__(self) -> tuple:
        assert self.made is not None
        return again, (*self.made, self.shared, self.whole)

    @property
    def rewriting(self) -> linear.Rewriting:
        return self.job.once(linear.Rewriting)

    @property
    def called(self) -> Called:
        return self.job.once(Called)

    @property
    def domain(self) -> Domain:
        return self.claim.domain

    @property
    def linear(self) -> Proof:
        """A leaf with the kernel's own lines."""
        switched = {name: True for name, on in self.flags._asdict().items() if on}
        return {"rule": "relaxation", "lines": None} | switched

    @property
    def flags(self) -> Flags:
        return Flags(self.shared, self.whole)

    @property
    def asks(self) -> bool:
        """There is a threshold to decide."""
        return self.claim.least is not None or self.claim.most is not None

    @property
    def needed(self) -> list[int]:
        """The nodes that the output needs."""
        return self.claim.graph.ancestors([self.claim.output])

    @cached_property
    def numbers(self) -> int:
        """That an input takes."""
        nodes = [self.claim.graph.nodes[m] for m in self.needed]
        moving = [node for node in nodes if node.op not in ("weight", "constant")]
        return sum(int(np.prod(node.shape)) for node in moving)

    @property
    def batch(self) -> int:
        """Inputs that torch evaluates at a time."""
        return max(64, min(BATCH, 2**24 // max(1, self.numbers)))

    @cached_property
    def tabulated(self) -> bool:
        """Every entry of the output is in a table, so that intervals give its range exactly."""
        roots, tables = self.rewriting.roots, self.rewriting.tables
        return tables is not None and any(
            roots.of[n] == roots.output for n in tables.of
        )

    def dropped(self) -> list[str]:
        """What has no table, where one would tell its range: for its size, or as its values can't be enclosed."""
        try:
            tables, roots = self.rewriting.tables, self.rewriting.roots
        except (Rejected, Stopped):  # what stopped it was said when it was tried
            return []
        if tables is None:
            return []
        names = {
            roots.standing[n]: name
            for name, n in self.claim.sites.items()
            if n in roots.standing
        }
        called = {
            n: f"{names.get(n, 'a value')} {list(self.rewriting.graph.nodes[n].shape)}"
            for n in [*tables.dropped, *tables.unknown]
        }
        sizes = [
            f"{called[n]} ({size:.1e} numbers)" for n, size in tables.dropped.items()
        ]
        blurred = [called[n] for n in tables.unknown]
        large = f"tables of more than {LAST:.1e} numbers were not made, of: {listed(sizes[-SHOWN:])}"
        wide = f"no table was made where rounding errors are too large: {listed(blurred[-SHOWN:])}"
        return [said for said, of in ((large, sizes), (wide, blurred)) if of]

    def values(
        self, tokens: np.ndarray, points: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The output [inputs, entries] in float64, differentiable in `points` [inputs, coordinates]; and the least
        value [inputs] of the claim's conditions, infinite without any, -inf where the input is none of the user's, or
        NaN comes out."""
        if self.plain is not None:
            return self.plain.values(tokens, points)
        inputs, start = [], 0
        for shape in self.claim.shapes:
            size = int(np.prod(shape))
            inputs.append(points[:, start : start + size].reshape(-1, *shape))
            start += size
        values = self.run.reals([self.claim.output, *self.claim.where], tokens, inputs)
        output = values[self.claim.output].reshape(len(tokens), -1)
        least = torch.full((len(tokens),), torch.inf, dtype=torch.float64)
        for n in self.claim.where:
            least = torch.minimum(
                least, values[n].detach().reshape(len(tokens), -1).amin(1)
            )
        owned = torch.from_numpy(self.owned(points.detach().numpy()).any(1))
        return output, torch.where(
            owned & ~output.detach().isnan().any(1) & ~least.isnan(), least, -torch.inf
        )

    def owned(self, points: np.ndarray) -> np.ndarray:
        """Booleans [points, boxes]: which of the user's own boxes hold which points."""
        low, high = self.own
        step = max(1, ROOM // max(1, low.size))
        some = [points[i : i + step, None] for i in range(0, len(points), step)]
        found = [((low <= x) & (x <= high)).all(2) for x in some]
        return np.concatenate([np.zeros((0, len(low)), bool), *found])

    def joined(self, proofs: list[Proof]) -> Proof:
        """Of the domain, from those of its parts."""
        return (
            proofs[0]
            if self.claim.union is None
            else {"rule": "union", "parts": proofs}
        )

    def missing(self, low: np.ndarray, high: np.ndarray) -> np.ndarray:
        """By how much [...] bounds [..., entries] fail to reach the thresholds; not positive where they do, infinite
        where a bound is no number."""
        with np.errstate(
            invalid="ignore", over="ignore"
        ):  # an end that isn't asked for, of a range without ends
            below = np.where(self.least > -np.inf, self.least - low, -np.inf)
            above = np.where(self.most < np.inf, high - self.most, -np.inf)
        short = np.maximum(below, above)
        return np.where(np.isnan(short), np.inf, short).max(-1, initial=-np.inf)

    def proves(self, found: Range) -> bool:
        return bool(self.missing(found.low, found.high) <= 0)

    def open(self, found: Found) -> bool:
        """There is a threshold that neither a proof nor an input decides."""
        return self.asks and not found.broken and not self.proves(found.range)


def made(
    document: dict,
    data: bytes,
    device: str,
    own: tuple[np.ndarray, np.ndarray] | None,
    watch: Watch | None = None,
) -> RangeProblem:
    read = read_claim(Reader(document, "claim"), data)
    recipe = made, (document, data, device, own)
    return RangeProblem(Job(read, Float64(watch=watch)), device, own, made=recipe)


def again(
    make: Callable[..., Any], arguments: tuple, shared: bool, whole: bool
) -> RangeProblem:
    """In another process."""
    problem = make(*arguments)
    problem.shared, problem.whole = shared, whole
    return problem
