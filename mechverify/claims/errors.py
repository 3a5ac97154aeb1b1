from mechverify.graph.messages import clipped
from mechverify.kernel.core.errors import MechverifyError


class ClaimError(MechverifyError, ValueError):
    """What the user gave can't be understood: the message says what, where, and what to do."""

    def __init__(self, message: str):
        super().__init__(clipped(message))
