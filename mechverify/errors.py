"""What to do when mechverify says no. Messages say what is wrong and where, and most say what to do; of those that the
kernel gives, which knows nothing of who asked, that is said here. It quotes operations by their names in a
certificate; where a search tells of them, they are said in the field's terms.
"""

import re

from mechverify.kernel.core.errors import (
    MechverifyError,
    NotACertificate,
    OverLimit,
    Rejected,
)

ADVICE = {
    OverLimit: "nothing is known of the rest of the proof: allow more work (--limit, limit=)",
    Rejected: "don't rely on it: get the file again from its source, or prove the claim anew",
    NotACertificate: "give a whole file that `mechverify prove` wrote (NAME.cert)",
}

TERMS = {  # of operations whose name in a certificate (docs/certificate.md) is no term of torch, sympy or mathematics
    "gather": "embedding lookup", "view": "reshaping or slicing", "select": "slicing", "concat": "concatenation",
    "einsum": "matrix multiplication", "extremum": "maximum or minimum", "ascending": "sorting",
    "choose": "choice by comparison", "add": "addition", "sub": "subtraction", "mul": "multiplication",
    "over_root": "division by a constant", "power": "integer power", "number": "conversion from an integer",
    "pick": "indexing by an integer", "value": "the integer of a token", "eq": "==", "lt": "<", "le": "<=",
    "mod": "modulo", "floordiv": "integer division", "where": "Piecewise", "kth_largest": "k-th largest",
    "rounding": "rounding to float32", "secant": "difference of values of a function",
    "exchanged": "difference of two softmaxes", "blend": "one value in two ways",
}  # fmt: skip


def in_words(text: str) -> str:
    """A message of the kernel's, with the field's terms for operations that it quotes."""
    return re.sub(r"'(\w+)'", lambda found: TERMS.get(found[1], found[0]), text)


def advice(error: MechverifyError) -> str:
    """What to do, in one line; "" where the message says it."""
    if "prove again" in str(error) or "--limit" in str(error):
        return ""
    return next((text for kind, text in ADVICE.items() if isinstance(error, kind)), "")


def advised(error: MechverifyError) -> MechverifyError:
    """The same, with the advice below its message in a traceback."""
    if text := advice(error):
        error.add_note(text)
    return error
