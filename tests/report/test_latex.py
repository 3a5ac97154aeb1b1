"""Tables and theorems in LaTeX: they are whole, and they compile."""

import shutil
import subprocess

import pytest

from mechverify.kernel.statement.sentence import state
from mechverify.report.latex import write_latex
from mechverify.report.mathematics import in_words
from tests.report import made
from tests.report.test_page import hostile

without_latex = pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no pdflatex on the path")
DOCUMENT = r"""\documentclass{article}
\usepackage{amsmath,booktabs,graphicx,siunitx}
\newtheorem{theorem}{Theorem}
\begin{document}
\input{theorems}
\end{document}
"""


def test_every_line_is_in_the_theorem_and_the_verdict_begins_it(kinds, tmp_path):
    for one in kinds.values():
        text = write_latex(tmp_path / "t.tex", [one]).read_text()
        statement = state(one.theorem)
        for label, words in (*statement.rows(), *statement.examples):
            if label not in ("verdict", "claim"):
                assert f"\\item[{label}] {in_words(words)}\n" in text
        assert f"\\sloppy\\textbf{{{statement.verdict}}}: " in text


def compiled(folder, checked) -> str:
    """The log of a document of these, in which no command was run and nothing was written beside."""
    write_latex(folder / "theorems.tex", checked)
    (folder / "main.tex").write_text(DOCUMENT)
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "-no-shell-escape", "main.tex"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, errors="replace", check=False)
    assert done.returncode == 0, done.stdout[-2_000:]
    assert {path.suffix for path in folder.iterdir()} == {".tex", ".aux", ".log", ".pdf"}
    return (folder / "main.log").read_text(errors="replace")


@without_latex
def test_it_compiles_and_fits(kinds, tmp_path):
    log = compiled(tmp_path, [*kinds.values()])
    assert "Missing character" not in log and "Overfull \\hbox" not in log


@without_latex
def test_what_authors_write_is_text(tmp_path):
    log = compiled(tmp_path, [made.checked(hostile(t), f"{t.replace('/', '|')}.cert") for t in made.HOSTILE])
    assert "(/etc/passwd" not in log and "Missing character" not in log
