"""State what a small network computes, and get back a theorem, a counterexample, or the tightest bound
that can be proved.

Names load on first use, so that `import mechverify.kernel` needs nothing but numpy.
"""

import time
from importlib import import_module
from typing import Any

STARTED = time.monotonic()  # the process, or nearly: a time limit counts from here

_HOMES = {
    "Accuracy": "mechverify.claims",
    "Bounds": "mechverify.claims",
    "Cases": "mechverify.claims",
    "Circuits": "mechverify.claims",
    "Equivariant": "mechverify.claims",
    "Holds": "mechverify.claims",
    "Mod": "mechverify.claims",
    "Part": "mechverify.claims",
    "Same": "mechverify.claims",
    "Share": "mechverify.claims",
    "Within": "mechverify.claims",
    "ball": "mechverify.claims",
    "box": "mechverify.claims",
    "capture": "mechverify.claims",
    "count": "mechverify.claims",
    "differ": "mechverify.claims",
    "distinct": "mechverify.claims",
    "dyck": "mechverify.claims",
    "interchanged": "mechverify.claims",
    "kth_largest": "mechverify.claims",
    "load": "mechverify.claims",
    "lookup": "mechverify.claims",
    "normal": "mechverify.claims",
    "pair_mlp": "mechverify.claims",
    "parts": "mechverify.claims",
    "smallest": "mechverify.provers",
    "tokens": "mechverify.claims",
    "transformer": "mechverify.claims",
    "uniform": "mechverify.claims",
    "prove": "mechverify.provers",
}
__all__ = list(_HOMES)  # pyright: ignore[reportUnsupportedDunderAll]: each loads on first use


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'mechverify' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
