"""What the user says: token symbols, a model's sites, mechanisms in sympy, and claims."""

from mechverify.claims.claim import Accuracy
from mechverify.claims.domain import Tokens, tokens
from mechverify.claims.errors import ClaimError
from mechverify.claims.language import kth_largest
from mechverify.claims.model import Model, Site, transformer

__all__ = ["Accuracy", "ClaimError", "Model", "Site", "Tokens", "kth_largest", "tokens", "transformer"]
