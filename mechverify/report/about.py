"""What a reader of a certificate has to trust, counted."""

import subprocess
import sys
from pathlib import Path

from mechverify.kernel.about import everything, table
from mechverify.kernel.check import AXIOMS, VERSIONS
from mechverify.kernel.rules import RULES


def about() -> str:
    """Of the whole kernel."""
    rules = {"both", "split", *(rule for kind in RULES.values() for rule in kind)}
    return "\n".join(
        [
            "mechverify.kernel: standard library and numpy only; lines with code, tokens without comments and layout",
            *table(everything()),
            f"reads certificate format version {', '.join(map(str, VERSIONS))}",
            f"rules: {', '.join(sorted(rules))}",
            *(f"axiom {name}: {text}" for name, text in AXIOMS.items()),
        ]
    )


def about_one(
    certificate: Path, exact: bool, forbid: list[str], limit: float | None
) -> tuple[str, int]:
    """Of what one certificate's check uses, as a process says that imports the kernel alone; and its exit code."""
    options = ["--exact"] * exact + [f"--forbid={axiom}" for axiom in forbid]
    options += [] if limit is None else [f"--limit={limit!r}"]
    command = [
        sys.executable,
        "-m",
        "mechverify.kernel",
        "--about",
        *options,
        "--",
        str(certificate),
    ]
    done = subprocess.run(command, check=False, stdout=subprocess.PIPE, text=True)
    return done.stdout, done.returncode
