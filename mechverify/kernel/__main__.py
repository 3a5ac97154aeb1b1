"""`python -m mechverify.kernel CERTIFICATE`: check it with nothing but numpy installed.

Exit code 0: accepted, 1: rejected, 2: not a certificate.
"""

import sys

from mechverify.kernel.check import check
from mechverify.kernel.errors import NotACertificate, Rejected
from mechverify.kernel.statement import lines


def main(arguments: list[str]) -> int:
    if len(arguments) != 1:
        print("usage: python -m mechverify.kernel CERTIFICATE", file=sys.stderr)
        return 2
    try:
        with open(arguments[0], "rb") as file:
            theorem = check(file.read())
    except OSError as error:
        print(f"can't read {arguments[0]}: {error.strerror}", file=sys.stderr)
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
    sys.exit(main(sys.argv[1:]))
