"""A test of the tests: planted faults are noticed. A few here, all of them with `python -m tests.mutants.run`."""

import ast
from collections import Counter
from pathlib import Path

import pytest

from mechverify.kernel.rules import RULES
from tests.mutants.faults import FAULTS
from tests.mutants.run import ROOT, copy, noticed, planted
from tests.rounds import few


def test_every_fault_still_applies_and_every_rule_has_three():
    for fault in FAULTS:
        source = (ROOT / "mechverify" / "kernel" / fault.file).read_text(encoding="utf-8")
        ast.parse(planted(fault, source))
        assert fault.old != fault.new, fault
        assert all((ROOT / test).exists() for test in fault.files), fault
    counts = Counter(fault.rule for fault in FAULTS)
    assert min(counts.values()) >= 3 and set(counts) >= {*RULES["accuracy"], *RULES["bounds"], "split", "both", "cut"}


QUICK = (
    "test_rules.py",
    "test_semantics.py",
    "test_ratios.py",
    "test_linear.py",
    "test_nested.py",
)  # the quickest first


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("planted")
    copy(folder)
    return folder


@pytest.mark.parametrize("rule", few([*RULES["accuracy"], "split", "both", "float32", "linear", "point", "bounds"], 4))
def test_a_planted_fault_is_noticed(rule, project: Path):
    quick = [f for name in QUICK for f in FAULTS if f.rule == rule and f.tests.endswith(name)]
    assert noticed(quick[0], project)
