"""What the user says: token symbols, a model's sites, mechanisms in sympy, and claims."""

from mechverify.claims.accuracy import Accuracy
from mechverify.claims.agreement import Equivariant, Same, differ
from mechverify.claims.bounds import Bounds, Cases, Holds, Within
from mechverify.claims.box import Box, ball, box, normal, uniform
from mechverify.claims.circuits import Circuits, interchanged, parts
from mechverify.claims.domain import Tokens, tokens
from mechverify.claims.errors import ClaimError
from mechverify.claims.language import Mod, count, distinct, dyck, kth_largest, lookup
from mechverify.claims.model import (
    CapturedModel,
    Entry,
    Model,
    Site,
    capture,
    pair_mlp,
    transformer,
)
from mechverify.claims.share import Share
from mechverify.claims.transformers import load
from mechverify.claims.unions import union
from mechverify.graph.interventions import Part

__all__ = [
    "Accuracy", "Bounds", "Box", "CapturedModel", "Cases", "Circuits", "ClaimError", "Entry", "Equivariant", "Holds",
    "Mod", "Model", "Part", "Same", "Share", "Site", "Tokens", "Within", "ball", "box", "capture", "count", "differ",
    "distinct", "dyck", "interchanged", "kth_largest", "load", "lookup", "normal", "pair_mlp", "parts", "tokens",
    "transformer", "uniform", "union",
]  # fmt: skip
