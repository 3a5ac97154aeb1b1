"""A certificate that the kernel has checked, or why it has not."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mechverify.cli.terminal import EXIT, INTERRUPTED, REJECTED, err, stop

if TYPE_CHECKING:
    from mechverify.kernel.core.errors import MechverifyError
    from mechverify.report.checked import Checked


def checked_file(path: Path, limit: float | None, **options: Any) -> "Checked":
    """What the kernel makes of a file. What it may cost is said before it begins."""
    from mechverify import kernel
    from mechverify.kernel.check import SECONDS
    from mechverify.kernel.core.errors import OverLimit
    from mechverify.kernel.core.texts import printable
    from mechverify.kernel.core.words import units
    from mechverify.report.checked import Checked
    from mechverify.report.progress import Reporter

    try:
        data = path.read_bytes()
    except OSError as error:
        hint = "; give a file that `mechverify prove` wrote"
        stop(f"can't read {printable(str(path))}: {error.strerror}{hint}")
    start, named = time.monotonic(), printable(str(path))
    with Reporter(err) as reporter:

        def watch(work: int, allowed: float) -> None:
            if not work:
                err.print(
                    f"at most {units(allowed)} units of work, about {_duration(SECONDS * allowed)}",
                    soft_wrap=True,
                )
            reporter("the kernel checks the certificate", work / allowed)

        try:
            theorem = kernel.check(data, limit=limit, watch=watch, **options)
        except kernel.NotACertificate as error:
            stop(f"NOT A CERTIFICATE: {named}: {error}{_hint(error)}")
        except OverLimit as error:
            stop(f"NOT CHECKED: {named}: {error}", EXIT["UNKNOWN"])
        except kernel.Rejected as error:
            stop(f"REJECTED: {named}: {error}{_hint(error)}", REJECTED)
        except KeyboardInterrupt:
            stop(f"NOT CHECKED: {named}: interrupted; check it again", INTERRUPTED)
    return Checked(path, theorem, time.monotonic() - start, data)


def _hint(error: "MechverifyError") -> str:
    from mechverify.errors import advice

    return f"; {text}" if (text := advice(error)) else ""


def _duration(seconds: float) -> str:
    for unit, size in (
        ("years", 31_556_952),
        ("days", 86_400),
        ("hours", 3_600),
        ("minutes", 60),
    ):
        if seconds >= 2 * size:
            return f"{seconds / size:,.0f} {unit}"
    return f"{max(seconds, 0.1):.1f} s"
