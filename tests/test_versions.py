"""Old certificates: every kernel from version 2 on accepts this file, and says clearly what it can't read."""

import json
import re
from pathlib import Path

import pytest

from mechverify.kernel import NotACertificate, Rejected, check, container

GOLDEN = Path(__file__).parent / "data" / "version_2.cert"


@pytest.mark.parametrize("exact", [False, True])
def test_version_2_is_still_read(exact):
    theorem = check(GOLDEN.read_bytes(), exact=exact)
    assert theorem.right == (163, 163) and theorem.verdict == "PROVED" and theorem.rules["fold"] == 1


@pytest.mark.parametrize("version", [1, 99, "2", True, None])
def test_other_versions_are_named(version):
    contents = container.unpack(GOLDEN.read_bytes())
    document = json.loads(contents["certificate.json"])
    document["version"] = version
    other = container.pack({**contents, "certificate.json": json.dumps(document).encode()})
    with pytest.raises(NotACertificate, match=re.escape(f"version {version!r}; this kernel reads versions 2, 3")):
        check(other)


def test_a_claim_is_written_in_its_version():
    contents = container.unpack(GOLDEN.read_bytes())
    document = json.loads(contents["certificate.json"]) | {"version": 3}
    with pytest.raises(Rejected, match="version 2"):
        check(container.pack({**contents, "certificate.json": json.dumps(document).encode()}))
