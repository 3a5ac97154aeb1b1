"""`mechverify init`."""

from pathlib import Path
from typing import Annotated

import typer

from mechverify.cli.terminal import out, stop


def init(
    model: Annotated[
        str,
        typer.Argument(help="A safetensors file, or FILE.py:name of a torch module."),
    ],
    out_file: Annotated[
        Path | None,
        typer.Option("--out", help="The claim file; by default claim_NAME.py."),
    ] = None,
    heads: Annotated[
        int | None, typer.Option(min=1, help="Of weights in GPT-2's names.")
    ] = None,
    shape: Annotated[
        str | None,
        typer.Option(help="Of a module's input, without the batch, as 3,8,8."),
    ] = None,
) -> None:
    """Look at a model and write a commented claim file about it, which runs."""
    from mechverify.claims import ClaimError
    from mechverify.files import write
    from mechverify.start import begin

    file, colon, name = model.rpartition(":")
    module = bool(colon) and file.endswith(".py")
    folder = Path(file).parent if module else Path()  # a claim imports what is beside
    target = out_file or folder / f"claim_{name if module else _word(model)}.py"
    if target.exists():
        stop(f"{target} is there already: give another file with --out, or remove it")
    try:
        sizes = tuple(map(int, shape.split(","))) if shape else None
    except ValueError:
        stop(f"--shape {shape}: write numbers with commas between, as 3,8,8")
    try:
        text = begin(model, heads=heads, shape=sizes).replace("THIS_FILE", str(target))
        write(target, text.encode())
    except ClaimError as error:
        stop(str(error))
    except OSError as error:
        stop(f"--out {target}: {error.strerror}; give a file in a folder that exists")
    for line in text.splitlines():
        if line.startswith("* "):
            out.print(line, markup=False, soft_wrap=True)
    out.print(f"{target}: read it, then run", markup=False, soft_wrap=True)
    out.print(
        f"  mechverify prove {target} --time-limit 60", markup=False, soft_wrap=True
    )


def _word(path: str) -> str:
    """A file's name as one of Python."""
    return "".join(c if c.isalnum() else "_" for c in Path(path).stem)
