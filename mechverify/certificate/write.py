"""Write certificates: the inverse of what mechverify.kernel.check reads. Deterministic to the byte."""

import hashlib
import json
from typing import Any

from mechverify.claims.claim import Accuracy
from mechverify.kernel import container
from mechverify.kernel.check import FORMAT, VERSION
from mechverify.kernel.claim import Bounds
from mechverify.kernel.semantics import SEMANTICS

Proof = dict[str, Any]


def claim_document(claim: Accuracy, semantics: str) -> dict[str, Any]:
    """The claim as data."""
    model, share = claim.output.model, claim.at_least
    return {
        "kind": "accuracy",
        "semantics": semantics,
        "architecture": model.architecture,
        "weights_sha256": hashlib.sha256(model.data).hexdigest(),
        "domain": {"tokens": [list(ids) for ids in claim.over.allowed], "values": list(claim.over.values)},
        "site": claim.output.name,
        "position": claim.position,
        "equals": claim.rows,
        "at_least": None if share is None else f"{share.numerator}/{share.denominator}",
    }


def write(claim: dict[str, Any], weights: bytes, proof: Proof, verdict: str, right: Bounds) -> bytes:
    """The certificate file that concludes `verdict` and `right` from `proof`."""
    document = {
        "format": FORMAT,
        "version": VERSION,
        "claim": claim,
        "conclusion": {"verdict": verdict, "right_at_least": str(right.low), "right_at_most": str(right.high)},
        "axioms": ["ieee754", *SEMANTICS[claim["semantics"]].axioms],
        "proof": proof,
    }
    text = json.dumps(document, separators=(",", ":"), sort_keys=True)
    return container.pack({"certificate.json": text.encode(), "weights.safetensors": weights})
