"""The one gate for work and memory: what a file makes the kernel do, or hold, is asked for here before it is done.

Work is counted in units of about a nanosecond or two, the same on every machine; a certificate announces how many its
check takes (docs/certificate.md, "Cost"). Memory is bounded by the numbers that one value may have.

Lemma C11 (docs/soundness/core.md).
"""

import math
from collections.abc import Callable

from mechverify.kernel.core.errors import OverLimit, Unsupported

ROOM = 2**22  # numbers that one value may have
GLANCE = 2e7  # units of work between two calls of `watch`: a few hundredths of a second
CALL = 4_000  # units of work that a call costs by itself

Watch = Callable[
    [int, float], None
]  # units of work done, and allowed; may raise Stopped


class Meter:
    """`ops` counts scalar operations on numbers that stand for reals, and on counts: the length of a proof. `work` adds
    the mechanism's own steps, which no model changes, reading the file, and what a call costs by itself; it is what
    `limit` bounds, so that a small file can't keep the kernel busy for longer than it says. Every now and then `watch`
    is told how far the work has come, and may end it."""

    def __init__(self, limit: float = math.inf, watch: Watch | None = None):
        self.ops, self.work, self.limit, self.watch = 0, 0, limit, watch
        self._glance = min(limit, GLANCE)

    def spend(self, ops: int, calls: int = 1, cost: int = 10) -> None:
        """`cost`: units of work for each of `ops`; 10 for an operation on balls."""
        self.ops += ops
        self.work += cost * ops + CALL * calls
        if self.work > self._glance:
            self.look()

    def step(self, steps: int, calls: int, cost: int = 10) -> None:
        """Work that is no operation on numbers of the model: reading the file, and tokens into the mechanism's
        states."""
        self.work += cost * steps
        self.spend(0, calls)

    def look(self) -> None:
        if self.work > self.limit:
            said = f"it takes more than {self.limit:.3g} units of work"
            raise OverLimit(
                f"{said}. What was checked until here is in order; --limit allows more"
            )
        if self.watch is not None:
            self.watch(self.work, self.limit)
        self._glance = min(self.limit, self.work + GLANCE)


def reserve(*sizes: int) -> None:
    """Refuse an array before it is made."""
    if math.prod(sizes) > ROOM:
        raise Unsupported(
            f"a value needs {math.prod(sizes)} numbers (limit {ROOM}): model or vocabulary too large"
        )
