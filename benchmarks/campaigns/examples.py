"""Examples of an issue: what was seen before, and what is seen now."""

from collections.abc import Callable
from typing import NamedTuple


class Example(NamedTuple):
    what: str
    before: str
    after: str
    run: Callable[[], str]
