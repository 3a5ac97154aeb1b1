"""What has to be trusted: a small program that accepts or rejects a certificate.

It needs the standard library and numpy, and imports nothing from the rest of mechverify.
Read in this order: core/ (arithmetic, float64, series, integers, operations, graph, evaluate, semantics, domain,
claim, accuracy, ranges), proof, check; then the families whose rules you need, by rules.py, and of core/ what only
some theorems need (rows of operations and functions, document, mechanism, buffers, elementary, float32, exact).
"""

from mechverify.kernel.check import check
from mechverify.kernel.core.claim import Theorem
from mechverify.kernel.core.errors import NotACertificate, Rejected, Unsupported

__all__ = ["NotACertificate", "Rejected", "Theorem", "Unsupported", "check"]
