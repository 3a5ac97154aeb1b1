"""Options that several commands have, and what is wrong with them."""

from typing import Annotated

import typer

from mechverify.cli.terminal import stop

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
Limit = Annotated[
    float | None,
    typer.Option(
        "--limit",
        help="Units of work (a nanosecond or two) that the check may cost; without it, what the file says.",
    ),
]


def known_semantics(name: str) -> None:
    from mechverify.kernel.core.semantics import SEMANTICS

    if name not in SEMANTICS:
        stop(f"--semantics {name}: unknown; choose {' or '.join(SEMANTICS)}")


def parameters(texts: list[str]) -> dict[str, str]:
    pairs = [text.partition("=") for text in texts]
    for (name, equals, _), text in zip(pairs, texts, strict=True):
        if not equals or not name:
            stop(f"-p {text}: write it as name=value")
    names = [name for name, _, _ in pairs]
    if len(set(names)) < len(names):
        stop(f"-p {max(names, key=names.count)}: given twice")
    return {name: value for name, _, value in pairs}
