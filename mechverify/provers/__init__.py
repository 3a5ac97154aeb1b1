"""How a proof is found. Nothing here is trusted: what counts is what the kernel accepts.

Names load on first use: the command line reads base.py alone, without torch and sympy.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mechverify.provers.chain import prove
    from mechverify.provers.circuits import Smallest, smallest
    from mechverify.provers.confirm import Outcome

__all__ = ["Outcome", "Smallest", "prove", "smallest"]
_HOMES = {
    "Outcome": "confirm",
    "Smallest": "circuits",
    "prove": "chain",
    "smallest": "circuits",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
