"""Tables of strategies over models: to the terminal, as CSV and as LaTeX."""

import csv
import re
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from fractions import Fraction
from math import sqrt
from pathlib import Path

from rich.table import Table

from mechverify.kernel.core.neighbours import float_below
from mechverify.kernel.core.words import decimal, scientific
from mechverify.provers.accuracy.strategies import chosen
from mechverify.provers.frontier import Row
from mechverify.report.mathematics import verbatim


@dataclass(frozen=True)
class Truth:
    """The accuracy of one model: between `low` and `high`. `how`: exact or proved (both ends are theorems), or sampled
    (an estimate)."""

    low: Fraction
    high: Fraction
    how: str


@dataclass(frozen=True)
class Mean:
    mean: float
    deviation: float  # over the models, with one degree of freedom less; 0 of one model

    @staticmethod
    def of(values: Iterable[float]) -> "Mean":
        values = list(values)
        mean = sum(values) / len(values)
        squares = sum((v - mean) ** 2 for v in values)
        return Mean(mean, sqrt(squares / (len(values) - 1)) if len(values) > 1 else 0.0)


@dataclass(frozen=True)
class Point:
    """One strategy on one group of models. `ratio` is the proved bound over the model's accuracy (over the upper end
    where that is known as an interval), rounded down."""

    group: str
    strategy: str
    complexity: str
    models: int
    failed: int
    bound: Mean
    ratio: Mean
    ops: Mean
    brute_force_ops: int
    unexplained: int | None
    search_seconds: float
    check_seconds: float


def group_of(row: Row) -> str:
    """What is averaged over: models of one claim and one domain (the threshold doesn't change what is proved)."""
    own = {k: v for k, v in row.parameters.items() if k not in ("weights", "at_least")}
    others = ", ".join(f"{k}={v}" for k, v in sorted(own.items()))
    return f"{Path(row.claim).stem}{f' ({others})' if others else ''}, {row.vocab}^{row.length}"


def truths(
    rows: Iterable[Row], samples: dict[tuple[str, str], float] | None = None
) -> dict[tuple[str, str], Truth]:
    """Of each (group, hash of weights): exact where the tightest bounds of all rows meet; what was sampled where no row
    bounds it from above. Raises RuntimeError if two rows contradict each other: then the kernel is wrong."""
    found: dict[tuple[str, str], Truth] = {}
    for row in rows:
        key, low, high = (
            (group_of(row), row.weights_sha256),
            row.bound,
            Fraction(row.high, row.size),
        )
        if key in found:
            low, high = max(low, found[key].low), min(high, found[key].high)
            if low > high:
                raise RuntimeError(
                    f"two accepted theorems about {row.weights} contradict each other: {row.strategy}"
                )
        found[key] = Truth(low, high, "exact" if low == high else "proved")
    for key, share in (samples or {}).items():
        if found[key].high == 1 and found[key].how != "exact":
            found[key] = Truth(Fraction(share), Fraction(share), "sampled")
    return found


def points(rows: Iterable[Row], known: dict[tuple[str, str], Truth]) -> list[Point]:
    """One for each strategy and group, cheapest first; a strategy that proves nothing has none."""
    together: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        together.setdefault((group_of(row), row.strategy), []).append(row)
    result = []
    for (group, strategy), of in together.items():
        done = [r for r in of if r.reason is None]
        if not done:
            continue
        tops = [known[group, r.weights_sha256].high for r in done]
        ratios = [
            r.bound / top if top else Fraction(1)
            for r, top in zip(done, tops, strict=True)
        ]
        result.append(Point(
            group, Path(strategy).stem, chosen(strategy).complexity, len(done), len(of) - len(done),
            Mean.of(map(float_below, (r.bound for r in done))), Mean.of(map(float_below, ratios)),
            Mean.of(float(r.kernel_ops) for r in done), done[0].brute_force_ops, done[0].unexplained,
            Mean.of(r.search_seconds for r in done).mean, Mean.of(r.check_seconds for r in done).mean,
        ))  # fmt: skip
    return sorted(result, key=lambda p: (natural(p.group), p.ops.mean))


def natural(text: str) -> list:
    """A key to sort by, numbers in the text by their size."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", text)]


def pareto(points: list[Point]) -> list[Point]:
    """Those of one group that no other beats or equals at no more cost, cheapest first."""
    best: list[Point] = []
    for p in sorted(points, key=lambda p: (p.ops.mean, -p.ratio.mean)):
        if not best or p.ratio.mean > best[-1].ratio.mean:
            best.append(p)
    return best


def terminal(found: list[Point]) -> Iterator[Table]:
    """A table for each group; strategies on the front are marked."""
    for group in dict.fromkeys(p.group for p in found):
        some = [p for p in found if p.group == group]
        brute = scientific(some[0].brute_force_ops)
        table = Table(
            "", "strategy", "models", "accuracy >=", "of the true one", "operations", "unexplained", "search s",
            "check s", box=None, title=f"{group}: brute force takes {brute} operations", title_justify="left",
        )  # fmt: skip
        front = pareto(some)
        for p in some:
            table.add_row(
                "*" if p in front else "", p.strategy, f"{p.models}" + (f", {p.failed} failed" if p.failed else ""),
                _spread(p.bound, " ± "), _spread(p.ratio, " ± "), scientific(round(p.ops.mean)),
                "" if p.unexplained is None else scientific(p.unexplained), f"{p.search_seconds:.1f}",
                f"{p.check_seconds:.1f}",
            )  # fmt: skip
        yield table


def _spread(value: Mean, sign: str) -> str:
    """The mean rounded down, since it is a bound."""
    deviation = f"{value.deviation:.5f}"
    mean = decimal(Fraction(value.mean), 5, up=False)
    return mean if float(deviation) == 0 else f"{mean}{sign}{deviation}"


def write_csv(
    target: Path, rows: list[Row], known: dict[tuple[str, str], Truth]
) -> Path:
    """One line for each row, with its model's accuracy beside it."""
    with target.open("w", newline="") as file:
        writer = None
        for row in rows:
            truth = known[group_of(row), row.weights_sha256]
            line = asdict(row) | {
                "parameters": " ".join(
                    f"{k}={v}" for k, v in sorted(row.parameters.items())
                )
            }
            line |= {
                "bound": float_below(row.bound), "true_low": float_below(truth.low),
                "true_high": -float_below(-truth.high), "true_how": truth.how,
            }  # fmt: skip
            writer = writer or csv.DictWriter(file, line)
            if not file.tell():
                writer.writeheader()
            writer.writerow(line)
    return target


HEAD = r"""% \usepackage{booktabs,siunitx}
\begin{tabular}{llS[table-format=1.5(5)]S[table-format=1.5(5)]S[table-format=1.2e2]S[table-format=1.2e2]r}
\toprule
strategy & complexity & {accuracy $\geq$} & {of the true one} & {operations} & {unexplained dim.} & models \\
"""


def write_latex(target: Path, found: list[Point]) -> Path:
    """Means over models, with deviations in siunitx's notation; needs booktabs and siunitx."""
    lines = [HEAD]
    for group in dict.fromkeys(p.group for p in found):
        some = [p for p in found if p.group == group]
        brute = (
            f"brute force: \\num{{{scientific(some[0].brute_force_ops)}}} operations"
        )
        title = re.sub(
            r"\\textasciicircum\{\}(\d+)", r"\\textsuperscript{\1}", verbatim(group)
        )
        lines.append(f"\\midrule\n\\multicolumn{{7}}{{l}}{{{title}; {brute}}} \\\\\n")
        for p in reversed(some):
            cells = [
                f"\\texttt{{{verbatim(p.strategy)}}}", _mathematics(p.complexity), _spread(p.bound, " +- "),
                _spread(p.ratio, " +- "), scientific(round(p.ops.mean)),
                "{--}" if p.unexplained is None else scientific(p.unexplained), str(p.models),
            ]  # fmt: skip
            lines.append(" & ".join(cells) + " \\\\\n")
    target.write_text("".join([*lines, "\\bottomrule\n\\end{tabular}\n"]))
    return target


def _mathematics(formula: str) -> str:
    """A complexity such as `k v^3 + n k v, n inputs of open cells`: the formula as such, what explains it as text."""
    symbols, comma, words = formula.replace("log", r"\log").partition(",")
    return f"${symbols}${comma}{verbatim(words)}"
