"""Files: one way to write a certificate, and no way for a weights file to lie."""

import json
import struct
import sys
import zipfile
from io import BytesIO

import numpy as np
import pytest
import torch
from safetensors.torch import save

from mechverify.kernel import NotACertificate, Rejected, check
from mechverify.kernel.core import container
from mechverify.kernel.core.container import pack, read_json, read_weights, unpack

CONTENTS = {"certificate.json": b'{"a":1}', "weights.safetensors": b"weights"}


def test_ordinary_tools_can_open_it():
    with zipfile.ZipFile(BytesIO(pack(CONTENTS))) as archive:
        assert archive.testzip() is None
        assert {name: archive.read(name) for name in archive.namelist()} == CONTENTS


def test_every_changed_byte_is_noticed():
    data = pack(CONTENTS)
    assert unpack(data) == CONTENTS
    inside = [data.index(content) for content in CONTENTS.values()]
    for i in range(len(data)):
        changed = data[:i] + bytes([data[i] ^ 1]) + data[i + 1 :]
        with pytest.raises(NotACertificate):
            unpack(changed)
    for changed in (data + b"x", b"x" + data, data[:-1], b"", b"PK", data[: inside[1]]):
        with pytest.raises(NotACertificate):
            unpack(changed)


def test_a_zip_written_otherwise_is_refused():
    for compression in (zipfile.ZIP_DEFLATED, zipfile.ZIP_STORED):
        buffer = BytesIO()
        with zipfile.ZipFile(buffer, "w", compression) as archive:
            for name, content in CONTENTS.items():
                archive.writestr(name, content)
        with pytest.raises(NotACertificate):
            unpack(buffer.getvalue())


@pytest.mark.parametrize(
    "text",
    ['{"a":1,"a":1}', '{"a":1.0}', '{"a":1e3}', '{"a":NaN}', '{"a":-Infinity}', "[" * 100_000, '{"a":' * 5_000,
     '{"a":' + "9" * 10_000 + "}", "", "\xff", "{}x"],
    ids=["duplicate", "float", "exponent", "nan", "infinity", "deep list", "deep object", "long", "empty", "latin",
         "tail"],
)  # fmt: skip
def test_json_that_could_be_read_in_two_ways_is_refused(text):
    with pytest.raises(NotACertificate):
        read_json(text.encode("latin-1"))


def test_all_floating_types_are_exact():
    values = torch.tensor([1.5, -0.0, 2.0**-14, 3.140625])
    tensors = {str(t): values.to(t) for t in (torch.float64, torch.float32, torch.float16, torch.bfloat16)}
    for name, read in read_weights(
        save(
            {
                **tensors,
                "blocks.0.attn.mask": torch.ones(3, 3).tril() > 0,
                "blocks.0.attn.IGNORE": torch.tensor(-torch.inf),
            }
        )
    ).items():
        np.testing.assert_array_equal(read, tensors[name].double().numpy())
        assert np.signbit(read[1])


CAUSAL = torch.ones(4, 4).tril()
BUFFERS = {
    "a local window": ({"mask": CAUSAL.triu(-1) > 0}, "no causal mask .position 2 doesn't see position 0"),
    "bidirectional": ({"mask": CAUSAL >= 0}, "no causal mask .position 0 sees position 1"),
    "bytes": ({"mask": (2 * CAUSAL).to(torch.uint8)}, "no causal mask"),
    "not square": ({"mask": CAUSAL[:3] > 0}, "square"),
    "no axes": ({"mask": torch.tensor(True)}, "no causal mask|square"),
    "integers": ({"mask": CAUSAL.long()}, "don't fill"),
    "no mask at all": ({"IGNORE": torch.tensor(-5.0)}, "leaves masked scores a weight"),
    "not a number": ({"IGNORE": torch.tensor(torch.nan)}, "leaves masked scores a weight"),
}


@pytest.mark.parametrize("buffers, message", BUFFERS.values(), ids=BUFFERS.keys())
def test_a_mask_that_is_not_causal_is_refused(buffers, message):
    with pytest.raises(ValueError, match=message):
        read_weights(save({f"blocks.3.attn.{name}": value.contiguous() for name, value in buffers.items()}))


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.float32, torch.float64, torch.float16])
@pytest.mark.parametrize("ignore", [-torch.inf, -1e5])
def test_the_causal_mask_is_passed_over(dtype, ignore):
    mask = CAUSAL.to(dtype)
    if dtype == torch.float16:
        mask = mask[None, None]
    assert read_weights(save({"blocks.0.attn.mask": mask, "blocks.0.attn.IGNORE": torch.tensor(ignore)})) == {}


def header(entries: dict, body: bytes = b"") -> bytes:
    text = json.dumps(entries).encode()
    return struct.pack("<Q", len(text)) + text + body


LIES = {
    "empty": b"",
    "short": b"\0" * 7,
    "pickle": b"\x80\x02ccollections\n",
    "zip": b"PK\3\4" + b"\0" * 100,
    "header past the end": struct.pack("<Q", 2**60) + b"{}",
    "header no object": struct.pack("<Q", 2) + b"[]",
    "past the end": header({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}, b"\0" * 4),
    "huge shape": header({"a": {"dtype": "F32", "shape": [2**39, 2**39], "data_offsets": [0, 4]}}, b"\0" * 4),
    "negative": header({"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}}, b"\0" * 4),
    "boolean size": header({"a": {"dtype": "F32", "shape": [True], "data_offsets": [0, 4]}}, b"\0" * 4),
    "left over": header({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}, b"\0" * 8),
    "overlap": header({n: {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]} for n in "ab"}, b"\0" * 4),
    "unknown type": header({"a": {"dtype": "F8_E4M3", "shape": [4], "data_offsets": [0, 4]}}, b"\0" * 4),
    "integers": save({"a": torch.arange(3)}),
    "nan": save({"a": torch.tensor([1.0, float("nan")])}),
    "infinity": save({"a": torch.tensor([[1.0], [float("inf")]])}),
}


@pytest.mark.parametrize("data", LIES.values(), ids=LIES.keys())
def test_weights_files_that_lie_are_refused(data):
    with pytest.raises(ValueError, match=r"safetensors|tensor"):
        read_weights(data)


@pytest.mark.parametrize("data", [b"", b"{}", b"PK\3\4" + b"\0" * 60, pack({**CONTENTS, "certificate.json": b"[]"})])
def test_check_says_what_is_no_certificate(data):
    with pytest.raises(NotACertificate):
        check(data)


def test_versions_are_named():
    old = pack({**CONTENTS, "certificate.json": b'{"format":"mechverify-certificate","version":99}'})
    with pytest.raises(NotACertificate, match="version 99"):
        check(old)
    new = pack({**CONTENTS, "certificate.json": b'{"format":"mechverify-certificate","version":2}'})
    with pytest.raises(Rejected, match="claim"):
        check(new)
    assert tuple(CONTENTS) == container.MEMBERS


def test_deep_json_is_refused_whatever_the_recursion_limit():
    """torch raises the limit; the parser would overrun its stack."""
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(10**6)
    try:
        with pytest.raises(NotACertificate):
            container.read_json(b"[" * 200_000 + b"]" * 200_000)
        assert sys.getrecursionlimit() == 10**6
    finally:
        sys.setrecursionlimit(before)


def test_a_long_text_of_short_values_is_refused_before_it_is_read():
    """Each of these would take a hundred times the memory that it takes in the file."""
    for value in (b"{},", b"[],"):
        with pytest.raises(NotACertificate, match="too many values"):
            container.read_json(b"[" + value * 2**23 + b"0]")
    assert len(container.read_json(b"[" + b"12345678," * 2**20 + b"0]")) == 2**20 + 1
