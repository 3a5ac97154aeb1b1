"""Old certificates: every kernel from version 2 on accepts these files, and says clearly what it can't read."""

import json
import re
from pathlib import Path

import pytest

from mechverify.certificate.write import announcing
from mechverify.kernel import NotACertificate, Rejected, check
from mechverify.kernel.check import LIMIT
from mechverify.kernel.core import container
from mechverify.kernel.core.errors import OverLimit, Stopped

DATA = Path(__file__).parent / "data"
GOLDEN, BOUNDS, COSTED, NAMED = (DATA / f"version_{n}.cert" for n in (2, 3, 4, 5))


def changed(path, **fields):
    contents = container.unpack(path.read_bytes())
    document = json.loads(contents["certificate.json"]) | fields
    text = json.dumps(document, separators=(",", ":"), sort_keys=True)
    return container.pack({**contents, "certificate.json": text.encode()})


@pytest.mark.parametrize("exact", [False, True])
def test_version_2_is_still_read(exact):
    theorem = check(GOLDEN.read_bytes(), exact=exact)
    assert theorem.right == (163, 163) and theorem.verdict == "PROVED" and theorem.rules["fold"] == 1


def test_version_3_is_still_read():
    """With lines and multipliers, in parts split at a node."""
    theorem = check(BOUNDS.read_bytes())
    assert theorem.verdict == "PROVED" and theorem.rules == {"split": 1, "farkas": 2}
    assert b'"node":' in BOUNDS.read_bytes() and b'"lines":[[' in BOUNDS.read_bytes()


def test_version_4_is_still_read():
    theorem = check(COSTED.read_bytes())
    assert theorem.verdict == "PROVED" and theorem.rules == {"split": 1, "farkas": 2}


def test_version_5_is_still_read():
    """With names of values, within a softmax as well, in parts split at a node. Made by

    torch.manual_seed(6)
    net = nn.Sequential(nn.Linear(17, 3), nn.Softmax(-1), nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 1)).eval()
    claim = Bounds(capture(net, torch.zeros(1, 17))["output"], over=ball(torch.zeros(17), 0.5), at_most=-0.379)
    NAMED.write_bytes(prove(claim).certificate)
    """
    theorem = check(NAMED.read_bytes())
    assert theorem.verdict == "PROVED" and theorem.rules == {"split": 3, "relaxation": 4}
    assert all(part in NAMED.read_bytes() for part in (b'"node":', b'"lines":[["', b".share", b'"multipliers":[['))


@pytest.mark.parametrize(("path", "version"), [(BOUNDS, 5), (COSTED, 5), (NAMED, 4)])
def test_a_proof_is_read_as_its_version_says(path, version):
    with pytest.raises(Rejected, match=r"known: |no value that the input decides"):
        check(changed(path, version=version, cost=None))


def test_numbers_are_no_names():
    """The rules' names alone made new, nodes of the rewritten graph are still not named by numbers."""
    contents = container.unpack(changed(COSTED, version=5))
    text = contents["certificate.json"].replace(b'"rule":"farkas"', b'"rule":"relaxation"')
    with pytest.raises(Rejected, match=r"expected text|no value that the input decides"):
        check(container.pack({**contents, "certificate.json": text}))


@pytest.mark.parametrize("version", [1, 99, "2", True, None])
def test_other_versions_are_named(version):
    with pytest.raises(NotACertificate, match=re.escape(f"version {version!r}; this kernel reads versions 2, 3, 4, 5")):
        check(changed(GOLDEN, version=version))


def test_a_claim_is_written_in_its_version():
    for path, other in ((GOLDEN, 3), (BOUNDS, 2)):
        with pytest.raises(Rejected, match=f"isn't written in version {other}"):
            check(changed(path, version=other))


@pytest.mark.parametrize("path", [GOLDEN, BOUNDS])
def test_a_certificate_announces_what_its_check_takes(path):
    unknown = changed(path, version=4, cost=None)
    theorem = check(unknown)
    told = announcing(unknown, theorem.work)
    assert check(told).work == theorem.work, "saying what it costs costs nothing"
    assert check(told, limit=theorem.work).work == theorem.work
    contents = container.unpack(told)
    spaced = json.dumps(json.loads(contents["certificate.json"]), indent=1).encode()
    assert check(container.pack({**contents, "certificate.json": spaced})).work == theorem.work
    for less in (theorem.work * 4 // 5 - 1, 0):  # a quarter more is allowed
        with pytest.raises(Rejected, match="units of work that it announces") as error:
            check(announcing(unknown, less))
        assert not isinstance(error.value, OverLimit)
        with pytest.raises(Rejected, match="units of work that it announces"):
            check(announcing(unknown, less), limit=10 * theorem.work)
    looks = []
    with pytest.raises(OverLimit, match=r"--limit allows more"):
        check(told, limit=theorem.work - 1, watch=lambda *done: looks.append(done))
    assert looks == [], "it is refused before any work"


def test_what_costs_more_than_the_default_is_checked_where_it_is_announced():
    """No file that `prove` writes needs --limit."""
    honest = changed(GOLDEN, version=4, cost=str(10**12))
    seen = []
    check(honest, watch=lambda work, allowed: seen.append((work, allowed)))
    assert seen[0] == (0, 1.25 * 10**12) and LIMIT < 10**12


@pytest.mark.parametrize("cost", [5, "-1", "1e9", "", "9" * 30, "01", [], True])
def test_a_cost_is_a_natural_number_of_a_possible_size(cost):
    with pytest.raises(Rejected):
        check(changed(GOLDEN, version=4, cost=cost))


def test_an_old_file_over_the_limit_is_not_called_wrong():
    with pytest.raises(OverLimit, match=r"in order; --limit allows more"):
        check(BOUNDS.read_bytes(), limit=1e6)


def test_whoever_watches_may_end_a_check():
    def watch(work, allowed):
        raise Stopped

    with pytest.raises(Stopped):
        check(COSTED.read_bytes(), watch=watch)


def test_versions_from_4_on_have_a_cost():
    with pytest.raises(Rejected, match="unknown fields"):
        check(changed(GOLDEN, cost="5"))
    contents = container.unpack(COSTED.read_bytes())
    document = json.loads(contents["certificate.json"])
    del document["cost"]
    with pytest.raises(Rejected, match="'cost' is missing"):
        check(container.pack({**contents, "certificate.json": json.dumps(document).encode()}))


def test_exact_arithmetic_fits_the_announcement():
    unknown = changed(GOLDEN, version=4, cost=None)
    told = announcing(unknown, check(unknown).work)
    assert check(told, exact=True).verdict == "PROVED"


@pytest.mark.parametrize("cost", ["\u00e9" * 20_000, 5, "5"])
def test_a_cost_that_is_none_buys_no_work(cost):
    """An old version has no field of that name; its text is counted, before any work, like all others."""
    contents = container.unpack(GOLDEN.read_bytes())
    document = json.loads(contents["certificate.json"]) | {"cost": cost}
    text = json.dumps(document, ensure_ascii=False).encode()
    seen = []
    with pytest.raises(OverLimit):
        check(container.pack({**contents, "certificate.json": text}), limit=100 * len(text),
              watch=lambda work, allowed: seen.append(work))  # fmt: skip
    assert seen == [0]


def test_the_limit_holds_in_exact_arithmetic():
    unknown = changed(GOLDEN, version=4, cost=None)
    announced = check(unknown).work
    told = announcing(unknown, announced)
    exactly = check(told, exact=True).work
    assert exactly > announced
    with pytest.raises(OverLimit, match="allows more"):
        check(told, exact=True, limit=(announced + exactly) / 2)
    assert check(told, exact=True, limit=exactly).verdict == "PROVED"
