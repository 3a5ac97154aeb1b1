"""The ways in which the kernel says no."""


class MechverifyError(Exception):
    """What mechverify raises, the kernel or the rest of it."""


class NotACertificate(MechverifyError):
    """The file can't be read as a mechverify certificate at all (exit code 2)."""


class Rejected(MechverifyError):
    """A certificate that doesn't establish what it claims (exit code 1)."""


class Unsupported(Rejected):
    """A rule was applied to a model, mechanism or size that it doesn't cover."""


class OverLimit(Rejected):
    """The check was given up at the limit of work: nothing is known of the rest of the proof (exit code 3)."""


class Stopped(BaseException):
    """Whoever watches the work ended it: time is up, or somebody interrupted."""
