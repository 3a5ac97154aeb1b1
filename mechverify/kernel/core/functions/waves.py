"""Sine and cosine."""

from mechverify.kernel.core import elementary
from mechverify.kernel.core.arithmetic import Arithmetic, Ball
from mechverify.kernel.core.functions import Function


def _wave(ar: Arithmetic, p: Ball, q: Ball, fp: Ball, fq: Ball) -> tuple[Ball, Ball]:
    """f'' = -f, which changes by at most q - p."""
    width = ar.sub(q, p).size
    return ar.sub(-fp, width), ar.add(-fp, width)


ROWS = {
    "sin": Function(elementary.sin, _wave, least=-1.0, most=1.0),
    "cos": Function(elementary.cos, _wave, least=-1.0, most=1.0),
}
