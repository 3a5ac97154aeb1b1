"""What every command prints to, how it ends, and the codes that it ends with: a contract (docs/cli.md)."""

import io
import os
from typing import TYPE_CHECKING, NoReturn

import typer
from rich.console import Console
from rich.markup import escape

if TYPE_CHECKING:
    from mechverify.kernel import Theorem


out, err = Console(highlight=False), Console(stderr=True, highlight=False)
EXIT = {"PROVED": 0, "BOUNDED": 0, "REFUTED": 1, "UNKNOWN": 3}
REJECTED, BAD_INPUT, INTERNAL, INTERRUPTED, UNREAD = 1, 2, 70, 130, 141
COLOURS = {"PROVED": "green", "REFUTED": "red", "BOUNDED": "cyan", "UNKNOWN": "yellow"}


def stop(message: str, code: int = BAD_INPUT) -> NoReturn:
    err.print(message, style="red", markup=False, soft_wrap=True)
    raise typer.Exit(code)


def wide() -> Console:
    """Where there is no terminal, tables aren't squeezed into one."""
    return out if out.is_terminal else Console(width=140, highlight=False)


def print_theorem(theorem: "Theorem", verdict: str) -> None:
    from mechverify.report.statement import lines

    if (
        not out.is_terminal
    ):  # nothing is wrapped, so that hashes can be found and copied
        for label, text in lines(theorem):
            print(f"{label:>16}  {verdict if label == 'verdict' else text}")
        return
    from rich.table import Table

    table = Table(box=None, show_header=False, padding=(0, 0, 0, 2))
    table.add_column(justify="right", style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for label, text in lines(theorem):
        if label == "verdict":
            table.add_row(label, f"[bold {COLOURS[verdict]}]{verdict}[/]")
        else:
            table.add_row(label, escape(text))
    out.print(table)


class Stdout(io.TextIOWrapper):
    """Where it can't be written, the exit code must not look like a verdict."""

    def write(self, text: str, /) -> int:
        try:
            return super().write(text)
        except OSError as error:
            self._give_up(error)

    def flush(self) -> None:
        try:
            super().flush()
        except OSError as error:
            self._give_up(error)

    def _give_up(self, error: OSError) -> NoReturn:
        os.dup2(os.open(os.devnull, os.O_WRONLY), self.fileno())  # for what is left
        if isinstance(error, BrokenPipeError):  # whoever reads it has enough
            raise SystemExit(UNREAD) from None
        told = "what was asked to be written is written all the same; make room"
        said = f"can't write to standard output: {error.strerror}; {told}"
        err.print(said, style="red", soft_wrap=True)
        raise SystemExit(BAD_INPUT) from None
