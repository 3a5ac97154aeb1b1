"""Certificates of small models, and ways to spoil them."""

import copy
import hashlib
import io
import json
import warnings
import zipfile
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np

from mechverify.kernel.core.container import pack
from tests.models import as_bytes

MAX = [["value", [], 0], ["value", [], 1], ["value", [], 2], ["max", [0, 1, 2], None]]


def document(weights: bytes, proof: dict, *, equals=MAX, tokens=None, values=None, vocab=6, right=(0, None),
             verdict="BOUNDED", at_least=None, position=2, length=3, semantics="real", architecture="transformer",
             site="logits", margin=None) -> dict[str, Any]:  # fmt: skip
    tokens = tokens or [list(range(vocab))] * length
    size = int(np.prod([len(t) for t in tokens]))
    low, high = right
    return {
        "format": "mechverify-certificate",
        "version": 2,
        "claim": {
            "kind": "accuracy", "semantics": semantics, "architecture": architecture,
            "weights_sha256": hashlib.sha256(weights).hexdigest(),
            "domain": {"tokens": tokens, "values": list(values or range(vocab))},
            "site": site, "position": position, "equals": equals, "at_least": at_least,
            **({} if margin is None else {"margin": _text(margin)}),
        },
        "conclusion": {
            "verdict": verdict, "right_at_least": str(low), "right_at_most": str(size if high is None else high),
        },
        "axioms": ["ieee754"] if semantics == "real" else ["ieee754", "libm:float32"],
        "proof": proof,
    }  # fmt: skip


def _text(margin: Any) -> Any:
    """A fraction as it is written; anything else as it is."""
    return f"{margin.numerator}/{margin.denominator}" if isinstance(margin, Fraction) else margin


def fold(cells=(), keys=(), only=None, trials=None) -> dict[str, Any]:
    """Cells are [query token, class, [[step, rivals], ...] or None, [step, [rival]] or None]."""
    witness = {"rule": "fold", "keys": list(keys), "only": only, "cells": list(cells)}
    return witness if trials is None else witness | {"trials": trials}


def compact(passes=(), scores=None, base="exact") -> dict[str, Any]:
    """Passes are (rivals, tokens, loose, rows [query token, class, thresholds])."""
    names = "rivals", "tokens", "loose", "cells"
    rows = [dict(zip(names, entry, strict=True)) for entry in passes]
    return {"rule": "compact", "scores": scores, "base": base, "passes": rows}


def file(doc: dict, weights: bytes) -> bytes:
    return pack({"certificate.json": json.dumps(doc).encode(), "weights.safetensors": weights})


def places(value: Any, path: tuple = ()) -> list[tuple]:
    """Paths to every leaf of a JSON value."""
    if isinstance(value, dict):
        return [p for k, v in value.items() for p in places(v, (*path, k))]
    if isinstance(value, list) and value:
        return [p for i, v in enumerate(value) for p in places(v, (*path, i))]
    return [path]


def spoil_leaf(document: Any, path: tuple, rng: np.random.Generator) -> None:
    """Changes the leaf there at random."""
    put(document, path, _changed_leaf(entry_at(document, path), rng))


def _changed_leaf(value: Any, rng: np.random.Generator) -> Any:
    match value:
        case bool():
            return not value
        case int():
            return _pick(rng, [value + 1, value - 1, 0, -value, 2**53, True, str(value), None, [value], 10**30])
        case str() if value.isdigit():
            delta = int(_pick(rng, [1, -1, 7, 50, -50]))
            return _pick(rng, [str(max(0, int(value) + delta)), value + "0", "0", " " + value, int(value)])
        case str():
            return _pick(rng, [value[:-1], value + "x", value[::-1], "PROVED", "REFUTED", "fold", "enumerate", None])
        case None:
            return _pick(rng, [0, 1, "1/2", False, []])
        case _:
            return _pick(rng, [0, None, [0]])


def _pick(rng: np.random.Generator, options: list) -> Any:
    return options[int(rng.integers(len(options)))]


def corrupt(doc: dict, weights: dict[str, np.ndarray], rng: np.random.Generator) -> tuple[str, dict, bytes]:
    """One random change: its name, the document, the weights' bytes. Many restamp the hash, so that the
    change is not caught at the door."""
    doc = copy.deepcopy(doc)
    proof = doc["proof"]
    fold_node = next((n for n in nodes(proof) if n["rule"] == "fold"), None)
    kind = str(rng.choice(KINDS if doc["claim"]["kind"] == "accuracy" else BOUNDS_KINDS))
    data = as_bytes(weights)
    match kind:
        case _ if kind in BOUNDS:
            BOUNDS[kind](doc, rng)
        case "weight" | "weight, hash restamped":
            name = str(rng.choice(sorted(weights)))
            value = weights[name].copy()
            bits = value.reshape(-1).view(np.uint32)
            bits[rng.integers(len(bits))] ^= np.uint32(1) << np.uint32(rng.integers(32))
            data = as_bytes({**weights, name: value})
            if kind != "weight":
                doc["claim"]["weights_sha256"] = hashlib.sha256(data).hexdigest()
        case "bound":
            field, by = ("right_at_least", 1) if rng.random() < 0.5 else ("right_at_most", -1)
            doc["conclusion"][field] = str(
                max(0, int(doc["conclusion"][field]) + by * int(rng.choice([1, 2, 10, 100])))
            )
        case "grid" if fold_node and any(c[2] or c[3] for c in fold_node["cells"]):
            groups = [g for c in fold_node["cells"] for g in [*(c[2] or []), *([c[3]] if c[3] else [])]]
            _pick(rng, groups)[0] += int(rng.choice([-40, -3, -1, 1, 3, 40, 2000, -2000]))
        case "cell" if fold_node and fold_node["cells"]:
            cells, i = fold_node["cells"], int(rng.integers(len(fold_node["cells"])))
            match int(rng.integers(6)):
                case 0:
                    del cells[i]
                case 1:
                    cells.append(copy.deepcopy(cells[i]))
                case 2:
                    cells[i][0] = int(rng.integers(7))
                case 3:
                    cells[i][1] = [int(rng.integers(7))]
                case 4:
                    cells[i][2] = None if cells[i][2] is not None else [[-8, [int(rng.integers(6))]]]
                case 5 if cells[i][2]:
                    group = cells[i][2][int(rng.integers(len(cells[i][2])))][1]
                    group.pop() if group and rng.random() < 0.7 else group.append(int(rng.integers(7)))
        case "rule":
            node = fold_node or proof
            node["rule"] = str(rng.choice(["enumerate", "counterexample", "fold", "split", "both", "axiom"]))
        case "mechanism":
            row = doc["claim"]["equals"][-1]
            row[0] = str(rng.choice(["min", "sum", "product", "max", "or"]))
        case "operand":
            doc["claim"]["equals"][-1][1].pop()
        case "domain":
            ids = doc["claim"]["domain"]["tokens"][int(rng.integers(3))]
            ids.pop(int(rng.integers(len(ids)))) if rng.random() < 0.6 else ids.append(int(rng.integers(7)))
        case "values":
            values = doc["claim"]["domain"]["values"]
            values[int(rng.integers(len(values)))] += int(rng.choice([-1, 1]))
        case "position":
            doc["claim"]["position"] = int(rng.integers(-1, 4))
        case "semantics":
            doc["claim"]["semantics"] = _pick(rng, ["real", "float32", "float64", "REAL"])
            if rng.random() < 0.5:
                doc["axioms"] = _pick(rng, [["ieee754"], ["ieee754", "libm:float32"]])
        case "version":
            doc["version"] = _pick(rng, [1, 2, 3, True, "2", None])
        case "threshold":
            doc["claim"]["at_least"] = str(rng.choice(["1/2", "0/1", "1/1", "2/1", "1/0", "0.5", "-1/2"]))
            doc["conclusion"]["verdict"] = str(rng.choice(["PROVED", "REFUTED", "BOUNDED", "UNKNOWN"]))
        case "axioms":
            lists = [[], ["ieee754", "ieee754"], ["capture"], ["ieee754", "solver:z3"], ["libm:float32"], "ieee754"]
            doc["axioms"] = _pick(rng, lists)
        case "index":
            path = _pick(rng, [p for p in places(doc) if type(entry_at(doc, p)) is int])
            put(doc, path, entry_at(doc, path) + _pick(rng, [1, -1]))
        case "number as text":
            path = _pick(rng, [p for p in places(doc) if type(entry_at(doc, p)) is int])
            put(doc, path, str(entry_at(doc, path)))
        case "swapped children" if any(names <= set(node) for node in nodes(proof) for names in PAIRS):
            node, names = _pick(rng, [(n, tuple(names)) for n in nodes(proof) for names in PAIRS if names <= set(n)])
            node[names[0]], node[names[1]] = node[names[1]], node[names[0]]
        case "replayed leaf" if len(nodes(proof)) > 1:
            one, other = (_pick(rng, nodes(proof)) for _ in range(2))
            source = copy.deepcopy(one)
            other.clear()
            other.update(source)
        case "no number":
            path = _pick(rng, [p for p in places(doc) if type(entry_at(doc, p)) is int])
            put(doc, path, _pick(rng, [float("nan"), float("inf"), -float("inf"), 1e308, 0.5, -0.0, 1.0]))
        case "weight that is no number":
            name = str(rng.choice(sorted(weights)))
            value = weights[name].copy()
            value.reshape(-1)[rng.integers(value.size)] = _pick(rng, [np.nan, np.inf, -np.inf])
            data = as_bytes({**weights, name: value})
            doc["claim"]["weights_sha256"] = hashlib.sha256(data).hexdigest()
        case "deep nesting":
            where, depth = _pick(rng, [p for p in places(doc) if p]), int(rng.integers(2, 300))
            for _ in range(depth):
                put(doc, where, [entry_at(doc, where)])
        case "deep proof":
            for _ in range(int(rng.integers(1, 30))):
                proof = {"rule": "both", "first": proof, "second": {"rule": _pick(rng, ["enumerate", "fold"])}}
            doc["proof"] = proof
        case "lying header":
            data = lying_header(data, rng)
            doc["claim"]["weights_sha256"] = hashlib.sha256(data).hexdigest()
        case "extra field":
            where = _pick(rng, [doc, doc["claim"], doc["conclusion"], proof])
            where["note"] = 1
        case _:
            path = places(doc)[int(rng.integers(len(places(doc))))]
            spoil_leaf(doc, path, rng)
    return kind, doc, data


# --- bounds: each changes the document in place, or leaves it where it has nothing of the kind ---------------------------


def nudged(text: str, rng: np.random.Generator) -> Any:
    """A number of the format, changed; now and then to no number."""
    if rng.random() < 0.1:
        return _pick(
            rng, ["inf", "nan", "-0x0.0p+0", "0x1p+0", "1.0", "1/0", "0x1.0000000000000p+1024", "1/3", 1, None]
        )
    if "/" in text:
        value = Fraction(text) + _pick(rng, [Fraction(s, 10**9) for s in (1, -1, 10**8, -(10**8))])
        return f"{value.numerator}/{value.denominator}"
    x = float.fromhex(text)
    steps = [np.nextafter(x, np.inf), np.nextafter(x, -np.inf), x + 1e-6, x - 1e-6, x + 0.1, x - 0.1, 1.5 * x, -x, 0.0,
             5e-324, -1e308]  # fmt: skip
    return float(_pick(rng, steps)).hex()


def _nudge(doc: Any, rng: np.random.Generator, paths: list[tuple]) -> None:
    """One of the numbers at or below these paths."""
    numbers = [(*p, *q) for p in paths for q in places(entry_at(doc, p)) if type(entry_at(doc, (*p, *q))) is str]
    if numbers:
        put(doc, at := _pick(rng, numbers), nudged(entry_at(doc, at), rng))


def _stated(doc: dict, rng: np.random.Generator) -> None:
    """An end moved inwards, or not stated."""
    end, inward = _pick(rng, [("low", 1), ("high", -1)])
    i = int(rng.integers(len(doc["conclusion"][end])))
    if (text := doc["conclusion"][end][i]) is not None:
        x, by = float.fromhex(text), float(_pick(rng, [1e-12, 1e-6, 1e-3, 0.05, 1.0]))
        doc["conclusion"][end][i] = _pick(
            rng, [None, float(np.nextafter(x, inward * np.inf)).hex(), *[(x + inward * by).hex()] * 4]
        )


def _verdict(doc: dict, rng: np.random.Generator) -> None:
    doc["conclusion"]["verdict"] = _pick(rng, ["PROVED", "REFUTED", "BOUNDED"])
    name = _pick(rng, ["at_least", "at_most"])
    if rng.random() < 0.7:
        ends = doc["conclusion"]["low" if name == "at_least" else "high"]
        doc["claim"][name] = _pick(rng, [None, "0/1", "1/2", "-1/2", *[[v or "0/1" for v in ends]] * 3])


def _operation(doc: dict, rng: np.random.Generator) -> None:
    """Another operation on as many operands."""
    row = _pick(rng, doc["claim"]["graph"]["nodes"])
    families = [["add", "sub", "mul"], ["relu", "abs", "exp", "log", "sqrt", "rsqrt", "reciprocal", "tanh", "sigmoid", "erf",
                "softplus", "gelu", "gelu_tanh", "silu", "sin", "cos"], ["power", "over_root"]]  # fmt: skip
    row[0] = _pick(rng, next((f for f in families if row[0] in f), ["relu", "tokens", "select", "slack", "pivot"]))


def _operand(doc: dict, rng: np.random.Generator) -> None:
    rows = doc["claim"]["graph"]["nodes"]
    at = int(rng.integers(len(rows)))
    if rows[at][1]:
        rows[at][1][int(rng.integers(len(rows[at][1])))] = int(rng.integers(-1, at + 1))
        if rng.random() < 0.2:
            rows[at][1].reverse()


def _attribute(doc: dict, rng: np.random.Generator) -> None:
    """A view's reading, a mask, an exponent, a contraction, a constant, a tensor's name or shape."""
    row = _pick(rng, [r for r in doc["claim"]["graph"]["nodes"] if r[2] is not None])
    match row:
        case ["einsum", _, text]:
            row[2] = _pick(rng, [text[::-1].replace(">-", "->"), text.replace("a", "b"), text[:-1], text.swapcase(),
                                 ",".join(text.split("->")[0].split(",")[::-1]) + "->" + text.split("->")[1]])  # fmt: skip
        case ["softmax", _, mask]:
            row[2] = _pick(rng, ["causal", 1, 2, ["01"], ["11"], ["10", "11"], ["00"], mask])
        case [_, _, value]:
            where = (2, *_pick(rng, places(value)))
            old = entry_at(row, where)
            put(
                row,
                where,
                old + _pick(rng, [1, -1, 2]) if type(old) is int else nudged(old, rng) if "x" in str(old) else "none",
            )


def _box(doc: dict, rng: np.random.Generator) -> None:
    _nudge(
        doc,
        rng,
        [
            ("claim", "domain", "inputs", i, 1 + end)
            for i in range(len(doc["claim"]["domain"]["inputs"]))
            for end in (0, 1)
        ],
    )


def _tokens(doc: dict, rng: np.random.Generator) -> None:
    if doc["claim"]["domain"]["tokens"]:
        ids = _pick(rng, doc["claim"]["domain"]["tokens"])
        ids.pop(int(rng.integers(len(ids)))) if rng.random() < 0.5 else ids.append(int(rng.integers(5)))
        if rng.random() < 0.8:
            ids.sort()


def _site(doc: dict, rng: np.random.Generator) -> None:
    sites = doc["claim"]["graph"]["sites"]
    match int(rng.integers(3)):
        case 0:
            doc["claim"]["position"] = _pick(rng, [None, 0, 1, -1, 9])
        case 1:
            _pick(rng, sites)[1] = int(rng.integers(-1, len(doc["claim"]["graph"]["nodes"]) + 1))
        case 2:
            doc["claim"]["site"] = _pick(rng, ["none", "", *[s[0] for s in sites]])


def _cut(doc: dict, rng: np.random.Generator) -> None:
    """A split elsewhere, along another coordinate, of another set; or halves that change places."""
    if splits := [n for n in nodes(doc["proof"]) if n["rule"] == "split"]:
        node = _pick(rng, splits)
        if rng.random() < 0.2:
            node["inside"], node["outside"] = node["outside"], node["inside"]
        elif "at" in node and rng.random() < 0.7:
            node["at"] = nudged(node["at"], rng)
        elif "at" in node:
            node["coordinate"] += _pick(rng, [1, -1])
        else:
            node["first"] = _pick(rng, [[], [0], [1, 1], [0, 1, 2, 3], node["first"][:-1], [7]])


def _rule(doc: dict, rng: np.random.Generator) -> None:
    """A part of the proof replaced by another, or proved twice."""
    node, leaf = _pick(rng, nodes(doc["proof"])), {"rule": "relaxation", "lines": None}
    others = [leaf, {"rule": "relaxation", "lines": []}, {"rule": "linear", "lines": None}, {"rule": "enumerate"}, {"rule": "both", "first": leaf, "second": dict(node)},
              *[copy.deepcopy(n) for n in nodes(doc["proof"]) if n["rule"] == "point"] * 2]  # fmt: skip
    chosen = _pick(rng, others)
    node.clear()
    node.update(chosen)


def _lines(doc: dict, rng: np.random.Generator) -> None:
    if given := [n["lines"] for n in nodes(doc["proof"]) if n.get("lines")]:
        rows = _pick(rng, given)
        row = _pick(rng, rows)
        match int(rng.integers(7)):
            case 0:
                rows.remove(row)
            case 1:
                rows.append(copy.deepcopy(row))
            case 2:
                row[2] += int(_pick(rng, [1, -1, 20, -20, 900, 2_000]))
            case 3:
                row[3], row[4] = row[4], row[3]
            case 4:
                row[int(rng.integers(2))] = _pick(rng, ["output", "0", "3", "5", "4", "3.share", "3[0]"])
            case _:
                side = row[_pick(rng, [3, 4])]
                i = int(rng.integers(len(side)))
                side[i] = int(_pick(rng, [0, -side[i], side[i] + 1, 2**16, 2**16 + 1, 7 * side[i], 2**53, -(2**20)]))


def _points(doc: dict, rng: np.random.Generator) -> None:
    if found := [n["inputs"] for n in nodes(doc["proof"]) if n["rule"] == "point"]:
        row = _pick(rng, _pick(rng, found))
        if row[0] and rng.random() < 0.4:
            row[0][int(rng.integers(len(row[0])))] += int(_pick(rng, [1, -1]))
        else:
            _nudge(row, rng, [(1,)])


BOUNDS = {
    "bound stated": _stated, "verdict": _verdict, "operation": _operation, "operand of a row": _operand,
    "attribute": _attribute, "box": _box, "token set": _tokens, "site": _site, "cut": _cut, "part of the proof": _rule,
    "lines": _lines, "points": _points,
    "number": lambda doc, rng: _nudge(doc, rng, [("conclusion", "low"), ("conclusion", "high"), ("claim", "at_least"), ("claim", "at_most")]),
}  # fmt: skip


def spoil(file: bytes, rng: np.random.Generator) -> tuple[str, bytes]:
    """One change to the bytes of a good file that no JSON document can express: duplicate keys, another way to write
    the same zip, lies in its headers."""
    start = file.index(b"certificate.json") + len("certificate.json")
    size = int.from_bytes(file[22:26], "little")
    text, kind = file[start : start + size], str(rng.choice(["duplicate key", "zip header", "zip directory", "order"]))
    weights_at = start + size + 30 + len("weights.safetensors")
    weights = file[weights_at : weights_at + int.from_bytes(file[start + size + 22 : start + size + 26], "little")]
    match kind:
        case "duplicate key":
            colons = [i for i in range(len(text)) if text[i : i + 1] == b":" and text[i - 1 : i] == b'"']
            at = _pick(rng, colons)
            name = text[text.rindex(b'"', 0, at - 1) : at]
            copied = b", " + name + b": " + _pick(rng, [b"0", b"null", b'"1"', b"[]"])
            end = text.index(b"}", at)
            changed = text[:end] + copied + text[end:]
            return kind, pack({"certificate.json": changed, "weights.safetensors": weights})
        case "zip header":
            data = bytearray(file)
            base = _pick(rng, [0, start + size])
            data[base + int(rng.integers(4, 30))] ^= 1 << int(rng.integers(8))
            return kind, bytes(data)
        case "zip directory":
            data = bytearray(file)
            at = int(rng.integers(weights_at + len(weights), len(data)))
            data[at] = (data[at] + int(rng.choice([1, 255, 128]))) % 256
            return kind, bytes(data)
        case _:
            stream = io.BytesIO()
            members = [("certificate.json", text), ("weights.safetensors", weights)]
            with warnings.catch_warnings(), zipfile.ZipFile(stream, "w", _pick(rng, [0, 8])) as made:
                warnings.simplefilter("ignore")  # a duplicate name
                for name, content in _pick(rng, [members, members[::-1], [*members, members[0]], members[:1]]):
                    made.writestr(name, content)
            return kind, stream.getvalue()


def lying_header(data: bytes, rng: np.random.Generator) -> bytes:
    """A safetensors file whose header is not what its data are."""
    length = int.from_bytes(data[:8], "little")
    header, body = json.loads(data[8 : 8 + length]), data[8 + length :]
    tensors = [name for name in header if name != "__metadata__"]
    name, other = (_pick(rng, tensors) for _ in range(2))
    entry = header[name]
    match int(rng.integers(8)):
        case 0:
            entry["data_offsets"] = header[other]["data_offsets"]
        case 1:
            entry["data_offsets"][int(rng.integers(2))] += int(rng.choice([-4, 4, 1, 10**6, -(10**6)]))
        case 2:
            entry["dtype"] = _pick(rng, ["F16", "BF16", "F64", "I32", "U32", "BOOL", "F8_E4M3", 32, None])
        case 3:
            entry["shape"] = _pick(rng, [entry["shape"][::-1], [*entry["shape"], 1], [2**39] * 8, [-1], [0], [1.0]])
        case 4:
            header[name], header[other] = header[other], header[name]
        case 5:
            header[f"{name}2"] = entry
        case 6:
            del header[name]
        case 7:
            body += bytes(int(rng.integers(1, 9)))
    text = json.dumps(header).encode()
    stated = len(text) + (int(rng.choice([-1, 1, 8, 2**40])) if rng.random() < 0.1 else 0)
    return stated.to_bytes(8, "little") + text + body


def nodes(proof: dict) -> list[dict]:
    """The rules of a proof tree."""
    found = [proof]
    for node in found:
        found += [node[k] for k in ("first", "second", "inside", "outside") if type(node.get(k)) is dict]
    return found


def entry_at(value: Any, path: tuple) -> Any:
    for step in path:
        value = value[step]
    return value


def put(value: Any, path: tuple, new: Any) -> None:
    entry_at(value, path[:-1])[path[-1]] = new


def setting(*path_and_value: Any) -> Callable[[Any], None]:
    """A change of a document, for tables of them: keys, and what is to stand there."""
    *path, new = path_and_value
    return lambda document: put(document, tuple(path), new)


PAIRS = [{"inside", "outside"}, {"first", "second"}]
KINDS = ["weight", "weight, hash restamped", "weight, hash restamped", "bound", "grid", "cell", "cell", "cell", "rule",
         "mechanism", "semantics",
         "version", "operand", "domain", "domain", "values", "position", "threshold", "axioms", "extra field", "leaf",
         "leaf", "leaf", "leaf", "index", "index", "number as text", "swapped children", "replayed leaf", "no number",
         "weight that is no number", "deep nesting", "deep proof", "lying header"]  # fmt: skip
GENERAL = ["weight", "weight, hash restamped", "weight, hash restamped", "semantics", "version", "axioms", "extra field", "leaf",
           "leaf", "index", "index", "number as text", "swapped children", "replayed leaf", "no number",
           "weight that is no number", "deep nesting", "deep proof", "lying header"]  # fmt: skip
BOUNDS_KINDS = [*BOUNDS, *BOUNDS, *GENERAL]
