"""One self-contained page about checked certificates: no script, and nothing from the network.

The words are the kernel's statement, escaped; what a certificate's author says, and nobody checked, stands apart.
"""

from collections.abc import Sequence
from contextlib import suppress
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, version
from importlib.resources import files
from itertools import groupby
from pathlib import Path
from typing import Any

from jinja2 import Environment
from markupsafe import Markup

from mechverify.files import write
from mechverify.kernel.core.errors import Rejected
from mechverify.kernel.core.words import scientific
from mechverify.kernel.statement.common import Rows, Statement
from mechverify.kernel.statement.sentence import state
from mechverify.report import mathematics
from mechverify.report.checked import Checked, names
from mechverify.report.figures import pictures
from mechverify.report.latex import theorem as in_latex
from mechverify.report.statement import proof
from mechverify.report.style import inline
from mechverify.report.tree import outline
from mechverify.verdict import Verdict

APART = ("assumed", "the file says", "axiom")  # labels that stand in lists of their own
LONG = 400  # characters of a claim that is folded away
HEADINGS = {  # of the pictures, in their order
    "Margins over the domain": ("cells", "bounds", "map", "margins"),
    "Inside the model": ("attention", "values"),
}


def write_html(folder: Path, checked: Sequence[Checked]) -> Path:
    """Write `folder`/index.html; return its path."""
    items = [
        _item(i + 1, name, one)
        for i, (name, one) in enumerate(zip(names(checked), checked, strict=True))
    ]
    found = _fronts(checked)
    title = (
        f"{len(items)} theorems" if len(items) > 1 else f"A theorem: {items[0]['name']}"
    )
    environment = Environment(autoescape=True)
    environment.filters["alike"] = _alike
    template = environment.from_string(
        files("mechverify.report").joinpath("page.html").read_text("utf-8")
    )
    text = template.render(items=items, fronts=found, title=title, version=_version())
    folder.mkdir(parents=True, exist_ok=True)
    page = folder / "index.html"
    write(page, text.encode("ascii", "xmlcharrefreplace"))
    return page


def _version() -> str:
    """That of the installed package; nothing in a tree that isn't installed."""
    try:
        return version("mechverify")
    except PackageNotFoundError:
        return ""


def _alike(rows: Sequence[tuple[str, str]]) -> list[tuple[str, list[str]]]:
    """Neighbours of one label together."""
    return [
        (k, [text for _, text in of]) for k, of in groupby(rows, lambda row: row[0])
    ]


def _item(i: int, name: str, checked: Checked) -> dict[str, Any]:
    theorem = checked.theorem
    statement = state(theorem)
    drawn = {
        p.name: _picture(f"c{i}-{p.name}", p.caption, p.alt, p.figure)
        for p in pictures(checked)
    }
    return {
        "id": f"c{i}",
        "name": name,
        "verdict": theorem.verdict,
        "seconds": f"{checked.seconds:.2f}",
        "size": len(checked.data),
        "sha256": sha256(checked.data).hexdigest(),
        "proved": _briefly(statement),
        "operations": scientific(theorem.kernel_ops),
        "long": len(statement.claim) > LONG,
        "mathml": Markup(mathematics.mathml(mathematics.claim(statement))),
        "latex": in_latex(name, statement),
        "theorem": [row for row in statement.rows() if row[0] not in APART],
        "axioms": [row for row in statement.rows() if row[0] in ("axiom", "assumed")],
        "unsaid": [row for row in statement.rows() if row[0] == "the file says"],
        "pictures": [
            (heading, [drawn[p] for p in of if p in drawn])
            for heading, of in HEADINGS.items()
        ],
        "examples": statement.examples,
        "explained": _explained(checked),
        "tree": outline(checked.data, theorem),
        "cost": proof(theorem),
        "cost_pictures": [drawn["cost"]] if "cost" in drawn else [],
    }


def _briefly(statement: Statement) -> Rows:
    """What was proved, in a line or two; where nothing was but that the claim is wrong, where it is."""
    proved = {label: text for label, text in statement.proved if label != "conditions"}
    if "proved width" in proved:
        del proved["entry 0" if "entry 1" in proved else "proved width"]
        return [*proved.items()][:1]
    return [*proved.items()][:2] or [*statement.examples][:1]


def _picture(prefix: str, caption: str, alt: str, figure: Any) -> dict[str, Any]:
    return {"svg": Markup(inline(figure, prefix, alt)), "caption": caption}


def _explained(checked: Checked) -> Sequence[tuple[str, str]]:
    """About the values at the first counterexample, where there is one and they don't overflow."""
    found = Verdict(checked.theorem.verdict, checked.theorem, checked.data)
    with suppress(Rejected, OverflowError):
        if (example := found.counterexample) is not None:
            return example.explain().rows
    return ()


def _fronts(checked: Sequence[Checked]) -> list[dict[str, Any]]:
    if len(checked) < 2:
        return []
    from mechverify.report.compare import fronts  # only where there is what to compare

    return [
        _picture(f"front{i}", caption, alt, figure)
        for i, (caption, alt, figure) in enumerate(fronts(checked))
    ]
