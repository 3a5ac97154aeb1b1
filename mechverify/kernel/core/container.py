"""The certificate file: an uncompressed zip of `certificate.json` and `weights.safetensors`.

There is exactly one way to write given contents, and a file written in any other way is refused: what
a zip reader, or a person, sees in the file is what the kernel saw. Nothing is decompressed, evaluated,
imported or unpickled, and no array is larger than the file.

Lemma C10 (docs/soundness/core.md).
"""

import json
import re
import struct
import sys
import zlib
from collections.abc import Callable
from math import prod
from typing import Any

import numpy as np

from mechverify.kernel.core.errors import NotACertificate

MEMBERS = ("certificate.json", "weights.safetensors")
FILE_LIMIT, JSON_LIMIT, HEADER_LIMIT = 2**30, 2**26, 2**22  # bytes
JSON_HELD = 2**29  # bytes that its values may take in memory
NESTED = 1_000  # levels of JSON, and of the calls around it
_LOCAL = struct.Struct("<4sHHHHHIIIHH")
_CENTRAL = struct.Struct("<4sHHHHHHIIIHHHHHII")
_END = struct.Struct("<4sHHHHIIH")


def pack(contents: dict[str, bytes]) -> bytes:
    """The bytes of the file that holds `contents` (PKWARE APPNOTE 4.3; stored, no extra fields)."""
    body, directory = b"", b""
    for name in MEMBERS:
        data = contents[name]
        encoded = name.encode()
        common = (0, 0, 0, 0x21, zlib.crc32(data), len(data), len(data), len(encoded))
        directory += (
            _CENTRAL.pack(b"PK\1\2", 20, 20, *common, 0, 0, 0, 0, 0, len(body))
            + encoded
        )
        body += _LOCAL.pack(b"PK\3\4", 20, *common, 0) + encoded + data
    end = _END.pack(
        b"PK\5\6", 0, 0, len(MEMBERS), len(MEMBERS), len(directory), len(body), 0
    )
    return body + directory + end


def unpack(data: bytes) -> dict[str, bytes]:
    """The inverse of `pack`; raises NotACertificate for every other input."""
    if len(data) > FILE_LIMIT:
        raise NotACertificate("the file is larger than 1 GiB")
    contents, position = {}, 0
    for name in MEMBERS:
        start = position + _LOCAL.size + len(name)
        if len(data) < start or data[position : position + 4] != b"PK\3\4":
            raise NotACertificate(
                "not a mechverify certificate (no zip with the expected members)"
            )
        size = _LOCAL.unpack_from(data, position)[8]
        contents[name] = data[start : start + size]
        position = start + size
    if pack(contents) != data:
        raise NotACertificate(
            "the zip is not written in the one way that a certificate is written"
        )
    return contents


def read_json(data: bytes) -> Any:
    """Strict JSON: no duplicate keys, no floating-point numbers, no NaN, bounded size and depth."""
    if len(data) > JSON_LIMIT:
        raise NotACertificate(f"certificate.json is larger than {JSON_LIMIT} bytes")
    if (
        45 * data.count(b",") + 64 * data.count(b"[") + 232 * data.count(b"{")
        > JSON_HELD
    ):  # numbers, lists, objects
        raise NotACertificate("certificate.json has too many values")

    def unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
        result = dict(pairs)
        if len(result) != len(pairs):
            raise NotACertificate("certificate.json has a duplicate key")
        return result

    def no_float(text: str) -> object:
        raise NotACertificate(
            f"certificate.json has the number {text[:40]!r}; only integers are exact"
        )

    before = sys.getrecursionlimit()
    try:
        sys.setrecursionlimit(
            min(before, NESTED)
        )  # where other libraries raise it, Python's parser overruns its stack
        return json.loads(
            data.decode("utf-8"),
            object_pairs_hook=unique,
            parse_float=no_float,
            parse_constant=no_float,
        )
    except (UnicodeDecodeError, ValueError, RecursionError) as error:
        raise NotACertificate(f"certificate.json can't be read: {error}") from None
    finally:
        sys.setrecursionlimit(before)


# What TransformerLens state dicts carry beside parameters: the causal mask, and what a masked score becomes.
_BUFFERS = re.compile(r"blocks\.[0-9]+\.attn\.(mask|IGNORE)")

# Every value of these types is a float64, exactly.
_DTYPES: dict[str, tuple[str, Callable[[np.ndarray], np.ndarray]]] = {
    "F64": ("<f8", lambda a: a),
    "F32": ("<f4", lambda a: a),
    "F16": ("<f2", lambda a: a),
    "BF16": ("<u2", lambda a: (a.astype(np.uint32) << 16).view(np.float32)),
}


def _entry(name: str, entry: Any, size: int) -> tuple[str, list[int], int, int]:
    """Type, shape and span of a tensor in a file whose data have that size; raises ValueError for anything else."""
    try:
        dtype, shape = entry["dtype"], entry["shape"]
        begin, end = entry["data_offsets"]
        good = (
            len(entry) == 3
            and type(dtype) is str
            and type(shape) is list
            and len(shape) <= 8
        )
        if (
            good
            and all(type(v) is int and 0 <= v < 2**40 for v in [*shape, begin, end])
            and begin <= end <= size
        ):
            return dtype, shape, begin, end
    except (TypeError, KeyError, ValueError):
        pass  # no object with these three, or no pair of numbers
    raise ValueError(
        f"tensor {name!r} lies outside the file, or its entry is malformed"
    )


def _tensor(name: str, dtype: str, shape: list[int], data: bytes) -> np.ndarray:
    """The tensor's float64 numbers; raises ValueError where they don't fill its shape, or are not finite."""
    if dtype not in _DTYPES:
        raise ValueError(
            f"tensor {name!r} has type {dtype!r}; use one of {', '.join(_DTYPES)}"
        )
    code, convert = _DTYPES[dtype]
    if prod(shape) * np.dtype(code).itemsize != len(data):
        raise ValueError(
            f"tensor {name!r}: shape {shape} doesn't fill its {len(data)} bytes"
        )
    values = convert(np.frombuffer(data, code)).astype(np.float64).reshape(shape)
    if not np.isfinite(values).all():
        where = np.argwhere(~np.isfinite(values))[0].tolist()
        raise ValueError(
            f"tensor {name!r} holds {values[tuple(where)]} at {where}; weights must be finite"
        )
    return values


def read_weights(data: bytes) -> dict[str, np.ndarray]:
    """Tensors of a safetensors file as float64, exactly, but for known buffers. Raises ValueError, saying what is
    wrong, for NaN and infinity, for overlapping, missing and left-over bytes, and for a mask that isn't causal."""
    length = int.from_bytes(data[:8], "little")
    if len(data) < 8 or length > min(HEADER_LIMIT, len(data) - 8):
        raise ValueError(
            f"not a safetensors file: {len(data)} bytes with a header of {length}"
        )
    try:
        header = read_json(data[8 : 8 + length])
    except NotACertificate as error:
        raise ValueError(
            f"not a safetensors file: {str(error).replace('certificate.json', 'its header')}"
        ) from None
    body = data[8 + length :]
    tensors = {}
    spans = []
    for name, entry in header.items() if type(header) is dict else [("header", header)]:
        if name == "__metadata__":
            continue
        dtype, shape, begin, end = _entry(name, entry, len(body))
        spans.append((begin, end))
        if _BUFFERS.fullmatch(name):
            from mechverify.kernel.core.buffers import (
                need_causal,
            )  # only where a file has some

            need_causal(name, _DTYPES, dtype, shape, body[begin:end])
        else:
            tensors[name] = _tensor(name, dtype, shape, body[begin:end])
    spans.sort()
    if any(
        a[1] != b[0]
        for a, b in zip([(0, 0), *spans], [*spans, (len(body), 0)], strict=True)
    ):
        raise ValueError("the tensors don't fill the file exactly")
    return tensors
