"""The exponential."""

from mechverify.kernel.core.elementary import exp
from mechverify.kernel.core.functions import Function, monotone

ROWS = {
    "exp": Function(
        exp,
        monotone(lambda ar, f: f, rising=True),
        increasing=1,
        least=0.0,
        reach=(-745.0, 709.78),
    ),
}
