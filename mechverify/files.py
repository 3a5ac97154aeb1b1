"""Files are written whole or not at all, and what was found is never lost for want of a place."""

import os
import tempfile
from pathlib import Path


def write(path: Path, data: bytes) -> None:
    """What was there before stays until all of the new file is on the disk. Raises OSError."""
    target = path.resolve()
    if target.exists() and not (target.is_file() and os.access(target.parent, os.W_OK)):
        target.write_bytes(data)  # a device, or a file in a folder that isn't ours
        return
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        with part.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)


def kept(name: str, data: bytes) -> Path | None:
    """Where they are, if there is room for them anywhere: for what can't be written where it should be."""
    stem, dot, suffix = name.partition(".")
    for folder in dict.fromkeys(
        (tempfile.gettempdir(), str(Path.cwd()), str(Path.home()))
    ):
        try:
            number, path = tempfile.mkstemp(f"{dot}{suffix}", f"{stem}-", folder)
            with os.fdopen(number, "wb") as file:
                file.write(data)
            return Path(path)
        except OSError:
            continue
    return None
