"""A file's own texts: which may be names, and how any is printed in one line."""

NAME = 200  # characters


def names_a_value(text: str) -> bool:
    """What a name may be at all, from version 4 of the format on: printable and short."""
    return 0 < len(text) <= NAME and text.isprintable()


def printable(text: str, most: int = 2_000) -> str:
    """Any text as one line of printable ASCII: every other character is escaped, and the end is cut."""
    text = text if len(text) <= most else f"{text[:most]}..."
    return "".join(c if " " <= c <= "~" else ascii(c)[1:-1] for c in text)
