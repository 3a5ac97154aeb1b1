"""The kinds of claims by the names that certificates have for them; one is loaded when a claim is of it."""

from importlib import import_module

from mechverify.kernel.core.claim import Claim
from mechverify.kernel.core.fields import Reader
from mechverify.kernel.core.meter import Meter

KINDS = {  # module, class
    "accuracy": ("accuracy", "AccuracyClaim"), "share": ("share", "ShareClaim"), "bounds": ("ranges", "RangeClaim"),
}  # fmt: skip


def read_claim(entry: Reader, weights: bytes, meter: Meter | None = None) -> Claim:
    """What a certificate states about the weights (a safetensors file); rejects what isn't a claim."""
    module, kind = KINDS[entry["kind"].one_of(KINDS)]
    return getattr(import_module(f"mechverify.kernel.core.{module}"), kind).read(
        entry, weights, meter
    )
