"""Messages that fit a screen, however long what they speak of."""

LINES, WIDTH, TAIL = 36, 400, 120  # the end of a line tells what to do


def short(value: object, width: int = 80) -> str:
    """A value as text on one line, cut where it is longer than `width`."""
    text = " ".join(str(value).split())
    return text if len(text) <= width else text[: width - 3] + "..."


def clipped(message: str) -> str:
    """A message of at most LINES lines of at most WIDTH characters, of which one says what was left out."""
    lines = [line if len(line) <= WIDTH else f"{line[: WIDTH - TAIL]} ... {line[-TAIL:]}"
             for line in message.split("\n")]  # fmt: skip
    if len(lines) > LINES:
        lines = [
            *lines[: LINES - 1],
            f"  ... and {len(lines) - LINES} lines more",
            lines[-1],
        ]
    return "\n".join(lines)
