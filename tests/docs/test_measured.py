"""The figures in the docs are those of the committed results."""

import json
import re
import shutil

import pytest

from benchmarks import tables
from tests.docs.pages import PAGES


def test_the_page_is_made_of_the_results():
    assert tables.PAGE.read_text() == tables.page(), "run python -m benchmarks.tables"


@pytest.fixture
def results(tmp_path):
    return shutil.copytree(tables.RESULTS, tmp_path / "results")


def edited(path, change) -> None:
    record = json.loads(path.read_text())
    change(record)
    path.write_text(json.dumps(record))


def test_another_figure_makes_another_page(results):
    def change(record):
        row = next(r for r in record["rows"] if "mean output width, linear" in r["what"])
        row["figure"] = "12.345678"

    edited(results / "bounds.json", change)
    assert "12.345678" in tables.page(results) and "12.345678" not in tables.page()


def test_a_missed_target_is_named(results):
    edited(results / "mechanisms.json", lambda record: record["rows"][0].update(met=False))
    what = json.loads((results / "mechanisms.json").read_text())["rows"][0]["what"]
    assert f"Missed: {what}." in tables.page(results)


def test_results_without_a_code_are_of_an_older_kernel(results):
    edited(results / "kernel.json", lambda record: record.pop("code", None))
    assert "Measured on an older kernel** by `python benchmarks/kernel.py`" in tables.page(results)
    edited(results / "kernel.json", lambda record: record.update(code="0123456789abcdef+"))
    assert "Measured on code `0123456789ab`, with changes that were not committed by" in tables.page(results)


def test_attacks_are_listed_by_part(results):
    rows = [{"what": "a", "met": True}, {"what": "b | c", "met": False}]
    parts = {"statements": {"code": "0123456789abcdef", "rows": rows}, "fuzz": {"rows": rows[:1]}}
    (results / "honesty.json").write_text(json.dumps(parts))
    page = tables.page(results)
    assert "| statements | Measured on code `0123456789ab` | 1 of 2 | b / c |" in page
    assert "| fuzz | **Measured on an older kernel** | 1 of 1 |  |" in page


def test_renamed_rows_are_an_error(results):
    def change(record):
        for row in record["rows"]:
            row["what"] = row["what"].replace("mean output width", "mean width")

    edited(results / "bounds.json", change)
    with pytest.raises(ValueError, match="no row fits"):
        tables.page(results)


def test_no_other_page_has_a_table_of_times():
    """A table's cell with a time, or a mean with its deviation, is a measurement."""
    for page in PAGES:
        if page != tables.PAGE:
            rows = [line for line in page.read_text().splitlines() if line.startswith("|")]
            assert not [r for r in rows if re.search(r"\d s \||± \.?\d", r)], page
