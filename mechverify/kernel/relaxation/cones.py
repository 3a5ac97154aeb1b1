"""Rule `faces`: where a condition stays as it is when the input is multiplied by a positive number, the faces of the
box tell of all of it, with one coordinate less.

Lemmas M8, M9 (docs/soundness/measure.md).
"""

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from itertools import product
from math import ceil

import numpy as np

from mechverify.kernel.core import elementary
from mechverify.kernel.core.arithmetic import Arithmetic, Ball
from mechverify.kernel.core.claim import Job
from mechverify.kernel.core.counts import Counts
from mechverify.kernel.core.domain import Domain
from mechverify.kernel.core.errors import Rejected
from mechverify.kernel.core.fields import Reader
from mechverify.kernel.core.measure import Measure, far
from mechverify.kernel.core.operations import Node
from mechverify.kernel.core.operations.weights import table
from mechverify.kernel.core.semantics import Real
from mechverify.kernel.relaxation.conditions import Condition

ANY = -1  # degree of what is zero on all inputs
MOST = 2**10  # degree
SOLID = 2, 3  # coordinates of which solid angles are known
# Operations of numbers of one degree whose result has it, too; of these, and of the token alone, there is no other.
ALIKE = (
    "view", "select", "concat", "add", "sub", "relu", "abs", "extremum", "ascending", "over_root",
)  # fmt: skip
FIXED = "pi", "tokens", "value", "integer"  # that read no real input


def check(
    job: Job, part: Domain, witness: Reader, prove: Callable
) -> tuple[Counts, dict[str, int]]:
    """Precondition: the part has all of the box, and the condition is a cone's. Postcondition: how many of its units
    are right, at least and at most. Complexity: that of the proofs of the faces."""
    about, domains = faces(job, part)
    proofs = witness["faces"].items(len(domains), len(domains))
    witness.close()
    found, used = prove(about, list(zip(domains, proofs, strict=True)))
    return of_box(job, part, found), used


def faces(job: Job, part: Domain) -> tuple[Job, list[Domain]]:
    """About the same condition, on faces; and each face of the box that zero isn't on: of one coordinate after another,
    where it is least and where it is largest."""
    claim, measure = job.claim, job.claim.measure
    low, high = measure.low, measure.high
    if type(job.semantics) is not Real:
        raise Rejected("faces are for semantics real: what is rounded is no cone")
    if not len(low):
        raise Rejected("there is no box, of which faces would be")
    if (part.low != low).any() or (part.high != high).any():
        raise Rejected("faces are those of the whole box")
    if not ((low <= 0) & (high >= 0) & (low < high)).all():
        raise Rejected("zero is not in the box, or a coordinate is a point")
    if claim.union is not None:
        raise Rejected("faces are those of one box")
    claim.need_whole("faces")
    job.once(_need_cone)
    on_faces, found = _kind(measure)(low, high, measure.normal), []
    for c, at in ((c, end[c]) for c in range(len(low)) for end in (low, high)):
        if at != 0:
            first, last = low.copy(), high.copy()
            first[c] = last[c] = at
            found.append(part._replace(low=first, high=last))
    return job.about(replace(claim, domain=part, measure=on_faces)), found


def of_box(job: Job, part: Domain, found: Counts) -> Counts:
    """Right units of the box, from those of all of its faces."""
    total, held = part.size * job.claim.measure.total, job.once(within)
    right, wrong = ceil(found.high / held), ceil((total - found.low) / held)
    return Counts(max(0, total - wrong), min(total, right))


def within(job: Job) -> Fraction:
    """A lower bound of how much of the mass of the cone that the box spans lies in the box."""
    ar, measure = job.ar, job.claim.measure
    held = ar.rational(Fraction(1))
    for c, normal in enumerate(measure.normal):
        if normal is not None:
            ends = np.array([measure.low[c], measure.high[c]])
            below, above = (measure.erf(ar, c, end) for end in ends)
            sides = Fraction(1, int((ends != 0).sum()))
            held = ar.mul(ar.mul(held, ar.sub(above, below)), ar.rational(sides))
    (least,) = np.ravel(ar.ends(held)[0])
    if not least > 0:
        raise Rejected("the box holds less of its cone's mass than float64 can tell")
    return Fraction(float(least))


# --- which conditions -------------------------------------------------------------------------------------------------


def _need_cone(job: Job) -> None:
    """Rejects a condition of which an atom's sign may change when the input is multiplied by a positive number."""
    condition = job.once(Condition)
    graph, degrees = condition.job.claim.graph, dict[int, int | None]()
    for n in graph.ancestors(condition.rows):
        node = graph.nodes[n]
        if node.op in ("weight", "constant"):
            entries = table(job.claim.weights, node)
            job.ar.step(entries.size, 1, 1)
            degrees[n] = 0 if entries.any() else ANY
        else:
            degrees[n] = _degree(node, [degrees[m] for m in node.args])
    if any(degrees[n] is None for n in condition.rows):
        raise Rejected(
            "the condition is not one of which the model and the claim show that it stays as it is when the input is"
            " multiplied by a positive number"
        )


def _degree(node: Node, of: list[int | None]) -> int | None:
    """d, if the value at t x is t^d times that at x, for all x and t > 0; ANY if it is zero; None if nothing shows it.
    `of`: those of its operands."""
    known = [d for d in of if d is not None]
    if len(known) < len(of):
        return None
    if not of:
        return 1 if node.op == "input" else 0 if node.op in FIXED else None
    degree: int | None = None
    if node.op in ALIKE:
        degree = _common(known)
    elif node.op in ("mul", "einsum"):
        degree = ANY if ANY in known else sum(known)
    elif node.op == "power":
        degree = ANY if ANY in known else known[0] * node.attr
    elif node.op == "pick" and known[1] == 0:
        degree = known[0]
    elif node.op == "choose" and _common(known[:2]) is not None:
        degree = _common(known[2:])
    if degree is None and all(d in (0, ANY) for d in known):
        return 0
    return degree if degree is None or degree <= MOST else None


def _common(degrees: list[int]) -> int | None:
    """Of numbers that are zero, or have one degree."""
    others = {d for d in degrees if d != ANY}
    return None if len(others) > 1 else others.pop() if others else ANY


# --- how much of the box a part of a face tells of --------------------------------------------------------------------


class Flat(Measure):
    """Of a uniform box: a part of a face has the mass of all inputs that are a number from 0 to 1 times one of it."""

    def _between(
        self, ar: Arithmetic, c: int, low: np.ndarray, high: np.ndarray, share: Ball
    ) -> Ball:
        sides = (
            abs(Fraction(float(end[c]))) for end in (self.low, self.high)
        )  # their sum is the whole interval
        below, above = sides
        weights = (
            ar.rational(end / (below + above) / len(self.low)) for end in (below, above)
        )
        weight = ar.where(high == self.low[c], *weights)
        return ar.where(low == high, weight, share)


class Round(Measure):
    """Of Gaussians about zero: a part of a face has the mass of all inputs that are a positive number times one of it,
    of the cone that the box spans, beyond the box as well."""

    def marks(self, ar: Arithmetic, at: np.ndarray) -> Ball:
        """Deviations."""
        rows = [self._deviations(ar, c, at[:, c]) for c in range(at.shape[1])]
        mid, rad = (
            np.stack(side, 1) for side in zip(*(row[:2] for row in rows), strict=True)
        )
        return Ball(mid, rad)

    def mass(
        self, ar: Arithmetic, low: np.ndarray, high: np.ndarray, first: Ball, last: Ball
    ) -> Ball:
        places = np.argsort(low != high, 1, kind="stable")
        ends = [
            [
                end.map(lambda a, i=i: a[np.arange(len(a)), places[:, i]])
                for end in (first, last)
            ]
            for i in range(len(self.low))
        ]
        (at, _), *sides = ends
        total, distance = ar.rational(Fraction(0)), Ball(np.abs(at.mid), at.rad)
        for corner in product((0, 1), repeat=len(sides)):
            angle = _angle(
                ar, distance, [side[i] for side, i in zip(sides, corner, strict=True)]
            )
            total = ar.add(total, -angle if (len(sides) - sum(corner)) % 2 else angle)
        corners = np.concatenate([self.low, self.high])
        parts = Fraction(2 ** int((corners == 0).sum()), 2 ** len(sides))
        return ar.mul(ar.div(total, elementary.pi(ar)), ar.rational(parts))

    def _slope(self, ar: Arithmetic, c: int, low: np.ndarray, high: np.ndarray) -> Ball:
        """n |z_c| / |z|^2, of deviations z."""
        square = ar.rational(Fraction(0))
        for i in range(len(self.low)):
            below, above = self._reach(ar, i, low, high)
            near = ar.exact(np.maximum(np.maximum(below, -above), 0.0))
            square = ar.add(square, ar.mul(near, near))
        most = ar.exact(far(*self._reach(ar, c, low, high)))
        slope = ar.div(ar.mul(most, ar.rational(Fraction(len(self.low)))), square)
        return ar.exact(ar.ends(slope)[1])


def _angle(ar: Arithmetic, distance: Ball, corner: list[Ball]) -> Ball:
    """At zero, of what lies at that distance between the foot of the perpendicular and a corner, signed: a segment's,
    or a rectangle's solid one."""
    if len(corner) == 1:
        return elementary.atan(ar, ar.div(corner[0], distance))
    square = ar.mul(distance, distance)
    for x in corner:
        square = ar.add(square, ar.mul(x, x))
    below = ar.mul(distance, ar.sqrt(square))
    return elementary.atan(ar, ar.div(ar.mul(*corner), below))


def _kind(measure: Measure) -> type[Measure]:
    normals = [n for n in measure.normal if n is not None]
    if not normals:
        return Flat
    if (
        len(normals) == len(measure.normal)
        and len(normals) in SOLID
        and not any(n.mean for n in normals)
    ):
        return Round
    raise Rejected(
        "faces are weighed where all coordinates are uniform, or two or three Gaussian ones have mean zero"
    )
