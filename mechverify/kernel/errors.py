"""The ways in which the kernel says no."""


class NotACertificate(Exception):
    """The file can't be read as a mechverify certificate at all (exit code 2)."""


class Rejected(Exception):
    """A certificate that doesn't establish what it claims (exit code 1)."""


class Unsupported(Rejected):
    """A rule was applied to a model, mechanism or size that it doesn't cover."""


class OverLimit(Rejected):
    """The check was given up at the limit of work: nothing is known of the rest of the proof (exit code 3)."""

    def __init__(self, limit: float, announced: float | None = None):
        if announced is None:
            said = f"it takes more than {limit:.3g} units of work. What was checked until here is in order"
        else:
            said = f"it announces {announced:.3g} units of work, more than the limit of {limit:.3g}"
        super().__init__(f"{said}; --limit allows more")


class Stopped(BaseException):
    """Whoever watches the work ended it: time is up, or somebody interrupted."""
