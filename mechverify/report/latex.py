"""A LaTeX table of theorems (booktabs and siunitx)."""

from fractions import Fraction
from pathlib import Path

from mechverify.kernel import Theorem
from mechverify.kernel.statement import decimal, scientific

HEAD = r"""% \usepackage{booktabs,siunitx}
\begin{tabular}{lrS[table-format=1.8]S[table-format=1.8]S[table-format=1.1e2]S[table-format=1.1e2]l}
\toprule
certificate & inputs & {accuracy $\geq$} & {accuracy $\leq$} & {kernel ops} & {brute force} & weights \\
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
        name = "".join("\\" + c if c in "_&%#$" else c for c in path.name)
        cells = [name, size, low, high, scientific(t.kernel_ops), scientific(t.brute_force_ops)]
        rows.append(" & ".join([*cells, f"\\texttt{{{t.claim.weights_sha256[:12]}}}"]) + " \\\\\n")
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(HEAD + "".join(rows) + TAIL)
    return target
