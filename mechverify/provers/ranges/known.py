"""What is known of a range while it is searched for."""

from dataclasses import dataclass, field

import numpy as np

from mechverify.certificate.write import Proof
from mechverify.kernel.core.ranges import Range
from mechverify.provers.ranges.inputs import Inputs
from mechverify.relax.optimise import Slopes


@dataclass
class Found:
    """A proof (None: nothing proved), the range that it should give, whether a point in it breaks a threshold, and what
    stood in the way of more. `derived`: the kernel found the range, to the last bit, as no leaf was relaxed beside
    others."""

    proof: Proof | None
    range: Range
    broken: bool
    reasons: list[str]
    derived: bool = False

    def beside(self, proof: Proof, range_: Range) -> "Found":
        """Both proofs, or the new one alone if it is as good in every entry. The new one's leaves have lines of their
        own, so that the kernel relaxed each by itself."""
        if not (
            (self.range.low > range_.low).any() or (self.range.high < range_.high).any()
        ):
            return Found(proof, range_, False, self.reasons, True)
        both = {"rule": "both", "first": self.proof, "second": proof}
        return Found(both, meet(self.range, range_), False, self.reasons, self.derived)


@dataclass
class Known:
    """What a prover of ranges has before it: how far to go (`method`, one of base.METHODS), the `slopes` to try,
    whether a range is sought case by case where the claim has a case split, the inputs that were `seen`, what was
    `found` so far, and `kept`, what the whole domain's relaxation gave, whatever became of the rest."""

    found: Found
    method: str = "branching"
    slopes: Slopes = field(default_factory=dict)
    cases: bool = True
    reached: bool = True  # whether a proof says what inputs reach as well
    exact: bool = False  # whether no range is narrower than what was found
    best: Inputs | None = (
        None  # where gradient steps from them ended, once they have looked for a broken threshold
    )
    seen: Inputs = field(default_factory=Inputs.none)
    kept: Found | None = None
    seconds: float = 0.0  # that the whole domain's relaxation took


def unite(ranges: list[Range]) -> Range:
    """Of parts: bounds of all of them together."""
    return Range(
        np.min([r.low for r in ranges], 0), np.max([r.high for r in ranges], 0)
    )


def meet(a: Range, b: Range) -> Range:
    """Of one part: the better bound of each entry."""
    return Range(np.maximum(a.low, b.low), np.minimum(a.high, b.high))
