"""What is raised where the user gave what can't be understood, and the line that gave it."""

import inspect

from mechverify.graph.messages import clipped
from mechverify.kernel.core.errors import MechverifyError


class ClaimError(MechverifyError, ValueError):
    """What the user gave can't be understood: the message says what, where, and what to do."""

    def __init__(self, message: str):
        super().__init__(clipped(message))


def here() -> str:
    """The line of the user's file that makes the claim."""
    frame = inspect.currentframe()
    while frame and frame.f_globals.get("__name__", "").startswith("mechverify."):
        frame = frame.f_back
    return f"{frame.f_code.co_filename}, line {frame.f_lineno}: " if frame else ""
