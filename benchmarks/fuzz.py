"""Hypothesis throws files at the kernel: bytes, mutated certificates, and documents from a grammar of the format.

    python -m benchmarks.fuzz SEED COUNT      # one process's share, as JSON

Whatever the file, `check` raises Rejected or NotACertificate or nothing, and never speaks of an internal error; it
takes no more work, time and memory than the file announces, and than a machine has; and no line that is printed of an
accepted file is false. Files that break this are kept in the folder build/fuzz.
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

from mechverify.kernel import NotACertificate, Rejected, Theorem, check
from mechverify.kernel.check import VERSION
from mechverify.kernel.core.container import pack, unpack
from mechverify.report.result import as_json
from mechverify.report.statement import lines as printed_lines
from tests.independent import bounds, checker
from tests.models import as_bytes, max_weights, random_weights
from tests.soundness import forge, networks
from tests.soundness.networks import Maker

FOUND = Path(__file__).parent.parent / "build" / "fuzz"
ROUND = 2_500  # examples of one hypothesis run, which remembers all of them
ADDRESS_SPACE = 4 << 30
LIMIT = 2e8  # units of work
MEGABYTES = 512  # of memory above what the process holds beforehand
EACH, PER_UNIT = 2.0, 2e-8  # seconds of a file, whatever it announces; of a unit of work: ten times what it takes

# --- models -----------------------------------------------------------------------------------------------------------


def models() -> list[tuple[bytes, int, int]]:
    """(weights file, vocabulary, positions) of tiny models of all kinds, some of them hostile."""
    rng = np.random.default_rng(0)
    made: list = []
    for vocab in (1, 2, 3):
        for length in (1, 2, 3):
            for scale in (1.0, 1e-20, 40.0):
                shape = {"heads": int(rng.integers(1, 3)), "layers": int(rng.integers(1, 3))}
                w = random_weights(
                    rng, vocab=vocab, length=length, d=2, e=1, scale=scale, **(shape if scale > 1 else {})
                )
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
    return files


# --- documents --------------------------------------------------------------------------------------------------------


class Tape:
    """Choices read off bytes that hypothesis made: one draw an example, and a hundred decisions."""

    def __init__(self, data: bytes):
        self.data, self.at = data, 0

    def below(self, n: int) -> int:
        self.at += 1
        return self.data[self.at % len(self.data)] % n

    def pick(self, options: list) -> Any:
        return options[self.below(len(options))]

    def some(self, options: list, least: int = 0) -> list:
        chosen = [o for o in options if self.below(2)]
        return chosen if len(chosen) >= least else options[:least]


MODELS = models()
LIARS = [(forge.lying_header(data, np.random.default_rng(i)), *rest) for i, (data, *rest) in enumerate(MODELS)]
NUMBERS = [0, 1, 2, 3, -1, 4, 2**53, 2**62, -(2**63), 10**400, 0.5, float("nan"), float("inf"), -0.0]
TEXTS = [
    "",
    "0",
    "1",
    "-1",
    "01",
    "1/2",
    "2/1",
    "1/0",
    "fold",
    "real",
    "value",
    "PROVED",
    "\x00",
    "ä\ud800",
    "9" * 5_000,
]
ARITIES = {"sum": 0, "product": 0, "max": 0, "min": 0, "and": 0, "or": 0, "kth_largest": 0, "not": 1, "eq": 2, "lt": 2,
           "le": 2, "mod": 1, "floordiv": 1, "where": 3, "lookup": 1}  # fmt: skip


def anything(tape: Tape, depth: int = 3) -> Any:
    match tape.below(6 if depth else 4):
        case 0:
            return tape.pick([None, True, False, [], {}])
        case 1:
            return tape.pick(NUMBERS)
        case 2:
            return tape.pick(TEXTS)
        case 3:
            return tape.below(256) - 128
        case 4:
            return [anything(tape, depth - 1) for _ in range(tape.below(4))]
        case _:
            return {tape.pick(TEXTS): anything(tape, depth - 1) for _ in range(tape.below(3))}


def mechanism(tape: Tape, length: int) -> list:
    """Legal more often than not: truth values stand where they are needed, if there are some."""
    rows: list = [["value", [], i] for i in range(length)]
    truths: list[int] = []
    for _ in range(tape.below(6)):
        op = tape.pick(["integer", *ARITIES])
        n = ARITIES.get(op, 0) or 1 + tape.below(3)
        needs = n if op in ("and", "or", "not") else int(op == "where")
        if op == "integer":
            rows.append([op, [], tape.pick([0, 1, 2, 3, -1, 7, 2**61, -(2**62)])])
        elif not needs or truths or tape.below(8) == 0:
            args = [tape.pick(truths) if i < needs and truths else tape.below(len(rows)) for i in range(n)]
            if op in ("and", "or", "not", "eq", "lt", "le"):
                truths.append(len(rows))
            attribute = {"kth_largest": 1 + tape.below(n), "mod": 1 + tape.below(4), "floordiv": 1 + tape.below(4)}
            attribute["lookup"] = [tape.below(5) - 1 for _ in range(tape.below(6))]
            rows.append([op, args, attribute.get(op)])
    if tape.below(2):  # an output more often
        rows.append(["mod", [len(rows) - 1], 1 + tape.below(3)])
    return rows


def proof(tape: Tape, ids: list[list[int]], vocab: int, depth: int = 3) -> dict:
    length = len(ids)
    match tape.below(8 if depth else 5):
        case 0:
            return {"rule": "enumerate"}
        case 1:
            rows = [[tape.pick(here) for here in ids] for _ in range(1 + tape.below(2))]
            return {"rule": "counterexample", "inputs": rows}
        case 2 | 3 | 4:
            keys = [mechanism(tape, length) for _ in range(tape.pick([0, 0, 0, 1, 2]))]

            def label() -> list[int]:
                return [tape.below(vocab + 2) - 1 + tape.below(2) for _ in range(1 + len(keys))]

            def group() -> list:
                return [tape.pick([-12, -20, -6, -2, 0, 8, -40, 1000, -1000]), tape.some(list(range(vocab)), 1)]

            cells = [[tape.below(vocab), label(), tape.pick([None, [group()], [group(), group()], []]), None]
                     for _ in range(tape.pick([0, 0, 0, 1, 2]))]  # fmt: skip
            for cell in cells:
                if cell[2] is not None and tape.below(2):
                    cell[3] = [tape.pick([-12, -20, -4]), [tape.below(vocab)]]
            only = [label() for _ in range(tape.below(3))] if tape.below(4) == 0 else None
            return {"rule": "fold", "keys": keys, "only": only, "cells": cells}
        case 5 | 6:
            wide = [i for i, here in enumerate(ids) if len(here) > 1] or [0]
            position = tape.pick(wide)
            here = ids[position]
            first = tape.some(here, 1)[: max(1, len(here) - 1)]
            halves = [[t for t in here if (t in first) == inside] or here for inside in (True, False)]
            inside, outside = ([*ids[:position], half, *ids[position + 1 :]] for half in halves)
            return {"rule": "split", "position": position, "first": first,
                    "inside": proof(tape, inside, vocab, depth - 1),
                    "outside": proof(tape, outside, vocab, depth - 1)}  # fmt: skip
        case _:
            return {"rule": "both", "first": proof(tape, ids, vocab, depth - 1),
                    "second": proof(tape, ids, vocab, depth - 1)}  # fmt: skip


def certificate(data: bytes) -> bytes:
    """A file whose container and hash are right, and whose document mostly is."""
    tape = Tape(data)
    weights, vocab, context = tape.pick(MODELS if tape.below(12) else LIARS)
    length = 1 + tape.below(context)
    ids = [list(range(vocab)) if tape.below(3) else tape.some(list(range(vocab)), 1) for _ in range(length)]
    size = int(np.prod([len(t) for t in ids]))
    doc = forge.document(
        weights, proof(tape, ids, vocab), equals=mechanism(tape, length), tokens=ids, vocab=vocab, length=length,
        values=[tape.below(6) - 1 for _ in range(vocab)] if tape.below(3) == 0 else None,
        position=tape.below(length), semantics=tape.pick(["real", "float32"]),
        right=(tape.pick([0] * 6 + [1, size]), tape.pick([size] * 6 + [0, size - 1])),
        verdict=tape.pick(["BOUNDED"] * 6 + ["PROVED", "REFUTED"]), at_least=tape.pick([None, "0/1", "1/2", "1/1"]),
    )  # fmt: skip
    doc["claim"]["site"] = tape.pick(["logits"] * 8 + ["blocks.0.resid_post", "embed", "blocks.0.attn.q"])
    margin(tape, doc)
    cost(tape, doc)
    for _ in range(tape.pick([0, 0, 0, 1, 2])):
        forge.put(doc, tape.pick(forge.places(doc)), anything(tape))
    text = json.dumps(doc).encode("utf-8", "surrogatepass")
    return pack({"certificate.json": text, "weights.safetensors": weights})


ENDS = [
    *("0/1", "1/2", "-1/3", "0x0.0p+0", "-0x0.0p+0", "0x0.0000000000001p-1022", "0x1.fffffffffffffp+1023"),
    *(
        "0x1.0000000000000p-1074",
        "1/0",
        "inf",
        "0x1.0000000000000p+1024",
        "9" * 5_000 + "/1",
    ),  # no numbers of the format
]


def lines(tape: Tape) -> list[list[int]]:
    lower = [tape.pick([0, 1, -1, 2**16, 2**53, -(2**20)]) for _ in range(1 + tape.below(4))]
    return [lower, lower[::-1]]


def name(tape: Tape, rows: int) -> str:
    """Of a value that may be relaxed."""
    n, role = tape.below(rows + 2), tape.pick(["", "", "", ".share", ".total", ".exponentials", ".products", ".none"])
    at = tape.below(3)
    return tape.pick(["output", f"{n}{role}", f"{n}{role}", f"{n}[{at}]{role}", f"{n}[{at},:]{role}"])


def bounds_proof(tape: Tape, ids: list[list[int]], box: list[tuple[str, str]], rows: int, depth: int = 3) -> dict:
    """Cuts mostly at places that exist: ends, the middle, another coordinate's end."""
    match tape.below(8 if depth else 4):
        case 0 | 1:
            return {"rule": "relaxation", "lines": None}
        case 2:
            rows = [[name(tape, rows), name(tape, rows), tape.pick([-16, 0, 900, -1000]), *lines(tape)]
                    for _ in range(tape.pick([0, 0, 1, 2]))]  # fmt: skip
            return {"rule": "relaxation", "lines": rows}
        case 3:
            return {"rule": "point", "inputs": [[[tape.pick(here) for here in ids], [tape.pick(ends) for ends in box]]
                                                for _ in range(1 + tape.below(2))]}  # fmt: skip
        case 4 | 5 if box:
            at = tape.below(len(box))
            cut = tape.pick([*box[at], *box[at], float(np.mean([float.fromhex(v) for v in box[at]])).hex(), *ENDS])
            inside, outside = ([*box[:at], ends, *box[at + 1 :]] for ends in ((box[at][0], cut), (cut, box[at][1])))
            readable = cut not in ENDS
            return {"rule": "split", "coordinate": at, "at": cut,
                    "inside": bounds_proof(tape, ids, inside if readable else box, rows, depth - 1),
                    "outside": bounds_proof(tape, ids, outside if readable else box, rows, depth - 1)}  # fmt: skip
        case 6 if ids:
            at = tape.below(len(ids))
            first = tape.some(ids[at], 1)[: max(1, len(ids[at]) - 1)]
            halves = [[t for t in ids[at] if (t in first) == inside] or ids[at] for inside in (True, False)]
            inside, outside = ([*ids[:at], half, *ids[at + 1 :]] for half in halves)
            return {"rule": "split", "position": at, "first": first,
                    "inside": bounds_proof(tape, inside, box, rows, depth - 1),
                    "outside": bounds_proof(tape, outside, box, rows, depth - 1)}  # fmt: skip
        case _:
            return {"rule": "both", "first": bounds_proof(tape, ids, box, rows, depth - 1),
                    "second": bounds_proof(tape, ids, box, rows, depth - 1)}  # fmt: skip


def bounds_certificate(data: bytes) -> bytes:
    """A random network whose rows, box or weights are now and then extreme, and a proof that fits it mostly."""
    tape = Tape(data)
    net = Maker(np.random.default_rng(list(data[:64])), tape.pick([None, 0.0, 0.3, 1e3, 1e300])).network(
        1 + tape.below(6)
    )
    if tape.below(8) == 0:
        net = net._replace(weights={k: v * tape.pick([1e300, 1e-300, 1e20, np.nan]) for k, v in net.weights.items()})
    with np.errstate(all="ignore"):
        net = net._replace(inputs=[tuple(np.nan_to_num(end) for end in corners) for corners in net.inputs])
    box = [
        (a.hex(), b.hex())
        for low, high in net.inputs
        for a, b in zip(low.ravel().tolist(), high.ravel().tolist(), strict=True)
    ]
    thresholds = [None] * 12 + ENDS[:7] * 2 + ENDS
    doc, weights = networks.document(
        net, bounds_proof(tape, net.tokens, box, len(net.rows)), at_least=tape.pick(thresholds),
        at_most=tape.pick(thresholds), verdict=tape.pick(["BOUNDED"] * 6 + ["PROVED", "REFUTED"]),
        position=tape.pick([None] * 9 + [0, 1]),
    )  # fmt: skip
    stated = tape.pick([[None], [None, "-0x1.0000000000000p+900"], [None, "0/1", "-0x1.0000000000000p+3"]])
    ends = [tape.pick(stated) for _ in range(entries(doc, weights))]
    doc["conclusion"] |= {"low": ends, "high": [v and v.lstrip("-") for v in ends]}
    views(tape, doc)
    names(tape, doc)
    if box and tape.below(4) == 0:
        boxes(tape, doc, box)
    if tape.below(8) == 0:
        conditions(tape, doc)
    if tape.below(6) == 0:
        lemmas(tape, doc)
    cost(tape, doc)
    if tape.below(8) == 0:
        row = tape.pick(doc["claim"]["graph"]["nodes"])
        row[0] = tape.pick([*networks.FUNCTIONS, "power", "softmax", "gather", "concat", "select", "pivot"])
    for _ in range(tape.pick([0, 0, 0, 1, 2])):
        forge.put(doc, tape.pick(forge.places(doc)), anything(tape))
    text = json.dumps(doc).encode("utf-8", "surrogatepass")
    return pack({"certificate.json": text, "weights.safetensors": weights})


NAMES = [
    "output", "x0", "token 1", "output[0]", "(x0[0] + 1)", "", " ", "a\nverdict  PROVED", "\x1b[2J", "ä", "\ud800",
    "a" * 300, "\u202eb", "{}", "\\input{x}", "logits~^_", "-", "0", "at most 1",
]  # fmt: skip
COSTS = [None, "0", "1", "5000", "1000000", "200000000", "9" * 18, "9" * 19, "01", "-1", "1e9", 5, [], "\ud800"]


def cost(tape: Tape, doc: dict) -> None:
    """Mostly a version that announces, and mostly enough."""
    if tape.below(4):
        doc |= {"version": VERSION, "cost": tape.pick([None, "200000000", "100000000"] * 10 + COSTS)}


def margin(tape: Tape, doc: dict) -> None:
    if tape.below(8) == 0:
        doc["claim"]["margin"] = tape.pick(ENDS)


def renamed(value: Any, old: str, new: str) -> Any:
    if isinstance(value, list):
        return [renamed(v, old, new) for v in value]
    if isinstance(value, dict):
        return {k: renamed(v, old, new) for k, v in value.items()}
    return new if value == old else value


def names(tape: Tape, doc: dict) -> None:
    """Sites, some of them by names that no site should have; everywhere, or in one place."""
    claim = doc["claim"]
    for _ in range(tape.pick([0, 0, 0, 1, 2])):
        claim["graph"]["sites"].append([tape.pick(NAMES), tape.below(len(claim["graph"]["nodes"]))])
    if tape.below(8) == 0:
        new = tape.pick(NAMES)
        if tape.below(2):
            doc["claim"] = renamed(claim, "output", new)
        else:
            claim["site"] = new
    if tape.below(8) == 0:
        claim["graph"]["replayed"] |= {"module": tape.pick(NAMES), "difference": tape.pick(ENDS)}


def views(tape: Tape, doc: dict) -> None:
    """Other offsets, strides and sizes, of views that are there or of the output."""
    nodes = doc["claim"]["graph"]["nodes"]
    mine = [row for row in nodes if row[0] == "view"]
    if tape.below(8) == 0:
        shape = [tape.pick([1, 1, 2, 3, 4, 2**12, 2**22, 2**24]) for _ in range(tape.below(4))]
        nodes.append(["view", [len(nodes) - 1], [shape, tape.below(3), [tape.pick([0, 0, 1, -1, 2]) for _ in shape]]])
        doc["claim"]["graph"]["sites"][0][1] = len(nodes) - 1
    elif mine and tape.below(6) == 0:
        shape, _, strides = tape.pick(mine)[2]
        if strides:
            at = tape.below(len(strides))
            strides[at] = tape.pick([0, 1, -1, 2, strides[at] + 1, 2**40])
            shape[at] = tape.pick([1, 2, shape[at] + 1, 2**10, 2**20])


def conditions(tape: Tape, doc: dict) -> None:
    sites = [name for name, _ in doc["claim"]["graph"]["sites"]]
    for field in ("where", "cases"):
        doc["claim"][field] = [tape.pick(sites) for _ in range(tape.below(3))]


def boxes(tape: Tape, doc: dict, box: list[tuple[str, str]]) -> None:
    """A union of a few boxes between ends and middles of the domain's, some upside down or beyond; with a proof for
    each, mostly, or the proof as it was."""
    found = []
    for _ in range(1 + tape.below(3)):
        middle = [float(np.mean([float.fromhex(v) for v in ends])).hex() for ends in box]
        low, high = ([tape.pick([ends[k], ends[k], m]) for ends, m in zip(box, middle, strict=True)] for k in (0, 1))
        low, high = (high, low) if tape.below(24) == 0 else (low, high)
        high[-1] = tape.pick([*[high[-1]] * 24, ENDS[-1]])
        found.append([low, high])
    doc["claim"]["union"] = found
    leaves = [tape.pick([doc["proof"], {"rule": "relaxation", "lines": None}]) for _ in found]
    joined = {"rule": "union", "parts": leaves[: tape.pick([3, 3, 3, 1])]}
    doc["proof"] = tape.pick([joined, joined, {"rule": "both", "first": joined, "second": doc["proof"]}, doc["proof"]])


def lemmas(tape: Tape, doc: dict) -> None:
    """A cut of some sites, by mechanisms that are others, in place of the proof or of a part of it."""
    graph = doc["claim"]["graph"]
    for k in range(2):
        graph["sites"].append([f"s{k}", tape.below(len(graph["nodes"]))])
    sites = [name for name, _ in graph["sites"]]

    def lemma() -> dict:
        wide = tape.pick(["0x1.0000000000000p+0", "0x1.0000000000000p+20", "0x0.0p+0", "0x1.0000000000000p-20"])
        n = tape.pick([1, 1, 2, 3])
        inside = tape.pick([{"rule": "relaxation", "lines": None}, {"rule": "relaxation"}, doc["proof"]])
        ends = {"low": ["-" + wide] * n, "high": [wide] * n}
        return {"site": tape.pick(sites), "mechanism": tape.pick(sites), "proof": inside, **ends}

    cut = {"rule": "cut", "lemmas": [lemma() for _ in range(1 + tape.below(2))],
           "proof": {"rule": "relaxation", "lines": None}}  # fmt: skip
    doc["proof"] = cut if tape.below(2) else {"rule": "both", "first": cut, "second": doc["proof"]}


def entries(doc: dict, weights: bytes) -> int:
    """How many entries the output has; one where the claim is none."""
    try:
        return bounds.Claim(doc["claim"], weights).outputs
    except (checker.Rejected, bounds.NotConfirmed):
        return 1


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
        text[at : at + width] = draw(
            st.binary(max_size=8) | st.sampled_from([b"", b"[", b"}", b'"', b"9" * 30, b"null"])
        )
    return pack({**contents, "certificate.json": bytes(text)}) if inside else bytes(text)


# --- the run ----------------------------------------------------------------------------------------------------------


def printed(theorem: Theorem) -> str:
    """All that a reader is told of an accepted file."""
    json.dumps(as_json(theorem, theorem.verdict, None, None, 0.0, []))
    text = "\n".join(f"{label:>16}  {text}" for label, text in printed_lines(theorem))
    text.encode()
    return text


def false_lines(theorem: Theorem, file: bytes) -> list[str]:
    """Lines that the file doesn't bear out, by a parser that is independent of what wrote them."""
    try:
        from benchmarks.campaigns.statements import printed as stated
        from tests.independent.sentence import false_lines as parsed
    except ImportError:  # no parser yet
        return []
    return parsed(stated(theorem), file)


def peak() -> int:
    """Megabytes that the process has held at most."""
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) // 1024


def run(start: int, count: int) -> dict[str, Any]:
    files = good_files()
    grammar = st.binary(min_size=300, max_size=600).map(certificate)
    bounds_grammar = st.binary(min_size=300, max_size=600).map(bounds_certificate)
    shares = {
        "bytes": (st.binary(max_size=4_000), 0.04), "damaged file": (damaged(files, False), 0.08),
        "damaged JSON": (damaged(files, True), 0.18), "grammar": (grammar, 0.45),
        "bounds grammar": (bounds_grammar, 0.25),
    }  # fmt: skip
    outcomes: dict[str, Counter] = {name: Counter() for name in shares}
    reasons, bad, slowest, dearest = Counter(), [], (0.0, ""), 0.0
    held = before = peak()

    def attack(kind: str, file: bytes) -> None:
        nonlocal slowest, held, dearest
        began, told = time.process_time(), [0, LIMIT]

        def watch(work: int, most: float) -> None:
            told[:] = work, most

        try:
            theorem = check(file, limit=LIMIT, watch=watch)
            outcome = "accepted"
            if theorem.work > told[1]:
                bad.append(_kept(kind, file, f"{theorem.work} units of work, allowed {told[1]}"))
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
        seconds = time.process_time() - began
        slowest = max(slowest, (seconds, kind))
        dearest = max(dearest, seconds / (EACH + PER_UNIT * told[1]))
        if seconds > EACH + PER_UNIT * told[1]:
            bad.append(_kept(kind, file, f"{seconds:.1f} s where {told[1]:.2g} units of work are allowed"))
        if (now := peak()) > held:
            if now > before + MEGABYTES:
                bad.append(_kept(kind, file, f"{now - before} MiB"))
            held = now
        if outcome == "accepted":
            try:
                printed(theorem)
                bad.extend(_kept(kind, file, f"false line: {line}") for line in false_lines(theorem, file))
            except Exception as error:
                bad.append(_kept(kind, file, f"printing raised {type(error).__name__}: {error}"))

    for kind, (strategy, share) in shares.items():
        left, number = round(share * count), 0
        while left > 0:
            options = settings(max_examples=min(ROUND, left), database=None, deadline=None, phases=[Phase.generate],
                               suppress_health_check=list(HealthCheck))  # fmt: skip
            done = outcomes[kind].total()

            def attempt(file: bytes) -> None:
                attack(kind, file)  # noqa: B023 (called before the loop goes on)

            seed(start * 10_000 + number)(options(given(strategy)(attempt)))()
            left, number = left - max(1, outcomes[kind].total() - done), number + 1
    return {"files": sum(c.total() for c in outcomes.values()), "outcomes": outcomes, "bad": bad, "slowest": slowest,
            "peak": peak(), "above": held - before, "dearest": dearest, "reasons": reasons.most_common(40)}  # fmt: skip


def _kept(kind: str, file: bytes, what: str) -> str:
    FOUND.mkdir(parents=True, exist_ok=True)
    path = FOUND / f"{hashlib.sha256(file).hexdigest()[:12]}.cert"
    path.write_bytes(file)
    return f"{kind}: {what[:200]} (build/fuzz/{path.name})"


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))
    print(json.dumps(run(int(sys.argv[1]), int(sys.argv[2]))))
