"""State what a small network computes, and get back a theorem, a counterexample, or the tightest bound
that can be proved.

Names load on first use: `import mechverify` takes milliseconds, `mechverify.check` needs nothing but numpy.
"""

import time
from importlib import import_module
from typing import TYPE_CHECKING, Any

STARTED = time.monotonic()  # the process, or nearly: a time limit counts from here

if TYPE_CHECKING:  # what editors and type checkers see
    from mechverify.claims import (
        Accuracy,
        Bounds,
        Cases,
        Circuits,
        ClaimError,
        Equivariant,
        Holds,
        Mod,
        Part,
        Same,
        Share,
        Within,
        ball,
        box,
        capture,
        count,
        differ,
        distinct,
        dyck,
        interchanged,
        kth_largest,
        load,
        lookup,
        normal,
        pair_mlp,
        parts,
        tokens,
        transformer,
        uniform,
        union,
    )
    from mechverify.kernel import Theorem
    from mechverify.kernel.core.errors import (
        MechverifyError,
        NotACertificate,
        OverLimit,
        Rejected,
        Unsupported,
    )
    from mechverify.provers import prove, smallest
    from mechverify.verdict import Verdict, check

__all__ = [
    "Accuracy", "Bounds", "Cases", "Circuits", "ClaimError", "Equivariant", "Holds", "MechverifyError", "Mod",
    "NotACertificate", "OverLimit", "Part", "Rejected", "Same", "Share", "Theorem", "Unsupported", "Verdict", "Within",
    "ball", "box", "capture", "check", "count", "differ", "distinct", "dyck", "interchanged", "kth_largest", "load",
    "lookup", "normal", "pair_mlp", "parts", "prove", "smallest", "tokens", "transformer", "uniform",
    "union",
]  # fmt: skip
_HOMES = {
    **dict.fromkeys(("Verdict", "check"), "verdict"),
    **dict.fromkeys(("prove", "smallest"), "provers"),
    **dict.fromkeys(
        ("MechverifyError", "NotACertificate", "OverLimit", "Rejected", "Unsupported"),
        "kernel.core.errors",
    ),
    "Theorem": "kernel",
}  # of the others: claims


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES.get(name, 'claims')}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
