"""A second checker for shares of a box, in rational intervals.

Follows docs/certificate.md. A proof's parts are walked through, and how much of each can be right is found anew: the
part is halved, the widest interval first, and the condition's range on every piece is that of bounds.py; nothing here
knows atoms, half-spaces or cases of signs, and a leaf's `to` and `signs` are not followed. Masses are exact, or, of a
Gaussian, enclosed by that page's own erf.

Three answers, as in bounds.py: `check` returns (what is stated is true), raises Rejected (no certificate, or its proof
can't show so much), or raises NotConfirmed.
"""

import hashlib
import heapq
import itertools
import json
import math
from fractions import Fraction
from typing import Any

from tests.independent import bounds
from tests.independent.bounds import NotConfirmed, Part, confirm, constant
from tests.independent.checker import (
    ABSENT,
    Interval,
    announced,
    fields,
    integer,
    items,
    members,
    need,
    number,
    optional,
    strict_json,
)

UNITS = 2**60  # of the whole box, for each token sequence
PIECES = 128  # into which a part is halved, at most
Shares = tuple[Fraction, Fraction]  # units that are right, at least and at most
RANGES: dict[Any, Interval | None] = {}  # of conditions on pieces: files that are compared have most of them in common


class Claim:
    def __init__(self, claim: Any, weights: bytes):
        claim, measure = optional(claim, "measure", ABSENT)
        kind, architecture, semantics, digest, domain, graph, site, position, self.strict, share = fields(
            claim, "kind", "architecture", "semantics", "weights_sha256", "domain", "graph", "site", "position",
            "strict", "at_least")  # fmt: skip
        need(kind == "share" and type(self.strict) is bool, "kind")
        need(type(domain) is dict, "domain")
        domain = domain if "inputs" in domain else domain | {"inputs": []}
        about = {
            "kind": "bounds", "architecture": architecture, "semantics": semantics, "weights_sha256": digest,
            "domain": domain, "graph": graph, "site": site, "position": position, "where": [], "cases": [],
            "at_least": None, "at_most": None,
        }  # fmt: skip
        self.values_of = bounds.Claim(about, weights)
        self.domain = self.values_of.domain
        need(self.values_of.outputs == 1, "a condition of several entries")
        need((measure is ABSENT) == (not self.values_of.shapes), "a measure of real inputs")
        rows = [] if measure is ABSENT else items(measure, len(self.domain.low))
        self.normal = [None if row is None else normal(row) for row in rows]
        self.at_least = None if share is None else number(share, "[0-9]+/[1-9][0-9]*")
        need(self.at_least is None or self.at_least <= 1, "at_least above 1")
        self.unit = UNITS if self.values_of.shapes else 1
        self.found: dict[Any, Shares] = {}
        self.condition = hashlib.sha256(json.dumps(about | {"domain": domain.get("values")}).encode()).digest()

    @property
    def total(self) -> int:
        return self.unit * math.prod(map(len, self.domain.tokens))

    def mass(self, part: Part) -> Interval:
        """In units."""
        total = constant(self.unit * math.prod(map(len, part.tokens)))
        for c, (a, b) in enumerate(zip(part.low, part.high, strict=True)):
            low, high = self.domain.low[c], self.domain.high[c]
            if low < high:
                total = total * self.between(c, a, b) / self.between(c, low, high)
        return total

    def between(self, c: int, a: Fraction, b: Fraction) -> Interval:
        if self.normal[c] is None:
            return constant(b - a)
        return (self.below(c, b) - self.below(c, a)).short()

    def below(self, c: int, x: Fraction) -> Interval:
        about = self.normal[c]
        assert about is not None
        mean, deviation = about
        return bounds.erf(constant((x - mean) / deviation) / bounds.sqrt(constant(2)))

    def right(self, part: Part) -> bool | None:
        """On all of it."""
        key = self.condition, name_of(part)
        if key not in RANGES:
            try:
                RANGES[key] = self.values_of.values(part)[0].range
            except NotConfirmed:
                RANGES[key] = None
        f = RANGES[key]
        if f is None:
            return None
        sure = f.lo > 0 if self.strict else f.lo >= 0
        never = f.hi <= 0 if self.strict else f.hi < 0
        return True if sure else False if never else None

    def shares(self, part: Part) -> Shares:
        """Of a part's inputs."""
        key = name_of(part)
        if key not in self.found:
            self.found[key] = self._shares(part)
        return self.found[key]

    def _shares(self, part: Part) -> Shares:
        low, high, order = Fraction(0), self.mass(part).hi, itertools.count()
        todo: list[tuple[Fraction, int, Part]] = [(-high, next(order), part)]
        for _ in range(PIECES):
            if not todo:
                break
            _, _, piece = heapq.heappop(todo)
            right, mass = self.right(piece), self.mass(piece)
            if right:
                low += mass.lo
            elif right is False:
                high -= mass.lo
            else:
                for half in self.halves(piece):
                    heapq.heappush(todo, (-self.mass(half).hi, next(order), half))
        return low, high

    def halves(self, part: Part) -> list[Part]:
        position = max(range(len(part.tokens)), key=lambda p: len(part.tokens[p]), default=None)
        if position is not None and len(part.tokens[position]) > 1:
            return self.values_of.by_token(part, position, part.tokens[position][:1])
        widths = [b - a for a, b in zip(part.low, part.high, strict=True)]
        if not any(widths):
            return []
        c = max(range(len(widths)), key=lambda i: widths[i])
        middle = (part.low[c] + part.high[c]) / 2
        return [part._replace(high=[*part.high[:c], middle, *part.high[c + 1 :]]),
                part._replace(low=[*part.low[:c], middle, *part.low[c + 1 :]])]  # fmt: skip

    # --- What a proof can show, at best: units that are right, at least and at most ---

    def prove(self, proof: Any, part: Part) -> Shares:
        rule = proof.get("rule") if type(proof) is dict else None
        match rule:
            case "relaxation":
                return self.relaxation(part, proof)
            case "open":
                fields(proof, "rule")
                return Fraction(0), self.mass(part).lo
            case "both":
                _, first, second = fields(proof, "rule", "first", "second")
                (a, b), (c, d) = self.prove(first, part), self.prove(second, part)
                return max(a, c), min(b, d)
            case "split":
                need("node" not in proof, "a split at a value, of which nobody knows the mass")
                parts, inside, outside = self.split(part, proof)
                (a, b), (c, d) = self.prove(inside, parts[0]), self.prove(outside, parts[1])
                return a + c, b + d
        need(False, f"rule {rule}")
        raise AssertionError

    def relaxation(self, part: Part, proof: dict) -> Shares:
        proof, signs = optional(proof, "signs", 0)
        proof, shared = optional(proof, "shared", False)
        _, to = fields(proof, "rule", "to")
        integer(to, 0, 40)
        integer(signs, 0, 12)
        need(type(shared) is bool, "shared")
        low, high = self.shares(part)
        return high, low  # it shows no more than is true

    def split(self, part: Part, proof: dict) -> tuple[list[Part], Any, Any]:
        if "position" in proof:
            _, position, first, inside, outside = fields(proof, "rule", "position", "first", "inside", "outside")
            return self.values_of.by_token(part, position, first), inside, outside
        _, c, where, inside, outside = fields(proof, "rule", "coordinate", "at", "inside", "outside")
        halves = self.values_of.by_number(part, c, where)
        need(part.low[c] < halves[0].high[c] < part.high[c], "a cut that is not inside")
        return halves, inside, outside


def name_of(part: Part) -> tuple:
    return tuple(map(tuple, part.tokens)), tuple(part.low), tuple(part.high)


def normal(row: Any) -> tuple[Fraction, Fraction]:
    mean, deviation = (bounds.a_number(v) for v in items(row, 2))
    need(deviation > 0, "a deviation is positive")
    return mean, deviation


def check(data: bytes) -> dict[str, Any]:
    """The conclusion of a certificate, if what it states is true."""
    document, weights = members(data)
    form, version, claim, conclusion, axioms, proof = fields(
        announced(strict_json(document)), "format", "version", "claim", "conclusion", "axioms", "proof"
    )
    need(form == "mechverify-certificate" and integer(version) == 5, "format or version")
    need(axioms == ["ieee754", "capture"], "axioms")
    task = Claim(claim, weights)
    verdict, *counts = fields(conclusion, "verdict", "right_at_least", "right_at_most")
    least, most = (number(count, "0|[1-9][0-9]*") for count in counts)
    highest, lowest = task.prove(proof, task.domain)
    need(least <= highest and most >= lowest, "not shown by such a proof, whatever its bounds")
    target = None if task.at_least is None else task.at_least * task.total
    match verdict:
        case "PROVED":
            need(target is not None and least >= target, "verdict")
        case "REFUTED":
            need(target is not None and most < target, "verdict")
        case _:
            need(verdict == "BOUNDED", "verdict")
    low, high = task.shares(task.domain)
    confirm(least <= low and most >= high, "true or not, as far as these ranges tell")
    return conclusion
