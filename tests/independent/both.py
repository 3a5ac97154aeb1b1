"""What the kernel and a second checker say of one file."""

import re
from collections.abc import Callable
from typing import Any

from mechverify.kernel import NotACertificate, Rejected, check
from tests.independent import checker
from tests.independent.bounds import NotConfirmed


class Both:
    """`second`: the other checker. `ours`: for what the kernel may refuse a file that the second one confirms."""

    def __init__(self, second: Callable[[bytes], Any], ours: str):
        self.second, self.ours = second, ours

    def mine(self, data: bytes) -> str:
        try:
            self.second(data)
        except checker.Rejected:
            return "rejected"
        except NotConfirmed:
            return "open"
        return "confirmed"

    def kernels(self, data: bytes) -> str:
        """Empty if it accepts, or else why not."""
        try:
            check(data)
        except (Rejected, NotACertificate) as error:
            return str(error) or "no reason"
        return ""

    def agree(self, data: bytes) -> tuple[str, bool]:
        """What both say; fails if one accepts what the other surely refuses."""
        here, there = self.mine(data), self.kernels(data)
        assert not (here == "rejected" and not there), "only the kernel accepts"
        refused = there and not re.search(self.ours, there)
        assert not (here == "confirmed" and refused), f"only the second accepts: {there}"
        return here, not there
