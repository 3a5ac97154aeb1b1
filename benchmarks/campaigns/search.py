"""Verdicts beside the truth: small claims whose extremes are known exactly, with thresholds on and around them.

Over a box the claims speak of functions whose largest value lies at a corner (affine, convex, affine in each input),
over tokens every input is run, all in Python's fractions: a verdict is right, or UNKNOWN; a refutation is shown at an
input of the user's own domain; a claim that is in order is never called bad input.
"""

import itertools
import re
from collections import Counter
from collections.abc import Callable
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np
import sympy
import torch
from torch import nn

from benchmarks.board import Board
from benchmarks.campaigns.examples import Example
from mechverify import Bounds, Holds, ball, box, capture, lookup, tokens
from mechverify.claims.errors import ClaimError
from mechverify.kernel.core.neighbours import float_above, float_below
from mechverify.provers import prove

CLAIMS, QUICK, CLEAR = 4_000, 80, Fraction(1, 10_000)  # CLEAR: a gap that has to be decided
Number = Any  # int, float or Fraction, as the user writes it


class Case(NamedTuple):
    """`value` of an input, in fractions; `feasible`: the user's inputs at which the extremes are, none if the
    conditions exclude all; `inside`: whether an input is one of the user's."""

    claim: Callable[[], Bounds]
    value: Callable[[tuple], Fraction]
    threshold: Fraction | None
    feasible: list[tuple]
    inside: Callable[[tuple], bool]
    solver: bool


def run(board: Board, quick: bool) -> None:
    told = judged(QUICK if quick else CLAIMS, seed=15)
    board.row(
        "claims with a verdict that is false, or a refutation outside the domain", "0", told["false"], not told["false"]
    )
    board.row("claims in order that end in an error", "0", told["error"], not told["error"])
    share = told["clear, decided"] / max(1, told["clear"])
    board.row("claims clear of their threshold that are decided", ">= 0.97", round(share, 4), share >= 0.97)
    board.row("all outcomes", "for information", "; ".join(f"{k}: {v}" for k, v in sorted(told.items())), True)


def judged(count: int, seed: int) -> Counter:
    """What became of so many random claims."""
    told: Counter = Counter()
    for i in range(count):
        rng = np.random.default_rng((seed, i))
        case = (_of_box, _of_tokens, _of_module)[min(2, int(rng.integers(5)) // 2)](rng)
        top = max(map(case.value, case.feasible), default=None)
        try:
            outcome = prove(case.claim(), solver=case.solver, time_limit=20)
        except ClaimError as error:
            vacuous = not case.feasible and "nothing is claimed" in str(error)
            # at the ends of float64's range, numbers have 600 digits
            long = re.search(r"has (too many|more than [0-9]+) digits", str(error))
            told["vacuous" if vacuous else "refused for a number's length" if long else "error"] += 1
            if not vacuous and not long:
                print(f"claim {i} of seed {seed}: {error}")
            continue
        told[outcome.verdict] += 1
        if false := _false(case, outcome, top):
            print(f"claim {i} of seed {seed}: {outcome.verdict}, {false}")
            told["false"] += 1
        if case.threshold is not None and top is not None and abs(top - case.threshold) > CLEAR * max(1, abs(top)):
            told["clear"] += 1
            told["clear, decided"] += outcome.verdict in ("PROVED", "REFUTED")
    return told


def _false(case: Case, outcome: Any, top: Fraction | None) -> str | None:
    """What is false of an outcome."""
    theorem = outcome.theorem
    if theorem is not None and top is not None:
        low, high = theorem.range.low[0], theorem.range.high[0]
        if theorem.claim.least is not None:  # Holds, of threshold - value
            top_there, end = case.threshold - top, low
            wrong = end > top_there
        else:
            top_there, end = top, high
            wrong = end < top_there
        if wrong:
            return f"{float(top_there)} is beyond the proved {end}"
    if outcome.verdict == "PROVED" and top is not None and top > case.threshold:
        return f"reached is {float(top)}, the threshold {float(case.threshold)}"
    if outcome.verdict != "REFUTED":
        return None
    at = theorem.broken.argmax()
    point = (*theorem.tokens[at].tolist(), *map(Fraction, theorem.points[at].tolist()))
    if not theorem.broken[at] or not case.inside(point):
        return f"the input {point} is none of the user's"
    return None if case.value(point) > case.threshold else f"the value at {point} is {float(case.value(point))}"


def _of_box(rng: np.random.Generator) -> Case:
    """A convex or multi-affine function of one to three inputs."""
    n = int(rng.integers(1, 4))
    scale = rng.choice([1.0, 1.0, 1.0, 1e-3, 1e6, 1e300, 5e-324 * 2**20])
    ends = [sorted((_number(rng, scale), _number(rng, scale)), key=_exact) for _ in range(n)]
    low, high = ([e[0] for e in ends], [e[1] if rng.random() > 0.1 else e[0] for e in ends])
    kinds = ["affine", "peak", "distance", "bilinear", "square"]
    kind = "affine" if scale > 1e6 else str(rng.choice(kinds))
    rows = [[_number(rng, 1.0) for _ in range(n + 1)] for _ in range(2)]
    if kind == "square" and not any(rows[0][:n]):
        kind = "affine"  # the square of a float alone is Python's, which rounds it

    def value(x: tuple, largest: Callable, size: Callable, c: Callable) -> Any:
        first, second = (sum((c(k) * v for k, v in zip(row, x, strict=False)), c(row[-1])) for row in rows)
        return {
            "affine": lambda: first, "peak": lambda: largest(first, second), "distance": lambda: size(first),
            "bilinear": lambda: first + c(rows[1][0]) * x[0] * x[-1] * int(n > 1), "square": lambda: first**2,
        }[kind]()  # fmt: skip

    def exact(x: tuple) -> Fraction:
        return value(x, max, abs, _exact)

    floor = None
    if rng.random() < 0.25:  # of the first input: inside, at its last point, or beyond
        floor = [_exact(high[0]), Fraction(float_above(_exact(high[0]) + Fraction(scale))), _number(rng, scale)][
            rng.integers(3)
        ]
    corners = [tuple(map(_exact, c)) for c in itertools.product(*zip(low, high, strict=True))]
    if floor is not None:
        first = max(_exact(floor), _exact(low[0]))
        corners = [(max(c[0], first), *c[1:]) for c in corners] if first <= _exact(high[0]) else []
    threshold, typed = _threshold(rng, max(map(exact, corners), default=Fraction(0)))
    holds = bool(rng.random() < 0.5)

    def claim() -> Bounds:
        x = box(low, high)
        symbols = tuple(x[i] for i in range(n))
        said = value(symbols, sympy.Max, sympy.Abs, _typed)
        given = [] if floor is None else [x[0] >= _typed(floor)]
        predicate = said <= _typed(typed) if holds and isinstance(typed, float | Fraction) else None
        if isinstance(predicate, sympy.Le | sympy.Ge):  # sympy may know better already
            return Holds(predicate, over=x, given=given)
        return Bounds([said], over=x, at_most=typed, given=given)

    def inside(x: tuple) -> bool:
        return all(_exact(a) <= v <= _exact(b) for a, v, b in zip(low, x, high, strict=True)) and (
            floor is None or x[0] >= _exact(floor)
        )

    return Case(claim, exact, threshold, corners, inside, bool(rng.random() < 0.3))


def _of_tokens(rng: np.random.Generator) -> Case:
    """Integers and tables of one to three tokens."""
    length, vocab = int(rng.integers(1, 4)), int(rng.integers(2, 6))
    values = [int(v) for v in rng.integers(-9, 10, vocab)]
    allowed = [sorted({int(v) for v in rng.integers(0, vocab, 3)}) for _ in range(length)]
    table = [_number(rng, 1.0) for _ in range(5)]
    a, b, m = int(rng.integers(-3, 4)), int(rng.integers(1, 4)), int(rng.integers(2, 6))
    kind = int(rng.integers(4))

    def integer(x: tuple, largest: Callable, modulo: Callable) -> Any:
        return [lambda: a * x[0] + b * x[-1], lambda: largest(x[0], b * x[-1]), lambda: modulo(x[0] + b * x[-1], m),
                lambda: x[0] * x[-1] + b][kind]()  # fmt: skip

    looked = bool(rng.random() < 0.4)

    def value(ids: tuple) -> Fraction:
        number = integer(tuple(values[i] for i in ids), max, lambda v, k: v % k)
        return _exact(table[number % 5]) if looked else Fraction(number)

    least = int(rng.integers(-12, 13)) if rng.random() < 0.3 else None

    def inside(ids: tuple) -> bool:
        here = all(i in known for i, known in zip(ids, allowed, strict=True))
        return here and (least is None or values[ids[0]] + values[ids[-1]] >= least)

    feasible = [ids for ids in itertools.product(*allowed) if inside(ids)]
    threshold, typed = _threshold(rng, max(map(value, feasible), default=Fraction(0)))

    def claim() -> Bounds:
        x = tokens("x", length=length, vocab=vocab, values=values, allowed=allowed)
        said = integer(tuple(x), sympy.Max, sympy.Mod)
        said = lookup([_typed(v) for v in table], sympy.Mod(said, 5)) if looked else sympy.sympify(said)
        condition = [] if least is None else [x[0] + x[-1] >= least]
        return Bounds([said], over=x, at_most=typed, given=condition)

    return Case(claim, value, threshold, feasible, inside, bool(rng.random() < 0.3))


class _Convex(nn.Module):
    """A ReLU network whose second layer is not negative: convex."""

    def __init__(self, rng: np.random.Generator, n: int):
        super().__init__()
        w, b, u = rng.normal(size=(n, 4)), rng.normal(size=4), rng.uniform(0, 1, (4, 1))
        self.w, self.b, self.u = (nn.Parameter(torch.from_numpy(a.astype(np.float32))) for a in (w, b, u))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(x @ self.w + self.b) @ self.u


def _of_module(rng: np.random.Generator) -> Case:
    """A captured convex network over a ball."""
    n = int(rng.integers(1, 4))
    net = _Convex(rng, n).eval()
    centre, radius = [_number(rng, 1.0) for _ in range(n)], abs(_exact(_number(rng, 0.2)))
    w, b, u = (
        [[Fraction(v) for v in row] for row in a.detach().reshape(len(a), -1).tolist()] for a in (net.w, net.b, net.u)
    )

    def value(x: tuple) -> Fraction:
        hidden = [max(Fraction(0), sum((w[i][j] * x[i] for i in range(n)), b[j][0])) for j in range(4)]
        return sum((h * row[0] for h, row in zip(hidden, u, strict=True)), Fraction(0))

    ends = [(_exact(c) - radius, _exact(c) + radius) for c in centre]
    corners = list(itertools.product(*ends))
    threshold, typed = _threshold(rng, max(map(value, corners)))

    def claim() -> Bounds:
        model = capture(net, torch.zeros(1, n))
        return Bounds(model["output"], over=ball(centre, radius), at_most=typed)

    def inside(x: tuple) -> bool:
        return all(a <= v <= b for v, (a, b) in zip(x, ends, strict=True))

    return Case(claim, value, threshold, corners, inside, bool(rng.random() < 0.2))


def _threshold(rng: np.random.Generator, top: Fraction) -> tuple[Fraction | None, Any]:
    """At the largest value, an ulp beside it, near it or far from it; and as the user types it."""
    near = float_below(top)
    ulp = Fraction(float(np.spacing(abs(near)))) if np.isfinite(near) else Fraction(1)
    size = max(Fraction(1), abs(top))
    gap = rng.choice(8)
    exact = top + [None, 0, ulp, -ulp, size / 10**12, -size / 10**12, size / 1_000, -size / 1_000][gap] if gap else None
    if exact is None:
        return None, None
    if rng.random() < 0.5:
        typed = float_below(exact)
        return Fraction(typed), typed
    if rng.random() < 0.5 or exact.denominator > 10**100:
        return exact, exact
    return exact, str(exact)


def _number(rng: np.random.Generator, scale: float) -> Number:
    kind = rng.integers(5)
    if kind == 0:
        return int(rng.integers(-4, 5)) * (int(scale) or 1) if scale < 1e300 else float(rng.integers(-4, 5)) * scale
    if kind == 1:
        return Fraction(int(rng.integers(-9, 10)), int(rng.integers(1, 10))) * Fraction(scale)
    if kind == 2:
        return np.float32(rng.normal()) if scale == 1 else float(np.float32(rng.normal())) * scale
    return float(rng.normal() * scale)


def _exact(value: Number) -> Fraction:
    return Fraction(float(value)) if isinstance(value, np.floating) else Fraction(value)


def _typed(value: Number) -> Any:
    return sympy.Rational(value.numerator, value.denominator) if isinstance(value, Fraction) else value


# Examples of what was found.


def _told(make: Callable[[], Bounds]) -> str:
    try:
        return prove(make(), time_limit=60).verdict
    except Exception as error:
        return f"{type(error).__name__}: {str(error)[:60]}"


class _Cancelling(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return ((x + 1e16) - 1e16) - x


class Attention(nn.Module):
    """Embeddings [6, 16] and [5, 16], one head, layer norm."""

    def __init__(self, seed: int):
        super().__init__()
        g = torch.Generator().manual_seed(seed)
        shapes = ((6, 16), (5, 16), *[(16, 16)] * 4, (16, 6))
        self.w = nn.ParameterList([torch.randn(*s, generator=g, dtype=torch.float64) / s[0] ** 0.5 for s in shapes])
        self.norm = nn.LayerNorm(16).double()

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        e, p, q, k, v, o, u = self.w
        h = e[ids] + p
        z = self.norm(h)
        scores = (z @ q) @ (z @ k).transpose(-1, -2) / 4
        mask = torch.tril(torch.ones(5, 5, dtype=torch.bool))
        h = h + torch.softmax(scores.masked_fill(~mask, float("-inf")), -1) @ (z @ v) @ o
        return self.norm(h) @ u


def attention_claim(seed: int, above: float) -> Bounds:
    """The last logits, over eight sequences, stay below the largest one plus `above`."""
    net = Attention(seed).eval()
    ids = torch.tensor([[2, *middle, 3] for middle in itertools.product([0, 1], repeat=3)])
    with torch.no_grad():
        top = float(net(ids)[:, -1].max())
    x = tokens("x", length=5, vocab=6, allowed=[[2], [0, 1], [0, 1], [0, 1], [3]])
    return Bounds(capture(net, ids[:1])["output"][-1], over=x, at_most=top + above)


def _of_line(low: Any, high: Any, condition: Callable[[sympy.Symbol], sympy.Basic]) -> str:
    def make() -> Bounds:
        x = box([low], [high])
        return Holds(condition(x[0]), over=x)

    return _told(make)


def _cancelling(**thresholds: Any) -> str:
    model = capture(_Cancelling().eval(), torch.zeros(1, 1, dtype=torch.float64))
    return _told(lambda: Bounds(model["output"], over=box([0], [1]), **thresholds))


def _corners(low: Any, high: Any) -> str:
    x = box([low], [high])
    return f"{float(x.low[0][0])!r} to {float(x.high[0][0])!r}"


def _unbounded() -> str:
    x = box([-1.7e308], [1.7e308])
    return _told(lambda: Bounds([3 * x[0]], over=x))


BIG, THIRD = sympy.Rational(9831176675884219, 20000000000000000), Fraction(1, 3)
THIRD_LESS = sympy.Rational(1, 3) - sympy.Rational(1, 10**17)
EMPTY = "ClaimError: no input of the domain satisfies the claim's conditions: not"
DEEP = "RecursionError: maximum recursion depth exceeded in comparison"
NAN = "Rejected: proof.inputs[1][1][0]: expected a number as text"
OPEN = "Rejected: the claim is not refuted: no input was shown to break a thre"
EXAMPLES = [
    Example("x <= 2^53 over [0, 2^53 + 1]", "PROVED", "UNKNOWN", lambda: _of_line(0, 2**53 + 1, lambda x: x <= 2**53)),
    Example("corners of the box [0, 2^53 + 1]", "0.0 to 9007199254740992.0", "0.0 to 9007199254740994.0",
            lambda: _corners(0, 2**53 + 1)),
    Example("corners of the box [1/3, 1/3]", "0.3333333333333333 to 0.3333333333333333",
            "0.3333333333333333 to 0.33333333333333337", lambda: _corners(THIRD, THIRD)),
    Example("x <= 1/3 - 10^-17 over [1/3, 1/3 + 10^-20]", DEEP, "UNKNOWN",
            lambda: _of_line(THIRD, THIRD + Fraction(1, 10**20), lambda x: x <= THIRD_LESS)),
    Example("the threshold [np.float32(0.7)]", "7/10", "11744051/16777216",
            lambda: str(Bounds([box([0], [1])[0]], over=box([0], [1]), at_most=[np.float32(0.7)]).at_most[0])),
    Example("x >= 3/10 over [0.3, 1]", OPEN, "REFUTED",
            lambda: _of_line(0.3, 1, lambda x: x >= sympy.Rational(3, 10))),
    Example("a numerator that no float64 holds, true", DEEP, "PROVED",
             lambda: _of_line(0.5, 1, lambda x: x >= BIG)),
    Example("a numerator that no float64 holds, false", DEEP, "REFUTED",
             lambda: _of_line(0.4, 1, lambda x: x >= BIG)),
    Example("((x + 1e16) - 1e16) - x <= 1e-300, over [0, 1]", "PROVED", "PROVED", lambda: _cancelling(at_most=1e-300)),
    Example("((x + 1e16) - 1e16) - x >= 1e-300, over [0, 1]", OPEN, "REFUTED", lambda: _cancelling(at_least=1e-300)),
    Example("a bound that nobody knows, of 3x over +-1.7e308", NAN, "UNKNOWN", _unbounded),
    *(Example(f"a head over eight sequences, seed {seed}, true by 0.001", EMPTY, "PROVED",
              lambda seed=seed: _told(lambda: attention_claim(seed, 1e-3))) for seed in range(4)),
]  # fmt: skip
