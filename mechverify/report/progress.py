"""Progress on the terminal for work that takes over two seconds."""

import time
from typing import Any

from rich.console import Console

QUIET, INTERVAL = (
    2.0,
    5.0,
)  # seconds before the first line, and between lines where there is no terminal


class Reporter:
    """Call it with what is being done and how much of it is done (0 to 1, or None)."""

    def __init__(self, console: Console):
        self.console = console
        self.start = self.last = time.monotonic()
        self.bar = _bar(console) if console.is_terminal else None

    def __enter__(self) -> "Reporter":
        if self.bar:
            self.task = self.bar.add_task("", total=1.0)
            self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.bar:
            self.bar.stop()

    def __call__(self, what: str, share: float | None) -> None:
        if self.bar:
            self.bar.update(
                self.task,
                description=what,
                completed=share or 0.0,
                total=None if share is None else 1.0,
            )
            return
        now = time.monotonic()
        if now - self.start > QUIET and now - self.last > INTERVAL:
            self.last = now
            done = "" if share is None else f"  {share:.0%}"
            self.console.print(
                f"{now - self.start:5.0f} s  {what}{done}", markup=False, soft_wrap=True
            )


def _bar(console: Console) -> Any:
    """rich.progress takes a while to load, for nothing where there is no terminal."""
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    description = TextColumn("{task.description}", markup=False)
    columns = description, BarColumn(), TimeElapsedColumn()
    return Progress(*columns, console=console, transient=True)
