"""Falsehoods that were found once, each kept with what was said before and what has to be said now."""

from collections.abc import Callable, Iterable
from typing import NamedTuple

from benchmarks.board import Board


class Example(NamedTuple):
    what: str
    before: str
    after: str
    run: Callable[[], str]  # what is seen now, which has to be `after`


def seen(board: Board, examples: Iterable[Example]) -> None:
    """A row of the board for each."""
    for example in examples:
        try:
            now = example.run()
        except Exception as error:  # an example that can't run is a miss, with its reason, and the others go on
            now = f"{type(error).__name__}: {error}"
        board.row(f"{example.what} (before: {example.before})", example.after, now, now == example.after)
