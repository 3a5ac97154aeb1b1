"""The command line, a module a command: prove, check, show, report, frontier and the rest.

Exit codes are a contract (docs/cli.md). Each command imports what it needs within, so that --help needs nothing.
"""

import io
import signal
import sys
import traceback
from typing import Any

import typer

from mechverify import STARTED
from mechverify.cli import (
    check,
    circuits,
    frontier,
    init,
    listed,
    prove,
    report,
    show,
)
from mechverify.cli.terminal import INTERNAL, Stdout

app = typer.Typer(
    add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False,
    help="State what a small network computes; get a theorem, a counterexample, or the tightest proved bound.",
)  # fmt: skip
for command in (
    init.init,
    prove.prove,
    check.check,
    show.show,
    report.report,
    frontier.frontier,
    circuits.circuits,
    listed.models,
    listed.strategies,
):
    app.command()(command)


def _terminate(number: int, frame: Any) -> None:
    """A scheduler's Ctrl-C, also in a background job, where a shell has SIGINT ignored."""
    handler = signal.getsignal(signal.SIGINT)
    (handler if callable(handler) else signal.default_int_handler)(signal.SIGINT, frame)


def main() -> None:
    signal.signal(signal.SIGTERM, _terminate)
    if isinstance(sys.stderr, io.TextIOWrapper):  # a file's name may be no text
        sys.stderr.reconfigure(errors="backslashreplace")
    if isinstance(sys.stdout, io.TextIOWrapper):
        encoding, buffered = sys.stdout.encoding, sys.stdout.line_buffering
        sys.stdout = Stdout(
            sys.stdout.detach(), encoding, "backslashreplace", None, buffered
        )
    try:
        app(obj=STARTED)
    except Exception:  # a defect of ours must not look like a refutation
        traceback.print_exc()
        sys.exit(INTERNAL)
