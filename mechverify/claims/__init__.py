"""What the user says: token symbols, a model's sites, mechanisms in sympy, and claims."""

from mechverify.claims.box import Box, ball, box
from mechverify.claims.claim import Accuracy, Bounds
from mechverify.claims.domain import Tokens, tokens
from mechverify.claims.errors import ClaimError
from mechverify.claims.language import kth_largest
from mechverify.claims.model import CapturedModel, Model, Site, capture, transformer

__all__ = [
    "Accuracy", "Bounds", "Box", "CapturedModel", "ClaimError", "Model", "Site", "Tokens", "ball", "box", "capture",
    "kth_largest", "tokens", "transformer",
]  # fmt: skip
