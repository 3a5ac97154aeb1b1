"""The kinds of claims by the names that certificates have for them."""

from mechverify.kernel.core.accuracy import AccuracyClaim
from mechverify.kernel.core.claim import Claim
from mechverify.kernel.core.fields import Reader
from mechverify.kernel.core.meter import Meter
from mechverify.kernel.core.ranges import RangeClaim

KINDS: dict[str, type[AccuracyClaim] | type[RangeClaim]] = {c.kind: c for c in (AccuracyClaim, RangeClaim)}


def read_claim(entry: Reader, weights: bytes, meter: Meter | None = None) -> Claim:
    """What a certificate states about the weights (a safetensors file); rejects what isn't a claim."""
    return KINDS[entry["kind"].one_of(KINDS)].read(entry, weights, meter)
