"""Which function a theorem speaks of: the operations of a model, over the reals or as float32 performs them.

`Real`: exact real arithmetic on these exact weights. float32.py has the other semantics, as one that widens these
operations. Each method returns balls that hold every value that an evaluation can have.
"""

from typing import TYPE_CHECKING, Any

from mechverify.kernel.core.arithmetic import Arithmetic, Ball
from mechverify.kernel.core.loading import Rows

if TYPE_CHECKING:
    from mechverify.kernel.core.functions import Function


GROUPS = {"semantics": ("real",), "float32": ("float32",)}
SEMANTICS: "Rows[type[Real]]" = Rows("core", GROUPS)


class Real:
    axioms: tuple[str, ...] = ()

    def __init__(self, arithmetic: Arithmetic):
        self.ar = arithmetic

    @classmethod
    def of(cls, claim: Any, arithmetic: Arithmetic) -> "tuple[Real, Any]":
        """Itself, and the claim that is to be decided with it."""
        return cls(arithmetic), claim

    def add(self, x: Ball, y: Ball, sums: tuple[int, ...] = (0, 0)) -> Ball:
        """`sums`: how many products each operand is a sum of, if it is; the other one may start that sum."""
        return self.rounded(self.ar.add(x, y))

    def sub(self, x: Ball, y: Ball) -> Ball:
        return self.rounded(self.ar.sub(x, y))

    def mul(self, x: Ball, y: Ball) -> Ball:
        return self.rounded(self.ar.mul(x, y))

    def div(self, x: Ball, y: Ball) -> Ball:
        return self.rounded(self.ar.div(x, y), 3)

    def function(self, name: str, f: "Function", x: Ball) -> Ball:
        return f.value(self.ar, x)

    def sqrt(self, x: Ball) -> Ball:
        return self.rounded(
            self.ar.sqrt(x), 2
        )  # of the root, and of a constant that isn't a float32

    def contract(self, spec: str, x: Ball, y: Ball) -> Ball:
        return self.ar.contract(spec, x, y)

    def rounded(self, x: Ball, times: int = 1) -> Ball:
        """What `times` roundings may make of results in `x`."""
        return x

    def alone(self, x: Ball, n: int) -> Ball:
        """A part of a sum that the other operand, a sum of n products (0: none), lacks: see `add`."""
        return self.rounded(x, n + 2 if n else 1)

    def scores(self, x: Ball, axes: tuple[int, ...]) -> Ball:
        """Scores along `axes` whose exact softmax holds the computed one before sum and quotient are rounded."""
        return x

    def probabilities(self, x: Ball, n: int) -> Ball:
        """What summing n factors and dividing by the sum may make of probabilities in `x`."""
        return x

    def attended(self, x: Ball, n: int) -> Ball:
        """Values u such that sum_i p_i u_i, with exact p, holds the computed sum over n positions."""
        return x


ROWS = {"real": Real}
