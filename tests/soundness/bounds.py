"""Good certificates of bounds, one for each kind of proof, and a judge of others: is what an accepted file says true?

The judge reads the file with the second checker (tests/independent/bounds.py) and evaluates its graph with
tests/soundness/networks.py: at corners, on faces, inside, and at every listed point; python-flint decides where float64
comes close.
"""

import io
import json
import zipfile
from fractions import Fraction
from functools import cache
from typing import Any

import numpy as np
from flint import arb

from mechverify.kernel import check
from mechverify.kernel.core.claim import Job
from mechverify.kernel.core.fields import Reader
from mechverify.kernel.core.float64 import Float64
from mechverify.kernel.core.kinds import read_claim
from mechverify.kernel.proof import prove
from tests.independent import bounds
from tests.soundness import forge, networks
from tests.soundness.networks import Network, constant, given, hexadecimal

SAMPLES, CLOSE = 240, 1e-7
LINEAR = {"rule": "relaxation", "lines": None}


# --- good certificates ------------------------------------------------------------------------------------------------


def dense(rows: list, width: int, count: int, name: str, weights: dict, rng: np.random.Generator) -> None:
    """W x + b for the last row, x [count]."""
    weights |= {f"{name}.W": rng.normal(size=(width, count)), f"{name}.b": rng.normal(size=width)}
    n = len(rows)
    rows += [["weight", [], [f"{name}.W", [width, count]]], ["einsum", [n, n - 1], "ab,b->a"],
             ["weight", [], [f"{name}.b", [width]]], ["add", [n + 1, n + 2], None]]  # fmt: skip


def perceptron(function: str) -> Network:
    rng, rows, weights = np.random.default_rng(5), [given(2)], {}
    dense(rows, 4, 2, "first", weights, rng)
    rows.append([function, [len(rows) - 1], None])
    dense(rows, 2, 4, "second", weights, rng)
    return Network(rows, weights, [(np.array([-0.5, 0.0]), np.array([0.5, 1.0]))], [], 0)


def attention() -> Network:
    """Three tokens, a causal head with scores up to 2, each token moved a little."""
    rng = np.random.default_rng(6)
    rows = [["tokens", [], None], ["weight", [], ["e", [4, 2]]], ["gather", [1, 0], None], given(3, 2), ["add", [2, 3], None],
            ["einsum", [4, 4], "id,jd->ij"], ["over_root", [5], 2], ["softmax", [6], "causal"],
            ["einsum", [7, 4], "ij,jd->id"], ["view", [8], [[3, 2], 1, [2, -1]]], ["concat", [8, 9], 1]]  # fmt: skip
    box = np.full((3, 2), 0.05)
    return Network(rows, {"e": rng.normal(size=(4, 2))}, [(-box, box)], [[0, 1, 2, 3], [1, 3], [0, 2]], 4)


def normalised() -> Network:
    """Layer norm of three numbers, then their product with the input."""
    mean = np.eye(3) - np.full((3, 3), 1 / 3)
    rows = [given(3), constant(mean), ["einsum", [1, 0], "ab,b->a"], ["power", [2], 2], constant(np.full(3, 1 / 3)),
            ["einsum", [3, 4], "a,a->"], constant(1e-5), ["add", [5, 6], None], ["rsqrt", [7], None], ["mul", [2, 8], None],
            ["mul", [9, 0], None], ["abs", [10], None], ["softplus", [11], None]]  # fmt: skip
    return Network(rows, {}, [(np.array([0.5, -0.5, 0.0]), np.array([1.0, 0.0, 0.75]))], [], 0)


def cut(coordinate: int, at: float, inside: dict, outside: dict) -> dict:
    return {"rule": "split", "coordinate": coordinate, "at": at.hex(), "inside": inside, "outside": outside}


def by_token(position: int, first: list[int], inside: dict, outside: dict) -> dict:
    return {"rule": "split", "position": position, "first": first, "inside": inside, "outside": outside}


def point(*rows: tuple[list[int], Any]) -> dict:
    return {"rule": "point", "inputs": [[ids, hexadecimal(x)] for ids, x in rows]}


def both(first: dict, second: dict) -> dict:
    return {"rule": "both", "first": first, "second": second}


@cache
def bases() -> dict[str, tuple[dict, dict]]:
    """name -> (document, weights): with the range that the proof gives, and thresholds there."""
    from tests.soundness.test_linear import curved, listed

    relu, tanh, tokens, norm, planes = perceptron("relu"), perceptron("tanh"), attention(), normalised(), curved()
    lines = {"rule": "relaxation", "lines": listed(planes, np.random.default_rng(1), 0.5)}
    made = {
        "relu, split": (relu, cut(0, 0.0, LINEAR, cut(1, 0.5, LINEAR, LINEAR)), "PROVED"),
        "tanh, refuted": (tanh, both(cut(1, 0.25, LINEAR, LINEAR), point(([], [0.5, 1.0]), ([], [-0.5, 0.0]))), "REFUTED"),
        "attention, split tokens": (tokens, by_token(0, [0, 3], LINEAR, by_token(1, [1], LINEAR, LINEAR)), "PROVED"),
        "attention, point and cut": (tokens, both(cut(2, 0.0, LINEAR, LINEAR), point(([3, 1, 2], np.zeros(6)))), "BOUNDED"),
        "layer norm": (norm, both(LINEAR, cut(2, 0.5, LINEAR, LINEAR)), "BOUNDED"),
        "planes and lines": (planes, both(lines, LINEAR), "PROVED"),
    }  # fmt: skip
    return {name: (_stated(*case), case[0].weights or {"unused": np.zeros(1)}) for name, case in made.items()}


def restated(doc: dict, data: bytes) -> dict:
    """With the range that the kernel proves, if it proves one."""
    try:
        with np.errstate(all="ignore"):
            job = Job(read_claim(Reader(doc["claim"], "claim"), data), Float64())
            proved, _ = prove(job, Reader(doc["proof"], "proof"))
    except Exception:  # whatever is wrong, `check` is to say it
        return doc
    low, high = ([float(v).hex() if np.isfinite(v) else None for v in end] for end in proved)
    return doc | {"conclusion": doc["conclusion"] | {"low": low, "high": high}}


def _stated(net: Network, proof: dict, verdict: str) -> dict:
    doc, data = networks.document(net, proof, verdict=verdict)
    doc = restated(doc, data)
    if verdict == "PROVED":
        doc["claim"] |= {"at_least": doc["conclusion"]["low"], "at_most": doc["conclusion"]["high"]}
    if verdict == "REFUTED":
        doc["claim"]["at_most"] = "1/4"
    check(networks.file(doc, data))
    return doc


# --- the judge --------------------------------------------------------------------------------------------------------


def is_true(file: bytes, rng: np.random.Generator) -> bool:
    """No sample contradicts the file's conclusion, and what it concludes follows from what it states."""
    with zipfile.ZipFile(io.BytesIO(file)) as members:
        doc, data = json.loads(members.read("certificate.json")), members.read("weights.safetensors")
    claim, conclusion, n = bounds.Claim(doc["claim"], data), doc["conclusion"], len(doc["conclusion"]["low"])
    least, most = (t or [None] * n for t in (claim.least, claim.most))
    low, high = ([v and bounds.a_float(v) for v in conclusion[end]] for end in ("low", "high"))
    listed = [row for node in forge.nodes(doc["proof"]) if node["rule"] == "point" for row in node["inputs"]]
    net = Network([], {}, _boxes(doc), claim.domain.tokens, 0)
    tokens, inputs = networks.samples(net, SAMPLES, rng)
    tokens = np.concatenate(
        [tokens, np.array([ids for ids, _ in listed], np.int64).reshape(len(listed), tokens.shape[1])]
    )
    numbers = np.array([[float(bounds.a_float(v)) for v in x] for _, x in listed]).reshape(
        len(listed), len(claim.domain.low)
    )
    start = 0
    for i, (a, _) in enumerate(net.inputs):
        inputs[i] = np.concatenate([inputs[i], numbers[:, start : start + a.size].reshape(-1, *a.shape)])
        start += a.size
    values = _values(claim, tokens, inputs, exact=False)
    slack = CLOSE * np.maximum(1, np.abs(values))
    ends = [
        np.array([nothing if v is None else float(v) for v in end]) for end, nothing in ((low, -np.inf), (high, np.inf))
    ]
    safe = (values - slack >= ends[0]) & (values + slack <= ends[1])  # a NaN is not
    chosen = [0, *np.flatnonzero(~safe.all(1))[:12], *range(SAMPLES, len(tokens))]
    exact = _values(claim, tokens[chosen], [x[chosen] for x in inputs], exact=True)
    if not all(_between(low, row, high) for row in exact):
        return False
    if conclusion["verdict"] == "BOUNDED":
        return True
    if conclusion["verdict"] == "REFUTED":
        return not all(_between(least, row, most) for row in exact[len(exact) - len(listed) :])
    reached = all(t is None or (v is not None and v >= t) for v, t in zip(low, least, strict=True))
    reached = reached and all(t is None or (v is not None and v <= t) for v, t in zip(high, most, strict=True))
    return reached and any(t is not None for t in [*least, *most])


def _boxes(doc: dict) -> list[tuple[np.ndarray, np.ndarray]]:
    return [tuple(np.array([float(bounds.a_float(v)) for v in end]).reshape(shape) for end in corners)
            for shape, *corners in doc["claim"]["domain"]["inputs"]]  # fmt: skip


def _values(claim: bounds.Claim, tokens: np.ndarray, inputs: list, exact: bool) -> np.ndarray:
    """The output [samples, entries]."""
    weights = {name: np.array(list(map(float, v))).reshape(shape) for name, (shape, v) in claim.tensors.items()}
    with np.errstate(all="ignore"):
        found = networks.evaluate(claim.graph, weights, [claim.output], tokens, inputs, exact=exact)[claim.output]
    found = found if claim.position is None else found[:, claim.position]
    return found.reshape(len(tokens), -1)


def _between(low: list, values: Any, high: list) -> bool:
    """None of the values is surely outside, or undefined."""
    return all(v.is_finite() and not (a is not None and v < _arb(a)) and not (b is not None and v > _arb(b))
               for a, v, b in zip(low, values, high, strict=True))  # fmt: skip


def _arb(x: Fraction) -> arb:
    return arb(x.numerator) / x.denominator
