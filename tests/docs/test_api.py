"""The page of names is made of the docstrings, and has all of them."""

import re
import runpy

import mechverify
from tests.docs.pages import ROOT

MADE = runpy.run_path(str(ROOT / "docs" / "api.py"))


def test_the_page_is_made_of_the_docstrings():
    assert (ROOT / "docs" / "api.md").read_text() == MADE["page"](), "run python docs/api.py"


def test_every_exported_name_has_an_entry_that_says_something():
    listed = [name for names in MADE["GROUPS"].values() for name in names.split()]
    assert sorted(listed) == sorted(mechverify.__all__)
    text = (ROOT / "docs" / "api.md").read_text()
    for name in listed:
        body = re.search(rf"^### {name}\n(.*?)(?=^##|\Z)", text, re.M | re.S)[1]
        assert len(re.sub(r"```.*?```", "", body, flags=re.S).split()) >= 4, f"{name} has no docstring"
