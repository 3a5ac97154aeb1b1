"""What took too much, or was refused for what it took: benchmarks/campaigns/limits.py lists it, as it is now."""

import pytest

from benchmarks.board import Board
from benchmarks.campaigns import fuzz, limits


@pytest.mark.parametrize("example", limits.EXAMPLES, ids=lambda e: e.what)
def test_examples(example):
    assert example.run() == example.after


def test_a_time_limit_is_kept_by_a_file_that_does_not_end(tmp_path):
    """How long it takes is the campaign's affair."""
    seen = limits.prove(limits.CASES[0], 1, tmp_path)
    assert seen.verdict == "UNKNOWN" and not seen.fault


def test_fuzz(monkeypatch):
    board = Board("fuzz")
    monkeypatch.setattr(fuzz, "FEW", 60)
    fuzz.run(board, quick=True)
    assert len(board.rows) == 5 and all(row["met"] for row in board.rows), board.rows
