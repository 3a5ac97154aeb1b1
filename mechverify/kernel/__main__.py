"""`python -m mechverify.kernel [--exact] [--forbid AXIOM]... [--limit WORK] CERTIFICATE`: check it with nothing but
numpy installed. Exit code 0: accepted, 1: rejected, 2: not a certificate.
"""

import argparse
import sys

from mechverify.kernel.check import AXIOMS, LIMIT, check
from mechverify.kernel.errors import NotACertificate, Rejected
from mechverify.kernel.statement import lines


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m mechverify.kernel")
    parser.add_argument("certificate")
    parser.add_argument("--exact", action="store_true", help="exact rationals instead of rounded float64; slow")
    parser.add_argument("--forbid", action="append", default=[], choices=list(AXIOMS), help="reject if it is used")
    parser.add_argument("--limit", type=float, default=LIMIT, help="units of work, about nanoseconds in float64")
    options = parser.parse_args(arguments)
    try:
        with open(options.certificate, "rb") as file:
            theorem = check(file.read(), exact=options.exact, forbid=options.forbid, limit=options.limit)
    except OSError as error:
        print(f"can't read {options.certificate}: {error.strerror}", file=sys.stderr)
        return 2
    except NotACertificate as error:
        print(f"NOT A CERTIFICATE: {error}", file=sys.stderr)
        return 2
    except Rejected as error:
        print(f"REJECTED: {error}", file=sys.stderr)
        return 1
    print("ACCEPTED")
    for label, text in lines(theorem):
        print(f"{label:>16}  {text}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
