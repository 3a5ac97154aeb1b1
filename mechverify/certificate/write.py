"""Write certificates: the inverse of what mechverify.kernel.check reads. Deterministic to the byte."""

import hashlib
import json
from fractions import Fraction
from typing import Any

import numpy as np

from mechverify.claims.accuracy import Accuracy
from mechverify.claims.bounds import Bounds
from mechverify.claims.box import Box
from mechverify.claims.domain import Tokens
from mechverify.claims.errors import ClaimError
from mechverify.claims.model import CapturedModel
from mechverify.claims.share import Share
from mechverify.graph.float32 import Programs
from mechverify.kernel.check import FORMAT, VERSION
from mechverify.kernel.core import container
from mechverify.kernel.core.counts import Counts
from mechverify.kernel.core.document import PROGRAMS
from mechverify.kernel.core.graph import Graph
from mechverify.kernel.core.ranges import Range
from mechverify.kernel.core.semantics import SEMANTICS

Proof = dict[str, Any]


def claim_document(claim: Accuracy | Bounds | Share, semantics: str) -> dict[str, Any]:
    """The claim as data."""
    model = claim.output.model
    common = {
        "semantics": semantics,
        "architecture": model.architecture,
        "weights_sha256": hashlib.sha256(model.data).hexdigest(),
        "site": claim.output.name,
        "position": claim.position,
    }
    if isinstance(claim, Share):
        return common | {
            "kind": "share", "graph": graph_document(claim.output.captured, semantics),
            "strict": claim.strict, **_counted(claim),
        }  # fmt: skip
    if isinstance(claim, Accuracy):
        margin = (
            {}
            if not claim.margin
            else {"margin": f"{claim.margin.numerator}/{claim.margin.denominator}"}
        )
        graph = {}
        if isinstance(model, CapturedModel):
            graph = {"graph": graph_document(model)}
        return common | margin | graph | {
            "kind": "accuracy", "equals": claim.rows, **_counted(claim),
        }  # fmt: skip
    return (
        common
        | _union(claim.over)
        | {
            "kind": "bounds",
            "domain": _mixed(claim.over),
            "graph": graph_document(claim.output.captured, semantics),
            "where": list(claim.given),
            "cases": list(claim.cases),
            "at_least": thresholds(claim.at_least),
            "at_most": thresholds(claim.at_most),
        }
    )


def _mixed(box: Box) -> dict[str, Any]:
    """A domain of real inputs, and tokens, if there are any."""
    tokens = box.tokens
    return {
        "tokens": [] if tokens is None else [list(ids) for ids in tokens.allowed],
        "values": [] if tokens is None else list(tokens.values),
        "inputs": [
            [list(a.shape), hexadecimal(a), hexadecimal(b)]
            for a, b in zip(box.low, box.high, strict=True)
        ],
    }


def _counted(claim: Accuracy | Share) -> dict[str, Any]:
    """What every claim that counts says."""
    domain, at_least = (
        claim.over,
        None if claim.at_least is None else _ratio(claim.at_least),
    )
    given = {"given": claim.given} if claim.given else {}
    if isinstance(domain, Tokens):
        tokens = {
            "tokens": [list(ids) for ids in domain.allowed],
            "values": list(domain.values),
        }
        return given | {"domain": tokens, "at_least": at_least}
    each = domain.distribution or (None,) * sum(a.size for a in domain.low)
    measure = [
        None if d is None else [_ratio(d.mean), _ratio(d.deviation)] for d in each
    ]
    return (
        given
        | _union(domain)
        | {"domain": _mixed(domain), "measure": measure, "at_least": at_least}
    )


def _union(box: Box) -> dict[str, Any]:
    """The boxes of a union, which the domain's real inputs are around."""
    pairs = zip(*box.corners, strict=True)
    return (
        {"union": [[hexadecimal(a), hexadecimal(b)] for a, b in pairs]}
        if box.boxes
        else {}
    )


def _ratio(value: Fraction) -> str:
    return f"{value.numerator}/{value.denominator}"


def graph_document(model: CapturedModel, semantics: str = "real") -> dict[str, Any]:
    """A captured graph as data. Raises ClaimError where nothing is known of the module's float32 programs."""
    captured = model.captured
    compared = captured.compared
    done = {} if compared is None else {
        "compared": {
            "dtype": compared.dtype, "inputs": compared.inputs,
            "difference": compared.difference.hex(), "tolerance": compared.tolerance.hex(),
        }
    }  # fmt: skip
    same = [*range(len(captured.graph.nodes))]
    if semantics == "float32":
        done["module"] = _programs(captured.programs)
    else:
        same = _without_copies(captured.graph)
    return done | {
        "nodes": [[n.op, [same[a] for a in n.args], _attribute(n.op, n.attr)] for n in captured.graph.nodes],
        "sites": [[name, same[node]] for name, node in captured.sites.items()],
        "replayed": {
            "module": model.stated, "inputs": captured.replayed, "difference": float(captured.difference).hex(),
        },
    }  # fmt: skip


def _without_copies(graph: Graph) -> list[int]:
    """Of each node, the one that it is over the reals: a product with 1, which programs may flush, is its operand."""
    ones: set[int] = set()
    same: list[int] = []
    for n, node in enumerate(graph.nodes):
        if node.op == "constant" and {*node.attr[1]} == {1.0}:
            ones.add(n)
        if node.op == "view" and node.args[0] in ones:
            ones.add(n)
        others = [a for a in node.args if a not in ones] if node.op == "mul" else []
        alike = len(others) == 1 and graph.nodes[others[0]].shape == node.shape
        same.append(same[others[0]] if alike else n)
    return same


def _programs(programs: Programs | None) -> dict[str, Any]:
    """Which rows a float32 program of the module computes."""
    if programs is None or programs.missing is not None:
        why = (
            "the claim is about no module"
            if programs is None
            else f"the module uses {programs.missing}"
        )
        raise ClaimError(f"--semantics float32: {why}; use --semantics real")
    fused = {"fused": [list(part) for part in programs.fused]} if programs.fused else {}
    return {"rows": programs.rows, "norms": list(programs.norms), **fused}


def _attribute(op: str, attr: Any) -> Any:
    if op == "constant":
        return [list(attr[0]), [float(v).hex() for v in attr[1]]]
    if isinstance(attr, tuple):
        return [_attribute("", v) for v in attr]
    return attr


def hexadecimal(a: Any) -> list[str]:
    return [float(v).hex() for v in np.ravel(a)]


def thresholds(values: list[Fraction] | None) -> list[str] | None:
    return (
        None if values is None else [f"{v.numerator}/{v.denominator}" for v in values]
    )


def write(
    claim: dict[str, Any],
    weights: bytes,
    proof: Proof,
    verdict: str,
    stated: Counts | Range,
) -> bytes:
    """The certificate file that concludes `verdict` and what is stated from `proof`. What its check costs is not known:
    see `announcing`."""
    captured = ["capture"] if claim["architecture"] == "captured" else []
    solver = ["solver:z3"] if _uses(proof, "solver") else []
    document = {
        "format": FORMAT,
        "version": VERSION,
        "cost": None,
        "claim": claim,
        "conclusion": {"verdict": verdict, **_conclusion(stated)},
        "axioms": [
            "ieee754",
            *captured,
            *SEMANTICS[claim["semantics"]].axioms,
            *(PROGRAMS.get(claim["semantics"], ()) if captured else ()),
            *solver,
        ],
        "proof": proof,
    }
    return _packed(document, weights)


def announcing(certificate: bytes, work: int) -> bytes:
    """The same certificate, saying how many units of work its check takes: as many as a check of it counted."""
    contents = container.unpack(certificate)
    document = json.loads(contents["certificate.json"]) | {"cost": str(work)}
    return _packed(document, contents["weights.safetensors"])


def _packed(document: dict[str, Any], weights: bytes) -> bytes:
    text = json.dumps(document, separators=(",", ":"), sort_keys=True)
    return container.pack(
        {"certificate.json": text.encode(), "weights.safetensors": weights}
    )


def _uses(proof: Proof, rule: str) -> bool:
    stack = [proof]
    while stack:
        node = stack.pop()
        if isinstance(node, dict):
            if node.get("rule") == rule:
                return True
            stack += [v for v in node.values() if isinstance(v, dict | list)]
        elif node and isinstance(
            node[0], dict
        ):  # lemmas; lists of numbers hold no proofs
            stack += node
    return False


def _conclusion(stated: Counts | Range) -> dict[str, Any]:
    if isinstance(stated, Counts):
        return {"right_at_least": str(stated.low), "right_at_most": str(stated.high)}
    low, high = (
        [v.hex() if np.isfinite(v) else None for v in end.tolist()] for end in stated
    )
    return {"low": low, "high": high}
