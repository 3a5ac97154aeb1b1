"""The three ways in which the kernel says no."""


class NotACertificate(Exception):
    """The file can't be read as a mechverify certificate at all (exit code 2)."""


class Rejected(Exception):
    """A certificate that doesn't establish what it claims (exit code 1)."""


class Unsupported(Rejected):
    """A rule was applied to a model, mechanism or size that it doesn't cover."""
