"""Every lemma of docs/soundness has its parts, and page, kernel and planted faults name the same ones."""

import ast
import re

import pytest

from tests.docs.pages import ROOT
from tests.mutants.faults import FAULTS, LEMMAS

KERNEL = ROOT / "mechverify" / "kernel"
PAGES = {page: page.read_text() for page in sorted((ROOT / "docs" / "soundness").glob("*.md"))}
SECTIONS = {
    number: body
    for text in PAGES.values()
    for number, body in re.findall(r"^## ([A-Z]\d+) [^\n]*\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
}
PARTS = ("**Statement.** ", "**Argument.** ", "* *Code*: `", "* *Tests*: `", "* *Planted faults*: ", "* *Axioms*: ")


def listed(number: str, part: str) -> list[str]:
    """The names in code quotes of one line of a lemma."""
    line = re.search(rf"^\* \*{part}\*: (.*)$", SECTIONS[number], re.MULTILINE)
    return re.findall(r"`([^`]+)`", line[1]) if line else []


def cited(text: str) -> set[str]:
    """Numbers after the word, as in "Lemmas C1, C2 (page); F3 (page)"."""
    found = re.findall(r"[Ll]emmas? ((?:[A-Z]\d+|, |; | and | to | \([\w./]+\))+)", text)
    return {number for run in found for number in re.findall(r"\b[A-Z]\d+\b", run)}


def docstrings() -> str:
    nodes = [n for path in KERNEL.rglob("*.py") for n in ast.walk(ast.parse(path.read_text()))]
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef)
    return "\n".join(ast.get_docstring(n) or "" for n in nodes if isinstance(n, documented))


def test_numbers_are_unique_and_run_without_gaps_on_one_page():
    for text in PAGES.values():
        numbers = re.findall(r"^## ([A-Z])(\d+) ", text, re.MULTILINE)
        assert len({letter for letter, _ in numbers}) == 1
        assert [int(n) for _, n in numbers] == list(range(1, len(numbers) + 1))
    letters = [re.search(r"^## ([A-Z])\d+ ", text, re.MULTILINE)[1] for text in PAGES.values()]
    assert len(set(letters)) == len(letters)


@pytest.mark.parametrize("number", SECTIONS)
def test_a_lemma_has_its_parts(number):
    places = [SECTIONS[number].find(part) for part in PARTS]
    assert min(places) >= 0 and places == sorted(places), dict(zip(PARTS, places, strict=True))
    source = "\n".join(path.read_text() for path in KERNEL.rglob("*.py"))
    for name in listed(number, "Code"):
        assert re.search(rf"^ *(def|class) {name}\b", source, re.MULTILINE), name
    for name in listed(number, "Tests"):
        assert (ROOT / name).exists(), name


def test_the_kernel_cites_every_lemma_and_no_other():
    assert cited(docstrings()) == set(SECTIONS)
    comments = "\n".join(path.read_text() for path in KERNEL.rglob("*.py"))
    assert cited(comments) <= set(SECTIONS)


def test_docs_and_tests_cite_no_unknown_lemma():
    for folder in ("docs", "tests", "benchmarks", "mechverify"):
        for path in (p for ending in ("*.py", "*.md") for p in (ROOT / folder).rglob(ending)):
            if path.name != "test_lemmas.py":
                assert cited(path.read_text()) <= set(SECTIONS), path


def test_faults_and_pages_agree():
    assert set(LEMMAS) == {fault.rule for fault in FAULTS}, "tests/mutants/faults.py: LEMMAS has a row for each rule"
    pages = {rule: tuple(n for n in SECTIONS if rule in listed(n, "Planted faults")) for rule in LEMMAS}
    assert {rule: set(numbers) for rule, numbers in pages.items()} == {r: set(n) for r, n in LEMMAS.items()}
    named = {rule for number in SECTIONS for rule in listed(number, "Planted faults")}
    assert named == set(LEMMAS)


def test_the_tests_that_notice_a_fault_are_named():
    """A rule's fault is noticed by a test that one of its lemmas names."""
    for fault in FAULTS:
        named = {test for number in LEMMAS[fault.rule] for test in listed(number, "Tests")}
        assert set(fault.files) <= named, (fault.rule, fault.tests)


def test_the_index_lists_every_lemma():
    index = (ROOT / "docs" / "soundness.md").read_text()
    assert set(re.findall(r"\b([A-Z]\d+) [A-Za-z]", index.split("## ")[0])) == set(SECTIONS)
