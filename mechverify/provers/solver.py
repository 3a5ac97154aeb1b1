"""Run z3 on an SMT-LIB query, in a process of its own that can be killed.

As a program, it reads a query and prints the answer and the inputs.
"""

import subprocess
import sys
from fractions import Fraction


def ask(text: str, seconds: float) -> tuple[str, dict[str, Fraction]]:
    """("unsat", {}), ("sat", the variables of get-value), ("unknown", {}) also when time is up, (why it failed, {})."""
    command = [sys.executable, "-P", __file__]  # as a file: the package would import torch, which takes longer than z3
    try:
        done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=max(0, seconds), check=False)
    except subprocess.TimeoutExpired:
        return "unknown", {}
    except OSError as error:
        return f"failed: {error.strerror}", {}
    if done.returncode:
        return f"failed: {(done.stderr.splitlines() or ['it was killed'])[-1]}", {}
    answer, *rows = done.stdout.splitlines()
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
            if z3.is_int_value(value) or z3.is_rational_value(value):
                print(declared.name(), value.as_fraction() if z3.is_rational_value(value) else value.as_long())


if __name__ == "__main__":
    main()
