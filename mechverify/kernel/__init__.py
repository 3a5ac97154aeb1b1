"""What has to be trusted: a small program that accepts or rejects a certificate.

It needs the standard library and numpy, and imports nothing from the rest of mechverify.
Read in this order: arithmetic, float64, exact, elementary, semantics, integers, operations, graph, architectures,
evaluate, automaton, ratio, recursion, claim, rules/, check.
"""

from mechverify.kernel.check import check
from mechverify.kernel.core.claim import Theorem
from mechverify.kernel.core.errors import NotACertificate, Rejected, Unsupported

__all__ = ["NotACertificate", "Rejected", "Theorem", "Unsupported", "check"]
