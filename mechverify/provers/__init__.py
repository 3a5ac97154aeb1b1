"""How a proof is found. Nothing here is trusted: what counts is what the kernel accepts."""

from mechverify.provers.chain import prove
from mechverify.provers.circuits import Smallest, smallest
from mechverify.provers.confirm import Outcome

__all__ = ["Outcome", "Smallest", "prove", "smallest"]
