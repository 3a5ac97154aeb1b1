"""What every report is made of: certificates that the kernel accepted just now."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from mechverify.kernel import Theorem
from mechverify.kernel.core.texts import printable


class Checked(NamedTuple):
    """`data` are the bytes that were checked, in so many `seconds`: the file may have changed since."""

    path: Path
    theorem: Theorem
    seconds: float
    data: bytes


def names(checked: Sequence[Checked]) -> list[str]:
    """File names in printable ASCII, numbered where two are alike."""
    found = [printable(one.path.name) for one in checked]
    return [
        f"{i + 1}-{name}" if found.count(name) > 1 else name
        for i, name in enumerate(found)
    ]
