"""Hypothesis throws files at the kernel: bytes, mutated certificates, and documents from a grammar of the format.

    python -m benchmarks.fuzz SEED COUNT      # one process's share, as JSON

Whatever the file, `check` raises Rejected or NotACertificate or nothing, and never speaks of an internal error. Files
that break this are kept in the folder build/fuzz.
"""

import hashlib
import json
import re
import resource
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from mechverify.kernel import NotACertificate, Rejected, check
from mechverify.kernel.container import pack, unpack
from tests.models import as_bytes, max_weights, random_weights
from tests.soundness import forge

FOUND = Path(__file__).parent.parent / "build" / "fuzz"
ROUND = 2_500  # examples of one hypothesis run, which remembers all of them
ADDRESS_SPACE = 4 << 30

# --- models -----------------------------------------------------------------------------------------------------------


def models() -> list[tuple[bytes, int, int]]:
    """(weights file, vocabulary, positions) of tiny models of all kinds, some of them hostile."""
    rng = np.random.default_rng(0)
    made = []
    for vocab in (1, 2, 3):
        for length in (1, 2, 3):
            for scale in (1.0, 1e-20, 40.0):
                shape = dict(heads=int(rng.integers(1, 3)), layers=int(rng.integers(1, 3)))
                w = random_weights(rng, vocab=vocab, length=length, d=2, e=1, scale=scale, **(shape if scale > 1 else {}))
                made.append((w, vocab, length))
    made += [(max_weights(rng, vocab=3, length=n), 3, n) for n in (2, 3)]
    made += [({k: np.round(v) for k, v in made[-1][0].items()}, 3, 3)]
    for extreme in (1e300, 1e154, 5e-324, 1e-160, 2.0**60):
        w = {k: v.astype(np.float64) for k, v in random_weights(rng, vocab=2, length=2, d=1, e=1).items()}
        name = sorted(w)[int(rng.integers(len(w)))]
        made.append((w | {name: w[name] * extreme}, 2, 2))
        made.append(({k: v * extreme for k, v in w.items()}, 2, 2))
    w = made[0][0]
    made.append(({k: v.astype(np.float16) for k, v in w.items()}, 1, 1))
    made.append(({**w, "unembed.W_U": np.full_like(w["unembed.W_U"], np.nan)}, 1, 1))
    made.append(({**w, "unembed.W_U": w["unembed.W_U"][:, :0]}, 1, 1))
    files = [(as_bytes(w), vocab, length) for w, vocab, length in made]
    files += [(forge._lying_header(data, rng), vocab, length) for data, vocab, length in files[:24]]
    return files


# --- documents --------------------------------------------------------------------------------------------------------

MODELS = models()
SMALL = st.integers(-2, 4)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6)
    | st.sampled_from([2**62, -(2**63), 10**400, "1/2", "0", "fold", "real", "value"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=3), max_leaves=6,
)  # fmt: skip
ARITIES = {"sum": 0, "product": 0, "max": 0, "min": 0, "and": 0, "or": 0, "kth_largest": 0, "not": 1, "eq": 2, "lt": 2,
           "le": 2, "mod": 1, "floordiv": 1, "where": 3}  # fmt: skip


@st.composite
def mechanisms(draw, length: int) -> list:
    """Rows that are legal more often than not; truth values are found where they are needed."""
    rows: list = [["value", [], i] for i in range(length)]
    truths: list[int] = []
    for _ in range(draw(st.integers(0, 5))):
        op = draw(st.sampled_from(["integer", *ARITIES]))
        if op == "integer":
            rows.append([op, [], draw(st.integers(-3, 3) | st.sampled_from([2**61, -(2**62)]))])
            continue
        n = ARITIES[op] or draw(st.integers(1, 3))
        anything = st.integers(0, len(rows) - 1)
        boolean = st.sampled_from(truths) if truths else anything
        args = [draw(boolean if op in ("and", "or", "not") or (op == "where" and i == 0) else anything) for i in range(n)]
        attribute = {"kth_largest": n, "mod": draw(st.integers(1, 4)), "floordiv": draw(st.integers(1, 4))}.get(op)
        if op in ("and", "or", "not", "eq", "lt", "le"):
            truths.append(len(rows))
        rows.append([op, args, attribute])
    return rows


def proofs(vocab: int, length: int, ids: list[list[int]], keys: st.SearchStrategy) -> st.SearchStrategy:
    step = st.integers(-30, 8) | st.sampled_from([-1000, 1000, -1001, 0])
    group = st.tuples(step, st.lists(st.integers(0, vocab), min_size=1, max_size=vocab)).map(list)
    one = st.tuples(step, st.lists(st.integers(0, vocab), min_size=1, max_size=1)).map(list)
    label = st.lists(st.integers(-1, vocab), min_size=1, max_size=2)
    cell = st.tuples(st.integers(0, vocab - 1), label, st.none() | st.lists(group, max_size=2), st.none() | one).map(list)
    fold = st.fixed_dictionaries({
        "rule": st.just("fold"), "keys": st.just([]) | st.lists(keys, max_size=2),
        "only": st.none() | st.lists(label, max_size=3), "cells": st.just([]) | st.lists(cell, max_size=3),
    })  # fmt: skip
    row = st.tuples(*(st.sampled_from(here) for here in ids)).map(list) if all(ids) else st.just([0] * length)
    leaf = (
        st.just({"rule": "enumerate"}) | fold
        | st.fixed_dictionaries({"rule": st.just("counterexample"), "inputs": st.lists(row, max_size=3)})
    )  # fmt: skip
    return st.recursive(leaf, lambda inner: st.fixed_dictionaries({
        "rule": st.just("split"), "position": st.integers(0, length - 1), "first": st.lists(SMALL, max_size=2),
        "inside": inner, "outside": inner,
    }) | st.fixed_dictionaries({"rule": st.just("both"), "first": inner, "second": inner}), max_leaves=4)  # fmt: skip


@st.composite
def certificates(draw) -> bytes:
    """Files whose container and hash are right, and whose document mostly is."""
    data, vocab, context = draw(st.sampled_from(MODELS))
    length = draw(st.integers(1, context))
    token_set = st.lists(st.integers(0, vocab - 1), min_size=1, unique=True).map(sorted)
    ids = [draw(st.just(list(range(vocab))) | token_set) for _ in range(length)]
    semantics = draw(st.sampled_from(["real", "float32"]))
    size = int(np.prod([len(t) for t in ids]))
    doc: dict[str, Any] = forge.document(
        data, draw(proofs(vocab, length, ids, mechanisms(length))), equals=draw(mechanisms(length)), tokens=ids,
        values=draw(st.just(list(range(vocab))) | st.lists(SMALL, min_size=vocab, max_size=vocab)), vocab=vocab,
        length=length, position=draw(st.integers(0, length - 1)), semantics=semantics,
        right=(draw(st.sampled_from([0, 0, 0, 1, size])), draw(st.sampled_from([size, size, size, 0]))),
        verdict=draw(st.sampled_from(["BOUNDED", "BOUNDED", "PROVED", "REFUTED"])),
        at_least=draw(st.sampled_from([None, "0/1", "1/2", "1/1"])),
    )  # fmt: skip
    doc["claim"]["site"] = draw(st.sampled_from(["logits"] * 6 + ["blocks.0.resid_post", "embed", "blocks.0.attn.q"]))
    if draw(st.integers(0, 2)) == 0:
        path = draw(st.sampled_from(forge.places(doc)))
        forge._set(doc, path, draw(JSON | SMALL))
    return pack({"certificate.json": json.dumps(doc).encode(), "weights.safetensors": data})


def good_files() -> list[bytes]:
    from benchmarks.mutants import bases

    return [forge.file(doc, as_bytes(weights)) for doc, weights in bases().values()]


@st.composite
def damaged(draw, files: list[bytes], inside: bool) -> bytes:
    """A good certificate with bytes changed, cut out or put in: anywhere, or in its JSON, packed again."""
    file = draw(st.sampled_from(files))
    contents = unpack(file)
    text = bytearray(contents["certificate.json"] if inside else file)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, max(len(text) - 1, 0)))
        width = draw(st.integers(0, 8))
        text[at : at + width] = draw(st.binary(max_size=8) | st.sampled_from([b"", b"[", b"}", b'"', b"9" * 30, b"null"]))
    return pack({**contents, "certificate.json": bytes(text)}) if inside else bytes(text)


# --- the run ----------------------------------------------------------------------------------------------------------


def run(start: int, count: int) -> dict[str, Any]:
    files = good_files()
    shares = {"bytes": (st.binary(max_size=4_000), 0.04), "damaged file": (damaged(files, False), 0.08),
              "damaged JSON": (damaged(files, True), 0.18), "grammar": (certificates(), 0.70)}  # fmt: skip
    outcomes: dict[str, Counter] = {name: Counter() for name in shares}
    reasons, bad, slowest = Counter(), [], (0.0, "")

    def attack(kind: str, file: bytes) -> None:
        nonlocal slowest
        began = time.perf_counter()
        try:
            check(file)
            outcome = "accepted"
        except NotACertificate:
            outcome = "not a certificate"
        except Rejected as error:
            outcome = "rejected"
            reasons[re.sub(r"[^a-z ]+", "#", str(error))[:60]] += 1
            if "internal error" in str(error):
                bad.append(_kept(kind, file, str(error)))
        except BaseException as error:
            outcome = "raised"
            bad.append(_kept(kind, file, f"raised {type(error).__name__}: {error}"))
        outcomes[kind][outcome] += 1
        seconds = time.perf_counter() - began
        if seconds > slowest[0]:
            slowest = seconds, kind
            if seconds > 2:
                _kept(kind, file, f"{seconds:.1f} s")

    for kind, (strategy, share) in shares.items():
        left, number = round(share * count), 0
        while left > 0:
            options = settings(max_examples=min(ROUND, left), database=None, deadline=None, phases=[Phase.generate],
                               suppress_health_check=list(HealthCheck))  # fmt: skip
            before = outcomes[kind].total()

            def attempt(file: bytes) -> None:
                attack(kind, file)  # noqa: B023 (called before the loop goes on)

            seed(start * 10_000 + number)(options(given(strategy)(attempt)))()
            left, number = left - max(1, outcomes[kind].total() - before), number + 1
    peak = int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) // 1024
    return {"files": sum(c.total() for c in outcomes.values()), "outcomes": outcomes, "bad": bad, "slowest": slowest,
            "peak": peak, "reasons": reasons.most_common(40)}  # fmt: skip


def _kept(kind: str, file: bytes, what: str) -> str:
    FOUND.mkdir(parents=True, exist_ok=True)
    path = FOUND / f"{hashlib.sha256(file).hexdigest()[:12]}.cert"
    path.write_bytes(file)
    return f"{kind}: {what[:200]} ({path})"


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))
    print(json.dumps(run(int(sys.argv[1]), int(sys.argv[2]))))
