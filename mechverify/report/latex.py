"""LaTeX of checked certificates: tables (booktabs and siunitx), and each theorem as a theorem."""

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

from mechverify.files import write
from mechverify.kernel.core.counts import CountingTheorem
from mechverify.kernel.core.ranges import RangeTheorem
from mechverify.kernel.core.words import decimal, scientific, share
from mechverify.kernel.statement.common import Statement
from mechverify.kernel.statement.ranges import widths
from mechverify.kernel.statement.sentence import state
from mechverify.report import mathematics
from mechverify.report.checked import Checked, names
from mechverify.report.mathematics import in_words, verbatim
from mechverify.report.statement import brute_force_ops

HEAD = r"""% \usepackage{amsmath,booktabs,graphicx,siunitx}, and \newtheorem{theorem}{Theorem} unless you have one
"""
FITTED = (
    r"\noindent\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%" + "\n"
)
COUNTS = r"""\begin{tabular}{lllllllS[table-format=1.8]S[table-format=1.8]S[table-format=4.2e2]S[table-format=4.2e2]}
\toprule
certificate & verdict & mechanism & margin & threshold & semantics & inputs & {share $\geq$} & {share $\leq$}
& {kernel ops} & {brute force} \\
\midrule
"""
RANGES = r"""\begin{tabular}{lllllS[table-format=5.0]S[table-format=1.6]S[table-format=1.6]S[table-format=4.2e2]}
\toprule
certificate & verdict & value & threshold & semantics & {entries} & {mean width} & {reached} & {kernel ops} \\
\midrule
"""
TAIL = "\\bottomrule\n\\end{tabular}}\\par\\medskip\n"
SHORT = 60  # characters of a cell


def write_latex(target: Path, checked: Sequence[Checked]) -> Path:
    counts, ranges, theorems = [], [], []
    for name, one in zip(names(checked), checked, strict=True):
        statement = state(one.theorem)
        if isinstance(one.theorem, CountingTheorem):
            into, told = counts, _counting(one.theorem, statement)
        else:
            assert isinstance(one.theorem, RangeTheorem)
            into, told = ranges, _range(one.theorem, statement)
        cells = [verbatim(name), one.theorem.verdict, *told]
        into.append(" & ".join(cells) + " \\\\\n")
        theorems.append(theorem(name, statement))
    target.parent.mkdir(parents=True, exist_ok=True)
    tables = [
        f"{FITTED}{head}{''.join(body)}{TAIL}"
        for head, body in ((COUNTS, counts), (RANGES, ranges))
        if body
    ]
    write(target, (HEAD + "\n".join([*tables, *theorems])).encode())
    return target


def theorem(name: str, statement: Statement) -> str:
    """The whole sentence: the verdict, and of what, in mathematics; and what belongs to it line by line."""
    claim = mathematics.latex(mathematics.claim(statement))
    rows = "".join(
        f"\\item[{verbatim(label)}] {in_words(text)}\n"
        for label, text in (*statement.rows(), *statement.examples)
        if label not in ("verdict", "claim")
    )
    return (
        f"\\begin{{theorem}}[{{{in_words(name)}}}]\n\\sloppy\\textbf{{{statement.verdict}}}: {claim}.\n"
        + f"\\begin{{description}}\\setlength{{\\itemsep}}{{0pt}}\n{rows}\\end{{description}}\n\\end{{theorem}}\n"
    )  # fmt: skip


def _counting(theorem: CountingTheorem, statement: Statement) -> list[str]:
    total, right = theorem.claim.total, theorem.right
    brute = brute_force_ops(theorem)
    return [
        _short(statement.equals or statement.subject),
        _short(statement.margin or "--"),
        _short(statement.threshold or "--"),
        theorem.claim.semantics,
        f"\\num{{{scientific(total)}}}"
        if theorem.claim.by_example
        else "--",  # of a box, no inputs are counted
        _number(share(right.low, total, up=False)),
        _number(share(right.high, total, up=True)),
        scientific(theorem.kernel_ops),
        "{--}" if brute is None else scientific(brute),
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
        "{--}" if proved is None else _number(decimal(proved, 6, up=True)),
        "{--}" if reached is None else _number(decimal(reached, 6, up=False)),
        scientific(theorem.kernel_ops),
    ]


def _number(text: str) -> str:
    """In a column of numbers; one that is much longer than they are, as a text."""
    return text if len(text) <= 12 else f"{{{text}}}"


def _short(text: str) -> str:
    """The text, or where it stands: a part of it would read as something else."""
    return f"\\texttt{{{verbatim(text)}}}" if len(text) <= SHORT else "below"
