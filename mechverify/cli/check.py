"""`mechverify check`."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mechverify.cli.checked import checked_file
from mechverify.cli.options import Json, Limit
from mechverify.cli.terminal import REJECTED, out, print_theorem, stop

if TYPE_CHECKING:
    from mechverify.kernel import Theorem


def check(
    certificate: Annotated[Path | None, typer.Argument()] = None,
    weights: Annotated[
        Path | None, typer.Option(help="The weights that the claim should speak of.")
    ] = None,
    exact: Annotated[
        bool,
        typer.Option("--exact", help="In exact rationals: slow, and without ieee754."),
    ] = False,
    forbid: Annotated[
        list[str] | None,
        typer.Option(help="Reject if the theorem rests on this axiom."),
    ] = None,
    limit: Limit = None,
    json_: Json = False,
    about: Annotated[
        bool,
        typer.Option(
            "--about", help="What of the kernel is trusted (of a file, or whole)."
        ),
    ] = False,
) -> None:
    """Run the kernel alone. Exit code 0: accepted, 1: rejected, 2: not a certificate, 3: not checked, by --limit."""
    if about:
        from mechverify.report.about import about as describe
        from mechverify.report.about import about_one

        if certificate is not None:
            if json_ or weights is not None:
                stop(
                    "--about prints a table, and compares no weights: ask for it without --json and --weights"
                )
            said, code = about_one(certificate, exact, forbid or [], limit)
            out.print(said, markup=False, soft_wrap=True, end="")
            raise typer.Exit(code)
        out.print(describe(), markup=False, soft_wrap=True)
        return
    if certificate is None:
        stop("which certificate? mechverify check FILE")
    from mechverify.kernel.check import AXIOMS

    for axiom in forbid or []:
        if axiom not in AXIOMS:
            stop(f"--forbid {axiom}: unknown axiom; known: {', '.join(AXIOMS)}")
    checked = checked_file(certificate, limit, exact=exact, forbid=forbid or [])
    theorem, seconds = checked.theorem, checked.seconds
    if weights is not None:
        _same_weights(theorem, weights)
    if json_:
        from mechverify.report.result import as_json

        verdict, name = theorem.verdict, str(certificate)
        print(json.dumps(as_json(theorem, verdict, name, None, seconds, [])))
        return
    out.print("ACCEPTED", style="green")
    print_theorem(theorem, theorem.verdict)
    out.print(f"{'time':>16}  check {seconds:.2f} s")


def _same_weights(theorem: "Theorem", weights: Path) -> None:
    import hashlib

    try:
        digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    except OSError as error:
        stop(f"can't read {weights}: {error.strerror}")
    if digest != theorem.claim.weights_sha256:
        stop(
            f"REJECTED: the theorem speaks of other weights than {weights} (SHA-256 differs)",
            REJECTED,
        )
