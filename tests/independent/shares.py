"""A second checker for claims about the accuracy of a captured module, in rational intervals.

Follows docs/certificate.md: the rules and the conclusion are those of any claim about accuracy (checker.py), the graph
is that of claims about bounds (bounds.py), evaluated at one input at a time.
"""

import itertools
from functools import partial
from typing import Any

from tests.independent import bounds, checker
from tests.independent.checker import Interval, Mechanism, fields, integer, items, margin_of, need, number, optional


class Claim(checker.Claim):
    """What is claimed, and the rules, applied to parts of its domain."""

    def __init__(self, claim: Any, weights: bytes):
        claim, margin = optional(claim, "margin", "0/1")
        kind, architecture, self.semantics, digest, domain, graph, site, position, equals, share = fields(
            claim, "kind", "architecture", "semantics", "weights_sha256", "domain", "graph", "site", "position",
            "equals", "at_least")  # fmt: skip
        need(kind == "accuracy", "kind")
        tokens, values = fields(domain, "tokens", "values")
        need(tokens, "no tokens")
        about = {
            "kind": "bounds", "architecture": architecture, "semantics": self.semantics, "weights_sha256": digest,
            "domain": {"tokens": tokens, "values": values, "inputs": []}, "graph": graph, "site": site,
            "position": position, "where": [], "cases": [], "at_least": None, "at_most": None,
        }  # fmt: skip
        self.values_of = bounds.Claim(about, weights)
        self.values, self.domain = [integer(v) for v in items(values)], self.values_of.domain.tokens
        shape = self.values_of.graph.nodes[self.values_of.output].shape
        need(len(shape) == (1 if position is None else 2), "no vector of outputs")
        self.out = self.values_of.outputs
        self.mechanism = Mechanism(equals, self.values, len(self.domain))
        self.at_least = None if share is None else number(share, "[0-9]+/[1-9][0-9]*")
        need(self.at_least is None or self.at_least <= 1, "at_least above 1")
        self.margin, self.neurons, self.replayed = margin_of(margin), False, False

    def right(self, tokens: tuple[int, ...]) -> bool | None:
        m = self.mechanism(tokens)
        if not 0 <= m < self.out:
            return False
        try:
            y = [v.range for v in self.values_of.values(bounds.at(list(tokens), []))]
        except bounds.NotConfirmed:
            return None
        leads = [y[m] - y[t] - Interval(self.margin) for t in range(self.out) if t != m]
        if any(lead.hi <= 0 for lead in leads):
            return False
        return True if all(lead.lo > 0 for lead in leads) else None

    def fold(self, *_: Any) -> Any:
        raise checker.Rejected("rule fold of a captured graph")

    compact = fold


check = partial(checker.check, make=Claim)


def truth(claim: Any, weights: bytes) -> tuple[int, int]:
    """Right inputs, and those that may be, by running every input."""
    task = Claim(claim, weights)
    found = [task.right(x) for x in itertools.product(*task.domain)]
    return found.count(True), len(found) - found.count(False)
