"""The kernel and the second checkers on unions of boxes, and on shares with a condition on a box's tokens: neither
accepts what the other surely refuses."""

import copy
from collections import Counter

import numpy as np
import pytest

from tests.independent import bounds, boxes
from tests.independent.both import Both
from tests.independent.test_bounds import OURS as RANGES
from tests.independent.test_boxes import OURS as SHARES
from tests.independent.test_schema import VALIDATOR
from tests.rounds import few
from tests.soundness import forge
from tests.soundness import test_unions as made

LEAF, JUDGED, TOTAL = made.LEAF, {"rule": "relaxation", "to": 6, "signs": 2}, made.TOTAL
OPEN = {"rule": "open"}
joined, cut = made.joined, made.cut


def ranges(proof: dict | None = None, **thresholds) -> tuple[dict, bytes]:
    """Stated a little wider than they are, where the proof is another one."""
    document, weights = made.bounded(**thresholds)
    if proof is not None:
        found = made.range_of(document | {"proof": proof}, weights)
        document = made.stating(document | {"proof": proof}, found.low - 1, found.high + 1)
    return document, weights


def weaker(document: dict, weights: bytes) -> tuple[dict, bytes]:
    """With bounds that the second checker tells are true."""
    stated = document["conclusion"] = document["conclusion"] | {"verdict": "BOUNDED"}
    total = boxes.Claim(document["claim"], weights).total
    stated["right_at_least"] = str(max(0, int(stated["right_at_least"]) - 4 * total // 10))
    stated["right_at_most"] = str(min(total, int(stated["right_at_most"]) + 4 * total // 10))
    return document, weights


def guarded(over=None) -> tuple[dict, bytes]:
    return made.opened(made.prove(made.gated(made.GIVEN["few"][0], over)))


SPLIT = cut(0, -1.4, joined(LEAF), joined(LEAF, cut(1, 0.125, LEAF, LEAF)))
FILES = {
    "ranges": lambda: ranges(joined(LEAF, LEAF, LEAF)),
    "split above and below": lambda: ranges(SPLIT),
    "proved": lambda: ranges(at_most=50),
    "refuted": lambda: ranges(at_most=-10),
    "shares": lambda: weaker(*made.shared(within="1/20")),
    "shares of Gaussians": lambda: weaker(*made.shared(distribution=made.normal("1/4", 1), within="1/20")),
    "guard": lambda: weaker(*guarded()),
    "guard and union": lambda: weaker(*guarded(made.union(made.ball([0.0, 0.0], 0.5), made.ball([2.0, 1.0], 0.25)))),
}


def agree(document: dict, weights: bytes) -> tuple[str, bool]:
    counts = document["claim"]["kind"] == "share"
    both = Both(boxes.check, SHARES) if counts else Both(bounds.check, RANGES)
    return both.agree(forge.file(document, weights))


@pytest.mark.parametrize("name", few(list(FILES), 4))
def test_both_agree_on_files_with_one_change(name):
    document, weights = FILES[name]()
    VALIDATOR.validate(document | {"cost": "1"})
    assert agree(document, weights) == ("confirmed", True)
    rng, told = np.random.default_rng(len(name)), Counter()
    places = forge.places({k: v for k, v in document.items() if k not in ("cost", "format")})
    groups = [[p for p in places if which(p)] for which in (
        lambda p: p[:2] == ("claim", "union"), lambda p: p[0] == "proof",
        lambda p: p[:2] in (("claim", "domain"), ("claim", "given"), ("claim", "measure")),
        lambda p: p[0] not in ("proof",) and p[:2] not in (("claim", "graph"), ("claim", "union")))]  # fmt: skip
    groups = [g for g in groups if g]
    for trial in range(24):
        doc, some = copy.deepcopy(document), groups[trial % len(groups)]
        path = some[int(rng.integers(len(some)))]
        forge.spoil_leaf(doc, path, rng)
        try:
            told[agree(doc, weights)] += 1
        except AssertionError as error:
            raise AssertionError(f"{error}: {path} {forge.entry_at(doc, path)}") from None
    assert told["rejected", False] > 3


def test_both_refuse_what_the_page_refuses_of_ranges():
    document, weights = ranges(joined(LEAF, LEAF, LEAF))
    for proof, allowed in (
        (joined(LEAF, LEAF), False), (joined(LEAF, LEAF, LEAF, LEAF), False), (joined(), False), (joined(joined(LEAF, LEAF), LEAF, LEAF), True),
        (SPLIT, True), (cut(0, -1.0, joined(LEAF), cut(0, -0.5, joined(LEAF), joined(LEAF, LEAF))), False),
        ({"rule": "union"}, False), (joined(LEAF, LEAF, OPEN), False),
    ):  # fmt: skip
        wide = {"verdict": "BOUNDED", "low": [None, None], "high": [None, None]}
        found = agree(document | {"proof": proof, "conclusion": wide}, weights)
        assert found == (("confirmed", True) if allowed else ("rejected", False)), proof
    document, weights = ranges(at_most=-10)
    for x, allowed in (([0.75, 0.5], True), ([-1.0, 0.5], False), ([0.75, 0.5000001], False)):
        document["proof"]["inputs"][0][1] = [float(v).hex() for v in x]
        assert agree(document, weights) == (("confirmed", True) if allowed else ("rejected", False))


def test_both_refuse_what_the_page_refuses_of_shares():
    document, weights = made.shared(within="1/20")
    document["conclusion"] = {"verdict": "BOUNDED", "right_at_least": "0", "right_at_most": str(TOTAL)}
    all_of_it = joined(JUDGED, JUDGED, JUDGED)
    for proof, allowed in (
        (all_of_it, True), (joined(JUDGED, OPEN, JUDGED), True), (JUDGED, False), (OPEN, False), (cut(0, 1.5, JUDGED, JUDGED), False),
        (joined(JUDGED, JUDGED), False), (cut(0, -0.5, joined(JUDGED), joined(OPEN, JUDGED)), True), ({"rule": "faces", "faces": [OPEN] * 4}, False),
    ):  # fmt: skip
        found = agree(document | {"proof": proof}, weights)
        assert found == (("confirmed", True) if allowed else ("rejected", False)), proof
    document["proof"] = all_of_it
    one, half = (1.0).hex(), (0.5).hex()
    for k, corners in (
        (0, [["0x0.0p+0", (-(2.0**-60)).hex()], [one, one]]),
        (1, [[half, "0x0.0p+0"], [one, half]]),
        (2, [[one, half], [one, half]]),
    ):
        doc = copy.deepcopy(document)
        doc["claim"]["union"][k] = corners
        assert agree(doc, weights)[1] == (k == 0), (
            corners
        )  # a little lower it meets no other; one overlaps, one is flat
    for schema_breaks in ({"union": []}, {"union": [[[one], [one], [one]]]}, {"union": 1}):
        assert not VALIDATOR.is_valid(document | {"cost": "1", "claim": document["claim"] | schema_breaks})


def test_neither_accepts_more_than_is_true():
    document, weights = FILES["guard and union"]()
    task = boxes.Claim(document["claim"], weights)
    parts = [task.shares(box) for box in task.union]
    low, high = (sum(ends) for ends in zip(*parts, strict=True))
    assert high - low < task.total / 2
    for change in ({"right_at_least": str(int(high) + 2), "right_at_most": str(task.total)},
                   {"right_at_least": "0", "right_at_most": str(int(low) - 2)}):  # fmt: skip
        doc = document | {"conclusion": document["conclusion"] | change}
        assert agree(doc, weights) == ("rejected", False)
