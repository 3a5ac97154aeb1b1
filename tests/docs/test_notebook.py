"""The notebook runs from top to bottom, and what its cells give shows itself richly.

Cells are executed as Jupyter does it, the last expression's value being the output, without its machinery.
"""

import ast
import json

from tests.docs.pages import ROOT, desk

NOTEBOOK = ROOT / "docs" / "notebook.ipynb"


def run(source: str, names: dict) -> object:
    tree = ast.parse(source)
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, str(NOTEBOOK), "exec"), names)
    return None if last is None else eval(compile(ast.Expression(last.value), str(NOTEBOOK), "eval"), names)


def test_the_notebook(tmp_path, capsys):
    book = json.loads(NOTEBOOK.read_text())
    assert book["nbformat"] == 4 and len({cell["id"] for cell in book["cells"]}) == len(book["cells"])
    assert NOTEBOOK.stat().st_size < 20_000, "kept small: no outputs"
    names: dict = {}
    with desk(tmp_path):
        cells = ["".join(cell["source"]) for cell in book["cells"] if cell["cell_type"] == "code"]
        shown = [run(source, names) for source in cells]
    html = [value._repr_html_() for value in shown if value is not None]
    assert len(html) == 6 and all(text.startswith("<table>") for text in html)
    for text, part in zip(
        html, ("4 positions", "Max(x0, x1, x2, x3)", "PROVED", "attn.pattern", "PROVED", "REFUTED"), strict=True
    ):
        assert part in text
    assert capsys.readouterr().out.startswith("[")
    assert all(not cell.get("outputs") for cell in book["cells"])
