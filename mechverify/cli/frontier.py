"""`mechverify frontier`."""

import os
from glob import glob
from pathlib import Path
from typing import Annotated

import typer

from mechverify.cli.options import known_semantics, parameters
from mechverify.cli.terminal import EXIT, INTERRUPTED, err, out, stop, wide


def frontier(
    claims: Annotated[list[Path], typer.Argument(help="Claim files, about accuracy.")],
    parameter: Annotated[
        list[str] | None,
        typer.Option("-p", help="A parameter of the claims, as name=value."),
    ] = None,
    weights: Annotated[
        list[str] | None,
        typer.Option(
            help='Models: a file, a folder, or a quoted pattern; gives "-p weights=".'
        ),
    ] = None,
    strategy: Annotated[
        list[str] | None,
        typer.Option(
            help="A strategy's name, or a file of your own; by default all but brute."
        ),
    ] = None,
    out_dir: Annotated[
        Path,
        typer.Option("--out", help="The folder for tables, picture, certificates."),
    ] = Path("frontier"),
    jobs: Annotated[int, typer.Option(min=1, help="Processes.")] = os.cpu_count() or 1,
    semantics: Annotated[str, typer.Option(help="real or float32.")] = "real",
) -> None:
    """Proof strategies over models: what each proves, and what it costs. Goes on where an earlier run stopped."""
    from mechverify.claims import ClaimError
    from mechverify.provers.accuracy.strategies import DEFAULT
    from mechverify.provers.frontier import Row, plan, stored
    from mechverify.report.frontier import terminal
    from mechverify.report.measure import measure
    from mechverify.report.progress import Reporter

    known_semantics(semantics)
    try:
        tasks = plan(
            claims,
            parameters(parameter or []),
            _files(weights or []),
            strategy or DEFAULT,
            semantics,
        )
    except ClaimError as error:
        stop(str(error))
    left = sum(stored(out_dir, task) is None for task in tasks)
    try:
        with Reporter(err) as reporter:

            def told(row: Row, missing: int) -> None:
                nonlocal left
                left = missing
                reporter(
                    f"{row.strategy} on {Path(row.weights).name}, {missing} to go",
                    1 - missing / len(tasks),
                )

            rows, known, points = measure(tasks, out_dir, jobs, told)
    except KeyboardInterrupt:
        done = f"{len(tasks) - left} of {len(tasks)} rows are in {out_dir}"
        stop(f"interrupted; {done}: the same command goes on", INTERRUPTED)
    except OSError as error:
        stop(f"--out {out_dir}: {error.filename}: {error.strerror}")
    for table in terminal(points):
        wide().print(table)
    how = ", ".join(sorted({truth.how for truth in known.values()}))
    out.print(
        f"* on the front; true accuracy: {how}; tables and picture: {out_dir}/frontier.*",
        markup=False,
        soft_wrap=True,
    )
    for row in rows:
        if row.reason is not None:
            err.print(
                f"{row.strategy} on {row.weights}: {row.reason}",
                style="red",
                markup=False,
                soft_wrap=True,
            )
    raise typer.Exit(0 if points else EXIT["UNKNOWN"])


def _files(patterns: list[str]) -> list[Path]:
    """The models that files, folders and patterns name, each once, numbers in names in their order."""
    from mechverify.report.frontier import natural

    found: list[Path] = []
    for text in patterns:
        path = Path(text)
        if path.is_dir():
            some = list(path.glob("*.safetensors"))
        elif path.is_file():
            some = [path]
        else:
            some = [Path(name) for name in glob(text)]
        if not some:
            stop(
                f"--weights {text}: no such file, no folder with .safetensors files, and no pattern that fits any"
            )
        found += sorted(some, key=lambda p: natural(str(p)))
    return list(dict.fromkeys(found))
