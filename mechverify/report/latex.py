"""A LaTeX table of theorems (booktabs and siunitx)."""

from fractions import Fraction
from math import inf, isfinite
from pathlib import Path

from mechverify.kernel import Theorem
from mechverify.report.formula import integer
from mechverify.report.ranges import name
from mechverify.report.statement import brute_force_ops, decimal, scientific

HEAD = r"""% \usepackage{booktabs,siunitx}
\begin{tabular}{lllrS[table-format=1.8]S[table-format=1.8]S[table-format=1.1e2]S[table-format=1.1e2]l}
\toprule
certificate & verdict & mechanism & inputs & {accuracy $\geq$} & {accuracy $\leq$} & {kernel ops} & {brute force}
& weights \\
\midrule
"""
RANGES = r"""% \usepackage{booktabs,siunitx}
\begin{tabular}{lllS[table-format=3.0]S[table-format=1.6]S[table-format=1.6]S[table-format=1.1e2]l}
\toprule
certificate & verdict & value & {entries} & {mean width} & {reached} & {kernel ops} & weights \\
\midrule
"""
TAIL = "\\bottomrule\n\\end{tabular}\n"


def write_latex(target: Path, checked: list[tuple[Path, Theorem, float]]) -> Path:
    rows, ranges = [], []
    for path, t, _ in checked:
        if t.claim.kind == "bounds":
            ranges.append(_range_row(path, t))
            continue
        total = t.claim.domain.size
        low = decimal(Fraction(t.right.low, total), 8, upwards=False)
        high = decimal(Fraction(t.right.high, total), 8, upwards=True)
        size = f"\\num{{{scientific(total)}}}"
        claim = integer(t.claim.graph, t.claim.target)
        mechanism = f"\\texttt{{{escape(claim if len(claim) <= 60 else claim[:57] + '...')}}}"
        cells = [
            escape(path.name),
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
    tables = [HEAD + "".join(rows) + TAIL] if rows else []
    target.write_text("\n".join(tables + ([RANGES + "".join(ranges) + TAIL] if ranges else [])))
    return target


def _range_row(path: Path, t: Theorem) -> str:
    """Mean width proved, and mean width that replayed inputs reach."""
    width = float((t.range.high - t.range.low).mean())
    reached = float((t.attained.low.max(0) - t.attained.high.min(0)).mean()) if t.attained else inf
    cells = [escape(path.name), t.verdict, f"\\texttt{{{escape(name(t))}}}", str(t.claim.outputs)]
    cells += [
        f"{width:.6f}" if isfinite(width) else "{--}",
        f"{reached:.6f}" if isfinite(reached) else "{--}",
        scientific(t.kernel_ops),
    ]
    return " & ".join([*cells, f"\\texttt{{{t.claim.weights_sha256[:12]}}}"]) + " \\\\\n"


def escape(text: str) -> str:
    return "".join("\\" + c if c in "_&%#$" else c for c in text)
