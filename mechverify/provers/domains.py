"""Parts of a domain as JSON says them, to the bit: on their way to other processes, and into a store."""

from typing import Any

import numpy as np

from mechverify.kernel.core.domain import Domain


def told(part: Domain) -> list[Any]:
    facts = [list(fact) for fact in part.facts]
    box = part.low.tolist(), part.high.tolist()
    return [[list(ids) for ids in part.tokens], *box, facts]


def read(row: list[Any]) -> Domain:
    tokens, low, high, facts = row
    box = np.array(low, float), np.array(high, float)
    return Domain(tuple(map(tuple, tokens)), *box, tuple(map(tuple, facts)))
