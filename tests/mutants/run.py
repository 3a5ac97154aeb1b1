"""Plant every fault of faults.py in a copy of the project, one at a time, and see that a test fails.

    python -m tests.mutants.run [WORD]     # only faults whose rule or source holds WORD

Exit code 0 if every fault is noticed.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.mutants.faults import FAULTS, Fault

ROOT = Path(__file__).parent.parent.parent


def sought(text: str) -> re.Pattern[str]:
    """What finds a piece of source however it is laid out: spaces, line ends and trailing commas within don't count."""
    pieces = re.findall(r"\w+|\s+|.", text, re.DOTALL)
    found = re.escape(pieces[0])
    for before, piece, after in zip(pieces[:-1], pieces[1:], [*pieces[2:], ""], strict=True):
        if not after and piece.isspace():
            found += re.escape(piece)
        elif piece.isspace():
            word = re.match(r"\w", before) and re.match(r"\w", after)
            found += r"\s+" if word else r"\s*"
        else:
            found += r"\s*" + (r"(?:,\s*)?" if piece in ")]}" else "") + re.escape(piece)
    return re.compile(found)


def planted(fault: Fault, source: str) -> str:
    """`source` with the fault in it. Errors: ValueError where it has no place, or more than one."""
    changed, places = sought(fault.old).subn(lambda _: fault.new, source)
    if places != 1:
        raise ValueError(f"{fault.file} holds {places} times: {fault.old}")
    return changed


def noticed(fault: Fault, folder: Path) -> bool:
    """Whether the tests fail once the fault is in `folder`'s copy of the kernel (and is then taken out again)."""
    path = folder / "mechverify" / "kernel" / fault.file
    source = path.read_text(encoding="utf-8")
    path.write_text(planted(fault, source), encoding="utf-8")
    try:
        command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *fault.tests.split()]
        environment = os.environ | {
            "PYTHONPATH": str(folder),
            "PYTHONDONTWRITEBYTECODE": "1",
            "MECHVERIFY_ROUNDS": "30",
        }
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    finally:
        path.write_text(source, encoding="utf-8")
    return done.returncode == 1  # tests ran, and one failed


def copy(folder: Path) -> None:
    for name in ("mechverify", "tests", "benchmarks", "toy_models", "proofs", "pyproject.toml"):
        source = ROOT / name
        ignore = shutil.ignore_patterns("__pycache__")
        (
            shutil.copytree(source, folder / name, ignore=ignore)
            if source.is_dir()
            else shutil.copy(source, folder / name)
        )


def main(word: str = "") -> int:
    missed = []
    chosen = [f for f in FAULTS if word in f.rule or word in f.old]
    with tempfile.TemporaryDirectory() as name:
        copy(Path(name))
        for fault in chosen:
            start = time.monotonic()
            ok = noticed(fault, Path(name))
            missed += [] if ok else [fault]
            seconds = time.monotonic() - start
            what = fault.new or f"(dropped) {fault.old}"
            print(f"{'noticed' if ok else 'MISSED '}  {seconds:5.1f} s  {fault.rule}: {what}", flush=True)
    rules = {f.rule for f in chosen}
    print(f"{len(chosen) - len(missed)} of {len(chosen)} faults in {len(rules)} rules are noticed")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
