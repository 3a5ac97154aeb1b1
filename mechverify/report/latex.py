"""A LaTeX table of theorems (booktabs and siunitx)."""

from fractions import Fraction
from pathlib import Path

from mechverify.kernel import Theorem
from mechverify.report.statement import brute_force_ops, decimal, expression, scientific

HEAD = r"""% \usepackage{booktabs,siunitx}
\begin{tabular}{lllrS[table-format=1.8]S[table-format=1.8]S[table-format=1.1e2]S[table-format=1.1e2]l}
\toprule
certificate & verdict & mechanism & inputs & {accuracy $\geq$} & {accuracy $\leq$} & {kernel ops} & {brute force}
& weights \\
\midrule
"""
TAIL = "\\bottomrule\n\\end{tabular}\n"


def write_latex(target: Path, checked: list[tuple[Path, Theorem, float]]) -> Path:
    rows = []
    for path, t, _ in checked:
        total = t.claim.domain.size
        low = decimal(Fraction(t.right.low, total), 8, upwards=False)
        high = decimal(Fraction(t.right.high, total), 8, upwards=True)
        size = f"\\num{{{scientific(total)}}}"
        claim = expression(t.claim.graph, t.claim.target)
        mechanism = f"\\texttt{{{_escape(claim if len(claim) <= 60 else claim[:57] + '...')}}}"
        cells = [
            _escape(path.name),
            t.verdict,
            mechanism,
            size,
            low,
            high,
            scientific(t.kernel_ops),
            scientific(brute_force_ops(t)),
        ]
        rows.append(" & ".join([*cells, f"\\texttt{{{t.claim.weights_sha256[:12]}}}"]) + " \\\\\n")
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(HEAD + "".join(rows) + TAIL)
    return target


def _escape(text: str) -> str:
    return "".join("\\" + c if c in "_&%#$" else c for c in text)
