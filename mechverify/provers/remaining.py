"""How long a search that is cut into obligations will go on, told from those that were answered, and nothing else."""

from collections import deque
from collections.abc import Sequence

from mechverify.provers.base import Asks

LAST = 64  # obligations that are looked at
FEW = 16  # from how many on something is told
STEEP = 0.95  # further obligations that each leaves open: with more, no end is in sight


class Remaining:
    """A branching process: an obligation that is answered leaves r others open, on the average of the last ones; those
    leave r each; so `waiting` ones stand for waiting / (1 - r). That is right if what is open goes as what was answered
    last, and says too little where harder parts come later. `taken`: the seconds of each that was measured."""

    def __init__(self, taken: Sequence[float], workers: int):
        self.taken, self.workers = taken, workers
        self.children: deque[int] = deque(maxlen=LAST)

    @staticmethod
    def of(desk: Asks | None) -> "Remaining":
        """Without a desk, nothing is measured, and nothing told."""
        return (
            Remaining([], 1)
            if desk is None
            else Remaining(desk.taken, max(1, desk.workers))
        )

    def answered(self, children: int) -> None:
        """One more, which left so many others open."""
        self.children.append(children)

    def obligations(self, waiting: int) -> float | None:
        """How many are left; None as long as nothing can be told."""
        if len(self.children) < FEW:
            return None
        each = sum(self.children) / len(self.children)
        return None if each > STEEP else waiting / (1 - each)

    def seconds(self, waiting: int) -> float | None:
        some, many = self.taken[-LAST:], self.obligations(waiting)
        if many is None or len(some) < FEW:
            return None
        return many * sum(some) / len(some) / self.workers

    def words(self, waiting: int) -> str:
        left = self.seconds(waiting)
        if left is None:
            return ""
        about = f"{left:.0f} s" if left < 100 else f"{left / 60:.0f} min"
        return f", about {about} left"
