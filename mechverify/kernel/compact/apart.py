"""Leads over rivals, each by itself: one table of queries and tokens.

Lemma K4 (docs/soundness/compact.md).
"""

from typing import NamedTuple

import numpy as np

from mechverify.kernel.compact.chains import least
from mechverify.kernel.core.arithmetic import Arithmetic, Ball, points

BLOCK = 2**18  # leads over rivals that are held at a time


class Joint(NamedTuple):
    """As leads.Parts, as one table [queries, tokens]."""

    joint: Ball

    def of(self, ar: Arithmetic, at: np.ndarray) -> Ball:
        return self.joint.at[np.arange(len(at)), at]

    def table(self, ar: Arithmetic) -> Ball:
        return self.joint


def leads(ar: Arithmetic, base: Ball, token: Ball) -> Ball:
    """The least over the rivals [query or 1, token] of the sum of both [.., rivals], some queries at a time."""
    rows, found = max(1, BLOCK // token.mid.size), []
    for start in range(0, len(base.mid), rows):
        part = base.at[start : start + rows, None]
        found.append(least(ar, ar.add(part, token.at[None]), 2))
    return points(np.concatenate([b.mid for b in found]), found[0].exponent)
