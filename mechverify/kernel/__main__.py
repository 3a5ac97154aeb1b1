"""`python -m mechverify.kernel CERTIFICATE`: check it with nothing but numpy installed, and print the theorem as
kernel/statement/ words it. Exit code 0: accepted, 1: rejected, 2: not a certificate, 3: not checked, or not printed.
"""

import argparse
import os
import sys
from pathlib import Path

from mechverify.kernel import about
from mechverify.kernel.check import AXIOMS, SECONDS, check
from mechverify.kernel.core.claim import Theorem
from mechverify.kernel.core.errors import NotACertificate, OverLimit, Rejected
from mechverify.kernel.core.words import units


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m mechverify.kernel", description=__doc__
    )
    parser.add_argument("certificate", type=Path)
    parser.add_argument(
        "--exact",
        action="store_true",
        help="exact rationals instead of rounded float64; slow",
    )
    parser.add_argument(
        "--forbid",
        action="append",
        default=[],
        choices=list(AXIOMS),
        help="reject if it is used",
    )
    parser.add_argument(
        "--limit",
        type=float,
        help="units of work; without it, as many as the certificate announces",
    )
    parser.add_argument(
        "--about",
        action="store_true",
        help="what of the kernel this certificate's theorem rests on",
    )
    options = parser.parse_args(arguments)

    def watch(work: int, allowed: float) -> None:
        if not work:
            print(
                f"at most {units(allowed)} units of work, about {SECONDS * allowed:.2g} s",
                file=sys.stderr,
            )

    try:
        data = options.certificate.read_bytes()
        theorem = check(
            data,
            exact=options.exact,
            forbid=options.forbid,
            limit=options.limit,
            watch=watch,
        )
    except OverLimit as error:
        print(f"NOT CHECKED: {error}", file=sys.stderr)
        return 3
    except KeyboardInterrupt:
        print("NOT CHECKED: interrupted", file=sys.stderr)
        return 130
    except (OSError, Rejected, NotACertificate) as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1 if isinstance(error, Rejected) else 2
    if options.about:
        return _about(theorem)
    from mechverify.kernel.statement.sentence import state  # which decides nothing

    statement = state(theorem)
    print("ACCEPTED")
    for label, text in (*statement.rows(), *statement.examples):
        print(f"{label:>16}  {text}")
    return 0


def _about(theorem: Theorem) -> int:
    """The modules that the check loaded, rules and axioms."""
    print("ACCEPTED: the theorem rests on numpy, the standard library and")
    for line in about.table(about.loaded()):
        print(line)
    print(f"rules: {', '.join(sorted(theorem.rules))}")
    for axiom in theorem.axioms:
        print(f"axiom {axiom}: {AXIOMS[axiom]}")
    return 0


if __name__ == "__main__":
    try:
        code = main()
        sys.stdout.flush()
    except OSError as error:  # of the output: it must not look like a rejection
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        print(f"can't write to standard output: {error}", file=sys.stderr)
        code = 3
    sys.exit(code)
