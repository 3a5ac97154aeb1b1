"""The number pi."""

from mechverify.kernel.core.elementary import pi
from mechverify.kernel.relaxation.operations import Fixed


class Pi(Fixed):
    def ball(self, known, n):
        return pi(known.ar).map(lambda a: a.reshape(1))


ROWS = {"pi": Pi()}
