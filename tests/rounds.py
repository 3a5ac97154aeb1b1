"""How many cases the suite tries: MECHVERIFY_ROUNDS=120 tries ten times as many random ones, `pytest -m ""` all listed
ones."""

import os
from collections.abc import Collection
from typing import Any

import pytest

ROUNDS = int(os.environ.get("MECHVERIFY_ROUNDS", 12))


def few(cases: Collection[Any], most: int) -> list[Any]:
    """Parameters of a test: of the cases at most so many, spread evenly; the others for a campaign."""
    step = -(-len(cases) // most)
    return [
        case if i % step == 0 else pytest.param(*_values(case), marks=pytest.mark.campaign)
        for i, case in enumerate(cases)
    ]


def _values(case: Any) -> tuple:
    return case if type(case) is tuple else (case,)
