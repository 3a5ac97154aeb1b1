"""`mechverify show`."""

from pathlib import Path
from typing import Annotated

import typer

from mechverify.cli.checked import checked_file
from mechverify.cli.options import Limit
from mechverify.cli.terminal import out, print_theorem


def show(
    certificate: Path,
    graph: Annotated[
        bool,
        typer.Option(
            "--graph", help="The graph as formulas, a node a line, and nothing else."
        ),
    ] = False,
    limit: Limit = None,
) -> None:
    """The theorem in words, its axioms, its proof and its cost (after checking it)."""
    from mechverify.kernel.statement.sentence import listing
    from mechverify.report.tree import outline, terminal

    checked = checked_file(certificate, limit)
    theorem = checked.theorem
    if graph:
        for line in listing(theorem).lines():
            print(line)
        return
    print_theorem(theorem, theorem.verdict)
    out.print(terminal(outline(checked.data, theorem)))
