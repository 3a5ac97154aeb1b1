"""Every float32 evaluation of a graph, as a semantics: the operations of the reals, widened by what rounding may do.

Each + - * / and square root errs by at most 2^-24 relatively, and by 2^-126 where a result is subnormal (flushed or
not); sums are added in any order, with or without fused multiply-add; a quotient may be taken by a rounded
reciprocal; softmax subtracts the largest score first, and its exp errs as the axiom `libm:float32` says.

Lemma O1 (docs/soundness/options.md).
"""

from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from mechverify.kernel.core.arithmetic import Arithmetic, Ball
from mechverify.kernel.core.errors import Rejected
from mechverify.kernel.core.loading import late
from mechverify.kernel.core.semantics import Real

if TYPE_CHECKING:
    from mechverify.kernel.core.functions import Function

U32 = (
    2.0**-24 * 129 / 128
)  # n * U32 exceeds gamma_n = n 2^-24 / (1 - n 2^-24) for n up to 2^15
FLUSH = (
    2.0**-126
)  # what underflow loses, whether a program flushes subnormal numbers or not
LARGEST = (
    2.0**125
)  # no value, and no partial sum, may come near float32's largest number
EXP = 2.0**-21  # axiom: |computed exp(d) - e^d| <= EXP e^d + FLUSH for d <= 0


class Float32(Real):
    axioms = ("libm:float32",)

    @classmethod
    def of(cls, claim: Any, arithmetic: Arithmetic) -> tuple[Real, Any]:
        """Rejects weights that the semantics doesn't speak of."""
        if claim.captured:
            programs = late("core.programs")
            return programs.Programs(arithmetic), programs.program(claim)
        for name, value in claim.weights.items():
            with np.errstate(over="ignore"):
                if not np.array_equal(
                    value.astype(np.float32).astype(np.float64), value
                ):
                    raise Rejected(
                        f"semantics float32 speaks of float32 weights; {name} holds other numbers"
                    )
        return cls(arithmetic), claim

    def rounded(self, x: Ball, times: int = 1) -> Ball:
        return self.ar.widen(self._bounded(x, x), times * U32, times * FLUSH)

    def add(self, x: Ball, y: Ball, sums: tuple[int, ...] = (0, 0)) -> Ball:
        """Its own rounding, and gamma_(n+1) of an operand that goes through the roundings of the other one's sum (what
        the products bear of that: see `contract`)."""
        result = self.rounded(self.ar.add(x, y))
        for n, addend in zip(sums, (y, x), strict=True):
            if n:
                result = self.ar.widen(
                    result,
                    self._gamma(n + 1),
                    FLUSH,
                    of=self._bounded(addend, addend).size,
                )
        return result

    def function(self, name: str, f: "Function", x: Ball) -> Ball:
        if name not in ("relu", "abs"):  # these are exact
            raise Rejected(
                f"semantics float32 says nothing of {name!r} yet; use semantics real"
            )
        return f.value(self.ar, x)

    def contract(self, spec: str, x: Ball, y: Ball) -> Ball:
        """n products and sums, and maybe an addend: gamma_(n+1) of the sum of absolute products, and n flushes of each
        kind."""
        result = self.ar.contract(spec, x, y)
        size = self.ar.contract(spec, x.size, y.size)
        first, _, outcome = spec.replace("->", ",").split(",")
        sizes = dict(zip(first, x.mid.shape[x.mid.ndim - len(first) :], strict=True))
        n = prod(length for letter, length in sizes.items() if letter not in outcome)
        return self.ar.widen(
            self._bounded(result, size), self._gamma(n + 1), 3 * n * FLUSH, of=size
        )

    def scores(self, x: Ball, axes: tuple[int, ...]) -> Ball:
        """fl(s_i - top) errs by at most 2 u max|s|; EXP amounts to at most 2 EXP more (flushes: `probabilities`)."""
        size = self._bounded(x, x).size.map(lambda a: a.max(axes, keepdims=True))
        return self.ar.widen(x, 2 * U32, 2 * EXP + FLUSH, of=size)

    def probabilities(self, x: Ball, n: int) -> Ball:
        return self.ar.widen(x, self._gamma(n + 4), 4 * FLUSH)

    def attended(self, x: Ball, n: int) -> Ball:
        """p_i (1 + gamma_(n+4)) + 4 FLUSH, then a sum of n products; each u_i can bear all, as sum_i p_i = 1."""
        size = self._bounded(x, x).size.map(lambda a: a.max(keepdims=True))
        blurred = self.ar.widen(x, self._gamma(2 * n + 5), 8 * n * FLUSH)
        return self.ar.widen(blurred, 8 * n * FLUSH, of=size)

    def _gamma(self, n: int) -> float:
        if n > 2**15:
            raise Rejected(
                f"a float32 sum of {n} terms is too long to bound (limit 2^15)"
            )
        return n * U32

    def _bounded(self, x: Ball, size: Ball) -> Ball:
        top = size.size
        if not np.all(top.mid < self.ar.units(LARGEST, top.exponent)):
            raise Rejected("a float32 value may overflow")
        return x


ROWS = {"float32": Float32}
