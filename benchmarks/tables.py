"""Makes docs/measured.md from benchmarks/results: every figure on that page is of a committed results file.

    python -m benchmarks.tables

A table picks rows of a board by patterns. A pattern that fits nothing is an error, so a benchmark can't rename its
rows and leave a table behind.
"""

import json
import re
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results"
PAGE = ROOT / "docs" / "measured.md"

INTRODUCTION = """\
# Measured

Made by `python -m benchmarks.tables` from `benchmarks/results/*.json`; a test compares. Each part names the command
that measures it again, and the code that was measured: the first digits of git's hash of the folder `mechverify/`, of
which `git rev-parse HEAD:mechverify` prints the present one. Times are of one run.
"""


class Column(NamedTuple):
    """One column: rows of the board whose `what` fits `what`, which names the table's row by its group `key`; the cell
    is the group `cell` of `what`, of `target` or of `figure`, whichever has one."""

    head: str
    what: str
    target: str = r".*"
    figure: str = r"(?P<cell>.*)"


class Table(NamedTuple):
    title: str
    key: str  # the first column's head
    columns: tuple[Column, ...]


class Part(NamedTuple):
    title: str
    file: str
    command: str  # that measures it; with `--quick` in minutes
    text: str
    tables: tuple[Table, ...]


def cells(rows: list[dict], column: Column) -> dict[str, str]:
    """By key; several rows of one key are joined."""
    found: dict[str, list[str]] = {}
    for row in rows:
        named = re.fullmatch(column.what, row["what"])
        if not named:
            continue
        matches = (named, *(re.fullmatch(getattr(column, side), str(row[side])) for side in ("target", "figure")))
        if None in matches:
            raise ValueError(f"{column.head}: {row['what']}: the row's target or figure has another form")
        groups = {name: text for match in matches if match for name, text in match.groupdict().items()}
        found.setdefault(groups.get("key") or named[0], []).append(groups["cell"] or "")
    if not found:
        raise ValueError(f"{column.head}: no row fits {column.what}")
    return {key: "; ".join(texts) for key, texts in found.items()}


def written(table: Table, rows: list[dict]) -> str:
    columns = [cells(rows, column) for column in table.columns]
    keys = list(dict.fromkeys(key for column in columns for key in column))
    lines = [
        [table.key, *(column.head for column in table.columns)],
        ["---"] * (1 + len(columns)),
        *([key, *(column.get(key, "") for column in columns)] for key in keys),
    ]
    body = "\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |" for line in lines)
    return f"**{table.title}**\n\n{body}\n"


def measured_on(record: dict) -> str:
    if not record.get("code"):
        return "**Measured on an older kernel**"
    changed = ", with changes that were not committed" if record["code"].endswith("+") else ""
    return f"Measured on code `{record['code'][:12]}`{changed}"


def section(part: Part, results: Path = RESULTS) -> str:
    record = json.loads((results / f"{part.file}.json").read_text())
    met, rows = sum(row["met"] for row in record["rows"]), record["rows"]
    missed = "".join(f" Missed: {row['what']}." for row in rows if not row["met"])
    about = (
        f"{measured_on(record)} by `{part.command}`: {met} of {len(rows)} targets met.{missed} ({record['machine']}.)"
    )
    paragraphs = [f"## {part.title}\n", f"{about}\n", *([f"{part.text}\n"] if part.text else [])]
    return "\n".join([*paragraphs, *(written(table, rows) for table in part.tables)])


HONESTY = """\
## Attacks before and after the kernel

`python benchmarks/honesty.py` (hours; `--quick`: minutes; `--only` some parts): random claims whose printed lines are
parsed back, random mechanisms beside plain Python, random modules sampled inside what is proved of them, hostile files,
time limits, and falsehoods that were found once.
"""


def honesty(results: Path = RESULTS) -> str:
    """The parts of benchmarks/honesty.py, each measured by itself: how many targets are met, and the missed ones."""
    path = results / "honesty.json"
    if not path.exists():
        return f"{HONESTY}\nNo results of a full run are kept."
    lines = ["| part | code | targets met | missed |", "| --- | --- | --- | --- |"]
    for name, record in json.loads(path.read_text()).items():
        missed = [row["what"].replace("|", "/") for row in record["rows"] if not row["met"]]
        met = f"{len(record['rows']) - len(missed)} of {len(record['rows'])}"
        lines.append(f"| {name} | {measured_on(record)} | {met} | {'; '.join(missed)} |")
    return HONESTY + "\n" + "\n".join(lines)


def page(results: Path = RESULTS) -> str:
    return "\n".join([INTRODUCTION, *(section(part, results) for part in PARTS), honesty(results), ""])


def joined(*patterns: str) -> str:
    return "|".join(patterns)


PEER = r"(?P<key>[\w-]+): module to optimised bounds, over auto_LiRPA 0\.3's CROWN-Optimized"


def strategy(k: int, models: int) -> tuple[Column, ...]:
    what = rf"K={k}, {models} models: (?P<key>[\w -]+) by "
    return (
        Column("strategy", what + r"(?P<cell>[\w-]+), .*", figure=r".*"),
        Column("operations", what + r"[\w-]+, (?P<cell>\S+) operations", figure=r".*"),
        Column("bound", what + r".*"),
        Column("the paper's bound", what + r".*", target=r"at least (?P<cell>.*)", figure=r".*"),
    )


def growth(letter: str) -> tuple[Column, ...]:
    what = rf"(?P<key>[\w-]+): exponent of {letter}, fitted to (?P<cell>.*)"
    return (
        Column(f"operations by {letter}", what, figure=r".*"),
        Column("exponent", what.replace("(?P<cell>.*)", ".*")),
        Column("as stated", what.replace("(?P<cell>.*)", ".*"), target=r"(?P<cell>.*?) as stated.*", figure=r".*"),
    )


# The rows of the page.

MAIN = r"(?P<key>K=\d+ seed \d+): "

ACCURACY = Part(
    "Accuracy",
    "main_job",
    "python benchmarks/main_job.py",
    "The shipped transformers that say the largest of K tokens. At K=4 the truth is found by running all 64^4 inputs "
    "in float32, batched, on all cores; elsewhere by samples.",
    (
        Table(
            "Beside all inputs",
            "model",
            (
                Column("proved", MAIN + r"exact accuracy \S+ minus certified (?P<cell>\S+)", figure=r".*"),
                Column("exact", MAIN + r"exact accuracy (?P<cell>\S+) minus certified \S+", figure=r".*"),
                Column("search and check", MAIN + r"search and check (?P<cell>.*) over enumeration .*", figure=r".*"),
                Column("all inputs", MAIN + r"search and check .* over enumeration (?P<cell>.*)", figure=r".*"),
            ),
        ),
        Table(
            "Beside samples",
            "model",
            (
                Column("at least", MAIN + r"certified at least (?P<cell>[^,]+), .*", figure=r".*"),
                Column("at most", MAIN + r"certified .* at most (?P<cell>[^;]+); .*", figure=r".*"),
                Column("sampled", MAIN + r"certified .* samples (?P<cell>.*)", figure=r".*"),
                Column(
                    "check, search",
                    r"(?P<key>K=(?:5|10|20) seed \d+): check (?P<cell>.*)",
                    figure=r".*",
                ),
            ),
        ),
        Table(
            "False claims",
            "claim",
            (
                Column("verdict", r"(?P<key>K=\d+: .*), (?P<cell>REFUTED)", figure=r".*"),
                Column("time", r"(?P<key>K=\d+: .*), REFUTED"),
            ),
        ),
    ),
)

METHODS = (("interval", "interval"), ("linear", "linear"), ("prove", "optimised"))  # head, and the row's word
GAP = r"(?P<key>[\w-]+): of the gap from [\d.]+ to what is reached, "

BOUNDS = Part(
    "Bounds of captured modules",
    "bounds",
    "python benchmarks/bounds.py",
    "The mean width of the output's range over a ball: by intervals, by linear bounds, by `prove` without "
    "options; then beside auto_LiRPA 0.3 and Marabou.",
    (
        Table(
            "Mean width of the output's range",
            "network",
            (
                *(Column(head, rf"(?P<key>[\w-]+): mean output width, {kind}") for head, kind in METHODS),
                Column("reached by gradient search", GAP + r"(?P<cell>[\d.]+) .*", figure=r".*"),
            ),
        ),
        Table(
            "Beside auto_LiRPA's CROWN-Optimized: time over its time, and mean widths (ours first), without parts",
            "network",
            (Column("ours over theirs", PEER),),
        ),
        Table(
            "Networks 2-n-n-1 with ReLU, below a threshold: time over Marabou's without proofs, three networks",
            "networks",
            (Column("ours over theirs", r"(?P<key>n = \d+, radius \S+): search and check, over maraboupy.*"),),
        ),
        Table(
            "A cell alone over one of 1,000",
            "network",
            (Column("ratio", r"(?P<key>[\w-]+): linear bounds of a cell alone over those of one of 1,000"),),
        ),
        Table(
            "Values outside their bounds: samples and gradient ascent on random networks, judged exactly",
            "operation",
            (Column("found outside", r"(?P<key>[\w ,]+): values outside their bounds"),),
        ),
    ),
)

COMPACT = Part(
    "Compact proofs",
    "compact_proofs",
    "python benchmarks/compact_proofs.py",
    "Bound over true accuracy, mean and deviation over models, beside what the paper reports for its own models of "
    "that shape (arXiv 2406.11779). [compact_proofs.md](compact_proofs.md) says what is counted.",
    (
        *(Table(f"K={k}", "family of the paper", strategy(k, n)) for k, n in ((4, 20), (5, 5), (10, 5), (20, 5))),
        Table(
            "At the cubic proof's cost",
            "length",
            (Column("best bound", r"(?P<key>K=\d+): best bound at the cubic proof's cost, .*"),),
        ),
        Table("Growth with the vocabulary, K=4", "strategy", growth("v")),
        Table("Growth with the length", "strategy", growth("k")),
        Table(
            "Attacks",
            "what",
            (
                Column(
                    "found",
                    joined(
                        r"K=4, \d+ seeds: bounds, and .*",
                        r"K=4: wrong variants of .*",
                    ),
                ),
            ),
        ),
    ),
)

MECHANISMS = Part(
    "Claims about mechanisms",
    "mechanisms",
    "python benchmarks/mechanisms.py",
    "",
    (
        Table("Right on every input", "claim", (Column("proved", r"(?P<key>.*: right on all .*)"),)),
        Table(
            "The smallest margin, beside that of all inputs",
            "claim",
            (
                Column(
                    "proved, and by brute force",
                    joined(
                        r".*: smallest margin, n = 1 to 6",
                        r".*, the smallest margin",
                        r"sorted list, position .*",
                    ),
                ),
            ),
        ),
        Table(
            "How far a site is from its mechanism",
            "claim",
            (
                Column(
                    "proved, and reached",
                    joined(
                        r".*: \w+ are sums of waves up to", r".*lemma on all inputs", r"superposition: each feature .*"
                    ),
                ),
            ),
        ),
        Table("False claims", "family", (Column("verdicts", r"(?P<key>.*: \d+ false claims)"),)),
    ),
)

KERNEL = Part(
    "The kernel",
    "kernel",
    "python benchmarks/kernel.py",
    "",
    (
        Table(
            "`real` beside `float32`",
            "model",
            (
                Column(
                    "under `real`", r"(?P<key>K=\d+): right under real (?P<cell>[\d.]+ to [\d.]+), .*", figure=r".*"
                ),
                Column(
                    "under `float32`",
                    r"(?P<key>K=\d+): right under real .* under float32 (?P<cell>[\d.]+ to [\d.]+).*",
                    figure=r".*",
                ),
            ),
        ),
        Table(
            "Attacks",
            "what",
            (
                Column(
                    "found",
                    joined(
                        r".*balls that miss the value.*",
                        r".*mutants of.*",
                        r".*fuzzed files.*",
                        r".*float32 evaluations of.*",
                        r".*largest error over.*",
                    ),
                ),
            ),
        ),
        Table(
            "Check beside search", "model", (Column("check over search", r"(?P<key>K=\d+: check .* over search .*)"),)
        ),
    ),
)

PARTS = (ACCURACY, BOUNDS, COMPACT, MECHANISMS, KERNEL)


if __name__ == "__main__":
    PAGE.write_text(page())
