"""The halves of a split: together they are their part, whatever the file says.

Lemmas C6 (docs/soundness/core.md), L14 (docs/soundness/relaxation.md).
"""

from mechverify.kernel.core.arithmetic import Arithmetic
from mechverify.kernel.core.domain import Domain
from mechverify.kernel.core.errors import Rejected
from mechverify.kernel.core.fields import Reader


def by_token(ar: Arithmetic, part: Domain, node: Reader) -> tuple[Domain, Domain]:
    """The halves of a split whose token at `position` is in `first`, or not; neither is empty."""
    position = node["position"].an_integer(0, part.length - 1)
    ar.spend(20 * len(part.tokens[position]) + 100 * part.length)
    halves = part.split(position, set(node["first"].integers()))
    if not halves[0].size or not halves[1].size:
        raise Rejected("a split leaves one half empty")
    return halves


def by_coordinate(ar: Arithmetic, part: Domain, node: Reader) -> tuple[Domain, Domain]:
    """The halves of a split whose `coordinate` is up to `at`, and from there on."""
    coordinate = node["coordinate"].an_integer(0, len(part.low) - 1)
    at = node["at"].float64()
    ar.spend(10 * len(part.low))
    if not part.low[coordinate] <= at <= part.high[coordinate]:
        raise Rejected(f"coordinate {coordinate} is cut outside its interval")
    return part.cut(coordinate, at)
