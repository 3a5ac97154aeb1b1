"""A second checker for shares of a box, in rational intervals.

Follows docs/certificate.md. A proof's parts are walked through, and how much of each can be right is found anew: the
part is halved, the widest interval first, and the condition's range on every piece is that of bounds.py; nothing here
knows atoms, half-spaces or cases of signs, and a leaf's `to` and `signs` are not followed. Masses are exact, or, of a
Gaussian, enclosed by that page's own erf. A part of a face, one coordinate of which is a point where the domain's isn't,
has the mass of its multiples.

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
    Mechanism,
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
        claim, given = optional(claim, "given", ABSENT)
        claim, union = optional(claim, "union", ABSENT)
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
        about |= {} if union is ABSENT else {"union": union}
        self.values_of = bounds.Claim(about, weights)
        self.domain = self.values_of.domain
        need(given is ABSENT or (measure is not ABSENT and self.domain.tokens), "a condition on a box's tokens")
        self.given = None if given is ABSENT else Mechanism(given, domain["values"], len(self.domain.tokens))
        need(self.given is None or (self.given.span[0] >= 0 and self.given.span[1] <= 1), "given is no truth value")
        need(self.values_of.outputs == 1, "a condition of several entries")
        need((measure is ABSENT) == (not self.values_of.shapes), "a measure of real inputs")
        rows = [] if measure is ABSENT else items(measure, len(self.domain.low))
        self.normal = [None if row is None else normal(row) for row in rows]
        self.at_least = None if share is None else number(share, "[0-9]+/[1-9][0-9]*")
        need(self.at_least is None or self.at_least <= 1, "at_least above 1")
        self.unit = UNITS if self.values_of.shapes else 1
        self.union = None if union is ABSENT else self.values_of.in_boxes(self.domain)
        if self.union is not None:
            for k, one in enumerate(self.union):
                need(
                    all(a < b for c, (a, b) in enumerate(zip(one.low, one.high, strict=True)) if self.wide(c)),
                    "a flat box",
                )
                need(any(map(self.wide, range(len(one.low)))), "no volume")
                for other in self.union[:k]:
                    sides = enumerate(zip(one.low, one.high, other.low, other.high, strict=True))
                    need(any(self.wide(c) and (b <= x or y <= a) for c, (a, b, x, y) in sides), "boxes that overlap")
        need(self.total, "no sequence satisfies the condition")
        self.found: dict[Any, Shares] = {}
        self.condition = hashlib.sha256(json.dumps(about | {"domain": domain.get("values")}).encode()).digest()

    @property
    def total(self) -> int:
        return self.unit * self.sequences(self.domain)

    def sequences(self, part: Part) -> int:
        """Those that satisfy the condition, if there is one."""
        if self.given is None:
            return math.prod(map(len, part.tokens))
        return sum(self.given(x) for x in itertools.product(*part.tokens))

    def content(self, part: Part) -> Interval:
        """Of a box of a union, or a part of it: its volume, or mass, but for a factor."""
        found = constant(1)
        for c, (a, b) in enumerate(zip(part.low, part.high, strict=True)):
            found = (found * self.between(c, a, b)).short() if self.wide(c) else found
        return found

    def mass(self, part: Part) -> Interval:
        """In units."""
        total = constant(self.unit * self.sequences(part))
        if self.union is not None:
            whole = constant(0)
            for box in self.union:
                whole = whole + self.content(box)
            return total * self.content(part) / whole
        if fixed := [c for c, (a, b) in enumerate(zip(part.low, part.high, strict=True)) if a == b and self.wide(c)]:
            return total * (self.pyramid if self.normal[0] is None else self.angle)(part, *fixed)
        for c, (a, b) in enumerate(zip(part.low, part.high, strict=True)):
            low, high = self.domain.low[c], self.domain.high[c]
            if low < high:
                total = total * self.between(c, a, b) / self.between(c, low, high)
        return total

    def wide(self, c: int) -> bool:
        return self.domain.low[c] < self.domain.high[c]

    def pyramid(self, part: Part, fixed: int) -> Interval:
        """Of a part of a face, by volume."""
        share = abs(part.low[fixed]) / len(part.low)
        for c, (a, b) in enumerate(zip(part.low, part.high, strict=True)):
            share *= (1 if c == fixed else b - a) / (self.domain.high[c] - self.domain.low[c])
        return constant(share)

    def angle(self, part: Part, fixed: int) -> Interval:
        """Of a part of a face, as it is seen from zero, over the angle of all faces."""
        low, high = ([x / about[1] for x, about in zip(end, self.normal, strict=True) if about] for end in part[1:3])
        distance = abs(low[fixed])
        ends = [(a, b) for c, (a, b) in enumerate(zip(low, high, strict=True)) if c != fixed]
        seen = constant(0)
        for corner in itertools.product((0, 1), repeat=len(ends)):
            at = [end[i] for end, i in zip(ends, corner, strict=True)]
            length = bounds.sqrt(constant(distance**2 + sum(x * x for x in at))) if len(at) == 2 else constant(1)
            one = bounds.atan(constant(math.prod(at) / distance) / length)
            seen = seen + (one if sum(corner) % 2 == len(at) % 2 else bounds.minus(one))
        zeros = [*self.domain.low, *self.domain.high].count(0)
        return (
            seen * constant(Fraction(2**zeros, 2 ** len(ends))) / Interval(bounds.PI, bounds.PI + Fraction(1, 2**900))
        ).short()

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
                self.in_a_box(part)
                return Fraction(0), self.mass(part).lo
            case "both":
                _, first, second = fields(proof, "rule", "first", "second")
                (a, b), (c, d) = self.prove(first, part), self.prove(second, part)
                return max(a, c), min(b, d)
            case "faces":
                return self.faces(part, proof)
            case "differences":  # another graph of the same values, which only the kernel needs
                return self.prove(fields(proof, "rule", "proof")[1], part)
            case "union":
                parts, (_, proofs) = self.values_of.in_boxes(part), fields(proof, "rule", "parts")
                found = [self.prove(p, own) for p, own in zip(items(proofs, len(parts)), parts, strict=True)]
                return sum(low for low, _ in found), sum(high for _, high in found)
            case "split":
                need("node" not in proof, "a split at a value, of which nobody knows the mass")
                parts, inside, outside = self.split(part, proof)
                (a, b), (c, d) = self.prove(inside, parts[0]), self.prove(outside, parts[1])
                return a + c, b + d
        need(False, f"rule {rule}")
        raise AssertionError

    def faces(self, part: Part, proof: dict) -> Shares:
        _, proofs = fields(proof, "rule", "faces")
        need(self.union is None and self.given is None, "faces of one box, for all sequences")
        low, high, n = self.domain.low, self.domain.high, len(self.domain.low)
        need(n and (part.low, part.high) == (low, high), "faces of a whole box")
        need(all(a <= 0 <= b and a < b for a, b in zip(low, high, strict=True)), "zero in the box, and no points")
        round_ = n in (2, 3) and all(about is not None and not about[0] for about in self.normal)
        need(round_ or not any(self.normal), "faces of such a distribution")
        keeps = Degrees(self.values_of).keeps_sign(self.values_of.output)
        (need if self.values_of.position is None else confirm)(keeps, "a cone")
        ends = [(c, at) for c in range(n) for at in (low[c], high[c]) if at]
        least, most = Fraction(0), Fraction(0)
        for (c, at), inner in zip(ends, items(proofs, len(ends)), strict=True):
            face = part._replace(low=[*low[:c], at, *low[c + 1 :]], high=[*high[:c], at, *high[c + 1 :]])
            a, b = self.prove(inner, face)
            least, most = least + a, most + b
        total, held = self.unit * math.prod(map(len, part.tokens)), constant(1)
        for c in range(n if round_ else 0):
            sides = sum(end != 0 for end in (low[c], high[c]))
            held = held * self.between(c, low[c], high[c]) / constant(sides)
        return max(total - (total - least) / held.hi, Fraction(0)), min(most / held.hi, Fraction(total))

    def relaxation(self, part: Part, proof: dict) -> Shares:
        proof, signs = optional(proof, "signs", 0)
        proof, shared = optional(proof, "shared", False)
        _, to = fields(proof, "rule", "to")
        integer(to, 0, 40)
        integer(signs, 0, 12)
        need(type(shared) is bool, "shared")
        self.in_a_box(part)
        low, high = self.shares(part)
        return high, low  # it shows no more than is true

    def in_a_box(self, part: Part) -> None:
        boxes = [self.domain] if self.union is None else self.union
        inside = [all(map(Fraction.__le__, box.low, part.low)) and all(map(Fraction.__le__, part.high, box.high))
                  for box in boxes]  # fmt: skip
        need(any(inside), "a leaf of a part that is not in one box")

    def split(self, part: Part, proof: dict) -> tuple[list[Part], Any, Any]:
        if "position" in proof:
            _, position, first, inside, outside = fields(proof, "rule", "position", "first", "inside", "outside")
            return self.values_of.by_token(part, position, first), inside, outside
        _, c, where, inside, outside = fields(proof, "rule", "coordinate", "at", "inside", "outside")
        halves = self.values_of.by_number(part, c, where)
        need(part.low[c] < halves[0].high[c] < part.high[c], "a cut that is not inside")
        return halves, inside, outside


class Degrees:
    """Of the values of a claim's graph: d where it is t^d times as much at t times an input; None of those that have none."""

    ANY = -1

    def __init__(self, claim: bounds.Claim):
        self.claim, self.nodes = claim, claim.graph.nodes
        self.known: dict[int, int | None] = {}
        for n, node in enumerate(self.nodes):
            self.known[n] = self.of(node, [self.known[a] for a in node.args])

    def of(self, node: bounds.Node, args: list) -> int | None:
        if node.op == "input":
            return 1
        if node.op in ("weight", "constant"):
            zero = all(v == 0 for v in self.numbers(node))
            return self.ANY if zero else 0
        if None in args:
            return None
        found = None
        match node.op:
            case "view" | "concat" | "add" | "sub" | "relu" | "abs" | "extremum" | "ascending" | "over_root":
                found = self.one(args)
            case "mul" | "einsum":
                found = self.ANY if self.ANY in args else sum(args)
            case "power":
                found = self.ANY if args == [self.ANY] else args[0] * node.attr
            case "pick":
                found = args[0]
            case "choose":
                found = None if self.one(args[:2]) is None else self.one(args[2:])
        if found is None and all(a in (0, self.ANY) for a in args):
            return 0
        return None if found is None or found > 1024 else found

    def one(self, degrees: list[int]) -> int | None:
        some = [d for d in degrees if d != self.ANY]
        return self.ANY if not some else some[0] if some.count(some[0]) == len(some) else None

    def numbers(self, node: bounds.Node) -> list[Fraction]:
        if node.op == "constant":
            return node.attr[1]
        whole, numbers = self.claim.tensors[node.attr[0]]
        return [numbers[bounds.flat(i, whole)] for i in itertools.product(*map(range, node.shape))]

    def bare(self, n: int) -> int:
        """What a view, or a concatenation of one tensor, shows."""
        while self.nodes[n].op == "view" or (self.nodes[n].op == "concat" and len(self.nodes[n].args) == 1):
            n = self.nodes[n].args[0]
        return n

    def size(self, n: int) -> int:
        return math.prod(self.nodes[n].shape)

    def keeps_sign(self, root: int) -> bool:
        """At all multiples of an input."""
        todo, done = [root], set()
        while todo:
            n = self.bare(todo.pop())
            if n in done:
                continue
            done.add(n)
            both = self.extremum(n)
            if not both and self.known[n] is None:
                return False
            todo += both
        return True

    def extremum(self, n: int) -> list[int]:
        """The operands of y + relu(x - y), or x - relu(x - y), of one shape, or single numbers; what has an extremum."""
        node = self.nodes[n]
        if node.op == "extremum":
            return [node.args[0]]
        for own, rest in itertools.permutations(node.args) if node.op in ("add", "sub") else ():
            bent = self.nodes[rest]
            if bent.op != "relu" or self.nodes[bent.args[0]].op != "sub" or (node.op == "sub" and rest == node.args[0]):
                continue
            x, y = self.nodes[bent.args[0]].args
            if own == (y if node.op == "add" else x) and (
                self.size(n) == self.size(x) == self.size(y) == 1
                or node.shape == self.nodes[x].shape == self.nodes[y].shape
            ):
                return [x, y]
        return []


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
    found = [task.shares(box) for box in ([task.domain] if task.union is None else task.union)]
    low, high = (sum(ends) for ends in zip(*found, strict=True))
    confirm(least <= low and most >= high, "true or not, as far as these ranges tell")
    return conclusion
