"""The kinds of claims by the names that certificates have for them; one is loaded when a claim is of it."""

from collections.abc import Callable

from mechverify.kernel.core.claim import Claim
from mechverify.kernel.core.fields import Reader
from mechverify.kernel.core.loading import Rows
from mechverify.kernel.core.meter import Meter

GROUPS = {"accuracy": ("accuracy",), "share": ("share",), "ranges": ("bounds",)}
KINDS: Rows[Callable[[Reader, bytes, Meter | None], Claim]] = Rows("core", GROUPS)


def read_claim(entry: Reader, weights: bytes, meter: Meter | None = None) -> Claim:
    """What a certificate states about the weights (a safetensors file); rejects what isn't a claim."""
    return KINDS[entry["kind"].one_of(KINDS)](entry, weights, meter)
