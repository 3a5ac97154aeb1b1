"""A LaTeX table of theorems (booktabs and siunitx), and below it each theorem's sentence."""

from fractions import Fraction
from pathlib import Path

from mechverify.files import write
from mechverify.kernel import Theorem
from mechverify.kernel.core.counts import CountingTheorem
from mechverify.kernel.core.ranges import RangeTheorem
from mechverify.kernel.core.texts import printable
from mechverify.kernel.core.words import decimal, scientific, share
from mechverify.kernel.statement.common import Statement
from mechverify.kernel.statement.ranges import widths
from mechverify.kernel.statement.sentence import state
from mechverify.report.statement import brute_force_ops

HEAD = r"""% \usepackage{booktabs,siunitx}
\begin{tabular}{llllllrS[table-format=1.8]S[table-format=1.8]S[table-format=1.1e2]S[table-format=1.1e2]l}
\toprule
certificate & verdict & mechanism & margin & threshold & semantics & inputs & {share $\geq$} & {share $\leq$}
& {kernel ops} & {brute force} & weights \\
\midrule
"""
RANGES = r"""% \usepackage{booktabs,siunitx}
\begin{tabular}{lllllS[table-format=3.0]S[table-format=1.6]S[table-format=1.6]S[table-format=1.1e2]l}
\toprule
certificate & verdict & value & threshold & semantics & {entries} & {mean width} & {reached} & {kernel ops} & weights \\
\midrule
"""
TAIL = "\\bottomrule\n\\end{tabular}\n"
SHORT = 60  # characters of a cell
ESCAPES = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}",
           ">": r"\textgreater{}", "|": r"\textbar{}", '"': r"\textquotedbl{}",
           **{c: f"\\{c}" for c in "_&%#${}"}}  # fmt: skip


def write_latex(target: Path, checked: list[tuple[Path, Theorem, float]]) -> Path:
    rows, ranges, notes = [], [], []
    for path, theorem, _ in checked:
        statement = state(theorem)
        if isinstance(theorem, CountingTheorem):
            into, told = rows, _counting(theorem, statement)
        else:
            assert isinstance(theorem, RangeTheorem)
            into, told = ranges, _range(theorem, statement)
        name = escape(printable(path.name))
        cells = [
            name,
            theorem.verdict,
            *told,
            f"\\texttt{{{theorem.claim.weights_sha256[:12]}}}",
        ]
        into.append(" & ".join(cells) + " \\\\\n")
        notes.append(_note(path, statement))
    target.parent.mkdir(parents=True, exist_ok=True)
    tables = [
        head + "".join(body) + TAIL
        for head, body in ((HEAD, rows), (RANGES, ranges))
        if body
    ]
    write(target, "\n".join([*tables, "".join(notes)]).encode())
    return target


def _note(path: Path, statement: Statement) -> str:
    """The whole sentence."""
    said = "; ".join(
        f"{label}: {escape(text)}"
        for label, text in statement.rows()
        if label != "verdict"
    )
    name = escape(printable(path.name))
    return f"\n\\noindent{{\\footnotesize \\texttt{{{name}}}: {statement.verdict}; {said}.\\par}}\n"


def _counting(theorem: CountingTheorem, statement: Statement) -> list[str]:
    total, right = theorem.claim.total, theorem.right
    return [
        _short(statement.equals or statement.subject),
        _short(statement.margin or "--"),
        _short(statement.threshold or "--"),
        theorem.claim.semantics,
        f"\\num{{{scientific(total)}}}"
        if theorem.claim.by_example
        else "--",  # of a box, no inputs are counted
        share(right.low, total, up=False),
        share(right.high, total, up=True),
        scientific(theorem.kernel_ops),
        "--" if (brute := brute_force_ops(theorem)) is None else scientific(brute),
    ]


def _range(theorem: RangeTheorem, statement: Statement) -> list[str]:
    """Mean width proved, and mean width that replayed inputs reach."""
    proved, reached = (
        sum(w, Fraction(0)) / len(w) if w else None for w in widths(theorem)
    )
    return [
        _short(statement.subject),
        _short(statement.threshold or "--"),
        theorem.claim.semantics,
        str(theorem.claim.outputs),
        "{--}" if proved is None else decimal(proved, 6, up=True),
        "{--}" if reached is None else decimal(reached, 6, up=False),
        scientific(theorem.kernel_ops),
    ]


def _short(text: str) -> str:
    """The text, or where it stands: a part of it would read as something else."""
    return f"\\texttt{{{escape(text)}}}" if len(text) <= SHORT else "below"


def escape(text: str) -> str:
    return "".join(ESCAPES.get(c, c) for c in text)
