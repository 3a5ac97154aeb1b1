"""How a proof is found. Nothing here is trusted: what counts is what the kernel accepts."""

from mechverify.provers.chain import Outcome, prove

__all__ = ["Outcome", "prove"]
