"""`mechverify circuits`."""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from mechverify.cli.options import parameters
from mechverify.cli.terminal import BAD_INPUT, EXIT, INTERRUPTED, err, out, stop


def circuits(
    file: Annotated[Path, typer.Argument(help="A file with a function `circuits`.")],
    parameter: Annotated[
        list[str] | None,
        typer.Option("-p", help="A parameter of the function, as name=value."),
    ] = None,
    minimal: Annotated[
        str, typer.Option(help="quasi, local, subset or cardinal.")
    ] = "subset",
    agrees: Annotated[
        str, typer.Option(help="argmax, or by how much entries differ at most.")
    ] = "argmax",
    out_dir: Annotated[
        Path, typer.Option("--out", help="The folder for tests and certificates.")
    ] = Path("circuits"),
    time_limit: Annotated[
        float | None, typer.Option(min=0, help="Seconds; the same call goes on.")
    ] = None,
) -> None:
    """A circuit that agrees with its model on every input, where none that is smaller in the sense of --minimal does.
    Goes on where an earlier run stopped."""
    from mechverify.claims import ClaimError
    from mechverify.claims.file import load_circuits
    from mechverify.errors import in_words
    from mechverify.kernel.core.errors import Rejected, Stopped
    from mechverify.provers import smallest
    from mechverify.provers.base import Budget
    from mechverify.provers.guard import Guard
    from mechverify.report.progress import Reporter

    def give_up(reason: str) -> None:
        """Where the search can't even be interrupted; its tests are kept."""
        print(reason, file=sys.stderr, flush=True)
        os._exit(EXIT["UNKNOWN"])

    budget = Budget()
    with Reporter(err) as reporter, Guard(budget, err, give_up) as guard:
        budget.progress, guard.step = reporter, f"reading {file}"
        try:
            reporter(guard.step, None)
            space = load_circuits(file, parameters(parameter or []))
            guard.step = "the search"
            found = smallest(
                space, minimal=minimal, agrees=agrees, folder=out_dir,
                time_limit=time_limit, budget=budget,
            )  # fmt: skip
        except ClaimError as error:
            stop(str(error), INTERRUPTED if budget.interrupted else BAD_INPUT)
        except Rejected as error:
            stop(in_words(f"the claim can't be checked: {error}"))
        except Stopped:
            stop(guard.reason, INTERRUPTED if budget.interrupted else BAD_INPUT)
        except OSError as error:
            stop(f"--out {out_dir}: {error.strerror or error}")
    for label, text in found.lines(len(space.names)):
        out.print(f"{label:>16}  {text}", markup=False, soft_wrap=True)
    raise typer.Exit(0 if not found.open else EXIT["UNKNOWN"])
