class ClaimError(ValueError):
    """What the user gave can't be understood: the message says what, where, and what to do."""
