"""Run z3 on an SMT-LIB query, in a process of its own that can be killed.

As a program, it reads a query and prints the answer and the inputs.
"""

import subprocess
import sys
import time
from collections.abc import Callable
from fractions import Fraction

POLL = 0.2  # seconds between looks at the clock


def ask(
    text: str, seconds: float, stop: Callable[[], bool] = lambda: False
) -> tuple[str, dict[str, Fraction]]:
    """("unsat", {}), ("sat", the variables of get-value), ("unknown", {}) also when time is up, or `stop` says so, (why
    it failed, {})."""
    command = [
        sys.executable,
        "-P",
        __file__,
    ]  # as a file: the package would import torch, which takes longer than z3
    pipe, end, said = subprocess.PIPE, time.monotonic() + seconds, None
    try:
        with subprocess.Popen(
            command, stdin=pipe, stdout=pipe, stderr=pipe, text=True
        ) as process:
            unsent: str | None = text
            try:
                while said is None and time.monotonic() < end and not stop():
                    try:
                        said = process.communicate(
                            unsent, timeout=max(0.0, min(POLL, end - time.monotonic()))
                        )
                    except subprocess.TimeoutExpired:
                        unsent = None  # what is left of it is sent on
            finally:
                process.kill()  # nothing, where it has ended
    except OSError as error:
        return f"failed: {error.strerror}", {}
    if said is None:
        return "unknown", {}
    out, errors = said
    if process.returncode:
        return f"failed: {(errors.splitlines() or ['it was killed'])[-1]}", {}
    answer, *rows = out.splitlines()
    values = dict(row.split(" ") for row in rows)
    return answer, {name: Fraction(value) for name, value in values.items()}


def main() -> None:
    import z3

    text = sys.stdin.read()
    solver = z3.Solver()
    solver.from_string(text[: text.index("(check-sat)")])
    answer = str(solver.check())
    print(answer)
    if answer == "sat":
        model = solver.model()
        for declared in model.decls():
            value = model[declared]
            if isinstance(value, z3.IntNumRef):
                print(declared.name(), value.as_long())
            elif isinstance(value, z3.RatNumRef):
                print(declared.name(), value.as_fraction())


if __name__ == "__main__":
    main()
