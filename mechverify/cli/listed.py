"""`mechverify models` and `mechverify strategies`: what there is to choose from."""

from rich.markup import escape

from mechverify.cli.terminal import out, wide


def models() -> None:
    """The architectures that the kernel builds from weights by itself."""
    from rich.table import Table

    from mechverify.kernel.core.architectures import ARCHITECTURES

    table = Table("architecture", "what it is", box=None)
    for name, build in ARCHITECTURES.items():
        table.add_row(
            name, escape(" ".join((build.__doc__ or "").split("Raises")[0].split()))
        )
    out.print(table)


def strategies() -> None:
    """The proof strategies for claims about accuracy, from dear to cheap."""
    from rich.table import Table

    from mechverify.provers.accuracy.strategies import STRATEGIES

    for precondition in dict.fromkeys(row.precondition for row in STRATEGIES.values()):
        out.print(f"\n{precondition}:", style="dim", soft_wrap=True)
        table = Table(
            "strategy", "operations to check", "proves", box=None, padding=(0, 2)
        )
        for row in STRATEGIES.values():
            if row.precondition == precondition:
                table.add_row(row.name, row.complexity, row.postcondition)
        wide().print(table)
    out.print(
        "\nv: vocabulary, o: outputs, d: width, k: length of the sequence", style="dim"
    )
