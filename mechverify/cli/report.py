"""`mechverify report`."""

from pathlib import Path
from typing import Annotated

import typer

from mechverify.cli.checked import checked_file
from mechverify.cli.options import Limit
from mechverify.cli.terminal import out, stop


def report(
    certificates: list[Path],
    html: Annotated[Path | None, typer.Option(help="A folder for the page.")] = None,
    latex: Annotated[
        Path | None, typer.Option(help="A file for tables and theorems.")
    ] = None,
    figures: Annotated[
        Path | None, typer.Option(help="A folder for the pictures, as PDF and PNG.")
    ] = None,
    limit: Limit = None,
) -> None:
    """Pages, tables and pictures of certificates, which are checked first."""
    if html is None and latex is None and figures is None:
        stop("say where to: --html FOLDER, --latex FILE, --figures FOLDER, or several")
    for option, folder in (("--html", html), ("--figures", figures)):
        if folder is not None and folder.exists() and not folder.is_dir():
            stop(f"{option} {folder}: a file; give a folder, to write into")
    checked = [checked_file(path, limit) for path in certificates]
    target = None
    try:
        if (target := html) is not None:
            from mechverify.report.html import write_html

            _told("report", write_html(html, checked))
        if (target := latex) is not None:
            from mechverify.report.latex import write_latex

            _told("table", write_latex(latex, checked))
        if (target := figures) is not None:
            from mechverify.report.figures import write_figures

            for path in write_figures(figures, checked):
                _told("figure", path)
    except OSError as error:
        where = error.filename or target
        stop(f"can't write {where}: {error.strerror}; give another place, or make room")


def _told(what: str, path: Path) -> None:
    from mechverify.kernel.core.texts import printable

    out.print(f"{what}: {printable(str(path))}", markup=False, soft_wrap=True)
