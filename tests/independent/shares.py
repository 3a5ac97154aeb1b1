"""A second checker for claims that count inputs of a captured module, accuracy and shares, in rational intervals.

Follows docs/certificate.md: the rules and the conclusion are those of any claim about accuracy (checker.py), the graph
is that of claims about bounds (bounds.py), evaluated at one input at a time.
"""

import itertools
from functools import partial
from typing import Any

from tests.independent import bounds, checker
from tests.independent.checker import (
    ABSENT,
    Interval,
    Mechanism,
    fields,
    integer,
    items,
    margin_of,
    need,
    number,
    optional,
)


class Counted(checker.Claim):
    """What such a claim says of its model, and the rules, applied to parts of its domain."""

    def read(
        self, kind: str, architecture: Any, digest: Any, domain: Any, graph: Any, site: Any, position: Any, share: Any, given: Any,
        weights: bytes,
    ) -> None:  # fmt: skip
        tokens, values = fields(domain, "tokens", "values")
        need(tokens, "no tokens")
        about = {
            "kind": "bounds", "architecture": architecture, "semantics": self.semantics, "weights_sha256": digest,
            "domain": {"tokens": tokens, "values": values, "inputs": []}, "graph": graph, "site": site,
            "position": position, "where": [], "cases": [], "at_least": None, "at_most": None,
        }  # fmt: skip
        self.values_of = bounds.Claim(about, weights)
        self.values, self.domain = [integer(v) for v in items(values)], self.values_of.domain.tokens
        self.out = self.values_of.outputs
        self.at_least = None if share is None else number(share, "[0-9]+/[1-9][0-9]*")
        need(self.at_least is None or self.at_least <= 1, "at_least above 1")
        self.neurons = self.replayed = False
        self.guard(given)

    def entries(self, tokens: tuple[int, ...]) -> list[Interval] | None:
        try:
            return [v.range for v in self.values_of.values(bounds.at(list(tokens), []))]
        except bounds.NotConfirmed:
            return None

    def fold(self, *_: Any) -> Any:
        raise checker.Rejected("rule fold of a captured graph")

    compact = fold


class Claim(Counted):
    """An accuracy."""

    def __init__(self, claim: Any, weights: bytes):
        claim, margin = optional(claim, "margin", "0/1")
        claim, given = optional(claim, "given", ABSENT)
        kind, architecture, self.semantics, digest, domain, graph, site, position, equals, share = fields(
            claim, "kind", "architecture", "semantics", "weights_sha256", "domain", "graph", "site", "position",
            "equals", "at_least")  # fmt: skip
        need(kind == "accuracy", "kind")
        self.read(kind, architecture, digest, domain, graph, site, position, share, given, weights)
        shape = self.values_of.graph.nodes[self.values_of.output].shape
        need(len(shape) == (1 if position is None else 2), "no vector of outputs")
        self.mechanism = Mechanism(equals, self.values, len(self.domain))
        self.margin = margin_of(margin)

    def right(self, tokens: tuple[int, ...]) -> bool | None:
        m = self.mechanism(tokens)
        if not 0 <= m < self.out:
            return False
        y = self.entries(tokens)
        if y is None:
            return None
        leads = [y[m] - y[t] - Interval(self.margin) for t in range(self.out) if t != m]
        if any(lead.hi <= 0 for lead in leads):
            return False
        return True if all(lead.lo > 0 for lead in leads) else None


class Share(Counted):
    """A condition, as one number."""

    def __init__(self, claim: Any, weights: bytes):
        claim, given = optional(claim, "given", ABSENT)
        kind, architecture, self.semantics, digest, domain, graph, site, position, self.strict, share = fields(
            claim, "kind", "architecture", "semantics", "weights_sha256", "domain", "graph", "site", "position",
            "strict", "at_least")  # fmt: skip
        need(kind == "share" and type(self.strict) is bool, "kind")
        self.read(kind, architecture, digest, domain, graph, site, position, share, given, weights)
        need(self.out == 1, "a condition of several entries")

    def right(self, tokens: tuple[int, ...]) -> bool | None:
        y = self.entries(tokens)
        if y is None:
            return None
        sure = y[0].lo > 0 if self.strict else y[0].lo >= 0
        never = y[0].hi <= 0 if self.strict else y[0].hi < 0
        return True if sure else False if never else None


def read(claim: Any, weights: bytes) -> Counted:
    share = type(claim) is dict and claim.get("kind") == "share"
    return (Share if share else Claim)(claim, weights)


check = partial(checker.check, make=read)


def truth(claim: Any, weights: bytes) -> tuple[int, int]:
    """Right inputs, and those that may be, by running every input."""
    task = read(claim, weights)
    found = [task.right(x) for x in itertools.product(*task.domain) if task.inside(x)]
    return found.count(True), len(found) - found.count(False)
