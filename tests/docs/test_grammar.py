"""The operations' part of the file format's description is what the kernel's table says."""

import json

from benchmarks import grammar
from mechverify.kernel.core.operations import OPERATIONS
from mechverify.kernel.core.operations.concatenation import Concat
from tests.kernel.test_operations import plant


def test_the_page_is_of_the_present_table():
    text = grammar.PAGE.read_text(encoding="utf-8")
    assert grammar.page(text) == text, "python -m benchmarks.grammar"


def test_the_schema_is_of_the_present_table():
    document = json.loads(grammar.SCHEMA.read_text(encoding="utf-8"))
    assert grammar.schema(document) == document, "python -m benchmarks.grammar"


def test_a_new_row_is_missed(monkeypatch):
    plant(monkeypatch, OPERATIONS, "unheard_of", Concat())
    monkeypatch.setattr(grammar, "LISTED", [*grammar.LISTED, "unheard_of"])
    text = grammar.PAGE.read_text(encoding="utf-8")
    document = json.loads(grammar.SCHEMA.read_text(encoding="utf-8"))
    assert grammar.page(text) != text and grammar.schema(document) != document
