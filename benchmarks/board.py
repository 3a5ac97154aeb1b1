"""A board of measurements: target beside figure, and whether it was met."""

import json
import platform
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table


def code() -> str:
    """Which code is measured: git's hash of the mechverify folder, with "+" if files in it differ; "" without git.

    `git rev-parse COMMIT:mechverify` finds the commits that it belongs to.
    """

    def git(*arguments: str) -> str:
        root = Path(__file__).parent.parent
        return subprocess.run(("git", *arguments), cwd=root, capture_output=True, text=True, check=True).stdout.strip()

    try:
        return git("rev-parse", "HEAD:mechverify") + ("+" if git("status", "--porcelain", "mechverify") else "")
    except (OSError, subprocess.CalledProcessError):
        return ""


class Board:
    def __init__(self, title: str):
        self.title, self.rows = title, []
        self.code = code()  # at the start: what is imported, whatever is committed during a long run

    def row(self, what: str, target: str, figure: float | str, met: bool) -> None:
        self.rows.append({"what": what, "target": target, "figure": figure, "met": bool(met)})
        mark = "met   " if met else "MISSED"
        Console().print(f"{mark}  {what}: {figure}  (target: {target})", highlight=False, soft_wrap=True, markup=False)

    def finish(self, name: str, quick: bool) -> int:
        """Print the table, keep that of a full run in benchmarks/results, and return the exit code."""
        table = Table("what", "target", "figure", "met", title=self.title)
        for r in self.rows:
            table.add_row(
                escape(r["what"]), escape(r["target"]), escape(str(r["figure"])), "yes" if r["met"] else "[red]NO[/]"
            )
        Console(width=150).print(table)
        machine = f"{platform.machine()}, Python {platform.python_version()}"
        record = {"machine": machine, "code": self.code, "rows": self.rows}
        if not quick:
            target = Path(__file__).parent / "results" / f"{name}.json"
            target.parent.mkdir(exist_ok=True)
            target.write_text(json.dumps(record, indent=1) + "\n")
        return 0 if all(r["met"] for r in self.rows) else 1


def timed(action: Callable) -> tuple[float, object]:
    start = time.perf_counter()
    result = action()
    return time.perf_counter() - start, result
