"""What to do when mechverify says no. Messages say what is wrong and where, and most say what to do; of those that the
kernel gives, which knows nothing of who asked, that is said here.
"""

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
