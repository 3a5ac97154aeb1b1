"""The house: what a theorem rests on, how dense it is, and what stays as it was.

    python benchmarks/house.py [--quick] [--beside CHECKOUT]     # CHECKOUT: an older one, for its speed in the same run

Exit code 1 if a target is missed. Sizes are counted in tokens of Python without comments, docstrings and layout
(`mechverify check --about CERTIFICATE`), so that spreading code out costs nothing.
"""

import argparse
import importlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks.board import Board
from mechverify import prove
from mechverify.kernel.about import Module, everything

ROOT = Path(__file__).parent.parent
DATA = ROOT / "tests" / "data"
RESTS = {  # what a theorem of that family may rest on, in tokens, by a certificate of it
    "fold": (DATA / "version_2.cert", 34_000),
    "relaxation": (DATA / "version_4.cert", 36_000),
}
COMPACT = "toy_models/weights/max_of_4_seed0.safetensors"
CORE, DENSITY = 24_000, 12.0
PROOFS = ("max_of_k", "running_sum", "modular_addition", "robust", "scores")
REPEATS = 3
PROVE = """
import importlib, json, sys
from mechverify import prove
done = prove(importlib.import_module(f"proofs.{sys.argv[1]}").claim())
print(json.dumps([done.search_seconds, done.check_seconds]))
"""
TOOLS = {
    "ruff": ["-m", "ruff", "check", "."],
    "pyright": ["-m", "pyright"],
    "import-linter": ["-c", "from importlinter.cli import lint_imports_command; lint_imports_command()"],
}


def used(certificate: Path) -> list[tuple[str, int, int]]:
    """(module, lines, tokens) that the check of a certificate loads, in a process of its own."""
    command = [sys.executable, "-m", "mechverify.kernel", "--about", str(certificate)]
    told = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    rows = [line.split() for line in told.splitlines()]
    return [(row[2], int(row[0]), int(row[1])) for row in rows
            if len(row) > 2 and row[0].isdigit() and row[1].isdigit() and row[2] != "in"]  # fmt: skip


def compact(folder: str) -> Path:
    """A certificate of rule compact."""
    found = prove(importlib.import_module("proofs.max_of_k").claim(COMPACT), strategy="cubic")
    assert found.certificate is not None
    path = Path(folder) / "compact.cert"
    path.write_bytes(found.certificate)
    return path


def sizes(board: Board) -> None:
    with tempfile.TemporaryDirectory() as folder:
        rests = {**RESTS, "compact": (compact(folder), 36_000)}
        _sizes(board, {family: (used(file), most) for family, (file, most) in rests.items()})


def _sizes(board: Board, rests: dict[str, tuple[list[tuple[str, int, int]], int]]) -> None:
    families: dict[str, list[Module]] = {}
    for module in everything():
        families.setdefault(module.name.split("/")[0] if "/" in module.name else "core", []).append(module)
    shared = set.intersection(*({name for name, *_ in rows} for rows, _ in rests.values()))
    core = sum(m.tokens for modules in families.values() for m in modules if m.name in shared)
    board.row("core: what theorems of every family rest on, tokens", f"at most {CORE:,}", f"{core:,}", core <= CORE)
    for family, (rows, most) in rests.items():
        tokens = sum(row[2] for row in rows)
        board.row(f"{family}: a theorem rests on, tokens in {len(rows)} modules", f"at most {most:,}", f"{tokens:,}",
                  tokens <= most)  # fmt: skip
    for family, modules in sorted(families.items()):
        tokens, lines = sum(m.tokens for m in modules), sum(m.lines for m in modules)
        board.row(f"{family}: tokens", "for information", f"{tokens:,} in {len(modules)} modules", True)
        density = tokens / lines
        board.row(f"{family}: tokens a code line", f"at most {DENSITY:g}", round(density, 2), density <= DENSITY)


def complaints(board: Board) -> None:
    for name, command in TOOLS.items():
        done = subprocess.run([sys.executable, *command], cwd=ROOT, capture_output=True, text=True)
        last = (done.stdout.strip() or done.stderr.strip()).splitlines()[-1:]
        board.row(f"{name}: complaints", "0", "0" if done.returncode == 0 else " ".join(last), done.returncode == 0)


def speed(board: Board, before: Path) -> None:
    """Search and check of some shipped proofs, both checkouts in turn; the best of each."""
    for what in PROOFS:
        best: dict[Path, list[float]] = {}
        for _ in range(REPEATS):
            for checkout in (before, ROOT):
                done = subprocess.run([sys.executable, "-c", PROVE, what], cwd=checkout, capture_output=True, text=True,
                                      check=True, env={**os.environ, "PYTHONPATH": str(checkout)})  # fmt: skip
                times = json.loads(done.stdout.splitlines()[-1])
                best[checkout] = list(map(min, best.get(checkout, times), times))
        for name, old, new in zip(("search", "check"), best[before], best[ROOT], strict=True):
            told = f"{new / old:.2f} ({new:.3f} s, {old:.3f} s before)"
            board.row(f"{what}: {name}, over the time before", "at most 1.1", told, new <= 1.1 * old)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="keep nothing")
    parser.add_argument("--beside", type=Path, help="an older checkout")
    options = parser.parse_args()
    board = Board("house")
    sizes(board)
    complaints(board)
    if options.beside:
        speed(board, options.beside.resolve())
    return board.finish("house", quick=options.quick)


if __name__ == "__main__":
    sys.exit(main())
